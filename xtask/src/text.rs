//! Checks of the tracked files' text.

use std::path::Path;
use std::process::Command;

/// The longest a source file may be.
const MOST_LINES: usize = 1000;

/// The most external packages that a build for Linux without optional features may have.
const MOST_PACKAGES: usize = 110;

/// The longest a line of a comment may be.
const MOST_COLUMNS: usize = 120;

/// Tracked files whose names match, with their text.
pub(crate) fn files(pattern: &str) -> Vec<(String, String)> {
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

/// Files and folders that ARCHITECTURE.md and CONTRIBUTING.md name, "How to add" among it, and that do not exist.
pub(crate) fn stale_paths() -> Vec<String> {
    let output = Command::new("git").arg("ls-files").output().expect("git lists the files");
    let tracked = String::from_utf8_lossy(&output.stdout).into_owned();
    let tracked: Vec<&str> = tracked.lines().collect();
    let pages = ["ARCHITECTURE.md", "CONTRIBUTING.md"];
    let text = |page: &str| std::fs::read_to_string(page).unwrap_or_default();
    pages.iter().flat_map(|page| stale(page, &text(page), &tracked)).collect()
}

fn stale(page: &str, text: &str, tracked: &[&str]) -> Vec<String> {
    let words = text.split('`').skip(1).step_by(2).filter(|word| !word.contains([' ', '<']));
    let is_path = |word: &&str| ["/", ".rs", ".toml", ".md", ".txt"].iter().any(|end| word.ends_with(end));
    let exists = |word: &str| {
        let (file, folder) = (format!("/{word}"), format!("/{}/", word.trim_end_matches('/')));
        let full = tracked.iter().map(|name| format!("/{name}"));
        full.into_iter().any(|name| name.ends_with(&file) || name.contains(&folder))
    };
    let missing = words.filter(is_path).filter(|word| !exists(word));
    missing.map(|word| format!("{page}: no {word} among the tracked files")).collect()
}

/// External packages of `Cargo.toml` without a line in docs/dependencies.md, and lines without a package.
pub(crate) fn unexplained_dependencies() -> Vec<String> {
    let read = |name: &str| std::fs::read_to_string(name).unwrap_or_default();
    unexplained(&read("Cargo.toml"), &read("docs/dependencies.md"))
}

/// Whether external packages of a build without optional features are more than [`MOST_PACKAGES`], or other than
/// docs/dependencies.md says.
pub(crate) fn too_many_packages() -> Vec<String> {
    const TREE: &str = "tree -p bitpact-cli --no-default-features -e normal,build --target x86_64-unknown-linux-gnu \
                        --prefix none --locked";
    let output = crate::cargo().args(TREE.split_whitespace()).output().expect("cargo lists the packages");
    if !output.status.success() {
        return vec![String::from_utf8_lossy(&output.stderr).into_owned()];
    }
    let page = std::fs::read_to_string("docs/dependencies.md").unwrap_or_default();
    miscounted(&String::from_utf8_lossy(&output.stdout), &page)
}

fn miscounted(tree: &str, page: &str) -> Vec<String> {
    let words = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let external = tree.lines().filter(|line| !line.is_empty() && !line.starts_with("bitpact"));
    let count = external.map(words).collect::<std::collections::BTreeSet<_>>().len();
    let stated = format!(": {count} packages, of at most {MOST_PACKAGES} ");
    let mut found = Vec::new();
    if count > MOST_PACKAGES {
        found.push(format!("Cargo.lock: {count} packages without optional features, at most {MOST_PACKAGES}"));
    }
    if !page.contains(&stated) {
        found.push(format!("docs/dependencies.md: expected `{}`", stated.trim()));
    }
    found
}

fn unexplained(manifest: &str, page: &str) -> Vec<String> {
    let table = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let lines = table.take_while(|line| !line.starts_with('['));
    let named = lines.filter_map(|line| Some(line.split_once(" = ")?.0)).filter(|name| !name.starts_with("bitpact"));
    let named: Vec<&str> = named.collect();
    let rows = page.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1));
    let listed: Vec<&str> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let without = named.iter().filter(|name| !listed.contains(name));
    let without = without.map(|name| format!("docs/dependencies.md: no reason for {name}"));
    let stale = listed.iter().filter(|name| !named.contains(name));
    without.chain(stale.map(|name| format!("docs/dependencies.md: {name} is no dependency"))).collect()
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
    fn paths_that_no_tracked_file_has_are_found() {
        let tracked = ["crates/a/src/cpu/plan.rs", "docs/b.md"];
        let text = "`cpu/plan.rs`, `a/src/`, `docs/`, `cargo test`, `cpu/gone.rs`, `Plan`, `none/`";
        let missing = ["P.md: no cpu/gone.rs among the tracked files", "P.md: no none/ among the tracked files"];
        assert_eq!(stale("P.md", text, &tracked), missing);
    }

    #[test]
    fn dependencies_and_their_reasons_are_compared_both_ways() {
        let manifest = "[workspace.dependencies]\nbitpact-core = { path = \"x\" }\n\na = \"1\"\nb = { version = \"2\" }\n[x]\nc = 1\n";
        let page = "| `a`, `d` | command | why |\n";
        let expected = ["docs/dependencies.md: no reason for b", "docs/dependencies.md: d is no dependency"];
        assert_eq!(unexplained(manifest, page), expected);
    }

    #[test]
    fn packages_are_counted_once_and_ours_not_at_all() {
        let tree = "bitpact-cli v0.2.0 (here)\na v1.0.0\nb v1.0.0 (proc-macro)\n\na v1.0.0 (*)\na v2.0.0\n";
        assert_eq!(miscounted(tree, "it has: 3 packages, of at most 110 ones"), [""; 0]);
        assert_eq!(miscounted(tree, ": 4 packages"), ["docs/dependencies.md: expected `: 3 packages, of at most 110`"]);
        let many: String = (0..=MOST_PACKAGES).map(|i| format!("a{i} v1\n")).collect();
        assert_eq!(miscounted(&many, "").len(), 2);
    }

    #[test]
    fn links_to_missing_files_are_found() {
        let text = "[a](b.md) and [c](../d.md#part)\n[web](https://example.com/x) [here](#part) f[0](x y)\n";
        assert_eq!(broken("docs/p.md", text, &|path| path == Path::new("docs/b.md")), ["docs/p.md:1: no file ../d.md"]);
    }
}
