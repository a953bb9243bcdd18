//! Cutout and mixup of byte images, in place.

use bitpact_core::rng::Key;

use crate::{ImageShape, Placement};

/// A square of a training image is replaced by the fill (DeVries and Taylor 2017, arXiv 1708.04552).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cutout {
    /// Side of the square; 0 for none.
    pub size: usize,
    /// Value of each channel: the code that stands for real zero in the network's input.
    pub fill: Vec<u8>,
}

impl Cutout {
    /// Cuts the square that `key` chooses out of an image of `shape` that lies in `out`. Its centre, pixel `size / 2`
    /// of its rows and columns, is any pixel of the image, each as likely; what of it lies outside cuts nothing.
    ///
    /// # Panics
    /// When `fill` is not one value per channel or `out` too short for `place`.
    pub fn apply(&self, key: Key, shape: ImageShape, out: &mut [u8], place: Placement) {
        if self.size == 0 {
            return;
        }
        assert_eq!(self.fill.len(), shape.c, "one fill value per channel");
        // The counters that crop and flip leave free.
        let (y, x) = (key.below(3, shape.h as u32) as usize, key.below(4, shape.w as u32) as usize);
        let span = |centre: usize, end: usize| {
            let half = self.size / 2;
            centre.saturating_sub(half)..(centre + self.size - half).min(end)
        };
        for y in span(y, shape.h) {
            for x in span(x, shape.w) {
                let at = place.offset + y * place.row_stride + x * place.pixel_stride;
                out[at..at + shape.c].copy_from_slice(&self.fill);
            }
        }
    }
}

/// Mixes the image of `shape` that lies in `out` with the image `other` (HWC): each byte becomes `share / 256` of
/// itself and the rest of the other's, rounded to the nearest, halves up (mixup: Zhang et al. 2018, arXiv 1710.09412,
/// eq. 1).
///
/// # Panics
/// When `share` is above 256, `other` not one image of `shape`, or `out` too short for `place`.
pub fn mix(share: u16, other: &[u8], shape: ImageShape, out: &mut [u8], place: Placement) {
    assert!(share <= 256, "a share of {share} 256ths");
    assert_eq!(other.len(), shape.len(), "bytes of the other image");
    let (own, rest) = (u32::from(share), 256 - u32::from(share));
    for (y, row) in other.chunks_exact(shape.w * shape.c).enumerate() {
        let start = place.offset + y * place.row_stride;
        for (x, pixel) in row.chunks_exact(shape.c).enumerate() {
            let at = start + x * place.pixel_stride;
            for (to, &from) in out[at..at + shape.c].iter_mut().zip(pixel) {
                *to = ((own * u32::from(*to) + rest * u32::from(from) + 128) >> 8) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment_key;

    const SHAPE: ImageShape = ImageShape { h: 6, w: 5, c: 3 };

    /// A bordered buffer with every byte 99, the image's own 7.
    fn bordered() -> (Vec<u8>, Placement) {
        let place = Placement { offset: 2 * 9 * 4 + 2 * 4, row_stride: 9 * 4, pixel_stride: 4 };
        let mut out = vec![99; 10 * 9 * 4];
        for (y, x) in (0..6).flat_map(|y| (0..5).map(move |x| (y, x))) {
            let at = place.offset + y * place.row_stride + x * place.pixel_stride;
            out[at..at + 3].fill(7);
        }
        (out, place)
    }

    /// Which pixels were cut; everything else must be as it was.
    fn cut(size: usize, index: u64) -> Vec<(usize, usize)> {
        let (before, place) = bordered();
        let mut out = before.clone();
        Cutout { size, fill: vec![10, 20, 30] }.apply(augment_key(1, 0, index), SHAPE, &mut out, place);
        let mut found = Vec::new();
        for (y, x) in (0..6).flat_map(|y| (0..5).map(move |x| (y, x))) {
            let at = place.offset + y * place.row_stride + x * place.pixel_stride;
            if out[at..at + 3] == [10, 20, 30] {
                found.push((y, x));
                out[at..at + 3].fill(7);
            }
        }
        assert_eq!(out, before, "nothing but whole pixels of the image");
        found
    }

    #[test]
    fn squares_lie_around_every_pixel_about_equally_often() {
        for size in [1, 2, 3, 4, 20] {
            let mut counts = std::collections::HashMap::new();
            for index in 0..3000 {
                *counts.entry(cut(size, index)).or_insert(0) += 1;
            }
            let squares = |y: usize, x: usize| -> Vec<(usize, usize)> {
                let near = |a: usize, centre: usize| (a + size / 2) >= centre && a + size / 2 < centre + size;
                let pixels = (0..6).flat_map(|y| (0..5).map(move |x| (y, x)));
                pixels.filter(|p| near(p.0, y) && near(p.1, x)).collect()
            };
            let mut wanted = std::collections::HashMap::new();
            for (y, x) in (0..6).flat_map(|y| (0..5).map(move |x| (y, x))) {
                *wanted.entry(squares(y, x)).or_insert(0) += 100;
            }
            assert_eq!(counts.len(), wanted.len(), "size {size}");
            for (square, &n) in &wanted {
                // Six standard deviations.
                let off = f64::from(counts[square] - n).abs();
                assert!(off <= 6.0 * f64::from(n).sqrt(), "size {size}: {square:?} {} times", counts[square]);
            }
        }
        assert!(cut(0, 3).is_empty());
    }

    #[test]
    fn mixing_is_the_rounded_mean_and_touches_nothing_else() {
        let (before, place) = bordered();
        let other: Vec<u8> = (0..SHAPE.len() as u64).map(|i| Key::new(5).below(i, 256) as u8).collect();
        for share in [0, 1, 128, 255, 256] {
            let mut out = before.clone();
            mix(share, &other, SHAPE, &mut out, place);
            for (i, &b) in other.iter().enumerate() {
                let at = place.offset + i / 15 * place.row_stride + i / 3 % 5 * place.pixel_stride + i % 3;
                let exact = (f64::from(share) * 7.0 + f64::from(256 - share) * f64::from(b)) / 256.0;
                assert_eq!(f64::from(out[at]), (exact + 0.5).floor(), "share {share} of 7, the rest of {b}");
                out[at] = 7;
            }
            assert_eq!(out, before);
        }
        let mut same = vec![200; SHAPE.len()];
        mix(77, &same.clone(), SHAPE, &mut same, Placement::dense(SHAPE));
        assert!(same.iter().all(|&p| p == 200), "an image mixed with itself");
    }
}
