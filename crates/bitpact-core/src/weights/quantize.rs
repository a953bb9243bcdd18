//! Weight tensors to codes and scales, and the gradients back.

use super::{Grid, WeightQuant, WeightSpec, lsq, sawb_alpha};
use crate::round::round_to_code;
use crate::{reduce, tanh};

/// Largest absolute 16-bit weight code, `127 * 256 + 127`: a code splits into two signed bytes, `q = 256 * high + low`.
pub const CODE_LIMIT_16BIT: i32 = 127 * 256 + 127;

/// Weights whose codes are found at a time on the way back.
const BLOCK: usize = 256;

/// Quantizes a weight tensor: `w ~ scale * code`.
///
/// `w` and `codes` are `[out_channels][rest]`; `scales` has [`WeightSpec::scales_len`] entries, each for the whole
/// layer or for its output channel, and so has `steps` for `lsq`; for the others it is empty. With `L` the grid's
/// largest code and `n = 2^k - 1`, all in float32:
///
/// - `dorefa` (arXiv 1606.06160 eq. 9): `t = tanh(w) / (2 m) + 1/2`, `m = max|tanh w|` (below 2^-126, `m = 1`);
///   `code = 2 round_half_even(t n) - n`, `scale = 1 / n`. At 1 bit `code = sign(w)`, `scale = mean|w|` (eq. 7);
/// - `sawb`, `sawb+` (arXiv 1807.06964): `alpha` from [`sawb_alpha`], `scale = alpha / L`, `code` the grid point
///   nearest to `w * (L / alpha)`, clamped;
/// - `lsq` (arXiv 1902.08153 eq. 1 and 2): `scale` is the step, half the step on the grid without zero; `code` the grid
///   point nearest to `w * (1 / scale)`, clamped;
/// - `minmax`: as `sawb` with `alpha = max|w|`.
///
/// The nearest grid point of `v` is `round_half_even(v)` with zero and `2 round_half_even((v + n) / 2) - n` without; at
/// 1 bit it is `sign(v)`, and `sign(0) = +1` everywhere. Where `alpha / L` is no normal number (all weights zero, or
/// below about 1e-36), `scale` is 0 and every code is that of `w = 0`: 0, or +1 on the grid without zero. Codes lie on
/// the grid for every `w`, `NaN` included.
///
/// # Panics
/// Where a length does not fit, or `spec` is one that [`WeightSpec::with_scale`] refuses.
pub fn quantize_weights(
    spec: &WeightSpec,
    w: &[f32],
    out_channels: usize,
    steps: &[f32],
    codes: &mut [i16],
    scales: &mut [f32],
) {
    quantize_weights_given(spec, w, &tanh_of(spec, w), out_channels, steps, codes, scales);
}

/// [`quantize_weights`] without allocating: `tanh` holds [`tanh`](crate::tanh) of every weight where
/// [`WeightSpec::needs_tanh`] says so, and is not read elsewhere.
///
/// # Panics
/// As [`quantize_weights`].
pub fn quantize_weights_given(
    spec: &WeightSpec,
    w: &[f32],
    tanh: &[f32],
    out_channels: usize,
    steps: &[f32],
    codes: &mut [i16],
    scales: &mut [f32],
) {
    check(w.len(), out_channels, codes.len());
    check_tanh(spec, w.len(), tanh.len());
    check_steps(spec, out_channels, steps.len());
    assert_eq!(scales.len(), spec.scales_len(out_channels), "quantize_weights: number of scales");
    check_spec(spec);
    let n = w.len() / scales.len().max(1);
    for (c, scale) in scales.iter_mut().enumerate() {
        let (w, codes) = (&w[c * n..(c + 1) * n], &mut codes[c * n..(c + 1) * n]);
        let by_alpha = |alpha| scale_pair(spec.code_limit(), alpha);
        *scale = match spec.quant {
            WeightQuant::Dorefa if spec.bits.get() == 1 => {
                codes.iter_mut().zip(w).for_each(|(code, &v)| *code = sign(v));
                mean_abs(w)
            }
            WeightQuant::Dorefa => dorefa(spec.bits.q_max(), tanh, codes),
            WeightQuant::Sawb | WeightQuant::SawbPlus => on_grid(spec, by_alpha(sawb_alpha(spec, w)), w, codes),
            WeightQuant::Lsq => on_grid(spec, lsq::scale_pair(spec, steps[c]), w, codes),
            WeightQuant::Minmax => on_grid(spec, by_alpha(reduce::max_abs(w)), w, codes),
        };
    }
}

/// The straight-through gradient of [`quantize_weights`]: `dw` from `dwq = dL/d(scale * code)`; `dw` and `dsteps`,
/// which is as long as `steps`, are overwritten.
///
/// - `dorefa`: `dw = dwq (1 - tanh(w)^2) / m`, with `m = max|tanh w|` held constant. The authors' code differentiates
///   `m` too; that would add a term to the one weight that attains it;
/// - `sawb`: `dw = dwq` where `|w| <= alpha`, else 0; `alpha` is not differentiated;
/// - `sawb+`, `minmax`: `dw = dwq`;
/// - `lsq` (eq. 3 and 5): with `v = w / scale`, `dw = dwq` where `|v| < L`, else 0. `dstep` is the sum over the weights
///   that share the step of `dwq (code - v)` where `|v| < L` and of `dwq code` elsewhere, halved on the grid without
///   zero, whose step is two codes, and times [`lsq_gradient_scale`](super::lsq_gradient_scale) of their number and of
///   the largest level in steps.
///
/// At 1 bit all of them have `dw = dwq`, as half of the weights lie beyond the levels; there `dstep` of `lsq` sums `dwq
/// code`, the exact derivative.
///
/// # Panics
/// Where a length does not fit, or `spec` is one that [`WeightSpec::with_scale`] refuses.
pub fn weights_backward(
    spec: &WeightSpec,
    w: &[f32],
    out_channels: usize,
    steps: &[f32],
    dwq: &[f32],
    dw: &mut [f32],
    dsteps: &mut [f32],
) {
    weights_backward_given(spec, w, &tanh_of(spec, w), out_channels, steps, dwq, dw, dsteps);
}

/// [`weights_backward`] without allocating; `tanh` as for [`quantize_weights_given`].
///
/// # Panics
/// As [`weights_backward`].
pub fn weights_backward_given(
    spec: &WeightSpec,
    w: &[f32],
    tanh: &[f32],
    out_channels: usize,
    steps: &[f32],
    dwq: &[f32],
    dw: &mut [f32],
    dsteps: &mut [f32],
) {
    check(w.len(), out_channels, dw.len());
    check_tanh(spec, w.len(), tanh.len());
    assert_eq!(dwq.len(), w.len(), "weights_backward: length of dwq");
    check_steps(spec, out_channels, steps.len());
    assert_eq!(dsteps.len(), steps.len(), "weights_backward: length of dsteps");
    check_spec(spec);
    let parts = spec.scales_len(out_channels);
    let n = w.len() / parts.max(1);
    for c in 0..parts {
        let part = c * n..(c + 1) * n;
        let (w, dwq, dw) = (&w[part.clone()], &dwq[part.clone()], &mut dw[part]);
        match spec.quant {
            WeightQuant::Lsq => {
                let mut sum = 0.0;
                let mut codes = [0; BLOCK];
                let blocks = w.chunks(BLOCK).zip(dwq.chunks(BLOCK)).zip(dw.chunks_mut(BLOCK));
                for ((w, dwq), dw) in blocks {
                    let codes = &mut codes[..w.len()];
                    on_grid(spec, lsq::scale_pair(spec, steps[c]), w, codes);
                    lsq::backward(spec, steps[c], w, codes, dwq, dw, &mut sum);
                }
                dsteps[c] = lsq::step_gradient(spec, n, sum);
            }
            WeightQuant::Dorefa if spec.bits.get() > 1 => {
                let inverse = 1.0 / normalizer(reduce::max_abs(tanh));
                for ((d, &g), &t) in dw.iter_mut().zip(dwq).zip(tanh) {
                    *d = g * ((1.0 - t * t) * inverse);
                }
            }
            WeightQuant::Sawb if spec.bits.get() > 1 => {
                let alpha = sawb_alpha(spec, w);
                for ((d, &g), &v) in dw.iter_mut().zip(dwq).zip(w) {
                    *d = if v.abs() <= alpha { g } else { 0.0 };
                }
            }
            _ => dw.copy_from_slice(dwq),
        }
    }
}

/// Quantizes a layer trained in float32 to 16-bit codes: `minmax` with zero per output channel and the limit
/// [`CODE_LIMIT_16BIT`]. `w` and `codes` are `[out_channels][rest]`, `scales` is `[out_channels]`.
///
/// # Panics
/// Where a length does not fit.
pub fn quantize_weights_16bit(w: &[f32], out_channels: usize, codes: &mut [i16], scales: &mut [f32]) {
    let rest = check(w.len(), out_channels, codes.len());
    assert_eq!(scales.len(), out_channels, "quantize_weights_16bit: number of scales");
    for (c, scale) in scales.iter_mut().enumerate() {
        let channel = &w[c * rest..(c + 1) * rest];
        let pair = scale_pair(CODE_LIMIT_16BIT, reduce::max_abs(channel));
        *scale = with_zero(CODE_LIMIT_16BIT, pair, channel, &mut codes[c * rest..(c + 1) * rest]);
    }
}

fn check(weights: usize, out_channels: usize, codes: usize) -> usize {
    let rest = weights.checked_div(out_channels).unwrap_or(0);
    assert_eq!(rest * out_channels, weights, "{weights} weights over {out_channels} output channels");
    assert_eq!(codes, weights, "output length, expected one entry per weight");
    rest
}

fn check_steps(spec: &WeightSpec, out_channels: usize, steps: usize) {
    let expected = if spec.quant.is_learned() { spec.scales_len(out_channels) } else { 0 };
    assert_eq!(steps, expected, "number of learned steps of {}", spec.quant);
}

/// What [`quantize_weights_given`] is to be given.
fn tanh_of(spec: &WeightSpec, w: &[f32]) -> Vec<f32> {
    if spec.needs_tanh() { w.iter().map(|&v| tanh(v)).collect() } else { Vec::new() }
}

fn check_tanh(spec: &WeightSpec, weights: usize, given: usize) {
    assert!(!spec.needs_tanh() || given == weights, "{given} values of tanh for {weights} weights");
}

fn check_spec(spec: &WeightSpec) {
    if let Err(error) = WeightSpec::with_scale(spec.bits, spec.quant, Some(spec.grid), Some(spec.scale)) {
        panic!("{error}");
    }
}

fn mean_abs(w: &[f32]) -> f32 {
    if w.is_empty() { 0.0 } else { (f64::from(reduce::sum_abs(w)) / w.len() as f64) as f32 }
}

#[inline]
fn sign(v: f32) -> i16 {
    if v >= 0.0 { 1 } else { -1 }
}

#[inline]
fn clamp(v: f32, limit: f32) -> f32 {
    let v = if v > -limit { v } else { -limit };
    if v < limit { v } else { limit }
}

#[inline]
fn or_zero(t: f32) -> f32 {
    if t > 0.0 { t } else { 0.0 }
}

fn normalizer(max_tanh: f32) -> f32 {
    if max_tanh >= f32::MIN_POSITIVE { max_tanh } else { 1.0 }
}

/// Codes of all weights, from their tanh; the scale.
fn dorefa(q_max: i32, tanh: &[f32], codes: &mut [i16]) -> f32 {
    let m = normalizer(reduce::max_abs(tanh));
    let n = q_max as f32;
    for (code, &v) in codes.iter_mut().zip(tanh) {
        let t = v / (2.0 * m) + 0.5;
        *code = (2 * round_to_code(or_zero(t) * n) - q_max) as i16;
    }
    1.0 / n
}

/// Codes of weights for a scale and its inverse; the scale.
fn on_grid(spec: &WeightSpec, pair: (f32, f32), w: &[f32], codes: &mut [i16]) -> f32 {
    let limit = spec.code_limit();
    match spec.grid {
        Grid::WithZero => with_zero(limit, pair, w, codes),
        Grid::WithoutZero => without_zero(limit, pair, w, codes),
    }
}

/// The scale and its inverse, `alpha / limit` and `limit / alpha`; both 0 where the scale would not be a normal number.
fn scale_pair(limit: i32, alpha: f32) -> (f32, f32) {
    let limit = limit as f32;
    let scale = alpha / limit;
    if scale >= f32::MIN_POSITIVE { (scale, limit / alpha) } else { (0.0, 0.0) }
}

fn with_zero(limit: i32, (scale, inverse): (f32, f32), w: &[f32], codes: &mut [i16]) -> f32 {
    let limit = limit as f32;
    for (code, &v) in codes.iter_mut().zip(w) {
        *code = round_to_code(clamp(v * inverse, limit)) as i16;
    }
    scale
}

fn without_zero(limit: i32, (scale, inverse): (f32, f32), w: &[f32], codes: &mut [i16]) -> f32 {
    if limit == 1 {
        codes.iter_mut().zip(w).for_each(|(code, &v)| *code = sign(v * inverse));
        return scale;
    }
    let real_limit = limit as f32;
    for (code, &v) in codes.iter_mut().zip(w) {
        let up = (clamp(v * inverse, real_limit) + real_limit) * 0.5;
        *code = (2 * round_to_code(up) - limit) as i16;
    }
    scale
}
