//! The names that this crate promises, compared with a committed list. A name that comes or goes changes
//! `tests/surface.txt` and CHANGELOG.md; one that goes needs a new major version, before 1.0 a minor one.

/// The re-exports of a source file, `crate::Name`, sorted; those inside of modules are not promised.
///
/// # Panics
/// If a statement re-exports a whole crate, everything of one, or a name under another.
fn names(source: &str) -> Vec<String> {
    let source = source.split("\npub mod unstable {").next().unwrap_or_default();
    let mut names = Vec::new();
    for statement in source.split("\npub use ").skip(1) {
        let statement = statement.split(';').next().unwrap_or_default();
        assert!(!statement.contains('*') && !statement.contains(" as "), "pub use {statement}");
        let (module, items) = statement.split_once("::").unwrap_or_else(|| panic!("a whole crate: {statement}"));
        let items = items.trim_matches(|c: char| "{}".contains(c) || c.is_whitespace()).split(',').map(str::trim);
        names.extend(items.filter(|item| !item.is_empty()).map(|item| format!("{module}::{item}")));
    }
    names.sort();
    names
}

#[test]
fn the_names_are_those_of_the_list() {
    let source = include_str!("../src/lib.rs");
    assert!(!source.contains("\npub fn ") && !source.contains("\npub struct "), "the facade defines nothing itself");
    let listed: Vec<&str> = include_str!("surface.txt").lines().collect();
    assert_eq!(names(source), listed);
    assert!(listed.len() <= 70, "{} names", listed.len());
}

#[test]
fn whole_crates_are_found() {
    assert_eq!(
        names("\npub use a::{C, B};\npub use d::E;\npub mod unstable {\n    pub use x as y;\n}\n"),
        ["a::B", "a::C", "d::E"]
    );
    for bad in ["\npub use a as b;", "\npub use a::*;", "\npub use a;"] {
        assert!(std::panic::catch_unwind(|| names(bad)).is_err(), "{bad}");
    }
}
