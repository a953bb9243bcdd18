//! Convolutions and fully connected layers.

use std::rc::Rc;

use bitpact_graph::{Conv, ConvTranspose, Op, Padding};

use super::super::importer::Importer;
use super::super::layout::Axis;
use super::super::names;
use super::super::node::NodeView;
use super::super::tensor::Array;
use super::super::value::Tensor;
use super::window::Geometry;

/// Name of the node that an operator with weights at input `i` becomes.
fn name(node: NodeView, i: usize) -> String {
    names::of_weights(node.node.input.get(i).map_or("", String::as_str), node)
}

/// A convolution over one or two sizes.
pub(super) fn conv(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let weights = importer.needed(node, 1)?;
    let bias = importer.constant(node, 2)?;
    conv_of(importer, node, &weights, bias.as_deref(), &name(node, 1))
}

/// A convolution with these weights.
pub(super) fn conv_of(
    importer: &mut Importer,
    node: NodeView,
    weights: &Array,
    bias: Option<&Array>,
    name: &str,
) -> Result<Tensor, String> {
    let lazy = importer.lazy(node, 0)?;
    let around = lazy.pad;
    let (tensor, spatial) = importer.usual(&Tensor { pad: Padding::default(), ..lazy })?;
    let tensor = importer.for_product(&tensor)?;
    let from = importer.builder.shape(tensor.node);
    let [out_channels, of_group, kernel @ ..] = &weights.dims[..] else {
        return Err(format!("weights of the shape {:?}", weights.dims));
    };
    let (out_channels, of_group) = (*out_channels, *of_group);
    if kernel.len() != spatial.count() {
        return Err(format!("weights of the shape {:?} over {} sizes", weights.dims, spatial.count()));
    }
    check_kernel(node, kernel)?;
    let Geometry { kernel, stride, dilation, padding } =
        Geometry::new(node, spatial, kernel, from, around)?.around(around);
    let groups = groups(node)?;
    if of_group.checked_mul(groups) != Some(from.c) {
        return Err(format!("weights for {of_group} channels in {groups} groups, and an input of {}", from.c));
    }
    let op = Conv { out_channels, kernel, stride, padding, dilation, bias: bias.is_some(), groups };
    let id = importer.builder.push(name, Op::Conv(op), &[tensor.node])?;
    let [rows, columns] = kernel;
    importer.builder.set(id, "weight", vec![out_channels, of_group, rows, columns], weights.to_floats());
    importer.keep_steps(id, weights.steps.as_deref(), out_channels);
    if let Some(bias) = bias {
        let bias = channels(bias, out_channels, "bias")?;
        importer.builder.set(id, "bias", vec![out_channels], bias);
    }
    let layout = spatial.layout(importer.batch, importer.builder.shape(id));
    Ok(Tensor::new(id, layout))
}

fn groups(node: NodeView) -> Result<usize, String> {
    let groups = node.int("group", 1);
    usize::try_from(groups).ok().filter(|&n| n > 0).ok_or_else(|| format!("{groups} groups"))
}

fn check_kernel(node: NodeView, kernel: &[usize]) -> Result<(), String> {
    match node.ints("kernel_shape") {
        Some(given) if !given.iter().map(|&k| k as usize).eq(kernel.iter().copied()) => {
            Err(format!("kernel_shape {given:?} and weights of {kernel:?}"))
        }
        _ => Ok(()),
    }
}

/// One number a channel.
pub(super) fn channels(array: &Array, channels: usize, what: &str) -> Result<Vec<f32>, String> {
    let values = array.to_floats();
    match values.len() == channels {
        true => Ok(values),
        false => Err(format!("{} numbers as {what} of {channels} channels", values.len())),
    }
}

/// A transposed convolution.
pub(super) fn conv_transpose(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let weights = importer.needed(node, 1)?;
    let bias = importer.constant(node, 2)?;
    let tensor = importer.unpadded(node, 0)?;
    let (tensor, spatial) = importer.usual(&tensor)?;
    let tensor = importer.for_product(&tensor)?;
    let from = importer.builder.shape(tensor.node);
    let [inputs, of_group, kernel @ ..] = &weights.dims[..] else {
        return Err(format!("weights of the shape {:?}", weights.dims));
    };
    check_kernel(node, kernel)?;
    if *inputs != from.c || kernel.len() != spatial.count() {
        return Err(format!("weights of the shape {:?} for an input of {from}", weights.dims));
    }
    let groups = groups(node)?;
    let out_channels = of_group.checked_mul(groups).ok_or("more channels than can be counted")?;
    let n = spatial.count();
    let kernel_sizes = kernel;
    let given_shape = node.ints("output_shape").map(|shape| &shape[shape.len().saturating_sub(n)..]);
    let automatic = node.text("auto_pad", "NOTSET");
    let Geometry { kernel, stride, dilation, mut padding } =
        Geometry::new(node, spatial, kernel_sizes, from, Padding::default())?;
    let output_padding = spatial.spread(&list(node, "output_padding", n)?, 0);
    let mut output_padding = output_padding;
    if given_shape.is_some() || automatic.starts_with("SAME") {
        let sides = [from.h, from.w];
        let wanted: [usize; 2] = match given_shape {
            Some(shape) => {
                spatial.spread(&shape.iter().map(|&s| usize::try_from(s).unwrap_or(0)).collect::<Vec<_>>(), 1)
            }
            None => [0, 1].map(|i| sides[i] * stride[i]),
        };
        let mut ends = [[0; 2]; 2];
        for i in 0..2 {
            let full = stride[i] * (sides[i] - 1) + output_padding[i] + (kernel[i] - 1) * dilation[i] + 1;
            let taken = full as i64 - wanted[i] as i64;
            if taken < 0 {
                output_padding[i] += taken.unsigned_abs() as usize;
            }
            let taken = taken.max(0) as usize;
            ends[i] =
                if automatic == "SAME_UPPER" { [taken / 2, taken.div_ceil(2)] } else { [taken.div_ceil(2), taken / 2] };
        }
        padding = Padding { top: ends[0][0], bottom: ends[0][1], left: ends[1][0], right: ends[1][1] };
    }
    let bias_values = bias.as_deref().map(|bias| channels(bias, out_channels, "bias")).transpose()?;
    let op =
        ConvTranspose { out_channels, kernel, stride, padding, output_padding, dilation, bias: bias.is_some(), groups };
    let id = importer.builder.push(&name(node, 1), Op::ConvTranspose(op), &[tensor.node])?;
    importer.builder.set(id, "weight", vec![*inputs, *of_group, kernel[0], kernel[1]], weights.to_floats());
    if let Some(bias) = bias_values {
        importer.builder.set(id, "bias", vec![out_channels], bias);
    }
    let layout = spatial.layout(importer.batch, importer.builder.shape(id));
    Ok(Tensor::new(id, layout))
}

fn list(node: NodeView, name: &str, n: usize) -> Result<Vec<usize>, String> {
    let given = node.ints(name).map_or_else(|| vec![0; n], <[i64]>::to_vec);
    let sizes: Option<Vec<usize>> =
        given.iter().map(|&size| usize::try_from(size).ok().filter(|&s| s <= 1 << 15)).collect();
    sizes.filter(|sizes| sizes.len() == n).ok_or_else(|| format!("{name} {given:?}"))
}

/// `alpha A B + beta C` with a constant B.
pub(super) fn gemm(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let weights = importer.needed(node, 1)?;
    let bias = importer.constant(node, 2)?;
    if node.int("transA", 0) != 0 {
        return Err("transA of a tensor that the network computes".to_owned());
    }
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let transposed = node.int("transB", 0) != 0;
    let [a, b] = weights.dims[..] else { return Err(format!("weights of the shape {:?}", weights.dims)) };
    let (outputs, inputs) = if transposed { (a, b) } else { (b, a) };
    let scaled = |values: Vec<f32>, by: f32| values.into_iter().map(|v| v * by).collect::<Vec<f32>>();
    let values = scaled(weights.to_floats(), alpha);
    let rows = if transposed { values } else { transpose(&values, inputs, outputs) };
    let bias = match bias {
        None => None,
        Some(bias) => {
            let per_output = matches!(bias.dims[..], [] | [_] | [1, _]) && (bias.len() == outputs || bias.len() == 1);
            if !per_output {
                return Err(format!("a bias of the shape {:?} for {outputs} outputs", bias.dims));
            }
            let values = scaled(bias.to_floats(), beta);
            Some((0..outputs).map(|o| values[o % values.len()]).collect())
        }
    };
    let tensor = importer.unpadded(node, 0)?;
    let layer = linear(importer, &tensor, rows, outputs, inputs, bias, &name(node, 1))?;
    let steps = weights.steps.as_deref().filter(|_| alpha == 1.0);
    importer.keep_steps(layer.node, steps, outputs);
    Ok(layer)
}

/// Columns as rows.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}

/// A fully connected layer whose weights are `[outputs][inputs]` in the order of the file's tensor.
pub(super) fn linear(
    importer: &mut Importer,
    tensor: &Tensor,
    weights: Vec<f32>,
    outputs: usize,
    inputs: usize,
    bias: Option<Vec<f32>>,
    name: &str,
) -> Result<Tensor, String> {
    let layout = &tensor.layout;
    let shape = importer.builder.shape(tensor.node);
    if layout.dims.len() != 2 || !layout.is_whole(0, Axis::Batch, importer.batch) {
        let sizes = layout.sizes();
        return Err(format!(
            "multiplies a tensor of {sizes:?} by a matrix, expected the batch and all else in a second size"
        ));
    }
    if shape.elements() != inputs {
        return Err(format!("weights for {inputs} inputs, and a tensor of {}", shape.elements()));
    }
    // Weights in the order of channels, rows, columns.
    let order = layout.order(shape);
    let mut ordered = vec![0.0; weights.len()];
    for o in 0..outputs {
        for (i, &at) in order.iter().enumerate() {
            ordered[o * inputs + at] = weights[o * inputs + i];
        }
    }
    let tensor = importer.for_product(tensor)?;
    let id = importer.builder.push(name, Op::Linear { out_features: outputs, bias: bias.is_some() }, &[tensor.node])?;
    importer.builder.set(id, "weight", vec![outputs, inputs], ordered);
    if let Some(bias) = bias {
        importer.builder.set(id, "bias", vec![outputs], bias);
    }
    let layout = super::usual::Spatial::None.layout(importer.batch, importer.builder.shape(id));
    Ok(Tensor::new(id, layout))
}

/// A product with a constant matrix: of all values, or of the channels of each pixel.
pub(super) fn mat_mul(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let weights: Rc<Array> = importer.needed(node, 1)?;
    matrix(importer, node, &weights, None, false, &name(node, 1))
}

/// A product with this matrix and a sum with this bias.
pub(super) fn matrix(
    importer: &mut Importer,
    node: NodeView,
    weights: &Array,
    bias: Option<&Array>,
    is_transposed: bool,
    name: &str,
) -> Result<Tensor, String> {
    let [a, b] = weights.dims[..] else {
        return Err(format!("a constant factor of the shape {:?}, expected a matrix", weights.dims));
    };
    let (inputs, outputs) = if is_transposed { (b, a) } else { (a, b) };
    let tensor = importer.unpadded(node, 0)?;
    let values = weights.to_floats();
    let rows = if is_transposed { values } else { transpose(&values, inputs, outputs) };
    let layer = if tensor.layout.dims.len() == 2 {
        let bias = bias.map(|bias| channels(bias, outputs, "bias")).transpose()?;
        linear(importer, &tensor, rows, outputs, inputs, bias, name)?
    } else if bias.is_none() {
        pixelwise(importer, &tensor, rows, outputs, inputs, name)?
    } else {
        return Err("a bias of a product of each pixel".to_owned());
    };
    importer.keep_steps(layer.node, weights.steps.as_deref(), outputs);
    Ok(layer)
}

/// A product of the channels of each pixel, which are the last size of the file's tensor.
fn pixelwise(
    importer: &mut Importer,
    tensor: &Tensor,
    rows: Vec<f32>,
    outputs: usize,
    inputs: usize,
    name: &str,
) -> Result<Tensor, String> {
    let layout = tensor.layout.clone();
    let shape = importer.builder.shape(tensor.node);
    let last = layout.dims.len() - 1;
    let others = layout.dims[..last].iter().flatten().all(|atom| atom.axis != Axis::Channel);
    if !others || inputs != shape.c || !layout.is_whole(last, Axis::Channel, shape.c) {
        let sizes = layout.sizes();
        return Err(format!("multiplies a tensor of {sizes:?} by a matrix, expected the channels as its last size"));
    }
    let tensor = importer.for_product(tensor)?;
    let id = importer.builder.push(name, Op::Conv(Conv::square(outputs, 1, 1, 0)), &[tensor.node])?;
    importer.builder.set(id, "weight", vec![outputs, inputs, 1, 1], rows);
    let mut layout = layout;
    layout.dims[last] = super::usual::Spatial::None.layout(1, importer.builder.shape(id)).dims[1].clone();
    Ok(Tensor::new(id, layout))
}
