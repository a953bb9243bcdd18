//! Images on their way into the network's input buffer: crop, flip, cutout and mixup in training, as they are in
//! evaluation.

use std::cell::RefCell;

use bitpact_core::rng::Key;
use bitpact_data::{Augment, Cutout, Dataset, ImageShape, Placement, augment_key, copy_plain, mix};

use super::Setup;

thread_local! {
    /// One image as the data set hands it out; kept by each thread from step to step.
    static IMAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The augmented image that another is mixed with.
    static PARTNER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Training images, augmented by (seed, epoch, index) alone, mixed by (seed, step).
pub(crate) struct Batches<'a> {
    dataset: &'a dyn Dataset,
    augment: Augment,
    cutout: Cutout,
    mixup: f64,
    seed: u64,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(setup: &Setup, dataset: &'a dyn Dataset) -> Self {
        let (recipe, fill) = (&setup.recipe, setup.input.zero_bytes());
        let augment = Augment { pad: recipe.augment.pad, flip: recipe.augment.flip, fill: fill.clone() };
        let cutout = Cutout { size: recipe.cutout, fill };
        Self { dataset, augment, cutout, mixup: recipe.mixup, seed: recipe.seed }
    }

    /// What is left of every image of step `step`, in 256ths, where images are mixed.
    pub(crate) fn mixup(&self, step: u64) -> Option<u16> {
        let draw = || (Key::new(self.seed).with("mixup").beta(step, self.mixup) * 256.0).round() as u16;
        (self.mixup > 0.0).then(draw)
    }

    /// Writes image `index` as it is in epoch `epoch`, cropped and flipped, to its place in `out`; returns its label.
    pub(crate) fn fill(&self, epoch: u64, index: usize, out: &mut [u8], place: Placement) -> usize {
        self.write(epoch, index, out, place);
        self.dataset.label(index)
    }

    /// Writes image `i` of the batch `indices` as a step of epoch `epoch` learns from it: cropped, flipped and cut, and
    /// mixed with the image as far from the batch's end where `mixup` says so. Returns its own label.
    pub(crate) fn fill_step(
        &self,
        epoch: u64,
        indices: &[u32],
        i: usize,
        mixup: Option<u16>,
        out: &mut [u8],
        place: Placement,
    ) -> usize {
        let write = |i: usize, out: &mut [u8], place: Placement| {
            let index = indices[i] as usize;
            self.write(epoch, index, out, place);
            let shape = self.dataset.bytes_shape();
            self.cutout.apply(augment_key(self.seed, epoch, index as u64), shape, out, place);
        };
        write(i, out, place);
        if let Some(share) = mixup {
            let shape = self.dataset.bytes_shape();
            PARTNER.with_borrow_mut(|partner| {
                partner.resize(shape.len(), 0);
                write(indices.len() - 1 - i, partner, Placement::dense(shape));
                mix(share, partner, shape, out, place);
            });
        }
        self.dataset.label(indices[i] as usize)
    }

    /// Writes the targets of a batch, moved as its images are, one after the other to `out`.
    pub(crate) fn targets(&self, epoch: u64, indices: &[u32], out: &mut [f32]) {
        let kind = self.dataset.target_kind();
        for (&index, target) in indices.iter().zip(out.chunks_exact_mut(kind.len())) {
            self.dataset.target(index as usize, target);
            kind.augment(&self.augment, augment_key(self.seed, epoch, u64::from(index)), target);
        }
    }

    fn write(&self, epoch: u64, index: usize, out: &mut [u8], place: Placement) {
        let key = augment_key(self.seed, epoch, index as u64);
        with_image(self.dataset, index, |image, shape| {
            if self.augment.pad == 0 && !self.augment.flip {
                copy_plain(image, shape, out, place);
            } else {
                self.augment.apply(key, image, shape, out, place);
            }
        });
    }
}

/// Writes image `index` as it is to its place in `out`; returns its label.
pub(super) fn fill_plain(dataset: &dyn Dataset, index: usize, out: &mut [u8], place: Placement) -> usize {
    with_image(dataset, index, |image, shape| copy_plain(image, shape, out, place));
    dataset.label(index)
}

fn with_image(dataset: &dyn Dataset, index: usize, f: impl FnOnce(&[u8], ImageShape)) {
    let shape = dataset.bytes_shape();
    IMAGE.with_borrow_mut(|image| {
        image.resize(shape.len(), 0);
        dataset.image(index, image);
        f(image, shape);
    });
}
