//! The exact integer convolution of u8 codes with s8 weights.

use super::filters::Filters;
use super::int_sweep::IntSweep;
use super::sweep::Sweep;
use super::{CodeLimits, ConvGeometry};
use crate::machine::isa::Isa;
use crate::machine::layout::Layout;

/// Plan of y = init + conv(x, w) over u8 x and s8 w, exact in i32 on every path for all codes within the plan's
/// [`CodeLimits`], as long as the caller's sums fit i32.
#[derive(Clone, Debug)]
pub struct ConvU8S8 {
    geometry: ConvGeometry,
    sweep: IntSweep,
}

impl ConvU8S8 {
    /// Plans y = init + conv(x, w) on `isa`, over codes up to `limits`. `x.cs` is a multiple of 4, `y.cs` of 16,
    /// `x.border >= geometry.pad`.
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or the machine lacks `isa`.
    pub fn new(isa: Isa, geometry: ConvGeometry, x: Layout, y: Layout, limits: CodeLimits) -> ConvU8S8 {
        let sweep = Sweep::forward(&geometry, x, y, geometry.cin.next_multiple_of(4));
        ConvU8S8 { geometry, sweep: IntSweep::new(isa, sweep, x.cs, limits) }
    }

    /// Elements of the packed weights.
    pub fn packed_len(&self) -> usize {
        self.sweep.packed_len()
    }

    /// Packs [tap-major](ConvGeometry::tap_major) weight codes for [`ConvU8S8::run`].
    ///
    /// # Panics
    /// If a length is wrong or a code is above the limit.
    pub fn pack(&self, codes: &[i8], out: &mut [i8]) {
        self.sweep.limits().check(codes);
        self.sweep.pack(self.geometry.kw, out, &Filters::forward(&self.geometry, codes));
    }

    /// Computes y = init + conv(x, w) and writes the interior pixels of y, all `cs` channels of each; `init` has `y.cs`
    /// elements. Channels of x beyond `cin` meet zero weights. Sums are wrong if x holds codes above the limit.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn run(&self, x: &[u8], packed: &[i8], init: &[i32], y: &mut [i32]) {
        self.sweep.run(x, packed, init, y);
    }
}
