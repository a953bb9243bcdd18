//! A float network in plain loops over one image, in float64.

use bitpact_graph::{ConvTranspose, Graph, Node, Op, Shape};
use bitpact_model::{Model, Tensor};

/// The output of a float network for one image, `[row][column][channel]`.
pub(crate) fn forward(model: &Model, image: &[f64]) -> Vec<f64> {
    let graph = &model.graph;
    let mut values: Vec<Vec<f64>> = vec![image.to_vec()];
    for id in 1..graph.nodes().len() {
        let node = graph.node(id);
        let inputs: Vec<&[f64]> = node.inputs.iter().map(|&i| &values[i][..]).collect();
        let from = graph.input_shape(id);
        let to = graph.shape(id);
        let of = |name: &str| &model.tensors[&format!("{}.{name}", node.name)];
        let value = match node.op {
            Op::Conv(_) | Op::ConvTranspose(_) | Op::Linear { .. } => product(graph, id, model, inputs[0]),
            Op::BatchNorm(norm) => {
                let [w, b, mean, var] = ["weight", "bias", "running_mean", "running_var"].map(of);
                let at = |t: &Tensor, c: usize| f64::from(t.data[c]);
                let normed = |(i, &x): (usize, &f64)| {
                    let c = i % to.c;
                    at(w, c) * (x - at(mean, c)) / (at(var, c) + norm.added()).sqrt() + at(b, c)
                };
                inputs[0].iter().enumerate().map(normed).collect()
            }
            Op::Act { signed: true, .. } => inputs[0].to_vec(),
            Op::Act { .. } => inputs[0].iter().map(|&x| x.max(0.0)).collect(),
            Op::Function(function) => {
                let slope = |i: usize| if function.is_learned() { of("weight").data[i % to.c] } else { 0.0 };
                inputs[0].iter().enumerate().map(|(i, &x)| f64::from(function.value(x as f32, slope(i)))).collect()
            }
            Op::Add => (0..to.elements()).map(|i| inputs.iter().map(|x| x[i]).sum()).collect(),
            Op::Mul => (0..to.elements()).map(|i| inputs[0][i] * inputs[1][i % inputs[1].len()]).collect(),
            Op::View(of) => places(to)
                .map(|place| of.source(from, place).map_or(0.0, |(y, x, c)| inputs[0][(y * from.w + x) * from.c + c]))
                .collect(),
            Op::MaxPool(_) => pool(node, from, to, inputs[0], |seen, _| seen.fold(f64::NEG_INFINITY, f64::max)),
            Op::AvgPool(_) | Op::GlobalAvgPool => {
                pool(node, from, to, inputs[0], |seen, n| seen.sum::<f64>() / n as f64)
            }
            Op::Concat => {
                let channels: Vec<usize> = node.inputs.iter().map(|&i| graph.shape(i).c).collect();
                let pixel = |p: usize| {
                    let parts = inputs.iter().zip(&channels);
                    parts.flat_map(move |(x, &c)| x[p * c..][..c].to_vec()).collect::<Vec<_>>()
                };
                (0..to.h * to.w).flat_map(pixel).collect()
            }
            other => panic!("{other:?} is not read from ONNX"),
        };
        assert_eq!(value.len(), to.elements(), "{}", node.name);
        values.push(value);
    }
    values.pop().expect("a network has nodes")
}

fn places(shape: Shape) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..shape.elements()).map(move |i| (i / shape.c / shape.w, i / shape.c % shape.w, i % shape.c))
}

fn product(graph: &Graph, id: usize, model: &Model, input: &[f64]) -> Vec<f64> {
    let node = graph.node(id);
    let (from, to) = (graph.input_shape(id), graph.shape(id));
    let weight = &model.tensors[&format!("{}.weight", node.name)].data;
    let bias = |c: usize| match node.op.has_bias() {
        true => f64::from(model.tensors[&format!("{}.bias", node.name)].data[c]),
        false => 0.0,
    };
    let groups = node.op.groups();
    let (inputs, outputs) = (from.c / groups, to.c / groups);
    let mut sums: Vec<f64> = places(to).map(|(_, _, c)| bias(c)).collect();
    if let Op::ConvTranspose(ConvTranspose { kernel: [kh, kw], stride, padding, dilation, .. }) = node.op {
        for (y, x, c) in places(from) {
            for (ky, kx, o) in places(Shape::new(kh, kw, outputs)) {
                let row = (y * stride[0] + ky * dilation[0]).checked_sub(padding.top).filter(|&row| row < to.h);
                let column =
                    (x * stride[1] + kx * dilation[1]).checked_sub(padding.left).filter(|&column| column < to.w);
                let (Some(row), Some(column)) = (row, column) else { continue };
                let channel = c / inputs * outputs + o;
                let w = f64::from(weight[((c * outputs + o) * kh + ky) * kw + kx]);
                sums[(row * to.w + column) * to.c + channel] += w * input[(y * from.w + x) * from.c + c];
            }
        }
        return sums;
    }
    let window = node.op.window(from).expect("a product has a window");
    let [kh, kw] = window.kernel;
    for (at, (y, x, o)) in places(to).enumerate() {
        for (ky, kx, i) in places(Shape::new(kh, kw, inputs)) {
            let Some((row, column)) = window.source(from, (y, x), (ky, kx)) else { continue };
            let c = o / outputs * inputs + i;
            let w = f64::from(weight[((o * inputs + i) * kh + ky) * kw + kx]);
            sums[at] += w * input[(row * from.w + column) * from.c + c];
        }
    }
    sums
}

fn pool(
    node: &Node,
    from: Shape,
    to: Shape,
    input: &[f64],
    of: impl Fn(&mut dyn Iterator<Item = f64>, usize) -> f64,
) -> Vec<f64> {
    let window = node.op.window(from).expect("a pool has a window");
    let divisors = node.op.divisors(from);
    let [kh, kw] = window.kernel;
    places(to)
        .map(|(y, x, c)| {
            let taps = (0..kh * kw).filter_map(|k| window.source(from, (y, x), (k / kw, k % kw)));
            let mut seen = taps.map(|(row, column)| input[(row * from.w + column) * from.c + c]);
            of(&mut seen, divisors.as_ref().map_or(1, |n| n[y * to.w + x]))
        })
        .collect()
}
