//! Standard output for results, standard error for everything else; a reader that goes away is not an error.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

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

/// Lines up the columns of `rows`; the first row is the heading. Columns in `left` are aligned left, others right.
pub(crate) fn table(rows: &[Vec<String>], left: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(c, (cell, &width))| {
            if left.contains(&c) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

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

/// A fraction as a percentage.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.2} %", fraction * 100.0)
}

/// A number of bytes in a unit that suits it.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

/// A number with a unit prefix: 40.5 M.
pub(crate) fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{:.1} k", n as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} G", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["layer", "macs"], ["a", "12345"], ["longer", "1"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(table(&rows, &[0]), "layer    macs\na       12345\nlonger      1\n");
        assert_eq!(table(&[], &[]), "");
    }

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

    #[test]
    fn numbers_read_well() {
        assert_eq!([bytes(9_999), bytes(12_345), bytes(12_345_678)], ["9999 B", "12.3 kB", "12.3 MB"]);
        assert_eq!([count(500), count(40_551_424), count(11_000_000_000)], ["500", "40.6 M", "11.0 G"]);
        assert_eq!(percent(0.84431), "84.43 %");
    }
}
