//! Pictures inside the page: PNG as `data:` addresses.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

/// Colours of the classes of a mask (Okabe and Ito), again from the first where there are more.
const CLASSES: [[u8; 3]; 8] = [
    [40, 44, 52],
    [230, 159, 0],
    [86, 180, 233],
    [0, 158, 115],
    [240, 228, 66],
    [0, 114, 178],
    [213, 94, 0],
    [204, 121, 167],
];

/// Pixels, HWC, as an address: of one channel grey, of three colours, of others their first.
pub(super) fn pixels([h, w, c]: [usize; 3], pixels: &[u8]) -> String {
    match c {
        3 => encoded(h, w, pixels, ExtendedColorType::Rgb8),
        1 => encoded(h, w, pixels, ExtendedColorType::L8),
        _ => encoded(h, w, &pixels.iter().step_by(c.max(1)).copied().collect::<Vec<_>>(), ExtendedColorType::L8),
    }
}

/// Real values in 0..=1, HWC.
pub(super) fn values(shape: [usize; 3], values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().map(|v| (v * 255.0).round().clamp(0.0, 255.0) as u8).collect();
    pixels(shape, &bytes)
}

/// The class of every pixel; what is below 0 counts for nothing and is white.
pub(super) fn mask(h: usize, w: usize, classes: impl Iterator<Item = i64>) -> String {
    let colour = |class: i64| usize::try_from(class).map_or([255; 3], |class| CLASSES[class % CLASSES.len()]);
    let bytes: Vec<u8> = classes.flat_map(colour).collect();
    encoded(h, w, &bytes, ExtendedColorType::Rgb8)
}

/// Nothing of pixels that are no picture of this size.
fn encoded(h: usize, w: usize, bytes: &[u8], colour: ExtendedColorType) -> String {
    let mut png = Vec::new();
    if bytes.len() != h * w * usize::from(colour.channel_count()) {
        return String::new();
    }
    match PngEncoder::new(&mut png).write_image(bytes, w as u32, h as u32, colour) {
        Ok(()) => format!("data:image/png;base64,{}", STANDARD.encode(png)),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(address: &str) -> image::DynamicImage {
        let bytes = STANDARD.decode(address.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        image::load_from_memory(&bytes).unwrap()
    }

    #[test]
    fn pictures_hold_their_pixels() {
        let grey = decoded(&pixels([1, 2, 1], &[0, 200])).to_luma8();
        assert_eq!(grey.as_raw(), &[0, 200]);
        let colour = decoded(&values([1, 1, 3], &[0.0, 0.5, 2.0])).to_rgb8();
        assert_eq!(colour.as_raw(), &[0, 128, 255]);
        let mask = decoded(&mask(1, 2, [-1, 9].into_iter())).to_rgb8();
        assert_eq!(mask.as_raw(), &[255, 255, 255, 230, 159, 0]);
        assert_eq!(pixels([2, 2, 3], &[1]), "");
    }
}
