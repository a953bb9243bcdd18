//! Arrays in memory as a data set.

use std::path::Path;
use std::sync::Arc;

use super::{Loaded, Options, arrays};
use crate::{DataError, Limits};

pub use super::npy::{Array, Values};

/// Inputs and targets of one half of a data set, as many of each.
pub type Half = (Array, Array);

/// Makes a data set of arrays in memory, by the rules by which the arrays of an `.npz` file become one: inputs are
/// `[n, w]` signals, `[n, h, w]` or `[n, h, w, c]` images or these with the channels first, and the shape of the targets
/// tells the task. `name` is what errors call the arrays; without `test`, [`Options::test_share`] of `train` are kept
/// out of it, as of a file. Without `class_names` classes are called by their numbers.
///
/// # Errors
/// Arrays that do not fit together or have other types than inputs and targets can have, options that arrays do not
/// take, and no test half.
pub fn load_arrays(
    name: &str,
    train: Option<Half>,
    test: Option<Half>,
    class_names: Option<Vec<String>>,
    limits: Limits,
    options: &Options,
) -> Result<Loaded, DataError> {
    let arrays::Known { task, names: _, train, test } =
        arrays::of_memory(Path::new(name), class_names, train, test, limits, options)?;
    let (form, faults) = ("arrays".to_owned(), Arc::default());
    Ok(Loaded { train, test, task, form, skipped: Vec::new(), odd: Vec::new(), faults })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TargetKind;

    fn half(n: usize) -> Half {
        let x = Array { shape: vec![n, 2, 3], values: Values::Bytes((0..6 * n as u8).collect()) };
        let y = Array { shape: vec![n], values: Values::Integers((0..n as i64).map(|i| i % 3).collect()) };
        (x, y)
    }

    fn load(train: Option<Half>, test: Option<Half>, options: &Options) -> Result<Loaded, String> {
        load_arrays("arrays", train, test, None, Limits::default(), options).map_err(|error| error.to_string())
    }

    #[test]
    fn arrays_become_both_halves_or_are_parted() {
        let loaded = load(Some(half(6)), Some(half(3)), &Options::default()).unwrap();
        let mut image = [0; 6];
        loaded.train.unwrap().image(1, &mut image);
        assert_eq!((image, loaded.test.len()), ([6, 7, 8, 9, 10, 11], 3));
        assert_eq!(
            (loaded.test.target_kind(), loaded.test.class_names()),
            (TargetKind::Class, &["0", "1", "2"].map(str::to_owned)[..])
        );
        let options = Options { test_share: Some(0.5), ..Options::default() };
        let loaded = load(Some(half(6)), None, &options).unwrap();
        assert_eq!((loaded.train.unwrap().len(), loaded.test.len()), (3, 3));
    }

    #[test]
    fn arrays_that_do_not_fit_are_told() {
        let (x, y) = half(6);
        let short = Array { shape: vec![5], values: Values::Integers(vec![0; 5]) };
        let torn = Array { shape: vec![4, 2], values: Values::Integers(vec![0; 5]) };
        let floats = Array { shape: vec![6, 2, 3], values: Values::Floats(vec![0.5; 36]) };
        for (train, part) in [
            ((x.clone(), short), "X has 6 examples, and y 5"),
            ((x, torn), "y of train has 5 elements and the shape [4, 2]"),
            ((floats, y), "X of train holds floats"),
        ] {
            let error = load(Some(train), Some(half(3)), &Options::default()).err().unwrap();
            assert!(error.contains(part), "{error}, expected {part}");
        }
        assert!(load(Some(half(3)), None, &Options::default()).err().unwrap().contains("no test half"));
    }
}
