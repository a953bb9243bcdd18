//! The C of a network: constants, descriptions of layers, and the function that runs them.

use std::fmt::Write;

use bitpact_graph::{Move, Shape, Window};
use bitpact_model::{
    IntegerEnd, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm, IntegerView, TensorKind,
};

use super::ends::{Element, Parameter, fits_32, once};
use super::moves::{Step, statements};
use super::names::plain;
use super::store::{Form, Memory, Stream};
use super::words;

/// Columns that lists of numbers are wrapped at.
const WIDTH: usize = 110;

/// Writes the source of a network.
pub(super) struct Source<'a> {
    model: &'a IntegerModel,
    memory: &'a Memory,
    name: &'a str,
    parameters: &'a [Parameter],
    /// Moves that have a function, with the shape they begin with.
    moved: Vec<(Shape, Vec<Move>)>,
    text: String,
}

/// The type of an element of the image.
pub(super) fn image_element(model: &IntegerModel) -> Element {
    if model.input.bits == 8 { Element::U8 } else { Element::U16 }
}

impl<'a> Source<'a> {
    pub(super) fn write(
        model: &'a IntegerModel,
        memory: &'a Memory,
        name: &'a str,
        parameters: &'a [Parameter],
    ) -> String {
        let mut source = Self { model, memory, name, parameters, moved: Vec::new(), text: String::new() };
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
        let mut line = String::from("   ");
        for number in numbers {
            if line.len() + number.len() + 2 > WIDTH {
                self.line(&line);
                line = String::from("   ");
            }
            let _ = write!(line, " {number},");
        }
        self.line(&line);
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
        if model.layers.iter().any(|layer| layer.op.products().any(|p| p.input == 0 && p.reads_padding())) {
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
            IntegerOp::MaxPool { window, .. } => self.window(i, window),
            IntegerOp::WindowSum { window, factors, .. } => {
                self.window(i, window);
                if !factors.is_empty() {
                    self.list("uint32_t", &self.named(i, "factors"), factors);
                }
            }
            IntegerOp::Concat { .. } => {}
            IntegerOp::View(view) => self.view(&self.named(i, "view"), view),
        }
    }

    fn window(&mut self, i: usize, window: &Window) {
        let name = self.named(i, "window");
        self.line(&format!("static const bp_window {name} = {};", of_window(window)));
    }

    fn view(&mut self, name: &str, view: &IntegerView) {
        let source = match view.moves.is_empty() {
            true => "NULL".to_owned(),
            false => self.moves(view),
        };
        let (prefix, input, fill) = (self.name, view.input, int(view.fill));
        self.line(&format!("static const bp_view {name} = {{&{prefix}_t{input}, {source}, {fill}}};"));
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
                Step::Inserted(when) => self.line(&format!("    if ({when}) {{\n        return UINT32_MAX;\n    }}")),
                Step::Set(pairs) => pairs.iter().for_each(|(name, value)| self.line(&format!("    {name} = {value};"))),
            }
        }
        self.line(&format!("    *c = k;\n    return y * {} + x;\n}}", from.w));
        name
    }

    fn product(&mut self, name: &str, product: &IntegerProduct, stream: &Stream) {
        let bytes: Vec<String> = stream.bytes.iter().map(u8::to_string).collect();
        self.list("uint8_t", &format!("{name}_weights"), bytes);
        let (prefix, input) = (self.name, product.input);
        let [a, b, c] = stream.planes;
        let zeros = match product.input == 0 && product.reads_padding() {
            true => format!("{prefix}_zeros"),
            false => "NULL".to_owned(),
        };
        let [dsp, bytes] = stream.column;
        let column = if dsp == bytes { dsp.to_string() } else { format!("BP_COLUMNS({dsp}, {bytes})") };
        self.line(&format!("static const bp_product {name} = {{"));
        self.line(&format!("    &{prefix}_t{input}, {name}_weights,"));
        self.line(&format!("    {},", of_window(&product.window)));
        self.line(&format!(
            "    {}, {}, {}, {{{a}, {b}, {c}}}, {}, {}, {}, {}, {}, {zeros}, {column}}};",
            product.weights_per_channel(),
            stream.row,
            product.weight_bits,
            product.group_inputs(),
            product.out_channels / product.groups,
            stream.scale,
            stream.offset,
            product.padding_code,
        ));
    }

    fn sum(&mut self, i: usize, sum: &IntegerSum) {
        let mut streams = self.memory.streams[i].iter();
        let mut terms = Vec::new();
        let mut channels = 2;
        for (t, (term, mul)) in sum.terms.iter().zip(&sum.requant.mul).enumerate() {
            let name = self.named(i, &format!("term{t}"));
            let mul = once(mul);
            self.list("int32_t", &format!("{name}_mul"), mul.iter().map(|&m| int(m.into())));
            let (multipliers, step) = (format!("{name}_mul"), usize::from(mul.len() > 1));
            let entry = match term {
                IntegerTerm::Product(product) => {
                    // There is one for each product.
                    let Some(stream) = streams.next() else { continue };
                    self.product(&name, product, stream);
                    let kind = match stream.form {
                        Form::Dense => "BP_PRODUCT",
                        Form::Depthwise => "BP_DEPTHWISE",
                        Form::Wide => "BP_WIDE",
                    };
                    if stream.form == Form::Dense
                        && product.groups > 1
                        && product.out_channels / product.groups % 2 == 1
                    {
                        channels = 1;
                    }
                    format!("{kind}, 0, {step}, {{0, 0}}, {multipliers}, &{name}, NULL, NULL")
                }
                IntegerTerm::View(view) => {
                    self.view(&name, view);
                    format!("BP_VIEW, 0, {step}, {{0, 0}}, {multipliers}, NULL, &{name}, NULL")
                }
                IntegerTerm::Multiplication { a, b, zeros } => {
                    let shape =
                        |view: &IntegerView| bitpact_graph::moved_shape(self.model.shape(view.input), &view.moves).ok();
                    let is_one_pixel = u8::from(shape(a) != shape(b));
                    self.view(&format!("{name}_a"), a);
                    self.view(&format!("{name}_b"), b);
                    let [za, zb] = zeros;
                    format!(
                        "BP_MULTIPLY, {is_one_pixel}, {step}, {{{za}, {zb}}}, {multipliers}, NULL, &{name}_a, &{name}_b"
                    )
                }
            };
            terms.push(format!("    {{{entry}}},"));
        }
        for (b, (view, _)) in sum.base.iter().enumerate() {
            self.view(&self.named(i, &format!("added{b}")), view);
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
            .map(|(b, (_, mul))| format!("    {{&{}, {}}},", self.named(i, &format!("added{b}")), int((*mul).into())))
            .collect();
        let added_name = list(self, "bp_added", "added", &added);
        let (add, step, is_long) = self.constants_of(i, sum);
        let requant = &sum.requant;
        let bounds = match requant.bounds.is_empty() {
            true => "NULL".to_owned(),
            false => {
                let name = self.named(i, "bounds");
                self.list("uint8_t", &name, requant.bounds.iter().flat_map(|&(lo, hi)| [lo, hi]));
                name
            }
        };
        let (end, tables, table_step) = self.end(i, sum);
        let is_far = u8::from(!fits_32(self.model, sum, requant.shift));
        let (lo, hi) = match sum.end {
            IntegerEnd::Codes | IntegerEnd::Table(_) => (requant.lo, requant.hi),
            _ => (0, 0),
        };
        let name = self.named(i, "sum");
        self.line(&format!("static const bp_sum {name} = {{"));
        self.line(&format!("    &{}_t{}, {terms_name}, {added_name}, {add}, {bounds}, {tables},", self.name, i + 1));
        self.line(&format!(
            "    {}, {}, {table_step}, {}, {}, {step}, {is_long}, {}, {end}, {is_far}, {channels}}};",
            int(lo.into()),
            int(hi.into()),
            terms.len(),
            added.len(),
            requant.shift,
        ));
    }

    /// The name, step and width of the constants of a sum.
    fn constants_of(&mut self, i: usize, sum: &IntegerSum) -> (String, u8, u8) {
        let name = self.named(i, "add");
        let add = once(&sum.requant.add);
        let is_one = add.len() == 1;
        match add.iter().all(|&a| i32::try_from(a).is_ok()) {
            true => {
                self.list("int32_t", &name, add.iter().map(|&a| int(a)));
                (name, u8::from(!is_one), 0)
            }
            false => {
                self.list(
                    "int32_t",
                    &name,
                    add.iter().flat_map(|&a| [a as i32, (a >> 32) as i32]).map(|w| int(w.into())),
                );
                (name, if is_one { 0 } else { 2 }, 1)
            }
        }
    }

    fn end(&mut self, i: usize, sum: &IntegerSum) -> (&'static str, String, usize) {
        let none = || "NULL".to_owned();
        match &sum.end {
            IntegerEnd::Codes => ("BP_CODES", none(), 0),
            IntegerEnd::Table(tables) => {
                let name = self.named(i, "table");
                self.list("uint8_t", &name, tables.iter().flatten());
                ("BP_TABLE", name, if tables.len() > 1 { tables[0].len() } else { 0 })
            }
            IntegerEnd::Wide => ("BP_VALUES", none(), 0),
            IntegerEnd::Output => {
                let element = self.parameters.iter().find(|p| p.tensor == i + 1).map(|p| p.element);
                (if element == Some(Element::I64) { "BP_LONG_WORDS" } else { "BP_WORDS" }, none(), 0)
            }
        }
    }

    fn run(&mut self) {
        let name = self.name;
        self.line(&format!("\n{}\n{{", signature(self.model, name, self.parameters)));
        self.line(&format!(
            "    const bp_run run = {{\n        (const uint8_t *)image, {name}_arena, {name}_columns, {name}_taps, {name}_sums}};"
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
                IntegerOp::MaxPool { input, .. } => {
                    let window = self.named(i, "window");
                    self.line(&format!("    bp_max_pool(&run, &{name}_t{input}, &{window}, {to});"));
                }
                IntegerOp::WindowSum { input, padding_code, factors, .. } => {
                    let window = self.named(i, "window");
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
                    self.line(&format!("    bp_move_elements(&run, &{view}, {to});"));
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
pub(super) fn signature(model: &IntegerModel, name: &str, parameters: &[Parameter]) -> String {
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
pub(super) fn int(value: i64) -> String {
    match value == i64::from(i32::MIN) {
        true => "(-2147483647 - 1)".to_owned(),
        false => value.to_string(),
    }
}
