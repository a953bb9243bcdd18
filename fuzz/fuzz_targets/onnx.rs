//! Any bytes as an ONNX file. What is accepted is a checked model that can be written.
//!
//! Seeds: small ONNX files, such as the models of the ONNX project's node tests.

#![no_main]

use std::path::Path;

use bitpact_interop::ImportOptions;
use bitpact_interop::onnx::import_bytes;
use bitpact_model::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (folder, path) = (Path::new("no such folder"), Path::new("fuzz"));
    let Ok(imported) = import_bytes(data.to_vec(), "fuzz", folder, path, &ImportOptions::default()) else { return };
    let checkpoint = Checkpoint { model: imported.model, training: None, note: None };
    checkpoint.to_bytes().expect("what was imported can be written");
});
