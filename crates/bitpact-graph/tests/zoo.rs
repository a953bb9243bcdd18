//! The zoo against published numbers, and what every network of it must satisfy.

use bitpact_core::ActQuant;
use bitpact_graph::{End, Graph, Layer, QuantConfig, QuantPlan, Shape, Sum, counts, fuse, zoo};

fn build(name: &str, size: usize, classes: usize) -> Graph {
    zoo::build(name, Shape::new(size, size, 3), classes).expect("a known name").expect("a valid graph")
}

fn config(bits: &str) -> QuantConfig {
    QuantConfig::new(bits.parse().unwrap())
}

#[test]
fn parameters_and_multiply_adds_are_the_published_ones() {
    // CIFAR: He et al. 2015, table 6 (0.27 M, 0.46 M, 0.66 M, 0.85 M); exact values of option A with the last layer's
    // bias. ImageNet: torchvision's parameter counts and GMACs at 224x224; MobileNetV1: 4.2 M and 569 M (Howard et al.
    // 2017, table 8). AlexNet has no count published for this layout: see below.
    for (name, size, classes, parameters, macs) in [
        ("resnet20", 32, 10, 269_722, 40_551_040),
        ("resnet32", 32, 10, 464_154, 68_862_592),
        ("resnet44", 32, 10, 658_586, 97_174_144),
        ("resnet56", 32, 10, 853_018, 125_485_696),
        ("resnet18", 224, 1000, 11_689_512, 1_814_073_344),
        ("resnet34", 224, 1000, 21_797_672, 3_663_761_408),
        ("resnet50", 224, 1000, 25_557_032, 4_089_184_256),
        ("mobilenet_v1", 224, 1000, 4_231_976, 568_740_352),
        ("mobilenet_v2", 224, 1000, 3_504_872, 300_774_272),
    ] {
        let graph = build(name, size, classes);
        assert_eq!(counts::parameters(&graph), parameters, "{name}");
        let plan = QuantPlan::resolve(&graph, &config("W4A4")).unwrap();
        let total: u64 = counts::layers(&graph, &plan).iter().map(|l| l.macs).sum();
        assert_eq!(total, macs, "{name}");
    }
}

/// Weights of every layer but the first are those of Krizhevsky et al. 2012 (60 965 224 parameters with biases in
/// Caffe's model); the first has 12x12 windows here, 11x11 there.
#[test]
fn alexnet_has_the_weights_of_its_paper() {
    let graph = build("alexnet", 224, 1000);
    let plan = QuantPlan::resolve(&graph, &config("W4A4")).unwrap();
    let layers = counts::layers(&graph, &plan);
    let weights: u64 = layers.iter().map(|l| l.float_bytes / 4).sum();
    let biases = 96 + 256 + 384 + 384 + 256 + 4096 + 4096 + 1000;
    assert_eq!(weights - 96 * 3 * (12 * 12 - 11 * 11) + biases, 60_965_224);
    let of = |name: &str| layers.iter().find(|l| l.name == name).unwrap();
    assert_eq!((of("conv0").output, of("conv1").output), (Shape::new(54, 54, 96), Shape::new(54, 54, 256)));
    assert_eq!((of("conv2").output.h, of("conv3").output.h, of("fc0").params), (27, 14, 9216 * 4096));
    assert_eq!(of("conv1").macs, 54 * 54 * 256 * 48 * 25);
}

/// Published: MLPerf Tiny's ResNet-8 has 78,666 parameters in Keras, 240 of them biases before batch norms and 480
/// running statistics; LQ-Nets' VGG-Small 4.66 M. Pre-activation moves batch norms, it adds and drops none but the last
/// block's.
#[test]
fn small_networks_have_the_sizes_of_their_papers() {
    let of = |name: &str, size: usize, classes: usize| {
        let graph = build(name, size, classes);
        let plan = QuantPlan::resolve(&graph, &config("W4A4")).unwrap();
        let macs: u64 = counts::layers(&graph, &plan).iter().map(|l| l.macs).sum();
        (counts::parameters(&graph), macs)
    };
    assert_eq!(of("resnet8", 32, 10), (78_666 - 240 - 480, 12_501_632));
    let convs = 9 * (3 * 128 + 128 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512);
    assert_eq!(of("vgg_small", 32, 10).0, convs + 2 * 2 * (128 + 256 + 512) + 8192 * 10 + 10);
    let svhn = build("svhn_cnn", 40, 10);
    let shape = |name: &str| svhn.shape(svhn.find(name).unwrap());
    assert_eq!(
        (shape("pool0"), shape("act5"), shape("act6")),
        (Shape::new(18, 18, 48), Shape::new(5, 5, 128), Shape::new(1, 1, 512))
    );
    assert_eq!(svhn.weight_shape(svhn.find("conv6").unwrap()).unwrap(), [512, 128, 5, 5]);
    // The last batch norm makes up for the narrower ones before the convolutions that widen, and for the stem's.
    assert_eq!(of("preact_resnet20", 32, 10), of("resnet20", 32, 10));
    // The paper: 19 activations, and 16 convolutions beside the first and the shortcuts in ResNet-18.
    let acts = |name: &str| build(name, 64, 10).nodes().iter().filter(|n| n.op.is_act()).count();
    assert_eq!((acts("preact_resnet20"), acts("preact_resnet18")), (19, 17));
}

/// Hand-counted: weights, biases, and weight and bias of every batch norm.
#[test]
fn networks_of_signals_read_rows_as_channels_and_have_the_sizes_of_their_layers() {
    let of = |name: &str, input: Shape| zoo::build(name, input, 2).unwrap().unwrap();
    let window = Shape::new(1, 262, 1);
    let resnet = of("resnet1d", window);
    // Grouped convolutions of 5, squeeze and excitation, the two shortcuts of blocks 1 and 3 and that of block 2.
    let (grouped, gates) = (5 * (4 * 32 * 16 + 64 * 16 + 3 * 64 * 32), 2 * (8 * 65 + 32) + 2 * (16 * 129 + 64));
    let norms = 2 * (32 + 5 * 32 + 6 * 64);
    assert_eq!(
        counts::parameters(&resnet),
        9 * 32 + grouped + gates + 32 * 32 + 32 * 64 + 64 * 64 + norms + 2 * 64 + 2
    );
    let shape = |graph: &Graph, name: &str| graph.shape(graph.find(name).unwrap());
    assert_eq!(shape(&resnet, "layer1.1.act3"), Shape::new(1, 66, 32));
    assert_eq!(shape(&resnet, "layer2.1.act3"), Shape::new(1, 17, 64));
    let tempo = of("temponet", window);
    assert_eq!((shape(&tempo, "block2.pool").w, shape(&tempo, "block3.pool")), (33, Shape::new(1, 4, 128)));
    let unet = of("unet1d", window);
    assert_eq!((shape(&unet, "crop").w, shape(&unet, "up1.act2")), (256, Shape::new(1, 256, 16)));
    assert!(zoo::build("unet1d", Shape::new(1, 7, 1), 2).unwrap().is_err(), "nothing is left of 7 samples");
    let tcn = of("tcn", window);
    let seen = 1 + 2 * 4 * (1 + 2 + 4 + 8 + 16);
    assert_eq!((shape(&tcn, "block5.act2").w, seen), (262, 249));
    // A picture of 28 rows is a signal of 28 channels.
    for name in ["resnet1d", "tcn", "temponet", "unet1d"] {
        let graph = of(name, Shape::new(28, 28, 1));
        let first = graph.nodes().iter().position(|node| node.op.is_product()).unwrap();
        let [_, channels, rows, columns] = graph.weight_shape(first).unwrap()[..] else { panic!("a convolution") };
        assert_eq!((channels, rows, graph.shape(first).h), (1, 28, 1), "{name}");
        assert!(columns > 1);
    }
}

#[test]
fn pre_activation_networks_have_one_stream_a_stage_and_shortcuts_of_it() {
    let graph = build("preact_resnet20", 32, 10);
    let layers = fuse(&graph).unwrap();
    let name = |id: usize| graph.node(id).name.as_str();
    let streams: Vec<&Sum> = layers.iter().filter_map(Layer::sum).filter(|sum| sum.end == End::Wide).collect();
    let shortcut = |i: usize| streams[i].views().next().map(|(view, _)| (name(view.tensor), view.node.is_some()));
    assert_eq!(streams.len(), 10);
    assert_eq!((name(streams[0].output), shortcut(0)), ("conv1", None));
    assert_eq!((name(streams[1].output), shortcut(1)), ("layer1.0.add", Some(("conv1", false))));
    assert_eq!(shortcut(4), Some(("layer1.2.add", true)));
    let acts = layers.iter().filter_map(Layer::sum).filter(|sum| sum.products().count() == 0).count();
    assert_eq!((acts, layers.len()), (10, 10 + 10 + 9 + 2), "streams, their activations, inner sums, pool and logits");
    let b = fuse(&build("preact_resnet20-b", 32, 10)).unwrap();
    assert!(b.iter().filter_map(Layer::sum).any(|sum| sum.end == End::Wide && sum.products().count() == 2));
}

#[test]
fn bytes_follow_the_bits_of_the_plan() {
    let graph = build("resnet20", 32, 10);
    let plan = QuantPlan::resolve(&graph, &config("W3A3")).unwrap();
    let layers = counts::layers(&graph, &plan);
    let of = |name: &str| layers.iter().find(|l| l.name == name).unwrap();
    assert_eq!((of("conv1").packed_bytes, of("conv1").float_bytes), (432, 1728));
    assert_eq!(of("layer3.2.conv2").packed_bytes, 64 * 64 * 9 * 3 / 8);
    assert_eq!((of("linear").packed_bytes, of("linear").params), (640, 650));
}

#[test]
fn every_network_fuses_resolves_and_round_trips() {
    for name in zoo::NAMES {
        let size = if zoo::usual_input(name).0 == 224 { 64 } else { 32 };
        let graph = build(name, size, 7);
        assert_eq!((graph.classes(), graph.name()), (7, name));
        let layers = fuse(&graph).unwrap();
        assert_eq!(layers.last().unwrap().output(), graph.output());
        for bits in ["float", "W1A1", "W2A4", "W8A8"] {
            let plan = QuantPlan::resolve(&graph, &config(bits)).unwrap();
            plan.check(&graph).unwrap();
            let back: QuantPlan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
            assert_eq!(back, plan);
        }
        let json: Graph = serde_json::from_str(&serde_json::to_string(&graph).unwrap()).unwrap();
        let text: Graph = toml::from_str(&toml::to_string(&graph).unwrap()).unwrap();
        assert!(json == graph && text == graph, "{name}");
    }
    let text = serde_json::to_string(&build("resnet20", 32, 10)).unwrap();
    assert!(
        !text.contains("groups") && !text.contains("signed"),
        "checkpoints from before these fields keep their text"
    );
    assert!(zoo::build("resnet21", Shape::new(32, 32, 3), 10).is_none());
    assert!(zoo::NAMES.is_sorted());
}

#[test]
fn tensors_have_the_names_people_know() {
    let names = |graph: &Graph| graph.nodes().iter().map(|n| n.name.clone()).collect::<Vec<_>>();
    let cifar = names(&build("resnet20", 32, 10));
    let torchvision = names(&build("resnet18", 64, 10));
    for name in ["conv1", "bn1", "act1", "layer1.0.conv1", "layer3.2.bn2", "layer3.2.act2", "linear"] {
        assert!(cifar.iter().any(|n| n == name), "{name}");
    }
    let mobile = names(&build("mobilenet_v2", 64, 10));
    for name in ["features.0.0", "features.1.conv.1", "features.2.conv.1.0", "features.2.conv.3", "classifier.1"] {
        assert!(mobile.iter().any(|n| n == name), "{name}");
    }
    for name in ["conv1", "maxpool", "layer2.0.downsample.0", "layer2.0.downsample.1", "layer4.1.bn2", "fc"] {
        assert!(torchvision.iter().any(|n| n == name), "{name}");
    }
}

#[test]
fn linear_bottlenecks_end_in_signed_codes() {
    let graph = build("mobilenet_v2", 64, 10);
    let plan = QuantPlan::resolve(&graph, &config("W4A4")).unwrap();
    let signed: Vec<_> = plan.activations.iter().filter(|(_, a)| a.quant.is_signed()).collect();
    assert_eq!((signed.len(), signed[0].0.as_str(), signed[0].1.bits.get()), (17, "features.1.act", 4));
    let plan = QuantPlan::resolve(&graph, &config("W1A1")).unwrap();
    assert_eq!(plan.activations["features.1.act"].bits.get(), 2, "one bit holds only zero");
    assert_eq!(plan.activations["features.0.2"].bits.get(), 1);
}

#[test]
fn networks_of_signs_have_more_bits_where_policies_ask_for_them() {
    let graph = build("mobilenet_v2", 64, 10);
    let signs = |bits: &str| QuantPlan::resolve(&graph, &QuantConfig { act_quant: ActQuant::Sign, ..config(bits) });
    let plan = signs("W1A1").unwrap();
    let of = |name: &str| (plan.activations[name].quant, plan.activations[name].bits.get());
    assert_eq!((of("features.0.2"), of("features.1.act")), ((ActQuant::Sign, 1), (ActQuant::Sign, 1)));
    assert_eq!(of("features.18.2"), (ActQuant::Pact, 8), "the last layer has 8 bits");
    let told = signs("W1A2").unwrap_err().to_string();
    assert!(told.contains("sign has 1 bit"), "{told}");
}

#[test]
fn shortcuts_are_told_from_main_branches() {
    let ends_in = |graph: &Graph, block: &str| {
        let layers = fuse(graph).unwrap().into_iter();
        layers
            .filter_map(|layer| layer.sum().cloned())
            .find(|sum| graph.node(sum.output).name.starts_with(block) && sum.terms.len() == 2)
            .unwrap_or_else(|| panic!("{block} has no sum of two terms"))
    };
    let a = build("resnet20", 32, 10);
    for (block, is_subsampled) in [("layer1.0.", false), ("layer2.0.", true)] {
        let sum = ends_in(&a, block);
        assert!(sum.terms[0].product().is_some() && sum.views().all(|(view, _)| view.node.is_some() == is_subsampled));
    }
    for (name, product) in [("resnet20-b", "layer2.0.shortcut.0"), ("resnet50", "layer1.0.downsample.0")] {
        let graph = build(name, 64, 10);
        let sum = ends_in(&graph, &product[..9]);
        let Some((_, id, norm)) = sum.products().nth(1) else { panic!("{name} has no projection") };
        assert_eq!(graph.node(id).name, product);
        assert!(norm.is_some() && graph.is_projection(id));
        let main = graph.find(&format!("{}conv2", &product[..9])).unwrap();
        assert!(!graph.is_projection(main));
    }
}
