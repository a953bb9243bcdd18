//! What is exported is the network: every ONNX dialect, computed in plain loops, gives the interpreter's integers.

#[path = "common/onnx.rs"]
mod onnx;

use std::path::Path;

use bitpact_core::rng::Key;
use bitpact_engine::Interpreter;
use bitpact_graph::Shape;
use bitpact_graph::testing::{Choices, Form, network_of};
use bitpact_interop::export::{CheckData, ExportOptions, Format, export};
use bitpact_interop::onnx::proto::{Graph, Model as Proto};
use bitpact_model::{InputDescription, IntegerModel, Model, convert};
use prost::Message;

use onnx::{Array, run};

/// Networks that are drawn.
const NETWORKS: u64 = 40;
const UINT8: i32 = 2;
const FLOAT: i32 = 1;

/// A random network; `None` where it has no integers.
fn network(seed: u64) -> Option<IntegerModel> {
    let mut choices = Choices::of_seed(seed);
    let (graph, plan) = network_of(Form { terms: 3, is_any: true }, &mut choices);
    let channels = graph.input().c;
    let bits = if seed % 4 == 3 { 16 } else { 8 };
    let zeros = (0..channels as u64).map(|c| match (seed % 2, bits) {
        (0, _) => 128,
        (_, 8) => (seed * 7 + c * 40) as u16 % 256,
        _ => (seed * 1700 + c * 9000) as u16,
    });
    let input = InputDescription { bits, zero_point: zeros.collect(), scale: vec![1.0 / 64.0; channels] };
    let names = (0..graph.classes()).map(|c| c.to_string()).collect();
    let model = Model::random(graph, plan, input, names, seed).unwrap();
    Some(convert(&model).ok()?.model)
}

/// The bytes of an image, and its codes with the channels first.
fn image(model: &IntegerModel, seed: u64) -> (Vec<u8>, Vec<u16>) {
    let key = Key::new(seed).with("pixels");
    let shape = model.input_shape;
    let bytes: Vec<u8> = (0..model.input.example_bytes(shape) as u64).map(|i| key.u64(i) as u8).collect();
    let codes: Vec<u16> = model.input.codes(&bytes).collect();
    (bytes, channels_first(&codes, shape))
}

fn channels_first<T: Copy>(values: &[T], shape: Shape) -> Vec<T> {
    (0..shape.c).flat_map(|c| values[c..].iter().step_by(shape.c).copied()).collect()
}

fn written(model: &IntegerModel, format: Format) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    export(model, format, ExportOptions::default(), &path).unwrap();
    std::fs::read(path).unwrap()
}

fn graph(model: &IntegerModel, format: Format) -> Graph {
    Proto::decode(&written(model, format)[..]).unwrap().graph.unwrap()
}

/// Scale and zero of every layer, as the script that checks reads them.
fn meanings(model: &IntegerModel, format: Format) -> Vec<(f64, i64)> {
    let folder = tempfile::tempdir().unwrap();
    let data = CheckData { layers: vec![Vec::new(); model.layers.len()], ..CheckData::default() };
    data.write(folder.path(), model, format).unwrap();
    let text = std::fs::read_to_string(folder.path().join("check.json")).unwrap();
    let contents: serde_json::Value = serde_json::from_str(&text).unwrap();
    let layers = contents["layers"].as_array().unwrap();
    layers.iter().map(|layer| (layer["scale"].as_f64().unwrap(), layer["zero"].as_i64().unwrap())).collect()
}

#[test]
fn integer_operators_give_every_integer_of_random_networks() {
    let mut tested = 0;
    for seed in 0..NETWORKS {
        let Some(model) = network(seed) else { continue };
        let graph = graph(&model, Format::OnnxInteger);
        let shape = model.input_shape;
        let (image, codes) = image(&model, seed);
        let input: Vec<i64> = codes.into_iter().map(i64::from).collect();
        let values = run(&graph, Array::new(&[1, shape.c, shape.h, shape.w], input, UINT8));
        let trace = Interpreter::new(&model).run(&image);
        for (layer, expected) in model.layers.iter().zip(&trace.tensors) {
            assert_eq!(values[&layer.name].data, channels_first(expected, layer.shape), "{seed}: {}", layer.name);
        }
        tested += 1;
    }
    assert!(tested > NETWORKS / 2, "{tested}");
}

#[test]
fn dialects_of_floats_give_the_integers_of_random_networks_up_to_rounding() {
    for format in [Format::OnnxQcdq, Format::OnnxQdq, Format::Qonnx] {
        let (mut numbers, mut different) = (0, 0);
        for seed in 0..NETWORKS {
            let Some(model) = network(seed) else { continue };
            let graph = graph(&model, format);
            let shape = model.input_shape;
            let (image, codes) = image(&model, seed);
            let input: Vec<f64> = codes.into_iter().map(f64::from).collect();
            let kind = if format == Format::Qonnx { FLOAT } else { UINT8 };
            let values = run(&graph, Array::new(&[1, shape.c, shape.h, shape.w], input, kind));
            let trace = Interpreter::new(&model).run(&image);
            let layers = model.layers.iter().zip(&trace.tensors).zip(meanings(&model, format));
            for (i, ((layer, expected), (scale, zero))) in layers.enumerate() {
                let expected = channels_first(expected, layer.shape);
                let got = &values[&layer.name].data;
                assert_eq!(got.len(), expected.len());
                if model.kind(i + 1) != bitpact_model::TensorKind::Codes {
                    continue;
                }
                numbers += expected.len();
                let code = |v: &f64| (v / scale).round_ties_even() as i64 + zero;
                different += got.iter().zip(&expected).filter(|(got, expected)| code(got) != **expected).count();
            }
        }
        assert!(numbers > 10_000, "{numbers}");
        assert!(different * 1000 < numbers, "{format}: {different} of {numbers} codes");
    }
}

#[test]
fn equal_networks_give_equal_bytes() {
    let model = network(3).or_else(|| network(4)).unwrap();
    for format in Format::ALL.into_iter().filter(|&format| format != Format::Npy) {
        assert_eq!(written(&model, format), written(&model, format), "{format}");
    }
}

#[test]
fn the_folder_of_arrays_holds_every_weight_and_constant() {
    let model = (0..).find_map(network).unwrap();
    let folder = tempfile::tempdir().unwrap();
    export(&model, Format::Npy, ExportOptions::default(), folder.path()).unwrap();
    let text = std::fs::read_to_string(folder.path().join("model.json")).unwrap();
    let contents: serde_json::Value = serde_json::from_str(&text).unwrap();
    let layers = contents["layers"].as_array().unwrap();
    assert_eq!(layers.len(), model.layers.len());
    let mut products = 0;
    for (layer, written) in model.layers.iter().zip(layers) {
        assert_eq!(written["name"], layer.name);
        let Some(sum) = layer.op.sum() else { continue };
        assert_eq!(written["op"]["constant"], serde_json::json!(sum.requant.add));
        assert_eq!(written["op"]["shift"], sum.requant.shift);
        for (t, term) in sum.terms.iter().enumerate() {
            let object = &written["op"]["terms"][t];
            assert_eq!(object["multiplier"], serde_json::json!(sum.requant.mul[t]));
            let Some(product) = term.product() else { continue };
            let codes = array(&folder.path().join(object["weight"].as_str().unwrap()));
            assert_eq!(codes, product.codes.iter().map(|&q| i64::from(q)).collect::<Vec<_>>());
            products += 1;
        }
    }
    assert!(products > 0);
}

/// The integers of a NumPy file.
fn array(path: &Path) -> Vec<i64> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((10 + length) % 64, 0);
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(header.ends_with('\n'));
    let data = &bytes[10 + length..];
    match header {
        _ if header.contains("'|i1'") => data.iter().map(|&v| i64::from(v as i8)).collect(),
        _ if header.contains("'<i2'") => {
            data.chunks_exact(2).map(|v| i64::from(i16::from_le_bytes([v[0], v[1]]))).collect()
        }
        other => panic!("{other}"),
    }
}
