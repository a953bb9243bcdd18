//! What is known of every set by name: sizes, classes, files, where they come from.

use crate::{DatasetName, ImageShape, cifar10, cifar100, mnist, ppg_bp, svhn, synthetic};

/// Half of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// Images to learn from.
    Train,
    /// Images to measure on.
    Test,
}

/// A file that the set is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// The half it belongs to.
    pub half: Half,
    /// Name of the file; idx files may also have `.gz` behind it.
    pub name: &'static str,
    /// Published MD5 of the file, of the gzipped one for idx files, in lower-case hexadecimal digits.
    pub md5: Option<&'static str>,
}

/// A file of the set's publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download {
    /// Address of the download, over HTTPS.
    pub url: &'static str,
    /// Size of the download in bytes.
    pub bytes: u64,
    /// MD5 of the download as its publisher gives it, in lower-case hexadecimal digits.
    pub md5: &'static str,
}

impl Download {
    /// Name of the file: what follows the last slash of the address.
    pub fn file_name(&self) -> &'static str {
        self.url.rsplit('/').next().unwrap_or(self.url)
    }

    /// Tells whether the set's files are packed in it.
    pub fn is_archive(&self) -> bool {
        self.url.ends_with(".tar.gz")
    }
}

/// A set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetInfo {
    /// Name of the set in bitpact.
    pub name: DatasetName,
    /// Name of the set in print.
    pub title: &'static str,
    /// Size of every image.
    pub image_shape: ImageShape,
    /// Names of the classes in the order of the labels.
    pub class_names: &'static [&'static str],
    /// Published number of training images.
    pub train_images: usize,
    /// Published number of test images.
    pub test_images: usize,
    /// Usual names of the folder with its files, below the one given; the first is the one a download makes.
    pub folders: &'static [&'static str],
    /// The files it is read from, those of the training set first; none for a set that is drawn.
    pub files: &'static [FileInfo],
    /// Downloads that the set's publisher offers; none where bitpact cannot fetch them.
    pub downloads: &'static [Download],
    /// Page about it.
    pub homepage: &'static str,
    /// Licence of the set, as far as its publishers state one.
    pub licence: &'static str,
    /// How to place the files by hand.
    pub by_hand: &'static str,
}

impl DatasetName {
    /// What is known of the set; of one's own data nothing is, and numbers are 0.
    pub fn info(self) -> &'static SetInfo {
        match self {
            Self::Builtin => &BUILTIN,
            Self::Upscale => &UPSCALE,
            Self::Segments => &SEGMENTS,
            Self::Signals => &SIGNALS,
            Self::Cifar10 => &CIFAR10,
            Self::Cifar100 => &CIFAR100,
            Self::Mnist => &MNIST,
            Self::FashionMnist => &FASHION_MNIST,
            Self::Kmnist => &KMNIST,
            Self::EmnistDigits => &EMNIST_DIGITS,
            Self::EmnistLetters => &EMNIST_LETTERS,
            Self::EmnistBalanced => &EMNIST_BALANCED,
            Self::Svhn => &SVHN,
            Self::PpgBp => &PPG_BP,
            Self::Folder => &FOLDER,
        }
    }
}

impl SetInfo {
    /// The files of one half.
    pub fn files_of(&self, half: Half) -> impl Iterator<Item = &'static FileInfo> {
        self.files.iter().filter(move |file| file.half == half)
    }

    /// Every name that the file `name` of this set may have.
    pub fn spellings(&self, name: &str) -> Vec<String> {
        let gzipped = self.is_mnist_family().then(|| format!("{name}.gz"));
        [name.to_owned()].into_iter().chain(gzipped).collect()
    }

    /// Every name that any file of this set may have.
    pub(crate) fn present_names(&self) -> Vec<String> {
        self.files.iter().flat_map(|file| self.spellings(file.name)).collect()
    }

    pub(crate) fn is_mnist_family(&self) -> bool {
        self.image_shape == mnist::SHAPE
    }

    /// The label of the first class in the files.
    pub(crate) fn first_label(&self) -> u8 {
        u8::from(self.name == DatasetName::EmnistLetters)
    }

    /// Whether the files hold the columns of an image where others hold its rows.
    pub(crate) fn is_transposed(&self) -> bool {
        matches!(self.name, DatasetName::EmnistDigits | DatasetName::EmnistLetters | DatasetName::EmnistBalanced)
    }
}

const fn train(name: &'static str, md5: Option<&'static str>) -> FileInfo {
    FileInfo { half: Half::Train, name, md5 }
}

const fn test(name: &'static str, md5: Option<&'static str>) -> FileInfo {
    FileInfo { half: Half::Test, name, md5 }
}

/// The four idx files of a set by the names and in the order of MNIST's, with the published checksums.
macro_rules! mnist_files {
    ($($md5:literal)*) => { mnist_files!(@ ["train-images-idx3-ubyte" "train-labels-idx1-ubyte"
        "t10k-images-idx3-ubyte" "t10k-labels-idx1-ubyte"] $($md5)*) };
    (@ [$a:literal $b:literal $c:literal $d:literal] $ma:literal $mb:literal $mc:literal $md:literal) => {
        &[train($a, Some($ma)), train($b, Some($mb)), test($c, Some($mc)), test($d, Some($md))]
    };
}

/// The four downloads that belong to [`mnist_files`].
macro_rules! mnist_downloads {
    ($base:literal, $(($bytes:literal, $md5:literal)),*) => { mnist_downloads!(@ $base,
        [$($bytes $md5 ,)*] "train-images-idx3-ubyte.gz" "train-labels-idx1-ubyte.gz"
        "t10k-images-idx3-ubyte.gz" "t10k-labels-idx1-ubyte.gz") };
    (@ $base:literal, [$($bytes:literal $md5:literal ,)*] $($name:literal)*) => {
        &[$(Download { url: concat!($base, $name), bytes: $bytes, md5: $md5 }),*]
    };
}

/// The four idx files of a split of EMNIST, whose publisher states no checksums of theirs.
macro_rules! emnist_files {
    ($split:literal) => {
        &[
            train(concat!("emnist-", $split, "-train-images-idx3-ubyte"), None),
            train(concat!("emnist-", $split, "-train-labels-idx1-ubyte"), None),
            test(concat!("emnist-", $split, "-test-images-idx3-ubyte"), None),
            test(concat!("emnist-", $split, "-test-labels-idx1-ubyte"), None),
        ]
    };
}

const CIFAR_LICENCE: &str = "none stated (cite the report)";
const MNIST_BY_HAND: &str = "Download the four files *-ubyte.gz, and put them into one folder as they are";

static BUILTIN: SetInfo = BUILTIN_INFO;

const BUILTIN_INFO: SetInfo = SetInfo {
    name: DatasetName::Builtin,
    title: "built-in figures",
    image_shape: synthetic::SHAPE,
    class_names: &synthetic::CLASS_NAMES,
    train_images: synthetic::TRAIN_IMAGES,
    test_images: synthetic::TEST_IMAGES,
    folders: &[],
    files: &[],
    downloads: &[],
    homepage: "",
    licence: "as bitpact",
    by_hand: "",
};

static FOLDER: SetInfo = SetInfo {
    name: DatasetName::Folder,
    title: "pictures and arrays of one's own",
    image_shape: ImageShape { h: 0, w: 0, c: 0 },
    class_names: &[],
    train_images: 0,
    test_images: 0,
    licence: "",
    by_hand: "It holds train/ and val/ with a folder of pictures for each class, or what else docs/data.md shows; `bitpact data check DIR` tells",
    ..BUILTIN_INFO
};

static UPSCALE: SetInfo = SetInfo {
    name: DatasetName::Upscale,
    title: "built-in figures to enlarge twice",
    image_shape: synthetic::tasks::SMALL,
    class_names: &synthetic::tasks::COLOURS,
    ..DRAWN
};

static SEGMENTS: SetInfo = SetInfo {
    name: DatasetName::Segments,
    title: "built-in figures to cut out",
    class_names: &synthetic::tasks::PARTS,
    ..DRAWN
};

static SIGNALS: SetInfo = SetInfo {
    name: DatasetName::Signals,
    title: "built-in signals to measure",
    image_shape: synthetic::tasks::SIGNAL,
    class_names: &synthetic::tasks::MEASURES,
    ..DRAWN
};

const DRAWN: SetInfo = SetInfo {
    train_images: synthetic::tasks::TRAIN_EXAMPLES,
    test_images: synthetic::tasks::TEST_EXAMPLES,
    ..BUILTIN_INFO
};

static CIFAR10: SetInfo = SetInfo {
    name: DatasetName::Cifar10,
    title: cifar10::BATCHES.title,
    image_shape: cifar10::SHAPE,
    class_names: &cifar10::CLASS_NAMES,
    train_images: 50_000,
    test_images: 10_000,
    folders: &[cifar10::FOLDER],
    files: &[
        train("data_batch_1.bin", None),
        train("data_batch_2.bin", None),
        train("data_batch_3.bin", None),
        train("data_batch_4.bin", None),
        train("data_batch_5.bin", None),
        test("test_batch.bin", None),
    ],
    downloads: &[Download {
        url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        bytes: 170_052_171,
        md5: "c32a1d4ab5d03f1284b67883e8d87530",
    }],
    homepage: "https://www.cs.toronto.edu/~kriz/cifar.html",
    licence: CIFAR_LICENCE,
    by_hand: "Download \"CIFAR-10 binary version\" (cifar-10-binary.tar.gz) and unpack it",
};

static CIFAR100: SetInfo = SetInfo {
    name: DatasetName::Cifar100,
    title: cifar100::BATCHES.title,
    image_shape: cifar100::SHAPE,
    class_names: &cifar100::CLASS_NAMES,
    train_images: 50_000,
    test_images: 10_000,
    folders: &[cifar100::FOLDER],
    files: &[train("train.bin", None), test("test.bin", None)],
    downloads: &[Download {
        url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        bytes: 168_513_733,
        md5: "03b5dce01913d631647c71ecec9e9cb8",
    }],
    homepage: "https://www.cs.toronto.edu/~kriz/cifar.html",
    licence: CIFAR_LICENCE,
    by_hand: "Download \"CIFAR-100 binary version\" (cifar-100-binary.tar.gz) and unpack it",
};

const DIGITS: &[&str] = &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

static MNIST: SetInfo = SetInfo {
    name: DatasetName::Mnist,
    title: "MNIST",
    image_shape: mnist::SHAPE,
    class_names: DIGITS,
    train_images: 60_000,
    test_images: 10_000,
    folders: &["mnist", "MNIST/raw"],
    files: mnist_files!("f68b3c2dcbeaaa9fbdd348bbdeb94873" "d53e105ee54ea40749a09fcbcd1e9432"
        "9fb629c4189551a2d022fa330f9573f3" "ec29112dd5afa0611ce80d1b7f02629c"),
    downloads: mnist_downloads!(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        (28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
        (1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
        (4_542, "ec29112dd5afa0611ce80d1b7f02629c")
    ),
    homepage: "http://yann.lecun.com/exdb/mnist/",
    licence: "CC BY-SA 3.0",
    by_hand: MNIST_BY_HAND,
};

static FASHION_MNIST: SetInfo = SetInfo {
    name: DatasetName::FashionMnist,
    title: "Fashion-MNIST",
    image_shape: mnist::SHAPE,
    class_names: &[
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
    train_images: 60_000,
    test_images: 10_000,
    folders: &["fashion-mnist", "FashionMNIST/raw"],
    files: mnist_files!("8d4fb7e6c68d591d4c3dfef9ec88bf0d" "25c81989df183df01b3e8a0aad5dffbe"
        "bef4ecab320f06d8554ea6380940ec79" "bb300cfdad3c16e7a12a480ee83cd310"),
    downloads: mnist_downloads!(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        (26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        (29_515, "25c81989df183df01b3e8a0aad5dffbe"),
        (4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
        (5_148, "bb300cfdad3c16e7a12a480ee83cd310")
    ),
    homepage: "https://github.com/zalandoresearch/fashion-mnist",
    licence: "MIT",
    by_hand: MNIST_BY_HAND,
};

static KMNIST: SetInfo = SetInfo {
    name: DatasetName::Kmnist,
    title: "Kuzushiji-MNIST",
    image_shape: mnist::SHAPE,
    class_names: &["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
    train_images: 60_000,
    test_images: 10_000,
    folders: &["kmnist", "KMNIST/raw"],
    files: mnist_files!("bdb82020997e1d708af4cf47b453dcf7" "e144d726b3acfaa3e44228e80efcd344"
        "5c965bf0a639b31b8f53240b1b52f4d7" "7320c461ea6c1c855c0b718fb2a4b134"),
    downloads: mnist_downloads!(
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        (18_165_135, "bdb82020997e1d708af4cf47b453dcf7"),
        (29_497, "e144d726b3acfaa3e44228e80efcd344"),
        (3_041_136, "5c965bf0a639b31b8f53240b1b52f4d7"),
        (5_120, "7320c461ea6c1c855c0b718fb2a4b134")
    ),
    homepage: "https://github.com/rois-codh/kmnist",
    licence: "CC BY-SA 4.0",
    by_hand: MNIST_BY_HAND,
};

const EMNIST_FOLDERS: &[&str] = &["emnist", "EMNIST/raw", "gzip"];
const EMNIST_HOMEPAGE: &str = "https://www.nist.gov/itl/products-and-services/emnist-dataset";
const EMNIST_LICENCE: &str = "none stated (NIST SD 19)";
const EMNIST_BY_HAND: &str = "Download \"binary format as the original MNIST dataset\" (gzip.zip) and unpack it";

static EMNIST_DIGITS: SetInfo = SetInfo {
    name: DatasetName::EmnistDigits,
    title: "EMNIST digits",
    image_shape: mnist::SHAPE,
    class_names: DIGITS,
    train_images: 240_000,
    test_images: 40_000,
    folders: EMNIST_FOLDERS,
    files: emnist_files!("digits"),
    downloads: &[],
    homepage: EMNIST_HOMEPAGE,
    licence: EMNIST_LICENCE,
    by_hand: EMNIST_BY_HAND,
};

static EMNIST_LETTERS: SetInfo = SetInfo {
    name: DatasetName::EmnistLetters,
    title: "EMNIST letters",
    image_shape: mnist::SHAPE,
    class_names: &[
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u", "v",
        "w", "x", "y", "z",
    ],
    train_images: 124_800,
    test_images: 20_800,
    folders: EMNIST_FOLDERS,
    files: emnist_files!("letters"),
    downloads: &[],
    homepage: EMNIST_HOMEPAGE,
    licence: EMNIST_LICENCE,
    by_hand: EMNIST_BY_HAND,
};

static EMNIST_BALANCED: SetInfo = SetInfo {
    name: DatasetName::EmnistBalanced,
    title: "EMNIST balanced",
    image_shape: mnist::SHAPE,
    class_names: &[
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L",
        "M", "N", "O", "P", "Q", "R", "S", "T", "U", "V", "W", "X", "Y", "Z", "a", "b", "d", "e", "f", "g", "h", "n",
        "q", "r", "t",
    ],
    train_images: 112_800,
    test_images: 18_800,
    folders: EMNIST_FOLDERS,
    files: emnist_files!("balanced"),
    downloads: &[],
    homepage: EMNIST_HOMEPAGE,
    licence: EMNIST_LICENCE,
    by_hand: EMNIST_BY_HAND,
};

static SVHN: SetInfo = SetInfo {
    name: DatasetName::Svhn,
    title: "SVHN",
    image_shape: svhn::SHAPE,
    class_names: DIGITS,
    train_images: 73_257,
    test_images: 26_032,
    folders: &["svhn", "SVHN"],
    files: &[
        train(svhn::TRAIN_FILE, Some("e26dedcc434d2e4c54c9b2d4a06d8373")),
        test(svhn::TEST_FILE, Some("eb5a983be6a315427106f1b164d9cef3")),
    ],
    downloads: &[
        Download {
            url: "https://ufldl.stanford.edu/housenumbers/train_32x32.mat",
            bytes: 182_040_794,
            md5: "e26dedcc434d2e4c54c9b2d4a06d8373",
        },
        Download {
            url: "https://ufldl.stanford.edu/housenumbers/test_32x32.mat",
            bytes: 64_275_384,
            md5: "eb5a983be6a315427106f1b164d9cef3",
        },
    ],
    homepage: "http://ufldl.stanford.edu/housenumbers/",
    licence: "non-commercial use only",
    by_hand: "Download \"Format 2: Cropped Digits\", train_32x32.mat and test_32x32.mat, and put both into one folder",
};

static PPG_BP: SetInfo = SetInfo {
    name: DatasetName::PpgBp,
    title: "PPG-BP, windows of 2.1 s",
    image_shape: ppg_bp::SHAPE,
    class_names: &ppg_bp::MEASURES,
    train_images: 0,
    test_images: 0,
    folders: &[ppg_bp::FOLDER],
    files: &[train(ppg_bp::FILE, None)],
    downloads: &[],
    homepage: "https://doi.org/10.1038/sdata.2018.20",
    licence: "CC0 (cite the paper)",
    by_hand: "It is windows.npz with the arrays x, sbp, dbp and subject, made from the recordings as docs/data.md says",
};
