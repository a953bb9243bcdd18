//! Tensors by name, and the layers built of them.

use bitpact_ptq::Matrix;

use crate::{Config, Layer, Linear, LmError, Outer, Part, Weights};

/// A store of tensors with Hugging Face names (`model.layers.0.self_attn.q_proj.weight`).
pub(crate) trait Tensors {
    /// Tells whether the tensor is there.
    fn has(&self, name: &str) -> bool;

    /// The tensor in float32. An error where it is absent or has another shape.
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LmError>;

    /// A matrix of `rows x cols`.
    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix, LmError> {
        let data = self.read(name, &[rows, cols])?;
        Matrix::new(rows, cols, data).map_err(|source| LmError::Layer { layer: name.to_owned(), source })
    }
}

/// The name of a matrix in a layer.
pub(crate) fn part_name(index: usize, part: Part) -> String {
    let block = match part {
        Part::Q | Part::K | Part::V | Part::O => "self_attn",
        Part::Gate | Part::Up | Part::Down => "mlp",
    };
    format!("model.layers.{index}.{block}.{}", part.name())
}

/// Layer `index`.
pub(crate) fn layer(store: &dyn Tensors, config: &Config, index: usize) -> Result<Layer, LmError> {
    let prefix = format!("model.layers.{index}");
    let norm = |name: &str, len: usize| store.read(&format!("{prefix}.{name}.weight"), &[len]);
    let optional = |name: &str, len: usize| match store.has(&format!("{prefix}.{name}.weight")) {
        true => norm(name, len).map(Some),
        false => Ok(None),
    };
    let mut parts = Vec::with_capacity(7);
    for part in Part::ALL {
        let (rows, cols) = part.shape(config);
        let name = part_name(index, part);
        let bias = format!("{name}.bias");
        parts.push(Linear {
            weights: Weights::Float(store.matrix(&format!("{name}.weight"), rows, cols)?),
            bias: if store.has(&bias) { Some(store.read(&bias, &[rows])?) } else { None },
        });
    }
    Ok(Layer {
        attention_norm: norm("input_layernorm", config.dim)?,
        mlp_norm: norm("post_attention_layernorm", config.dim)?,
        q_norm: optional("self_attn.q_norm", config.head_dim)?,
        k_norm: optional("self_attn.k_norm", config.head_dim)?,
        parts: parts.try_into().expect("seven parts"),
    })
}

/// Embedding, last norm and output matrix.
pub(crate) fn outer(store: &dyn Tensors, config: &Config) -> Result<Outer, LmError> {
    Ok(Outer {
        embedding: Weights::Float(store.matrix("model.embed_tokens.weight", config.vocab, config.dim)?),
        norm: store.read("model.norm.weight", &[config.dim])?,
        head: match config.tied {
            true => None,
            false => Some(Weights::Float(store.matrix("lm_head.weight", config.vocab, config.dim)?)),
        },
    })
}

/// Rows of a query or key matrix in half-split order, from the order in which an element turns with its neighbour.
pub(crate) fn split_halves(rows: &[f32], head_dim: usize, cols: usize) -> Vec<f32> {
    let half = head_dim / 2;
    rows.chunks_exact(head_dim * cols)
        .flat_map(|head| (0..head_dim).flat_map(move |r| &head[(r % half * 2 + r / half) * cols..][..cols]))
        .copied()
        .collect()
}
