//! The sets that go by a name, and loading one of them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::{DataError, ImageShape, Split, TargetKind, cifar10, cifar100, mnist, own, ppg_bp, svhn, synthetic};

/// A data set that bitpact knows; [`DatasetName::info`] says what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatasetName {
    /// [`synthetic`]: `builtin`.
    Builtin,
    /// [`synthetic::tasks::upscale`]: `builtin-upscale`.
    Upscale,
    /// [`synthetic::tasks::segments`]: `builtin-segments`.
    Segments,
    /// [`synthetic::tasks::signals`]: `builtin-signals`.
    Signals,
    /// [`cifar10`]: `cifar10`.
    Cifar10,
    /// [`cifar100`]: `cifar100`.
    Cifar100,
    /// [`mnist`]: `mnist`.
    Mnist,
    /// [`mnist`]: `fashion-mnist`.
    FashionMnist,
    /// [`mnist`]: `kmnist`.
    Kmnist,
    /// [`mnist`]: `emnist-digits`.
    EmnistDigits,
    /// [`mnist`]: `emnist-letters`.
    EmnistLetters,
    /// [`mnist`]: `emnist-balanced`.
    EmnistBalanced,
    /// [`svhn`]: `svhn`.
    Svhn,
    /// [`ppg_bp`]: `ppg-bp`.
    PpgBp,
    /// [`own`]: `folder`.
    Folder,
}

impl DatasetName {
    /// Every set whose images are known, in the order in which errors list them; [`DatasetName::Folder`] is none.
    pub const ALL: [Self; 14] = [
        Self::Builtin,
        Self::Upscale,
        Self::Segments,
        Self::Signals,
        Self::Cifar10,
        Self::Cifar100,
        Self::Mnist,
        Self::FashionMnist,
        Self::Kmnist,
        Self::EmnistDigits,
        Self::EmnistLetters,
        Self::EmnistBalanced,
        Self::Svhn,
        Self::PpgBp,
    ];

    /// Every name, that of one's own data last.
    pub fn every() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain([Self::Folder])
    }

    /// The name as typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Upscale => "builtin-upscale",
            Self::Segments => "builtin-segments",
            Self::Signals => "builtin-signals",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Kmnist => "kmnist",
            Self::EmnistDigits => "emnist-digits",
            Self::EmnistLetters => "emnist-letters",
            Self::EmnistBalanced => "emnist-balanced",
            Self::Svhn => "svhn",
            Self::PpgBp => "ppg-bp",
            Self::Folder => "folder",
        }
    }
}

/// Draws so many training and test examples from a seed.
type Draw = fn(u64, usize, usize) -> Result<Split, DataError>;

impl DatasetName {
    /// Function that draws the set; `None` where the set is read from files.
    fn drawn(self) -> Option<Draw> {
        match self {
            Self::Builtin => Some(synthetic::generate),
            Self::Upscale => Some(synthetic::tasks::upscale),
            Self::Segments => Some(synthetic::tasks::segments),
            Self::Signals => Some(synthetic::tasks::signals),
            _ => None,
        }
    }

    /// Kind of the targets of the set; that of one's own data is not known before they are read, and classes stand for
    /// it.
    pub fn target_kind(self) -> TargetKind {
        let ImageShape { h, w, .. } = synthetic::SHAPE;
        match self {
            Self::Upscale => TargetKind::Image(synthetic::SHAPE),
            Self::Segments => TargetKind::Mask { h, w },
            Self::Signals => TargetKind::Numbers(synthetic::tasks::MEASURES.len()),
            Self::PpgBp => TargetKind::Numbers(ppg_bp::MEASURES.len()),
            _ => TargetKind::Class,
        }
    }

    /// Tells whether the set is drawn by a program and has no files.
    pub fn is_drawn(self) -> bool {
        self.drawn().is_some()
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DatasetName {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        Self::every().find(|known| known.as_str() == name).ok_or_else(|| DataError::UnknownName {
            name: name.to_string(),
            valid: Self::every().map(Self::as_str).collect::<Vec<_>>().join(", "),
        })
    }
}

/// How many of the first images of each half to take; `None` and anything above the half's size mean all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Training images.
    pub train: Option<usize>,
    /// Test images.
    pub test: Option<usize>,
}

/// Loads the set `name`, reading from `data_dir` where it is one of files; one's own data as [`own::Options::default`]
/// says.
///
/// # Errors
/// Those of the set's own loader; a set of files without a folder; a folder for the built-in set, which would read
/// nothing from it.
pub fn load(name: DatasetName, data_dir: Option<&Path>, limits: Limits) -> Result<Split, DataError> {
    load_as(name, data_dir, limits, &own::Options::default())
}

/// Loads the set `name` as [`load`] does, one's own data and the fold of a set in folds as `options` say.
///
/// # Errors
/// A folder or file that is missing, cannot be read or holds another set, as of [`load`].
pub fn load_as(
    name: DatasetName,
    data_dir: Option<&Path>,
    limits: Limits,
    options: &own::Options,
) -> Result<Split, DataError> {
    let Some(dir) = data_dir else {
        let info = name.info();
        if let Some(draw) = name.drawn() {
            let take = |limit: Option<usize>, all: usize| limit.map_or(all, |n| n.min(all));
            return draw(synthetic::SEED, take(limits.train, info.train_images), take(limits.test, info.test_images));
        }
        let fetch = match info.downloads {
            [] => String::new(),
            _ => format!(", or run `bitpact data fetch {name}`"),
        };
        let how = match name {
            DatasetName::Folder => info.by_hand.to_owned(),
            _ => format!("{} ({}){fetch}", info.by_hand, info.homepage),
        };
        return Err(DataError::NeedsFolder { name: name.as_str(), how });
    };
    match name {
        DatasetName::Builtin | DatasetName::Upscale | DatasetName::Segments | DatasetName::Signals => {
            Err(DataError::UnusedFolder { name: name.as_str(), path: dir.to_path_buf() })
        }
        DatasetName::Cifar10 => cifar10::load(dir, limits.train, limits.test),
        DatasetName::Cifar100 => cifar100::load(dir, limits.train, limits.test),
        DatasetName::Mnist
        | DatasetName::FashionMnist
        | DatasetName::Kmnist
        | DatasetName::EmnistDigits
        | DatasetName::EmnistLetters
        | DatasetName::EmnistBalanced => mnist::load(name, dir, limits),
        DatasetName::Svhn => svhn::load(dir, limits),
        DatasetName::PpgBp => ppg_bp::load(dir, options.fold, limits),
        DatasetName::Folder => {
            let loaded = own::load(dir, limits, options, &|_, _| ())?;
            let train = loaded.train.expect("both halves were asked for");
            Ok(Split { train, test: loaded.test })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(result: Result<Split, DataError>) -> String {
        result.err().expect("an error").to_string()
    }

    #[test]
    fn names_read_back_and_others_are_told_the_valid_ones() {
        for name in DatasetName::every() {
            assert_eq!(name.to_string().parse::<DatasetName>().unwrap(), name);
        }
        assert_eq!(
            "cifar".parse::<DatasetName>().unwrap_err().to_string(),
            "unknown data set `cifar`; expected one of: builtin, builtin-upscale, builtin-segments, builtin-signals, cifar10, cifar100, mnist, fashion-mnist, kmnist, \
             emnist-digits, emnist-letters, emnist-balanced, svhn, ppg-bp, folder"
        );
    }

    #[test]
    fn drawn_sets_have_the_targets_that_their_names_say() {
        for name in DatasetName::ALL.into_iter().filter(|name| name.is_drawn()) {
            let split = load(name, None, Limits { train: Some(1), test: Some(1) }).unwrap();
            assert_eq!(split.test.target_kind(), name.target_kind(), "{name}");
        }
    }

    #[test]
    fn the_builtin_set_takes_limits_and_no_folder() {
        let split = load(DatasetName::Builtin, None, Limits { train: Some(30), test: Some(10) }).unwrap();
        assert_eq!((split.train.len(), split.test.len()), (30, 10));
        let huge = Limits { train: Some(1), test: Some(usize::MAX) };
        assert_eq!(load(DatasetName::Builtin, None, huge).unwrap().test.len(), synthetic::TEST_IMAGES);
        assert!(
            error(load(DatasetName::Builtin, None, Limits { train: Some(0), test: None }))
                .contains("training set has no images")
        );
        let text = error(load(DatasetName::Builtin, Some(Path::new("images")), Limits::default()));
        assert!(text.contains("--data images") && text.contains("reads no files"), "{text}");
    }

    #[test]
    fn cifar10_without_a_folder_says_where_to_get_it_and_the_flag() {
        let text = error(load(DatasetName::Cifar10, None, Limits::default()));
        assert!(text.contains("--data DIR") && text.contains("cifar-10-binary.tar.gz"), "{text}");
    }
}
