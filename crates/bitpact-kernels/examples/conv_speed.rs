//! Speed of the convolution kernels at ResNet-20's shapes, in 10^9 operations a second on one thread.
//!
//! What to expect of a core at 3.7 GHz that starts one 512-bit multiply-add a cycle: a peak of 118 in f32 (32
//! operations an instruction) and 474 in u8 x s8 (128). A quarter may go to what surrounds the products where a pixel
//! needs few of them: f32 should reach 90 or more, u8 x s8 280 or more at 16 channels and 400 beyond.
//!
//! `cargo run --release -p bitpact-kernels --example conv_speed [scalar|avx2|avx512]`
//!
//! The last columns have codes and weights of 4 bits, so that paths with sums of 16 bits use them; `u8 x s8` has codes
//! of 8 bits.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bitpact_kernels::conv::rounded::{Format, RoundedInputGrad, RoundedScratch, RoundedWeightGrad};
use bitpact_kernels::{
    Aligned, CodeLimits, ConvF32, ConvGeometry, ConvInputGradF32, ConvU8S8, ConvWeightGradF32, Isa, Layout,
};

struct Case {
    name: &'static str,
    geometry: ConvGeometry,
    size: usize,
}

fn main() {
    let filter = std::env::args().nth(1);
    let shape = |name, k: usize, stride, cin, cout, size| Case {
        name,
        geometry: ConvGeometry { kh: k, kw: k, stride, pad: k / 2, cin, cout },
        size,
    };
    let cases = [
        shape("3x3 3->16 @32", 3, 1, 3, 16, 32),
        shape("3x3 16->16 @32", 3, 1, 16, 16, 32),
        shape("3x3 16->32 @32 /2", 3, 2, 16, 32, 32),
        shape("1x1 16->32 @32 /2", 1, 2, 16, 32, 32),
        shape("3x3 32->32 @16", 3, 1, 32, 32, 16),
        shape("3x3 32->64 @16 /2", 3, 2, 32, 64, 16),
        shape("3x3 64->64 @8", 3, 1, 64, 64, 8),
        shape("3x3 256->256 @14", 3, 1, 256, 256, 14),
        shape("3x3 512->512 @7", 3, 1, 512, 512, 7),
    ];
    for isa in Isa::available().into_iter().filter(|isa| filter.as_ref().is_none_or(|name| isa.to_string() == *name)) {
        let columns = ["forward", "dx", "dw", "u8 x s8", "u4 x s4", "dx bf16", "dw bf16", "dx s8", "dw s8"];
        let line = |words: &[String]| words.iter().map(|w| format!(" {w:>9}")).collect::<String>();
        println!("{:20}{}   Gop/s on {isa}", "", line(&columns.map(str::to_owned)));
        for case in &cases {
            let mut gops = speeds(isa, case).to_vec();
            for format in [Format::Bf16, Format::S8] {
                gops.extend(if format.is_available(isa) { rounded_speeds(isa, format, case) } else { [0.0; 2] });
            }
            let words: Vec<String> = gops.iter().map(|g| format!("{g:.1}")).collect();
            println!("{:20}{}", case.name, line(&words));
        }
    }
}

/// Cycles through several images, as a step over a batch does, and takes the best of several rounds.
fn speeds(isa: Isa, case: &Case) -> [f64; 5] {
    const IMAGES: usize = 16;
    let g = case.geometry;
    let (h, w) = g.output(case.size, case.size);
    let x = Layout {
        cs: if g.cin <= 4 { 4 } else { g.cin.next_multiple_of(16) },
        ..Layout::new(case.size, case.size, g.cin, g.pad)
    };
    let y = Layout::new(h, w, g.cout, ConvInputGradF32::border(g));
    let x_wide = Layout::new(case.size, case.size, g.cin, g.pad);
    let ops = 2.0 * (g.weights() * h * w * IMAGES) as f64;

    let reals =
        |n: usize| Aligned::from_slice(&(0..n).map(|i| (i * 7919 % 255) as f32 / 255.0 - 0.5).collect::<Vec<_>>());
    let xs: Vec<_> = (0..IMAGES).map(|_| reals(x.len())).collect();
    let mut ys: Vec<_> = (0..IMAGES).map(|_| reals(y.len())).collect();
    let mut dxs: Vec<_> = (0..IMAGES).map(|_| reals(x_wide.len())).collect();
    let weights = reals(g.weights());

    let forward = ConvF32::new(isa, g, x, y);
    let mut packed = Aligned::zeroed(forward.packed_len());
    forward.pack(&weights, &mut packed);
    let forward = best(ops, || (0..IMAGES).for_each(|i| forward.run(black_box(&xs[i]), &packed, &mut ys[i])));

    let grad = ConvInputGradF32::new(isa, g, y, x_wide);
    let mut packed = Aligned::zeroed(grad.packed_len());
    grad.pack(&weights, &mut packed);
    let input_grad = best(ops, || (0..IMAGES).for_each(|i| grad.run(black_box(&ys[i]), &packed, &mut dxs[i], false)));

    let grad = ConvWeightGradF32::new(isa, g, x, y);
    let mut partial = Aligned::zeroed(grad.partial_len());
    let weight_grad = best(ops, || (0..IMAGES).for_each(|i| grad.run(black_box(&xs[i]), &ys[i], &mut partial)));

    let mut sums: Vec<_> = (0..IMAGES).map(|_| Aligned::<i32>::zeroed(y.len())).collect();
    let init = vec![0; y.cs];
    let mut of_codes = |limits: CodeLimits| {
        let codes: Vec<u8> = (0..x.len()).map(|i| (i * 31) as u8 & limits.x).collect();
        let codes: Vec<_> = (0..IMAGES).map(|_| Aligned::from_slice(&codes)).collect();
        let plan = ConvU8S8::new(isa, g, x, y, limits);
        let mut packed = Aligned::zeroed(plan.packed_len());
        let limit = i16::from(limits.w);
        plan.pack(&(0..g.weights()).map(|i| ((i * 17) as i16 % limit) as i8).collect::<Vec<_>>(), &mut packed);
        best(ops, || (0..IMAGES).for_each(|i| plan.run(black_box(&codes[i]), &packed, &init, &mut sums[i])))
    };
    let (int8, int4) = (of_codes(CodeLimits::NONE), of_codes(CodeLimits { x: 15, w: 15 }));
    [forward, input_grad, weight_grad, int8, int4]
}

/// The backward products over rounded gradients; that of the weights with the rearranging it needs.
fn rounded_speeds(isa: Isa, format: Format, case: &Case) -> [f64; 2] {
    const IMAGES: usize = 16;
    let g = case.geometry;
    let (h, w) = g.output(case.size, case.size);
    let x = Layout {
        cs: if g.cin <= 4 { 4 } else { g.cin.next_multiple_of(16) },
        ..Layout::new(case.size, case.size, g.cin, g.pad)
    };
    let dz = Layout::new(h, w, g.cout, RoundedInputGrad::border(g).max(RoundedWeightGrad::border(g)));
    let dx = Layout::new(case.size, case.size, g.cin, 0);
    let ops = 2.0 * (g.weights() * h * w * IMAGES) as f64;
    let bytes = |n: usize, zero: u8| (0..IMAGES).map(|_| Aligned::from_slice(&vec![zero; n])).collect::<Vec<_>>();
    let (codes, gradients) = (bytes(x.len(), 3), bytes(dz.len() * format.bytes(), format.zero()));
    let mut scratch = RoundedScratch::default();

    let plan = RoundedInputGrad::new(isa, format, g, dz, dx, 15);
    plan.reserve(&mut scratch);
    let mut packed = Aligned::zeroed(plan.packed_len());
    plan.pack(&vec![1; g.weights()], &mut packed);
    let mut out = vec![Aligned::zeroed(dx.len()); IMAGES];
    let input = best(ops, || {
        for (dz, out) in gradients.iter().zip(&mut out) {
            plan.run(isa, black_box(dz), &packed, 1.0, out, false, &mut scratch);
        }
    });

    let plan = RoundedWeightGrad::new(isa, format, g, x, 15, dz);
    plan.reserve(&mut scratch);
    let mut partial = Aligned::zeroed(plan.partial_len());
    let weights = best(ops, || {
        for (codes, gradients) in codes.chunks(plan.group()).zip(gradients.chunks(plan.group())) {
            for (slot, (x, dz)) in codes.iter().zip(gradients).enumerate() {
                plan.rearrange(slot, black_box(x), &[0; 16], dz, &mut scratch);
            }
            plan.run(codes.len(), &[0; 16], &mut partial, &mut scratch);
        }
    });
    [input, weights]
}

fn best(ops: f64, mut round: impl FnMut()) -> f64 {
    round();
    let begin = Instant::now();
    let mut best = Duration::MAX;
    for n in 0.. {
        let begin_round = Instant::now();
        round();
        best = best.min(begin_round.elapsed());
        if n >= 5 && begin.elapsed() > Duration::from_millis(100) {
            break;
        }
    }
    ops / best.as_secs_f64() / 1e9
}
