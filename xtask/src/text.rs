//! Checks of the tracked files' text.

use std::path::Path;
use std::process::Command;

/// The longest a source file may be.
const MOST_LINES: usize = 1000;

/// The longest a line of a comment may be.
const MOST_COLUMNS: usize = 120;

/// Tracked files whose names match, with their text.
fn files(pattern: &str) -> Vec<(String, String)> {
    let output = Command::new("git").args(["ls-files", pattern]).output().expect("git lists the source files");
    assert!(output.status.success(), "git ls-files {pattern}");
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    names.lines().filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(name).ok()?))).collect()
}

/// Rust files of more than [`MOST_LINES`] lines.
pub(crate) fn long_files() -> Vec<String> {
    let lengths = files("*.rs").into_iter().map(|(name, text)| (name, text.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > MOST_LINES);
    long.map(|(name, lines)| format!("{name}: {lines} lines, at most {MOST_LINES}")).collect()
}

/// Comments of Rust files that are wider than [`MOST_COLUMNS`].
pub(crate) fn wide_comments() -> Vec<String> {
    files("*.rs").iter().flat_map(|(name, text)| wide(name, text)).collect()
}

fn wide(name: &str, text: &str) -> Vec<String> {
    let columns = |line: &str| line.chars().count();
    let comments = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
    let wide = comments.filter(|(_, line)| columns(line) > MOST_COLUMNS);
    wide.map(|(i, line)| format!("{name}:{}: {} columns, at most {MOST_COLUMNS}", i + 1, columns(line))).collect()
}

/// Links of Markdown files to files that do not exist.
pub(crate) fn broken_links() -> Vec<String> {
    files("*.md").iter().flat_map(|(name, text)| broken(name, text, &Path::exists)).collect()
}

fn broken(name: &str, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let Some(target) = rest.split(')').next() else { continue };
            let file = target.split('#').next().unwrap_or_default();
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !is_elsewhere && !file.is_empty() && !file.contains(' ') && !exists(&folder.join(file)) {
                found.push(format!("{name}:{}: no file {file}", i + 1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_comments_are_found_and_wide_code_is_not() {
        let long = "x".repeat(MOST_COLUMNS);
        let text = format!("// short\n    // {long}\nlet a = \"{long}\";\n");
        assert_eq!(wide("a.rs", &text), ["a.rs:2: 127 columns, at most 120"]);
    }

    #[test]
    fn links_to_missing_files_are_found() {
        let text = "[a](b.md) and [c](../d.md#part)\n[web](https://example.com/x) [here](#part) f[0](x y)\n";
        assert_eq!(broken("docs/p.md", text, &|path| path == Path::new("docs/b.md")), ["docs/p.md:1: no file ../d.md"]);
    }
}
