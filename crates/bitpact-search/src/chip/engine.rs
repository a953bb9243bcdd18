//! An engine that computes convolutions pass by pass, from a buffer of inputs into one of outputs.

use serde::Deserialize;

use crate::{Kind, Product};

/// The buffers of an engine and the cycles of what it does with them, as PLiNIO models NE16.
///
/// A window of 3x3 takes, for every tile of `rows` x `columns` pixels and `outputs` channels, for each `inputs`
/// channels `load + fill + dot + index`, and `scale + store` once. A 1x1 window is another mode; larger windows are
/// taken apart into 3x3 and 1x1, which are added up. A depthwise convolution has tiles of `inputs` channels, and no
/// sum.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// Output rows of a tile.
    pub rows: u64,
    /// Output columns of a tile.
    pub columns: u64,
    /// Output channels of a tile.
    pub outputs: u64,
    /// Input channels of a pass; output channels of a tile of a depthwise convolution.
    pub inputs: u64,
    /// Cycles that fill the pipeline, before weights as before inputs.
    pub fifo: u64,
    /// The same for the inputs of a window of 1x1.
    pub fifo_1x1: u64,
    /// Bits that a cycle reads or writes.
    pub memory_bits: u64,
    /// Cycles of counting to the next pass.
    pub index: u64,
    /// Cycles of starting the requantization of a tile.
    pub scale: u64,
    /// Channels that are requantized in a cycle.
    pub scaled: u64,
    /// Cycles of starting and ending to store a tile.
    pub store: u64,
}

impl Engine {
    /// Sizes that are 0 where they cannot be.
    pub(super) fn has_zero(&self) -> bool {
        [self.rows, self.columns, self.outputs, self.inputs, self.memory_bits, self.scaled].contains(&0)
    }

    /// Cycles of a product of activations of 8 bits and weights of `bits`; `None` for a form that the engine has not.
    pub(super) fn cycles(&self, product: &Product, bits: u64) -> Option<u64> {
        let [h, w] = match product.kind {
            Kind::Linear => [1, 1],
            Kind::Conv | Kind::Depthwise => product.op.window(product.input)?.kernel.map(|side| side as u64),
            Kind::Grouped | Kind::Transposed => return None,
        };
        let whole = (h / 3) * (w / 3);
        let single = h * w - (h - h % 3) * (w - w % 3);
        match product.kind {
            Kind::Depthwise if single > 0 => None,
            Kind::Depthwise => Some(whole * self.depthwise(product, bits)),
            _ => Some(whole * self.passes(product, Some(bits)) + single * self.passes(product, None)),
        }
    }

    /// Tiles of pixels.
    fn tiles(&self, product: &Product) -> u64 {
        (product.output.h as u64).div_ceil(self.rows) * (product.output.w as u64).div_ceil(self.columns)
    }

    /// Cycles of reading the inputs of a pass, a pixel in whole words.
    fn load_window(&self) -> u64 {
        self.fifo + (self.rows + 2) * (self.columns + 2) * (8 * self.inputs).div_ceil(self.memory_bits)
    }

    /// Cycles of requantizing and storing a tile of `channels`.
    fn finish(&self, channels: u64) -> u64 {
        let words = (8 * self.outputs).div_ceil(self.memory_bits);
        self.scale + channels.div_ceil(self.scaled) + self.store + self.rows * self.columns * words
    }

    /// Cycles of a window of 3x3 with weights of some bits, or of 1x1, over all channels.
    fn passes(&self, product: &Product, bits: Option<u64>) -> u64 {
        let load = match bits {
            Some(_) => self.load_window(),
            None => self.fifo_1x1 + self.rows * self.columns * (8 * self.inputs).div_ceil(self.memory_bits),
        };
        let tile = |channels: u64| {
            let dot = self.fifo + channels * bits.unwrap_or(1);
            let passes = product.in_channels.div_ceil(self.inputs);
            passes * (load + self.fifo + dot + self.index) + self.finish(channels)
        };
        self.tiles(product) * over(product.out_channels, self.outputs, tile)
    }

    /// Cycles of a depthwise window of 3x3.
    fn depthwise(&self, product: &Product, bits: u64) -> u64 {
        let tile = |channels: u64| {
            let (fill, dot) = (self.fifo + channels, self.fifo + channels * bits);
            self.load_window() + fill + dot + self.index + self.finish(channels)
        };
        self.tiles(product) * over(product.out_channels, self.inputs, tile)
    }
}

/// The cycles of all tiles of `size` channels, the last one smaller.
fn over(channels: u64, size: u64, tile: impl Fn(u64) -> u64) -> u64 {
    let rest = match channels % size {
        0 => 0,
        rest => tile(rest),
    };
    channels / size * tile(size) + rest
}
