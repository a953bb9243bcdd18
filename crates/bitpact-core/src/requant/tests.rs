//! Tests of requantization: known ones, refusals, and its promise over random layers.

use super::*;
use proptest::prelude::*;

fn plain(scale: f64, offset: f64, lo: i32, hi: i32) -> RealRequantization {
    RealRequantization { scale: vec![vec![scale]], offset: vec![offset], lo, hi, bounds: vec![] }
}

fn over(range: &[(i64, i64)]) -> [Vec<(i64, i64)>; 1] {
    [range.to_vec()]
}

#[test]
fn a_power_of_two_needs_only_its_own_shift() {
    let derived = derive(&plain(0.125, 0.0, 0, 15), &over(&[(-500, 500)])).unwrap();
    let expected = Requantization { shift: 3, mul: vec![vec![1]], add: vec![4], lo: 0, hi: 15, bounds: vec![] };
    assert_eq!(derived, Derived { requant: expected, worst_error: 0.0 });
    let outs: Vec<i32> = [-4, 3, 4, 11, 12, 115, 116, 500].map(|acc| derived.requant.apply(0, [acc])).to_vec();
    assert_eq!(outs, [0, 0, 1, 1, 2, 14, 15, 15], "halves go up");
}

#[test]
fn the_shift_is_the_smallest() {
    let real = plain(1.0 / 300.0, 0.37, 0, 31);
    let ranges = [(-40_000, 40_000)];
    let derived = derive(&real, &over(&ranges)).unwrap();
    assert!(derived.worst_error <= TOLERANCE && derived.worst_error > 0.0);
    for shift in 0..derived.requant.shift {
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
    assert!(derived.requant.largest_sum(&over(&[range])).unwrap() < 1 << 31, "{derived:?}");
}

#[test]
fn clamped_outputs_do_not_ask_for_precision() {
    let acc = [(-1_000_000_000, 1_000_000_000)];
    let derived = derive(&plain(1.0 / 3.0, 0.0, 0, 15), &over(&acc)).unwrap();
    assert!(derived.requant.shift <= 13, "{derived:?}");
    assert_eq!(derived.requant.apply(0, [1_000_000_000]), 15);
    assert_eq!(derived.requant.apply(0, [-1_000_000_000]), 0);
    for (offset, expected) in [(1e6, 15), (-1e6, 0)] {
        let dead = derive(&plain(1.0 / 3.0, offset, 0, 15), &over(&[(-300_000, 300_000)])).unwrap().requant;
        assert!(dead.shift <= 8, "{dead:?}");
        for acc in [-300_000, 0, 300_000] {
            assert_eq!(dead.apply(0, [acc]), expected);
        }
    }
}

#[test]
fn a_channel_without_weights_may_have_any_scale() {
    let real =
        RealRequantization { scale: vec![vec![1.0 / 3.0, 1e9]], offset: vec![0.0, 2.3], ..plain(0.0, 0.0, 0, 15) };
    let step = derive(&real, &over(&[(-100, 100), (0, 0)])).unwrap().requant;
    assert_eq!((step.mul[0][1], step.apply(1, [0])), (0, 2));
}

#[test]
fn every_refusal_carries_its_numbers() {
    let good = RealRequantization {
        scale: vec![vec![0.1, 0.2], vec![0.1, 0.2], vec![1.0, 0.0]],
        offset: vec![0.0, 0.5],
        lo: 0,
        hi: 15,
        bounds: vec![(0, 15), (2, 9)],
    };
    let acc = vec![(0, 100), (-5, 5)];
    let ranges = [acc.clone(), acc.clone(), vec![(0, 15); 2]];
    let derived = derive(&good, &ranges).unwrap().requant;
    assert!(derived.largest_sum(&ranges).is_ok());
    let refused = |change: &dyn Fn(&mut RealRequantization), ranges: &Ranges, expected: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let message = derive(&bad, ranges).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    };
    let with = |term: usize, range: Vec<(i64, i64)>| {
        let mut ranges = ranges.clone();
        ranges[term] = range;
        ranges
    };
    refused(&|r| r.offset.truncate(1), &ranges, "the list of scales of term 0 has 2 entries");
    refused(&|r| r.scale[1].truncate(1), &ranges, "the list of scales of term 1 has 1 entries");
    refused(&|r| r.scale.truncate(2), &ranges, "ranges of 3 terms, expected 2");
    refused(&|_| (), &with(0, acc[..1].to_vec()), "the list of ranges of term 0 has 1 entries");
    refused(&|_| (), &ranges[..2], "ranges of 2 terms, expected 3");
    refused(&|_| (), &with(2, vec![(3, 2); 2]), "channel 0: empty range 3..=2 of term 2");
    refused(&|_| (), &with(0, vec![(0, 1), (9, 8)]), "channel 1: empty range 9..=8 of term 0");
    refused(&|r| r.lo = 16, &ranges, "empty range 16..=15 of output");
    refused(&|r| r.bounds.truncate(1), &ranges, "bounds has 1 entries");
    refused(&|r| r.bounds[1] = (9, 8), &ranges, "channel 1: empty range 9..=8 of output");
    refused(&|r| r.bounds[1] = (0, 16), &ranges, "channel 1: codes 0..=16 leave the layer's, 0..=15");
    refused(&|r| r.scale[0][1] = f64::NAN, &ranges, "channel 1: the scale of term 0 is NaN");
    refused(&|r| r.offset[1] = f64::INFINITY, &ranges, "channel 1: the offset is inf");
    refused(&|r| r.offset[1] = 1e20, &ranges, "channel 1: the output reaches 1e20");
    refused(&|r| r.scale[1][1] = 3e9, &ranges, "channel 1: the scale of term 1, 3000000000 is ");
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
fn a_requantization_from_a_file_is_proved_or_refused() {
    let good = Requantization {
        shift: 8,
        mul: vec![vec![3, -7], vec![2, 0]],
        add: vec![128, -1],
        lo: 0,
        hi: 3,
        bounds: vec![],
    };
    let ranges = [vec![(-10, 4), (0, 100)], vec![(-2, 1); 2]];
    assert_eq!(good.largest_sum(&ranges), Ok(701));
    assert_eq!((good.sum_range(0, &ranges), good.sum_range(1, &ranges)), ((94, 142), (-701, -1)));
    let refused = |change: &dyn Fn(&mut Requantization), expected: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let message = bad.largest_sum(&ranges).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    };
    refused(&|r| r.shift = 63, "shift 63");
    refused(&|r| r.lo = 4, "empty range 4..=3 of output");
    refused(&|r| r.bounds = vec![(0, 3)], "bounds has 1 entries");
    refused(&|r| r.bounds = vec![(-1, 3), (0, 3)], "channel 0: codes -1..=3 leave the layer's, 0..=3");
    refused(&|r| r.add.truncate(1), "the list of multipliers of term 0 has 2 entries");
    refused(&|r| r.mul.truncate(1), "ranges of 2 terms, expected 1");
    refused(&|r| r.mul[1].push(1), "the list of multipliers of term 1 has 3 entries");
    refused(&|r| r.add[0] = i64::MIN, "channel 0: at shift 8");
}

#[test]
fn the_accumulator_range_of_a_known_channel() {
    assert_eq!(accumulator_range(&[3, -1, -1, 1], 0, 15), (-30, 60));
    assert_eq!(accumulator_range(&[3, -1], -2, 5), (-11, 17));
    assert_eq!(accumulator_range(&[], -2, 5), (0, 0));
}

/// A real requantization of one to four terms and the ranges of these.
type Layer = (RealRequantization, Vec<Vec<(i64, i64)>>);

/// Ranges of a channel's sums, of sums of one sign, and of codes.
fn range() -> impl Strategy<Value = (i64, i64)> {
    prop_oneof![
        (0i64..300_000, 0i64..300_000).prop_map(|(a, b)| (-a, b)),
        (-9_000i64..9_000, 0i64..300_000).prop_map(|(a, b)| (a, a + b)),
        (-20i64..20, 0i64..40_000).prop_map(|(a, b)| (a, a + b)),
    ]
}

prop_compose! {
    fn layer()(channels in 1usize..5, terms in 1usize..5)(
        scale in prop::collection::vec(prop::collection::vec(multiplier(), channels), terms),
        offset in prop::collection::vec(-300.0..300.0, channels),
        ranges in prop::collection::vec(prop::collection::vec(range(), channels), terms),
        (lo, hi) in prop_oneof![Just((0, 1)), Just((0, 15)), Just((0, 255)), Just((-32768, 32767))],
        ends in prop::collection::vec((0.0..=1.0f64, 0.0..=1.0f64), channels),
        narrower in any::<bool>(),
    ) -> Layer {
        let bounds = ends.iter().filter(|_| narrower).map(|&(a, b)| {
            let [a, b] = [a, b].map(|part| pick((lo.into(), hi.into()), part) as i32);
            (a.min(b), a.max(b))
        });
        (RealRequantization { scale, offset, lo, hi, bounds: bounds.collect() }, ranges)
    }
}

fn multiplier() -> impl Strategy<Value = f64> {
    let any_size =
        (-14.0f64..1.0, any::<bool>()).prop_map(|(log, negative)| if negative { -log.exp2() } else { log.exp2() });
    prop_oneof![4 => any_size, 1 => prop_oneof![Just(0.0), Just(1.0)]]
}

fn pick((lo, hi): (i64, i64), part: f64) -> i64 {
    (lo + ((hi - lo) as f64 * part).round() as i64).clamp(lo, hi)
}

fn output(real: &RealRequantization, c: usize, values: &[i64]) -> f64 {
    values.iter().zip(&real.scale).fold(real.offset[c], |sum, (&value, scale)| sum + value as f64 * scale[c])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, rng_seed: proptest::test_runner::RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_output_is_the_rounded_real_one_except_near_ties(
        (real, ranges) in layer(),
        parts in prop::collection::vec(prop::array::uniform4(0.0..=1.0f64), 200),
    ) {
        let Derived { requant, worst_error } = derive(&real, &ranges).unwrap();
        prop_assert!(worst_error <= TOLERANCE);
        prop_assert!(requant.largest_sum(&ranges).is_ok());
        for (i, parts) in parts.iter().enumerate() {
            let c = i % real.offset.len();
            let mut values: Vec<i64> = ranges.iter().zip(parts).map(|(range, &part)| pick(range[c], part)).collect();
            let (lo, hi) = requant.bound(c);
            prop_assert_eq!((lo, hi), real.bounds.get(c).copied().unwrap_or((real.lo, real.hi)));
            // Half of the samples aim at outputs that do not clamp.
            if i % 2 == 1 && real.scale[0][c] != 0.0 {
                let rest = output(&real, c, &values) - values[0] as f64 * real.scale[0][c];
                let aimed = f64::from(lo) - 2.0 + parts[0] * f64::from(hi - lo + 4);
                values[0] = (((aimed - rest) / real.scale[0][c]) as i64).clamp(ranges[0][c].0, ranges[0][c].1);
            }
            let f = output(&real, c, &values);
            let code = |v: f64| (v + 0.5).floor().clamp(f64::from(lo), f64::from(hi)) as i32;
            let slack = worst_error + 1e-6;
            let (least, most) = (code(f - slack), code(f + slack));
            let got = requant.apply(c, values.iter().copied());
            prop_assert!(least <= got && got <= most, "channel {c}: {f} gave {got}, {requant:?}");
            let (from, to) = requant.sum_range(c, &ranges);
            let sum = i128::from(requant.sum(c, values));
            prop_assert!(from <= sum && sum <= to);
        }
    }

    #[test]
    fn the_output_is_monotone_in_every_term((real, ranges) in layer(), p in 0.0..=1.0f64) {
        let requant = derive(&real, &ranges).unwrap().requant;
        for c in 0..real.offset.len() {
            let fixed: Vec<i64> = ranges.iter().map(|range| pick(range[c], p)).collect();
            for term in 0..ranges.len() {
                let at = |i: i32| {
                    let mut values = fixed.clone();
                    values[term] = pick(ranges[term][c], f64::from(i) / 100.0);
                    requant.apply(c, values)
                };
                let outs: Vec<i32> = (0..=100).map(at).collect();
                let is_rising = real.scale[term][c] >= 0.0;
                prop_assert!(if is_rising { outs.is_sorted() } else { outs.iter().rev().is_sorted() }, "{outs:?}");
            }
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
