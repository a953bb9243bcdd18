//! A small writer of what `torch.save` writes.

use std::io::{Cursor, Write};

use bitpact_model::Tensor;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The opcodes of a text.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// The opcodes of a whole number.
pub(crate) fn int(n: usize) -> Vec<u8> {
    [b"J".as_slice(), &(n as i32).to_le_bytes()].concat()
}

fn tuple(items: &[usize]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|&n| int(n)).collect();
    [b"(", items.as_slice(), b"t"].concat()
}

/// The opcodes of a float32 tensor that views the storage `key`, which has `len` numbers.
pub(crate) fn view(key: &str, len: usize, offset: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let storage = [text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(key), text("cpu"), int(len)].concat();
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".as_slice(),
        &storage,
        b"tQ",
        &int(offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

/// A pickle of a dict with these keys and the opcodes of their values.
pub(crate) fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"\x80\x02}(", items.as_slice(), b"u."].concat()
}

/// A zip archive without compression.
pub(crate) fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// The file of a state_dict.
pub(crate) fn state_dict<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Vec<u8> {
    let (mut items, mut storages) = (Vec::new(), Vec::new());
    for (at, (name, tensor)) in tensors.into_iter().enumerate() {
        let mut strides = vec![1; tensor.shape.len()];
        for i in (1..tensor.shape.len()).rev() {
            strides[i - 1] = strides[i] * tensor.shape[i];
        }
        items.push((name, view(&at.to_string(), tensor.data.len(), 0, &tensor.shape, &strides)));
        let bytes: Vec<u8> = tensor.data.iter().flat_map(|v| v.to_le_bytes()).collect();
        storages.push((format!("net/data/{at}"), bytes));
    }
    let pickle = dict(&items);
    let mut entries: Vec<(&str, &[u8])> = vec![("net/data.pkl", &pickle), ("net/byteorder", b"little")];
    entries.extend(storages.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    zip(&entries)
}
