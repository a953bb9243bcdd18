//! Proof on real images: every path of this machine gives the interpreter's codes, layer by layer.

mod formula;
mod probes;
#[cfg(test)]
mod tests;

pub use formula::{FormulaCheck, FormulaDifference, check_formula};

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitpact_core::rng::Key;
use bitpact_kernels::memory;
use bitpact_kernels::{Isa, Pool};
use bitpact_model::IntegerModel;

use crate::{EngineError, ExecOptions, Executor, Interpreter, Trace};

/// Codes of one chunk of images that the interpreter's traces may hold; 8 bytes each.
const CHUNK_CODES: usize = 1 << 22;
/// Images of a chunk at most.
const CHUNK_IMAGES: usize = 32;
/// In every so many chunks, the logits that [`Executor::run`] gives without a trace are compared too.
const RUN_EVERY: usize = 8;
/// Executors of one path that work side by side, where the path's threads leave cores idle.
const REPLICAS: usize = 2;

/// Bytes of a code in a [`Trace`].
const CODE_BYTES: u64 = 8;

/// Codes of one image in all layers.
fn trace_codes(model: &IntegerModel) -> usize {
    model.layers.iter().map(|layer| layer.shape.elements()).sum()
}

/// What is compared with the interpreter: every instruction set with every number of threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Instruction sets.
    pub isas: Vec<Isa>,
    /// Numbers of threads.
    pub threads: Vec<usize>,
    /// Whether each kind of layer is computed on inputs of odd sizes and with other padding, too.
    pub probes: bool,
}

impl VerifyOptions {
    /// Every instruction set of this machine, with 1 to `most` threads; above 4, every doubling and `most` itself. With
    /// probes.
    pub fn up_to(most: usize) -> Self {
        let threads = (1..=most.max(1)).filter(|&n| n <= 4 || n.is_power_of_two() || n == most).collect();
        Self { isas: Isa::available(), threads, probes: true }
    }
}

/// What was compared on one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathCount {
    /// Instruction set.
    pub isa: Isa,
    /// Number of threads.
    pub threads: usize,
    /// Codes compared, the logits included.
    pub codes: u64,
    /// Those that differ.
    pub different: u64,
}

/// A code that is not the interpreter's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Instruction set.
    pub isa: Isa,
    /// Number of threads.
    pub threads: usize,
    /// Images computed together.
    pub batch: usize,
    /// Number of the image.
    pub image: usize,
    /// Name of the layer.
    pub layer: String,
    /// Row of the layer's output.
    pub y: usize,
    /// Column.
    pub x: usize,
    /// Channel.
    pub channel: usize,
    /// The interpreter's code.
    pub expected: i64,
    /// The path's code.
    pub got: i64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { isa, threads, batch, image, layer, y, x, channel, expected, got } = self;
        let s = if *threads == 1 { "" } else { "s" };
        write!(
            f,
            "{isa} with {threads} thread{s} and a batch of {batch}: image {image}, layer `{layer}`, row {y}, column {x}, \
             channel {channel} is {got}, the interpreter has {expected}"
        )
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Images computed on every path.
    pub images: usize,
    /// Codes compared, over all paths.
    pub codes: u64,
    /// Those that differ.
    pub different: u64,
    /// One entry per instruction set and number of threads.
    pub paths: Vec<PathCount>,
    /// The first difference, by image, then path, then layer and position.
    pub first: Option<Difference>,
    /// Codes of the network's layers at sizes and with padding of [`verify`]'s own; counted in `codes` too.
    pub probed: u64,
}

/// Compares the interpreter of `model` with executors of the same network written to bytes and read again, on `images`
/// images: every code of every layer, on every path of `options`, for half of the images computed in a batch and for
/// the other half alone. Paths take turns in which half is which. Before them, where the options say so, each kind of
/// layer is computed on inputs of odd sizes, with padding of 0 and of the middle of its range, in networks of a few
/// pixels.
///
/// `load(range, pixels)` writes the images numbered `range`, HWC; `progress(done)` is called with the number of images
/// done.
///
/// # Errors
/// A network the engine refuses, or whose codes of all layers need more memory than there is.
pub fn verify(
    model: &IntegerModel,
    options: &VerifyOptions,
    images: usize,
    load: impl FnMut(Range<usize>, &mut [u8]),
    mut progress: impl FnMut(usize),
) -> Result<Verification, EngineError> {
    let go_on = |done| {
        progress(done);
        ControlFlow::Continue(())
    };
    verify_until(model, options, images, load, go_on)
}

/// Compares as [`verify`] does, until `progress` breaks off.
///
/// # Errors
/// Those of [`verify`], and [`EngineError::Stopped`] once `progress` broke off.
pub fn verify_until(
    model: &IntegerModel,
    options: &VerifyOptions,
    images: usize,
    load: impl FnMut(Range<usize>, &mut [u8]),
    progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Verification, EngineError> {
    let reloaded = IntegerModel::from_bytes(&model.to_bytes()?, "the network written and read again")?;
    let probed = probe(model, options)?;
    let mut found = compare(model, &reloaded, options, images, load, progress)?;
    if probed.first.is_some() {
        found.first = probed.first;
    }
    found.probed = probed.codes;
    found.codes += probed.codes;
    found.different += probed.different;
    Ok(found)
}

/// Images of each probe.
const PROBE_IMAGES: usize = 2;

/// Compares the probes of `model` on every path; they count as one path more.
fn probe(model: &IntegerModel, options: &VerifyOptions) -> Result<Verification, EngineError> {
    let mut all = Verification { images: 0, codes: 0, different: 0, paths: Vec::new(), first: None, probed: 0 };
    if !options.probes {
        return Ok(all);
    }
    for probes::Probe { layer, model } in probes::probes(model) {
        let load = |range: Range<usize>, pixels: &mut [u8]| {
            let key = Key::new(range.start as u64).with("probe");
            pixels.iter_mut().enumerate().for_each(|(i, pixel)| *pixel = key.u64(i as u64) as u8);
        };
        let found = compare(&model, &model, options, PROBE_IMAGES, load, |_| ControlFlow::Continue(()))?;
        all.codes += found.codes;
        all.different += found.different;
        let input = model.input_shape;
        let named = |first: Difference| Difference { layer: format!("{layer} in a probe of {input}"), ..first };
        all.first = all.first.or(found.first.map(named));
    }
    Ok(all)
}

/// Compares the interpreter of `reference` with executors of `candidate`, which has the same shapes.
fn compare(
    reference: &IntegerModel,
    candidate: &IntegerModel,
    options: &VerifyOptions,
    images: usize,
    mut load: impl FnMut(Range<usize>, &mut [u8]),
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Verification, EngineError> {
    let most = options.threads.iter().copied().max().unwrap_or(1);
    let mut paths = Vec::new();
    for &isa in &options.isas {
        for &threads in &options.threads {
            paths.push(Path::new(candidate, isa, threads, (most / threads.max(1)).clamp(1, REPLICAS))?);
        }
    }
    let codes = trace_codes(reference);
    // The interpreter's codes of a chunk of images, and those of a path beside them.
    let traced = |images: usize| 2 * CODE_BYTES * codes as u64 * images as u64;
    let chunk = (CHUNK_CODES / codes.max(1)).clamp(most.min(CHUNK_IMAGES), CHUNK_IMAGES).min(images.max(1));
    let chunk = if memory::check(traced(chunk)).is_ok() { chunk } else { 1 };
    memory::check(traced(chunk)).map_err(EngineError::Memory)?;
    let (pool, image) = (Pool::new(most), reference.example_bytes());
    let interpreter = Interpreter::new(reference);
    let mut pixels = vec![0; chunk * image];
    let mut first: Option<Difference> = None;
    for (number, from) in (0..images).step_by(chunk).enumerate() {
        let n = chunk.min(images - from);
        let pixels = &mut pixels[..n * image];
        load(from..from + n, pixels);
        let expected: Vec<Mutex<Trace>> = (0..n).map(|_| Mutex::new(Trace { tensors: Vec::new(), main: 0 })).collect();
        pool.run(n, &|i, _| *lock(&expected[i]) = interpreter.run(&pixels[i * image..(i + 1) * image]));
        let expected: Vec<Trace> =
            expected.into_iter().map(|t| t.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        for (p, path) in paths.iter_mut().enumerate() {
            let forms = match number % RUN_EVERY {
                0 => Forms { batch: true, alone: true, run: true },
                _ => {
                    Forms { batch: (number + p).is_multiple_of(2), alone: !(number + p).is_multiple_of(2), run: false }
                }
            };
            let found = path.compare(reference, &pool, from, pixels, &expected, forms);
            if let Some(found) = found
                && first.as_ref().is_none_or(|first| found.image < first.image)
            {
                first = Some(found);
            }
        }
        if progress(from + n).is_break() {
            return Err(EngineError::Stopped);
        }
    }
    let paths: Vec<PathCount> = paths.into_iter().map(|path| path.count).collect();
    Ok(Verification {
        images,
        codes: paths.iter().map(|path| path.codes).sum(),
        different: paths.iter().map(|path| path.different).sum(),
        paths,
        first,
        probed: 0,
    })
}

/// How a chunk is computed.
#[derive(Clone, Copy)]
struct Forms {
    /// All images together, with a trace.
    batch: bool,
    /// Every image alone, with a trace.
    alone: bool,
    /// As the other two say, without a trace.
    run: bool,
}

/// One instruction set and number of threads.
struct Path {
    executors: Vec<Mutex<Executor>>,
    count: PathCount,
}

impl Path {
    fn new(model: &IntegerModel, isa: Isa, threads: usize, replicas: usize) -> Result<Self, EngineError> {
        let executor = |_| Ok(Mutex::new(Executor::new(model, ExecOptions { isa, threads })?));
        let executors = (0..replicas).map(executor).collect::<Result<_, EngineError>>()?;
        Ok(Self { executors, count: PathCount { isa, threads, codes: 0, different: 0 } })
    }

    /// Compares a chunk of images, the first of which is number `from`; returns its first difference.
    fn compare(
        &mut self,
        model: &IntegerModel,
        pool: &Pool,
        from: usize,
        pixels: &[u8],
        expected: &[Trace],
        forms: Forms,
    ) -> Option<Difference> {
        let (image, replicas) = (model.example_bytes(), self.executors.len());
        let share = expected.len().div_ceil(replicas);
        let tallies: Vec<Mutex<Tally>> = (0..replicas).map(|_| Mutex::default()).collect();
        pool.run(replicas, &|r, _| {
            let range = (r * share).min(expected.len())..((r + 1) * share).min(expected.len());
            let pixels = &pixels[range.start * image..range.end * image];
            let expected = &expected[range.clone()];
            lock(&tallies[r]).compare(&mut lock(&self.executors[r]), pixels, expected, range.start, forms);
        });
        let mut first: Option<Found> = None;
        for tally in tallies {
            let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.count.codes += tally.codes;
            self.count.different += tally.different;
            first = first.or(tally.first);
        }
        first.map(|found| {
            let layer = &model.layers[found.layer];
            let (pixel, channel) = (found.at / layer.shape.c, found.at % layer.shape.c);
            Difference {
                isa: self.count.isa,
                threads: self.count.threads,
                batch: found.batch,
                image: from + found.image,
                layer: layer.name.clone(),
                y: pixel / layer.shape.w,
                x: pixel % layer.shape.w,
                channel,
                expected: found.expected,
                got: found.got,
            }
        })
    }
}

/// A difference, in numbers.
struct Found {
    image: usize,
    batch: usize,
    layer: usize,
    at: usize,
    expected: i64,
    got: i64,
}

/// What one executor has compared.
#[derive(Default)]
struct Tally {
    codes: u64,
    different: u64,
    first: Option<Found>,
}

impl Tally {
    /// Computes the images, the first of which is number `offset` of the chunk, in the given forms.
    fn compare(&mut self, executor: &mut Executor, pixels: &[u8], expected: &[Trace], offset: usize, forms: Forms) {
        let (image, n) = (executor.image_len(), expected.len());
        let known = executor.outputs().to_vec();
        let mut groups = Vec::new();
        if forms.batch && n > 0 {
            groups.push(0..n);
        }
        if forms.alone {
            groups.extend((0..n).map(|i| i..i + 1));
        }
        let mut outputs: Vec<Vec<i64>> = known.iter().map(|(_, len)| vec![0; n * len]).collect();
        for group in groups {
            let pixels = &pixels[group.start * image..group.end * image];
            let traces = if group.len() == 1 { vec![executor.trace(pixels)] } else { executor.trace_batch(pixels) };
            for (i, trace) in group.clone().zip(&traces) {
                for (layer, (got, expected)) in trace.tensors.iter().zip(&expected[i].tensors).enumerate() {
                    self.codes(offset + i, group.len(), layer, got, expected);
                }
            }
            if forms.run {
                let lens = outputs.iter_mut().zip(&known);
                let mut slices: Vec<_> = lens.map(|(output, (_, len))| &mut output[..group.len() * len]).collect();
                executor.run_outputs(pixels, &mut slices);
                for (output, &(tensor, len)) in outputs.iter().zip(&known) {
                    for (i, got) in group.clone().zip(output.chunks_exact(len)) {
                        self.codes(offset + i, group.len(), tensor - 1, got, &expected[i].tensors[tensor - 1]);
                    }
                }
            }
        }
    }

    fn codes(&mut self, image: usize, batch: usize, layer: usize, got: &[i64], expected: &[i64]) {
        assert_eq!(got.len(), expected.len(), "codes of layer {layer}");
        self.codes += expected.len() as u64;
        if got == expected {
            return;
        }
        for (at, (&got, &expected)) in got.iter().zip(expected).enumerate().filter(|(_, (got, e))| got != e) {
            self.different += 1;
            let place = (image, layer, at);
            if self.first.as_ref().is_none_or(|first| place < (first.image, first.layer, first.at)) {
                self.first = Some(Found { image, batch, layer, at, expected, got });
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
