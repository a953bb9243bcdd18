//! Some images of a set, drawn at random.

use bitpact_data::{Dataset, ImageShape, TargetKind, epoch_order};

/// Images of a set in a drawn order.
pub struct Drawn {
    from: Box<dyn Dataset>,
    images: Vec<u32>,
}

/// At most `count` images of `from`, a function of `seed`.
pub fn draw(from: Box<dyn Dataset>, count: usize, seed: u64) -> Drawn {
    let mut images = epoch_order(seed, 0, from.len());
    images.truncate(count);
    Drawn { from, images }
}

impl Dataset for Drawn {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn image_shape(&self) -> ImageShape {
        self.from.image_shape()
    }

    fn code_bits(&self) -> u8 {
        self.from.code_bits()
    }

    fn image(&self, index: usize, out: &mut [u8]) {
        self.from.image(self.images[index] as usize, out);
    }

    fn label(&self, index: usize) -> usize {
        self.from.label(self.images[index] as usize)
    }

    fn class_names(&self) -> &[String] {
        self.from.class_names()
    }

    fn target_kind(&self) -> TargetKind {
        self.from.target_kind()
    }

    fn target(&self, index: usize, out: &mut [f32]) {
        self.from.target(self.images[index] as usize, out);
    }
}
