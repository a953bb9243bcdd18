//! One picture, from a PNG or JPEG file to the pixels a network reads.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use image::imageops::{self, FilterType};
use image::{DynamicImage, GenericImageView, ImageDecoder, ImageFormat, ImageReader, Pixel, Rgb, RgbImage, Rgba};

use crate::{ImageShape, whole};

/// Bytes of the largest file that is read.
const LARGEST_FILE: u64 = 1 << 26;
/// Pixels of the largest picture that is decoded.
const MOST_PIXELS: u64 = 1 << 26;
/// Bytes the decoder may reserve.
const MOST_MEMORY: u64 = 1 << 29;

/// Why a picture cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The file cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file or the picture is too large.
    #[error("{}: {what}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large, and the limit.
        what: String,
    },
    /// The file is not a picture of a known kind.
    #[error("{}: not a PNG or JPEG file", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("{}: damaged {kind} file: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// `PNG` or `JPEG`.
        kind: &'static str,
        /// What the decoder says.
        what: String,
    },
    /// A picture cannot be brought to this number of channels.
    #[error("a picture has 1 or 3 channels, but {channels} are asked for")]
    Channels {
        /// Channels asked for.
        channels: usize,
    },
}

/// Reads a PNG or JPEG file as an image of `shape`, HWC.
///
/// 1. The picture is turned as its EXIF orientation says.
/// 2. It becomes 8-bit RGB for 3 channels (grey is repeated) or 8-bit grey for 1 (ITU-R BT.709 luma). What is
///    transparent shows `background`: (alpha * value + (255 - alpha) * background) / 255, to the nearest.
/// 3. The largest rectangle in its middle with the sides' ratio of `shape` is cut out, and
/// 4. scaled to `shape` with a triangle filter as wide as the scale (bilinear, with antialiasing where it shrinks). A
///    picture of the right size is taken as it is.
///
/// Pictures of more than 2^26 pixels and files of more than 2^26 bytes are refused before they are decoded.
///
/// # Errors
/// A file that cannot be read, is too large, of another kind or damaged, also where only its end is missing; a number
/// of channels other than 1 and 3.
pub fn load_picture_on(path: &Path, shape: ImageShape, background: [u8; 3]) -> Result<Vec<u8>, PictureError> {
    if !matches!(shape.c, 1 | 3) {
        return Err(PictureError::Channels { channels: shape.c });
    }
    let picture = opaque(decode(path, &read(path)?)?, background);
    Ok(match shape.c {
        1 => fit(&picture.into_luma8(), shape),
        _ => fit(&picture.into_rgb8(), shape),
    })
}

/// Reads a PNG or JPEG file as [`load_picture_on`] does, on white.
///
/// # Errors
/// Those of [`load_picture_on`].
pub fn load_picture(path: &Path, shape: ImageShape) -> Result<Vec<u8>, PictureError> {
    load_picture_on(path, shape, [255; 3])
}

fn read(path: &Path) -> Result<Vec<u8>, PictureError> {
    let fail = |source| PictureError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > LARGEST_FILE {
        let what = format!("more than {LARGEST_FILE} bytes, the most that is read");
        return Err(PictureError::TooLarge { path: path.to_owned(), what });
    }
    Ok(bytes)
}

fn decode(path: &Path, bytes: &[u8]) -> Result<DynamicImage, PictureError> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let reader = reader.map_err(|source| PictureError::Read { path: path.to_owned(), source })?;
    let (kind, format) = match reader.format() {
        Some(format @ ImageFormat::Png) => ("PNG", format),
        Some(format @ ImageFormat::Jpeg) => ("JPEG", format),
        _ => return Err(PictureError::Kind { path: path.to_owned() }),
    };
    let damaged = |what: String| PictureError::Damaged { path: path.to_owned(), kind, what };
    let whole = if kind == "JPEG" { whole::jpeg(bytes) } else { whole::png(bytes) };
    let Some(bytes) = whole else { return Err(damaged("its end is missing".to_owned())) };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| damaged(e.to_string()))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS || decoder.total_bytes() > MOST_MEMORY {
        let what = format!("{width} x {height} pixels, more than {MOST_PIXELS}, the most that are decoded");
        return Err(PictureError::TooLarge { path: path.to_owned(), what });
    }
    if width == 0 || height == 0 {
        return Err(damaged(format!("{width} x {height} pixels")));
    }
    let orientation = decoder.orientation().map_err(|e| damaged(e.to_string()))?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| damaged(e.to_string()))?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Lays what is transparent on `background`, in 8 bits a channel.
fn opaque(picture: DynamicImage, background: [u8; 3]) -> DynamicImage {
    if !picture.color().has_alpha() {
        return picture;
    }
    let laid = |value: u8, under: u8, alpha: u8| {
        let (alpha, value, under) = (u32::from(alpha), u32::from(value), u32::from(under));
        ((value * alpha + under * (255 - alpha) + 127) / 255) as u8
    };
    let picture = picture.into_rgba8();
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let Rgba([r, g, b, alpha]) = *picture.get_pixel(x, y);
        Rgb([laid(r, background[0], alpha), laid(g, background[1], alpha), laid(b, background[2], alpha)])
    })
    .into()
}

/// Steps 3 and 4.
fn fit<P: Pixel<Subpixel = u8> + 'static>(picture: &image::ImageBuffer<P, Vec<u8>>, shape: ImageShape) -> Vec<u8> {
    let (w, h) = (shape.w as u32, shape.h as u32);
    let (x, y, width, height) = middle(picture.dimensions(), (w, h));
    let cut = picture.view(x, y, width, height);
    if (width, height) == (w, h) { cut.to_image() } else { imageops::resize(&*cut, w, h, FilterType::Triangle) }
        .into_raw()
}

/// The largest rectangle in the middle of `size` whose sides have the ratio of `like`, as x, y, width, height.
fn middle((width, height): (u32, u32), like: (u32, u32)) -> (u32, u32, u32, u32) {
    let [width64, height64, w, h] = [width, height, like.0, like.1].map(u64::from);
    // n * a / b to the nearest, at least 1 and at most n's own side.
    let side = |n: u64, a: u64, b: u64, most: u32| ((n * a + b / 2) / b).clamp(1, u64::from(most)) as u32;
    if width64 * h > height64 * w {
        let cut = side(height64, w, h, width);
        ((width - cut) / 2, 0, cut, height)
    } else {
        let cut = side(width64, h, w, height);
        (0, (height - cut) / 2, width, cut)
    }
}

#[cfg(test)]
mod tests {
    use super::middle;

    #[test]
    fn the_middle_has_the_ratio_and_touches_two_sides() {
        assert_eq!(middle((640, 480), (32, 32)), (80, 0, 480, 480));
        assert_eq!(middle((480, 640), (224, 224)), (0, 80, 480, 480));
        assert_eq!(middle((32, 32), (32, 32)), (0, 0, 32, 32));
        assert_eq!(middle((100, 100), (32, 16)), (0, 25, 100, 50));
        assert_eq!(middle((1, 60_000), (224, 224)), (0, 29_999, 1, 1));
        assert_eq!(middle((60_000, 1), (224, 1)), (29_888, 0, 224, 1));
        assert_eq!(middle((3, 1), (1, 1000)), (1, 0, 1, 1));
    }
}
