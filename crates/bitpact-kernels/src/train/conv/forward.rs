//! The f32 forward convolution, and the dispatch its input gradient shares.

use super::filters::Filters;
use super::sweep::Sweep;
use super::{ConvGeometry, LANES, scalar_sweep};
use crate::machine::isa::{Isa, Proof};
use crate::machine::layout::Layout;

/// Plan of an f32 convolution, y = conv(x, w).
#[derive(Clone, Debug)]
pub struct ConvF32 {
    geometry: ConvGeometry,
    sweep: Sweep,
    proof: Proof,
}

impl ConvF32 {
    /// Plans y = conv(x, w) on `isa`. `x.cs` is a multiple of 4, `y.cs` of 16, `x.border >= geometry.pad`.
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or the machine lacks `isa`.
    pub fn new(isa: Isa, geometry: ConvGeometry, x: Layout, y: Layout) -> ConvF32 {
        let sweep = Sweep::forward(&geometry, x, y, geometry.cin);
        ConvF32 { geometry, sweep, proof: isa.prove() }
    }

    /// Elements of the packed weights.
    pub fn packed_len(&self) -> usize {
        self.sweep.packed_len()
    }

    /// Packs [tap-major](ConvGeometry::tap_major) weights for [`ConvF32::run`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, weights: &[f32], out: &mut [f32]) {
        assert_eq!(out.len(), self.packed_len(), "packed weights");
        pack(&self.sweep, self.geometry.kw, out, &Filters::forward(&self.geometry, weights));
    }

    /// Computes y = conv(x, w) and writes the interior pixels of y, all `cs` channels of each (zeros beyond `cout`).
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn run(&self, x: &[f32], packed: &[f32], y: &mut [f32]) {
        assert_eq!(packed.len(), self.packed_len(), "packed weights");
        run(self.proof, &self.sweep, x, packed, y, false);
    }
}

/// Packs as `[channel block][tap][channel read][16]`; `kw` are the kernel's columns.
pub(super) fn pack(sweep: &Sweep, kw: usize, out: &mut [f32], filters: &Filters<f32>) {
    let words = out.as_chunks_mut::<1>().0.as_chunks_mut::<LANES>().0;
    for ((block, tap), words) in sweep.blocks_and_taps().zip(words.chunks_exact_mut(sweep.reads())) {
        filters.words(tap.index(kw), block * LANES, 0, words, |w| w);
    }
}

/// Runs one sweep: y = or, to accumulate, += the sums.
pub(super) fn run(proof: Proof, sweep: &Sweep, x: &[f32], packed: &[f32], y: &mut [f32], accumulate: bool) {
    sweep.check(x.len(), y.len());
    assert_eq!(packed.len(), sweep.packed_len(), "packed weights of a sweep");
    if accumulate && sweep.taps().is_empty() {
        return;
    }
    match proof {
        #[cfg(target_arch = "x86_64")]
        Proof::Avx2(token) => super::avx2::sweep_f32(token, sweep, x, packed, y, accumulate),
        #[cfg(target_arch = "x86_64")]
        Proof::Avx512(token) => super::avx512::sweep_f32(token, sweep, x, packed, y, accumulate),
        _ => scalar_sweep::sweep_f32(sweep, x, packed, y, accumulate),
    }
}
