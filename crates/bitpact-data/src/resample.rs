//! Rectangles of pictures, chosen and scaled.

use bitpact_core::rng::Key;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use crate::picture::Picture;

/// How pixels are weighed where a rectangle is scaled. Where it shrinks, filters widen with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Bilinear.
    Triangle,
    /// Bicubic with a = -1/2, as in MATLAB's imresize.
    Cubic,
}

/// A rectangle of a picture in pixels, whose sides are multiples of 1/256, within the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) y: f64,
    pub(crate) x: f64,
    pub(crate) h: f64,
    pub(crate) w: f64,
}

/// Tries to find a random rectangle before the middle is taken.
const TRIES: u64 = 10;
/// Logarithm of 4/3: random rectangles have ratios from 3/4 to 4/3 of the image's.
const LOG_RATIO: f64 = 0.287_682_072_451_780_9;

/// `v` in steps of 1/256, of which sums and differences are exact.
fn stepped(v: f64) -> f64 {
    (v * 256.0).round_ties_even() / 256.0
}

impl Window {
    /// The rectangle around the middle of a picture that becomes an image of the size `to` where the picture's shorter
    /// side is scaled to `resize`; the largest one with the image's ratio where `resize` is `None` or too short.
    pub(crate) fn middle((height, width): (usize, usize), to: (usize, usize), resize: Option<usize>) -> Self {
        let (height, width) = (height as f64, width as f64);
        let least = (to.0 as f64 / height).max(to.1 as f64 / width);
        let scale = resize.map_or(least, |side| (side as f64 / height.min(width)).max(least));
        let side = |to: usize, whole: f64| stepped(to as f64 / scale).clamp(1.0, whole);
        let (h, w) = (side(to.0, height), side(to.1, width));
        Self { y: stepped((height - h) / 2.0), x: stepped((width - w) / 2.0), h, w }
    }

    /// A rectangle of a share of the picture's area between `area[0]` and `area[1]` and a ratio from 3/4 to 4/3 of the
    /// image's, both uniform, the ratio in its logarithm, at any place (Szegedy et al. 2015, arXiv 1409.4842, section
    /// 6); the middle where ten of them do not fit.
    pub(crate) fn random(key: Key, (height, width): (usize, usize), to: (usize, usize), area: [f64; 2]) -> Self {
        let key = key.with("resized crop");
        let (whole_h, whole_w) = (height as f64, width as f64);
        let own = to.1 as f64 / to.0 as f64;
        for i in 0..TRIES {
            let draw = |n: u64| f64::from(key.at(i).uniform(n));
            let pixels = whole_h * whole_w * (area[0] + (area[1] - area[0]) * draw(0));
            let ratio = own * libm::exp(LOG_RATIO * (2.0 * draw(1) - 1.0));
            let (h, w) = (stepped((pixels / ratio).sqrt()).max(1.0), stepped((pixels * ratio).sqrt()).max(1.0));
            if h <= whole_h && w <= whole_w {
                let place = |n: u64, room: f64| (draw(n) * room * 256.0).floor() / 256.0;
                return Self { y: place(2, whole_h - h), x: place(3, whole_w - w), h, w };
            }
        }
        Self::middle((height, width), to, None)
    }

    /// The rectangle at a whole pixel that keeps its size.
    pub(crate) fn at(y: usize, x: usize, (h, w): (usize, usize)) -> Self {
        Self { y: y as f64, x: x as f64, h: h as f64, w: w as f64 }
    }
}

/// The pixels of `window` scaled to the size `to`; copied where that is its size and it lies on whole pixels.
///
/// # Panics
/// Where the window is not within the picture, or `to` has a side of 0.
pub(crate) fn resample(picture: &Picture, window: Window, to: (usize, usize), filter: Filter) -> Vec<u8> {
    let Picture { h, w, c, ref pixels } = *picture;
    let is_whole = window.y.fract() == 0.0 && window.x.fract() == 0.0;
    if is_whole && (window.h, window.w) == (to.0 as f64, to.1 as f64) {
        let (y, x) = (window.y as usize, window.x as usize);
        let mut out = Vec::with_capacity(to.0 * to.1 * c);
        (y..y + to.0).for_each(|y| out.extend_from_slice(&pixels[(y * w + x) * c..][..to.1 * c]));
        return out;
    }
    let filter = match filter {
        Filter::Triangle => FilterType::Bilinear,
        Filter::Cubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(filter))
        .crop(window.x, window.y, window.w, window.h)
        .use_alpha(false);
    let mut out = vec![0; to.0 * to.1 * c];
    // Named kinds of pixels alone are compiled: the library has a dozen.
    match c {
        1 => resize::<U8>((h, w, pixels), (to, &mut out), &options),
        _ => resize::<U8x3>((h, w, pixels), (to, &mut out), &options),
    }
    out
}

/// Scales pixels of the kind `P` from (height, width, bytes) into (size, bytes).
fn resize<P: PixelTrait>(
    (h, w, from): (usize, usize, &[u8]),
    (to, out): ((usize, usize), &mut [u8]),
    options: &ResizeOptions,
) {
    let from = TypedImageRef::<P>::from_buffer(w as u32, h as u32, from).expect("a picture has its pixels");
    let mut out = TypedImage::<P>::from_buffer(to.1 as u32, to.0 as u32, out).expect("as many bytes as the size has");
    Resizer::new().resize_typed(&from, &mut out, options).expect("the window lies within the picture");
}

/// For each pixel of the size `to` the value of the pixel of `picture`, of one channel, under its middle: numbers that
/// mean something, such as classes, are not mixed.
pub(crate) fn nearest(picture: &Picture, window: Window, to: (usize, usize)) -> Vec<u8> {
    let along = |from: f64, side: f64, n: usize, i: usize, whole: usize| {
        ((from + side * (i as f64 + 0.5) / n as f64) as usize).min(whole - 1)
    };
    let mut out = Vec::with_capacity(to.0 * to.1);
    for y in 0..to.0 {
        let row = &picture.pixels[along(window.y, window.h, to.0, y, picture.h) * picture.w..][..picture.w];
        out.extend((0..to.1).map(|x| row[along(window.x, window.w, to.1, x, picture.w)]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(y: f64, x: f64, h: f64, w: f64) -> Window {
        Window { y, x, h, w }
    }

    #[test]
    fn the_middle_is_the_largest_part_or_that_of_a_scaled_picture() {
        assert_eq!(Window::middle((480, 640), (32, 32), None), window(0.0, 80.0, 480.0, 480.0));
        assert_eq!(Window::middle((640, 480), (224, 224), None), window(80.0, 0.0, 480.0, 480.0));
        assert_eq!(Window::middle((32, 32), (32, 32), None), window(0.0, 0.0, 32.0, 32.0));
        assert_eq!(Window::middle((100, 100), (16, 32), None), window(25.0, 0.0, 50.0, 100.0));
        assert_eq!(Window::middle((60_000, 1), (224, 224), None), window(29_999.5, 0.0, 1.0, 1.0));
        // 256 to 224 of a picture of 512 rows: 448 of them.
        assert_eq!(Window::middle((512, 600), (224, 224), Some(256)), window(32.0, 76.0, 448.0, 448.0));
        // A side too short for the image is the least that fills it.
        assert_eq!(Window::middle((512, 600), (224, 224), Some(100)), Window::middle((512, 600), (224, 224), None));
    }

    fn gradient(h: usize, w: usize, c: usize) -> Picture {
        Picture { h, w, c, pixels: (0..h * w * c).map(|i| (i * 7 % 251) as u8).collect() }
    }

    #[test]
    fn a_window_of_the_images_size_is_copied() {
        for c in [1, 3] {
            let picture = gradient(5, 7, c);
            let out = resample(&picture, Window::at(1, 2, (3, 4)), (3, 4), Filter::Triangle);
            let expected: Vec<u8> = (1..4).flat_map(|y| picture.pixels[(y * 7 + 2) * c..][..4 * c].to_vec()).collect();
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn filters_keep_a_constant_and_a_triangle_averages_what_it_shrinks() {
        let flat = Picture { h: 9, w: 11, c: 3, pixels: [40, 50, 60].repeat(99) };
        for filter in [Filter::Triangle, Filter::Cubic] {
            assert_eq!(resample(&flat, window(0.5, 0.25, 7.5, 9.0), (4, 3), filter), [40, 50, 60].repeat(12));
        }
        let stripes = Picture { h: 4, w: 64, c: 1, pixels: [0, 200].repeat(128) };
        let out = resample(&stripes, Window::at(0, 0, (4, 64)), (4, 8), Filter::Triangle);
        assert!(out.iter().all(|&v| (95..=105).contains(&v)), "{out:?}");
    }

    #[test]
    fn nearest_takes_the_pixel_under_the_middle() {
        let mask = Picture { h: 2, w: 4, c: 1, pixels: vec![1, 2, 3, 4, 5, 6, 7, 8] };
        assert_eq!(nearest(&mask, Window::at(0, 0, (2, 4)), (2, 4)), mask.pixels);
        assert_eq!(nearest(&mask, Window::at(0, 0, (2, 4)), (1, 2)), [6, 8]);
        assert_eq!(nearest(&mask, Window::at(0, 1, (1, 2)), (2, 4)), [2, 2, 3, 3, 2, 2, 3, 3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn windows_lie_within_the_picture(
            h in 1..3000usize, w in 1..3000usize, to in (1..300usize, 1..300usize), resize in proptest::option::of(1..600usize),
            seed: u64, area in (0.01..1.0f64, 0.01..1.0f64),
        ) {
            let random = Window::random(Key::new(seed), (h, w), to, [area.0.min(area.1), area.0.max(area.1)]);
            for window in [Window::middle((h, w), to, resize), random] {
                prop_assert!(window.y >= 0.0 && window.x >= 0.0 && window.h >= 1.0 && window.w >= 1.0, "{window:?}");
                prop_assert!(window.y + window.h <= h as f64 && window.x + window.w <= w as f64, "{window:?}");
            }
        }
    }
}
