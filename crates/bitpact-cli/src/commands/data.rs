//! `bitpact data`: the image sets it knows, what lies in a folder, and fetching one.

mod check;
#[cfg(feature = "fetch")]
mod download;
#[cfg(feature = "fetch")]
mod fetch;
mod list;
mod own;
#[cfg(feature = "fetch")]
mod unpack;

use anyhow::Result;
use bitpact::unstable::data::DatasetName;
use bitpact::unstable::train::recipe::nearest;

use crate::exit::Usage;

/// Lists, checks and fetches the image sets that have names
#[derive(clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  bitpact data list
  bitpact data fetch fashion-mnist
  bitpact data check data"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    List(list::Args),
    Check(check::Args),
    #[cfg(feature = "fetch")]
    Fetch(fetch::Args),
}

pub(crate) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::List(args) => list::run(args),
        Command::Check(args) => check::run(args),
        #[cfg(feature = "fetch")]
        Command::Fetch(args) => fetch::run(args),
    }
}

/// The set called `name`; `what` is how the command line calls it.
fn named(name: &str, what: &str) -> Result<DatasetName> {
    name.parse().map_err(|error: bitpact::unstable::data::DataError| {
        let hint = nearest(name, DatasetName::every().map(DatasetName::as_str));
        let hint = hint.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"));
        Usage(format!("{what}: {error}{hint}")).into()
    })
}
