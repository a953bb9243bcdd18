//! PPG-BP: photoplethysmograms of 2.1 s and the blood pressure of their subjects (Liang et al. 2018, Scientific Data,
//! doi 10.1038/sdata.2018.20), as windows at 125 Hz.
//!
//! The file is NumPy's `windows.npz` with `x`, float `[n, 262]`, `sbp` and `dbp`, mmHg, and `subject`, integers, each
//! `[n]`. A window is normalized, `(x - mean) / (deviation + 1e-6)`, and becomes 8-bit codes
//! `round(32 x) + 80`; a recipe reads them with `input = { zero_point = 80, scale = 0.03125 }`. Targets are
//! `(SBP - 128) / 20` and `(DBP - 72) / 11`, about the mean and deviation of the published set.
//!
//! There are five folds by subject: a subject's fold is its place in the sorted list of the subjects, modulo 5. One
//! fold is measured on, the others are learned from.

use std::collections::BTreeSet;
use std::path::Path;

use crate::dataset::limited_len;
use crate::own::npy::{Archive, Array, Values};
use crate::{DataError, Examples, ImageShape, Limits, Split, TargetKind, Unit, files};

/// Number of folds.
pub const FOLDS: usize = 5;
/// Size of a window: one row of samples.
pub const SHAPE: ImageShape = ImageShape { h: 1, w: 262, c: 1 };
/// Names of the numbers of a target.
pub const MEASURES: [&str; 2] = ["SBP", "DBP"];
/// Pressure in mmHg of the numbers 0 and 1 of each target.
pub const UNITS: [Unit; 2] =
    [Unit { name: "mmHg", zero: 128.0, scale: 20.0 }, Unit { name: "mmHg", zero: 72.0, scale: 11.0 }];
pub(crate) const FOLDER: &str = "ppg-bp";
pub(crate) const FILE: &str = "windows.npz";

const TITLE: &str = "PPG-BP";
const EXPECTED: &str = "a folder with windows.npz, or one that holds it as ppg-bp/";
/// Code of the value 0.
const ZERO: f64 = 80.0;
/// Codes of a deviation.
const STEPS: f64 = 32.0;
/// Pressures that a cuff can show, in mmHg.
const PRESSURES: std::ops::RangeInclusive<f64> = 10.0..=350.0;

/// Reads the windows from `dir`, the folder with `windows.npz` or one that holds it as `ppg-bp/`: those of the
/// subjects of fold `fold` as the test half, all others as the training half.
///
/// # Errors
/// A fold of 5 or more; a `dir` that is no folder; a file that is missing or no archive of these arrays; arrays of
/// other types or shapes; a sample that is no number, a pressure outside 10 to 350 mmHg; fewer subjects than folds; a
/// limit of 0.
pub fn load(dir: &Path, fold: usize, limits: Limits) -> Result<Split, DataError> {
    let root = files::find_root(dir, &[FOLDER], [FILE], EXPECTED)?;
    let path = files::open(TITLE, dir, &root, &[FOLDER], &[FILE], "an .npz archive")?.path;
    let wrong = |message: String| DataError::Format { path: path.clone(), message };
    if fold >= FOLDS {
        return Err(wrong(format!("has {FOLDS} folds, 0 to {}, and fold {fold} was asked for", FOLDS - 1)));
    }
    let mut archive = Archive::open(&path)?;
    let mut read = |name: &str| -> Result<Array, DataError> {
        let Some(index) = archive.names.iter().position(|own| own == name) else {
            return Err(wrong(format!("holds no array `{name}`; expected x, sbp, dbp and subject")));
        };
        archive.read(index)
    };
    let (x, subject) = (read("x")?, read("subject")?);
    let pressures = [read("sbp")?, read("dbp")?];
    let n = x.shape.first().copied().unwrap_or(0);
    if x.shape != [n, SHAPE.w] || n == 0 {
        return Err(wrong(format!("x has the shape {:?}; expected [n, {}] with n of at least 1", x.shape, SHAPE.w)));
    }
    for (name, array) in [("subject", &subject), ("sbp", &pressures[0]), ("dbp", &pressures[1])] {
        if array.shape != [n] {
            return Err(wrong(format!("{name} has the shape {:?}, and x {n} windows; expected [{n}]", array.shape)));
        }
    }
    if matches!(subject.values, Values::Floats(_)) {
        return Err(wrong("subject holds floats; expected integers".to_owned()));
    }
    let subjects: Vec<i64> = subject.values.numbers().into_iter().map(|number| number as i64).collect();
    let sorted: Vec<i64> = subjects.iter().copied().collect::<BTreeSet<i64>>().into_iter().collect();
    if sorted.len() < FOLDS {
        return Err(wrong(format!("has {} subjects; expected at least {FOLDS}, one for each fold", sorted.len())));
    }
    let samples = x.values.numbers();
    let [sbp, dbp] = pressures.map(|array| array.values.numbers());
    let mut halves: [(Vec<u8>, Vec<f32>); 2] = Default::default();
    for (i, window) in samples.chunks_exact(SHAPE.w).enumerate() {
        if let Some(at) = window.iter().position(|value| !value.is_finite()) {
            return Err(wrong(format!("x[{i}, {at}] is {}; expected a number", window[at])));
        }
        for (name, value) in MEASURES.iter().zip([sbp[i], dbp[i]]) {
            if !PRESSURES.contains(&value) {
                let name = name.to_lowercase();
                return Err(wrong(format!("{name}[{i}] is {value}; expected a pressure of 10 to 350 mmHg")));
            }
        }
        let place = sorted.binary_search(&subjects[i]).expect("every subject is in the list");
        let (codes, targets) = &mut halves[usize::from(place % FOLDS == fold)];
        codes.extend(coded(window));
        targets.extend([sbp[i], dbp[i]].iter().zip(&UNITS).map(|(&value, unit)| unit.number(value) as f32));
    }
    let names = || MEASURES.map(str::to_owned).to_vec();
    let half = |(mut codes, mut targets): (Vec<u8>, Vec<f32>), limit: Option<usize>| -> Result<_, DataError> {
        let kind = TargetKind::Numbers(MEASURES.len());
        let kept = limited_len(&path.display().to_string(), targets.len() / kind.len(), limit)?;
        codes.truncate(kept * SHAPE.w);
        targets.truncate(kept * kind.len());
        Ok(Box::new(Examples::new(codes, targets, SHAPE, kind, names())?.with_units(UNITS.to_vec())))
    };
    let [train, test] = halves;
    Ok(Split { train: half(train, limits.train)?, test: half(test, limits.test)? })
}

/// The codes of a window's samples.
fn coded(window: &[f64]) -> impl Iterator<Item = u8> + '_ {
    let n = window.len() as f64;
    let mean = window.iter().sum::<f64>() / n;
    let deviation = (window.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt();
    let code = move |x: &f64| (STEPS * (x - mean) / (deviation + 1e-6) + ZERO).round_ties_even();
    window.iter().map(move |x| code(x).clamp(0.0, 255.0) as u8)
}
