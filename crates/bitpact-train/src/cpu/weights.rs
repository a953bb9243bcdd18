//! What a step does with weights outside the products: quantized and packed before, their gradients brought together
//! after. Large layers are cut into blocks or come first, so that no thread is left with one at the end.

use bitpact_kernels::{Chunked, Isa, elements};

use super::plan::{Shortcut, StageKind, StageStep, StepPlan};
use super::product::Product;
use super::profile::Pool;
use crate::profile::Pass;

/// Values of a block of partial sums at the least, and blocks of a layer at the most.
const BLOCK: usize = 4096;
const BLOCKS: usize = 512;

impl StepPlan {
    /// Quantizes and packs every layer's weights, layers in parallel.
    pub(super) fn prepare(&mut self, isa: Isa, pool: &Pool, training: bool) {
        pool.enter(Pass::Weights, "");
        let (params, pixels, order) = (&self.params, &self.pixels, &self.largest_first);
        let stages = Chunked::new(&mut self.stages, 1);
        pool.run(order.len(), &|task, _| {
            each_product(&mut stages.get(order[task])[0], |product| product.prepare(isa, params, pixels, training));
        });
    }

    /// Adds up the weight gradients of the chunks of images, in their order, blocks of weights in parallel.
    pub(super) fn add_partials(&self, isa: Isa, pool: &Pool, product: &mut Product) {
        pool.enter(Pass::PartialSums, &product.name);
        let len = product.partial.len();
        let block = len.div_ceil(BLOCKS).max(BLOCK);
        let (partials, total) =
            (&self.partials[..product.sums.partials() * len], Chunked::new(&mut product.partial, block));
        pool.run(total.chunks(), &|i, _| {
            let mut total = total.get(i);
            let of_block = i * block..i * block + total.len();
            let mut chunks = partials.chunks_exact(len).map(|chunk| &chunk[of_block.clone()]);
            total.copy_from_slice(chunks.next().expect("a layer has a chunk of images"));
            chunks.for_each(|chunk| elements::add(isa, &mut total, chunk));
        });
    }

    /// Weight gradients through quantizers and folding, layers in parallel.
    pub(super) fn weight_gradients(&mut self, pool: &Pool) {
        pool.enter(Pass::WeightQuantizer, "");
        let (pixels, order) = (&self.pixels, &self.largest_first);
        let (stages, scratch) = (Chunked::new(&mut self.stages, 1), Chunked::new(&mut self.scratch, 1));
        let params = self.params.chunked();
        pool.run(order.len(), &|task, worker| {
            let mut scratch = scratch.get(worker);
            each_product(&mut stages.get(order[task])[0], |product| {
                let dwq = &mut scratch[0].dwq[..product.weights()];
                product.weight_gradient(pixels, &mut params.get(product.weight)[0], dwq);
                if let Some(step) = product.step {
                    product.step_gradient(pixels, &mut params.get(step)[0].grad);
                }
            });
        });
    }
}

/// Calls `f` on every product of a stage that has weights.
fn each_product(stage: &mut StageStep, mut f: impl FnMut(&mut Product)) {
    let StageKind::Unit(unit) = &mut stage.kind else { return };
    if !unit.main.is_identity() {
        f(&mut unit.main);
    }
    if let Shortcut::Projection { product, .. } = &mut unit.shortcut {
        f(product);
    }
}

/// The stages with weights, those with most weights first.
pub(super) fn largest_first(stages: &[StageStep]) -> Vec<usize> {
    let weights = |stage: &StageStep| super::plan::products_of(&stage.kind).map(|p| p.weights()).sum::<usize>();
    let mut order: Vec<usize> = (0..stages.len()).filter(|&i| weights(&stages[i]) > 0).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(weights(&stages[i])));
    order
}
