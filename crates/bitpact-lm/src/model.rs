//! Networks in memory: matrices with or without codes, layers, and the whole.

use std::sync::Arc;

use bitpact_kernels::gemv::{GemvInputs, GemvWeights, Zeros};
use bitpact_kernels::{Isa, Pool, WeightArena};
use bitpact_ptq::{Matrix, Quantized};

use crate::{Config, LmError};

/// The weights of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub enum Weights {
    /// Weights in float32.
    Float(Matrix),
    /// Codes; products use the weights they mean, in float32.
    Codes(Quantized),
    /// Codes in the order of the kernels; products round activations to 8 bits a token.
    Packed(Packed),
}

/// Codes in the order of the kernels.
#[derive(Clone, Debug)]
pub struct Packed {
    weights: Arc<GemvWeights>,
    isa: Isa,
}

impl PartialEq for Packed {
    /// Tells whether both are the same piece of memory.
    fn eq(&self, other: &Packed) -> bool {
        Arc::ptr_eq(&self.weights, &other.weights)
    }
}

impl Packed {
    /// Packs codes for the path `isa` into `arena`. Codes of 5 to 7 bits take 8.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] for groups beyond what the kernels sum.
    pub fn new(codes: &Quantized, isa: Isa, arena: &WeightArena) -> Result<Packed, LmError> {
        let (grid, rows, cols) = (codes.grid(), codes.rows(), codes.cols());
        let bits = match grid.width().stored_bits() {
            bits @ 2..=4 => usize::from(bits),
            _ => 8,
        };
        let group = grid.group_len(cols).next_multiple_of(32);
        if group > GemvWeights::MAX_GROUP {
            let most = GemvWeights::MAX_GROUP;
            return Err(LmError::Unsupported(format!("groups of {group}: the kernels sum at most {most}")));
        }
        let steps: Vec<u16> = codes.params().iter().map(|p| p.step.to_bits()).collect();
        let zeros: Vec<u8> = codes.params().iter().map(|p| p.zero).collect();
        let zeros = if grid.symmetric() { Zeros::All(grid.width().middle()) } else { Zeros::Each(&zeros) };
        let weights = Arc::new(GemvWeights::pack(rows, cols, bits, group, codes.codes(), &steps, zeros, arena));
        Ok(Packed { weights, isa })
    }

    /// Bytes that one token reads.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    fn apply(&self, x: &Matrix, pool: &Pool) -> Matrix {
        let inputs = GemvInputs::round(x.data(), self.weights.cols(), self.weights.group(), pool);
        let mut y = Matrix::zeros(x.rows(), self.weights.rows());
        self.weights.multiply(&inputs, y.data_mut(), self.isa, pool);
        y
    }
}

impl Weights {
    /// Number of outputs, or of tokens of an embedding.
    pub fn rows(&self) -> usize {
        match self {
            Weights::Float(w) => w.rows(),
            Weights::Codes(q) => q.rows(),
            Weights::Packed(p) => p.weights.rows(),
        }
    }

    /// Number of inputs, or the width of an embedding.
    pub fn cols(&self) -> usize {
        match self {
            Weights::Float(w) => w.cols(),
            Weights::Codes(q) => q.cols(),
            Weights::Packed(p) => p.weights.cols(),
        }
    }

    /// The weights in float32.
    pub fn to_float(&self) -> Matrix {
        match self {
            Weights::Float(w) => w.clone(),
            Weights::Codes(q) => q.dequantize(),
            Weights::Packed(p) => {
                let mut w = Matrix::zeros(p.weights.rows(), p.weights.cols());
                (0..w.rows()).for_each(|r| p.weights.row_to(r, w.row_mut(r)));
                w
            }
        }
    }

    /// Codes packed for the kernels into `arena`; floats as they are.
    ///
    /// # Errors
    /// Those of [`Packed::new`].
    pub fn packed(&self, isa: Isa, arena: &WeightArena) -> Result<Weights, LmError> {
        match self {
            Weights::Codes(q) => Packed::new(q, isa, arena).map(Weights::Packed),
            other => Ok(other.clone()),
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
            Weights::Packed(p) => p.weights.row_to(r, to),
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
            Weights::Packed(p) => p.apply(x, pool),
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
    /// A linear map without bias.
    pub fn float(weights: Matrix) -> Linear {
        Linear { weights: Weights::Float(weights), bias: None }
    }

    /// A copy with float32 weights, those that the codes mean.
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
    /// The matrix that gives queries.
    Q,
    /// The matrix that gives keys.
    K,
    /// The matrix that gives values.
    V,
    /// The matrix that takes the output of attention.
    O,
    /// Gate of the feed-forward block.
    Gate,
    /// The matrix whose output multiplies the gate's, in the feed-forward block.
    Up,
    /// The matrix from the feed-forward block to the hidden state.
    Down,
}

impl Part {
    /// All matrices of a layer, in the order of the file.
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

    /// The layer with its codes packed for the kernels into `arena`.
    ///
    /// # Errors
    /// Those of [`Packed::new`].
    pub fn packed(mut self, isa: Isa, arena: &WeightArena) -> Result<Layer, LmError> {
        for linear in &mut self.parts {
            linear.weights = linear.weights.packed(isa, arena)?;
        }
        Ok(self)
    }

    /// A copy of the layer with float32 weights.
    pub fn dequantized(&self) -> Layer {
        Layer { parts: self.parts.each_ref().map(Linear::dequantized), ..self.clone() }
    }
}

/// The parts of a model outside its layers: embedding, last norm and output matrix.
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
    /// Shape of the model.
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

    /// The parts of a model outside its layers: embedding, last norm and output matrix.
    ///
    /// # Errors
    /// Where the file cannot be read or lacks something.
    fn outer(&self) -> Result<Outer, LmError>;

    /// Layer `index`.
    ///
    /// # Errors
    /// Where the file cannot be read or lacks something.
    fn layer(&self, index: usize) -> Result<Layer, LmError>;

    /// Reads the whole model.
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
    /// A copy with float32 weights, those that the codes mean.
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

/// The network of `source` with codes packed for the kernels of `isa`, one layer after another. An embedding of codes
/// is packed as the output matrix too.
///
/// # Errors
/// Those of the source and of [`Packed::new`].
pub fn load_packed(source: &dyn Source, isa: Isa) -> Result<Model, LmError> {
    let arena = WeightArena::new();
    let config = source.config().clone();
    let layers = (0..config.layers).map(|i| source.layer(i)?.packed(isa, &arena)).collect::<Result<_, _>>()?;
    let mut outer = source.outer()?;
    outer.head =
        Some(outer.head().packed(isa, &arena)?).filter(|head| matches!(head, Weights::Packed(_))).or(outer.head);
    Ok(Model { config, outer, layers })
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
