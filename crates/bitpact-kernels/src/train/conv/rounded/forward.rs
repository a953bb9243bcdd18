//! The forward convolution of real numbers rounded to bfloat16.

use super::input_grad::Bf16Sweep;
use super::{Format, bf16_bytes};
use crate::machine::ConvGeometry;
use crate::machine::isa::Isa;
use crate::machine::layout::{Aligned, Layout};
use crate::machine::on_isa;
use crate::train::conv::filters::Filters;
use crate::train::conv::sweep::Sweep;

/// Plan of y = conv(x, w), x and w rounded half to even to bfloat16, sums in float32.
#[derive(Clone, Debug)]
pub struct ConvBf16 {
    isa: Isa,
    geometry: ConvGeometry,
    x_len: usize,
    sweep: Bf16Sweep,
}

impl ConvBf16 {
    /// Plans the convolution on `isa`. `x.cs` is a multiple of 4, `y.cs` of 16, `x.border >= geometry.pad`.
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or `isa` has no kernels of bfloat16 ([`Format::is_available`]).
    pub fn new(isa: Isa, geometry: ConvGeometry, x: Layout, y: Layout) -> Self {
        assert!(Format::Bf16.is_available(isa), "bfloat16 on {isa}");
        let reads = geometry.cin.next_multiple_of(Format::Bf16.per_word());
        let sweep = Bf16Sweep::new(isa, Sweep::forward(&geometry, x, y, reads));
        Self { isa, geometry, x_len: x.len(), sweep }
    }

    /// Bytes of the packed weights.
    pub fn packed_len(&self) -> usize {
        self.sweep.packed_len()
    }

    /// Bytes of scratch memory of [`ConvBf16::run`].
    pub fn scratch_len(&self) -> usize {
        2 * self.x_len
    }

    /// Rounds and packs [tap-major](ConvGeometry::tap_major) weights for [`ConvBf16::run`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, weights: &[f32], out: &mut Aligned<u8>) {
        assert_eq!(out.len(), self.packed_len(), "packed weights");
        self.sweep.pack(self.geometry.kw, out, &Filters::forward(&self.geometry, weights), bf16_bytes);
    }

    /// Computes y = conv(x, w) and writes the interior pixels of y, all `cs` channels of each; `scratch` is memory for
    /// x in bfloat16.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn run(&self, x: &[f32], packed: &Aligned<u8>, y: &mut [f32], scratch: &mut [u8]) {
        assert!(x.len() == self.x_len && packed.len() == self.packed_len(), "input and packed weights");
        let bytes = &mut scratch[..self.scratch_len()];
        let pairs = bytes.as_chunks_mut::<2>().0;
        on_isa!(self.isa, |_FMA| pairs.iter_mut().zip(x).for_each(|(to, &v)| *to = bf16_bytes(v)));
        self.sweep.run(bytes, packed, y, false);
    }
}
