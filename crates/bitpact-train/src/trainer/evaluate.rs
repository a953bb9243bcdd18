//! Accuracy on a whole set, in integers and in the simulated view. No image is left out.

use std::time::{Duration, Instant};

use bitpact_data::{Dataset, ImageShape, TargetKind, read_images};
use bitpact_engine::{Accuracy, ExecOptions, Executor, VerifyOptions, verify};
use bitpact_graph::Shape;
use bitpact_kernels::Isa;
use bitpact_model::IntegerModel;

use super::RunError;
use super::batches::fill_plain;
use crate::loss::dense_loss;
use crate::metric::{Meter, Metric};
use crate::{DenseLoss, Targets, TrainBackend};

/// Images evaluated at once while training.
pub(super) const CHUNK: usize = 100;

/// Multiplications of the images that an evaluation begins with in the interpreter: some tenths of a second.
const PROVED_MACS: u64 = 1 << 28;
/// Images of these at most.
const PROVED_IMAGES: u64 = 4;

/// Metrics of a network's outputs for a set.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Fraction of images whose largest logit is their label's; 0 where targets are no classes.
    pub top1: f64,
    /// Fraction of images with their label among the five largest.
    pub top5: f64,
    /// Metrics of targets that are no classes, the one that counts first; else empty.
    pub metrics: Vec<Metric>,
    /// Images evaluated.
    pub images: usize,
    /// Images a second, computing alone.
    pub images_per_s: f64,
}

impl Evaluation {
    /// A number that is larger where the network is better.
    pub fn score(&self) -> f64 {
        self.metrics.first().map_or(self.top1, Metric::score)
    }
}

impl From<Accuracy> for Evaluation {
    fn from(Accuracy { top1, top5, images, images_per_s }: Accuracy) -> Self {
        Self { top1, top5, metrics: Vec::new(), images, images_per_s }
    }
}

/// Runs the integer network on every image of `dataset`, `batch_size` at once. `told` hears of images done and images
/// in all. Every code of the first one to four images is compared with the reference interpreter's before anything is
/// counted.
///
/// # Errors
/// Images of another shape or with other classes than the network, a network the engine refuses, or a code that
/// differs.
pub fn evaluate_integer(
    model: &IntegerModel,
    dataset: &dyn Dataset,
    isa: Isa,
    threads: usize,
    batch_size: usize,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, RunError> {
    let (shape, images, classes) = (dataset.image_shape(), dataset.len(), model.class_names.len());
    let reads = model.input_shape;
    if (reads.h, reads.w, reads.c) != (shape.h, shape.w, shape.c) || dataset.class_names().len() != classes {
        let what = format!(
            "{}x{}x{} in {} classes, but the network `{}` reads {reads} and knows {classes} classes",
            shape.h,
            shape.w,
            shape.c,
            dataset.class_names().len(),
            model.arch
        );
        return Err(RunError::Images { half: "test", what });
    }
    if dataset.code_bits() != model.input.bits {
        let what = format!("codes of {} bits, but the network reads {}", dataset.code_bits(), model.input.bits);
        return Err(RunError::Images { half: "test", what });
    }
    let image = dataset.bytes_shape().len();
    check_output(dataset, model.output_shape()).map_err(|what| RunError::Images { half: "test", what })?;
    let mut executor = Executor::new(model, ExecOptions { isa, threads })?;
    let macs: u64 = executor.layers().map(|(_, _, macs)| macs).sum();
    let proved = (PROVED_MACS / macs.max(1)).clamp(1, PROVED_IMAGES).min(images as u64) as usize;
    let fill = |range: std::ops::Range<usize>, pixels: &mut [u8]| {
        read_images(dataset, range.start, &mut pixels[..range.len() * image], threads);
    };
    let path = VerifyOptions { isas: vec![isa], threads: vec![threads], probes: false };
    if let Some(difference) = verify(model, &path, proved, fill, |_| ())?.first {
        return Err(RunError::Differs(difference));
    }
    if dataset.target_kind() != TargetKind::Class {
        return Ok(evaluate_dense(model, &mut executor, dataset, batch_size, &fill, told));
    }
    let load = |range: std::ops::Range<usize>, pixels: &mut [u8], labels: &mut [usize]| {
        read_images(dataset, range.start, &mut pixels[..range.len() * image], threads);
        range.zip(labels).for_each(|(i, label)| *label = dataset.label(i));
    };
    Ok(bitpact_engine::evaluate(&mut executor, images, batch_size, load, |done| told(done, images))?.into())
}

/// Outputs against targets that are no classes.
fn evaluate_dense(
    model: &IntegerModel,
    executor: &mut Executor,
    dataset: &dyn Dataset,
    batch_size: usize,
    fill: &dyn Fn(std::ops::Range<usize>, &mut [u8]),
    told: &mut dyn FnMut(usize, usize),
) -> Evaluation {
    let (images, n) = (dataset.len(), executor.output_len());
    let batch_size = batch_size.clamp(1, images.max(1));
    let scale = model.output_scale();
    let kind = dataset.target_kind();
    let mut meter = Meter::of(dataset, model.output_shape().c);
    let (mut pixels, mut outputs) = (vec![0; batch_size * executor.image_len()], vec![0; batch_size * n]);
    let (mut output, mut target) = (vec![0.0; n], vec![0.0; kind.len()]);
    let mut computing = Duration::ZERO;
    for from in (0..images).step_by(batch_size) {
        let count = batch_size.min(images - from);
        let (pixels, outputs) = (&mut pixels[..count * executor.image_len()], &mut outputs[..count * n]);
        fill(from..from + count, pixels);
        let begin = Instant::now();
        executor.run(pixels, outputs);
        computing += begin.elapsed();
        for (i, integers) in outputs.chunks_exact(n).enumerate() {
            output.iter_mut().zip(integers).for_each(|(to, &q)| *to = (q as f64 * scale) as f32);
            dataset.target(from + i, &mut target);
            meter.add(&output, &target);
        }
        told(from + count, images);
    }
    measured(&meter, images, computing)
}

fn measured(meter: &Meter, images: usize, computing: Duration) -> Evaluation {
    let seconds = computing.as_secs_f64();
    let images_per_s = if seconds > 0.0 { images as f64 / seconds } else { 0.0 };
    Evaluation { top1: 0.0, top5: 0.0, metrics: meter.metrics(), images, images_per_s }
}

/// The output that the targets of a set ask for, and what the targets are.
fn wanted_output(dataset: &dyn Dataset) -> (Shape, &'static str) {
    let names = dataset.class_names().len();
    match dataset.target_kind() {
        TargetKind::Class => (Shape::new(1, 1, names), "classes"),
        TargetKind::Mask { h, w } => (Shape::new(h, w, names), "a class for each pixel"),
        TargetKind::Image(ImageShape { h, w, c }) => (Shape::new(h, w, c), "images"),
        TargetKind::Numbers(n) => (Shape::new(1, 1, n), "numbers"),
    }
}

/// Whether an output of this shape is what the targets of a set ask for; says what is not.
pub(super) fn check_output(dataset: &dyn Dataset, output: Shape) -> Result<(), String> {
    let (wanted, what) = wanted_output(dataset);
    match output == wanted {
        true => Ok(()),
        false => Err(format!("the targets are {what} and need an output of {wanted}, the network gives {output}")),
    }
}

/// Runs the backend's simulated view (for a float network, the network itself) on every image of `dataset`.
///
/// # Errors
/// Images of another shape or with other classes than the network.
pub fn evaluate_simulated(
    backend: &mut dyn TrainBackend,
    dataset: &dyn Dataset,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, RunError> {
    Ok(simulated_measures(backend, dataset, None, told)?.1)
}

/// The mean loss and the metrics of the backend's simulated view over every image of `dataset`: cross entropy in nats
/// where targets are classes, `loss` where they are others, 0 without one and of no images.
///
/// # Errors
/// Images of another shape or with other classes than the network.
pub fn simulated_measures(
    backend: &mut dyn TrainBackend,
    dataset: &dyn Dataset,
    loss: Option<DenseLoss>,
    told: &mut dyn FnMut(usize, usize),
) -> Result<(f64, Evaluation), RunError> {
    let (images, kind, began) = (dataset.len(), dataset.target_kind(), Instant::now());
    let channels = dataset.class_names().len();
    let (mut meter, mut target) = (Meter::of(dataset, channels), vec![0.0; kind.len()]);
    let (mut first, mut among_five, mut sum) = (0usize, 0usize, 0.0);
    let mut gradient = Vec::new();
    each_image(backend, dataset, told, &mut |i, output| {
        if kind == TargetKind::Class {
            let label = dataset.label(i);
            let rank = rank(output, label);
            first += usize::from(rank == 0);
            among_five += usize::from(rank < 5);
            sum += cross_entropy(output, label);
        } else {
            dataset.target(i, &mut target);
            meter.add(output, &target);
            if let Some(loss) = loss {
                gradient.resize(output.len(), 0.0);
                let targets = Targets { loss, values: &target };
                let channels = if let TargetKind::Image(shape) = kind { shape.c } else { channels };
                sum += dense_loss(output, channels, &targets, None, (0, 1), &mut gradient);
            }
        }
    })?;
    let evaluation = measured(&meter, images, began.elapsed());
    let share = |hits: usize| if images == 0 { 0.0 } else { hits as f64 / images as f64 };
    Ok((sum / images.max(1) as f64, Evaluation { top1: share(first), top5: share(among_five), ..evaluation }))
}

/// Mean cross entropy, in nats, of the backend's simulated view over every image of `dataset`, whose targets are
/// classes; 0 of none.
///
/// # Errors
/// Images of another shape or with other classes than the network.
pub fn simulated_loss(backend: &mut dyn TrainBackend, dataset: &dyn Dataset) -> Result<f64, RunError> {
    Ok(simulated_measures(backend, dataset, None, &mut |_, _| {})?.0)
}

/// Calls `f` with the number and the output of every image, in order.
fn each_image(
    backend: &mut dyn TrainBackend,
    dataset: &dyn Dataset,
    told: &mut dyn FnMut(usize, usize),
    f: &mut dyn FnMut(usize, &[f32]),
) -> Result<(), RunError> {
    let (shape, images, reads) = (dataset.image_shape(), dataset.len(), backend.input_shape());
    let misfit = |what: String| Err(RunError::Images { half: "test", what });
    if (reads.h, reads.w, reads.c) != (shape.h, shape.w, shape.c) {
        return misfit(format!("{}x{}x{}, but the network reads {reads}", shape.h, shape.w, shape.c));
    }
    let (wanted, what) = wanted_output(dataset);
    let mut outputs = Vec::new();
    for from in (0..images).step_by(backend.batch_size()) {
        let count = backend.batch_size().min(images - from);
        let fill = |i: usize, out: &mut [u8], place| fill_plain(dataset, from + i, out, place);
        backend.simulate(count, &fill, &mut outputs);
        let n = outputs.len() / count;
        if n != wanted.elements() {
            return misfit(format!("{what}: {wanted} in all, but the network gives {n} numbers"));
        }
        outputs.chunks_exact(n).enumerate().for_each(|(i, output)| f(from + i, output));
        told(from + count, images);
    }
    Ok(())
}

/// log(sum of exp(z)) - z[label].
fn cross_entropy(logits: &[f32], label: usize) -> f64 {
    let largest = logits.iter().fold(f64::MIN, |most, &z| most.max(f64::from(z)));
    let sum: f64 = logits.iter().map(|&z| (f64::from(z) - largest).exp()).sum();
    largest + sum.ln() - f64::from(logits[label])
}

/// Classes ahead of `label`; the lowest index wins ties, and a logit that is not a number is never right.
pub(super) fn rank(logits: &[f32], label: usize) -> usize {
    let own = logits[label];
    if own.is_nan() {
        return logits.len();
    }
    logits.iter().enumerate().filter(|&(i, &v)| v > own || (v == own && i < label)).count()
}

#[cfg(test)]
mod tests {
    use super::{cross_entropy, rank};

    #[test]
    fn ranks_count_the_classes_ahead() {
        let logits = [1.0, 3.0, 3.0, -1.0, f32::NAN];
        assert_eq!([0, 1, 2, 3, 4].map(|label| rank(&logits, label)), [2, 0, 1, 3, 5]);
    }

    #[test]
    fn the_loss_of_a_guess_is_that_of_all_classes_and_large_logits_do_not_overflow() {
        assert!((cross_entropy(&[3.0; 10], 4) - 10f64.ln()).abs() < 1e-12);
        assert_eq!(cross_entropy(&[1000.0, 0.0], 0), 0.0);
        assert_eq!(cross_entropy(&[1000.0, 0.0], 1), 1000.0);
    }
}
