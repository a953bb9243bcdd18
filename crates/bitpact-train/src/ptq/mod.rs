//! Post-training quantization: from a float network and some images, whose labels nobody needs, to integers.
//!
//! [`quantize`] runs the float network on the images, and then walks through it layer by layer: each layer is quantized
//! on what the quantized layers before it give. Its steps ([`Step`]) are switches; docs/ptq.md says what each of them
//! brings. The matrix algorithms are those of `bitpact-ptq`. What comes out is a [`Model`] like a trained one, with
//! weights on their grid and steps of `lsq`, so that [`convert`] makes the integers as it always does, and training can
//! go on from it.

mod adapters;
mod drawn;
mod equalize;
mod error;
mod forward;
mod pass;
mod product;
mod seen;
mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bitpact_core::{Granularity, Grid, WeightQuant, WeightSpec};
use bitpact_data::Dataset;
use bitpact_engine::{ExecOptions, Executor};
use bitpact_graph::{ActPlan, BitSpec, Conv, ConvTranspose, Graph, NodeId, Op, QuantConfig, QuantPlan, WeightPlan};
use bitpact_kernels::{Isa, Pool, memory};
use bitpact_model::{IntegerModel, Model, Tensor, convert};
use bitpact_ptq::{Calibrate, SHARES, allocate_ranks};
use serde_json::{Value, json};

pub use drawn::{Drawn, draw};
pub use equalize::Equalized;
pub use error::PtqError;
pub use step::{ClipRule, Step, Steps};

use crate::trainer::{Evaluation, RunError, evaluate_integer, evaluate_simulated};
use crate::{BackendKind, BackendSpec};
use forward::{Values, live_bytes};
use pass::{Passed, Shift, Wanted, pass, shifts};
use seen::{Clips, Seen};

/// Images on which the rules for clip values are compared.
const RULE_IMAGES: usize = 128;
/// Shares of the largest weight steps that are tried for each rule.
const RULE_SHARES: [f32; 8] = [1.0, 0.92, 0.84, 0.76, 0.68, 0.6, 0.52, 0.44];
/// Images that the engine computes at once.
const CHUNK: usize = 100;

/// What to make of a float network.
#[derive(Debug, Clone, PartialEq)]
pub struct PtqOptions {
    /// Bits, and the policies for first and last layers and shortcuts. Weights always have `lsq` steps a channel,
    /// whatever quantizer stands here.
    pub quant: QuantConfig,
    /// What is done.
    pub steps: Steps,
    /// How clip values are chosen.
    pub rule: ClipRule,
    /// Parameters of all adapters, as a share of the weights of all layers.
    pub adapter_budget: f64,
    /// Whether every step is measured on the way; else the float network and the result alone.
    pub measures_steps: bool,
    /// Instruction set of the engine.
    pub isa: Isa,
    /// Threads, at least 1; the result is the same for any number.
    pub threads: usize,
}

impl PtqOptions {
    /// These bits with every step but adapters, clip values by whichever rule is best, adapters of 5 % of the weights
    /// where they are asked for, on one thread.
    pub fn new(bits: BitSpec) -> Self {
        Self {
            quant: QuantConfig::new(bits),
            steps: Steps::default(),
            rule: ClipRule::Auto,
            adapter_budget: 0.05,
            measures_steps: true,
            isa: Isa::detect(),
            threads: 1,
        }
    }
}

/// What happens meanwhile.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum PtqEvent<'a> {
    /// A walk through the network begins.
    Walk {
        /// What it is for.
        what: &'a str,
        /// Nodes on the way.
        nodes: usize,
    },
    /// A node of the walk begins.
    Node {
        /// Nodes before it.
        done: usize,
    },
    /// The test set is evaluated.
    Evaluating {
        /// Images done.
        done: usize,
        /// Images in all.
        images: usize,
    },
    /// A network was measured.
    Row(&'a Row),
}

/// A network on the way, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The step that it has and the one before it has not; `None` for the float network and for plain rounding.
    pub step: Option<Step>,
    /// Whether it is the float network, which is evaluated in float32; all others are evaluated by the integer engine.
    pub is_float: bool,
    /// Energy of the float network's outputs over that of the difference, on the images of calibration, in decibels;
    /// infinite for the float network.
    pub snr_db: f64,
    /// On the test set, where there is one.
    pub evaluation: Option<Evaluation>,
}

impl Row {
    /// The name of what the row has and the one before it has not: `float`, `rounding` or that of the step.
    pub fn name(&self) -> String {
        match self.step {
            _ if self.is_float => "float".to_owned(),
            None => "rounding".to_owned(),
            Some(step) => step.to_string(),
        }
    }

    /// The row as an object for scripts: `step`, `snr_db` but for the float network, and, where there is a test set,
    /// `images` with `top1` and `top5` or the metrics of the task.
    pub fn json(&self) -> Value {
        let mut object = json!({ "step": self.name() });
        if !self.is_float {
            object["snr_db"] = json!(self.snr_db);
        }
        if let Some(evaluation) = &self.evaluation {
            object["images"] = json!(evaluation.images);
            if evaluation.metrics.is_empty() {
                (object["top1"], object["top5"]) = (json!(evaluation.top1), json!(evaluation.top5));
            }
            for metric in &evaluation.metrics {
                object[&metric.name] = json!(metric.value);
            }
        }
        object
    }
}

/// A quantized network and how it came about.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// The network with weights on their grid, which training can start from.
    pub model: Model,
    /// Its integers.
    pub integers: IntegerModel,
    /// The float network first, then plain rounding, then one more step a row.
    pub rows: Vec<Row>,
    /// The rule that chose the clip values, where they were chosen.
    pub rule: Option<Calibrate>,
    /// Activations that were equalized.
    pub equalized: Vec<Equalized>,
    /// Ranks of the adapters by the convolution they correct.
    pub ranks: BTreeMap<String, usize>,
    /// Images it was calibrated on.
    pub images: usize,
}

/// Tells of a walk's progress and hears of a stop.
struct Progress<'a> {
    observer: &'a mut dyn FnMut(PtqEvent<'_>),
    stop: &'a AtomicBool,
    done: usize,
}

impl Progress<'_> {
    fn begin(&mut self, what: &str, nodes: usize) {
        self.done = 0;
        (self.observer)(PtqEvent::Walk { what, nodes });
    }

    fn next(&mut self) -> Result<(), PtqError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(PtqError::Stopped);
        }
        (self.observer)(PtqEvent::Node { done: self.done });
        self.done += 1;
        Ok(())
    }
}

/// Quantizes the float network `model` on the images of `calibration`, all of them, whose labels are not read, and
/// measures it on `test`, if there is one. The same result for any number of threads.
///
/// # Errors
/// A network that is quantized already, bits that do not fit it, no images or images of another shape, more images than
/// memory holds, a stop, and whatever conversion and evaluation refuse.
pub fn quantize(
    model: &Model,
    calibration: &dyn Dataset,
    test: Option<&dyn Dataset>,
    options: &PtqOptions,
    stop: &AtomicBool,
    observer: &mut dyn FnMut(PtqEvent<'_>),
) -> Result<Quantized, PtqError> {
    model.check()?;
    check_float(model)?;
    let plan = plan(&model.graph, &options.quant)?;
    let pixels = pixels(model, calibration)?;
    let mut float = model.clone();
    if options.steps.bias {
        add_biases(&mut float)?;
    }
    let mut run = Run {
        options,
        plan,
        pixels,
        test,
        pool: Pool::new(options.threads),
        progress: Progress { observer, stop, done: 0 },
        rows: Vec::new(),
        equalized: Vec::new(),
        rule: None,
        ranks: BTreeMap::new(),
    };
    let (model, integers) = run.all(float)?;
    let Run { rows, rule, equalized, ranks, .. } = run;
    Ok(Quantized { model, integers, rows, rule, equalized, ranks, images: calibration.len() })
}

/// A float network with what was seen of it, and the clip values that were chosen for it.
struct Base {
    float: Model,
    seen: Seen,
    clips: Option<Clips>,
}

struct Run<'a> {
    options: &'a PtqOptions,
    plan: QuantPlan,
    pixels: Vec<u8>,
    test: Option<&'a dyn Dataset>,
    pool: Pool,
    progress: Progress<'a>,
    rows: Vec<Row>,
    equalized: Vec<Equalized>,
    rule: Option<Calibrate>,
    ranks: BTreeMap<String, usize>,
}

impl Run<'_> {
    /// Every row; the model and the integers of the last one.
    fn all(&mut self, float: Model) -> Result<(Model, IntegerModel), PtqError> {
        let evaluation = self.evaluate_float(&float)?;
        self.row(Row { step: None, is_float: true, snr_db: f64::INFINITY, evaluation });
        let mut base = self.base(float)?;
        let all: Vec<Step> = self.options.steps.list();
        // Of networks on the way that are not measured only the result is made.
        let rows = if self.options.measures_steps { 0..=all.len() } else { all.len()..=all.len() };
        let mut last = None;
        for count in rows {
            let steps = Steps::of(&all[..count]);
            if steps.equalize && self.equalized.is_empty() {
                let mut float = base.float.clone();
                self.equalized = equalize::equalize(&mut float, &base.seen, &self.plan)?;
                if !self.equalized.is_empty() {
                    base = self.base(float)?;
                }
            }
            let clips = match steps.clip {
                true => self.clips(&mut base, &steps)?,
                false => base.seen.clips(&base.float.graph, &self.plan, &|_| Calibrate::Largest),
            };
            let Passed { model, .. } = self.pass(&base, &clips, &steps)?;
            let integers = convert(&model)?.model;
            let step = count.checked_sub(1).map(|i| all[i]).filter(|_| self.options.measures_steps);
            let (snr_db, evaluation) = (self.snr(&integers, &base.seen.outputs)?, self.evaluate(&integers)?);
            self.row(Row { step, is_float: false, snr_db, evaluation });
            last = Some((model, integers));
        }
        Ok(last.expect("there is plain rounding"))
    }

    fn row(&mut self, row: Row) {
        (self.progress.observer)(PtqEvent::Row(&row));
        self.rows.push(row);
    }

    fn base(&mut self, float: Model) -> Result<Base, PtqError> {
        let seen = Seen::new(&float, &self.pixels, &self.pool, &mut self.progress)?;
        Ok(Base { float, seen, clips: None })
    }

    /// The clip values of the rule asked for, or of the one whose network is nearest to the float one on the first
    /// images, without GPTQ, corrected means and adapters.
    fn clips(&mut self, base: &mut Base, steps: &Steps) -> Result<Clips, PtqError> {
        if let Some(clips) = &base.clips {
            return Ok(clips.clone());
        }
        let graph = &base.float.graph;
        let of = |rule: &dyn Fn(&ActPlan) -> Calibrate| base.seen.clips(graph, &self.plan, rule);
        let (rule, clips) = match self.options.rule {
            ClipRule::Rule(rule) => (rule, of(&|_| rule)),
            ClipRule::Auto => {
                let steps = Steps { gptq: false, bias: false, cora: false, ..*steps };
                let image = base.float.input.example_bytes(graph.input());
                let pixels = &self.pixels[..self.pixels.len().min(RULE_IMAGES * image)];
                let mut best: Option<(f64, Calibrate, Clips)> = None;
                for rule in ClipRule::CANDIDATES {
                    let clips = of(&|_| rule);
                    self.progress.begin(&format!("clip values by {rule}"), graph.nodes().len());
                    let wanted = Wanted {
                        float: &base.float,
                        seen: &base.seen,
                        plan: &self.plan,
                        clips: &clips,
                        steps: &steps,
                        shares: &RULE_SHARES,
                        ranks: &BTreeMap::new(),
                        measured: &[],
                    };
                    let Passed { outputs, .. } = pass(&wanted, pixels, &self.pool, &mut self.progress)?;
                    let db = decibels(&base.seen.outputs[..outputs.len()], outputs.iter().map(|&y| y.into()));
                    if best.as_ref().is_none_or(|best| db > best.0) {
                        best = Some((db, rule, clips));
                    }
                }
                let (_, rule, clips) = best.expect("there are rules");
                (rule, clips)
            }
        };
        self.rule = Some(rule);
        base.clips = Some(clips.clone());
        Ok(clips)
    }

    /// The quantized network; with adapters, two walks: their ranks follow from the residuals of the first.
    fn pass(&mut self, base: &Base, clips: &Clips, steps: &Steps) -> Result<Passed, PtqError> {
        let mut ranks = BTreeMap::new();
        if steps.cora {
            let measured = adapters::candidates(&base.float.graph);
            let residuals = self.walk(base, clips, steps, &ranks, &measured)?.residuals;
            let weights: usize = (0..base.float.graph.nodes().len())
                .filter_map(|id| base.float.graph.weight_shape(id))
                .map(|shape| shape.iter().product::<usize>())
                .sum();
            let budget = (weights as f64 * self.options.adapter_budget) as usize;
            let (names, layers): (Vec<_>, Vec<_>) = residuals.into_iter().unzip();
            ranks = names.into_iter().zip(allocate_ranks(&layers, budget)).filter(|(_, rank)| *rank > 0).collect();
        }
        let passed = self.walk(base, clips, steps, &ranks, &[])?;
        self.ranks = ranks;
        Ok(passed)
    }

    fn walk(
        &mut self,
        base: &Base,
        clips: &Clips,
        steps: &Steps,
        ranks: &BTreeMap<String, usize>,
        measured: &[NodeId],
    ) -> Result<Passed, PtqError> {
        self.progress.begin(&format!("quantizing ({steps})"), base.float.graph.nodes().len() + 4 * ranks.len());
        let wanted = Wanted {
            float: &base.float,
            seen: &base.seen,
            plan: &self.plan,
            clips,
            steps,
            shares: &SHARES,
            ranks,
            measured,
        };
        pass(&wanted, &self.pixels, &self.pool, &mut self.progress)
    }

    /// How near the integers' outputs are to those of the float network.
    fn snr(&self, integers: &IntegerModel, float: &Values) -> Result<f64, PtqError> {
        let options = ExecOptions { isa: self.options.isa, threads: self.options.threads };
        let mut executor = Executor::new(integers, options)?;
        let scale = integers.output_scale();
        let (image, n) = (executor.image_len(), executor.output_len());
        let mut outputs = vec![0; self.pixels.len() / image * n];
        for (pixels, outputs) in self.pixels.chunks(CHUNK * image).zip(outputs.chunks_mut(CHUNK * n)) {
            executor.run(pixels, outputs);
        }
        Ok(decibels(float, outputs.iter().map(|&q| q as f64 * scale)))
    }

    fn evaluate(&mut self, integers: &IntegerModel) -> Result<Option<Evaluation>, PtqError> {
        let (Some(test), PtqOptions { isa, threads, .. }) = (self.test, self.options) else { return Ok(None) };
        let observer = &mut self.progress.observer;
        let mut told = |done, images| observer(PtqEvent::Evaluating { done, images });
        Ok(Some(evaluate_integer(integers, test, *isa, *threads, CHUNK, &mut told)?))
    }

    fn evaluate_float(&mut self, float: &Model) -> Result<Option<Evaluation>, PtqError> {
        let Some(test) = self.test.filter(|test| !test.is_empty()) else { return Ok(None) };
        let (isa, threads, batch_size) = (self.options.isa, self.options.threads, CHUNK.min(test.len()));
        crate::memory::check(&[(&float.graph, &float.plan)], batch_size, crate::memory::free())
            .map_err(|too_much| RunError::Memory { batch_size, too_much })?;
        let spec =
            BackendSpec { isa, threads, ..BackendSpec::new(&float.graph, &float.plan, &float.input, batch_size) };
        let mut backend = BackendKind::Cpu.build(&spec)?;
        backend.load(&float.tensors, None)?;
        let observer = &mut self.progress.observer;
        let mut told = |done, images| observer(PtqEvent::Evaluating { done, images });
        Ok(Some(evaluate_simulated(&mut *backend, test, &mut told)?))
    }
}

/// `10 log10(sum y^2 / sum (y - z)^2)`.
fn decibels(y: &[f32], z: impl Iterator<Item = f64>) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (&y, z) in y.iter().zip(z) {
        signal += f64::from(y).powi(2);
        noise += (f64::from(y) - z).powi(2);
    }
    10.0 * (signal / noise).log10()
}

fn check_float(model: &Model) -> Result<(), PtqError> {
    if model.plan.is_float() {
        return Ok(());
    }
    let is_quantized = |weights: &&WeightPlan| matches!(weights, WeightPlan::Quantized(_));
    let bits = model.plan.activations.len() + model.plan.weights.values().filter(is_quantized).count();
    Err(PtqError::Quantized { arch: model.graph.name().to_owned(), bits })
}

/// The bits of every layer: those that `config` resolves to, with a weight step for each output channel.
///
/// # Errors
/// `float`, and what [`QuantPlan::resolve`] refuses.
pub fn plan(graph: &Graph, config: &QuantConfig) -> Result<QuantPlan, PtqError> {
    if config.bits == BitSpec::Float {
        return Err(PtqError::Float);
    }
    let config =
        QuantConfig { weight_quant: WeightQuant::Lsq, weight_scale: Some(Granularity::Channel), ..config.clone() };
    let mut plan = QuantPlan::resolve(graph, &config)?;
    for weights in plan.weights.values_mut() {
        if let WeightPlan::Quantized(spec) = weights
            && spec.quant == WeightQuant::Minmax
        {
            *spec = WeightSpec { quant: WeightQuant::Lsq, grid: Grid::WithZero, scale: Granularity::Channel, ..*spec };
        }
    }
    Ok(plan)
}

/// All images, HWC.
fn pixels(model: &Model, calibration: &dyn Dataset) -> Result<Vec<u8>, PtqError> {
    let (shape, reads, images) = (calibration.image_shape(), model.graph.input(), calibration.len());
    let wrong = |what: String| Err(PtqError::Images { what });
    if images == 0 {
        return wrong("there are none".to_owned());
    }
    if (shape.h, shape.w, shape.c) != (reads.h, reads.w, reads.c) {
        return wrong(format!("{}x{}x{}, but the network reads {reads}", shape.h, shape.w, shape.c));
    }
    if calibration.code_bits() != model.input.bits {
        return wrong(format!("{} bits a pixel, but the network reads {}", calibration.code_bits(), model.input.bits));
    }
    // Values, what one layer makes of them, and the images themselves.
    let bytes = calibration.bytes_shape().len();
    let needed = images as u64 * (2 * live_bytes(&model.graph) + bytes as u64);
    memory::check(needed).map_err(|shortage| PtqError::Memory { images, shortage })?;
    let mut pixels = vec![0; images * bytes];
    pixels.chunks_exact_mut(bytes).enumerate().for_each(|(i, image)| calibration.image(i, image));
    Ok(pixels)
}

/// Gives a bias, 0 at first, to products whose sums have nothing else whose mean can be moved.
fn add_biases(model: &mut Model) -> Result<(), PtqError> {
    let graph = &model.graph;
    let mut nodes = graph.nodes().to_vec();
    let without = |shift: &Shift| match *shift {
        Shift::Product(id) if !graph.node(id).op.has_bias() => Some(id),
        _ => None,
    };
    for id in shifts(graph)?.values().filter_map(without) {
        match &mut nodes[id].op {
            Op::Conv(Conv { bias, .. }) | Op::ConvTranspose(ConvTranspose { bias, .. }) | Op::Linear { bias, .. } => {
                *bias = true;
            }
            _ => unreachable!("products are convolutions and linear layers"),
        }
        let name = format!("{}.bias", nodes[id].name);
        model.tensors.insert(name, Tensor::full(&[graph.shape(id).c], 0.0));
    }
    model.graph = Graph::with_outputs(graph.name(), nodes, graph.outputs().to_vec())?;
    Ok(())
}
