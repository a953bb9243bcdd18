//! Every path against the one definition of the step, narrow and wide, with every kind of input.

use bitpact_core::rng::Key;
use bitpact_core::step::{IntegerStep, Ranges};

use super::StepU8;
use crate::isa::Isa;
use crate::layout::Layout;

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
    narrow: bool,
}

fn check(case: &Case, seed: u64) {
    let key = Key::new(seed);
    let signed = |label: &str, i: usize, bound: i32| -> i32 {
        let span = 2 * i64::from(bound) + 1;
        ((key.with(label).u64(i as u64) % span as u64) as i64 - i64::from(bound)) as i32
    };
    let Case { c, acc2, res, shift, acc, mul, lo, hi, narrow } = *case;
    let list = |label: &str, present: bool| (0..c).filter(|_| present).map(|i| signed(label, i, mul)).collect();
    let step = IntegerStep {
        shift,
        mul: list("mul", true),
        mul2: list("mul2", acc2),
        res_mul: list("res_mul", res),
        add: (0..c).map(|i| i64::from(signed("add", i, mul)) * i64::from(acc) / 2).collect(),
        lo,
        hi,
    };
    let (dense, bordered) = (Layout::new(3, 5, c, 0), Layout::new(3, 5, c, 2));
    let accumulators = |label: &str, present: bool| -> Vec<i32> {
        (0..if present { dense.len() } else { 0 }).map(|i| signed(label, i, acc)).collect()
    };
    let (a, a2) = (accumulators("acc", true), accumulators("acc2", acc2));
    let codes: Vec<u8> =
        (0..if res { bordered.len() } else { 0 }).map(|i| key.with("res").u64(i as u64) as u8).collect();
    let bound = (-i64::from(acc), i64::from(acc));
    let ranges = Ranges { acc: &vec![bound; c], acc2: &vec![bound; c], res: (0, 255) };
    for isa in Isa::available() {
        let out = Layout::new(3, 5, c, 1);
        let plan = StepU8::new(isa, &step, &ranges, dense, res.then_some(bordered), out).unwrap();
        assert_eq!(plan.is_narrow(), narrow);
        let mut y = vec![77; out.len()];
        plan.run(&a, &a2, &codes, &mut y);
        let mut interior = vec![false; out.len()];
        for (r, q, k) in (0..3).flat_map(|r| (0..5).flat_map(move |q| (0..out.cs).map(move |k| (r, q, k)))) {
            let at = dense.offset(r, q) + k;
            let expected = if k < c {
                let acc2 = if acc2 { i64::from(a2[at]) } else { 0 };
                let res = if res { i64::from(codes[bordered.offset(r, q) + k]) } else { 0 };
                step.apply(k, a[at].into(), acc2, res)
            } else {
                0
            };
            assert_eq!(i32::from(y[out.offset(r, q) + k]), expected, "{isa}, pixel {r} {q}, channel {k}, seed {seed}");
            interior[out.offset(r, q) + k] = true;
        }
        assert!(y.iter().zip(interior).all(|(&v, inside)| inside || v == 77), "{isa} wrote the border");
    }
}

#[test]
fn every_path_gives_the_codes_of_the_definition() {
    let mut seed = 0;
    for (acc2, res) in [(false, false), (false, true), (true, false), (true, true)] {
        for c in [1, 16, 21, 48] {
            for (shift, acc, mul, narrow) in
                [(0, 40, 3, true), (9, 3000, 40, true), (23, 800_000, 900, true), (31, 20_000, 20_000, true)]
            {
                for (lo, hi) in [(0, 15), (0, 255), (3, 7)] {
                    seed += 1;
                    check(&Case { c, acc2, res, shift, acc, mul, lo, hi, narrow }, seed);
                }
            }
            for (shift, acc, mul) in
                [(20, 3_000_000, 70_000), (36, 400_000_000, 1 << 30), (61, i32::MAX, i32::MAX / 2), (40, 1000, 50)]
            {
                let narrow = false;
                seed += 1;
                check(&Case { c, acc2, res, shift, acc, mul, lo: 0, hi: 255, narrow }, seed);
            }
        }
    }
}

#[test]
fn sums_on_either_side_of_32_bits_choose_their_width() {
    let layout = Layout::new(1, 1, 1, 0);
    for (add, narrow) in [((1i64 << 31) - 11, true), ((1 << 31) - 10, false)] {
        let step =
            IntegerStep { shift: 24, mul: vec![1], mul2: vec![], res_mul: vec![], add: vec![add], lo: 0, hi: 255 };
        let ranges = Ranges { acc: &[(0, 10)], acc2: &[], res: (0, 0) };
        for isa in Isa::available() {
            let plan = StepU8::new(isa, &step, &ranges, layout, None, layout).unwrap();
            assert_eq!(plan.is_narrow(), narrow);
            let (acc, mut y) = ([10; 16], [0; 16]);
            plan.run(&acc, &[], &[], &mut y);
            assert_eq!(i32::from(y[0]), step.apply(0, 10, 0, 0));
            assert_eq!(y[1..], [0; 15]);
        }
    }
}

#[test]
fn a_sum_that_can_leave_64_bits_is_refused() {
    let step =
        IntegerStep { shift: 0, mul: vec![2], mul2: vec![], res_mul: vec![], add: vec![i64::MAX - 19], lo: 0, hi: 1 };
    let layout = Layout::new(1, 1, 1, 0);
    let plan =
        |hi| StepU8::new(Isa::Scalar, &step, &Ranges { acc: &[(0, hi)], acc2: &[], res: (0, 0) }, layout, None, layout);
    assert!(plan(9).is_ok());
    assert!(plan(10).is_err());
}
