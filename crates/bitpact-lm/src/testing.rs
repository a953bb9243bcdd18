//! Small networks with drawn weights.

use bitpact_ptq::Matrix;

use crate::{Config, Layer, Linear, Model, Outer, Part, RopeScaling, Weights};

/// A network of two layers, two query heads and one key head.
pub(crate) fn config() -> Config {
    Config {
        vocab: 40,
        dim: 32,
        hidden: 44,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 8,
        context: 64,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied: true,
    }
}

/// Weights drawn once for all; with biases and norms of heads where `extras`.
pub(crate) fn model(config: Config, extras: bool) -> Model {
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 2.0
    };
    let embedding = Weights::Float(Matrix::from_fn(config.vocab, config.dim, |_, _| draw()));
    let layers = (0..config.layers).map(|_| {
        let parts = Part::ALL.map(|part| {
            let (rows, cols) = part.shape(&config);
            let mut linear = Linear::float(Matrix::from_fn(rows, cols, |_, _| draw() * 2.0 / (cols as f32).sqrt()));
            linear.bias = extras.then(|| (0..rows).map(|_| draw() / 10.0).collect());
            linear
        });
        let mut norm = |len: usize| -> Vec<f32> { (0..len).map(|_| 1.0 + draw() / 2.0).collect() };
        Layer {
            attention_norm: norm(config.dim),
            mlp_norm: norm(config.dim),
            q_norm: extras.then(|| norm(config.head_dim)),
            k_norm: extras.then(|| norm(config.head_dim)),
            parts,
        }
    });
    let layers = layers.collect();
    let outer = Outer { embedding, norm: vec![1.0; config.dim], head: None };
    Model { config, outer, layers }
}
