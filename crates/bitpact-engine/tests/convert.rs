//! Conversion against the simulated network in float64: batch norm, scales, shortcuts and rounding as the graph says
//! them, node by node, each activation from the codes the integer network has before it.

mod common;

use std::collections::HashMap;

use bitpact_core::requant::TOLERANCE;
use bitpact_core::{quantize_weights, quantize_weights_16bit};
use bitpact_engine::{Interpreter, Trace};
use bitpact_graph::{ActPlan, BatchNorm, Conv, Graph, Node, NodeId, Op, Shape, WeightPlan, zoo};
use bitpact_model::{Conversion, IntegerOp, IntegerProduct, Model, convert};
use common::{config, pixels, random_model, shrunk};

/// Real values of one node, [y][x][channel].
type Values = Vec<f64>;

struct Simulated<'a> {
    model: &'a Model,
    values: Vec<Values>,
}

impl Simulated<'_> {
    fn graph(&self) -> &Graph {
        &self.model.graph
    }

    fn tensor(&self, node: &Node, name: &str) -> &[f32] {
        &self.model.tensors[&format!("{}.{name}", node.name)].data
    }

    /// Value of a node's first input in real units; the image as pixels minus zero points, without its scale.
    fn input(&self, id: NodeId, y: isize, x: isize, c: usize) -> f64 {
        let shape = self.graph().input_shape(id);
        if y < 0 || x < 0 || y >= shape.h as isize || x >= shape.w as isize {
            return 0.0;
        }
        self.values[self.graph().node(id).inputs[0]][(y as usize * shape.w + x as usize) * shape.c + c]
    }

    /// Quantized weights in real units, OIHW; those that read the image include its scale.
    fn weights(&self, id: NodeId, plane: usize) -> Vec<f64> {
        let (graph, node) = (self.graph(), self.graph().node(id));
        let out = graph.shape(id).c;
        let mut w = self.tensor(node, "weight").to_vec();
        if node.inputs[0] == 0 {
            let inputs = w.len() / out / plane;
            let groups = graph.input_shape(id).c / inputs;
            for (i, w) in w.iter_mut().enumerate() {
                let group = i / plane / inputs * groups / out;
                *w *= self.model.input.scale[group * inputs + i / plane % inputs];
            }
        }
        let mut codes = vec![0; w.len()];
        let mut scales = vec![0.0; out];
        match &self.model.plan.weights[&node.name] {
            WeightPlan::Float => quantize_weights_16bit(&w, out, &mut codes, &mut scales),
            WeightPlan::Quantized(spec) => {
                scales.truncate(spec.scales_len(out));
                let unit = if node.inputs[0] == 0 { self.model.input.mean_scale() } else { 1.0 };
                let steps = match spec.quant.is_learned() {
                    true => self.tensor(node, "weight_step").iter().map(|s| s * unit).collect(),
                    false => Vec::new(),
                };
                quantize_weights(spec, &w, out, &steps, &mut codes, &mut scales);
            }
        }
        let per_channel = w.len() / out;
        let scale = |i: usize| f64::from(scales[(i / per_channel).min(scales.len() - 1)]);
        codes.iter().enumerate().map(|(i, &q)| f64::from(q) * scale(i)).collect()
    }

    fn product(&self, id: NodeId) -> Values {
        let (graph, node) = (self.graph(), self.graph().node(id));
        let from = graph.input_shape(id);
        let ([rows, columns], stride, padding, bias, groups) = match node.op {
            Op::Conv(conv) => (conv.kernel, conv.stride[0], conv.padding.top, conv.bias, conv.groups),
            Op::Linear { bias, .. } => ([from.h, from.w], 1, 0, bias, 1),
            _ => unreachable!(),
        };
        let w = self.weights(id, rows * columns);
        let bias = if bias { self.tensor(node, "bias").to_vec() } else { vec![0.0; graph.shape(id).c] };
        each(graph.shape(id), |y, x, o| {
            let mut sum = f64::from(bias[o]);
            let (inputs, outputs) = (from.c / groups, graph.shape(id).c / groups);
            for i in 0..inputs {
                for (a, b) in (0..rows).flat_map(|a| (0..columns).map(move |b| (a, b))) {
                    let row = (y * stride + a) as isize - padding as isize;
                    let column = (x * stride + b) as isize - padding as isize;
                    let x = self.input(id, row, column, o / outputs * inputs + i);
                    sum += x * w[((o * inputs + i) * rows + a) * columns + b];
                }
            }
            sum
        })
    }

    /// Real values of a node; the activation's before it is quantized.
    fn value(&self, id: NodeId) -> Values {
        let (graph, node) = (self.graph(), self.graph().node(id));
        let shape = graph.shape(id);
        let plain = |y: usize, x: usize, c: usize| (y * shape.w + x) * shape.c + c;
        match node.op {
            Op::Input { .. } => unreachable!(),
            Op::Conv(_) | Op::Linear { .. } => self.product(id),
            Op::BatchNorm(_) => each(shape, |y, x, c| {
                let of = |name| f64::from(self.tensor(node, name)[c]);
                let z = self.values[node.inputs[0]][plain(y, x, c)];
                let deviation = (of("running_var") + f64::from(1e-5f32)).sqrt();
                of("weight") * (z - of("running_mean")) / deviation + of("bias")
            }),
            Op::Act { .. } => self.values[node.inputs[0]].clone(),
            Op::Add => {
                let (a, b) = (&self.values[node.inputs[0]], &self.values[node.inputs[1]]);
                a.iter().zip(b).map(|(a, b)| a + b).collect()
            }
            Op::Subsample { stride, pad_before, .. } => each(shape, |y, x, c| match c.checked_sub(pad_before) {
                Some(c) if c < graph.input_shape(id).c => {
                    self.input(id, (y * stride) as isize, (x * stride) as isize, c)
                }
                _ => 0.0,
            }),
            Op::MaxPool(pool) => each(shape, |y, x, c| {
                let (kernel, stride, padding) = (pool.kernel[0], pool.stride[0], pool.padding.top);
                let from = graph.input_shape(id);
                let inside =
                    |y: isize, x: isize| (0..from.h as isize).contains(&y) && (0..from.w as isize).contains(&x);
                let at = |o: usize, k: usize| (o * stride + k) as isize - padding as isize;
                let window = (0..kernel).flat_map(|a| (0..kernel).map(move |b| (a, b)));
                window
                    .map(|(a, b)| (at(y, a), at(x, b)))
                    .filter(|&(y, x)| inside(y, x))
                    .map(|(y, x)| self.input(id, y, x, c))
                    .fold(f64::MIN, f64::max)
            }),
            Op::AvgPool(pool) => each(shape, |y, x, c| {
                let (kernel, stride, padding) = (pool.kernel[0], pool.stride[0], pool.padding.top);
                let at = |o: usize, k: usize| (o * stride + k) as isize - padding as isize;
                let window = (0..kernel).flat_map(|a| (0..kernel).map(move |b| (a, b)));
                window.map(|(a, b)| self.input(id, at(y, a), at(x, b), c)).sum::<f64>() / (kernel * kernel) as f64
            }),
            Op::Concat => each(shape, |y, x, mut c| {
                for &input in &node.inputs {
                    let from = graph.shape(input);
                    if c < from.c {
                        return self.values[input][(y * from.w + x) * from.c + c];
                    }
                    c -= from.c;
                }
                unreachable!("channels of the inputs are those of the output")
            }),
            Op::Dropout { .. } => self.values[node.inputs[0]].clone(),
            Op::GlobalAvgPool => {
                let from = graph.input_shape(id);
                let pixel = |i: usize, c| self.input(id, (i / from.w) as isize, (i % from.w) as isize, c);
                let pixels = from.h * from.w;
                each(shape, |_, _, c| (0..pixels).map(|i| pixel(i, c)).sum::<f64>() / pixels as f64)
            }
            other => unreachable!("the networks of this test have no {}", other.name()),
        }
    }
}

fn each(shape: Shape, f: impl Fn(usize, usize, usize) -> f64) -> Values {
    let positions = (0..shape.h).flat_map(|y| (0..shape.w).map(move |x| (y, x)));
    positions.flat_map(|(y, x)| (0..shape.c).map(move |c| (y, x, c))).map(|(y, x, c)| f(y, x, c)).collect()
}

/// Compares every code of one image; returns how many codes lay too close to a tie to say.
fn compare(model: &Model, conversion: &Conversion, pixels: &[u8], trace: &Trace) -> usize {
    let (graph, integer) = (&model.graph, &conversion.model);
    let owners = graph.clip_owners();
    let layers: HashMap<&str, usize> = integer.layers.iter().enumerate().map(|(i, l)| (l.name.as_str(), i)).collect();
    let channels = graph.input().c;
    let image = |(i, &p): (usize, &u8)| f64::from(p) - f64::from(model.input.zero_point[i % channels]);
    let mut simulated = Simulated { model, values: vec![pixels.iter().enumerate().map(image).collect()] };
    let mut near_ties = 0;
    // The code of each node's tensor that stands for zero.
    let mut zeros = vec![0i64; graph.nodes().len()];
    // What the roundings of a residual stream may have moved it by, in real units.
    let mut rounded = vec![0.0f64; graph.nodes().len()];
    for id in 1..graph.nodes().len() {
        let node = graph.node(id);
        let mut values = simulated.value(id);
        zeros[id] = match node.op {
            Op::MaxPool(_) | Op::Concat | Op::Dropout { .. } => zeros[node.inputs[0]],
            Op::AvgPool(pool) => zeros[node.inputs[0]] * pool.kernel.iter().product::<usize>() as i64,
            Op::GlobalAvgPool => zeros[node.inputs[0]] * (graph.input_shape(id).h * graph.input_shape(id).w) as i64,
            _ => 0,
        };
        if node.op.is_act() {
            let ActPlan { bits, quant, .. } = model.plan.activations[&node.name];
            let (q_max, zero) = (i64::from(quant.q_max(bits)), i64::from(quant.zero_code(bits)));
            zeros[id] = zero;
            let alphas = &model.tensors[&format!("{}.clip_val", graph.node(owners[id]).name)].data;
            let alpha = alphas.iter().fold(0.0, |most, &alpha| f32::max(most, alpha));
            // By definition: the channel's clip value in steps of the layer's, rounded to even.
            let step = f64::from(alpha) / q_max as f64;
            let limits: Vec<i64> = alphas.iter().map(|&a| (f64::from(a) / step).round_ties_even() as i64).collect();
            let own = conversion.acts.iter().find(|act| act.name == node.name);
            let margin = own.map_or(TOLERANCE, |act| act.worst_error) + 1e-6;
            let inverse = f64::from(quant.inverse_scale(alpha, bits));
            let codes = &trace.tensors[layers[node.name.as_str()]];
            assert_eq!(codes.len(), values.len());
            for (i, (value, &code)) in values.iter_mut().zip(codes).enumerate() {
                let (v, code) = (*value * inverse, code - zero);
                let limit = limits[i % graph.shape(id).c % limits.len()];
                let lowest = if quant.is_signed() { -limit } else { 0 };
                let nearest = |v: f64| ((v + 0.5).floor() as i64).clamp(lowest, limit);
                if nearest(v - margin) == nearest(v + margin) {
                    assert_eq!(code, nearest(v), "`{}`, element {i}: real value {v}", node.name);
                } else {
                    near_ties += 1;
                    assert!(
                        code <= limit && (v - code as f64).abs() <= 0.5 + margin,
                        "`{}`, element {i}: {code} for {v}",
                        node.name
                    );
                }
                *value = f64::from(quant.scale(alpha, bits)) * code as f64;
            }
        } else if let Some(&layer) = layers.get(node.name.as_str()) {
            let scale = integer.layers[layer].scale;
            rounded[id] = match &integer.layers[layer].op {
                op if op.is_wide() => {
                    let of_product = |p: &IntegerProduct| conversion.report.iter().find(|r| r.name == p.name);
                    op.products().find_map(of_product).map_or(0.0, |r| r.worst_error * scale)
                }
                IntegerOp::Concat { .. } => node.inputs.iter().map(|&i| rounded[i]).fold(0.0, f64::max),
                _ => 0.0,
            };
            let largest = values.iter().fold(0.0, |m, v| f64::max(m, v.abs()));
            for (value, &code) in values.iter().zip(&trace.tensors[layer]) {
                let got = (code - zeros[id]) as f64 * scale;
                let allowed = 1e-6 * largest + rounded[id];
                assert!((value - got).abs() <= allowed, "`{}`: {got}, expected {value}", node.name);
            }
        }
        simulated.values.push(values);
    }
    near_ties
}

fn check(graph: Graph, differences: &str, seed: u64) {
    let model = random_model(graph, &config(differences), seed);
    let conversion = convert(&model).unwrap();
    let integer = &conversion.model;
    let image = pixels(integer, 1, seed);
    let trace = Interpreter::new(integer).run(&image);
    let near_ties = compare(&model, &conversion, &image, &trace);
    let codes: usize = trace.tensors.iter().map(Vec::len).sum();
    assert!(near_ties * 25 < codes, "{near_ties} of {codes} codes are near a tie, {differences}");
    for layer in &conversion.report {
        let what = format!("{differences}: {layer:?}");
        let streams = integer.layers.iter().filter(|l| l.op.is_wide());
        let is_stream = streams.flat_map(|l| l.op.products()).any(|p| p.name == layer.name);
        let most = if is_stream { 64.0 } else { TOLERANCE };
        assert!(layer.worst_error <= most && layer.acc_range.0 < 0 && layer.acc_range.1 > 0, "{what}");
        let is_logits = layer.name == conversion.report.last().unwrap().name;
        assert_eq!(layer.act_bits.is_none(), is_stream || is_logits, "{what}");
    }
    // Roundings of the streams move no code by more than a few hundredths of a step.
    assert!(conversion.acts.iter().all(|act| act.worst_error < 0.05), "{:?}", conversion.acts);
    assert_eq!(conversion.report.last().unwrap().act_bits, None);
}

fn build(arch: &str, side: usize) -> Graph {
    zoo::build(arch, Shape::new(side, side + 4, 3), 5).unwrap().unwrap()
}

#[test]
fn every_width_quantizer_and_policy_of_a_plain_network() {
    let mut seed = 0;
    for bits in 1..=8 {
        for quant in ["dorefa", "sawb", "sawb+", "lsq", "minmax"] {
            for first_last in ["8bit", "same", "float"] {
                seed += 1;
                let act = 1 + (bits * 3 + seed) % 8;
                let differences =
                    format!(r#"{{"bits":"W{bits}A{act}","weight_quant":"{quant}","first_last":"{first_last}"}}"#);
                check(build("cnn", 8), &differences, seed);
            }
        }
    }
}

#[test]
fn grids_named_layer_by_layer() {
    for (bits, grid) in [(2, "zero"), (4, "zero"), (4, "no_zero"), (8, "no_zero")] {
        let overrides = format!(r#"{{"*":{{"weight_quant":"sawb","weight_grid":"{grid}","weight_bits":{bits}}}}}"#);
        check(build("cnn", 8), &format!(r#"{{"overrides":{overrides}}}"#), 99);
        for (quant, scale) in [("sawb", "channel"), ("lsq", "channel"), ("minmax", "layer")] {
            let overrides = overrides.replace("sawb", quant);
            let differences = format!(r#"{{"weight_scale":"{scale}","first_last":"same","overrides":{overrides}}}"#);
            check(build("cnn", 8), &differences, 98);
        }
    }
}

#[test]
fn clip_values_of_channels() {
    for bits in ["W2A2", "W4A4", "W8A8"] {
        for act_quant in ["pact", "pact+"] {
            let differences = format!(r#"{{"bits":"{bits}","act_quant":"{act_quant}","clip_scale":"channel"}}"#);
            for (seed, arch) in (70..).zip(["cnn", "resnet20", "resnet20-b", "preact_resnet20"]) {
                check(build(arch, 8), &differences, seed);
            }
        }
        let graph = zoo::build("mobilenet_v2", Shape::new(32, 32, 3), 5).unwrap().unwrap().narrowed(8).unwrap();
        check(graph, &format!(r#"{{"bits":"{bits}","clip_scale":"channel"}}"#), 80);
    }
}

#[test]
fn shortcuts_of_both_kinds_and_max_pool() {
    for bits in ["W4A4", "W2A3", "W8A8"] {
        for first_last in ["8bit", "float"] {
            let differences = format!(r#"{{"bits":"{bits}","first_last":"{first_last}","shortcut":"8bit"}}"#);
            check(build("resnet20", 8), &differences, 1);
            check(build("resnet20-b", 8), &differences, 2);
        }
    }
    check(build("resnet18", 36), r#"{"bits":"W4A4","weight_quant":"sawb"}"#, 3);
}

#[test]
fn networks_of_grouped_and_depthwise_convolutions() {
    for (bits, first_last) in [("W2A2", "8bit"), ("W4A4", "float"), ("W8A8", "same")] {
        let differences = format!(r#"{{"bits":"{bits}","first_last":"{first_last}","weight_quant":"sawb"}}"#);
        check(shrunk("mobilenet_v1", Shape::new(33, 40, 3), 5, 8), &differences, 5);
        check(shrunk("mobilenet_v2", Shape::new(33, 40, 3), 5, 8), &differences, 6);
        check(shrunk("alexnet", Shape::new(66, 70, 3), 5, 16), &differences, 7);
    }
}

#[test]
fn residual_streams_with_every_shortcut() {
    for (seed, bits) in (20..).zip(["W2A2", "W4A4", "W8A8", "W3A5"]) {
        for first_last in ["8bit", "float"] {
            let differences = format!(r#"{{"bits":"{bits}","first_last":"{first_last}"}}"#);
            check(build("preact_resnet20", 8), &differences, seed);
            check(build("preact_resnet20-b", 8), &differences, seed + 10);
        }
        check(shrunk("preact_resnet18", Shape::new(36, 40, 3), 5, 4), &format!(r#"{{"bits":"{bits}"}}"#), seed + 20);
    }
    check(shrunk("preact_resnet50", Shape::new(33, 36, 3), 5, 8), r#"{"weight_quant":"sawb"}"#, 45);
}

#[test]
fn average_pools_and_concatenations() {
    let text = r#"{"name":"mixed","nodes":[{"name":"in","op":"input","height":11,"width":9,"channels":3},
        {"name":"c1","op":"conv","out_channels":6,"kernel":3,"padding":1},{"name":"n1","op":"batch_norm"},
        {"name":"a1","op":"act","signed":true},
        {"name":"ap","op":"avg_pool","kernel":3,"stride":2,"padding":1},
        {"name":"c2","op":"conv","out_channels":5,"kernel":1},{"name":"n2","op":"batch_norm"},{"name":"a2","op":"act"},
        {"name":"c3","op":"conv","out_channels":18,"kernel":3,"padding":1,"inputs":["ap"]},{"name":"n3","op":"batch_norm"},
        {"name":"a3","op":"act"},{"name":"mp","op":"max_pool","kernel":3,"stride":1,"padding":1},
        {"name":"cat","op":"concat","inputs":["a2","mp","a3"]},
        {"name":"ap2","op":"avg_pool","kernel":2,"stride":2},
        {"name":"n4","op":"batch_norm"},{"name":"a4","op":"act","signed":true},
        {"name":"c5","op":"conv","out_channels":7,"kernel":2},{"name":"c6","op":"conv","out_channels":9,"kernel":2,"inputs":["a4"]},
        {"name":"cat2","op":"concat","inputs":["c5","c6"]},{"name":"n6","op":"batch_norm"},{"name":"a6","op":"act"},
        {"name":"drop","op":"dropout","rate":0.5},{"name":"fc","op":"linear","out_features":5}]}"#;
    for (seed, bits) in (50..).zip(["W2A2", "W4A4", "W8A8", "W3A5"]) {
        let graph: Graph = serde_json::from_str(text).unwrap();
        check(graph, &format!(r#"{{"bits":"{bits}"}}"#), seed);
    }
}

/// Signed codes read by padded and grouped convolutions, both pools and every shortcut, and grouped products of the
/// image.
#[test]
fn signed_codes_meet_every_reader() {
    let text = r#"{"name":"signed","nodes":[{"name":"in","op":"input","height":13,"width":11,"channels":4},
        {"name":"c1","op":"conv","out_channels":8,"kernel":3,"padding":1,"groups":2},{"name":"n1","op":"batch_norm"},
        {"name":"a1","op":"act","signed":true},
        {"name":"c2","op":"conv","out_channels":8,"kernel":3,"padding":2,"groups":8},{"name":"n2","op":"batch_norm"},
        {"name":"a2","op":"act"},
        {"name":"c3","op":"conv","out_channels":8,"kernel":3,"groups":4},{"name":"n3","op":"batch_norm"},
        {"name":"s3","op":"add","inputs":["n3","a1"]},{"name":"a3","op":"act","signed":true},
        {"name":"mp","op":"max_pool","kernel":3,"stride":2,"padding":1},
        {"name":"c4","op":"conv","out_channels":12,"kernel":3,"padding":1,"stride":2},{"name":"n4","op":"batch_norm"},
        {"name":"sub","op":"subsample","stride":2,"pad_before":1,"pad_after":3,"inputs":["mp"]},
        {"name":"s4","op":"add","inputs":["n4","sub"]},{"name":"a4","op":"act","signed":true},
        {"name":"c5","op":"conv","out_channels":6,"kernel":3,"padding":1,"stride":2},{"name":"n5","op":"batch_norm"},{"name":"a5","op":"act"},
        {"name":"c6","op":"conv","out_channels":6,"kernel":1},{"name":"n6","op":"batch_norm"},
        {"name":"c7","op":"conv","out_channels":6,"kernel":1,"stride":2,"groups":3,"inputs":["a4"]},{"name":"n7","op":"batch_norm"},
        {"name":"s7","op":"add","inputs":["n6","n7"]},{"name":"a7","op":"act","signed":true},
        {"name":"pool","op":"global_avg_pool"},{"name":"fc","op":"linear","out_features":5}]}"#;
    for (seed, bits) in (11..).zip(["W1A2", "W2A3", "W4A4", "W8A8"]) {
        let graph: Graph = serde_json::from_str(text).unwrap();
        check(graph, &format!(r#"{{"bits":"{bits}"}}"#), seed);
    }
}

#[test]
fn linear_layers_over_whole_images_and_biased_convolutions() {
    let node = |name: &str, op, inputs: &[usize]| Node { name: name.to_owned(), op, inputs: inputs.to_vec() };
    let conv = Op::Conv(Conv { bias: true, ..Conv::square(6, 5, 2, 1) });
    let graph = Graph::new(
        "mixed",
        vec![
            node("input", Op::Input { height: 7, width: 6, channels: 2 }, &[]),
            node("conv", conv, &[0]),
            node("norm", Op::BatchNorm(BatchNorm::default()), &[1]),
            node("act1", Op::Act { signed: false }, &[2]),
            node("fc1", Op::Linear { out_features: 20, bias: true }, &[3]),
            node("act2", Op::Act { signed: false }, &[4]),
            node("fc2", Op::Linear { out_features: 4, bias: false }, &[5]),
            node("norm2", Op::BatchNorm(BatchNorm::default()), &[6]),
        ],
    )
    .unwrap();
    for first_last in ["8bit", "same", "float"] {
        check(graph.clone(), &format!(r#"{{"bits":"W5A6","first_last":"{first_last}"}}"#), 4);
    }
}
