//! What each switch does to a step, and that bits depend neither on threads nor on stops.

use super::*;
use crate::{LossInput, OptimizerKind, ParamGroup, TeacherInput};

fn tuned(graph: &Graph, config: &QuantConfig, optimizer: OptimizerConfig, threads: usize) -> CpuBackend {
    let plan = QuantPlan::resolve(graph, config).unwrap();
    let input = InputDescription::uniform(graph.input().c, 128, 1.0 / 64.0);
    let spec = BackendSpec { optimizer, threads, ..BackendSpec::new(graph, &plan, &input, BATCH) };
    let mut backend = CpuBackend::new(&spec).unwrap();
    backend.load(&initial_tensors(graph, &plan, 7, 2.0), None).unwrap();
    backend
}

fn optimizers() -> Vec<OptimizerConfig> {
    let sgd = OptimizerConfig { weight_decay: 1e-3, ..OptimizerConfig::default() };
    let group = ParamGroup { pattern: "c1.*".to_owned(), lr_scale: Some(0.1), weight_decay: Some(0.0) };
    vec![
        OptimizerConfig { kind: OptimizerKind::Adam, ..sgd.clone() },
        OptimizerConfig { kind: OptimizerKind::AdamW, ema_decay: Some(0.99), ..sgd.clone() },
        OptimizerConfig { ema_decay: Some(0.5), max_grad_norm: Some(0.1), ..sgd.clone() },
        OptimizerConfig { groups: vec![group], nesterov: true, ..sgd },
    ]
}

/// A step with every part of the loss.
fn soft_step(backend: &mut CpuBackend, lr: f32) -> StepOutcome {
    let fill = filler(backend.input_shape(), backend.graph.classes());
    let logits: Vec<f32> = (0..BATCH * backend.graph.classes()).map(|i| Key::new(4).normal(i as u64)).collect();
    let teacher = Some(TeacherInput { logits: &logits, temperature: 3.0, weight: 0.4 });
    let loss = LossInput { label_smoothing: 0.1, mixup: Some(200), teacher, targets: None };
    backend.step(&StepInput { lr, fill: &fill, key: Key::new(3), loss, ..StepInput::default() }).unwrap()
}

#[test]
fn bits_depend_neither_on_threads_nor_on_a_stop() {
    for graph in [&networks()[1], &networks()[6]] {
        for optimizer in optimizers() {
            let new = |threads| tuned(graph, &quant("W3A3"), optimizer.clone(), threads);
            let (mut one, mut two) = (new(1), new(2));
            for _ in 0..2 {
                assert_eq!(soft_step(&mut one, 0.01), soft_step(&mut two, 0.01));
            }
            let mut resumed = new(2);
            resumed.load(&one.tensors(), Some(&one.optimizer_state())).unwrap();
            for backend in [&mut one, &mut two, &mut resumed] {
                soft_step(backend, 0.01);
                let fill = filler(backend.input_shape(), backend.graph.classes());
                backend.swap_average();
                (0..2).for_each(|batch| backend.reestimate(batch, &fill));
                backend.swap_average();
                soft_step(backend, 0.01);
            }
            for other in [two, resumed] {
                assert_eq!(one.tensors(), other.tensors(), "{optimizer:?}");
                assert_eq!(one.optimizer_state(), other.optimizer_state(), "{optimizer:?}");
            }
        }
    }
}

#[test]
fn states_that_lack_what_the_optimizer_needs_are_refused() {
    let graph = &networks()[1];
    let plain = tuned(graph, &quant("W4A4"), OptimizerConfig::default(), 1);
    for (optimizer, what) in optimizers().into_iter().zip(["second moment", "second moment", "average"]) {
        let mut backend = tuned(graph, &quant("W4A4"), optimizer, 1);
        let error = backend.load(&plain.tensors(), Some(&plain.optimizer_state())).unwrap_err().to_string();
        assert!(error.contains(&format!("the {what} is missing")), "{error}");
    }
}

/// Without momentum and decay, the step is the learning rate times the scaled gradient.
#[test]
fn clipping_bounds_the_length_of_a_step() {
    let graph = &networks()[1];
    let length = |max_grad_norm| {
        let optimizer = OptimizerConfig { momentum: 0.0, max_grad_norm, ..OptimizerConfig::default() };
        let mut backend = tuned(graph, &quant("W4A4"), optimizer, 1);
        let before = backend.tensors();
        step(&mut backend, 0.5);
        let trained = |name: &str| !name.contains("running");
        let square = |(name, tensor): (&String, &Tensor)| -> f64 {
            let pairs = tensor.data.iter().zip(&before[name].data);
            pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
        };
        backend.tensors().iter().filter(|(name, _)| trained(name)).map(square).sum::<f64>().sqrt()
    };
    let free = length(None);
    assert!(free > 0.1, "{free}");
    assert!((length(Some(0.1)) - 0.05).abs() < 1e-4, "{}", length(Some(0.1)));
    assert_eq!(length(Some(1e6)), free, "a norm within bounds changes nothing");
}

/// The mean over batches of what a step with momentum 1 would set the running statistics to.
#[test]
fn statistics_estimated_anew_are_the_means_over_the_batches() {
    let graph = &networks()[1];
    let mut backend = tuned(graph, &quant("W4A4"), OptimizerConfig::default(), 2);
    let shape = backend.input_shape();
    let images = |batch: usize| {
        let fill = filler(shape, 5);
        move |i: usize, out: &mut [u8], place| fill(batch * BATCH + i, out, place)
    };
    let statistics = |backend: &CpuBackend| -> Vec<f32> {
        let tensors = backend.tensors();
        let names = tensors.iter().filter(|(name, _)| name.contains("running"));
        names.flat_map(|(_, tensor)| tensor.data.clone()).collect()
    };
    let start = backend.tensors();
    let mut wanted = vec![0.0; statistics(&backend).len()];
    for batch in 0..3 {
        backend.load(&start, None).unwrap();
        let before = statistics(&backend);
        let fill = images(batch);
        backend.step(&StepInput { lr: 0.0, fill: &fill, ..StepInput::default() }).unwrap();
        for ((wanted, after), before) in wanted.iter_mut().zip(statistics(&backend)).zip(before) {
            *wanted += (after - 0.9 * before) / 0.1 / 3.0;
        }
    }
    backend.load(&start, None).unwrap();
    backend.reset_statistics();
    for batch in 0..3 {
        backend.reestimate(batch as u64, &images(batch));
    }
    for (got, wanted) in statistics(&backend).iter().zip(wanted) {
        assert!((got - wanted).abs() < 1e-4 * wanted.abs().max(1.0), "{got} instead of {wanted}");
    }
    assert!(backend.statistics().iter().all(|s| s.clipped == 0.0), "nothing of it is counted");
    let same = |name: &str| backend.tensors()[name] == start[name];
    assert!(start.keys().filter(|name| !name.contains("running")).all(|name| same(name)));
}

/// With smoothed labels the logits do not run away; with a teacher they come nearer to its own.
#[test]
fn losses_lead_where_they_should() {
    let graph = &networks()[1];
    let classes = graph.classes();
    let taught: Vec<f32> = (0..BATCH * classes).map(|i| 2.0 * Key::new(4).normal(i as u64)).collect();
    let after = |loss: LossInput| {
        let mut backend = tuned(graph, &quant("W8A8"), OptimizerConfig::default(), 2);
        let fill = filler(backend.input_shape(), classes);
        for _ in 0..80 {
            backend.step(&StepInput { lr: 0.05, fill: &fill, loss, ..StepInput::default() }).unwrap();
        }
        backend.reestimate(0, &fill);
        let mut logits = Vec::new();
        backend.simulate(BATCH, &fill, &mut logits);
        logits
    };
    let spread = |logits: &[f32]| -> f32 {
        let rows = logits.chunks_exact(classes);
        rows.map(|z| z.iter().fold(f32::MIN, |a, b| a.max(*b)) - z.iter().fold(f32::MAX, |a, b| a.min(*b))).sum()
    };
    let plain = after(LossInput::default());
    let smoothed = after(LossInput { label_smoothing: 0.2, ..LossInput::default() });
    assert!(spread(&smoothed) < 0.7 * spread(&plain), "{} {}", spread(&smoothed), spread(&plain));
    let teacher = Some(TeacherInput { logits: &taught, temperature: 2.0, weight: 1.0 });
    let distilled = after(LossInput { teacher, ..LossInput::default() });
    let centered = |z: &[f32]| -> Vec<f32> {
        let center = |z: &[f32]| z.iter().map(|v| v - z.iter().sum::<f32>() / classes as f32).collect::<Vec<_>>();
        z.chunks_exact(classes).flat_map(center).collect()
    };
    let distance = |z: &[f32]| -> f32 {
        centered(z).iter().zip(centered(&taught)).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
    };
    assert!(distance(&distilled) < 0.3 * distance(&plain), "{} {}", distance(&distilled), distance(&plain));
}

#[test]
fn adam_learns_a_small_set_too() {
    for kind in [OptimizerKind::Adam, OptimizerKind::AdamW] {
        let optimizer = OptimizerConfig { kind, weight_decay: 1e-3, ..OptimizerConfig::default() };
        let mut backend = tuned(&networks()[1], &quant("W4A4"), optimizer, 2);
        let first = step(&mut backend, 0.01).loss;
        let last = (0..60).map(|_| step(&mut backend, 0.01).loss).fold(f64::INFINITY, f64::min);
        assert!(last < 0.5 * first, "{kind:?}: {first} to {last}");
    }
}
