//! The proof that an integer network can be computed: sizes, order, shapes, grids and ranges.

use std::collections::HashSet;

use bitpact_core::{Bits, CODE_LIMIT_16BIT, Grid};
use bitpact_graph::{Move, Shape, Window, moved_shape};

use super::layer::reads_padding;
use super::{
    IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerOutput, IntegerProduct, IntegerSum, IntegerTerm,
    IntegerView, TensorId, TensorKind,
};
use crate::ModelError;
use crate::model::{check_class_names, check_texts};

/// Bound on every size, so that products of sizes stay far below 2^64.
const LARGEST_SIDE: usize = 1 << 15;
/// Bound on channels.
const LARGEST_CHANNELS: usize = 1 << 16;
/// Bound on the elements of one tensor of one image, its padding included and its channels rounded up to 16.
const LARGEST_TENSOR: usize = 1 << 26;

/// Moves of one view at the most.
const MOST_MOVES: usize = 16;
/// Terms of one sum at the most, and tensors that are added after its shift.
const MOST_TERMS: usize = 255;

type Checked<T = ()> = Result<T, String>;

/// The layers so far, and what every tensor holds: looked up, because views of views can be many.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// The network.
    pub(crate) model: &'a IntegerModel,
    /// Kind of every tensor that a layer can read.
    pub(crate) kinds: &'a [TensorKind],
}

impl Known<'_> {
    fn shape(self, tensor: TensorId) -> Shape {
        self.model.shape(tensor)
    }

    fn kind(self, tensor: TensorId) -> TensorKind {
        self.kinds[tensor]
    }
}

pub(super) fn check(model: &IntegerModel) -> Result<(), ModelError> {
    let description = |place, what| Err(ModelError::Description { place, what });
    let texts = model.class_names.iter().chain(model.layers.iter().map(|l| &l.name)).chain([&model.arch]);
    let products = model.layers.iter().flat_map(|l| l.op.products());
    check_texts("names", texts.chain(products.map(|p| &p.name)))?;
    if let Err(what) = check_shape(model.input_shape) {
        return description("input shape", what);
    }
    model.input.check(model.input_shape.c)?;
    let Some(last) = model.layers.len().checked_sub(1) else {
        return description("layers", "there are none".to_owned());
    };
    let mut names = HashSet::new();
    let mut read = vec![false; model.layers.len() + 1];
    let mut padding_codes: Vec<Option<u32>> = vec![None; model.layers.len() + 1];
    let mut kinds = vec![TensorKind::Image];
    for (i, layer) in model.layers.iter().enumerate() {
        let fail = |what: String| ModelError::layer(&layer.name, what);
        if layer.name.is_empty() || !names.insert(layer.name.as_str()) {
            return Err(fail("every layer needs a name of its own".to_owned()));
        }
        for input in layer.op.inputs() {
            if input > i {
                return Err(fail(format!("reads tensor {input}, but only 0 to {i} exist before it")));
            }
            read[input] = true;
        }
        check_layer(Known { model, kinds: &kinds }, layer).map_err(fail)?;
        kinds.push(layer.op.kind(&kinds));
        for (name, tensor, code) in layer.paddings() {
            let first = *padding_codes[tensor].get_or_insert(code);
            if first != code {
                let what = format!("`{name}` pads tensor {tensor} with code {code}, an earlier reader with {first}");
                return Err(fail(what));
            }
        }
    }
    check_outputs(model, &kinds, &mut read)?;
    if let Some(tensor) = (0..=last + 1).find(|&tensor| !read[tensor]) {
        return match tensor.checked_sub(1) {
            None => description("input shape", "no layer reads the image".to_owned()),
            Some(layer) => Err(ModelError::layer(&model.layers[layer].name, "no layer reads it, and it is no output")),
        };
    }
    check_class_names(&model.class_names, model.classes())
}

/// Checks the outputs and marks their tensors as `read`.
fn check_outputs(model: &IntegerModel, kinds: &[TensorKind], read: &mut [bool]) -> Result<(), ModelError> {
    let description = |what| Err(ModelError::Description { place: "outputs", what });
    for (i, output) in model.outputs.iter().enumerate() {
        let IntegerOutput { tensor, zero } = *output;
        let Some(layer) = tensor.checked_sub(1).and_then(|layer| model.layers.get(layer)) else {
            return description(format!("tensor {tensor}, expected 1 to {}", model.layers.len()));
        };
        if model.outputs[..i].iter().any(|other| other.tensor == tensor) {
            return Err(ModelError::layer(&layer.name, "is named twice among the outputs"));
        }
        if kinds[tensor] != TensorKind::Output && i == 0 {
            return Err(ModelError::layer(&layer.name, "the main output has values of 64 bits, which no layer reads"));
        }
        if i32::try_from(zero).is_err() || (zero != 0 && kinds[tensor] == TensorKind::Output) {
            let what = format!("zero {zero}, expected a number of 32 bits, or 0 of an output that no layer reads");
            return Err(ModelError::layer(&layer.name, what));
        }
        read[tensor] = true;
    }
    if model.outputs.is_empty() {
        return description("there are none".to_owned());
    }
    Ok(())
}

pub(crate) fn check_shape(shape: Shape) -> Checked {
    let Shape { h, w, c } = shape;
    let side = |n: usize| (1..=LARGEST_SIDE).contains(&n);
    if !side(h) || !side(w) || !(1..=LARGEST_CHANNELS).contains(&c) || !fits(shape, 0) {
        return Err(format!(
            "shape {shape}, expected sides of 1 to {LARGEST_SIDE}, 1 to {LARGEST_CHANNELS} channels and at most \
             {LARGEST_TENSOR} elements with the channels rounded up to 16"
        ));
    }
    Ok(())
}

fn fits(shape: Shape, padding: usize) -> bool {
    (shape.h + 2 * padding) * (shape.w + 2 * padding) * shape.c.next_multiple_of(16) <= LARGEST_TENSOR
}

fn check_layer(known: Known<'_>, layer: &IntegerLayer) -> Checked {
    if !(layer.scale.is_finite() && layer.scale > 0.0) {
        return Err(format!("scale {}, expected a positive number", layer.scale));
    }
    let (shape, (lo, hi)) = output(known, &layer.op)?;
    if layer.shape != shape {
        return Err(format!("shape {}, but its inputs give {shape}", layer.shape));
    }
    if (i64::from(layer.lo), i64::from(layer.hi)) != (lo, hi) {
        return Err(format!("codes of {} to {}, but its inputs give {lo} to {hi}", layer.lo, layer.hi));
    }
    layer.op.products().try_for_each(check_codes)?;
    match &layer.op {
        IntegerOp::Sum(sum) => {
            check_end(sum, shape.c)?;
            let ranges = known.model.term_ranges(sum, shape.c)?;
            sum.requant.largest_sum(&ranges).map(drop).map_err(|e| e.to_string())
        }
        _ => Ok(()),
    }
}

/// Checks that the range of the requantization is one that the end reads.
fn check_end(sum: &IntegerSum, channels: usize) -> Checked {
    let IntegerSum { requant, base, end, .. } = sum;
    let (lo, hi) = (requant.lo, requant.hi);
    let is_clamped = matches!(end, IntegerEnd::Codes | IntegerEnd::Table(_));
    if !is_clamped && ((lo, hi) != (i32::MIN, i32::MAX) || !requant.bounds.is_empty()) {
        return Err("values of more than 8 bits are not clamped".to_owned());
    }
    if !base.is_empty() && *end != IntegerEnd::Wide {
        return Err("only to values of 32 bits something is added after the shift".to_owned());
    }
    match end {
        IntegerEnd::Wide => Ok(()),
        IntegerEnd::Output if requant.shift == 0 => Ok(()),
        IntegerEnd::Output => Err(format!("shift {}, but an output has none", requant.shift)),
        IntegerEnd::Codes => {
            if !(0 <= lo && lo <= hi && hi <= 255) {
                return Err(format!("codes of {lo} to {hi}, expected a range within 0 to 255"));
            }
            check_bounds(sum)
        }
        IntegerEnd::Table(tables) => {
            if !requant.bounds.is_empty() {
                return Err("a table is read with one range for all channels".to_owned());
            }
            let entries = i64::from(hi) - i64::from(lo) + 1;
            if !(1..=256).contains(&entries) {
                return Err(format!("a table read with {lo} to {hi}, expected 1 to 256 entries"));
            }
            if tables.len() != 1 && tables.len() != channels {
                return Err(format!("{} tables, expected 1 or {channels}", tables.len()));
            }
            if tables.len() > 1 && tables.iter().all(|table| *table == tables[0]) {
                return Err("the same table for every channel, written channel by channel".to_owned());
            }
            match tables.iter().find(|table| table.len() as i64 != entries) {
                Some(table) => Err(format!("a table of {} codes, expected {entries}", table.len())),
                None => Ok(()),
            }
        }
    }
}

/// A file holds the layer's range or the channels', so that each network has one form.
fn check_bounds(sum: &IntegerSum) -> Checked {
    let requant = &sum.requant;
    let [first, rest @ ..] = &requant.bounds[..] else { return Ok(()) };
    let hull = rest.iter().fold(*first, |(lo, hi), bound| (lo.min(bound.0), hi.max(bound.1)));
    if hull != (requant.lo, requant.hi) {
        let (lo, hi) = hull;
        return Err(format!("codes of {} to {}, but its channels have {lo} to {hi}", requant.lo, requant.hi));
    }
    if rest.iter().all(|bound| bound == first) {
        return Err("the same codes for every channel, written channel by channel".to_owned());
    }
    Ok(())
}

impl IntegerLayer {
    /// Who pads which tensor with which code.
    fn paddings(&self) -> impl Iterator<Item = (&str, TensorId, u32)> {
        let products = self.op.products().filter(|p| p.reads_padding()).map(|p| (&*p.name, p.input, p.padding_code));
        let window = match &self.op {
            IntegerOp::WindowSum { input, window, padding_code, .. } if reads_padding(window) => {
                Some((&*self.name, *input, *padding_code))
            }
            _ => None,
        };
        products.chain(window)
    }
}

/// Shape and code range that follow from the inputs, which are checked already.
pub(crate) fn output(known: Known<'_>, op: &IntegerOp) -> Checked<(Shape, (i64, i64))> {
    let (shape, range) = output_of(known, op)?;
    check_shape(shape)?;
    Ok((shape, range))
}

fn output_of(known: Known<'_>, op: &IntegerOp) -> Checked<(Shape, (i64, i64))> {
    match op {
        IntegerOp::Sum(sum) => {
            let shape = sum_shape(known, sum)?;
            check_lengths(sum, shape.c)?;
            let range = match &sum.end {
                IntegerEnd::Codes => (sum.requant.lo.into(), sum.requant.hi.into()),
                IntegerEnd::Table(tables) => {
                    let codes = || tables.iter().flatten();
                    let ends = codes().min().zip(codes().max());
                    ends.map(|(lo, hi)| ((*lo).into(), (*hi).into())).ok_or("a table without codes")?
                }
                IntegerEnd::Wide => known.model.wide_range(sum, shape.c)?,
                IntegerEnd::Output => (0, 0),
            };
            Ok((shape, range))
        }
        IntegerOp::Concat { inputs } => {
            let [first, _, ..] = inputs[..] else {
                return Err(format!("{} inputs of a concatenation, expected two or more", inputs.len()));
            };
            let mut shape = Shape { c: 0, ..known.shape(first) };
            let (mut lo, mut hi) = known.model.code_range(first);
            for &input in inputs {
                let from = known.shape(input);
                if !matches!(known.kind(input), TensorKind::Codes | TensorKind::Wide)
                    || known.kind(input) != known.kind(first)
                {
                    return Err("a concatenation reads codes alone or streams alone".to_owned());
                }
                if (from.h, from.w) != (shape.h, shape.w) {
                    return Err(format!("an input of {from}, but the first has {}x{} pixels", shape.h, shape.w));
                }
                shape.c += from.c;
                let (low, high) = known.model.code_range(input);
                (lo, hi) = (lo.min(low), hi.max(high));
            }
            Ok((shape, (lo, hi)))
        }
        IntegerOp::View(view) => {
            let shape = view_shape(known, view)?;
            Ok((shape, known.model.view_range(view)))
        }
        IntegerOp::MaxPool { input, window } => {
            let from = pool_input(known, *input, window)?;
            let shape = window_shape(from, window)?;
            if sees_padding_alone(window, from, [shape.h, shape.w]) {
                return Err("a max pool with a window that sees only padding".to_owned());
            }
            Ok((shape, known.model.code_range(*input)))
        }
        IntegerOp::WindowSum { input, window, padding_code, factors } => {
            let from = pool_input(known, *input, window)?;
            if known.kind(*input) != TensorKind::Codes {
                return Err(format!("a window sum reads codes, not {}", name(known.kind(*input))));
            }
            let (lo, hi) = known.model.code_range(*input);
            let pad = i64::from(*padding_code);
            let largest = if reads_padding(window) { hi } else { 0 };
            if pad > largest {
                return Err(format!("padding code {padding_code}, expected 0 to {largest}"));
            }
            let shape = window_shape(from, window)?;
            // Below 2^31: a tensor has at most 2^22 pixels, padding included, as its channels count for 16 at least.
            let positions = (window.kernel[0] * window.kernel[1]) as i64;
            let lo = if reads_padding(window) { lo.min(pad) } else { lo };
            if !factors.is_empty() && factors.len() != shape.h * shape.w {
                return Err(format!(
                    "{} factors, expected one for each of {}x{} positions",
                    factors.len(),
                    shape.h,
                    shape.w
                ));
            }
            let least = factors.iter().copied().min().unwrap_or(1);
            let most = factors.iter().copied().max().unwrap_or(1);
            if least == 0 || (!factors.is_empty() && most == 1) {
                return Err("factors that are 0, or all 1 where none need to be written".to_owned());
            }
            let (least, most) = (i64::from(least), i64::from(most));
            // Linear in the factor, so one of its ends is the smallest.
            let smallest = (lo * least + pad * (most - least)).min(lo * most);
            let (lo, hi) = (smallest * positions, hi * most * positions);
            if hi > i64::from(i32::MAX) {
                return Err(format!("sums of up to {hi}, expected those of 32 bits"));
            }
            Ok((shape, (lo, hi)))
        }
    }
}

/// Shape of a sum, which all its terms have.
fn sum_shape(known: Known<'_>, sum: &IntegerSum) -> Checked<Shape> {
    if sum.terms.len().max(sum.base.len()) > MOST_TERMS {
        return Err(format!("more than {MOST_TERMS} terms or tensors added after the shift"));
    }
    let mut shape: Option<Shape> = None;
    let mut same = |what: &str, other: Shape| match *shape.get_or_insert(other) {
        first if first == other => Ok(()),
        first => Err(format!("{what} gives {other}, but the first term {first}")),
    };
    for (i, term) in sum.terms.iter().enumerate() {
        match term {
            IntegerTerm::Product(product) => same(&format!("`{}`", product.name), product_shape(known, product)?)?,
            IntegerTerm::View(view) => same(&format!("term {i}"), view_shape(known, view)?)?,
            IntegerTerm::Multiplication { a, b, zeros } => {
                same(&format!("term {i}"), multiplication_shape(known, [a, b], *zeros)?)?;
            }
        }
    }
    for (view, _) in &sum.base {
        same("what is added after the shift", view_shape(known, view)?)?;
    }
    shape.ok_or_else(|| "a sum without terms".to_owned())
}

fn multiplication_shape(known: Known<'_>, factors: [&IntegerView; 2], zeros: [i64; 2]) -> Checked<Shape> {
    for (view, zero) in factors.into_iter().zip(zeros) {
        if known.kind(view.input) != TensorKind::Codes {
            return Err("only codes are multiplied".to_owned());
        }
        if !(0..=255).contains(&zero) {
            return Err(format!("a zero of {zero}, expected a code of 0 to 255"));
        }
    }
    let [a, b] = factors.map(|view| view_shape(known, view));
    let (a, b) = (a?, b?);
    if a != b && b != Shape::new(1, 1, a.c) {
        return Err(format!("factors of {a} and {b}, expected one shape or a second factor of 1x1x{}", a.c));
    }
    Ok(a)
}

fn check_lengths(sum: &IntegerSum, channels: usize) -> Checked {
    let requant = &sum.requant;
    same_length("lists of multipliers", requant.mul.len(), sum.terms.len())?;
    requant.mul.iter().try_for_each(|mul| same_length("multipliers", mul.len(), channels))?;
    same_length("constants", requant.add.len(), channels)
}

fn same_length(what: &str, got: usize, expected: usize) -> Checked {
    if got == expected { Ok(()) } else { Err(format!("{got} {what}, expected {expected}")) }
}

/// Shape of what a window gives over a tensor of `from`.
fn window_shape(from: Shape, window: &Window) -> Checked<Shape> {
    check_window(window)?;
    let Some([h, w]) = window.positions(from) else {
        let [rows, columns] = window.extent();
        let [h, w] = window.padded(from);
        return Err(format!("a window of {rows}x{columns} pixels does not fit the {h}x{w} of its padded input {from}"));
    };
    let [padded_h, padded_w] = window.padded(from);
    if !fits(from, window.padding.most()) || !fits(Shape::new(padded_h, padded_w, from.c), 0) {
        return Err(format!(
            "an input of {from} that is padded to {padded_h}x{padded_w}, more than {LARGEST_TENSOR} elements"
        ));
    }
    Ok(Shape::new(h, w, from.c))
}

/// Checks the sizes of a window, so that what is computed from them stays far below 2^64.
fn check_window(window: &Window) -> Checked {
    let Window { kernel, stride, padding, dilation, spread } = *window;
    for (what, pair) in [("kernel", kernel), ("stride", stride), ("dilation", dilation), ("spread", spread)] {
        for (direction, n) in ["rows", "columns"].into_iter().zip(pair) {
            bound(&format!("{what} {direction}"), n, 1)?;
        }
    }
    for n in [padding.top, padding.left, padding.bottom, padding.right] {
        bound("padding", n, 0)?;
    }
    Ok(())
}

fn bound(what: &str, n: usize, least: usize) -> Checked {
    let ok = (least..=LARGEST_SIDE).contains(&n);
    if ok { Ok(()) } else { Err(format!("{what} {n}, expected {least} to {LARGEST_SIDE}")) }
}

/// Whether some output position of a window that is not spread sees nothing but padding. With padding less than the
/// extent, that takes dilation.
fn sees_padding_alone(window: &Window, from: Shape, positions: [usize; 2]) -> bool {
    let before = [window.padding.top, window.padding.left];
    let along = |i: usize, side: usize| {
        (0..positions[i]).any(|position| {
            let at = position * window.stride[i];
            // The first row or column of the window that lies behind the padding before the tensor.
            let k = before[i].saturating_sub(at).div_ceil(window.dilation[i]);
            k >= window.kernel[i] || at + k * window.dilation[i] >= before[i] + side
        })
    };
    along(0, from.h) || along(1, from.w)
}

/// Shape of the codes that a pool with this window reads.
fn pool_input(known: Known<'_>, input: TensorId, window: &Window) -> Checked<Shape> {
    match known.kind(input) {
        TensorKind::Codes | TensorKind::Wide => {}
        TensorKind::Image => return Err("only a product can read the image".to_owned()),
        kind => return Err(format!("a pool reads codes or a residual stream, not {}", name(kind))),
    }
    check_window(window)?;
    if window.spread != [1; 2] {
        return Err("a pool whose input is spread".to_owned());
    }
    let extent = window.extent();
    let padding = window.padding;
    for (side, kernel) in [padding.top.max(padding.bottom), padding.left.max(padding.right)].into_iter().zip(extent) {
        if side >= kernel {
            return Err(format!("padding {side}, expected less than the kernel, {kernel}"));
        }
    }
    Ok(known.shape(input))
}

fn name(kind: TensorKind) -> &'static str {
    match kind {
        TensorKind::Image => "the image",
        TensorKind::Codes => "codes",
        TensorKind::Sums => "sums of codes",
        TensorKind::Wide => "a residual stream",
        TensorKind::Output => "an output of the network",
    }
}

/// Shape of a view.
fn view_shape(known: Known<'_>, view: &IntegerView) -> Checked<Shape> {
    match known.kind(view.input) {
        TensorKind::Image => return Err("only a product can read the image".to_owned()),
        TensorKind::Output => return Err("nothing reads an output of the network".to_owned()),
        TensorKind::Codes | TensorKind::Sums | TensorKind::Wide => {}
    }
    if view.moves.len() > MOST_MOVES {
        return Err(format!("{} moves of one tensor, expected at most {MOST_MOVES}", view.moves.len()));
    }
    let (lo, hi) = known.model.code_range(view.input);
    match (view.inserts(), view.fill) {
        (false, 0) => {}
        (true, fill) if fill == 0 || (lo..=hi).contains(&fill) => {}
        (true, fill) => return Err(format!("inserted elements of {fill}, expected 0 or a value from {lo} to {hi}")),
        (false, fill) => return Err(format!("inserted elements of {fill}, but none are inserted")),
    }
    let mut shape = known.shape(view.input);
    for step in &view.moves {
        if let Move::Stride { rows, columns } = *step {
            bound("stride rows", rows, 1)?;
            bound("stride columns", columns, 1)?;
        }
        shape = moved_shape(shape, std::slice::from_ref(step))?;
        check_shape(shape)?;
    }
    Ok(shape)
}

fn product_shape(known: Known<'_>, product: &IntegerProduct) -> Checked<Shape> {
    let from = known.shape(product.input);
    let name = &product.name;
    if name.is_empty() {
        return Err("a product without a name".to_owned());
    }
    match known.kind(product.input) {
        TensorKind::Wide => return Err(format!("`{name}` reads a residual stream, which only other terms can")),
        TensorKind::Output => return Err("nothing reads an output of the network".to_owned()),
        TensorKind::Image | TensorKind::Codes | TensorKind::Sums => {}
    }
    let IntegerProduct { ref window, padding_code, in_channels, out_channels, groups, .. } = *product;
    if in_channels != from.c {
        return Err(format!("`{name}` reads {in_channels} channels, but its input has {}", from.c));
    }
    if !(1..=LARGEST_CHANNELS).contains(&out_channels) {
        return Err(format!("`{name}` has {out_channels} output channels, expected 1 to {LARGEST_CHANNELS}"));
    }
    if groups == 0 || !in_channels.is_multiple_of(groups) || !out_channels.is_multiple_of(groups) {
        return Err(format!(
            "`{name}`: {groups} groups do not divide {in_channels} input and {out_channels} output channels"
        ));
    }
    let largest =
        if !product.reads_padding() || product.input == 0 { 0 } else { known.model.code_range(product.input).1 };
    if i64::from(padding_code) > largest {
        return Err(format!("`{name}` pads with code {padding_code}, expected 0 to {largest}"));
    }
    let out = window_shape(from, window).map_err(|e| format!("`{name}`: {e}"))?;
    let sizes = [out_channels, in_channels / groups, window.kernel[0], window.kernel[1]];
    let expected = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    if expected != Some(product.codes.len()) {
        return Err(format!("`{name}` has {} weights, expected {sizes:?}", product.codes.len()));
    }
    Ok(Shape::new(out.h, out.w, out_channels))
}

fn check_codes(product: &IntegerProduct) -> Checked {
    let IntegerProduct { name, weight_bits, grid, codes, .. } = product;
    let limit = match (Bits::new(*weight_bits), weight_bits) {
        (Some(bits), _) => grid.code_limit(bits),
        (None, 16) if *grid == Grid::WithZero => CODE_LIMIT_16BIT,
        (None, 16) => return Err(format!("`{name}`: 16-bit weights have a grid with zero")),
        _ => return Err(format!("`{name}` has weights of {weight_bits} bits, expected 1 to 8, or 16")),
    };
    let even_allowed = *grid == Grid::WithZero;
    let off_grid = |&code: &i16| i32::from(code).abs() > limit || (code & 1 == 0 && !even_allowed);
    // Whole pieces first, without a branch a weight.
    let is_off = |piece: &[i16]| piece.iter().fold(false, |any, code| any | off_grid(code));
    let bad = codes.chunks(1024).position(is_off).map(|piece| 1024 * piece);
    match bad.and_then(|from| Some(from + codes[from..].iter().position(off_grid)?)) {
        Some(i) => Err(format!("`{name}`: weight {i} is {}, which is no {weight_bits}-bit code", codes[i])),
        None => Ok(()),
    }
}
