//! Masks and pictures to restore.

use bitpact_data::TargetKind;

use super::*;

/// A mask of one channel with a class for each pixel.
fn mask(w: u32, h: u32, class: impl Fn(u32, u32) -> u8) -> GrayImage {
    GrayImage::from_fn(w, h, |x, y| Luma([class(x, y)]))
}

fn masks(class: impl Fn(u32, u32) -> u8) -> Folder {
    let folder = Folder::new();
    for half in ["train", "val"] {
        for i in 0..3u32 {
            let (w, h) = (24 + 2 * i, 20);
            // The picture shows its mask.
            let shown = RgbImage::from_fn(w, h, |x, y| Rgb([class(x, y).wrapping_mul(60); 3]));
            folder.picture(&format!("{half}/images/{i}.png"), shown);
            folder.picture(&format!("{half}/masks/{i}.png"), mask(w, h, &class));
        }
    }
    folder
}

#[test]
fn masks_go_with_their_pictures_wherever_they_are_cut() {
    let folder = masks(|x, y| u8::from(x > 9) + u8::from(y > 7));
    let loaded = folder.load(&Options { random_crop: Some([0.1, 0.9]), ..crop(12) });
    let train = loaded.train.unwrap();
    assert_eq!((loaded.task, train.target_kind()), (Task::Segment, TargetKind::Mask { h: 12, w: 12 }));
    assert_eq!(train.class_names(), ["0", "1", "2"]);
    let (mut seen, mut wrong, mut all) = (BTreeSet::new(), 0, 0);
    for epoch in 0..10 {
        let (pixels, classes) = drawn(&*train, 0, epoch);
        seen.insert(pixels.clone());
        for (pixel, class) in pixels.chunks_exact(3).zip(classes) {
            all += 1;
            wrong += usize::from((f32::from(pixel[0]) / 60.0).round() != class);
        }
    }
    // Pixels on an edge are mixtures, and masks are not.
    assert!(seen.len() >= 9 && wrong * 10 < all, "{wrong} of {all}");
    let only = |wants_image: bool| {
        let (mut pixels, mut classes) = (vec![0; 432], vec![0.0; 144]);
        let key = augment_key(7, 3, 0);
        match wants_image {
            true => train.drawn(0, key, Some(&mut pixels), None),
            false => train.drawn(0, key, None, Some(&mut classes)),
        }
        (pixels, classes)
    };
    assert_eq!((only(true).0, only(false).1), drawn(&*train, 0, 3));
}

#[test]
fn values_of_masks_are_classes_places_of_a_palette_or_black_and_white() {
    let binary = masks(|x, _| if x > 5 { 255 } else { 0 });
    let loaded = binary.load(&crop(8));
    assert_eq!(loaded.test.class_names(), ["0", "1"]);
    assert!(target(&*loaded.test, 0).iter().all(|&class| class == 0.0 || class == 1.0));
    let ignored = masks(|x, y| if x > 5 { 255 } else { u8::from(y > 10) });
    let found = target(&*ignored.load(&Options { crop: Some([20, 24]), ..Options::default() }).test, 0);
    assert_eq!((found[0], found[23], found[19 * 24]), (0.0, -1.0, 1.0));
    // A palette's colours mean nothing; names come from a file.
    for half in ["train", "val"] {
        for i in 0..3u32 {
            let indices: Vec<u8> = (0..20 * (24 + 2 * i)).map(|at| (at % 3) as u8).collect();
            let colours = [[9, 9, 9], [200, 0, 0], [0, 0, 200], [1, 1, 1]];
            ignored.write(&format!("{half}/masks/{i}.png"), palette(&colours, 24 + 2 * i, &indices));
        }
    }
    ignored.write("classes.txt", "sea\nship\nland\nsky\n");
    let loaded = ignored.load(&Options { crop: Some([20, 24]), ..Options::default() });
    assert_eq!(loaded.test.class_names(), ["sea", "ship", "land", "sky"]);
    assert_eq!(&target(&*loaded.test, 0)[..4], [0.0, 1.0, 2.0, 0.0]);
    assert!(loaded.odd.is_empty());
    ignored.write("classes.txt", "sea\nship\n");
    ignored.refused(&Options { strict: true, ..crop(8) }, &["6 files cannot be used", "has class 2"]);
    ignored.write("classes.txt", "sea\n\nship\n");
    ignored.refused(&crop(8), &["classes.txt", "line 2"]);
}

#[test]
fn masks_that_do_not_fit_are_left_out() {
    let folder = masks(|x, _| u8::from(x > 9));
    folder.picture("train/masks/0.png", mask(9, 9, |_, _| 0));
    folder.picture("train/masks/1.png", flat([1, 2, 3], 26, 20));
    folder.picture("train/images/alone.png", flat([1; 3], 26, 20));
    folder.picture("train/masks/lonely.png", mask(9, 9, |_, _| 0));
    folder.write("train/masks/notes.txt", "x");
    let loaded = folder.load(&crop(8));
    assert_eq!((loaded.train.unwrap().len(), loaded.test.len()), (1, 3));
    let told: Vec<String> = loaded.skipped.iter().chain(&loaded.odd).map(|file| file.to_string()).collect();
    for part in [
        "has 9x9 pixels, and its picture 20x24",
        "colours are no classes",
        "alone.png has no mask in masks/",
        "lonely.png has no picture in images/",
        "notes.txt is not read",
    ] {
        assert!(told.iter().any(|line| line.contains(part)), "no {part:?} in {told:?}");
    }
}

/// A pattern of squares of 2 x 2 pixels, whose half is the pattern itself.
fn doubled(seed: u32, w: u32, h: u32) -> (RgbImage, RgbImage) {
    let low = pattern(seed, w, h);
    let high = RgbImage::from_fn(2 * w, 2 * h, |x, y| *low.get_pixel(x / 2, y / 2));
    (low, high)
}

#[test]
fn pairs_are_cut_at_the_same_place() {
    let folder = Folder::new();
    for i in 0..4u32 {
        let (low, high) = doubled(i, 20 + i, 17);
        folder.picture(&format!("LR/{i}.png"), low);
        folder.picture(&format!("hr/{i}.png"), high);
    }
    let options = Options { test_share: Some(0.25), ..crop(8) };
    let loaded = folder.load(&options);
    let train = loaded.train.unwrap();
    let shape = ImageShape { h: 16, w: 16, c: 3 };
    assert_eq!((loaded.task, train.target_kind(), train.len()), (Task::Restore, TargetKind::Image(shape), 3));
    let mut places = BTreeSet::new();
    for epoch in 0..8 {
        let (pixels, wanted) = drawn(&*train, 1, epoch);
        for (at, pixel) in pixels.chunks_exact(3).enumerate() {
            let (y, x) = (at / 8 * 2 + epoch as usize % 2, at % 8 * 2);
            let high: Vec<f32> = pixel.iter().map(|&value| f32::from(value) / 255.0).collect();
            assert_eq!(wanted[(y * 16 + x) * 3..][..3], high);
        }
        places.insert(pixels);
    }
    assert!(places.len() > 4, "{} places", places.len());
    folder.refused(&Options { upscale: Some(3), ..options.clone() }, &["2 times as large; `upscale` is 3"]);
    folder.refused(&Options { random_crop: Some([0.1, 1.0]), ..options.clone() }, &["leave out `random_crop`"]);
    folder.picture("hr/0.png", flat([0; 3], 41, 34));
    folder.picture("LR/2.png", flat([0; 3], 7, 7));
    folder.picture("hr/2.png", flat([0; 3], 14, 14));
    let strict = Options { strict: true, upscale: None, ..options };
    folder.refused(&Options { test_share: Some(0.25), ..strict }, &["expected", "17x20"]);
}

#[test]
fn pictures_alone_are_enlarged_from_their_own_small_copies() {
    let folder = Folder::new();
    (0..4u32).for_each(|i| drop(folder.picture(&format!("{i}.png"), flat([50 * i as u8, 9, 200], 41 + i, 38))));
    folder.refused(&Options { test_share: Some(0.5), ..crop(16) }, &["needs --upscale 2"]);
    let options = Options { test_share: Some(0.5), upscale: Some(2), task: Some(Task::Restore), ..crop(16) };
    let loaded = folder.load(&options);
    let train = loaded.train.unwrap();
    for epoch in 0..3 {
        let (pixels, wanted) = drawn(&*train, 0, epoch);
        assert_eq!((pixels.len(), wanted.len()), (16 * 16 * 3, 32 * 32 * 3));
        assert!(wanted.chunks_exact(3).all(|pixel| pixel[0] == f32::from(pixels[0]) / 255.0));
    }
    folder.refused(
        &Options { crop: Some([20, 20]), strict: true, ..options.clone() },
        &["shows 19x20 pixels to the network"],
    );
    let classify = Options { task: Some(Task::Classify), ..options };
    folder.refused(&classify, &["which is to restore, and the task is to classify"]);
}
