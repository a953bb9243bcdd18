//! The files of `torch.save`: which bytes are the pickle, and where the storages lie.
//!
//! Since PyTorch 1.6 it is a zip archive without compression, with `data.pkl` and an entry `data/KEY` for each storage.
//! Before, it was five pickles (a magic number, the protocol, sizes of C types, the object, the keys of the storages),
//! then for each key the count of its numbers in 8 bytes and the numbers.
//!
//! A file makes no more memory than it has bytes: the pickle has a limit, only what tensors look at is read, and all
//! tensors together have at most as many numbers as the file has bytes.

use std::collections::HashMap;
use std::io::{BufReader, Read, Seek, SeekFrom};

use bitpact_model::Tensor;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Arena, Object, Pickle, StridedTensor, Value};
use crate::error::short;

/// Bytes of a pickle at the most; a hundred for each tensor are usual.
const LONGEST_PICKLE: u64 = 1 << 24;
/// Numbers read, as a multiple of the file's bytes; more than 1 only where strides pass over most of them.
const MOST_READ: u64 = 16;
/// The number that an older file begins with, 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The number that follows.
const PROTOCOL: Value = Value::Int(1001);

/// A file of `torch.save` with its pickle read.
pub(super) struct TorchFile<R> {
    file: R,
    /// Bytes of the file.
    len: u64,
    pub(super) pickle: Pickle,
    /// Place and bytes of each storage by its key.
    storages: HashMap<String, (u64, u64)>,
    /// Numbers of the tensors that were made, and numbers read for them.
    made: u64,
    read: u64,
}

type Result<T> = std::result::Result<T, String>;

impl<R: Read + Seek> TorchFile<R> {
    /// Opens a zip archive.
    ///
    /// # Errors
    /// An archive that is damaged, compressed or not of `torch.save`, or what [`Pickle::read`] refuses.
    pub(super) fn open_zip(mut file: R) -> Result<Self> {
        let len = file.seek(SeekFrom::End(0)).map_err(io)?;
        let damaged = |error: zip::result::ZipError| format!("the zip archive is damaged: {error}");
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
        let mut entries = HashMap::new();
        for at in 0..archive.len() {
            let entry = archive.by_index_raw(at).map_err(damaged)?;
            let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
            let shown = short(&name);
            if entry.encrypted() || entry.compression() != CompressionMethod::Stored {
                return Err(format!("its entry `{shown}` is compressed or encrypted; torch.save does neither"));
            }
            let (start, size) = (entry.data_start().ok_or("an entry of the zip archive has no place")?, entry.size());
            if start.checked_add(size).is_none_or(|end| end > len) {
                return Err(format!(
                    "its entry `{shown}` claims {size} bytes from byte {start} on, in a file of {len}"
                ));
            }
            entries.insert(name, (start, size));
        }
        let mut file = archive.into_inner().into_inner();
        let Some(folder) = entries.keys().find_map(|name| name.strip_suffix("data.pkl")).map(str::to_owned) else {
            return Err("a zip archive without `data.pkl`, so not of torch.save".to_owned());
        };
        let entry = |name: &str| entries.get(&format!("{folder}{name}")).copied();
        if entry("constants.pkl").is_some() {
            return Err(
                "a TorchScript program; save its tensors alone: torch.save(model.state_dict(), \"weights.pth\")"
                    .to_owned(),
            );
        }
        if let Some((start, size)) = entry("byteorder")
            && range(&mut file, start, size.min(8))? != b"little"
        {
            return Err("its numbers are not little-endian".to_owned());
        }
        let (start, size) = entry("data.pkl").ok_or("a zip archive with two `data.pkl`")?;
        if size > LONGEST_PICKLE {
            return Err(format!("a pickle of {size} bytes, expected at most {LONGEST_PICKLE}"));
        }
        let pickle = Pickle::read(&range(&mut file, start, size)?)?;
        let data = format!("{folder}data/");
        let storages = entries.into_iter().filter_map(|(name, at)| Some((name.strip_prefix(&data)?.to_owned(), at)));
        let storages = storages.collect();
        Ok(Self { file, len, pickle, storages, made: 0, read: 0 })
    }

    /// Opens a file of before PyTorch 1.6.
    ///
    /// # Errors
    /// A pickle that is not of `torch.save`, storages that are cut off, or what [`Pickle::read`] refuses.
    pub(super) fn open_legacy(mut file: R) -> Result<Self> {
        let len = file.seek(SeekFrom::End(0)).map_err(io)?;
        let first = range(&mut file, 0, len.min(LONGEST_PICKLE))?;
        let mut at = 0;
        let mut next = |what: &str| {
            let pickle = Pickle::read(&first[at..]).map_err(|error| format!("{what}, from byte {at} on: {error}"))?;
            at += pickle.len;
            Ok::<_, String>(pickle)
        };
        let magic = next("the magic number")?;
        if !matches!(magic.arena.get(magic.root), Some(Object::Long(number)) if **number == MAGIC) {
            return Err("a pickle, but not of torch.save".to_owned());
        }
        let protocol = next("the protocol")?.root;
        if protocol != PROTOCOL {
            return Err(format!("protocol {protocol:?} of torch.save, expected {PROTOCOL:?}"));
        }
        let system = next("the sizes of types")?;
        if get(&system.arena, system.root, "little_endian") == Some(Value::Bool(false)) {
            return Err("its numbers are not little-endian".to_owned());
        }
        let pickle = next("the object")?;
        let keys = next("the keys of the storages")?;
        let sizes: HashMap<&str, u64> = pickle.arena.storages().map(|s| (&*s.key, s.dtype.size())).collect();
        let (mut storages, mut from) = (HashMap::new(), at as u64);
        for &key in keys.arena.sequence(keys.root).ok_or("the keys of the storages are no list")? {
            let key = keys.arena.text(key).ok_or("a key of a storage that is no text")?;
            let size = sizes.get(&**key).ok_or_else(|| format!("no tensor has the storage `{}`", short(key)))?;
            let cut = || format!("the storage `{}` from byte {from} on is cut off: the file has {len}", short(key));
            let count = range(&mut file, from, 8.min(len.saturating_sub(from)))?;
            let count = u64::from_le_bytes(count.try_into().map_err(|_| cut())?);
            let bytes = count.checked_mul(*size).ok_or_else(cut)?;
            let end = (from + 8).checked_add(bytes).filter(|&end| end <= len).ok_or_else(cut)?;
            storages.insert(key.to_string(), (from + 8, bytes));
            from = end;
        }
        Ok(Self { file, len, pickle, storages, made: 0, read: 0 })
    }

    /// The numbers of a tensor, as float32 in row-major order.
    ///
    /// # Errors
    /// A storage that is not there or of another length, a tensor that reaches beyond it, or more numbers than a file
    /// of this length can have.
    pub(super) fn tensor(&mut self, tensor: &StridedTensor) -> Result<Tensor> {
        let StridedTensor { storage, offset, shape, strides } = tensor;
        let (key, size) = (&storage.key, storage.dtype.size());
        let missing = || format!("its storage `{}` is not in the file", short(key));
        let (start, bytes) = *self.storages.get(&**key).ok_or_else(missing)?;
        if storage.len.checked_mul(size) != Some(bytes) {
            let len = storage.len;
            return Err(format!(
                "its storage `{}` has {bytes} bytes, {len} numbers of {size} bytes are claimed",
                short(key)
            ));
        }
        let count = shape.iter().try_fold(1u64, |count, &n| count.checked_mul(n));
        // From the first number to the last.
        let span = shape
            .iter()
            .zip(strides)
            .try_fold(1u64, |span, (&n, &stride)| span.checked_add(n.saturating_sub(1).checked_mul(stride)?));
        let span = if shape.contains(&0) { Some(0) } else { span };
        let fits = |&span: &u64| offset.checked_add(span).is_some_and(|end| end <= storage.len);
        let (Some(count), Some(span)) = (count, span.filter(fits)) else {
            let len = storage.len;
            return Err(format!("shape {shape:?}, strides {strides:?}, from {offset} on: beyond a storage of {len}"));
        };
        self.made = self.made.saturating_add(count);
        self.read = self.read.saturating_add(span);
        if self.made > self.len || self.read > self.len.saturating_mul(MOST_READ) {
            return Err(format!("more numbers than a file of {} bytes holds: its tensors overlap", self.len));
        }
        let numbers = storage.dtype.floats(&range(&mut self.file, start + offset * size, span * size)?);
        let data = if is_contiguous(shape, strides) { numbers } else { gathered(&numbers, shape, strides) };
        Ok(Tensor { shape: shape.iter().map(|&n| n as usize).collect(), data })
    }
}

/// Whether the strides are those of row-major order; of a size of 1 they do not matter.
fn is_contiguous(shape: &[u64], strides: &[u64]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&n, &stride)| {
        let fits = n <= 1 || stride == expected;
        expected *= n.max(1);
        fits
    })
}

/// The numbers in row-major order.
fn gathered(numbers: &[f32], shape: &[u64], strides: &[u64]) -> Vec<f32> {
    let count: u64 = shape.iter().product();
    let at = |mut i: u64| {
        let mut place = 0;
        for (&n, &stride) in shape.iter().zip(strides).rev() {
            place += i % n * stride;
            i /= n;
        }
        numbers[place as usize]
    };
    (0..count).map(at).collect()
}

/// The value of the key `name` of a dict.
pub(super) fn get(arena: &Arena, dict: Value, name: &str) -> Option<Value> {
    let is_it = |key: Value| arena.text(key).is_some_and(|key| &**key == name);
    arena.dict(dict)?.iter().rev().find(|(key, _)| is_it(*key)).map(|(_, value)| *value)
}

fn range(file: &mut (impl Read + Seek), start: u64, bytes: u64) -> Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start)).map_err(io)?;
    let mut read = Vec::new();
    file.take(bytes).read_to_end(&mut read).map_err(io)?;
    match read.len() as u64 == bytes {
        true => Ok(read),
        false => Err(format!("cut off: {bytes} bytes were expected from byte {start} on, {} are there", read.len())),
    }
}

fn io(error: std::io::Error) -> String {
    format!("cannot read: {error}")
}
