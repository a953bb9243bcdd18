//! The proof that an integer network can be computed: sizes, order, shapes, grids and ranges.

use std::collections::HashSet;

use bitpact_core::step::accumulator_range;
use bitpact_core::{Bits, CODE_LIMIT_16BIT, Grid, IntegerStep, Ranges};
use bitpact_graph::Shape;

use super::{IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerResidual, TensorId, TensorKind};
use crate::ModelError;
use crate::model::{check_class_names, check_texts};

/// Bound on every size, so that products of sizes stay far below 2^64.
const LARGEST_SIDE: usize = 1 << 15;
/// Bound on channels.
const LARGEST_CHANNELS: usize = 1 << 16;
/// Bound on the elements of one tensor of one image, its padding included and its channels rounded up to 16.
const LARGEST_TENSOR: usize = 1 << 26;

type Checked<T = ()> = Result<T, String>;

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
        if matches!(layer.op, IntegerOp::Logits { .. }) != (i == last) {
            return Err(fail("the last layer, and no other, gives the logits".to_owned()));
        }
        check_layer(model, layer).map_err(fail)?;
        for (name, tensor, code) in layer.paddings() {
            let first = *padding_codes[tensor].get_or_insert(code);
            if first != code {
                let what = format!("`{name}` pads tensor {tensor} with code {code}, an earlier reader with {first}");
                return Err(fail(what));
            }
        }
    }
    if let Some(tensor) = (0..=last).find(|&tensor| !read[tensor]) {
        return match tensor.checked_sub(1) {
            None => description("input shape", "no layer reads the image".to_owned()),
            Some(layer) => Err(ModelError::layer(&model.layers[layer].name, "no layer reads its output")),
        };
    }
    check_class_names(&model.class_names, model.classes())
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

fn check_layer(model: &IntegerModel, layer: &IntegerLayer) -> Checked {
    if !(layer.scale.is_finite() && layer.scale > 0.0) {
        return Err(format!("scale {}, expected a positive number", layer.scale));
    }
    let (shape, (lo, hi)) = output(model, &layer.op)?;
    if layer.shape != shape {
        return Err(format!("shape {}, but its inputs give {shape}", layer.shape));
    }
    if (i64::from(layer.lo), i64::from(layer.hi)) != (lo, hi) {
        return Err(format!("codes of {} to {}, but its inputs give {lo} to {hi}", layer.lo, layer.hi));
    }
    layer.op.products().try_for_each(check_codes)?;
    match &layer.op {
        IntegerOp::Product { main, second, residual, step } => {
            check_code_range(step)?;
            check_step(model, main, second.as_ref(), *residual, step)
        }
        IntegerOp::Stream { main, second, residual, step, res_mul } => {
            if (step.lo, step.hi) != (i32::MIN, i32::MAX) || !step.bounds.is_empty() {
                return Err("a stream is not clamped".to_owned());
            }
            if residual.is_none() && *res_mul != 0 {
                return Err(format!("a multiplier of {res_mul} without a shortcut"));
            }
            check_step(model, main, second.as_ref(), None, step)
        }
        IntegerOp::Act { input, step } => {
            check_code_range(step)?;
            let n = layer.shape.c;
            for (what, list, n) in
                [("mul", step.mul.len(), n), ("mul2", step.mul2.len(), 0), ("res_mul", step.res_mul.len(), 0)]
            {
                same_length(what, list, n)?;
            }
            let acc = vec![model.code_range(*input); n];
            let ranges = Ranges { acc: &acc, acc2: &[], res: (0, 0) };
            step.largest_sum(&ranges).map(drop).map_err(|e| e.to_string())
        }
        IntegerOp::Logits { main, mul, add } => {
            same_length("mul", mul.len(), main.out_channels)?;
            same_length("add", add.len(), main.out_channels)?;
            for (c, (lo, hi)) in model.acc_ranges(main)?.into_iter().enumerate() {
                let reach = i128::from(lo).abs().max(i128::from(hi).abs());
                if reach * i128::from(mul[c]).abs() + i128::from(add[c]).abs() >= 1 << 63 {
                    return Err(format!("channel {c}: the logit can leave 64 bits"));
                }
            }
            Ok(())
        }
        IntegerOp::MaxPool { .. }
        | IntegerOp::SumPool { .. }
        | IntegerOp::WindowSum { .. }
        | IntegerOp::Concat { .. } => Ok(()),
    }
}

impl IntegerLayer {
    /// Who pads which tensor with which code.
    fn paddings(&self) -> impl Iterator<Item = (&str, TensorId, u32)> {
        let products = self.op.products().filter(|p| p.padding > 0).map(|p| (&*p.name, p.input, p.padding_code));
        let window = match self.op {
            IntegerOp::WindowSum { input, padding: 1.., padding_code, .. } => Some((&*self.name, input, padding_code)),
            _ => None,
        };
        products.chain(window)
    }
}

/// Shape and code range that follow from the inputs, which are checked already.
pub(crate) fn output(model: &IntegerModel, op: &IntegerOp) -> Checked<(Shape, (i64, i64))> {
    let (shape, range) = output_of(model, op)?;
    check_shape(shape)?;
    Ok((shape, range))
}

fn output_of(model: &IntegerModel, op: &IntegerOp) -> Checked<(Shape, (i64, i64))> {
    match op {
        IntegerOp::Product { main, second, residual, step } => {
            let shape = sum_shape(model, main, second.as_ref(), residual.as_ref())?;
            if let Some(residual) = residual {
                codes_shape(model, residual.input)?;
            }
            Ok((shape, (step.lo.into(), step.hi.into())))
        }
        IntegerOp::Stream { main, second, residual, step, res_mul } => {
            let shape = sum_shape(model, main, second.as_ref(), residual.as_ref())?;
            let range = model.stream_range(main, second.as_ref(), residual.as_ref(), step, *res_mul)?;
            Ok((shape, range))
        }
        IntegerOp::Act { input, step } => {
            if !matches!(model.kind(*input), TensorKind::Stream | TensorKind::Sums) {
                return Err("an activation reads a residual stream or sums of codes".to_owned());
            }
            Ok((model.shape(*input), (step.lo.into(), step.hi.into())))
        }
        IntegerOp::Concat { inputs } => {
            let [first, _, ..] = inputs[..] else {
                return Err(format!("{} inputs of a concatenation, expected two or more", inputs.len()));
            };
            let mut shape = Shape { c: 0, ..model.shape(first) };
            let (mut lo, mut hi) = model.code_range(first);
            for &input in inputs {
                let from = model.shape(input);
                if !matches!(model.kind(input), TensorKind::Codes | TensorKind::Stream)
                    || model.kind(input) != model.kind(first)
                {
                    return Err("a concatenation reads codes alone or streams alone".to_owned());
                }
                if (from.h, from.w) != (shape.h, shape.w) {
                    return Err(format!("an input of {from}, but the first has {}x{} pixels", shape.h, shape.w));
                }
                shape.c += from.c;
                let (low, high) = model.code_range(input);
                (lo, hi) = (lo.min(low), hi.max(high));
            }
            Ok((shape, (lo, hi)))
        }
        IntegerOp::Logits { main, .. } => {
            let shape = product_shape(model, main)?;
            if (shape.h, shape.w) != (1, 1) {
                return Err(format!("shape {shape}, but logits are one value a class"));
            }
            Ok((shape, (0, 0)))
        }
        &IntegerOp::MaxPool { input, kernel, stride, padding } => {
            let from = codes_shape(model, input)?;
            if padding >= kernel {
                return Err(format!("padding {padding}, expected less than the kernel, {kernel}"));
            }
            let shape = window(from, [kernel; 2], stride, padding)?;
            Ok((shape, model.code_range(input)))
        }
        &IntegerOp::WindowSum { input, kernel, stride, padding, padding_code } => {
            let from = codes_shape(model, input)?;
            if padding >= kernel {
                return Err(format!("padding {padding}, expected less than the kernel, {kernel}"));
            }
            let (lo, hi) = model.code_range(input);
            let pad = i64::from(padding_code);
            if pad > if padding > 0 { hi } else { 0 } {
                return Err(format!("padding code {padding_code}, expected 0 to {}", if padding > 0 { hi } else { 0 }));
            }
            let shape = window(from, [kernel; 2], stride, padding)?;
            // Below 2^31, as for a sum over the whole tensor.
            let positions = (kernel * kernel) as i64;
            let lo = if padding > 0 { lo.min(pad) } else { lo };
            Ok((shape, (lo * positions, hi * positions)))
        }
        &IntegerOp::SumPool { input } => {
            let from = codes_shape(model, input)?;
            let (lo, hi) = model.code_range(input);
            // Below 2^31: a tensor has at most 2^22 pixels, as its channels count for 16 at least.
            let pixels = (from.h * from.w) as i64;
            Ok((Shape::new(1, 1, from.c), (lo * pixels, hi * pixels)))
        }
    }
}

/// Shape of a sum of products and a shortcut, which must be one.
fn sum_shape(
    model: &IntegerModel,
    main: &IntegerProduct,
    second: Option<&IntegerProduct>,
    residual: Option<&IntegerResidual>,
) -> Checked<Shape> {
    let shape = product_shape(model, main)?;
    if let Some(second) = second {
        let other = product_shape(model, second)?;
        if other != shape {
            return Err(format!("`{}` gives {other}, but `{}` gives {shape}", second.name, main.name));
        }
    }
    if let Some(residual) = residual {
        let other = residual_shape(model, residual)?;
        if other != shape {
            return Err(format!("the shortcut gives {other}, but `{}` gives {shape}", main.name));
        }
    }
    Ok(shape)
}

fn window(from: Shape, kernel: [usize; 2], stride: usize, padding: usize) -> Checked<Shape> {
    let bound = |what, n: usize, least: usize| {
        let ok = (least..=LARGEST_SIDE).contains(&n);
        if ok { Ok(()) } else { Err(format!("{what} {n}, expected {least} to {LARGEST_SIDE}")) }
    };
    bound("kernel rows", kernel[0], 1)?;
    bound("kernel columns", kernel[1], 1)?;
    bound("stride", stride, 1)?;
    bound("padding", padding, 0)?;
    if from.h + 2 * padding < kernel[0] || from.w + 2 * padding < kernel[1] {
        let [rows, columns] = kernel;
        return Err(format!("a {rows}x{columns} window with padding {padding} does not fit an input of {from}"));
    }
    if !fits(from, padding) {
        return Err(format!("an input of {from} with padding {padding}, which is more than {LARGEST_TENSOR} elements"));
    }
    let side = |s: usize, k: usize| (s + 2 * padding - k) / stride + 1;
    Ok(Shape::new(side(from.h, kernel[0]), side(from.w, kernel[1]), from.c))
}

/// Shape of a tensor that holds 8-bit codes and is not the image.
fn codes_shape(model: &IntegerModel, tensor: TensorId) -> Checked<Shape> {
    if tensor == 0 {
        return Err("only a product can read the image".to_owned());
    }
    match model.kind(tensor) {
        TensorKind::Sums => Err("only a product or an activation can read a sum of codes".to_owned()),
        TensorKind::Stream => Err("only an activation can read a residual stream".to_owned()),
        _ => Ok(model.shape(tensor)),
    }
}

fn residual_shape(model: &IntegerModel, residual: &IntegerResidual) -> Checked<Shape> {
    let from = match model.kind(residual.input) {
        TensorKind::Stream => model.shape(residual.input),
        _ => codes_shape(model, residual.input)?,
    };
    let IntegerResidual { stride, pad_before, pad_after, .. } = *residual;
    if !(1..=LARGEST_SIDE).contains(&stride) || pad_before > LARGEST_CHANNELS || pad_after > LARGEST_CHANNELS {
        return Err(format!("a shortcut of stride {stride} with {pad_before} and {pad_after} more channels"));
    }
    Ok(Shape::new(from.h.div_ceil(stride), from.w.div_ceil(stride), pad_before + from.c + pad_after))
}

fn product_shape(model: &IntegerModel, product: &IntegerProduct) -> Checked<Shape> {
    let from = model.shape(product.input);
    let name = &product.name;
    if name.is_empty() {
        return Err("a product without a name".to_owned());
    }
    if model.kind(product.input) == TensorKind::Stream {
        return Err(format!("`{name}` reads a residual stream, which only an activation can"));
    }
    let IntegerProduct { kernel, stride, padding, padding_code, in_channels, out_channels, groups, .. } = *product;
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
    let largest = if padding == 0 || product.input == 0 { 0 } else { model.code_range(product.input).1 };
    if i64::from(padding_code) > largest {
        return Err(format!("`{name}` pads with code {padding_code}, expected 0 to {largest}"));
    }
    let out = window(from, kernel, stride, padding).map_err(|e| format!("`{name}`: {e}"))?;
    let sizes = [out_channels, in_channels / groups, kernel[0], kernel[1]];
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

impl IntegerModel {
    /// Smallest and largest sum of every output channel of a product, for any image.
    ///
    /// # Errors
    /// A sum that can leave i64.
    pub fn acc_ranges(&self, product: &IntegerProduct) -> Result<Vec<(i64, i64)>, String> {
        let (lo, hi) = self.code_range(product.input);
        let lo = if product.padding > 0 && product.input > 0 { lo.min(product.padding_code.into()) } else { lo };
        (0..product.out_channels)
            .map(|o| {
                // Below 2^15 times the number of codes.
                let (negative, positive) = accumulator_range(product.channel(o), 0, 1);
                let [n, p, lo, hi] = [negative, positive, lo, hi].map(i128::from);
                let ends = (i64::try_from(lo * p + hi * n), i64::try_from(hi * p + lo * n));
                let (Ok(from), Ok(to)) = ends else {
                    return Err(format!("channel {o} of `{}`: the sum can leave 64 bits", product.name));
                };
                Ok((from, to))
            })
            .collect()
    }

    /// Smallest and largest value of a residual stream: the extremes of the step over the proved ranges of its sums, of
    /// all channels, and those of the shortcut.
    fn stream_range(
        &self,
        main: &IntegerProduct,
        second: Option<&IntegerProduct>,
        residual: Option<&IntegerResidual>,
        step: &IntegerStep,
        res_mul: i32,
    ) -> Checked<(i64, i64)> {
        check_lengths(main, second, None, step)?;
        let acc = self.acc_ranges(main)?;
        let acc2 = second.map_or(Ok(Vec::new()), |second| self.acc_ranges(second))?;
        let (mut lo, mut hi) = (i128::MAX, i128::MIN);
        for c in 0..main.out_channels {
            let term = |mul: Option<&i32>, range: Option<&(i64, i64)>| -> (i128, i128) {
                let (mul, &(from, to)) = (mul.map_or(0, |&m| i128::from(m)), range.unwrap_or(&(0, 0)));
                let ends = [mul * i128::from(from), mul * i128::from(to)];
                (ends[0].min(ends[1]), ends[0].max(ends[1]))
            };
            let (a, b) = (term(step.mul.get(c), acc.get(c)), term(step.mul2.get(c), acc2.get(c)));
            let add = i128::from(step.add[c]);
            lo = lo.min((a.0 + b.0 + add) >> step.shift.min(62));
            hi = hi.max((a.1 + b.1 + add) >> step.shift.min(62));
        }
        if let Some(residual) = residual {
            let (from, to) = self.residual_range(residual);
            let ends = [i128::from(from) * i128::from(res_mul), i128::from(to) * i128::from(res_mul)];
            (lo, hi) = (lo + ends[0].min(ends[1]), hi + ends[0].max(ends[1]));
        }
        if lo <= i128::from(i32::MIN) || hi > i128::from(i32::MAX) {
            return Err(format!("a stream that ranges from {lo} to {hi}, expected values of 32 bits"));
        }
        Ok((lo as i64, hi as i64))
    }

    /// Smallest and largest value of a shortcut: those of its tensor and 0, which fills its additional channels. One range for all channels, also for those that are filled.
    pub fn residual_range(&self, residual: &IntegerResidual) -> (i64, i64) {
        let (lo, hi) = self.code_range(residual.input);
        (lo.min(0), hi.max(0))
    }
}

fn check_step(
    model: &IntegerModel,
    main: &IntegerProduct,
    second: Option<&IntegerProduct>,
    residual: Option<IntegerResidual>,
    step: &IntegerStep,
) -> Checked {
    check_lengths(main, second, residual, step)?;
    let acc2 = second.map_or(Ok(Vec::new()), |second| model.acc_ranges(second))?;
    let res = residual.map_or((0, 0), |r| model.residual_range(&r));
    let ranges = Ranges { acc: &model.acc_ranges(main)?, acc2: &acc2, res };
    step.largest_sum(&ranges).map(drop).map_err(|e| e.to_string())
}

fn check_code_range(step: &IntegerStep) -> Checked {
    if !(0 <= step.lo && step.lo <= step.hi && step.hi <= 255) {
        return Err(format!("codes of {} to {}, expected a range within 0 to 255", step.lo, step.hi));
    }
    // A file holds the layer's range or the channels', so that each network has one form.
    if let [first, rest @ ..] = &step.bounds[..] {
        let hull = rest.iter().fold(*first, |(lo, hi), bound| (lo.min(bound.0), hi.max(bound.1)));
        if hull != (step.lo, step.hi) {
            return Err(format!("codes of {} to {}, but its channels have {} to {}", step.lo, step.hi, hull.0, hull.1));
        }
        if rest.iter().all(|bound| bound == first) {
            return Err("the same codes for every channel, written channel by channel".to_owned());
        }
    }
    Ok(())
}

fn check_lengths(
    main: &IntegerProduct,
    second: Option<&IntegerProduct>,
    residual: Option<IntegerResidual>,
    step: &IntegerStep,
) -> Checked {
    let n = main.out_channels;
    same_length("mul", step.mul.len(), n)?;
    same_length("mul2", step.mul2.len(), if second.is_some() { n } else { 0 })?;
    same_length("res_mul", step.res_mul.len(), if residual.is_some() { n } else { 0 })?;
    same_length("add", step.add.len(), n)
}

fn same_length(what: &str, got: usize, expected: usize) -> Checked {
    if got == expected { Ok(()) } else { Err(format!("{got} values of {what}, expected {expected}")) }
}
