//! Any bytes as the header of a GGUF file, behind its magic and version: no panic, and no more memory than the bytes
//! have.
//!
//! Seeds: any GGUF files, cut after their headers.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend_from_slice(data);
    let _ = bitpact_lm::check_gguf(&bytes);
});
