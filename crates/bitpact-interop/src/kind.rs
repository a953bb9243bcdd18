//! What a file is, by its first bytes.

use std::path::Path;

use bitpact_model::{Checkpoint, unreadable_kind};

/// The kinds of files that [`import`](crate::import) tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A checkpoint of bitpact.
    Checkpoint,
    /// What `torch.save` writes: a zip archive with a pickle in it.
    TorchZip,
    /// What `torch.save` wrote before PyTorch 1.6: pickles one after the other, then the storages.
    TorchLegacy,
    /// A safetensors file.
    Safetensors,
    /// The index of safetensors files, `model.safetensors.index.json`.
    SafetensorsIndex,
    /// A file that holds no network that is read, and why, in words.
    Unreadable(&'static str),
    /// Anything else; ONNX files have no magic number.
    Onnx,
}

impl Kind {
    /// The kind of a file called `path` that begins with `bytes`. The name counts only where the bytes tell nothing.
    pub fn of(bytes: &[u8], path: &Path) -> Self {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if let Some(what) = unreadable_kind(bytes) {
            return Self::Unreadable(what);
        }
        match bytes {
            _ if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") => Self::TorchZip,
            [0x80, 2..=5, ..] => Self::TorchLegacy,
            _ if Checkpoint::is_one(bytes) => Self::Checkpoint,
            _ if bytes.get(8) == Some(&b'{') && bytes[4..8] == [0; 4] => Self::Safetensors,
            _ if bytes.trim_ascii_start().starts_with(b"{") => Self::SafetensorsIndex,
            _ if ["pth", "pt", "th", "pkl", "bin"].contains(&extension) => Self::TorchLegacy,
            _ if extension == "safetensors" => Self::Safetensors,
            _ => Self::Onnx,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Kind;

    #[test]
    fn files_are_told_apart_by_their_first_bytes() {
        for (name, bytes, kind) in [
            ("a", &b"PK\x03\x04\x00\x00"[..], Kind::TorchZip),
            ("a.onnx", b"\x80\x02\x8a\x0a", Kind::TorchLegacy),
            ("a", b"\x40\x00\x00\x00\x00\x00\x00\x00{\"a\"", Kind::Safetensors),
            ("a", b"\n {\"metadata\":", Kind::SafetensorsIndex),
            ("a.pth", b"\x08\x08\x12\x07pytorch", Kind::TorchLegacy),
            ("a.safetensors", &[0; 64], Kind::Safetensors),
            ("a", b"\x08\x08\x12\x07pytorch", Kind::Onnx),
            ("a", b"\x80", Kind::Onnx),
        ] {
            assert_eq!(Kind::of(bytes, Path::new(name)), kind, "{name} {bytes:?}");
        }
        assert!(matches!(Kind::of(b"", Path::new("a.pth")), Kind::Unreadable(what) if what.contains("empty")));
    }
}
