//! Accuracy on a whole set, in integers and in the simulated view. No image is left out.

use std::time::Instant;

use bitpact_data::Dataset;
use bitpact_engine::{Accuracy, ExecOptions, Executor, VerifyOptions, verify};
use bitpact_kernels::Isa;
use bitpact_model::IntegerModel;

use super::RunError;
use super::batches::fill_plain;
use crate::TrainBackend;

/// Images evaluated at once while training.
pub(super) const CHUNK: usize = 100;

/// Multiplications of the images that an evaluation begins with in the interpreter: some tenths of a second.
const PROVED_MACS: u64 = 1 << 28;
/// Images of these at most.
const PROVED_IMAGES: u64 = 4;

/// Runs the integer network on every image of `dataset`, `batch_size` at once. `told` hears of images done and images in
/// all. Every code of the first one to four images is compared with the reference interpreter's before anything is counted.
///
/// # Errors
/// Images of another shape or with other classes than the network, a network the engine refuses, or a code that differs.
pub fn evaluate_integer(
    model: &IntegerModel,
    dataset: &dyn Dataset,
    isa: Isa,
    threads: usize,
    batch_size: usize,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Accuracy, RunError> {
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
    let mut executor = Executor::new(model, ExecOptions { isa, threads })?;
    let macs: u64 = executor.layers().map(|(_, _, macs)| macs).sum();
    let proved = (PROVED_MACS / macs.max(1)).clamp(1, PROVED_IMAGES).min(images as u64) as usize;
    let fill = |range: std::ops::Range<usize>, pixels: &mut [u8]| {
        range.zip(pixels.chunks_exact_mut(shape.len())).for_each(|(i, image)| dataset.image(i, image));
    };
    let path = VerifyOptions { isas: vec![isa], threads: vec![threads], probes: false };
    if let Some(difference) = verify(model, &path, proved, fill, |_| ())?.first {
        return Err(RunError::Differs(difference));
    }
    let load = |range: std::ops::Range<usize>, pixels: &mut [u8], labels: &mut [usize]| {
        for ((i, image), label) in range.zip(pixels.chunks_exact_mut(shape.len())).zip(labels) {
            dataset.image(i, image);
            *label = dataset.label(i);
        }
    };
    Ok(bitpact_engine::evaluate(&mut executor, images, batch_size, load, |done| told(done, images))?)
}

/// Runs the backend's simulated view (for a float network, the network itself) on every image of `dataset`.
///
/// # Errors
/// Images of another shape or with other classes than the network.
pub fn evaluate_simulated(
    backend: &mut dyn TrainBackend,
    dataset: &dyn Dataset,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Accuracy, RunError> {
    let images = dataset.len();
    let began = Instant::now();
    let (mut first, mut among_five) = (0usize, 0usize);
    each_image(backend, dataset, told, &mut |logits, label| {
        let rank = rank(logits, label);
        first += usize::from(rank == 0);
        among_five += usize::from(rank < 5);
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let share = |hits: usize| if images == 0 { 0.0 } else { hits as f64 / images as f64 };
    let images_per_s = if seconds > 0.0 { images as f64 / seconds } else { 0.0 };
    Ok(Accuracy { top1: share(first), top5: share(among_five), images, images_per_s })
}

/// Mean cross entropy, in nats, of the backend's simulated view over every image of `dataset`; 0 of none.
///
/// # Errors
/// Images of another shape or with other classes than the network.
pub fn simulated_loss(backend: &mut dyn TrainBackend, dataset: &dyn Dataset) -> Result<f64, RunError> {
    let mut sum = 0.0;
    each_image(backend, dataset, &mut |_, _| {}, &mut |logits, label| sum += cross_entropy(logits, label))?;
    Ok(sum / dataset.len().max(1) as f64)
}

/// Calls `f` with the logits and the label of every image, in order.
fn each_image(
    backend: &mut dyn TrainBackend,
    dataset: &dyn Dataset,
    told: &mut dyn FnMut(usize, usize),
    f: &mut dyn FnMut(&[f32], usize),
) -> Result<(), RunError> {
    let (shape, images, reads) = (dataset.image_shape(), dataset.len(), backend.input_shape());
    let misfit = |what: String| Err(RunError::Images { half: "test", what });
    if (reads.h, reads.w, reads.c) != (shape.h, shape.w, shape.c) {
        return misfit(format!("{}x{}x{}, but the network reads {reads}", shape.h, shape.w, shape.c));
    }
    let classes = dataset.class_names().len();
    let mut logits = Vec::new();
    for from in (0..images).step_by(backend.batch_size()) {
        let count = backend.batch_size().min(images - from);
        let fill = |i: usize, out: &mut [u8], place| fill_plain(dataset, from + i, out, place);
        backend.simulate(count, &fill, &mut logits);
        if logits.len() != count * classes {
            return misfit(format!("{classes} classes, but the network knows {}", logits.len() / count));
        }
        logits.chunks_exact(classes).enumerate().for_each(|(i, logits)| f(logits, dataset.label(from + i)));
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
fn rank(logits: &[f32], label: usize) -> usize {
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
