//! What is exported is the network: every ONNX dialect, computed in plain loops, gives the interpreter's integers.

#[path = "common/networks.rs"]
mod networks;
#[path = "common/onnx.rs"]
mod onnx;

use std::path::Path;

use bitpact_core::{Grid, Requantization};
use bitpact_engine::Interpreter;
use bitpact_graph::{Padding, Shape, Window};
use bitpact_interop::export::{CheckData, ExportOptions, Format, export};
use bitpact_interop::onnx::proto::{Graph, Model as Proto};
use bitpact_model::{
    InputDescription, IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm,
    TensorKind,
};
use prost::Message;

use networks::{channels_first, image, network};
use onnx::{Array, run};

/// Networks that are drawn.
const NETWORKS: u64 = 40;
const UINT8: i32 = 2;
const FLOAT: i32 = 1;

fn written(model: &IntegerModel, format: Format) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    export(model, format, ExportOptions::default(), &path).unwrap();
    std::fs::read(path).unwrap()
}

fn graph(model: &IntegerModel, format: Format) -> Graph {
    Proto::decode(&written(model, format)[..]).unwrap().graph.unwrap()
}

/// Scale and zero of every layer, as the script that checks reads them.
fn meanings(model: &IntegerModel, format: Format) -> Vec<(f64, i64)> {
    let folder = tempfile::tempdir().unwrap();
    let data = CheckData { layers: vec![Vec::new(); model.layers.len()], ..CheckData::default() };
    data.write(folder.path(), model, format).unwrap();
    let text = std::fs::read_to_string(folder.path().join("check.json")).unwrap();
    let contents: serde_json::Value = serde_json::from_str(&text).unwrap();
    let layers = contents["layers"].as_array().unwrap();
    layers.iter().map(|layer| (layer["scale"].as_f64().unwrap(), layer["zero"].as_i64().unwrap())).collect()
}

/// Holds every layer of the network in integer operators against the interpreter.
fn assert_same_integers(model: &IntegerModel, seed: u64) {
    let graph = graph(model, Format::OnnxInteger);
    let shape = model.input_shape;
    let (image, codes) = image(model, seed);
    let input: Vec<i64> = codes.into_iter().map(i64::from).collect();
    let values = run(&graph, Array::new(&[1, shape.c, shape.h, shape.w], input, UINT8));
    let trace = Interpreter::new(model).run(&image);
    for (layer, expected) in model.layers.iter().zip(&trace.tensors) {
        assert_eq!(values[&layer.name].data, channels_first(expected, layer.shape), "{seed}: {}", layer.name);
    }
}

#[test]
fn integer_operators_give_every_integer_of_random_networks() {
    let models: Vec<_> = (0..NETWORKS).filter_map(|seed| Some((network(seed)?, seed))).collect();
    models.iter().for_each(|(model, seed)| assert_same_integers(model, *seed));
    assert!(models.len() as u64 > NETWORKS / 2, "{}", models.len());
}

/// A sum of one product over `input` with this window, all of whose weights are 127 or -127.
fn large(input: usize, from: Shape, window: Window, end: IntegerEnd) -> IntegerLayer {
    let [h, w] = window.positions(from).unwrap();
    let shape = Shape::new(h, w, 2);
    let plane = window.kernel[0] * window.kernel[1];
    let product = IntegerProduct {
        name: format!("product{input}"),
        input,
        window,
        padding_code: if input > 0 && !window.padding.is_none() { 3 } else { 0 },
        out_channels: 2,
        in_channels: from.c,
        groups: 1,
        weight_bits: 8,
        grid: Grid::WithZero,
        codes: (0..2 * plane * from.c).map(|i| if i < plane * from.c || i % 3 == 0 { 127 } else { -127 }).collect(),
    };
    let (shift, lo, hi) = if end == IntegerEnd::Codes { (8, 0, 255) } else { (0, i32::MIN, i32::MAX) };
    let requant = Requantization { shift, mul: vec![vec![1; 2]], add: vec![5, 70_000], lo, hi, bounds: Vec::new() };
    let is_codes = end == IntegerEnd::Codes;
    let sum = IntegerSum { terms: vec![IntegerTerm::Product(product)], requant, base: Vec::new(), end };
    let (lo, hi) = if is_codes { (0, 255) } else { (0, 0) };
    IntegerLayer { name: format!("layer{input}"), op: IntegerOp::Sum(sum), shape, lo, hi, scale: 0.5 }
}

#[test]
fn windows_whose_sums_leave_32_bits_are_cut() {
    let whole = |layers: Vec<IntegerLayer>, input_shape: Shape| {
        let mut model = IntegerModel {
            arch: "large".to_owned(),
            input: InputDescription::uniform(input_shape.c, 0, 1.0),
            input_shape,
            class_names: vec!["a".to_owned(), "b".to_owned()],
            layers,
            outputs: Vec::new(),
        };
        model.set_last_output();
        model.check().unwrap();
        model
    };
    // 90,000 weights of 127 for pixels of up to 255.
    let image = Shape::new(300, 300, 1);
    let linear = whole(vec![large(0, image, Window::whole(image), IntegerEnd::Output)], image);
    assert_same_integers(&linear, 1);
    // With padding by zeros and by codes, strides and dilation.
    let codes = Shape::new(300, 300, 2);
    let padding = Padding { top: 2, left: 1, bottom: 3, right: 0 };
    let window = Window { kernel: [150, 299], stride: [3, 2], padding, dilation: [2, 1], spread: [1; 2] };
    let first = large(0, image, Window::square(1, 1, 0), IntegerEnd::Codes);
    assert_same_integers(&whole(vec![first.clone(), large(1, codes, window, IntegerEnd::Output)], image), 2);
    assert_same_integers(&whole(vec![large(0, image, window, IntegerEnd::Output)], image), 3);
    let spread = Window { kernel: [600, 598], spread: [2; 2], dilation: [1; 2], ..window };
    assert_same_integers(&whole(vec![first, large(1, codes, spread, IntegerEnd::Output)], image), 4);
}

#[test]
fn what_float32_does_not_hold_is_told_with_the_formats_that_do() {
    let (model, last) = (0..)
        .filter_map(network)
        .find_map(|model| {
            let last =
                model.layers.iter().rposition(|layer| layer.op.sum().is_some_and(|s| s.end == IntegerEnd::Codes))?;
            Some((model, last))
        })
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    for scale in [1e-60, 1e60] {
        let mut model = model.clone();
        model.layers[last].scale = scale;
        let name = &model.layers[last].name;
        for format in Format::ALL {
            let ended = export(&model, format, ExportOptions::default(), &folder.path().join(format.name()));
            if [Format::OnnxInteger, Format::Npy].contains(&format) {
                ended.unwrap();
                continue;
            }
            let told = ended.unwrap_err().to_string();
            let expected = [name.as_str(), format.name(), "float32", "onnx-integer and npy can express it"];
            assert!(expected.iter().all(|part| told.contains(part)), "{told}");
        }
    }
    assert!(!folder.path().join("qonnx").exists(), "nothing is left of what was refused");
}

#[test]
fn an_output_keeps_its_own_zero() {
    let mut tested = 0;
    for (seed, mut model) in (0..NETWORKS).filter_map(|seed| Some((seed, network(seed)?))) {
        let codes = (0..model.outputs.len()).find(|&i| model.kind(model.outputs[i].tensor) == TensorKind::Codes);
        let Some(output) = codes.map(|i| &mut model.outputs[i]) else { continue };
        output.zero += 1000;
        let (tensor, zero) = (output.tensor, output.zero);
        let layer = &model.layers[tensor - 1];
        let shape = model.input_shape;
        let (image, pixels) = image(&model, seed);
        let input: Vec<f64> = pixels.into_iter().map(f64::from).collect();
        let values = run(&graph(&model, Format::OnnxQcdq), Array::new(&[1, shape.c, shape.h, shape.w], input, UINT8));
        assert_eq!(meanings(&model, Format::OnnxQcdq)[tensor - 1], (layer.scale, zero));
        let expected = channels_first(&Interpreter::new(&model).run(&image).tensors[tensor - 1], layer.shape);
        let got = values[&layer.name].data.iter().map(|v| (v / layer.scale).round_ties_even() as i64 + zero);
        let different = got.zip(&expected).filter(|(got, expected)| got != *expected).count();
        assert!(different * 100 <= expected.len(), "{seed}: {different} of {}", expected.len());
        tested += 1;
    }
    assert!(tested > 0);
}

#[test]
fn dialects_of_floats_give_the_integers_of_random_networks_up_to_rounding() {
    for format in [Format::OnnxQcdq, Format::OnnxQdq, Format::Qonnx] {
        let (mut numbers, mut different) = (0, 0);
        for seed in 0..NETWORKS {
            let Some(model) = network(seed) else { continue };
            let graph = graph(&model, format);
            let shape = model.input_shape;
            let (image, codes) = image(&model, seed);
            let input: Vec<f64> = codes.into_iter().map(f64::from).collect();
            let kind = if format == Format::Qonnx { FLOAT } else { UINT8 };
            let values = run(&graph, Array::new(&[1, shape.c, shape.h, shape.w], input, kind));
            let trace = Interpreter::new(&model).run(&image);
            let layers = model.layers.iter().zip(&trace.tensors).zip(meanings(&model, format));
            for (i, ((layer, expected), (scale, zero))) in layers.enumerate() {
                let expected = channels_first(expected, layer.shape);
                let got = &values[&layer.name].data;
                assert_eq!(got.len(), expected.len());
                if model.kind(i + 1) != TensorKind::Codes {
                    continue;
                }
                numbers += expected.len();
                let code = |v: &f64| (v / scale).round_ties_even() as i64 + zero;
                different += got.iter().zip(&expected).filter(|(got, expected)| code(got) != **expected).count();
            }
        }
        assert!(numbers > 8_000, "{numbers}");
        assert!(different * 1000 < numbers, "{format}: {different} of {numbers} codes");
    }
}

#[test]
fn equal_networks_give_equal_bytes() {
    let model = network(3).or_else(|| network(4)).unwrap();
    for format in Format::ALL.into_iter().filter(|&format| format != Format::Npy) {
        assert_eq!(written(&model, format), written(&model, format), "{format}");
    }
}

#[test]
fn the_folder_of_arrays_holds_every_weight_and_constant() {
    let model = (0..).find_map(network).unwrap();
    let folder = tempfile::tempdir().unwrap();
    export(&model, Format::Npy, ExportOptions::default(), folder.path()).unwrap();
    let text = std::fs::read_to_string(folder.path().join("model.json")).unwrap();
    let contents: serde_json::Value = serde_json::from_str(&text).unwrap();
    let layers = contents["layers"].as_array().unwrap();
    assert_eq!(layers.len(), model.layers.len());
    let mut products = 0;
    for (layer, written) in model.layers.iter().zip(layers) {
        assert_eq!(written["name"], layer.name);
        let Some(sum) = layer.op.sum() else { continue };
        assert_eq!(written["op"]["constant"], serde_json::json!(sum.requant.add));
        assert_eq!(written["op"]["shift"], sum.requant.shift);
        for (t, term) in sum.terms.iter().enumerate() {
            let object = &written["op"]["terms"][t];
            assert_eq!(object["multiplier"], serde_json::json!(sum.requant.mul[t]));
            let Some(product) = term.product() else { continue };
            let codes = array(&folder.path().join(object["weight"].as_str().unwrap()));
            assert_eq!(codes, product.codes.iter().map(|&q| i64::from(q)).collect::<Vec<_>>());
            products += 1;
        }
    }
    assert!(products > 0);
}

/// The integers of a NumPy file.
fn array(path: &Path) -> Vec<i64> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((10 + length) % 64, 0);
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(header.ends_with('\n'));
    let data = &bytes[10 + length..];
    match header {
        _ if header.contains("'|i1'") => data.iter().map(|&v| i64::from(v as i8)).collect(),
        _ if header.contains("'<i2'") => {
            data.chunks_exact(2).map(|v| i64::from(i16::from_le_bytes([v[0], v[1]]))).collect()
        }
        other => panic!("{other}"),
    }
}
