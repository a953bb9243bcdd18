//! Wires: the banded solver against networks that are solved by hand, and the droop against the solver.

use bitpact_accel::in_memory::{Array, Cell, Droop, exact, word_line_share};
use bitpact_core::rng::Key;

fn array(bit_line_ohm: f64, word_line_ohm: f64, driver_ohm: f64) -> Array {
    Array { bit_line_ohm, word_line_ohm, driver_ohm, ..Cell::open("crest").unwrap().array }
}

fn random(rows: usize, lines: usize, seed: u64) -> Vec<Vec<f64>> {
    let key = Key::new(seed);
    let cell = |i: usize, j: usize| if key.u64((i * lines + j) as u64) >> 62 == 0 { 0.0 } else { 13.0 };
    (0..rows).map(|i| (0..lines).map(|j| cell(i, j)).collect()).collect()
}

#[test]
fn networks_of_one_and_two_cells_are_those_solved_by_hand() {
    let near = |got: f64, expected: f64| assert!((got / expected - 1.0).abs() < 1e-9, "{got} {expected}");
    // 1 V over 10 kohm, wire 100 ohm and driver 900: 1 V / 11 kohm.
    near(exact(&[vec![100.0]], 1.0, &array(100.0, 0.0, 900.0))[0], 1e6 / 11e3);
    near(exact(&[vec![100.0]], 1.0, &array(100.0, 500.0, 900.0))[0], 1e6 / 11.5e3);
    // The second cell, 10 kohm + 100 ohm of wire, in parallel with the first, then 1 kohm.
    let parallel = 1.0 / (1.0 / 10e3 + 1.0 / 10.1e3);
    near(exact(&[vec![100.0], vec![100.0]], 1.0, &array(100.0, 0.0, 900.0))[0], 1e6 / (parallel + 1e3));
    assert_eq!(exact(&[vec![0.0], vec![0.0]], 1.0, &array(1.0, 0.0, 1.0)), [0.0]);
}

#[test]
fn lines_whose_word_lines_hardly_resist_do_not_see_each_other() {
    let cells = random(16, 8, 5);
    let (apart, together) = (exact(&cells, 0.66, &array(2.0, 0.0, 50.0)), exact(&cells, 0.66, &array(2.0, 1e-4, 50.0)));
    assert!(apart.iter().zip(&together).all(|(a, b)| (a / b - 1.0).abs() < 1e-5), "{apart:?} {together:?}");
    let far = exact(&cells, 0.66, &array(2.0, 20.0, 50.0));
    assert!(far.iter().zip(&apart).all(|(a, b)| a < b));
}

/// Halving every resistance quarters what the linear droop leaves out: it is exact to first order, in position too
/// where the whole column conducts alike.
#[test]
fn the_droop_is_the_first_order_of_the_exact_ladder() {
    let error = |ohm: f64| {
        let array = array(ohm, 0.0, 10.0 * ohm);
        let cells = vec![vec![13.0]; 64];
        let drooped = Droop::new(&array, 0.66, 0, 64).apply(64.0 * 13.0);
        (exact(&cells, 0.66, &array)[0] - drooped).abs()
    };
    for ohm in [0.5, 0.25, 0.125] {
        let quotient = error(ohm) / error(ohm / 2.0);
        assert!((3.6..4.2).contains(&quotient), "{ohm}: {quotient}");
    }
}

#[test]
fn the_share_of_a_word_line_is_the_first_order_of_the_exact_grid() {
    let error = |ohm: f64| {
        let array = array(0.0, ohm, 0.0);
        let got = exact(&vec![vec![5.0; 32]; 4], 0.66, &array);
        let expected = |line| 4.0 * 5.0 * word_line_share(&array, 0.66, 5.0, line, 32);
        (0..32).map(|line| (got[line] - expected(line)).abs()).fold(0.0, f64::max)
    };
    let quotient = error(2.0) / error(1.0);
    assert!((3.6..4.2).contains(&quotient), "{quotient}");
}
