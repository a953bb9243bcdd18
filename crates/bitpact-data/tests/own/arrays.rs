//! Arrays of NumPy in archives and folders.

use std::io::Write;

use bitpact_data::TargetKind;
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
        (with("x", npy("<f4", &[4, 1], &[0; 16])), "x: holds floats; a network reads bytes"),
        (with("x", npy("<i2", &[4, 1], &[0, 1, 0, 0, 0, 0, 0, 0])), "x: holds 256"),
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
