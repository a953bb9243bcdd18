//! Pictures from files: the rule by which they become an image, and hostile files.

use std::path::PathBuf;

use bitpact_data::{ImageShape, View, load_picture, load_picture_as};
use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[track_caller]
    fn fails(&self, name: &str, bytes: &[u8], words: &str) {
        let message = load_picture(&self.write(name, bytes), RGB).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(words), "{message}, expected {words}");
    }
}

const RGB: ImageShape = ImageShape { h: 4, w: 4, c: 3 };
const GREY: ImageShape = ImageShape { h: 4, w: 4, c: 1 };

fn on(background: [u8; 3]) -> View {
    View { background, ..View::default() }
}

fn encoded(image: impl Into<image::DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Red grows to the right, green downwards.
fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 9]))
}

#[test]
fn a_picture_of_the_right_size_is_taken_as_it_is() {
    let folder = Folder::new();
    let picture = gradient(4, 4);
    let path = folder.write("a.png", &encoded(picture.clone(), ImageFormat::Png));
    assert_eq!(load_picture(&path, RGB).unwrap(), picture.into_raw());
}

#[test]
fn grey_is_repeated_and_colour_made_grey() {
    let folder = Folder::new();
    let grey = GrayImage::from_fn(4, 4, |x, y| Luma([(16 * x + y) as u8]));
    let path = folder.write("grey.png", &encoded(grey.clone(), ImageFormat::Png));
    let tripled: Vec<u8> = grey.as_raw().iter().flat_map(|&v| [v; 3]).collect();
    assert_eq!(load_picture(&path, RGB).unwrap(), tripled);
    assert_eq!(load_picture(&path, GREY).unwrap(), grey.into_raw());
    let green = RgbImage::from_pixel(4, 4, Rgb([0, 200, 0]));
    let path = folder.write("green.png", &encoded(green, ImageFormat::Png));
    assert_eq!(load_picture(&path, GREY).unwrap(), [(0.7152f32 * 200.0) as u8; 16]);
}

#[test]
fn transparent_pictures_are_laid_on_white_or_a_colour() {
    let folder = Folder::new();
    for (alpha, on_white, on_black) in
        [(0, [255, 255, 255], [0, 0, 0]), (255, [7, 8, 9], [7, 8, 9]), (51, [205, 206, 206], [1, 2, 2])]
    {
        let glass = RgbaImage::from_pixel(4, 4, Rgba([7, 8, 9, alpha]));
        let path = folder.write("glass.png", &encoded(glass, ImageFormat::Png));
        assert_eq!(load_picture(&path, RGB).unwrap(), on_white.repeat(16));
        assert_eq!(load_picture_as(&path, RGB, on([0; 3])).unwrap(), on_black.repeat(16));
    }
    // Grey with alpha, and 16 bits a channel.
    let grey = image::GrayAlphaImage::from_pixel(4, 4, image::LumaA([10, 0]));
    let path = folder.write("grey.png", &encoded(grey, ImageFormat::Png));
    assert_eq!(load_picture_as(&path, GREY, on([99; 3])).unwrap(), [99; 16]);
    let deep = image::ImageBuffer::<Rgba<u16>, _>::from_pixel(4, 4, Rgba([65_535, 0, 0, 0]));
    let path = folder.write("deep.png", &encoded(deep, ImageFormat::Png));
    assert_eq!(load_picture_as(&path, RGB, on([1, 2, 3])).unwrap(), [1, 2, 3].repeat(16));
}

#[test]
fn a_picture_with_something_behind_it_is_whole_and_a_cut_one_is_not() {
    let folder = Folder::new();
    for (name, format) in [("a.jpg", ImageFormat::Jpeg), ("a.png", ImageFormat::Png)] {
        let bytes = encoded(gradient(30, 20), format);
        let alone = load_picture(&folder.write(name, &bytes), RGB).unwrap();
        // A film has the bytes of any marker in it.
        let film = [&b"....ftypmp42"[..], &[0xff, 0xda, 0, 9, 0xff, 0xd8, 0xff], &[7; 100]].concat();
        for behind in [&film, &bytes, &b"\0\0".to_vec()] {
            let path = folder.write(name, &[&bytes[..], behind].concat());
            assert_eq!(load_picture(&path, RGB).unwrap(), alone);
        }
        for cut in [bytes.len() / 2, bytes.len() - 20, bytes.len() - 2] {
            folder.fails(name, &[&bytes[..cut], &bytes[..]].concat(), "damaged");
        }
    }
}

#[test]
fn the_middle_is_cut_out_and_scaled() {
    let folder = Folder::new();
    // Three squares beside each other; the middle one is white.
    let wide = RgbImage::from_fn(24, 8, |x, _| if (8..16).contains(&x) { Rgb([255; 3]) } else { Rgb([0; 3]) });
    let path = folder.write("wide.png", &encoded(wide.clone(), ImageFormat::Png));
    // As of the whole picture made smaller: the filter reaches a little way beyond what is cut out.
    for row in load_picture(&path, RGB).unwrap().chunks_exact(12) {
        assert!(row[3..9] == [255; 6] && row.iter().all(|&v| v > 200), "{row:?}");
    }
    let tall = image::imageops::rotate90(&wide);
    let path = folder.write("tall.jpeg", &encoded(tall, ImageFormat::Jpeg));
    assert!(load_picture(&path, RGB).unwrap().iter().all(|&v| v > 200));
    // Scaling keeps a gradient, from both sides.
    for side in [2, 3, 40] {
        let path = folder.write("gradient.png", &encoded(gradient(side, side), ImageFormat::Png));
        let pixels = load_picture(&path, RGB).unwrap();
        let red: Vec<u8> = pixels[..12].iter().step_by(3).copied().collect();
        let green: Vec<u8> = pixels[1..].iter().step_by(12).copied().collect();
        assert!(red == green && red.is_sorted() && red[0] < red[3], "{side}: {red:?}");
    }
    // No side ratio makes a large intermediate picture.
    let line = encoded(RgbImage::from_pixel(1, 60_000, Rgb([5, 6, 7])), ImageFormat::Png);
    let shape = ImageShape { h: 224, w: 224, c: 3 };
    assert_eq!(load_picture(&folder.write("line.png", &line), shape).unwrap(), [5, 6, 7].repeat(224 * 224));
}

#[test]
fn orientation_is_obeyed() {
    let folder = Folder::new();
    let half = RgbImage::from_fn(8, 8, |x, _| if x < 4 { Rgb([255; 3]) } else { Rgb([0; 3]) });
    let plain = encoded(half, ImageFormat::Jpeg);
    // An EXIF segment with the one entry 0x0112 (orientation) = 6: turn clockwise.
    let tiff = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut turned = plain[..2].to_vec();
    turned.extend([0xff, 0xe1]);
    turned.extend((tiff.len() as u16 + 2).to_be_bytes());
    turned.extend(tiff);
    turned.extend(&plain[2..]);
    let is_white = |bytes: &[u8]| -> Vec<bool> {
        let pixels = load_picture(&folder.write("half.jpg", bytes), GREY).unwrap();
        pixels.iter().map(|&v| v > 128).collect()
    };
    let (left, top) = ([true, true, false, false].repeat(4), [[true; 8], [false; 8]].concat());
    assert_eq!(is_white(&plain), left);
    assert_eq!(is_white(&turned), top);
}

#[test]
fn damaged_files_are_errors_wherever_they_end() {
    let folder = Folder::new();
    for (name, format) in [("a.png", ImageFormat::Png), ("a.jpg", ImageFormat::Jpeg)] {
        let bytes = encoded(gradient(30, 20), format);
        for length in (0..bytes.len() - 1).step_by(7).chain([1, 2, 3, bytes.len() - 2]) {
            folder.fails(name, &bytes[..length], "");
        }
        let kind = if name == "a.png" { "damaged PNG file" } else { "damaged JPEG file: its end is missing" };
        folder.fails(name, &bytes[..bytes.len() / 2], kind);
        // Any byte may be wrong; nothing panics.
        for at in (0..bytes.len()).step_by(3) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x55;
            let _ = load_picture(&folder.write(name, &bad), RGB);
        }
    }
}

#[test]
fn other_files_are_told_as_such() {
    let folder = Folder::new();
    folder.fails("empty.png", b"", "not a PNG, JPEG, WebP, BMP or TIFF file");
    folder.fails("text.jpg", b"hello, this is no picture", "not a PNG, JPEG, WebP, BMP or TIFF file");
    folder.fails("gif.png", b"GIF89a\x01\0\x01\0\0\0\0;", "not a PNG, JPEG, WebP, BMP or TIFF file");
    let missing = folder.0.path().join("missing.png");
    assert!(load_picture(&missing, RGB).unwrap_err().to_string().contains("missing.png: cannot read"));
    assert!(load_picture(folder.0.path(), RGB).unwrap_err().to_string().contains("cannot read"));
    let four = ImageShape { h: 4, w: 4, c: 4 };
    assert!(load_picture(&missing, four).unwrap_err().to_string().contains("but 4 are asked for"));
}

/// Headers that promise pictures of gigabytes.
#[test]
fn absurd_sizes_are_refused_before_they_are_decoded() {
    let folder = Folder::new();
    let png = encoded(gradient(30, 20), ImageFormat::Png);
    let jpeg = encoded(gradient(30, 20), ImageFormat::Jpeg);
    for (width, height) in [(60_000u32, 60_000u32), (u32::MAX >> 1, 1), (1 << 20, 65)] {
        let mut bad = png.clone();
        bad[16..20].copy_from_slice(&width.to_be_bytes());
        bad[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc32fast::hash(&bad[12..29]);
        bad[29..33].copy_from_slice(&crc.to_be_bytes());
        let message = load_picture(&folder.write("huge.png", &bad), RGB).unwrap_err().to_string();
        assert!(message.contains("huge.png"), "{message}");
    }
    let mut bad = jpeg.clone();
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bad[frame + 5..frame + 9].fill(0xff);
    folder.fails("huge.jpg", &bad, "65535 x 65535 pixels, more than 67108864");
    let file = std::fs::File::create(folder.0.path().join("long.png")).unwrap();
    file.set_len(1 << 40).unwrap();
    let message = load_picture(&folder.0.path().join("long.png"), RGB).unwrap_err().to_string();
    assert!(message.contains("more than 67108864 bytes"), "{message}");
}
