//! Any bytes as a PyTorch file, and behind the pickles that an older one begins with.
//! No panic, and no more memory than the bytes have.
//!
//! Seeds: the files of crates/bitpact-interop/tests/data.

#![no_main]

use bitpact_interop::weights::Weights;
use libfuzzer_sys::fuzz_target;

/// The pickles before the object.
const OLDER: &[u8] = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00.";

fuzz_target!(|data: &[u8]| {
    let _ = Weights::from_bytes(data, "fuzz.pth");
    let _ = Weights::from_bytes(&[OLDER, data].concat(), "fuzz.pth");
});
