//! Errors of sums, as of arrays that compute them in memory, for one step of training.

use bitpact_core::rng::Key;
use bitpact_core::round_half_even;
use bitpact_kernels::Layout;

use super::product::{Product, Source};

/// Part of an error's variance that is the same for all sums of a channel in a step, as cells that stay the same while
/// inputs change leave it: for independent deviations of the cells it is `mean(x)^2 / mean(x^2)` of the inputs, which
/// is about a third where those are what a clipped ReLU leaves.
const COMMON: f32 = 1.0 / 3.0;

/// Errors of the sums of one product in one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct SumNoise {
    key: Key,
    deviation: f32,
    /// Largest exact sum, beyond which none is moved.
    most: i32,
}

impl SumNoise {
    /// Of relative size `rate`, as [`crate::StepInput::sum_noise`] has it; none where the product does not multiply
    /// codes of an activation by codes.
    pub(super) fn new(step: Key, rate: f32, product: &Product) -> Option<Self> {
        let Source::Codes { bits, quant, .. } = product.source else { return None };
        let weight_bits = product.weight_bits()?;
        let slices = |bits: u8| (f64::from(1u32 << (2 * bits)) - 1.0) / 3.0;
        let most = product.largest_accumulator().and_then(|most| i32::try_from(most).ok())?;
        let squares = product.inputs() as f64 * slices(bits.get()) * slices(weight_bits);
        // Sums of signs are twice those of their codes of 0 and 1.
        let unit = quant.integer_codes(bits).0;
        let deviation = (f64::from(rate) * squares.sqrt() * unit) as f32;
        Some(Self { key: step.with("sum").with(&product.name), deviation, most })
    }

    /// Adds an error to every sum of image `image`: one of the channel, the same in all images, and one of its own.
    pub(super) fn add(&self, image: usize, z: &mut [i32], layout: Layout) {
        let (key, column) = (self.key.at(image as u64), self.key.with("column"));
        let (common, own) = (self.deviation * COMMON.sqrt(), self.deviation * (1.0 - COMMON).sqrt());
        for y in 0..layout.h {
            let row = &mut z[layout.offset(y, 0)..][..layout.w * layout.cs];
            for (x, pixel) in row.chunks_exact_mut(layout.cs).enumerate() {
                let place = ((y * layout.w + x) * layout.c) as u64;
                for (c, sum) in pixel[..layout.c].iter_mut().enumerate() {
                    let of_column = common * roughly_normal(column.u64(c as u64));
                    let error = round_half_even(of_column + own * roughly_normal(key.u64(place + c as u64))) as i32;
                    *sum = (*sum + error).clamp(-self.most, self.most);
                }
            }
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
    use super::*;

    #[test]
    fn errors_have_the_moments_they_should_and_padding_has_none() {
        let layout = Layout { h: 10, w: 10, c: 1003, cs: 1008, border: 0 };
        let noise = SumNoise { key: Key::new(1), deviation: 25.0, most: 1500 };
        let mut z = vec![1000; 4 * layout.len()];
        z.chunks_exact_mut(layout.len()).enumerate().for_each(|(i, z)| noise.add(i, z, layout));
        assert!(z.chunks_exact(layout.cs).all(|pixel| pixel[layout.c..].iter().all(|&z| z == 1000)));
        let (mut own, mut means) = (0.0, Vec::new());
        for c in 0..layout.c {
            let errors: Vec<f64> = z.iter().skip(c).step_by(layout.cs).map(|z| f64::from(z - 1000)).collect();
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            own += errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (errors.len() - 1) as f64;
            means.push(mean);
        }
        let n = means.len() as f64;
        let (mean, common) = (means.iter().sum::<f64>() / n, means.iter().map(|m| m * m).sum::<f64>() / n);
        let (own, common) = ((own / n).sqrt(), common.sqrt());
        assert!(mean.abs() < 1.5, "{mean}");
        assert!((own / (25.0 * (2.0f64 / 3.0).sqrt()) - 1.0).abs() < 0.01, "{own}");
        assert!((common / (25.0 * (1.0f64 / 3.0).sqrt()) - 1.0).abs() < 0.07, "{common}");
        let mut again = vec![1000; layout.len()];
        noise.add(3, &mut again, layout);
        assert_eq!(again, z[3 * layout.len()..4 * layout.len()]);
        assert_ne!(again, z[..layout.len()]);
        SumNoise { most: 1010, ..noise }.add(3, &mut again, layout);
        assert!(again.iter().all(|&z| z <= 1010) && again.contains(&1010));
    }
}
