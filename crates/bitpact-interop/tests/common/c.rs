//! Compiling and running exported C.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use bitpact_core::rng::Key;
use bitpact_engine::Interpreter;
use bitpact_interop::export::CheckData;
use bitpact_interop::source::{Language, write};
use bitpact_model::IntegerModel;

/// Flags under which nothing may be told.
pub(crate) const STRICT: &[&str] = &["-O1"];
/// The same under the sanitizers of addresses and undefined behaviour.
pub(crate) const SANITIZED: &[&str] = &["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Random images and what the interpreter computes for them.
pub(crate) fn golden(model: &IntegerModel, images: usize) -> CheckData {
    let length = model.example_bytes();
    let pixels: Vec<u8> = (0..images * length).map(|i| Key::new(11).with("c").u64(i as u64) as u8).collect();
    let mut outputs = vec![Vec::new(); model.outputs.len()];
    for image in pixels.chunks_exact(length) {
        let trace = Interpreter::new(model).run(image);
        for (output, values) in model.outputs.iter().zip(&mut outputs) {
            values.extend_from_slice(&trace.tensors[output.tensor - 1]);
        }
    }
    CheckData { pixels, outputs, layers: Vec::new() }
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{}", text.chars().take(6000).collect::<String>());
}

/// Writes networks with golden vectors into one program, and runs it.
pub(crate) fn check(models: &[IntegerModel], images: usize, flags: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    program(models, images, folder.path());
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let warnings = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"];
    run(Command::new(cc).args(warnings).args(flags).args(["-o", "all", "all.c"]).current_dir(folder.path()));
    run(Command::new(folder.path().join("all")).current_dir(folder.path()));
}

/// Writes networks with golden vectors and `all.c`, which runs the self-test of each.
pub(crate) fn program(models: &[IntegerModel], images: usize, folder: &Path) {
    let mut all = String::new();
    let mut calls = String::new();
    for (i, model) in models.iter().enumerate() {
        let name = format!("n{i}");
        write(model, Language::C, Some(&name), &golden(model, images), folder).unwrap();
        let _ = writeln!(
            all,
            "int {name}_main(int argc, char **argv);\n#include \"{name}.c\"\n#define main {name}_main\n\
             #include \"{name}_test.c\"\n#undef main"
        );
        let _ = writeln!(calls, "    bad += {name}_main(1, argv);");
    }
    let _ =
        write!(all, "int main(int argc, char **argv)\n{{\n    int bad = argc - argc;\n{calls}    return bad;\n}}\n");
    std::fs::write(folder.join("all.c"), all).unwrap();
}
