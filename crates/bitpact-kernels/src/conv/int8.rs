//! The exact integer convolution of u8 codes with s8 weights.

use super::sweep::Sweep;
use super::{ConvGeometry, LANES, reference};
use crate::isa::{Isa, Proof};
use crate::layout::Layout;

/// Plan of y = init + conv(x, w) over u8 x and s8 w, exact in i32 for the full range of both on every path, as long as
/// the caller's sums fit i32.
#[derive(Clone, Debug)]
pub struct ConvU8S8 {
    geometry: ConvGeometry,
    sweep: Sweep,
    proof: Proof,
}

impl ConvU8S8 {
    /// Plans y = init + conv(x, w) on `isa`. `x.cs` is a multiple of 4, `y.cs` of 16, `x.border >= geometry.pad`.
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or the machine lacks `isa`.
    pub fn new(isa: Isa, geometry: ConvGeometry, x: Layout, y: Layout) -> ConvU8S8 {
        let sweep = Sweep::forward(&geometry, x, y, geometry.cin.next_multiple_of(4));
        ConvU8S8 { geometry, sweep, proof: isa.prove() }
    }

    /// Elements of the packed weights.
    pub fn packed_len(&self) -> usize {
        self.sweep.packed_len() * self.weight_bytes()
    }

    /// Bytes of a packed weight.
    fn weight_bytes(&self) -> usize {
        match self.proof {
            Proof::Avx2(_) => 2,
            _ => 1,
        }
    }

    /// Packs OIHW weight codes for [`ConvU8S8::run`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, codes_oihw: &[i8], out: &mut [i8]) {
        let g = &self.geometry;
        assert_eq!(codes_oihw.len(), g.weights(), "weights of {g:?}");
        assert_eq!(out.len(), self.packed_len(), "packed weights");
        let code = |o, i, a, b| if o < g.cout && i < g.cin { codes_oihw[g.weight(o, i, a, b)] } else { 0 };
        let mut words = out.chunks_exact_mut(4 * LANES * self.weight_bytes());
        for block in 0..self.sweep.y_channels() / LANES {
            for tap in self.sweep.taps() {
                for (word, out) in (0..self.sweep.reads() / 4).zip(&mut words) {
                    let codes: [i8; 4 * LANES] =
                        std::array::from_fn(|k| code(block * LANES + k / 4, word * 4 + k % 4, tap.a, tap.b));
                    match self.proof {
                        #[cfg(target_arch = "x86_64")]
                        Proof::Avx2(_) => super::avx2::widen(&codes, out),
                        _ => out.copy_from_slice(&codes),
                    }
                }
            }
        }
    }

    /// y = init + conv(x, w): writes the interior pixels of y, all `cs` channels of each; `init` has `y.cs` elements.
    /// Channels of x beyond `cin` meet zero weights.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn run(&self, x: &[u8], packed: &[i8], init: &[i32], y: &mut [i32]) {
        self.sweep.check(x.len(), y.len());
        assert_eq!(packed.len(), self.packed_len(), "packed weights");
        assert_eq!(init.len(), self.sweep.y_channels(), "initial values");
        match self.proof {
            #[cfg(target_arch = "x86_64")]
            Proof::Avx2(token) => super::avx2::sweep_u8s8(token, &self.sweep, x, packed, init, y),
            #[cfg(target_arch = "x86_64")]
            Proof::Avx512(token) => super::avx512::sweep_u8s8(token, &self.sweep, x, packed, init, y),
            _ => reference::sweep_u8s8(&self.sweep, x, packed, init, y),
        }
    }
}
