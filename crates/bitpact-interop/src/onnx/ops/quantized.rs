//! Graphs that are quantized already: QuantizeLinear and DequantizeLinear, operators on codes, and QONNX.
//!
//! Constants become the real numbers that their codes mean and remember the step; tensors of the network get an
//! activation with the bits and the clip value of the codes. What our codes cannot be is told, and the network is then
//! read as float.

use std::rc::Rc;

use bitpact_core::Bits;
use bitpact_graph::Op;

use super::super::importer::Importer;
use super::super::node::{NodeView, axis};
use super::super::tensor::{Array, Data, Steps, kind};
use super::super::value::{Tensor, Value};
use super::{elementwise, pool, product};

/// Operators of ONNX's own domain for quantized graphs.
pub(super) const OPERATORS: [&str; 4] = ["DequantizeLinear", "QLinearConv", "QLinearMatMul", "QuantizeLinear"];

/// Operators of ONNX Runtime's domain.
const OF_RUNTIME: [&str; 5] = ["DequantizeLinear", "QGemm", "QLinearAdd", "QLinearGlobalAveragePool", "QuantizeLinear"];

/// Domains of QONNX, the oldest last, and what it adds.
const QONNX: [&str; 3] = ["qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general"];
const OF_QONNX: [&str; 3] = ["BipolarQuant", "IntQuant", "Quant"];

/// Whether the operator belongs to a quantized graph.
pub(in crate::onnx) fn is_known(node: NodeView) -> bool {
    match node.node.domain.as_deref() {
        None | Some("" | "ai.onnx") => OPERATORS.contains(&node.op()),
        Some("com.microsoft") => OF_RUNTIME.contains(&node.op()),
        Some(domain) => QONNX.contains(&domain) && OF_QONNX.contains(&node.op()),
    }
}

/// Whether the operator is folded where all it reads is constant.
pub(in crate::onnx) fn folds(node: NodeView) -> bool {
    is_known(node) && !node.op().starts_with("QLinear") && node.op() != "QGemm"
}

/// The outputs of a quantizing operator on constants.
pub(in crate::onnx) fn fold(node: NodeView, inputs: &[Option<&Array>]) -> Result<Vec<Array>, String> {
    let input = |i: usize| inputs.get(i).copied().flatten().ok_or_else(|| format!("input {i} is missing"));
    let optional = |i: usize| inputs.get(i).copied().flatten();
    let (array, scale) = (input(0)?, input(1)?);
    let folded = match node.op() {
        "DequantizeLinear" => dequantized(array, scale, optional(2), node)?,
        "QuantizeLinear" => {
            let of = optional(2).map_or_else(|| node.int("output_dtype", 2) as i32, |zero| zero.kind);
            let of = if of == 0 { kind::UINT8 } else { of };
            let (bits, signed) = kind::integer(of)
                .filter(|&(bits, _)| bits <= 16)
                .ok_or_else(|| format!("codes of {}", kind::name(of)))?;
            let (low, high) = limits(bits, signed, false);
            let at = places(array, scale, node)?;
            let (values, scales) = (array.to_floats(), scale.to_floats());
            let zero = optional(2).map(|zero| zero.to_ints().map(<[i64]>::to_vec)).transpose()?;
            let code = |(i, &v): (usize, &f32)| {
                let zero = zero.as_ref().map_or(0, |zero| zero[at[i] % zero.len().max(1)]);
                ((f64::from(v / scales[at[i]]).round_ties_even()) as i64).saturating_add(zero).clamp(low, high)
            };
            let data = Data::Int(values.iter().enumerate().map(code).collect());
            Array { dims: array.dims.clone(), kind: of, data, steps: None }
        }
        "BipolarQuant" => {
            let at = places(array, scale, node)?;
            let scales = scale.to_floats();
            let sign = |(i, &v): (usize, &f32)| if v >= 0.0 { scales[at[i]] } else { -scales[at[i]] };
            let data = array.to_floats().iter().enumerate().map(sign).collect();
            let steps = Steps { step: scales.iter().map(|s| 2.0 * s).collect(), bits: 1 };
            Array { steps: Some(Rc::new(steps)), ..Array::floats(array.dims.clone(), data) }
        }
        _ => {
            let (low, high) = qonnx_limits(node, &input(3)?.scalar()?)?;
            let at = places(array, scale, node)?;
            let (scales, zeros) = (scale.to_floats(), input(2)?.to_floats());
            let code = |(i, &v): (usize, &f32)| {
                let zero = zeros[at[i] % zeros.len().max(1)];
                (f64::from(v / scales[at[i]] + zero).round_ties_even().clamp(low as f64, high as f64)) as i64
            };
            let codes: Vec<i64> = array.to_floats().iter().enumerate().map(code).collect();
            let zero = Array::ints(vec![zeros.len()], zeros.iter().map(|&z| z as i64).collect());
            let codes = Array { kind: kind::INT32, ..Array::ints(array.dims.clone(), codes) };
            dequantized(
                &codes,
                scale,
                Some(&Array { dims: scale.dims.clone(), ..zero }).filter(|z| z.len() == scale.len()),
                node,
            )?
        }
    };
    Ok(vec![folded])
}

/// Least and largest code.
fn limits(bits: u32, signed: bool, narrow: bool) -> (i64, i64) {
    match signed {
        true => (-(1 << (bits - 1)) + i64::from(narrow), (1 << (bits - 1)) - 1),
        false => (0, (1 << bits) - 1 - i64::from(narrow)),
    }
}

/// Least and largest code of QONNX's quantizer.
fn qonnx_limits(node: NodeView, bits: &f32) -> Result<(i64, i64), String> {
    if !bits.is_finite() || bits.fract() != 0.0 || !(1.0..=16.0).contains(bits) {
        return Err(format!("{bits} bits"));
    }
    match node.text("rounding_mode", "ROUND") {
        "ROUND" => Ok(limits(*bits as u32, node.int("signed", 1) != 0, node.int("narrow", 0) != 0)),
        other => Err(format!("rounding_mode {other:?}, expected ROUND, to the nearest and to even")),
    }
}

/// For each element of `array` the position of its scale: one for all, one for each place of an axis, or of a block of
/// it.
fn places(array: &Array, scale: &Array, node: NodeView) -> Result<Vec<usize>, String> {
    let n = array.len();
    let wrong = || format!("scales of {:?} for a tensor of {:?}", scale.dims, array.dims);
    if scale.len() == 1 {
        return Ok(vec![0; n]);
    }
    let rank = array.dims.len();
    let block = usize::try_from(node.int("block_size", 0)).unwrap_or(0);
    // Scales of the tensor's rank are broadcast, or one a block; a list is along the axis.
    let per_axis = (scale.dims.len() == 1 && rank > 1 || rank == 1) && block == 0;
    let at = if per_axis || block > 0 { axis(node.int("axis", 1), rank)? } else { 0 };
    let mut dims = vec![1; rank];
    if per_axis {
        dims[at] = scale.len();
    } else if scale.dims.len() == rank {
        dims.clone_from(&scale.dims);
    } else {
        return Err(wrong());
    }
    let by: Vec<usize> = (0..rank).map(|i| if block > 0 && i == at { block } else { 1 }).collect();
    let fits = |i: usize| dims[i] == 1 || dims[i] == array.dims[i].div_ceil(by[i]);
    if !(0..rank).all(fits) || dims.iter().product::<usize>() != scale.len() {
        return Err(wrong());
    }
    let place = |mut flat: usize| {
        let (mut position, mut stride) = (0, 1);
        for i in (0..rank).rev() {
            let along = flat % array.dims[i];
            flat /= array.dims[i];
            if dims[i] > 1 {
                position += along / by[i] * stride;
            }
            stride *= dims[i];
        }
        position
    };
    Ok((0..n).map(place).collect())
}

/// The real numbers that codes mean. They keep their steps where codes are symmetric.
fn dequantized(array: &Array, scale: &Array, zero: Option<&Array>, node: NodeView) -> Result<Array, String> {
    let codes = array.to_ints()?;
    let at = places(array, scale, node)?;
    let scales = scale.to_floats();
    let zeros = zero.map(|zero| zero.to_ints().map(<[i64]>::to_vec)).transpose()?.unwrap_or_else(|| vec![0]);
    if zeros.len() != 1 && zeros.len() != scales.len() {
        return Err(format!("{} zero points for {} scales", zeros.len(), scales.len()));
    }
    let shifted = |i: usize| codes[i] - zeros[at[i] % zeros.len()];
    let data = (0..codes.len()).map(|i| shifted(i) as f32 * scales[at[i]]).collect();
    let most = (0..codes.len()).map(|i| shifted(i).unsigned_abs()).max().unwrap_or(0);
    // Bits of a symmetric grid that holds every code.
    let bits = (2..=8).find(|&bits| most < 1 << (bits - 1));
    let is_bias = matches!(kind::integer(array.kind), Some((32.., _))) && array.dims.len() < 2;
    let steps = bits.filter(|_| !is_bias).map(|bits| Rc::new(Steps { step: scales.clone(), bits }));
    Ok(Array { steps, ..Array::floats(array.dims.clone(), data) })
}

/// The outputs of an operator of a quantized graph.
pub(in crate::onnx) fn read<'a>(importer: &mut Importer<'a>, node: NodeView<'a>) -> Result<Vec<Value>, String> {
    let tensor = match node.op() {
        "DequantizeLinear" => {
            let tensor = importer.lazy(node, 0)?;
            // Codes that are the input itself.
            if tensor.node == 0 && !importer.has_image_codes {
                let scale = importer.needed(node, 1)?.scalar()?;
                let of = codes_of(importer, node, 2)?;
                let zero = importer.constant(node, 2)?.map_or(Ok(0.0), |zero| zero.scalar())? as i64;
                let (low, high) =
                    kind::integer(of).map_or((0, 0), |(bits, signed)| limits(bits.min(32), signed, false));
                importer.is_quantized = true;
                importer.image_codes(scale, low - zero, high - zero);
            }
            tensor
        }
        "QuantizeLinear" => {
            let tensor = importer.lazy(node, 0)?;
            let of = importer.constant(node, 2)?.map_or_else(|| node.int("output_dtype", 2) as i32, |zero| zero.kind);
            quantize(importer, node, tensor, 1, of)?
        }
        "Quant" | "IntQuant" => {
            let tensor = importer.lazy(node, 0)?;
            let (low, high) = qonnx_limits(node, &importer.needed(node, 3)?.scalar()?)?;
            let zero = importer.needed(node, 2)?.scalar()?;
            let scale = importer.needed(node, 1)?.scalar()?;
            coded(importer, node, tensor, scale, low.saturating_sub(zero as i64), high.saturating_sub(zero as i64))?
        }
        "BipolarQuant" => return Err("an activation of -1 and 1".to_owned()),
        "QLinearConv" => {
            let (weights, bias) = weights(importer, node, 3, importer.constant(node, 8)?)?;
            let name = super::super::names::of_weights(&node.node.input[3], node);
            let tensor = product::conv_of(importer, node, &weights, bias.as_ref(), &name)?;
            quantize(importer, node, tensor, 6, codes_of(importer, node, 7)?)?
        }
        "QLinearMatMul" | "QGemm" => {
            let is_gemm = node.op() == "QGemm";
            let (weights, bias) = weights(importer, node, 3, if is_gemm { importer.constant(node, 6)? } else { None })?;
            let name = super::super::names::of_weights(&node.node.input[3], node);
            let tensor =
                product::matrix(importer, node, &weights, bias.as_ref(), is_gemm && node.int("transB", 0) != 0, &name)?;
            let scale = if is_gemm { 7 } else { 6 };
            match importer.value(node, scale) {
                Some(_) => quantize(importer, node, tensor, scale, codes_of(importer, node, scale + 1)?)?,
                None => tensor,
            }
        }
        "QLinearAdd" => {
            let tensors = vec![importer.tensor(node, 0)?, importer.tensor(node, 3)?];
            let tensor = elementwise::added(importer, node, tensors)?;
            quantize(importer, node, tensor, 6, codes_of(importer, node, 7)?)?
        }
        "QLinearGlobalAveragePool" => {
            let tensor = pool::reduce(importer, node)?;
            quantize(importer, node, tensor, 3, codes_of(importer, node, 4)?)?
        }
        other => return Err(format!("{other} of tensors that the network computes")),
    };
    Ok(vec![Value::Data(tensor)])
}

/// Element type of the zero point at an input.
fn codes_of(importer: &Importer, node: NodeView, i: usize) -> Result<i32, String> {
    Ok(importer.constant(node, i)?.map_or(kind::UINT8, |zero| zero.kind))
}

/// Weights of codes at input `i`, their scales and zero points behind them, and a bias in steps of sums.
fn weights(
    importer: &Importer,
    node: NodeView,
    i: usize,
    bias: Option<Rc<Array>>,
) -> Result<(Array, Option<Array>), String> {
    let (codes, scale) = (importer.needed(node, i)?, importer.needed(node, i + 1)?);
    // Scales are one for each output: the first size of a convolution's weights, the last of a matrix.
    let axis =
        if node.op() == "QLinearConv" || node.int("transB", 0) != 0 { 0 } else { codes.dims.len().saturating_sub(1) };
    let mut dims = vec![1; codes.dims.len()];
    if scale.len() > 1 {
        *dims.get_mut(axis).ok_or("weights that are one number")? = scale.len();
    }
    let scale = Array { dims, ..(*scale).clone() };
    let zero = importer.constant(node, i + 2)?;
    let values = dequantized(&codes, &scale, zero.as_deref(), node)?;
    let of_input = importer.needed(node, 1)?.scalar()?;
    let scales = scale.to_floats();
    let bias = bias.map(|bias| {
        let real = |(o, v): (usize, f32)| v * of_input * scales[o % scales.len()];
        Array::floats(bias.dims.clone(), bias.to_floats().into_iter().enumerate().map(real).collect())
    });
    Ok((values, bias))
}

/// Codes of the type `of` with the scale at input `i` and the zero point behind it.
fn quantize(importer: &mut Importer, node: NodeView, tensor: Tensor, i: usize, of: i32) -> Result<Tensor, String> {
    let scale = importer.needed(node, i)?.scalar()?;
    let zero = importer.constant(node, i + 1)?.map_or(Ok(0.0), |zero| zero.scalar())? as i64;
    let of = if of == 0 { kind::UINT8 } else { of };
    let (bits, signed) = kind::integer(of).ok_or_else(|| format!("codes of {}", kind::name(of)))?;
    let (mut low, mut high) = limits(bits.min(32), signed, false);
    // Codes of fewer bits are clipped ones of eight.
    let clips: Vec<_> = node.node.output.first().map_or(&[][..], |name| importer.readers(name)).to_vec();
    if let [clip] = clips[..] {
        let view = NodeView { node: clip, opset: node.opset };
        if view.op() == "Clip" {
            importer.clips_of_codes.extend(clip.output.iter().cloned());
            low = low.max(importer.number(view, "min", 1, low as f64)? as i64);
            high = high.min(importer.number(view, "max", 2, high as f64)? as i64);
        }
    }
    coded(importer, node, tensor, scale, low - zero, high - zero)
}

/// A tensor as codes from `low` to `high` times a scale.
fn coded(
    importer: &mut Importer,
    node: NodeView,
    tensor: Tensor,
    scale: f32,
    low: i64,
    high: i64,
) -> Result<Tensor, String> {
    importer.is_quantized = true;
    if !(scale > 0.0 && scale.is_finite()) || low >= high {
        return Err(format!("codes from {low} to {high} of the scale {scale}"));
    }
    if tensor.node == 0 {
        importer.image_codes(scale, low, high);
        return Ok(tensor);
    }
    if ends(importer, node) {
        importer
            .notes
            .push(format!("codes of the output (`{}`) are left out: it is given as sums", node.name().escape_debug()));
        return importer.solid(&tensor);
    }
    let tensor = importer.solid(&tensor)?;
    let is_positive = importer.builder.is_nonnegative(tensor.node);
    let signed = !(low == 0 || is_positive);
    let width = |top: i64| (1..=8u8).find(|&bits| (1i64 << bits) - 1 == top);
    let bits = match signed {
        false => width(high),
        // One code more on the negative side is never reached by what is symmetric.
        true if low == -high || low == -high - 1 => width(high).map(|bits| bits + 1).filter(|&bits| bits <= 8),
        true => None,
    };
    let Some(bits) = bits.and_then(Bits::new) else {
        let why = format!(
            "`{}`: codes from {low} to {high} around zero, expected 0 to 2^k - 1, or as many on both sides, up to 8 bits",
            node.name().escape_debug()
        );
        importer.unfit.push(why);
        if low == 0 && !is_positive {
            let id = importer.builder.push(&importer.name(node), Op::Act { signed: false }, &[tensor.node])?;
            return Ok(Importer::with_node(&tensor, id));
        }
        return Ok(tensor);
    };
    let clip = scale * high as f32;
    let at = tensor.node;
    let is_free = importer.builder.nodes[at].op == Op::Act { signed } && !importer.builder.bits.contains_key(&at);
    let is_same = importer.grid_of(at) == Some((bits, clip, signed));
    if is_same {
        return Ok(tensor);
    }
    let id = match is_free && importer.is_read_once(node) {
        true => at,
        false => importer.builder.push(&importer.name(node), Op::Act { signed }, &[at])?,
    };
    importer.builder.set(id, "clip_val", vec![], vec![clip]);
    importer.builder.bits.insert(id, bits);
    Ok(Importer::with_node(&tensor, id))
}

/// Whether nothing but a DequantizeLinear at the network's end reads a node's output.
fn ends(importer: &Importer, node: NodeView) -> bool {
    let readers = |name: &String| importer.readers(name).to_vec();
    let last = |reader: &super::super::proto::Node| {
        reader.op_type() == "DequantizeLinear" && reader.output.iter().all(|name| readers(name).is_empty())
    };
    node.node.output.first().is_some_and(|name| readers(name).into_iter().all(last))
}
