//! One network for a whole program: loaded once, called from any number of threads.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitpact_graph::Shape;
use bitpact_model::{InputDescription, IntegerModel, IntegerOutput};

use crate::executor::with_loaded;
use crate::{EngineError, ExecOptions, Executor, predict};

/// An integer network ready to run, shared by reference between threads.
///
/// Every call takes an [`Executor`] that no other call is using, so calls do not wait for each other; executors share
/// the packed weights, and there are as many as there were calls at once. [`ExecOptions::threads`] counts for each
/// call: 1 is right where many threads call, all cores where one does. Results do not depend on any of this.
#[derive(Debug)]
pub struct Engine {
    idle: Mutex<Vec<Executor>>,
    /// Never runs: the one the others come from.
    origin: Executor,
    threads: usize,
    input: InputDescription,
    input_shape: Shape,
    class_names: Vec<String>,
    outputs: Vec<Output>,
}

/// An output of a network: a value q means `scale * (q - zero)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Name of the layer that gives it.
    pub name: String,
    /// Shape for one image.
    pub shape: Shape,
    /// Real value of one unit.
    pub scale: f64,
    /// The value that stands for zero.
    pub zero: i64,
}

impl Engine {
    /// Prepares `model`.
    ///
    /// # Errors
    /// An invalid network, or a machine without the instruction set or the memory that the threads' tensors take.
    pub fn new(model: &IntegerModel, options: ExecOptions) -> Result<Self, EngineError> {
        // The origin is never called, so one thread's memory is enough for it.
        let origin = Executor::new(model, ExecOptions { threads: 1, ..options })?;
        origin.check_memory(options.threads)?;
        Ok(Self {
            idle: Mutex::new(Vec::new()),
            origin,
            threads: options.threads,
            input: model.input.clone(),
            input_shape: model.input_shape,
            class_names: model.class_names.clone(),
            outputs: outputs(model),
        })
    }

    /// Loads a `.bitpact` file.
    ///
    /// # Errors
    /// A file that cannot be read or is not valid, or a machine without the instruction set.
    pub fn load(path: impl AsRef<Path>, options: ExecOptions) -> Result<Self, EngineError> {
        with_loaded(path.as_ref(), |model| Self::new(model, options))
    }

    /// Shape of an image.
    pub fn input_shape(&self) -> Shape {
        self.input_shape
    }

    /// Bytes of one image: `h * w * c` codes of one byte, or of two.
    pub fn image_len(&self) -> usize {
        self.input.example_bytes(self.input_shape)
    }

    /// Names of the classes.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Real value of one unit of a logit.
    pub fn logit_scale(&self) -> f64 {
        self.outputs[0].scale
    }

    /// Shape of the main output of one image: one pixel of logits for a classifier.
    pub fn output_shape(&self) -> Shape {
        self.outputs[0].shape
    }

    /// All outputs, the main one first.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Computes a batch: n images of pixels, HWC, one after the other, give n rows of logits, or n outputs of
    /// [`Engine::output_shape`], HWC. A pixel is an 8-bit code whose meaning is
    /// in [`InputDescription`].
    ///
    /// # Errors
    /// Pixels that are not whole images.
    pub fn logits(&self, pixels: &[u8]) -> Result<Vec<i64>, EngineError> {
        self.first_outputs(pixels, 1).map(|mut outputs| outputs.remove(0))
    }

    /// Computes every output of a batch, in the order of [`Engine::outputs`]: n images of pixels, HWC, one after the
    /// other, give n outputs each, HWC, one after the other.
    ///
    /// # Errors
    /// Pixels that are not whole images.
    pub fn run(&self, pixels: &[u8]) -> Result<Vec<Vec<i64>>, EngineError> {
        self.first_outputs(pixels, self.outputs.len())
    }

    fn first_outputs(&self, pixels: &[u8], count: usize) -> Result<Vec<Vec<i64>>, EngineError> {
        let image = self.image_len();
        if !pixels.len().is_multiple_of(image) {
            return Err(EngineError::Pixels { pixels: pixels.len(), image });
        }
        let images = pixels.len() / image;
        let mut outputs: Vec<Vec<i64>> =
            self.outputs[..count].iter().map(|output| vec![0; images * output.shape.elements()]).collect();
        let idle = lock(&self.idle).pop();
        let mut executor = idle.unwrap_or_else(|| self.origin.fork(self.threads));
        executor.run_outputs(pixels, &mut outputs.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
        lock(&self.idle).push(executor);
        Ok(outputs)
    }

    /// The predicted class of every image of a batch; of outputs of many positions, that of every position.
    ///
    /// # Errors
    /// Pixels that are not whole images.
    pub fn classes(&self, pixels: &[u8]) -> Result<Vec<usize>, EngineError> {
        Ok(self.logits(pixels)?.chunks_exact(self.class_names.len()).map(predict).collect())
    }

    /// The codes nearest to real values `x`, HWC, in the units the network was trained with
    /// ([`InputDescription::quantize`]), as bytes.
    ///
    /// # Errors
    /// Values that are not whole images.
    pub fn quantize(&self, x: &[f32]) -> Result<Vec<u8>, EngineError> {
        let image = self.input_shape.elements();
        if !x.len().is_multiple_of(image) {
            return Err(EngineError::Pixels { pixels: x.len(), image });
        }
        Ok(self.input.quantize(x))
    }
}

fn outputs(model: &IntegerModel) -> Vec<Output> {
    let of = |output: &IntegerOutput| {
        let layer = &model.layers[output.tensor - 1];
        Output { name: layer.name.clone(), shape: layer.shape, scale: layer.scale, zero: output.zero }
    };
    model.outputs.iter().map(of).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
