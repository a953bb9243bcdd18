//! `bitpact convert`: from a checkpoint to the integer network that is shipped.

use std::path::PathBuf;

use anyhow::{Context, Result};
use bitpact::convert;
use bitpact::unstable::train::run_folder::is_file_of_run;
use serde_json::json;

use crate::exit::Usage;
use crate::loaded::open_checkpoint;
use crate::out::{bytes, print};

/// Converts a trained network to an integer network
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact convert runs/builtin-W4A4-seed1 -o model.bitpact
  bitpact convert runs/builtin-W4A4-seed1/best.safetensors -o best.bitpact")]
pub(crate) struct Args {
    /// The folder of a run (its last.safetensors), or a checkpoint
    run: PathBuf,
    /// The .bitpact file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let (file, checkpoint) = open_checkpoint(&args.run)?;
    let same = |a: &PathBuf, b: &PathBuf| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same(&file, &args.output) {
        return Err(Usage(format!("--output {}: that is the checkpoint itself", args.output.display())).into());
    }
    let ends_at = args.output.canonicalize().unwrap_or_else(|_| args.output.clone());
    if is_file_of_run(&ends_at) || is_file_of_run(&args.output) {
        return Err(Usage(format!("--output {}: that is a file of the run itself", args.output.display())).into());
    }
    let conversion = convert(&checkpoint.model).with_context(|| file.display().to_string())?;
    conversion.model.save(&args.output)?;
    let size = conversion.model.to_bytes()?.len() as u64;
    let worst = conversion.worst_error();
    let output = args.output.display().to_string();
    if args.json {
        let object = json!({
            "output": output,
            "bytes": size,
            "arch": conversion.model.arch,
            "layers": conversion.model.layers.len(),
            "worst_error": worst,
        });
        return print(&object.to_string());
    }
    print(&format!(
        "{output}: {}, {}; its steps are within {worst:.2e} of a code of the real ones",
        conversion.model.arch,
        bytes(size)
    ))
}
