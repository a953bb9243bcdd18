//! What a file is, by its first bytes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::InteropError;

/// Bytes that tell what a file is.
const FIRST_BYTES: u64 = 64;

/// The kinds of files that [`import`](crate::import) tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What `torch.save` writes: a zip archive with a pickle in it.
    TorchZip,
    /// What `torch.save` wrote before PyTorch 1.6: pickles one after the other, then the storages.
    TorchLegacy,
    /// A safetensors file.
    Safetensors,
    /// The index of safetensors files, `model.safetensors.index.json`.
    SafetensorsIndex,
    /// Anything else; ONNX files have no magic number.
    Onnx,
}

impl Kind {
    /// The kind of the file `path`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(path: &Path) -> Result<Self, InteropError> {
        let mut first = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FIRST_BYTES).read_to_end(&mut first))
            .map_err(|error| InteropError::file(path, format!("cannot read: {error}")))?;
        Ok(Self::of_bytes(&first))
    }

    /// The kind of a file that begins with `bytes`.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let text = bytes.trim_ascii_start();
        match bytes {
            _ if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") => Self::TorchZip,
            [0x80, 2..=5, ..] => Self::TorchLegacy,
            _ if bytes.get(8) == Some(&b'{') && bytes[4..8] == [0; 4] => Self::Safetensors,
            _ if text.starts_with(b"{") => Self::SafetensorsIndex,
            _ => Self::Onnx,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn files_are_told_apart_by_their_first_bytes() {
        for (bytes, kind) in [
            (&b"PK\x03\x04\x00\x00"[..], Kind::TorchZip),
            (b"\x80\x02\x8a\x0a", Kind::TorchLegacy),
            (b"\x40\x00\x00\x00\x00\x00\x00\x00{\"a\"", Kind::Safetensors),
            (b"\n {\"metadata\":", Kind::SafetensorsIndex),
            (b"\x08\x08\x12\x07pytorch", Kind::Onnx),
            (b"", Kind::Onnx),
            (b"\x80", Kind::Onnx),
        ] {
            assert_eq!(Kind::of_bytes(bytes), kind, "{bytes:?}");
        }
    }
}
