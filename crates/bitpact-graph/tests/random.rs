//! The random networks of the tests: all of them are valid, and between them they use everything.

use bitpact_core::{ActQuant, Granularity, Grid, WeightQuant};
use bitpact_graph::testing::{Choices, Form, network, network_of};
use bitpact_graph::{Conv, Graph, Op, QuantPlan, Shape, WeightPlan, fuse, fuse_float};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_networks_are_valid(choices in prop::collection::vec(any::<u32>(), 0..200)) {
        for (terms, is_any) in [(2, false), (5, false), (5, true)] {
            let (graph, plan) = network_of(Form { terms, is_any }, &mut Choices::new(choices.clone()));
            plan.check(&graph).unwrap();
            let sums = fuse(&graph);
            prop_assert!(sums.is_ok(), "{:?}: {:?}", graph, sums);
            let longest = sums.unwrap().iter().filter_map(|layer| layer.sum()).map(|sum| sum.terms.len()).max();
            prop_assert!(fuse_float(&graph).is_ok(), "{:?}", graph);
            let text = serde_json::to_string(&graph).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Graph>(&text).unwrap(), &graph, "{}", text);
            prop_assert!(terms > 2 || longest <= Some(2), "{:?}", graph);
        }
    }
}

/// No choices make the simplest network, and the same choices the same one.
#[test]
fn random_networks_are_functions_of_their_choices() {
    let (simplest, _) = network(&mut Choices::new(Vec::new()));
    assert!(simplest.nodes().len() <= 5, "{simplest:?}");
    assert_eq!(network(&mut Choices::of_seed(3)), network(&mut Choices::of_seed(3)));
    assert_ne!(network(&mut Choices::of_seed(3)).0, network(&mut Choices::of_seed(4)).0);
}

#[test]
fn random_networks_use_everything() {
    let all: Vec<(Graph, QuantPlan)> = (0..2000).map(|seed| network(&mut Choices::of_seed(seed))).collect();
    let nodes = |f: &dyn Fn(&Graph, usize) -> bool| {
        all.iter().filter(|(graph, _)| (0..graph.nodes().len()).any(|id| f(graph, id))).count()
    };
    let ops = |f: &dyn Fn(Op) -> bool| nodes(&|graph, id| f(graph.node(id).op));
    let conv = |f: &dyn Fn(usize, usize, usize, usize, usize) -> bool| {
        nodes(&|graph, id| match graph.node(id).op {
            Op::Conv(Conv { kernel: [kernel, _], stride: [stride, _], padding, groups, .. }) => {
                let padding = padding.top;
                let from = graph.input_shape(id);
                f(kernel, stride, padding, groups, from.h.max(from.w))
            }
            _ => false,
        })
    };
    let reads = |f: &dyn Fn(Op, Op) -> bool| {
        nodes(&|graph, id| graph.node(id).inputs.iter().any(|&input| f(graph.node(id).op, graph.node(input).op)))
    };
    let weights =
        |f: &dyn Fn(WeightPlan) -> bool| all.iter().filter(|(_, plan)| plan.weights.values().any(|w| f(*w))).count();
    let acts = |f: &dyn Fn(ActQuant, u8, Granularity) -> bool| {
        let is = |plan: &QuantPlan| plan.activations.values().any(|a| f(a.quant, a.bits.get(), a.clip_scale));
        all.iter().filter(|(_, plan)| is(plan)).count()
    };
    let is_mean = |op: Op| matches!(op, Op::AvgPool(_) | Op::GlobalAvgPool);
    let is_padded = |op: Op| matches!(op, Op::Conv(conv) if !conv.padding.is_none());
    let mut cases = vec![
        ("linear inside", nodes(&|graph, id| matches!(graph.node(id).op, Op::Linear { .. }) && id != graph.output())),
        ("batch norm", ops(&|op| op.is_norm())),
        ("signed activation", ops(&|op| op == Op::Act { signed: true })),
        ("add", ops(&|op| op == Op::Add)),
        ("subsample", ops(&|op| matches!(op, Op::Subsample { .. }))),
        ("max pool", ops(&|op| matches!(op, Op::MaxPool(_)))),
        ("padded max pool", ops(&|op| matches!(op, Op::MaxPool(pool) if !pool.padding.is_none()))),
        ("padded average pool", ops(&|op| matches!(op, Op::AvgPool(pool) if !pool.padding.is_none()))),
        ("global average pool", ops(&|op| op == Op::GlobalAvgPool)),
        ("concat", ops(&|op| op == Op::Concat)),
        ("dropout", ops(&|op| matches!(op, Op::Dropout { .. }))),
        ("padding of the kernel", conv(&|kernel, _, padding, _, _| padding == kernel)),
        ("padding beyond the kernel", conv(&|kernel, _, padding, _, _| padding > kernel)),
        ("stride beyond the input", conv(&|_, stride, _, _, side| stride > side)),
        ("stride beyond the kernel", conv(&|kernel, stride, _, _, _| stride > kernel)),
        ("groups", conv(&|_, _, _, groups, _| groups > 1)),
        (
            "depthwise",
            nodes(
                &|graph, id| matches!(graph.node(id).op, Op::Conv(Conv { groups: 2.., .. }) if graph.input_shape(id).c == graph.shape(id).c),
            ),
        ),
        (
            "one position inside",
            nodes(&|graph, id| graph.node(id).op.is_act() && graph.shape(id).elements() == graph.shape(id).c),
        ),
        ("one channel inside", nodes(&|graph, id| graph.node(id).op.is_act() && graph.shape(id).c == 1)),
        ("an image of one pixel", all.iter().filter(|(graph, _)| graph.input().elements() == graph.input().c).count()),
        ("1 class", all.iter().filter(|(graph, _)| graph.classes() == 1).count()),
        ("1000 classes", all.iter().filter(|(graph, _)| graph.classes() == 1000).count()),
        ("a norm at the end", all.iter().filter(|(graph, _)| graph.node(graph.output()).op.is_norm()).count()),
        ("a pool read by a padded convolution", reads(&|op, input| is_padded(op) && is_mean(input))),
        ("a pool read by an activation", reads(&|op, input| op.is_act() && is_mean(input))),
        ("a global pool read by a padded convolution", reads(&|op, input| is_padded(op) && input == Op::GlobalAvgPool)),
        ("a stream of its own", reads(&|op, input| op.is_norm() && input == Op::Add)),
        ("a float network", all.iter().filter(|(_, plan)| plan.is_float()).count()),
        (
            "float weights",
            all.iter()
                .filter(|(_, plan)| !plan.is_float() && plan.weights.values().any(|w| *w == WeightPlan::Float))
                .count(),
        ),
        ("clip values of channels", acts(&|_, _, scale| scale == Granularity::Channel)),
    ];
    for quant in ActQuant::ALL {
        cases.push((quant.name(), acts(&|q, _, _| q == quant)));
    }
    for quant in WeightQuant::ALL {
        for grid in [Grid::WithZero, Grid::WithoutZero] {
            let has =
                |w: WeightPlan| matches!(w, WeightPlan::Quantized(spec) if spec.quant == quant && spec.grid == grid);
            if quant != WeightQuant::Dorefa || grid == Grid::WithoutZero {
                cases.push((quant.name(), weights(&has)));
            }
        }
    }
    for bits in 1..=8 {
        cases.push((
            "bits of weights",
            weights(&|w| matches!(w, WeightPlan::Quantized(spec) if spec.bits.get() == bits)),
        ));
        cases.push(("bits of activations", acts(&|_, b, _| b == bits)));
    }
    let form = Form { terms: 5, is_any: true };
    let any: Vec<Graph> = (0..2000).map(|seed| network_of(form, &mut Choices::of_seed(seed)).0).collect();
    let of_any =
        |f: &dyn Fn(Op) -> bool| any.iter().filter(|graph| graph.nodes().iter().any(|node| f(node.op))).count();
    let window = |op: Op| op.window(Shape::new(8, 8, 8));
    cases.extend([
        ("a window that is not square", of_any(&|op| window(op).is_some_and(|w| w.kernel[0] != w.kernel[1]))),
        ("uneven padding", of_any(&|op| matches!(op, Op::Conv(conv) if conv.padding.top != conv.padding.bottom))),
        ("dilation", of_any(&|op| window(op).is_some_and(|w| w.dilation != [1, 1]))),
        ("a transposed convolution", of_any(&|op| matches!(op, Op::ConvTranspose(_)))),
        ("output padding", of_any(&|op| matches!(op, Op::ConvTranspose(conv) if conv.output_padding != [0, 0]))),
        ("ceil mode", of_any(&|op| matches!(op, Op::MaxPool(pool) if pool.ceil_mode))),
        ("a product of tensors", of_any(&|op| op == Op::Mul)),
        ("eps", of_any(&|op| matches!(op, Op::BatchNorm(norm) if norm.eps != 1e-5))),
    ]);
    for name in
        ["prelu", "leaky_relu", "clipped_relu", "elu", "hard_swish", "hard_sigmoid", "sigmoid", "tanh", "gelu", "silu"]
    {
        cases.push((name, of_any(&|op| matches!(op, Op::Function(function) if function.name() == name))));
    }
    for name in
        ["stride", "crop", "channels", "insert", "pixel_shuffle", "pixel_unshuffle", "repeat", "channel_shuffle"]
    {
        cases.push((name, of_any(&|op| matches!(op, Op::View(of) if of.name() == name))));
    }
    let many =
        |graph: &&Graph| fuse(graph).unwrap().iter().filter_map(|layer| layer.sum()).any(|sum| sum.terms.len() > 3);
    cases.push(("sums of more than three terms", any.iter().filter(many).count()));
    for (what, networks) in cases {
        assert!(networks >= 5, "{what}: only {networks} of {} networks", all.len());
    }
}
