//! Deviations of the cells that hold weights, as of arrays that compute sums in memory, for one step of training.

use bitpact_core::rng::Key;
use bitpact_core::round_half_even;
use bitpact_kernels::{Aligned, CodeLimits, GroupConvU8S8, GroupScratch, Isa, Layout};

use super::product::{Product, Source};

/// Largest code of a deviation, and standard deviations that it stands for.
const MOST: f32 = 127.0;
const DEVIATIONS: f32 = 4.0;

/// The deviations of all weights of a product, which its sums are off by.
pub(super) struct CellErrors {
    conv: GroupConvU8S8,
    codes: Vec<i8>,
    packed: Aligned<i8>,
    init: Vec<i32>,
    /// What a code of 1 stands for, in steps of the weights.
    unit: f32,
    /// Largest exact sum, beyond which none is moved.
    most: i32,
}

impl CellErrors {
    /// For a product over tensors of layout `x`; none where it does not multiply codes of an activation by codes.
    pub(super) fn new(isa: Isa, product: &Product, x: Layout) -> Option<Self> {
        let Source::Codes { bits, quant, .. } = product.source else { return None };
        product.weight_bits()?;
        let most = product.largest_accumulator().and_then(|most| i32::try_from(most).ok())?;
        let largest = quant.q_max(bits) as u8 + product.source.zero_code();
        let limits = CodeLimits { x: largest, w: MOST as u8 };
        let conv = GroupConvU8S8::new(isa, product.geometry, product.groups, x, product.z_layout, limits);
        Some(Self::over(conv, product.inputs() * product.geometry.cout, product.z_layout.cs, most))
    }

    fn over(conv: GroupConvU8S8, weights: usize, outputs: usize, most: i32) -> Self {
        let packed = Aligned::zeroed(conv.packed_len());
        Self { conv, codes: vec![0; weights], packed, init: vec![0; outputs], unit: 0.0, most }
    }

    /// Draws the deviations of one step: `rate` for a cell, whose weights of w bits are w cells of 1, 2, 4 .. steps.
    pub(super) fn draw(&mut self, key: Key, rate: f32, weight_bits: u8) {
        let slices = ((f64::from(1u32 << (2 * weight_bits)) - 1.0) / 3.0).sqrt();
        self.unit = rate * slices as f32 * (DEVIATIONS / MOST);
        for (i, code) in self.codes.iter_mut().enumerate() {
            *code = round_half_even(roughly_normal(key.u64(i as u64)) * (MOST / DEVIATIONS)) as i8;
        }
        self.conv.pack(&self.codes, &mut self.packed);
    }

    /// Adds to every sum of `z`, of input `x`, what the deviations make of it; `errors` is memory for it.
    pub(super) fn add(&self, x: &[u8], z: &mut [i32], errors: &mut Aligned<i32>, scratch: &mut GroupScratch) {
        if errors.len() < z.len() {
            *errors = Aligned::zeroed(z.len());
        }
        let errors = &mut errors[..z.len()];
        errors.fill(0);
        self.conv.run(x, &self.packed, &self.init, errors, scratch);
        for (sum, &error) in z.iter_mut().zip(&*errors) {
            let error = round_half_even(error as f32 * self.unit) as i32;
            *sum = (*sum + error).clamp(-self.most, self.most);
        }
    }
}

/// The sum of four uniform numbers of 16 bits, scaled to mean 0 and variance 1; beyond 3.46 there is none.
fn roughly_normal(bits: u64) -> f32 {
    let sum: u32 = (0..4).map(|i| (bits >> (16 * i)) as u32 & 0xffff).sum();
    // A uniform integer of 0 to 65535 has the mean 32767.5 and the variance (2^32 - 1) / 12.
    (sum as f32 - 131_070.0) * (1.0 / 37_837.227)
}

#[cfg(test)]
mod tests {
    use bitpact_kernels::ConvGeometry;

    use super::*;

    #[test]
    fn a_sum_is_off_by_its_inputs_times_deviations_that_stay_for_a_step() {
        let geometry = ConvGeometry { kh: 1, kw: 1, stride: 1, pad: 0, cin: 16, cout: 1000 };
        let (x_layout, z_layout) = (Layout::new(1, 4, 16, 0), Layout::new(1, 4, 1000, 0));
        let limits = CodeLimits { x: 30, w: 127 };
        let conv = GroupConvU8S8::new(Isa::detect(), geometry, 1, x_layout, z_layout, limits);
        let mut errors = CellErrors::over(conv, geometry.weights(), z_layout.cs, 5000);
        // No input; one of 10; one of 20 at the same place; sixteen of 10.
        let mut x = vec![0u8; x_layout.len()];
        for (pixel, codes) in [vec![], vec![10], vec![20], vec![10; 16]].into_iter().enumerate() {
            x[x_layout.offset(0, pixel)..][..codes.len()].copy_from_slice(&codes);
        }
        let (mut memory, mut scratch) = (Aligned::zeroed(0), GroupScratch::default());
        errors.conv.reserve(&mut scratch);
        let mut run = |errors: &CellErrors| {
            let mut z = vec![1000; z_layout.len()];
            errors.add(&x, &mut z, &mut memory, &mut scratch);
            [0, 1, 2, 3].map(|pixel| {
                z[z_layout.offset(0, pixel)..][..1000].iter().map(|z| f64::from(z - 1000)).collect::<Vec<_>>()
            })
        };
        errors.draw(Key::new(1), 0.5, 4);
        let found = run(&errors);
        assert!(found[0].iter().all(|&error| error == 0.0));
        assert!(found[1].iter().zip(&found[2]).all(|(one, two)| (2.0 * one - two).abs() <= 1.5));
        let deviation = |errors: &[f64]| (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
        // Half a count in each of the cells of 1, 2, 4 and 8: sqrt(85) / 2 steps.
        let expected = 0.5 * 85f64.sqrt();
        for (found, inputs) in [(&found[1], 10.0), (&found[3], 40.0)] {
            assert!((deviation(found) / (inputs * expected) - 1.0).abs() < 0.07, "{}", deviation(found));
            assert!((found.iter().sum::<f64>() / 1000.0).abs() < 0.1 * inputs * expected);
        }
        assert_eq!(run(&errors), found);
        errors.draw(Key::new(2), 0.5, 4);
        assert_ne!(run(&errors)[1], found[1]);
        errors.most = 1010;
        assert!(run(&errors).iter().flatten().all(|error| error.abs() <= 2010.0 && *error <= 10.0));
    }
}
