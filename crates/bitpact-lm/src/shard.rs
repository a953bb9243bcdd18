//! One safetensors file, its tensors read one at a time.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::LmError;

/// The largest header, as the format's own library has it.
const MAX_HEADER: u64 = 100_000_000;

/// A safetensors file with its header.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    header: Metadata,
    /// Where the data begin.
    start: u64,
}

impl Shard {
    /// Reads and checks the header: sizes, overlaps and holes.
    pub(crate) fn open(path: PathBuf) -> Result<Shard, LmError> {
        let mut file = File::open(&path).map_err(LmError::read(&path))?;
        let size = file.metadata().map_err(LmError::read(&path))?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(LmError::read(&path))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length.saturating_add(8) > size {
            return Err(LmError::file(&path, format!("a header of {length} bytes in a file of {size}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(LmError::read(&path))?;
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|e| LmError::file(&path, format!("bad header: {e}")))?;
        let start = length + 8;
        if header.data_len() as u64 != size - start {
            let (said, found) = (header.data_len(), size - start);
            return Err(LmError::file(
                &path,
                format!("the header speaks of {said} bytes of data, the file has {found}"),
            ));
        }
        Ok(Shard { path, header, start })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.header.tensors().into_keys()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// An entry of the header's free part.
    pub(crate) fn metadata(&self, key: &str) -> Option<&String> {
        self.header.metadata().as_ref()?.get(key)
    }

    /// The bytes of a tensor of one of `types`; with `shape`, it must have that shape.
    pub(crate) fn bytes(
        &self,
        name: &str,
        types: &[Dtype],
        shape: Option<&[usize]>,
    ) -> Result<(Dtype, Vec<u8>), LmError> {
        let path = &self.path;
        let info = self.header.info(name).ok_or_else(|| LmError::file(path, format!("tensor {name} is missing")))?;
        if let Some(shape) = shape.filter(|&s| s != info.shape) {
            let what = format!("tensor {name} has shape {:?}, expected {shape:?}", info.shape);
            return Err(LmError::file(path, what));
        }
        if !types.contains(&info.dtype) {
            let what = format!("tensor {name} is {:?}, expected one of {types:?}", info.dtype);
            return Err(LmError::file(path, what));
        }
        let (from, to) = info.data_offsets;
        let mut bytes = vec![0; to - from];
        let mut file = File::open(path).map_err(LmError::read(path))?;
        file.seek(SeekFrom::Start(self.start + from as u64)).map_err(LmError::read(path))?;
        file.read_exact(&mut bytes).map_err(LmError::read(path))?;
        Ok((info.dtype, bytes))
    }

    /// A tensor of floating point numbers in float32.
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LmError> {
        let (dtype, bytes) = self.bytes(name, &[Dtype::F32, Dtype::F16, Dtype::BF16], Some(shape))?;
        let values: Vec<f32> = match dtype {
            Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        };
        finite(&self.path, name, &values)?;
        Ok(values)
    }
}

/// An error where a value is not finite.
pub(crate) fn finite(path: &Path, name: &str, values: &[f32]) -> Result<(), LmError> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(LmError::file(path, format!("value {i} of tensor {name} is {}", values[i]))),
        None => Ok(()),
    }
}
