//! The files beside the source of a network in C: header, self-test and build files.

use std::fmt::{Display, Write};

use bitpact_model::IntegerModel;

use super::super::Footprint;
use super::super::ends::{Element, Parameter, image_element};
use super::super::names::plain;
use super::super::words::rows;
use super::emit::signature;
use crate::export::CheckData;

/// Columns that lists of numbers are wrapped at.
const WIDTH: usize = 110;

/// The header: sizes, scales and the function.
pub(in crate::source) fn header(
    model: &IntegerModel,
    name: &str,
    parameters: &[Parameter],
    footprint: &Footprint,
) -> String {
    let guard = name.to_uppercase();
    let shape = model.input_shape;
    let list = |numbers: Vec<String>| format!("{{{}}}", numbers.join(", "));
    let mut text = format!(
        "/* {}: {} multiply-adds, {} bytes of constants, {} bytes of memory. Written by bitpact.\n *\n",
        plain(&model.arch),
        footprint.macs(),
        footprint.flash_bytes(),
        footprint.ram_bytes,
    );
    text.push_str(
        " * A value q of an output means SCALE * (q - ZERO). Code p of channel c of the image means\n * IMAGE_SCALES[c] * (p - IMAGE_ZEROS[c]). Tensors are [row][column][channel]. One run at a time: the memory is static. */\n",
    );
    let _ = writeln!(text, "#ifndef BITPACT_{guard}_H\n#define BITPACT_{guard}_H\n\n#include <stdint.h>\n");
    text.push_str("#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
    let mut define = |what: &str, value: &dyn Display| {
        let _ = writeln!(text, "#define {guard}_{what} {value}");
    };
    define("IMAGE_HEIGHT", &shape.h);
    define("IMAGE_WIDTH", &shape.w);
    define("IMAGE_CHANNELS", &shape.c);
    define("IMAGE_ZEROS", &list(model.input.zero_point.iter().map(u16::to_string).collect()));
    define("IMAGE_SCALES", &list(model.input.scale.iter().map(|s| format!("{s:e}f")).collect()));
    define("CLASSES", &model.class_names.len());
    for (i, parameter) in parameters.iter().enumerate() {
        let shape = model.shape(parameter.tensor);
        let what = parameter.name.to_uppercase();
        define(&format!("{what}_ELEMENTS"), &parameter.elements);
        define(&format!("{what}_HEIGHT"), &shape.h);
        define(&format!("{what}_WIDTH"), &shape.w);
        define(&format!("{what}_CHANNELS"), &shape.c);
        define(&format!("{what}_SCALE"), &format!("{:e}", parameter.scale));
        define(&format!("{what}_ZERO"), &parameter.zero);
        if i == 0 {
            define("OUTPUT_ELEMENTS", &parameter.elements);
        }
    }
    let words = "/* Computes the outputs of one image. */";
    let _ = write!(text, "\n{words}\n{};\n\n", signature(model, name, parameters));
    text.push_str("#ifdef __cplusplus\n}\n#endif\n\n#endif\n");
    text
}

/// A literal of an element.
fn literal(value: i64, element: Element) -> String {
    match element {
        _ if value == i64::MIN => "(-9223372036854775807 - 1)".to_owned(),
        Element::I32 if value == i64::from(i32::MIN) => "(-2147483647 - 1)".to_owned(),
        _ => value.to_string(),
    }
}

/// The self-test: golden vectors, or, with the names of two files, the images of the first to outputs in the second.
pub(in crate::source) fn self_test(
    model: &IntegerModel,
    name: &str,
    parameters: &[Parameter],
    golden: &CheckData,
) -> String {
    let elements = model.input_shape.elements();
    let image = image_element(model);
    let codes: Vec<u16> = model.input.codes(&golden.pixels).collect();
    let images = codes.len() / elements;
    let mut text = format!(
        "/* The self-test of {name}. Alone, it compares the outputs of {images} images with those that bitpact computed.\n * With two files, it runs the images of the first, element by element as the machine holds them, and writes\n * the outputs of each to the second. */\n#include <stdio.h>\n#include <string.h>\n\n#include \"{name}.h\"\n\n",
    );
    let _ = writeln!(text, "static const {} {name}_images[{}][{elements}] = {{", image.c(), images.max(1));
    if images == 0 {
        text.push_str("{0},\n");
    }
    for codes in codes.chunks_exact(elements) {
        text.push('{');
        text.push_str(rows(codes, 0, WIDTH).trim_end());
        text.push_str("},\n");
    }
    text.push_str("};\n");
    for (parameter, values) in parameters.iter().zip(&golden.outputs) {
        let (prefix, kind, name, n) = (name, parameter.element.c(), &parameter.name, parameter.elements);
        let _ = writeln!(text, "static const {kind} {prefix}_expected_{name}[{}][{n}] = {{", images.max(1));
        if images == 0 {
            text.push_str("{0},\n");
        }
        for values in values.chunks_exact(n) {
            text.push('{');
            let values = values.iter().map(|&v| literal(v, parameter.element));
            text.push_str(rows(values, 0, WIDTH).trim_end());
            text.push_str("},\n");
        }
        text.push_str("};\n");
    }
    for parameter in parameters {
        let _ = writeln!(text, "static {} {name}_{}[{}];", parameter.element.c(), parameter.name, parameter.elements);
    }
    let names: Vec<String> = parameters.iter().map(|p| format!("{name}_{}", p.name)).collect();
    let call = |image: &str| format!("{name}_run({image}, {})", names.join(", "));
    let _ = write!(
        text,
        "
static int {name}_run_file(const char *from, const char *to)
{{
    static {} image[{elements}];
    FILE *in = fopen(from, \"rb\");
    FILE *out = in ? fopen(to, \"wb\") : NULL;
    int is_good = out != NULL;
    if (!is_good) {{
        fprintf(stderr, \"{name}_test: cannot open %s\\n\", in ? to : from);
    }}
    while (is_good && fread(image, sizeof image, 1, in) == 1) {{
        {};
",
        image.c(),
        call("image"),
    );
    for name in &names {
        let _ = writeln!(text, "        is_good = is_good && fwrite({name}, sizeof {name}, 1, out) == 1;");
    }
    let _ = write!(
        text,
        "    }}
    if (out && fclose(out) != 0) {{
        is_good = 0;
    }}
    if (in) {{
        (void)fclose(in);
    }}
    return is_good ? 0 : 1;
}}

int main(int argc, char **argv)
{{
    unsigned i, different = 0;
    if (argc == 3) {{
        return {name}_run_file(argv[1], argv[2]);
    }}
    for (i = 0; i < {images}; i++) {{
        int is_same = 1;
        {};
",
        call(&format!("{name}_images[i]")),
    );
    for (output, parameter) in names.iter().zip(parameters) {
        let expected = format!("{name}_expected_{}", parameter.name);
        let _ = writeln!(text, "        is_same = is_same && memcmp({output}, {expected}[i], sizeof {output}) == 0;");
    }
    let _ = write!(
        text,
        "        different += is_same ? 0u : 1u;
    }}
    printf(\"{name}: %u of {images} images differ\\n\", different);
    return different == 0 ? 0 : 1;
}}
",
    );
    text
}

/// The Makefile.
pub(in crate::source) fn makefile(name: &str) -> String {
    format!(
        "# make CC=arm-none-eabi-gcc CFLAGS='-Os -mcpu=cortex-m4 -mthumb' {name}.o
CFLAGS ?= -O2
WARNINGS = -std=c99 -Wall -Wextra -Wconversion -pedantic

check: {name}_test
\t./{name}_test

{name}_test: {name}_test.o {name}.o
\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^

%.o: %.c {name}.h bitpact_kernels.h
\t$(CC) $(WARNINGS) $(CFLAGS) -c -o $@ $<

clean:
\trm -f {name}_test {name}_test.o {name}.o

.PHONY: check clean
"
    )
}

/// The CMake file.
pub(in crate::source) fn cmake(name: &str) -> String {
    format!(
        "cmake_minimum_required(VERSION 3.10)
project({name} C)
set(CMAKE_C_STANDARD 99)
set(CMAKE_C_EXTENSIONS OFF)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release)
endif()

add_library({name} STATIC {name}.c)
target_include_directories({name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})

add_executable({name}_test {name}_test.c)
target_link_libraries({name}_test {name})
enable_testing()
add_test(NAME {name} COMMAND {name}_test)
"
    )
}
