//! The shape of a model of the Llama family.

use crate::LmError;

/// Sizes and constants of a decoder-only network: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Config {
    /// Number of tokens.
    pub vocab: usize,
    /// Width of the hidden state.
    pub dim: usize,
    /// Width inside the feed-forward block.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of a head, even.
    pub head_dim: usize,
    /// Most positions the model was made for.
    pub context: usize,
    /// Added to the mean square in RMSNorm.
    pub norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Rule by which rotary frequencies are stretched.
    pub rope_scaling: RopeScaling,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
}

/// How rotary frequencies are changed for contexts longer than those of the first training.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum RopeScaling {
    /// Rotary frequencies stay as they were trained.
    None,
    /// Every rotary frequency is divided by `factor`.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// The factor.
        factor: f64,
        /// Turns within the old context below which a frequency is divided.
        low: f64,
        /// Turns within the old context above which a frequency is kept.
        high: f64,
        /// The old context.
        original: f64,
    },
    /// YaRN (arXiv 2309.00071): as above with a ramp over dimensions, and larger logits of attention.
    Yarn {
        /// The factor.
        factor: f64,
        /// Turns above which a frequency is kept.
        beta_fast: f64,
        /// Turns below which a frequency is divided.
        beta_slow: f64,
        /// The old context.
        original: f64,
    },
}

impl Config {
    /// Width of all query heads.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Number of weights of the seven matrices of a layer.
    pub fn layer_weights(&self) -> usize {
        2 * self.dim * (self.q_dim() + self.kv_dim()) + 3 * self.dim * self.hidden
    }

    /// Refuses shapes that no model has, so that sizes computed from them are sound.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] naming the number.
    pub fn check(&self) -> Result<(), LmError> {
        let within = |name: &str, value: usize, most: usize| {
            if (1..=most).contains(&value) {
                Ok(())
            } else {
                Err(LmError::Unsupported(format!("{name} is {value}: expected 1 to {most}")))
            }
        };
        within("the vocabulary", self.vocab, 1 << 22)?;
        within("the hidden size", self.dim, 1 << 17)?;
        within("the feed-forward size", self.hidden, 1 << 20)?;
        within("the number of layers", self.layers, 1 << 10)?;
        within("the number of heads", self.heads, 1 << 10)?;
        within("the number of key and value heads", self.kv_heads, self.heads)?;
        within("the width of a head", self.head_dim, 1 << 12)?;
        within("the context", self.context, 1 << 24)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (h, kv) = (self.heads, self.kv_heads);
            return Err(LmError::Unsupported(format!("{h} heads cannot share {kv} key and value heads")));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(LmError::Unsupported(format!(
                "the width of a head is {}: expected an even number",
                self.head_dim
            )));
        }
        let positive = |v: f64| v.is_finite() && v > 0.0;
        let scaling = match self.rope_scaling {
            RopeScaling::None => true,
            RopeScaling::Linear { factor } => positive(factor),
            RopeScaling::Llama3 { factor, low, high, original } => {
                positive(factor) && positive(low) && high > low && positive(original)
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original } => {
                positive(factor) && positive(beta_slow) && beta_fast > beta_slow && positive(original)
            }
        };
        if !(positive(self.rope_theta) && scaling && self.norm_eps >= 0.0 && self.norm_eps < 1.0) {
            return Err(LmError::Unsupported("rotary or norm constants are not positive numbers".to_owned()));
        }
        Ok(())
    }
}
