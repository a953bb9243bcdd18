//! Writes networks as source with the interpreter's integers beside them, for compilers and machines that are not at
//! hand in a test.
//!
//!     c_programs DIR                     random networks and the zoo: DIR/all.c runs the self-test of each
//!     c_programs DIR MODEL FILE IMAGES   a .bitpact file: net.c, the package `rust`, and of so many images of FILE (8
//!   or 16
//!                                        bits, one after the other) `images.bin` and the outputs `expected.bin`

#[path = "../tests/common/c.rs"]
#[allow(dead_code)]
mod c;
#[path = "../../bitpact-engine/tests/random_networks/draw.rs"]
#[allow(dead_code)]
mod draw;

use std::error::Error;
use std::path::Path;

use bitpact_engine::{ExecOptions, Executor};
use bitpact_interop::export::CheckData;
use bitpact_interop::source::{Language, write};
use bitpact_model::{IntegerModel, IntegerOutput, TensorKind};

/// Random networks that are written.
const NETWORKS: u64 = 60;
/// Images of a self-test.
const GOLDEN: usize = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words[..] {
        [folder] => {
            std::fs::create_dir_all(folder)?;
            c::program(&(0..NETWORKS).map(network).collect::<Vec<_>>(), 1, Path::new(folder));
            Ok(())
        }
        [folder, model, images, n] => full_size(Path::new(folder), model, images, n.parse()?),
        _ => Err("usage: c_programs DIR [MODEL FILE IMAGES]".into()),
    }
}

/// A random network; of two in three, every tensor is an output.
fn network(seed: u64) -> IntegerModel {
    let mut model = draw::random_network(seed);
    if !seed.is_multiple_of(3) {
        let main = model.main_output();
        let others = (1..=model.layers.len()).filter(|&tensor| tensor != main);
        model.outputs = std::iter::once(main).chain(others).map(|tensor| IntegerOutput { tensor, zero: 0 }).collect();
    }
    model
}

fn full_size(folder: &Path, model: &str, images: &str, n: usize) -> Result<(), Box<dyn Error>> {
    let model = IntegerModel::load(model)?;
    let length = model.example_bytes();
    let pixels = std::fs::read(images)?;
    let pixels = pixels.get(..n * length).ok_or("too few images")?;
    let mut executor = Executor::new(&model, ExecOptions::default())?;
    let mut outputs: Vec<Vec<i64>> = executor.output_lens().map(|len| vec![0; n * len]).collect();
    executor.run_outputs(pixels, &mut outputs.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    let lens: Vec<usize> = executor.output_lens().collect();
    let first = n.min(GOLDEN);
    let golden = CheckData {
        pixels: pixels[..first * length].to_vec(),
        outputs: outputs.iter().zip(&lens).map(|(values, len)| values[..first * len].to_vec()).collect(),
        layers: Vec::new(),
    };
    let footprint = write(&model, Language::C, Some("net"), &golden, folder)?;
    write(&model, Language::Rust, Some("net"), &golden, &folder.join("rust"))?;
    let header = std::fs::read_to_string(folder.join("net.h"))?;
    let mut expected = Vec::new();
    for i in 0..n {
        for ((values, len), output) in outputs.iter().zip(&lens).zip(&model.outputs) {
            let values = &values[i * len..(i + 1) * len];
            let is_long = model.kind(output.tensor) == TensorKind::Output && header.contains("int64_t");
            let bytes = match model.kind(output.tensor) {
                _ if is_long => 8,
                TensorKind::Output | TensorKind::Wide => 4,
                _ => 1,
            };
            expected.extend(values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(bytes)));
        }
    }
    std::fs::write(folder.join("images.bin"), pixels)?;
    std::fs::write(folder.join("expected.bin"), expected)?;
    println!(
        "{}: flash {} (weights {}), ram {}, live {}, {} macs",
        folder.display(),
        footprint.flash_bytes(),
        footprint.weight_bytes,
        footprint.ram_bytes,
        footprint.live_bytes,
        footprint.macs()
    );
    Ok(())
}
