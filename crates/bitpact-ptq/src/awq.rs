//! AWQ (Lin et al., arXiv 2306.00978): input channels with large activations get larger weights before rounding, and
//! groups are clipped.

use bitpact_kernels::{Chunked, Pool};

use crate::{Gram, Grid, Matrix, PtqError};

/// Points of the search over the exponent: 0, 0.05 .. 0.95.
pub const SCALE_STEPS: usize = 20;
/// Points of the search over the clip: ranges shrink by 1/20 a step, to a half at least.
const CLIP_STEPS: usize = 10;

/// Scales that the search found, and the error with them.
#[derive(Clone, Debug, PartialEq)]
pub struct AwqScales {
    /// Factor of every input's column of weights; the input is divided by it.
    pub scales: Vec<f32>,
    /// The exponent.
    pub alpha: f32,
    /// Loss with these scales.
    pub loss: f64,
    /// Loss without scales, alpha = 0.
    pub unscaled: f64,
}

/// Scales `s = magnitude^alpha / sqrt(max * min)` with the alpha of least loss among 0, 0.05 .. 0.95 (section 3.2 of
/// the paper). `loss(s)` is the error of whatever reads these inputs when its weights are `Q(W diag(s)) diag(s)^-1`: a
/// layer, or a block of layers. The loss found is never above that of alpha = 0.
///
/// # Errors
/// The first error of `loss`.
pub fn scale_search<E>(magnitude: &[f32], mut loss: impl FnMut(&[f32]) -> Result<f64, E>) -> Result<AwqScales, E> {
    let scales = |alpha: f32| -> Vec<f32> {
        let powers: Vec<f32> = magnitude.iter().map(|m| m.powf(alpha).max(1e-4)).collect();
        let (min, max) = powers.iter().fold((f32::INFINITY, 0.0f32), |(lo, hi), &s| (lo.min(s), hi.max(s)));
        let middle = (max * min).sqrt();
        powers.into_iter().map(|s| s / middle).collect()
    };
    let ones = scales(0.0);
    let unscaled = loss(&ones)?;
    let mut best = AwqScales { scales: ones, alpha: 0.0, loss: unscaled, unscaled };
    for step in 1..SCALE_STEPS {
        let alpha = step as f32 / SCALE_STEPS as f32;
        let candidate = scales(alpha);
        let loss = loss(&candidate)?;
        if loss < best.loss {
            best = AwqScales { scales: candidate, alpha, loss, ..best };
        }
    }
    Ok(best)
}

/// `weights` with every group clipped to the range whose rounding has the least output error on the inputs of `gram`:
/// of an output and a group alone, `d G_gg d^T` with `d` the change of its weights, over ranges of 1, 0.95 .. 0.55 of
/// the group's largest magnitude (the clip search of the authors' program, with the Gram matrix in place of sampled
/// tokens).
///
/// # Errors
/// Where sizes differ or a weight is not finite.
pub fn clip_search(weights: &Matrix, gram: &Gram, grid: Grid, pool: &Pool) -> Result<Matrix, PtqError> {
    weights.check_finite("weights")?;
    let (cols, len) = (weights.cols(), grid.group_len(weights.cols()));
    if gram.inputs() != cols {
        return Err(PtqError::Shape {
            what: "Gram matrix",
            expected: format!("{cols} inputs"),
            found: format!("{} inputs", gram.inputs()),
        });
    }
    let blocks: Vec<Vec<f32>> = (0..grid.groups(cols))
        .map(|g| {
            let n = len.min(cols - g * len);
            (0..n * n).map(|i| gram.at(g * len + i / n, g * len + i % n) as f32).collect()
        })
        .collect();
    let mut out = weights.clone();
    let parts = Chunked::new(out.data_mut(), cols.max(1));
    pool.run(parts.chunks(), &|task, _| {
        let row = &mut *parts.get(task);
        for (group, block) in row.chunks_mut(len).zip(&blocks) {
            let peak = group.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            let mut best = (f32::INFINITY, peak);
            for step in 0..CLIP_STEPS {
                let limit = peak * (1.0 - step as f32 / 20.0);
                let clipped: Vec<f32> = group.iter().map(|w| w.clamp(-limit, limit)).collect();
                let params = grid.fit(&clipped);
                let change: Vec<f32> =
                    group.iter().zip(&clipped).map(|(w, c)| params.value(grid.code(params, *c)) - w).collect();
                let error = quadratic(&change, block);
                if error < best.0 {
                    best = (error, limit);
                }
            }
            group.iter_mut().for_each(|w| *w = w.clamp(-best.1, best.1));
        }
    });
    drop(parts);
    Ok(out)
}

/// `d G d^T`.
fn quadratic(d: &[f32], g: &[f32]) -> f32 {
    let row = |g: &[f32]| g.iter().zip(d).map(|(g, d)| g * d).sum::<f32>();
    d.iter().zip(g.chunks_exact(d.len().max(1))).map(|(d, g)| d * row(g)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{inputs, normal};
    use crate::{Group, Width};

    fn layer() -> (Matrix, Gram) {
        let mut x = inputs(300, 64, 0.5, 1);
        // Four hot channels, as in language models.
        (0..300).for_each(|t| [3, 17, 40, 63].iter().for_each(|&c| x.row_mut(t)[c] *= 12.0));
        let mut gram = Gram::new(64);
        gram.add(&x, &Pool::new(1)).unwrap();
        (normal(32, 64, 3), gram)
    }

    #[test]
    fn hot_channels_want_scales_and_the_loss_never_rises() {
        let (w, gram) = layer();
        let grid = Grid::new(Width::Bits(3), Group::Of(32), false).unwrap();
        let loss = |s: &[f32]| {
            let mut scaled = w.clone();
            scaled.scale_cols(s);
            let mut q = grid.round(&scaled)?.dequantize();
            q.scale_cols(&s.iter().map(|s| 1.0 / s).collect::<Vec<_>>());
            Ok::<_, PtqError>(gram.output_errors(&w, &q, &Pool::new(1)).iter().sum())
        };
        let found = scale_search(&gram.mean_magnitude(), loss).unwrap();
        assert!(found.alpha > 0.0 && found.loss < 0.7 * found.unscaled, "{found:?}");
        let (min, max) = found.scales.iter().fold((f32::MAX, 0.0f32), |(a, b), &s| (a.min(s), b.max(s)));
        assert!((min * max - 1.0).abs() < 1e-4);
        assert!(scale_search(&[1.0, 2.0], |_| Err::<f64, _>("no")).is_err());
    }

    #[test]
    fn clipping_lowers_the_error_of_groups_with_outliers() {
        let (mut w, gram) = layer();
        (0..32).for_each(|r| w.row_mut(r)[r] = 9.0);
        let grid = Grid::new(Width::Bits(2), Group::Of(32), true).unwrap();
        let clipped = clip_search(&w, &gram, grid, &Pool::new(2)).unwrap();
        let before = gram.output_errors(&w, &grid.round(&w).unwrap().dequantize(), &Pool::new(1)).iter().sum::<f64>();
        let after =
            gram.output_errors(&w, &grid.round(&clipped).unwrap().dequantize(), &Pool::new(1)).iter().sum::<f64>();
        assert!(after < before, "{after} against {before}");
        assert_eq!(clipped, clip_search(&w, &gram, grid, &Pool::new(1)).unwrap());
        assert!(clip_search(&w, &Gram::new(3), grid, &Pool::new(1)).is_err());
    }
}
