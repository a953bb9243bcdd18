//! What a network is to give for an example.

use bitpact_core::rng::Key;

use crate::{Augment, ImageShape};

/// Kind of the targets of a data set, and so the task that its examples teach: to classify, to segment, to restore or
/// to regress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// A class: [`Dataset::label`](crate::Dataset::label).
    Class,
    /// A class for each pixel of `h` rows and `w` columns, by its number; [`IGNORED`] for a pixel that counts for
    /// nothing.
    Mask {
        /// Number of rows.
        h: usize,
        /// Number of columns.
        w: usize,
    },
    /// An image of this size, pixels divided by 255.
    Image(ImageShape),
    /// So many real numbers.
    Numbers(usize),
}

/// The class of a pixel that counts neither in the loss nor in a metric.
pub const IGNORED: f32 = -1.0;

/// The unit of a number of a target: the number means `zero + scale * number` of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Name of the unit, such as `mmHg`.
    pub name: &'static str,
    /// Value of the number 0.
    pub zero: f64,
    /// Difference that the number 1 makes.
    pub scale: f64,
}

impl Unit {
    /// The number that stands for `value`.
    pub fn number(&self, value: f64) -> f64 {
        (value - self.zero) / self.scale
    }
}

impl TargetKind {
    /// Numbers of one target; 1 for a class.
    pub fn len(self) -> usize {
        match self {
            TargetKind::Class => 1,
            TargetKind::Mask { h, w } => h * w,
            TargetKind::Image(shape) => shape.len(),
            TargetKind::Numbers(n) => n,
        }
    }

    /// Tells whether there are no targets.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Reason why `augment` cannot act on these targets as it does on the images; `None` where it can.
    pub fn refuses(self, augment: &Augment, image: ImageShape) -> Option<&'static str> {
        let sides = (image.h, image.w);
        match self {
            TargetKind::Class => None,
            TargetKind::Mask { h, w } if (h, w) == sides => None,
            TargetKind::Mask { .. } if augment.pad > 0 => {
                Some("masks of another size than the images cannot be cropped with them")
            }
            TargetKind::Mask { .. } => None,
            TargetKind::Image(_) if augment.pad > 0 => {
                Some("what lies beyond an image cannot be restored: leave out pad")
            }
            TargetKind::Image(_) => None,
            TargetKind::Numbers(_) if augment.pad > 0 || augment.flip => {
                Some("numbers do not move with the images: leave out pad and flip")
            }
            TargetKind::Numbers(_) => None,
        }
    }

    /// Does to `target` what [`Augment::apply`] with the same key does to the image; pixels of a mask that come from
    /// outside are [`IGNORED`].
    pub fn augment(self, augment: &Augment, key: Key, target: &mut [f32]) {
        let (down, right, flip) = augment.draw(key);
        let (h, w, c) = match self {
            TargetKind::Mask { h, w } => (h, w, 1),
            TargetKind::Image(ImageShape { h, w, c }) => (h, w, c),
            TargetKind::Class | TargetKind::Numbers(_) => return,
        };
        if (down, right, flip) == (0, 0, false) {
            return;
        }
        let source = target.to_vec();
        for (at, pixel) in target.chunks_exact_mut(c).enumerate() {
            let (y, x) = ((at / w) as isize + down, at % w);
            let x = (if flip { w - 1 - x } else { x }) as isize + right;
            let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
            match inside {
                true => pixel.copy_from_slice(&source[(y as usize * w + x as usize) * c..][..c]),
                false => pixel.fill(IGNORED),
            }
        }
    }
}
