//! Reads the graph of a file node by node.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;

use bitpact_core::Bits;
use bitpact_graph::{NodeId, Op, Shape};
use bitpact_model::InputDescription;

use super::build::Builder;
use super::input::{self, described, name_of};
use super::layout::Layout;
use super::node::NodeView;
use super::refusal::{Refusal, message};
use super::tensor::{self, Array, Steps};
use super::value::{Affine, Form, Tensor, Value};
use super::{finish, fold, names, ops, proto};
use crate::{ImportOptions, Imported, InteropError};

/// Oldest version of ONNX's operators that is read.
const OLDEST: i64 = 7;

/// Elements that folded constants may have together, and how many more for each element of the file's own.
const MOST_FOLDED: usize = 1 << 27;
const MOST_COPIES: usize = 8;

/// What is known while a graph is read.
pub(super) struct Importer<'a> {
    pub(super) folder: &'a Path,
    pub(super) builder: Builder,
    values: HashMap<&'a str, Value>,
    /// Nodes that read a name.
    readers: HashMap<&'a str, Vec<&'a proto::Node>>,
    /// Forms that were done, with the nodes that do them.
    pub(super) done: Vec<(NodeId, Form, NodeId)>,
    /// Images at once that the file counts on.
    pub(super) batch: usize,
    /// What a pixel means to the file's input.
    pub(super) pixels: InputDescription,
    /// What is done to the image by the meaning of its pixels; `None` before anything reads it.
    pub(super) image: Option<Affine>,
    pub(super) notes: Vec<String>,
    /// Whether tensors of the network are codes in the file.
    pub(super) is_quantized: bool,
    /// Codes that ours cannot be.
    pub(super) unfit: Vec<String>,
    /// What clips of codes give; the codes' activation has their limits.
    pub(super) clips_of_codes: HashSet<String>,
    /// Whether the image is codes in the file.
    pub(super) has_image_codes: bool,
    /// Whether the meaning of pixels was given.
    has_pixels: bool,
    /// Elements that constants may have yet.
    budget: usize,
}

/// The network of a file's message.
pub(super) fn import(
    model: &proto::Model,
    name: &str,
    folder: &Path,
    path: &Path,
    options: &ImportOptions,
) -> Result<Imported, InteropError> {
    let wrong = |what: String| InteropError::file(path, what);
    let graph = model.graph.as_ref().ok_or_else(|| wrong("has no graph".to_owned()))?;
    let opset = opset(model).map_err(wrong)?;
    let mut notes = Vec::new();
    let (input, sizes) = input::input(graph, options).map_err(wrong)?;
    let (layout, batch, shape) = input::layout(graph, input, &sizes, options).map_err(wrong)?;
    let pixels = options.describe_pixels(path, shape.c, &mut notes)?;
    let mut importer = Importer {
        folder,
        builder: Builder::default(),
        values: HashMap::new(),
        readers: HashMap::new(),
        done: Vec::new(),
        batch,
        pixels,
        image: None,
        notes,
        is_quantized: false,
        unfit: Vec::new(),
        clips_of_codes: HashSet::new(),
        has_image_codes: false,
        has_pixels: options.pixels.is_some(),
        budget: MOST_FOLDED,
    };
    importer.start(graph, input, layout, shape).map_err(wrong)?;
    let refusals = importer.nodes(graph, opset).map_err(wrong)?;
    if !refusals.is_empty() {
        return Err(wrong(message(&refusals)));
    }
    let outputs = importer.outputs_of(graph).map_err(wrong)?;
    let graph_name = graph.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(name);
    let graph_name: String = graph_name.chars().filter(|c| !c.is_control()).take(100).collect();
    let Importer { builder, pixels, image, notes, is_quantized, unfit, .. } = importer;
    let pixels = image.map_or(Ok(pixels.clone()), |image| described(&pixels, &image)).map_err(wrong)?;
    let parts = finish::Parts { name: graph_name, builder, outputs, pixels, notes, is_quantized, unfit };
    parts.model(path, options)
}

/// Version of ONNX's own operators.
fn opset(model: &proto::Model) -> Result<i64, String> {
    let own = |set: &&proto::OperatorSet| matches!(set.domain.as_deref(), None | Some("" | "ai.onnx"));
    match model.opset_import.iter().find(own).and_then(|set| set.version) {
        Some(version) if version >= OLDEST => Ok(version),
        Some(version) => Err(format!("has operators of version {version}, expected {OLDEST} or newer: export it anew")),
        None => Err("does not say which version of ONNX's operators it has".to_owned()),
    }
}

impl<'a> Importer<'a> {
    /// Names of constants and of the input.
    fn start(&mut self, graph: &'a proto::Graph, input: &'a str, layout: Layout, shape: Shape) -> Result<(), String> {
        for node in &graph.node {
            for name in &node.input {
                self.readers.entry(name).or_default().push(node);
            }
        }
        let op = Op::Input { height: shape.h, width: shape.w, channels: shape.c };
        let name = if input.is_empty() { "image" } else { input };
        self.builder.push(name, op, &[])?;
        self.values.insert(input, Value::Data(Tensor::new(0, layout)));
        for proto in &graph.initializer {
            let name = proto.name.as_deref().unwrap_or("");
            let array =
                tensor::read(proto, self.folder).map_err(|what| format!("tensor `{}`: {what}", name.escape_debug()))?;
            self.budget = self.budget.saturating_add(MOST_COPIES * array.len());
            if self.values.insert(name, Value::Const(Rc::new(array))).is_some() {
                return Err(format!("two tensors are called `{}`", name.escape_debug()));
            }
        }
        Ok(())
    }

    /// Reads every node; what cannot be read is told together.
    fn nodes(&mut self, graph: &'a proto::Graph, opset: i64) -> Result<Vec<Refusal>, String> {
        let mut refusals = Vec::new();
        for node in &graph.node {
            let view = NodeView { node, opset };
            let mut refuse = |why: String| {
                refusals.push(Refusal { op: view.op().to_owned(), node: view.name().to_owned(), why });
            };
            if let Some(missing) =
                node.input.iter().find(|name| !name.is_empty() && !self.values.contains_key(&name[..]))
            {
                return Err(format!(
                    "node `{}` reads `{}`, which no node before it gives: a tensor is missing, or nodes read each other in a circle",
                    view.name().escape_debug(),
                    missing.escape_debug()
                ));
            }
            let outputs = match self.outputs(view) {
                Ok(Some(outputs)) => outputs,
                Ok(None) => vec![Value::Unknown; node.output.len()],
                Err(why) => {
                    refuse(why);
                    vec![Value::Unknown; node.output.len()]
                }
            };
            for (i, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let value = outputs.get(i).cloned().unwrap_or(Value::Unknown);
                if i >= outputs.len() && self.readers.contains_key(&name[..]) {
                    refuse(format!("output {i} is read, and only {} of its outputs are known here", outputs.len()));
                }
                if self.values.insert(name, value).is_some() {
                    return Err(format!("two tensors are called `{}`", name.escape_debug()));
                }
            }
        }
        Ok(refusals)
    }

    /// Outputs of a node; `None` where it reads what is unknown.
    fn outputs(&mut self, node: NodeView<'a>) -> Result<Option<Vec<Value>>, String> {
        if !ops::is_known(node) {
            return Err(ops::unknown(node));
        }
        let inputs: Vec<Option<&Value>> = node.node.input.iter().map(|name| self.values.get(&name[..])).collect();
        if inputs.iter().flatten().any(|value| matches!(value, Value::Unknown)) {
            return Ok(None);
        }
        let constants: Option<Vec<Option<&Array>>> = (inputs.iter())
            .map(|value| match value {
                Some(Value::Const(array)) => Some(Some(&**array)),
                None => Some(None),
                _ => None,
            })
            .collect();
        match constants {
            Some(constants) if !node.node.input.is_empty() => {
                let arrays = if ops::quantized::folds(node) {
                    ops::quantized::fold(node, &constants)?
                } else {
                    fold::fold(node, &constants)?
                };
                self.budget = (arrays.iter())
                    .try_fold(self.budget, |left, array| left.checked_sub(array.len()))
                    .ok_or("its constants need more memory than its file explains")?;
                Ok(Some(arrays.into_iter().map(|array| Value::Const(Rc::new(array))).collect()))
            }
            _ => ops::read(self, node).map(Some),
        }
    }

    /// The tensors that are outputs, the main one first.
    fn outputs_of(&mut self, graph: &proto::Graph) -> Result<Vec<NodeId>, String> {
        let mut outputs = Vec::with_capacity(graph.output.len());
        for output in &graph.output {
            let node = self.output(name_of(output))?;
            if !outputs.contains(&node) {
                outputs.push(node);
            }
        }
        if outputs.is_empty() { Err("has no output".to_owned()) } else { Ok(outputs) }
    }

    /// The node of the tensor that an output is.
    fn output(&mut self, name: &str) -> Result<NodeId, String> {
        let shown = name.escape_debug();
        match self.values.get(name).cloned() {
            Some(Value::Data(tensor)) => {
                let ended = tensor.ended.clone();
                let tensor = self.solid(&tensor)?;
                let shape = self.builder.shape(tensor.node);
                if let Some(op) = ended {
                    self.notes
                        .push(format!("{op} at the end of the network was taken off: the output is what it reads"));
                }
                let usual = Layout::usual(tensor.layout.dims.len(), self.batch, shape);
                if tensor.layout != usual && tensor.layout.sizes().len() != 2 {
                    let sizes = tensor.layout.sizes();
                    self.notes.push(format!(
                        "output `{shown}`, {sizes:?} in the file, is given as {shape}, height, width, channels"
                    ));
                }
                Ok(tensor.node)
            }
            Some(Value::Const(_)) => Err(format!("output `{shown}` does not depend on the input")),
            _ => Err(format!("no node gives the output `{shown}`")),
        }
    }

    /// What an input of a node stands for.
    pub(super) fn value(&self, node: NodeView, i: usize) -> Option<&Value> {
        node.node.input.get(i).and_then(|name| self.values.get(&name[..]))
    }

    /// The constant at an input, where there is one.
    pub(super) fn constant(&self, node: NodeView, i: usize) -> Result<Option<Rc<Array>>, String> {
        match self.value(node, i) {
            None => Ok(None),
            Some(Value::Const(array)) => Ok(Some(array.clone())),
            Some(_) => Err(format!("input {i} is computed by the network, expected a constant")),
        }
    }

    /// The constant at an input.
    pub(super) fn needed(&self, node: NodeView, i: usize) -> Result<Rc<Array>, String> {
        self.constant(node, i)?.ok_or_else(|| format!("input {i} is missing"))
    }

    /// Whole numbers that older operators have as an attribute and newer ones as an input.
    pub(super) fn ints(&self, node: NodeView, name: &str, i: usize) -> Result<Option<Vec<i64>>, String> {
        match node.ints(name) {
            Some(ints) => Ok(Some(ints.to_vec())),
            None => self.constant(node, i)?.map(|array| array.to_ints().map(<[i64]>::to_vec)).transpose(),
        }
    }

    /// A number that older operators have as an attribute and newer ones as an input.
    pub(super) fn number(&self, node: NodeView, name: &str, i: usize, default: f64) -> Result<f64, String> {
        if node.has(name) {
            return Ok(f64::from(node.float(name, 0.0)));
        }
        self.constant(node, i)?.map_or(Ok(default), |array| array.scalar().map(f64::from))
    }

    /// The tensor of the network at an input, with what is still to be done to it.
    pub(super) fn lazy(&self, node: NodeView, i: usize) -> Result<Tensor, String> {
        match self.value(node, i) {
            Some(Value::Data(tensor)) => match &tensor.ended {
                Some(op) if !ops::may_follow_end(node) => {
                    Err(format!("follows {op}, which is read at the network's end alone"))
                }
                _ => Ok(tensor.clone()),
            },
            Some(_) => Err(format!("input {i} is a constant, expected a tensor that the network computes")),
            None => Err(format!("input {i} is missing")),
        }
    }

    /// The tensor of the network at an input, padded where it is to be.
    pub(super) fn unpadded(&mut self, node: NodeView, i: usize) -> Result<Tensor, String> {
        let tensor = self.lazy(node, i)?;
        if tensor.pad.is_none() { Ok(tensor) } else { self.solid(&tensor) }
    }

    /// The tensor of the network at an input as the output of a node.
    pub(super) fn tensor(&mut self, node: NodeView, i: usize) -> Result<Tensor, String> {
        let tensor = self.lazy(node, i)?;
        self.solid(&tensor)
    }

    /// Keeps the steps of a layer's weights, where they are codes in the file.
    pub(super) fn keep_steps(&mut self, layer: NodeId, steps: Option<&Steps>, outputs: usize) {
        let Some(steps) = steps else { return };
        let shape = match steps.step.len() {
            1 => vec![],
            n if n == outputs => vec![n],
            _ => return,
        };
        if let Some(bits) = Bits::new(steps.bits) {
            self.builder.set(layer, "weight_step", shape, steps.step.clone());
            self.builder.bits.insert(layer, bits);
        }
    }

    /// Bits, clip value and sign of the codes that a node gives, where it only moves those of an activation.
    pub(super) fn grid_of(&self, id: NodeId) -> Option<(Bits, f32, bool)> {
        let node = &self.builder.nodes[id];
        match node.op {
            Op::Act { signed } => {
                Some((*self.builder.bits.get(&id)?, self.builder.tensors.get(&(id, "clip_val"))?.data[0], signed))
            }
            Op::View(_) | Op::MaxPool(_) | Op::Concat => {
                let first = self.grid_of(node.inputs[0])?;
                node.inputs.iter().all(|&input| self.grid_of(input) == Some(first)).then_some(first)
            }
            _ => None,
        }
    }

    /// Whether a node alone reads its first input.
    pub(super) fn is_read_once(&self, node: NodeView) -> bool {
        node.node.input.first().is_some_and(|name| self.readers(name).len() == 1)
    }

    /// The image as codes: pixels are codes already, and mean what these mean where nothing else is said.
    pub(super) fn image_codes(&mut self, scale: f32, low: i64, high: i64) {
        self.has_image_codes = true;
        let zero = u8::try_from(-low).ok().filter(|_| high - low == 255);
        let note = match (zero, self.has_pixels) {
            (Some(zero), false) => {
                self.pixels = InputDescription::uniform(self.pixels.scale.len(), zero, scale);
                format!("pixels are taken for the codes of the input: p means {scale} (p - {zero})")
            }
            _ => "codes of the input are left out: pixels are codes already".to_owned(),
        };
        self.notes.push(note);
    }

    /// Name for the node that a node of the file becomes.
    pub(super) fn name(&self, node: NodeView) -> String {
        names::of_node(node)
    }

    /// Nodes that read an output of a node.
    pub(super) fn readers(&self, name: &str) -> &[&'a proto::Node] {
        self.readers.get(name).map_or(&[], Vec::as_slice)
    }
}
