//! The network computed in float32: short, and what everything else is compared with.

use bitpact_kernels::attention::{Rows, attend};
use bitpact_kernels::float::{View, ViewMut, multiply};
use bitpact_kernels::{Chunked, Isa, Pool};
use bitpact_ptq::Matrix;

use crate::rope::Rotations;
use crate::{Config, Layer, Linear, LmError, Model, Part, Weights};

/// Elements that are one task where each is computed alone.
const ELEMENTS: usize = 4096;

/// Keys and values of the tokens seen so far, a layer.
#[derive(Clone, Debug, Default)]
pub struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Keys and values of all layers.
#[derive(Clone, Debug)]
pub struct Cache {
    layers: Vec<LayerCache>,
    len: usize,
}

impl Cache {
    /// A cache that holds no tokens.
    pub fn new(config: &Config) -> Cache {
        Cache { layers: vec![LayerCache::default(); config.layers], len: 0 }
    }

    /// Tokens seen.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Tells whether no token was seen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// An input of a layer, by the matrices that read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// The input of the query, key and value matrices.
    Attention,
    /// The input of the output matrix: what attention gives.
    Output,
    /// The input of the gate and up matrices.
    Mlp,
    /// The input of the down matrix.
    Down,
}

impl Site {
    /// All inputs of a layer, in the order of computation.
    pub const ALL: [Site; 4] = [Site::Attention, Site::Output, Site::Mlp, Site::Down];

    /// The site a matrix reads.
    pub fn of(part: Part) -> Site {
        match part {
            Part::Q | Part::K | Part::V => Site::Attention,
            Part::O => Site::Output,
            Part::Gate | Part::Up => Site::Mlp,
            Part::Down => Site::Down,
        }
    }
}

/// RMSNorm of every row: `x w / sqrt(mean(x^2) + eps)`.
pub fn rms_norm(x: &Matrix, weights: &[f32], eps: f32) -> Matrix {
    let mut y = x.clone();
    (0..y.rows()).for_each(|r| norm_row(y.row_mut(r), weights, eps));
    y
}

fn norm_row(row: &mut [f32], weights: &[f32], eps: f32) {
    let square: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    let scale = 1.0 / (square / row.len() as f64 + f64::from(eps)).sqrt() as f32;
    row.iter_mut().zip(weights).for_each(|(v, w)| *v = *v * scale * w);
}

/// What attention gives to its output matrix, for tokens whose normed hidden states are `x` and which follow those in
/// `cache`.
pub fn attention(
    config: &Config,
    layer: &Layer,
    [q, k, v]: [&Linear; 3],
    x: &Matrix,
    rotations: &Rotations,
    cache: &mut LayerCache,
    pool: &Pool,
) -> Matrix {
    let (mut q, mut k, v) = (q.apply(x, pool), k.apply(x, pool), v.apply(x, pool));
    for (m, norm) in [(&mut q, &layer.q_norm), (&mut k, &layer.k_norm)] {
        for t in 0..m.rows() {
            if let Some(norm) = norm {
                m.row_mut(t).chunks_exact_mut(config.head_dim).for_each(|h| norm_row(h, norm, config.norm_eps));
            }
            rotations.apply(m.row_mut(t), t);
        }
    }
    cache.keys.extend_from_slice(k.data());
    cache.values.extend_from_slice(v.data());
    let (tokens, width, kv) = (x.rows(), config.head_dim, config.kv_dim());
    let seen = cache.keys.len() / kv;
    let past = seen - tokens;
    let scale = 1.0 / (width as f32).sqrt();
    let mut heads = vec![0.0f32; config.heads * tokens * width];
    let group = config.heads / config.kv_heads;
    if tokens == 1 {
        let isa = Isa::detect();
        let parts = Chunked::new(&mut heads, group * width);
        pool.run(config.kv_heads, &|h, _| {
            let rows = |data| Rows::new(data, seen, kv, width);
            let (keys, values) = (rows(&cache.keys[h * width..]), rows(&cache.values[h * width..]));
            let queries = &q.data()[h * group * width..][..group * width];
            attend(queries, keys, values, seen, scale, &mut parts.get(h), &mut Vec::new(), isa);
        });
        drop(parts);
        return Matrix::new(1, config.q_dim(), heads).expect("a row of heads");
    }
    let parts = Chunked::new(&mut heads, tokens * width);
    pool.run(parts.chunks(), &|h, _| {
        let at = h / group * width;
        let mut scores = vec![0.0f32; tokens * seen];
        let queries = View::strided(&q.data()[h * width..], tokens, width, config.q_dim());
        let keys = View::strided(&cache.keys[at..], seen, width, kv);
        multiply(queries, keys.t(), ViewMut::new(&mut scores, tokens, seen));
        for (t, row) in scores.chunks_exact_mut(seen).enumerate() {
            let (visible, hidden) = row.split_at_mut(past + t + 1);
            visible.iter_mut().for_each(|s| *s *= scale);
            softmax(visible);
            hidden.fill(0.0);
        }
        let values = View::strided(&cache.values[at..], seen, width, kv);
        multiply(View::new(&scores, tokens, seen), values, ViewMut::new(&mut parts.get(h), tokens, width));
    });
    drop(parts);
    Matrix::from_fn(tokens, config.q_dim(), |t, c| heads[(c / width * tokens + t) * width + c % width])
}

/// `exp(x) / sum`, in place.
pub fn softmax(x: &mut [f32]) {
    let peak = x.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
    let mut sum = 0.0;
    for v in &mut *x {
        *v = (*v - peak).exp();
        sum += *v;
    }
    x.iter_mut().for_each(|v| *v /= sum);
}

/// What the feed-forward block gives to its down matrix: `silu(gate) * up`.
pub fn gated(gate: &Linear, up: &Linear, x: &Matrix, pool: &Pool) -> Matrix {
    let (mut g, u) = (gate.apply(x, pool), up.apply(x, pool));
    let parts = Chunked::new(g.data_mut(), ELEMENTS);
    pool.run(parts.chunks(), &|i, _| {
        let part = &mut *parts.get(i);
        part.iter_mut().zip(&u.data()[i * ELEMENTS..]).for_each(|(g, u)| *g = *g / (1.0 + (-*g).exp()) * u);
    });
    drop(parts);
    g
}

/// One layer: hidden states `x` in, hidden states out. `probe` sees what the matrices read.
pub fn layer(
    config: &Config,
    layer: &Layer,
    x: &Matrix,
    rotations: &Rotations,
    cache: &mut LayerCache,
    pool: &Pool,
    probe: &mut dyn FnMut(Site, &Matrix),
) -> Matrix {
    let part = |p| layer.part(p);
    let normed = rms_norm(x, &layer.attention_norm, config.norm_eps);
    probe(Site::Attention, &normed);
    let heads =
        attention(config, layer, [part(Part::Q), part(Part::K), part(Part::V)], &normed, rotations, cache, pool);
    probe(Site::Output, &heads);
    let mut x = add(x, &part(Part::O).apply(&heads, pool));
    let normed = rms_norm(&x, &layer.mlp_norm, config.norm_eps);
    probe(Site::Mlp, &normed);
    let inner = gated(part(Part::Gate), part(Part::Up), &normed, pool);
    probe(Site::Down, &inner);
    x = add(&x, &part(Part::Down).apply(&inner, pool));
    x
}

fn add(a: &Matrix, b: &Matrix) -> Matrix {
    let mut sum = a.clone();
    sum.data_mut().iter_mut().zip(b.data()).for_each(|(x, y)| *x += y);
    sum
}

/// Embeddings of tokens, a row each.
///
/// # Errors
/// [`LmError::Input`] for a token beyond the vocabulary.
pub fn embed(embedding: &Weights, tokens: &[u32]) -> Result<Matrix, LmError> {
    let vocab = embedding.rows();
    if let Some(&token) = tokens.iter().find(|&&t| t as usize >= vocab) {
        return Err(LmError::Input(format!("token {token} is beyond the {vocab} of the model")));
    }
    let mut x = Matrix::zeros(tokens.len(), embedding.cols());
    tokens.iter().enumerate().for_each(|(i, &t)| embedding.row_to(t as usize, x.row_mut(i)));
    Ok(x)
}

impl Model {
    /// Hidden states after the last norm of `tokens`, which follow those in `cache`.
    ///
    /// # Errors
    /// [`LmError::Input`] for a token beyond the vocabulary, or more tokens than the model's context.
    pub fn hidden(&self, tokens: &[u32], cache: &mut Cache, pool: &Pool) -> Result<Matrix, LmError> {
        let end = cache.len + tokens.len();
        if end > self.config.context {
            let context = self.config.context;
            return Err(LmError::Input(format!("{end} tokens are more than the model's context of {context}")));
        }
        let mut x = embed(&self.outer.embedding, tokens)?;
        let rotations = Rotations::new(&self.config, cache.len, tokens.len());
        for (l, cache) in self.layers.iter().zip(&mut cache.layers) {
            x = layer(&self.config, l, &x, &rotations, cache, pool, &mut |_, _| {});
        }
        cache.len = end;
        Ok(rms_norm(&x, &self.outer.norm, self.config.norm_eps))
    }

    /// Logits of the tokens whose hidden states are the rows of `hidden`.
    pub fn logits(&self, hidden: &Matrix, pool: &Pool) -> Matrix {
        self.outer.head().apply(hidden, pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{config, model};

    #[test]
    fn token_by_token_gives_the_logits_of_all_at_once_for_any_number_of_threads() {
        let model = model(Config { heads: 4, kv_heads: 2, ..config() }, true);
        let tokens: Vec<u32> = (0..30).map(|i| i * 13 % 40).collect();
        let pool = Pool::new(1);
        let whole = model.hidden(&tokens, &mut Cache::new(&model.config), &pool).unwrap();
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            assert_eq!(model.hidden(&tokens, &mut Cache::new(&model.config), &pool).unwrap(), whole);
            let mut cache = Cache::new(&model.config);
            model.hidden(&tokens[..7], &mut cache, &pool).unwrap();
            for t in 7..30 {
                let one = model.hidden(&tokens[t..=t], &mut cache, &pool).unwrap();
                one.row(0).iter().zip(whole.row(t)).for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{t}: {a} {b}"));
            }
            assert_eq!(cache.len(), 30);
        }
    }

    #[test]
    fn tokens_beyond_vocabulary_or_context_are_refused() {
        let (model, pool) = (model(config(), false), Pool::new(1));
        let run = |tokens: &[u32]| model.hidden(tokens, &mut Cache::new(&model.config), &pool).unwrap_err().to_string();
        assert!(run(&[40]).contains("token 40 is beyond the 40"));
        assert!(run(&[0; 65]).contains("65 tokens are more than the model's context of 64"));
    }
}
