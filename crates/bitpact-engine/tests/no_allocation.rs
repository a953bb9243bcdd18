//! After its first images the executor allocates nothing: counted by the allocator of this program, whose only test
//! this is.

mod common;

use std::alloc::System;

use bitpact_engine::{ExecOptions, Executor};
use bitpact_graph::Shape;
use bitpact_kernels::testing;
use common::{pixels, random_integer};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn batches_after_the_first_allocate_nothing() {
    // The counter counts.
    let region = Region::new(ALLOCATOR);
    drop(std::hint::black_box(vec![1u8; 100]));
    assert!(region.change().allocations > 0);

    for (arch, side, differences) in [
        ("cnn", 12, r#"{"bits":"W2A2"}"#),
        ("resnet20", 16, r#"{"bits":"W4A4"}"#),
        ("resnet20-b", 16, r#"{"bits":"W8A8","first_last":"same"}"#),
        ("preact_resnet20", 16, r#"{"bits":"W4A4"}"#),
        ("mobilenet_v2", 33, r#"{"bits":"W4A4"}"#),
    ] {
        let model = random_integer(arch, Shape::new(side, side, 3), 7, differences, 3);
        for isa in testing::paths() {
            // Two threads share one image; which of them takes which of several images is open, and with it who needs
            // memory when.
            for (threads, batch) in [(1, 1), (1, 3), (2, 1)] {
                let mut executor = Executor::new(&model, ExecOptions { isa, threads }).unwrap();
                let pixels = pixels(&model, batch, 7);
                let mut logits = vec![0; batch * executor.output_len()];
                executor.run(&pixels, &mut logits);
                let region = Region::new(ALLOCATOR);
                for _ in 0..3 {
                    executor.run(&pixels, &mut logits);
                }
                let change = region.change();
                let count = change.allocations + change.reallocations;
                assert_eq!(count, 0, "allocations of {arch} on {isa}, {threads} threads, batches of {batch}");
            }
        }
    }
}
