//! Networks with random codes: for measuring speed, which does not depend on them.

use bitpact_ptq::{Grid, GroupParams, Quantized};
use half::f16;

use crate::{Config, Layer, Linear, Outer, Part, Weights};

/// Codes of a seed, with the step that gives outputs about the size of inputs.
fn random(rows: usize, cols: usize, grid: Grid, seed: u64) -> Weights {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    let max = u32::from(grid.width().max_code()) + 1;
    let codes = (0..rows * cols).map(|_| (next() % max) as u8).collect();
    let step = f16::from_f32(3.0 / (max as f32 * (cols as f32).sqrt()));
    let params = vec![GroupParams { step, zero: grid.width().middle() }; rows * grid.groups(cols)];
    Weights::Codes(Quantized::new(grid, rows, cols, codes, params).expect("codes of the grid"))
}

/// A layer with random codes.
pub fn random_layer(config: &Config, grid: Grid, seed: u64) -> Layer {
    let parts = Part::ALL.map(|part| {
        let (rows, cols) = part.shape(config);
        Linear { weights: random(rows, cols, grid, seed * 8 + part as u64 + 1), bias: None }
    });
    let (attention_norm, mlp_norm) = (vec![1.0; config.dim], vec![1.0; config.dim]);
    Layer { attention_norm, mlp_norm, q_norm: None, k_norm: None, parts }
}

/// Embedding, norm and output matrix with random codes.
pub fn random_outer(config: &Config, grid: Grid) -> Outer {
    let matrix = |seed| random(config.vocab, config.dim, grid, seed);
    let head = if config.tied { None } else { Some(matrix(0x5eed)) };
    Outer { embedding: matrix(0xe0bed), norm: vec![1.0; config.dim], head }
}
