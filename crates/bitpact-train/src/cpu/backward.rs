//! The backward half of a step: stages in reverse, two passes a unit, every gradient in a slab of the plan.

use bitpact_core::ActQuant;
use bitpact_kernels::norm::{self, Activation as Clip, Coefficients, ResidualView};
use bitpact_kernels::{Aligned, Chunk, Chunked, Isa, Pool, pool2d};

use super::forward::residual_view;
use super::params::Params;
use super::plan::{Activation, Scratch, Shortcut, Slabs, StageKind, StepPlan, Store, Target, UnitStep, Value};
use super::product::{PixelMeaning, Product};

impl StepPlan {
    /// Gradients of every parameter, from the gradient of the logits in the output's slab.
    pub(super) fn backward(&mut self, isa: Isa, pool: &Pool) {
        let mut stages = std::mem::take(&mut self.stages);
        for stage in stages.iter_mut().rev() {
            let slabs = stage.slabs;
            match &mut stage.kind {
                StageKind::Unit(unit) => self.unit_backward(isa, pool, unit, slabs),
                StageKind::MaxPool { window, input, output } => {
                    let (x, dense) = (&self.values[*input], self.values[*input].dense());
                    let y = self.values[*output].dense();
                    let target = slabs.input.expect("a pool never reads the image");
                    let (g, mut dx) = take_two(&mut self.slabs, slabs.output, target.slab);
                    let to = Chunked::new(&mut dx[..self.batch * dense.len()], dense.len());
                    pool.run(self.batch, &|i, _| {
                        let (mut to, g) = (to.get(i), &g[i * y.len()..(i + 1) * y.len()]);
                        if !target.accumulate {
                            to.fill(0.0);
                        }
                        let len = x.layout.len();
                        match &x.store {
                            Store::Codes(_) => {
                                let x_i = x.store.codes(i, len);
                                pool2d::max_backward(*window, x_i, x.layout, g, y, &mut to, dense);
                            }
                            _ => {
                                let x_i = x.store.real(i, len);
                                pool2d::max_backward(*window, x_i, x.layout, g, y, &mut to, dense);
                            }
                        }
                    });
                    drop(to);
                    (self.slabs[slabs.output], self.slabs[target.slab]) = (g, dx);
                }
                StageKind::MeanPool { input, output } => {
                    let (dense, y) = (self.values[*input].dense(), self.values[*output].dense());
                    let target = slabs.input.expect("a pool never reads the image");
                    let (g, mut dx) = take_two(&mut self.slabs, slabs.output, target.slab);
                    let to = Chunked::new(&mut dx[..self.batch * dense.len()], dense.len());
                    pool.run(self.batch, &|i, _| {
                        let g = &g[i * y.len()..(i + 1) * y.len()];
                        pool2d::mean_backward(g, dense, &mut to.get(i), target.accumulate);
                    });
                    drop(to);
                    (self.slabs[slabs.output], self.slabs[target.slab]) = (g, dx);
                }
            }
        }
        self.stages = stages;
        self.weight_gradients(pool);
    }

    fn unit_backward(&mut self, isa: Isa, pool: &Pool, unit: &mut UnitStep, slabs: Slabs) {
        self.reduce(isa, pool, unit, slabs.output);
        let count = self.batch * unit.main.z_layout.h * unit.main.z_layout.w;
        let (batch, cs) = (self.batch, unit.main.z_layout.cs);
        let total = |sums: &[f32], at: usize| -> f64 { (0..batch).map(|i| f64::from(sums[i * 2 * cs + at])).sum() };
        let [main_sums, second_sums] = &self.sums;
        unit.main.backward_coefficients(&mut self.params, count, |c| (total(main_sums, c), total(main_sums, cs + c)));
        if let Shortcut::Projection { product, .. } = &mut unit.shortcut {
            let sums = |c| (total(second_sums, c), total(second_sums, cs + c));
            product.backward_coefficients(&mut self.params, count, sums);
        }
        if let Activation::Quantized { clip, quant, .. } = unit.activation {
            let (gradient, clipped) = self.clip_sums.iter().fold((0.0, 0), |(g, n), s| (g + s.0, n + s.1));
            unit.counts.alpha_gradient = gradient as f32;
            unit.counts.clipped += clipped;
            unit.counts.elements += (count * unit.main.z_layout.c) as u64;
            if quant != ActQuant::Relu {
                self.params.get_mut(clip).grad[0] = gradient as f32;
            }
        }
        self.products(isa, pool, unit, slabs);
    }

    /// Pass one: masks the gradient in its slab and sums what norm and clip value need.
    fn reduce(&mut self, isa: Isa, pool: &Pool, unit: &UnitStep, slab: usize) {
        let (shape, main) = (unit.main.z_layout, &unit.main);
        let (params, values) = (&self.params, &self.values);
        let activation = match unit.activation {
            Activation::None => Clip::Keep,
            Activation::Relu => Clip::Relu,
            Activation::Quantized { clip, bits, quant } => {
                let alpha = params.scalar(clip);
                match quant {
                    ActQuant::PactPlus => {
                        let inverse_step = bitpact_core::act_inverse_step(alpha, bits);
                        Clip::PactPlus { alpha, inverse_step, q_max: bits.q_max() as f32 }
                    }
                    ActQuant::Pact | ActQuant::Relu => Clip::Pact { alpha },
                }
            }
        };
        let g = Chunked::new(&mut self.slabs[slab][..self.batch * shape.len()], shape.len());
        let [first, second] = &mut self.sums;
        let (first, second) = (Chunked::new(first, 2 * shape.cs), Chunked::new(second, 2 * shape.cs));
        let clips = Chunked::new(&mut self.clip_sums, 1);
        let scratch = Chunked::new(&mut self.scratch, 1);
        pool.run(self.batch, &|i, worker| {
            let mut scratch = scratch.get(worker);
            let Scratch { residual, residual_codes, .. } = &mut scratch[0];
            let view = residual_view(isa, i, unit, values, params, residual, residual_codes);
            let mut g = g.get(i);
            let reduce = |product: &Product, view, act, sums: &mut Chunk<f32>, g: &mut [f32]| {
                let (sum_g, sum_gx) = sums.split_at_mut(shape.cs);
                let k: Coefficients = product.coefficients();
                norm::backward_reduce(isa, shape, product.z(i), k, view, act, g, sum_g, sum_gx)
            };
            let sums = reduce(main, view, activation, &mut first.get(i), &mut g);
            clips.get(i)[0] = (sums.alpha_gradient, sums.clipped);
            if let Shortcut::Projection { product, .. } = &unit.shortcut {
                reduce(product, ResidualView::None, Clip::Keep, &mut second.get(i), &mut g);
            }
        });
    }

    /// Pass two: gradients of the accumulators, and from them of input and weights, image by image.
    fn products(&mut self, isa: Isa, pool: &Pool, unit: &mut UnitStep, slabs: Slabs) {
        let shape = unit.main.z_layout;
        let mut own = std::mem::take(&mut self.slabs[slabs.output]);
        let others = |t: Option<Target>| t.filter(|t| t.slab != slabs.output);
        let (input, shortcut) = (others(slabs.input), others(slabs.shortcut));
        let passed_on = slabs.shortcut.is_some() && shortcut.is_none();
        let mut shortcut_slab = shortcut.map(|t| std::mem::take(&mut self.slabs[t.slab]));
        let shared = input.is_some() && input.map(|t| t.slab) == shortcut.map(|t| t.slab);
        let mut input_slab = input.filter(|_| !shared).map(|t| std::mem::take(&mut self.slabs[t.slab]));
        {
            let batch = self.batch;
            let (params, values, pixels) = (&self.params, &self.values, &self.pixels);
            let own = Chunked::new(&mut own[..batch * shape.len()], shape.len());
            let shortcut_value = match &unit.shortcut {
                Shortcut::None => None,
                Shortcut::Identity { value }
                | Shortcut::Subsample { value, .. }
                | Shortcut::Projection { value, .. } => Some(*value),
            };
            let to_shortcut = shortcut_slab.as_mut().map(|slab| {
                let len = values[shortcut_value.expect("a slab belongs to a shortcut")].dense().len();
                Chunked::new(&mut slab[..batch * len], len)
            });
            let to_input = input_slab.as_mut().map(|slab| {
                let len = values[unit.input].dense().len();
                Chunked::new(&mut slab[..batch * len], len)
            });
            let scratch = Chunked::new(&mut self.scratch, 1);
            let partial_len = unit.main.wgrad.partial_len();
            let chunks = unit.main.chunks;
            let partials = Chunked::new(&mut self.partials[..chunks * partial_len], partial_len);
            let main = &unit.main;
            let task = |task: usize, worker: usize| {
                let mut scratch = scratch.get(worker);
                let Scratch { x, dz, dz2, .. } = &mut scratch[0];
                let mut partial = partials.get(task);
                partial.fill(0.0);
                let dz = &mut dz[..main.dz_layout.len()];
                dz.fill(0.0);
                if let Shortcut::Projection { product, .. } = &unit.shortcut {
                    dz2[..product.dz_layout.len()].fill(0.0);
                }
                for i in chunk(batch, chunks, task) {
                    let mut g = own.get(i);
                    norm::backward_apply(isa, shape, main.z(i), k_of(main), &g, dz, main.dz_layout);
                    if let Some(to) = &to_shortcut {
                        let target = shortcut.expect("a slab has a target");
                        let mut to = to.get(i);
                        let from = &values[shortcut_value.expect("a slab belongs to a shortcut")];
                        match &unit.shortcut {
                            Shortcut::None => {}
                            Shortcut::Identity { .. } => to.iter_mut().zip(&g[..]).for_each(|(t, g)| *t += g),
                            Shortcut::Subsample { stride, pad_before, .. } => {
                                if !target.accumulate {
                                    to.fill(0.0);
                                }
                                pool2d::subsample_backward(&g, shape, *stride, *pad_before, &mut to, from.dense());
                            }
                            Shortcut::Projection { product, .. } => {
                                let dz2 = &mut dz2[..product.dz_layout.len()];
                                let z = product.z(i);
                                norm::backward_apply(isa, shape, z, k_of(product), &g, dz2, product.dz_layout);
                                if let Some((conv, packed)) = &product.dgrad {
                                    conv.run(dz2, packed, &mut to, target.accumulate);
                                }
                            }
                        }
                        if let (true, Some((conv, packed))) = (shared, &main.dgrad) {
                            conv.run(dz, packed, &mut to, true);
                        }
                    }
                    if let Some((conv, packed)) = &main.dgrad {
                        match (&to_input, input) {
                            (Some(to), Some(target)) => conv.run(dz, packed, &mut to.get(i), target.accumulate),
                            _ if passed_on => conv.run(dz, packed, &mut g, true),
                            _ => {}
                        }
                    }
                    weight_gradient(isa, main, i, &values[unit.input], params, pixels, x, dz, &mut partial);
                }
            };
            pool.run(chunks, &task);
        }
        unit.main.reduce_weight_gradient(&mut self.partials);
        // In a second round over the images, so that one set of partial sums serves both products.
        if let Shortcut::Projection { value, product } = &mut unit.shortcut {
            self.second_weight_gradient(isa, pool, &own, product, *value);
        }
        self.slabs[slabs.output] = own;
        for (target, slab) in [(shortcut, shortcut_slab), (input.filter(|_| !shared), input_slab)] {
            if let (Some(target), Some(slab)) = (target, slab) {
                self.slabs[target.slab] = slab;
            }
        }
    }

    /// Weight gradient of a projection shortcut, from dL/du in `g`.
    fn second_weight_gradient(&mut self, isa: Isa, pool: &Pool, g: &[f32], product: &mut Product, value: usize) {
        let (batch, shape) = (self.batch, product.z_layout);
        let (params, pixels, value) = (&self.params, &self.pixels, &self.values[value]);
        let (len, chunks) = (product.wgrad.partial_len(), product.chunks);
        let partials = Chunked::new(&mut self.partials[..chunks * len], len);
        let scratch = Chunked::new(&mut self.scratch, 1);
        let second = &*product;
        pool.run(chunks, &|task, worker| {
            let mut scratch = scratch.get(worker);
            let Scratch { x, dz, .. } = &mut scratch[0];
            let mut partial = partials.get(task);
            partial.fill(0.0);
            let dz = &mut dz[..second.dz_layout.len()];
            dz.fill(0.0);
            for i in chunk(batch, chunks, task) {
                let g = &g[i * shape.len()..(i + 1) * shape.len()];
                norm::backward_apply(isa, shape, second.z(i), k_of(second), g, dz, second.dz_layout);
                weight_gradient(isa, second, i, value, params, pixels, x, dz, &mut partial);
            }
        });
        drop(partials);
        product.reduce_weight_gradient(&mut self.partials);
    }

    /// Weight gradients through quantizers and folding, layers in parallel.
    fn weight_gradients(&mut self, pool: &Pool) {
        let mut stages = std::mem::take(&mut self.stages);
        let mut products: Vec<&mut Product> = Vec::new();
        for stage in &mut stages {
            if let StageKind::Unit(unit) = &mut stage.kind {
                products.push(&mut unit.main);
                if let Shortcut::Projection { product, .. } = &mut unit.shortcut {
                    products.push(product);
                }
            }
        }
        let mut grads: Vec<Vec<f32>> =
            products.iter().map(|p| std::mem::take(&mut self.params.get_mut(p.weight).grad)).collect();
        {
            let (products, grads) = (Chunked::new(&mut products, 1), Chunked::new(&mut grads, 1));
            let pixels = &self.pixels;
            pool.run(products.chunks(), &|task, _| {
                products.get(task)[0].weight_gradient(pixels, &mut grads.get(task)[0]);
            });
        }
        for (p, grad) in products.iter().zip(grads) {
            self.params.get_mut(p.weight).grad = grad;
        }
        self.stages = stages;
    }
}

/// Images of chunk `task` of `chunks`.
fn chunk(batch: usize, chunks: usize, task: usize) -> std::ops::Range<usize> {
    task * batch / chunks..(task + 1) * batch / chunks
}

fn k_of(product: &Product) -> [&[f32]; 3] {
    let [k1, k2, k3] = &product.channels.k;
    [k1, k2, k3]
}

/// Adds image `i`'s weight gradient to `partial`.
fn weight_gradient(
    isa: Isa,
    product: &Product,
    i: usize,
    input: &Value,
    params: &Params,
    pixels: &PixelMeaning,
    x: &mut Aligned<f32>,
    dz: &[f32],
    partial: &mut [f32],
) {
    let len = input.layout.len();
    match &input.store {
        Store::Codes(_) => {
            let (zero, scale) = product.widening(params, pixels);
            norm::widen(isa, input.store.codes(i, len), &zero, &scale, &mut x[..len]);
            product.wgrad.run(&x[..len], dz, partial);
        }
        _ => product.wgrad.run(input.store.real(i, len), dz, partial),
    }
}

/// Takes two different slabs out of the plan.
fn take_two(slabs: &mut [Aligned<f32>], a: usize, b: usize) -> (Aligned<f32>, Aligned<f32>) {
    debug_assert_ne!(a, b);
    (std::mem::take(&mut slabs[a]), std::mem::take(&mut slabs[b]))
}
