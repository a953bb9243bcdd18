//! Accuracy on a whole set, in integers and in the simulated view. No image is left out.

use std::time::{Duration, Instant};

use bitpact_data::Dataset;
use bitpact_engine::{ExecOptions, Executor, top_k_hits};
use bitpact_kernels::Isa;
use bitpact_model::IntegerModel;

use super::RunError;
use super::batches::fill_plain;
use crate::TrainBackend;

/// Images evaluated at once while training.
pub(super) const CHUNK: usize = 100;

/// How many images of a set a network has right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluation {
    /// Images whose label has the largest logit.
    pub top1_hits: u64,
    /// Images whose label is among the five largest.
    pub top5_hits: u64,
    /// Images in all.
    pub images: usize,
    /// Time the network took, reading the images included.
    pub time: Duration,
}

impl Evaluation {
    /// Fraction of images whose label has the largest logit.
    pub fn top1(&self) -> f64 {
        self.top1_hits as f64 / self.images as f64
    }

    /// Fraction of images whose label is among the five largest.
    pub fn top5(&self) -> f64 {
        self.top5_hits as f64 / self.images as f64
    }

    /// Images a second.
    pub fn images_per_s(&self) -> f64 {
        let seconds = self.time.as_secs_f64();
        if seconds > 0.0 { self.images as f64 / seconds } else { 0.0 }
    }
}

/// Runs the integer network on every image of `dataset`, `batch_size` at once. `told` hears of images done and images in
/// all.
///
/// # Errors
/// Images of another shape or with more classes than the network, or a network the engine refuses.
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
    let batch_size = batch_size.clamp(1, images.max(1));
    let mut executor = Executor::new(model, ExecOptions { isa, threads })?;
    let mut pixels = vec![0; batch_size * shape.len()];
    let mut logits = vec![0i64; batch_size * classes];
    let began = Instant::now();
    let (mut top1_hits, mut top5_hits) = (0, 0);
    for first in (0..images).step_by(batch_size) {
        let count = batch_size.min(images - first);
        for (i, image) in pixels.chunks_exact_mut(shape.len()).take(count).enumerate() {
            dataset.image(first + i, image);
        }
        let logits = &mut logits[..count * classes];
        executor.run(&pixels[..count * shape.len()], logits);
        for (i, logits) in logits.chunks_exact(classes).enumerate() {
            let (top1, top5) = top_k_hits(logits, dataset.label(first + i));
            top1_hits += u64::from(top1);
            top5_hits += u64::from(top5);
        }
        told(first + count, images);
    }
    Ok(Evaluation { top1_hits, top5_hits, images, time: began.elapsed() })
}

/// Runs the backend's simulated view (for a float network, the network itself) on every image of `dataset`.
///
/// # Errors
/// Images of another shape than the backend reads.
pub fn evaluate_simulated(
    backend: &mut dyn TrainBackend,
    dataset: &dyn Dataset,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, RunError> {
    let (shape, images, layout) = (dataset.image_shape(), dataset.len(), backend.input_layout());
    if (layout.h, layout.w, layout.c) != (shape.h, shape.w, shape.c) {
        let reads = format!("{}x{}x{}", layout.h, layout.w, layout.c);
        let what = format!("{}x{}x{}, but the network reads {reads}", shape.h, shape.w, shape.c);
        return Err(RunError::Images { half: "test", what });
    }
    let classes = dataset.class_names().len();
    let mut logits = Vec::new();
    let began = Instant::now();
    let (mut top1_hits, mut top5_hits) = (0, 0);
    for first in (0..images).step_by(backend.batch_size()) {
        let count = backend.batch_size().min(images - first);
        let fill = |i: usize, out: &mut [u8]| fill_plain(dataset, first + i, layout, out);
        backend.simulate(count, &fill, &mut logits);
        if logits.len() != count * classes {
            let what = format!("{classes} classes, but the network knows {}", logits.len() / count);
            return Err(RunError::Images { half: "test", what });
        }
        for (i, logits) in logits.chunks_exact(classes).enumerate() {
            let rank = rank(logits, dataset.label(first + i));
            top1_hits += u64::from(rank == 0);
            top5_hits += u64::from(rank < 5);
        }
        told(first + count, images);
    }
    Ok(Evaluation { top1_hits, top5_hits, images, time: began.elapsed() })
}

/// Classes ahead of `label`; the lowest index wins ties, and a logit that is not a number is never right.
fn rank(logits: &[f32], label: usize) -> usize {
    let own = logits[label];
    if own.is_nan() {
        return logits.len();
    }
    logits.iter().enumerate().filter(|&(i, &v)| v > own || (v == own && i < label)).count()
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn ranks_count_the_classes_ahead() {
        let logits = [1.0, 3.0, 3.0, -1.0, f32::NAN];
        assert_eq!([0, 1, 2, 3, 4].map(|label| rank(&logits, label)), [2, 0, 1, 3, 5]);
    }
}
