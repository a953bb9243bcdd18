//! Encodings against exact integers: every weight and input of 8 rows, and random layers of every width.

use bitpact_accel::in_memory::{Cell, ChipLayer, Encoding, Layer, Slices};
use bitpact_core::Grid;
use bitpact_core::rng::Key;

const ENCODINGS: [Encoding; 3] = [Encoding::Differential, Encoding::And, Encoding::Match];

fn ideal(encoding: Encoding, rows: usize) -> Cell {
    let mut cell = Cell::open("crest").unwrap();
    cell.encoding = encoding;
    cell.with_rows(rows).unwrap().ideal()
}

/// A linear layer.
fn layer(codes: Vec<i16>, inputs: usize, grid: Grid, weight_bits: u8, input_bits: u8) -> Layer {
    let out_channels = codes.len() / inputs;
    Layer {
        name: "linear".to_owned(),
        layer: 0,
        which: 0,
        out_channels,
        inputs,
        window: inputs,
        group_channels: out_channels,
        pixels: 1,
        codes,
        grid,
        weight_bits,
        input_bits,
        bounds: vec![(i64::MIN, i64::MAX); out_channels],
        is_end: false,
    }
}

fn exact(layer: &Layer, windows: &[i64]) -> Vec<i64> {
    let sum = |window: &[i64], o: usize| {
        let first = o / layer.group_channels * layer.inputs;
        window[first..].iter().zip(layer.channel(o)).map(|(a, &q)| a * i64::from(q)).sum::<i64>()
    };
    windows.chunks(layer.window).flat_map(|w| (0..layer.out_channels).map(move |o| sum(w, o))).collect()
}

/// All 2^16 pairs of 8 weights of ±1 and 8 inputs. Three bits hold counts of up to 7, so they are right except where
/// the count is 8; the inputs -1 and +1 of an XNOR network follow by `2 sum In' W - sum W`.
#[test]
fn every_weight_and_input_of_8_rows_gives_its_sum() {
    let weight = |w: usize, row: usize| if w >> row & 1 == 1 { 1 } else { -1 };
    let codes = (0..256).flat_map(|w| (0..8).map(move |row| weight(w, row) as i16)).collect();
    let windows: Vec<i64> = (0..256).flat_map(|x: i64| (0..8).map(move |row| x >> row & 1)).collect();
    let layer = layer(codes, 8, Grid::WithoutZero, 1, 1);
    let exact = exact(&layer, &windows);
    for encoding in ENCODINGS {
        let cell = ideal(encoding, 8);
        assert_eq!(cell.adc.bits, 4);
        let four = ChipLayer::new(&cell, &layer, Key::new(1)).sums(&windows);
        assert_eq!(four, exact, "{encoding:?}");
        let three = ChipLayer::new(&cell.with_adc_bits(3).unwrap(), &layer, Key::new(1)).sums(&windows);
        for x in 0..256usize {
            for w in 0..256usize {
                let at = x * 256 + w;
                // What the converter sees: ones of W minus those of -W among driven rows, ones, or matches.
                let (count, per_count) = match encoding {
                    Encoding::Differential => (exact[at], 1),
                    Encoding::And => (i64::from((x & w).count_ones()), 2),
                    Encoding::Match => (i64::from(8 - (x ^ w).count_ones()), 1),
                };
                assert_eq!(three[at], exact[at] - count.signum() * per_count * i64::from(count.abs() == 8));
                let xnor: i64 = (0..8).map(|row| (2 * (x as i64 >> row & 1) - 1) * weight(w, row)).sum();
                let stored: i64 = (0..8).map(|row| weight(w, row)).sum();
                // The sum of inputs of -1 and +1, from that of their codes 0 and 1.
                assert_eq!(2 * four[at] - stored, xnor);
            }
        }
    }
}

#[test]
fn every_weight_code_is_its_planes() {
    for encoding in ENCODINGS {
        for (bits, grid) in
            (1..=8).flat_map(|k| [(k, Grid::WithoutZero), (k, Grid::WithZero)]).chain([(16, Grid::WithZero)])
        {
            if bits == 1 && grid == Grid::WithZero {
                continue;
            }
            let slices = Slices::new(encoding, grid, bits, 1);
            let most = match grid {
                Grid::WithZero => (1i64 << (bits - 1)) - 1,
                Grid::WithoutZero => (1i64 << bits) - 1,
            };
            for q in (-most..=most).filter(|q| grid == Grid::WithZero || q % 2 != 0) {
                let cell = |plane| match (encoding, slices.stored(q as i16, plane)) {
                    (Encoding::And, stored) => i64::from(stored),
                    (_, stored) => 2 * i64::from(stored) - 1,
                };
                let planes = slices.multipliers.iter().enumerate().map(|(j, m)| m * cell(j)).sum();
                assert_eq!(slices.sum(planes, 1), q, "{encoding:?}, {bits} bits, {grid:?}");
            }
        }
    }
}

/// Ideal cells give exact sums whatever the widths, the rows at once, the length of a column and the groups, and with a
/// converter that is wider than it need be.
#[test]
fn ideal_arrays_are_exact_for_layers_of_every_width() {
    let key = Key::new(7);
    let mut case = 0;
    for encoding in ENCODINGS {
        for rows in [1, 4, 8, 16, 64] {
            for (weight_bits, grid, input_bits) in [
                (1, Grid::WithoutZero, 1),
                (4, Grid::WithoutZero, 4),
                (3, Grid::WithZero, 2),
                (8, Grid::WithZero, 8),
                (16, Grid::WithZero, 11),
            ] {
                case += 1;
                let key = key.at(case);
                let (groups, inputs) = (1 + case as usize % 2, 1 + key.below(0, 150) as usize);
                let most =
                    if grid == Grid::WithZero { (1i64 << (weight_bits - 1)) - 1 } else { (1i64 << weight_bits) - 1 };
                let code = |i: u64| {
                    let q = i64::from(key.with("weights").below(i, 2 * most as u32 + 1)) - most;
                    (if grid == Grid::WithoutZero && q % 2 == 0 { q + 1 } else { q }) as i16
                };
                let codes = (0..6 * inputs as u64).map(code).collect();
                let mut layer = layer(codes, inputs, grid, weight_bits, input_bits);
                (layer.group_channels, layer.window) = (6 / groups, inputs * groups);
                let input = |i: u64| i64::from(key.with("inputs").below(i, 1 << input_bits));
                let windows: Vec<i64> = (0..5 * layer.window as u64).map(input).collect();
                let chip = ChipLayer::new(&ideal(encoding, rows), &layer, key);
                assert_eq!(
                    chip.sums(&windows),
                    exact(&layer, &windows),
                    "{encoding:?}, {rows} rows, {weight_bits} bits"
                );
                let (errors, activity) = chip.errors(&windows);
                let reads = 5 * 6 * inputs.div_ceil(rows) * usize::from(weight_bits) * usize::from(input_bits);
                assert_eq!((errors.reads, errors.wrong, errors.squares), (reads as u64, 0, 0));
                let driven: u32 = windows.iter().map(|x| x.count_ones()).sum();
                let expected = f64::from(driven) / (windows.len() * usize::from(input_bits)) as f64;
                assert!((activity - expected).abs() < 1e-12, "{activity} {expected}");
            }
        }
    }
}

/// The rate over a layer's reads is that of single columns: the same cells, fair bits, no wires.
#[test]
fn a_layers_errors_are_those_of_its_columns() {
    for (encoding, rows) in ENCODINGS.into_iter().flat_map(|e| [(e, 8), (e, 32)]) {
        let mut cell = super::cells::without_wires(Cell::open("2t2mtj").unwrap()).with_sigma(0.05).unwrap();
        cell.encoding = encoding;
        let cell = cell.with_rows(rows).unwrap().with_adc_bits(7).unwrap();
        let key = Key::new(5);
        let bit = |key: Key| move |i: u64| key.u64(i) >> 63 == 1;
        let inputs = rows;
        let codes = (0..(400 * inputs) as u64).map(bit(key.with("w"))).map(|b| if b { 1 } else { -1 }).collect();
        let layer = layer(codes, inputs, Grid::WithoutZero, 1, 1);
        let windows: Vec<i64> = (0..(40 * inputs) as u64).map(bit(key.with("x"))).map(i64::from).collect();
        let got = ChipLayer::new(&cell, &layer, key).errors(&windows).0.rate();
        let expected = bitpact_accel::in_memory::count_error_rate(&cell, 8000, key);
        assert!((got - expected).abs() < 0.025, "{encoding:?}, {rows} rows: {got}, expected {expected}");
    }
}

#[test]
fn the_same_seed_draws_the_same_chip_and_another_another() {
    let codes = (0..640).map(|i| if i * 7 % 13 < 6 { 1 } else { -1 }).collect();
    let layer = layer(codes, 64, Grid::WithoutZero, 1, 2);
    let windows: Vec<i64> = (0..640).map(|i| i * 5 % 4).collect();
    for cell in ["2t2mtj", "1t1mtj", "rram-crossbar"] {
        let mut cell = Cell::open(cell).unwrap();
        cell.adc.offset_sigma = 0.2;
        let sums = |seed| ChipLayer::new(&cell, &layer, Key::new(seed)).sums(&windows);
        assert_eq!(sums(1), sums(1));
        assert_ne!(sums(1), sums(2));
        assert_ne!(sums(1), exact(&layer, &windows));
    }
}
