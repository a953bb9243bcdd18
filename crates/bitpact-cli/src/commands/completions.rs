//! `bitpact completions`: what a shell needs to complete command lines.

use anyhow::Result;
use clap_complete::{Shell, generate};

use crate::out::print;

/// Writes the completions of a shell to standard output
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact completions bash > ~/.local/share/bash-completion/completions/bitpact
  bitpact completions zsh > ~/.zfunc/_bitpact
  bitpact completions fish > ~/.config/fish/completions/bitpact.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: Args, mut command: clap::Command) -> Result<()> {
    let mut text = Vec::new();
    generate(args.shell, &mut command, "bitpact", &mut text);
    print(&String::from_utf8(text)?)
}
