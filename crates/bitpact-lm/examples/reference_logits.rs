//! Largest difference between the float reference and logits that another program computed:
//!
//!     cargo run --release -p bitpact-lm --example reference_logits -- FOLDER
//!
//! FOLDER is a Hugging Face folder with `reference-tokens.npy` (whole numbers, `[n]`) and `reference-logits.npy`
//! (float32, `[n, vocabulary]`).

use std::path::Path;

use bitpact_kernels::Pool;
use bitpact_lm::{Cache, HuggingFace, Source};

/// Type and data of a .npy file.
fn read(path: &Path) -> Result<(String, Vec<u8>), Box<dyn std::error::Error>> {
    let bytes = std::fs::read(path)?;
    let end = bytes.iter().position(|&b| b == b'\n').ok_or("no header")?;
    let header = String::from_utf8_lossy(&bytes[..end]);
    let kind = header.split('\'').skip_while(|part| *part != "descr").nth(2).ok_or("no descr")?;
    Ok((kind.to_owned(), bytes[end + 1..].to_vec()))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("expected a folder")?;
    let folder = Path::new(&folder);
    let (kind, bytes) = read(&folder.join("reference-tokens.npy"))?;
    let width = kind.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<usize>()?;
    let tokens: Vec<u32> = bytes.chunks_exact(width).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect();
    let (_, bytes) = read(&folder.join("reference-logits.npy"))?;
    let expected: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let (model, pool) = (HuggingFace::open(folder)?.load()?, Pool::new(2));
    let hidden = model.hidden(&tokens, &mut Cache::new(&model.config), &pool)?;
    let logits = model.logits(&hidden, &pool);
    if logits.data().len() != expected.len() {
        return Err(format!("{} logits, expected {}", logits.data().len(), expected.len()).into());
    }
    let worst = logits.data().iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{} tokens, largest difference of {} logits {worst:e}", tokens.len(), expected.len());
    Ok(())
}
