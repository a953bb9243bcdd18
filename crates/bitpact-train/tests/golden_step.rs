//! One whole ResNet-20 training step against PyTorch's numbers; `golden/resnet20_step.py` made them.

use std::collections::BTreeMap;

use bitpact_core::rng::Key;
use bitpact_data::Placement;
use bitpact_graph::{FirstLast, Graph, QuantConfig, QuantPlan, Shape, zoo};
use bitpact_kernels::Isa;
use bitpact_model::{InputDescription, Model, Tensor};
use bitpact_train::{BackendKind, BackendSpec, OptimizerConfig, StepInput, StepOutcome};
use serde_json::Value;

const BATCH: usize = 16;

fn hash(name: &str, i: u64) -> u64 {
    let fnv = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut z = fnv.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The start value of element `i` in -1..1, under the variant that the golden file names.
fn centered(golden: &Value, name: &str, i: usize) -> f64 {
    let per_tensor = golden["tensor_variants"][name].as_u64();
    let k = per_tensor.or(golden["element_variants"][name][i].as_u64()).unwrap_or(0);
    let hashed = if k == 0 { name.to_owned() } else { format!("{name}@{k}") };
    2.0 * ((hash(&hashed, i as u64) >> 40) as f64 / f64::from(1 << 24)) - 1.0
}

fn start(golden: &Value, graph: &Graph, plan: &QuantPlan) -> BTreeMap<String, Tensor> {
    let value = |name: &str, shape: &[usize], i: usize| -> f64 {
        let v = centered(golden, name, i);
        match name.rsplit('.').next().unwrap() {
            "running_mean" => 0.0,
            "running_var" => 1.0,
            "clip_val" => 1.5 + 0.5 * v,
            "weight" if shape.len() == 4 => v * (6.0 / (shape[1] * shape[2] * shape[3]) as f64).sqrt(),
            "weight" if shape.len() == 2 => v / (shape[1] as f64).sqrt(),
            "weight" => 1.0 + 0.2 * v,
            "bias" if name.starts_with("linear") => 0.1 * v,
            "bias" => 0.2 * v,
            other => panic!("no rule for {other}"),
        }
    };
    let fill = |(name, shape): (String, Vec<usize>)| {
        let n: usize = shape.iter().product();
        let data = (0..n).map(|i| value(&name, &shape, i) as f32).collect();
        (name, Tensor { shape, data })
    };
    Model::tensor_shapes(graph, plan).into_iter().map(fill).collect()
}

struct Stepped {
    outcome: StepOutcome,
    start: BTreeMap<String, Tensor>,
    tensors: BTreeMap<String, Tensor>,
    momentum: BTreeMap<String, Tensor>,
}

fn step(golden: &Value, bits: &str, decay: f32, isa: Isa) -> Stepped {
    let graph = zoo::build("resnet20", Shape::new(32, 32, 3), 10).unwrap().unwrap();
    let config = QuantConfig { first_last: FirstLast::Float, ..QuantConfig::new(bits.parse().unwrap()) };
    let plan = QuantPlan::resolve(&graph, &config).unwrap();
    let optimizer = OptimizerConfig { weight_decay: decay, clip_weight_decay: decay, ..OptimizerConfig::default() };
    let input = InputDescription::uniform(3, 128, 1.0 / 64.0);
    let spec = BackendSpec { optimizer, isa, threads: 2, ..BackendSpec::new(&graph, &plan, &input, BATCH) };
    let mut backend = BackendKind::Cpu.build(&spec).unwrap();
    let start = start(golden, &graph, &plan);
    backend.load(&start, None).unwrap();
    let fill = |n: usize, image: &mut [u8], place: Placement| {
        for (y, x, c) in (0..32 * 32 * 3).map(|i| (i / 96, i / 3 % 32, i % 3)) {
            let index = ((n * 3 + c) * 32 + y) * 32 + x;
            image[place.pixel(y, x) + c] = (hash("input", index as u64) >> 56) as u8;
        }
        (hash("labels", n as u64) % 10) as usize
    };
    let outcome = backend.step(&StepInput { lr: 0.1, fill: &fill, key: Key::new(1), ..StepInput::default() }).unwrap();
    Stepped { outcome, start, tensors: backend.tensors(), momentum: backend.optimizer_state().momentum }
}

/// Relative L2 distance of the sampled elements and relative distance of the norms, the larger of the two.
fn distance(entry: &Value, samples: &str, norm: &str, got: &[f32]) -> f64 {
    let want: Vec<f64> = entry[samples].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let index =
        |j: usize| if got.len() <= 32 { j } else { (j as u64 * 2_654_435_761 % (1 << 32)) as usize % got.len() };
    assert_eq!(want.len(), got.len().min(32));
    let want_norm = entry[norm].as_f64().unwrap();
    let got_norm = got.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let square = |f: &dyn Fn(usize) -> f64| (0..want.len()).map(|j| f(j).powi(2)).sum::<f64>().sqrt();
    let off = square(&|j| f64::from(got[index(j)]) - want[j]);
    let scale = square(&|j| want[j]).max(want_norm * 1e-3);
    (off / scale).max((got_norm - want_norm).abs() / want_norm)
}

fn compare(file: &str, bits: &str, tolerance: f64) {
    let golden: Value = serde_json::from_str(file).unwrap();
    for isa in bitpact_kernels::testing::paths() {
        let plain = step(&golden, bits, 0.0, isa);
        let decayed = step(&golden, bits, 2e-4, isa);
        let loss = golden["loss"].as_f64().unwrap();
        assert!(
            (plain.outcome.loss - loss).abs() < tolerance * loss,
            "{isa}: loss {} against {loss}",
            plain.outcome.loss
        );
        let parameters = golden["parameters"].as_object().unwrap();
        assert_eq!(parameters.len(), plain.momentum.len());
        let mut worst = (0.0, String::new());
        let mut check = |name: &str, what: &str, d: f64| {
            assert!(d <= tolerance, "{isa}: {what} of {name} is off by {d:.2e}, allowed {tolerance:.0e}");
            if d > worst.0 {
                worst = (d, format!("{what} of {name}"));
            }
        };
        for (name, entry) in parameters {
            // Without decay and with zero momentum before, the momentum after one step is the gradient.
            check(name, "gradient", distance(entry, "grad", "grad_norm", &plain.momentum[name].data));
            check(name, "value", distance(entry, "updated", "updated_norm", &decayed.tensors[name].data));
            assert_ne!(decayed.tensors[name].data, decayed.start[name].data, "{name} did not move");
        }
        for (name, entry) in golden["buffers"].as_object().unwrap() {
            check(name, "statistics", distance(entry, "updated", "updated_norm", &decayed.tensors[name].data));
        }
        println!("{bits} {isa}: worst {:.2e}, {}", worst.0, worst.1);
    }
}

#[test]
fn a_float_step_equals_pytorch() {
    compare(include_str!("golden/resnet20_step_float.json"), "float", 1e-4);
}

#[test]
fn a_w4a4_step_equals_pytorch() {
    compare(include_str!("golden/resnet20_step_w4a4.json"), "W4A4", 1e-2);
}

#[test]
fn the_comparison_can_fail() {
    let golden: Value = serde_json::from_str(include_str!("golden/resnet20_step_float.json")).unwrap();
    let entry = &golden["parameters"]["bn1.weight"];
    let mut got: Vec<f32> = entry["grad"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
    assert!(distance(entry, "grad", "grad_norm", &got) < 1e-6);
    got[3] += 1e-3 * entry["grad_norm"].as_f64().unwrap() as f32;
    assert!(distance(entry, "grad", "grad_norm", &got) > 1e-4);
}
