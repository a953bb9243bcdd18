//! The built-in set: ten kinds of small drawings on 32 x 32 colour images, made by a seeded program.
//!
//! Each image is a figure of random place, size, turn, stretch and colour over a sloping background with blobs and
//! strokes that mean nothing, then noise. Class pairs differ in one detail (a hole, one more tip, bars or cells), so
//! that a network has to look closely and low widths cost accuracy. The constants below set how hard it is.
//!
//! An image depends on (seed, half, index) alone: fewer images are the first of more. Only integers and + - * / of
//! `f32` are used, so the bytes are the same on every machine.

mod canvas;
mod figure;
pub mod tasks;

use bitpact_core::rng::Key;

use crate::{DataError, ImageShape, InMemory, Split, dataset::limited_len};
use canvas::{Canvas, Frame};

/// Names of the ten classes in the order of their labels.
pub const CLASS_NAMES: [&str; 10] =
    ["disc", "ring", "crescent", "triangle", "square", "cross", "star5", "star6", "stripes", "checker"];

/// Size of every image.
pub const SHAPE: ImageShape = ImageShape { h: SIDE, w: SIDE, c: 3 };

/// The seed of the set that goes by the name `builtin`.
pub const SEED: u64 = 1;
/// Training images of the set that goes by the name `builtin`.
pub const TRAIN_IMAGES: usize = 10_000;
/// Test images of the set that goes by the name `builtin`.
pub const TEST_IMAGES: usize = 2_000;

const SIDE: usize = 32;

/// Radius of the circle that the figure fits in, in pixels.
const RADIUS: (f32, f32) = (8.0, 13.0);
/// How far the figure's middle may be from the image's, of the room that there is.
const ROAM: f32 = 0.7;
/// Longer axis over shorter axis; 1 is undistorted.
const STRETCH: (f32, f32) = (1.0, 1.25);
/// Width of the figure's edge in pixels; above 1 it is blurred.
const EDGE: (f32, f32) = (1.0, 1.8);
/// Greatest difference of a channel between the figure, or a blob or stroke, and the background, of 255.
const CONTRAST: (f32, f32) = (55.0, 120.0);
/// Value of a background channel in the middle of the image.
const BACKGROUND: (f32, f32) = (70.0, 185.0);
/// Greatest change of a background channel from the middle to an edge.
const SLOPE: f32 = 24.0;
/// Number of meaningless blobs under the figure, 0..=this.
const BLOBS: u32 = 2;
/// Radius of a blob in pixels.
const BLOB_RADIUS: (f32, f32) = (1.2, 4.0);
/// Number of meaningless strokes over the figure, 0..=this.
const STROKES: u32 = 1;
/// Half the length of a stroke in pixels.
const STROKE_REACH: (f32, f32) = (3.0, 9.0);
/// Half the width of a stroke in pixels.
const STROKE_WIDTH: (f32, f32) = (0.4, 0.9);
/// Greatest noise of an image, per pixel and channel, of 255; its distribution is a triangle with its peak at 0.
const NOISE: (f32, f32) = (5.0, 28.0);

/// Draws `train` and `test` images, the classes taking turns.
///
/// # Errors
/// When either number is 0.
pub fn generate(seed: u64, train: usize, test: usize) -> Result<Split, DataError> {
    let half = |name: &str, what: &str, n: usize| -> Result<Box<InMemory>, DataError> {
        limited_len(what, n, None)?;
        let key = Key::new(seed).with("synthetic").with(name);
        let mut images = vec![0; n * SHAPE.len()];
        for (index, out) in images.chunks_exact_mut(SHAPE.len()).enumerate() {
            draw(key.at(index as u64), index % CLASS_NAMES.len(), out);
        }
        let labels = (0..n).map(|index| (index % CLASS_NAMES.len()) as u16).collect();
        Ok(Box::new(InMemory::new(images, labels, SHAPE, CLASS_NAMES.map(str::to_string).to_vec())?))
    };
    Ok(Split {
        train: half("train", "the built-in training set", train)?,
        test: half("test", "the built-in test set", test)?,
    })
}

/// Random numbers one after the other out of one key.
struct Dice {
    key: Key,
    next: u64,
}

impl Dice {
    fn new(key: Key) -> Self {
        Self { key, next: 0 }
    }

    /// Uniform in `[range.0, range.1)`.
    fn between(&mut self, range: (f32, f32)) -> f32 {
        self.next += 1;
        range.0 + (range.1 - range.0) * self.key.uniform(self.next)
    }

    /// Uniform in `-limit..limit`.
    fn within(&mut self, limit: f32) -> f32 {
        self.between((-limit, limit))
    }

    /// Uniform in `0..n`.
    fn below(&mut self, n: u32) -> u32 {
        self.next += 1;
        self.key.below(self.next, n)
    }

    /// Cosine and sine of an angle that is uniform but for a density within 15 %: a quarter turn plus
    /// `2 atan(t)`, `|t| < tan(pi/8)`, of which both are quotients.
    fn direction(&mut self) -> [f32; 2] {
        const TAN_PI_8: f32 = 0.414_213_57;
        let t = self.within(TAN_PI_8);
        let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        match self.below(4) {
            0 => [cos, sin],
            1 => [-sin, cos],
            2 => [-cos, -sin],
            _ => [sin, -cos],
        }
    }

    /// A colour whose channel farthest from `base` is one contrast away.
    fn colour_beside(&mut self, base: [f32; 3]) -> [f32; 3] {
        let step = [0; 3].map(|_| self.within(1.0));
        let largest = step.iter().fold(0.05f32, |largest, s| largest.max(s.abs()));
        let contrast = self.between(CONTRAST);
        [0, 1, 2].map(|c| base[c] + step[c] / largest * contrast)
    }
}

fn draw(key: Key, class: usize, out: &mut [u8]) {
    let mut dice = Dice::new(key.with("layout"));
    let canvas = picture(&mut dice, class, EDGE);
    canvas.finish(dice.between(NOISE), key.with("noise"), out);
}

/// The figure of a class on its background, with edges of that width, before noise.
fn picture(dice: &mut Dice, class: usize, edge: (f32, f32)) -> Canvas {
    let background = [0; 3].map(|_| dice.between(BACKGROUND));
    let (down, right) = ([0; 3].map(|_| dice.within(SLOPE)), [0; 3].map(|_| dice.within(SLOPE)));
    let mut canvas = Canvas::new(background, down, right);
    let middle = SIDE as f32 / 2.0;

    for _ in 0..dice.below(BLOBS + 1) {
        let colour = dice.colour_beside(background);
        let radius = dice.between(BLOB_RADIUS);
        let frame = Frame {
            centre: [0; 2].map(|_| middle + dice.within(middle)),
            axis: dice.direction(),
            scale: [radius, radius * dice.between(STRETCH)],
            edge: dice.between(edge),
        };
        if dice.below(2) == 0 {
            canvas.paint(&frame, 1.0, colour, |p| figure::disc(p, 1.0));
        } else {
            canvas.paint(&frame, 1.0, colour, |p| figure::rectangle(p, 0.8, 0.8));
        }
    }

    let colour = dice.colour_beside(background);
    let radius = dice.between(RADIUS);
    let stretch = dice.between(STRETCH);
    let room = ROAM * (middle - 0.8 * radius);
    let frame = Frame {
        centre: [0; 2].map(|_| middle + dice.within(room)),
        axis: dice.direction(),
        scale: [radius, radius / stretch],
        edge: dice.between(edge),
    };
    canvas.uncover();
    figure::paint(&mut canvas, &frame, colour, class, dice);
    canvas.keep_covered();

    for _ in 0..dice.below(STROKES + 1) {
        let colour = dice.colour_beside(background);
        let frame = Frame {
            centre: [0; 2].map(|_| middle + dice.within(middle)),
            axis: dice.direction(),
            scale: [1.0, 1.0],
            edge: 1.0,
        };
        let (reach, width) = (dice.between(STROKE_REACH), dice.between(STROKE_WIDTH));
        canvas.paint(&frame, reach, colour, |p| figure::rectangle(p, reach, width));
    }
    canvas
}
