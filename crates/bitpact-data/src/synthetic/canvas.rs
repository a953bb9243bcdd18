//! A small float image that figures are painted on with soft edges.

use super::SIDE;
use bitpact_core::rng::Key;

/// Place, turn, size and sharpness of a figure.
pub(super) struct Frame {
    /// Column and row of the middle, in pixels.
    pub(super) centre: [f32; 2],
    /// Cosine and sine of the turn.
    pub(super) axis: [f32; 2],
    /// Pixels of the figure's unit along its own two axes.
    pub(super) scale: [f32; 2],
    /// Width of the edge in pixels.
    pub(super) edge: f32,
}

/// Colours of all pixels, row by row, 0 to 255.
pub(super) struct Canvas {
    pixels: [[f32; 3]; SIDE * SIDE],
    /// Pixels that were covered by half or more since the last [`Canvas::uncover`].
    touched: [bool; SIDE * SIDE],
    covered: [bool; SIDE * SIDE],
}

impl Canvas {
    /// `middle` in the middle of the image, changing by `down` and `right` from there to the edges.
    pub(super) fn new(middle: [f32; 3], down: [f32; 3], right: [f32; 3]) -> Self {
        let half = SIDE as f32 / 2.0;
        let mut pixels = [[0.0; 3]; SIDE * SIDE];
        for (i, pixel) in pixels.iter_mut().enumerate() {
            let (y, x) = (((i / SIDE) as f32 + 0.5) / half - 1.0, ((i % SIDE) as f32 + 0.5) / half - 1.0);
            *pixel = [0, 1, 2].map(|c| middle[c] + y * down[c] + x * right[c]);
        }
        Self { pixels, touched: [false; SIDE * SIDE], covered: [false; SIDE * SIDE] }
    }

    /// Forgets which pixels were covered.
    pub(super) fn uncover(&mut self) {
        self.touched.fill(false);
    }

    /// Keeps the pixels covered so far as those of the figure.
    pub(super) fn keep_covered(&mut self) {
        self.covered = self.touched;
    }

    /// Pixels of the figure, row by row.
    pub(super) fn covered(&self) -> &[bool] {
        &self.covered
    }

    /// Covers the figure whose points `p`, in units of the frame, have `distance(p) <= 0`, in units of the frame and
    /// negative inside; it lies within `reach` units of the middle in every direction.
    pub(super) fn paint(&mut self, frame: &Frame, reach: f32, colour: [f32; 3], distance: impl Fn([f32; 2]) -> f32) {
        let [cos, sin] = frame.axis;
        let shorter = frame.scale[0].min(frame.scale[1]);
        let longer = frame.scale[0].max(frame.scale[1]);
        // The corner of a square of half side `reach` is the farthest point.
        let far = 1.4143 * reach * longer + frame.edge;
        let span = |middle: f32| {
            let clamp = |v: f32| v.clamp(0.0, SIDE as f32) as usize;
            clamp(middle - far)..clamp(middle + far + 1.0)
        };
        for y in span(frame.centre[1]) {
            for x in span(frame.centre[0]) {
                let (dx, dy) = (x as f32 + 0.5 - frame.centre[0], y as f32 + 0.5 - frame.centre[1]);
                let p = [(cos * dx + sin * dy) / frame.scale[0], (cos * dy - sin * dx) / frame.scale[1]];
                let cover = (0.5 - distance(p) * shorter / frame.edge).clamp(0.0, 1.0);
                self.touched[y * SIDE + x] |= cover >= 0.5;
                for (value, target) in self.pixels[y * SIDE + x].iter_mut().zip(colour) {
                    *value += cover * (target - *value);
                }
            }
        }
    }

    /// Adds noise of at most `noise` and rounds to bytes.
    pub(super) fn finish(&self, noise: f32, key: Key, out: &mut [u8]) {
        const TEN_BITS: u64 = 1023;
        for (i, (pixel, bytes)) in self.pixels.iter().zip(out.chunks_exact_mut(3)).enumerate() {
            let bits = key.u64(i as u64);
            for (c, (value, byte)) in pixel.iter().zip(bytes).enumerate() {
                let pair = bits >> (20 * c);
                let sum = (pair & TEN_BITS) + (pair >> 10 & TEN_BITS);
                let triangle = (sum as f32 - TEN_BITS as f32) / TEN_BITS as f32;
                *byte = (value + triangle * noise + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
    }
}
