//! The channels of one group, cut out of an image and put back.

use crate::machine::layout::{Layout, Plain};

/// Images whose channels are cut into equal groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slices {
    whole: Layout,
    /// Layout of one group, of the same size and border.
    pub(super) part: Layout,
}

impl Slices {
    pub(super) fn new(whole: Layout, groups: usize) -> Self {
        Self { whole, part: Layout::new(whole.h, whole.w, whole.c / groups, whole.border) }
    }

    /// Copies the channels of group `g`, border included; zeros in the channels beyond.
    pub(super) fn gather<T: Plain>(&self, g: usize, whole: &[T], part: &mut [T]) {
        assert!(whole.len() == self.whole.len() && part.len() == self.part.len(), "images of a group");
        let c = self.part.c;
        for (part, whole) in part.chunks_exact_mut(self.part.cs).zip(whole.chunks_exact(self.whole.cs)) {
            part[..c].copy_from_slice(&whole[g * c..(g + 1) * c]);
            part[c..].fill(T::default());
        }
    }

    /// Offsets of the interior pixels: in the whole, in the part.
    fn pixels(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Slices { whole, part } = *self;
        (0..whole.h).flat_map(move |y| (0..whole.w).map(move |x| (whole.offset(y, x), part.offset(y, x))))
    }

    /// Copies the interior pixels of a part to the channels of group `g`.
    pub(super) fn scatter<T: Plain>(&self, g: usize, part: &[T], whole: &mut [T]) {
        assert!(whole.len() == self.whole.len() && part.len() == self.part.len(), "images of a group");
        let c = self.part.c;
        for (to, from) in self.pixels() {
            whole[to + g * c..][..c].copy_from_slice(&part[from..from + c]);
        }
    }

    /// Adds the interior pixels of a part to the channels of group `g`.
    pub(super) fn scatter_add(&self, g: usize, part: &[f32], whole: &mut [f32]) {
        assert!(whole.len() == self.whole.len() && part.len() == self.part.len(), "images of a group");
        let c = self.part.c;
        for (to, from) in self.pixels() {
            let to = &mut whole[to + g * c..][..c];
            to.iter_mut().zip(&part[from..from + c]).for_each(|(to, from)| *to += from);
        }
    }

    /// Zeros the channels beyond the last of every interior pixel.
    pub(super) fn clear_beyond(&self, whole: &mut [f32]) {
        for (at, _) in self.pixels() {
            whole[at + self.whole.c..at + self.whole.cs].fill(0.0);
        }
    }
}
