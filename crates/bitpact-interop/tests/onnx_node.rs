//! The ONNX project's own tests of operators, one small network each, where a folder with them is given:
//! `BITPACT_ONNX_NODE_TESTS=DIR`, the folder `onnx/backend/test/data/node` of PyPI's `onnx` 1.22.0.
//!
//! Of every test whose operators are all read, the network is computed in plain loops and compared with the expected
//! output. A test passes, or `onnx_node_refusals.txt` has it with the reason; none may give other values.
//! `BITPACT_WRITE_DOCS=1` writes that list.

#[path = "common/forward.rs"]
mod forward;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use bitpact_graph::Shape;
use bitpact_interop::ImportOptions;
use bitpact_interop::onnx::{import_bytes, operators, proto};
use forward::forward;
use prost::Message;

const REFUSALS: &str = "tests/onnx_node_refusals.txt";
/// Elements of an output that is compared in the file's order, by a layer that multiplies by one.
const MOST_IN_ORDER: usize = 3000;

/// How a test was tried, and what came of it.
enum Outcome {
    Passed,
    Refused(String),
    Wrong(String),
}

/// Refusals by test, networks and constants that are as expected, and what is wrong.
type Found = (BTreeMap<String, String>, [usize; 2], Vec<String>);

fn main_test(folder: &Path) -> Option<Found> {
    let known: HashSet<&str> = operators().collect();
    let mut tests: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    tests.sort();
    let (mut refused, mut passed, mut wrong) = (BTreeMap::new(), [0, 0], Vec::new());
    for test in tests {
        let name = test.file_name()?.to_str()?.to_owned();
        let Ok(bytes) = std::fs::read(test.join("model.onnx")) else { continue };
        let model = proto::Model::decode(&bytes[..]).expect("a test is an ONNX file");
        // What is written out of an operator that is not read is no test of those it is written in.
        if let Some((of, _)) = name.split_once("_expanded")
            && !std::fs::read(folder.join(of).join("model.onnx")).is_ok_and(|bytes| is_known(&bytes, &known))
        {
            continue;
        }
        if !is_known(&bytes, &known) {
            continue;
        }
        let Some(case) = Case::read(&test, &model) else {
            refused.insert(name, "an input or output that is no tensor of numbers".to_owned());
            continue;
        };
        let (mut first, mut good) = (None, false);
        for (network, outcome) in case.run() {
            match outcome {
                Outcome::Passed => {
                    passed[usize::from(!network)] += 1;
                    good = true;
                }
                Outcome::Refused(why) => {
                    first.get_or_insert(why);
                }
                Outcome::Wrong(why) => wrong.push(format!("{name}: {why}")),
            }
        }
        if let (false, Some(why)) = (good, first) {
            let why = why.replace('\n', " ").replace("1 node has no counterpart here:   ", "");
            refused.insert(name, why);
        }
    }
    Some((refused, passed, wrong))
}

/// Whether all operators of a test are read.
fn is_known(bytes: &[u8], known: &HashSet<&str>) -> bool {
    let model = proto::Model::decode(bytes).expect("a test is an ONNX file");
    let nodes = model.graph.unwrap_or_default().node;
    let own = |node: &proto::Node| node.domain.as_deref().unwrap_or("").is_empty();
    !nodes.is_empty() && nodes.iter().all(|node| own(node) && known.contains(node.op_type()))
}

/// A tensor of a test.
#[derive(Clone)]
struct Array {
    dims: Vec<usize>,
    values: Vec<f64>,
    proto: proto::Tensor,
}

fn read(path: &Path) -> Option<Array> {
    let proto = proto::Tensor::decode(&std::fs::read(path).ok()?[..]).ok()?;
    let (dims, values) = bitpact_interop::onnx::numbers(&proto).ok()?;
    Some(Array { dims, values, proto })
}

struct Case {
    model: proto::Model,
    inputs: Vec<(String, Option<Array>)>,
    outputs: Vec<(String, Array)>,
}

impl Case {
    fn read(test: &Path, model: &proto::Model) -> Option<Self> {
        let graph = model.graph.as_ref()?;
        let set = test.join("test_data_set_0");
        let tensor = |kind: &str, i: usize| read(&set.join(format!("{kind}_{i}.pb")));
        let inputs =
            graph.input.iter().enumerate().map(|(i, value)| Some((value.name().to_owned(), Some(tensor("input", i)?))));
        let outputs =
            graph.output.iter().enumerate().map(|(i, value)| Some((value.name().to_owned(), tensor("output", i)?)));
        Some(Self {
            model: model.clone(),
            inputs: inputs.collect::<Option<_>>()?,
            outputs: outputs.collect::<Option<_>>()?,
        })
    }

    /// The ways in which the test makes a network here: with its first input as the image, with all inputs as parts of
    /// one image, and with all inputs as constants. The flag is false for the last.
    fn run(&self) -> Vec<(bool, Outcome)> {
        let mut outcomes = Vec::new();
        // Codes that come in or go out are real numbers in a network here.
        if self
            .graph()
            .node
            .iter()
            .any(|node| node.op_type().ends_with("uantizeLinear") || node.op_type().starts_with("QLinear"))
        {
            return vec![(false, self.constants())];
        }
        let first = self.first_input();
        let is_refused = matches!(first, Outcome::Refused(_));
        outcomes.push((true, first));
        if is_refused && self.inputs.len() > 1 {
            outcomes.push((true, self.parts()));
        }
        if is_refused {
            outcomes.push((true, self.one_image()));
        }
        let folds = ["Relu", "Conv", "Softmax"];
        if !self.model.graph.as_ref().is_some_and(|g| g.node.iter().any(|n| folds.contains(&n.op_type()))) {
            outcomes.push((false, self.constants()));
        }
        outcomes
    }

    fn graph(&self) -> proto::Graph {
        self.model.graph.clone().unwrap_or_default()
    }

    fn first_input(&self) -> Outcome {
        let Some((name, Some(image))) = self.inputs.first() else { return Outcome::Refused("no input".to_owned()) };
        let mut graph = self.graph();
        graph.input.truncate(1);
        for (name, array) in &self.inputs[1..] {
            if let Some(array) = array {
                graph.initializer.push(proto::Tensor { name: Some(name.clone()), ..array.proto.clone() });
            }
        }
        let _ = name;
        self.compare(graph, image)
    }

    /// The first input as one image without a batch of its own.
    fn one_image(&self) -> Outcome {
        let Some((name, Some(array))) = self.inputs.first() else { return Outcome::Refused("no input".to_owned()) };
        if array.dims.is_empty() || array.dims.len() > 3 || self.opset() < 13 || self.outputs.is_empty() {
            return Outcome::Refused("more than three sizes".to_owned());
        }
        let mut graph = self.graph();
        let image = Array { dims: [&[1], &array.dims[..]].concat(), ..array.clone() };
        graph.input = vec![value("batch_of_one", &image.dims)];
        graph.initializer.push(ints("first_axis", &[0]));
        for (name, array) in &self.inputs[1..] {
            if let Some(array) = array {
                graph.initializer.push(proto::Tensor { name: Some(name.clone()), ..array.proto.clone() });
            }
        }
        let mut squeeze = node("Squeeze", &["batch_of_one", "first_axis"], name, vec![]);
        squeeze.name = Some("squeeze".to_owned());
        graph.node.insert(0, squeeze);
        self.compare(graph, &image)
    }

    /// All inputs side by side along the second size.
    fn parts(&self) -> Outcome {
        let arrays: Vec<&Array> = self.inputs.iter().filter_map(|(_, array)| array.as_ref()).collect();
        let dims = arrays[0].dims.clone();
        let fits = |array: &&Array| {
            array.dims.len() == dims.len() && (0..dims.len()).all(|i| i == 1 || array.dims[i] == dims[i])
        };
        if dims.len() < 2 || !arrays.iter().all(fits) {
            return Outcome::Refused("inputs that are not parts of one image".to_owned());
        }
        let mut joined = dims.clone();
        joined[1] = arrays.iter().map(|array| array.dims[1]).sum();
        let outer = dims[0];
        let values = (0..outer).flat_map(|i| {
            arrays.iter().flat_map(move |array| {
                let part = array.values.len() / outer;
                array.values[i * part..][..part].to_vec()
            })
        });
        let image = Array { values: values.collect(), dims: joined.clone(), proto: arrays[0].proto.clone() };
        let mut graph = self.graph();
        graph.input = vec![value("all_parts", &joined)];
        let sizes: Vec<i64> = arrays.iter().map(|array| array.dims[1] as i64).collect();
        graph.initializer.push(ints("part_sizes", &sizes));
        let split = proto::Node {
            op_type: Some("Split".to_owned()),
            name: Some("split".to_owned()),
            input: vec!["all_parts".to_owned(), "part_sizes".to_owned()],
            output: self.inputs.iter().map(|(name, _)| name.clone()).collect(),
            attribute: vec![proto::Attribute { name: Some("axis".to_owned()), i: Some(1), ..Default::default() }],
            ..Default::default()
        };
        graph.node.insert(0, split);
        if self.opset() < 13 {
            return Outcome::Refused("several tensors of the network".to_owned());
        }
        self.compare(graph, &image)
    }

    fn opset(&self) -> i64 {
        self.model.opset_import.iter().filter_map(|set| set.version).max().unwrap_or(0)
    }

    /// All inputs as constants: the output, folded, is the weights of a layer that reads 1.
    fn constants(&self) -> Outcome {
        let Some((name, expected)) = self.outputs.first() else { return Outcome::Refused("no output".to_owned()) };
        let mut graph = self.graph();
        for (name, array) in &self.inputs {
            if let Some(array) = array {
                graph.initializer.push(proto::Tensor { name: Some(name.clone()), ..array.proto.clone() });
            }
        }
        graph.input = vec![value("one", &[1, 1])];
        graph.initializer.push(ints("row", &[1, -1]));
        let cast = proto::Attribute { name: Some("to".to_owned()), i: Some(1), ..Default::default() };
        graph.node.push(node("Cast", &[name], "as_floats", vec![cast]));
        graph.node.push(node("Reshape", &["as_floats", "row"], "as_row", vec![]));
        graph.node.push(node("MatMul", &["one", "as_row"], "folded", vec![]));
        graph.output = vec![value("folded", &[1, expected.values.len()])];
        let one = Array { dims: vec![1, 1], values: vec![1.0], proto: proto::Tensor::default() };
        match self.imported(graph, &[1, 1]) {
            Err(why) => Outcome::Refused(why),
            Ok(model) => check(&forward(&model, &one.values), &expected.values, expected),
        }
    }

    fn imported(&self, graph: proto::Graph, _dims: &[usize]) -> Result<bitpact_model::Model, String> {
        let model = proto::Model { graph: Some(graph), ..self.model.clone() };
        let path = Path::new("test.onnx");
        let options = ImportOptions { pixels: bitpact_interop::Pixels::named("raw255"), ..ImportOptions::default() };
        let imported = import_bytes(model.encode_to_vec(), "test", Path::new("."), path, &options);
        imported.map(|imported| imported.model).map_err(|error| error.to_string().replace("test.onnx: ", ""))
    }

    /// Computes the network image by image.
    fn compare(&self, mut graph: proto::Graph, image: &Array) -> Outcome {
        let Some((name, expected)) = self.outputs.first() else { return Outcome::Refused("no output".to_owned()) };
        let Some(&batch) = image.dims.first() else { return Outcome::Refused("an image without sizes".to_owned()) };
        let count = expected.values.len();
        if batch == 0
            || count == 0
            || expected.dims.first() != Some(&batch) && batch != 1
            || expected.dims.is_empty() && batch != 1
        {
            return Outcome::Refused("the batch is not the first size of the output".to_owned());
        }
        if image.values.iter().any(|v| !v.is_finite()) {
            return Outcome::Refused("an image that is not of finite numbers".to_owned());
        }
        let each = count / batch;
        graph.output.truncate(1);
        let in_order = each <= MOST_IN_ORDER;
        if in_order {
            let mut eye = vec![0.0; each * each];
            (0..each).for_each(|i| eye[i * each + i] = 1.0);
            graph.initializer.push(proto::Tensor {
                name: Some("eye".to_owned()),
                dims: vec![each as i64; 2],
                data_type: Some(1),
                float_data: eye,
                ..Default::default()
            });
            graph.initializer.push(ints("flat", &[batch as i64, each as i64]));
            graph.node.push(node("Reshape", &[name, "flat"], "flattened", vec![]));
            graph.node.push(node("MatMul", &["flattened", "eye"], "in_order", vec![]));
            graph.output = vec![value("in_order", &[batch, each])];
        }
        let model = match self.imported(graph, &image.dims) {
            Err(why) => return Outcome::Refused(why),
            Ok(model) => model,
        };
        let shape = model.graph.input();
        let mut computed = Vec::with_capacity(count);
        for i in 0..batch {
            let part = &image.values[i * (image.values.len() / batch)..][..image.values.len() / batch];
            // What the graph does to the image before its first layer is part of what a pixel means.
            let c = shape.c;
            let pixels = as_pixels(part, &image.dims, shape).into_iter().enumerate();
            let meant = |(i, x): (usize, f64)| {
                f64::from(model.input.scale[i % c]) * (x - f64::from(model.input.zero_point[i % c]))
            };
            let output = forward(&model, &pixels.map(meant).collect::<Vec<_>>());
            let to = model.graph.shape(model.graph.output());
            computed.extend(if in_order { output } else { channels_first(&output, to) });
        }
        check(&computed, &expected.values, expected)
    }
}

/// An image of ONNX in the order of pixels: its channels first, or last where that is the network's shape.
fn as_pixels(values: &[f64], dims: &[usize], shape: Shape) -> Vec<f64> {
    let last = dims.len() == 4 && dims[1..] == [shape.h, shape.w, shape.c] && dims[1..] != [shape.c, shape.h, shape.w];
    let last = last || dims.len() == 3 && dims[1..] == [shape.w, shape.c] && dims[1..] != [shape.c, shape.w];
    if last {
        return values.to_vec();
    }
    let plane = shape.h * shape.w;
    (0..values.len()).map(|i| values[i % shape.c * plane + i / shape.c]).collect()
}

fn channels_first(values: &[f64], shape: Shape) -> Vec<f64> {
    let plane = shape.h * shape.w;
    (0..values.len()).map(|i| values[i % plane * shape.c + i / plane]).collect()
}

fn check(computed: &[f64], expected: &[f64], array: &Array) -> Outcome {
    if computed.len() != expected.len() {
        return Outcome::Wrong(format!("{} values, expected {}", computed.len(), expected.len()));
    }
    // float16 and bfloat16 round what they give.
    let tolerance = match array.proto.data_type {
        Some(10) => 2e-3,
        Some(16) => 1e-2,
        _ => 1e-4,
    };
    let far = computed
        .iter()
        .zip(expected)
        .position(|(a, b)| !((a - b).abs() <= tolerance * b.abs().max(1.0) || a == b || a.is_nan() && b.is_nan()));
    match far {
        None => Outcome::Passed,
        Some(i) => Outcome::Wrong(format!("value {i} is {}, expected {}", computed[i], expected[i])),
    }
}

fn value(name: &str, dims: &[usize]) -> proto::ValueInfo {
    let dim = dims.iter().map(|&size| proto::Dim { dim_value: Some(size as i64), dim_param: None }).collect();
    let tensor_type = Some(proto::TensorType { elem_type: Some(1), shape: Some(proto::Dims { dim }) });
    proto::ValueInfo { name: Some(name.to_owned()), r#type: Some(proto::Type { tensor_type }) }
}

fn ints(name: &str, values: &[i64]) -> proto::Tensor {
    proto::Tensor {
        name: Some(name.to_owned()),
        dims: vec![values.len() as i64],
        data_type: Some(7),
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<proto::Attribute>) -> proto::Node {
    proto::Node {
        op_type: Some(op.to_owned()),
        name: Some(output.to_owned()),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..Default::default()
    }
}

#[test]
fn every_test_of_a_known_operator_passes_or_is_listed() {
    let Some(folder) = std::env::var_os("BITPACT_ONNX_NODE_TESTS") else {
        return;
    };
    let (refused, [networks, folded], wrong) = main_test(Path::new(&folder)).expect("the folder of ONNX's node tests");
    let tests = refused.len();
    println!("{networks} networks and {folded} constants as expected, {tests} tests refused, {} wrong", wrong.len());
    let list: String = refused.iter().map(|(name, why)| format!("{name}: {why}\n")).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(REFUSALS);
    if std::env::var_os("BITPACT_WRITE_DOCS").is_some() {
        std::fs::write(&path, &list).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let listed = std::fs::read_to_string(&path).unwrap();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (now, before) = (lines(&list), lines(&listed));
    let new: Vec<&String> = now.difference(&before).collect();
    let gone: Vec<&String> = before.difference(&now).collect();
    assert!(new.is_empty() && gone.is_empty(), "refused and not listed: {new:#?}\nlisted and not refused: {gone:#?}");
}
