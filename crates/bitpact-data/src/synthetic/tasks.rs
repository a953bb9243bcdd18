//! The built-in sets whose targets are no classes: figures to enlarge, figures to cut out, and signals to measure.

use bitpact_core::rng::Key;

use super::canvas::Canvas;
use super::{Dice, SHAPE, SIDE, picture};
use crate::dataset::limited_len;
use crate::{DataError, Examples, ImageShape, Split, TargetKind};

/// Training examples of each set.
pub const TRAIN_EXAMPLES: usize = 4000;
/// Test examples of each set.
pub const TEST_EXAMPLES: usize = 500;

/// Size of the images that are to be enlarged twice.
pub const SMALL: ImageShape = ImageShape { h: SIDE / 2, w: SIDE / 2, c: 3 };
/// Names of the channels of an enlarged image.
pub const COLOURS: [&str; 3] = ["red", "green", "blue"];

/// Width of the edges of drawings to enlarge, in pixels.
const SHARP: (f32, f32) = (0.3, 0.6);

/// The figures that are to be cut out, by their class among those of the built-in set.
const CUT_OUT: [usize; 4] = [0, 1, 4, 5];
/// Names of the classes of a pixel.
pub const PARTS: [&str; 5] = ["background", "disc", "ring", "square", "cross"];

/// Size of a signal: one row of samples.
pub const SIGNAL: ImageShape = ImageShape { h: 1, w: 64, c: 1 };
/// Names of what is to be measured.
pub const MEASURES: [&str; 2] = ["place", "width"];
/// Half the width of a pulse at half its height, in parts of the signal.
const PULSE_WIDTH: (f32, f32) = (0.02, 0.12);
/// Place of a pulse's middle, in parts of the signal.
const PULSE_PLACE: (f32, f32) = (0.15, 0.85);
/// Height of a pulse, of 255.
const PULSE_HEIGHT: (f32, f32) = (70.0, 150.0);
/// Greatest noise of a sample, of 255.
const SIGNAL_NOISE: f32 = 12.0;

/// Images of half the size, each pixel the mean of four with noise, and the drawings themselves, with sharp edges and
/// without noise.
///
/// # Errors
/// When either number is 0.
pub fn upscale(seed: u64, train: usize, test: usize) -> Result<Split, DataError> {
    let draw = |key: Key, index: usize, image: &mut [u8], target: &mut [f32]| {
        let mut whole = vec![0; SHAPE.len()];
        let mut dice = Dice::new(key.with("noise of small images"));
        let noise = dice.between(super::NOISE);
        drawing(key, index % super::CLASS_NAMES.len(), SHARP).finish(0.0, key, &mut whole);
        target.iter_mut().zip(&whole).for_each(|(to, &byte)| *to = f32::from(byte) / 255.0);
        for (at, byte) in image.iter_mut().enumerate() {
            let (y, x, c) = (at / 3 / SMALL.w, at / 3 % SMALL.w, at % 3);
            let pixel = |dy: usize, dx: usize| u32::from(whole[((2 * y + dy) * SIDE + 2 * x + dx) * 3 + c]);
            let mean = (pixel(0, 0) + pixel(0, 1) + pixel(1, 0) + pixel(1, 1)) as f32 / 4.0;
            *byte = (mean + noise * (dice.within(0.5) + dice.within(0.5)) + 0.5).clamp(0.0, 255.0) as u8;
        }
    };
    split((train, test), "upscale", seed, SMALL, TargetKind::Image(SHAPE), &COLOURS, draw)
}

/// Drawings with noise, and the class of every pixel: the figure's where it covers at least half of it.
///
/// # Errors
/// When either number is 0.
pub fn segments(seed: u64, train: usize, test: usize) -> Result<Split, DataError> {
    let draw = |key: Key, index: usize, image: &mut [u8], target: &mut [f32]| {
        let part = index % CUT_OUT.len();
        let mut dice = Dice::new(key.with("noise of segments"));
        let canvas = drawing(key, CUT_OUT[part], super::EDGE);
        canvas.finish(dice.between(super::NOISE), key.with("noise"), image);
        target
            .iter_mut()
            .zip(canvas.covered())
            .for_each(|(to, &covered)| *to = if covered { part as f32 + 1.0 } else { 0.0 });
    };
    split((train, test), "segments", seed, SHAPE, TargetKind::Mask { h: SIDE, w: SIDE }, &PARTS, draw)
}

/// Signals of one row: a pulse `height / (1 + ((x - place) / width)^2)` over a sloping ground, with noise; and its
/// place and width, each from -1 to 1 over their range.
///
/// # Errors
/// When either number is 0.
pub fn signals(seed: u64, train: usize, test: usize) -> Result<Split, DataError> {
    let draw = |key: Key, _: usize, image: &mut [u8], target: &mut [f32]| {
        let mut dice = Dice::new(key.with("pulse"));
        let (place, width, height) = (dice.between(PULSE_PLACE), dice.between(PULSE_WIDTH), dice.between(PULSE_HEIGHT));
        let (ground, slope) = (dice.between((20.0, 80.0)), dice.within(15.0));
        for (at, byte) in image.iter_mut().enumerate() {
            let x = (at as f32 + 0.5) / SIGNAL.w as f32;
            let far = (x - place) / width;
            let value = ground + slope * (2.0 * x - 1.0) + height / (1.0 + far * far) + dice.within(SIGNAL_NOISE);
            *byte = (value + 0.5).clamp(0.0, 255.0) as u8;
        }
        let over = |value: f32, (from, to): (f32, f32)| 2.0 * (value - from) / (to - from) - 1.0;
        (target[0], target[1]) = (over(place, PULSE_PLACE), over(width, PULSE_WIDTH));
    };
    split((train, test), "signals", seed, SIGNAL, TargetKind::Numbers(2), &MEASURES, draw)
}

/// The drawing of a class, before noise.
fn drawing(key: Key, class: usize, edge: (f32, f32)) -> Canvas {
    picture(&mut Dice::new(key.with("layout")), class, edge)
}

fn split(
    (train, test): (usize, usize),
    set: &str,
    seed: u64,
    shape: ImageShape,
    kind: TargetKind,
    names: &[&str],
    draw: impl Fn(Key, usize, &mut [u8], &mut [f32]),
) -> Result<Split, DataError> {
    let half = |name: &str, n: usize| -> Result<Box<Examples>, DataError> {
        limited_len("the built-in set", n, None)?;
        let key = Key::new(seed).with(set).with(name);
        let (mut images, mut targets) = (vec![0; n * shape.len()], vec![0.0; n * kind.len()]);
        let examples = images.chunks_exact_mut(shape.len()).zip(targets.chunks_exact_mut(kind.len()));
        examples.enumerate().for_each(|(index, (image, target))| draw(key.at(index as u64), index, image, target));
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Ok(Box::new(Examples::new(images, targets, shape, kind, names)?))
    };
    Ok(Split { train: half("train", train)?, test: half("test", test)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;

    #[test]
    fn targets_are_what_they_should_be() {
        let set = upscale(1, 20, 3).unwrap().test;
        let (mut small, mut large) = (vec![0; SMALL.len()], vec![0.0; SHAPE.len()]);
        set.image(2, &mut small);
        set.target(2, &mut large);
        // Noise is 28 at the most, and half of it mostly less than 6.
        let mean = |at: usize| {
            let (y, x, c) = (at / 3 / SMALL.w, at / 3 % SMALL.w, at % 3);
            [(0, 0), (0, 1), (1, 0), (1, 1)]
                .map(|(a, b)| large[((2 * y + a) * SIDE + 2 * x + b) * 3 + c] * 255.0)
                .iter()
                .sum::<f32>()
                / 4.0
        };
        let differences: Vec<f32> =
            small.iter().enumerate().map(|(at, &byte)| (f32::from(byte) - mean(at)).abs()).collect();
        assert!(differences.iter().all(|d| *d <= 28.6) && differences.iter().sum::<f32>() / 768.0 < 8.0);

        let set = segments(1, 8, 8).unwrap().train;
        let mut mask = vec![0.0; SIDE * SIDE];
        for index in 0..8 {
            set.target(index, &mut mask);
            let class = (index % 4 + 1) as f32;
            let covered = mask.iter().filter(|&&part| part == class).count();
            assert!(mask.iter().all(|&part| part == 0.0 || part == class), "{index}");
            assert!((40..700).contains(&covered), "{index}: {covered} pixels");
        }

        let set = signals(1, 200, 1).unwrap().train;
        let (mut signal, mut numbers) = (vec![0; SIGNAL.len()], [0.0; 2]);
        let mut near = 0;
        for index in 0..200 {
            set.image(index, &mut signal);
            set.target(index, &mut numbers);
            assert!(numbers.iter().all(|n| (-1.0..=1.0).contains(n)));
            let place = (PULSE_PLACE.0 + (numbers[0] + 1.0) / 2.0 * (PULSE_PLACE.1 - PULSE_PLACE.0)) * 64.0;
            let top = (0..64).max_by_key(|&at| signal[at]).unwrap();
            near += usize::from((top as f32 + 0.5 - place).abs() < 5.0);
        }
        assert!(near > 180, "the highest sample is near the pulse in {near} of 200 signals");
    }

    #[test]
    fn fewer_are_the_first_of_more() {
        let of = |n: usize| {
            let set = segments(1, n, 1).unwrap().train;
            let (mut image, mut mask) = (vec![0; SHAPE.len()], vec![0.0; SIDE * SIDE]);
            set.image(2, &mut image);
            set.target(2, &mut mask);
            (image, mask)
        };
        assert!(of(3) == of(10));
    }
}
