//! The executor: an integer network planned once for one instruction set, then run on batches.
//!
//! Every task of the pool is one image, taken through all layers in the memory of its worker: no barriers between layers,
//! everything in cache, and the same work whatever the number of threads. Nothing is allocated while running.

mod arena;
mod general;
mod layer;
mod plan;
mod product;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bitpact_core::StepError;
use bitpact_kernels::{Isa, Pool};
use bitpact_model::{IntegerModel, IntegerOp, ModelError};

use self::arena::Arena;
use self::plan::Plan;
use crate::{LayerProfile, Trace};

/// How a network is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecOptions {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Threads, the caller's included; 0 counts as 1.
    pub threads: usize,
}

impl Default for ExecOptions {
    /// The fastest instruction set and all cores of this machine.
    fn default() -> Self {
        Self { isa: Isa::detect(), threads: std::thread::available_parallelism().map_or(1, |n| n.get()) }
    }
}

/// Why a network cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The network is not valid.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The machine lacks the instruction set.
    #[error("this machine has no {isa}")]
    Isa {
        /// The instruction set that was asked for.
        isa: Isa,
    },
    /// A step that could overflow.
    #[error("layer `{layer}`: {source}")]
    Step {
        /// The layer.
        layer: String,
        /// Why.
        source: StepError,
    },
    /// Pixels that are not whole images.
    #[error("{pixels} pixels, expected a multiple of the {image} of one image")]
    Pixels {
        /// Number of pixels.
        pixels: usize,
        /// Pixels of one image, h * w * c.
        image: usize,
    },
    /// A label that is no class of the network.
    #[error("image {image} has label {label}, but the network has {classes} classes")]
    Label {
        /// Number of the image.
        image: usize,
        /// Its label.
        label: usize,
        /// Classes of the network.
        classes: usize,
    },
}

/// Runs an integer network. Gives the same integers as [`Interpreter`](crate::Interpreter) on every instruction set, with any
/// number of threads.
#[derive(Debug)]
pub struct Executor {
    plan: Arc<Plan>,
    /// Name, kernel and multiply-adds of every layer.
    layers: Arc<[(String, String, u64)]>,
    pool: Pool,
    arenas: Vec<Mutex<Arena>>,
}

impl Executor {
    /// Checks the network, chooses kernels, packs weights and reserves all memory.
    ///
    /// # Errors
    /// An invalid network or a machine without the instruction set.
    pub fn new(model: &IntegerModel, options: ExecOptions) -> Result<Self, EngineError> {
        if !options.isa.is_available() {
            return Err(EngineError::Isa { isa: options.isa });
        }
        model.check()?;
        let plan = Plan::new(model, options.isa)?;
        let layers = model.layers.iter().map(|layer| {
            let macs = layer.op.products().map(|p| (p.codes.len() * layer.shape.h * layer.shape.w) as u64).sum();
            (layer.name.clone(), kernel(&layer.op, options.isa), macs)
        });
        Ok(Self::of(Arc::new(plan), layers.collect(), options.threads))
    }

    /// Another executor of the same network, with `threads` threads and memory of its own; the two share the weights.
    pub fn fork(&self, threads: usize) -> Self {
        Self::of(Arc::clone(&self.plan), Arc::clone(&self.layers), threads)
    }

    fn of(plan: Arc<Plan>, layers: Arc<[(String, String, u64)]>, threads: usize) -> Self {
        let pool = Pool::new(threads);
        let arenas = (0..pool.threads()).map(|_| Mutex::new(plan.arena())).collect();
        Self { plan, layers, pool, arenas }
    }

    /// Pixels of one image, h * w * c.
    pub fn image_len(&self) -> usize {
        self.plan.image_len()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.plan.classes()
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Computes the logits of a batch: `pixels` are n images of [`Executor::image_len`], HWC, and `logits` receives n rows of
    /// [`Executor::classes`].
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn run(&mut self, pixels: &[u8], logits: &mut [i64]) {
        let (image, classes) = (self.image_len(), self.classes());
        assert!(pixels.len().is_multiple_of(image), "{} pixels, images of {image}", pixels.len());
        let images = pixels.len() / image;
        assert_eq!(logits.len(), images * classes, "logits of {images} images");
        let logits = Mutex::new(logits);
        self.pool.run(images, &|i, worker| {
            let mut arena = lock(&self.arenas[worker]);
            self.plan.run(&mut arena, &pixels[i * image..(i + 1) * image], |_, _| {});
            lock(&logits)[i * classes..(i + 1) * classes].copy_from_slice(&arena.logits);
        });
    }

    /// Every code of one image, as [`Interpreter::run`](crate::Interpreter::run) gives them.
    ///
    /// # Panics
    /// If the number of pixels is wrong.
    pub fn trace(&mut self, pixels: &[u8]) -> Trace {
        assert_eq!(pixels.len(), self.image_len(), "pixels of one image");
        let mut tensors = Vec::new();
        let mut arena = lock(&self.arenas[0]);
        self.plan.run(&mut arena, pixels, |tensor, arena| tensors.push(self.plan.read(arena, tensor)));
        Trace { tensors }
    }

    /// Every code of a batch, computed as [`Executor::run`] computes it.
    ///
    /// # Panics
    /// If the pixels are not whole images.
    pub fn trace_batch(&mut self, pixels: &[u8]) -> Vec<Trace> {
        let image = self.image_len();
        assert!(pixels.len().is_multiple_of(image), "{} pixels, images of {image}", pixels.len());
        let images = pixels.len() / image;
        let traces = Mutex::new(vec![Trace { tensors: Vec::new() }; images]);
        self.pool.run(images, &|i, worker| {
            let mut tensors = Vec::new();
            let mut arena = lock(&self.arenas[worker]);
            self.plan.run(&mut arena, &pixels[i * image..(i + 1) * image], |tensor, arena| {
                tensors.push(self.plan.read(arena, tensor));
            });
            lock(&traces)[i] = Trace { tensors };
        });
        traces.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one image and times every layer.
    ///
    /// # Panics
    /// If the number of pixels is wrong.
    pub fn profile(&mut self, pixels: &[u8]) -> Vec<LayerProfile> {
        assert_eq!(pixels.len(), self.image_len(), "pixels of one image");
        let mut ends = Vec::with_capacity(self.layers.len());
        let mut begin = Instant::now();
        self.plan.run(&mut lock(&self.arenas[0]), pixels, |_, _| {
            let end = Instant::now();
            ends.push(end - begin);
            begin = end;
        });
        let profile = |((name, kernel, macs), time): (&(String, String, u64), Duration)| LayerProfile {
            name: name.clone(),
            kernel: kernel.clone(),
            macs: *macs,
            time,
        };
        self.layers.iter().zip(ends).map(profile).collect()
    }
}

/// What computes a layer.
fn kernel(op: &IntegerOp, isa: Isa) -> String {
    match op {
        IntegerOp::Product { .. } | IntegerOp::Logits { .. } => format!("direct_{isa}"),
        IntegerOp::MaxPool { .. } => "max_pool".to_owned(),
        IntegerOp::SumPool { .. } => "sum_pool".to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
