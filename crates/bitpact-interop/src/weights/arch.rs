//! Which network of the zoo the tensors of a file belong to.

use bitpact_graph::{BatchNorm, Conv, Graph, Node, Op, Padding, Shape, zoo};

use super::Weights;
use super::names::{Fit, ends, fit};

/// Names of one kind that a message lists.
const MOST_LISTED: usize = 20;
/// Classes of a network before those of the file are known.
const ANY_CLASSES: usize = 10;
/// `epsilon` of a batch norm of Keras.
const KERAS_EPS: f64 = 1e-3;

/// A network of the zoo, with how tensors fit it.
pub(super) struct Found {
    pub(super) graph: Graph,
    pub(super) fit: Fit,
    pub(super) notes: Vec<String>,
}

/// The network called `arch`, or the one of the zoo that `weights` fit, for images of shape `input` or of the usual
/// size.
///
/// # Errors
/// No such network, tensors that do not fit it, with all that does not, or tensors that fit several networks.
pub(super) fn find(weights: &Weights, arch: Option<&str>, input: Option<Shape>) -> Result<Found, String> {
    let names: Vec<&str> = match arch {
        None => zoo::NAMES.to_vec(),
        Some(arch) => vec![zoo::NAMES.into_iter().find(|name| *name == arch).ok_or_else(|| {
            format!("`{}` is no network of the zoo, which has {}", crate::error::short(arch), zoo::NAMES.join(", "))
        })?],
    };
    let tried: Vec<Found> = names.iter().filter_map(|name| candidate(weights, name, input)).collect();
    let mut good: Vec<&Found> = tried.iter().filter(|found| found.fit.misfits() == 0).collect();
    if good.iter().any(|found| found.fit.by_order.is_none()) {
        good.retain(|found| found.fit.by_order.is_none());
    }
    let listed = || good.iter().map(|found| found.graph.name()).collect::<Vec<_>>().join(", ");
    match good[..] {
        [one] => {
            let name = one.graph.name().to_owned();
            let mut found = tried.into_iter().find(|found| found.graph.name() == name).expect("it was tried");
            if arch.is_none() {
                found.notes.insert(0, format!("names and shapes of the tensors are those of {name}"));
            }
            Ok(found)
        }
        [_, _, ..] => Err(format!("the tensors fit {}: choose one with --arch", listed())),
        [] => {
            let nearest = tried.iter().min_by_key(|found| found.fit.misfits());
            let Some(nearest) = nearest else { return Err(no_network(&names)) };
            let guess = if arch.is_some() { "" } else { "no network of the zoo fits; the nearest is " };
            Err(format!("{guess}{}: {}", nearest.graph.name(), misfits(&nearest.fit)))
        }
    }
}

fn no_network(names: &[&str]) -> String {
    format!("no convolution and linear layer from which sizes of {} could be told", names.join(", "))
}

/// The network called `name` with the channels and classes of the file.
fn candidate(weights: &Weights, name: &str, input: Option<Shape>) -> Option<Found> {
    let side = zoo::usual_input(name).0;
    let shape = input.unwrap_or(Shape::new(side, side, 3));
    let any = zoo::build(name, shape, ANY_CLASSES)?.ok()?;
    let (first, last) = ends(&any, weights)?;
    let (channels, classes) = (*first.shape.get(1)?, *last.shape.first()?);
    let build = |channels: usize| zoo::build(name, Shape::new(shape.h, shape.w, channels), classes)?.ok();
    // Sizes of no network of this kind are told as what does not fit.
    let graph = build(channels).or_else(|| build(shape.c))?;
    let fit = fit(&graph, weights);
    let mut notes = Vec::new();
    if let Some((theirs, own)) = &fit.by_order {
        notes.push(format!(
            "names differ, such as `{theirs}` for `{own}`: layers were matched by their order and shapes"
        ));
    }
    if !fit.folded.is_empty() {
        let n = fit.folded.len();
        notes.push(format!("{n} biases before a batch norm are subtracted from its running mean"));
    }
    if name == "mobilenet_v2" {
        notes.push("its ReLU6 are ReLU in the float network; quantized, they clip at their own clip values".to_owned());
    }
    let graph = if is_keras(weights) {
        notes.push("names of Keras: batch norms have its epsilon, strided convolutions its padding".to_owned());
        as_keras(&graph)?
    } else {
        graph
    };
    Some(Found { graph, fit, notes })
}

/// Everything that does not fit, each kind up to a number.
pub(super) fn misfits(fit: &Fit) -> String {
    let kinds = [("missing", &fit.missing), ("left over", &fit.left_over), ("of another shape", &fit.shapes)];
    let kind = |(what, names): (&str, &Vec<String>)| {
        let more = match names.len() {
            n if n > MOST_LISTED => format!(" and {} more", n - MOST_LISTED),
            _ => String::new(),
        };
        let listed: Vec<&str> = names.iter().take(MOST_LISTED).map(String::as_str).collect();
        (!names.is_empty()).then(|| format!("{what}: {}{more}", listed.join(", ")))
    };
    kinds.into_iter().filter_map(kind).collect::<Vec<_>>().join("; ")
}

/// Whether layers have the names that Keras gives by itself.
fn is_keras(weights: &Weights) -> bool {
    let has = |name: &str| weights.tensors.iter().any(|(tensor, _)| tensor.starts_with(name));
    has("conv2d.") && has("batch_normalization.")
}

/// The graph with Keras' `epsilon` and its padding "same": what a window lacks is added at both sides, the odd pixel at
/// the far one.
fn as_keras(graph: &Graph) -> Option<Graph> {
    let before = |n: usize, kernel: usize, stride: usize| {
        let lacks = (n.div_ceil(stride).saturating_sub(1) * stride + kernel).saturating_sub(n);
        (lacks / 2, lacks.div_ceil(2))
    };
    let node = |(id, node): (usize, &Node)| {
        let op = match node.op {
            Op::BatchNorm(norm) => Op::BatchNorm(BatchNorm { eps: KERAS_EPS, ..norm }),
            Op::Conv(conv) => {
                let shape = graph.input_shape(id);
                let (top, bottom) = before(shape.h, conv.kernel[0], conv.stride[0]);
                let (left, right) = before(shape.w, conv.kernel[1], conv.stride[1]);
                Op::Conv(Conv { padding: Padding { top, left, bottom, right }, ..conv })
            }
            op => op,
        };
        Node { op, ..node.clone() }
    };
    Graph::new(graph.name(), graph.nodes().iter().enumerate().map(node).collect()).ok()
}
