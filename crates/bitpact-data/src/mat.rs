//! Numeric arrays out of a MATLAB level 5 MAT-file, read as a stream.
//!
//! After a header of 128 bytes come elements of a tag (type and size, u32 each) and data; an array is an element of
//! type 14, or of type 15 when zlib holds it. Inside it are four elements: flags with the class, dimensions, name,
//! values in column-major order. Elements of at most 4 bytes may share their tag's 8 (MathWorks, "MAT-File Format",
//! "Level 5 MAT-File Format"). Only little-endian files and real numbers are read; only as much of a file is
//! decompressed as was asked for.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::read::ZlibDecoder;

use crate::DataError;
use crate::files::{Opened, read_promised};

const HEADER_BYTES: usize = 128;
const MI_MATRIX: u32 = 14;
const MI_COMPRESSED: u32 = 15;

/// Longest name of an array and most dimensions that are read.
const MOST_NAME_BYTES: u64 = 256;
const MOST_DIMENSIONS: u64 = 16;

/// A numeric array, or its beginning.
pub(crate) struct Array {
    pub(crate) dims: Vec<usize>,
    kind: Number,
    bytes: Vec<u8>,
}

/// How a value is stored; smaller than its class where the values allow it.
#[derive(Clone, Copy, PartialEq)]
enum Number {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    F32,
    F64,
}

impl Number {
    fn of(kind: u32) -> Option<Self> {
        Some(match kind {
            1 => Self::I8,
            2 => Self::U8,
            3 => Self::I16,
            4 => Self::U16,
            5 => Self::I32,
            6 => Self::U32,
            7 => Self::F32,
            9 => Self::F64,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

impl Array {
    /// The values as bytes, where that is what they are.
    pub(crate) fn into_u8(self) -> Option<Vec<u8>> {
        (self.kind == Number::U8).then_some(self.bytes)
    }

    /// The values as real numbers, which hold every type read here.
    pub(crate) fn values(&self) -> impl Iterator<Item = f64> {
        self.bytes.chunks_exact(self.kind.bytes()).map(|b| match self.kind {
            Number::I8 => f64::from(b[0] as i8),
            Number::U8 => f64::from(b[0]),
            Number::I16 => f64::from(i16::from_le_bytes([b[0], b[1]])),
            Number::U16 => f64::from(u16::from_le_bytes([b[0], b[1]])),
            Number::I32 => f64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Number::U32 => f64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Number::F32 => f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Number::F64 => f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        })
    }
}

/// How many of the first values of an array of these dimensions to read; the reason where the dimensions are wrong.
pub(crate) type Wanted<'a> = &'a dyn Fn(&[usize]) -> Result<usize, String>;

/// Reads the arrays of the given names.
pub(crate) fn read<const N: usize>(opened: &Opened, wanted: [(&str, Wanted); N]) -> Result<[Array; N], DataError> {
    let fail = |error: MatError| match error {
        MatError::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            opened.format(format!("truncated: {source}"))
        }
        MatError::Io(source) => opened.io(source),
        MatError::Format(message) => opened.format(message),
    };
    let mut file = BufReader::with_capacity(1 << 16, &opened.file);
    let header = read_promised(&mut file, HEADER_BYTES as u64).map_err(|e| fail(e.into()))?;
    match &header[124..] {
        [0, 1, b'I', b'M'] => {}
        [1, 0, b'M', b'I'] => return Err(opened.format("is a big-endian MAT-file; expected a little-endian one")),
        _ => return Err(opened.format("is no level 5 MAT-file; expected one as the set's publisher has it")),
    }
    let mut found: [Option<Array>; N] = [const { None }; N];
    let mut at = HEADER_BYTES as u64;
    while at < opened.bytes && found.iter().any(Option::is_none) {
        let tag = read_promised(&mut file, 8).map_err(|e| fail(e.into()))?;
        let (kind, size) = (word(&tag, 0), u64::from(word(&tag, 4)));
        let end = at + 8 + size;
        if end > opened.bytes {
            let message = format!("truncated: the element at byte {at} has {size} bytes, the file {}", opened.bytes);
            return Err(opened.format(message));
        }
        let element = (&mut file).take(size);
        let array = match kind {
            MI_COMPRESSED => compressed(ZlibDecoder::new(element), &wanted),
            MI_MATRIX => matrix(element, size, &wanted),
            _ => Ok(None),
        };
        if let Some((index, array)) = array.map_err(fail)? {
            found[index] = Some(array);
        }
        at = end;
        file.seek(SeekFrom::Start(at)).map_err(|source| opened.io(source))?;
    }
    if let Some(missing) = found.iter().position(Option::is_none) {
        return Err(opened.format(format!("has no array `{}`", wanted[missing].0)));
    }
    Ok(found.map(|array| array.expect("none is missing")))
}

enum MatError {
    Io(io::Error),
    Format(String),
}

impl From<io::Error> for MatError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

type Found = Option<(usize, Array)>;

fn compressed(mut inner: impl Read, wanted: &[(&str, Wanted)]) -> Result<Found, MatError> {
    let tag = read_promised(&mut inner, 8)?;
    match word(&tag, 0) {
        MI_MATRIX => matrix(inner, u64::from(word(&tag, 4)), wanted),
        _ => Ok(None),
    }
}

/// Reads the array if its name is wanted.
fn matrix(inner: impl Read, size: u64, wanted: &[(&str, Wanted)]) -> Result<Found, MatError> {
    let inner = &mut inner.take(size);
    let (_, flags) = small(inner, "flags", 8)?;
    if flags.len() != 8 {
        return Err(MatError::Format(format!("an array has {} bytes of flags, expected 8", flags.len())));
    }
    // Classes 6 to 13 are double, single and the integers of 8 to 32 bits.
    let (class, is_complex) = (flags[0], flags[1] & 8 != 0);
    let (_, dims) = small(inner, "dimensions", 4 * MOST_DIMENSIONS)?;
    let dims: Vec<usize> = dims.as_chunks::<4>().0.iter().map(|&d| u32::from_le_bytes(d) as usize).collect();
    let (_, name) = small(inner, "name", MOST_NAME_BYTES)?;
    let Some(index) = wanted.iter().position(|(wanted, _)| wanted.as_bytes() == name) else { return Ok(None) };
    let (name, choose) = wanted[index];
    if !(6..=13).contains(&class) || is_complex {
        return Err(MatError::Format(format!("array `{name}`: expected real numbers, found class {class}")));
    }
    let taken = choose(&dims).map_err(|message| MatError::Format(format!("array `{name}`: {message}")))?;
    let count = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
    let (kind, bytes, shared) = tag(inner)?;
    let number = Number::of(kind).filter(|_| shared.is_none() || bytes <= 4);
    let Some(number) = number else {
        return Err(MatError::Format(format!("array `{name}`: values of type {kind}, expected numbers")));
    };
    if count.and_then(|n| n.checked_mul(number.bytes() as u64)) != Some(bytes) {
        let shape = dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let each = number.bytes();
        return Err(MatError::Format(format!("array `{name}`: {bytes} bytes of values do not fit {shape} x {each}")));
    }
    let taken = bytes.min((taken * number.bytes()) as u64);
    let bytes = match shared {
        Some(shared) => shared[..taken as usize].to_vec(),
        None => read_promised(inner, taken)?,
    };
    Ok(Some((index, Array { dims, kind: number, bytes })))
}

/// Type and size of an element, and its data where they are in the tag.
fn tag(inner: &mut impl Read) -> Result<(u32, u64, Option<[u8; 4]>), MatError> {
    let tag = read_promised(inner, 8)?;
    let (kind, size) = (word(&tag, 0), word(&tag, 4));
    match kind >> 16 {
        0 => Ok((kind, u64::from(size), None)),
        bytes @ 1..=4 => Ok((kind & 0xffff, u64::from(bytes), Some([tag[4], tag[5], tag[6], tag[7]]))),
        bytes => Err(MatError::Format(format!("an element of {bytes} bytes claims to fit into 4"))),
    }
}

/// A short element: its type and its data.
fn small(inner: &mut impl Read, what: &str, most: u64) -> Result<(u32, Vec<u8>), MatError> {
    let (kind, bytes, shared) = tag(inner)?;
    if let Some(shared) = shared {
        return Ok((kind, shared[..bytes as usize].to_vec()));
    }
    if bytes > most {
        return Err(MatError::Format(format!("an array has {bytes} bytes of {what}, expected at most {most}")));
    }
    let data = read_promised(inner, bytes)?;
    read_promised(inner, bytes.next_multiple_of(8) - bytes)?;
    Ok((kind, data))
}
