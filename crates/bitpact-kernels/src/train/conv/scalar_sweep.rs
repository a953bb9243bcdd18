//! The scalar kernels: the definition the SIMD ones are tested against.

use std::ops::Range;

use super::LANES;
use super::sweep::Sweep;

/// f32: y = (or, to accumulate, +=) sum over taps and channels of x * packed, `packed` being
/// `[channel block][tap][channel read][16]`.
pub(super) fn sweep_f32(sweep: &Sweep, x: &[f32], packed: &[f32], y: &mut [f32], accumulate: bool) {
    let (reads, block_len) = (sweep.reads(), sweep.taps().len() * sweep.reads() * LANES);
    for (r, q) in pixels(sweep) {
        let (x_at, y_at) = (sweep.x_at(r, q), sweep.y_at(r, q));
        for block in 0..sweep.y_channels() / LANES {
            let mut sums = [0.0_f32; LANES];
            let mut weights = packed[block * block_len..].chunks_exact(LANES);
            for tap in sweep.taps() {
                for (&xv, w) in x[x_at + tap.offset..][..reads].iter().zip(&mut weights) {
                    sums.iter_mut().zip(w).for_each(|(sum, w)| *sum += xv * w);
                }
            }
            let out = &mut y[y_at + block * LANES..][..LANES];
            if accumulate {
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
            } else {
                out.copy_from_slice(&sums);
            }
        }
    }
}

/// u8 x s8: y = init + sum over taps and channels of x * packed, exact, `packed` being
/// `[channel block][tap][4 channels read][16][4]`.
pub(super) fn sweep_u8s8(sweep: &Sweep, x: &[u8], packed: &[i8], init: &[i32], y: &mut [i32]) {
    let (reads, block_len) = (sweep.reads(), sweep.taps().len() * sweep.reads() * LANES);
    for (r, q) in pixels(sweep) {
        let (x_at, y_at) = (sweep.x_at(r, q), sweep.y_at(r, q));
        for block in 0..sweep.y_channels() / LANES {
            let sums = &mut y[y_at + block * LANES..][..LANES];
            sums.copy_from_slice(&init[block * LANES..][..LANES]);
            let mut weights = packed[block * block_len..].chunks_exact(4 * LANES);
            for tap in sweep.taps() {
                for (xv, w) in x[x_at + tap.offset..][..reads].chunks_exact(4).zip(&mut weights) {
                    for (sum, w) in sums.iter_mut().zip(w.chunks_exact(4)) {
                        *sum += xv.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum::<i32>();
                    }
                }
            }
        }
    }
}

/// f32 weight gradient of images that follow each other: partial += sum over pixels of x * dy, `partial` being
/// `[channel block of dy, those of `blocks`][tap][channel of x][16]`.
pub(super) fn weight_grad_f32(
    sweep: &Sweep,
    images: usize,
    x: &[f32],
    dy: &[f32],
    blocks: Range<usize>,
    partial: &mut [f32],
) {
    sweep.check_weight_grad(images, x.len(), dy.len(), &blocks, partial.len());
    let (reads, taps) = (sweep.reads(), sweep.taps());
    for (x, dy) in x.chunks_exact(x.len() / images).zip(dy.chunks_exact(dy.len() / images)) {
        for (index, out) in partial.chunks_exact_mut(LANES).enumerate() {
            let (block, tap, channel) = (index / (taps.len() * reads), index / reads % taps.len(), index % reads);
            let mut sums = [0.0_f32; LANES];
            for (r, q) in pixels(sweep) {
                let xv = x[sweep.x_at(r, q) + taps[tap].offset + channel];
                let dy = &dy[sweep.y_at(r, q) + (blocks.start + block) * LANES..][..LANES];
                sums.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += xv * dy);
            }
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
    }
}

fn pixels(sweep: &Sweep) -> impl Iterator<Item = (usize, usize)> {
    let cols = sweep.cols();
    (0..sweep.rows()).flat_map(move |r| (0..cols).map(move |q| (r, q)))
}
