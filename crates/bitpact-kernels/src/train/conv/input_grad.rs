//! The f32 gradient of a convolution with respect to its input.

use super::ConvGeometry;
use super::filters::Filters;
use super::forward::{pack, run};
use super::sweep::{self, Sweep};
use crate::machine::isa::{Isa, Proof};
use crate::machine::layout::Layout;

/// Plan of an f32 input gradient, dx = conv_transpose(dy, w): one forward-like sweep for each class of input pixels
/// modulo the stride, each with its own taps.
#[derive(Clone, Debug)]
pub struct ConvInputGradF32 {
    geometry: ConvGeometry,
    sweeps: Vec<Sweep>,
    proof: Proof,
}

impl ConvInputGradF32 {
    /// Border that dy needs: zeros that taps reach beyond its edges.
    pub fn border(geometry: ConvGeometry) -> usize {
        sweep::border(&geometry)
    }

    /// Plans dx = conv_transpose(dy, w) on `isa`. `dy.cs` is a multiple of 4, `dx.cs` of 16, dy has at least
    /// [`ConvInputGradF32::border`].
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or the machine lacks `isa`.
    pub fn new(isa: Isa, geometry: ConvGeometry, dy: Layout, dx: Layout) -> ConvInputGradF32 {
        let sweeps = Sweep::transposed(&geometry, dy, dx, geometry.cout);
        ConvInputGradF32 { geometry, sweeps, proof: isa.prove() }
    }

    /// Elements of the packed weights.
    pub fn packed_len(&self) -> usize {
        self.sweeps.iter().map(Sweep::packed_len).sum()
    }

    /// Packs [tap-major](ConvGeometry::tap_major) weights for [`ConvInputGradF32::run`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, weights: &[f32], out: &mut [f32]) {
        let filters = Filters::transposed(&self.geometry, weights);
        assert_eq!(out.len(), self.packed_len(), "packed weights");
        let mut rest = out;
        for sweep in &self.sweeps {
            let (part, after) = rest.split_at_mut(sweep.packed_len());
            pack(sweep, self.geometry.kw, part, &filters);
            rest = after;
        }
    }

    /// Computes dx = (or, to `accumulate`, +=) conv_transpose(dy, w) and writes the interior pixels of dx, all `cs`
    /// channels of each.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn run(&self, dy: &[f32], packed: &[f32], dx: &mut [f32], accumulate: bool) {
        assert_eq!(packed.len(), self.packed_len(), "packed weights");
        let mut rest = packed;
        for sweep in &self.sweeps {
            let (part, after) = rest.split_at(sweep.packed_len());
            run(self.proof, sweep, dy, part, dx, accumulate);
            rest = after;
        }
    }
}
