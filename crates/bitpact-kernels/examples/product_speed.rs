//! Speed of the integer products on one thread, every candidate: `product_speed [avx2|avx512|...] [FILTER]`.
//!
//! Prints 10^9 multiply-adds a second of the product proper, whatever the algorithm saves.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bitpact_core::rng::Key;
use bitpact_kernels::product::{ProductSpec, candidates};
use bitpact_kernels::{Aligned, ConvGeometry, Isa, Layout, WeightArena};

fn main() {
    let isa = std::env::args().nth(1).map_or(Isa::detect(), |name| name.parse().expect("an instruction set"));
    let filter = std::env::args().nth(2).unwrap_or_default();
    let shapes = [
        ("7x7 3->64 @224 /2", 7, 2, 3, 64, 224),
        ("3x3 16->16 @32", 3, 1, 16, 16, 32),
        ("3x3 32->32 @16", 3, 1, 32, 32, 16),
        ("3x3 64->64 @8", 3, 1, 64, 64, 8),
        ("3x3 64->64 @56", 3, 1, 64, 64, 56),
        ("3x3 128->128 @28", 3, 1, 128, 128, 28),
        ("3x3 256->256 @14", 3, 1, 256, 256, 14),
        ("3x3 512->512 @7", 3, 1, 512, 512, 7),
        ("3x3 128->256 @28 /2", 3, 2, 128, 256, 28),
        ("1x1 64->256 @56", 1, 1, 64, 256, 56),
        ("1x1 256->64 @56", 1, 1, 256, 64, 56),
        ("1x1 1024->256 @14", 1, 1, 1024, 256, 14),
        ("1x1 256->1024 @14", 1, 1, 256, 1024, 14),
        ("1x1 512->2048 @7", 1, 1, 512, 2048, 7),
        ("depthwise 3x3 96 @56", 3, 1, 96, 96, 56),
        ("depthwise 3x3 96 @112 /2", 3, 2, 96, 96, 112),
        ("depthwise 3x3 576 @14", 3, 1, 576, 576, 14),
    ];
    for (name, k, stride, cin, cout, size) in shapes.into_iter().filter(|s| s.0.contains(&filter)) {
        for (wbits, x_max) in [(8, 255), (4, 15), (3, 7), (2, 3), (1, 3)] {
            if cin == 3 && wbits < 8 {
                continue;
            }
            let groups = if name.starts_with("depthwise") { cin } else { 1 };
            let geometry = ConvGeometry { kh: k, kw: k, stride, pad: k / 2, cin, cout };
            let cs = cin;
            let x = Layout::with_cs(size, size, cin, cs, k / 2);
            let key = Key::new(1);
            let arena = WeightArena::new();
            // Normal weights; with 8 bits the largest of a channel is the largest code, as the quantizer of such layers
            // has it.
            let normal: Vec<f32> = (0..geometry.weights() / groups).map(|i| key.normal(i as u64)).collect();
            let code = |w: f32, largest: f32| {
                let levels = (1 << wbits) as f32;
                if wbits == 8 {
                    (w / largest * 127.0).round() as i16
                } else {
                    (((w / 2.0).clamp(-1.0, 1.0) + 1.0) / 2.0 * (levels - 1.0)).round() as i16 * 2 - levels as i16 + 1
                }
            };
            let codes: Vec<i16> = normal
                .chunks(geometry.weights() / groups / cout)
                .flat_map(|channel| {
                    let largest = channel.iter().fold(0.0f32, |largest, w| largest.max(w.abs()));
                    channel.iter().map(move |&w| code(w, largest))
                })
                .collect();
            let pixels: Vec<u8> = (0..x.len()).map(|i| (key.u64(i as u64) % (x_max + 1)) as u8).collect();
            let spec = ProductSpec { geometry, x, x_max: x_max as u8, groups, codes: &codes, arena: &arena };
            let (rows, cols) = spec.output();
            for kernel in candidates(isa, &spec) {
                let step = (kernel.strip_pixels() / cols).clamp(1, rows).next_multiple_of(kernel.row_step());
                let pixels_of = |rows: usize| rows * (cols + kernel.row_gap()) - kernel.row_gap();
                let mut acc = vec![0; pixels_of(step) * kernel.block()];
                let mut scratch = Aligned::zeroed(kernel.scratch_bytes(step));
                let speed = best(spec.macs() as f64, || {
                    for from in (0..rows).step_by(step) {
                        let strip = from..(from + step).min(rows);
                        kernel.prepare(black_box(&pixels), strip.clone(), &mut scratch);
                        for c in (0..cout).step_by(kernel.block()) {
                            let acc = &mut acc[..pixels_of(strip.len()) * kernel.block()];
                            kernel.accumulate(&pixels, &mut scratch, strip.clone(), c..c + kernel.block(), acc);
                            black_box(&acc);
                        }
                    }
                });
                println!("{name:24} W{wbits} x_max {x_max:3}  {speed:7.1}  {}", kernel.name());
            }
        }
    }
}

/// 10^9 operations a second, the best of several rounds.
fn best(ops: f64, mut run: impl FnMut()) -> f64 {
    run();
    let mut shortest = Duration::MAX;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(150) {
        let start = Instant::now();
        run();
        shortest = shortest.min(start.elapsed());
    }
    ops / shortest.as_secs_f64() / 1e9
}
