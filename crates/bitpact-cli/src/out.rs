//! Standard output for results, standard error for everything else; a reader that goes away is not an error.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
pub(crate) use bitpact::unstable::report::text::{bytes, count, percent, table};

/// Writes `text` and a line end to standard output. A closed pipe ends the output quietly.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// Writes one line to standard error, wherever that leads.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}
pub(crate) use say;

/// A path as a word of a shell's command line.
pub(crate) fn pasted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    match !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        true => text,
        false if text.starts_with('-') => format!("'./{}'", text.replace('\'', "'\\''")),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_pasted_into_a_shell() {
        for (path, word) in [
            ("runs/builtin-W8A8@10-W2A2", "runs/builtin-W8A8@10-W2A2"),
            ("my runs/a", "'my runs/a'"),
            ("it's", r"'it'\''s'"),
            ("$(rm)", "'$(rm)'"),
            ("-x", "'./-x'"),
            ("", "''"),
        ] {
            assert_eq!(pasted(Path::new(path)), word);
        }
    }
}
