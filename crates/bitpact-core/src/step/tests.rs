//! Tests of the integer step: known steps, refusals, and its promise over random layers.

use super::*;
use proptest::prelude::*;

fn plain(scale: f64, offset: f64, lo: i32, hi: i32) -> RealStep {
    RealStep { scale: vec![scale], scale2: vec![], res_scale: vec![], offset: vec![offset], lo, hi, bounds: vec![] }
}

fn over(acc: &[(i64, i64)]) -> Ranges<'_> {
    Ranges { acc, acc2: &[], res: (0, 0) }
}

#[test]
fn a_power_of_two_needs_only_its_own_shift() {
    let derived = derive(&plain(0.125, 0.0, 0, 15), &over(&[(-500, 500)])).unwrap();
    let expected = IntegerStep {
        shift: 3,
        mul: vec![1],
        mul2: vec![],
        res_mul: vec![],
        add: vec![4],
        lo: 0,
        hi: 15,
        bounds: vec![],
    };
    assert_eq!(derived, Derived { step: expected, worst_error: 0.0 });
    let outs: Vec<i32> = [-4, 3, 4, 11, 12, 115, 116, 500].map(|acc| derived.step.apply(0, acc, 0, 0)).to_vec();
    assert_eq!(outs, [0, 0, 1, 1, 2, 14, 15, 15], "halves go up");
}

#[test]
fn the_shift_is_the_smallest() {
    let real = plain(1.0 / 300.0, 0.37, 0, 31);
    let ranges = [(-40_000, 40_000)];
    let derived = derive(&real, &over(&ranges)).unwrap();
    assert!(derived.worst_error <= TOLERANCE && derived.worst_error > 0.0);
    for shift in 0..derived.step.shift {
        let unit = f64::from(1u32 << shift);
        let mul = (unit / 300.0).round_ties_even();
        let (from, to) = ((-1.0 - 0.37) * 300.0, (32.0 - 0.37) * 300.0);
        let spread = (mul / unit - 1.0 / 300.0).abs() * (to - from) / 2.0;
        let add_error = (0.37 * unit - (0.37 * unit).round()).abs() / unit;
        assert!(spread > TOLERANCE || spread + add_error + 0.5 / unit > TOLERANCE, "shift {shift} would do");
    }
}

#[test]
fn five_bit_layers_fit_32_bit_arithmetic() {
    let codes = [31i16; 288];
    let range = accumulator_range(&codes, 0, 31);
    let derived = derive(&plain(31.0 / 40_000.0, 1.3, 0, 31), &over(&[range])).unwrap();
    assert!(derived.step.largest_sum(&over(&[range])).unwrap() < 1 << 31, "{derived:?}");
}

#[test]
fn clamped_outputs_do_not_ask_for_precision() {
    let acc = [(-1_000_000_000, 1_000_000_000)];
    let derived = derive(&plain(1.0 / 3.0, 0.0, 0, 15), &over(&acc)).unwrap();
    assert!(derived.step.shift <= 13, "{derived:?}");
    assert_eq!(derived.step.apply(0, 1_000_000_000, 0, 0), 15);
    assert_eq!(derived.step.apply(0, -1_000_000_000, 0, 0), 0);
    for (offset, expected) in [(1e6, 15), (-1e6, 0)] {
        let dead = derive(&plain(1.0 / 3.0, offset, 0, 15), &over(&[(-300_000, 300_000)])).unwrap().step;
        assert!(dead.shift <= 8, "{dead:?}");
        for acc in [-300_000, 0, 300_000] {
            assert_eq!(dead.apply(0, acc, 0, 0), expected);
        }
    }
}

#[test]
fn a_channel_without_weights_may_have_any_scale() {
    let real = RealStep { scale: vec![1.0 / 3.0, 1e9], offset: vec![0.0, 2.3], ..plain(0.0, 0.0, 0, 15) };
    let step = derive(&real, &over(&[(-100, 100), (0, 0)])).unwrap().step;
    assert_eq!((step.mul[1], step.apply(1, 0, 0, 0)), (0, 2));
}

#[test]
fn missing_inputs_are_not_read() {
    let derived = derive(&plain(0.5, 3.0, -9, 9), &over(&[(-10, 10)])).unwrap();
    assert_eq!(derived.step.apply(0, 4, i64::MAX, i64::MAX), 5);
}

#[test]
fn every_refusal_carries_its_numbers() {
    let good = RealStep {
        scale: vec![0.1, 0.2],
        scale2: vec![0.1, 0.2],
        res_scale: vec![1.0, 0.0],
        offset: vec![0.0, 0.5],
        lo: 0,
        hi: 15,
        bounds: vec![(0, 15), (2, 9)],
    };
    let acc = [(0, 100), (-5, 5)];
    let ranges = Ranges { acc: &acc, acc2: &acc, res: (0, 15) };
    let derived = derive(&good, &ranges).unwrap().step;
    assert!(derived.largest_sum(&ranges).is_ok());
    let refused = |change: &dyn Fn(&mut RealStep), ranges: &Ranges<'_>, expected: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let message = derive(&bad, ranges).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    };
    refused(&|r| r.offset.truncate(1), &ranges, "offset has 1 entries");
    refused(&|r| r.scale2.truncate(1), &ranges, "scale2 has 1 entries");
    refused(&|r| r.res_scale.truncate(1), &ranges, "res_scale has 1 entries");
    refused(&|_| (), &Ranges { acc: &acc[..1], ..ranges }, "acc range has 1 entries");
    refused(&|_| (), &Ranges { acc2: &[], ..ranges }, "acc2 range has 0 entries");
    refused(&|_| (), &Ranges { res: (3, 2), ..ranges }, "channel 0: empty range 3..=2 of res");
    refused(&|_| (), &Ranges { acc: &[(0, 1), (9, 8)], ..ranges }, "channel 1: empty range 9..=8 of acc");
    refused(&|r| r.lo = 16, &ranges, "empty range 16..=15 of output");
    refused(&|r| r.bounds.truncate(1), &ranges, "bounds has 1 entries");
    refused(&|r| r.bounds[1] = (9, 8), &ranges, "channel 1: empty range 9..=8 of output");
    refused(&|r| r.bounds[1] = (0, 16), &ranges, "channel 1: codes 0..=16 leave the layer's, 0..=15");
    refused(&|r| r.scale[1] = f64::NAN, &ranges, "channel 1: scale is NaN");
    refused(&|r| r.offset[1] = f64::INFINITY, &ranges, "channel 1: offset is inf");
    refused(&|r| r.offset[1] = 1e20, &ranges, "channel 1: the output reaches 1e20");
    refused(&|r| r.scale[1] = 3e9, &ranges, "channel 1: scale 3000000000 is ");
    let wide = |scale: f64, reach: i64| {
        derive(&plain(scale, 0.0, i32::MIN, i32::MAX), &over(&[(0, reach)])).unwrap_err().to_string()
    };
    assert!(
        wide(1.1e-10, 1 << 62).contains("channel 0: at shift 34 the sum can reach 9.4"),
        "{}",
        wide(1.1e-10, 1 << 62)
    );
    assert!(wide(1e-19, 1 << 62).contains("channel 0: at the largest shift, 61"), "{}", wide(1e-19, 1 << 62));
}

#[test]
fn a_step_from_a_file_is_proved_or_refused() {
    let good = IntegerStep {
        shift: 8,
        mul: vec![3, -7],
        mul2: vec![],
        res_mul: vec![2, 0],
        add: vec![128, -1],
        lo: 0,
        hi: 3,
        bounds: vec![],
    };
    let ranges = Ranges { acc: &[(-10, 4), (0, 100)], acc2: &[], res: (-2, 1) };
    assert_eq!(good.largest_sum(&ranges), Ok(701));
    let refused = |change: &dyn Fn(&mut IntegerStep), expected: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let message = bad.largest_sum(&ranges).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    };
    refused(&|s| s.shift = 63, "shift 63");
    refused(&|s| s.lo = 4, "empty range 4..=3 of output");
    refused(&|s| s.bounds = vec![(0, 3)], "bounds has 1 entries");
    refused(&|s| s.bounds = vec![(-1, 3), (0, 3)], "channel 0: codes -1..=3 leave the layer's, 0..=3");
    refused(&|s| s.add.truncate(1), "add has 1 entries");
    refused(&|s| s.mul2 = vec![1], "mul2 has 1 entries");
    refused(&|s| s.mul2 = vec![1, 1], "acc2 range has 0 entries");
    refused(&|s| s.res_mul = vec![1, 1, 1], "res_mul has 3 entries");
    refused(&|s| s.add[0] = i64::MIN, "channel 0: at shift 8");
}

#[test]
fn the_accumulator_range_of_a_known_channel() {
    assert_eq!(accumulator_range(&[3, -1, -1, 1], 0, 15), (-30, 60));
    assert_eq!(accumulator_range(&[3, -1], -2, 5), (-11, 17));
    assert_eq!(accumulator_range(&[], -2, 5), (0, 0));
}

prop_compose! {
    fn layer()(channels in 1usize..5, two in any::<bool>(), residual in any::<bool>())(
        scale in prop::collection::vec(multiplier(), channels),
        scale2 in prop::collection::vec(multiplier(), if two { channels } else { 0 }),
        res_scale in prop::collection::vec(prop_oneof![Just(0.0), Just(1.0), 0.01..4.0], if residual { channels } else { 0 }),
        offset in prop::collection::vec(-300.0..300.0, channels),
        acc in prop::collection::vec((0i64..300_000, 0i64..300_000).prop_map(|(a, b)| (-a, b)), channels),
        acc2 in prop::collection::vec((-9_000i64..9_000, 0i64..300_000).prop_map(|(a, b)| (a, a + b)), channels),
        res in (-20i64..20, 0i64..40_000).prop_map(|(a, b)| (a, a + b)),
        (lo, hi) in prop_oneof![Just((0, 1)), Just((0, 15)), Just((0, 255)), Just((-32768, 32767))],
        ends in prop::collection::vec((0.0..=1.0f64, 0.0..=1.0f64), channels),
        narrower in any::<bool>(),
    ) -> (RealStep, Vec<(i64, i64)>, Vec<(i64, i64)>, (i64, i64)) {
        let bounds = ends.iter().filter(|_| narrower).map(|&(a, b)| {
            let [a, b] = [a, b].map(|part| pick((lo.into(), hi.into()), part) as i32);
            (a.min(b), a.max(b))
        });
        (RealStep { scale, scale2, res_scale, offset, lo, hi, bounds: bounds.collect() }, acc, acc2, res)
    }
}

fn multiplier() -> impl Strategy<Value = f64> {
    (-14.0f64..1.0, any::<bool>()).prop_map(|(log, negative)| if negative { -log.exp2() } else { log.exp2() })
}

fn pick((lo, hi): (i64, i64), part: f64) -> i64 {
    (lo + ((hi - lo) as f64 * part).round() as i64).clamp(lo, hi)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, rng_seed: proptest::test_runner::RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_step_is_the_rounded_real_output_except_near_ties(
        (real, acc, acc2, res) in layer(),
        parts in prop::collection::vec((0.0..=1.0f64, 0.0..=1.0f64, 0.0..=1.0f64), 200),
    ) {
        let ranges = Ranges { acc: &acc, acc2: &acc2, res };
        let Derived { step, worst_error } = derive(&real, &ranges).unwrap();
        prop_assert!(worst_error <= TOLERANCE);
        prop_assert!(step.largest_sum(&ranges).is_ok());
        let at = |list: &[f64], c: usize| list.get(c).copied().unwrap_or(0.0);
        for (i, &(p, p2, pr)) in parts.iter().enumerate() {
            let c = i % real.scale.len();
            // Half of the samples aim at outputs that do not clamp.
            let (b, r) = (pick(acc2[c], p2), pick(res, pr));
            let rest = b as f64 * at(&real.scale2, c) + r as f64 * at(&real.res_scale, c) + real.offset[c];
            let (lo, hi) = step.bound(c);
            prop_assert_eq!((lo, hi), real.bounds.get(c).copied().unwrap_or((real.lo, real.hi)));
            let aimed = f64::from(lo) - 2.0 + p * f64::from(hi - lo + 4);
            let a = if i % 2 == 0 { pick(acc[c], p) } else { ((aimed - rest) / real.scale[c]) as i64 };
            let a = a.clamp(acc[c].0, acc[c].1);
            let f = a as f64 * real.scale[c] + rest;
            let code = |v: f64| (v + 0.5).floor().clamp(f64::from(lo), f64::from(hi)) as i32;
            let slack = worst_error + 1e-6;
            let (least, most) = (code(f - slack), code(f + slack));
            let got = step.apply(c, a, b, r);
            prop_assert!(least <= got && got <= most, "channel {c}: {f} gave {got}, step {step:?}");
        }
    }

    #[test]
    fn the_step_is_monotone_in_the_accumulator((real, acc, acc2, res) in layer(), p in 0.0..=1.0f64) {
        let ranges = Ranges { acc: &acc, acc2: &acc2, res };
        let step = derive(&real, &ranges).unwrap().step;
        for c in 0..real.scale.len() {
            let (b, r) = (pick(acc2[c], p), pick(res, p));
            let outs: Vec<i32> = (0..=100).map(|i| step.apply(c, pick(acc[c], f64::from(i) / 100.0), b, r)).collect();
            prop_assert!(if real.scale[c] > 0.0 { outs.is_sorted() } else { outs.iter().rev().is_sorted() }, "{outs:?}");
        }
    }

    #[test]
    fn the_accumulator_range_encloses_every_dot_product_and_is_attained(
        codes in prop::collection::vec(-255i16..=255, 0..80),
        (a_min, span) in (-128i64..=0, 0i64..=255),
        seed in any::<u64>(),
    ) {
        let (lo, hi) = accumulator_range(&codes, a_min, a_min + span);
        let dot = |a: &dyn Fn(usize) -> i64| codes.iter().enumerate().map(|(i, &q)| a(i) * i64::from(q)).sum::<i64>();
        let key = crate::rng::Key::new(seed);
        let random = dot(&|i| a_min + i64::from(key.below(i as u64, span as u32 + 1)));
        prop_assert!(lo <= random && random <= hi);
        prop_assert_eq!(lo, dot(&|i| if codes[i] > 0 { a_min } else { a_min + span }));
        prop_assert_eq!(hi, dot(&|i| if codes[i] < 0 { a_min } else { a_min + span }));
    }
}
