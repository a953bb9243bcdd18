//! Operators on single elements.

use bitpact_core::Function;
use bitpact_graph::{BatchNorm, Move, Op, Shape};

use super::super::importer::Importer;
use super::super::names;
use super::super::node::NodeView;
use super::super::value::{Affine, Form, Lazy, Tensor, Value};
use super::product::channels;
use crate::onnx::tensor::kind;

/// Batch normalization.
pub(super) fn batch_norm(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    if node.int("training_mode", 0) != 0 {
        return Err("training_mode 1: export the network as it is evaluated".to_owned());
    }
    if node.int("spatial", 1) != 1 {
        return Err("spatial 0, a normalization of every pixel by its own numbers".to_owned());
    }
    let tensors = [1, 2, 3, 4].map(|i| importer.needed(node, i));
    let tensor = importer.tensor(node, 0)?;
    let (tensor, _) = importer.usual_solid(&tensor)?;
    let c = importer.builder.shape(tensor.node).c;
    let eps = f64::from(node.float("epsilon", 1e-5));
    let momentum = f64::from(1.0 - node.float("momentum", 0.9)).clamp(0.0, 1.0);
    // Decimal numbers as float32 hold them, without the digits that come of it.
    let short = |v: f64| format!("{:e}", v as f32).parse().unwrap_or(v);
    let (eps, momentum) = (short(eps), short((momentum * 1e6).round() / 1e6));
    let eps = if eps > 0.0 { eps } else { super::super::build::NO_EPS };
    let name = names::of_weights(node.node.input.get(1).map_or("", String::as_str), node);
    let id = importer.builder.push(&name, Op::BatchNorm(BatchNorm { eps, momentum }), &[tensor.node])?;
    for (what, array) in ["weight", "bias", "running_mean", "running_var"].into_iter().zip(tensors) {
        let values = channels(&*array?, c, what)?;
        importer.builder.set(id, what, vec![c], values);
    }
    Ok(Importer::with_node(&tensor, id))
}

/// Functions of one number.
pub(super) fn function(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let op = node.op();
    match op {
        "Clip" => {
            if node.node.output.iter().any(|name| importer.clips_of_codes.contains(name)) {
                return importer.lazy(node, 0);
            }
            for i in [1, 2] {
                if importer.constant(node, i)?.is_some_and(|limit| kind::integer(limit.kind).is_some()) {
                    return Err("a clip of whole numbers, expected it behind QuantizeLinear".to_owned());
                }
            }
            let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
            let limits = (importer.number(node, "min", 1, low)?, importer.number(node, "max", 2, high)?);
            return clip(importer, node, limits);
        }
        "Sigmoid" | "Erf" | "HardSigmoid" => {
            let (kind, before) = match op {
                "Sigmoid" => (Lazy::Sigmoid, Affine::identity()),
                "Erf" => (Lazy::Erf, Affine::identity()),
                _ => {
                    let (alpha, beta) = (node.float("alpha", 0.2), node.float("beta", 0.5));
                    (Lazy::Clip { low: 0.0, high: 1.0 }, Affine::of(f64::from(alpha), f64::from(beta)))
                }
            };
            return put_off(importer, node, kind, &before);
        }
        "Swish" => {
            let tensor = importer.tensor(node, 0)?;
            let alpha = f64::from(node.float("alpha", 1.0));
            if alpha != 1.0 {
                return Err(format!("alpha {alpha}, expected 1"));
            }
            let id = importer.builder.function(&importer.name(node), Function::Silu, tensor.node)?;
            return Ok(Importer::with_node(&tensor, id));
        }
        "ThresholdedRelu" => {
            return Err("the operator has no counterpart".to_owned());
        }
        _ => {}
    }
    let tensor = importer.tensor(node, 0)?;
    let name = importer.name(node);
    let alpha = |default: f32| f64::from(node.float("alpha", default));
    // The function, and what is done before and after it.
    let plain = |function: Function| (function, Affine::identity(), Affine::identity());
    let (function, before, after) = match op {
        "Relu" => {
            let id = importer.builder.push(&name, Op::Act { signed: false }, &[tensor.node])?;
            return Ok(Importer::with_node(&tensor, id));
        }
        "PRelu" => return prelu(importer, node, &tensor, &name),
        "Tanh" => plain(Function::Tanh),
        "HardSwish" => plain(Function::HardSwish),
        "LeakyRelu" => plain(Function::LeakyRelu { slope: alpha(0.01) }),
        "Elu" => plain(Function::Elu { scale: alpha(1.0) }),
        "Celu" => {
            let alpha = alpha(1.0);
            (Function::Elu { scale: 1.0 }, Affine::of(1.0 / alpha, 0.0), Affine::of(alpha, 0.0))
        }
        "Selu" => {
            let gamma = f64::from(node.float("gamma", 1.050_701));
            (Function::Elu { scale: alpha(1.673_263_2) }, Affine::identity(), Affine::of(gamma, 0.0))
        }
        "Gelu" => match node.text("approximate", "none") {
            "none" => plain(Function::Gelu),
            other => return Err(format!("approximate {other:?}, expected the exact function")),
        },
        other => return Err(format!("{other} has no counterpart")),
    };
    let input = importer.solid(&tensor.then(&before))?;
    let id = importer.builder.function(&name, function, input.node)?;
    Ok(Importer::with_node(&tensor, id).then(&after))
}

/// A clip to a range, which a factor may make another function.
fn clip(importer: &mut Importer, node: NodeView, (low, high): (f64, f64)) -> Result<Tensor, String> {
    if low.is_nan() || high.is_nan() || low >= high {
        return Err(format!("a clip to {low} to {high}"));
    }
    if (low, high) == (0.0, f64::INFINITY) {
        let tensor = importer.tensor(node, 0)?;
        let id = importer.builder.push(&importer.name(node), Op::Act { signed: false }, &[tensor.node])?;
        return Ok(Importer::with_node(&tensor, id));
    }
    put_off(importer, node, Lazy::Clip { low, high }, &Affine::identity())
}

fn put_off(importer: &mut Importer, node: NodeView, kind: Lazy, inner: &Affine) -> Result<Tensor, String> {
    let tensor = importer.unpadded(node, 0)?;
    let (tensor, before) = match &tensor.form {
        Form::Affine(affine) if tensor.node != 0 => (tensor.clone(), affine.then(inner)),
        _ => (importer.solid(&tensor)?, inner.clone()),
    };
    let form = Form::Function { kind, before, after: Affine::identity(), name: importer.name(node) };
    Ok(Tensor { form, ..tensor })
}

fn prelu(importer: &mut Importer, node: NodeView, tensor: &Tensor, name: &str) -> Result<Tensor, String> {
    let slope = importer.needed(node, 1)?;
    let c = importer.builder.shape(tensor.node).c;
    // PyTorch's slopes of C channels come as [C, 1, 1].
    let values = importer.channel_constant(&slope, tensor)?;
    let name = match names::of_weights(&node.node.input[1], node) {
        given if given.is_empty() => name.to_owned(),
        given => given,
    };
    let id = importer.builder.function(&name, Function::Prelu, tensor.node)?;
    let slopes = (0..c).map(|i| values[i % values.len()] as f32).collect();
    importer.builder.set(id, "weight", vec![c], slopes);
    Ok(Importer::with_node(tensor, id))
}

/// Sums, products and limits of tensors and constants.
pub(super) fn arithmetic(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let op = node.op();
    if op == "Neg" {
        return Ok(importer.unpadded(node, 0)?.then(&Affine::of(-1.0, 0.0)));
    }
    let is_data = |i: usize| matches!(importer.value(node, i), Some(Value::Data(_)));
    let inputs = node.node.input.len();
    let (data, constants): (Vec<usize>, Vec<usize>) = (0..inputs).partition(|&i| is_data(i));
    match (op, &data[..], &constants[..]) {
        (_, &[one], &[]) => importer.unpadded(node, one),
        ("Mul" | "Div" | "Add" | "Sub" | "Sum", &[at], &[other]) => with_constant(importer, node, at, other),
        ("Max" | "Min", &[at], &[other]) => {
            let limit = importer.needed(node, other)?;
            let tensor = importer.unpadded(node, at)?;
            let &[limit] = &importer.channel_constant(&limit, &tensor)?[..] else {
                return Err("a limit for each channel, expected one number".to_owned());
            };
            if at != 0 {
                return Err("a limit before the tensor, expected it behind it".to_owned());
            }
            let limits = if op == "Max" { (limit, f64::INFINITY) } else { (f64::NEG_INFINITY, limit) };
            clip(importer, node, limits)
        }
        ("Add" | "Sum", _, &[]) => sum(importer, node, &data),
        ("Sub", &[a, b], &[]) => {
            let minus = importer.unpadded(node, b)?.then(&Affine::of(-1.0, 0.0));
            let plus = importer.tensor(node, a)?;
            let minus = importer.solid(&minus)?;
            added(importer, node, vec![plus, minus])
        }
        ("Mul", &[a, b], &[]) => product(importer, node, a, b),
        _ => Err(format!("{op} of {} tensors that the network computes and {} constants", data.len(), constants.len())),
    }
}

fn with_constant(importer: &mut Importer, node: NodeView, at: usize, other: usize) -> Result<Tensor, String> {
    let tensor = importer.unpadded(node, at)?;
    let array = importer.needed(node, other)?;
    if kind::integer(array.kind).is_some() {
        return Err(format!("a constant of {}", kind::name(array.kind)));
    }
    let values = importer.channel_constant(&array, &tensor)?;
    let affine = match (node.op(), at) {
        ("Mul", _) => Affine::times(values),
        ("Div", 0) if !values.contains(&0.0) => Affine::times(values.into_iter().map(f64::recip).collect()),
        ("Div", _) => return Err("a division by a tensor that the network computes, or by 0".to_owned()),
        ("Sub", 0) => Affine::plus(values.into_iter().map(|v| -v).collect()),
        ("Sub", _) => Affine { scale: vec![-1.0], shift: values },
        _ => Affine::plus(values),
    };
    Ok(tensor.then(&affine))
}

fn sum(importer: &mut Importer, node: NodeView, data: &[usize]) -> Result<Tensor, String> {
    let tensors = data.iter().map(|&i| importer.tensor(node, i)).collect::<Result<Vec<_>, _>>()?;
    added(importer, node, tensors)
}

/// The sum of tensors, those of one pixel repeated where others have more.
pub(super) fn added(importer: &mut Importer, node: NodeView, tensors: Vec<Tensor>) -> Result<Tensor, String> {
    let largest = tensors.iter().max_by_key(|tensor| importer.builder.shape(tensor.node).elements()).cloned();
    let largest = largest.ok_or("a sum of nothing")?;
    let (largest, to) = (largest.clone(), importer.builder.shape(largest.node));
    let mut nodes = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let shape = importer.builder.shape(tensor.node);
        if shape == to && tensor.layout == largest.layout {
            nodes.push(tensor.node);
        } else if shape == Shape::new(1, 1, to.c) && one_pixel_fits(&tensor, &largest) {
            let repeat = Op::View(Move::Repeat { rows: to.h, columns: to.w });
            let name = format!("{}.repeat", importer.builder.nodes[tensor.node].name);
            nodes.push(importer.builder.push(&name, repeat, &[tensor.node])?);
        } else {
            let (usual, _) = importer.usual_solid(&tensor)?;
            let (other, spatial) = importer.usual_solid(&largest)?;
            if usual.layout != other.layout || other.node != largest.node {
                return Err(format!("adds tensors of {:?} and {:?}", tensor.layout.sizes(), largest.layout.sizes()));
            }
            let _ = spatial;
            nodes.push(usual.node);
        }
    }
    let id = importer.builder.push(&importer.name(node), Op::Add, &nodes)?;
    Ok(Importer::with_node(&largest, id))
}

/// Whether a tensor of one pixel has its channels where `large` has them.
fn one_pixel_fits(small: &Tensor, large: &Tensor) -> bool {
    let (a, b) = (&small.layout.dims, &large.layout.dims);
    let Some(skipped) = b.len().checked_sub(a.len()) else { return false };
    let is_fit = |i: usize| a[i] == b[i + skipped] || a[i].is_empty();
    skipped == 0
        && (0..a.len()).all(is_fit)
        && a.iter().flatten().count()
            == b.iter()
                .flatten()
                .filter(|atom| {
                    !matches!(atom.axis, super::super::layout::Axis::Row | super::super::layout::Axis::Column)
                })
                .count()
}

/// The product of two tensors, where it is no function of one.
fn product(importer: &mut Importer, node: NodeView, a: usize, b: usize) -> Result<Tensor, String> {
    let (a, b) = (importer.unpadded(node, a)?, importer.unpadded(node, b)?);
    if a.node == b.node && a.layout == b.layout {
        for (x, f) in [(&a, &b), (&b, &a)] {
            if let Some(tensor) = gated(importer, node, x, f)? {
                return Ok(tensor);
            }
        }
    }
    let (a, b) = (importer.solid(&a)?, importer.solid(&b)?);
    let shape = |tensor: &Tensor| importer.builder.shape(tensor.node);
    let (a, b) = if shape(&a).elements() >= shape(&b).elements() { (a, b) } else { (b, a) };
    let (of, by) = (shape(&a), shape(&b));
    if !(of == by && a.layout == b.layout || by == Shape::new(1, 1, of.c) && one_pixel_fits(&b, &a)) {
        let (a, b) = (a.layout.sizes(), b.layout.sizes());
        return Err(format!("multiplies tensors of {a:?} and {b:?}, expected one shape, or one factor a channel"));
    }
    let id = importer.builder.push(&importer.name(node), Op::Mul, &[a.node, b.node])?;
    Ok(Importer::with_node(&a, id))
}

/// `x * f(x)` for the functions that are known in this form.
fn gated(importer: &mut Importer, node: NodeView, x: &Tensor, f: &Tensor) -> Result<Option<Tensor>, String> {
    let (Form::Affine(x_form), Form::Function { kind, before, after, .. }) = (&x.form, &f.form) else {
        return Ok(None);
    };
    let ([scale], [shift]) = (&after.scale[..], &after.shift[..]) else { return Ok(None) };
    let (scale, shift) = (*scale, *shift);
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b.abs().max(1e-3);
    // f = after(kind(inner(y))), and x * f is `factor` times the function of y.
    let (function, inner, factor) = match *kind {
        Lazy::Sigmoid if near(shift, 0.0) => (Function::Silu, Affine::identity(), scale),
        Lazy::Erf if near(scale, shift) => {
            (Function::Gelu, Affine::of(std::f64::consts::FRAC_1_SQRT_2, 0.0), 2.0 * scale)
        }
        Lazy::Clip { low, high } if low.is_finite() && high.is_finite() && near(scale * low + shift, 0.0) => {
            let range = high - low;
            (Function::HardSwish, Affine::of(range / 6.0, low + range / 2.0), scale * range)
        }
        _ => return Ok(None),
    };
    // y = (before - inner.shift) / inner.scale
    let y = before.then(&Affine::of(1.0 / inner.scale[0], -inner.shift[0] / inner.scale[0]));
    let y = if y.is_identity() { Affine::identity() } else { y };
    let Some(multiple) = x_form.multiple_of(&y) else { return Ok(None) };
    let input = importer.solid(&Tensor { form: Form::Affine(y), ..x.clone() })?;
    let id = importer.builder.function(&importer.name(node), function, input.node)?;
    Ok(Some(Importer::with_node(&input, id).then(&Affine::of(multiple * factor, 0.0)))
        .map(|tensor| if near(multiple * factor, 1.0) { Importer::with_node(&input, id) } else { tensor }))
}

/// What changes nothing: copies, casts between floats, dropout as it is evaluated.
pub(super) fn same(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    match node.op() {
        "Dropout" => {
            let training = importer.constant(node, 2)?.map_or(Ok(0.0), |flag| flag.scalar())?;
            if training != 0.0 {
                return Err("training_mode 1: export the network as it is evaluated".to_owned());
            }
        }
        "Cast" | "CastLike" => {
            let to = match node.op() {
                "Cast" => node.int("to", 1) as i32,
                _ => importer.needed(node, 1)?.kind,
            };
            if !kind::is_float(to) && importer.lazy(node, 0)?.ended.is_none() {
                return Err(format!("a cast to {} inside the network", kind::name(to)));
            }
        }
        _ => {}
    }
    importer.lazy(node, 0)
}

/// What only orders or scales the outputs: taken off the end of the network.
pub(super) fn end(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let tensor = importer.unpadded(node, 0)?;
    let ended = match &tensor.ended {
        Some(before) => format!("{before}, {}", node.op()),
        None => node.op().to_owned(),
    };
    // The classes stay where they are, whatever the operator says of its sizes.
    Ok(Tensor { ended: Some(ended), ..importer.solid(&tensor)? })
}
