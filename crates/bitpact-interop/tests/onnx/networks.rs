//! Whole networks: what operators become, what is put together, what is refused.

use std::path::Path;

use crate::build::{File, float, int, ints, value};
use crate::forward::forward;
use bitpact_graph::{Move, Op, fuse};
use bitpact_interop::onnx::{import_bytes, proto};
use bitpact_interop::{ImportOptions, Imported, Pixels};
use bitpact_model::{IntegerLayer, IntegerOp, IntegerTerm, convert};

fn imported(file: &File) -> Result<Imported, String> {
    let options = ImportOptions { pixels: Pixels::named("raw255"), ..ImportOptions::default() };
    import_bytes(file.bytes(), "test", Path::new("."), Path::new("test.onnx"), &options)
        .map_err(|error| error.to_string())
}

fn names(imported: &Imported) -> Vec<&str> {
    imported.model.graph.nodes().iter().map(|node| &node.name[..]).collect()
}

fn ops(imported: &Imported) -> Vec<&'static str> {
    imported.model.graph.nodes().iter().map(|node| node.op.name()).collect()
}

/// A convolution of 3 to 4 channels and what it reads.
pub(crate) fn conv() -> File {
    File::new(&[0, 3, 8, 8]).drawn("layer.conv.weight", &[4, 3, 3, 3]).node(
        "Conv",
        &["x", "layer.conv.weight"],
        "c",
        vec![ints("pads", &[1, 1, 1, 1])],
    )
}

pub(crate) fn head(file: File, from: &str, inputs: i64) -> File {
    file.node("GlobalAveragePool", &[from], "pooled", vec![])
        .node("Flatten", &["pooled"], "flat", vec![])
        .drawn("fc.weight", &[5, inputs])
        .drawn("fc.bias", &[5])
        .node("Gemm", &["flat", "fc.weight", "fc.bias"], "y", vec![int("transB", 1)])
}

#[test]
fn a_network_keeps_the_names_of_its_tensors_and_has_an_integer_form() {
    let file = conv()
        .drawn("layer.bn.weight", &[4])
        .drawn("layer.bn.bias", &[4])
        .drawn("layer.bn.running_mean", &[4])
        .floats("layer.bn.running_var", &[4], &[1.0, 2.0, 0.5, 1.0])
        .node(
            "BatchNormalization",
            &["c", "layer.bn.weight", "layer.bn.bias", "layer.bn.running_mean", "layer.bn.running_var"],
            "b",
            vec![float("epsilon", 1e-3)],
        )
        .node("Relu", &["b"], "r", vec![]);
    let imported = imported(&head(file, "r", 4)).unwrap();
    assert_eq!(names(&imported), ["x", "layer.conv", "layer.bn", "r", "pooled", "fc"]);
    assert_eq!(ops(&imported), ["input", "conv", "batch_norm", "act", "global_avg_pool", "linear"]);
    let tensors: Vec<&String> = imported.model.tensors.keys().collect();
    assert!(
        tensors.iter().any(|name| *name == "layer.conv.weight")
            && tensors.iter().any(|name| *name == "layer.bn.running_var")
    );
    assert!(matches!(imported.model.graph.node(2).op, Op::BatchNorm(norm) if norm.eps == 1e-3 && norm.momentum == 0.1));
    assert_eq!(fuse(&imported.model.graph).unwrap().len(), 3);
    assert!(imported.notes.is_empty(), "{:?}", imported.notes);
}

#[test]
fn functions_written_in_pieces_are_recognized() {
    let silu = conv().node("Sigmoid", &["c"], "s", vec![]).node("Mul", &["c", "s"], "f", vec![]);
    let swish = conv()
        .floats("three", &[], &[3.0])
        .floats("zero", &[], &[0.0])
        .floats("six", &[], &[6.0])
        .node("Add", &["c", "three"], "a", vec![])
        .node("Clip", &["a", "zero", "six"], "k", vec![])
        .node("Mul", &["c", "k"], "m", vec![])
        .node("Div", &["m", "six"], "f", vec![]);
    let sigmoid_first =
        conv().node("HardSigmoid", &["c"], "h", vec![float("alpha", 1.0 / 6.0)]).node("Mul", &["h", "c"], "f", vec![]);
    let gelu = conv()
        .floats("root", &[], &[std::f32::consts::SQRT_2])
        .floats("one", &[], &[1.0])
        .floats("half", &[], &[0.5])
        .node("Div", &["c", "root"], "d", vec![])
        .node("Erf", &["d"], "e", vec![])
        .node("Add", &["e", "one"], "p", vec![])
        .node("Mul", &["c", "p"], "q", vec![])
        .node("Mul", &["q", "half"], "f", vec![]);
    for (file, name) in [(silu, "silu"), (swish, "hard_swish"), (sigmoid_first, "hard_swish"), (gelu, "gelu")] {
        let imported = imported(&head(file, "f", 4)).unwrap();
        let function = imported.model.graph.nodes().iter().find_map(|node| match node.op {
            Op::Function(function) => Some(function.name()),
            _ => None,
        });
        assert_eq!(function, Some(name));
        // Points of quantization before and after the function.
        let expected = ["input", "conv", "act", "function", "act", "global_avg_pool", "linear"];
        assert_eq!(ops(&imported), expected, "{name}");
        fuse(&imported.model.graph).unwrap();
    }
}

#[test]
fn clips_become_activations_and_functions_with_the_same_values() {
    let clip = |low: f32, high: f32| {
        let file = conv().floats("low", &[], &[low]).floats("high", &[], &[high]).node(
            "Clip",
            &["c", "low", "high"],
            "f",
            vec![],
        );
        head(file, "f", 4)
    };
    let plain = imported(&head(conv(), "c", 4)).unwrap().model;
    let conv_alone = |image: &[f64]| {
        let mut graph = plain.graph.nodes().to_vec();
        graph.truncate(2);
        let graph = bitpact_graph::Graph::new("conv", graph).unwrap();
        forward(&bitpact_model::Model { graph, ..plain.clone() }, image)
    };
    let image: Vec<f64> = (0..192).map(|i| f64::from(i * 37 % 23) / 4.0 - 2.0).collect();
    let values = conv_alone(&image);
    for (low, high) in [(0.0, 6.0), (-0.5, 0.75), (0.0, 1.0), (0.0, f32::INFINITY), (-1.0, f32::INFINITY)] {
        let model = imported(&clip(low, high)).unwrap().model;
        let clipped: Vec<f64> = values.iter().map(|v| v.clamp(low.into(), high.into())).collect();
        let pooled = |c: usize| clipped.iter().skip(c).step_by(4).sum::<f64>() / 64.0;
        let (weight, bias) = (&model.tensors["fc.weight"].data, &model.tensors["fc.bias"].data);
        let got = forward(&model, &image);
        for o in 0..5 {
            let sum: f64 = (0..4).map(|c| pooled(c) * f64::from(weight[o * 4 + c])).sum();
            let expected = sum + f64::from(bias[o]);
            assert!((got[o] - expected).abs() < 1e-6, "{low} to {high}: {} and {expected}", got[o]);
        }
    }
}

#[test]
fn channel_shuffles_of_reshapes_are_one_move() {
    let file = File::new(&[1, 3, 8, 8])
        .drawn("w", &[4, 3, 1, 1])
        .node("Conv", &["x", "w"], "c", vec![])
        .node("Relu", &["c"], "r", vec![])
        // Sizes as PyTorch's exporter computes them.
        .node("Shape", &["r"], "shape", vec![])
        .whole("two", 7, &[], &[2])
        .whole("zero", 7, &[1], &[0])
        .node("Gather", &["shape", "two"], "height", vec![])
        .node("Unsqueeze", &["height", "zero"], "heights", vec![])
        .whole("begin", 7, &[3], &[1, 2, 2])
        .whole("end", 7, &[1], &[-1])
        .node("Concat", &["begin", "heights", "end"], "sizes", vec![int("axis", 0)])
        .node("Reshape", &["r", "sizes"], "five", vec![])
        .node("Transpose", &["five"], "turned", vec![ints("perm", &[0, 2, 1, 3, 4])])
        .whole("back", 7, &[4], &[0, -1, 8, 8])
        .node("Reshape", &["turned", "back"], "s", vec![])
        .drawn("v", &[4, 4, 1, 1])
        .node("Conv", &["s", "v"], "d", vec![]);
    let imported = imported(&head(file, "d", 4)).unwrap();
    let moves: Vec<Move> = imported.model.graph.nodes().iter().filter_map(|node| node.op.moves()).flatten().collect();
    assert_eq!(moves, [Move::ChannelShuffle { groups: 2 }]);
}

#[test]
fn channels_last_inputs_and_paddings_of_tensorflow_disappear() {
    let file = File::new(&[0, 8, 8, 3])
        .node("Transpose", &["x"], "t", vec![ints("perm", &[0, 3, 1, 2])])
        .whole("pads", 7, &[8], &[0, 0, 0, 0, 0, 0, 1, 1])
        .node("Pad", &["t", "pads"], "p", vec![])
        .drawn("w", &[4, 3, 3, 3])
        .node("Conv", &["p", "w"], "c", vec![ints("strides", &[2, 2])])
        .node("Relu", &["c"], "r", vec![]);
    let imported = imported(&head(file, "r", 4)).unwrap();
    assert_eq!(ops(&imported), ["input", "conv", "act", "global_avg_pool", "linear"]);
    let Op::Conv(conv) = imported.model.graph.node(1).op else { panic!("a convolution") };
    assert_eq!((conv.padding.top, conv.padding.bottom, conv.padding.right), (0, 1, 1));
    assert_eq!(imported.model.graph.input().c, 3);
}

#[test]
fn normalization_of_the_image_is_the_meaning_of_pixels() {
    let normalized = |mean: f32| {
        let file = File::new(&[0, 3, 8, 8])
            .floats("mean", &[1, 3, 1, 1], &[mean, 128.0, 100.0])
            .floats("std", &[1, 3, 1, 1], &[50.0, 60.0, 70.0])
            .node("Sub", &["x", "mean"], "a", vec![])
            .node("Div", &["a", "std"], "n", vec![])
            .drawn("w", &[4, 3, 3, 3])
            .node("Conv", &["n", "w"], "c", vec![ints("pads", &[1, 1, 1, 1])])
            .node("Relu", &["c"], "r", vec![]);
        imported(&head(file, "r", 4)).unwrap()
    };
    let whole = normalized(120.0);
    assert_eq!(whole.model.input.zero_point, [120, 128, 100]);
    assert!((whole.model.input.scale[2] - 1.0 / 70.0).abs() < 1e-7);
    assert_eq!(ops(&whole)[1], "conv");
    // A mean between two pixels stays exact as a layer of its own.
    let between = normalized(120.4);
    assert_eq!(names(&between)[1], "image_layer");
    assert!((between.model.tensors["image_layer.bias"].data[0] + 120.4 / 50.0).abs() < 1e-6);
}

#[test]
fn constants_behind_layers_go_into_them() {
    let file = File::new(&[0, 6])
        .drawn("w", &[6, 4])
        .drawn("b", &[4])
        .node("MatMul", &["x", "w"], "m", vec![])
        .node("Add", &["m", "b"], "a", vec![])
        .node("Relu", &["a"], "r", vec![])
        .drawn("v", &[4, 3])
        .node("MatMul", &["r", "v"], "s", vec![])
        .node("Softmax", &["s"], "y", vec![]);
    let imported = imported(&file).unwrap();
    assert_eq!(ops(&imported), ["input", "linear", "act", "linear"]);
    assert!(imported.model.tensors.contains_key("w.bias"));
    assert!(imported.notes.iter().any(|note| note.contains("Softmax")), "{:?}", imported.notes);
}

#[test]
fn everything_unknown_is_told_at_once() {
    let file = conv()
        .node("LayerNormalization", &["c"], "l", vec![])
        .node("Softplus", &["l"], "p", vec![])
        .node("Softplus", &["p"], "q", vec![])
        .node("Relu", &["q"], "y", vec![]);
    let error = imported(&file).unwrap_err();
    for part in
        ["3 nodes have no counterpart", "1 LayerNormalization (`node_l`)", "nearest: BatchNormalization", "2 Softplus"]
    {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn several_outputs_are_several_outputs() {
    let mut file = head(conv().node("Relu", &["c"], "r", vec![]), "r", 4);
    file.graph.output.push(value("pooled", &[1, 4, 1, 1]));
    let imported = imported(&file).unwrap();
    let graph = &imported.model.graph;
    let outputs: Vec<&str> = graph.outputs().iter().map(|&id| &graph.node(id).name[..]).collect();
    // A mean is no sum, so a layer that multiplies by one stands for it.
    assert_eq!(outputs, ["fc", "output"]);
    assert_eq!(graph.classes(), 5);
    fuse(graph).unwrap();
}

#[test]
fn open_sizes_need_the_option() {
    let file =
        head(File { graph: proto::Graph { input: vec![value("x", &[0, 3, 0, 0])], ..conv().graph }, ..conv() }, "c", 4);
    let error = imported(&file).unwrap_err();
    assert!(error.contains("`x` leaves sizes") && error.contains("--input-shape"), "{error}");
    let options = ImportOptions { input_shape: Some(bitpact_graph::Shape::new(8, 8, 3)), ..ImportOptions::default() };
    import_bytes(file.bytes(), "test", Path::new("."), Path::new("t"), &options).unwrap();
}

/// A network of codes: weights of 8 bits for each channel, activations without zero points.
pub(crate) fn quantized(zero: i64) -> File {
    let weights: Vec<i64> = (0..108).map(|i| i * 53 % 255 - 127).collect();
    let last: Vec<i64> = (0..20).map(|i| i * 31 % 15 - 7).collect();
    File::new(&[0, 3, 8, 8])
        .whole("w.q", 3, &[4, 3, 3, 3], &weights)
        .floats("w.scale", &[4], &[0.01, 0.02, 0.005, 0.03])
        .whole("w.zero", 3, &[4], &[0; 4])
        .node("DequantizeLinear", &["w.q", "w.scale", "w.zero"], "conv.weight", vec![int("axis", 0)])
        .node("Conv", &["x", "conv.weight"], "c", vec![])
        .node("Relu", &["c"], "r", vec![])
        .floats("s", &[], &[0.125])
        .whole("z", 2, &[], &[zero])
        .node("QuantizeLinear", &["r", "s", "z"], "rq", vec![])
        .node("DequantizeLinear", &["rq", "s", "z"], "rd", vec![])
        .node("GlobalAveragePool", &["rd"], "pooled", vec![])
        .node("Flatten", &["pooled"], "flat", vec![])
        .whole("v.q", 3, &[5, 4], &last)
        .floats("v.scale", &[], &[0.05])
        .node("DequantizeLinear", &["v.q", "v.scale"], "fc.weight", vec![])
        .node("Gemm", &["flat", "fc.weight"], "y", vec![int("transB", 1)])
}

#[test]
fn codes_of_the_file_are_ours_without_training() {
    let imported = imported(&quantized(0)).unwrap();
    let model = &imported.model;
    assert!(!model.plan.is_float(), "{:?}", imported.notes);
    assert_eq!(model.tensors["r.clip_val"].data, [0.125 * 255.0]);
    assert_eq!(model.tensors["conv.weight_step"].data, [0.01, 0.02, 0.005, 0.03]);
    assert_eq!(model.plan.activations["r"].bits.get(), 8);
    let conversion = convert(model).unwrap();
    // The integers of the first layer are those of the file.
    let codes = conversion.model.layers.iter().find_map(first_weights).unwrap();
    assert!(codes.into_iter().eq((0..108).map(|i| (i * 53 % 255 - 127) as i16)));
}

fn first_weights(layer: &IntegerLayer) -> Option<Vec<i16>> {
    let IntegerOp::Sum(sum) = &layer.op else { return None };
    sum.terms.iter().find_map(|term| match term {
        IntegerTerm::Product(product) => Some(product.codes.clone()),
        _ => None,
    })
}

#[test]
fn codes_that_are_not_ours_are_told_and_left_out() {
    let imported = imported(&quantized(100)).unwrap();
    assert!(imported.model.plan.is_float());
    let told = imported.notes.iter().any(|note| note.contains("node_rq") && note.contains("codes from -100 to 155"));
    assert!(told, "{:?}", imported.notes);
}

#[test]
fn qonnx_brings_its_bits() {
    let file = File::new(&[0, 3, 8, 8])
        .drawn("w", &[4, 3, 3, 3])
        .floats("ws", &[1], &[0.1])
        .floats("zero", &[1], &[0.0])
        .floats("four", &[1], &[4.0])
        .floats("two", &[1], &[2.0])
        .node_of(
            "qonnx.custom_op.general",
            "Quant",
            &["w", "ws", "zero", "four"],
            "conv.weight",
            vec![int("narrow", 1)],
        )
        .node("Conv", &["x", "conv.weight"], "c", vec![])
        .node("Relu", &["c"], "r", vec![])
        .floats("s", &[1], &[0.5])
        .node_of("onnx.brevitas", "Quant", &["r", "s", "zero", "two"], "q", vec![int("signed", 0)]);
    let imported = imported(&head(file, "q", 4)).unwrap();
    assert_eq!(imported.model.plan.activations["r"].bits.get(), 2, "{:?}", imported.notes);
    assert_eq!(imported.model.tensors["r.clip_val"].data, [1.5]);
    convert(&imported.model).unwrap();
}

#[test]
fn hostile_files_are_refused_in_words() {
    let options = ImportOptions::default();
    let read = |bytes: Vec<u8>| {
        import_bytes(bytes, "test", Path::new("."), Path::new("test.onnx"), &options)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    let good = head(conv(), "c", 4);
    assert_eq!(read(good.bytes()), Ok(()));
    let bytes = good.bytes();
    for end in 0..bytes.len() {
        // Cut off anywhere, it says so and does not panic; a graph that is whole may stand before the end.
        let _ = read(bytes[..end].to_vec());
    }
    assert!(read(bytes[..bytes.len() / 2].to_vec()).unwrap_err().contains("cut off"));
    let circle = File::new(&[1, 3, 8, 8]).node("Relu", &["b"], "a", vec![]).node("Relu", &["a"], "b", vec![]);
    let twice = conv().node("Relu", &["c"], "d", vec![]).node("Relu", &["c"], "d", vec![]);
    let missing = File::new(&[1, 3, 8, 8]).node("Conv", &["x", "w"], "y", vec![]);
    let huge = conv().node("ConstantOfShape", &["sizes"], "k", vec![]);
    let huge = File {
        graph: proto::Graph {
            initializer: vec![proto::Tensor {
                name: Some("sizes".to_owned()),
                dims: vec![2],
                data_type: Some(7),
                int64_data: vec![1 << 40, 1 << 40],
                ..Default::default()
            }],
            ..huge.graph
        },
        ..huge
    };
    let claimed = File::new(&[1, 3, 1 << 40, 8]).drawn("w", &[4, 3, 1, 1]).node("Conv", &["x", "w"], "y", vec![]);
    let none = File { graph: proto::Graph::default(), ..conv() };
    for (file, part) in [
        (circle, "in a circle"),
        (twice, "two tensors are called `d`"),
        (missing, "a tensor is missing"),
        (huge, "`layer.conv.weight`, which no node"),
        (claimed, "expected 1 to 32768"),
        (none, "no input"),
    ] {
        let error = read(file.bytes()).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    for (bytes, part) in [
        (vec![], "has no graph"),
        (vec![0; 100], "is not an ONNX file"),
        (vec![0x3a, 0xff, 0xff, 0xff, 0x7f], "cut off"),
    ] {
        assert!(read(bytes).unwrap_err().contains(part));
    }
    // More messages than memory should hold.
    let nodes = [&[0x3a, 0x80, 0x80, 0x80, 0x08][..], &[0x0a, 0x00].repeat(1 << 23)].concat();
    assert!(read(nodes).unwrap_err().contains("fields"));
}
