//! Tensors of ONNX files as arrays of floats or integers.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use bitpact_kernels::memory;
use half::{bf16, f16};

use super::proto;

/// Element types of ONNX, by their numbers.
pub(crate) mod kind {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const UINT8: i32 = 2;
    pub(crate) const INT8: i32 = 3;
    pub(crate) const UINT16: i32 = 4;
    pub(crate) const INT16: i32 = 5;
    pub(crate) const INT32: i32 = 6;
    pub(crate) const INT64: i32 = 7;
    pub(crate) const BOOL: i32 = 9;
    pub(crate) const FLOAT16: i32 = 10;
    pub(crate) const DOUBLE: i32 = 11;
    pub(crate) const UINT32: i32 = 12;
    pub(crate) const UINT64: i32 = 13;
    pub(crate) const BFLOAT16: i32 = 16;
    pub(crate) const UINT4: i32 = 21;
    pub(crate) const INT4: i32 = 22;
    pub(crate) const UINT2: i32 = 25;
    pub(crate) const INT2: i32 = 26;

    /// Name of an element type.
    pub(in crate::onnx) fn name(kind: i32) -> &'static str {
        const NAMES: [&str; 27] = [
            "undefined",
            "float",
            "uint8",
            "int8",
            "uint16",
            "int16",
            "int32",
            "int64",
            "string",
            "bool",
            "float16",
            "double",
            "uint32",
            "uint64",
            "complex64",
            "complex128",
            "bfloat16",
            "float8e4m3fn",
            "float8e4m3fnuz",
            "float8e5m2",
            "float8e5m2fnuz",
            "uint4",
            "int4",
            "float4e2m1",
            "float8e8m0",
            "uint2",
            "int2",
        ];
        usize::try_from(kind).ok().and_then(|kind| NAMES.get(kind)).copied().unwrap_or("an unknown type")
    }

    /// Whether the type holds real numbers.
    pub(in crate::onnx) fn is_float(kind: i32) -> bool {
        matches!(kind, FLOAT | FLOAT16 | DOUBLE | BFLOAT16)
    }

    /// Bits of an integer type, and whether it has a sign; `None` for other types.
    pub(in crate::onnx) fn integer(kind: i32) -> Option<(u32, bool)> {
        Some(match kind {
            UINT2 => (2, false),
            INT2 => (2, true),
            UINT4 => (4, false),
            INT4 => (4, true),
            UINT8 => (8, false),
            INT8 => (8, true),
            UINT16 => (16, false),
            INT16 => (16, true),
            UINT32 => (32, false),
            INT32 => (32, true),
            UINT64 => (64, false),
            INT64 => (64, true),
            BOOL => (1, false),
            _ => return None,
        })
    }
}

/// Elements of an array.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

/// A constant tensor. Floats of all widths are float32, integers of all widths int64.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) dims: Vec<usize>,
    /// Number of the element type in the file.
    pub(crate) kind: i32,
    pub(crate) data: Data,
    /// Of codes that became floats, the steps between them.
    pub(super) steps: Option<Rc<Steps>>,
}

/// Steps of symmetric codes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Steps {
    /// One for all, or one for each output.
    pub(super) step: Vec<f32>,
    pub(super) bits: u8,
}

impl Array {
    pub(super) fn floats(dims: Vec<usize>, data: Vec<f32>) -> Self {
        Self { dims, kind: kind::FLOAT, data: Data::Float(data), steps: None }
    }

    pub(super) fn ints(dims: Vec<usize>, data: Vec<i64>) -> Self {
        Self { dims, kind: kind::INT64, data: Data::Int(data), steps: None }
    }

    /// Sizes of a tensor as a tensor.
    pub(super) fn of_sizes(sizes: &[usize]) -> Self {
        Self::ints(vec![sizes.len()], sizes.iter().map(|&size| size as i64).collect())
    }

    pub(crate) fn len(&self) -> usize {
        match &self.data {
            Data::Float(data) => data.len(),
            Data::Int(data) => data.len(),
        }
    }

    /// The elements as float32.
    pub(crate) fn to_floats(&self) -> Vec<f32> {
        match &self.data {
            Data::Float(data) => data.clone(),
            Data::Int(data) => data.iter().map(|&v| v as f32).collect(),
        }
    }

    /// The elements as whole numbers.
    pub(crate) fn to_ints(&self) -> Result<&[i64], String> {
        match &self.data {
            Data::Int(data) => Ok(data),
            Data::Float(_) => Err(format!("a tensor of {}, expected whole numbers", kind::name(self.kind))),
        }
    }

    /// The one element.
    pub(super) fn scalar(&self) -> Result<f32, String> {
        match (self.len(), &self.data) {
            (1, Data::Float(data)) => Ok(data[0]),
            (1, Data::Int(data)) => Ok(data[0] as f32),
            (n, _) => Err(format!("{n} numbers, expected one")),
        }
    }
}

/// Product of sizes, of which empty ones count as 1, where it is at most 2^40: then no product of some of them is too
/// large to be counted.
pub(super) fn volume(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, &size| n.checked_mul(size.max(1))).filter(|&n| n <= 1 << 40)
}

/// Number of elements of a tensor with these sizes.
fn elements(dims: &[i64]) -> Result<(Vec<usize>, usize), String> {
    let sizes: Option<Vec<usize>> = dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    match sizes.filter(|sizes| volume(sizes).is_some()) {
        Some(sizes) => {
            let count = sizes.iter().product();
            Ok((sizes, count))
        }
        None => Err(format!("the shape {dims:?}, expected sizes of 0 or more and fewer than 2^40 elements")),
    }
}

/// Reads a tensor; `folder` is where files of external data may be.
pub(crate) fn read(tensor: &proto::Tensor, folder: &Path) -> Result<Array, String> {
    let (dims, count) = elements(&tensor.dims)?;
    let of = tensor.data_type.unwrap_or(0);
    let bits = match of {
        kind::FLOAT => 32,
        kind::DOUBLE => 64,
        kind::FLOAT16 | kind::BFLOAT16 => 16,
        kind::BOOL => 8,
        _ => kind::integer(of).ok_or_else(|| format!("elements of {}, which are not read", kind::name(of)))?.0 as usize,
    };
    let bytes = (count * bits).div_ceil(8);
    let external;
    let raw: Option<&[u8]> = if tensor.data_location == Some(1) {
        external = read_external(tensor, bytes, folder)?;
        Some(&external)
    } else {
        tensor.raw_data.as_deref().filter(|raw| !raw.is_empty() || count == 0)
    };
    let data = match raw {
        Some(raw) if raw.len() != bytes => {
            return Err(format!("{} bytes, expected {bytes} for {count} elements of {}", raw.len(), kind::name(of)));
        }
        Some(raw) => from_raw(raw, of, count),
        None => from_lists(tensor, of, count)?,
    };
    Ok(Array { dims, kind: of, data, steps: None })
}

fn from_raw(raw: &[u8], of: i32, count: usize) -> Data {
    fn words<const N: usize, T>(raw: &[u8], word: impl Fn([u8; N]) -> T) -> Vec<T> {
        raw.chunks_exact(N).map(|bytes| word(bytes.try_into().expect("chunks of N bytes"))).collect()
    }
    match of {
        kind::FLOAT => Data::Float(words(raw, f32::from_le_bytes)),
        kind::DOUBLE => Data::Float(words(raw, |b| f64::from_le_bytes(b) as f32)),
        kind::FLOAT16 => Data::Float(words(raw, |b| f16::from_le_bytes(b).to_f32())),
        kind::BFLOAT16 => Data::Float(words(raw, |b| bf16::from_le_bytes(b).to_f32())),
        kind::INT16 => Data::Int(words(raw, |b| i64::from(i16::from_le_bytes(b)))),
        kind::UINT16 => Data::Int(words(raw, |b| i64::from(u16::from_le_bytes(b)))),
        kind::INT32 => Data::Int(words(raw, |b| i64::from(i32::from_le_bytes(b)))),
        kind::UINT32 => Data::Int(words(raw, |b| i64::from(u32::from_le_bytes(b)))),
        kind::INT64 => Data::Int(words(raw, i64::from_le_bytes)),
        kind::UINT64 => Data::Int(words(raw, |b| u64::from_le_bytes(b) as i64)),
        kind::INT8 => Data::Int(raw.iter().map(|&b| i64::from(b as i8)).collect()),
        kind::UINT4 | kind::INT4 | kind::UINT2 | kind::INT2 => Data::Int(unpack(raw.iter().copied(), of, count)),
        _ => Data::Int(raw.iter().map(|&b| i64::from(b)).collect()),
    }
}

/// Codes of 4 or 2 bits, the first in the lowest bits of a byte.
fn unpack(bytes: impl Iterator<Item = u8>, of: i32, count: usize) -> Vec<i64> {
    let (bits, signed) = kind::integer(of).expect("a packed type is one of integers");
    let codes = bytes.flat_map(|byte| (0..8 / bits).map(move |i| i64::from(byte >> (i * bits)) & ((1 << bits) - 1)));
    codes.take(count).map(|code| if signed && code >> (bits - 1) == 1 { code - (1 << bits) } else { code }).collect()
}

fn from_lists(tensor: &proto::Tensor, of: i32, count: usize) -> Result<Data, String> {
    let halves = |to: fn(u16) -> f32| tensor.int32_data.iter().map(|&v| to(v as u16)).collect::<Vec<f32>>();
    let data = match of {
        kind::FLOAT => Data::Float(tensor.float_data.clone()),
        kind::DOUBLE => Data::Float(tensor.double_data.iter().map(|&v| v as f32).collect()),
        kind::FLOAT16 => Data::Float(halves(|bits| f16::from_bits(bits).to_f32())),
        kind::BFLOAT16 => Data::Float(halves(|bits| bf16::from_bits(bits).to_f32())),
        kind::INT64 => Data::Int(tensor.int64_data.clone()),
        kind::UINT32 | kind::UINT64 => Data::Int(tensor.uint64_data.iter().map(|&v| v as i64).collect()),
        kind::UINT4 | kind::INT4 | kind::UINT2 | kind::INT2 => {
            let per_byte = 8 / kind::integer(of).expect("a packed type is one of integers").0 as usize;
            if tensor.int32_data.len() != count.div_ceil(per_byte) {
                let (len, expected) = (tensor.int32_data.len(), count.div_ceil(per_byte));
                return Err(format!("{len} bytes of {}, expected {expected} for {count} elements", kind::name(of)));
            }
            Data::Int(unpack(tensor.int32_data.iter().map(|&v| v as u8), of, count))
        }
        _ => Data::Int(tensor.int32_data.iter().map(|&v| i64::from(v)).collect()),
    };
    let len = match &data {
        Data::Float(data) => data.len(),
        Data::Int(data) => data.len(),
    };
    match len == count {
        true => Ok(data),
        false => Err(format!("{len} elements, expected {count} for the shape {:?}", tensor.dims)),
    }
}

/// The bytes of a tensor that stand in another file, which must be in `folder` or below it, links followed.
fn read_external(tensor: &proto::Tensor, bytes: usize, folder: &Path) -> Result<Vec<u8>, String> {
    let entry = |key: &str| {
        let found = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
        found.and_then(|entry| entry.value.as_deref())
    };
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| format!("external data with the {key} {text:?}, expected a number")),
    };
    let location = entry("location").ok_or("external data without a location")?;
    let outside = || format!("external data at {location:?}, expected a file in the folder of the ONNX file");
    if !Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let cannot = |error: std::io::Error| format!("external data at {location:?}, which cannot be read: {error}");
    let path: PathBuf = folder.join(location).canonicalize().map_err(cannot)?;
    if !path.starts_with(folder.canonicalize().map_err(cannot)?) {
        return Err(outside());
    }
    let mut file = File::open(&path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    if length.is_some_and(|length| length != bytes as u64) {
        return Err(format!("external data of {} bytes, expected {bytes}", length.unwrap_or(0)));
    }
    if !metadata.is_file() || offset.checked_add(bytes as u64).is_none_or(|end| end > metadata.len()) {
        let size = metadata.len();
        return Err(format!("external data at byte {offset} of {location:?}, {bytes} bytes, which holds {size}"));
    }
    memory::check(bytes as u64).map_err(|shortage| shortage.to_string())?;
    let mut data = vec![0; bytes];
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut data)).map_err(cannot)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(of: i32, dims: &[i64]) -> proto::Tensor {
        proto::Tensor { dims: dims.to_vec(), data_type: Some(of), ..Default::default() }
    }

    fn raw(of: i32, dims: &[i64], bytes: &[u8]) -> Result<Array, String> {
        let raw_data = Some(prost::bytes::Bytes::copy_from_slice(bytes));
        read(&proto::Tensor { raw_data, ..typed(of, dims) }, Path::new("."))
    }

    #[test]
    fn every_element_type_is_read_from_bytes_and_from_lists() {
        let ints = |values: &[i64]| Data::Int(values.to_vec());
        let floats = |values: &[f32]| Data::Float(values.to_vec());
        for (of, bytes, expected) in [
            (kind::FLOAT, &1.5f32.to_le_bytes()[..], floats(&[1.5])),
            (kind::DOUBLE, &(-2.5f64).to_le_bytes(), floats(&[-2.5])),
            (kind::FLOAT16, &[0x00, 0x3e], floats(&[1.5])),
            (kind::BFLOAT16, &[0xc0, 0x3f], floats(&[1.5])),
            (kind::INT8, &[0xff], ints(&[-1])),
            (kind::UINT8, &[0xff], ints(&[255])),
            (kind::INT16, &[0xfe, 0xff], ints(&[-2])),
            (kind::INT64, &(-3i64).to_le_bytes(), ints(&[-3])),
        ] {
            assert_eq!(raw(of, &[1], bytes).unwrap().data, expected, "{}", kind::name(of));
        }
        assert_eq!(raw(kind::UINT4, &[3], &[0x21, 0x0f]).unwrap().data, ints(&[1, 2, 15]));
        assert_eq!(raw(kind::INT4, &[3], &[0x81, 0x0f]).unwrap().data, ints(&[1, -8, -1]));
        assert_eq!(raw(kind::UINT2, &[5], &[0b11_10_01_00, 0b10]).unwrap().data, ints(&[0, 1, 2, 3, 2]));
        assert_eq!(raw(kind::INT2, &[4], &[0b11_10_01_00]).unwrap().data, ints(&[0, 1, -2, -1]));
        let int4 = proto::Tensor { int32_data: vec![0x81, 0x0f], ..typed(kind::INT4, &[3]) };
        assert_eq!(read(&int4, Path::new(".")).unwrap().data, ints(&[1, -8, -1]));
        let half = proto::Tensor { int32_data: vec![0x3e00], ..typed(kind::FLOAT16, &[]) };
        assert_eq!(read(&half, Path::new(".")).unwrap().data, floats(&[1.5]));
    }

    #[test]
    fn shapes_that_the_data_do_not_fill_are_refused() {
        for (tensor, part) in [
            (raw(kind::FLOAT, &[2], &[0; 4]), "4 bytes, expected 8"),
            (raw(kind::FLOAT, &[-1], &[0; 4]), "sizes of 0 or more"),
            (raw(kind::FLOAT, &[1 << 31, 1 << 31], &[0; 4]), "fewer than 2^40"),
            (raw(8, &[1], &[0; 4]), "elements of string"),
            (raw(99, &[1], &[0; 4]), "an unknown type"),
            (read(&typed(kind::FLOAT, &[1 << 30]), Path::new(".")), "0 elements, expected 1073741824"),
            (read(&typed(kind::INT4, &[3]), Path::new(".")), "0 bytes of int4, expected 2"),
        ] {
            let message = tensor.unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn external_data_comes_from_the_folder_alone() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("inner");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(outer.path().join("secret"), [0; 8]).unwrap();
        std::fs::write(folder.join("weights"), [0, 0, 0, 0, 0, 0, 0x80, 0x3f]).unwrap();
        let at = |location: &str, offset: &str| {
            let entry =
                |key: &str, value: &str| proto::Entry { key: Some(key.to_owned()), value: Some(value.to_owned()) };
            let external_data = vec![entry("location", location), entry("offset", offset)];
            read(&proto::Tensor { external_data, data_location: Some(1), ..typed(kind::FLOAT, &[1]) }, &folder)
        };
        assert_eq!(at("weights", "4").unwrap().data, Data::Float(vec![1.0]));
        let absolute = outer.path().join("secret").display().to_string();
        for (location, offset, part) in [
            ("../secret", "0", "in the folder"),
            (&absolute[..], "0", "in the folder"),
            ("nothing", "0", "cannot be read"),
            ("weights", "5", "which holds 8"),
            ("weights", "18446744073709551615", "which holds 8"),
            ("weights", "x", "expected a number"),
        ] {
            let message = at(location, offset).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("link")).unwrap();
            assert!(at("link", "0").unwrap_err().contains("in the folder"));
        }
    }
}
