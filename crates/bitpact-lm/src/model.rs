//! Networks in memory: matrices with or without codes, layers, and the whole.

use bitpact_kernels::Pool;
use bitpact_ptq::{Matrix, Quantized};

use crate::{Config, LmError};

/// The weights of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub enum Weights {
    /// Float32.
    Float(Matrix),
    /// Codes; products use the weights they mean, in float32.
    Codes(Quantized),
}

impl Weights {
    /// Number of outputs, or of tokens of an embedding.
    pub fn rows(&self) -> usize {
        match self {
            Weights::Float(w) => w.rows(),
            Weights::Codes(q) => q.rows(),
        }
    }

    /// Number of inputs, or the width of an embedding.
    pub fn cols(&self) -> usize {
        match self {
            Weights::Float(w) => w.cols(),
            Weights::Codes(q) => q.cols(),
        }
    }

    /// The weights in float32.
    pub fn to_float(&self) -> Matrix {
        match self {
            Weights::Float(w) => w.clone(),
            Weights::Codes(q) => q.dequantize(),
        }
    }

    /// Writes row `r` in float32 to `to`.
    ///
    /// # Panics
    /// Where there is no such row or `to` is not one number a column.
    pub fn row_to(&self, r: usize, to: &mut [f32]) {
        match self {
            Weights::Float(w) => to.copy_from_slice(w.row(r)),
            Weights::Codes(q) => q.row_to(r, to),
        }
    }

    /// The products for the tokens that are the rows of `x`.
    ///
    /// # Panics
    /// Where `x` has not one column an input.
    pub fn apply(&self, x: &Matrix, pool: &Pool) -> Matrix {
        match self {
            Weights::Float(w) => x.times_transposed(w, pool),
            Weights::Codes(q) => x.times_transposed(&q.dequantize(), pool),
        }
    }
}

/// A matrix with a bias that most models lack: `y = x W^T + bias`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `outputs x inputs`.
    pub weights: Weights,
    /// A number an output.
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// Without bias.
    pub fn float(weights: Matrix) -> Linear {
        Linear { weights: Weights::Float(weights), bias: None }
    }

    /// The same with float32 weights, those that codes mean.
    pub fn dequantized(&self) -> Linear {
        Linear { weights: Weights::Float(self.weights.to_float()), bias: self.bias.clone() }
    }

    /// The products for the tokens that are the rows of `x`.
    ///
    /// # Panics
    /// Where `x` has not one column an input.
    pub fn apply(&self, x: &Matrix, pool: &Pool) -> Matrix {
        let mut y = self.weights.apply(x, pool);
        if let Some(bias) = &self.bias {
            for r in 0..y.rows() {
                y.row_mut(r).iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
        y
    }
}

/// The matrices of a layer, in the order of files and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Output of attention.
    O,
    /// Gate of the feed-forward block.
    Gate,
    /// Its other input.
    Up,
    /// Its output.
    Down,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 7] = [Part::Q, Part::K, Part::V, Part::O, Part::Gate, Part::Up, Part::Down];

    /// The name in Hugging Face files.
    pub fn name(self) -> &'static str {
        match self {
            Part::Q => "q_proj",
            Part::K => "k_proj",
            Part::V => "v_proj",
            Part::O => "o_proj",
            Part::Gate => "gate_proj",
            Part::Up => "up_proj",
            Part::Down => "down_proj",
        }
    }

    /// Outputs and inputs.
    pub fn shape(self, config: &Config) -> (usize, usize) {
        match self {
            Part::Q => (config.q_dim(), config.dim),
            Part::K | Part::V => (config.kv_dim(), config.dim),
            Part::O => (config.dim, config.q_dim()),
            Part::Gate | Part::Up => (config.hidden, config.dim),
            Part::Down => (config.dim, config.hidden),
        }
    }
}

/// One layer: attention and feed-forward block with the norms before them.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Weights of the norm before attention.
    pub attention_norm: Vec<f32>,
    /// Weights of the norm before the feed-forward block.
    pub mlp_norm: Vec<f32>,
    /// Weights of the norm of every head's query, where the model has it.
    pub q_norm: Option<Vec<f32>>,
    /// Weights of the norm of every head's key, where the model has it.
    pub k_norm: Option<Vec<f32>>,
    /// The matrices, as [`Part::ALL`] orders them.
    pub parts: [Linear; 7],
}

impl Layer {
    /// A matrix.
    pub fn part(&self, part: Part) -> &Linear {
        &self.parts[part as usize]
    }

    /// A matrix, to be changed.
    pub fn part_mut(&mut self, part: Part) -> &mut Linear {
        &mut self.parts[part as usize]
    }

    /// The same with float32 weights.
    pub fn dequantized(&self) -> Layer {
        Layer { parts: self.parts.each_ref().map(Linear::dequantized), ..self.clone() }
    }
}

/// What is not in a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Outer {
    /// A row a token.
    pub embedding: Weights,
    /// Weights of the last norm.
    pub norm: Vec<f32>,
    /// The output matrix; the embedding where absent.
    pub head: Option<Weights>,
}

impl Outer {
    /// The output matrix.
    pub fn head(&self) -> &Weights {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

/// A network.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its shape.
    pub config: Config,
    /// Embedding, last norm, output matrix.
    pub outer: Outer,
    /// Layers from the input on.
    pub layers: Vec<Layer>,
}

/// Where a network comes from, layer by layer, so that one layer at a time need be in memory.
pub trait Source {
    /// The shape, checked.
    fn config(&self) -> &Config;

    /// What is not in a layer.
    ///
    /// # Errors
    /// Where the file cannot be read or lacks something.
    fn outer(&self) -> Result<Outer, LmError>;

    /// Layer `index`.
    ///
    /// # Errors
    /// Where the file cannot be read or lacks something.
    fn layer(&self, index: usize) -> Result<Layer, LmError>;

    /// All of it.
    ///
    /// # Errors
    /// Where the file cannot be read or lacks something.
    fn load(&self) -> Result<Model, LmError> {
        let config = self.config().clone();
        let layers = (0..config.layers).map(|i| self.layer(i)).collect::<Result<_, _>>()?;
        Ok(Model { outer: self.outer()?, layers, config })
    }
}

impl Model {
    /// The same with float32 weights, those that codes mean.
    pub fn dequantized(&self) -> Model {
        let float = |w: &Weights| Weights::Float(w.to_float());
        let outer = Outer {
            embedding: float(&self.outer.embedding),
            norm: self.outer.norm.clone(),
            head: self.outer.head.as_ref().map(float),
        };
        let layers = self.layers.iter().map(Layer::dequantized).collect();
        Model { config: self.config.clone(), outer, layers }
    }
}

impl Source for Model {
    fn config(&self) -> &Config {
        &self.config
    }

    fn outer(&self) -> Result<Outer, LmError> {
        Ok(self.outer.clone())
    }

    fn layer(&self, index: usize) -> Result<Layer, LmError> {
        Ok(self.layers[index].clone())
    }
}
