//! Every path against the scalar reference, and that against the formula.

use proptest::prelude::*;

use super::layout::{Panels, get};
use super::scalar_panel::half_to_float;
use super::*;

/// A stream of numbers.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 16
    }
}

struct Case {
    rows: usize,
    cols: usize,
    bits: usize,
    group: usize,
    codes: Vec<u8>,
    steps: Vec<u16>,
    zeros: Vec<u8>,
    own_zeros: bool,
}

impl Case {
    fn new(rows: usize, cols: usize, bits: usize, group: usize, own_zeros: bool, seed: u64) -> Case {
        let mut next = numbers(seed);
        let groups = rows * cols.div_ceil(group);
        let max = (1u64 << bits) - 1;
        Case {
            rows,
            cols,
            bits,
            group,
            // Now and then the largest code everywhere, where sums of 16 bits are at their limit.
            codes: (0..rows * cols)
                .map(|_| if seed.is_multiple_of(5) { max as u8 } else { (next() & max) as u8 })
                .collect(),
            // float16 from 2^-8 to 2^-1, and 0.
            steps: (0..groups).map(|i| if i % 17 == 3 { 0 } else { (next() % 0x1c00 + 0x1c00) as u16 }).collect(),
            zeros: (0..groups).map(|_| (next() & max) as u8).collect(),
            own_zeros,
        }
    }

    fn zeros(&self) -> Zeros<'_> {
        if self.own_zeros { Zeros::Each(&self.zeros) } else { Zeros::All(1 << (self.bits - 1)) }
    }

    fn pack(&self) -> GemvWeights {
        GemvWeights::pack(
            self.rows,
            self.cols,
            self.bits,
            self.group,
            &self.codes,
            &self.steps,
            self.zeros(),
            &WeightArena::new(),
        )
    }

    fn inputs(&self, tokens: usize, seed: u64) -> GemvInputs {
        let mut next = numbers(seed);
        // Every fifth case is at the end of the range throughout.
        let value = |n: u64| if seed.is_multiple_of(5) { 1.0 } else { n as f32 % 2001.0 / 1000.0 - 1.0 };
        let x: Vec<f32> = (0..tokens * self.cols).map(|_| value(next())).collect();
        GemvInputs::round(&x, self.cols, self.group, &Pool::new(2))
    }
}

fn product(weights: &GemvWeights, inputs: &GemvInputs, isa: Isa, threads: usize) -> Vec<u32> {
    let mut y = vec![f32::NAN; inputs.tokens() * weights.rows()];
    weights.multiply(inputs, &mut y, isa, &Pool::new(threads));
    y.iter().map(|v| v.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::testing::cases(60)))]
    #[test]
    fn every_path_gives_the_bits_of_the_reference(
        (rows, cols) in (1usize..40, 1usize..400),
        bits in prop::sample::select(vec![2usize, 3, 4, 8]),
        group in prop::sample::select(vec![32usize, 64, 128, 416]),
        own_zeros in any::<bool>(),
        tokens in 1usize..20,
        seed in 0u64..1000,
    ) {
        let case = Case::new(rows, cols, bits, group, own_zeros, seed);
        let (weights, inputs) = (case.pack(), case.inputs(tokens, seed));
        let expected = product(&weights, &inputs, Isa::Scalar, 1);
        for isa in crate::testing::paths() {
            prop_assert_eq!(&product(&weights, &inputs, isa, 1), &expected, "{}", isa);
        }
        prop_assert_eq!(&product(&weights, &inputs, Isa::detect(), 3), &expected);
    }
}

#[test]
fn the_reference_follows_the_formula() {
    for (bits, group, own_zeros) in [(2, 32, false), (3, 64, true), (4, 64, false), (8, 128, true)] {
        let case = Case::new(19, 150, bits, group, own_zeros, 7);
        let (weights, inputs) = (case.pack(), case.inputs(3, 11));
        let y = product(&weights, &inputs, Isa::Scalar, 1);
        let groups = 150usize.div_ceil(group);
        // Tiles of two tokens and of one.
        for (t, (tile, at)) in [(0, 0), (0, 1), (1, 0)].into_iter().enumerate() {
            let tile = &inputs.tiles[tile];
            for row in 0..19 {
                let mut total = 0.0f32;
                for g in 0..groups {
                    let zero = if own_zeros { case.zeros[row * groups + g] } else { 1 << (bits - 1) };
                    let sum: i32 = (g * group..150.min((g + 1) * group))
                        .map(|k| {
                            let x = tile.words[k / 4 * tile.tokens + at].to_le_bytes()[k % 4] as i8;
                            (i32::from(case.codes[row * 150 + k]) - i32::from(zero)) * i32::from(x)
                        })
                        .sum();
                    total = (sum as f32).mul_add(half_to_float(case.steps[row * groups + g]), total);
                }
                assert_eq!(
                    f32::from_bits(y[t * 19 + row]),
                    total * tile.steps[at],
                    "{bits} bits, token {t}, row {row}"
                );
            }
        }
    }
}

#[test]
fn weights_come_back() {
    let case = Case::new(18, 70, 3, 32, true, 2);
    let weights = case.pack();
    let mut row = vec![0.0; 70];
    weights.row_to(17, &mut row);
    for (k, w) in row.into_iter().enumerate() {
        let (step, zero) = (half_to_float(case.steps[17 * 3 + k / 32]), case.zeros[17 * 3 + k / 32]);
        assert_eq!(w, step * (f32::from(case.codes[17 * 70 + k]) - f32::from(zero)));
    }
}

#[test]
fn codes_come_back_from_their_places() {
    for bits in [2, 3, 4, 8] {
        let case = Case::new(16, 32, bits, 32, false, 3);
        let panels = Panels::new(16, 32, bits, 32, case.zeros());
        let packed = panels.pack(&case.codes, &case.steps, case.zeros());
        for o in 0..16 {
            for k in 0..32 {
                assert_eq!(get(&packed[64..], bits, o, k), case.codes[o * 32 + k], "{bits} bits ({o}, {k})");
            }
        }
    }
}

#[test]
fn inputs_round_to_nearest_with_ties_to_even() {
    let x: Vec<f32> = (0..32).map(|i| (i as f32 - 16.0) / 2.0).chain([127.0]).collect();
    let inputs = GemvInputs::round(&x, 33, 64, &Pool::new(1));
    let tile = &inputs.tiles[0];
    assert_eq!(tile.steps[0], 1.0);
    for (k, v) in x.iter().enumerate() {
        assert_eq!(f32::from(tile.words[k / 4].to_le_bytes()[k % 4] as i8), v.round_ties_even());
    }
    assert_eq!(tile.sums, [x.iter().map(|v| v.round_ties_even() as i32).sum::<i32>()]);
    let zeros = GemvInputs::round(&[0.0; 40], 40, 32, &Pool::new(1));
    assert_eq!((zeros.tiles[0].steps[0], zeros.tiles[0].sums[1]), (0.0, 0));
}

#[test]
fn half_floats_are_exact() {
    for (bits, value) in
        [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f32.powi(-24)), (0x7bff, 65504.0), (0x0400, 2f32.powi(-14))]
    {
        assert_eq!(half_to_float(bits), value);
    }
    assert_eq!(half_to_float(0x7c00), f32::INFINITY);
}

#[test]
#[should_panic(expected = "codes of more than 3 bits")]
fn codes_beyond_their_bits_are_refused() {
    GemvWeights::pack(1, 1, 3, 32, &[8], &[0], Zeros::All(4), &WeightArena::new());
}
