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
    /// Whether to flip at all.
    pub flip: bool,
    /// Value of the padding for each channel: the code that stands for real zero in the network's input.
    pub fill: Vec<u8>,
}

impl Augment {
    /// Writes the crop and flip that `key` chooses of the image `src` (HWC) to `out`.
    ///
    /// # Panics
    /// When `src` is not one image of `shape`, `fill` not one value per channel, or `out` too short for `place`.
    pub fn apply(&self, key: Key, src: &[u8], shape: ImageShape, out: &mut [u8], place: Placement) {
        let offsets = 2 * self.pad as u32 + 1;
        let down = key.below(0, offsets) as isize - self.pad as isize;
        let right = key.below(1, offsets) as isize - self.pad as isize;
        let flip = self.flip && key.below(2, 2) == 1;
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
        let column = |x: usize| if flip { w - 1 - x } else { x } * place.pixel_stride;
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
