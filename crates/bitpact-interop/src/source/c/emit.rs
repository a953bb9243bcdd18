//! The C of a network: constants, descriptions of layers, and the function that runs them.

use std::fmt::Write;

use bitpact_graph::{Move, Shape, Window};
use bitpact_model::{IntegerEnd, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerView, TensorKind};

use super::super::ends::{Element, Parameter, fits_32, image_element, once};
use super::super::layers::{What, channels_at_once, pads_image, terms};
use super::super::moves::{Step, pixel, statements};
use super::super::names::plain;
use super::super::store::{Form, Memory, Stream};
use super::super::words::{self, rows};

/// Columns that lists of numbers are wrapped at.
const WIDTH: usize = 110;

/// Writes the source of a network.
pub(in crate::source) struct Source<'a> {
    model: &'a IntegerModel,
    memory: &'a Memory,
    name: &'a str,
    parameters: &'a [Parameter],
    /// Moves that have a function, with the shape they begin with.
    moved: Vec<(Shape, Vec<Move>)>,
    /// Windows that are written.
    windows: Vec<Window>,
    text: String,
}

impl<'a> Source<'a> {
    pub(in crate::source) fn write(
        model: &'a IntegerModel,
        memory: &'a Memory,
        name: &'a str,
        parameters: &'a [Parameter],
    ) -> String {
        let mut source =
            Self { model, memory, name, parameters, moved: Vec::new(), windows: Vec::new(), text: String::new() };
        source.begin();
        for i in 0..model.layers.len() {
            source.constants(i);
        }
        source.run();
        source.text
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn comment(&mut self, lines: &[String], indent: &str) {
        for (i, line) in lines.iter().enumerate() {
            let open = if i == 0 { "/* " } else { " * " };
            let close = if i + 1 == lines.len() { " */" } else { "" };
            self.line(&format!("{indent}{open}{line}{close}"));
        }
    }

    /// A list of constants.
    fn list<T: std::fmt::Display>(&mut self, kind: &str, name: &str, numbers: impl IntoIterator<Item = T>) {
        let numbers: Vec<String> = numbers.into_iter().map(|n| n.to_string()).collect();
        let count = numbers.len();
        let _ = writeln!(self.text, "static const {kind} {name}[{count}] BITPACT_FLASH = {{");
        self.text.push_str(&rows(&numbers, 4, WIDTH));
        self.line("};");
    }

    fn begin(&mut self) {
        let (name, model) = (self.name, self.model);
        self.line(&format!("/* {}, written by bitpact. {name}.h says how to call it. */", plain(&model.arch)));
        self.line(&format!("#include \"{name}.h\"\n\n#include \"bitpact_kernels.h\"\n"));
        let [dsp, bytes] = self.memory.columns;
        self.line(&format!("static uint8_t {name}_arena[{}];", self.memory.arena.max(1)));
        self.line(&format!("static bp_code {name}_columns[BP_COLUMNS({}, {})] BP_ALIGNED;", dsp.max(2), bytes.max(2)));
        self.line(&format!("static const uint8_t *{name}_taps[{}];", self.memory.taps.max(1)));
        self.line(&format!("static int32_t {name}_sums[{}][2];\n", self.memory.terms));
        if self.pads_image() {
            self.line("/* The code that stands for zero in each channel of the image. */");
            self.list("uint16_t", &format!("{name}_zeros"), &model.input.zero_point);
        }
        for (i, stored) in self.memory.tensors.iter().enumerate() {
            let at = match (i, stored.at) {
                (0, _) => "BP_IMAGE".to_owned(),
                (_, at) => at.unwrap_or(0).to_string(),
            };
            let Shape { h, w, c } = stored.shape;
            let pixel = stored.pixel;
            let bits = stored.bits;
            self.line(&format!("static const bp_tensor {name}_t{i} = {{{at}, {pixel}, {c}, {h}, {w}, {bits}}};"));
        }
    }

    fn pads_image(&self) -> bool {
        self.model.layers.iter().any(|layer| layer.op.products().any(pads_image))
    }

    /// The name of a constant of layer `i`.
    fn named(&self, i: usize, what: &str) -> String {
        format!("{}_l{i}_{what}", self.name)
    }

    fn constants(&mut self, i: usize) {
        let layer = &self.model.layers[i];
        self.line("");
        self.comment(&words::of_layer(self.model, self.memory, i), "");
        match &layer.op {
            IntegerOp::Sum(sum) => self.sum(i, sum),
            IntegerOp::MaxPool { window, .. } => {
                self.window(window);
            }
            IntegerOp::WindowSum { window, factors, .. } => {
                self.window(window);
                if !factors.is_empty() {
                    self.list("uint32_t", &self.named(i, "factors"), factors);
                }
            }
            IntegerOp::Concat { .. } => {}
            IntegerOp::View(view) => self.views(&self.named(i, "view"), &[view]),
        }
    }

    /// The name of a window, which is written where it is seen for the first time.
    fn window(&mut self, window: &Window) -> String {
        let known = self.windows.iter().position(|other| other == window);
        let name = format!("{}_w{}", self.name, known.unwrap_or(self.windows.len()));
        if known.is_none() {
            self.windows.push(*window);
            self.line(&format!("static const bp_window {name} = {};", of_window(window)));
        }
        name
    }

    /// Views, one after the other.
    fn views(&mut self, name: &str, views: &[&IntegerView]) {
        let mut list = String::new();
        for view in views {
            let source = match view.moves.is_empty() {
                true => "NULL".to_owned(),
                false => self.moves(view),
            };
            let _ = write!(list, "{{&{}_t{}, {source}, {}}}, ", self.name, view.input, int(view.fill));
        }
        self.line(&format!("static const bp_view {name}[{}] = {{{}}};", views.len(), list.trim_end_matches(", ")));
    }

    /// The function that follows the moves of a view.
    fn moves(&mut self, view: &IntegerView) -> String {
        let from = self.model.shape(view.input);
        let key = (from, view.moves.clone());
        if let Some(i) = self.moved.iter().position(|other| *other == key) {
            return format!("{}_move{i}", self.name);
        }
        let name = format!("{}_move{}", self.name, self.moved.len());
        self.moved.push(key);
        self.line(&format!("static uint32_t {name}(uint32_t y, uint32_t x, uint32_t *c)\n{{"));
        self.line("    uint32_t k = *c;");
        for step in statements(from, &view.moves) {
            match step {
                Step::Inserted { name, first, last } => {
                    let ends = [first.map(|n| format!("{name} < {n}")), last.map(|n| format!("{name} >= {n}"))];
                    let when: Vec<String> = ends.into_iter().flatten().collect();
                    self.line(&format!("    if ({}) {{\n        return UINT32_MAX;\n    }}", when.join(" || ")));
                }
                Step::Set(pairs) => pairs.iter().for_each(|(name, value)| self.line(&format!("    {name} = {value};"))),
            }
        }
        self.line(&format!("    *c = k;\n    return {};\n}}", pixel(from)));
        name
    }

    fn product(&mut self, name: &str, product: &IntegerProduct, stream: &Stream) {
        let bytes = stream.bytes.iter().copied().chain(std::iter::repeat_n(0, stream.tail));
        self.list("uint8_t", &format!("{name}_weights"), bytes);
        let window = self.window(&product.window);
        let [dsp, bytes] = stream.column;
        let column = if dsp == bytes { dsp.to_string() } else { format!("BP_COLUMNS({dsp}, {bytes})") };
        self.line(&format!("static const bp_product {name} = {{"));
        self.line(&format!("    &{}_t{}, {name}_weights, &{window},", self.name, product.input));
        self.line(&format!(
            "    {}, {}, {}, {}, {column}, {}, {}, {}}};",
            product.weights_per_channel(),
            product.group_inputs(),
            product.out_channels / product.groups,
            product.padding_code,
            product.weight_bits,
            stream.scale,
            stream.offset,
        ));
    }

    fn sum(&mut self, i: usize, sum: &IntegerSum) {
        let described = terms(self.model, self.memory, i, sum);
        let channels = channels_at_once(&described);
        let mut terms = Vec::new();
        for (t, term) in described.iter().enumerate() {
            let name = self.named(i, &format!("term{t}"));
            self.list("int32_t", &format!("{name}_mul"), term.mul.iter().map(|&m| int(m.into())));
            let (multipliers, step) = (format!("{name}_mul"), usize::from(term.mul.len() > 1));
            let entry = match term.what {
                What::Product(product, stream) => {
                    self.product(&name, product, stream);
                    let kind = match stream.form {
                        Form::Dense => "BP_PRODUCT",
                        Form::Depthwise => "BP_DEPTHWISE",
                        Form::Wide => "BP_WIDE",
                    };
                    format!("{kind}, 0, {step}, {{0, 0}}, {multipliers}, &{name}")
                }
                What::View(view) => {
                    self.views(&name, &[view]);
                    format!("BP_VIEW, 0, {step}, {{0, 0}}, {multipliers}, {name}")
                }
                What::Multiplication { a, b, zeros: [za, zb], is_one_pixel } => {
                    self.views(&name, &[a, b]);
                    format!("BP_MULTIPLY, {}, {step}, {{{za}, {zb}}}, {multipliers}, {name}", u8::from(is_one_pixel))
                }
            };
            terms.push(format!("    {{{entry}}},"));
        }
        for (b, (view, _)) in sum.base.iter().enumerate() {
            self.views(&self.named(i, &format!("added{b}")), &[view]);
        }
        let list = |source: &mut Self, kind: &str, what: &str, entries: &[String]| {
            if entries.is_empty() {
                return "NULL".to_owned();
            }
            let name = source.named(i, what);
            source.line(&format!("static const {kind} {name}[{}] = {{", entries.len()));
            entries.iter().for_each(|entry| source.line(entry));
            source.line("};");
            name
        };
        let terms_name = list(self, "bp_term", "terms", &terms);
        let added: Vec<String> = sum
            .base
            .iter()
            .enumerate()
            .map(|(b, (_, mul))| format!("    {{{}, {}}},", self.named(i, &format!("added{b}")), int((*mul).into())))
            .collect();
        let added_name = list(self, "bp_added", "added", &added);
        let (add, constants) = self.constants_of(i, sum);
        let requant = &sum.requant;
        let (end, list) = self.end(i, sum);
        let is_far = u8::from(!fits_32(self.model, sum, requant.shift));
        let (lo, hi) = match sum.end {
            IntegerEnd::Codes | IntegerEnd::Table(_) => (requant.lo, requant.hi),
            _ => (0, 0),
        };
        let name = self.named(i, "sum");
        self.line(&format!("static const bp_sum {name} = {{"));
        self.line(&format!("    &{}_t{}, {terms_name}, {added_name}, {add}, {list},", self.name, i + 1));
        self.line(&format!(
            "    {}, {}, {}, {}, {constants}, {}, {end}, {is_far}, {channels}}};",
            int(lo.into()),
            int(hi.into()),
            terms.len(),
            added.len(),
            requant.shift,
        ));
    }

    /// The list of the constants of a sum, and its form.
    fn constants_of(&mut self, i: usize, sum: &IntegerSum) -> (String, String) {
        let name = self.named(i, "add");
        let add = once(&sum.requant.add);
        let is_long = add.iter().any(|&a| i32::try_from(a).is_err());
        let words = add.iter().flat_map(|&a| [a as i32, (a >> 32) as i32]).step_by(if is_long { 1 } else { 2 });
        self.list("int32_t", &name, words.map(|word| int(word.into())));
        let count = if add.len() > 1 { "BP_MANY" } else { "BP_ONE" };
        (name, if is_long { format!("{count} + BP_LONG") } else { count.to_owned() })
    }

    /// The end of a sum and the list that it reads.
    fn end(&mut self, i: usize, sum: &IntegerSum) -> (&'static str, String) {
        let none = || "NULL".to_owned();
        let bounds = &sum.requant.bounds;
        match &sum.end {
            IntegerEnd::Codes if bounds.is_empty() => ("BP_CODES", none()),
            IntegerEnd::Codes => {
                let name = self.named(i, "bounds");
                self.list("uint8_t", &name, bounds.iter().flat_map(|&(lo, hi)| [lo, hi]));
                ("BP_CODES", name)
            }
            IntegerEnd::Table(tables) => {
                let name = self.named(i, "table");
                self.list("uint8_t", &name, tables.iter().flatten());
                (if tables.len() > 1 { "BP_TABLES" } else { "BP_TABLE" }, name)
            }
            IntegerEnd::Wide => ("BP_VALUES", none()),
            IntegerEnd::Output => {
                let element = self.parameters.iter().find(|p| p.tensor == i + 1).map(|p| p.element);
                (if element == Some(Element::I64) { "BP_LONG_WORDS" } else { "BP_WORDS" }, none())
            }
        }
    }

    fn run(&mut self) {
        let name = self.name;
        self.line(&format!("\n{}\n{{", signature(self.model, name, self.parameters)));
        let zeros = if self.pads_image() { format!("{name}_zeros") } else { "NULL".to_owned() };
        self.line(&format!(
            "    const bp_run run = {{\n        (const uint8_t *)image, {zeros}, {name}_arena, {name}_columns, {name}_taps, {name}_sums}};"
        ));
        for (i, layer) in self.model.layers.iter().enumerate() {
            self.line("");
            let lines = words::of_layer(self.model, self.memory, i);
            self.comment(&lines[..1], "    ");
            let to = format!("&{name}_t{}", i + 1);
            match &layer.op {
                IntegerOp::Sum(sum) => {
                    let sum_name = self.named(i, "sum");
                    let target = match (&sum.end, self.memory.tensors[i + 1].at) {
                        (IntegerEnd::Output, _) => {
                            let parameter = self.parameters.iter().find(|p| p.tensor == i + 1);
                            format!("(uint8_t *){}", parameter.map_or("NULL", |p| &p.name))
                        }
                        (_, at) => format!("{name}_arena + {}", at.unwrap_or(0)),
                    };
                    self.line(&format!("    bp_run_sum(&run, &{sum_name}, {target});"));
                }
                IntegerOp::MaxPool { input, window } => {
                    let window = self.window(window);
                    self.line(&format!("    bp_max_pool(&run, &{name}_t{input}, &{window}, {to});"));
                }
                IntegerOp::WindowSum { input, window, padding_code, factors } => {
                    let window = self.window(window);
                    let largest = factors.iter().max().copied().unwrap_or(1);
                    let factors = if factors.is_empty() { "NULL".to_owned() } else { self.named(i, "factors") };
                    self.line(&format!(
                        "    bp_window_sum(&run, &{name}_t{input}, &{window}, {to}, {padding_code}, {factors}, {largest});"
                    ));
                }
                IntegerOp::Concat { inputs } => {
                    let mut first = 0;
                    for &input in inputs {
                        self.line(&format!("    bp_copy_channels(&run, &{name}_t{input}, {to}, {first});"));
                        first += self.model.shape(input).c;
                    }
                }
                IntegerOp::View(_) => {
                    let view = self.named(i, "view");
                    self.line(&format!("    bp_move_elements(&run, {view}, {to});"));
                }
            }
            for parameter in self.parameters.iter().filter(|p| p.tensor == i + 1) {
                if self.model.kind(i + 1) != TensorKind::Output {
                    let (to, bits) = (&parameter.name, parameter.element.bits());
                    self.line(&format!("    bp_write(&run, &{name}_t{}, (uint8_t *){to}, {bits});", i + 1));
                }
            }
        }
        self.line("}");
    }
}

/// The declaration of the function that runs a network.
pub(in crate::source) fn signature(model: &IntegerModel, name: &str, parameters: &[Parameter]) -> String {
    let mut text =
        format!("void {name}_run(const {} image[{}]", image_element(model).c(), model.input_shape.elements());
    for parameter in parameters {
        let _ = write!(text, ",\n    {} {}[{}]", parameter.element.c(), parameter.name, parameter.elements);
    }
    text.push(')');
    text
}

fn of_window(window: &Window) -> String {
    let [rows, columns] = window.kernel;
    let ([sy, sx], [dy, dx], [py, px]) = (window.stride, window.dilation, window.spread);
    format!(
        "{{{rows}, {columns}, {sy}, {sx}, {}, {}, {dy}, {dx}, {py}, {px}}}",
        window.padding.top, window.padding.left
    )
}

/// A number of at most 32 bits, also the smallest, which is no literal of C.
pub(in crate::source) fn int(value: i64) -> String {
    match value == i64::from(i32::MIN) {
        true => "(-2147483647 - 1)".to_owned(),
        false => value.to_string(),
    }
}
