//! The image: which input of a graph it is, how it lies, and what its pixels mean.

use std::collections::HashSet;

use bitpact_graph::Shape;
use bitpact_model::InputDescription;

use super::layout::{Axis, Layout};
use super::node::NodeView;
use super::proto;
use super::value::Affine;
use crate::ImportOptions;

/// Largest size of an input, and most images that a file may count on at once.
const MOST: usize = 1 << 15;

pub(super) fn name_of(value: &proto::ValueInfo) -> &str {
    value.name.as_deref().unwrap_or("")
}

/// The input that is the image, with its sizes, `None` where they are open.
pub(super) fn input<'a>(
    graph: &'a proto::Graph,
    options: &ImportOptions,
) -> Result<(&'a str, Vec<Option<usize>>), String> {
    let constants: HashSet<&str> = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref()).collect();
    let inputs: Vec<&proto::ValueInfo> =
        graph.input.iter().filter(|value| !constants.contains(name_of(value))).collect();
    let names =
        || inputs.iter().map(|value| format!("`{}`", name_of(value).escape_debug())).collect::<Vec<_>>().join(", ");
    let found = match (&options.input_name, &inputs[..]) {
        (Some(name), _) => inputs.iter().find(|value| name_of(value) == name).copied(),
        (None, [one]) => Some(*one),
        (None, []) => return Err("has no input that is not a constant".to_owned()),
        (None, _) => return Err(format!("has the inputs {}, expected one", names())),
    };
    let input = found.ok_or_else(|| format!("has no input of the name that is asked for, but {}", names()))?;
    if inputs.len() > 1 {
        return Err(format!("has the inputs {}, and networks here have one", names()));
    }
    let of = input.r#type.as_ref().and_then(|of| of.tensor_type.as_ref());
    let of = of.ok_or_else(|| format!("input `{}` is no tensor", name_of(input).escape_debug()))?;
    let dims = of.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
    let sizes = dims.iter().map(|dim| dim.dim_value.and_then(|size| usize::try_from(size).ok()).filter(|&n| n > 0));
    Ok((name_of(input), sizes.collect()))
}

/// Layout of the image, images at once, and shape of one.
pub(super) fn layout(
    graph: &proto::Graph,
    input: &str,
    sizes: &[Option<usize>],
    options: &ImportOptions,
) -> Result<(Layout, usize, Shape), String> {
    let channels_last = is_channels_last(graph, input, sizes);
    let axes: &[Axis] = match (sizes.len(), channels_last) {
        (2, _) => &[Axis::Batch, Axis::Channel],
        (3, false) => &[Axis::Batch, Axis::Channel, Axis::Column],
        (3, true) => &[Axis::Batch, Axis::Column, Axis::Channel],
        (4, false) => &[Axis::Batch, Axis::Channel, Axis::Row, Axis::Column],
        (4, true) => &[Axis::Batch, Axis::Row, Axis::Column, Axis::Channel],
        (n, _) => {
            return Err(format!("input `{}` has {n} sizes, expected 2 to 4, the batch first", input.escape_debug()));
        }
    };
    let size = |axis: Axis, given: Option<usize>| {
        let at = axes.iter().position(|&a| a == axis);
        let in_file = at.map_or(Some(1), |at| sizes[at]);
        match (in_file, given) {
            (Some(size), Some(given)) if size != given => {
                Err(format!("input `{}` has size {size}, and {given} is asked for", input.escape_debug()))
            }
            (Some(size), _) | (None, Some(size)) => Ok(size),
            (None, None) => Err(format!(
                "input `{}` leaves sizes beside the batch open; give them (--input-shape HxWxC)",
                input.escape_debug()
            )),
        }
    };
    let given = options.input_shape;
    let shape = Shape::new(
        size(Axis::Row, given.map(|shape| shape.h))?,
        size(Axis::Column, given.map(|shape| shape.w))?,
        size(Axis::Channel, given.map(|shape| shape.c))?,
    );
    let batch = sizes[0].unwrap_or(1);
    if let Some(size) = [batch, shape.h, shape.w, shape.c].into_iter().find(|size| !(1..=MOST).contains(size)) {
        return Err(format!("input `{}` has the size {size}, expected 1 to {MOST}", input.escape_debug()));
    }
    Ok((Layout::of(axes, batch, shape), batch, shape))
}

/// Whether the channels of the input come last: where the first operator that looks at places of elements moves them to
/// the front, or where the input has one channel that only fits there.
fn is_channels_last(graph: &proto::Graph, input: &str, sizes: &[Option<usize>]) -> bool {
    let mut name = input;
    for _ in 0..8 {
        let mut readers = graph.node.iter().filter(|node| node.input.iter().any(|input| input == name));
        let Some(reader) = readers.next() else { break };
        let view = NodeView { node: reader, opset: 0 };
        match (view.op(), view.ints("perm")) {
            ("Transpose", Some([0, 3, 1, 2] | [0, 2, 1])) => return true,
            (
                "Cast" | "Identity" | "Sub" | "Div" | "Mul" | "Add" | "QuantizeLinear" | "DequantizeLinear" | "Pad",
                _,
            ) => {
                name = reader.output.first().map_or("", String::as_str);
            }
            _ => break,
        }
    }
    matches!(sizes, [_, Some(rows), _, Some(1)] if *rows > 1)
}

/// The meaning of pixels with `image` done to what the input means.
pub(super) fn described(pixels: &InputDescription, image: &Affine) -> Result<InputDescription, String> {
    let (scale, shift) = image.spread(pixels.scale.len())?;
    let mut described = pixels.clone();
    for c in 0..scale.len() {
        described.scale[c] *= scale[c];
        let moved = f64::from(pixels.zero_point[c]) - f64::from(shift[c]) / f64::from(described.scale[c]);
        let fits = (moved - moved.round()).abs() < 2e-3 && (0.0..=255.0).contains(&moved.round());
        if !(fits && described.scale[c] > 0.0 && described.scale[c].is_finite()) {
            return Err(format!("pixel {moved} of channel {c} means 0"));
        }
        described.zero_point[c] = moved.round() as u16;
    }
    Ok(described)
}
