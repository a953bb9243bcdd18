//! The loops behind [`super`], written once and compiled for every instruction set: rows outside, then blocks of 16
//! channels whose weights stay in registers, pixels inside.

use super::BLOCK;
use crate::train::conv::sweep::Sweep;

#[inline(always)]
fn block<T>(slice: &[T], at: usize) -> &[T; BLOCK] {
    slice[at..].first_chunk().expect("sweeps stay inside their tensors")
}

#[inline(always)]
fn block_mut<T>(slice: &mut [T], at: usize) -> &mut [T; BLOCK] {
    slice[at..].first_chunk_mut().expect("sweeps stay inside their tensors")
}

/// Evaluates `$pass` for 9, 3 or 1 taps at a time, the constant `$n`, from tap `$from` on, until none is left.
macro_rules! over_taps {
    ($taps:expr, |$from:ident, $n:ident| $pass:expr) => {{
        let (taps, mut $from) = ($taps, 0);
        while taps - $from >= 9 {
            const $n: usize = 9;
            $pass;
            $from += $n;
        }
        while taps - $from >= 3 {
            const $n: usize = 3;
            $pass;
            $from += $n;
        }
        while taps - $from >= 1 {
            const $n: usize = 1;
            $pass;
            $from += $n;
        }
    }};
}

/// y = init + sum over taps of x * w; `w` is `[kernel row * kw + kernel column][cs]`.
#[inline(always)]
pub(super) fn sweep_u8s8(sweep: &Sweep, kw: usize, x: &[u8], w: &[i8], init: &[i32], y: &mut [i32]) {
    over_taps!(sweep.taps().len(), |from, N| pass_u8s8::<N>(from, sweep, kw, x, w, init, y));
}

#[inline(always)]
fn pass_u8s8<const T: usize>(from: usize, sweep: &Sweep, kw: usize, x: &[u8], w: &[i8], init: &[i32], y: &mut [i32]) {
    let cs = sweep.y_channels();
    let taps = &sweep.taps()[from..from + T];
    let offsets: [usize; T] = std::array::from_fn(|t| taps[t].offset);
    for r in 0..sweep.rows() {
        for at in (0..cs).step_by(BLOCK) {
            // A product of u8 and s8 fits 16 bits.
            let weights: [[i16; BLOCK]; T] =
                std::array::from_fn(|t| block(w, (taps[t].a * kw + taps[t].b) * cs + at).map(i16::from));
            let init = *block(init, at);
            let (mut x_at, mut y_at) = (sweep.x_at(r, 0) + at, sweep.y_at(r, 0) + at);
            for _ in 0..sweep.cols() {
                let out = block_mut(y, y_at);
                let mut sums = if from == 0 { init } else { *out };
                for t in 0..T {
                    let x = block(x, x_at + offsets[t]);
                    for i in 0..BLOCK {
                        sums[i] += i32::from(i16::from(x[i]).wrapping_mul(weights[t][i]));
                    }
                }
                *out = sums;
                x_at += sweep.x_col();
                y_at += sweep.y_col();
            }
        }
    }
}

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// y = (or, to accumulate, +=) sum over taps of x * w.
#[inline(always)]
pub(super) fn sweep_f32<const FMA: bool>(
    sweep: &Sweep,
    kw: usize,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    accumulate: bool,
) {
    if sweep.taps().is_empty() && !accumulate {
        for r in 0..sweep.rows() {
            for q in 0..sweep.cols() {
                y[sweep.y_at(r, q)..][..sweep.y_channels()].fill(0.0);
            }
        }
    }
    over_taps!(sweep.taps().len(), |from, N| pass_f32::<N, FMA>(from, sweep, kw, x, w, y, accumulate));
}

#[inline(always)]
fn pass_f32<const T: usize, const FMA: bool>(
    from: usize,
    sweep: &Sweep,
    kw: usize,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    accumulate: bool,
) {
    let cs = sweep.y_channels();
    let taps = &sweep.taps()[from..from + T];
    let offsets: [usize; T] = std::array::from_fn(|t| taps[t].offset);
    for r in 0..sweep.rows() {
        for at in (0..cs).step_by(BLOCK) {
            let weights: [[f32; BLOCK]; T] = std::array::from_fn(|t| *block(w, (taps[t].a * kw + taps[t].b) * cs + at));
            let (mut x_at, mut y_at) = (sweep.x_at(r, 0) + at, sweep.y_at(r, 0) + at);
            for _ in 0..sweep.cols() {
                let out = block_mut(y, y_at);
                let mut sums = if from == 0 && !accumulate { [0.0; BLOCK] } else { *out };
                for t in 0..T {
                    let x = block(x, x_at + offsets[t]);
                    for i in 0..BLOCK {
                        sums[i] = fma::<FMA>(x[i], weights[t][i], sums[i]);
                    }
                }
                *out = sums;
                x_at += sweep.x_col();
                y_at += sweep.y_col();
            }
        }
    }
}

/// partial += sum over pixels of x * dy; `partial` is `[tap][cs]`.
#[inline(always)]
pub(super) fn weight_grad_f32<const FMA: bool>(sweep: &Sweep, x: &[f32], dy: &[f32], partial: &mut [f32]) {
    over_taps!(sweep.taps().len(), |from, N| pass_weight_grad::<N, FMA>(from, sweep, x, dy, partial));
}

#[inline(always)]
fn pass_weight_grad<const T: usize, const FMA: bool>(
    from: usize,
    sweep: &Sweep,
    x: &[f32],
    dy: &[f32],
    partial: &mut [f32],
) {
    let cs = sweep.y_channels();
    let taps = &sweep.taps()[from..from + T];
    let offsets: [usize; T] = std::array::from_fn(|t| taps[t].offset);
    for r in 0..sweep.rows() {
        for at in (0..cs).step_by(BLOCK) {
            let mut sums: [[f32; BLOCK]; T] = std::array::from_fn(|t| *block(partial, (from + t) * cs + at));
            let (mut x_at, mut y_at) = (sweep.x_at(r, 0) + at, sweep.y_at(r, 0) + at);
            for _ in 0..sweep.cols() {
                let dy = block(dy, y_at);
                for t in 0..T {
                    let x = block(x, x_at + offsets[t]);
                    for i in 0..BLOCK {
                        sums[t][i] = fma::<FMA>(x[i], dy[i], sums[t][i]);
                    }
                }
                x_at += sweep.x_col();
                y_at += sweep.y_col();
            }
            for t in 0..T {
                *block_mut(partial, (from + t) * cs + at) = sums[t];
            }
        }
    }
}
