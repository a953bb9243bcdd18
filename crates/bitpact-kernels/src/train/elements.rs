//! Functions of single elements over whole slices, compiled for every instruction set; the bits are those of
//! `bitpact-core` on all of them.

use crate::machine::isa::Isa;
use crate::machine::on_isa;

/// `y = tanh(x)`, [`bitpact_core::tanh`] of every element.
///
/// # Panics
/// If the lengths differ or the machine lacks `isa`.
pub fn tanh(isa: Isa, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "lengths of x and y");
    on_isa!(isa, |_FMA| y.iter_mut().zip(x).for_each(
        #[inline(always)]
        |(y, &x)| *y = bitpact_core::tanh(x)
    ));
}

/// `sum += x`, element by element.
///
/// # Panics
/// If the lengths differ or the machine lacks `isa`.
pub fn add(isa: Isa, sum: &mut [f32], x: &[f32]) {
    assert_eq!(x.len(), sum.len(), "lengths of sum and x");
    on_isa!(isa, |_FMA| sum.iter_mut().zip(x).for_each(
        #[inline(always)]
        |(sum, x)| *sum += x
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitpact_core::rng::Key;

    #[test]
    fn every_path_gives_the_bits_of_the_definition() {
        let x: Vec<f32> = (0..if cfg!(miri) { 67 } else { 4099 })
            .map(|i| Key::new(3).normal(i) * 3.0)
            .chain([f32::NAN, 1e-40, -0.0, 1e9])
            .collect();
        for isa in crate::testing::paths() {
            let mut y = vec![9.0; x.len()];
            tanh(isa, &x, &mut y);
            let mut sum = y.clone();
            add(isa, &mut sum, &x);
            // The bits of a NaN are not defined.
            let bits = |v: f32| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() };
            for ((&x, y), sum) in x.iter().zip(y).zip(sum) {
                assert_eq!(bits(y), bits(bitpact_core::tanh(x)), "{isa}: tanh {x}");
                assert_eq!(bits(sum), bits(y + x), "{isa}: {y} + {x}");
            }
        }
    }
}
