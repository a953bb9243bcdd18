//! The layers of an integer network as arrays see them: the one place that knows what a network's products are.

use bitpact_core::Grid;
use bitpact_model::{IntegerModel, IntegerProduct};

use crate::AccelError;

/// Bits of an input at most: sums of codes are wider than codes.
const MOST_INPUT_BITS: u8 = 16;

/// A convolution or linear layer: every output channel is a column, or one for each plane of weights, and its inputs
/// are rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Name of the product.
    pub name: String,
    /// Number of the integer network's layer.
    pub layer: usize,
    /// Number of the product in its layer: 0 for the main one, 1 for a projection shortcut's.
    pub which: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Inputs of an output channel.
    pub inputs: usize,
    /// Inputs of all groups: the length of a window.
    pub window: usize,
    /// Output channels that read the same inputs: all, or those of a group.
    pub group_channels: usize,
    /// Output pixels of an image.
    pub pixels: usize,
    /// Weight codes, `out_channels` times `inputs`.
    pub codes: Vec<i16>,
    /// Grid of the codes.
    pub grid: Grid,
    /// Bits of a weight code.
    pub weight_bits: u8,
    /// Bits of an input code.
    pub input_bits: u8,
    /// Smallest and largest exact sum of every output channel, between which the digital sums are held.
    pub bounds: Vec<(i64, i64)>,
    /// Says whether the layer reads the image or gives the logits.
    pub is_end: bool,
}

impl Layer {
    /// Weight codes of output channel `o`.
    pub fn channel(&self, o: usize) -> &[i16] {
        &self.codes[o * self.inputs..(o + 1) * self.inputs]
    }
}

/// Every product of `model`, in the order of computation.
///
/// # Errors
/// A product that reads negative values or values of more than 16 bits, which word lines cannot drive bit by bit.
pub fn layers(model: &IntegerModel) -> Result<Vec<Layer>, AccelError> {
    let mut all = Vec::new();
    for (i, layer) in model.layers.iter().enumerate() {
        let pixels = layer.shape.h * layer.shape.w;
        for (which, product) in layer.op.products().enumerate() {
            let is_end = product.input == 0 || i + 1 == model.layers.len();
            all.push(mapped(model, product, (i, which), pixels, is_end)?);
        }
    }
    Ok(all)
}

fn mapped(
    model: &IntegerModel,
    product: &IntegerProduct,
    (layer, which): (usize, usize),
    pixels: usize,
    is_end: bool,
) -> Result<Layer, AccelError> {
    let fail = |what: String| AccelError::Array { layer: product.name.clone(), what };
    let (lo, hi) = model.code_range(product.input);
    let input_bits = (64 - hi.max(1).leading_zeros()) as u8;
    if lo < 0 {
        return Err(fail(format!("reads values of {lo} to {hi}; word lines drive bits of values from 0")));
    }
    if input_bits > MOST_INPUT_BITS {
        return Err(fail(format!("reads values of {input_bits} bits, expected at most {MOST_INPUT_BITS}")));
    }
    Ok(Layer {
        name: product.name.clone(),
        layer,
        which,
        out_channels: product.out_channels,
        inputs: product.weights_per_channel(),
        window: product.in_channels * product.window.kernel[0] * product.window.kernel[1],
        group_channels: product.out_channels / product.groups,
        pixels,
        codes: product.codes.clone(),
        grid: product.grid,
        weight_bits: product.weight_bits,
        input_bits,
        bounds: model.acc_ranges(product).map_err(fail)?,
        is_end,
    })
}
