//! The fused plan against the reference, on random networks.

use std::collections::BTreeMap;

use bitpact_core::ActQuant;
use bitpact_graph::testing::{Choices, Form, network, network_of};
use bitpact_graph::{BitSpec, FirstLast, QuantConfig, WeightPlan};
use proptest::prelude::*;

use super::*;
use crate::cpu::CpuBackend;
use crate::{LossInput, OptimizerKind, ParamGroup, TeacherInput};

const BATCH: usize = 5;

const TWO: Form = Form { terms: 2, is_any: false };
const ANY: Form = Form { terms: 5, is_any: true };

type Tensors = BTreeMap<String, Tensor>;

/// Both backends of one network, with the same tensors.
struct Pair {
    graph: Graph,
    plan: QuantPlan,
    /// Rows, columns and bytes of a pixel of an example.
    bytes: Shape,
    start: Tensors,
    fused: CpuBackend,
    reference: ReferenceBackend,
}

impl Pair {
    fn new(form: Form, choices: &mut Choices) -> Self {
        let (graph, plan) = network_of(form, choices);
        let graph = graph.main_part().unwrap_or(graph);
        let plan = plan.restricted(&graph);
        Self::of(graph, plan, choices)
    }

    fn of(graph: Graph, plan: QuantPlan, choices: &mut Choices) -> Self {
        let c = graph.input().c;
        let input = match choices.one_in(2) {
            false => InputDescription::uniform(c, 128, 1.0 / 64.0),
            true if choices.one_in(4) => InputDescription {
                bits: 16,
                zero_point: (0..c).map(|_| choices.below(1 << 16) as u16).collect(),
                scale: (0..c).map(|_| 2e-5 + 1e-5 * choices.below(10) as f32).collect(),
            },
            true => InputDescription {
                bits: 8,
                zero_point: (0..c).map(|_| choices.below(256) as u16).collect(),
                scale: (0..c).map(|_| 0.005 + 0.002 * choices.below(10) as f32).collect(),
            },
        };
        let (isa, threads) = (choices.of(&bitpact_kernels::testing::paths()), 1 + choices.below(2));
        let spec = BackendSpec { isa, threads, ..BackendSpec::new(&graph, &plan, &input, BATCH) };
        let (fused, mut reference) = (CpuBackend::new(&spec).unwrap(), ReferenceBackend::new(&spec).unwrap());
        reference.noise.inexact = inexact(&graph, &plan, input.bits);
        let bytes = Shape { c: c * input.code_bytes(), ..graph.input() };
        let names = (0..graph.classes()).map(|c| c.to_string()).collect();
        let seed = choices.below(1 << 20) as u64;
        let start = Model::random(graph.clone(), plan.clone(), input, names, seed).unwrap().tensors;
        let mut pair = Self { graph, plan, bytes, start, fused, reference };
        pair.load();
        pair
    }

    fn load(&mut self) {
        self.fused.load(&self.start, None).unwrap();
        self.reference.load(&self.start, None).unwrap();
    }

    /// Codes of every activation, by its name: of the fused plan, and of the reference.
    fn codes(&self) -> Vec<(&str, [Vec<i32>; 2])> {
        let acts = self.graph.nodes().iter().zip(&self.reference.values).filter(|(node, _)| node.op.is_act());
        let codes = |(node, value): (&'_ bitpact_graph::Node, &Value)| match value {
            Value::Codes { codes, .. } => [self.fused.codes(&node.name), codes.clone()],
            _ => [Vec::new(), Vec::new()],
        };
        acts.map(|(node, value)| (node.name.as_str(), codes((node, value)))).collect()
    }

    /// Whether codes of the activation `act` differ at `places` because real numbers were summed to the middle between
    /// two codes.
    fn ends_on_ties(&self, act: &str, places: &[usize]) -> bool {
        let id = self.graph.find(act).expect("a node");
        let Some(plan) = self.plan.activations.get(act) else { return false };
        let clip = &self.start[&format!("{}.clip_val", self.graph.node(self.reference.owners[id]).name)].data;
        let inverse = plan.quant.inverse_scale(bitpact_core::largest_clip(clip), plan.bits);
        let x = self.reference.real(self.reference.input(id));
        let from_tie = |&i: &usize| match plan.quant {
            ActQuant::Sign => (x[i] * inverse).abs(),
            _ => (x[i] * inverse - (x[i] * inverse).floor() - 0.5).abs(),
        };
        self.reference.noise.inexact[id] && !places.is_empty() && places.iter().all(|i| from_tie(i) < 1e-3)
    }

    /// Whether a sum of real numbers lies so near to zero or to a clip value that its gradient may pass on one side and
    /// not on the other.
    fn is_on_edge(&self) -> bool {
        self.act_ids().filter(|&id| self.reference.noise.inexact[id]).any(|id| {
            let owner = &self.graph.node(self.reference.owners[id]).name;
            let clip = self.start.get(&format!("{owner}.clip_val")).map_or(&[1.0][..], |clip| &clip.data);
            let x = self.reference.real(self.reference.input(id));
            x.iter().enumerate().any(|(i, x)| {
                let alpha = clip[i % clip.len()];
                x.abs() < 1e-5 * alpha || (x.abs() - alpha).abs() < 1e-5 * alpha
            })
        })
    }

    fn act_ids(&self) -> impl Iterator<Item = NodeId> {
        (0..self.graph.nodes().len()).filter(|&id| self.graph.node(id).op.is_act())
    }

    /// Tells whether the sums behind every code are exact on both sides.
    fn is_exact(&self) -> bool {
        !self.plan.is_float() && self.act_ids().all(|id| !self.reference.noise.inexact[id])
    }
}

/// Which nodes give sums of real numbers, which the fused plan rounds to float32 as it goes.
fn inexact(graph: &Graph, plan: &QuantPlan, input_bits: u8) -> Vec<bool> {
    let gives_codes = |id: NodeId| match graph.node(id).op {
        Op::Input { .. } => input_bits == 8,
        Op::Act { .. } | Op::MaxPool(_) | Op::Concat | Op::View(_) | Op::Subsample { .. } => {
            !plan.is_float() && !graph.source_acts(id).is_empty()
        }
        _ => false,
    };
    let mut inexact = vec![false; graph.nodes().len()];
    for (id, node) in graph.nodes().iter().enumerate().skip(1) {
        inexact[id] = match plan.weights.get(&node.name) {
            Some(WeightPlan::Quantized(spec)) => spec.code_limit() > 127 || !gives_codes(node.inputs[0]),
            Some(WeightPlan::Float) => true,
            // What an activation gives is exact; what it reads may not be.
            None => node.inputs.iter().any(|&input| inexact[input] && !gives_codes(input)),
        };
    }
    inexact
}

/// Images of `shape`, its channels bytes, and labels, that depend on their number.
fn fill(shape: Shape, classes: usize) -> impl Fn(usize, &mut [u8], Placement) -> usize + Sync {
    move |i, image, place| {
        let key = Key::new(99).at(i as u64);
        for (y, x) in (0..shape.h).flat_map(|y| (0..shape.w).map(move |x| (y, x))) {
            for c in 0..shape.c {
                image[place.pixel(y, x) + c] = key.below(((y * 64 + x) * 64 + c) as u64, 256) as u8;
            }
        }
        key.below(1 << 40, classes as u32) as usize
    }
}

/// Largest difference of two tensors.
fn distance(a: &Tensor, b: &Tensor) -> f32 {
    a.data.iter().zip(&b.data).fold(0.0, |most, (a, b)| (a - b).abs().max(most))
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.data.iter().fold(0.0, |most, v| v.abs().max(most))
}

/// Steps of both backends from the same tensors have equal codes, and gradients equal within 1e-5 of a tensor's
/// largest, and where a gradient cancels, within what roundings of its terms to float32 leave of it: 64 times what they
/// make of the reference's in four tries. Returns how many tensors there were, and how many of them needed the latter;
/// none where a sum of real numbers lay so near a tie that its code differs.
fn check_step(form: Form, choices: &mut Choices) -> Result<Option<(usize, usize)>, TestCaseError> {
    check_pair(Pair::new(form, choices), choices)
}

fn check_pair(mut pair: Pair, choices: &mut Choices) -> Result<Option<(usize, usize)>, TestCaseError> {
    let fill = fill(pair.bytes, pair.graph.classes());
    let logits: Vec<f32> = (0..BATCH * pair.graph.classes()).map(|i| Key::new(4).normal(i as u64)).collect();
    let teacher = TeacherInput { logits: &logits, temperature: 3.0, weight: 0.4 };
    let loss = LossInput {
        label_smoothing: choices.of(&[0.0, 0.1]),
        mixup: choices.of(&[None, Some(200)]),
        teacher: choices.one_in(3).then_some(teacher),
        targets: None,
    };
    let input = StepInput { lr: 0.0, fill: &fill, key: Key::new(3), sum_noise: 0.0, loss };
    let (fused, reference) = (pair.fused.step(&input).unwrap(), pair.reference.step(&input).unwrap());
    let what = || format!("{} {:?}", serde_json::to_string(&pair.graph).unwrap(), pair.plan);
    for (act, [fused, reference]) in pair.codes() {
        let places: Vec<usize> = (0..fused.len()).filter(|&i| fused[i] != reference[i]).collect();
        if pair.ends_on_ties(act, &places) {
            return Ok(None);
        }
        prop_assert_eq!(fused, reference, "codes of {} in {}", act, what());
    }
    prop_assert!((fused.loss - reference.loss).abs() <= 1e-5 * reference.loss.abs().max(1.0), "loss: {}", what());
    let ties = pair.reference.logits().chunks_exact(pair.graph.classes()).any(|z| {
        let largest = z.iter().fold(f32::MIN, |most, &z| z.max(most));
        z.iter().filter(|&&z| largest - z <= 1e-5 * largest.abs().max(1.0)).count() > 1
    });
    prop_assert!(fused.correct == reference.correct || ties, "{}", what());
    for (fused, reference) in pair.fused.statistics().iter().zip(&pair.reference.statistics()) {
        let counts = |s: &LayerStatistics| (s.name.clone(), s.zero, s.occupancy.clone(), s.alpha_clamped);
        prop_assert_eq!(counts(fused), counts(reference));
        prop_assert!((fused.alpha - reference.alpha).abs() <= 1e-6 * reference.alpha, "alpha of {}", fused.name);
        let id = pair.graph.find(&fused.name).expect("a node");
        let counted = fused.clipped == reference.clipped || pair.reference.noise.inexact[id];
        prop_assert!(counted, "{} clipped of {}: {}", fused.clipped, fused.name, what());
    }
    for (name, tensor) in pair.fused.tensors().iter().filter(|(name, _)| name.contains(".running_")) {
        let wanted = &pair.reference.params.tensors()[name];
        prop_assert!(distance(tensor, wanted) <= 1e-5 * largest(wanted).max(1.0), "{}: {}", name, what());
    }

    let (fused, wanted) = (pair.fused.optimizer_state().momentum, pair.reference.optimizer_state().momentum);
    let is_on_edge = pair.is_on_edge();
    let disturbed = (0..4).map(|draw| {
        pair.reference.noise.key = Some(Key::new(draw));
        pair.reference.load(&pair.start, None).unwrap();
        pair.reference.step(&input).unwrap();
        pair.reference.optimizer_state().momentum
    });
    let disturbed: Vec<Tensors> = disturbed.collect();
    let mut loose = 0;
    for (name, wanted) in &wanted {
        let (far, strict) = (distance(&fused[name], wanted), 1e-5 * largest(wanted));
        let rounding = disturbed.iter().map(|other| distance(&other[name], wanted)).fold(0.0, f32::max);
        loose += usize::from(far > strict);
        if far > strict + 64.0 * rounding && is_on_edge {
            return Ok(None);
        }
        let what = || format!("{} {:?}", serde_json::to_string(&pair.graph).unwrap(), pair.plan);
        prop_assert!(
            far <= strict + 64.0 * rounding,
            "gradient of {}: {:e} off, largest {:e}, roundings {:e}: {}",
            name,
            far,
            largest(wanted),
            rounding,
            what()
        );
    }
    Ok(Some((wanted.len(), loose)))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_fused_step_is_the_references(choices in prop::collection::vec(any::<u32>(), 1..200)) {
        check_step(TWO, &mut Choices::new(choices))?;
    }

    #[test]
    fn a_fused_step_of_any_operations_is_the_references(choices in prop::collection::vec(any::<u32>(), 1..200)) {
        check_step(ANY, &mut Choices::new(choices))?;
    }
}

#[test]
fn nine_gradients_of_ten_are_within_a_hundred_thousandth_of_their_largest() {
    for form in [TWO, ANY] {
        let all: Vec<_> = (0..300).map(|seed| check_step(form, &mut Choices::of_seed(seed)).unwrap()).collect();
        let compared = all.iter().flatten().count();
        assert!(compared * 20 > 19 * all.len(), "{compared} of {}", all.len());
        let (tensors, loose) = all.iter().flatten().fold((0, 0), |(n, m), (tensors, loose)| (n + tensors, m + loose));
        assert!(loose * 10 < tensors, "{loose} of {tensors}");
    }
}

/// The same over many more networks. Of these, one in a thousand may have a gradient that is nothing but what cancelled
/// terms leave.
#[test]
#[ignore = "takes a minute"]
fn thousands_of_steps_are_the_references() {
    let all: Vec<_> = (1000..5000).flat_map(|seed| [(seed, TWO), (seed, ANY)]).collect();
    let mut cancelled = 0;
    for &(seed, form) in &all {
        match check_step(form, &mut Choices::of_seed(seed)) {
            Err(error) if error.to_string().contains("gradient of") => cancelled += 1,
            result => _ = result.unwrap_or_else(|error| panic!("seed {seed}, {form:?}: {error}")),
        }
    }
    assert!(cancelled * 1000 <= all.len(), "{cancelled} of {}", all.len());
}

#[test]
fn images_of_any_number_of_channels_are_trained() {
    let mut compared = 0;
    for (c, seed) in [17, 31, 32, 48, 1025].into_iter().flat_map(|c| (0..6).map(move |seed| (c, seed))) {
        let graph: Graph = serde_json::from_str(&format!(
            r#"{{"name":"wide","nodes":[{{"name":"in","op":"input","height":3,"width":4,"channels":{c}}},
            {{"name":"c1","op":"conv","out_channels":5,"kernel":3,"padding":1}},{{"name":"n1","op":"batch_norm"}},
            {{"name":"a1","op":"act"}},{{"name":"fc","op":"linear","out_features":3}}]}}"#
        ))
        .unwrap();
        let mut choices = Choices::of_seed(seed);
        let ends = choices.of(&[FirstLast::Bits8, FirstLast::Float, FirstLast::Same]);
        let config = QuantConfig { first_last: ends, ..QuantConfig::new("W4A4".parse().unwrap()) };
        let plan = QuantPlan::resolve(&graph, &config).unwrap();
        let pair = Pair::of(graph, plan, &mut choices);
        compared += usize::from(check_pair(pair, &mut choices).unwrap().is_some());
    }
    assert!(compared >= 25, "{compared}");
}

/// Weights so large that a batch norm's variance, or a gradient, is beyond float32 although the loss is a number.
#[test]
fn what_float32_cannot_hold_is_an_error_and_no_update() {
    let graph: Graph = serde_json::from_str(
        r#"{"name":"large","nodes":[{"name":"in","op":"input","height":4,"width":4,"channels":1},
        {"name":"c1","op":"conv","out_channels":2,"kernel":3},{"name":"n1","op":"batch_norm"},{"name":"a1","op":"act"},
        {"name":"fc","op":"linear","out_features":3}]}"#,
    )
    .unwrap();
    let plan = QuantPlan::resolve(&graph, &QuantConfig::new(BitSpec::Float)).unwrap();
    let input = InputDescription::uniform(1, 128, 1.0 / 64.0);
    let spec = BackendSpec::new(&graph, &plan, &input, BATCH);
    let start = crate::initial_tensors(&graph, &plan, 7, 1.0);
    let with = |values: &[(&str, f32)]| {
        let mut tensors = start.clone();
        for (name, value) in values {
            // Of the first class or channel one sign, of the others the other.
            let tensor = tensors.get_mut(*name).unwrap();
            let first = tensor.data.len() / tensor.shape[0];
            tensor.data.iter_mut().enumerate().for_each(|(i, v)| *v = if i < first { *value } else { -*value });
        }
        tensors
    };
    let cases = [
        (with(&[("c1.weight", 1e30)]), "`n1.running_var`, which is"),
        (with(&[("n1.weight", 1e-38), ("fc.weight", 3e38)]), "the gradient of `"),
    ];
    for (tensors, what) in cases {
        let (mut fused, mut reference) = (CpuBackend::new(&spec).unwrap(), ReferenceBackend::new(&spec).unwrap());
        reference.noise.inexact = inexact(&graph, &plan, 8);
        for backend in [&mut fused as &mut dyn TrainBackend, &mut reference] {
            backend.load(&tensors, None).unwrap();
            let error = backend.step(&StepInput { lr: 0.1, fill: &fill(graph.input(), 3), ..StepInput::default() });
            let error = error.unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("step 0") && error.contains("max_grad_norm"), "{error}");
            assert_eq!(backend.tensors(), tensors, "{error}");
        }
    }
}

/// What is no step: calibration, the simulated view, and statistics estimated anew. Where sums are exact, so are all of
/// them.
#[test]
fn other_forwards_are_the_references() {
    let mut exact = 0;
    for (seed, form) in (0..300).flat_map(|seed| [(seed, TWO), (seed, ANY)]) {
        let mut pair = Pair::new(form, &mut Choices::of_seed(seed));
        // A clip value that is shared changes while it is calibrated.
        let shares = pair.act_ids().any(|id| pair.reference.owners[id] != id);
        if shares || !pair.is_exact() {
            continue;
        }
        exact += 1;
        let fill = fill(pair.bytes, pair.graph.classes());
        let clips = pair.fused.calibrate(97.0, &fill).unwrap();
        assert_eq!(clips, pair.reference.calibrate(97.0, &fill).unwrap(), "{seed}");
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0));
        for batch in 0..2 {
            pair.fused.reestimate(batch, &fill);
            pair.reference.reestimate(batch, &fill);
        }
        let (fused, reference) = (pair.fused.tensors(), pair.reference.tensors());
        assert!(reference.iter().all(|(name, tensor)| close(&fused[name].data, &tensor.data)), "{seed}");
        pair.load();
        let (mut fused, mut reference) = (Vec::new(), Vec::new());
        pair.fused.simulate(BATCH - 1, &fill, &mut fused);
        pair.reference.simulate(BATCH - 1, &fill, &mut reference);
        let codes = |codes: &[i32]| codes[..codes.len() / BATCH * (BATCH - 1)].to_vec();
        for (act, [fused, reference]) in pair.codes() {
            assert_eq!(codes(&fused), reference, "{seed}: codes of {act}");
        }
        assert_eq!(fused.len(), reference.len());
        assert!(close(&fused, &reference), "{seed}: {fused:?} {reference:?}");
    }
    assert!(exact >= 30, "only {exact} networks");
}

/// Updates of the same gradients.
#[test]
fn updates_are_the_references() {
    let sgd = OptimizerConfig { weight_decay: 1e-3, clip_weight_decay: 1e-2, ..OptimizerConfig::default() };
    let group = ParamGroup { pattern: "conv*".to_owned(), lr_scale: Some(0.1), weight_decay: Some(0.0) };
    let all = [
        OptimizerConfig { nesterov: true, groups: vec![group], ..sgd.clone() },
        OptimizerConfig { max_grad_norm: Some(0.1), ema_decay: Some(0.5), ..sgd.clone() },
        OptimizerConfig { kind: OptimizerKind::Adam, ..sgd.clone() },
        OptimizerConfig { kind: OptimizerKind::AdamW, ema_decay: Some(0.99), ..sgd },
    ];
    for (seed, optimizer) in (0..8).flat_map(|seed| all.iter().map(move |optimizer| (seed, optimizer))) {
        let (graph, plan) = network(&mut Choices::of_seed(seed));
        let input = InputDescription::uniform(graph.input().c, 128, 1.0 / 64.0);
        let spec = BackendSpec { optimizer: optimizer.clone(), ..BackendSpec::new(&graph, &plan, &input, BATCH) };
        let (mut fused, mut reference) = (CpuBackend::new(&spec).unwrap(), ReferenceBackend::new(&spec).unwrap());
        let start = crate::initial_tensors(&graph, &plan, 7, 0.1);
        fused.load(&start, None).unwrap();
        reference.load(&start, None).unwrap();
        for step in 0..3 {
            for p in &mut reference.params.list {
                let key = Key::new(step).with(&p.name);
                p.grad.iter_mut().zip(0..).for_each(|(g, i)| *g = key.normal(i));
            }
            fused.update_with(&reference.params, 0.05);
            optimizer::update(&mut reference.params, 0.05);
            optimizer::move_average(&mut reference.params);
        }
        let close = |a: &Tensors, b: &Tensors| {
            let same = |(name, b): (&String, &Tensor)| distance(&a[name], b) <= 1e-6 * largest(b).max(1.0);
            a.len() == b.len() && b.iter().all(same)
        };
        let (a, b) = (fused.optimizer_state(), reference.optimizer_state());
        assert!(close(&fused.tensors(), &reference.tensors()), "{seed} {optimizer:?}");
        assert!(close(&a.momentum, &b.momentum) && close(&a.second_moment, &b.second_moment), "{seed} {optimizer:?}");
        assert_eq!((a.steps, a.average.is_some()), (b.steps, b.average.is_some()));
        assert!(a.average.zip(b.average).is_none_or(|(a, b)| close(&a, &b)), "{seed} {optimizer:?}");
        assert_eq!(
            fused.statistics().iter().map(|s| s.alpha_clamped).sum::<u64>(),
            reference.statistics().iter().map(|s| s.alpha_clamped).sum::<u64>()
        );
    }
}

#[test]
fn what_the_reference_lacks_is_refused() {
    let (graph, plan) = network(&mut Choices::new(Vec::new()));
    let input = InputDescription::uniform(graph.input().c, 128, 1.0 / 64.0);
    let spec = BackendSpec { gradients: Gradients::Int8, ..BackendSpec::new(&graph, &plan, &input, BATCH) };
    let error = crate::BackendKind::Reference.build(&spec).err().expect("8 bits").to_string();
    assert!(error.contains("gradient_bits"), "{error}");
}
