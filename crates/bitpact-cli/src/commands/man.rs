//! `bitpact man`: the pages of the manual.

use anyhow::Result;
use clap_mangen::Man;

use crate::exit::Usage;
use crate::out::print;

/// Writes a page of the manual to standard output, in troff
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact man > bitpact.1
  bitpact man lm quantize | man -l -")]
pub(crate) struct Args {
    /// The command that the page is about; without one, the whole program
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
}

pub(crate) fn run(args: Args, mut command: clap::Command) -> Result<()> {
    command.build();
    let mut name = command.get_name().to_owned();
    for word in &args.words {
        let Some(found) = command.find_subcommand(word) else {
            return Err(Usage(format!("COMMAND: `{name}` has no command `{word}`")).into());
        };
        command = found.clone();
        name = format!("{name}-{word}");
    }
    let mut page = Vec::new();
    Man::new(command.name(name.clone()).display_name(name)).render(&mut page)?;
    print(&String::from_utf8(page)?)
}
