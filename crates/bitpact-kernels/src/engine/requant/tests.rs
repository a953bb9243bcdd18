//! Every path against the one definition of requantization, in each arithmetic, with every kind of input.

use bitpact_core::Requantization;
use bitpact_core::rng::Key;

use super::{BLOCK, RequantU8, Row};
use crate::machine::isa::Isa;

struct Case {
    c: usize,
    acc2: bool,
    res: bool,
    shift: u32,
    /// Bound on accumulators and multipliers.
    acc: i32,
    mul: i32,
    lo: i32,
    hi: i32,
    arithmetic: &'static str,
}

/// The codes of a dense row.
fn run(
    plan: &RequantU8,
    block: usize,
    pixels: usize,
    (acc, acc2, stride): (&[i32], &[i32], usize),
    res: &[u8],
) -> Vec<u8> {
    let mut y = vec![77; pixels * BLOCK];
    let y_stride = BLOCK;
    let row = Row { pixels, acc, acc2, stride, res, res_stride: BLOCK, y: y.as_mut_ptr(), y_stride };
    // SAFETY: y holds 16 codes for each pixel.
    unsafe { plan.run(block, row) };
    y
}

/// Plain Rust has no use for float32.
fn on(isa: Isa, arithmetic: &'static str) -> &'static str {
    if arithmetic == "f32" && isa == Isa::Scalar { "f64" } else { arithmetic }
}

fn check(case: &Case, seed: u64) {
    let key = Key::new(seed);
    let signed = |label: &str, i: usize, bound: i32| -> i32 {
        let span = 2 * i64::from(bound) + 1;
        ((key.with(label).u64(i as u64) % span as u64) as i64 - i64::from(bound)) as i32
    };
    let Case { c, acc2, res, shift, acc, mul, lo, hi, arithmetic } = *case;
    let present = [("mul", true), ("mul2", acc2), ("res_mul", res)].into_iter().filter(|(_, present)| *present);
    let requant = Requantization {
        shift,
        mul: present.map(|(label, _)| (0..c).map(|i| signed(label, i, mul)).collect()).collect(),
        add: (0..c).map(|i| i64::from(signed("add", i, mul)) * i64::from(acc) / 2).collect(),
        lo,
        hi,
        bounds: (0..if seed.is_multiple_of(2) { c } else { 0 })
            .map(|i| {
                let [a, b] = ["from", "to"].map(|end| lo + key.with(end).below(i as u64, (hi - lo + 1) as u32) as i32);
                (a.min(b), a.max(b))
            })
            .collect(),
    };
    let pixels = 15;
    let (blocks, stride) = (c.div_ceil(BLOCK), 2 * BLOCK);
    let sums = |label: &str, b: usize, present: bool| -> Vec<i32> {
        (0..if present { pixels * stride } else { 0 }).map(|i| signed(label, b << 32 | i, acc)).collect()
    };
    let bound = (-i64::from(acc), i64::from(acc));
    let mut ranges = vec![vec![bound; c]; 1 + usize::from(acc2)];
    ranges.extend(res.then(|| vec![(0, 255); c]));
    for isa in crate::testing::paths() {
        let plan = RequantU8::new(isa, &requant, &ranges, acc2).unwrap();
        assert_eq!(plan.arithmetic(), on(isa, arithmetic));
        for b in 0..blocks {
            let (a, a2) = (sums("acc", b, true), sums("acc2", b, acc2));
            let codes: Vec<u8> =
                (0..if res { pixels * BLOCK } else { 0 }).map(|i| key.with("res").u64(i as u64) as u8).collect();
            let y = run(&plan, b, pixels, (&a, &a2, stride), &codes);
            for (i, &code) in y.iter().enumerate() {
                let (pixel, k) = (i / BLOCK, i % BLOCK);
                let channel = b * BLOCK + k;
                let expected = if channel < c {
                    let second = acc2.then(|| i64::from(a2[pixel * stride + k]));
                    let shortcut = res.then(|| i64::from(codes[i]));
                    let values = [Some(i64::from(a[pixel * stride + k])), second, shortcut];
                    requant.apply(channel, values.into_iter().flatten())
                } else {
                    0
                };
                assert_eq!(i32::from(code), expected, "{isa}, pixel {pixel}, channel {channel}, seed {seed}");
            }
        }
    }
}

#[test]
fn every_path_gives_the_codes_of_the_definition() {
    let mut seed = 0;
    for (acc2, res) in [(false, false), (false, true), (true, false), (true, true)] {
        for c in [1, 16, 21, 48] {
            for (shift, acc, mul) in [(0, 40, 3), (9, 3000, 40), (23, 800_000, 900), (31, 20_000, 20_000)] {
                let arithmetic = "i32";
                for (lo, hi) in [(0, 15), (0, 255), (3, 7)] {
                    seed += 1;
                    check(&Case { c, acc2, res, shift, acc, mul, lo, hi, arithmetic }, seed);
                }
            }
            for (shift, acc, mul, arithmetic) in [
                (20, 3_000_000, 70_000, "f64"),
                (23, 100_000_000, 20_000_000, "f64"),
                (16, 100_000_000, 20_000_000, "i64"),
                (36, 400_000_000, 1 << 30, "i64"),
                (61, i32::MAX, i32::MAX / 2, "i64"),
                (40, 1000, 50, "f32"),
                (25, 1_000_000, 30_001, "f32"),
                (29, 20_000_000, 3_000, "f32"),
            ] {
                seed += 1;
                check(&Case { c, acc2, res, shift, acc, mul, lo: 0, hi: 255, arithmetic }, seed);
            }
        }
    }
}

#[test]
fn the_largest_sum_chooses_the_arithmetic() {
    let cases = [((1i64 << 31) - 11, "i32"), ((1 << 31) - 10, "f32"), ((1 << 53) - 11, "f64"), ((1 << 53) - 10, "i64")];
    for (add, arithmetic) in cases {
        let requant = Requantization { shift: 24, mul: vec![vec![1]], add: vec![add], lo: 0, hi: 255, bounds: vec![] };
        let ranges = [vec![(0, 10)]];
        for isa in crate::testing::paths() {
            let plan = RequantU8::new(isa, &requant, &ranges, false).unwrap();
            assert_eq!(plan.arithmetic(), on(isa, arithmetic));
            let y = run(&plan, 0, 1, (&[10; 16], &[], 16), &[]);
            assert_eq!(i32::from(y[0]), requant.apply(0, [10]));
            assert_eq!(y[1..], [0; 15]);
        }
    }
}

#[test]
fn sums_around_every_threshold_round_down() {
    // The range that the accumulators could have chooses the arithmetic.
    for (largest, arithmetic) in [(5000, "i32"), (1 << 33, "f32"), (1 << 34, "f64"), (1 << 60, "i64")] {
        let requant = Requantization { shift: 4, mul: vec![vec![1]], add: vec![8], lo: 0, hi: 255, bounds: vec![] };
        let ranges = [vec![(-100, largest)]];
        for isa in crate::testing::paths() {
            let plan = RequantU8::new(isa, &requant, &ranges, false).unwrap();
            assert_eq!(plan.arithmetic(), on(isa, arithmetic));
            for sum in -40..4200 {
                let y = run(&plan, 0, 1, (&[sum; 16], &[], 16), &[]);
                assert_eq!(i32::from(y[0]), requant.apply(0, [sum.into()]), "{isa}, {arithmetic}, sum {sum}");
            }
        }
    }
}

/// Accumulators around every threshold of every channel, with each residual code: where float32 says nothing, and right
/// beside.
#[test]
fn float32_is_never_taken_at_its_word_near_a_threshold() {
    let key = Key::new(9);
    let (c, shift) = (BLOCK, 26);
    let list = |label: &str, from: i32, span: u32| -> Vec<i32> {
        (0..c).map(|k| from + key.with(label).below(k as u64, span) as i32).collect()
    };
    let requant = Requantization {
        shift,
        mul: vec![list("mul", 20_000, 100_000), list("res_mul", 1 << 24, 1 << 26)],
        add: list("add", -(1 << 30), 1 << 31).into_iter().map(|add| 5 * i64::from(add) + 1).collect(),
        lo: 0,
        hi: 255,
        bounds: vec![],
    };
    let ranges = [vec![(-8_000_000, 8_000_000); BLOCK], vec![(0, 255); BLOCK]];
    for isa in crate::testing::paths() {
        let plan = RequantU8::new(isa, &requant, &ranges, false).unwrap();
        assert_eq!(plan.arithmetic(), on(isa, "f32"));
        for res in [0_u8, 1, 100, 255] {
            // The smallest accumulator that gives a code of at least `code`, and its neighbours.
            let near: Vec<i32> = (0..257_i64)
                .flat_map(|code| (-2..3).map(move |beside| (code, beside)))
                .flat_map(|(code, beside)| {
                    let of = |k: usize| {
                        let rest = (code << shift) - requant.add[k] - i64::from(requant.mul[1][k]) * i64::from(res);
                        let mul = i64::from(requant.mul[0][k]);
                        let least = rest.div_euclid(mul) + i64::from(rest % mul != 0);
                        (least + beside).clamp(-8_000_000, 8_000_000) as i32
                    };
                    (0..BLOCK).map(of).collect::<Vec<_>>()
                })
                .collect();
            let pixels = near.len() / BLOCK;
            let y = run(&plan, 0, pixels, (&near, &[], BLOCK), &vec![res; near.len()]);
            for (i, (&acc, code)) in near.iter().zip(y).enumerate() {
                let expected = requant.apply(i % BLOCK, [acc.into(), res.into()]);
                assert_eq!(i32::from(code), expected, "{isa}, channel {}, accumulator {acc}", i % BLOCK);
            }
        }
    }
}

#[test]
fn a_sum_that_can_leave_64_bits_is_refused() {
    let requant =
        Requantization { shift: 0, mul: vec![vec![2]], add: vec![i64::MAX - 19], lo: 0, hi: 1, bounds: vec![] };
    let plan = |hi| RequantU8::new(Isa::Scalar, &requant, &[vec![(0, hi)]], false);
    assert!(plan(9).is_ok());
    assert!(plan(10).is_err());
}
