//! Masks: pictures whose values are the numbers of classes.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat};
use png::{BitDepth, ColorType, Transformations};

use crate::PictureError;
use crate::picture::{Picture, check_size, damaged, decode, read};
use crate::whole;

/// Bytes that the decoder of a mask may reserve.
const MOST_MEMORY: usize = 1 << 29;

/// The value of a pixel that counts for nothing.
pub(crate) const IGNORED: u8 = 255;

/// Reads a mask: the grey values of a PNG or TIFF file as they are stored, or, of a PNG with a palette, the places in
/// the palette.
pub(crate) fn read_mask(path: &Path) -> Result<Picture, PictureError> {
    let bytes = read(path)?;
    let expected =
        "expected a grey PNG or TIFF of up to 8 bits, or a PNG with a palette, whose values are the numbers of classes";
    match image::guess_format(&bytes).ok() {
        Some(ImageFormat::Png) => {}
        Some(ImageFormat::Tiff) => {
            let DynamicImage::ImageLuma8(grey) = decode(path, &bytes)? else {
                return Err(damaged(path, "TIFF", &format!("its colours are no classes: {expected}")));
            };
            let (w, h) = (grey.width() as usize, grey.height() as usize);
            return Ok(Picture { h, w, c: 1, pixels: grey.into_raw() });
        }
        _ => return Err(damaged(path, "mask", &expected)),
    }
    let fault = |what: &dyn std::fmt::Display| damaged(path, "PNG", what);
    let bytes = whole::png(&bytes).ok_or_else(|| fault(&"its end is missing"))?;
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: MOST_MEMORY });
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(|e| fault(&e))?;
    let info = reader.info();
    let (w, h) = (info.width as usize, info.height as usize);
    check_size(path, (info.width, info.height), 0)?;
    let depth = match (info.color_type, info.bit_depth) {
        (ColorType::Grayscale | ColorType::Indexed, depth) if depth != BitDepth::Sixteen => depth as usize,
        _ => return Err(fault(&format!("its colours are no classes: {expected}"))),
    };
    let length = reader.output_buffer_size().ok_or_else(|| fault(&"its size is beyond all memory"))?;
    let mut packed = vec![0; length];
    let frame = reader.next_frame(&mut packed).map_err(|e| fault(&e))?;
    let mut pixels = Vec::with_capacity(h * w);
    for row in packed.chunks_exact(frame.line_size).take(h) {
        let value = |x: usize| row[x * depth / 8] >> (8 - depth - x * depth % 8) & (0xff >> (8 - depth)) as u8;
        pixels.extend((0..w).map(value));
    }
    match pixels.len() == h * w {
        true => Ok(Picture { h, w, c: 1, pixels }),
        false => Err(fault(&"it has fewer rows than its head says")),
    }
}
