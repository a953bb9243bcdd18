//! What the forward product of training would take on the engine's kernels: microseconds to pack the weights of a
//! layer, and to multiply one image, on one thread.
//!
//! `cargo run --release -p bitpact-kernels --example pack_speed [PATH]`

use std::hint::black_box;
use std::time::{Duration, Instant};

use bitpact_core::rng::Key;
use bitpact_kernels::product::{ProductSpec, candidates};
use bitpact_kernels::{Aligned, CodeLimits, ConvGeometry, ConvU8S8, Isa, Layout, WeightArena};

/// Images of a batch, which share the packed weights.
const BATCH: f64 = 128.0;

fn main() {
    let isa = std::env::args().nth(1).map_or(Isa::detect(), |name| name.parse().expect("a path"));
    let key = Key::new(1);
    println!("{isa}, one thread: us to pack, us an image, us a batch of {BATCH}");
    for (name, k, stride, cin, cout, size) in [
        ("3x3 16 @32", 3, 1, 16, 16, 32),
        ("3x3 32 @16", 3, 1, 32, 32, 16),
        ("3x3 64 @8", 3, 1, 64, 64, 8),
        ("1x1 256->64 @8", 1, 1, 256, 64, 8),
    ] {
        for (bits, x_max, w_max) in [(8, 255, 127), (4, 15, 7), (2, 3, 1)] {
            let geometry = ConvGeometry { kh: k, kw: k, stride, pad: k / 2, cin, cout };
            let x = Layout::new(size, size, cin, k / 2);
            let (h, w) = geometry.output(size, size);
            let y = Layout::new(h, w, cout, 0);
            let draw = |i: usize| (key.u64(i as u64) % (2 * w_max + 1)) as i16 - w_max as i16;
            let codes: Vec<i16> = (0..geometry.weights()).map(draw).collect();
            let pixels: Vec<u8> = (0..x.len()).map(|i| (key.u64(i as u64) % (x_max + 1)) as u8).collect();
            let line = |what: &str, pack: f64, run: f64| {
                println!("{name:15} W{bits}A{bits} {what:36} {pack:8.1} {run:7.2} {:8.0}", pack + BATCH * run);
            };

            let limits = CodeLimits { x: x_max as u8, w: w_max as u8 };
            let conv = ConvU8S8::new(isa, geometry, x, y, limits);
            let mut tap_major = vec![0; codes.len()];
            geometry.tap_major(&codes, &mut tap_major, |q| q as i8);
            let (mut packed, init, mut out) = (vec![0; conv.packed_len()], vec![0; y.cs], vec![0; y.len()]);
            let pack = best(|| conv.pack(black_box(&tap_major), &mut packed));
            line("training", pack, best(|| conv.run(black_box(&pixels), &packed, &init, &mut out)));

            for rank in 0..4 {
                let arena = WeightArena::new();
                let spec = ProductSpec { geometry, x, x_max: x_max as u8, groups: 1, codes: &codes, arena: &arena };
                // Its memory keeps the arena's alive, so that packing does not take it from the system.
                let Some(kernel) = candidates(isa, &spec).nth(rank) else { break };
                let until = |rank: usize| best(|| drop(black_box(candidates(isa, &spec).nth(rank))));
                let pack = until(rank) - if rank > 0 { until(rank - 1) } else { 0.0 };
                let step = (kernel.strip_pixels() / w).clamp(1, h).next_multiple_of(kernel.row_step());
                let pixels_of = |rows: usize| rows * (w + kernel.row_gap()) - kernel.row_gap();
                let mut acc = vec![0; pixels_of(step) * kernel.block()];
                let mut scratch = Aligned::zeroed(kernel.scratch_bytes(step));
                let run = best(|| {
                    for from in (0..h).step_by(step) {
                        let strip = from..(from + step).min(h);
                        kernel.prepare(black_box(&pixels), strip.clone(), &mut scratch);
                        for c in (0..cout).step_by(kernel.block()) {
                            let acc = &mut acc[..pixels_of(strip.len()) * kernel.block()];
                            kernel.accumulate(&pixels, &mut scratch, strip.clone(), c..c + kernel.block(), acc);
                            black_box(&acc);
                        }
                    }
                });
                line(&kernel.name(), pack.max(0.0), run);
            }
        }
    }
}

/// Microseconds, the best of several rounds.
fn best(mut run: impl FnMut()) -> f64 {
    run();
    let mut shortest = Duration::MAX;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(60) {
        let start = Instant::now();
        run();
        shortest = shortest.min(start.elapsed());
    }
    shortest.as_secs_f64() * 1e6
}
