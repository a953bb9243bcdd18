//! Arrays of NumPy in archives and folders.

use std::io::Write;

use bitpact_data::TargetKind;
use bitpact_data::own::check;
use zip::write::SimpleFileOptions;

use super::*;

/// A `.npy` file of version 1.
fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let head = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sides}), }}\n");
    [b"\x93NUMPY\x01\x00", &(head.len() as u16).to_le_bytes()[..], head.as_bytes(), data].concat()
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        writer.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn labels(values: &[i64]) -> Vec<u8> {
    npy("<i8", &[values.len()], &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

fn archive(folder: &Folder, arrays: &[(&str, Vec<u8>)], options: &Options) -> Result<Loaded, String> {
    let path = folder.write("a.npz", npz(arrays));
    load(&path, Limits::default(), options, &|_, _| ()).map_err(|error| error.to_string())
}

#[test]
fn both_orders_of_channels_hold_the_same_images() {
    let folder = Folder::new();
    let pixel = |n: usize, y: usize, x: usize, c: usize| (n * 97 + y * 31 + x * 7 + c * 3) as u8;
    let (mut last, mut first) = (Vec::new(), Vec::new());
    for n in 0..4 {
        (0..6 * 5 * 3).for_each(|i| last.push(pixel(n, i / 15, i / 3 % 5, i % 3)));
        (0..6 * 5 * 3).for_each(|i| first.push(pixel(n, i % 30 / 5, i % 5, i / 30)));
    }
    let half = |x: Vec<u8>, shape: &[usize]| {
        vec![
            ("x_train", npy("|u1", shape, &x)),
            ("y_train", labels(&[0, 1, 2, 1])),
            ("x_test", npy("|u1", shape, &x)),
            ("y_test", labels(&[2, 1, 0, 0])),
        ]
    };
    let a = archive(&folder, &half(last, &[4, 6, 5, 3]), &Options::default()).unwrap();
    let b = archive(&folder, &half(first, &[4, 3, 6, 5]), &Options::default()).unwrap();
    assert_eq!(a.test.image_shape(), ImageShape { h: 6, w: 5, c: 3 });
    assert_eq!(image(&*a.test, 3)[..3], [pixel(3, 0, 0, 0), pixel(3, 0, 0, 1), pixel(3, 0, 0, 2)]);
    let (a_train, b_train) = (a.train.unwrap(), b.train.unwrap());
    for i in 0..4 {
        assert_eq!((image(&*a_train, i), a_train.label(i)), (image(&*b_train, i), b_train.label(i)));
    }
    assert_eq!((a_train.class_names().len(), a.test.label(0), a.task), (3, 2, Task::Classify));
}

#[test]
fn files_of_a_folder_are_arrays_too_and_shapes_tell_the_task() {
    let folder = Folder::new();
    let x = npy("|u1", &[10, 8, 8], &(0..640).map(|i| (i / 64) as u8).collect::<Vec<u8>>());
    folder.write("images.npy", x);
    let y: Vec<u8> = (0..20).flat_map(|i| (i as f32 * 0.5).to_le_bytes()).collect();
    folder.write("targets.npy", npy("<f4", &[10, 2], &y));
    folder.refused(&Options::default(), &["no test half", "--test-share"]);
    let options = Options { test_share: Some(0.3), ..Options::default() };
    let loaded = folder.load(&options);
    assert_eq!((loaded.task, loaded.test.target_kind(), loaded.test.len()), (Task::Regress, TargetKind::Numbers(2), 3));
    for i in 0..3 {
        let n = f32::from(image(&*loaded.test, i)[0]);
        assert_eq!(target(&*loaded.test, i), [n, n + 0.5]);
    }
    folder.write("targets.npy", npy("|u1", &[10, 8, 8], &[1; 640]));
    assert_eq!(folder.load(&options).test.target_kind(), TargetKind::Mask { h: 8, w: 8 });
    folder.write("targets.npy", npy("|u1", &[10, 16, 16, 1], &[255; 2560]));
    let loaded = folder.load(&options);
    assert_eq!(loaded.test.target_kind(), TargetKind::Image(ImageShape { h: 16, w: 16, c: 1 }));
    assert_eq!(target(&*loaded.test, 0)[0], 1.0);
    folder.write("targets.npy", labels(&[0, 1, 0, 1, 0, 1, 0, 1, 0, 1]));
    folder.write("classes.txt", "no\nyes\n");
    assert_eq!(folder.load(&options).test.class_names(), ["no", "yes"]);
    assert_eq!(load_test(folder.path(), None, &Options::default(), &|_, _| ()).unwrap().test.len(), 10);
    folder.refused(
        &Options { task: Some(Task::Segment), ..options.clone() },
        &["are to classify, and the task is to segment"],
    );
    folder.refused(&Options { random_crop: Some([0.1, 1.0]), ..options.clone() }, &["arrays are read as they are"]);
    folder.refused(&Options { crop: Some([4, 4]), ..options }, &["8x8 pixels, and `crop` is 4x4"]);
}

/// Bytes of 16-bit numbers, the low one first unless `is_big`.
fn words(values: &[u16], is_big: bool) -> Vec<u8> {
    values.iter().flat_map(|value| if is_big { value.to_be_bytes() } else { value.to_le_bytes() }).collect()
}

/// The codes of example `index` of a set of 16 bits.
fn codes(set: &dyn Dataset, index: usize) -> Vec<u16> {
    let mut out = vec![0; set.bytes_shape().len()];
    set.image(index, &mut out);
    out.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

#[test]
fn arrays_of_16_bits_are_inputs_of_16_bits() {
    let folder = Folder::new();
    let share = Options { test_share: Some(0.5), ..Options::default() };
    // Two channels of 5 rows and 5 columns, as planes.
    let value = |n: usize, c: usize, at: usize| (n * 20_000 + c * 5000 + at * 131) as u16;
    let planes: Vec<u16> = (0..4).flat_map(|n| (0..50).map(move |i| value(n, i / 25, i % 25))).collect();
    for (descr, is_big) in [("<u2", false), (">u2", true)] {
        for (y, is_class) in [(labels(&[0, 1, 0, 1]), true), (npy("<f4", &[4], &[0; 16]), false)] {
            let arrays = vec![("x", npy(descr, &[4, 2, 5, 5], &words(&planes, is_big))), ("y", y)];
            let loaded = archive(&folder, &arrays, &share).unwrap();
            let train = loaded.train.unwrap();
            assert_eq!((train.code_bits(), train.image_shape()), (16, ImageShape { h: 5, w: 5, c: 2 }));
            assert_eq!(train.target_kind() == TargetKind::Class, is_class);
            let mut all: Vec<Vec<u16>> =
                [&*train, &*loaded.test].iter().flat_map(|set| [0, 1].map(|i| codes(*set, i))).collect();
            all.sort();
            for (n, image) in all.iter().enumerate() {
                let expected: Vec<u16> = (0..50).map(|i| value(n, i % 2, i / 2)).collect();
                assert_eq!(image, &expected, "{descr}, example {n}");
            }
        }
    }
    let images = [("x", npy("<u2", &[4, 8], &[1; 64])), ("y", labels(&[0, 1, 0, 1]))];
    let report = check(&folder.write("a.npz", npz(&images)), &share, &|_, _| ()).unwrap();
    assert_eq!(report.pixels, [("of 16 bits".to_owned(), 4)]);
    let halves = [
        ("x_train", npy("<u2", &[2, 8], &[0; 32])),
        ("y_train", labels(&[0, 1])),
        ("x_test", npy("|u1", &[2, 8], &[0; 16])),
        ("y_test", labels(&[0, 1])),
    ];
    let error = archive(&folder, &halves, &share).map(|_| ()).unwrap_err();
    assert!(error.contains("its halves differ in shape or bits"), "{error}");
}

#[test]
fn codes_of_16_bits_are_those_of_pictures_of_16_bits() {
    let values: Vec<u16> = (0..64).map(|i: u16| i.wrapping_mul(1031)).collect();
    let pictures = Folder::new();
    for name in ["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png"] {
        pictures.picture(name, image::ImageBuffer::<Luma<u16>, _>::from_raw(8, 8, values.clone()).unwrap());
    }
    let arrays = Folder::new();
    let x = || npy("<u2", &[2, 8, 8], &words(&values.repeat(2), false));
    let halves = [("x_train", x()), ("y_train", labels(&[0, 1])), ("x_test", x()), ("y_test", labels(&[0, 1]))];
    let loaded = archive(&arrays, &halves, &Options::default()).unwrap();
    let (pixels, codes) = (image(&*pictures.load(&Options::default()).test, 0), codes(&*loaded.test, 0));
    // A picture keeps the nearest of its 256 levels; both run from 0 to 1.
    for (pixel, code) in pixels.into_iter().zip(&codes) {
        assert!(u16::from(pixel).wrapping_mul(257).abs_diff(*code) <= 128, "pixel {pixel}, code {code}");
    }
    assert_eq!(codes, values);
    let both = [("x", x()), ("y", npy("<u2", &[2, 8, 8, 1], &words(&values.repeat(2), false)))];
    let loaded = archive(&arrays, &both, &Options { test_share: Some(0.5), ..Options::default() }).unwrap();
    let expected: Vec<f32> = values.iter().map(|&value| f32::from(value) / 65_535.0).collect();
    assert_eq!(target(&*loaded.test, 0), expected);
}

#[test]
fn arrays_that_do_not_fit_are_told() {
    let folder = Folder::new();
    let x = |shape: &[usize]| npy("|u1", shape, &vec![0; shape.iter().product()]);
    let good = || vec![("x", x(&[4, 8, 8])), ("y", labels(&[0, 1, 0, 1]))];
    let share = Options { test_share: Some(0.5), ..Options::default() };
    assert!(archive(&folder, &good(), &share).is_ok());
    let with = |name: &'static str, bytes: Vec<u8>| {
        let mut arrays = good();
        arrays.iter_mut().filter(|(own, _)| *own == name).for_each(|(_, old)| old.clone_from(&bytes));
        arrays
    };
    for (arrays, part) in [
        (with("x", x(&[5, 8, 8])), "x has 5 examples, and y 4"),
        (with("x", x(&[4])), "expected 2 sides for signals"),
        (with("x", x(&[4, 3, 3, 3])), "does not tell channels from rows"),
        (with("x", x(&[4, 9, 9, 9])), "does not tell channels from rows"),
        (with("x", x(&[0, 8, 8])), "holds nothing"),
        (with("x", npy("<f4", &[4, 1], &[0; 16])), "x: holds floats; a network reads integers"),
        (with("x", npy("<i4", &[4, 1], &[0, 1, 0, 0].repeat(4))), "x: holds 256; expected numbers from 0 to 255"),
        (with("x", npy("|u1", &[1 << 45], &[0; 4])), "x.npy: shape"),
        (with("x", b"not an array".to_vec()), "x.npy: is no NumPy array"),
        (with("y", labels(&[0, 1, 0, -1])), "y: holds -1; expected classes"),
        (with("y", labels(&[0, 0, 0, 0])), "has one class"),
        (with("y", labels(&[0, 1, 0, 70_000])), "holds 70000"),
        (with("y", npy("<i8", &[], &[0; 8])), "is one number"),
        (with("y", npy("<f4", &[4], &f32::NAN.to_le_bytes().repeat(4))), "finite"),
        (vec![("a", x(&[4, 8, 8])), ("b", labels(&[0]))], "holds the arrays a, b: expected arrays called x_train"),
        (vec![], "holds the arrays"),
    ] {
        let error = archive(&folder, &arrays, &share).map(|_| ()).unwrap_err();
        assert!(error.contains("a.npz: ") && error.contains(part), "{error}, expected {part}");
    }
    let path = folder.write("a.npz", b"PK\x03\x04 cut");
    let error = load(&path, Limits::default(), &share, &|_, _| ()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("is no .npz archive"), "{error}");
    let whole = npz(&good());
    for cut in (0..whole.len()).step_by(17) {
        let path = folder.write("a.npz", &whole[..cut]);
        assert!(load(&path, Limits::default(), &share, &|_, _| ()).is_err(), "cut at {cut}");
    }
}
