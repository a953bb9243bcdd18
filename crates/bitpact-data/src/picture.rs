//! One picture, from its file to the pixels a network reads.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Rgb, RgbImage, Rgba};

use crate::resample::{Filter, Window, resample};
use crate::{ImageShape, whole};

/// Bytes of the largest file that is read.
const LARGEST_FILE: u64 = 1 << 26;
/// Pixels of the largest picture that is decoded.
const MOST_PIXELS: u64 = 1 << 26;
/// Bytes the decoder may reserve.
const MOST_MEMORY: u64 = 1 << 29;

/// The kinds of files that are read, and their names.
const KINDS: [(ImageFormat, &str); 5] = [
    (ImageFormat::Png, "PNG"),
    (ImageFormat::Jpeg, "JPEG"),
    (ImageFormat::WebP, "WebP"),
    (ImageFormat::Bmp, "BMP"),
    (ImageFormat::Tiff, "TIFF"),
];

/// Ends of the names of picture files, in lower case.
pub const PICTURE_ENDINGS: [&str; 7] = ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"];

/// Pixels of 8 bits, grey or RGB, in HWC order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c: usize,
    pub(crate) pixels: Vec<u8>,
}

/// What the head of a file says of its picture, turned as its EXIF orientation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) color: ColorType,
}

/// Why a picture cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The file cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error that caused this one.
        source: std::io::Error,
    },
    /// The file or the picture is too large.
    #[error("{}: {what}", path.display())]
    TooLarge {
        /// Path of the file.
        path: PathBuf,
        /// What is too large, and the limit.
        what: String,
    },
    /// The file is not a picture of a known kind.
    #[error("{}: not a PNG, JPEG, WebP, BMP or TIFF file", path.display())]
    Kind {
        /// Path of the file.
        path: PathBuf,
    },
    /// This build has no reader of the file's kind: the feature of that name was left out.
    #[error("{}: a {kind} file, which this program reads only if built with the feature `{}`", path.display(), kind.to_lowercase())]
    LeftOut {
        /// Path of the file.
        path: PathBuf,
        /// Kind of the file: `TIFF` or `WebP`.
        kind: &'static str,
    },
    /// The file is damaged.
    #[error("{}: damaged {kind} file: {what}", path.display())]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Kind of the file, such as `PNG`.
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

/// How a picture of any size becomes an image of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Shorter side, in pixels, that the picture is scaled to before the image is cut out of its middle; `None` for the
    /// least one that still fills the image. A side too short for the image counts as that least one.
    pub resize: Option<usize>,
    /// Colour behind what is transparent.
    pub background: [u8; 3],
}

impl Default for View {
    /// The largest part of the picture, on white.
    fn default() -> Self {
        Self { resize: None, background: [255; 3] }
    }
}

/// Reads a PNG, JPEG, WebP, BMP or TIFF file as an image of `shape`, HWC: what validation sees of a picture file.
///
/// 1. The picture is turned as its EXIF orientation says.
/// 2. It becomes 8-bit RGB for 3 channels (grey is repeated) or 8-bit grey for 1 (ITU-R BT.709 luma). What is
///    transparent shows the background: (alpha * value + (255 - alpha) * background) / 255, to the nearest.
/// 3. A rectangle in its middle with the sides' ratio of `shape` is cut out: the largest one, or one of `shape`'s part
///    of a picture whose shorter side is [`View::resize`]; and
/// 4. scaled to `shape` with a triangle filter as wide as the scale (bilinear, with antialiasing where it shrinks),
///    which reaches beyond the rectangle as if all of the picture were scaled before. A picture of the right size is
///    taken as it is.
///
/// Pictures of more than 2^26 pixels and files of more than 2^26 bytes are refused before they are decoded.
///
/// # Errors
/// A file that cannot be read, is too large, of another kind or damaged, also where only its end is missing; a number
/// of channels other than 1 and 3.
pub fn load_picture_as(path: &Path, shape: ImageShape, view: View) -> Result<Vec<u8>, PictureError> {
    let picture = read_picture(path, shape.c, view.background)?;
    let window = Window::middle((picture.h, picture.w), (shape.h, shape.w), view.resize);
    Ok(resample(&picture, window, (shape.h, shape.w), Filter::Triangle))
}

/// Reads a picture file as [`load_picture_as`] does: its largest part, on white.
///
/// # Errors
/// Those of [`load_picture_as`].
pub fn load_picture(path: &Path, shape: ImageShape) -> Result<Vec<u8>, PictureError> {
    load_picture_as(path, shape, View::default())
}

/// All of a picture, in its own size; steps 1 and 2 of [`load_picture_as`].
pub(crate) fn read_picture(path: &Path, channels: usize, background: [u8; 3]) -> Result<Picture, PictureError> {
    if !matches!(channels, 1 | 3) {
        return Err(PictureError::Channels { channels });
    }
    let picture = opaque(decode(path, &read(path)?)?, background);
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    let pixels = if channels == 1 { picture.into_luma8().into_raw() } else { picture.into_rgb8().into_raw() };
    Ok(Picture { h, w, c: channels, pixels })
}

/// What the head of a file says, without decoding it.
pub(crate) fn read_head(path: &Path) -> Result<Head, PictureError> {
    let fail = |source| PictureError::Read { path: path.to_owned(), source };
    let file = open(path)?;
    let reader = ImageReader::new(BufReader::new(file)).with_guessed_format().map_err(fail)?;
    let (format, kind) = kind(reader.format(), path)?;
    let mut reader = ImageReader::with_format(reader.into_inner(), format);
    reader.limits(limits());
    head(&mut reader.into_decoder().map_err(|e| damaged(path, kind, &e))?, path, kind).map(|(head, _)| head)
}

/// Opens a regular file of at most [`LARGEST_FILE`] bytes, or a pipe.
fn open(path: &Path) -> Result<File, PictureError> {
    let fail = |source| PictureError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    match file.metadata().map_err(fail)?.len() > LARGEST_FILE {
        true => Err(too_long(path)),
        false => Ok(file),
    }
}

fn too_long(path: &Path) -> PictureError {
    let what = format!("more than {LARGEST_FILE} bytes, the most that is read");
    PictureError::TooLarge { path: path.to_owned(), what }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PictureError> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes);
    read.map_err(|source| PictureError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > LARGEST_FILE { Err(too_long(path)) } else { Ok(bytes) }
}

fn kind(format: Option<ImageFormat>, path: &Path) -> Result<(ImageFormat, &'static str), PictureError> {
    let known = KINDS.into_iter().find(|(known, _)| Some(*known) == format);
    let (format, kind) = known.ok_or_else(|| PictureError::Kind { path: path.to_owned() })?;
    match format.reading_enabled() {
        true => Ok((format, kind)),
        false => Err(PictureError::LeftOut { path: path.to_owned(), kind }),
    }
}

fn limits() -> image::Limits {
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MOST_MEMORY);
    limits
}

pub(crate) fn damaged(path: &Path, kind: &'static str, what: &dyn std::fmt::Display) -> PictureError {
    PictureError::Damaged { path: path.to_owned(), kind, what: what.to_string() }
}

/// What a decoder says before it decodes, and how the picture is turned.
fn head(
    decoder: &mut impl ImageDecoder,
    path: &Path,
    kind: &'static str,
) -> Result<(Head, image::metadata::Orientation), PictureError> {
    let (width, height) = decoder.dimensions();
    check_size(path, (width, height), decoder.total_bytes())?;
    if width == 0 || height == 0 {
        return Err(damaged(path, kind, &format!("{width} x {height} pixels")));
    }
    let color = decoder.color_type();
    if matches!(color, ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err(damaged(path, kind, &"its pixels are floats; expected 8 or 16 bits a channel"));
    }
    let orientation = decoder.orientation().map_err(|e| damaged(path, kind, &e))?;
    let (h, w) = match orientation.to_exif() {
        5.. => (width as usize, height as usize),
        _ => (height as usize, width as usize),
    };
    Ok((Head { h, w, color }, orientation))
}

pub(crate) fn check_size(path: &Path, (width, height): (u32, u32), bytes: u64) -> Result<(), PictureError> {
    if u64::from(width) * u64::from(height) <= MOST_PIXELS && bytes <= MOST_MEMORY {
        return Ok(());
    }
    let what = format!("{width} x {height} pixels, more than {MOST_PIXELS}, the most that are decoded");
    Err(PictureError::TooLarge { path: path.to_owned(), what })
}

pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<DynamicImage, PictureError> {
    let (format, kind) = kind(image::guess_format(bytes).ok(), path)?;
    let whole = match format {
        ImageFormat::Jpeg => whole::jpeg(bytes),
        ImageFormat::Png => whole::png(bytes),
        ImageFormat::WebP => whole::riff(bytes),
        // Their decoders want every byte that they need.
        _ => Some(bytes),
    };
    let Some(bytes) = whole else { return Err(damaged(path, kind, &"its end is missing")) };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(|e| damaged(path, kind, &e))?;
    let (_, orientation) = head(&mut decoder, path, kind)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| damaged(path, kind, &e))?;
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
