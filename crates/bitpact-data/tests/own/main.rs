//! One's own data from files: layouts, kinds of pictures, damage, and that what is read depends on nothing but what was
//! asked.

mod arrays;
mod dense;
mod report;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use bitpact_data::own::{Loaded, Options, Task, load, load_test};
use bitpact_data::{Dataset, ImageShape, Limits, View, augment_key, load_picture, load_picture_as};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use tempfile::TempDir;

/// A folder for one test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Writes a picture in the format of the name's end.
    fn picture(&self, name: &str, picture: impl Into<DynamicImage>) -> PathBuf {
        self.write(name, encoded(picture, ImageFormat::from_path(name).unwrap()))
    }

    fn load(&self, options: &Options) -> Loaded {
        load(self.path(), Limits::default(), options, &|_, _| ()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    fn refused(&self, options: &Options, parts: &[&str]) {
        let error = load(self.path(), Limits::default(), options, &|_, _| ()).map(|_| ()).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
    }
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn flat(colour: [u8; 3], w: u32, h: u32) -> RgbImage {
    RgbImage::from_pixel(w, h, Rgb(colour))
}

/// A picture with a pattern of its own.
fn pattern(seed: u32, w: u32, h: u32) -> RgbImage {
    RgbImage::from_fn(w, h, |x, y| Rgb([(x * 7 + seed * 31) as u8, (y * 11 + seed * 17) as u8, (x * y + seed) as u8]))
}

fn image(set: &dyn Dataset, index: usize) -> Vec<u8> {
    let mut out = vec![0; set.image_shape().len()];
    set.image(index, &mut out);
    out
}

fn target(set: &dyn Dataset, index: usize) -> Vec<f32> {
    let mut out = vec![0.0; set.target_kind().len()];
    set.target(index, &mut out);
    out
}

fn drawn(set: &dyn Dataset, index: usize, epoch: u64) -> (Vec<u8>, Vec<f32>) {
    let (mut pixels, mut out) = (vec![0; set.image_shape().len()], vec![0.0; set.target_kind().len()]);
    set.drawn(index, augment_key(7, epoch, index as u64), Some(&mut pixels), Some(&mut out));
    (pixels, out)
}

fn crop(side: usize) -> Options {
    Options { crop: Some([side; 2]), ..Options::default() }
}

/// Three classes of five training and two test pictures of many sizes.
fn classes() -> Folder {
    let folder = Folder::new();
    for (class, name) in ["zebra", "ant", "Bee"].into_iter().enumerate() {
        for i in 0..7u32 {
            let half = if i < 5 { "train" } else { "val" };
            let seed = class as u32 * 10 + i;
            folder.picture(&format!("{half}/{name}/{i}.png"), pattern(seed, 20 + 3 * i, 40 - 2 * i));
        }
    }
    folder
}

#[test]
fn folders_of_classes_are_sorted_and_take_turns() {
    let folder = classes();
    let loaded = folder.load(&crop(16));
    let train = loaded.train.unwrap();
    assert_eq!(train.class_names(), ["Bee", "ant", "zebra"]);
    assert_eq!((train.len(), loaded.test.len(), loaded.task), (15, 6, Task::Classify));
    assert_eq!(train.image_shape(), ImageShape { h: 16, w: 16, c: 3 });
    assert_eq!((0..6).map(|i| train.label(i)).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
    assert!(loaded.skipped.is_empty() && loaded.odd.is_empty());
    // What evaluation sees is what `load_picture` gives.
    let picture = load_picture(&folder.path().join("val/ant/6.png"), train.image_shape()).unwrap();
    assert_eq!(image(&*loaded.test, 4), picture);
    let resized = Options { resize: Some(24), ..crop(16) };
    let view = View { resize: Some(24), ..View::default() };
    let picture = load_picture_as(&folder.path().join("val/ant/6.png"), train.image_shape(), view).unwrap();
    assert_eq!(image(&*folder.load(&resized).test, 4), picture);
    // The first images are of all classes.
    let limits = Limits { train: Some(3), test: Some(2) };
    let few = load(folder.path(), limits, &crop(16), &|_, _| ()).unwrap();
    let few = (few.train.unwrap(), few.test);
    assert_eq!((few.0.len(), few.1.len(), few.0.label(2)), (3, 2, 2));
    assert_eq!(image(&*few.0, 1), image(&*train, 1));
    let none = Limits { train: Some(0), test: None };
    assert!(load(folder.path(), none, &crop(16), &|_, _| ()).is_err());
}

#[test]
fn every_kind_of_picture_is_read() {
    let folder = Folder::new();
    let red = [200, 30, 40];
    folder.picture("train/a/rgb.png", flat(red, 9, 8));
    folder.picture("train/a/rgb.bmp", flat(red, 8, 9));
    folder.picture("train/a/rgb.tiff", flat(red, 8, 8));
    folder.picture("train/a/rgb.webp", flat(red, 11, 8));
    folder.picture("train/a/rgb.JPEG", flat(red, 8, 12));
    folder.picture("train/a/alpha.png", RgbaImage::from_pixel(8, 8, Rgba([200, 30, 40, 255])));
    let deep = image::ImageBuffer::<Rgb<u16>, _>::from_pixel(8, 8, Rgb(red.map(|v| u16::from(v) * 257)));
    folder.picture("train/a/deep.png", deep);
    folder.write("train/a/palette.png", palette(&[[0, 0, 0], red], 8, &[1; 64]));
    folder.picture("train/b/grey.png", GrayImage::from_pixel(8, 8, Luma([77])));
    folder.picture("val/a/0.png", flat(red, 8, 8));
    folder.write("val/b/cmyk.jpg", include_bytes!("../fixtures/cmyk.jpg"));
    let loaded = folder.load(&crop(8));
    assert!(loaded.skipped.is_empty(), "{:?}", loaded.skipped);
    let train = loaded.train.unwrap();
    assert_eq!(train.len(), 9);
    for i in (0..9).filter(|&i| train.label(i) == 0) {
        for pixel in image(&*train, i).chunks_exact(3) {
            let far = pixel.iter().zip(red).map(|(a, b)| a.abs_diff(b)).max();
            assert!(far <= Some(3), "example {i}: {pixel:?}");
        }
    }
    let grey = (0..9).find(|&i| train.label(i) == 1).unwrap();
    assert_eq!(image(&*train, grey), [77; 192]);
    // Red, green, blue and grey, mixed with black as printers do.
    let print = image(&*loaded.test, 1);
    for ((y, x), colour) in [((1, 1), [255, 0, 0]), ((1, 6), [0, 255, 0]), ((6, 1), [0, 0, 255]), ((6, 6), [128; 3])] {
        let pixel = &print[(y * 8 + x) * 3..][..3];
        assert!(pixel.iter().zip(colour).all(|(a, b): (&u8, u8)| a.abs_diff(b) <= 6), "{pixel:?}, expected {colour:?}");
    }
    // Grey alone has one channel, unless colour is asked for.
    let grey = Folder::new();
    for name in ["train/a/0.png", "train/b/1.png", "val/a/2.png", "val/b/3.png"] {
        grey.picture(name, GrayImage::from_pixel(5, 5, Luma([9])));
    }
    assert_eq!(grey.load(&Options::default()).test.image_shape(), ImageShape { h: 5, w: 5, c: 1 });
    assert_eq!(grey.load(&Options { channels: Some(3), ..Options::default() }).test.image_shape().c, 3);
    grey.refused(&Options { channels: Some(2), ..Options::default() }, &["1 channel or 3"]);
}

/// A PNG of 8 bits with a palette.
fn palette(colours: &[[u8; 3]], width: u32, indices: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, indices.len() as u32 / width);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(colours.concat());
    encoder.write_header().unwrap().write_image_data(indices).unwrap();
    bytes
}

#[test]
fn sizes_that_differ_need_a_crop() {
    let folder = classes();
    folder.refused(&Options::default(), &["--crop 64", "from 28x38 to 40x20"]);
    let same = Folder::new();
    for name in ["train/a/0.png", "train/b/1.png", "test/a/2.png", "test/b/3.png"] {
        same.picture(name, pattern(1, 6, 4));
    }
    assert_eq!(same.load(&Options::default()).test.image_shape(), ImageShape { h: 4, w: 6, c: 3 });
}

#[test]
fn halves_must_have_the_same_classes() {
    let folder = classes();
    folder.picture("train/cow/0.png", flat([1; 3], 9, 9));
    folder.refused(&crop(8), &["class `cow` is in train/ and not in val/"]);
    folder.picture("val/Cow/0.png", flat([1; 3], 9, 9));
    folder.refused(&crop(8), &["class `cow`", "`Cow` is there"]);
    std::fs::remove_dir_all(folder.path().join("train/cow")).unwrap();
    folder.refused(&crop(8), &["class `Cow` is in val/ and not in train/"]);
    std::fs::remove_dir_all(folder.path().join("val/Cow")).unwrap();
    std::fs::create_dir(folder.path().join("train/empty")).unwrap();
    folder.refused(&crop(8), &["empty", "class without pictures"]);
}

#[test]
fn what_is_no_data_set_is_told() {
    let folder = Folder::new();
    folder.refused(&Options::default(), &["expected train/ and val/"]);
    folder.write("notes.txt", "hello");
    folder.refused(&Options::default(), &["expected train/ and val/"]);
    folder.picture("train/one/0.png", flat([1; 3], 4, 4));
    folder.picture("val/one/0.png", flat([1; 3], 4, 4));
    folder.refused(&Options::default(), &["has one class, `one`"]);
    let segment = Options { task: Some(Task::Segment), ..Options::default() };
    classes().refused(&segment, &["which is to classify, and the task is to segment"]);
    let fails = |path: PathBuf, part: &str| {
        let error =
            load(&path, Limits::default(), &Options::default(), &|_, _| ()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    fails(folder.path().join("missing"), "cannot read");
    fails(folder.path().join("notes.txt"), "is no data set");
    let alone = Folder::new();
    alone.picture("val/a/0.png", flat([1; 3], 4, 4));
    alone.refused(&Options::default(), &["val/ without train/"]);
}

#[test]
fn a_folder_without_halves_gives_a_stated_share_of_every_class() {
    let folder = Folder::new();
    for (name, n) in [("a", 20u32), ("b", 10)] {
        (0..n).for_each(|i| drop(folder.picture(&format!("{name}/{i}.png"), flat([i as u8, n as u8, 0], 4, 4))));
    }
    folder.refused(&Options::default(), &["no test half", "--test-share 0.2"]);
    let options = Options { test_share: Some(0.2), ..Options::default() };
    let loaded = folder.load(&options);
    let (train, test) = (loaded.train.unwrap(), loaded.test);
    let count = |set: &dyn Dataset, class| (0..set.len()).filter(|&i| set.label(i) == class).count();
    assert_eq!([count(&*train, 0), count(&*train, 1), count(&*test, 0), count(&*test, 1)], [16, 8, 4, 2]);
    let pixels = |set: &dyn Dataset| (0..set.len()).map(|i| image(set, i)).collect::<BTreeSet<_>>();
    assert!(pixels(&*train).is_disjoint(&pixels(&*test)));
    assert_eq!(pixels(&*folder.load(&options).test), pixels(&*test));
    folder.refused(&Options { test_share: Some(0.01), ..Options::default() }, &["leaves a half of class `a` empty"]);
    // To be measured on alone it is one half.
    let all = load_test(folder.path(), None, &Options::default(), &|_, _| ()).unwrap();
    assert!(all.train.is_none() && all.test.len() == 30);
}

#[test]
fn files_that_cannot_be_used_are_left_out_and_counted_or_an_error() {
    let folder = classes();
    let whole = encoded(pattern(3, 30, 30), ImageFormat::Jpeg);
    folder.write("train/ant/cut.jpg", &whole[..whole.len() / 2]);
    folder.write("train/ant/empty.png", b"");
    folder.write("val/Bee/text.jpg", b"no picture at all");
    // A picture of 60,000 x 60,000 pixels in some bytes.
    let mut bomb = encoded(flat([0; 3], 8, 8), ImageFormat::Png);
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let crc = crc32fast::hash(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&crc);
    folder.write("train/zebra/bomb.png", &bomb);
    for (name, format) in [("a.webp", ImageFormat::WebP), ("a.bmp", ImageFormat::Bmp), ("a.tif", ImageFormat::Tiff)] {
        let bytes = encoded(pattern(4, 30, 30), format);
        folder.write(&format!("train/zebra/{name}"), &bytes[..bytes.len() - 20]);
    }
    folder.write("train/ant/Thumbs.db", b"x");
    folder.write("train/ant/.hidden", b"x");
    let loaded = folder.load(&crop(16));
    assert_eq!((loaded.train.as_ref().unwrap().len(), loaded.test.len()), (15, 6));
    let names = |files: &[bitpact_data::own::Skipped]| -> Vec<String> {
        files.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&loaded.skipped), ["cut.jpg", "empty.png", "a.bmp", "a.tif", "a.webp", "bomb.png", "text.jpg"]);
    assert_eq!(names(&loaded.odd), ["Thumbs.db"]);
    let told = loaded.skipped.iter().fold(String::new(), |mut text, file| {
        writeln!(text, "{file}").unwrap();
        text
    });
    for part in ["cut.jpg: damaged JPEG", "empty.png: not a PNG", "bomb.png: 60000 x 60000 pixels, more than"] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    // The good ones are as if the others had never been there.
    assert_eq!(image(&**loaded.train.as_ref().unwrap(), 8), image(&*classes().load(&crop(16)).train.unwrap(), 8));
    folder.refused(&Options { strict: true, ..crop(16) }, &["7 files cannot be used", "cut.jpg"]);
    for i in 0..5 {
        folder.write(&format!("train/zebra/{i}.png"), b"gone");
    }
    folder.refused(&crop(16), &["none of the training pictures of class `zebra` can be used"]);
}

#[test]
fn a_file_that_breaks_later_is_replaced_by_one_of_its_class_and_told() {
    let folder = classes();
    // Nothing is kept, so every image is read when it is wanted.
    let loaded = folder.load(&Options { cache_bytes: 0, ..crop(16) });
    let train = loaded.train.unwrap();
    let (third, last) = (image(&*train, 3), image(&*train, 12));
    assert!(train.is_slow() && loaded.faults.count() == 0);
    std::fs::write(folder.path().join("train/Bee/0.png"), b"broken").unwrap();
    std::fs::remove_file(folder.path().join("train/Bee/4.png")).unwrap();
    assert_eq!((train.label(0), image(&*train, 0)), (0, third), "the next one of its class");
    assert_ne!(image(&*train, 12), last);
    assert_eq!(image(&*train, 12), image(&*train, 0), "the first good one after the last");
    assert!(loaded.faults.count() >= 4 && loaded.faults.first().iter().any(|what| what.contains("0.png")));
    // Where none of a class is left, an image is grey.
    (1..4).for_each(|i| std::fs::remove_file(folder.path().join(format!("train/Bee/{i}.png"))).unwrap());
    assert_eq!(image(&*train, 0), [128; 768]);
}

#[test]
fn what_is_drawn_depends_on_the_key_alone() {
    let folder = classes();
    let options = |threads, cache_bytes| Options { random_crop: Some([0.2, 1.0]), threads, cache_bytes, ..crop(16) };
    let views = |options: &Options| -> Vec<(Vec<u8>, Vec<f32>)> {
        let train = folder.load(options).train.unwrap();
        (0..3).flat_map(|epoch| (0..train.len()).map(|i| drawn(&*train, i, epoch)).collect::<Vec<_>>()).collect()
    };
    let usual = views(&options(1, 1 << 20));
    for (threads, cache) in [(4, 1 << 20), (2, 0), (1, 3000)] {
        assert_eq!(views(&options(threads, cache)), usual, "{threads} threads, {cache} bytes kept");
    }
    let same = (0..15).filter(|&i| usual[i].0 == usual[15 + i].0).count();
    assert!(same <= 1, "{same} of 15 images are the same in the next epoch");
    // Without random parts training sees the middle, as evaluation does.
    let plain = folder.load(&crop(16)).train.unwrap();
    assert_eq!(drawn(&*plain, 4, 1).0, image(&*plain, 4));
    assert!(!plain.is_slow());
}

#[test]
fn large_pictures_are_kept_small_and_show_the_same() {
    let folder = Folder::new();
    let ramp = RgbImage::from_fn(800, 600, |x, y| Rgb([(x / 4) as u8, (y / 4) as u8, 50]));
    for name in ["train/a/0.png", "train/b/1.png", "val/a/2.png", "val/b/3.png"] {
        folder.picture(name, ramp.clone());
    }
    let loaded = folder.load(&Options { random_crop: Some([1.0, 1.0]), ..crop(10) });
    let train = loaded.train.unwrap();
    for (a, b) in image(&*train, 0).iter().zip(image(&*loaded.test, 0)) {
        assert!(a.abs_diff(b) <= 2, "{a} {b}");
    }
}

#[test]
fn tables_name_pictures_and_classes_or_numbers() {
    let folder = Folder::new();
    for i in 0..6u32 {
        folder.picture(&format!("all/{i}.png"), flat([i as u8 * 10; 3], 4, 4));
    }
    let rows = |text: &str| folder.write("list.csv", text);
    let table = rows(
        "path,label,split\nall/0.png,x,train\nall/1.png,y,train\nall/2.png,y,val\nall/3.png,x,val\nall/9.png,x,train\n",
    );
    let read = |options: &Options| load(&table, Limits::default(), options, &|_, _| ());
    let loaded = read(&Options::default()).unwrap();
    let train = loaded.train.unwrap();
    assert_eq!((train.class_names(), train.len(), loaded.test.len()), (&["x".to_owned(), "y".to_owned()][..], 2, 2));
    assert_eq!((loaded.test.label(0), image(&*loaded.test, 0)[0]), (0, 30));
    assert!(loaded.skipped.len() == 1 && loaded.skipped[0].to_string().contains("9.png: cannot read"));
    rows("path,label,split\nall/0.png,x,train\nall/1.png,y,train\nall/2.png,z,val\nall/3.png,x,val\n");
    let error = read(&Options::default()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("class `y` is in the training rows and not in the test rows"), "{error}");
    rows("path,age,height\nall/0.png,1,2.5\nall/1.png,3,4\nall/2.png,5,6\nall/3.png,7,8\n");
    let loaded = read(&Options { test_share: Some(0.5), ..Options::default() }).unwrap();
    assert_eq!((loaded.task, loaded.test.class_names()), (Task::Regress, &["age".to_owned(), "height".to_owned()][..]));
    let test = &*loaded.test;
    let told: Vec<_> = (0..test.len()).map(|i| (image(test, i)[0] / 10, target(test, i))).collect();
    let all = [vec![1.0, 2.5], vec![3.0, 4.0], vec![5.0, 6.0], vec![7.0, 8.0]];
    assert!(told.len() == 2 && told.iter().all(|(i, numbers)| *numbers == all[usize::from(*i)]), "{told:?}");
}
