//! The class `IntegerModel`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bitpact::unstable::engine::{Output, verify_until};
use bitpact::unstable::interop::export::{CheckData, ExportOptions, Format, export, noise};
use bitpact::unstable::interop::source::{self, Language};
use bitpact::unstable::model::IntegerLayer;
use bitpact::unstable::report::inspect::Layers;
use bitpact::{Engine, EngineError, ExecOptions, Executor, Isa, Shape, VerifyOptions};
use numpy::ndarray::IxDyn;
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use serde_json::{Value, json};

use crate::array::{batch, floats, out};
use crate::error::{OrRaise, wrong};
use crate::value::from_json;
use crate::watch::Watch;

/// What a pickle makes an object of: a function, and its arguments.
type Reduced<'py> = (Bound<'py, PyAny>, (Bound<'py, PyBytes>, usize));

/// The forms of export that are source, not a file of a framework.
const SOURCES: &str = "c and rust";
/// Multiply-adds between two looks for Ctrl-C, and the fewest images that each thread has meanwhile.
const PORTION_MACS: u64 = 1 << 31;
const PORTION_IMAGES: usize = 8;
/// Images that are traced at once.
const TRACED: usize = 16;
/// Images of the self-test of exported C where none are given, as of the command.
const GOLDEN: usize = 2;

/// A network of integers, ready to run. Any number of threads may call one at once: every call computes on its own
/// with the same weights, and the interpreter's lock is released meanwhile.
///
/// Images are uint8 arrays (uint16 for networks that read 16-bit codes) of shape (n, rows, columns, channels), one
/// image without n, or with the channels first. Contiguous arrays are read where they lie, others are copied.
#[pyclass(frozen, module = "bitpact")]
pub(crate) struct IntegerModel {
    model: bitpact::IntegerModel,
    engine: Engine,
    threads: usize,
    /// Bytes of the images that are computed between two looks for Ctrl-C.
    portion: usize,
    /// Runs layer by layer, made when it is first wanted.
    tracer: Mutex<Option<Executor>>,
}

/// The machine's threads where none are asked for.
pub(crate) fn threads_or_all(threads: Option<usize>) -> PyResult<usize> {
    match threads {
        Some(threads @ 1..=1024) => Ok(threads),
        Some(threads) => Err(wrong(format!("threads = {threads}; expected 1 to 1024"))),
        None => Ok(std::thread::available_parallelism().map_or(1, |n| n.get().min(1024))),
    }
}

impl IntegerModel {
    /// A model that runs `model` on so many threads.
    pub(crate) fn of(model: bitpact::IntegerModel, threads: Option<usize>) -> PyResult<Self> {
        let threads = threads_or_all(threads)?;
        let engine = Engine::new(&model, ExecOptions { threads, ..ExecOptions::default() }).or_runtime()?;
        let macs = |layer: &IntegerLayer| -> usize {
            layer.op.products().map(|product| product.codes.len() * layer.shape.h * layer.shape.w).sum()
        };
        let macs: u64 = model.layers.iter().map(|layer| macs(layer) as u64).sum();
        let images = ((PORTION_MACS / macs.max(1)) as usize).max(PORTION_IMAGES * threads);
        let portion = images.saturating_mul(engine.image_len());
        Ok(Self { model, engine, threads, portion, tracer: Mutex::new(None) })
    }

    /// Computes `bytes` portion by portion, without the interpreter's lock; `join` puts a portion's result behind those
    /// before it. Ctrl-C is heard between them.
    fn compute<T: Send>(
        &self,
        py: Python<'_>,
        bytes: &[u8],
        compute: impl Fn(&[u8]) -> Result<T, EngineError> + Sync,
        join: impl Fn(&mut T, T),
    ) -> PyResult<T> {
        let (first, rest) = bytes.split_at(self.portion.min(bytes.len()));
        let mut all = py.detach(|| compute(first)).or_runtime()?;
        for part in rest.chunks(self.portion) {
            py.check_signals()?;
            join(&mut all, py.detach(|| compute(part)).or_runtime()?);
        }
        Ok(all)
    }

    /// What of `output` is given: its integers, or what they mean.
    fn output<'py>(
        py: Python<'py>,
        output: &Output,
        values: Vec<i64>,
        len: usize,
        real: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        match real {
            false => Ok(out(py, values, len, output.shape)?.into_any()),
            true => {
                let values = values.into_iter().map(|q| output.scale * (q - output.zero) as f64).collect();
                Ok(out::<f64>(py, values, len, output.shape)?.into_any())
            }
        }
    }
}

#[pymethods]
impl IntegerModel {
    /// Loads a .bitpact file. `threads` count for each call: all of the machine's by default; 1 is right where many
    /// threads call.
    #[staticmethod]
    #[pyo3(signature = (path, *, threads=None))]
    fn load(py: Python<'_>, path: PathBuf, threads: Option<usize>) -> PyResult<Self> {
        let model = py.detach(|| bitpact::IntegerModel::load(&path)).or_wrong()?;
        Self::of(model, threads)
    }

    /// The network in the bytes of a .bitpact file.
    #[staticmethod]
    #[pyo3(signature = (data, *, threads=None))]
    fn from_bytes(data: &[u8], threads: Option<usize>) -> PyResult<Self> {
        Self::of(bitpact::IntegerModel::from_bytes(data, "data").or_wrong()?, threads)
    }

    /// The bytes of the .bitpact file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.model.to_bytes().or_wrong()?))
    }

    /// Writes the .bitpact file. Nothing is half written: the file appears as a whole.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.model.save(&path)).or_wrong()
    }

    /// Computes every output of a batch: a dictionary from the names of the outputs to int64 arrays of shape
    /// (n, channels), or (n, rows, columns, channels). With `real=True` float64 arrays of what the integers mean,
    /// scale * (q - zero).
    #[pyo3(signature = (images, *, real=false))]
    fn run<'py>(&self, py: Python<'py>, images: &Bound<'py, PyAny>, real: bool) -> PyResult<Bound<'py, PyDict>> {
        let batch = batch(images, &self.model.input, self.model.input_shape)?;
        let bytes = batch.bytes()?;
        let join = |all: &mut Vec<Vec<i64>>, part: Vec<Vec<i64>>| {
            all.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
        };
        let outputs = self.compute(py, bytes, |part| self.engine.run(part), join)?;
        let dict = PyDict::new(py);
        for (output, values) in self.engine.outputs().iter().zip(outputs) {
            dict.set_item(&output.name, Self::output(py, output, values, batch.len, real)?)?;
        }
        Ok(dict)
    }

    /// Computes the main output of a batch: an int64 array of shape (n, channels), or (n, rows, columns, channels);
    /// with `real=True` a float64 array of what the integers mean.
    #[pyo3(signature = (images, *, real=false))]
    fn logits<'py>(&self, py: Python<'py>, images: &Bound<'py, PyAny>, real: bool) -> PyResult<Bound<'py, PyAny>> {
        let batch = batch(images, &self.model.input, self.model.input_shape)?;
        let bytes = batch.bytes()?;
        let values = self.compute(py, bytes, |part| self.engine.logits(part), |all, part| all.extend(part))?;
        Self::output(py, &self.engine.outputs()[0], values, batch.len, real)
    }

    /// The predicted class of every image, the largest logit: an int64 array of shape (n,); of outputs of many
    /// positions, of every position: (n, rows, columns).
    fn classes<'py>(&self, py: Python<'py>, images: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
        let batch = batch(images, &self.model.input, self.model.input_shape)?;
        let bytes = batch.bytes()?;
        let classes = self.compute(py, bytes, |part| self.engine.classes(part), |all, part| all.extend(part))?;
        let Shape { h, w, .. } = self.engine.output_shape();
        let sides = if (h, w) == (1, 1) { vec![batch.len] } else { vec![batch.len, h, w] };
        PyArray1::from_vec(py, classes.into_iter().map(|class| class as i64).collect()).reshape(IxDyn(&sides))
    }

    /// The codes that the layer named `layer` gives for a batch, exactly as the engine computes them: an int64 array of
    /// shape (n, rows, columns, channels). `layers` lists the names.
    fn codes<'py>(
        &self,
        py: Python<'py>,
        layer: &str,
        images: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
        let Some(at) = self.model.layers.iter().position(|own| own.name == layer) else {
            let names: Vec<&str> = self.model.layers.iter().map(|layer| layer.name.as_str()).collect();
            return Err(wrong(format!("no layer is named `{layer}`; the layers are {}", names.join(", "))));
        };
        let batch = batch(images, &self.model.input, self.model.input_shape)?;
        let bytes = batch.bytes()?;
        let image = self.engine.image_len();
        let trace = |bytes: &[u8]| {
            let mut tracer = self.tracer.lock().unwrap_or_else(PoisonError::into_inner);
            let executor = match &mut *tracer {
                Some(executor) => executor,
                empty => {
                    let options = ExecOptions { threads: self.threads, isa: Isa::detect() };
                    empty.insert(Executor::new(&self.model, options)?)
                }
            };
            let mut codes = Vec::new();
            for part in bytes.chunks(TRACED * image) {
                executor.trace_batch(part).into_iter().for_each(|mut trace| codes.append(&mut trace.tensors[at]));
            }
            Ok::<_, EngineError>(codes)
        };
        let codes = self.compute(py, bytes, trace, |all: &mut Vec<i64>, part| all.extend(part))?;
        let Shape { h, w, c } = self.model.layers[at].shape;
        PyArray1::from_vec(py, codes).reshape(IxDyn(&[batch.len, h, w, c]))
    }

    /// The codes nearest to real values in the units that the network was trained with: a uint8 array (uint16 of
    /// 16-bit codes) of the same shape, which ends in rows, columns and channels.
    fn quantize<'py>(&self, py: Python<'py>, x: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (sides, values) = floats(x, "x")?;
        let codes = self.engine.quantize(&values).or_wrong()?;
        if self.model.input.bits == 8 {
            return Ok(PyArray1::from_vec(py, codes).reshape(IxDyn(&sides))?.into_any());
        }
        let codes = codes.chunks_exact(2).map(|code| u16::from_le_bytes([code[0], code[1]])).collect();
        Ok(PyArray1::<u16>::from_vec(py, codes).reshape(IxDyn(&sides))?.into_any())
    }

    /// Writes the network for other programs. `format` is onnx-qcdq, onnx-qdq, qonnx, onnx-integer, npy (a folder),
    /// safetensors, c or rust (folders). `rounded_biases` keeps every bias in its convolution, in onnx-qcdq and
    /// onnx-qdq.
    ///
    /// Of c and rust, `name` is the prefix of functions and files or the package, the architecture where not given, and
    /// `images` are those of the self-test, two of noise where not given. Gives what the source takes, a dictionary of
    /// `name`, `flash_bytes` of constants, `ram_bytes` and `macs`; of other formats `None`.
    #[pyo3(signature = (format, path, *, rounded_biases=false, name=None, images=None))]
    fn export<'py>(
        &self,
        py: Python<'py>,
        format: &str,
        path: PathBuf,
        rounded_biases: bool,
        name: Option<&str>,
        images: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(language) = Language::ALL.into_iter().find(|language| format == language.name()) {
            if rounded_biases {
                return Err(wrong(format!("rounded_biases goes with onnx-qcdq and onnx-qdq, not {format}")));
            }
            let batch = images.map(|images| batch(images, &self.model.input, self.model.input_shape)).transpose()?;
            let pixels = match &batch {
                Some(batch) => batch.bytes()?.to_vec(),
                None => noise(&self.model.input, self.model.input_shape, GOLDEN),
            };
            let written = py.detach(|| {
                let outputs = self.engine.run(&pixels).or_runtime()?;
                let golden = CheckData { pixels, outputs, layers: Vec::new() };
                source::write(&self.model, language, name, &golden, &path).or_wrong()
            })?;
            let object = json!({
                "name": written.name,
                "flash_bytes": written.flash_bytes(),
                "ram_bytes": written.ram_bytes,
                "macs": written.macs(),
            });
            return from_json(py, &object).map(Some);
        }
        let format: Format = format.parse().map_err(|what| wrong(format!("{what}, c, rust")))?;
        if name.is_some() || images.is_some() {
            return Err(wrong(format!("name and images go with {SOURCES}, not {format}")));
        }
        py.detach(|| export(&self.model, format, ExportOptions { rounded_biases }, &path)).or_wrong()?;
        Ok(None)
    }

    /// The layers, one a row: a dictionary of lists of one length, a column each, with `None` for what a layer does not
    /// have; the columns are those of `bitpact inspect --json`. With `frame=True` a DataFrame of pandas.
    #[pyo3(signature = (*, frame=false))]
    fn inspect<'py>(&self, py: Python<'py>, frame: bool) -> PyResult<Bound<'py, PyAny>> {
        let layers = Layers::of_integers(&self.model, &[]).or_wrong()?;
        let dict = PyDict::new(py);
        for (key, values) in layers.columns() {
            let list = values.iter().map(|value| from_json(py, value)).collect::<PyResult<Vec<_>>>()?;
            dict.set_item(key, PyList::new(py, list)?)?;
        }
        match frame {
            false => Ok(dict.into_any()),
            true => py.import("pandas")?.getattr("DataFrame")?.call1((dict,)),
        }
    }

    /// Compares every code of every layer that each instruction set of this machine computes for the images, with 1 to
    /// `threads` threads, with the reference interpreter. Gives a dictionary: `codes` compared, `different` ones,
    /// `images`, `paths` (a dictionary each) and the `first` difference, or `None`.
    #[pyo3(signature = (images, *, threads=None))]
    fn verify<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = VerifyOptions::up_to(threads_or_all(threads)?);
        let batch = batch(images, &self.model.input, self.model.input_shape)?;
        let (bytes, image) = (batch.bytes()?, self.engine.image_len());
        let load = |range: std::ops::Range<usize>, pixels: &mut [u8]| {
            pixels.copy_from_slice(&bytes[range.start * image..range.end * image]);
        };
        let watch = Watch::default();
        let go_on = |_| {
            watch.look();
            if watch.flag().load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let found = py.detach(|| verify_until(&self.model, &options, batch.len, load, go_on));
        if let Some(error) = watch.cause() {
            return Err(error);
        }
        let found = found.or_runtime()?;
        let path = |path: &bitpact::unstable::engine::PathCount| json!({ "isa": path.isa.to_string(), "threads": path.threads, "codes": path.codes, "different": path.different });
        let object = json!({
            "codes": found.codes,
            "different": found.different,
            "images": found.images,
            "probed": found.probed,
            "paths": found.paths.iter().map(path).collect::<Vec<Value>>(),
            "first": found.first.as_ref().map(ToString::to_string),
        });
        from_json(py, &object)
    }

    /// Seconds of each of `calls` calls of the library, without Python, on `images`: what python/benchmarks/overhead.py
    /// compares with.
    fn _seconds(&self, py: Python<'_>, images: &Bound<'_, PyAny>, calls: usize) -> PyResult<Vec<f64>> {
        let batch = batch(images, &self.model.input, self.model.input_shape)?;
        let bytes = batch.bytes()?;
        let call = |_| {
            let began = Instant::now();
            self.engine.run(bytes).map(|_| began.elapsed().as_secs_f64())
        };
        py.detach(|| (0..calls).map(call).collect::<Result<_, _>>()).or_runtime()
    }

    /// Shape of an image: rows, columns, channels.
    #[getter]
    fn input_shape(&self) -> (usize, usize, usize) {
        let Shape { h, w, c } = self.model.input_shape;
        (h, w, c)
    }

    /// Bits of a code of the input, 8 or 16.
    #[getter]
    fn input_bits(&self) -> u8 {
        self.model.input.bits
    }

    /// Names of the classes, or of the channels of the main output.
    #[getter]
    fn class_names(&self) -> Vec<String> {
        self.model.class_names.clone()
    }

    /// Names of the layers, in the order of computation.
    #[getter]
    fn layers(&self) -> Vec<&str> {
        self.model.layers.iter().map(|layer| layer.name.as_str()).collect()
    }

    /// Every output, the main one first: dictionaries of `name`, `shape` (rows, columns, channels), `scale` and `zero`.
    #[getter]
    fn outputs<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let of = |output: &Output| {
            let dict = PyDict::new(py);
            dict.set_item("name", &output.name)?;
            dict.set_item("shape", (output.shape.h, output.shape.w, output.shape.c))?;
            dict.set_item("scale", output.scale)?;
            dict.set_item("zero", output.zero)?;
            Ok(dict)
        };
        self.engine.outputs().iter().map(of).collect()
    }

    /// Name of the architecture.
    #[getter]
    fn arch(&self) -> &str {
        &self.model.arch
    }

    /// Threads of a call.
    #[getter]
    fn threads(&self) -> usize {
        self.threads
    }

    fn __repr__(&self) -> String {
        let (arch, Shape { h, w, c }, classes) = (&self.model.arch, self.model.input_shape, self.model.classes());
        format!("<bitpact.IntegerModel {arch}: images of {h}x{w}x{c}, {classes} outputs>")
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        Ok((py.import("bitpact._pickle")?.getattr("integer_model")?, (self.to_bytes(py)?, self.threads)))
    }
}
