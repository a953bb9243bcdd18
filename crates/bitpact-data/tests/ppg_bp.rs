//! PPG-BP's windows: folds, codes, targets, and archives that are something else.

use std::io::Write;
use std::path::Path;

use bitpact_data::ppg_bp::{self, FOLDS, SHAPE, UNITS};
use bitpact_data::{DataError, Dataset, DatasetName, Limits, Split, load_as, own};
use zip::write::SimpleFileOptions;

/// Samples of a window.
const SAMPLES: usize = 262;

fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let head = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sides}), }}\n");
    [b"\x93NUMPY\x01\x00", &(head.len() as u16).to_le_bytes()[..], head.as_bytes(), data].concat()
}

fn floats(shape: &[usize], values: &[f32]) -> Vec<u8> {
    npy("<f4", shape, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

fn integers(values: &[i32]) -> Vec<u8> {
    npy("<i4", &[values.len()], &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

type Arrays = Vec<(&'static str, Vec<u8>)>;

/// Two windows of each of the subjects 30, 10, 20, 50, 40 and 60; window i rises to the height i + 1.
fn arrays() -> Arrays {
    let subjects: Vec<i32> = [30, 10, 20, 50, 40, 60].iter().flat_map(|&subject| [subject; 2]).collect();
    let n = subjects.len();
    let x: Vec<f32> = (0..n * SAMPLES).map(|at| ((at / SAMPLES + 1) * (at % SAMPLES)) as f32).collect();
    let pressures = |from: f32| (0..n).map(|i| from + i as f32).collect::<Vec<f32>>();
    vec![
        ("x", floats(&[n, SAMPLES], &x)),
        ("sbp", floats(&[n], &pressures(120.0))),
        ("dbp", floats(&[n], &pressures(70.0))),
        ("subject", integers(&subjects)),
        ("recording", integers(&vec![1; n])),
    ]
}

fn write(folder: &Path, arrays: &Arrays) {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        writer.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    std::fs::write(folder.join("windows.npz"), writer.finish().unwrap().into_inner()).unwrap();
}

fn loaded(folder: &Path, fold: usize) -> Result<Split, DataError> {
    let options = own::Options { fold, ..own::Options::default() };
    load_as(DatasetName::PpgBp, Some(folder), Limits::default(), &options)
}

/// SBP of every window of a half.
fn pressures(set: &dyn Dataset) -> Vec<f64> {
    let value = |index: usize| {
        let mut target = [0.0; 2];
        set.target(index, &mut target);
        (UNITS[0].zero + UNITS[0].scale * f64::from(target[0])).round()
    };
    (0..set.len()).map(value).collect()
}

#[test]
fn folds_part_the_subjects_by_their_sorted_numbers() {
    let home = tempfile::tempdir().unwrap();
    let nested = home.path().join("ppg-bp");
    std::fs::create_dir(&nested).unwrap();
    write(&nested, &arrays());
    // 10, 20, 30, 40, 50, 60: the sixth is in fold 0 again.
    let expected = [vec![122.0, 123.0, 130.0, 131.0], vec![124.0, 125.0], vec![120.0, 121.0], vec![128.0, 129.0]];
    let mut measured = 0;
    for fold in 0..FOLDS {
        let split = loaded(home.path(), fold).unwrap();
        let (train, test) = (pressures(&*split.train), pressures(&*split.test));
        assert_eq!(train.len() + test.len(), 12);
        assert!(test.iter().all(|pressure| !train.contains(pressure)), "{fold}");
        assert!(expected.get(fold).is_none_or(|expected| *expected == test), "{fold}: {test:?}");
        measured += test.len();
    }
    assert_eq!(measured, 12);
    let limits = Limits { train: Some(3), test: Some(1) };
    let split = ppg_bp::load(home.path(), 1, limits).unwrap();
    assert_eq!((split.train.len(), split.test.len()), (3, 1));
    assert_eq!((split.test.units(), split.test.class_names()), (&UNITS[..], &["SBP", "DBP"].map(str::to_owned)[..]));
}

#[test]
fn windows_are_normalized_before_they_become_codes() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), &arrays());
    let split = loaded(home.path(), 0).unwrap();
    let (mut first, mut last) = (vec![0; SAMPLES], vec![0; SAMPLES]);
    split.train.image(0, &mut first);
    split.train.image(split.train.len() - 1, &mut last);
    // A ramp from -sqrt(3) to sqrt(3) deviations, whatever its height.
    assert_eq!((split.train.image_shape(), &first), (SHAPE, &last));
    assert_eq!((first[0], first[SAMPLES - 1]), (80 - 55, 80 + 55));
    let mean = first.iter().map(|&code| f64::from(code)).sum::<f64>() / SAMPLES as f64;
    assert!((mean - 80.0).abs() < 0.1, "{mean}");
}

#[test]
fn archives_of_something_else_are_told() {
    let changed = |name: &str, bytes: Option<Vec<u8>>| {
        let mut arrays = arrays();
        let at = arrays.iter().position(|(own, _)| *own == name).unwrap();
        match bytes {
            Some(bytes) => arrays[at].1 = bytes,
            None => drop(arrays.remove(at)),
        }
        arrays
    };
    let one_nan = {
        let mut values = vec![1.0; 12 * SAMPLES];
        values[SAMPLES + 4] = f32::NAN;
        floats(&[12, SAMPLES], &values)
    };
    for (arrays, part) in [
        (changed("dbp", None), "holds no array `dbp`"),
        (changed("x", Some(floats(&[12, 100], &[0.0; 1200]))), "x has the shape [12, 100]; expected [n, 262]"),
        (changed("x", Some(floats(&[0, SAMPLES], &[]))), "n of at least 1"),
        (changed("x", Some(one_nan)), "x[1, 4] is NaN"),
        (changed("sbp", Some(floats(&[11], &[120.0; 11]))), "sbp has the shape [11], and x 12 windows"),
        (changed("sbp", Some(floats(&[12], &[1e9; 12]))), "sbp[0] is 1000000000; expected a pressure"),
        (changed("dbp", Some(floats(&[12], &[f32::NAN; 12]))), "dbp[0] is NaN"),
        (changed("subject", Some(floats(&[12], &[1.0; 12]))), "subject holds floats"),
        (
            changed("subject", Some(integers(&[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]))),
            "has 4 subjects; expected at least 5",
        ),
        (changed("subject", Some(npy("|O", &[12], &[]))), "Python objects"),
        (changed("x", Some(b"none".to_vec())), "x.npy"),
    ] {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), &arrays);
        let error = loaded(home.path(), 0).err().expect(part).to_string();
        assert!(error.contains(part) && error.contains("windows.npz"), "{error}, expected {part}");
    }
    let home = tempfile::tempdir().unwrap();
    let missing = loaded(home.path(), 0).err().unwrap().to_string();
    assert!(missing.contains("windows.npz not found"), "{missing}");
    std::fs::write(home.path().join("windows.npz"), b"PK no archive").unwrap();
    let torn = loaded(home.path(), 0).err().unwrap().to_string();
    assert!(torn.contains("is no .npz archive"), "{torn}");
    write(home.path(), &arrays());
    let fold = loaded(home.path(), FOLDS).err().unwrap().to_string();
    assert!(fold.contains("has 5 folds, 0 to 4, and fold 5 was asked for"), "{fold}");
}
