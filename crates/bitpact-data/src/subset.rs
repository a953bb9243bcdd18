//! Some images of a set, in an order of one's own.

use bitpact_core::rng::Key;

use crate::{Dataset, ImageShape, TargetKind, Unit, epoch_order};

/// Seed of the permutation by which images are held out: the same for every run.
const HELD_OUT: u64 = 0x0068_656c_646f_7574;

/// The images of a set at some indices.
pub struct Subset<'a> {
    images: &'a dyn Dataset,
    indices: Vec<u32>,
}

impl<'a> Subset<'a> {
    /// Splits `images` into those to learn from and `held_out` others: the last ones of a permutation that depends on
    /// nothing but the number of images. `None` where nothing would be in one of them.
    pub fn hold_out(images: &'a dyn Dataset, held_out: usize) -> Option<(Self, Self)> {
        let kept = images.len().checked_sub(held_out).filter(|&kept| kept > 0 && held_out > 0)?;
        let mut indices = epoch_order(HELD_OUT, 0, images.len());
        let mut held = indices.split_off(kept);
        // In the order of the set, so that a part of it is read as the set is.
        indices.sort_unstable();
        held.sort_unstable();
        Some((Self { images, indices }, Self { images, indices: held }))
    }
}

impl Dataset for Subset<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn image_shape(&self) -> ImageShape {
        self.images.image_shape()
    }

    fn image(&self, index: usize, out: &mut [u8]) {
        self.images.image(self.indices[index] as usize, out);
    }

    fn label(&self, index: usize) -> usize {
        self.images.label(self.indices[index] as usize)
    }

    fn class_names(&self) -> &[String] {
        self.images.class_names()
    }

    fn target_kind(&self) -> TargetKind {
        self.images.target_kind()
    }

    fn units(&self) -> &[Unit] {
        self.images.units()
    }

    fn target(&self, index: usize, out: &mut [f32]) {
        self.images.target(self.indices[index] as usize, out);
    }

    fn drawn(&self, index: usize, key: Key, image: Option<&mut [u8]>, target: Option<&mut [f32]>) {
        self.images.drawn(self.indices[index] as usize, key, image, target);
    }

    fn is_slow(&self) -> bool {
        self.images.is_slow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemory;

    #[test]
    fn the_two_parts_are_the_set_and_the_same_every_time() {
        let shape = ImageShape { h: 1, w: 1, c: 1 };
        let labels = (0..100).map(|i| i % 3).collect();
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let set = InMemory::new((0..100).collect(), labels, shape, names).unwrap();
        let (kept, held) = Subset::hold_out(&set, 30).unwrap();
        let pixels = |part: &Subset<'_>| -> Vec<u8> {
            let pixel = |i: usize| {
                let mut out = [0];
                part.image(i, &mut out);
                assert_eq!(part.label(i), usize::from(out[0]) % 3);
                out[0]
            };
            (0..part.len()).map(pixel).collect()
        };
        let (kept, held) = (pixels(&kept), pixels(&held));
        assert_eq!((kept.len(), held.len()), (70, 30));
        let mut all = [kept, held.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<u8>>());
        assert!(held.iter().any(|&pixel| pixel < 50) && held.iter().any(|&pixel| pixel >= 50), "{held:?}");
        let (_, again) = Subset::hold_out(&set, 30).unwrap();
        assert_eq!(pixels(&again), held);
        // Fewer are a part of more.
        let (_, fewer) = Subset::hold_out(&set, 10).unwrap();
        assert!(pixels(&fewer).iter().all(|pixel| held.contains(pixel)));
        assert!([0, 100, 101].iter().all(|&n| Subset::hold_out(&set, n).is_none()));
    }
}
