//! `npy`: the network as NumPy arrays of its weights, and everything else in one JSON file.

use std::collections::BTreeSet;
use std::path::Path;

use bitpact_model::{IntegerModel, IntegerProduct, IntegerTerm, ModelError, write_atomically};

use super::ExportError;
use super::meaning;
use super::network::{Names, Network, Stored};
use super::npy::{self, Dtype};

/// The file of everything but arrays, written last.
pub(super) const CONTENTS: &str = "model.json";

/// Writes the folder.
pub(super) fn write(model: &IntegerModel, folder: &Path) -> Result<(), ExportError> {
    std::fs::create_dir_all(folder).map_err(|source| ModelError::Write { path: folder.to_owned(), source })?;
    let (files, network) = files(model);
    files.iter().try_for_each(|(name, bytes)| write_atomically(folder.join(name), bytes))?;
    let text = serde_json::to_string_pretty(&network).expect("numbers of a checked network are finite");
    Ok(write_atomically(folder.join(CONTENTS), format!("{text}\n").as_bytes())?)
}

/// Names and bytes of the arrays, and the description that names them.
pub(super) fn files(model: &IntegerModel) -> (Vec<(String, Vec<u8>)>, Network) {
    let mut files = Files::default();
    let meanings = meaning::of(model);
    let mut stored = Vec::new();
    for (i, layer) in model.layers.iter().enumerate() {
        let Some(sum) = layer.op.sum() else { continue };
        let gains = meaning::affine(model, &meanings, i, sum).gains;
        for (term, gains) in sum.terms.iter().zip(gains) {
            let IntegerTerm::Product(product) = term else { continue };
            let step = meanings[product.input].scale;
            let scales: Vec<u8> = gains.iter().flat_map(|gain| ((gain / step) as f32).to_le_bytes()).collect();
            let (dtype, bytes) = array(&product.codes);
            let weight = files.add(&format!("{}.weight", product.name), npy::file(dtype, &sizes(product), &bytes));
            let scale = npy::file(Dtype::F32, &[gains.len()], &scales);
            let scale = files.add(&format!("{}.scale", product.name), scale);
            stored.push(Stored { weight: Names::One(weight), scale: Some(scale), halved: false });
        }
    }
    (files.files, Network::of(model, stored))
}

/// Codes in the narrower of int8 and int16 that holds them.
fn array(codes: &[i16]) -> (Dtype, Vec<u8>) {
    match codes.iter().all(|&q| i8::try_from(q).is_ok()) {
        true => (Dtype::I8, codes.iter().map(|&q| q as u8).collect()),
        false => (Dtype::I16, codes.iter().flat_map(|q| q.to_le_bytes()).collect()),
    }
}

fn sizes(product: &IntegerProduct) -> [usize; 4] {
    let [rows, columns] = product.window.kernel;
    [product.out_channels, product.group_inputs(), rows, columns]
}

/// The arrays of a folder.
#[derive(Default)]
struct Files {
    files: Vec<(String, Vec<u8>)>,
    taken: BTreeSet<String>,
}

impl Files {
    /// Adds a file and returns its name, which begins with `base`.
    fn add(&mut self, base: &str, bytes: Vec<u8>) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let stem: String = base.chars().map(plain).collect();
        let stem = format!("{}{}", if stem.starts_with(['.', '-']) { "_" } else { "" }, stem);
        // Names of any length, in any case, on any file system.
        let stem: String = stem.chars().take(150).collect();
        let mut name = format!("{stem}.npy");
        let mut n = 1;
        while !self.taken.insert(name.to_lowercase()) {
            n += 1;
            name = format!("{stem}-{n}.npy");
        }
        self.files.push((name.clone(), bytes));
        name
    }
}
