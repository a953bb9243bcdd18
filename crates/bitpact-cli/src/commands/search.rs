//! `bitpact search`: what to train, under a budget.

mod bits;
mod blocks;
mod cpu;
mod gradient;
mod pipeline;
mod pressed;
mod prune;
mod source;
mod text;

use anyhow::Result;
use bitpact::unstable::search::SearchError;

use crate::exit::Usage;

/// Chooses what to train under a budget
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact search bits runs/builtin-W4A4-seed1 --budget bytes=25k -o small.toml
  bitpact train small.toml
  bitpact search prune runs/builtin-float-seed1 --budget params=20k -o small")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Bits(Box<bits::Args>),
    Blocks(Box<blocks::Args>),
    Prune(Box<prune::Args>),
    Pipeline(Box<pipeline::Args>),
}

pub(crate) fn run(args: Args) -> Result<()> {
    let done = match args.command {
        Command::Bits(args) => bits::run(*args),
        Command::Blocks(args) => blocks::run(*args),
        Command::Prune(args) => prune::run(*args),
        Command::Pipeline(args) => pipeline::run(*args),
    };
    // What cannot be chosen is the command line's fault; files and this machine are not.
    done.map_err(|error| match error.downcast::<SearchError>() {
        Ok(error) if error.is_usage() => Usage(error.to_string()).into(),
        Ok(error) => error.into(),
        Err(error) => error,
    })
}
