//! Images on their way into the network's input buffer: crop and flip in training, as they are in evaluation.

use std::cell::RefCell;

use bitpact_data::{Augment, Dataset, ImageShape, Placement, augment_key, copy_plain};
use bitpact_kernels::Layout;

use super::Setup;

thread_local! {
    /// One image as the data set hands it out; kept by each thread from step to step.
    static IMAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Training images, augmented by (seed, epoch, index) alone.
pub(crate) struct Batches<'a> {
    dataset: &'a dyn Dataset,
    augment: Augment,
    seed: u64,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(setup: &Setup, dataset: &'a dyn Dataset) -> Self {
        let (recipe, fill) = (&setup.recipe, setup.input.zero_point.clone());
        let augment = Augment { pad: recipe.augment.pad, flip: recipe.augment.flip, fill };
        Self { dataset, augment, seed: recipe.seed }
    }

    /// Writes image `index` as epoch `epoch` sees it to the interior of `out`; returns its label.
    pub(crate) fn fill(&self, epoch: u64, index: usize, layout: Layout, out: &mut [u8]) -> usize {
        let key = augment_key(self.seed, epoch, index as u64);
        with_image(self.dataset, index, |image, shape| {
            if self.augment.pad == 0 && !self.augment.flip {
                copy_plain(image, shape, out, placement(layout));
            } else {
                self.augment.apply(key, image, shape, out, placement(layout));
            }
        });
        self.dataset.label(index)
    }
}

/// Writes image `index` as it is to the interior of `out`; returns its label.
pub(super) fn fill_plain(dataset: &dyn Dataset, index: usize, layout: Layout, out: &mut [u8]) -> usize {
    with_image(dataset, index, |image, shape| copy_plain(image, shape, out, placement(layout)));
    dataset.label(index)
}

fn with_image(dataset: &dyn Dataset, index: usize, f: impl FnOnce(&[u8], ImageShape)) {
    let shape = dataset.image_shape();
    IMAGE.with_borrow_mut(|image| {
        image.resize(shape.len(), 0);
        dataset.image(index, image);
        f(image, shape);
    });
}

fn placement(layout: Layout) -> Placement {
    Placement { offset: layout.offset(0, 0), row_stride: layout.row(), pixel_stride: layout.cs }
}
