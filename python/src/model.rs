//! The class `Model`.

use std::path::{Path, PathBuf};

use bitpact::unstable::data::own;
use bitpact::unstable::data::{DataError, Examples, InMemory};
use bitpact::unstable::graph::counts;
use bitpact::unstable::interop::weights::Weights;
use bitpact::unstable::model::Pixels;
use bitpact::unstable::train::ptq::{ClipRule, PtqError, PtqEvent, PtqOptions, Row, Steps, quantize};
use bitpact::{
    BitSpec, Checkpoint, Dataset, ImageShape, ImportOptions, Imported, Isa, Limits, QuantConfig, Shape, TargetKind,
    Tensor, convert, import,
};
use numpy::ndarray::IxDyn;
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::array::{batch, elements, floats};
use crate::error::{OrRaise, wrong};
use crate::integer::{IntegerModel, threads_or_all};
use crate::value::from_json;
use crate::watch::Watch;

/// A network with float weights and, where it was trained or quantized at few bits, its quantizers: what training gives
/// and starts from, and what `convert` makes integers of.
#[pyclass(frozen, module = "bitpact")]
pub(crate) struct Model {
    pub(crate) model: bitpact::Model,
    notes: Vec<String>,
    rows: Value,
    /// What the checkpoint says about itself.
    note: Option<String>,
}

/// What a file does not say itself.
fn options(
    arch: Option<String>,
    input: Option<&Bound<'_, PyAny>>,
    input_shape: Option<Vec<usize>>,
    class_names: Option<Vec<String>>,
) -> PyResult<ImportOptions> {
    let input_shape = match input_shape.as_deref() {
        None => None,
        Some(&[h, w, c]) if h * w * c > 0 => Some(Shape::new(h, w, c)),
        Some(other) => {
            return Err(wrong(format!(
                "input_shape = {other:?}; expected rows, columns and channels, such as (32, 32, 3)"
            )));
        }
    };
    let pixels = match input {
        None => None,
        Some(input) => Some(match (input.extract::<String>(), input.extract::<(Vec<f64>, Vec<f64>)>()) {
            (Ok(text), _) => Pixels::parse(&text).map_err(|what| wrong(format!("input = {text}: {what}")))?,
            (_, Ok((mean, std))) => Pixels { mean, std },
            _ => {
                return Err(wrong(
                    "input: expected a name such as \"imagenet\", or a pair of lists: means and deviations",
                ));
            }
        }),
    };
    Ok(ImportOptions { arch, input_name: None, input_shape, pixels, class_names })
}

/// A value of the definitions of bits by its name.
fn named<T: DeserializeOwned>(key: &str, name: &str) -> PyResult<T> {
    serde_json::from_value(json!(name)).map_err(|error| wrong(format!("{key} = \"{name}\": {error}")))
}

impl Model {
    pub(crate) fn of(model: bitpact::Model, notes: Vec<String>, note: Option<String>) -> Self {
        Self { model, notes, rows: Value::Null, note }
    }
}

#[pymethods]
impl Model {
    /// Loads a checkpoint or the run folder of one, or a network of another program: a PyTorch, safetensors or ONNX
    /// file. Of what a file does not say itself, `arch` names the network of the zoo that its weights belong to (else
    /// guessed from names and shapes), `input` what a pixel means ("imagenet", "cifar10", "half", "unit", "raw255", or
    /// a pair of means and deviations of pixels divided by 255), `input_shape` is (rows, columns, channels), and
    /// `class_names` a list.
    #[staticmethod]
    #[pyo3(signature = (path, *, arch=None, input=None, input_shape=None, class_names=None))]
    fn load(
        py: Python<'_>,
        path: PathBuf,
        arch: Option<String>,
        input: Option<&Bound<'_, PyAny>>,
        input_shape: Option<Vec<usize>>,
        class_names: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let path = if path.is_dir() { path.join(bitpact::unstable::train::run_folder::LAST) } else { path };
        let options = options(arch, input, input_shape, class_names)?;
        let Imported { model, notes } = py.detach(|| import(&path, &options)).or_wrong()?;
        Ok(Self::of(model, notes, None))
    }

    /// A network of the zoo with the float32 arrays of the dictionary `tensors`, by the names that PyTorch gives them:
    /// what `from_torch` makes of a state dict. The other arguments are those of `load`.
    #[staticmethod]
    #[pyo3(signature = (tensors, *, arch=None, input=None, input_shape=None, class_names=None))]
    fn from_tensors(
        tensors: &Bound<'_, PyDict>,
        arch: Option<String>,
        input: Option<&Bound<'_, PyAny>>,
        input_shape: Option<Vec<usize>>,
        class_names: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let options = options(arch, input, input_shape, class_names)?;
        let named = tensors.iter().map(|(name, value)| {
            let name: String = name.extract().map_err(|_| wrong("tensors: a name that is no text"))?;
            let (shape, data) = floats(&value, &format!("tensor `{name}`"))?;
            Ok((name, Tensor { shape, data }))
        });
        let named = named.collect::<PyResult<Vec<_>>>()?;
        let name = Path::new("tensors");
        let Imported { model, notes } =
            Weights::from_tensors(named, name).and_then(|weights| weights.import(name, &options)).or_wrong()?;
        Ok(Self::of(model, notes, Some("imported".to_owned())))
    }

    /// The network of a PyTorch module or of its state dict. A state dict, or a module without `example`, is matched to
    /// the zoo by the names and shapes of its tensors; a module with `example`, a batch that it can be called with, is
    /// exported to ONNX by torch and read from there, whatever its code. The other arguments are those of `load`.
    #[staticmethod]
    #[pyo3(signature = (module, *, arch=None, example=None, input=None, input_shape=None, class_names=None))]
    fn from_torch<'py>(
        py: Python<'py>,
        module: &Bound<'py, PyAny>,
        arch: Option<String>,
        example: Option<&Bound<'py, PyAny>>,
        input: Option<&Bound<'py, PyAny>>,
        input_shape: Option<Vec<usize>>,
        class_names: Option<Vec<String>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = PyDict::new(py);
        arguments.set_item("arch", arch)?;
        arguments.set_item("example", example)?;
        arguments.set_item("input", input)?;
        arguments.set_item("input_shape", input_shape)?;
        arguments.set_item("class_names", class_names)?;
        py.import("bitpact._torch")?.getattr("from_torch")?.call((module,), Some(&arguments))
    }

    /// Quantizes a float network to integers without training, on `images`, which should be a few hundred training
    /// images; their labels are not read. Gives a network whose `convert` is the integers, and from which training can
    /// go on (`init_from`); its `rows` say what every step brought.
    ///
    /// `test=(images, targets)` is what each step is measured on; `labels` are targets of `images` themselves, where
    /// there is nothing better. `steps` are "all", "none" or names with commas (clip, weights, equalize, gptq, bias,
    /// cora), `calibrate` is the rule of clip values ("auto", "mse", "entropy", "largest", "percentile"), `first_last`
    /// "8bit", "same" or "float", `shortcut` "same" or "8bit", `weight_grid` "zero" or "no_zero", `clip_scale` "layer"
    /// or "channel". `callback` is called with a dictionary after every step.
    #[pyo3(signature = (
        images, bits="W8A8", *, labels=None, test=None, steps=None, calibrate="auto", first_last="8bit", shortcut="same",
        weight_grid=None, clip_scale="layer", cora_budget=0.05, threads=None, callback=None
    ))]
    fn ptq(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        bits: &str,
        labels: Option<&Bound<'_, PyAny>>,
        test: Option<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
        steps: Option<&str>,
        calibrate: &str,
        first_last: &str,
        shortcut: &str,
        weight_grid: Option<&str>,
        clip_scale: &str,
        cora_budget: f64,
        threads: Option<usize>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let spec = bits.parse::<BitSpec>().map_err(wrong)?;
        if spec == BitSpec::Float {
            return Err(wrong("bits = float: expected a form like W8A8"));
        }
        if !(0.0..=10.0).contains(&cora_budget) {
            return Err(wrong(format!("cora_budget = {cora_budget}; expected a number from 0 to 10, such as 0.05")));
        }
        let quant = QuantConfig {
            first_last: named("first_last", first_last)?,
            shortcut: named("shortcut", shortcut)?,
            weight_grid: weight_grid.map(|name| named("weight_grid", name)).transpose()?,
            clip_scale: named("clip_scale", clip_scale)?,
            ..QuantConfig::new(spec)
        };
        let steps = match steps {
            Some(text) => text.parse::<Steps>().map_err(|what| wrong(format!("steps = {what}")))?,
            None => Steps::default(),
        };
        let rule = calibrate.parse::<ClipRule>().map_err(|what| wrong(format!("calibrate = {what}")))?;
        let options = PtqOptions {
            quant,
            steps,
            rule,
            adapter_budget: cora_budget,
            measures_steps: true,
            isa: Isa::detect(),
            threads: threads_or_all(threads)?,
        };
        let calibration = self.images(images)?;
        let test = match (test, labels) {
            (Some((x, y)), _) => Some((x, y)),
            (None, Some(labels)) => Some((images.clone(), labels.clone())),
            (None, None) => None,
        };
        let test = test.map(|(x, y)| self.labelled(&x, &y)).transpose()?;
        let watch = Watch::default();
        let mut observer = |event: PtqEvent<'_>| {
            watch.look();
            if let (PtqEvent::Row(row), Some(callback)) = (event, &callback) {
                watch.call(|py| callback.call1(py, (from_json(py, &row.json())?,)).map(drop));
            }
        };
        let test = test.as_deref();
        let result = py.detach(|| quantize(&self.model, &*calibration, test, &options, watch.flag(), &mut observer));
        if let Some(error) = watch.cause() {
            return Err(error);
        }
        let quantized = match result {
            Err(PtqError::Stopped) => return Err(pyo3::exceptions::PyKeyboardInterrupt::new_err(())),
            other => other.or_wrong()?,
        };
        let rows = quantized.rows.iter().map(Row::json).collect();
        let note = Some(format!("quantized after training: {bits}, {steps}"));
        Ok(Self { model: quantized.model, notes: Vec::new(), rows: Value::Array(rows), note })
    }

    /// The integers of a network that was trained or quantized at few bits, ready to run on so many `threads`. Batch
    /// norm is folded; every step's error is proved.
    #[pyo3(signature = (*, threads=None))]
    fn convert(&self, py: Python<'_>, threads: Option<usize>) -> PyResult<IntegerModel> {
        let conversion = py.detach(|| convert(&self.model)).or_wrong()?;
        IntegerModel::of(conversion.model, threads)
    }

    /// Writes a checkpoint (.safetensors), which `load`, `train(init_from=...)` and the command read. Nothing is half
    /// written: the file appears as a whole.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let checkpoint = Checkpoint { model: self.model.clone(), training: None, note: self.note.clone() };
        py.detach(|| checkpoint.save(&path)).or_wrong()
    }

    /// The tensors: a dictionary from names, as PyTorch has them, to float32 arrays.
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, tensor) in &self.model.tensors {
            dict.set_item(name, PyArray1::from_slice(py, &tensor.data).reshape(IxDyn(&tensor.shape))?)?;
        }
        Ok(dict)
    }

    /// Name of the architecture.
    #[getter]
    fn arch(&self) -> &str {
        self.model.graph.name()
    }

    /// Shape of an image: rows, columns, channels.
    #[getter]
    fn input_shape(&self) -> (usize, usize, usize) {
        let Shape { h, w, c } = self.model.graph.input();
        (h, w, c)
    }

    /// Names of the classes, or of the channels of the main output.
    #[getter]
    fn class_names(&self) -> Vec<String> {
        self.model.class_names.clone()
    }

    /// Number of trained parameters.
    #[getter]
    fn parameters(&self) -> u64 {
        counts::parameters(&self.model.graph)
    }

    /// What was assumed or left out when the network was read, a sentence each.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// Of a network that `ptq` made, a dictionary for each step: `step`, `snr_db` and, where there were test images,
    /// `top1`, `top5` or the metrics of the task; the float network is the first. `None` of others.
    #[getter]
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        from_json(py, &self.rows)
    }

    fn __repr__(&self) -> String {
        let Shape { h, w, c } = self.model.graph.input();
        format!("<bitpact.Model {}: images of {h}x{w}x{c}, {} parameters>", self.arch(), self.parameters())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let checkpoint = Checkpoint { model: self.model.clone(), training: None, note: self.note.clone() };
        let bytes = PyBytes::new(py, &checkpoint.to_bytes().or_wrong()?);
        Ok((py.import("bitpact._pickle")?.getattr("model")?, (bytes,)))
    }

    /// The network in the bytes of a checkpoint.
    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        let checkpoint = Checkpoint::from_bytes(data, "data").or_wrong()?;
        Ok(Self::of(checkpoint.model, Vec::new(), checkpoint.note))
    }
}

impl Model {
    /// Images without labels.
    fn images(&self, images: &Bound<'_, PyAny>) -> PyResult<Box<dyn Dataset>> {
        let (reads, input) = (self.model.graph.input(), &self.model.input);
        let batch = batch(images, input, reads)?;
        let shape = ImageShape { h: reads.h, w: reads.w, c: reads.c };
        let bytes = batch.bytes()?;
        let nameless = || vec![String::new()];
        let set = || -> Result<Box<dyn Dataset>, DataError> {
            if input.bits == 8 {
                return Ok(Box::new(InMemory::new(bytes.to_vec(), vec![0; batch.len], shape, nameless())?));
            }
            let codes: Vec<u16> = input.codes(bytes).collect();
            let kind = TargetKind::Numbers(1);
            Ok(Box::new(Examples::of_16_bits(&codes, vec![0.0; batch.len], shape, kind, nameless())?))
        };
        set().or_wrong()
    }

    /// Images with targets.
    fn labelled(&self, x: &Bound<'_, PyAny>, y: &Bound<'_, PyAny>) -> PyResult<Box<dyn Dataset>> {
        let half = (elements(x, "X of test")?, elements(y, "y of test")?);
        let names = Some(self.model.class_names.clone());
        let options = own::Options::default();
        let loaded = own::load_arrays("ptq", None, Some(half), names, Limits::default(), &options).or_wrong()?;
        Ok(loaded.test)
    }
}
