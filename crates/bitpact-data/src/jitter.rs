//! Colours of a training image changed at random.

use bitpact_core::rng::Key;

use crate::ImageShape;

/// How far the colours of a training image may move, as in torchvision's `ColorJitter`, in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ColorJitter {
    /// Pixels are multiplied by a factor between 1 - this, at least 0, and 1 + this.
    pub brightness: f32,
    /// Pixels move away from the mean grey of the image, or to it, by such a factor.
    pub contrast: f32,
    /// Pixels move away from their own grey, or to it, by such a factor.
    pub saturation: f32,
    /// Hues turn by up to this part of a whole turn, at most 1/2.
    pub hue: f32,
}

/// Grey of a colour (ITU-R BT.601).
fn grey([r, g, b]: [f32; 3]) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

fn clamp(value: f32) -> f32 {
    value.clamp(0.0, 255.0)
}

impl ColorJitter {
    /// Tells whether the jitter changes nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Changes the colours of `image`, HWC, as `key` chooses. Saturation and hue are those of images of three channels.
    ///
    /// # Panics
    /// When `image` is not one of `shape`.
    pub fn apply(&self, key: Key, shape: ImageShape, image: &mut [u8]) {
        assert_eq!(image.len(), shape.len(), "bytes of the image");
        if self.is_none() {
            return;
        }
        let key = key.with("colour");
        let factor = |n: u64, reach: f32| {
            let (least, most) = ((1.0 - reach).max(0.0), 1.0 + reach);
            least + (most - least) * key.uniform(n)
        };
        let (brightness, contrast) = (factor(0, self.brightness), factor(1, self.contrast));
        let (saturation, turn) = (factor(2, self.saturation), self.hue * (2.0 * key.uniform(3) - 1.0));
        let lit = |value: u8| clamp(f32::from(value) * brightness);
        let has_colour = shape.c == 3;
        let sum: f64 = match has_colour {
            true => image.as_chunks::<3>().0.iter().map(|pixel| f64::from(grey(pixel.map(lit)))).sum(),
            false => image.iter().map(|&value| f64::from(lit(value))).sum(),
        };
        let mean = (sum / (image.len() / if has_colour { 3 } else { 1 }) as f64) as f32;
        let contrasted = |value: u8| match self.contrast > 0.0 {
            true => clamp(mean + (lit(value) - mean) * contrast),
            false => lit(value),
        };
        if !has_colour {
            image.iter_mut().for_each(|value| *value = contrasted(*value).round() as u8);
            return;
        }
        for pixel in image.as_chunks_mut::<3>().0 {
            let mut colour = pixel.map(contrasted);
            if self.saturation > 0.0 {
                let own = grey(colour);
                colour = colour.map(|value| clamp(own + (value - own) * saturation));
            }
            if self.hue > 0.0 {
                colour = turned(colour, turn);
            }
            *pixel = colour.map(|value| value.round() as u8);
        }
    }
}

/// A colour whose hue is turned by a part of a whole turn, of the same largest and least channel.
fn turned([r, g, b]: [f32; 3], turn: f32) -> [f32; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = most - least;
    if chroma <= 0.0 {
        return [r, g, b];
    }
    // In sixths of a turn.
    let hue = if most == r {
        (g - b) / chroma
    } else if most == g {
        2.0 + (b - r) / chroma
    } else {
        4.0 + (r - g) / chroma
    };
    let hue = (hue + 6.0 * turn + 12.0) % 6.0;
    // Each channel is full within a sixth of its own hue, gone within a sixth of the opposite one.
    let channel = |own: f32| {
        let away = (hue - own).abs();
        least + chroma * (2.0 - away.min(6.0 - away)).clamp(0.0, 1.0)
    };
    [channel(0.0), channel(2.0), channel(4.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { h: 4, w: 5, c: 3 };

    fn picture(shape: ImageShape) -> Vec<u8> {
        (0..shape.len() as u64).map(|i| Key::new(8).below(i, 256) as u8).collect()
    }

    fn jittered(jitter: ColorJitter, seed: u64) -> Vec<u8> {
        let mut image = picture(SHAPE);
        jitter.apply(Key::new(seed), SHAPE, &mut image);
        image
    }

    #[test]
    fn hues_turn_as_on_the_wheel() {
        let close = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(close(turned([255.0, 0.0, 0.0], 1.0 / 3.0), [0.0, 255.0, 0.0]));
        assert!(close(turned([255.0, 0.0, 0.0], -1.0 / 3.0), [0.0, 0.0, 255.0]));
        assert!(close(turned([200.0, 100.0, 0.0], 0.5), [0.0, 100.0, 200.0]));
        for pixel in picture(SHAPE).as_chunks::<3>().0 {
            let colour = pixel.map(f32::from);
            assert!(close(turned(colour, 0.0), colour) && close(turned(colour, 1.0), colour), "{colour:?}");
        }
        assert_eq!(turned([9.0; 3], 0.3), [9.0; 3]);
    }

    #[test]
    fn each_part_changes_what_it_says() {
        let none = ColorJitter::default();
        assert_eq!(jittered(none, 1), picture(SHAPE));
        let lit = jittered(ColorJitter { brightness: 0.5, ..none }, 1);
        let factor = 0.5 + Key::new(1).with("colour").uniform(0);
        for (to, from) in lit.iter().zip(picture(SHAPE)) {
            assert_eq!(f32::from(*to), (f32::from(from) * factor).min(255.0).round());
        }
        // Saturation and hue keep greys.
        let shape = ImageShape { h: 2, w: 1, c: 3 };
        let mut greys = vec![7, 7, 7, 200, 200, 200];
        ColorJitter { saturation: 0.9, hue: 0.5, ..none }.apply(Key::new(3), shape, &mut greys);
        assert_eq!(greys, [7, 7, 7, 200, 200, 200]);
        // Contrast is the distance from the mean, 50 of these two.
        let mut two = vec![20, 80];
        let shape = ImageShape { h: 1, w: 2, c: 1 };
        ColorJitter { contrast: 0.3, ..none }.apply(Key::new(5), shape, &mut two);
        let away = 30.0 * (0.7 + 0.6 * Key::new(5).with("colour").uniform(1));
        assert_eq!(two, [(50.0 - away).round() as u8, (50.0 + away).round() as u8]);
    }

    #[test]
    fn colours_depend_on_the_key_alone() {
        let jitter = ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
        assert_eq!(jittered(jitter, 1), jittered(jitter, 1));
        assert_ne!(jittered(jitter, 1), jittered(jitter, 2));
    }
}
