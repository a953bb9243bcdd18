//! Pad-crop and horizontal flip of byte images, written straight into a network's bordered input buffer.

use bitpact_core::rng::Key;

use crate::ImageShape;

/// Where an image lies in a buffer whose pixels and rows may be wider than the image's.
///
/// Channel `c` of pixel `(y, x)` is byte `offset + y * row_stride + x * pixel_stride + c`. Bytes in between, such as
/// the buffer's border and its padding channels, are left as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Byte of the first pixel.
    pub offset: usize,
    /// Bytes from a row to the next.
    pub row_stride: usize,
    /// Bytes from a pixel to the next, at least the number of channels.
    pub pixel_stride: usize,
}

impl Placement {
    /// An image with nothing in between.
    pub fn dense(shape: ImageShape) -> Self {
        Self { offset: 0, row_stride: shape.w * shape.c, pixel_stride: shape.c }
    }

    /// Byte of channel 0 of pixel `(y, x)`.
    pub fn pixel(&self, y: usize, x: usize) -> usize {
        self.offset + y * self.row_stride + x * self.pixel_stride
    }

    fn row(&self, y: usize, shape: ImageShape) -> std::ops::Range<usize> {
        let start = self.offset + y * self.row_stride;
        start..start + (shape.w - 1) * self.pixel_stride + shape.c
    }
}

/// The key of one image's augmentation: equal for equal arguments, whatever thread or resumed run asks.
pub fn augment_key(seed: u64, epoch: u64, index: u64) -> Key {
    Key::new(seed).with("augment").at(epoch).at(index)
}

/// Random crop out of the padded image, then a flip about the vertical axis in half of all cases (He et al. 2015,
/// section 4.2: `pad` 4, `flip`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Augment {
    /// Pixels of padding on each side; the crop moves by -pad..=pad in both directions, each as likely.
    pub pad: usize,
    /// Says whether images are mirrored, left to right, at random.
    pub flip: bool,
    /// Value of the padding for each channel: the code that stands for real zero in the network's input.
    pub fill: Vec<u8>,
}

impl Augment {
    /// The crop that `key` chooses, down and to the right, and whether it flips.
    pub(crate) fn draw(&self, key: Key) -> (isize, isize, bool) {
        let offsets = 2 * self.pad as u32 + 1;
        let down = key.below(0, offsets) as isize - self.pad as isize;
        let right = key.below(1, offsets) as isize - self.pad as isize;
        (down, right, self.flip && key.below(2, 2) == 1)
    }

    /// Writes the crop and flip that `key` chooses of the image `src` (HWC) to `out`.
    ///
    /// # Panics
    /// When `src` is not one image of `shape`, `fill` not one value per channel, or `out` too short for `place`.
    pub fn apply(&self, key: Key, src: &[u8], shape: ImageShape, out: &mut [u8], place: Placement) {
        let (down, right, flip) = self.draw(key);
        self.crop(down, right, flip, src, shape, out, place);
    }

    /// Pixel `(y, x)` of the result is pixel `(y + down, x' + right)` of `src`, with `x' = w - 1 - x` under a flip and
    /// `x` otherwise, or `fill` outside the image.
    fn crop(
        &self,
        down: isize,
        right: isize,
        flip: bool,
        src: &[u8],
        shape: ImageShape,
        out: &mut [u8],
        place: Placement,
    ) {
        let ImageShape { h, w, c } = shape;
        assert_eq!(src.len(), shape.len(), "bytes of the source image");
        assert_eq!(self.fill.len(), c, "one fill value per channel");
        assert!(place.pixel_stride >= c, "a pixel stride of {} for {c} channels", place.pixel_stride);
        let left_fill = (-right).clamp(0, w as isize) as usize;
        let right_fill = right.clamp(0, w as isize) as usize;
        let inside = left_fill..w - right_fill;
        let column = |x: usize| (if flip { w - 1 - x } else { x }) * place.pixel_stride;
        for y in 0..h {
            let row = &mut out[place.row(y, shape)];
            let src_y = y as isize + down;
            let covered = if (0..h as isize).contains(&src_y) { inside.clone() } else { 0..0 };
            for x in (0..covered.start).chain(covered.end..w) {
                row[column(x)..][..c].copy_from_slice(&self.fill);
            }
            if covered.is_empty() {
                continue;
            }
            let first = (src_y as usize * w + (covered.start as isize + right) as usize) * c;
            let pixels = &src[first..first + covered.len() * c];
            if !flip {
                copy_pixels(pixels, c, &mut row[column(covered.start)..], place.pixel_stride);
            } else {
                for (x, pixel) in covered.zip(pixels.chunks_exact(c)) {
                    row[column(x)..][..c].copy_from_slice(pixel);
                }
            }
        }
    }
}

/// Writes the image `src` (HWC) to `out` as it is.
///
/// # Panics
/// When `src` is not one image of `shape` or `out` too short for `place`.
pub fn copy_plain(src: &[u8], shape: ImageShape, out: &mut [u8], place: Placement) {
    assert_eq!(src.len(), shape.len(), "bytes of the source image");
    assert!(place.pixel_stride >= shape.c, "a pixel stride of {} for {} channels", place.pixel_stride, shape.c);
    for (y, pixels) in src.chunks_exact(shape.w * shape.c).enumerate() {
        copy_pixels(pixels, shape.c, &mut out[place.row(y, shape)], place.pixel_stride);
    }
}

fn copy_pixels(pixels: &[u8], c: usize, row: &mut [u8], pixel_stride: usize) {
    if pixel_stride == c {
        row[..pixels.len()].copy_from_slice(pixels);
    } else if let (3, 4) = (c, pixel_stride) {
        for (to, from) in row.chunks_mut(4).zip(pixels.as_chunks::<3>().0) {
            to[..3].copy_from_slice(from);
        }
    } else {
        for (to, from) in row.chunks_mut(pixel_stride).zip(pixels.chunks_exact(c)) {
            to[..c].copy_from_slice(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: usize = 4;

    fn picture(shape: ImageShape) -> Vec<u8> {
        let key = Key::new(3).with("picture");
        (0..shape.len() as u64).map(|i| key.below(i, 256) as u8).collect()
    }

    fn augment(c: usize) -> Augment {
        Augment { pad: PAD, flip: true, fill: [10, 20, 30, 40][..c].to_vec() }
    }

    /// Pads, cuts and mirrors one step after the other.
    fn naive(a: &Augment, down: isize, right: isize, flip: bool, src: &[u8], shape: ImageShape) -> Vec<u8> {
        let ImageShape { h, w, c } = shape;
        let (padded_h, padded_w) = (h + 2 * a.pad, w + 2 * a.pad);
        let mut padded: Vec<u8> = (0..padded_h * padded_w).flat_map(|_| a.fill.clone()).collect();
        for y in 0..h {
            for i in 0..w * c {
                padded[((y + a.pad) * padded_w + a.pad) * c + i] = src[y * w * c + i];
            }
        }
        let (top, left) = ((a.pad as isize + down) as usize, (a.pad as isize + right) as usize);
        let mut out = Vec::new();
        for y in 0..h {
            for x in 0..w {
                let x = if flip { w - 1 - x } else { x };
                out.extend_from_slice(&padded[((top + y) * padded_w + left + x) * c..][..c]);
            }
        }
        out
    }

    #[test]
    fn every_crop_and_flip_equals_the_naive_one() {
        for shape in [(7, 9, 3), (32, 32, 3), (5, 6, 1), (3, 2, 4), (1, 1, 3)].map(|(h, w, c)| ImageShape { h, w, c }) {
            let (a, src) = (augment(shape.c), picture(shape));
            let mut out = vec![0; shape.len()];
            for down in -4..=4 {
                for right in -4..=4 {
                    for flip in [false, true] {
                        a.crop(down, right, flip, &src, shape, &mut out, Placement::dense(shape));
                        assert_eq!(out, naive(&a, down, right, flip, &src, shape), "{shape:?} {down} {right} {flip}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_bordered_buffer_keeps_its_border_and_padding_channels() {
        let shape = ImageShape { h: 6, w: 5, c: 3 };
        let (src, a) = (picture(shape), augment(3));
        for pixel_stride in [3, 4, 16] {
            let border = 2;
            let row_stride = (shape.w + 2 * border) * pixel_stride;
            let place = Placement { offset: border * row_stride + border * pixel_stride, row_stride, pixel_stride };
            let empty = vec![99; (shape.h + 2 * border) * row_stride];
            let expect = |dense: &[u8]| {
                let mut expected = empty.clone();
                for (i, &value) in dense.iter().enumerate() {
                    let (y, x, c) = (i / (shape.w * 3), i / 3 % shape.w, i % 3);
                    expected[(y + border) * row_stride + (x + border) * pixel_stride + c] = value;
                }
                expected
            };
            let mut out = empty.clone();
            copy_plain(&src, shape, &mut out, place);
            assert_eq!(out, expect(&src), "plain, pixel stride {pixel_stride}");
            for flip in [false, true] {
                let mut out = empty.clone();
                a.crop(-3, 2, flip, &src, shape, &mut out, place);
                assert_eq!(out, expect(&naive(&a, -3, 2, flip, &src, shape)), "pixel stride {pixel_stride} {flip}");
            }
        }
    }

    #[test]
    fn all_offsets_and_flips_occur_about_equally_often() {
        let shape = ImageShape { h: 12, w: 12, c: 3 };
        let (a, src) = (augment(3), picture(shape));
        let mut variants = std::collections::HashMap::new();
        for down in -4..=4 {
            for right in -4..=4 {
                for flip in [false, true] {
                    variants.insert(naive(&a, down, right, flip, &src, shape), 0);
                }
            }
        }
        assert_eq!(variants.len(), 162);
        let mut out = vec![0; shape.len()];
        let per_variant = 100;
        for index in 0..162 * per_variant {
            a.apply(augment_key(1, 0, index), &src, shape, &mut out, Placement::dense(shape));
            *variants.get_mut(&out).expect("a crop of the padded image") += 1;
        }
        // The count of one variant has a standard deviation of 10: 6 of them either way.
        assert!(variants.values().all(|&n| (40..=160).contains(&n)), "{:?}", variants.values());
    }

    #[test]
    fn without_pad_and_flip_nothing_changes() {
        let shape = ImageShape { h: 4, w: 4, c: 3 };
        let (a, src) = (Augment { pad: 0, flip: false, fill: vec![0; 3] }, picture(shape));
        let mut out = vec![0; shape.len()];
        for index in 0..50 {
            a.apply(augment_key(1, 0, index), &src, shape, &mut out, Placement::dense(shape));
            assert_eq!(out, src);
        }
    }

    #[test]
    fn the_choice_depends_on_seed_epoch_and_image_alone() {
        let shape = ImageShape { h: 8, w: 8, c: 3 };
        let (a, src) = (augment(3), picture(shape));
        let choices = |seed, epoch| -> Vec<Vec<u8>> {
            (0..100)
                .map(|index| {
                    let mut out = vec![0; shape.len()];
                    a.apply(augment_key(seed, epoch, index), &src, shape, &mut out, Placement::dense(shape));
                    out
                })
                .collect()
        };
        let base = choices(1, 0);
        assert_eq!(base, choices(1, 0));
        for other in [choices(1, 1), choices(2, 0)] {
            assert!(base.iter().zip(&other).filter(|(a, b)| a == b).count() < 10);
        }
    }
}
