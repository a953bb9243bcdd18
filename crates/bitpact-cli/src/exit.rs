//! How the command ends when it does not end well.

use std::process::ExitCode;

use bitpact::unstable::train::{RecipeError, RunError, TrainError};

use crate::interrupt;
use crate::out::say;

/// A command line that cannot be used, found after parsing.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A run that Ctrl-C or a signal stopped and that can be resumed.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Tells the error on stderr and gives the exit status: 2 for what the user typed or wrote in a recipe, 128 and the
/// signal's number for a signal, 1 for everything else.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<Interrupted>() {
        return ExitCode::from(interrupt::exit_status());
    }
    report_part(error);
    let usage = error.is::<Usage>()
        || error.is::<RecipeError>()
        || matches!(
            error.downcast_ref::<RunError>(),
            Some(
                RunError::Recipe(_)
                    | RunError::Edited { .. }
                    | RunError::Batch { .. }
                    | RunError::Search { .. }
                    | RunError::Train(TrainError::Isa { .. })
            )
        );
    ExitCode::from(if usage { 2 } else { 1 })
}

/// A difference that `--force` makes a warning, and an error where that was not given; `does` is what it does.
pub(crate) fn or_force(force: bool, difference: String, does: &str) -> anyhow::Result<()> {
    if !force {
        anyhow::bail!("{difference}; --force {does} all the same");
    }
    say!("warning: {}", printable(&difference));
    Ok(())
}

/// Tells an error on stderr that does not end the command.
pub(crate) fn report_part(error: &anyhow::Error) {
    say!("error: {}", printable(&message(error)));
}

/// Without the characters by which text from a file could steer a terminal.
fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// The error and its causes, each said once: most messages already end with their cause.
fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text += ": ";
            text += &cause;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let cause = || std::io::Error::other("no space left");
        assert_eq!(
            message(&anyhow::Error::new(cause()).context("a.bin: cannot write")),
            "a.bin: cannot write: no space left"
        );
        let said = anyhow::Error::new(cause()).context("a.bin: cannot write: no space left");
        assert_eq!(message(&said), "a.bin: cannot write: no space left");
    }

    #[test]
    fn a_file_cannot_steer_the_terminal() {
        assert_eq!(printable("key `\u{1b}[31mred`\nline two"), "key `\\u{1b}[31mred`\nline two");
    }
}
