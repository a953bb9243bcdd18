//! The backward half of a step: stages in reverse, two passes a unit, every gradient in a slab of the plan.

use bitpact_core::{ActQuant, lsq_alpha_scale};
use bitpact_kernels::norm::{self, Activation as Clip, Coefficients, ResidualView, UnitSums};
use bitpact_kernels::{Aligned, Chunk, Chunked, Isa, Layout, pool2d};

use super::forward::{residual_view, rounded};
use super::plan::{Activation, Scratch, Shortcut, StageKind, StepPlan, Store, UnitStep, Value};
use super::product::backward::{BatchImages, Image};
use super::product::{Product, WeightSums};
use super::profile::Pool;
use super::slabs::{Slabs, Target};
use crate::params::{ParamId, Params};
use crate::profile::Pass;

impl StepPlan {
    /// Gradients of every parameter, from the gradient of the logits in the output's slab.
    pub(super) fn backward(&mut self, isa: Isa, pool: &Pool) {
        let mut stages = std::mem::take(&mut self.stages);
        for stage in stages.iter_mut().rev() {
            let slabs = stage.slabs;
            pool.enter(Pass::Pooling, "");
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
                StageKind::AvgPool { window, input, output } => {
                    self.avg_pool_backward(pool, *window, *input, *output, slabs);
                }
                StageKind::General(step) => self.general_backward(pool, step, slabs.output),
                StageKind::Concat { inputs, output, targets } => {
                    self.concat_backward(pool, inputs, targets, *output, slabs.output);
                }
                StageKind::Dropout { name, rate, input, .. } => {
                    self.dropout_backward(pool, self.key.with("dropout").with(name), *rate, *input, slabs);
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
        pool.enter(Pass::Reduce, &unit.main.name);
        self.reduce(isa, pool, unit, slabs.output);
        pool.enter(Pass::Coefficients, &unit.main.name);
        let count = self.batch * unit.main.z_layout.h * unit.main.z_layout.w;
        let (batch, cs) = (self.batch, unit.main.z_layout.cs);
        let [main, second] = self.sums.each_ref().map(|sums| &sums[..batch * UnitSums::PARTS * cs]);
        unit.main.backward_coefficients(&mut self.params, count, &self.totals.found(main, cs));
        if let Shortcut::Projection { product, .. } = &mut unit.shortcut {
            product.backward_coefficients(&mut self.params, count, &self.totals.found(second, cs));
        }
        if let Activation::Quantized { clip, quant, bits } = unit.activation {
            let (gradient, clipped) = self.clip_sums.iter().fold((0.0, 0), |(g, n), s| (g + s.0, n + s.1));
            unit.counts.alpha_gradient = gradient as f32;
            unit.counts.clipped += clipped;
            unit.counts.elements += (count * unit.main.z_layout.c) as u64;
            if !unit.channel_clips.alphas.is_empty() {
                unit.counts.alpha_gradient = self.channel_clip_gradient(clip, unit.main.z_layout, gradient);
            } else if quant.is_learned() {
                let shape = unit.main.z_layout;
                let scale = match quant {
                    ActQuant::Lsq => lsq_alpha_scale(shape.h * shape.w * shape.c, quant.q_max(bits) as f32),
                    _ => 1.0,
                };
                let gradient = gradient as f32 * scale;
                // Stages come in reverse: the last of those that share the clip value is the first here.
                let total = &mut self.params.get_mut(clip).grad[0];
                *total = if unit.clip.is_last { gradient } else { *total + gradient };
            }
        }
        pool.enter(Pass::Shortcut, &unit.main.name);
        self.shortcut_backward(isa, pool, unit, slabs);
        self.product_backward(isa, pool, &mut unit.main, unit.input, slabs.output, slabs.input);
    }

    /// The gradient of the clip values of channels, of which no two layers share one; the largest gains `step`, in
    /// equal parts where several are the largest. Returns its sum.
    fn channel_clip_gradient(&mut self, clip: ParamId, shape: Layout, step: f64) -> f32 {
        let largest = self.params.clip(clip);
        let param = self.params.get_mut(clip);
        let share = step / param.value.iter().filter(|&&alpha| alpha == largest).count() as f64;
        let mut total = 0.0;
        for (c, (grad, &alpha)) in param.grad.iter_mut().zip(&param.value).enumerate() {
            let own: f64 = (0..self.batch).map(|i| self.channel_sums[i * shape.cs + c]).sum();
            let gradient = own + if alpha == largest { share } else { 0.0 };
            (*grad, total) = (gradient as f32, total + gradient);
        }
        total as f32
    }

    /// Pass one: masks the gradient in its slab and sums what norm and clip value need.
    fn reduce(&mut self, isa: Isa, pool: &Pool, unit: &UnitStep, slab: usize) {
        let (shape, main) = (unit.main.z_layout, &unit.main);
        let (params, values) = (&self.params, &self.values);
        let activation = match unit.activation {
            Activation::None => Clip::Keep,
            Activation::Relu => Clip::Relu,
            Activation::Quantized { clip, bits, quant } => {
                let alpha = params.clip(clip);
                let (inverse_scale, q_max) = (quant.inverse_scale(alpha, bits), quant.q_max(bits) as f32);
                match &unit.channel_clips.alphas[..] {
                    [] => Clip::Clip { quant, alpha, inverse_scale, q_max },
                    alphas => Clip::Channels { quant, alphas, inverse_scale, q_max },
                }
            }
        };
        let g = Chunked::new(&mut self.slabs[slab][..self.batch * shape.len()], shape.len());
        let [first, second] = &mut self.sums;
        let parts = UnitSums::PARTS * shape.cs;
        let (first, second) = (Chunked::new(first, parts), Chunked::new(second, parts));
        let clips = Chunked::new(&mut self.clip_sums, 1);
        let channels = (!unit.channel_clips.alphas.is_empty()).then(|| Chunked::new(&mut self.channel_sums, shape.cs));
        let scratch = Chunked::new(&mut self.scratch, 1);
        pool.run(self.batch, &|i, worker| {
            let mut scratch = scratch.get(worker);
            let Scratch { residual, residual_codes, .. } = &mut scratch[0];
            let view = residual_view(isa, i, unit, values, params, residual, residual_codes);
            let mut g = g.get(i);
            let reduce = |product: &Product, view, act, sums: &mut Chunk<f32>, g: &mut [f32], alphas: &mut [f64]| {
                let (k, sums): (Coefficients, _) = (product.coefficients(), UnitSums::new(sums, shape.cs));
                norm::backward_reduce(isa, shape, product.z(i), k, view, act, g, sums, alphas)
            };
            let mut own = channels.as_ref().map(|channels| channels.get(i));
            let alphas = own.as_mut().map_or(&mut [][..], |own| &mut own[..]);
            let sums = reduce(main, view, activation, &mut first.get(i), &mut g, alphas);
            clips.get(i)[0] = (sums.alpha_gradient, sums.clipped);
            if let Shortcut::Projection { product, .. } = &unit.shortcut {
                reduce(product, ResidualView::None, Clip::Keep, &mut second.get(i), &mut g, &mut []);
            }
        });
    }

    /// What a unit's masked gradient gives to the tensor of its shortcut.
    fn shortcut_backward(&mut self, isa: Isa, pool: &Pool, unit: &mut UnitStep, slabs: Slabs) {
        let Some(target) = slabs.shortcut else { return };
        let shape = unit.main.z_layout;
        let value = match &mut unit.shortcut {
            Shortcut::Projection { value, product } => {
                return self.product_backward(isa, pool, product, *value, slabs.output, Some(target));
            }
            // The slab itself was passed on.
            Shortcut::Identity { .. } if target.slab == slabs.output => return,
            Shortcut::None => return,
            Shortcut::Identity { value } | Shortcut::Subsample { value, .. } => *value,
        };
        let dense = self.values[value].dense();
        let (g, mut to) = take_two(&mut self.slabs, slabs.output, target.slab);
        let images = Chunked::new(&mut to[..self.batch * dense.len()], dense.len());
        pool.run(self.batch, &|i, _| {
            let (g, mut to) = (&g[i * shape.len()..(i + 1) * shape.len()], images.get(i));
            if !target.accumulate {
                to.fill(0.0);
            }
            match unit.shortcut {
                Shortcut::Subsample { stride, pad_before, .. } => {
                    pool2d::subsample_backward(g, shape, stride, pad_before, &mut to, dense);
                }
                _ => to.iter_mut().zip(g).for_each(|(to, g)| *to += g),
            }
        });
        drop(images);
        (self.slabs[slabs.output], self.slabs[target.slab]) = (g, to);
    }

    /// Pass two: the gradient of a product's accumulators from dL/du in slab `g`, made image by image in cache, and
    /// from it the gradients of the weights and of the tensor `input`, the latter into `target`.
    fn product_backward(
        &mut self,
        isa: Isa,
        pool: &Pool,
        product: &mut Product,
        input: usize,
        g: usize,
        target: Option<Target>,
    ) {
        pool.enter(Pass::AccumulatorGradient, &product.name);
        if product.is_identity() {
            return self.identity_backward(isa, pool, product, g, target);
        }
        let (batch, shape) = (self.batch, product.z_layout);
        let mut own = std::mem::take(&mut self.slabs[g]);
        let other = target.filter(|t| t.slab != g);
        let mut dx = other.map(|t| std::mem::take(&mut self.slabs[t.slab]));
        {
            let (params, input) = (&self.params, &self.values[input]);
            let own = Chunked::new(&mut own[..batch * shape.len()], shape.len());
            let len = input.dense().len();
            let dx = dx.as_mut().map(|dx| Chunked::new(&mut dx[..batch * len], len));
            let scratch = Chunked::new(&mut self.scratch, 1);
            let key = self.key.with("gradient").with(&product.name);
            let product = &*product;
            let (sums, chunks) = match product.sums {
                WeightSums::Chunks(chunks) => {
                    let len = product.backward.partial_len();
                    (Sums::Chunks(Chunked::new(&mut self.partials[..chunks * len], len)), chunks)
                }
                WeightSums::Blocks => (Sums::Kept(self.kept.images(&product.backward, batch)), TASKS.min(batch)),
            };
            pool.run(chunks, &|task, worker| {
                let mut scratch = scratch.get(worker);
                let Scratch { x, backward, groups, .. } = &mut scratch[0];
                let mut clock = pool.clock(worker);
                let mut partial = match &sums {
                    Sums::Chunks(partials) => Some(partials.get(task)),
                    Sums::Kept(_) => None,
                };
                if let Some(partial) = &mut partial {
                    partial.fill(0.0);
                    clock.lap(Pass::PartialSums);
                }
                product.backward.begin(backward);
                let images = task * batch / chunks..(task + 1) * batch / chunks;
                for i in images.clone() {
                    let mut g = own.get(i);
                    let random = key.u64(i as u64) as u32;
                    product.backward.gradient(product.z(i), &product.channels.k, &g, random, backward);
                    clock.lap(Pass::AccumulatorGradient);
                    if let Some(target) = target {
                        match &dx {
                            Some(dx) => product.backward.input(&mut dx.get(i), target.accumulate, backward, groups),
                            // The shortcut passed this slab on to the tensor that the product reads too.
                            None => product.backward.input(&mut g, true, backward, groups),
                        }
                        clock.lap(Pass::InputGradient);
                    }
                    let image = image(isa, product, i, input, params, x);
                    let place = (i - images.start, i + 1 == images.end);
                    match (&mut partial, &sums) {
                        (Some(partial), _) => {
                            product.backward.weights(place, image, partial, backward, groups, &mut clock);
                            clock.lap(Pass::WeightGradient);
                        }
                        (None, Sums::Kept(kept)) => {
                            product.backward.keep(i, image, kept, backward);
                            clock.lap(Pass::Widen);
                        }
                        (None, Sums::Chunks(_)) => unreachable!("chunks have their sums"),
                    }
                }
            });
        }
        self.slabs[g] = own;
        if let (Some(target), Some(dx)) = (other, dx) {
            self.slabs[target.slab] = dx;
        }
        match product.sums {
            WeightSums::Chunks(_) => self.add_partials(isa, pool, product),
            WeightSums::Blocks => self.sum_blocks(pool, product),
        }
    }

    /// The weight gradients of a layer whose images were kept, blocks of output channels in parallel.
    fn sum_blocks(&mut self, pool: &Pool, product: &mut Product) {
        pool.enter(Pass::WeightGradient, &product.name);
        let mut partial = std::mem::take(&mut product.partial);
        let blocks = product.backward.blocks().expect("a layer of blocks");
        // Some blocks at a time read an image's channels once from afar; tasks enough for the threads come first.
        let of_task = (blocks / TASKS).max(1);
        let of_block = partial.len() / blocks;
        {
            let (batch, zero, kept) = (self.batch, &product.zeros.codes, &self.kept);
            let (partial, scratch) =
                (Chunked::new(&mut partial, of_task * of_block), Chunked::new(&mut self.scratch, 1));
            let backward = &product.backward;
            pool.run(partial.chunks(), &|task, worker| {
                let scratch = &mut scratch.get(worker)[0].backward;
                let own = task * of_task..((task + 1) * of_task).min(blocks);
                backward.block_sums(own, zero, batch, kept, &mut partial.get(task), scratch);
            });
        }
        product.partial = partial;
    }
}

/// Tasks that images, or blocks of channels, are cut into where no sums depend on it.
const TASKS: usize = 16;

/// Where the images of a backward product leave their part of the weight gradient.
enum Sums<'a> {
    /// In the sum of their chunk.
    Chunks(Chunked<'a, f32>),
    /// What it is made from, image by image.
    Kept(BatchImages<'a>),
}

/// Image `i` as the weight gradient of `product` reads it.
fn image<'a>(
    isa: Isa,
    product: &'a Product,
    i: usize,
    input: &'a Value,
    params: &Params,
    x: &'a mut Aligned<f32>,
) -> Image<'a> {
    let len = input.layout.len();
    match &input.store {
        Store::Codes(_) => {
            let (zeros, scale) = (&product.zeros, product.widening(params));
            Image::Codes { codes: input.store.codes(i, len), zeros, scale, wide: &mut x[..len] }
        }
        _ if product.backward.needs_rounded_input() => Image::Real(rounded(isa, input.store.real(i, len), x)),
        _ => Image::Real(input.store.real(i, len)),
    }
}

/// Takes two different slabs out of the plan.
fn take_two(slabs: &mut [Aligned<f32>], a: usize, b: usize) -> (Aligned<f32>, Aligned<f32>) {
    debug_assert_ne!(a, b);
    (std::mem::take(&mut slabs[a]), std::mem::take(&mut slabs[b]))
}
