//! Backward products over rounded gradients: near those of float32, without bias, independent of threads.

use super::super::plan::{Shortcut, StageKind};
use super::super::product::{Product, WeightSums};
use super::*;
use crate::reference::ReferenceBackend;

const FORMATS: [Gradients; 2] = [Gradients::Bf16, Gradients::Int8];

fn rounded(graph: &Graph, bits: &str, gradients: Gradients, isa: Isa, threads: usize) -> CpuBackend {
    let plan = QuantPlan::resolve(graph, &quant(bits)).unwrap();
    let input = InputDescription::uniform(graph.input().c, 128, 1.0 / 64.0);
    let mut backend =
        CpuBackend::new(&BackendSpec { gradients, isa, threads, ..BackendSpec::new(graph, &plan, &input, BATCH) })
            .unwrap();
    backend.load(&initial_tensors(graph, &plan, 7, 2.0), None).unwrap();
    backend
}

/// Every gradient of one step from the start, its random numbers drawn from `key`. Those of the clip values, single
/// numbers in which much cancels, are taken together.
fn gradients(backend: &mut CpuBackend, start: &BTreeMap<String, Tensor>, key: u64) -> BTreeMap<String, Vec<f32>> {
    let fill = filler(backend.input_shape(), backend.graph.classes());
    gradients_of(backend, &fill, start, key)
}

/// The same of any backend.
fn gradients_of(
    backend: &mut dyn TrainBackend,
    fill: crate::Fill,
    start: &BTreeMap<String, Tensor>,
    key: u64,
) -> BTreeMap<String, Vec<f32>> {
    backend.load(start, None).unwrap();
    backend.step(&StepInput { lr: 0.0, fill, key: Key::new(key), ..StepInput::default() }).unwrap();
    let mut all: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for (name, tensor) in backend.optimizer_state().momentum {
        let name = if name.ends_with(".clip_val") { "clip values".to_owned() } else { name };
        all.entry(name).or_default().extend(tensor.data);
    }
    all
}

/// |a - b| / |b|, or |a| where b is next to nothing.
fn distance(a: &[f64], b: &[f32]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let off = norm(&mut a.iter().zip(b).map(|(a, b)| a - f64::from(*b)));
    off / norm(&mut b.iter().map(|b| f64::from(*b))).max(1e-4)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Networks without dropout, which draws from the same key.
fn without_dropout() -> impl Iterator<Item = Graph> {
    let drops = |g: &Graph| g.nodes().iter().any(|n| matches!(n.op, bitpact_graph::Op::Dropout { .. }));
    networks().into_iter().filter(move |g| !drops(g))
}

#[test]
fn bfloat16_gradients_stay_within_their_rounding() {
    for graph in without_dropout() {
        for isa in bitpact_kernels::testing::paths() {
            let mut exact = rounded(&graph, "W4A4", Gradients::Fp32, isa, 2);
            let start = exact.tensors();
            let exact = gradients(&mut exact, &start, 1);
            let near = gradients(&mut rounded(&graph, "W4A4", Gradients::Bf16, isa, 2), &start, 1);
            assert_eq!(exact.keys().collect::<Vec<_>>(), near.keys().collect::<Vec<_>>());
            let mut differs = false;
            for (name, exact) in &exact {
                // A rounding is within 2^-9; some ten layers add theirs up.
                let off = distance(&wide(&near[name]), exact);
                assert!(off < 0.02, "{} {isa} {name}: {off}", graph.name());
                differs |= off > 0.0;
            }
            assert!(differs, "{} {isa}: nothing was rounded", graph.name());
        }
    }
}

#[test]
fn float_networks_in_bfloat16_are_the_references_and_are_evaluated_in_float32() {
    let (mut apart, mut from_exact) = (0.0f64, 0.0f64);
    for graph in without_dropout() {
        let plan = QuantPlan::resolve(&graph, &quant("float")).unwrap();
        let input = InputDescription::uniform(graph.input().c, 128, 1.0 / 64.0);
        let spec = BackendSpec { gradients: Gradients::Bf16, ..BackendSpec::new(&graph, &plan, &input, BATCH) };
        let mut reference = ReferenceBackend::new(&spec).unwrap();
        for isa in bitpact_kernels::testing::paths() {
            let [mut exact, mut near] = [Gradients::Fp32, Gradients::Bf16].map(|g| rounded(&graph, "float", g, isa, 2));
            let (start, fill) = (exact.tensors(), filler(exact.input_shape(), exact.graph.classes()));
            let exact = gradients(&mut exact, &start, 1);
            let found = gradients(&mut near, &start, 1);
            let wanted = gradients_of(&mut reference, &fill, &start, 1);
            for (name, wanted) in &wanted {
                // Sums in another order may fall on the other side of a rounding, and of a ReLU's edge.
                let off = distance(&wide(&found[name]), wanted);
                assert!(off < 0.05, "{} {isa} {name}: {off} from the reference", graph.name());
                apart += off;
                from_exact += distance(&wide(&found[name]), &exact[name]);
            }
            let all = [Gradients::Fp32, Gradients::Bf16].map(|g| {
                let mut backend = rounded(&graph, "float", g, isa, 1);
                let mut logits = Vec::new();
                step(&mut backend, 0.0);
                backend.load(&start, None).unwrap();
                backend.simulate(BATCH, &fill, &mut logits);
                logits
            });
            assert_eq!(all[0], all[1], "{} {isa}: evaluated", graph.name());
        }
    }
    assert!(apart < 0.1 * from_exact, "{apart} from the reference, {from_exact} from float32");
}

#[test]
fn eight_bit_gradients_have_no_bias() {
    const DRAWS: u64 = 100;
    for graph in without_dropout() {
        for isa in [Isa::Scalar, Isa::detect()] {
            let mut exact = rounded(&graph, "W4A4", Gradients::Fp32, isa, 2);
            let start = exact.tensors();
            let exact = gradients(&mut exact, &start, 1);
            let mut backend = rounded(&graph, "W4A4", Gradients::Int8, isa, 2);
            let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
            let mut single: BTreeMap<String, f64> = BTreeMap::new();
            for draw in 0..DRAWS {
                for (name, gradient) in gradients(&mut backend, &start, draw) {
                    *single.entry(name.clone()).or_default() +=
                        distance(&wide(&gradient), &exact[&name]) / DRAWS as f64;
                    let sums = sums.entry(name).or_insert_with(|| vec![0.0; gradient.len()]);
                    sums.iter_mut().zip(&gradient).for_each(|(s, g)| *s += f64::from(*g) / DRAWS as f64);
                }
            }
            for (name, mean) in sums {
                let (one, all) = (single[&name], distance(&mean, &exact[&name]));
                assert!(one < 0.5, "{} {isa} {name}: one draw is off by {one}", graph.name());
                // The mean of 100 draws is off by a tenth of one; a bias would leave it where one is. Layers with
                // groups round to bfloat16, the same in every draw.
                let allowed = 0.3 * one + if graph.name() == "grouped" { 1e-2 } else { 2e-3 };
                assert!(all < allowed, "{} {isa} {name}: one draw {one}, their mean {all}", graph.name());
            }
        }
    }
}

#[test]
fn rounded_gradients_do_not_depend_on_the_number_of_threads() {
    for graph in networks() {
        for format in FORMATS {
            for isa in bitpact_kernels::testing::paths() {
                let run = |threads| {
                    let mut backend = rounded(&graph, "W4A4", format, isa, threads);
                    let losses: Vec<f64> = (0..3).map(|_| step(&mut backend, 0.05).loss).collect();
                    (losses, backend.tensors(), backend.optimizer_state().momentum)
                };
                let one = run(1);
                assert!(one == run(2) && one == run(3), "{} {format:?} {isa}", graph.name());
            }
        }
    }
}

/// Calls `f` on every product that has weights.
fn each_product(backend: &mut CpuBackend, mut f: impl FnMut(&mut Product)) {
    for stage in &mut backend.plan.stages {
        if let StageKind::Unit(unit) = &mut stage.kind {
            let shortcut = match &mut unit.shortcut {
                Shortcut::Projection { product, .. } => Some(&mut **product),
                _ => None,
            };
            [Some(&mut unit.main), shortcut].into_iter().flatten().filter(|p| !p.is_identity()).for_each(&mut f);
        }
    }
}

#[test]
fn block_by_block_or_chunk_by_chunk_weight_gradients_are_the_same() {
    for gradient in [Gradients::Fp32, Gradients::Bf16, Gradients::Int8] {
        let mut by_itself = [0; 2];
        for (graph, isa) in without_dropout()
            .flat_map(|g| bitpact_kernels::testing::paths().into_iter().map(move |isa| (g.clone(), isa)))
        {
            let mut run = |sums: WeightSums| {
                let mut backend = rounded(&graph, "W4A4", gradient, isa, 2);
                let (mut kept, mut partials) = (std::mem::take(&mut backend.plan.kept), 0);
                each_product(&mut backend, |p| {
                    by_itself[usize::from(p.sums == WeightSums::Blocks)] += 1;
                    p.sums = if p.backward.blocks().is_some() { sums } else { WeightSums::Chunks(2) };
                    kept.reserve(&p.backward, BATCH);
                    partials = partials.max(2 * p.backward.partial_len());
                });
                (backend.plan.kept, backend.plan.partials) = (kept, Aligned::zeroed(partials));
                let start = backend.tensors();
                gradients(&mut backend, &start, 1)
            };
            let (blocks, chunks) = (run(WeightSums::Blocks), run(WeightSums::Chunks(2)));
            for (name, chunks) in &chunks {
                let off = distance(&wide(&blocks[name]), chunks);
                assert!(off < 1e-5, "{} {gradient:?} {isa} {name}: {off} apart", graph.name());
            }
        }
        assert!(by_itself[0] > 0 && by_itself[1] > 0, "layers of chunks and of blocks by themselves: {by_itself:?}");
    }
}
