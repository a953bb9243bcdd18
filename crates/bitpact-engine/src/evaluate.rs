//! The accuracy of an integer network on labelled images.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::{Accuracy, EngineError, Executor, top_k_hits};

/// Runs `images` images in batches of `batch_size`, a smaller last batch included, and counts hits.
///
/// `load(range, pixels, labels)` writes the images numbered `range`, HWC, and their labels; `progress(done)` is called
/// after every batch with the number of images done. Only computing is timed.
///
/// # Errors
/// A label that is no class of the network.
pub fn evaluate(
    executor: &mut Executor,
    images: usize,
    batch_size: usize,
    mut load: impl FnMut(Range<usize>, &mut [u8], &mut [usize]),
    mut progress: impl FnMut(usize),
) -> Result<Accuracy, EngineError> {
    let (image, classes) = (executor.image_len(), executor.output_len());
    let batch_size = batch_size.clamp(1, images.max(1));
    let mut pixels = vec![0; batch_size * image];
    let mut labels = vec![0; batch_size];
    let mut logits = vec![0; batch_size * classes];
    let (mut top1, mut top5, mut computing) = (0usize, 0usize, Duration::ZERO);
    for from in (0..images).step_by(batch_size) {
        let n = batch_size.min(images - from);
        let (pixels, labels, logits) = (&mut pixels[..n * image], &mut labels[..n], &mut logits[..n * classes]);
        load(from..from + n, pixels, labels);
        if let Some(i) = labels.iter().position(|&label| label >= classes) {
            return Err(EngineError::Label { image: from + i, label: labels[i], classes });
        }
        let begin = Instant::now();
        executor.run(pixels, logits);
        computing += begin.elapsed();
        for (logits, &label) in logits.chunks_exact(classes).zip(labels.iter()) {
            let (first, among_five) = top_k_hits(logits, label);
            top1 += usize::from(first);
            top5 += usize::from(among_five);
        }
        progress(from + n);
    }
    let share = |hits: usize| if images == 0 { 0.0 } else { hits as f64 / images as f64 };
    let seconds = computing.as_secs_f64();
    let images_per_s = if seconds > 0.0 { images as f64 / seconds } else { 0.0 };
    Ok(Accuracy { top1: share(top1), top5: share(top5), images, images_per_s })
}
