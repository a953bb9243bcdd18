//! Labelled images for training and evaluation: the [`Dataset`] trait, the sets bitpact knows by name, and the seeded
//! order and augmentation in which a trainer reads them.
//!
//! Pixels are bytes in NHWC order from the file to the network's input buffer; turning them into real numbers is the
//! network's own first step. Everything random is a function of a key, never of a state, so one epoch of one seed is
//! the same on every machine, for any number of threads, and after a resume.
//!
//! | module | holds |
//! |---|---|
//! | [`cifar10`], [`cifar100`] | CIFAR's binary versions |
//! | [`mnist`] | MNIST, Fashion-MNIST, KMNIST and EMNIST from idx files, plain or gzipped |
//! | [`svhn`] | SVHN's cropped digits from MATLAB files |
//! | [`catalog`] | what is known of every set: sizes, classes, files, where they come from |
//! | [`check`] | what lies in a folder: images, labels, checksums |
//! | [`own`] | folders of pictures, tables and arrays of one's own |
//! | [`synthetic`] | the built-in set: ten kinds of shapes, drawn by a seeded program |
//! | [`augment`] | pad-crop and flip into a bordered buffer |
//! | [`sampler`] | the shuffled order of an epoch |
//!
//! # One's own images
//!
//! Anything that can hand out its `i`-th image is a [`Dataset`]; arrays already in memory fit [`InMemory`].
//!
//! ```
//! use bitpact_data::{Dataset, ImageShape};
//!
//! /// 8 x 8 grey images with one bright row; the row is the label.
//! struct Rows {
//!     names: Vec<String>,
//! }
//!
//! impl Dataset for Rows {
//!     fn len(&self) -> usize {
//!         800
//!     }
//!     fn image_shape(&self) -> ImageShape {
//!         ImageShape { h: 8, w: 8, c: 1 }
//!     }
//!     fn image(&self, index: usize, out: &mut [u8]) {
//!         for (y, row) in out.chunks_exact_mut(8).enumerate() {
//!             row.fill(if y == self.label(index) { 255 } else { 0 });
//!         }
//!     }
//!     fn label(&self, index: usize) -> usize {
//!         index % 8
//!     }
//!     fn class_names(&self) -> &[String] {
//!         &self.names
//!     }
//! }
//!
//! let rows = Rows { names: (0..8).map(|y| format!("row {y}")).collect() };
//! let mut image = vec![0; rows.image_shape().len()];
//! rows.image(3, &mut image);
//! assert_eq!(image[3 * 8], 255);
//! assert_eq!(rows.class_names()[rows.label(3)], "row 3");
//! ```

mod ahead;
pub mod augment;
pub mod catalog;
pub mod check;
mod cifar;
pub mod cifar10;
pub mod cifar100;
pub mod cutout;
mod dataset;
mod error;
mod examples;
mod files;
mod idx;
mod jitter;
mod mat;
pub mod mnist;
mod name;
pub mod own;
mod picture;
pub mod ppg_bp;
mod resample;
pub mod sampler;
mod subset;
pub mod svhn;
pub mod synthetic;
mod target;
mod whole;

pub use ahead::{Ahead, Prepared, read_images};
pub use augment::{Augment, Placement, augment_key, copy_plain};
pub use cutout::{Cutout, mix};
pub use dataset::{Dataset, ImageShape, InMemory, Limited, Split, limit};
pub use error::DataError;
pub use examples::Examples;
pub use jitter::ColorJitter;
pub use name::{DatasetName, Limits, load, load_as};
pub use picture::{PICTURE_ENDINGS, PictureError, View, load_picture, load_picture_as};
pub use sampler::epoch_order;
pub use subset::Subset;
pub use target::{IGNORED, TargetKind, Unit};
