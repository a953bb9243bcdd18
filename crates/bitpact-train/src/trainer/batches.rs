//! Images on their way into the network's input buffer: parts and colours drawn at random, crop, flip, cutout and mixup
//! in training, as they are in evaluation.

use std::cell::RefCell;
use std::sync::Arc;

use bitpact_core::rng::Key;
use bitpact_data::{
    Ahead, Augment, ColorJitter, Cutout, Dataset, ImageShape, Placement, Prepared, TargetKind, augment_key, copy_plain,
    mix,
};

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
    jitter: ColorJitter,
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
        Self { dataset, jitter: recipe.jitter(), augment, cutout, mixup: recipe.mixup, seed: recipe.seed }
    }

    /// What is left of every image of step `step`, in 256ths, where images are mixed.
    pub(crate) fn mixup(&self, step: u64) -> Option<u16> {
        let draw = || (Key::new(self.seed).with("mixup").beta(step, self.mixup) * 256.0).round() as u16;
        (self.mixup > 0.0).then(draw)
    }

    /// Writes image `index` as it is in epoch `epoch`, cropped and flipped, to its place in `out`; returns its label.
    pub(crate) fn fill(&self, epoch: u64, index: usize, out: &mut [u8], place: Placement) -> usize {
        self.write(epoch, index, None, out, place);
        self.dataset.label(index)
    }

    /// Writes image `i` of the batch `indices` as a step of epoch `epoch` learns from it: cropped, flipped and cut, and
    /// mixed with the image as far from the batch's end where `mixup` says so. What `ready` holds is taken from there.
    /// Returns its own label.
    pub(crate) fn fill_step(
        &self,
        epoch: u64,
        indices: &[u32],
        i: usize,
        mixup: Option<u16>,
        ready: &Ready<'_>,
        out: &mut [u8],
        place: Placement,
    ) -> usize {
        let write = |i: usize, out: &mut [u8], place: Placement| {
            let index = indices[i] as usize;
            self.write(epoch, index, ready(i).as_deref(), out, place);
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
    pub(crate) fn targets(&self, epoch: u64, indices: &[u32], ready: &Ready<'_>, out: &mut [f32]) {
        let kind = self.dataset.target_kind();
        for (i, (&index, target)) in indices.iter().zip(out.chunks_exact_mut(kind.len())).enumerate() {
            let key = augment_key(self.seed, epoch, u64::from(index));
            match ready(i) {
                Some(prepared) => target.copy_from_slice(&prepared.target),
                None => self.dataset.drawn(index as usize, key, None, Some(target)),
            }
            kind.augment(&self.augment, key, target);
        }
    }

    /// A queue that makes the examples of an epoch, in its `order` from `start` on, ready on other threads; none where
    /// that does not pay.
    pub(crate) fn ahead<'b>(
        &'b self,
        epoch: u64,
        order: &'b [u32],
        start: usize,
        batch_size: usize,
    ) -> Option<Ahead<impl Fn(usize) -> Prepared + Sync + 'b>> {
        if !self.dataset.is_slow() {
            return None;
        }
        let kind = self.dataset.target_kind();
        let of_target = if kind == TargetKind::Class { 0 } else { kind.len() };
        let make = move |place: usize| {
            let mut image = vec![0; self.dataset.bytes_shape().len()];
            let mut target = vec![0.0; of_target];
            self.draw(epoch, order[place] as usize, &mut image, Some(&mut target[..]).filter(|_| of_target > 0));
            Prepared { image, target }
        };
        // A batch is held until its step is done, and the next one is made meanwhile.
        Some(Ahead::new(start, order.len() / batch_size * batch_size, 2 * batch_size, make))
    }

    /// Writes example `index` as the data set draws it in epoch `epoch`, in colours of that epoch.
    fn draw(&self, epoch: u64, index: usize, image: &mut [u8], target: Option<&mut [f32]>) {
        let key = augment_key(self.seed, epoch, index as u64);
        self.dataset.drawn(index, key, Some(image), target);
        if self.dataset.code_bits() == 8 {
            self.jitter.apply(key, self.dataset.image_shape(), image);
        }
    }

    fn write(&self, epoch: u64, index: usize, ready: Option<&Prepared>, out: &mut [u8], place: Placement) {
        let shape = self.dataset.bytes_shape();
        let put = |image: &[u8], out: &mut [u8]| {
            if self.augment.pad == 0 && !self.augment.flip {
                copy_plain(image, shape, out, place);
            } else {
                self.augment.apply(augment_key(self.seed, epoch, index as u64), image, shape, out, place);
            }
        };
        if let Some(prepared) = ready {
            return put(&prepared.image, out);
        }
        IMAGE.with_borrow_mut(|image| {
            image.resize(shape.len(), 0);
            self.draw(epoch, index, image, None);
            put(image, out);
        });
    }
}

/// Gives the example that is ready for place `i` of a batch, where one is.
pub(crate) type Ready<'a> = dyn Fn(usize) -> Option<Arc<Prepared>> + Sync + 'a;

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
