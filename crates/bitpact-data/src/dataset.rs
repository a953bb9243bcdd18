//! The `Dataset` trait, images held in memory, and the first N of a set.

use bitpact_core::rng::Key;

use crate::{DataError, TargetKind, Unit};

/// Size of one image in pixels and channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// Number of rows.
    pub h: usize,
    /// Number of columns.
    pub w: usize,
    /// Channels (3 for colour, in the order R, G, B).
    pub c: usize,
}

impl ImageShape {
    /// Pixels times channels, `h * w * c`.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.h * self.w * self.c
    }
}

/// Labelled images of one size, read by index from any thread.
///
/// The crate's page shows how to implement it for one's own images.
pub trait Dataset: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Tells whether the set has no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of every image.
    fn image_shape(&self) -> ImageShape;

    /// Bits of a pixel, or of the code of an array: 8, or 16 of two bytes, the low one first.
    fn code_bits(&self) -> u8 {
        8
    }

    /// Bytes of one image as rows, columns and bytes of a pixel: `image_shape()`, or twice its channels.
    fn bytes_shape(&self) -> ImageShape {
        let shape = self.image_shape();
        ImageShape { c: shape.c * usize::from(self.code_bits().div_ceil(8)), ..shape }
    }

    /// Writes image `index`, below [`len`](Self::len), to `out` in HWC order; `out` has `bytes_shape().len()` bytes.
    ///
    /// # Panics
    /// May panic when the index or the length of `out` is another.
    fn image(&self, index: usize, out: &mut [u8]);

    /// Class of image `index`, below `class_names().len()`.
    ///
    /// # Panics
    /// May panic when the index is not below [`len`](Self::len).
    fn label(&self, index: usize) -> usize;

    /// Name of each class, in the order of the labels; of targets that are no classes, of each channel of the output.
    fn class_names(&self) -> &[String];

    /// Kind of the targets; the default is classes.
    fn target_kind(&self) -> TargetKind {
        TargetKind::Class
    }

    /// Unit and line of each number of a target; empty where numbers have no unit or targets are no numbers.
    fn units(&self) -> &[Unit] {
        &[]
    }

    /// Writes the target of image `index` to `out`, of `target_kind().len()` numbers.
    ///
    /// # Panics
    /// May panic when the index or the length of `out` is another.
    fn target(&self, index: usize, out: &mut [f32]) {
        out.fill(self.label(index) as f32);
    }

    /// Writes the view of image `index` that training has under `key`, and its target, each where it is asked for, as
    /// [`image`](Self::image) and [`target`](Self::target) write them. A set of larger pictures may show a part of one
    /// that depends on `key` alone, the same part in both; the default is [`image`](Self::image) itself.
    ///
    /// # Panics
    /// May panic where [`image`](Self::image) and [`target`](Self::target) may.
    fn drawn(&self, index: usize, key: Key, image: Option<&mut [u8]>, target: Option<&mut [f32]>) {
        let _ = key;
        if let Some(out) = image {
            self.image(index, out);
        }
        if let Some(out) = target {
            self.target(index, out);
        }
    }

    /// Tells whether an image takes so long to read that reading ahead of its use pays.
    fn is_slow(&self) -> bool {
        false
    }
}

impl<D: Dataset + ?Sized> Dataset for Box<D> {
    fn len(&self) -> usize {
        (**self).len()
    }
    fn image_shape(&self) -> ImageShape {
        (**self).image_shape()
    }
    fn code_bits(&self) -> u8 {
        (**self).code_bits()
    }
    fn image(&self, index: usize, out: &mut [u8]) {
        (**self).image(index, out);
    }
    fn label(&self, index: usize) -> usize {
        (**self).label(index)
    }
    fn class_names(&self) -> &[String] {
        (**self).class_names()
    }
    fn target_kind(&self) -> TargetKind {
        (**self).target_kind()
    }
    fn units(&self) -> &[Unit] {
        (**self).units()
    }
    fn target(&self, index: usize, out: &mut [f32]) {
        (**self).target(index, out);
    }
    fn drawn(&self, index: usize, key: Key, image: Option<&mut [u8]>, target: Option<&mut [f32]>) {
        (**self).drawn(index, key, image, target);
    }
    fn is_slow(&self) -> bool {
        (**self).is_slow()
    }
}

/// The two halves of a data set.
pub struct Split {
    /// Images to learn from.
    pub train: Box<dyn Dataset>,
    /// Images to measure on.
    pub test: Box<dyn Dataset>,
}

/// Images held in memory as bytes.
#[derive(Clone, Debug)]
pub struct InMemory {
    images: Vec<u8>,
    labels: Vec<u16>,
    shape: ImageShape,
    code_bits: u8,
    class_names: Vec<String>,
}

impl InMemory {
    /// Takes `labels.len()` images, one after the other in HWC order, with their classes.
    ///
    /// # Errors
    /// When a side of the shape is zero, the bytes are not one image per label, there are no images or no classes, or
    /// a label is not below the number of classes.
    pub fn new(
        images: Vec<u8>,
        labels: Vec<u16>,
        shape: ImageShape,
        class_names: Vec<String>,
    ) -> Result<Self, DataError> {
        Self::of_bits(images, labels, (shape, 8), class_names)
    }

    /// Takes codes of 8 or 16 bits as bytes, the low one first.
    pub(crate) fn of_bits(
        images: Vec<u8>,
        labels: Vec<u16>,
        (shape, code_bits): (ImageShape, u8),
        class_names: Vec<String>,
    ) -> Result<Self, DataError> {
        let ImageShape { h, w, c } = shape;
        let sizes = [w, c, usize::from(code_bits / 8)];
        let image = sizes.into_iter().try_fold(h, usize::checked_mul).unwrap_or(usize::MAX);
        if image == 0 {
            return Err(DataError::EmptyShape { h, w, c });
        }
        if class_names.is_empty() {
            return Err(DataError::NoClasses);
        }
        let expected = labels.len().saturating_mul(image);
        if images.len() != expected {
            return Err(DataError::PixelCount { labels: labels.len(), image, expected, found: images.len() });
        }
        if labels.is_empty() {
            return Err(DataError::Empty { what: "the array of labels".to_string() });
        }
        let classes = class_names.len();
        if let Some(index) = labels.iter().position(|&label| usize::from(label) >= classes) {
            return Err(DataError::BadLabel { index, label: usize::from(labels[index]), classes });
        }
        Ok(Self { images, labels, shape, code_bits, class_names })
    }
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.labels.len()
    }
    fn image_shape(&self) -> ImageShape {
        self.shape
    }
    fn code_bits(&self) -> u8 {
        self.code_bits
    }
    fn image(&self, index: usize, out: &mut [u8]) {
        let len = self.bytes_shape().len();
        out.copy_from_slice(&self.images[index * len..][..len]);
    }
    fn label(&self, index: usize) -> usize {
        usize::from(self.labels[index])
    }
    fn class_names(&self) -> &[String] {
        &self.class_names
    }
}

/// The first images of another set.
#[derive(Clone, Debug)]
pub struct Limited<D> {
    inner: D,
    len: usize,
}

/// The first `n` images of `dataset`, or all of them when it has no more.
///
/// # Errors
/// When that leaves no image.
pub fn limit<D: Dataset>(dataset: D, n: usize) -> Result<Limited<D>, DataError> {
    let len = limited_len("the data set", dataset.len(), Some(n))?;
    Ok(Limited { inner: dataset, len })
}

impl<D: Dataset> Dataset for Limited<D> {
    fn len(&self) -> usize {
        self.len
    }
    fn image_shape(&self) -> ImageShape {
        self.inner.image_shape()
    }

    fn code_bits(&self) -> u8 {
        self.inner.code_bits()
    }
    fn image(&self, index: usize, out: &mut [u8]) {
        assert!(index < self.len, "image {index} of a set limited to {}", self.len);
        self.inner.image(index, out);
    }
    fn label(&self, index: usize) -> usize {
        assert!(index < self.len, "label {index} of a set limited to {}", self.len);
        self.inner.label(index)
    }
    fn class_names(&self) -> &[String] {
        self.inner.class_names()
    }
    fn target_kind(&self) -> TargetKind {
        self.inner.target_kind()
    }
    fn units(&self) -> &[Unit] {
        self.inner.units()
    }
    fn target(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.len, "target {index} of a set limited to {}", self.len);
        self.inner.target(index, out);
    }
    fn drawn(&self, index: usize, key: Key, image: Option<&mut [u8]>, target: Option<&mut [f32]>) {
        assert!(index < self.len, "image {index} of a set limited to {}", self.len);
        self.inner.drawn(index, key, image, target);
    }
    fn is_slow(&self) -> bool {
        self.inner.is_slow()
    }
}

/// `min(len, limit)`; an error that names `what` when that is zero.
pub(crate) fn limited_len(what: &str, len: usize, limit: Option<usize>) -> Result<usize, DataError> {
    match limit {
        _ if len == 0 => Err(DataError::Empty { what: what.to_string() }),
        Some(0) => Err(DataError::Empty { what: format!("{what}, limited to its first 0 images,") }),
        Some(n) => Ok(n.min(len)),
        None => Ok(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { h: 2, w: 1, c: 3 };

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("class {i}")).collect()
    }

    fn three() -> InMemory {
        InMemory::new((0..18).collect(), vec![1, 0, 1], SHAPE, names(2)).unwrap()
    }

    fn message(result: Result<InMemory, DataError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn in_memory_hands_back_what_it_was_given() {
        let set = three();
        let mut image = [0; 6];
        set.image(2, &mut image);
        assert_eq!(image, [12, 13, 14, 15, 16, 17]);
        assert_eq!((set.len(), set.is_empty(), set.image_shape()), (3, false, SHAPE));
        assert_eq!([0, 1, 2].map(|i| set.label(i)), [1, 0, 1]);
        assert_eq!(set.class_names(), ["class 0", "class 1"]);
    }

    #[test]
    fn in_memory_refuses_what_does_not_fit_together() {
        assert_eq!(
            message(InMemory::new(vec![0; 17], vec![0; 3], SHAPE, names(2))),
            "3 labels need 18 bytes of pixels (6 bytes an image), found 17"
        );
        assert_eq!(
            message(InMemory::new(vec![0; 18], vec![0, 1, 2], SHAPE, names(2))),
            "image 2 has label 2, but there are 2 classes: expected 0..2"
        );
        assert_eq!(
            message(InMemory::new(vec![], vec![0; 3], ImageShape { h: 4, w: 0, c: 3 }, names(2))),
            "images of 4 x 0 pixels with 3 channels hold nothing; every one of the three must be at least 1"
        );
        assert_eq!(
            message(InMemory::new(vec![], vec![], SHAPE, names(2))),
            "the array of labels has no images; at least one is needed"
        );
        assert_eq!(message(InMemory::new(vec![0; 6], vec![0], SHAPE, vec![])), "a set needs at least one class name");
        let huge = ImageShape { h: usize::MAX, w: 2, c: 1 };
        assert!(matches!(InMemory::new(vec![0; 6], vec![0], huge, names(2)), Err(DataError::PixelCount { .. })));
    }

    #[test]
    fn a_limit_takes_the_first_images_and_never_more_than_there_are() {
        let two = limit(three(), 2).unwrap();
        assert_eq!((two.len(), two.label(1), two.image_shape()), (2, 0, SHAPE));
        assert_eq!(limit(three(), 99).unwrap().len(), 3);
        let boxed: Box<dyn Dataset> = Box::new(three());
        assert_eq!(limit(boxed, 1).unwrap().len(), 1);
        assert_eq!(
            limit(three(), 0).unwrap_err().to_string(),
            "the data set, limited to its first 0 images, has no images; at least one is needed"
        );
    }

    #[test]
    #[should_panic(expected = "image 2 of a set limited to 2")]
    fn a_limited_set_hides_the_rest() {
        limit(three(), 2).unwrap().image(2, &mut [0; 6]);
    }
}
