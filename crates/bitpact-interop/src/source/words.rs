//! Text of every language: what a layer is, in words, and lists of numbers.

use std::fmt::{Display, Write};

use bitpact_core::Grid;
use bitpact_model::{IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerTerm, IntegerView, TensorId};

use super::names::plain;
use super::store::{Form, Memory, width};

/// Lines that say what layer `i` computes: shape, bits, kernel and source.
pub(super) fn of_layer(model: &IntegerModel, memory: &Memory, i: usize) -> Vec<String> {
    let layer = &model.layers[i];
    let mut lines = vec![format!("Layer {i}, {}: {}", plain(&layer.name), result(layer, memory.tensors[i + 1].bits))];
    match &layer.op {
        IntegerOp::Sum(sum) => {
            let mut streams = memory.streams[i].iter();
            for term in &sum.terms {
                lines.push(match term {
                    IntegerTerm::Product(product) => {
                        let groups = match product.groups {
                            1 => String::new(),
                            groups => format!(", {groups} groups"),
                        };
                        let grid = if product.grid == Grid::WithoutZero { " without zero" } else { "" };
                        let form = match streams.next().map(|stream| stream.form) {
                            Some(Form::Dense) => "columns",
                            Some(Form::Depthwise) => "by channel",
                            _ => "64-bit sums",
                        };
                        format!(
                            "  {}: {} of {}, {} to {} channels{groups}, {} weights{grid}; kernel: {form}",
                            plain(&product.name),
                            product.window,
                            tensor(model, product.input),
                            product.in_channels,
                            product.out_channels,
                            width(product),
                        )
                    }
                    IntegerTerm::View(view) => format!("  + {}", of_view(model, view)),
                    IntegerTerm::Multiplication { a, b, .. } => {
                        format!("  {} times {}", of_view(model, a), of_view(model, b))
                    }
                });
            }
            lines.extend(sum.base.iter().map(|(view, _)| format!("  + after the shift: {}", of_view(model, view))));
        }
        IntegerOp::MaxPool { input, window } => {
            lines.push(format!("  maximum over {window} of {}", tensor(model, *input)));
        }
        IntegerOp::WindowSum { input, window, .. } => {
            lines.push(format!("  sums over {window} of {}", tensor(model, *input)));
        }
        IntegerOp::Concat { inputs } => {
            let inputs: Vec<String> = inputs.iter().map(|&input| tensor(model, input)).collect();
            lines.push(format!("  channels of {}", inputs.join(", ")));
        }
        IntegerOp::View(view) => lines.push(format!("  {}", of_view(model, view))),
    }
    lines
}

fn result(layer: &IntegerLayer, bits: u32) -> String {
    let shape = layer.shape;
    match layer.op.sum().map(|sum| &sum.end) {
        Some(IntegerEnd::Output) => format!("{shape}, an output of the network"),
        Some(IntegerEnd::Wide) => format!("{shape}, 32-bit values {} to {}", layer.lo, layer.hi),
        Some(IntegerEnd::Table(_)) => format!("{shape}, codes {} to {} of a table in {bits} bits", layer.lo, layer.hi),
        _ => format!("{shape}, {} to {} in {bits} bits", layer.lo, layer.hi),
    }
}

fn tensor(model: &IntegerModel, tensor: TensorId) -> String {
    match tensor.checked_sub(1) {
        None => "the image".to_owned(),
        Some(layer) => plain(&model.layers[layer].name),
    }
}

fn of_view(model: &IntegerModel, view: &IntegerView) -> String {
    let moves: Vec<&str> = view.moves.iter().map(bitpact_graph::Move::name).collect();
    match moves[..] {
        [] => tensor(model, view.input),
        _ => format!("{} ({})", tensor(model, view.input), moves.join(", ")),
    }
}

/// Numbers with a comma behind each, in lines of at most `width` characters that begin with `indent` spaces.
pub(super) fn rows<T: Display>(numbers: impl IntoIterator<Item = T>, indent: usize, width: usize) -> String {
    let mut text = String::new();
    let mut length = 0;
    for number in numbers {
        let number = number.to_string();
        match length {
            _ if length > 0 && length + number.len() + 2 <= width => {
                let _ = write!(text, " {number},");
                length += number.len() + 2;
            }
            _ => {
                let line_end = if length > 0 { "\n" } else { "" };
                let _ = write!(text, "{line_end}{:indent$}{number},", "");
                length = indent + number.len() + 1;
            }
        }
    }
    if length > 0 {
        text.push('\n');
    }
    text
}
