//! `bitpact lm`: language models at 2 to 8 bits.

mod bench;
mod compare;
mod export;
mod inspect;
mod open;
mod perplexity;
mod quantize;
mod run;
mod text;

use anyhow::Result;
use bitpact::unstable::lm::LmError;

use crate::exit::{Interrupted, Usage};

/// Language models at 2 to 8 bits: quantize them after training, measure what it costs, run them
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact lm perplexity MODEL --text wikitext.txt --context 512 --stride 256
  bitpact lm quantize MODEL --method awq --bits 4 --group 128 --calibrate text.txt -o model.safetensors
  bitpact lm compare MODEL --methods rtn,awq,gptq --bits 4,3 --calibrate a.txt --text b.txt
  bitpact lm inspect model.safetensors
  bitpact lm run model.safetensors \"Once upon a time\"
  bitpact lm bench tinyllama-1.1b --bits 4

MODEL is a Hugging Face folder, a GGUF file, a llama2.c file (tok512.bin or tokenizer.bin beside it) or a file that `lm quantize` wrote.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Perplexity(perplexity::Args),
    Quantize(Box<quantize::Args>),
    Compare(Box<compare::Args>),
    Inspect(inspect::Args),
    Run(run::Args),
    Export(export::Args),
    Bench(bench::Args),
}

pub(crate) fn run(args: Args) -> Result<()> {
    let result = match args.command {
        Command::Perplexity(args) => perplexity::run(args),
        Command::Quantize(args) => quantize::run(*args),
        Command::Compare(args) => compare::run(*args),
        Command::Inspect(args) => inspect::run(args),
        Command::Run(args) => run::run(args),
        Command::Export(args) => export::run(args),
        Command::Bench(args) => bench::run(args),
    };
    result.map_err(|error| match error.downcast::<LmError>() {
        Ok(LmError::Stopped) => Interrupted.into(),
        Ok(LmError::Input(text)) => Usage(text).into(),
        Ok(error) => error.into(),
        Err(error) => error,
    })
}
