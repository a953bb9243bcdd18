//! The reference of commands in the docs, made from the definitions of the commands.

use std::fmt::Write;

use clap::{Command, CommandFactory};

/// Columns of the help texts in the page.
const COLUMNS: usize = 110;

/// A section for each command and each command of a command, with the text that `--help` prints.
fn page(program: Command) -> String {
    let mut text = String::from(
        "# Commands\n\nWhat `bitpact COMMAND --help` prints, of every command. Most commands take `--json` and print \
         one object.\n",
    );
    section(&mut text, program, "bitpact");
    text
}

fn section(text: &mut String, mut command: Command, name: &str) {
    command = command.term_width(COLUMNS).bin_name(name).color(clap::ColorChoice::Never);
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    write!(text, "\n## `{name}`\n\n```text\n{}\n```\n", lines.join("\n")).unwrap();
    let below: Vec<Command> = command.get_subcommands().filter(|c| c.get_name() != "help").cloned().collect();
    for command in below {
        let name = format!("{name} {}", command.get_name());
        section(text, command, &name);
    }
}

#[test]
fn the_page_of_commands_is_what_help_prints() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/commands.md");
    let text = page(crate::Cli::command());
    if std::fs::read_to_string(file).unwrap_or_default() != text {
        if std::env::var_os("BITPACT_WRITE_DOCS").is_some() {
            std::fs::write(file, text).unwrap();
        }
        panic!("docs/commands.md is not what the commands print; BITPACT_WRITE_DOCS=1 with this test writes it");
    }
}
