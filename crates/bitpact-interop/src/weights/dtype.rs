//! Numbers of other programs as float32.

use half::{bf16, f16};

/// Types of the numbers of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DType {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl DType {
    /// Bytes of one number.
    pub(crate) fn size(self) -> u64 {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::Bf16 | DType::I16 => 2,
            DType::I8 | DType::U8 | DType::Bool => 1,
        }
    }

    /// The little-endian numbers `bytes`, each the nearest float32.
    pub(crate) fn floats(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|number| f(*number)).collect()
        }
        match self {
            DType::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            DType::F32 => each(bytes, f32::from_le_bytes),
            DType::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            DType::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            DType::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32),
            DType::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32),
            DType::I16 => each(bytes, |b| f32::from(i16::from_le_bytes(b))),
            DType::I8 => each(bytes, |b| f32::from(i8::from_le_bytes(b))),
            DType::U8 => each(bytes, |b: [u8; 1]| f32::from(b[0])),
            DType::Bool => each(bytes, |b: [u8; 1]| f32::from(u8::from(b[0] != 0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DType;

    #[test]
    fn every_type_becomes_float32() {
        for (dtype, bytes, floats) in [
            (DType::F64, (-1.5f64).to_le_bytes().to_vec(), vec![-1.5]),
            (DType::F32, 0.25f32.to_le_bytes().to_vec(), vec![0.25]),
            // 0x3e00 is 1.5, 0x0001 the smallest subnormal.
            (DType::F16, vec![0x00, 0x3e, 0x01, 0x00], vec![1.5, 2f32.powi(-24)]),
            (DType::Bf16, vec![0xc0, 0xbf], vec![-1.5]),
            (DType::I64, (-7i64).to_le_bytes().to_vec(), vec![-7.0]),
            (DType::I32, 70_000i32.to_le_bytes().to_vec(), vec![70_000.0]),
            (DType::I16, vec![0xff, 0xff], vec![-1.0]),
            (DType::I8, vec![0x80], vec![-128.0]),
            (DType::U8, vec![200], vec![200.0]),
            (DType::Bool, vec![0, 1, 2], vec![0.0, 1.0, 1.0]),
        ] {
            assert_eq!(bytes.len() as u64 % dtype.size(), 0);
            assert_eq!(dtype.floats(&bytes), floats, "{dtype:?}");
        }
    }
}
