//! What a file is that is no safetensors file, as far as its first bytes tell, and what to do about it.

/// A phrase about `bytes`, or `None` where nothing is known.
pub(crate) fn of(bytes: &[u8]) -> Option<&'static str> {
    let starts = |with: &[u8]| bytes.starts_with(with);
    let has = |name: &[u8]| bytes[..bytes.len().min(1 << 12)].windows(name.len()).any(|window| window == name);
    unreadable_kind(bytes).or(match () {
        () if starts(b"PK\x03\x04") || starts(b"\x80\x02") || starts(b"\x80\x04") => {
            Some("a PyTorch file or another pickle; `bitpact import` makes a checkpoint of a state_dict")
        }
        () if starts(b"\x08") && (has(b"onnx") || has(b"pytorch") || has(b"ir_version") || has(b"\x12\x07")) => {
            Some("an ONNX file; `bitpact import` makes a checkpoint of it")
        }
        () => None,
    })
}

/// What a file is that begins with `bytes` and holds no network that can be read: a phrase that also says what to do
/// about it. `None` of other files.
pub fn unreadable_kind(bytes: &[u8]) -> Option<&'static str> {
    let starts = |with: &[u8]| bytes.starts_with(with);
    let text = || String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).trim_start().to_lowercase();
    Some(match () {
        () if bytes.is_empty() => "the file is empty",
        () if starts(b"version https://git-lfs.github.com") => {
            "a pointer of Git LFS; the file itself was not fetched (git lfs pull)"
        }
        () if starts(b"BITPACT\n") => "an integer network (.bitpact), which has no float weights; take its checkpoint",
        () if starts(b"\x89HDF\r\n") => "an HDF5 file; write its weights as safetensors with PyTorch's names",
        () if starts(b"GGUF") => "a GGUF file; write its weights as safetensors with PyTorch's names",
        () if bytes.get(4..8) == Some(b"TFL3") => "a TensorFlow Lite file; write its weights as safetensors",
        () if starts(b"\x1f\x8b") => "a gzip file; unpack it first",
        () if starts(b"\x89PNG") || starts(b"\xff\xd8\xff") => "a picture",
        () if text().starts_with("<!doctype") || text().starts_with("<html") || text().starts_with("<?xml") => {
            "a web page; the download went wrong"
        }
        () => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn files_that_are_often_taken_for_weights_are_named() {
        for (bytes, part) in [
            (&b""[..], "empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
            (b"BITPACT\n\x04", ".bitpact"),
            (b"PK\x03\x04resnet20/data.pkl", "state_dict"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "state_dict"),
            (b"\x08\x08\x12\x07pytorch\x1a\x05", "ONNX"),
            (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
            (b"\n <!DOCTYPE html><html>", "web page"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\x89PNG\r\n", "picture"),
        ] {
            let said = of(bytes).unwrap_or("nothing");
            assert!(said.contains(part), "{bytes:?}: {said}");
        }
        assert_eq!([of(b"\x40\0\0\0\0\0\0\0{}"), of(b"hello")], [None, None]);
    }
}
