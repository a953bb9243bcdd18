//! The derivation of the SAWB coefficients, from densities alone: no samples, no random numbers.
//!
//! For each of six distributions symmetric about zero: find the `alpha` at which `L` levels, evenly spaced on `[-alpha,
//! alpha]` with both ends, give the least mean squared error. Then fit a line through the six points `(alpha / E|w|,
//! sqrt(E w^2) / E|w|)`, regressing the moment ratio on `alpha`, and invert it: `alpha = c1 sqrt(E w^2) - c2 E|w|`.
//! This inverse regression is the one that IBM's published pairs follow (3, 15 and 32 levels: the codes 103 and 403 and
//! the 5-bit pair of fms-model-optimizer); the method is that of arXiv 1807.06964.
//!
//! A density is taken as constant on 2^15 cells, and its moments over any interval are exact.

const CELLS: usize = 1 << 15;

/// A density symmetric about zero, normalized or not.
#[derive(Clone, Copy, Debug)]
pub struct Distribution {
    /// Name of the distribution.
    pub name: &'static str,
    /// The density vanishes, or is negligible, beyond this.
    pub support: f64,
    density: fn(f64) -> f64,
}

/// The six distributions of the fit.
pub const DISTRIBUTIONS: [Distribution; 6] = [
    Distribution { name: "normal", support: 9.0, density: |x| (-0.5 * x * x).exp() },
    Distribution {
        name: "von Mises, kappa 4",
        support: std::f64::consts::PI,
        density: |x| (4.0 * x.cos() - 4.0).exp(),
    },
    Distribution {
        name: "logistic",
        support: 40.0,
        density: |x| (-x).exp() / ((1.0 + (-x).exp()) * (1.0 + (-x).exp())),
    },
    Distribution { name: "uniform (-1, 1)", support: 1.0, density: |_| 1.0 },
    Distribution { name: "Laplace", support: 40.0, density: |x| (-x).exp() },
    Distribution { name: "triangular (-2, 0, 2)", support: 2.0, density: |x| 2.0 - x },
];

/// The right half of a distribution as a table of cumulative moments.
pub struct Moments {
    cell: f64,
    density: Vec<f64>,
    cumulative: Vec<[f64; 3]>,
}

impl Moments {
    /// Tabulates `distribution`, normalized so that its right half has mass 1.
    pub fn new(distribution: &Distribution) -> Moments {
        let cell = distribution.support / CELLS as f64;
        let mut density: Vec<f64> = (0..CELLS).map(|i| (distribution.density)((i as f64 + 0.5) * cell)).collect();
        let mass = density.iter().sum::<f64>() * cell;
        density.iter_mut().for_each(|p| *p /= mass);
        let mut cumulative = vec![[0.0; 3]];
        for (i, &p) in density.iter().enumerate() {
            let part = cell_moments(p, i as f64 * cell, (i + 1) as f64 * cell);
            let before = cumulative[i];
            cumulative.push([before[0] + part[0], before[1] + part[1], before[2] + part[2]]);
        }
        Moments { cell, density, cumulative }
    }

    /// Mean magnitude of the weights, `E|w|`.
    pub fn mean_abs(&self) -> f64 {
        self.cumulative[CELLS][1]
    }

    /// Root of the weights' mean square, `sqrt(E w^2)`.
    pub fn rms(&self) -> f64 {
        self.cumulative[CELLS][2].sqrt()
    }

    /// The integrals of `p`, `x p` and `x^2 p` from 0 to `x`.
    fn up_to(&self, x: f64) -> [f64; 3] {
        let i = (x / self.cell) as usize;
        if i >= CELLS {
            return self.cumulative[CELLS];
        }
        let before = self.cumulative[i];
        let part = cell_moments(self.density[i], i as f64 * self.cell, x);
        [before[0] + part[0], before[1] + part[1], before[2] + part[2]]
    }

    /// The mean squared error of `levels` levels on `[-alpha, alpha]`, and its derivative by `alpha`.
    pub fn error(&self, levels: u32, alpha: f64) -> (f64, f64) {
        let step = 2.0 * alpha / f64::from(levels - 1);
        let first = if levels % 2 == 1 { 0.0 } else { 0.5 };
        let (mut error, mut slope) = (0.0, 0.0);
        let mut from = [0.0; 3];
        let last = (levels - 1) / 2;
        for i in 0..=last {
            let level = (first + f64::from(i)) * step;
            let to = if i == last { self.cumulative[CELLS] } else { self.up_to(level + 0.5 * step) };
            let (m0, m1, m2) = (to[0] - from[0], to[1] - from[1], to[2] - from[2]);
            error += m2 - 2.0 * level * m1 + level * level * m0;
            slope += 2.0 * (level / alpha) * (level * m0 - m1);
            from = to;
        }
        (error, slope)
    }

    /// The `alpha` of least mean squared error: the best of a geometric scan, refined by bisection of the derivative.
    pub fn best_alpha(&self, levels: u32) -> f64 {
        const POINTS: i32 = 96;
        let (low, high) = (0.5 * self.mean_abs(), self.cell * CELLS as f64);
        let ratio = (high / low).powf(1.0 / f64::from(POINTS));
        let at = |i: i32| low * ratio.powi(i);
        let (mut best, mut least) = (0, f64::INFINITY);
        for i in 0..=POINTS {
            let (error, _) = self.error(levels, at(i));
            if error < least {
                (best, least) = (i, error);
            }
        }
        let (mut below, mut above) = (at(best - 1), at(best + 1));
        for _ in 0..50 {
            let middle = 0.5 * (below + above);
            if self.error(levels, middle).1 < 0.0 { below = middle } else { above = middle }
        }
        0.5 * (below + above)
    }
}

fn cell_moments(p: f64, from: f64, to: f64) -> [f64; 3] {
    let width = to - from;
    [p * width, p * width * (to + from) / 2.0, p * width * (to * to + to * from + from * from) / 3.0]
}

/// The coefficients `(c1, c2)` for a grid of `levels` levels (3 or more): `2^k - 1` with zero, `2^k` without.
pub fn derive(levels: u32, distributions: &[Moments]) -> (f64, f64) {
    let points: Vec<(f64, f64)> =
        distributions.iter().map(|d| (d.best_alpha(levels) / d.mean_abs(), d.rms() / d.mean_abs())).collect();
    let n = points.len() as f64;
    let mean_x = points.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_y = points.iter().map(|p| p.1).sum::<f64>() / n;
    let xx: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.0 - mean_x)).sum();
    let xy: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    let slope = xy / xx;
    (1.0 / slope, (mean_y - slope * mean_x) / slope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bits, Grid, sawb_coefficients};

    fn all() -> Vec<Moments> {
        DISTRIBUTIONS.iter().map(Moments::new).collect()
    }

    #[test]
    fn moments_are_the_known_ones() {
        let pi = std::f64::consts::PI;
        let known = [
            ((2.0 / pi).sqrt(), 1.0),
            (f64::NAN, f64::NAN),
            (2.0 * 2f64.ln(), pi / 3f64.sqrt()),
            (0.5, 1.0 / 3f64.sqrt()),
            (1.0, 2f64.sqrt()),
            (2.0 / 3.0, (2f64 / 3.0).sqrt()),
        ];
        for ((distribution, moments), (mean_abs, rms)) in DISTRIBUTIONS.iter().zip(all()).zip(known) {
            if !rms.is_nan() {
                assert!((moments.mean_abs() - mean_abs).abs() < 1e-6 * mean_abs, "{}", distribution.name);
                assert!((moments.rms() - rms).abs() < 1e-6 * rms, "{}", distribution.name);
            }
        }
    }

    #[test]
    fn the_best_clip_values_known_in_closed_form_are_found() {
        let all = all();
        for levels in [3, 4, 7, 16, 32, 255, 256] {
            let uniform = all[3].best_alpha(levels);
            assert!((uniform - (1.0 - 1.0 / f64::from(levels))).abs() < 1e-6, "uniform, {levels}: {uniform}");
        }
        assert!((all[4].best_alpha(3) - 2.0).abs() < 1e-6, "Laplace: alpha = alpha / 2 + 1");
        let max = |levels| 2.0 * all[0].best_alpha(levels) / f64::from(levels - 1);
        // Steps of the optimal uniform quantizer of a unit normal (Max 1960, table II).
        for (levels, step) in [(3, 1.2240), (4, 0.9957), (8, 0.5860), (16, 0.3352), (32, 0.1881)] {
            assert!((max(levels) - step).abs() < 1e-4, "normal, {levels}: {}", max(levels));
        }
    }

    #[test]
    fn no_other_clip_value_is_better() {
        for (distribution, moments) in DISTRIBUTIONS.iter().zip(all()) {
            for levels in [3, 4, 15, 16, 255] {
                let alpha = moments.best_alpha(levels);
                let (least, _) = moments.error(levels, alpha);
                for i in 1..400 {
                    let other = f64::from(i) / 400.0 * distribution.support;
                    assert!(
                        moments.error(levels, other).0 >= least * (1.0 - 1e-9),
                        "{} {levels}: {other}",
                        distribution.name
                    );
                }
            }
        }
    }

    #[test]
    fn the_table_is_what_the_derivation_gives() {
        let all = all();
        for bits in Bits::all().skip(1) {
            for (grid, levels) in [(Grid::WithZero, bits.q_max()), (Grid::WithoutZero, bits.q_max() + 1)] {
                let (c1, c2) = derive(levels as u32, &all);
                let table = sawb_coefficients(bits, grid);
                assert!(
                    (c1 - table.0).abs() < 2e-5 && (c2 - table.1).abs() < 2e-5,
                    "{bits} {grid}: {c1} {c2} {table:?}"
                );
            }
        }
        assert_eq!(sawb_coefficients(Bits::new(1).unwrap(), Grid::WithoutZero), (0.0, -1.0));
    }

    #[test]
    fn within_2_percent_of_the_published_pairs_on_the_six_distributions() {
        let bits = |b| Bits::new(b).unwrap();
        // fms-model-optimizer: codes 103 and 403, and its 5-bit pair.
        let published =
            [(2, Grid::WithZero, 2.6, 1.71), (4, Grid::WithZero, 12.035, 12.03), (5, Grid::WithoutZero, 17.74, 18.64)];
        for (b, grid, c1, c2) in published {
            let ours = sawb_coefficients(bits(b), grid);
            for (distribution, moments) in DISTRIBUTIONS.iter().zip(all()) {
                let alpha = |c: (f64, f64)| c.0 * moments.rms() - c.1 * moments.mean_abs();
                let ratio = alpha(ours) / alpha((c1, c2));
                assert!((ratio - 1.0).abs() < 0.02, "{b} bits, {grid}, {}: {ratio}", distribution.name);
            }
        }
    }
}
