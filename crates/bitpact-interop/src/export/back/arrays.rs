//! Folders of NumPy arrays.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bitpact_kernels::memory;

use super::super::Format;
use super::super::folder::{self, CONTENTS};
use super::super::network::{Network, Product, VERSION};
use super::super::npy::{self, Dtype};
use super::{Exported, Fault, changed, network};
use crate::error::short;

/// Bytes of the JSON file at the most.
const LONGEST_CONTENTS: u64 = 1 << 30;
/// Bytes of the header of an array at the most.
const HEADER: u64 = 256;

/// The network of a folder; `None` where nothing in it says that it is one.
pub(super) fn read(folder: &Path) -> Result<Option<Exported>, Fault> {
    let path = folder.join(CONTENTS);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = memory::read_at_most(&path, LONGEST_CONTENTS).map_err(|error| format!("{CONTENTS}: {error}"))?;
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    if !text.contains(VERSION) {
        return Ok(None);
    }
    let description = Network::parse(&text).map_err(|what| format!("{CONTENTS}: {what}"))?;
    let said = description.clone();
    let model = network(description, |product, sizes| codes(folder, product, sizes))?;
    let (files, contents) = folder::files(&model);
    if contents != said {
        return Err(changed(format!("{CONTENTS} says something else")));
    }
    for (name, bytes) in files {
        if file(folder, &name, bytes.len() as u64)? != bytes {
            return Err(changed(format!("the array {name} is another")));
        }
    }
    Ok(Some(Exported { model, format: Format::Npy }))
}

/// The bytes of a file of the folder, which has `length` of them at the most.
fn file(folder: &Path, name: &str, length: u64) -> Result<Vec<u8>, String> {
    let is_plain = !name.is_empty() && !name.contains(['/', '\\', ':']) && name != "." && name != "..";
    if !is_plain {
        return Err(format!("the array {:?}, expected a file of the folder", short(name)));
    }
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", short(name));
    let file = File::open(folder.join(name)).map_err(cannot)?;
    memory::check(length).map_err(|shortage| shortage.to_string())?;
    let mut bytes = Vec::new();
    file.take(length + 1).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

/// The weight codes of a product.
fn codes(folder: &Path, product: &Product, sizes: [usize; 4]) -> Result<Vec<i16>, String> {
    let [name] = product.weight.all() else { return Err("several arrays of weights, expected one".to_owned()) };
    let count = sizes.iter().product::<usize>();
    let bytes = file(folder, name, (count as u64).saturating_mul(2).saturating_add(HEADER))?;
    let elements = |dtype| bytes.strip_prefix(&npy::file(dtype, &sizes, &[])[..]);
    let codes: Vec<i16> = match (elements(Dtype::I8), elements(Dtype::I16)) {
        (Some(bytes), _) => bytes.iter().map(|&byte| i16::from(byte as i8)).collect(),
        (_, Some(bytes)) => bytes.as_chunks().0.iter().map(|&word| i16::from_le_bytes(word)).collect(),
        _ => return Err(format!("{} is no array of int8 or int16 of the sizes {sizes:?}", short(name))),
    };
    Ok(codes)
}
