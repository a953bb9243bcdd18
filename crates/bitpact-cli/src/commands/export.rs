//! `bitpact export`: the integer network as a file of other programs.

mod source;

use std::path::PathBuf;

use anyhow::{Result, bail};
use bitpact::Executor;
use bitpact::unstable::engine::ExecOptions;
use bitpact::unstable::interop::export::{CheckData, ExportOptions, Format, export};
use bitpact::unstable::interop::source::Language;
use serde_json::json;

use super::test_set::TestSetArgs;
use crate::exit::Usage;
use crate::loaded::Loaded;
use crate::out::{bytes, pasted, print};
use crate::progress::image_bar;

/// Images that --check writes where --limit-test names no number.
const IMAGES: u64 = 1000;
/// Images of which it writes every layer.
const TRACED: usize = 20;
/// Images that are run at once.
const BATCH: usize = 16;

/// Writes the integer network as ONNX, NumPy or safetensors files for other programs, or as C or Rust
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact export runs/builtin-W4A4-seed1 -o model.onnx
  bitpact export model.bitpact --format onnx-integer -o model.onnx --check check
  bitpact export model.bitpact --format npy -o weights
  bitpact export model.bitpact --format c --target cortex-m4 --ram 64k -o net
  bitpact export model.bitpact --format rust --name net -o net

Formats, all with the bits of every layer as metadata (docs/export.md):
  onnx-qcdq     QuantizeLinear, Clip and DequantizeLinear in 8-bit integers, operator set 13; runs everywhere
  onnx-qdq      the same in integers of 8, 4 and 2 bits, operator set 21 or 25
  qonnx         Quant nodes, for FINN and hls4ml
  onnx-integer  integer operators alone: exactly the network's own numbers
  npy           a folder of integer weights and scales, and a JSON file of every constant
  safetensors   float weights with their scales
  c             a folder of C99 that computes exactly the network's own numbers (docs/microcontrollers.md)
  rust          a package of Rust that does, without std, allocation and unsafe code

--check writes images, the network's own numbers for them and a Python script that runs the exported file in ONNX Runtime
and counts the numbers that differ; the command line is shown. Images are those of the test set, read from --data, or,
where the file does not tell which, of --dataset; without these they are noise.")]
pub(crate) struct Args {
    #[command(flatten)]
    on: TestSetArgs,
    /// Form of the export
    #[arg(long, value_name = "FORMAT", default_value = "onnx-qcdq", value_parser = names())]
    format: String,
    /// The file to write; of npy, c and rust, the folder
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Keep every bias in its convolution, in onnx-qcdq and onnx-qdq: runtimes then compute it in 8-bit integers, with
    /// the bias rounded
    #[arg(long)]
    rounded_biases: bool,
    /// Folder to write images, the network's numbers and a script into that compares
    #[arg(long, value_name = "DIR")]
    check: Option<PathBuf>,
    /// Prefix of the names of functions and files, with --format c, or name of the package, with --format rust; the
    /// architecture where not given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Machine whose cycles are modelled, with --format c and rust
    #[arg(long, value_name = "TARGET", value_parser = source::TARGETS)]
    target: Option<String>,
    /// Refuse a network that takes more flash, with --format c and rust: bytes, or a number with k or M behind it
    #[arg(long, value_name = "BYTES", value_parser = source::parse_bytes)]
    flash: Option<u64>,
    /// Refuse a network that takes more memory, with --format c and rust
    #[arg(long, value_name = "BYTES", value_parser = source::parse_bytes)]
    ram: Option<u64>,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

fn names() -> clap::builder::PossibleValuesParser {
    Format::ALL.map(Format::name).into_iter().chain(Language::ALL.map(Language::name)).collect::<Vec<_>>().into()
}

pub(crate) fn run(args: Args) -> Result<()> {
    if let Some(language) = Language::ALL.into_iter().find(|language| args.format == language.name()) {
        if args.check.is_some() {
            let words = format!("--check runs files of ONNX, and {} is none; its self-test is part of it", args.format);
            return Err(Usage(words).into());
        }
        return source::run(&args, language, &args.on.network()?);
    }
    let format: Format = args.format.parse().map_err(Usage)?;
    if args.name.is_some() || args.target.is_some() || args.flash.is_some() || args.ram.is_some() {
        return Err(
            Usage(format!("--name, --target, --flash and --ram go with --format c and rust, not {format}")).into()
        );
    }
    if args.check.is_some() && !format.is_onnx() {
        return Err(Usage(format!("--check runs files of ONNX, and {format} is none")).into());
    }
    let loaded = args.on.network()?;
    let same = |a: &PathBuf, b: &PathBuf| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same(&loaded.file, &args.output) {
        return Err(Usage(format!("--output {}: that is the network itself", args.output.display())).into());
    }
    let model = loaded.integers()?;
    let options = ExportOptions { rounded_biases: args.rounded_biases };
    export(model, format, options, &args.output)?;
    let size = size(&args.output);
    let command = match &args.check {
        None => None,
        Some(folder) => {
            let script = check(&args, &loaded, IMAGES)?.write(folder, model, format)?;
            Some(format!("python {} {}", pasted(&script), pasted(&args.output)))
        }
    };
    let output = args.output.display().to_string();
    if args.json {
        let object = json!({ "output": output, "format": format.name(), "bytes": size, "check": command });
        return print(&object.to_string());
    }
    let next = command.map_or_else(String::new, |command| format!("\n\nnext        {command}"));
    print(&format!("{output}: {} as {format}, {}{next}", model.arch, bytes(size)))
}

/// Bytes of a file, or of the files of a folder.
fn size(path: &PathBuf) -> u64 {
    let of = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    match std::fs::read_dir(path) {
        Ok(files) => files.filter_map(Result::ok).map(|file| of(&file.path())).sum(),
        Err(_) => of(path),
    }
}

/// Images and what the engine computes for them.
fn check(args: &Args, loaded: &Loaded, images: u64) -> Result<CheckData> {
    let model = loaded.integers()?;
    let pixels = args.on.pixels_or_noise(loaded, images)?;
    let length = model.input.example_bytes(model.input_shape);
    if pixels.len() % length != 0 {
        bail!("{}: reads images of {}, and the data set has others", loaded.file.display(), model.input_shape);
    }
    let mut executor = Executor::new(model, ExecOptions::default())?;
    let mut data = CheckData {
        outputs: vec![Vec::new(); model.outputs.len()],
        layers: vec![Vec::new(); model.layers.len()],
        ..CheckData::default()
    };
    let bar = image_bar("running", pixels.len() / length);
    for (batch, pixels) in pixels.chunks(BATCH * length).enumerate() {
        for (i, trace) in executor.trace_batch(pixels).into_iter().enumerate() {
            if batch * BATCH + i < TRACED {
                data.layers.iter_mut().zip(&trace.tensors).for_each(|(layer, values)| layer.extend(values));
            }
            for (output, values) in model.outputs.iter().zip(&mut data.outputs) {
                values.extend(&trace.tensors[output.tensor - 1]);
            }
        }
        bar.inc((pixels.len() / length) as u64);
    }
    bar.finish_and_clear();
    data.pixels = pixels;
    Ok(data)
}
