//! Every error names the node, layer or pattern at fault.

use bitpact_core::{ActQuant, Bits, Granularity, Grid, WeightQuant};
use bitpact_graph::{
    BitSpec, FirstLast, Graph, Override, PlanError, QuantConfig, QuantPlan, Shape, ShortcutBits, WeightPlan, fuse, zoo,
};
use proptest::prelude::*;

fn parse(nodes: &str) -> Result<Graph, String> {
    let text = format!(
        r#"{{"name":"net","nodes":[{{"name":"image","op":"input","height":8,"width":8,"channels":3}},{nodes}]}}"#
    );
    serde_json::from_str(&text).map_err(|e| e.to_string())
}

const HEAD: &str = r#"{"name":"pool","op":"global_avg_pool"},{"name":"fc","op":"linear","out_features":4}"#;

#[test]
fn a_graph_that_cannot_be_is_refused_by_node() {
    let conv = r#"{"name":"c","op":"conv","out_channels":4,"kernel":3,"padding":1},{"name":"a","op":"act"}"#;
    assert!(parse(&format!("{conv},{HEAD}")).is_ok());
    for (nodes, wanted) in [
        (
            r#"{"name":"c","op":"conv","out_channels":4,"kernel":9}"#,
            "`c`: a window of 9x9 does not fit an input of 8x8x3",
        ),
        (r#"{"name":"c","op":"conv","out_channels":0,"kernel":3}"#, "`c`: out_channels = 0"),
        (r#"{"name":"c","op":"conv","out_channels":4,"kernel":3,"stride":0}"#, "`c`: stride = 0"),
        (r#"{"name":"c","op":"conv","out_channels":4,"kernel":3,"groups":0}"#, "`c`: groups = 0"),
        (
            r#"{"name":"c","op":"conv","out_channels":4,"kernel":3,"groups":2}"#,
            "`c`: 2 groups do not divide 3 input and 4 output channels",
        ),
        (r#"{"name":"c","op":"conv","out_channels":99999,"kernel":3}"#, "`c`: out_channels = 99999"),
        (r#"{"name":"c","op":"linear","out_features":2,"inputs":["nowhere"]}"#, "`c`: input `nowhere`"),
        (r#"{"name":"c","op":"linear","out_features":2,"inputs":["image","image"]}"#, "`c`: linear takes 1"),
        (r#"{"name":"image","op":"linear","out_features":2}"#, "`image`: a second node"),
        (r#"{"name":"a\u0007b","op":"linear","out_features":2}"#, "a name has"),
        (r#"{"name":"c","op":"conv","out_channels":4,"kernel":[3,9]}"#, "`c`: a window of 3x9 does not fit"),
        (r#"{"name":"c","op":"conv","out_channels":4,"kernel":3,"dilation":[1,4]}"#, "3x3, dilation 1x4 does not fit"),
        (r#"{"name":"c","op":"conv","out_channels":4,"kernel":3,"dilation":0}"#, "`c`: dilation = 0"),
        (r#"{"name":"c","op":"conv","out_channels":4,"kernel":[3,1,2]}"#, "expected a whole number, [rows, columns]"),
        (
            r#"{"name":"c","op":"conv","out_channels":4,"kernel":[1,2,3,4]}"#,
            "expected a whole number or [rows, columns]",
        ),
        (
            r#"{"name":"c","op":"conv_transpose","out_channels":4,"kernel":2,"padding":2}"#,
            "`c`: padding = 2, expected at most",
        ),
        (
            r#"{"name":"c","op":"conv_transpose","out_channels":4,"kernel":2,"stride":2,"output_padding":2}"#,
            "`c`: output_padding = 2, expected less than the stride",
        ),
        (r#"{"name":"c","op":"linear","out_features":2},{"name":"n","op":"batch_norm","eps":0}"#, "`n`: eps = 0"),
        (
            r#"{"name":"c","op":"linear","out_features":2},{"name":"n","op":"batch_norm","momentum":2}"#,
            "`n`: momentum = 2",
        ),
        (r#"{"name":"c","op":"linear","out_features":2},{"name":"n","op":"batch_norm","epz":1}"#, "epz"),
        (r#"{"name":"v","op":"view","move":"crop","top":0,"left":5,"height":1,"width":4}"#, "`v`: a rectangle of 1x4"),
        (r#"{"name":"v","op":"view","move":"pixel_shuffle","factor":2}"#, "`v`: factor 2, but its square"),
        (r#"{"name":"v","op":"view","move":"turn"}"#, "unknown variant `turn`"),
        (r#"{"name":"f","op":"function","function":"leaky_relu","slope":1e99}"#, "`f`: slope = "),
        (r#"{"name":"f","op":"function","function":"relu7"}"#, "unknown variant `relu7`"),
        (
            r#"{"name":"c","op":"conv","out_channels":4,"kernel":3},{"name":"m","op":"mul","inputs":["c","image"]}"#,
            "`m`: inputs of 6x6x4 and 8x8x3 cannot be multiplied",
        ),
        (
            r#"{"name":"m","op":"max_pool","kernel":2,"stride":2,"padding":2},{"name":"c","op":"linear","out_features":2}"#,
            "`m`: padding = 2",
        ),
        (
            r#"{"name":"i","op":"input","height":1,"width":1,"channels":1},{"name":"c","op":"linear","out_features":2}"#,
            "`i`: the input must be",
        ),
        (r#"{"name":"a","op":"act"}"#, "no layer with weights"),
        (r#"{"name":"c","op":"conv","out_channels":4,"kernel":3,"pading":1}"#, "pading"),
        (r#"{"name":"c","op":"convolution"}"#, "unknown variant `convolution`"),
    ] {
        let error = parse(nodes).unwrap_err();
        assert!(error.contains(wanted), "{nodes}: {error}");
    }
    let unread = format!(r#"{conv},{{"name":"b","op":"act","inputs":["c"]}},{HEAD}"#);
    assert!(parse(&unread).unwrap_err().contains("`a`: nothing reads this node"));
    let add = format!(
        r#"{conv},{{"name":"d","op":"conv","out_channels":5,"kernel":1}},{{"name":"s","op":"add","inputs":["d","a"]}},{HEAD}"#
    );
    assert!(parse(&add).unwrap_err().contains("`s`: inputs of 8x8x5 and 8x8x4 cannot be added"));
}

#[test]
fn a_graph_that_integers_cannot_follow_is_refused_by_node() {
    for (nodes, wanted) in [
        (
            r#"{"name":"c","op":"conv","out_channels":4,"kernel":1},{"name":"d","op":"conv","out_channels":4,"kernel":1},{"name":"a","op":"act"}"#,
            "`d` must read an activation",
        ),
        (r#"{"name":"a","op":"act"}"#, "expected a convolution or linear layer here, found input"),
        (r#"{"name":"m","op":"max_pool","kernel":2,"stride":2}"#, "`m` must read an activation"),
        (
            r#"{"name":"c","op":"conv","out_channels":3,"kernel":1},{"name":"s","op":"add","inputs":["c","image"]},{"name":"a","op":"act"}"#,
            "found the input, which only layers with weights read",
        ),
        (
            r#"{"name":"c","op":"conv","out_channels":3,"kernel":1},{"name":"f","op":"function","function":"tanh"},{"name":"a","op":"act"}"#,
            "`f` must read an activation (signed",
        ),
        (
            r#"{"name":"c","op":"conv","out_channels":3,"kernel":1},{"name":"a","op":"act"},{"name":"f","op":"function","function":"tanh"},{"name":"d","op":"conv","out_channels":3,"kernel":1},{"name":"b","op":"act"}"#,
            "`d` must read an activation or a pool, found a function, which only activations read",
        ),
        (
            r#"{"name":"c","op":"conv","out_channels":3,"kernel":1},{"name":"m","op":"mul","inputs":["c","c"]},{"name":"a","op":"act"}"#,
            "`m` must read activations",
        ),
    ] {
        let graph = parse(&format!("{nodes},{HEAD}")).unwrap();
        let error = fuse(&graph).unwrap_err().to_string();
        assert!(error.contains(wanted), "{nodes}: {error}");
    }
}

fn resnet() -> Graph {
    zoo::build("resnet20-b", Shape::new(32, 32, 3), 10).unwrap().unwrap()
}

fn config() -> QuantConfig {
    QuantConfig {
        weight_quant: WeightQuant::Sawb,
        weight_grid: Some(Grid::WithZero),
        act_quant: ActQuant::PactPlus,
        ..QuantConfig::new("W4A3".parse().unwrap())
    }
}

/// Bits of a layer's weights, 32 for float.
fn weight_bits(plan: &QuantPlan, layer: &str) -> u8 {
    match plan.weights[layer] {
        WeightPlan::Float => 32,
        WeightPlan::Quantized(spec) => spec.bits.get(),
    }
}

#[test]
fn first_last_and_shortcut_policies() {
    for (first_last, shortcut, first, last, into_last, projection) in [
        (FirstLast::Bits8, ShortcutBits::Same, 8, 8, 8, 4),
        (FirstLast::Float, ShortcutBits::Bits8, 32, 32, 3, 8),
        (FirstLast::Same, ShortcutBits::Same, 4, 4, 3, 4),
    ] {
        let plan = QuantPlan::resolve(&resnet(), &QuantConfig { first_last, shortcut, ..config() }).unwrap();
        assert_eq!(weight_bits(&plan, "conv1"), first);
        assert_eq!(weight_bits(&plan, "linear"), last);
        assert_eq!(weight_bits(&plan, "layer2.0.shortcut.0"), projection);
        assert_eq!(weight_bits(&plan, "layer2.0.conv2"), 4);
        assert_eq!(plan.activations["layer3.2.act2"].bits.get(), into_last);
        assert_eq!(plan.activations["act1"].bits.get(), 3);
        let WeightPlan::Quantized(inner) = plan.weights["layer1.0.conv1"] else { panic!("quantized") };
        assert_eq!((inner.quant, inner.grid), (WeightQuant::Sawb, Grid::WithZero));
        if let WeightPlan::Quantized(first) = plan.weights["conv1"] {
            let eight = first.bits.get() == 8;
            assert_eq!(first.quant, if eight { WeightQuant::Minmax } else { WeightQuant::Sawb });
        }
    }
}

#[test]
fn overrides_win_from_the_shortest_pattern_to_the_longest() {
    let text = r#"
        ["layer3.*"]
        weight_bits = 2
        activation_bits = 5
        ["layer3.1.*"]
        weight_bits = 6
        act_quant = "pact"
        [conv1]
        weight_bits = 32
        [linear]
        weight_bits = 8
        weight_quant = "sawb"
    "#;
    let overrides = toml::from_str(text).unwrap();
    let plan = QuantPlan::resolve(&resnet(), &QuantConfig { overrides, ..config() }).unwrap();
    assert_eq!(weight_bits(&plan, "layer3.0.conv1"), 2);
    assert_eq!(weight_bits(&plan, "layer3.1.conv1"), 6);
    assert_eq!(weight_bits(&plan, "layer2.1.conv1"), 4);
    assert_eq!(plan.weights["conv1"], WeightPlan::Float);
    assert!(matches!(plan.weights["linear"], WeightPlan::Quantized(s) if s.quant == WeightQuant::Sawb));
    assert_eq!(plan.activations["layer3.1.act1"].quant, ActQuant::Pact);
    assert_eq!(plan.activations["layer3.0.act1"].bits, Bits::new(5).unwrap());
}

#[test]
fn impossible_plans_name_pattern_or_layer() {
    let with = |pattern: &str, o: Override| {
        let overrides = [(pattern.to_owned(), o)].into();
        QuantPlan::resolve(&resnet(), &QuantConfig { overrides, ..config() }).unwrap_err().to_string()
    };
    let nothing = with("layer9.*", Override { weight_bits: Some(2), ..Override::default() });
    assert!(nothing.contains("layer9.*") && nothing.contains("layer1.0.conv1"), "{nothing}");
    let nine = with("conv1", Override { weight_bits: Some(9), ..Override::default() });
    assert!(nine.contains("conv1") && nine.contains('9') && nine.contains("1 to 8"), "{nine}");
    let zero = with("act1", Override { activation_bits: Some(32), ..Override::default() });
    assert!(zero.contains("act1") && zero.contains("32"), "{zero}");
    let grid = with("layer1.0.conv1", Override { weight_quant: Some(WeightQuant::Dorefa), ..Override::default() });
    assert!(grid.contains("layer1.0.conv1"), "dorefa has no grid with zero: {grid}");
    let sym = with("act1", Override { act_quant: Some(ActQuant::PactSym), ..Override::default() });
    assert!(sym.contains("`act1`") && sym.contains("pact-sym"), "{sym}");
    let sign = with("act1", Override { act_quant: Some(ActQuant::Sign), ..Override::default() });
    assert!(sign.contains("`act1`") && sign.contains("sign has 1 bit"), "{sign}");
    let mobile = zoo::build("mobilenet_v2", Shape::new(32, 32, 3), 10).unwrap().unwrap();
    let mut plan = QuantPlan::resolve(&mobile, &QuantConfig::new("W4A4".parse().unwrap())).unwrap();
    plan.activations.get_mut("features.1.act").unwrap().bits = Bits::new(1).unwrap();
    assert!(
        plan.check(&mobile).unwrap_err().to_string().contains("`features.1.act`: a signed activation has at least 2")
    );
    let mut plan = QuantPlan::resolve(&resnet(), &config()).unwrap();
    plan.weights.remove("layer1.0.conv1");
    assert!(matches!(plan.check(&resnet()), Err(PlanError::Mismatch { layer, .. }) if layer == "layer1.0.conv1"));
}

#[test]
fn bit_specs() {
    for (text, shown) in [("W4A4", "W4A4"), ("w2a8", "W2A8"), ("FLOAT", "float")] {
        assert_eq!(text.parse::<BitSpec>().unwrap().to_string(), shown);
    }
    for (text, wanted) in [
        ("W0A4", "0 bits for weights"),
        ("W4A9", "9 bits for activations"),
        ("4", "`W4A4`"),
        ("W4", "`W4A4`"),
        ("", "`W4A4`"),
        ("W300A2", "`W4A4`"),
    ] {
        let error = text.parse::<BitSpec>().unwrap_err();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn any_text_gives_a_graph_or_an_error(text in "\\PC{0,200}") {
        let _ = serde_json::from_str::<Graph>(&text);
        let _ = toml::from_str::<Graph>(&text);
    }

    #[test]
    fn any_sizes_give_a_graph_or_an_error(h in 0usize..70000, c in 0usize..70000, k in 0usize..9, s in 0usize..4, p in 0usize..70000, o in 0usize..70000) {
        let text = format!(r#"{{"name":"n","nodes":[{{"name":"i","op":"input","height":{h},"width":7,"channels":{c}}},
            {{"name":"c","op":"conv","out_channels":{o},"kernel":{k},"stride":{s},"padding":{p}}},{{"name":"a","op":"act"}},{HEAD}]}}"#);
        if let Ok(graph) = serde_json::from_str::<Graph>(&text) {
            prop_assert!(fuse(&graph).is_ok());
        }
    }
}

/// Ops around residual streams, average pools, concatenations and dropout in places where integers cannot follow.
#[test]
fn sums_of_activations_and_activations_of_activations_are_layers() {
    let conv = r#"{"name":"c","op":"conv","out_channels":3,"kernel":1},{"name":"a","op":"act"}"#;
    for (nodes, terms) in [
        (r#"{"name":"s","op":"add","inputs":["a","a"]},{"name":"b","op":"act"}"#, 2),
        (r#"{"name":"b","op":"act","signed":true}"#, 1),
        (r#"{"name":"n","op":"batch_norm"},{"name":"b","op":"act"}"#, 1),
    ] {
        let graph = parse(&format!("{conv},{nodes},{HEAD}")).unwrap();
        let layers = fuse(&graph).unwrap();
        let sum = layers.iter().filter_map(|layer| layer.sum()).find(|sum| sum.act() == graph.find("b")).unwrap();
        assert_eq!((sum.terms.len(), sum.products().count()), (terms, 0), "{nodes}");
    }
}

#[test]
fn streams_pools_and_concatenations_out_of_place_are_named() {
    let message = |nodes: &str| {
        let text = format!(
            r#"{{"name":"x","nodes":[{{"name":"in","op":"input","height":8,"width":8,"channels":3}},
            {{"name":"c1","op":"conv","out_channels":4,"kernel":3,"padding":1}},{{"name":"a1","op":"act"}},{nodes},
            {{"name":"pool","op":"global_avg_pool"}},{{"name":"fc","op":"linear","out_features":2}}]}}"#
        );
        match serde_json::from_str::<Graph>(&text) {
            Err(error) => error.to_string(),
            Ok(graph) => fuse(&graph).map_or_else(|error| error.to_string(), |_| "fine".to_owned()),
        }
    };
    let conv = |name: &str, input: &str| {
        format!(r#"{{"name":"{name}","op":"conv","out_channels":4,"kernel":1,"inputs":["{input}"]}}"#)
    };
    let stream = format!(r#"{},{{"name":"s","op":"add","inputs":["c2","a1"]}}"#, conv("c2", "a1"));
    let tail = r#"{"name":"n","op":"batch_norm","inputs":["s"]},{"name":"a2","op":"act"}"#;
    assert_eq!(message(&format!("{stream},{tail}")), "fine");
    for (nodes, words) in [
        (format!("{stream},{},{}", conv("c3", "s"), r#"{"name":"a3","op":"act"}"#), "node `s`: `c3` must read"),
        (
            format!(r#"{stream},{{"name":"m","op":"avg_pool","kernel":2,"stride":2,"inputs":["s"]}}"#),
            "node `s`: `m` must read",
        ),
        (
            format!(r#"{stream},{tail},{{"name":"cat","op":"concat","inputs":["s","a2"]}}"#),
            "node `a2`: a concatenation reads",
        ),
        (r#"{"name":"cat","op":"concat"}"#.to_owned(), "concat takes 2 input(s), got 1"),
        (
            r#"{"name":"p","op":"avg_pool","kernel":2,"stride":2},{"name":"cat","op":"concat","inputs":["p","p"]}"#
                .to_owned(),
            "node `p`: `cat` must read",
        ),
        (
            r#"{"name":"p","op":"avg_pool","kernel":2,"stride":2,"padding":2}"#.to_owned(),
            "padding = 2, expected less than the kernel",
        ),
        (
            r#"{"name":"m","op":"max_pool","kernel":2,"stride":2},{"name":"cat","op":"concat","inputs":["m","a1"]}"#
                .to_owned(),
            "inputs of 4x4x4 and 8x8x4 cannot be concatenated",
        ),
        (
            format!(
                r#"{},{{"name":"a2","op":"act","signed":true}},{{"name":"cat","op":"concat","inputs":["a1","a2"]}}"#,
                conv("c2", "a1")
            ),
            "all signed or all unsigned",
        ),
        (r#"{"name":"d","op":"dropout","rate":1.0}"#.to_owned(), "node `d`: rate = 1, expected at least 0 and below 1"),
        (r#"{"name":"d","op":"dropout","rate":0.5}"#.to_owned(), "node `d`: `pool` must read"),
    ] {
        let message = message(&nodes);
        assert!(message.contains(words), "{message}, expected {words}");
    }
}

#[test]
fn concatenated_activations_share_clip_value_and_bits() {
    let text = r#"{"name":"x","nodes":[{"name":"in","op":"input","height":8,"width":8,"channels":3},
        {"name":"c1","op":"conv","out_channels":4,"kernel":3,"padding":1},{"name":"a1","op":"act"},
        {"name":"c2","op":"conv","out_channels":4,"kernel":1},{"name":"a2","op":"act"},
        {"name":"c3","op":"conv","out_channels":4,"kernel":1,"inputs":["a1"]},{"name":"a3","op":"act"},
        {"name":"m3","op":"max_pool","kernel":3,"stride":1,"padding":1},
        {"name":"cat","op":"concat","inputs":["a2","m3"]},{"name":"fc","op":"linear","out_features":2}]}"#;
    let graph: Graph = serde_json::from_str(text).unwrap();
    let id = |name: &str| graph.find(name).unwrap();
    let owners = graph.clip_owners();
    assert_eq!((owners[id("a1")], owners[id("a2")], owners[id("a3")]), (id("a1"), id("a2"), id("a2")));
    assert_eq!(graph.source_acts(id("cat")), [id("a2"), id("a3")]);
    let mut config = QuantConfig::new("W4A4".parse().unwrap());
    let plan = QuantPlan::resolve(&graph, &config).unwrap();
    assert_eq!(
        ["a1", "a2", "a3"].map(|act| plan.activations[act].bits.get()),
        [4, 8, 8],
        "both lead into the last layer"
    );
    config.clip_scale = Granularity::Channel;
    let apart = QuantPlan::resolve(&graph, &config).unwrap();
    assert_eq!(
        ["a1", "a2", "a3"].map(|act| apart.activations[act].clip_scale),
        [Granularity::Channel, Granularity::Layer, Granularity::Layer],
        "what is concatenated has one clip value"
    );
    let mut forced = apart.clone();
    forced.activations.get_mut("a2").unwrap().clip_scale = Granularity::Channel;
    let message = forced.check(&graph).unwrap_err().to_string();
    assert!(message.contains("activation `a2`") && message.contains("none per channel"), "{message}");
    config.clip_scale = Granularity::Layer;
    config.overrides.insert("a3".to_owned(), Override { activation_bits: Some(3), ..Override::default() });
    let message = QuantPlan::resolve(&graph, &config).unwrap_err().to_string();
    assert!(message.contains("`a3`: it is concatenated with an activation of other bits"), "{message}");
}

#[test]
fn clip_values_of_channels_need_a_quantizer_that_learns_them() {
    let graph = resnet();
    for (act_quant, words) in
        [(ActQuant::Lsq, "lsq learns the step"), (ActQuant::Fixed, "not learned"), (ActQuant::Relu, "not learned")]
    {
        let config = QuantConfig { act_quant, clip_scale: Granularity::Channel, ..config() };
        let message = QuantPlan::resolve(&graph, &config).unwrap_err().to_string();
        assert!(message.contains("activation `act1`") && message.contains(words), "{message}");
    }
    let act = Override { clip_scale: Some(Granularity::Channel), ..Override::default() };
    let config = QuantConfig { overrides: [("layer1.*".to_owned(), act)].into(), ..config() };
    let plan = QuantPlan::resolve(&graph, &config).unwrap();
    assert_eq!(plan.activations["act1"].clip_scale, Granularity::Layer);
    assert_eq!(plan.activations["layer1.0.act2"].clip_scale, Granularity::Channel);
    let text = serde_json::to_string(&plan).unwrap();
    assert!(text.contains(r#""layer1.0.act2":{"bits":3,"quant":"pact+","clip_scale":"channel"}"#), "{text}");
    assert!(text.contains(r#""act1":{"bits":3,"quant":"pact+"}"#), "{text}");
    assert_eq!(serde_json::from_str::<QuantPlan>(&text).unwrap(), plan);
}

#[test]
fn narrowed_networks_fit() {
    let graph = zoo::build("resnet20", Shape::new(32, 32, 3), 10).unwrap().unwrap();
    let narrow = graph.narrowed(4).unwrap();
    assert_eq!((narrow.shape(narrow.find("layer3.2.act2").unwrap()).c, narrow.classes()), (16, 10));
    assert_eq!(graph.narrowed(1).unwrap(), graph);
}
