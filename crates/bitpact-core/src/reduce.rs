//! Reductions in one fixed order: 16 interleaved lanes, then a fixed tree.
//!
//! Element `i` goes to lane `i % 16`; each lane takes its elements in rising order, starting from 0. Then lane `j` takes
//! lane `j + 8`, for `j < 8`, then `j + 4`, `j + 2`, `j + 1`; lane 0 is the result. No fused multiply-add. So the bits depend
//! on neither instruction set nor thread count, and every vector width up to 16 floats can keep them.

const LANES: usize = 16;

#[inline(always)]
fn reduce(x: &[f32], step: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for j in 0..LANES {
            lanes[j] = step(lanes[j], chunk[j]);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(tail) {
        *lane = step(*lane, v);
    }
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            lanes[j] = join(lanes[j], lanes[j + half]);
        }
    }
    lanes[0]
}

/// The sum of `x`.
pub fn sum(x: &[f32]) -> f32 {
    reduce(x, |lane, v| lane + v, |a, b| a + b)
}

/// The sum of `|x|`.
pub fn sum_abs(x: &[f32]) -> f32 {
    reduce(x, |lane, v| lane + v.abs(), |a, b| a + b)
}

/// The sum of `x * x`, product and sum rounded apart.
pub fn sum_sq(x: &[f32]) -> f32 {
    reduce(x, |lane, v| lane + v * v, |a, b| a + b)
}

/// The largest `|x|`, 0 for an empty slice; `NaN` elements are passed over.
pub fn max_abs(x: &[f32]) -> f32 {
    reduce(x, |lane, v| larger(v.abs(), lane), |a, b| larger(b, a))
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}
