//! The ends of a network: types and names of its outputs, and the widths in which the constants of its sums are
//! written.

use bitpact_model::{IntegerEnd, IntegerModel, IntegerOp, IntegerSum, TensorId, TensorKind};

use super::names::{Names, identifier};
use super::store::Memory;

/// An output as a parameter of the function that runs a network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parameter {
    /// Its name.
    pub name: String,
    /// The tensor.
    pub tensor: TensorId,
    /// Number of elements.
    pub elements: usize,
    /// Type of an element.
    pub element: Element,
    /// Real value of one unit.
    pub scale: f64,
    /// The value that stands for zero.
    pub zero: i64,
}

/// Type of an element of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    U8,
    U16,
    I32,
    I64,
}

impl Element {
    pub(super) fn bits(self) -> u32 {
        match self {
            Element::U8 => 8,
            Element::U16 => 16,
            Element::I32 => 32,
            Element::I64 => 64,
        }
    }

    pub(super) fn c(self) -> &'static str {
        match self {
            Element::U8 => "uint8_t",
            Element::U16 => "uint16_t",
            Element::I32 => "int32_t",
            Element::I64 => "int64_t",
        }
    }

    pub(super) fn rust(self) -> &'static str {
        match self {
            Element::U8 => "u8",
            Element::U16 => "u16",
            Element::I32 => "i32",
            Element::I64 => "i64",
        }
    }
}

/// The type of an element of the image.
pub(super) fn image_element(model: &IntegerModel) -> Element {
    if model.input.bits == 8 { Element::U8 } else { Element::U16 }
}

/// The outputs of a network in their order.
pub(super) fn parameters(model: &IntegerModel, memory: &Memory) -> Vec<Parameter> {
    let mut names = Names::default();
    let mut parameter = |output: &bitpact_model::IntegerOutput| {
        let layer = &model.layers[output.tensor - 1];
        let element = match (model.kind(output.tensor), layer.op.sum()) {
            (TensorKind::Output, Some(sum)) if !fits_32(model, sum, 0) => Element::I64,
            (TensorKind::Output, _) => Element::I32,
            _ => match memory.tensors[output.tensor].bits {
                16 => Element::U16,
                32 => Element::I32,
                _ => Element::U8,
            },
        };
        Parameter {
            name: names.take(format!("out_{}", identifier(&layer.name, "tensor"))),
            tensor: output.tensor,
            elements: layer.shape.elements(),
            element,
            scale: layer.scale,
            zero: output.zero,
        }
    };
    model.outputs.iter().map(&mut parameter).collect()
}

/// Tells whether every sum over `2^shift` is a number of 32 bits, by the proved ranges of its terms.
pub(super) fn fits_32(model: &IntegerModel, sum: &IntegerSum, shift: u32) -> bool {
    let channels = sum.requant.channels();
    let Ok(ranges) = model.term_ranges(sum, channels) else { return false };
    (0..channels).all(|c| {
        let (lo, hi) = sum.requant.sum_range(c, &ranges);
        [lo, hi].iter().all(|end| i32::try_from(end >> shift.min(63)).is_ok())
    })
}

/// Numbers of channels: the one number where all are equal.
pub(super) fn once<T: PartialEq + Copy>(numbers: &[T]) -> &[T] {
    match numbers {
        [first, rest @ ..] if rest.iter().all(|n| n == first) => &numbers[..1],
        _ => numbers,
    }
}

/// Bytes of the constants of a layer beside its weights: multipliers, constants, bounds, tables and factors.
pub(super) fn constant_bytes(op: &IntegerOp) -> usize {
    let numbers = |n: usize, bytes: usize| if n == 1 { bytes } else { n * bytes };
    match op {
        IntegerOp::Sum(sum) => {
            let add = once(&sum.requant.add);
            let width = if add.iter().all(|&a| i32::try_from(a).is_ok()) { 4 } else { 8 };
            let mul: usize = sum.requant.mul.iter().map(|mul| numbers(once(mul).len(), 4)).sum();
            let tables = match &sum.end {
                IntegerEnd::Table(tables) => tables.iter().map(Vec::len).sum(),
                _ => 0,
            };
            numbers(add.len(), width) + mul + 2 * sum.requant.bounds.len() + tables
        }
        IntegerOp::WindowSum { factors, .. } => 4 * factors.len(),
        _ => 0,
    }
}
