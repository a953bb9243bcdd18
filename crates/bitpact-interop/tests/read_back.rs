//! What was exported is read back to the same network, and what was changed since is not.

#[path = "common/networks.rs"]
mod networks;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bitpact_core::Grid;
use bitpact_graph::testing::small_zoo;
use bitpact_graph::{BitSpec, Move, QuantConfig, QuantPlan, zoo};
use bitpact_interop::export::{ExportOptions, Exported, Format, export, read_back};
use bitpact_interop::onnx::proto::{Entry, Model as Proto, Tensor};
use bitpact_interop::{ImportOptions, InteropError, import};
use bitpact_model::{InputDescription, IntegerEnd, IntegerModel, IntegerOp, IntegerTerm, Model, convert};
use proptest::prelude::*;
use prost::Message;
use tempfile::TempDir;

use networks::network;

/// Networks that are drawn, and further ones for forms that are rare.
const NETWORKS: u64 = 150;
const MORE: u64 = 4000;

fn written(model: &IntegerModel, format: Format) -> (TempDir, PathBuf) {
    written_with(model, format, ExportOptions::default())
}

fn written_with(model: &IntegerModel, format: Format, options: ExportOptions) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exported");
    export(model, format, options, &path).unwrap();
    (folder, path)
}

fn assert_read_back(model: &IntegerModel, what: &str) {
    for format in Format::ALL {
        let (_folder, path) = written(model, format);
        let back = read_back(&path).unwrap_or_else(|error| panic!("{what}, {format}: {error}"));
        assert_eq!(back, Some(Exported { model: model.clone(), format }), "{what}, {format}");
    }
}

/// The forms of layers, views, tables, inputs and outputs that a network has.
fn forms(model: &IntegerModel) -> BTreeSet<String> {
    let mut forms = BTreeSet::from([format!("input of {} bits", model.input.bits)]);
    let mut views = Vec::new();
    let mut note = |form: &str| {
        forms.insert(form.to_owned());
    };
    for output in &model.outputs {
        let shape = model.shape(output.tensor);
        note(&format!("output of {:?}", model.kind(output.tensor)));
        note(if (shape.h, shape.w) == (1, 1) { "output of one pixel" } else { "output of pixels" });
        note(if output.zero == 0 { "output around 0" } else { "output with a zero" });
    }
    note(if model.outputs.len() > 1 { "several outputs" } else { "one output" });
    for (i, layer) in model.layers.iter().enumerate() {
        match &layer.op {
            IntegerOp::MaxPool { .. } => note(&format!("max pool of {:?}", model.kind(i + 1))),
            IntegerOp::Concat { .. } => note(&format!("concat of {:?}", model.kind(i + 1))),
            IntegerOp::WindowSum { factors, window, .. } => {
                note(if factors.is_empty() { "window sum" } else { "window sum with factors" });
                note(if window.padding.is_none() { "window sum" } else { "padded window sum" });
            }
            IntegerOp::View(view) => {
                note(&format!("view of {:?}", model.kind(i + 1)));
                views.push(view);
            }
            IntegerOp::Sum(sum) => {
                note(if sum.base.is_empty() { "nothing added after the shift" } else { "added after the shift" });
                note(if sum.terms.len() > 1 { "several terms" } else { "one term or none" });
                views.extend(sum.base.iter().map(|(view, _)| view));
                match &sum.end {
                    IntegerEnd::Codes if sum.requant.bounds.is_empty() => note("codes"),
                    IntegerEnd::Codes => note("codes with bounds of channels"),
                    IntegerEnd::Table(tables) if tables.len() == 1 => note("a table"),
                    IntegerEnd::Table(_) => note("tables of channels"),
                    IntegerEnd::Wide => note("wide"),
                    IntegerEnd::Output => note("output"),
                }
                if sum.requant.mul.iter().flatten().any(|&mul| mul < 0) {
                    note("a negative multiplier");
                }
                for term in &sum.terms {
                    match term {
                        IntegerTerm::View(view) => views.push(view),
                        IntegerTerm::Multiplication { a, b, .. } => {
                            note("multiplication");
                            views.extend([a, b]);
                        }
                        IntegerTerm::Product(product) => {
                            let (window, kind) = (&product.window, model.kind(product.input));
                            note(&format!("product of {kind:?}"));
                            note(&format!("weights of {} bits", product.weight_bits));
                            note(if product.grid == Grid::WithZero { "grid with zero" } else { "grid without zero" });
                            note(if product.groups == 1 { "one group" } else { "groups" });
                            note(if window.spread == [1; 2] { "plain window" } else { "spread window" });
                            note(if window.dilation == [1; 2] { "plain window" } else { "dilated window" });
                            note(if window.padding.is_none() { "no padding" } else { "padding" });
                        }
                    }
                }
            }
        }
    }
    views.iter().flat_map(|view| &view.moves).for_each(|step| note(&format!("move: {}", name(step))));
    forms
}

fn name(step: &Move) -> &'static str {
    match step {
        Move::Stride { .. } => "stride",
        Move::Crop { .. } => "crop",
        Move::Channels { .. } => "channels",
        Move::Insert { .. } => "insert",
        Move::PixelShuffle { .. } => "pixel shuffle",
        Move::PixelUnshuffle { .. } => "pixel unshuffle",
        Move::ChannelShuffle { .. } => "channel shuffle",
        Move::Repeat { .. } => "repeat",
    }
}

/// Forms that networks of the tests must have had.
const FORMS: [&str; 52] = [
    "a negative multiplier",
    "a table",
    "added after the shift",
    "codes",
    "codes with bounds of channels",
    "concat of Codes",
    "concat of Wide",
    "dilated window",
    "grid with zero",
    "grid without zero",
    "groups",
    "input of 16 bits",
    "input of 8 bits",
    "max pool of Codes",
    "max pool of Wide",
    "move: channel shuffle",
    "move: channels",
    "move: crop",
    "move: insert",
    "move: pixel shuffle",
    "move: pixel unshuffle",
    "move: repeat",
    "move: stride",
    "multiplication",
    "one output",
    "output",
    "output around 0",
    "output of Codes",
    "output of Output",
    "output of Sums",
    "output of Wide",
    "output of one pixel",
    "output of pixels",
    "output with a zero",
    "padded window sum",
    "padding",
    "product of Codes",
    "product of Image",
    "product of Sums",
    "several outputs",
    "several terms",
    "spread window",
    "tables of channels",
    "view of Codes",
    "weights of 1 bits",
    "weights of 16 bits",
    "weights of 2 bits",
    "weights of 4 bits",
    "weights of 8 bits",
    "wide",
    "window sum",
    "window sum with factors",
];

#[test]
fn random_networks_of_every_form_are_written_in_every_format_and_read_back() {
    let mut seen = BTreeSet::new();
    for seed in 0..MORE {
        let missing: Vec<&str> = FORMS.into_iter().filter(|&form| !seen.contains(form)).collect();
        if seed >= NETWORKS && missing.is_empty() {
            break;
        }
        let Some(mut model) = network(seed) else { continue };
        if seed % 5 == 0 {
            turn(&mut model);
        }
        let forms = forms(&model);
        if seed < NETWORKS || missing.iter().any(|&form| forms.contains(form)) {
            assert_read_back(&model, &format!("random {seed}"));
            seen.extend(forms);
        }
    }
    let missing: Vec<&str> = FORMS.into_iter().filter(|&form| !seen.contains(form)).collect();
    assert!(missing.is_empty(), "no network had {missing:?}");
}

/// Turns the sign of a channel of every product: trained batch norms have negative gains, random ones have not.
fn turn(model: &mut IntegerModel) {
    for layer in &mut model.layers {
        let IntegerOp::Sum(sum) = &mut layer.op else { continue };
        for (term, mul) in sum.terms.iter_mut().zip(&mut sum.requant.mul) {
            if let IntegerTerm::Product(product) = term {
                let n = product.weights_per_channel();
                product.codes[..n].iter_mut().for_each(|code| *code = -*code);
                mul[0] = -mul[0];
            }
        }
    }
    model.check().expect("the sums are the same");
}

#[test]
fn networks_of_the_zoo_are_read_back() {
    for (i, &name) in zoo::NAMES.iter().enumerate() {
        let graph = small_zoo(name, 10);
        let bits = ["W4A4", "W2A2", "W8A8", "W3A3", "W5A5"][i % 5].parse::<BitSpec>().unwrap();
        let plan = QuantPlan::resolve(&graph, &QuantConfig::new(bits)).unwrap();
        let names = (0..graph.classes()).map(|c| c.to_string()).collect();
        let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
        let model = Model::random(graph, plan, input, names, i as u64).unwrap();
        assert_read_back(&convert(&model).unwrap().model, name);
    }
}

#[test]
fn an_export_is_a_file_like_any_other_too() {
    let graph = small_zoo("resnet8", 10);
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new("W4A4".parse().unwrap())).unwrap();
    let names = (0..10).map(|c| c.to_string()).collect();
    let model = Model::random(graph, plan, InputDescription::uniform(3, 128, 1.0 / 64.0), names, 1).unwrap();
    let integers = convert(&model).unwrap().model;
    let options = ImportOptions { input_shape: Some(integers.input_shape), ..ImportOptions::default() };
    for format in [Format::OnnxQcdq, Format::OnnxQdq, Format::Qonnx] {
        let (_folder, path) = written(&integers, format);
        let imported = import(&path, &options).unwrap_or_else(|error| panic!("{format}: {error}"));
        assert_eq!(imported.model.graph.classes(), 10, "{format}: {:?}", imported.notes);
    }
}

#[test]
fn biases_that_were_kept_are_read_back() {
    let options = ExportOptions { rounded_biases: true };
    for model in (0..10).filter_map(network) {
        let (_folder, path) = written_with(&model, Format::OnnxQcdq, options);
        assert_eq!(read_back(&path).unwrap().unwrap().model, model);
    }
}

/// A small network with 2-bit weights, a table and a stream.
fn small() -> IntegerModel {
    let is_small = |model: &IntegerModel| {
        let forms = forms(model);
        ["a table", "wide", "codes"].iter().all(|&form| forms.contains(form)) && model.layers.len() < 12
    };
    (0..).filter_map(network).find(is_small).unwrap()
}

fn decoded(path: &Path) -> Proto {
    Proto::decode(&std::fs::read(path).unwrap()[..]).unwrap()
}

fn onnx() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|format| format.is_onnx())
}

#[test]
fn a_graph_that_is_only_written_in_another_way_is_read_back() {
    let model = small();
    for format in onnx() {
        let (folder, path) = written(&model, format);
        let mut file = decoded(&path);
        file.producer_name = Some("another program".to_owned());
        file.metadata_props.insert(0, Entry { key: Some("note".to_owned()), value: Some("kept".to_owned()) });
        let graph = file.graph.as_mut().unwrap();
        graph.name = Some("renamed".to_owned());
        graph.initializer.reverse();
        // Integers as a list, and the largest tensor in a file of its own.
        for tensor in &mut graph.initializer {
            let raw = tensor.raw_data.clone().unwrap();
            if tensor.data_type == Some(7) {
                tensor.int64_data = raw.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
                tensor.raw_data = None;
            }
        }
        let largest = |tensor: &&mut Tensor| tensor.raw_data.as_ref().map_or(0, |raw| raw.len());
        let tensor = graph.initializer.iter_mut().max_by_key(largest).unwrap();
        std::fs::write(folder.path().join("weights.bin"), tensor.raw_data.take().unwrap()).unwrap();
        let entry = Entry { key: Some("location".to_owned()), value: Some("weights.bin".to_owned()) };
        (tensor.external_data, tensor.data_location) = (vec![entry], Some(1));
        std::fs::write(&path, file.encode_to_vec()).unwrap();
        assert_eq!(read_back(&path).unwrap().unwrap().model, model, "{format}");
    }
}

#[test]
fn a_graph_that_was_changed_is_told_with_its_place() {
    type Change = fn(&mut Proto);
    let graph_changes: [(&str, Change); 9] = [
        ("input", |file| file.graph.as_mut().unwrap().input[0].name = Some("pixels".to_owned())),
        ("output", |file| file.graph.as_mut().unwrap().output[0].name = Some("scores".to_owned())),
        ("operator sets", |file| file.opset_import[0].version = Some(14)),
        ("node", |file| file.graph.as_mut().unwrap().node[1].op_type = Some("Relu".to_owned())),
        ("node", |file| drop(file.graph.as_mut().unwrap().node.remove(2))),
        ("nodes instead of", |file| drop(file.graph.as_mut().unwrap().node.pop())),
        ("tensors instead of", |file| {
            let graph = file.graph.as_mut().unwrap();
            let more = Tensor { name: Some("more".to_owned()), ..graph.initializer[0].clone() };
            graph.initializer.push(more);
        }),
        ("metadata `bitpact.layers`", |file| {
            let layers = file.metadata_props.iter_mut().find(|entry| entry.key.as_deref() == Some("bitpact.layers"));
            layers.unwrap().value = Some("[]".to_owned());
        }),
        ("metadata", |file| file.metadata_props.retain(|entry| entry.key.as_deref() != Some("bitpact.input"))),
    ];
    let model = small();
    for format in onnx() {
        let (_folder, path) = written(&model, format);
        for (place, change) in graph_changes {
            let mut file = decoded(&path);
            change(&mut file);
            assert_changed(&path, &file.encode_to_vec(), place, format);
        }
        // Every byte of every tensor counts.
        for i in 0..decoded(&path).graph.unwrap().initializer.len() {
            let mut file = decoded(&path);
            let tensor = &mut file.graph.as_mut().unwrap().initializer[i];
            let (mut bytes, name) = (tensor.raw_data.take().unwrap().to_vec(), tensor.name.clone().unwrap());
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            tensor.raw_data = Some(bytes.into());
            std::fs::write(&path, file.encode_to_vec()).unwrap();
            match read_back(&path) {
                Err(InteropError::Changed { .. }) => {}
                // Weights that are no codes any more.
                Err(InteropError::File { what, .. }) if what.contains("weight") => {}
                other => panic!("{format}, tensor {name}: {other:?}"),
            }
            tensor_restored(&path, i, last);
        }
    }
}

/// Turns the change of a tensor back.
fn tensor_restored(path: &Path, i: usize, at: usize) {
    let mut file = decoded(path);
    let tensor = &mut file.graph.as_mut().unwrap().initializer[i];
    let mut bytes = tensor.raw_data.take().unwrap().to_vec();
    bytes[at] ^= 1;
    tensor.raw_data = Some(bytes.into());
    std::fs::write(path, file.encode_to_vec()).unwrap();
}

/// Writes `bytes`, expects that reading tells `place`, and puts back what stood there.
fn assert_changed(path: &Path, bytes: &[u8], place: &str, format: Format) {
    let before = std::fs::read(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    match read_back(path) {
        Err(error @ InteropError::Changed { .. }) => {
            let told = error.to_string();
            assert!(
                told.contains(place) && told.contains("was changed after bitpact wrote it"),
                "{format}, {place}: {told}"
            );
        }
        other => panic!("{format}, {place}: {other:?}"),
    }
    std::fs::write(path, before).unwrap();
}

#[test]
fn constants_that_the_graph_does_not_follow_are_not_taken() {
    let model = small();
    for format in onnx() {
        let (_folder, path) = written(&model, format);
        let changed = |text: &str| {
            let mut network: serde_json::Value = serde_json::from_str(text).unwrap();
            let layers = network["layers"].as_array_mut().unwrap();
            let sum = layers.iter_mut().find(|layer| layer["op"]["kind"] == "sum").unwrap();
            let constant = &mut sum["op"]["constant"][0];
            *constant = (constant.as_i64().unwrap() + 1).into();
            network.to_string()
        };
        let mut file = decoded(&path);
        let entry = file.metadata_props.iter_mut().find(|entry| entry.key.as_deref() == Some("bitpact.network"));
        let value = &mut entry.unwrap().value;
        *value = Some(changed(value.as_deref().unwrap()));
        assert_changed(&path, &file.encode_to_vec(), "", format);
    }
}

#[test]
fn what_is_no_export_is_none() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(read_back(folder.path()).unwrap(), None);
    for (name, bytes) in
        [("a.onnx", &b"\x08\x08\x12\x07pytorch"[..]), ("model.json", b"{\"weight_map\": {}}"), ("b", b"")]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read_back(&path).unwrap(), None, "{name}");
    }
    assert!(read_back(folder.path().join("missing")).unwrap().is_none());
}

#[test]
fn a_folder_that_was_changed_is_told() {
    let model = small();
    let (_folder, path) = written(&model, Format::Npy);
    // The JSON file names the folder too.
    assert_eq!(read_back(path.join("model.json")).unwrap().unwrap().model, model);
    let files: Vec<PathBuf> = std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().path()).collect();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "npy")) {
        let bytes = std::fs::read(file).unwrap();
        let mut other = bytes.clone();
        *other.last_mut().unwrap() ^= 2;
        for broken in [&other[..], &bytes[..bytes.len() - 1], b""] {
            std::fs::write(file, broken).unwrap();
            assert!(read_back(&path).is_err(), "{}", file.display());
        }
        std::fs::remove_file(file).unwrap();
        assert!(read_back(&path).is_err(), "{}", file.display());
        std::fs::write(file, bytes).unwrap();
    }
    let contents = path.join("model.json");
    let text = std::fs::read_to_string(&contents).unwrap();
    let name = files.iter().find(|file| file.to_str().unwrap().ends_with("weight.npy")).unwrap();
    let name = name.file_name().unwrap().to_str().unwrap();
    std::fs::copy(path.join(name), path.parent().unwrap().join(name)).unwrap();
    std::fs::write(&contents, text.replace(name, &format!("../{name}"))).unwrap();
    assert!(read_back(&path).unwrap_err().to_string().contains("expected a file of the folder"));
    std::fs::write(&contents, text.replace("bitpact network 1", "bitpact network 12")).unwrap();
    assert!(read_back(&path).unwrap_err().to_string().contains("expected \"bitpact network 1\""));
}

#[test]
fn weights_in_float_that_were_changed_are_told() {
    let model = small();
    let (_folder, path) = written(&model, Format::Safetensors);
    let bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in header..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 1;
        std::fs::write(&path, other).unwrap();
        assert!(read_back(&path).is_err(), "byte {at}");
    }
}

#[test]
fn channels_that_add_nothing_keep_their_codes() {
    let mut model = small();
    let sum = model.layers.iter_mut().find_map(|layer| match &mut layer.op {
        IntegerOp::Sum(sum) if sum.terms.iter().any(|term| term.product().is_some()) => Some(sum),
        _ => None,
    });
    sum.unwrap().requant.mul.iter_mut().for_each(|mul| mul[0] = 0);
    model.check().unwrap();
    assert_read_back(&model, "a multiplier of 0");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes are changed: a file gives its network, an error or nothing, and never another network.
    #[test]
    fn no_change_of_bytes_gives_another_network(
        format in prop::sample::select(Format::ALL.into_iter().filter(|&f| f != Format::Npy).collect::<Vec<_>>()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ) {
        let model = small();
        let (_folder, path) = written(&model, format);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(Some(found)) = read_back(&path) {
            prop_assert_eq!(found.model, model);
        }
    }
}
