//! Compiling and running exported Rust.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use bitpact_interop::source::{Language, write};
use bitpact_model::IntegerModel;

use crate::c::{golden, run};

/// Writes networks with golden vectors into one library and one test of it, and runs the test. Overflows are errors.
pub(crate) fn check(models: &[IntegerModel], images: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut library = "#![no_std]\n#![forbid(unsafe_code)]\n".to_owned();
    let mut tests = String::new();
    for (i, model) in models.iter().enumerate() {
        let name = format!("n{i}");
        let package = folder.path().join(&name);
        write(model, Language::Rust, Some(&name), &golden(model, images), &package).unwrap();
        let _ = writeln!(library, "#[path = \"{name}/src/{name}.rs\"]\npub mod {name};");
        let golden = std::fs::read_to_string(package.join("tests/golden.rs")).unwrap();
        let of_library = golden.replace(&format!("use {name}::"), &format!("use all::{name}::"));
        assert!(of_library.contains("use all::"));
        let _ = writeln!(tests, "mod {name} {{\n{}\n}}", of_library.replace("//! ", "// "));
    }
    let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
    write("all.rs", &library);
    write("tests.rs", &tests);
    let rustc = |words: &[&str]| {
        let strict = ["--edition", "2021", "-D", "warnings", "-C", "overflow-checks=on", "-L", "."];
        run(Command::new("rustc").args(strict).args(words).current_dir(folder.path()));
    };
    rustc(&["--crate-type", "rlib", "all.rs"]);
    rustc(&["--test", "--extern", "all", "tests.rs", "-o", "all_tests"]);
    run(Command::new(folder.path().join("all_tests")).current_dir(folder.path()));
}

/// Runs cargo in an exported package.
pub(crate) fn cargo(package: &Path, words: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo).args(words).env("CARGO_TARGET_DIR", package.join("target")).current_dir(package));
}
