//! Weights of other programs become networks of the zoo, whatever their layers are called.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bitpact_graph::{BitSpec, Graph, Op, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_interop::{ImportOptions, Imported, import};
use bitpact_model::{Checkpoint, InputDescription, Model, Pixels, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use tempfile::TempDir;

/// Named tensors in an order.
type Named = Vec<(String, Tensor)>;

/// A network with random weights, and its tensors in the order of its nodes, as PyTorch registers them.
fn network(name: &str, side: usize, classes: usize) -> (Model, Named) {
    let graph = zoo::build(name, Shape::new(side, side, 3), classes).unwrap().unwrap();
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new(BitSpec::Float)).unwrap();
    let names = (0..classes).map(|class| format!("class{class}")).collect();
    let model = Model::random(graph, plan, InputDescription::uniform(3, 0, 1.0), names, 7).unwrap();
    let mut named = Vec::new();
    for node in model.graph.nodes() {
        for tensor in ["weight", "bias", "running_mean", "running_var"] {
            let name = format!("{}.{tensor}", node.name);
            named.extend(model.tensors.get(&name).map(|tensor| (name.clone(), tensor.clone())));
        }
    }
    assert_eq!(named.len(), model.tensors.len());
    (model, named)
}

fn renamed(named: &Named, rename: impl Fn(&str) -> String) -> Named {
    named.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn pth(folder: &TempDir, named: &Named) -> PathBuf {
    write(folder, "net.pth", &common::state_dict(named.iter().map(|(name, tensor)| (name.as_str(), tensor))))
}

/// A safetensors file; the library sorts by name.
fn safetensors(tensors: &Named, dtype: Dtype) -> Vec<u8> {
    let bytes = |tensor: &Tensor| -> Vec<u8> {
        let each = |f: fn(f32) -> Vec<u8>| tensor.data.iter().flat_map(|&v| f(v)).collect();
        match dtype {
            Dtype::F16 => each(|v| half::f16::from_f32(v).to_le_bytes().to_vec()),
            Dtype::BF16 => each(|v| half::bf16::from_f32(v).to_le_bytes().to_vec()),
            Dtype::F64 => each(|v| f64::from(v).to_le_bytes().to_vec()),
            _ => each(|v| v.to_le_bytes().to_vec()),
        }
    };
    let all: Vec<Vec<u8>> = tensors.iter().map(|(_, tensor)| bytes(tensor)).collect();
    let views = tensors
        .iter()
        .zip(&all)
        .map(|((name, tensor), bytes)| (name.as_str(), TensorView::new(dtype, tensor.shape.clone(), bytes).unwrap()));
    serialize(views, None).unwrap()
}

/// Pixels that the files do not say.
fn exact() -> ImportOptions {
    ImportOptions { pixels: Pixels::named("unit"), ..Default::default() }
}

fn options(arch: &str) -> ImportOptions {
    ImportOptions { arch: Some(arch.to_owned()), ..exact() }
}

#[track_caller]
fn imported(path: &Path, options: &ImportOptions) -> Imported {
    import(path, options).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refused(path: &Path, options: &ImportOptions, parts: &[&str]) {
    let error = import(path, options).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

/// The name of a module and the rest.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap()
}

/// The name of another program for one of ours.
type Renamed<'a> = &'a dyn Fn(&str) -> String;

#[test]
fn names_of_torchvision_and_of_cifar_networks_are_guessed_with_their_classes() {
    let folder = tempfile::tempdir().unwrap();
    let same = |name: &str| name.to_owned();
    let wrapped = |name: &str| format!("module.{name}");
    // chenyaofo/pytorch-cifar-models has projections, and torchvision's words for them and for the last layer.
    let others = |name: &str| name.replace("shortcut.", "downsample.").replace("linear.", "fc.");
    let cases: [(&str, usize, Renamed); 6] = [
        ("resnet20", 10, &wrapped),
        ("resnet56", 100, &same),
        ("resnet20-b", 10, &others),
        ("resnet18", 7, &same),
        ("mobilenet_v1", 3, &same),
        ("preact_resnet20", 10, &same),
    ];
    for (arch, classes, rename) in cases {
        let (side, _) = zoo::usual_input(arch);
        let (model, named) = network(arch, side, classes);
        let mut named = renamed(&named, rename);
        named.push(("bn1.num_batches_tracked".to_owned(), Tensor::full(&[], 3.0)));
        let found = imported(&pth(&folder, &named), &exact());
        assert_eq!((found.model.graph.name(), found.model.graph.classes()), (arch, classes));
        assert!(found.model.tensors == model.tensors && found.model.graph == model.graph, "{arch}");
        assert!(found.notes[0].contains(arch), "{:?}", found.notes);
        assert_eq!(found.model.class_names[classes - 1], format!("class{}", classes - 1));
        assert_eq!(found.model.input, InputDescription::uniform(3, 0, 1.0 / 255.0));
    }
}

#[test]
fn layers_of_other_names_are_matched_by_order_and_shape() {
    let folder = tempfile::tempdir().unwrap();
    let (model, named) = network("resnet20", 32, 10);
    let modules: Vec<&str> = model.graph.nodes().iter().map(|node| node.name.as_str()).collect();
    let numbered = |name: &str| {
        let (module, tensor) = split(name);
        format!("stage.{}.body.{tensor}", modules.iter().position(|own| *own == module).unwrap())
    };
    let other = renamed(&named, numbered);
    // Before or after the convolution, a batch norm has the same shape.
    let path = pth(&folder, &other);
    refused(&path, &exact(), &["the tensors fit preact_resnet20, resnet20: choose one with --arch"]);
    let found = imported(&path, &options("resnet20"));
    assert!(found.model.tensors == model.tensors);
    assert!(found.notes.iter().any(|note| note.contains("`stage.1.body` for `conv1`")), "{:?}", found.notes);
    // The library sorts names, so that 10 comes before 9.
    let path = write(&folder, "net.safetensors", &safetensors(&other, Dtype::F32));
    assert!(imported(&path, &options("resnet20")).model.tensors == model.tensors);
    // Another number of layers is no match.
    let fewer: Named = other.iter().filter(|(name, _)| !name.starts_with("stage.2.")).cloned().collect();
    refused(
        &pth(&folder, &fewer),
        &options("resnet20"),
        &["resnet20: missing: conv1.weight [16, 3, 3, 3]", "and 7", "left over: "],
    );
}

#[test]
fn names_of_timm_s_mobilenet_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let (model, named) = network("mobilenet_v2", 32, 4);
    let stages = [1, 2, 3, 4, 3, 3, 1usize];
    let timm = |name: &str| {
        let (module, tensor) = split(name);
        let parts: Vec<&str> = module.split('.').collect();
        let module = match parts[..] {
            ["features", "0", "0"] => "conv_stem".to_owned(),
            ["features", "0", "1"] => "bn1".to_owned(),
            ["features", "18", "0"] => "conv_head".to_owned(),
            ["features", "18", "1"] => "bn2".to_owned(),
            ["classifier", "1"] => "classifier".to_owned(),
            ["features", number, "conv", ref inner @ ..] => {
                let mut block = number.parse::<usize>().unwrap() - 1;
                let stage = stages
                    .iter()
                    .position(|&n| {
                        block < n || {
                            block -= n;
                            false
                        }
                    })
                    .unwrap();
                let layer = match (stage, inner) {
                    (0, ["0", "0"]) => "conv_dw",
                    (0, ["1"]) => "conv_pw",
                    (0, ["2"]) => "bn2",
                    (_, ["0", "1"]) => "bn1",
                    (_, ["0", "0"]) => "conv_pw",
                    (_, ["1", "0"]) => "conv_dw",
                    (_, ["1", "1"]) => "bn2",
                    (_, ["2"]) => "conv_pwl",
                    (_, ["3"]) => "bn3",
                    _ => panic!("{module}"),
                };
                format!("blocks.{stage}.{block}.{layer}")
            }
            _ => panic!("{module}"),
        };
        format!("{module}.{tensor}")
    };
    let path = write(&folder, "net.safetensors", &safetensors(&renamed(&named, timm), Dtype::F32));
    let found = imported(&path, &ImportOptions { input_shape: Some(Shape::new(32, 32, 3)), ..exact() });
    assert_eq!(found.model.graph.name(), "mobilenet_v2");
    assert!(found.model.tensors == model.tensors);
    assert!(found.notes.iter().any(|note| note.contains("ReLU6")), "{:?}", found.notes);
}

#[test]
fn everything_that_does_not_fit_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut named) = network("resnet20", 32, 10);
    named.retain(|(name, _)| name != "layer1.0.bn1.bias");
    named.push(("aux.weight".to_owned(), Tensor::full(&[2, 2], 1.0)));
    let wrong = named.iter_mut().find(|(name, _)| name == "layer2.0.conv1.weight").unwrap();
    wrong.1 = Tensor::full(&[32, 8, 3, 3], 0.5);
    let parts = [
        "missing: layer1.0.bn1.bias [16]",
        "left over: aux.weight [2, 2]",
        "of another shape: layer2.0.conv1.weight [32, 8, 3, 3], expected [32, 16, 3, 3]",
    ];
    let path = pth(&folder, &named);
    refused(&path, &options("resnet20"), &parts);
    refused(&path, &exact(), &["no network of the zoo fits; the nearest is resnet20: ", parts[0], parts[1], parts[2]]);
    refused(&path, &options("resnet21"), &["`resnet21` is no network of the zoo, which has alexnet"]);
    refused(&pth(&folder, &vec![("a.b".to_owned(), Tensor::full(&[2], 0.0))]), &exact(), &["no convolution"]);
}

#[test]
fn a_bias_before_a_batch_norm_goes_into_its_mean_and_a_head_may_be_a_convolution() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, mut named) = network("resnet20", 32, 10);
    named.insert(1, ("conv1.bias".to_owned(), Tensor { shape: vec![16], data: (0..16).map(|v| v as f32).collect() }));
    let head = named.iter_mut().find(|(name, _)| name == "linear.weight").unwrap();
    head.1.shape = vec![10, 64, 1, 1];
    let found = imported(&pth(&folder, &named), &exact());
    let mean = model.tensors.get_mut("bn1.running_mean").unwrap();
    mean.data.iter_mut().enumerate().for_each(|(i, mean)| *mean -= i as f32);
    assert!(found.model.tensors == model.tensors);
    assert!(found.notes.iter().any(|note| note.starts_with("1 biases before a batch norm")), "{:?}", found.notes);
}

#[test]
fn names_of_keras_bring_its_epsilon_and_padding() {
    let folder = tempfile::tempdir().unwrap();
    let (model, named) = network("resnet8", 32, 10);
    let count = |kind: fn(&Op) -> bool, module: &str| {
        let of_kind: Vec<&str> =
            model.graph.nodes().iter().filter(|node| kind(&node.op)).map(|node| node.name.as_str()).collect();
        of_kind.iter().position(|name| *name == module).map(|at| if at == 0 { String::new() } else { format!("_{at}") })
    };
    let keras = |name: &str| {
        let (module, tensor) = split(name);
        let conv = count(|op| matches!(op, Op::Conv(_)), module).map(|at| format!("conv2d{at}"));
        let norm = count(|op| matches!(op, Op::BatchNorm(_)), module).map(|at| format!("batch_normalization{at}"));
        format!("{}.{tensor}", conv.or(norm).unwrap_or("dense".to_owned()))
    };
    let path = write(&folder, "net.safetensors", &safetensors(&renamed(&named, keras), Dtype::F32));
    let found = imported(&path, &exact()).model;
    assert!(found.tensors == model.tensors);
    let conv = |graph: &Graph, name: &str| match graph.node(graph.find(name).unwrap()).op {
        Op::Conv(conv) => conv.padding,
        _ => unreachable!(),
    };
    let padding = |name: &str| {
        let p = conv(&found.graph, name);
        [p.top, p.left, p.bottom, p.right]
    };
    assert_eq!(
        [padding("conv1"), padding("layer2.0.conv1"), padding("layer2.0.shortcut")],
        [[1; 4], [0, 0, 1, 1], [0; 4]]
    );
    let norms = found.graph.nodes().iter().filter_map(|node| match node.op {
        Op::BatchNorm(norm) => Some(norm.eps),
        _ => None,
    });
    assert!(norms.into_iter().all(|eps| eps == 1e-3));
}

#[test]
fn safetensors_of_every_width_and_in_several_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (model, named) = network("resnet20", 32, 10);
    let close = |found: &BTreeMap<String, Tensor>, most: f32| {
        found.iter().all(|(name, tensor)| {
            let own = &model.tensors[name];
            own.shape == tensor.shape
                && own.data.iter().zip(&tensor.data).all(|(a, b)| (a - b).abs() <= most * a.abs() + 1e-6)
        })
    };
    for (dtype, most) in [(Dtype::F16, 1e-3), (Dtype::BF16, 1e-2), (Dtype::F64, 0.0), (Dtype::F32, 0.0)] {
        let path = write(&folder, "net.safetensors", &safetensors(&named, dtype));
        assert!(close(&imported(&path, &exact()).model.tensors, most), "{dtype:?}");
    }
    let (first, second) = named.split_at(40);
    for (file, part) in [("a-1.safetensors", first), ("a-2.safetensors", second)] {
        write(&folder, file, &safetensors(&part.to_vec(), Dtype::F32));
    }
    let index = |of_first: &str, of_second: &str| {
        let map = first.iter().map(|pair| (pair, of_first)).chain(second.iter().map(|pair| (pair, of_second)));
        let map: Vec<String> = map.map(|((name, _), file)| format!("\"{name}\": \"{file}\"")).collect();
        let text = format!("{{\"metadata\": {{\"total_size\": 1}}, \"weight_map\": {{{}}}}}", map.join(", "));
        write(&folder, "model.safetensors.index.json", text.as_bytes())
    };
    let path = index("a-1.safetensors", "a-2.safetensors");
    assert!(imported(&path, &exact()).model.tensors == model.tensors);
    for outside in ["../a-2.safetensors", "/etc/passwd", "sub/a-2.safetensors", "..", ""] {
        refused(&index("a-1.safetensors", outside), &exact(), &["is no name of a file in the folder"]);
    }
    refused(&index("a-1.safetensors", "a-1.safetensors"), &exact(), &["is not in `a-1.safetensors`"]);
    refused(&index("a-1.safetensors", "a-3.safetensors"), &exact(), &["a-3.safetensors", "cannot read"]);
    refused(&write(&folder, "index.json", b"{\"a\": 1}"), &exact(), &["weight_map"]);
}

#[test]
fn classes_and_pixels_are_those_that_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let (model, named) = network("cnn", 32, 2);
    let path = pth(&folder, &named);
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let given = ImportOptions {
        class_names: names(&["cat", "dog"]),
        pixels: Some(Pixels { mean: vec![0.5], std: vec![0.25] }),
        ..Default::default()
    };
    let found = imported(&path, &given).model;
    assert_eq!(found.class_names, ["cat", "dog"]);
    assert_eq!((found.input.zero_point, found.input.scale), (vec![128; 3], vec![4.0 / 255.0; 3]));
    refused(
        &path,
        &ImportOptions { class_names: names(&["cat"]), ..given.clone() },
        &["net.pth: has 2 classes, and 1 class names"],
    );
    let grey = Some(Pixels { mean: vec![0.5; 4], std: vec![1.0] });
    refused(&path, &ImportOptions { pixels: grey, ..given }, &["4 numbers as mean, expected 1 or 3"]);
    let checkpoint = folder.path().join("own.safetensors");
    Checkpoint { model: model.clone(), training: None, note: None }.save(&checkpoint).unwrap();
    assert!(imported(&checkpoint, &exact()).model == model);
}

#[test]
fn pixels_are_imagenet_s_where_nothing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (model, named) = network("resnet20", 32, 10);
    let found = imported(&pth(&folder, &named), &ImportOptions::default());
    assert!(found.notes.iter().any(|note| note.contains("taken as `imagenet`")), "{:?}", found.notes);
    assert_eq!(found.model.input, Pixels::named("imagenet").unwrap().describe(3).unwrap());
    assert!(found.model.tensors == model.tensors);
}
