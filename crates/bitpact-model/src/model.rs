//! A trained network as a value: graph, bits, named tensors, what a pixel means, class names.

use std::collections::BTreeMap;

use bitpact_core::{Granularity, lsq_start};
use bitpact_graph::{Graph, Op, QuantPlan, Shape, WeightPlan};
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::checkpoint::PREFIXES;

/// Bound on the bytes of a name, so that its length fits 16 bits in a file.
const LONGEST_TEXT: usize = 1 << 12;

/// A float32 tensor in PyTorch's shape, row-major; a scalar has the shape `[]` and one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The values.
    pub data: Vec<f32>,
}

impl Tensor {
    /// A tensor of one value everywhere.
    pub fn full(shape: &[usize], value: f32) -> Self {
        Self { shape: shape.to_vec(), data: vec![value; shape.iter().product()] }
    }
}

/// What the numbers of an example mean: `x = scale[c] * (q - zero_point[c])` for a code q of channel c, which is a
/// pixel in 0..=255 or, of arrays and signals, a number of 8 or 16 bits without a sign.
///
/// The scale is multiplied into the weights of the layers that read the input before they are quantized, and padding,
/// in augmentation too, uses the zero point, so that no float touches the input. An example is its codes,
/// `[row][column]
/// [channel]`, in one byte each or in two, the low one first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputDescription {
    /// Bits of a code: 8 or 16.
    #[serde(default = "eight", skip_serializing_if = "is_eight")]
    pub bits: u8,
    /// The code that means 0, per channel.
    pub zero_point: Vec<u16>,
    /// Real units per step of a code, per channel.
    pub scale: Vec<f32>,
}

fn eight() -> u8 {
    8
}

fn is_eight(bits: &u8) -> bool {
    *bits == 8
}

impl InputDescription {
    /// The same zero point and scale for every channel of pixels.
    pub fn uniform(channels: usize, zero_point: u8, scale: f32) -> Self {
        Self::pixels(vec![zero_point; channels], vec![scale; channels])
    }

    /// Codes of 8 bits with these zero points and scales, one a channel.
    pub fn pixels(zero_point: Vec<u8>, scale: Vec<f32>) -> Self {
        Self { bits: 8, zero_point: zero_point.into_iter().map(u16::from).collect(), scale }
    }

    /// Bytes of a code: 1 or 2.
    pub fn code_bytes(&self) -> usize {
        usize::from(self.bits).div_ceil(8)
    }

    /// Largest code: 255 or 65,535.
    pub fn largest_code(&self) -> u16 {
        if self.bits == 16 { u16::MAX } else { 255 }
    }

    /// Bytes of an example of this shape.
    pub fn example_bytes(&self, shape: Shape) -> usize {
        shape.elements() * self.code_bytes()
    }

    /// The zero points as the bytes of one element of each channel: what padding of an example holds.
    pub fn zero_bytes(&self) -> Vec<u8> {
        self.zero_point.iter().flat_map(|zero| zero.to_le_bytes().into_iter().take(self.code_bytes())).collect()
    }

    /// The codes of an example's bytes.
    pub fn codes<'a>(&self, bytes: &'a [u8]) -> impl ExactSizeIterator<Item = u16> + 'a {
        let codes = bytes.chunks_exact(self.code_bytes());
        codes.map(|code| code.iter().rev().fold(0, |sum, &byte| sum << 8 | u16::from(byte)))
    }

    /// Code number `at` of an example's bytes.
    ///
    /// # Panics
    /// If there is none.
    pub fn code(&self, bytes: &[u8], at: usize) -> u16 {
        let n = self.code_bytes();
        self.codes(&bytes[at * n..][..n]).next().expect("the bytes of a code")
    }

    /// The codes nearest to real values `x` of an example or more, HWC: `clamp(round_half_even(x / scale[c]) +
    /// zero_point[c], 0, largest_code)`, as bytes; what is no number becomes the zero point.
    pub fn quantize(&self, x: &[f32]) -> Vec<u8> {
        let channels = self.scale.len();
        let code = |(i, x): (usize, &f32)| {
            let steps = (f64::from(*x) / f64::from(self.scale[i % channels])).round_ties_even();
            let steps = if steps.is_nan() { 0.0 } else { steps };
            (steps + f64::from(self.zero_point[i % channels])).clamp(0.0, self.largest_code().into()) as u16
        };
        x.iter().enumerate().flat_map(|x| code(x).to_le_bytes().into_iter().take(self.code_bytes())).collect()
    }

    /// The mean of the scales, which stands before a learned weight step as the scales stand before the weights: such a
    /// step of a layer that reads the image counts in the weights' own units.
    pub fn mean_scale(&self) -> f32 {
        (self.scale.iter().map(|&s| f64::from(s)).sum::<f64>() / self.scale.len().max(1) as f64) as f32
    }

    /// The first channel to which `other` gives another meaning, in words; `None` where both mean the same, or have
    /// another number of channels. Scales within a ten-thousandth of each other are the same.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.bits != other.bits {
            return Some(format!("codes have {} bits to one and {} to the other", self.bits, other.bits));
        }
        let channels = self.zero_point.iter().zip(&self.scale);
        let mut both = channels.zip(other.zero_point.iter().zip(&other.scale)).enumerate();
        let same_length = self.zero_point.len() == other.zero_point.len();
        let differs = |((zero, scale), (zero2, scale2)): ((&u16, &f32), (&u16, &f32))| {
            zero != zero2 || (scale - scale2).abs() > 1e-4 * scale.abs()
        };
        let (channel, ((zero, scale), (zero2, scale2))) = both.find(|(_, pair)| same_length && differs(*pair))?;
        Some(format!(
            "a pixel p of channel {channel} means (p - {zero}) * {scale} to one and (p - {zero2}) * {scale2} to the other"
        ))
    }

    pub(crate) fn check(&self, channels: usize) -> Result<(), ModelError> {
        let error = |what| Err(ModelError::Description { place: "input", what });
        if self.zero_point.len() != channels || self.scale.len() != channels {
            let (zeros, scales) = (self.zero_point.len(), self.scale.len());
            return error(format!("{zeros} zero points and {scales} scales, expected {channels}, one a channel"));
        }
        if ![8, 16].contains(&self.bits) {
            return error(format!("codes of {} bits, expected 8 or 16", self.bits));
        }
        if let Some(zero) = self.zero_point.iter().find(|zero| **zero > self.largest_code()) {
            return error(format!("zero point {zero}, expected 0 to {}", self.largest_code()));
        }
        match self.scale.iter().position(|s| !(s.is_finite() && *s > 0.0)) {
            Some(c) => error(format!("the scale of channel {c} is {}, expected a positive number", self.scale[c])),
            None => Ok(()),
        }
    }
}

/// Whether the names of classes say nothing but their numbers: each is empty, its number, or `class` and its number.
pub fn are_numbers(class_names: &[String]) -> bool {
    let mut named = class_names.iter().enumerate();
    named.all(|(class, name)| name.is_empty() || name.strip_prefix("class").unwrap_or(name) == class.to_string())
}

/// A trained network.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The network as a graph.
    pub graph: Graph,
    /// The bits and quantizers of each layer.
    pub plan: QuantPlan,
    /// Meaning of a pixel: scale and zero point by channel.
    pub input: InputDescription,
    /// Names of the classes, one for each.
    pub class_names: Vec<String>,
    /// The tensors of [`Model::tensor_shapes`].
    pub tensors: BTreeMap<String, Tensor>,
}

impl Model {
    /// Names and shapes of all tensors, as PyTorch has them.
    ///
    /// Convolutions and linear layers have `weight` (OIHW, or `[out, in]`) and `bias` where the graph says so, batch
    /// norms `weight`, `bias`, `running_mean` and `running_var`, and the activations of a quantized network `clip_val`,
    /// a scalar of shape `[]`, or one number per channel; of activations that share one, the first has it
    /// ([`Graph::clip_owners`]). Weights with a learned step have `weight_step`, a scalar or one number per output
    /// channel.
    pub fn tensor_shapes(graph: &Graph, plan: &QuantPlan) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = BTreeMap::new();
        let owners = graph.clip_owners();
        for (id, node) in graph.nodes().iter().enumerate() {
            let mut add = |tensor: &str, shape: Vec<usize>| {
                shapes.insert(format!("{}.{tensor}", node.name), shape);
            };
            let channels = vec![graph.shape(id).c];
            if let Some(shape) = graph.weight_shape(id) {
                add("weight", shape);
                match plan.weights.get(&node.name) {
                    Some(WeightPlan::Quantized(spec)) if spec.quant.is_learned() => match spec.scale {
                        Granularity::Layer => add("weight_step", Vec::new()),
                        Granularity::Channel => add("weight_step", channels.clone()),
                    },
                    _ => {}
                }
            }
            match node.op {
                op if op.has_bias() => add("bias", channels),
                Op::Function(function) if function.is_learned() => add("weight", channels),
                Op::BatchNorm(_) => {
                    for tensor in ["weight", "bias", "running_mean", "running_var"] {
                        add(tensor, channels.clone());
                    }
                }
                Op::Act { .. } if owners[id] == id => {
                    match plan.activations.get(&node.name).map(|act| act.clip_scale) {
                        Some(Granularity::Layer) => add("clip_val", Vec::new()),
                        Some(Granularity::Channel) => add("clip_val", channels),
                        None => {}
                    }
                }
                _ => {}
            }
        }
        shapes
    }

    /// Checks that no tensor has a name that a checkpoint keeps for the optimizer's.
    ///
    /// # Errors
    /// Names the tensor.
    pub fn check_names(graph: &Graph, plan: &QuantPlan) -> Result<(), ModelError> {
        for name in Self::tensor_shapes(graph, plan).keys() {
            if let Some(prefix) = PREFIXES.iter().find(|prefix| name.starts_with(**prefix)) {
                let what =
                    format!("names that begin with `{prefix}` have a meaning of their own in files; rename its node");
                return Err(ModelError::tensor(name, what));
            }
        }
        Ok(())
    }

    /// Where the learned steps of `layer` start for its weight ([`lsq_start`]); `None` where `plan` has none.
    pub fn first_weight_step(graph: &Graph, plan: &QuantPlan, layer: &str, weight: &Tensor) -> Option<Tensor> {
        let Some(WeightPlan::Quantized(spec)) = plan.weights.get(layer) else { return None };
        if !spec.quant.is_learned() {
            return None;
        }
        let product = graph.find(layer)?;
        let out_channels = graph.shape(product).c;
        let ordered: Vec<f32> = match graph.weight_order(product) {
            None => weight.data.clone(),
            Some(order) => order.into_iter().map(|at| weight.data[at]).collect(),
        };
        let shape = if spec.scale == Granularity::Channel { vec![out_channels] } else { Vec::new() };
        let mut data = vec![0.0; spec.scales_len(out_channels)];
        lsq_start(spec, &ordered, out_channels, &mut data);
        Some(Tensor { shape, data })
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, ModelError> {
        self.tensors.get(name).ok_or_else(|| ModelError::tensor(name, "missing"))
    }

    /// Checks that plan, input, class names and tensors fit the graph: every tensor of [`Model::tensor_shapes`] and no
    /// other, of its exact shape, finite, with `running_var >= 0`, `clip_val > 0` and `weight_step > 0`. Names are at
    /// most 4096 bytes long and have no control characters.
    ///
    /// # Errors
    /// Names the first thing that does not fit.
    pub fn check(&self) -> Result<(), ModelError> {
        self.plan.check(&self.graph)?;
        self.input.check(self.graph.input().c)?;
        check_texts("names", self.class_names.iter().map(String::as_str).chain([self.graph.name()]))?;
        check_class_names(&self.class_names, self.graph.classes())?;
        Self::check_names(&self.graph, &self.plan)?;
        check_tensors(&self.tensors, &Self::tensor_shapes(&self.graph, &self.plan))?;
        for (name, tensor) in &self.tensors {
            let least = |least: f32| tensor.data.iter().position(|&v| v < least);
            if name.ends_with(".running_var")
                && let Some(i) = least(0.0)
            {
                return Err(ModelError::tensor(name, format!("value {i} is {}, a variance is >= 0", tensor.data[i])));
            }
            if name.ends_with(".weight_step")
                && let Some(i) = least(f32::MIN_POSITIVE)
            {
                return Err(ModelError::tensor(name, format!("value {i} is {}, a step is > 0", tensor.data[i])));
            }
            if name.ends_with(".clip_val")
                && let Some(i) = least(f32::MIN_POSITIVE)
            {
                return Err(ModelError::tensor(name, format!("value {i} is {}, a clip value is > 0", tensor.data[i])));
            }
        }
        Ok(())
    }
}

/// Checks texts that are written to files and shown as they are: not too long, and no control characters, which a
/// terminal would obey.
pub(crate) fn check_texts(
    place: &'static str,
    texts: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<(), ModelError> {
    let error = |what| Err(ModelError::Description { place, what });
    for text in texts {
        let text = text.as_ref();
        if text.len() > LONGEST_TEXT {
            return error(format!("one of {} bytes, expected at most {LONGEST_TEXT}", text.len()));
        }
        if text.contains(char::is_control) {
            return error(format!("{text:?}, expected no control characters"));
        }
    }
    Ok(())
}

pub(crate) fn check_class_names(names: &[String], classes: usize) -> Result<(), ModelError> {
    if names.len() != classes {
        let what = format!("{} names, the network has {classes} classes", names.len());
        return Err(ModelError::Description { place: "class names", what });
    }
    Ok(())
}

/// Checks that `tensors` are exactly those of `shapes` and finite.
pub(crate) fn check_tensors(
    tensors: &BTreeMap<String, Tensor>,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> Result<(), ModelError> {
    for (name, shape) in shapes {
        let Some(tensor) = tensors.get(name) else {
            return Err(ModelError::tensor(name, format!("missing, expected shape {shape:?}")));
        };
        if tensor.shape != *shape {
            return Err(ModelError::tensor(name, format!("shape {:?}, expected {shape:?}", tensor.shape)));
        }
        let expected = shape.iter().product::<usize>();
        if tensor.data.len() != expected {
            return Err(ModelError::tensor(name, format!("{} values, expected {expected}", tensor.data.len())));
        }
        if let Some(i) = tensor.data.iter().position(|v| !v.is_finite()) {
            return Err(ModelError::tensor(name, format!("value {i} is {}, expected a finite number", tensor.data[i])));
        }
    }
    match tensors.keys().find(|name| !shapes.contains_key(*name)) {
        Some(stranger) => Err(ModelError::tensor(stranger, "the network has no such tensor")),
        None => Ok(()),
    }
}
