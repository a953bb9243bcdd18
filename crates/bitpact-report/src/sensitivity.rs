//! Where quantization costs accuracy: the loss and the metric of a trained network when one tensor alone has few bits.
//!
//! The base is the network with [`BASE_BITS`] bits everywhere: of a network trained with quantizers they are its own
//! quantizers, with its clip values and steps kept; of a float network weights stay float and activations are clipped
//! where the images of the first batch say. Then the weights of one layer, or one activation, get fewer bits, with
//! nothing trained anew.

use std::collections::BTreeMap;
use std::path::Path;

use bitpact_core::{ActQuant, Bits, Granularity, Grid, WeightQuant, WeightSpec};
use bitpact_data::{Dataset, Placement, TargetKind, copy_plain};
use bitpact_graph::{ActPlan, Op, QuantPlan, WeightPlan};
use bitpact_model::{Model, Tensor};
use bitpact_train::{BackendKind, BackendSpec, DenseLoss, Metric, RunError, TrainBackend, simulated_measures};
use serde::{Deserialize, Serialize};

use crate::ReportError;
use crate::log::io;

/// Where a report looks for the sensitivity of a run's layers, in the folder of the run.
pub const SENSITIVITY: &str = "sensitivity.json";

/// Bits of everything but the tensor that is looked at.
pub const BASE_BITS: u8 = 8;

/// Clip values of a float network's activations: this percentile of what they see.
const PERCENTILE: f64 = 99.9;
/// Images of a batch.
const BATCH: usize = 100;

/// Loss and metric of a network when one tensor alone has few bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// Name of the architecture.
    pub network: String,
    /// Images that were measured.
    pub images: usize,
    /// Name of the metric: `top1`, or the first one of the task.
    pub metric: String,
    /// Whether more of the metric is better.
    pub more_is_better: bool,
    /// Measure of the network with [`BASE_BITS`] bits everywhere.
    pub base: Measure,
    /// Measures with fewer bits of one tensor, layer by layer, the widths of a tensor in ascending order.
    pub rows: Vec<Row>,
}

/// A mean loss and a metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Mean loss: cross entropy in nats where targets are classes.
    pub loss: f64,
    /// The metric; a fraction of 1 where it is an accuracy.
    pub metric: f64,
}

/// The part of a layer that has few bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The weights of a convolution or linear layer.
    Weights,
    /// The codes of an activation.
    Activations,
}

/// One tensor at one width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the layer or activation.
    pub layer: String,
    /// Part of the layer that has few bits.
    pub part: Part,
    /// Bits of that part.
    pub bits: u8,
    /// Loss and metric of the network so quantized.
    #[serde(flatten)]
    pub measure: Measure,
}

impl Sensitivity {
    /// Change of the loss in `row`.
    pub fn loss_change(&self, row: &Row) -> f64 {
        row.measure.loss - self.base.loss
    }

    /// Change of the metric in `row`.
    pub fn metric_change(&self, row: &Row) -> f64 {
        row.measure.metric - self.base.metric
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain values are JSON") + "\n"
    }
}

/// The sensitivity in the folder of a run; none where there is no such file.
///
/// # Errors
/// A file that cannot be read or is another.
pub fn read(run: &Path) -> Result<Option<Sensitivity>, ReportError> {
    let path = run.join(SENSITIVITY);
    match std::fs::read_to_string(&path) {
        Ok(text) => match serde_json::from_str(&text) {
            Ok(found) => Ok(Some(found)),
            Err(source) => Err(ReportError::Line { path, line: source.line(), source }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("read", &path)(error)),
    }
}

/// Images, threads and widths of a measurement.
#[derive(Debug, Clone)]
pub struct Options {
    /// Widths to try, each below [`BASE_BITS`]; a signed activation has at least 2.
    pub bits: Vec<Bits>,
    /// Batches of 100 of the images from which batch norm's statistics are estimated anew before each measure, so that
    /// it is not of statistics that belong to other weights and codes; 0 for those of the network.
    pub reestimate: u64,
    /// Loss of targets that are no classes.
    pub loss: Option<DenseLoss>,
    /// Backend that computes the simulated view.
    pub backend: BackendKind,
    /// Instruction set.
    pub isa: bitpact_kernels::Isa,
    /// Number of threads.
    pub threads: usize,
}

/// A plan to measure, with the tensors that fit it.
#[derive(Clone)]
struct Variant {
    plan: QuantPlan,
    tensors: BTreeMap<String, Tensor>,
}

/// Measures `model` on all of `images`. `told` hears of measurements that are done and of all, and says whether to go
/// on; where it says no, the result is `None`.
///
/// # Errors
/// Images of another shape or with other classes than the network, or a network that cannot be computed.
pub fn measure(
    model: &Model,
    images: &dyn Dataset,
    options: &Options,
    told: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Sensitivity>, ReportError> {
    let mut bench = Bench::new(model, images, options)?;
    let variants = variants(model, &bench.base, &options.bits);
    let all = variants.len() + 1;
    let base = bench.base.clone();
    let (base, metric) = bench.measure(&base)?;
    let mut found = Sensitivity {
        network: model.graph.name().to_owned(),
        images: images.len(),
        metric: metric.as_ref().map_or("top1".to_owned(), |metric| metric.name.clone()),
        more_is_better: images.target_kind() == TargetKind::Class
            || metric.is_some_and(|metric| metric.more_is_better()),
        base,
        rows: Vec::new(),
    };
    for (i, (layer, part, bits, variant)) in variants.into_iter().enumerate() {
        if !told(i + 1, all) {
            return Ok(None);
        }
        found.rows.push(Row { layer, part, bits, measure: bench.measure(&variant)?.0 });
    }
    Ok(Some(found))
}

/// Measures `model` on all of `images` with several tensors at few bits together: each of `all` is a list of layers or
/// activations with their part and bits; everything else has [`BASE_BITS`].
///
/// # Errors
/// As [`measure`].
pub fn measure_together(
    model: &Model,
    images: &dyn Dataset,
    options: &Options,
    all: &[Vec<(String, Part, Bits)>],
) -> Result<Vec<Measure>, ReportError> {
    let mut bench = Bench::new(model, images, options)?;
    let together = |tensors: &Vec<(String, Part, Bits)>| {
        let mut variant = bench.base.clone();
        for (name, part, width) in tensors {
            if let Some(id) = model.graph.find(name).filter(|&id| part_of(model, id) == Some(*part)) {
                narrow(model, &mut variant, id, *width);
            }
        }
        variant
    };
    let variants: Vec<Variant> = all.iter().map(together).collect();
    variants.iter().map(|variant| Ok(bench.measure(variant)?.0)).collect()
}

/// A network at its base with what measures it.
struct Bench<'a> {
    base: Variant,
    backend: Box<dyn TrainBackend>,
    images: &'a dyn Dataset,
    loss: Option<DenseLoss>,
    reestimate: u64,
}

impl<'a> Bench<'a> {
    fn new(model: &Model, images: &'a dyn Dataset, options: &Options) -> Result<Self, ReportError> {
        let mut base = base(model)?;
        let Options { isa, threads, loss, reestimate, .. } = *options;
        let spec = BackendSpec {
            isa,
            threads,
            ..BackendSpec::new(&model.graph, &base.plan, &model.input, images.len().clamp(1, BATCH))
        };
        let mut backend = options.backend.build(&spec).map_err(RunError::from)?;
        backend.load(&base.tensors, None).map_err(RunError::from)?;
        if model.plan.is_float() {
            let fill = |i: usize, out: &mut [u8], place: Placement| plain(images, i % images.len().max(1), out, place);
            for (name, clip) in backend.calibrate(PERCENTILE, &fill).map_err(RunError::from)? {
                if let Some(tensor) = base.tensors.get_mut(&name) {
                    tensor.data.fill(clip);
                }
            }
        }
        Ok(Self { base, backend, images, loss, reestimate })
    }

    /// The measure of `variant`, and the first metric of targets that are no classes.
    fn measure(&mut self, variant: &Variant) -> Result<(Measure, Option<Metric>), ReportError> {
        self.backend.replan(&variant.plan).map_err(RunError::from)?;
        self.backend.load(&variant.tensors, None).map_err(RunError::from)?;
        let (images, batch) = (self.images, self.backend.batch_size());
        for number in 0..self.reestimate {
            let first = number as usize * batch;
            let fill = |i: usize, out: &mut [u8], place| plain(images, (first + i) % images.len(), out, place);
            self.backend.reestimate(number, &fill);
        }
        let (loss, found) = simulated_measures(&mut *self.backend, self.images, self.loss, &mut |_, _| {})?;
        let metric = found.metrics.first().map_or(found.top1, |metric| metric.value);
        Ok((Measure { loss, metric }, found.metrics.into_iter().next()))
    }
}

/// The image as the backend reads it, without any change.
fn plain(images: &dyn Dataset, index: usize, out: &mut [u8], place: Placement) -> usize {
    let mut pixels = vec![0; images.bytes_shape().len()];
    images.image(index, &mut pixels);
    copy_plain(&pixels, images.image_shape(), out, place);
    images.label(index)
}

fn bits(n: u8) -> Bits {
    Bits::new(n).expect("1 to 8")
}

/// The network with [`BASE_BITS`] bits everywhere.
fn base(model: &Model) -> Result<Variant, ReportError> {
    let (mut plan, mut tensors) = (model.plan.clone(), model.tensors.clone());
    let names: Vec<String> = plan.weights.keys().cloned().collect();
    for name in names {
        if let Some(WeightPlan::Quantized(spec)) = plan.weights.get(&name).copied() {
            rewidth(&mut plan, &mut tensors, &name, spec, bits(BASE_BITS));
        }
    }
    for (name, act) in &mut plan.activations {
        act.bits = bits(BASE_BITS);
        if act.quant == ActQuant::Sign {
            let is_signed =
                model.graph.find(name).is_some_and(|id| model.graph.node(id).op == Op::Act { signed: true });
            act.quant = if is_signed { ActQuant::PactSym } else { ActQuant::Pact };
        }
    }
    if model.plan.is_float() {
        for node in model.graph.nodes().iter().filter(|node| node.op.is_act()) {
            let quant = if node.op == (Op::Act { signed: true }) { ActQuant::PactSym } else { ActQuant::Pact };
            let act = ActPlan { bits: bits(BASE_BITS), quant, clip_scale: Granularity::Layer };
            plan.activations.insert(node.name.clone(), act);
        }
        for (name, shape) in Model::tensor_shapes(&model.graph, &plan) {
            tensors.entry(name).or_insert_with(|| Tensor::full(&shape, 1.0));
        }
    }
    Ok(Variant { plan, tensors })
}

/// Gives the weights of `name` another width, and a learned step that spans the same range as before.
fn rewidth(plan: &mut QuantPlan, tensors: &mut BTreeMap<String, Tensor>, name: &str, from: WeightSpec, width: Bits) {
    let scale = (from.quant != WeightQuant::Dorefa).then_some(from.scale);
    let Ok(to) = WeightSpec::with_scale(width, from.quant, None, scale) else { return };
    if let Some(steps) = tensors.get_mut(&format!("{name}.weight_step")) {
        // A step is two codes on the grid without zero.
        let reach = |spec: &WeightSpec| {
            f32::from(spec.code_limit() as i16).max(1.0) / if spec.grid == Grid::WithoutZero { 2.0 } else { 1.0 }
        };
        let factor = reach(&from) / reach(&to);
        steps.data.iter_mut().for_each(|step| *step *= factor);
    }
    plan.weights.insert(name.to_owned(), WeightPlan::Quantized(to));
}

/// Every tensor at every width: weights in the order of the graph, each before the activation that follows it.
fn variants(model: &Model, base: &Variant, widths: &[Bits]) -> Vec<(String, Part, u8, Variant)> {
    let mut variants = Vec::new();
    for (id, node) in model.graph.nodes().iter().enumerate() {
        let Some(part) = part_of(model, id) else { continue };
        for &width in widths.iter().filter(|width| width.get() > 1 || node.op != Op::Act { signed: true }) {
            let mut variant = base.clone();
            narrow(model, &mut variant, id, width);
            variants.push((node.name.clone(), part, width.get(), variant));
        }
    }
    variants
}

/// The part that a node has bits of: none of an activation whose clip value another holds.
fn part_of(model: &Model, id: usize) -> Option<Part> {
    let op = model.graph.node(id).op;
    match (op.is_product(), op.is_act()) {
        (true, _) => Some(Part::Weights),
        (_, true) => (model.graph.clip_owners()[id] == id).then_some(Part::Activations),
        _ => None,
    }
}

/// Gives the weights of a node, or an activation with those that share its clip value, another width.
fn narrow(model: &Model, variant: &mut Variant, id: usize, width: Bits) {
    let node = model.graph.node(id);
    if node.op.is_product() {
        let spec = match variant.plan.weights.get(&node.name) {
            Some(WeightPlan::Quantized(spec)) => *spec,
            // Trained without a quantizer: one that follows the weights as they are.
            _ => WeightSpec::new(width, WeightQuant::Sawb, None).expect("sawb has its own grid"),
        };
        return rewidth(&mut variant.plan, &mut variant.tensors, &node.name, spec, width);
    }
    let owners = model.graph.clip_owners();
    for act in (0..owners.len()).filter(|&other| owners[other] == id) {
        if let Some(act) = variant.plan.activations.get_mut(&model.graph.node(act).name) {
            act.bits = width;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitpact_data::{DatasetName, Limits, load};
    use bitpact_graph::{QuantConfig, Shape, zoo};
    use bitpact_model::InputDescription;

    fn images() -> Box<dyn Dataset> {
        load(DatasetName::Builtin, None, Limits { train: Some(1), test: Some(10) }).unwrap().test
    }

    fn network(config: &QuantConfig) -> Model {
        let graph = zoo::build("cnn", Shape::new(32, 32, 3), 10).unwrap().unwrap();
        let plan = QuantPlan::resolve(&graph, config).unwrap();
        let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
        Model::random(graph, plan, input, images().class_names().to_vec(), 5).unwrap()
    }

    fn options(reestimate: u64) -> Options {
        let (backend, isa) = (BackendKind::default(), bitpact_kernels::Isa::detect());
        Options { bits: vec![bits(2), bits(7)], reestimate, loss: None, backend, isa, threads: 1 }
    }

    fn measured(config: &QuantConfig) -> Sensitivity {
        let (model, images, options) = (network(config), images(), options(0));
        let found = measure(&model, &*images, &options, &mut |_, _| true).unwrap().unwrap();
        assert_eq!(measure(&model, &*images, &options, &mut |_, _| false).unwrap(), None);
        let alone = |row: &Row| vec![(row.layer.clone(), row.part, bits(row.bits))];
        let all: Vec<_> = found.rows.iter().map(alone).chain([Vec::new()]).collect();
        let together = measure_together(&model, &*images, &options, &all).unwrap();
        let expected: Vec<Measure> = found.rows.iter().map(|row| row.measure).chain([found.base]).collect();
        assert_eq!(together, expected, "one tensor together with none is that tensor alone");
        found
    }

    #[test]
    fn statistics_that_are_estimated_anew_are_those_of_the_codes() {
        let model = network(&QuantConfig::new("W4A4".parse().unwrap()));
        let mut moved = model.clone();
        moved.tensors.get_mut("bn2.running_mean").unwrap().data.iter_mut().for_each(|mean| *mean += 3.0);
        let losses = |model: &Model, reestimate: u64| {
            let found = measure(model, &*images(), &options(reestimate), &mut |_, _| true).unwrap().unwrap();
            found.rows.iter().map(|row| row.measure.loss).collect::<Vec<f64>>()
        };
        assert_eq!(losses(&model, 1), losses(&moved, 1));
        assert_ne!(losses(&model, 0), losses(&moved, 0));
    }

    #[test]
    fn two_bits_change_the_loss_more_than_seven_whatever_the_quantizer() {
        for (spec, quant) in [("float", "dorefa"), ("W4A4", "sawb"), ("W4A4", "dorefa"), ("W4A4", "lsq")] {
            let config =
                QuantConfig { weight_quant: quant.parse().unwrap(), ..QuantConfig::new(spec.parse().unwrap()) };
            let found = measured(&config);
            let change = |width: u8| -> f64 {
                found.rows.iter().filter(|row| row.bits == width).map(|row| found.loss_change(row).abs()).sum()
            };
            assert!(change(2) > 4.0 * change(7), "{spec} {quant}: {} {}", change(2), change(7));
            let layers = |part: Part| found.rows.iter().filter(|row| row.part == part && row.bits == 2).count();
            assert!(layers(Part::Weights) >= 3 && layers(Part::Activations) >= 2);
            let back: Sensitivity = serde_json::from_str(&found.to_json()).unwrap();
            assert_eq!(back, found);
        }
    }
}
