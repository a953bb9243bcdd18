//! The header of a GGUF file, from bytes that may say anything.

use std::collections::HashMap;
use std::io::Read;

use super::blocks::BlockType;

/// Arrays in arrays, at most.
const MAX_DEPTH: usize = 4;
/// Longest name of a key or tensor.
const MAX_NAME: u64 = 1 << 16;

/// A value of the free part.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

/// A tensor: where it is and what it means.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    /// Sizes, the innermost first.
    pub(super) dims: Vec<u64>,
    pub(super) kind: BlockType,
    /// Place in the file.
    pub(super) start: u64,
    pub(super) bytes: u64,
}

/// Everything before the data.
#[derive(Clone, Debug)]
pub(super) struct Header {
    values: HashMap<String, Value>,
    tensors: HashMap<String, TensorInfo>,
}

impl Header {
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        if let Some(Value::Text(text)) = self.value(key) { Some(text) } else { None }
    }

    pub(super) fn number(&self, key: &str) -> Option<f64> {
        if let Some(&Value::Number(number)) = self.value(key) { Some(number) } else { None }
    }

    pub(super) fn array(&self, key: &str) -> Option<&[Value]> {
        if let Some(Value::Array(values)) = self.value(key) { Some(values) } else { None }
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }
}

/// Tells whether `bytes` hold a whole GGUF header; for fuzzing.
pub fn check_gguf(bytes: &[u8]) -> Result<(), String> {
    parse(bytes, bytes.len() as u64).map(|_| ())
}

/// A reader that knows how many bytes are left, so that no count makes it take more memory than the file has bytes.
struct Bytes<R> {
    from: R,
    left: u64,
    at: u64,
}

impl<R: Read> Bytes<R> {
    fn take(&mut self, n: u64) -> Result<Vec<u8>, String> {
        if n > self.left {
            return Err(format!("{n} bytes at {}, the file ends after {}", self.at, self.left));
        }
        let mut bytes = vec![0; n as usize];
        self.from.read_exact(&mut bytes).map_err(|e| format!("at byte {}: {e}", self.at))?;
        self.left -= n;
        self.at += n;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N as u64)?.try_into().expect("as many as asked for"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self, most: u64) -> Result<String, String> {
        let (at, len) = (self.at, self.u64()?);
        if len > most {
            return Err(format!("a text of {len} bytes at {at}, expected at most {most}"));
        }
        Ok(String::from_utf8_lossy(&self.take(len)?).into_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Number(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Number(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Number(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Number(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Number(u32::from_le_bytes(self.array()?).into()),
            5 => Value::Number(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Number(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text(self.left)?),
            9 => {
                let (at, kind, count) = (self.at, self.u32()?, self.u64()?);
                let each = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    _ => 8,
                };
                if depth == MAX_DEPTH || count > self.left / each {
                    return Err(format!(
                        "an array of {count} values at {at} in {depth} arrays, {} bytes left",
                        self.left
                    ));
                }
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(kind, depth + 1)?);
                }
                Value::Array(values)
            }
            10 => Value::Number(self.u64()? as f64),
            11 => Value::Number(i64::from_le_bytes(self.array()?) as f64),
            12 => Value::Number(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("a value of type {other} at {}", self.at)),
        })
    }
}

/// Reads the header of a file of `size` bytes.
pub(super) fn parse(from: impl Read, size: u64) -> Result<Header, String> {
    let mut r = Bytes { from, left: size, at: 0 };
    if &r.array::<4>()? != b"GGUF" {
        return Err("not a GGUF file".to_owned());
    }
    let version = r.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("GGUF version {version}: expected 2 or 3"));
    }
    let (tensors, values) = (r.u64()?, r.u64()?);
    let mut header = Header { values: HashMap::new(), tensors: HashMap::new() };
    for _ in 0..values {
        let key = r.text(MAX_NAME)?;
        let kind = r.u32()?;
        let value = r.value(kind, 0).map_err(|e| format!("{key}: {e}"))?;
        if header.values.insert(key.clone(), value).is_some() {
            return Err(format!("{key} is there twice"));
        }
    }
    let mut places = Vec::new();
    for _ in 0..tensors {
        let name = r.text(MAX_NAME)?;
        let count = r.u32()?;
        if !(1..=4).contains(&count) {
            return Err(format!("tensor {name} has {count} dimensions, expected 1 to 4"));
        }
        let dims = (0..count).map(|_| r.u64()).collect::<Result<Vec<_>, _>>()?;
        let (number, offset) = (r.u32()?, r.u64()?);
        let kind = BlockType::from_number(number).ok_or_else(|| {
            format!("tensor {name} is of type {number}: expected F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K or Q6_K")
        })?;
        let (weights, bytes) = kind.size();
        let whole = dims.iter().try_fold(1u64, |product, &d| product.checked_mul(d));
        let blocks = whole.filter(|_| dims[0] % weights as u64 == 0).map(|n| n / weights as u64);
        let bytes = blocks.and_then(|n| n.checked_mul(bytes as u64)).filter(|&b| b <= size);
        let bytes =
            bytes.ok_or_else(|| format!("tensor {name} has dimensions {dims:?}, too many or no whole blocks"))?;
        places.push((offset, bytes, name.clone()));
        if header.tensors.insert(name.clone(), TensorInfo { dims, kind, start: offset, bytes }).is_some() {
            return Err(format!("tensor {name} is there twice"));
        }
    }
    let alignment = header.number("general.alignment").unwrap_or(32.0);
    if !(1.0..=65536.0).contains(&alignment) || alignment.fract() != 0.0 {
        return Err(format!("general.alignment is {alignment}"));
    }
    let data = r.at.next_multiple_of(alignment as u64);
    for info in header.tensors.values_mut() {
        let start = data.checked_add(info.start);
        let end = start.and_then(|s| s.checked_add(info.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= size => info.start = start,
            _ => return Err(format!("a tensor of {} bytes at {} in a file of {size}", info.bytes, info.start)),
        }
    }
    places.sort();
    for pair in places.windows(2) {
        if pair[0].0 + pair[0].1 > pair[1].0 {
            return Err(format!("tensors {} and {} overlap", pair[0].2, pair[1].2));
        }
    }
    Ok(header)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file: header values as (key, type, bytes), tensors as (name, dims, type, bytes).
    pub(in super::super) fn file(
        values: &[(&str, u32, Vec<u8>)],
        tensors: &[(&str, Vec<u64>, u32, Vec<u8>)],
    ) -> Vec<u8> {
        let text = |s: &str| [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat();
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((tensors.len() as u64).to_le_bytes());
        out.extend((values.len() as u64).to_le_bytes());
        for (key, kind, bytes) in values {
            out.extend([&text(key)[..], &kind.to_le_bytes(), bytes].concat());
        }
        let mut offset = 0u64;
        for (name, dims, kind, bytes) in tensors {
            out.extend([&text(name)[..], &(dims.len() as u32).to_le_bytes()].concat());
            dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend([&kind.to_le_bytes()[..], &offset.to_le_bytes()].concat());
            offset = (offset + bytes.len() as u64).next_multiple_of(32);
        }
        for (.., bytes) in tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(bytes);
        }
        out
    }

    fn small() -> Vec<u8> {
        let array =
            [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &1u64.to_le_bytes(), b"a", &1u64.to_le_bytes(), b"b"];
        let values = [("general.name", 8, [&3u64.to_le_bytes()[..], b"abc"].concat()), ("list", 9, array.concat())];
        file(&values, &[("x", vec![32, 2], 2, vec![1; 36]), ("y", vec![3], 0, vec![0; 12])])
    }

    #[test]
    fn headers_are_read() {
        let header = parse(&small()[..], small().len() as u64).unwrap();
        assert_eq!(header.text("general.name"), Some("abc"));
        assert_eq!(header.array("list").unwrap()[1], Value::Text("b".to_owned()));
        let (x, y) = (header.tensor("x").unwrap(), header.tensor("y").unwrap());
        assert_eq!((x.bytes, y.bytes, y.start - x.start), (36, 12, 64));
        assert_eq!(y.start + 12, small().len() as u64);
    }

    #[test]
    fn every_cut_and_every_changed_byte_ends_well() {
        let whole = small();
        (0..whole.len()).for_each(|n| assert!(check_gguf(&whole[..n]).is_err(), "cut at {n}"));
        for i in 0..whole.len() {
            for value in [0, 1, 127, 128, 255] {
                let mut bytes = whole.clone();
                bytes[i] = value;
                // An answer of either kind, and no panic or huge allocation.
                let _ = check_gguf(&bytes);
            }
        }
    }

    #[test]
    fn absurd_sizes_are_told() {
        let error = |values: &[(&str, u32, Vec<u8>)], tensors: &[(&str, Vec<u64>, u32, Vec<u8>)]| {
            check_gguf(&file(values, tensors)).unwrap_err()
        };
        assert!(error(&[], &[("x", vec![u64::MAX, 2], 0, vec![])]).contains("dimensions"));
        assert!(error(&[], &[("x", vec![31], 2, vec![0; 18])]).contains("whole blocks"));
        assert!(error(&[], &[("x", vec![8], 0, vec![0; 4])]).contains("file of"));
        assert!(error(&[], &[("x", vec![1], 99, vec![0; 4])]).contains("type 99"));
        assert!(error(&[], &[("x", vec![1], 0, vec![0; 4]), ("x", vec![1], 0, vec![0; 4])]).contains("twice"));
        assert!(error(&[], &[("x", vec![9], 0, vec![]), ("y", vec![9], 0, vec![0; 36])]).contains("overlap"));
        let deep: Vec<u8> = (0..9).flat_map(|_| [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat()).collect();
        assert!(error(&[("k", 9, deep)], &[]).contains("arrays"));
        let many = [&4u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
        assert!(error(&[("k", 9, many)], &[]).contains("bytes left"));
        assert!(check_gguf(b"GGUF\x01\0\0\0").unwrap_err().contains("version 1"));
    }
}
