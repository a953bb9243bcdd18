//! The executor: an integer network planned once for one instruction set, then run on batches.
//!
//! Where there are images for all threads, every task of the pool is a few images, taken through all layers in the
//! memory of its worker, without barriers between layers, and through those with many weights together; the images left
//! over are computed one by one, each layer shared by all threads. The first images reserve the memory that they need;
//! nothing is allocated after them.

mod arena;
mod columns;
mod general;
mod layer;
mod plan;
mod table;

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bitpact_core::RequantizationError;
use bitpact_kernels::memory::{self, Shortage};
use bitpact_kernels::{Isa, Pool, Scratch, Workers};
use bitpact_model::{IntegerModel, ModelError};

use self::arena::Arena;
use self::plan::Plan;
use crate::{LayerProfile, Trace};

/// Threads, instruction set and kernels that a network is run with.
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
    /// A network that needs more memory than there is.
    #[error("the network {0}")]
    Memory(Shortage),
    /// A sum that could overflow.
    #[error("layer `{layer}`: {source}")]
    Step {
        /// Name of the layer.
        layer: String,
        /// Error that caused this one.
        source: RequantizationError,
    },
    /// Pixels that are not whole images.
    #[error("{pixels} pixels, expected a multiple of the {image} of one image")]
    Pixels {
        /// Number of pixels.
        pixels: usize,
        /// Pixels of one image, h * w * c.
        image: usize,
    },
    /// Work that whoever asked for it broke off.
    #[error("stopped")]
    Stopped,
    /// A label that is no class of the network.
    #[error("image {image} has label {label}, but the network has {classes} classes")]
    Label {
        /// Number of the image.
        image: usize,
        /// Label of the image.
        label: usize,
        /// Classes of the network.
        classes: usize,
    },
}

/// Runs an integer network. Gives the same integers as [`Interpreter`](crate::Interpreter) on every instruction set,
/// with any number of threads.
#[derive(Debug)]
pub struct Executor {
    plan: Arc<Plan>,
    pool: Pool,
    /// What each worker has of tensors and of scratch memory, from its first image on.
    arenas: Vec<Mutex<Vec<Arena>>>,
    scratch: OnceLock<Vec<Mutex<Scratch>>>,
}

impl Executor {
    /// Checks the network, chooses kernels and packs weights.
    ///
    /// # Errors
    /// An invalid network, a machine without the instruction set, or one without the memory that the threads' tensors
    /// take.
    pub fn new(model: &IntegerModel, options: ExecOptions) -> Result<Self, EngineError> {
        Self::with_candidate(model, options, 0)
    }

    /// Loads a `.bitpact` file and prepares it; of the file and its codes nothing stays in memory.
    ///
    /// # Errors
    /// A file that cannot be read or is not valid, or a machine without the instruction set.
    pub fn load(path: impl AsRef<Path>, options: ExecOptions) -> Result<Self, EngineError> {
        with_loaded(path.as_ref(), |model| Self::new(model, options))
    }

    /// Creates an executor with the kernels of rank `candidate` for every product, 0 being those that [`Executor::new`]
    /// picks; where a product has fewer, its last.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn with_candidate(model: &IntegerModel, options: ExecOptions, candidate: usize) -> Result<Self, EngineError> {
        if !options.isa.is_available() {
            return Err(EngineError::Isa { isa: options.isa });
        }
        model.check()?;
        let pool = Pool::new(options.threads);
        let plan = Plan::new(model, options.isa, candidate, &pool)?;
        let executor = Self::of(Arc::new(plan), pool);
        executor.check_memory(executor.threads())?;
        Ok(executor)
    }

    /// Whether there is memory for the tensors of `threads` threads.
    pub(crate) fn check_memory(&self, threads: usize) -> Result<(), EngineError> {
        memory::check(self.plan.worker_bytes().saturating_mul(threads as u64)).map_err(EngineError::Memory)
    }

    /// Another executor of the same network, with `threads` threads and memory of its own; the two share the weights.
    pub fn fork(&self, threads: usize) -> Self {
        Self::of(Arc::clone(&self.plan), Pool::new(threads))
    }

    fn of(plan: Arc<Plan>, pool: Pool) -> Self {
        let arenas = (0..pool.threads()).map(|_| Mutex::default()).collect();
        Self { plan, pool, arenas, scratch: OnceLock::new() }
    }

    /// Pixels of one image, h * w * c.
    pub fn image_len(&self) -> usize {
        self.plan.image_len()
    }

    /// Numbers of the main output of one image, `h * w * c`: a logit for each class, at one position or many.
    pub fn output_len(&self) -> usize {
        self.plan.outputs()[0].1
    }

    /// Numbers of each output of one image, `h * w * c`, the main one first.
    pub fn output_lens(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.plan.outputs().iter().map(|output| output.1)
    }

    /// Tensor and number of values of each output of one image, the main one first.
    pub(crate) fn outputs(&self) -> &[(usize, usize)] {
        self.plan.outputs()
    }

    /// Every layer in order: its name, its kernels, the multiplications of its products.
    pub fn layers(&self) -> impl Iterator<Item = (&str, String, u64)> {
        self.plan.layers()
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.plan.weight_bytes()
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Computes the main output of a batch: `pixels` are n images of [`Executor::image_len`], HWC, and `logits`
    /// receives n rows of [`Executor::output_len`].
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn run(&mut self, pixels: &[u8], logits: &mut [i64]) {
        self.run_outputs(pixels, &mut [logits]);
    }

    /// Computes the outputs of a batch: `pixels` are n images of [`Executor::image_len`], HWC, and each of `outputs`,
    /// the main one first, receives n rows of its length in [`Executor::output_lens`]. Those that are left out at the
    /// end are not read.
    ///
    /// # Panics
    /// If a length does not fit, or there are more slices than outputs.
    pub fn run_outputs(&mut self, pixels: &[u8], outputs: &mut [&mut [i64]]) {
        let image = self.image_len();
        assert!(pixels.len().is_multiple_of(image), "{} pixels, images of {image}", pixels.len());
        let images = pixels.len() / image;
        let known = self.plan.outputs();
        assert!(outputs.len() <= known.len(), "{} outputs of {}", outputs.len(), known.len());
        for (output, (_, len)) in outputs.iter().zip(known) {
            assert_eq!(output.len(), images * len, "outputs of {images} images");
        }
        let outputs = Mutex::new(outputs);
        self.each(pixels, &|i, tensor, arena| {
            let Some(at) = known.iter().position(|output| output.0 == tensor) else { return };
            if let Some(output) = lock(&outputs).get_mut(at) {
                let len = known[at].1;
                self.plan.copy(arena, tensor, &mut output[i * len..(i + 1) * len]);
            }
        });
    }

    /// Computes a batch; `after` is called after each layer of each image with the number of the image and of the
    /// tensor written. Threads take images for themselves while there are as many for each, and what is left over
    /// together.
    fn each(&self, pixels: &[u8], after: &(dyn Fn(usize, usize, &Arena) + Sync)) {
        let (image, threads) = (self.image_len(), self.threads());
        let images = pixels.len() / image;
        let whole = images / threads * threads;
        let tasks = (whole / threads).div_ceil(self.plan.images_together()) * threads;
        let compute = |images: Range<usize>, worker: usize, workers: Workers<'_>| {
            let first = images.start;
            let pixels = &pixels[first * image..images.end * image];
            self.with_arenas(worker, images.len(), |arenas| {
                self.plan.run(arenas, workers, pixels, |i, tensor, arena| after(first + i, tensor, arena));
            });
        };
        self.pool.run(tasks, &|task, worker| {
            let images = task * whole / tasks..(task + 1) * whole / tasks;
            compute(images, worker, Workers::One(&self.scratch()[worker]));
        });
        (whole..images).for_each(|i| compute(i..i + 1, 0, self.workers()));
    }

    fn workers(&self) -> Workers<'_> {
        Workers::All(&self.pool, self.scratch())
    }

    fn scratch(&self) -> &[Mutex<Scratch>] {
        let reserve = || (0..self.threads()).map(|_| Mutex::new(self.plan.scratch().reserve())).collect();
        self.scratch.get_or_init(reserve)
    }

    fn with_arenas<R>(&self, worker: usize, images: usize, f: impl FnOnce(&mut [Arena]) -> R) -> R {
        let mut arenas = lock(&self.arenas[worker]);
        while arenas.len() < images {
            arenas.push(self.plan.arena());
        }
        f(&mut arenas[..images])
    }

    /// Every code of one image, as [`Interpreter::run`](crate::Interpreter::run) gives them.
    ///
    /// # Panics
    /// If the number of pixels is wrong.
    pub fn trace(&mut self, pixels: &[u8]) -> Trace {
        assert_eq!(pixels.len(), self.image_len(), "pixels of one image");
        let mut tensors = Vec::new();
        self.with_arenas(0, 1, |arenas| {
            let read = |_, tensor, arena: &Arena| tensors.push(self.plan.read(arena, tensor));
            self.plan.run(arenas, self.workers(), pixels, read);
        });
        Trace { tensors, main: self.plan.outputs()[0].0 - 1 }
    }

    /// Every code of a batch, computed as [`Executor::run`] computes it.
    ///
    /// # Panics
    /// If the pixels are not whole images.
    pub fn trace_batch(&mut self, pixels: &[u8]) -> Vec<Trace> {
        let image = self.image_len();
        assert!(pixels.len().is_multiple_of(image), "{} pixels, images of {image}", pixels.len());
        let images = pixels.len() / image;
        let traces = Mutex::new(vec![Trace { tensors: Vec::new(), main: self.plan.outputs()[0].0 - 1 }; images]);
        self.each(pixels, &|i, tensor, arena| {
            let tensor = self.plan.read(arena, tensor);
            lock(&traces)[i].tensors.push(tensor);
        });
        traces.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one image, all threads on each layer, and times every layer.
    ///
    /// # Panics
    /// If the number of pixels is wrong.
    pub fn profile(&mut self, pixels: &[u8]) -> Vec<LayerProfile> {
        assert_eq!(pixels.len(), self.image_len(), "pixels of one image");
        let mut times = Vec::new();
        let mut begin = Instant::now();
        self.with_arenas(0, 1, |arenas| {
            self.plan.run(arenas, self.workers(), pixels, |_, _, _| {
                let end = Instant::now();
                times.push(end - std::mem::replace(&mut begin, end));
            });
        });
        let profile = |((name, kernel, macs), time): ((&str, String, u64), _)| LayerProfile {
            name: name.to_owned(),
            kernel,
            macs,
            time,
        };
        self.layers().zip(times).map(profile).collect()
    }
}

/// What `plan` makes of the network in a file, of which nothing else stays in memory.
pub(crate) fn with_loaded<T>(
    path: &Path,
    plan: impl FnOnce(&IntegerModel) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let model = IntegerModel::load(path)?;
    let planned = plan(&model);
    drop(model);
    bitpact_kernels::memory::release_freed();
    planned
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
