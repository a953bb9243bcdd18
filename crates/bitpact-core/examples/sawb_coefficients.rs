//! Prints the SAWB coefficients for every width and both grids, and the numbers they come from.

use bitpact_core::sawb_fit::{DISTRIBUTIONS, Moments, derive};

fn main() {
    let moments: Vec<Moments> = DISTRIBUTIONS.iter().map(Moments::new).collect();
    println!("alpha of least squared error over E|w|, per distribution");
    print!("{:24}", "levels");
    let grids = (2..=8).flat_map(|bits| [(1u32 << bits) - 1, 1 << bits]);
    grids.clone().for_each(|levels| print!("{levels:>8}"));
    println!();
    for (distribution, moments) in DISTRIBUTIONS.iter().zip(&moments) {
        print!("{:24}", distribution.name);
        grids.clone().for_each(|levels| print!("{:8.4}", moments.best_alpha(levels) / moments.mean_abs()));
        println!("   rms / E|w| {:.5}", moments.rms() / moments.mean_abs());
    }
    println!("\nalpha = c1 sqrt(E w^2) - c2 E|w|\nbits   with zero (c1, c2)      without zero (c1, c2)");
    for bits in 2..=8u32 {
        let (with_1, with_2) = derive((1 << bits) - 1, &moments);
        let (without_1, without_2) = derive(1 << bits, &moments);
        println!("{bits:4}   ({with_1:.5}, {with_2:.5})   ({without_1:.5}, {without_2:.5})");
    }
}
