//! The Rust module of a network: constants, descriptions of layers, and the function that runs them.

use std::fmt::{Display, Write};

use bitpact_graph::{Move, Shape, Window};
use bitpact_model::{IntegerEnd, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerView, TensorKind};

use super::super::Footprint;
use super::super::ends::{Element, Parameter, image_element, once};
use super::super::layers::{What, channels_at_once, terms};
use super::super::moves::{Step, pixel, statements};
use super::super::names::plain;
use super::super::store::{Form, Memory, Stream};
use super::super::words::{self, rows};

/// Columns that lists of numbers are wrapped at.
pub(super) const WIDTH: usize = 100;
/// Parameters of a function that clippy tells nothing of.
const FEW: usize = 7;

/// Writes the module of a network.
pub(super) struct Source<'a> {
    model: &'a IntegerModel,
    memory: &'a Memory,
    parameters: &'a [Parameter],
    /// Moves that have a function, with the shape they begin with.
    moved: Vec<(Shape, Vec<Move>)>,
    text: String,
}

impl<'a> Source<'a> {
    pub(super) fn write(
        model: &'a IntegerModel,
        memory: &'a Memory,
        footprint: &Footprint,
        parameters: &'a [Parameter],
    ) -> String {
        let mut source = Self { model, memory, parameters, moved: Vec::new(), text: String::new() };
        source.begin(footprint);
        source.state();
        source.run();
        source.tensors();
        for i in 0..model.layers.len() {
            source.constants(i);
        }
        source.line("\n/// Kernels, the same for every network.\nmod kernels {\n    #![allow(dead_code)]\n");
        for line in super::KERNELS.lines() {
            let indent = if line.is_empty() { "" } else { "    " };
            source.line(&format!("{indent}{line}"));
        }
        source.line("}");
        source.text
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn list<T: Display>(&mut self, kind: &str, name: &str, numbers: impl IntoIterator<Item = T>) {
        let numbers: Vec<T> = numbers.into_iter().collect();
        let _ = writeln!(self.text, "static {name}: [{kind}; {}] = [", numbers.len());
        self.text.push_str(&rows(numbers, 4, WIDTH));
        self.line("];");
    }

    fn begin(&mut self, footprint: &Footprint) {
        let model = self.model;
        let (arch, macs, flash, ram) =
            (plain(&model.arch), footprint.macs(), footprint.flash_bytes(), footprint.ram_bytes);
        self.line(&format!(
            "//! The network {arch}: {macs} multiply-adds, {flash} bytes of constants, {ram} bytes of memory.\n//! Written by \
             bitpact.\n//!\n//! [`run`] computes the outputs of one image in a [`State`]. Tensors are \
             `[row][column][channel]`.\n//! A value q of an output means `SCALE * (q - ZERO)`; code p of channel c of the \
             image means\n//! `IMAGE_SCALES[c] * (p - IMAGE_ZEROS[c])`.\n\n#![allow(clippy::approx_constant)]\n\nuse \
             kernels::*;\n"
        ));
        let shape = model.input_shape;
        let element = image_element(model).rust();
        self.line(&format!("/// An element of the image.\npub type Pixel = {element};"));
        self.constant("Rows of the image.", "IMAGE_HEIGHT", "usize", shape.h);
        self.constant("Columns of the image.", "IMAGE_WIDTH", "usize", shape.w);
        self.constant("Channels of the image.", "IMAGE_CHANNELS", "usize", shape.c);
        self.constant("Elements of the image.", "IMAGE_ELEMENTS", "usize", shape.elements());
        self.line("/// The code that stands for zero in each channel of the image.");
        self.text.push_str("pub ");
        self.list("u16", "IMAGE_ZEROS", &model.input.zero_point);
        self.line("/// Real value of one code of each channel of the image.");
        self.text.push_str("pub ");
        self.list("f64", "IMAGE_SCALES", model.input.scale.iter().map(|scale| format!("{:e}", f64::from(*scale))));
        self.constant("Classes.", "CLASSES", "usize", model.class_names.len());
        for (i, parameter) in self.parameters.iter().enumerate() {
            let layer = plain(&model.layers[parameter.tensor - 1].name).replace(['`', '[', ']'], "_");
            let (shape, name) = (model.shape(parameter.tensor), parameter.name.to_uppercase());
            if i == 0 {
                self.constant("Elements of the main output.", "OUTPUT_ELEMENTS", "usize", parameter.elements);
            }
            let mut constant = |what: &str, words: &str, kind: &str, value: &dyn Display| {
                self.constant(&format!("{words} of output `{layer}`."), &format!("{name}_{what}"), kind, value);
            };
            constant("ELEMENTS", "Elements", "usize", &parameter.elements);
            constant("HEIGHT", "Rows", "usize", &shape.h);
            constant("WIDTH", "Columns", "usize", &shape.w);
            constant("CHANNELS", "Channels", "usize", &shape.c);
            constant("SCALE", "Real value of one unit", "f64", &format!("{:e}", parameter.scale));
            constant("ZERO", "The value that stands for zero", "i32", &parameter.zero);
        }
    }

    fn constant(&mut self, words: &str, name: &str, kind: &str, value: impl Display) {
        self.line(&format!("/// {words}\npub const {name}: {kind} = {value};"));
    }

    fn state(&mut self) {
        let memory = self.memory;
        let fields = [
            ("arena", "u8", "0", memory.arena),
            ("columns", "u8", "0", memory.columns[1]),
            ("taps", "u32", "0", memory.taps),
            ("sums", "[i32; 2]", "[0; 2]", memory.terms),
        ];
        self.line("\n/// The memory of a run: what it holds before does not matter.\npub struct State {");
        for (name, kind, _, count) in fields {
            self.line(&format!("    {name}: [{kind}; {count}],"));
        }
        self.line("}\n\nimpl State {\n    /// Memory of zeros.\n    pub const fn new() -> Self {\n        Self {");
        for (name, _, zero, count) in fields {
            self.line(&format!("            {name}: [{zero}; {count}],"));
        }
        self.line(
            "        }\n    }\n}\n\nimpl Default for State {\n    fn default() -> Self {\n        Self::new()\n    }\n}",
        );
    }

    fn run(&mut self) {
        self.line("\n/// Computes the outputs of one image.");
        if self.parameters.len() + 2 > FEW {
            self.line("#[allow(clippy::too_many_arguments)]");
        }
        self.line("pub fn run(\n    state: &mut State,\n    image: &[Pixel; IMAGE_ELEMENTS],");
        for Parameter { name, element, elements, .. } in self.parameters {
            self.line(&format!("    {name}: &mut [{}; {elements}],", element.rust()));
        }
        self.line(
            ") {\n    let mut run = Run {\n        image,\n        zeros: &IMAGE_ZEROS,\n        arena: &mut state.arena,\n        \
             columns: &mut state.columns,\n        taps: &mut state.taps,\n        sums: &mut state.sums,\n    };",
        );
        for (i, layer) in self.model.layers.iter().enumerate() {
            let words = words::of_layer(self.model, self.memory, i);
            self.line(&format!("\n    // {}", words[0]));
            let to = format!("T{}", i + 1);
            match &layer.op {
                IntegerOp::Sum(sum) => {
                    let parameter = self.parameters.iter().find(|p| p.tensor == i + 1);
                    let output = match (&sum.end, parameter) {
                        (IntegerEnd::Output, Some(p)) if p.element == Element::I64 => {
                            format!("Output::LongWords({})", p.name)
                        }
                        (IntegerEnd::Output, Some(p)) => format!("Output::Words({})", p.name),
                        _ => "Output::Arena".to_owned(),
                    };
                    self.line(&format!("    run.sum(&L{i}_SUM, {output});"));
                }
                IntegerOp::MaxPool { input, .. } => {
                    self.line(&format!("    run.max_pool(&T{input}, &L{i}_WINDOW, &{to});"));
                }
                IntegerOp::WindowSum { input, padding_code, factors, .. } => {
                    let factors = if factors.is_empty() { "&[]".to_owned() } else { format!("&L{i}_FACTORS") };
                    self.line(&format!(
                        "    run.window_sum(&T{input}, &L{i}_WINDOW, &{to}, {padding_code}, {factors});"
                    ));
                }
                IntegerOp::Concat { inputs } => {
                    let mut first = 0;
                    for &input in inputs {
                        self.line(&format!("    run.copy_channels(&T{input}, &{to}, {first});"));
                        first += self.model.shape(input).c;
                    }
                }
                IntegerOp::View(_) => self.line(&format!("    run.move_elements(&L{i}_VIEW, &{to});")),
            }
            for parameter in self.parameters.iter().filter(|p| p.tensor == i + 1) {
                if self.model.kind(i + 1) != TensorKind::Output {
                    let element = match parameter.element {
                        Element::I32 => "|value| value".to_owned(),
                        element => format!("|value| value as {}", element.rust()),
                    };
                    self.line(&format!("    run.write(&{to}, {}, {element});", parameter.name));
                }
            }
        }
        self.line("}\n");
    }

    fn tensors(&mut self) {
        for (i, stored) in self.memory.tensors.iter().enumerate() {
            let place = match (i, stored.at) {
                (0, _) => "Place::Image".to_owned(),
                (_, at) => format!("Place::Arena({})", at.unwrap_or(0)),
            };
            let Shape { h, w, c } = stored.shape;
            self.structure(
                &format!("static T{i}: Tensor = Tensor"),
                &[
                    ("place", place),
                    ("h", h.to_string()),
                    ("w", w.to_string()),
                    ("c", c.to_string()),
                    ("bits", stored.bits.to_string()),
                    ("pixel", stored.pixel.to_string()),
                ],
            );
        }
    }

    fn structure(&mut self, head: &str, fields: &[(&str, String)]) {
        self.line(&format!("{head} {{"));
        for (name, value) in fields {
            self.line(&format!("    {name}: {value},"));
        }
        self.line("};");
    }

    fn constants(&mut self, i: usize) {
        let layer = &self.model.layers[i];
        self.line("");
        for line in words::of_layer(self.model, self.memory, i) {
            self.line(&format!("// {line}"));
        }
        match &layer.op {
            IntegerOp::Sum(sum) => self.sum(i, sum),
            IntegerOp::MaxPool { window, .. } => self.window(i, window),
            IntegerOp::WindowSum { window, factors, .. } => {
                self.window(i, window);
                if !factors.is_empty() {
                    self.list("u32", &format!("L{i}_FACTORS"), factors);
                }
            }
            IntegerOp::Concat { .. } => {}
            IntegerOp::View(view) => {
                let view = self.view(view);
                self.line(&format!("static L{i}_VIEW: View = {view};"));
            }
        }
    }

    fn window(&mut self, i: usize, window: &Window) {
        self.line(&format!("static L{i}_WINDOW: Window = {};", of_window(window)));
    }

    /// The value of a view; the function of its moves is written before.
    fn view(&mut self, view: &IntegerView) -> String {
        let source = match view.moves.is_empty() {
            true => "None".to_owned(),
            false => format!("Some({})", self.moves(view)),
        };
        format!("View {{ from: &T{}, source: {source}, fill: {} }}", view.input, view.fill)
    }

    /// The function that follows the moves of a view.
    fn moves(&mut self, view: &IntegerView) -> String {
        let from = self.model.shape(view.input);
        let key = (from, view.moves.clone());
        if let Some(i) = self.moved.iter().position(|other| *other == key) {
            return format!("move{i}");
        }
        let name = format!("move{}", self.moved.len());
        self.moved.push(key);
        self.line(&format!("fn {name}(y: usize, x: usize, k: usize) -> Option<(usize, usize)> {{"));
        for step in statements(from, &view.moves) {
            match step {
                Step::Inserted { name, first, last } => {
                    let when = match (first, last) {
                        (Some(first), Some(last)) => format!("!({first}..{last}).contains(&{name})"),
                        (Some(first), None) => format!("{name} < {first}"),
                        (None, last) => format!("{name} >= {}", last.unwrap_or(0)),
                    };
                    self.line(&format!("    if {when} {{\n        return None;\n    }}"));
                }
                Step::Set(pairs) => {
                    pairs.iter().for_each(|(name, value)| self.line(&format!("    let {name} = {value};")));
                }
            }
        }
        self.line(&format!("    Some(({}, k))\n}}", pixel(from)));
        name
    }

    fn product(&mut self, name: &str, product: &IntegerProduct, stream: &Stream) {
        self.list("u8", &format!("{name}_WEIGHTS"), &stream.bytes);
        let planes: Vec<String> = stream.planes.iter().filter(|&&bits| bits > 0).map(u32::to_string).collect();
        let fields = [
            ("from", format!("&T{}", product.input)),
            ("weights", format!("&{name}_WEIGHTS")),
            ("window", of_window(&product.window)),
            ("k", product.weights_per_channel().to_string()),
            ("row", stream.row.to_string()),
            ("bits", product.weight_bits.to_string()),
            ("planes", format!("&[{}]", planes.join(", "))),
            ("inputs", product.group_inputs().to_string()),
            ("outputs", (product.out_channels / product.groups).to_string()),
            ("scale", stream.scale.to_string()),
            ("offset", stream.offset.to_string()),
            ("padding", product.padding_code.to_string()),
            ("column", stream.column[1].to_string()),
        ];
        self.structure(&format!("static {name}: Product = Product"), &fields);
    }

    fn sum(&mut self, i: usize, sum: &IntegerSum) {
        let described = terms(self.model, self.memory, i, sum);
        let mut list = String::new();
        for (t, term) in described.iter().enumerate() {
            let name = format!("L{i}_TERM{t}");
            self.list("i32", &format!("{name}_MUL"), term.mul);
            let what = match term.what {
                What::Product(product, stream) => {
                    self.product(&name, product, stream);
                    let kind = match stream.form {
                        Form::Dense => "Product",
                        Form::Depthwise => "Depthwise",
                        Form::Wide => "Wide",
                    };
                    format!("What::{kind}(&{name})")
                }
                What::View(view) => format!("What::View({})", self.view(view)),
                What::Multiplication { a, b, zeros, is_one_pixel } => {
                    let (a, b) = (self.view(a), self.view(b));
                    format!("What::Multiply {{ a: {a}, b: {b}, zeros: {zeros:?}, is_one_pixel: {is_one_pixel} }}")
                }
            };
            let _ = write!(list, "\n        Term {{ mul: &{name}_MUL, what: {what} }},");
        }
        let added: Vec<String> = sum
            .base
            .iter()
            .map(|(view, mul)| format!("\n        Added {{ view: {}, mul: {mul} }},", self.view(view)))
            .collect();
        let slice = |entries: String| if entries.is_empty() { "&[]".to_owned() } else { format!("&[{entries}\n    ]") };
        let requant = &sum.requant;
        let add = once(&requant.add);
        let is_short = add.iter().all(|&a| i32::try_from(a).is_ok());
        self.list(if is_short { "i32" } else { "i64" }, &format!("L{i}_ADD"), add);
        let fields = [
            ("to", format!("&T{}", i + 1)),
            ("terms", slice(list)),
            ("added", slice(added.concat())),
            ("add", format!("Constants::{}(&L{i}_ADD)", if is_short { "Short" } else { "Long" })),
            ("shift", requant.shift.to_string()),
            ("channels", channels_at_once(&described).to_string()),
            ("end", self.end(i, sum)),
        ];
        self.structure(&format!("static L{i}_SUM: Sum = Sum"), &fields);
    }

    fn end(&mut self, i: usize, sum: &IntegerSum) -> String {
        let requant = &sum.requant;
        let (lo, hi) = (requant.lo, requant.hi);
        match &sum.end {
            IntegerEnd::Codes if requant.bounds.is_empty() => format!("End::Codes {{ lo: {lo}, hi: {hi} }}"),
            IntegerEnd::Codes => {
                let bounds = requant.bounds.iter().map(|(lo, hi)| format!("({lo}, {hi})"));
                self.list("(u8, u8)", &format!("L{i}_BOUNDS"), bounds);
                format!("End::Bounded(&L{i}_BOUNDS)")
            }
            IntegerEnd::Table(tables) => {
                self.list("u8", &format!("L{i}_TABLE"), tables.iter().flatten());
                format!("End::Table {{ lo: {lo}, hi: {hi}, tables: &L{i}_TABLE }}")
            }
            IntegerEnd::Wide | IntegerEnd::Output => "End::Values".to_owned(),
        }
    }
}

fn of_window(window: &Window) -> String {
    let Window { kernel, stride, dilation, spread, padding } = window;
    format!(
        "Window {{ kernel: {kernel:?}, stride: {stride:?}, before: [{}, {}], dilation: {dilation:?}, spread: {spread:?} }}",
        padding.top, padding.left
    )
}
