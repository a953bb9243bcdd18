//! A product's weights in every form that its kernels read, and the gradient of the weights back through those forms.

use bitpact_core::rng::Key;
use bitpact_core::{quantize_weights_given, weights_backward_given};
use bitpact_kernels::conv::rounded::round_bf16;
use bitpact_kernels::{ConvGeometry, Isa, Layout, elements};
use bitpact_model::InputDescription;

use super::super::noise::CellErrors;
use super::{Path, Product, Source};
use crate::params::{Param, Params};

impl Product {
    /// The channel of the image that every weight meets, in OIHW order.
    fn input_channels(&self) -> impl Iterator<Item = usize> + use<> {
        let ConvGeometry { kh, kw, cin, cout, .. } = self.geometry;
        let (plane, inputs, outputs) = (kh * kw, cin / self.groups, cout / self.groups);
        let taps = self.taps;
        (0..cout).flat_map(move |o| (0..inputs * plane).map(move |i| (o / outputs * inputs + i / plane) / taps))
    }

    /// Weights of this step in every form: folded, quantized, packed forward and backward.
    pub(in crate::cpu) fn prepare(&mut self, isa: Isa, params: &Params, pixels: &InputDescription, training: bool) {
        if self.is_identity() {
            return;
        }
        let mut w = params.value(self.weight);
        let channels = self.input_channels();
        match &self.order {
            None => self.folded.iter_mut().zip(w).for_each(|(to, w)| *to = *w),
            Some(order) => self.folded.iter_mut().zip(order).for_each(|(to, &at)| *to = w[at]),
        }
        if self.source.is_input() {
            self.folded.iter_mut().zip(channels).for_each(|(w, channel)| *w *= pixels.scale[channel]);
        }
        if !self.folded.is_empty() {
            w = &self.folded;
        }
        let cout = self.geometry.cout;
        let per_out = w.len() / cout;
        if let Some(spec) = &self.spec {
            let scales = &mut self.scales[..spec.scales_len(cout)];
            if let Some(step) = self.step {
                let unit = if self.source.is_input() { pixels.mean_scale() } else { 1.0 };
                self.steps.iter_mut().zip(params.value(step)).for_each(|(to, s)| *to = s * unit);
            }
            if spec.needs_tanh() {
                elements::tanh(isa, w, &mut self.tanh);
            }
            quantize_weights_given(spec, w, &self.tanh, cout, &self.steps, &mut self.codes, scales);
            if scales.len() == 1 {
                let s = scales[0];
                self.scales.fill(s);
            }
        }
        let x_step = self.source.step(params);
        let channels = self.input_channels();
        let filters = ConvGeometry { cin: self.geometry.cin / self.groups, ..self.geometry };
        match &mut self.path {
            Path::Int { conv, packed, codes, init, .. } => {
                filters.tap_major(&self.codes, codes, |q| q as i8);
                conv.pack(codes, packed);
                let zero = self.source.zero_code();
                if self.source == Source::Pixels || zero > 0 {
                    init[..cout].fill(0);
                    for (i, (&q, channel)) in self.codes.iter().zip(channels).enumerate() {
                        let zero = if self.source == Source::Pixels { pixels.zero_point[channel] } else { zero.into() };
                        init[i / per_out] -= i32::from(q) * i32::from(zero);
                    }
                }
                if !self.backward.reads_codes() {
                    for (to, &q) in self.real.iter_mut().zip(&*codes) {
                        *to = f32::from(q) / x_step;
                    }
                }
            }
            Path::Real { conv, packed, bf16, .. } => {
                if self.spec.is_some() {
                    filters.tap_major(&self.codes, &mut self.real, f32::from);
                    for (filter, &scale) in self.real.chunks_exact_mut(per_out).zip(&self.scales) {
                        filter.iter_mut().for_each(|w| *w *= scale);
                    }
                } else {
                    filters.tap_major(w, &mut self.real, |w| w);
                }
                if training && self.rounds {
                    round_bf16(isa, &mut self.real);
                }
                match bf16.as_mut().filter(|_| training) {
                    Some((conv, packed)) => conv.pack(&self.real, packed),
                    None => conv.pack(&self.real, packed),
                }
            }
            Path::Identity { .. } => {}
        }
        if training {
            let codes = match &self.path {
                Path::Int { codes, .. } => codes,
                _ => &[][..],
            };
            self.backward.pack(x_step, &self.real, codes);
        }
    }

    /// Draws the deviations of this step, of a product that has codes of an activation and of weights.
    pub(in crate::cpu) fn draw_errors(&mut self, isa: Isa, x: Layout, step: Key, rate: f32) {
        if self.errors.is_none() {
            self.errors = CellErrors::new(isa, self, x).map(Box::new);
        }
        if let (Some(errors), Some(bits)) = (&mut self.errors, self.spec.map(|spec| spec.bits.get())) {
            errors.draw(step.with("cells").with(&self.name), rate, bits);
        }
    }

    /// dL/dw of the parameter `w` from the sum of the partial weight gradients, through quantizer and folding, into its
    /// `grad`; `dwq` is memory for as many weights. The learned steps' gradients are kept for
    /// [`Product::step_gradient`].
    pub(in crate::cpu) fn weight_gradient(&mut self, pixels: &InputDescription, w: &mut Param, dwq: &mut [f32]) {
        self.backward.unpack(&self.partial, dwq);
        if matches!(self.path, Path::Int { .. }) {
            let unit = self.backward.weight_unit();
            let per_out = dwq.len() / self.geometry.cout;
            for (dwq, &s) in dwq.chunks_exact_mut(per_out).zip(&self.scales) {
                // Weights that are all zero have no step; their gradient is zero, and the decay holds them there.
                let inverse = if s > 0.0 { unit / s } else { 0.0 };
                dwq.iter_mut().for_each(|d| *d *= inverse);
            }
        }
        let (value, grad) = (&w.value[..], &mut w.grad[..]);
        match &self.spec {
            Some(spec) => {
                let value = if self.folded.is_empty() { value } else { &self.folded };
                let (cout, dsteps) = (self.geometry.cout, &mut self.dsteps);
                weights_backward_given(spec, value, &self.tanh, cout, &self.steps, dwq, grad, dsteps);
            }
            None => grad.copy_from_slice(dwq),
        }
        if self.source.is_input() {
            grad.iter_mut().zip(self.input_channels()).for_each(|(g, channel)| *g *= pixels.scale[channel]);
        }
        if let Some(order) = &self.order {
            dwq.copy_from_slice(grad);
            order.iter().zip(&*dwq).for_each(|(&at, &g)| grad[at] = g);
        }
    }

    /// dL/dstep of the learned steps into their `grad`.
    pub(in crate::cpu) fn step_gradient(&self, pixels: &InputDescription, grad: &mut [f32]) {
        let unit = if self.source.is_input() { pixels.mean_scale() } else { 1.0 };
        grad.iter_mut().zip(&self.dsteps).for_each(|(to, d)| *to = d * unit);
    }
}
