//! Layers for tests: weights and inputs as they are found in networks.

use bitpact_core::{Bits, Granularity, Grid, WeightQuant, WeightSpec};

use crate::Matrix;

/// A quantizer whose rows have the steps they are given.
pub(crate) fn lsq(bits: u8, grid: Grid) -> WeightSpec {
    let bits = Bits::new(bits).unwrap();
    WeightSpec::with_scale(bits, WeightQuant::Lsq, Some(grid), Some(Granularity::Channel)).unwrap()
}

/// Weights with a normal distribution.
pub(crate) fn normal(rows: usize, cols: usize, seed: u64) -> Matrix {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    Matrix::from_fn(rows, cols, |_, _| (0..12).map(|_| uniform()).sum::<f32>() - 6.0)
}

/// `tokens` inputs whose covariance has eigenvalues `i^-power` in random directions.
pub(crate) fn inputs(tokens: usize, cols: usize, power: f32, seed: u64) -> Matrix {
    let mut latent = normal(tokens, cols, seed);
    let spread: Vec<f32> = (1..=cols).map(|i| (i as f32).powf(-power / 2.0)).collect();
    latent.scale_cols(&spread);
    let mut mix = normal(cols, cols, seed + 1);
    mix.data_mut().iter_mut().for_each(|v| *v /= (cols as f32).sqrt());
    latent.times_transposed(&mix, &bitpact_kernels::Pool::new(1))
}
