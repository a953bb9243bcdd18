//! The lists "How to add" of ARCHITECTURE.md held against the code: the files that touch one that was added before are
//! on the list, and the names that the lists give are in the code.

use crate::text::files;

/// What begins a list, and names in code of ones that are there: a file that holds any of them is touched by adding
/// one. The last number is how many such files there may be.
const LISTS: [(&str, &[&str], usize); 6] = [
    ("An activation quantizer", &["ActQuant::Fixed", "\"fixed\""], 5),
    ("A weight quantizer", &["WeightQuant::Sawb,", "\"sawb\""], 5),
    ("An operation that only moves elements", &["Move::PixelUnshuffle", "PIXEL_UNSHUFFLE"], 11),
    ("A function of one number", &["Function::Silu"], 4),
    ("An operation that computes", &["Op::Mul", "Layer::Mul"], 18),
    ("A command", &["commands::kernels::", "mod kernels;"], 3),
];

/// What is wrong with the lists.
pub(crate) fn unlisted() -> Vec<String> {
    let page = std::fs::read_to_string("ARCHITECTURE.md").unwrap_or_default();
    check(&page, &files("crates/*.rs"), &LISTS)
}

fn check(page: &str, sources: &[(String, String)], lists: &[(&str, &[&str], usize)]) -> Vec<String> {
    let sources: Vec<(&str, &str)> = sources
        .iter()
        .filter(|(name, _)| !is_test(name) && !is_network(name))
        .map(|(name, text)| (&**name, untested(text)))
        .collect();
    let mut found = Vec::new();
    for (title, marks, most) in lists {
        let Some(list) = item(page, title) else {
            found.push(format!("ARCHITECTURE.md: no list \"{title}\""));
            continue;
        };
        let paths: Vec<&str> = list.split('`').skip(1).step_by(2).filter(|word| !word.contains(' ')).collect();
        let touched = sources.iter().filter(|(_, text)| marks.iter().any(|mark| text.contains(mark)));
        let touched: Vec<&str> = touched.map(|(name, _)| *name).collect();
        let is_listed = |name: &&&str| paths.iter().any(|path| covers(path, name));
        let missing = touched.iter().filter(|name| !is_listed(name));
        found.extend(missing.map(|name| format!("ARCHITECTURE.md: \"{title}\" does not list {name}")));
        if touched.is_empty() || touched.len() > *most {
            found.push(format!("\"{title}\" touches {} source files, expected 1 to {most}", touched.len()));
        }
    }
    found
}

/// The item of a list that begins with `title`, to the next one.
fn item<'a>(page: &'a str, title: &str) -> Option<&'a str> {
    let rest = &page[page.find(&format!("- **{title}:**"))?..];
    Some(&rest[..rest.find("\n- **").unwrap_or(rest.len())])
}

/// Whether a path of a list, a file or a folder, is that of a tracked file.
fn covers(path: &str, name: &str) -> bool {
    let name = format!("/{name}");
    match path.strip_suffix('/') {
        Some(folder) => name.contains(&format!("/{folder}/")),
        None => path.ends_with(".rs") && name.ends_with(&format!("/{path}")),
    }
}

fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("tests.rs") || name.contains("/examples/")
}

/// Networks use operations, whichever there are.
fn is_network(name: &str) -> bool {
    name.contains("/zoo/") || name.ends_with("/zoo.rs")
}

/// The text before the tests of a file.
fn untested(text: &str) -> &str {
    &text[..text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_touched_and_not_listed_are_found() {
        let source = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let sources = [
            source("crates/a/src/op.rs", "Op::Old"),
            source("crates/a/src/deep/b.rs", "Op::Old"),
            source("crates/a/src/c.rs", "fn c()\n#[cfg(test)]\nmod tests { Op::Old }"),
            source("crates/a/tests/d.rs", "Op::Old"),
        ];
        let page = "- **An op:** `Op` in `a/src/op.rs` and\n  `deep/`.\n- **Other:** `c.rs`\n";
        let of = |page: &str, most| check(page, &sources, &[("An op", &["Op::Old"], most)]);
        assert_eq!(of(page, 2), [""; 0]);
        assert_eq!(of(page, 1), ["\"An op\" touches 2 source files, expected 1 to 1"]);
        let short = page.replace("`deep/`", "more");
        assert_eq!(of(&short, 2), ["ARCHITECTURE.md: \"An op\" does not list crates/a/src/deep/b.rs"]);
        assert_eq!(of("nothing", 2), ["ARCHITECTURE.md: no list \"An op\""]);
    }
}
