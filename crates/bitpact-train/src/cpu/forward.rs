//! The forward half of a step, for training, evaluation and calibration.

use bitpact_core::rng::Key;
use bitpact_core::{ALPHA_MIN, ActQuant};
use bitpact_kernels::conv::rounded::round_bf16;
use bitpact_kernels::norm::{self, Output, ResidualView};
use bitpact_kernels::{Aligned, Chunked, Isa, pool2d};

use super::plan::{Activation, Scratch, Shortcut, StageKind, StepPlan, Store, UnitStep, Value};
use super::product::{Path, Product};
use super::profile::Pool;
use super::totals::Totals;
use crate::backend::{CALIBRATION_VALUES, SAMPLED, mean};
use crate::params::Params;
use crate::profile::Pass;

/// Which forward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    /// Batch statistics; counts what the records show.
    Train,
    /// Running statistics.
    Evaluate,
    /// Batch statistics, nothing else.
    Statistics,
    /// Batch statistics; every clip value is set to this percentile of its inputs.
    Calibrate(f64),
}

impl StepPlan {
    /// Runs the first `n` images of the batch to the logits.
    pub(super) fn forward(&mut self, isa: Isa, pool: &Pool, n: usize, mode: Mode) {
        self.prepare(isa, pool, mode == Mode::Train);
        let mut stages = std::mem::take(&mut self.stages);
        for stage in &mut stages {
            pool.enter(Pass::Pooling, "");
            match &mut stage.kind {
                StageKind::Unit(unit) => self.unit_forward(isa, pool, n, mode, unit),
                StageKind::MaxPool { window, input, output } => {
                    let mut store = std::mem::take(&mut self.values[*output].store);
                    let (x, y) = (&self.values[*input], self.values[*output].layout);
                    match (&x.store, &mut store) {
                        (Store::Codes(from), Store::Codes(to)) => {
                            images(pool, n, to, y.len(), |i, to| {
                                let len = x.layout.len();
                                pool2d::max_forward(*window, &from[i * len..(i + 1) * len], x.layout, to, y);
                            });
                        }
                        (Store::Real(from), Store::Real(to)) => {
                            images(pool, n, to, y.len(), |i, to| {
                                let len = x.layout.len();
                                pool2d::max_forward(*window, &from[i * len..(i + 1) * len], x.layout, to, y);
                            });
                        }
                        _ => unreachable!("a pool keeps the kind of its input"),
                    }
                    self.values[*output].store = store;
                }
                StageKind::AvgPool { window, input, output } => self.avg_pool(pool, n, *window, *input, *output),
                StageKind::Concat { inputs, output, .. } => self.concat(pool, n, inputs, *output),
                StageKind::General(step) => self.general(pool, n, step),
                StageKind::Dropout { name, rate, input, output } => {
                    let rate = if mode == Mode::Train { *rate } else { 0.0 };
                    self.dropout(pool, n, self.key.with("dropout").with(name), rate, *input, *output);
                }
                StageKind::MeanPool { input, output } => {
                    let mut store = std::mem::take(&mut self.values[*output].store);
                    let (x, y) = (&self.values[*input], self.values[*output].layout);
                    let Store::Real(to) = &mut store else { unreachable!("means are real") };
                    let pixels = (x.layout.h * x.layout.w) as f32;
                    let (len, scale) = (x.layout.len(), x.source.step(&self.params) / pixels);
                    let zero = f32::from(x.source.zero_code()) * pixels;
                    let pixel = y.offset(0, 0)..y.offset(0, 0) + y.cs;
                    images(pool, n, to, y.len(), |i, to| {
                        let to = &mut to[pixel.clone()];
                        match &x.store {
                            Store::Codes(_) => pool2d::mean_forward(x.store.codes(i, len), x.layout, scale, zero, to),
                            _ => pool2d::mean_forward(x.store.real(i, len), x.layout, scale, zero, to),
                        }
                    });
                    self.values[*output].store = store;
                }
            }
        }
        self.stages = stages;
    }

    fn unit_forward(&mut self, isa: Isa, pool: &Pool, n: usize, mode: Mode, unit: &mut UnitStep) {
        let input = &self.values[unit.input];
        let mut sums = (&mut self.sums_int[..], &mut self.sums_real[..], &mut self.totals);
        let scratch = Chunked::new(&mut self.scratch, 1);
        let params = &self.params;
        let noisy = mode == Mode::Train && self.sum_noise > 0.0 && unit.output != self.output;
        let noise = noisy.then_some((self.key, self.sum_noise));
        product_forward(isa, pool, n, &mut unit.main, input, params, &scratch, mode, noise, &mut sums);
        if let Shortcut::Projection { value, product } = &mut unit.shortcut {
            let input = &self.values[*value];
            product_forward(isa, pool, n, product, input, params, &scratch, mode, noise, &mut sums);
        }
        drop(scratch);
        if let (Mode::Calibrate(percentile), Activation::Quantized { clip, .. }) = (mode, unit.activation) {
            let alpha = self.percentile(isa, n, unit, percentile).max(ALPHA_MIN);
            for value in &mut self.params.get_mut(clip).value {
                // One clip value for all that are concatenated: the largest.
                *value = if unit.clip.is_first { alpha } else { value.max(alpha) };
            }
        }
        if let Activation::Quantized { clip, bits, quant } = unit.activation {
            let inverse_scale = quant.inverse_scale(self.params.clip(clip), bits);
            unit.channel_clips.refresh(self.params.value(clip), inverse_scale, quant.q_max(bits) as f32);
        }
        pool.enter(Pass::Apply, &unit.main.name);
        self.apply(isa, pool, n, mode, unit);
    }

    /// Norm, residual, clip and rounding of a unit into its output.
    fn apply(&mut self, isa: Isa, pool: &Pool, n: usize, mode: Mode, unit: &mut UnitStep) {
        let mut store = std::mem::take(&mut self.values[unit.output].store);
        let layout = self.values[unit.output].layout;
        let (params, values) = (&self.params, &self.values);
        let (main, shape) = (&unit.main, unit.main.z_layout);
        let scratch = Chunked::new(&mut self.scratch, 1);
        match &mut store {
            Store::Codes(codes) => {
                let Activation::Quantized { clip, bits, quant } = unit.activation else {
                    unreachable!("codes come from a quantized activation");
                };
                let inverse_scale = quant.inverse_scale(params.clip(clip), bits);
                let q_max = quant.q_max(bits) as f32;
                let limits = &unit.channel_clips.limits[..];
                let codes = Chunked::new(codes, layout.len());
                let histogram = Chunked::new(&mut self.histogram, 256);
                let maxima = Chunked::new(&mut self.maxima, 1);
                let count = mode == Mode::Train;
                pool.run(n, &|i, worker| {
                    let mut scratch = scratch.get(worker);
                    let Scratch { residual, residual_codes, u, .. } = &mut scratch[0];
                    let view = residual_view(isa, i, unit, values, params, residual, residual_codes);
                    if count && quant == ActQuant::Relu {
                        let u = &mut u[..shape.len()];
                        let keep = Output::Keep { values: u, layout: shape };
                        norm::apply(isa, shape, main.z(i), &main.channels.a, &main.channels.b, view, keep);
                        maxima.get(i)[0] = u.iter().fold(0.0, |m, &u| if u > m { u } else { m });
                    }
                    let mut codes = codes.get(i);
                    let out = match quant {
                        ActQuant::Sign => Output::Signs { codes: &mut codes, layout },
                        _ if quant.is_signed() => {
                            Output::SignedCodes { codes: &mut codes, layout, inverse_scale, q_max, limits }
                        }
                        _ => Output::Codes { codes: &mut codes, layout, inverse_scale, q_max, limits },
                    };
                    norm::apply(isa, shape, main.z(i), &main.channels.a, &main.channels.b, view, out);
                    if quant == ActQuant::Sign && layout.c < layout.cs {
                        // In the channels that fill up a block the sign of 0 would be +1.
                        for y in 0..layout.h {
                            let row = &mut codes[layout.offset(y, 0)..][..layout.w * layout.cs];
                            row.chunks_exact_mut(layout.cs)
                                .for_each(|pixel| pixel[layout.c..].fill(quant.zero_code(bits)));
                        }
                    }
                    if count && i % SAMPLED == 0 {
                        let mut histogram = histogram.get(i / SAMPLED);
                        histogram.fill(0);
                        for y in 0..layout.h {
                            for pixel in codes[layout.offset(y, 0)..][..layout.w * layout.cs].chunks_exact(layout.cs) {
                                pixel[..layout.c].iter().for_each(|&q| histogram[usize::from(q)] += 1);
                            }
                        }
                    }
                });
                if count {
                    for sampled in self.histogram.chunks_exact(256).take(n.div_ceil(SAMPLED)) {
                        unit.counts.levels.iter_mut().zip(sampled).for_each(|(total, n)| *total += n);
                    }
                    unit.maximum = self.maxima[..n].iter().fold(0.0, |m, &u| if u > m { u } else { m });
                }
            }
            Store::Real(real) => {
                let real = Chunked::new(real, layout.len());
                let relu = matches!(unit.activation, Activation::Relu);
                pool.run(n, &|i, worker| {
                    let mut scratch = scratch.get(worker);
                    let Scratch { residual, residual_codes, .. } = &mut scratch[0];
                    let view = residual_view(isa, i, unit, values, params, residual, residual_codes);
                    let values = &mut real.get(i)[..];
                    let out = if relu { Output::Relu { values, layout } } else { Output::Keep { values, layout } };
                    norm::apply(isa, shape, main.z(i), &main.channels.a, &main.channels.b, view, out);
                });
            }
            Store::Taken => unreachable!("nobody else writes this tensor"),
        }
        self.values[unit.output].store = store;
    }

    /// The percentile (0..100) of u, of |u| where the codes are signed, for signs the mean of |u|, over the batch, or
    /// over its first images where those are very many values.
    fn percentile(&mut self, isa: Isa, n: usize, unit: &UnitStep, percentile: f64) -> f32 {
        let (main, shape) = (&unit.main, unit.main.z_layout);
        let n = n.min(CALIBRATION_VALUES / (shape.h * shape.w * shape.c)).max(1);
        let mut u = vec![0.0; shape.len()];
        let mut all = Vec::with_capacity(n * shape.h * shape.w * shape.c);
        let Scratch { residual, residual_codes, .. } = &mut self.scratch[0];
        for i in 0..n {
            let view = residual_view(isa, i, unit, &self.values, &self.params, residual, residual_codes);
            let keep = Output::Keep { values: &mut u, layout: shape };
            norm::apply(isa, shape, main.z(i), &main.channels.a, &main.channels.b, view, keep);
            all.extend(u.chunks_exact(shape.cs).flat_map(|pixel| &pixel[..shape.c]));
        }
        if matches!(unit.activation, Activation::Quantized { quant, .. } if quant.is_signed()) {
            all.iter_mut().for_each(|u: &mut f32| *u = u.abs());
        }
        if matches!(unit.activation, Activation::Quantized { quant: ActQuant::Sign, .. }) {
            return mean(&all);
        }
        let at = ((all.len() - 1) as f64 * (percentile / 100.0).clamp(0.0, 1.0)).round() as usize;
        *all.select_nth_unstable_by(at, f32::total_cmp).1
    }
}

/// Runs `f` on every image's piece of `data`.
fn images<T: Send + Sync>(pool: &Pool, n: usize, data: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let data = Chunked::new(data, len);
    pool.run(n, &|i, _| f(i, &mut data.get(i)));
}

/// An image rounded to bfloat16, in the memory `to`.
pub(super) fn rounded<'a>(isa: Isa, image: &[f32], to: &'a mut [f32]) -> &'a [f32] {
    let to = &mut to[..image.len()];
    to.copy_from_slice(image);
    round_bf16(isa, to);
    to
}

/// Accumulators of every image, off by the deviations of `noise`, then the norm's coefficients.
fn product_forward(
    isa: Isa,
    pool: &Pool,
    n: usize,
    product: &mut Product,
    input: &Value,
    params: &Params,
    scratch: &Chunked<Scratch>,
    mode: Mode,
    noise: Option<(Key, f32)>,
    (sums_int, sums_real, totals): &mut (&mut [i64], &mut [f64], &mut Totals),
) {
    let z_layout = product.z_layout;
    let (x_len, z_len, cs) = (input.layout.len(), z_layout.len(), z_layout.cs);
    let is_running = mode == Mode::Evaluate || (mode == Mode::Train && product.is_frozen);
    let statistics = !is_running && product.norm.is_some();
    let count = n * product.z_layout.h * product.z_layout.w;
    product.set_unit(params);
    let scale = product.widening(params);
    pool.enter(Pass::Product, &product.name);
    if let Some((key, rate)) = noise {
        product.draw_errors(isa, input.layout, key, rate);
    }
    let (zeros, errors) = (&product.zeros, product.errors.as_deref().filter(|_| noise.is_some()));
    match &mut product.path {
        Path::Int { conv, packed, init, z, .. } => {
            let z = Chunked::new(z, z_len);
            let sums = Chunked::new(sums_int, 2 * cs);
            pool.run(n, &|i, worker| {
                let mut z = z.get(i);
                let mut clock = pool.clock(worker);
                let mut scratch = scratch.get(worker);
                let Scratch { groups, errors: own, .. } = &mut scratch[0];
                let x = input.store.codes(i, x_len);
                conv.run(x, packed, init, &mut z, groups);
                clock.lap(Pass::Product);
                if statistics {
                    let mut sums = sums.get(i);
                    let (sum, square) = sums.split_at_mut(cs);
                    norm::statistics_int(isa, &z, sum, square);
                    clock.lap(Pass::Statistics);
                }
                if let Some(errors) = errors {
                    errors.add(x, &mut z, own, groups);
                    clock.lap(Pass::Product);
                }
            });
        }
        Path::Identity { z } => {
            let z = Chunked::new(z, z_len);
            let sums = Chunked::new(sums_real, 2 * cs);
            pool.run(n, &|i, _| {
                let mut z = z.get(i);
                for (y, row) in z.chunks_exact_mut(z_layout.row()).enumerate() {
                    let from = input.layout.offset(y, 0)..input.layout.offset(y, 0) + row.len();
                    match &input.store {
                        Store::Codes(_) => {
                            norm::widen(isa, &input.store.codes(i, x_len)[from], &zeros.real, scale, row)
                        }
                        _ => row.copy_from_slice(&input.store.real(i, x_len)[from]),
                    }
                }
                if statistics {
                    let mut sums = sums.get(i);
                    let (sum, square) = sums.split_at_mut(cs);
                    norm::statistics_real(isa, &z, sum, square);
                }
            });
        }
        Path::Real { conv, packed, z, bf16 } => {
            let z = Chunked::new(z, z_len);
            let sums = Chunked::new(sums_real, 2 * cs);
            let bf16 = bf16.as_ref().filter(|_| mode == Mode::Train);
            let rounds = product.rounds && mode == Mode::Train && bf16.is_none();
            pool.run(n, &|i, worker| {
                let mut z = z.get(i);
                let mut scratch = scratch.get(worker);
                let Scratch { x, narrow, groups, .. } = &mut scratch[0];
                let mut clock = pool.clock(worker);
                let x = match &input.store {
                    Store::Codes(_) => {
                        let x = &mut x[..x_len];
                        norm::widen(isa, input.store.codes(i, x_len), &zeros.real, scale, x);
                        clock.lap(Pass::Widen);
                        &*x
                    }
                    _ if rounds => rounded(isa, input.store.real(i, x_len), x),
                    _ => input.store.real(i, x_len),
                };
                match bf16 {
                    Some((conv, packed)) => conv.run(x, packed, &mut z, narrow),
                    None => conv.run(x, packed, &mut z, groups),
                }
                clock.lap(Pass::Product);
                if statistics {
                    let mut sums = sums.get(i);
                    let (sum, square) = sums.split_at_mut(cs);
                    norm::statistics_real(isa, &z, sum, square);
                    clock.lap(Pass::Statistics);
                }
            });
        }
    }
    pool.enter(Pass::Coefficients, &product.name);
    if !statistics {
        return product.normalize_running(params);
    }
    let pixels = count as f64;
    if super::plan::is_int(product) {
        let totals = totals.int(&sums_int[..n * 2 * cs], cs);
        product.normalize(params, count, |c| {
            let (sum, square) = (totals[c], totals[cs + c]);
            // count^2 * variance, exactly.
            let spread = count as i128 * square - sum * sum;
            (sum as f64 / pixels, spread as f64 / (pixels * pixels))
        });
    } else {
        let totals = totals.real(&sums_real[..n * 2 * cs], 2 * cs);
        product.normalize(params, count, |c| {
            let mean = totals[c] / pixels;
            (mean, (totals[cs + c] / pixels - mean * mean).max(0.0))
        });
    }
}

/// What image `i` of a unit adds before its activation, gathered into scratch where it does not lie ready.
pub(super) fn residual_view<'a>(
    isa: Isa,
    i: usize,
    unit: &UnitStep,
    values: &'a [Value],
    params: &Params,
    residual: &'a mut Aligned<f32>,
    residual_codes: &'a mut Aligned<u8>,
) -> ResidualView<'a> {
    let shape = unit.main.z_layout;
    match &unit.shortcut {
        Shortcut::None => ResidualView::None,
        Shortcut::Identity { value } => {
            let value = &values[*value];
            let (layout, len) = (value.layout, value.layout.len());
            match &value.store {
                Store::Codes(_) => {
                    let (step, zero) = (value.source.step(params), value.source.zero_code());
                    ResidualView::Codes { codes: value.store.codes(i, len), layout, step, zero }
                }
                _ => ResidualView::Real { values: value.store.real(i, len), layout },
            }
        }
        Shortcut::Subsample { value, stride, pad_before } => {
            let value = &values[*value];
            let len = value.layout.len();
            match &value.store {
                Store::Codes(_) => {
                    let out = &mut residual_codes[..shape.len()];
                    let (step, zero) = (value.source.step(params), value.source.zero_code());
                    pool2d::subsample(value.store.codes(i, len), value.layout, *stride, *pad_before, zero, out, shape);
                    ResidualView::Codes { codes: out, layout: shape, step, zero }
                }
                _ => {
                    let out = &mut residual[..shape.len()];
                    pool2d::subsample(value.store.real(i, len), value.layout, *stride, *pad_before, 0.0, out, shape);
                    ResidualView::Real { values: out, layout: shape }
                }
            }
        }
        Shortcut::Projection { product, .. } => {
            let out = &mut residual[..shape.len()];
            let keep = Output::Keep { values: out, layout: shape };
            let k = &product.channels;
            norm::apply(isa, shape, product.z(i), &k.a, &k.b, ResidualView::None, keep);
            ResidualView::Real { values: &residual[..shape.len()], layout: shape }
        }
    }
}
