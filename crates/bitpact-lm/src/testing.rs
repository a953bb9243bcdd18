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

/// The tensors of a float network with their Hugging Face names and shapes.
pub(crate) fn tensors(model: &Model) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let matrix = |w: &Weights| (vec![w.rows(), w.cols()], w.to_float().into_data());
    let mut out = Vec::new();
    let mut add = |name: String, (shape, data): (Vec<usize>, Vec<f32>)| out.push((name, shape, data));
    let vector = |v: &[f32]| (vec![v.len()], v.to_vec());
    add("model.embed_tokens.weight".into(), matrix(&model.outer.embedding));
    add("model.norm.weight".into(), vector(&model.outer.norm));
    if let Some(head) = &model.outer.head {
        add("lm_head.weight".into(), matrix(head));
    }
    for (i, layer) in model.layers.iter().enumerate() {
        let prefix = format!("model.layers.{i}");
        add(format!("{prefix}.input_layernorm.weight"), vector(&layer.attention_norm));
        add(format!("{prefix}.post_attention_layernorm.weight"), vector(&layer.mlp_norm));
        for (name, norm) in [("q_norm", &layer.q_norm), ("k_norm", &layer.k_norm)] {
            if let Some(norm) = norm {
                add(format!("{prefix}.self_attn.{name}.weight"), vector(norm));
            }
        }
        for part in Part::ALL {
            let name = crate::tensors::part_name(i, part);
            add(format!("{name}.weight"), matrix(&layer.part(part).weights));
            if let Some(bias) = &layer.part(part).bias {
                add(format!("{name}.bias"), vector(bias));
            }
        }
    }
    out
}

/// Rows of queries or keys in the order in which an element turns with its neighbour.
pub(crate) fn interleaved(rows: &[f32], head_dim: usize, cols: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let place = |r: usize| r % 2 * half + r / 2;
    let heads = rows.chunks_exact(head_dim * cols);
    heads.flat_map(|head| (0..head_dim).flat_map(move |r| head[place(r) * cols..][..cols].to_vec())).collect()
}
