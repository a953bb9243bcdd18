//! Points where an integer network cuts tensors to codes.
//!
//! Layers with weights, average pools, functions and products of tensors read codes. Where the file's network has no
//! activation in front of them, as behind the last convolution of an inverted residual, one is put there: signed, or
//! unsigned where no value is negative. Neither changes a float network.

use bitpact_graph::{Graph, Node, NodeId, Op};

use super::build::Builder;
use super::finish::renumber;
use super::value::Affine;

/// What a node gives, as far as its readers care.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    /// Codes, signed or not.
    Codes(bool),
    /// Sums of codes: an average pool.
    Sums,
    /// A sum of products, or a part of one.
    Wide,
    Multiplied,
    Function,
}

/// Whether a reader can take what it reads as it is.
fn takes(reader: Op, kind: Kind) -> bool {
    use Kind::{Codes, Function, Image, Multiplied, Sums, Wide};
    match reader {
        Op::Conv(_) | Op::ConvTranspose(_) | Op::Linear { .. } => matches!(kind, Image | Codes(_) | Sums),
        Op::AvgPool(_) | Op::GlobalAvgPool | Op::Function(_) | Op::Mul => matches!(kind, Codes(_)),
        Op::MaxPool(_) => matches!(kind, Codes(_) | Wide),
        Op::View(_) | Op::Subsample { .. } => matches!(kind, Codes(_) | Wide | Sums),
        Op::Add | Op::BatchNorm(_) => !matches!(kind, Function | Image),
        Op::Act { .. } | Op::Concat | Op::Dropout { .. } | Op::Input { .. } => {
            let _ = Multiplied;
            true
        }
    }
}

/// What a node gives, where it reads what is of these kinds.
fn gives(op: Op, inputs: &[Kind]) -> Kind {
    match op {
        Op::Input { .. } => Kind::Image,
        Op::Act { signed } => Kind::Codes(signed),
        Op::AvgPool(_) | Op::GlobalAvgPool => Kind::Sums,
        Op::Mul => Kind::Multiplied,
        Op::Function(_) => Kind::Function,
        Op::MaxPool(_) | Op::View(_) | Op::Subsample { .. } | Op::Dropout { .. } | Op::Concat => inputs[0],
        Op::Conv(_) | Op::ConvTranspose(_) | Op::Linear { .. } | Op::BatchNorm(_) | Op::Add => Kind::Wide,
    }
}

/// Adds the points.
pub(super) fn insert(builder: &mut Builder, outputs: &mut [NodeId]) -> Result<(), String> {
    let n = builder.nodes.len();
    let mut kinds: Vec<Kind> = Vec::with_capacity(n);
    // For each node the activation behind it.
    let mut points: Vec<Option<NodeId>> = vec![None; n];
    let mut order: Vec<Vec<NodeId>> = (0..n).map(|id| vec![id]).collect();
    for id in 0..n {
        let Node { op, inputs, name } = builder.nodes[id].clone();
        let mut read: Vec<Kind> = inputs.iter().map(|&i| kinds[i]).collect();
        for (i, &input) in inputs.iter().enumerate() {
            if takes(op, read[i]) {
                continue;
            }
            let point = match points[input] {
                Some(point) => point,
                None => {
                    let point = act(builder, input, !builder.is_nonnegative(input))?;
                    points[input] = Some(point);
                    order[input].push(point);
                    point
                }
            };
            builder.nodes[id].inputs[i] = point;
            read[i] = gives(builder.nodes[point].op, &[]);
        }
        if op == Op::Concat && !is_uniform(&read) {
            let signed = !inputs.iter().all(|&input| builder.is_nonnegative(input));
            for (i, &input) in inputs.iter().enumerate().filter(|&(i, _)| read[i] != Kind::Codes(signed)) {
                let point = act(builder, input, signed).map_err(|what| format!("{name}: {what}"))?;
                builder.nodes[id].inputs[i] = point;
                order[id].insert(0, point);
            }
            read = vec![Kind::Codes(signed); inputs.len()];
        }
        kinds.push(gives(op, &read));
    }
    // Sums read the codes too where there are some: a stream that nothing needs is not kept.
    for id in 0..n {
        if builder.nodes[id].op == Op::Add {
            for i in 0..builder.nodes[id].inputs.len() {
                if let Some(point) = points.get(builder.nodes[id].inputs[i]).copied().flatten() {
                    builder.nodes[id].inputs[i] = point;
                }
            }
        }
    }
    renumber(builder, &order.concat(), outputs);
    Ok(())
}

fn act(builder: &mut Builder, input: NodeId, signed: bool) -> Result<NodeId, String> {
    let name = format!("{}.codes", builder.nodes[input].name);
    builder.push(&name, Op::Act { signed }, &[input])
}

/// Whether all inputs of a concatenation are codes of one kind, or sums of products.
fn is_uniform(kinds: &[Kind]) -> bool {
    matches!(kinds[0], Kind::Codes(_) | Kind::Wide) && kinds.iter().all(|&kind| kind == kinds[0])
}

/// Takes the points away again: what is left is `plain`.
pub(super) fn remove(builder: &mut Builder, plain: &Graph) {
    let kept: Vec<NodeId> =
        (0..builder.nodes.len()).filter(|&id| plain.find(&builder.nodes[id].name).is_some()).collect();
    for id in 0..builder.nodes.len() {
        let mut inputs = builder.nodes[id].inputs.clone();
        for input in &mut inputs {
            while plain.find(&builder.nodes[*input].name).is_none() {
                *input = builder.nodes[*input].inputs[0];
            }
        }
        builder.nodes[id].inputs = inputs;
    }
    renumber(builder, &kept, &mut []);
}

/// Lets the network end in a layer with weights, a batch norm or a sum, as integer networks do: where it ends in
/// anything else, such as a mean, in a convolution that multiplies by one.
pub(super) fn end_in_sum(builder: &mut Builder, outputs: &mut [NodeId], notes: &mut Vec<String>) -> Result<(), String> {
    for output in outputs {
        let node = &builder.nodes[*output];
        let is_read = builder.nodes.iter().any(|other| other.inputs.contains(output));
        let is_sum = node.op.is_product() || node.op.is_norm() || node.op == Op::Add;
        if is_sum && !is_read || *output == 0 {
            continue;
        }
        let ends = node.op.name();
        notes.push(format!(
            "an output is {ends}; an integer network ends in a sum, so a layer `output` that multiplies by one follows"
        ));
        *output = builder.pixelwise("output", *output, &Affine::identity())?;
    }
    Ok(())
}
