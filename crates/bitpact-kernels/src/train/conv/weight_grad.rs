//! The f32 gradient of a convolution with respect to its weights.

use std::ops::Range;

use super::filters::unpack_sums;
use super::sweep::Sweep;
use super::{ConvGeometry, LANES, scalar_sweep};
use crate::machine::isa::{Isa, Proof};
use crate::machine::layout::Layout;

/// Plan of an f32 weight gradient. Images add to a partial sum laid out as `[cout / 16][tap][cin][16]`, whose additions
/// happen in one fixed order; [`ConvWeightGradF32::unpack`] brings it to OIHW.
#[derive(Clone, Debug)]
pub struct ConvWeightGradF32 {
    geometry: ConvGeometry,
    sweep: Sweep,
    proof: Proof,
}

impl ConvWeightGradF32 {
    /// Plans the weight gradient on `isa`. `x.cs` is a multiple of 4, `dy.cs` of 16, `x.border >= geometry.pad`.
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or the machine lacks `isa`.
    pub fn new(isa: Isa, geometry: ConvGeometry, x: Layout, dy: Layout) -> ConvWeightGradF32 {
        let sweep = Sweep::forward(&geometry, x, dy, geometry.cin);
        ConvWeightGradF32 { geometry, sweep, proof: isa.prove() }
    }

    /// Elements of a partial sum.
    pub fn partial_len(&self) -> usize {
        self.sweep.packed_len()
    }

    /// Blocks of 16 output channels: equal parts of a partial sum.
    pub fn blocks(&self) -> usize {
        self.sweep.y_channels() / LANES
    }

    /// Adds to `partial` the weight gradient of one image.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn run(&self, x: &[f32], dy: &[f32], partial: &mut [f32]) {
        self.sweep.check(x.len(), dy.len());
        self.run_blocks(1, x, dy, 0..self.blocks(), partial);
    }

    /// Adds to `partial` the weight gradient of images at equal distances, those of
    /// [`image_distance`](crate::machine::layout::image_distance) at best; `partial` holds the blocks `blocks`.
    ///
    /// # Panics
    /// If a length is wrong or there are no such blocks.
    pub fn run_blocks(&self, images: usize, x: &[f32], dy: &[f32], blocks: Range<usize>, partial: &mut [f32]) {
        match self.proof {
            #[cfg(target_arch = "x86_64")]
            Proof::Avx2(token) => super::avx2::weight_grad_f32(token, &self.sweep, images, x, dy, blocks, partial),
            #[cfg(target_arch = "x86_64")]
            Proof::Avx512(token) => super::avx512::weight_grad_f32(token, &self.sweep, images, x, dy, blocks, partial),
            _ => scalar_sweep::weight_grad_f32(&self.sweep, images, x, dy, blocks, partial),
        }
    }

    /// Copies a partial sum to OIHW order.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn unpack(&self, partial: &[f32], dw_oihw: &mut [f32]) {
        unpack_sums(&self.geometry, self.geometry.cin, partial, dw_oihw);
    }
}
