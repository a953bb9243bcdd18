//! The derivation of the SAWB coefficients, from densities alone: no samples, no random numbers.
//!
//! For each of six distributions symmetric about zero: find the `alpha` at which `L` levels, evenly spaced on `[-alpha, alpha]` with both
//! ends, give the least mean squared error. Then fit a line through the six points
//! `(alpha / E|w|, sqrt(E w^2) / E|w|)`, regressing the moment ratio on `alpha`, and invert it:
//! `alpha = c1 sqrt(E w^2) - c2 E|w|`. This inverse regression is the one that IBM's published pairs follow (3, 15 and 32 levels: the
//! codes 103 and 403 and the 5-bit pair of fms-model-optimizer); the method is that of arXiv 1807.06964.
//!
//! A density is taken as constant on 2^15 cells, and its moments over any interval are exact.

const CELLS: usize = 1 << 15;

/// A density symmetric about zero, normalized or not.
#[derive(Clone, Copy, Debug)]
pub struct Distribution {
    /// Its name.
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

    /// `E|w|`.
    pub fn mean_abs(&self) -> f64 {
        self.cumulative[CELLS][1]
    }

    /// `sqrt(E w^2)`.
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
