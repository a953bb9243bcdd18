//! `bitpact lm export`.

use std::path::PathBuf;

use anyhow::Result;
use bitpact::unstable::lm::{Layout, LmError, export};

use super::open::ModelArgs;
use crate::out::print;

/// Write a packed file in the layout of AutoGPTQ or AutoAWQ, which transformers and vLLM load
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// gptq (2, 4 and 8 bits) or awq (4 bits)
    #[arg(long, value_name = "LAYOUT")]
    format: String,
    /// The folder to write
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

pub(super) fn run(args: Args) -> Result<()> {
    let layout: Layout = args.format.parse()?;
    if args.output.join("config.json").exists() {
        return Err(LmError::Input(format!("{} holds a model already", args.output.display())).into());
    }
    let source = args.model.source()?;
    let tokenizer = match args.model.tokenizer_file() {
        Ok(("tokenizer.json", bytes)) => Some(bytes),
        _ => None,
    };
    export(&*source, layout, &args.output, tokenizer.as_deref())?;
    print(&format!("{}: {} layers as {}", args.output.display(), source.config().layers, args.format))
}
