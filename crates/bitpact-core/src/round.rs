//! Rounding to the nearest integer, ties to even.

const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves no fraction bits, so the addition itself rounds

/// The integer nearest to `x`, ties to even; exact for every float, `NaN` and infinities stay, the sign of zero too.
///
/// Equal to [`f32::round_ties_even`] bit for bit, spelled with an addition and a subtraction so that loops over it
/// vectorize on every x86-64.
#[inline]
pub fn round_half_even(x: f32) -> f32 {
    let rounded = ((x + MAGIC) - MAGIC).copysign(x);
    if x.abs() < 4_194_304.0 { rounded } else { x.round_large() }
}

trait RoundLarge {
    fn round_large(self) -> f32;
}

impl RoundLarge for f32 {
    /// From 2^22 on, where only halves (below 2^23) are left to round.
    #[inline]
    fn round_large(self) -> f32 {
        const INTEGERS: f32 = 8_388_608.0; // 2^23
        let rounded = ((self.abs() + INTEGERS) - INTEGERS).copysign(self);
        if self.abs() < INTEGERS { rounded } else { self }
    }
}
