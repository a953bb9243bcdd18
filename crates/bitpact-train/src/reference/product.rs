//! Convolution and linear layer.

use bitpact_core::{quantize_weights, weights_backward};
use bitpact_graph::{NodeId, Shape, WeightPlan, Window};

use super::ReferenceBackend;
use super::value::Value;
use crate::Gradients;

/// How the window of a layer moves over an image.
pub(super) struct Moving {
    window: Window,
    groups: usize,
    /// Shapes of an image before and after.
    shapes: [Shape; 2],
}

impl Moving {
    /// Calls `f(y, x, w)` for every product of `images` images: element y of the output is the sum of the products of
    /// input x, none of them beyond the edges, and weight w.
    pub(super) fn each_product(&self, images: usize, mut f: impl FnMut(usize, Option<usize>, usize)) {
        let ([kh, kw], [from, to]) = (self.window.kernel, self.shapes);
        let (inputs, outputs) = (from.c / self.groups, to.c / self.groups);
        for y in 0..images * to.elements() {
            let (o, column, row) = (y % to.c, y / to.c % to.w, y / to.c / to.w % to.h);
            let (image, first) = (y / to.elements(), o / outputs * inputs);
            for ky in 0..kh {
                for kx in 0..kw {
                    let source = self.window.source(from, (row, column), (ky, kx));
                    let pixel = source.map(|(iy, ix)| ((image * from.h + iy) * from.w + ix) * from.c + first);
                    for i in 0..inputs {
                        f(y, pixel.map(|at| at + i), ((o * inputs + i) * kh + ky) * kw + kx);
                    }
                }
            }
        }
    }
}

/// What a layer multiplies its weights with.
struct Factors {
    x: Vec<f32>,
    /// Real value of one unit of them.
    x_scale: f32,
    /// The factor beyond the edges.
    padding: f32,
}

/// The weights of a step.
struct Weights {
    /// Weights that the quantizer reads: for a layer that reads the image, with the scale of the pixels.
    real: Vec<f32>,
    /// Learned steps in the units of `real`.
    steps: Vec<f32>,
    /// Factors of the product: codes, or real numbers.
    numbers: Vec<f32>,
    /// Real value of one of them, for every output channel.
    scales: Vec<f32>,
}

impl ReferenceBackend {
    pub(super) fn product(&self, id: NodeId) -> Value {
        let (window, Weights { numbers, scales, .. }) = (self.window(id), self.weights(id));
        let Factors { x, x_scale, padding } = self.factors(id);
        let mut sums = vec![0f64; self.images * window.shapes[1].elements()];
        window.each_product(self.images, |y, x_at, w| {
            sums[y] += f64::from(x_at.map_or(padding, |at| x[at])) * f64::from(numbers[w]);
        });
        self.disturb_sums(id, &window, &x, &numbers, &mut sums);
        let is_exact = self.reads_codes(id);
        if !is_exact {
            sums.iter_mut().for_each(|sum| *sum = f64::from(*sum as f32));
        }
        let unit = scales.iter().map(|&s| f64::from(x_scale) * f64::from(s)).collect();
        let bias = match self.graph.node(id).op.has_bias() {
            true => self.params.value(self.param(id, "bias")).to_vec(),
            false => vec![0.0; window.shapes[1].c],
        };
        let value = Value::Sums { sums, unit, bias, is_exact };
        match self.is_normalized(id) {
            true => value,
            false => Value::Real(self.real(&value)),
        }
    }

    /// `g` is dL/dz of the sums z where a batch norm reads them, else dL/dy of `y = unit * z + bias`.
    pub(super) fn product_backward(&mut self, id: NodeId, mut g: Vec<f32>) -> Vec<Vec<f32>> {
        let (window, weights) = (self.window(id), self.weights(id));
        let Factors { x, x_scale, padding } = self.factors(id);
        let channels = window.shapes[1].c;
        if self.graph.node(id).op.has_bias() {
            let bias = self.param(id, "bias");
            // A norm takes the mean away, and with it the bias.
            let of_channel = |c: usize| -> f64 { g[c..].iter().step_by(channels).map(|&g| f64::from(g)).sum() };
            let sums = (0..channels).map(|c| if self.is_normalized(id) { 0.0 } else { of_channel(c) as f32 }).collect();
            self.params.get_mut(bias).grad = sums;
        }
        if !self.is_normalized(id) {
            let units = weights.scales.iter().map(|&s| (f64::from(x_scale) * f64::from(s)) as f32).cycle();
            g.iter_mut().zip(units).for_each(|(g, unit)| *g *= unit);
        }
        if self.gradients == Gradients::Bf16 {
            g.iter_mut().for_each(|g| *g = to_bf16(*g));
        }
        let mut dw = vec![0f64; weights.numbers.len()];
        let mut dx = vec![0f64; x.len()];
        window.each_product(self.images, |y, x_at, w| {
            dw[w] += f64::from(g[y]) * f64::from(x_at.map_or(padding, |at| x[at]));
            if let Some(at) = x_at {
                dx[at] += f64::from(g[y]) * f64::from(weights.numbers[w]);
            }
        });
        let of_channel = dw.len() / channels;
        // Weights that are all zero have no scale; their gradient is zero.
        let by_scale = |(i, dw): (usize, f64)| match weights.scales[i / of_channel] {
            scale if scale > 0.0 => (dw / f64::from(scale)) as f32,
            _ => 0.0,
        };
        let dw: Vec<f32> = dw.into_iter().enumerate().map(by_scale).collect();
        self.weights_backward(id, &weights, dw);
        vec![dx.into_iter().map(|dx| (dx / f64::from(x_scale)) as f32).collect()]
    }

    /// The gradients of weights and steps, through the quantizer, from that of the real value of what is multiplied.
    fn weights_backward(&mut self, id: NodeId, weights: &Weights, dw: Vec<f32>) {
        let (mut grad, mut dsteps) = (dw.clone(), vec![0.0; weights.steps.len()]);
        if let WeightPlan::Quantized(spec) = self.plan.weights[&self.graph.node(id).name] {
            let channels = self.graph.shape(id).c;
            weights_backward(&spec, &weights.real, channels, &weights.steps, &dw, &mut grad, &mut dsteps);
        }
        if self.reads_image(id) {
            let scales: Vec<f32> = self.pixel_scales(id);
            grad.iter_mut().zip(scales).for_each(|(g, scale)| *g *= scale);
            dsteps.iter_mut().for_each(|d| *d *= self.pixels.mean_scale());
        }
        let weight = self.param(id, "weight");
        match self.graph.weight_order(id) {
            None => self.params.get_mut(weight).grad = grad,
            Some(order) => order.into_iter().zip(grad).for_each(|(at, g)| self.params.get_mut(weight).grad[at] = g),
        }
        if !dsteps.is_empty() {
            let step = self.param(id, "weight_step");
            self.params.get_mut(step).grad = dsteps;
        }
    }

    fn weights(&self, id: NodeId) -> Weights {
        let channels = self.graph.shape(id).c;
        let mut real = self.params.value(self.param(id, "weight")).to_vec();
        if let Some(order) = self.graph.weight_order(id) {
            real = order.into_iter().map(|at| real[at]).collect();
        }
        if self.reads_image(id) {
            real.iter_mut().zip(self.pixel_scales(id)).for_each(|(w, scale)| *w *= scale);
        }
        let WeightPlan::Quantized(spec) = self.plan.weights[&self.graph.node(id).name] else {
            let (numbers, scales) = (self.rounded(real.clone()), vec![1.0; channels]);
            return Weights { real, steps: Vec::new(), numbers, scales };
        };
        let mut steps = Vec::new();
        if spec.quant.is_learned() {
            let unit = if self.reads_image(id) { self.pixels.mean_scale() } else { 1.0 };
            steps = self.params.value(self.param(id, "weight_step")).iter().map(|step| step * unit).collect();
        }
        let (mut codes, mut scales) = (vec![0; real.len()], vec![0.0; spec.scales_len(channels)]);
        quantize_weights(&spec, &real, channels, &steps, &mut codes, &mut scales);
        if scales.len() == 1 {
            scales = vec![scales[0]; channels];
        }
        let mut numbers: Vec<f32> = codes.into_iter().map(f32::from).collect();
        if !self.reads_codes(id) {
            let of_channel = real.len() / channels;
            numbers.iter_mut().enumerate().for_each(|(i, w)| *w *= scales[i / of_channel]);
            scales.fill(1.0);
        }
        Weights { real, steps, numbers, scales }
    }

    fn factors(&self, id: NodeId) -> Factors {
        match self.input(id) {
            Value::Codes { codes, scale, padding } if self.reads_codes(id) => {
                Factors { x: codes.iter().map(|&q| q as f32).collect(), x_scale: *scale, padding: *padding as f32 }
            }
            value => {
                let padding =
                    if let Value::Codes { scale, padding, .. } = value { scale * *padding as f32 } else { 0.0 };
                Factors { x: self.rounded(self.real(value)), x_scale: 1.0, padding }
            }
        }
    }

    /// The numbers as a product reads them.
    fn rounded(&self, mut numbers: Vec<f32>) -> Vec<f32> {
        if self.rounds {
            numbers.iter_mut().for_each(|number| *number = to_bf16(*number));
        }
        numbers
    }

    fn window(&self, id: NodeId) -> Moving {
        let (shapes, op) = ([self.graph.input_shape(id), self.graph.shape(id)], self.graph.node(id).op);
        let window = op.window(shapes[0]).expect("a product has a window");
        Moving { window, groups: op.groups(), shapes }
    }

    /// Tells whether both factors of a layer are codes, so that its sums are exact.
    fn reads_codes(&self, id: NodeId) -> bool {
        let is_quantized = self.plan.weights[&self.graph.node(id).name] != WeightPlan::Float;
        is_quantized && matches!(self.input(id), Value::Codes { .. })
    }

    fn reads_image(&self, id: NodeId) -> bool {
        self.graph.node(id).inputs[0] == 0
    }

    /// Tells whether a batch norm reads a layer, and nothing else.
    fn is_normalized(&self, id: NodeId) -> bool {
        matches!(self.graph.consumers(id), [reader] if self.graph.node(*reader).op.is_norm())
    }

    /// The scale of the pixels that each weight is multiplied with.
    fn pixel_scales(&self, id: NodeId) -> Vec<f32> {
        let Moving { window, groups, shapes: [from, to] } = self.window(id);
        let [kh, kw] = window.kernel;
        let (inputs, outputs) = (from.c / groups, to.c / groups);
        let channel = |w: usize| w / (inputs * kh * kw) / outputs * inputs + w / (kh * kw) % inputs;
        (0..to.c * inputs * kh * kw).map(|w| self.pixels.scale[channel(w)]).collect()
    }
}

/// The nearest bfloat16, ties to even.
fn to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    if x.is_nan() { x } else { f32::from_bits(rounded) }
}
