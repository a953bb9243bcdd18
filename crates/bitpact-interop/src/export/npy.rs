//! NumPy's file format.

/// Elements of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    U8,
    U16,
    I8,
    I16,
    I64,
    F32,
}

impl Dtype {
    fn descr(self) -> &'static str {
        match self {
            Dtype::U8 => "|u1",
            Dtype::U16 => "<u2",
            Dtype::I8 => "|i1",
            Dtype::I16 => "<i2",
            Dtype::I64 => "<i8",
            Dtype::F32 => "<f4",
        }
    }
}

/// The file of an array in C order, of little-endian elements: version 1.0 of the format.
pub(super) fn file(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    /// Magic, version and length of the header.
    const BEFORE: usize = 10;
    const ALIGNMENT: usize = 64;
    let sizes = match shape {
        [n] => format!("({n},)"),
        _ => format!("({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    };
    let mut header = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {sizes}, }}", dtype.descr());
    let length = (BEFORE + header.len() + 1).next_multiple_of(ALIGNMENT) - BEFORE;
    header.extend(std::iter::repeat_n(' ', length - header.len() - 1));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((length as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(bytes);
    file
}
