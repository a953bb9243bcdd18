//! The files beside the module of a network in Rust: package, library, test and program.

use std::fmt::Write;

use bitpact_model::IntegerModel;

use super::super::ends::{Element, Parameter};
use super::super::names::plain;
use super::super::words::rows;
use super::emit::WIDTH;
use crate::export::CheckData;

/// The manifest, of a workspace of its own wherever the folder lies.
pub(in crate::source) fn manifest(name: &str) -> String {
    format!(
        "[package]
name = \"{name}\"
version = \"0.0.0\"
edition = \"2021\"
publish = false

[workspace]

[profile.release]
overflow-checks = false
"
    )
}

/// The library.
pub(in crate::source) fn library(model: &IntegerModel, name: &str) -> String {
    format!(
        "//! The network {}, written by bitpact. `{name}.rs` is all of it: a module for other packages too.

#![no_std]
#![forbid(unsafe_code)]

mod {name};

pub use {name}::*;
",
        plain(&model.arch)
    )
}

/// Golden vectors.
pub(in crate::source) fn test(
    model: &IntegerModel,
    name: &str,
    parameters: &[Parameter],
    golden: &CheckData,
) -> String {
    let elements = model.input_shape.elements();
    let codes: Vec<u16> = model.input.codes(&golden.pixels).collect();
    let images = codes.len() / elements;
    let mut text = format!(
        "//! The outputs of {images} images are those that bitpact computed.\n\nuse std::sync::Mutex;\n\nuse {name}::{{run, Pixel, State}};\n\nstatic STATE: Mutex<State> = Mutex::new(State::new());\n\n"
    );
    let _ = writeln!(text, "static IMAGES: [[Pixel; {elements}]; {images}] = [");
    list(&mut text, codes.chunks_exact(elements));
    for (parameter, values) in parameters.iter().zip(&golden.outputs) {
        let (kind, n) = (parameter.element.rust(), parameter.elements);
        let _ = writeln!(text, "static {}: [[{kind}; {n}]; {images}] = [", parameter.name.to_uppercase());
        list(&mut text, values.chunks_exact(n));
    }
    text.push_str("#[test]\nfn golden_vectors() {\n    let mut state = STATE.lock().unwrap();\n");
    declare(&mut text, parameters);
    let _ =
        writeln!(text, "    for (i, image) in IMAGES.iter().enumerate() {{\n        {};", call("image", parameters));
    for parameter in parameters {
        let name = &parameter.name;
        let _ = writeln!(text, "        assert_eq!({name}, {}[i], \"{name} of image {{i}}\");", name.to_uppercase());
    }
    text.push_str("    }\n}\n");
    text
}

fn list<T: std::fmt::Display>(text: &mut String, chunks: impl Iterator<Item = impl AsRef<[T]>>) {
    for chunk in chunks {
        text.push_str("    [\n");
        text.push_str(&rows(chunk.as_ref(), 8, WIDTH));
        text.push_str("    ],\n");
    }
    text.push_str("];\n\n");
}

/// Variables of the outputs.
fn declare(text: &mut String, parameters: &[Parameter]) {
    for Parameter { name, element, elements, .. } in parameters {
        let _ = writeln!(text, "    let mut {name} = [0{}; {elements}];", element.rust());
    }
}

/// The call of the network.
fn call(image: &str, parameters: &[Parameter]) -> String {
    let outputs: Vec<String> = parameters.iter().map(|p| format!("&mut {}", p.name)).collect();
    format!("run(&mut state, {image}, {})", outputs.join(", "))
}

/// A program that runs the images of one file to outputs in another, as the self-test in C does.
pub(in crate::source) fn program(name: &str, parameters: &[Parameter]) -> String {
    let mut text = format!(
        "//! Runs the images of a file, element by element, to the outputs of each in another, in little-endian order:
//! `cargo run --release --example run_file IMAGES OUTPUTS`.

use std::io::Write;
use std::sync::Mutex;

use {name}::{{run, Pixel, State, IMAGE_ELEMENTS}};

static STATE: Mutex<State> = Mutex::new(State::new());

fn main() -> Result<(), Box<dyn std::error::Error>> {{
    let mut words = std::env::args().skip(1);
    let (from, to) = words.next().zip(words.next()).ok_or(\"usage: run_file IMAGES OUTPUTS\")?;
    let bytes = std::fs::read(from)?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(to)?);
    let mut state = STATE.lock().map_err(|error| error.to_string())?;
    let mut image = [0; IMAGE_ELEMENTS];
"
    );
    declare(&mut text, parameters);
    let _ = writeln!(
        text,
        "    const BYTES: usize = core::mem::size_of::<Pixel>();
    for bytes in bytes.chunks_exact(BYTES * IMAGE_ELEMENTS) {{
        for (element, bytes) in image.iter_mut().zip(bytes.chunks_exact(BYTES)) {{
            *element = Pixel::from_le_bytes(bytes.try_into()?);
        }}
        {};",
        call("&image", parameters)
    );
    for Parameter { name, element, .. } in parameters {
        if *element == Element::U8 {
            let _ = writeln!(text, "        out.write_all(&{name})?;");
        } else {
            let _ = writeln!(
                text,
                "        for value in {name} {{\n            out.write_all(&value.to_le_bytes())?;\n        }}"
            );
        }
    }
    text.push_str("    }\n    out.flush()?;\n    Ok(())\n}\n");
    text
}
