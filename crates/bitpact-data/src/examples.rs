//! Examples with dense targets, held in memory.

use crate::{DataError, Dataset, ImageShape, TargetKind, Unit};

/// Images or arrays held in memory as bytes, each with a target of real numbers: a mask, an image, or numbers.
#[derive(Clone, Debug)]
pub struct Examples {
    images: Vec<u8>,
    targets: Vec<f32>,
    shape: ImageShape,
    code_bits: u8,
    kind: TargetKind,
    names: Vec<String>,
    units: Vec<Unit>,
}

impl Examples {
    /// Takes images one after the other in HWC order with their targets, and the names of the output's channels:
    /// classes of a mask, channels of an image, or numbers.
    ///
    /// # Errors
    /// When the images or targets are not whole ones of their size and of the same number, there are none, or a mask
    /// names a class that there is not.
    pub fn new(
        images: Vec<u8>,
        targets: Vec<f32>,
        shape: ImageShape,
        kind: TargetKind,
        names: Vec<String>,
    ) -> Result<Self, DataError> {
        Self::of_bits(images, targets, (shape, 8), kind, names)
    }

    /// Takes arrays of 16-bit codes, as [`Examples::new`] takes images.
    ///
    /// # Errors
    /// Those of [`Examples::new`].
    pub fn of_16_bits(
        codes: &[u16],
        targets: Vec<f32>,
        shape: ImageShape,
        kind: TargetKind,
        names: Vec<String>,
    ) -> Result<Self, DataError> {
        Self::of_bits(codes.iter().flat_map(|code| code.to_le_bytes()).collect(), targets, (shape, 16), kind, names)
    }

    /// Takes codes of 8 or 16 bits as bytes, the low one first.
    pub(crate) fn of_bits(
        images: Vec<u8>,
        targets: Vec<f32>,
        (shape, code_bits): (ImageShape, u8),
        kind: TargetKind,
        names: Vec<String>,
    ) -> Result<Self, DataError> {
        let ImageShape { h, w, c } = shape;
        let bytes = shape.len() * usize::from(code_bits / 8);
        if shape.len() == 0 {
            return Err(DataError::EmptyShape { h, w, c });
        }
        if names.is_empty() {
            return Err(DataError::NoClasses);
        }
        let n = images.len() / bytes;
        if n == 0 {
            return Err(DataError::Empty { what: "the array of examples".to_string() });
        }
        let expected = n * kind.len();
        if images.len() != n * bytes || targets.len() != expected {
            return Err(DataError::TargetCount { images: images.len(), image: bytes, expected, found: targets.len() });
        }
        if let TargetKind::Mask { .. } = kind {
            let valid = |&class: &f32| {
                class == crate::target::IGNORED || (class >= 0.0 && class < names.len() as f32 && class.fract() == 0.0)
            };
            if let Some(at) = targets.iter().position(|class| !valid(class)) {
                let (index, label) = (at / kind.len(), targets[at].max(0.0) as usize);
                return Err(DataError::BadLabel { index, label, classes: names.len() });
            }
        }
        Ok(Self { images, targets, shape, code_bits, kind, names, units: Vec::new() })
    }

    /// Says what the numbers of a target mean, one unit for each.
    ///
    /// # Panics
    /// If there are more or fewer units than numbers.
    pub(crate) fn with_units(self, units: Vec<Unit>) -> Self {
        assert_eq!(units.len(), self.kind.len(), "a unit for each number");
        Self { units, ..self }
    }
}

impl Dataset for Examples {
    fn len(&self) -> usize {
        self.images.len() / self.bytes_shape().len()
    }
    fn image_shape(&self) -> ImageShape {
        self.shape
    }
    fn code_bits(&self) -> u8 {
        self.code_bits
    }
    fn image(&self, index: usize, out: &mut [u8]) {
        let bytes = self.bytes_shape().len();
        out.copy_from_slice(&self.images[index * bytes..][..bytes]);
    }
    fn label(&self, _index: usize) -> usize {
        0
    }
    fn class_names(&self) -> &[String] {
        &self.names
    }
    fn target_kind(&self) -> TargetKind {
        self.kind
    }
    fn units(&self) -> &[Unit] {
        &self.units
    }
    fn target(&self, index: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.targets[index * self.kind.len()..][..self.kind.len()]);
    }
}
