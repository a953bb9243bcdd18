//! Every kernel of every path against the definition, on random and on extreme codes.

use bitpact_core::rng::Key;

use super::scalar::ScalarProduct;
use super::{Product, ProductSpec, candidates};
use crate::machine::ConvGeometry;
use crate::machine::layout::Layout;
use crate::machine::weights::WeightArena;

/// Weights of a case.
#[derive(Clone, Copy, Debug)]
enum Weights {
    /// Uniform in lo..=hi.
    Uniform(i16, i16),
    /// Odd numbers of `bits` bits.
    Odd(u32),
    /// All the same.
    All(i16),
}

fn weights(kind: Weights, n: usize, key: Key) -> Vec<i16> {
    let draw = |i: usize, span: i32| (key.u64(i as u64) % span as u64) as i32;
    (0..n)
        .map(|i| match kind {
            Weights::Uniform(lo, hi) => (i32::from(lo) + draw(i, i32::from(hi) - i32::from(lo) + 1)) as i16,
            Weights::Odd(bits) => (2 * draw(i, 1 << bits) - (1 << bits) + 1) as i16,
            Weights::All(w) => w,
        })
        .collect()
}

fn check(geometry: ConvGeometry, size: (usize, usize), border: usize, x_max: u8, kind: Weights, seed: u64) {
    check_groups(geometry, 1, size, border, x_max, kind, seed);
}

fn check_groups(
    geometry: ConvGeometry,
    groups: usize,
    size: (usize, usize),
    border: usize,
    x_max: u8,
    kind: Weights,
    seed: u64,
) {
    let dense = [geometry.cin].into_iter().filter(|&c| c <= 8 && c * geometry.kw >= 4);
    for cs in dense.chain([if geometry.cin <= 4 { 4 } else { geometry.cin.next_multiple_of(16) }]) {
        check_layout(geometry, groups, size, (border, cs), x_max, kind, seed);
    }
}

fn check_layout(
    geometry: ConvGeometry,
    groups: usize,
    size: (usize, usize),
    (border, cs): (usize, usize),
    x_max: u8,
    kind: Weights,
    seed: u64,
) {
    let key = Key::new(seed);
    let (h, w) = size;
    let x_layout = Layout::with_cs(h, w, geometry.cin, cs, border);
    let codes = weights(kind, geometry.weights() / groups, key.with("w"));
    let is_extreme = matches!(kind, Weights::All(_));
    let code = |i: usize| if is_extreme { x_max } else { (key.u64(i as u64) % (u64::from(x_max) + 1)) as u8 };
    let x: Vec<u8> = (0..x_layout.len()).map(code).collect();
    let arena = WeightArena::new();
    let spec = ProductSpec { geometry, x: x_layout, x_max, groups, codes: &codes, arena: &arena };
    let (rows, cols) = spec.output();
    let run = |kernel: &dyn Product, rows: std::ops::Range<usize>, channels: std::ops::Range<usize>| {
        let mut scratch = crate::Aligned::zeroed(kernel.scratch_bytes(rows.len()));
        let (pitch, n) = (cols + kernel.row_gap(), channels.len());
        let mut acc = vec![i32::MIN; (rows.len() * pitch - kernel.row_gap()) * n];
        kernel.prepare(&x, rows.clone(), &mut scratch);
        kernel.accumulate(&x, &mut scratch, rows, channels, &mut acc);
        acc.chunks(pitch * n).flat_map(|row| row[..cols * n].to_vec()).collect::<Vec<_>>()
    };
    let reference = ScalarProduct::new(&spec);
    for isa in crate::testing::paths() {
        for kernel in candidates(isa, &spec) {
            let what = format!("{} on {geometry:?}, {groups} groups, {size:?}, x_max {x_max}, {kind:?}", kernel.name());
            let block = kernel.block();
            let all = 0..geometry.cout.next_multiple_of(block);
            let expected = run(&reference, 0..rows, all.clone());
            assert!(run(&*kernel, 0..rows, all.clone()) == expected, "{what}");
            let middle = (rows / 2 / kernel.row_step()) * kernel.row_step();
            let last = all.end - block..all.end;
            let expected = run(&reference, middle..rows, last.clone());
            assert!(run(&*kernel, middle..rows, last) == expected, "rows from {middle}, last block: {what}");
            let beyond = all.end..all.end + block;
            assert!(run(&*kernel, middle..rows, beyond).iter().all(|&sum| sum == 0), "beyond the last block: {what}");
        }
    }
}

fn conv(k: usize, stride: usize, cin: usize, cout: usize) -> ConvGeometry {
    ConvGeometry { kh: k, kw: k, stride, pad: k / 2, cin, cout }
}

#[test]
fn kernels_equal_the_definition_at_every_width() {
    for (bits, x_max) in
        [(1, 1), (1, 3), (1, 15), (2, 1), (2, 3), (2, 7), (2, 15), (3, 7), (4, 15), (5, 31), (6, 63), (7, 255)]
    {
        let seed = u64::from(bits) * 1000 + u64::from(x_max);
        check(conv(3, 1, 16, 16), (9, 7), 1, x_max, Weights::Odd(bits), seed);
        check(conv(3, 1, 32, 48), (6, 6), 1, x_max, Weights::Odd(bits), seed + 1);
        check(conv(1, 1, 64, 33), (5, 4), 0, x_max, Weights::Odd(bits), seed + 2);
        check(conv(3, 2, 20, 32), (8, 9), 1, x_max, Weights::Odd(bits), seed + 3);
    }
    check(conv(3, 1, 64, 64), (7, 7), 1, 255, Weights::Uniform(-127, 127), 1);
    check(conv(7, 2, 3, 64), (16, 16), 3, 255, Weights::Uniform(-127, 127), 2);
    check(conv(3, 1, 1, 16), (9, 7), 1, 255, Weights::Uniform(-127, 127), 6);
    check(conv(5, 2, 2, 24), (9, 11), 2, 15, Weights::Odd(4), 6);
    check(conv(1, 1, 40, 24), (3, 3), 2, 255, Weights::Uniform(-128, 127), 3);
    check(conv(3, 1, 16, 16), (9, 7), 1, 255, Weights::Odd(8), 4);
    check(conv(3, 1, 3, 16), (9, 7), 1, 255, Weights::Uniform(-32639, 32639), 5);
}

/// Borders that no tap reads, phases of strides, rows shorter than a register, blocks that are not full.
#[test]
fn wide_codes_on_enough_pixels() {
    let five = ConvGeometry { kh: 5, kw: 5, stride: 3, pad: 2, cin: 32, cout: 24 };
    let flat = ConvGeometry { kh: 1, kw: 3, stride: 2, pad: 1, cin: 16, cout: 16 };
    for kind in [Weights::Uniform(-127, 127), Weights::Uniform(-128, -100), Weights::Uniform(-20, 20)] {
        check(conv(1, 1, 48, 20), (6, 5), 1, 255, kind, 51);
        check(conv(1, 2, 48, 33), (9, 13), 0, 255, kind, 52);
        check(conv(3, 2, 40, 16), (13, 11), 2, 255, kind, 53);
        check(conv(3, 1, 16, 16), (3, 40), 1, 200, kind, 54);
        check(five, (17, 19), 2, 255, kind, 55);
        check(flat, (18, 21), 1, 255, kind, 56);
    }
}

/// Enough weights for kernels that keep them packed.
#[test]
fn many_weights_on_few_pixels() {
    for (kind, x_max) in [
        (Weights::Odd(1), 3),
        (Weights::Odd(2), 3),
        (Weights::Odd(4), 15),
        (Weights::Uniform(-7, 7), 15),
        (Weights::Uniform(-128, 127), 255),
    ] {
        check(conv(3, 1, 128, 128), (7, 7), 1, x_max, kind, 41);
        check(conv(1, 1, 512, 272), (5, 7), 0, x_max, kind, 42);
        check(conv(3, 2, 64, 240), (9, 9), 1, x_max, kind, 43);
    }
}

#[test]
fn sums_that_almost_overflow_are_exact() {
    for w in [-128, -127, 127, 64, -65, 15, -15, 0] {
        for x_max in [1, 15, 255] {
            check(conv(3, 1, 64, 16), (4, 5), 1, x_max, Weights::All(w), 7);
            check(conv(1, 1, 512, 32), (2, 3), 0, x_max, Weights::All(w), 8);
        }
    }
}

#[test]
fn odd_shapes_and_wide_borders() {
    for (cin, cout, size) in [(1, 1, (1, 1)), (5, 7, (3, 2)), (17, 15, (1, 13)), (48, 80, (5, 5))] {
        check(conv(3, 1, cin, cout), size, 2, 15, Weights::Uniform(-7, 7), 11);
        check(conv(1, 1, cin, cout), size, 0, 3, Weights::Uniform(-1, 1), 12);
    }
    let whole = ConvGeometry { kh: 4, kw: 4, stride: 1, pad: 0, cin: 16, cout: 10 };
    check(whole, (4, 4), 1, 15, Weights::Uniform(-7, 7), 13);
}

/// Passes of 9, 3 and 1 taps, sums that just fit 16 bits and sums that do not, and channel strides that are no block.
#[test]
fn depthwise_products() {
    for (c, k, stride) in [(16, 3, 1), (40, 3, 2), (33, 5, 1), (3, 3, 1), (17, 2, 3), (64, 1, 1)] {
        check_groups(conv(k, stride, c, c), c, (7, 9), k / 2, 15, Weights::Uniform(-15, 15), 31);
        check_groups(conv(k, stride, c, c), c, (7, 9), k / 2 + 1, 255, Weights::Uniform(-128, 127), 32);
        for w in [-128, 127, 14, 15, -14] {
            check_groups(conv(k, stride, c, c), c, (6, 5), k / 2, 255, Weights::All(w), 33);
        }
    }
    check_groups(conv(3, 1, 16, 16), 16, (5, 5), 1, 255, Weights::Uniform(-32639, 32639), 34);
}

#[test]
fn groups_see_their_own_inputs() {
    for (groups, cin, cout) in [(2, 32, 48), (4, 8, 16), (24, 24, 24), (3, 9, 6)] {
        check_groups(conv(3, 1, cin, cout), groups, (5, 6), 1, 15, Weights::Uniform(-7, 7), 21);
        check_groups(conv(3, 2, cin, cout), groups, (5, 6), 1, 255, Weights::Uniform(-127, 127), 22);
    }
}
