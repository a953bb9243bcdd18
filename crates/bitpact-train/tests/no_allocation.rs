//! After its first step training allocates nothing: counted by the allocator of this program, whose only test this is.

use std::alloc::System;

use bitpact_core::rng::Key;
use bitpact_data::Placement;
use bitpact_graph::Shape;
use bitpact_kernels::Isa;
use bitpact_train::{BackendKind, BackendSpec, Draft, LossInput, Recipe, StepInput, initial_tensors};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CLASSES: usize = 4;

/// A recipe of these keys, its network and images of `side` pixels a side.
fn recipe(arch: &str, keys: &[(&'static str, &str)]) -> Recipe {
    let mut draft = Draft::open("builtin").unwrap();
    draft.set("arch", arch, "arch");
    draft.set("batch_size", 6, "batch_size");
    for (key, value) in keys {
        match value.parse::<i64>() {
            Ok(number) => draft.set(key, number, key),
            Err(_) => draft.set(key, *value, key),
        }
    }
    draft.finish().unwrap()
}

/// Allocations of three steps after the first, on every path and with one and two threads.
fn allocations(recipe: &Recipe, side: usize, divisor: usize) -> Vec<(Isa, usize, usize)> {
    let graph = recipe.network(Shape::new(side, side, 3), CLASSES).unwrap().narrowed(divisor).unwrap();
    let (plan, input) = (recipe.plan(&graph).unwrap(), recipe.input_description(3));
    let start = initial_tensors(&graph, &plan, 1, 6.0);
    let mut counts = Vec::new();
    for (isa, threads) in bitpact_kernels::testing::paths().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
        let (optimizer, gradients) = (recipe.optimizer_config(), recipe.gradients());
        let spec = BackendSpec::new(&graph, &plan, &input, recipe.batch_size);
        let mut backend = BackendKind::Cpu.build(&BackendSpec { optimizer, gradients, isa, threads, ..spec }).unwrap();
        backend.load(&start, None).unwrap();
        let fill = |i: usize, image: &mut [u8], place: Placement| {
            for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
                let key = Key::new(1).at(i as u64).at((y * side + x) as u64);
                image[place.pixel(y, x)..][..3].iter_mut().zip(0..).for_each(|(p, c)| *p = key.u64(c) as u8);
            }
            i % CLASSES
        };
        let mut statistics = Vec::new();
        let mut step = |key: u64| {
            let input =
                StepInput { lr: 1e-4, fill: &fill, key: Key::new(key), sum_noise: 0.1, loss: LossInput::default() };
            backend.step(&input).unwrap();
            backend.write_statistics(&mut statistics);
            backend.reset_statistics();
        };
        step(0);
        let region = Region::new(ALLOCATOR);
        for key in 1..4 {
            step(key);
        }
        let change = region.change();
        counts.push((isa, threads, change.allocations + change.reallocations));
    }
    counts
}

#[test]
fn steps_after_the_first_allocate_nothing() {
    // The counter counts.
    let region = Region::new(ALLOCATOR);
    drop(std::hint::black_box(vec![1u8; 100]));
    assert!(region.change().allocations > 0);

    let pact_sawb = [("act_quant", "pact"), ("weight_quant", "sawb")];
    let lsq = [("act_quant", "lsq"), ("weight_quant", "lsq"), ("weight_scale", "channel")];
    let relu = [("act_quant", "relu"), ("weight_quant", "minmax")];
    let bf16 = [("precision", "bf16")];
    let int8 = [("gradient_bits", "8"), ("first_last", "same")];
    for (arch, keys, side, divisor) in [
        ("resnet20", &pact_sawb[..], 16, 1),
        ("resnet20", &lsq[..], 8, 2),
        ("resnet20", &relu[..], 8, 2),
        ("resnet20", &bf16[..], 8, 1),
        ("resnet20", &int8[..], 8, 1),
        ("resnet20", &[("bits", "float")][..], 8, 2),
        ("resnet20", &[("bits", "float"), ("precision", "bf16")][..], 8, 2),
        ("resnet20", &[("bits", "W2A2")][..], 8, 2),
        // Projections, pools, and the signed activations of pact-sym.
        ("resnet18", &[][..], 33, 16),
        ("mobilenet_v2", &[][..], 33, 16),
        ("preact_resnet20", &[][..], 8, 4),
        ("svhn_cnn", &[][..], 24, 16),
    ] {
        let counts = allocations(&recipe(arch, keys), side, divisor);
        let counts: Vec<_> = counts.into_iter().filter(|(.., count)| *count > 0).collect();
        assert_eq!(counts, [], "{arch} {keys:?}: path, threads, allocations");
    }
}
