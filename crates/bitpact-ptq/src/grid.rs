//! Grids of codes: groups of inputs with a step and a zero point, and rounding to the nearest point.

use std::fmt;
use std::str::FromStr;

use half::f16;

use crate::{Matrix, PtqError};

/// How many codes a weight may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// Three codes: -1, 0 and 1 steps, stored as 0, 1 and 2.
    Ternary,
    /// 2^b codes, b from 2 to 8.
    Bits(u8),
}

impl Width {
    /// The largest code.
    pub fn max_code(self) -> u8 {
        match self {
            Width::Ternary => 2,
            Width::Bits(b) => ((1u16 << b) - 1) as u8,
        }
    }

    /// The code that means zero on a symmetric grid: 1 for three codes, 2^(b-1) for 2^b.
    pub fn middle(self) -> u8 {
        match self {
            Width::Ternary => 1,
            Width::Bits(b) => 1 << (b - 1),
        }
    }

    /// Bits of a stored code; 2 for three codes.
    pub fn stored_bits(self) -> u8 {
        match self {
            Width::Ternary => 2,
            Width::Bits(b) => b,
        }
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Width::Ternary => f.pad("ternary"),
            Width::Bits(b) => f.pad(&b.to_string()),
        }
    }
}

impl FromStr for Width {
    type Err = PtqError;

    fn from_str(text: &str) -> Result<Width, PtqError> {
        match (text, text.parse()) {
            ("ternary", _) => Ok(Width::Ternary),
            (_, Ok(b @ 2..=8)) => Ok(Width::Bits(b)),
            _ => Err(PtqError::Grid(format!("\"{text}\" is no width: expected 2 to 8 or ternary"))),
        }
    }
}

/// How many neighbouring inputs of one output share a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// So many, a multiple of 32; the last group of a row may be shorter.
    Of(usize),
    /// All inputs of one output share a step.
    Row,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Group::Of(n) => f.pad(&n.to_string()),
            Group::Row => f.pad("row"),
        }
    }
}

impl FromStr for Group {
    type Err = PtqError;

    fn from_str(text: &str) -> Result<Group, PtqError> {
        match (text, text.parse()) {
            ("row", _) => Ok(Group::Row),
            (_, Ok(n @ (32 | 64 | 128 | 256))) => Ok(Group::Of(n)),
            _ => Err(PtqError::Grid(format!("\"{text}\" is no group: expected 32, 64, 128, 256 or row"))),
        }
    }
}

/// Codes of a layer's weights: a weight is `step * (code - zero)`, step and zero those of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    width: Width,
    group: Group,
    symmetric: bool,
}

/// Step and zero point of a group. The step is a float16 number, as files and kernels store it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupParams {
    /// Distance of two codes.
    pub step: f16,
    /// The code that means zero.
    pub zero: u8,
}

impl GroupParams {
    /// The weight a code means.
    pub fn value(self, code: u8) -> f32 {
        self.step.to_f32() * (f32::from(code) - f32::from(self.zero))
    }
}

impl Grid {
    /// A grid. On a symmetric one the zero is [`Width::middle`]; on an asymmetric one every group has its own.
    ///
    /// # Errors
    /// [`PtqError::Grid`] for widths beyond 2 to 8 bits, groups that are no multiple of 32, and asymmetric ternary
    /// grids.
    pub fn new(width: Width, group: Group, symmetric: bool) -> Result<Grid, PtqError> {
        match (width, group) {
            (Width::Bits(b), _) if !(2..=8).contains(&b) => Err(PtqError::Grid(format!("{b} bits: expected 2 to 8"))),
            (_, Group::Of(n)) if n == 0 || !n.is_multiple_of(32) => {
                Err(PtqError::Grid(format!("groups of {n}: expected a multiple of 32")))
            }
            (Width::Ternary, _) if !symmetric => {
                Err(PtqError::Grid("a ternary grid is symmetric, it has no zero points".to_owned()))
            }
            _ => Ok(Grid { width, group, symmetric }),
        }
    }

    /// Number of codes that a weight may have.
    pub fn width(self) -> Width {
        self.width
    }

    /// How many inputs share a step.
    pub fn group(self) -> Group {
        self.group
    }

    /// Tells whether all groups have the same zero.
    pub fn symmetric(self) -> bool {
        self.symmetric
    }

    /// Inputs of a group in rows of `cols`; at least 1.
    pub fn group_len(self, cols: usize) -> usize {
        match self.group {
            Group::Of(n) => n,
            Group::Row => cols.max(1),
        }
    }

    /// Groups of a row of `cols` inputs.
    pub fn groups(self, cols: usize) -> usize {
        cols.div_ceil(self.group_len(cols))
    }

    /// Bits a weight in memory: codes, a float16 step a group, and 8 bits of zero a group where it is asymmetric.
    pub fn bits_a_weight(self, cols: usize) -> f64 {
        let a_group = if self.symmetric { 16.0 } else { 24.0 };
        f64::from(self.width.stored_bits()) + a_group * self.groups(cols) as f64 / cols.max(1) as f64
    }

    /// Step and zero for the weights of a group.
    ///
    /// Asymmetric: `step = (max - min) / (2^b - 1)`, `zero = round(-min / step)`, where min and max include 0.
    /// Symmetric: `step = 2 max|w| / (2^b - 1)`. Ternary: the step of least squared error, `sum of the k largest |w| /
    /// k` with the k that makes `(sum of the k largest)^2 / k` largest.
    pub fn fit(self, weights: &[f32]) -> GroupParams {
        let max_code = f32::from(self.width.max_code());
        let (min, max) = weights.iter().fold((0.0f32, 0.0f32), |(lo, hi), &w| (lo.min(w), hi.max(w)));
        if self.symmetric {
            let step = match self.width {
                Width::Ternary => ternary_step(weights),
                Width::Bits(_) => 2.0 * max.max(-min) / max_code,
            };
            return GroupParams { step: Grid::storable(step), zero: self.width.middle() };
        }
        let step = Grid::storable((max - min) / max_code);
        let zero = (-min / step.to_f32()).round_ties_even().clamp(0.0, max_code);
        GroupParams { step, zero: zero as u8 }
    }

    /// A step as float16, at least the smallest normal number: codes of a group of zeros are zeros.
    pub(crate) fn storable(step: f32) -> f16 {
        let step = f16::from_f32(step.min(f16::MAX.to_f32()));
        if step < f16::MIN_POSITIVE { f16::MIN_POSITIVE } else { step }
    }

    /// The code nearest to a weight.
    pub fn code(self, params: GroupParams, weight: f32) -> u8 {
        let code = (weight / params.step.to_f32()).round_ties_even() + f32::from(params.zero);
        code.clamp(0.0, f32::from(self.width.max_code())) as u8
    }

    /// Rounds every weight to the nearest point of the grid fitted to its group (RTN).
    ///
    /// # Errors
    /// [`PtqError::NotFinite`] where a weight is not finite.
    pub fn round(self, weights: &Matrix) -> Result<Quantized, PtqError> {
        weights.check_finite("weights")?;
        let mut out = Quantized::empty(self, weights.rows(), weights.cols());
        let len = self.group_len(weights.cols());
        for r in 0..weights.rows() {
            for (g, group) in weights.row(r).chunks(len).enumerate() {
                let params = self.fit(group);
                out.set_params(r, g, params);
                group.iter().enumerate().for_each(|(i, &w)| out.set_code(r, g * len + i, self.code(params, w)));
            }
        }
        Ok(out)
    }
}

fn ternary_step(weights: &[f32]) -> f32 {
    let mut sizes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
    sizes.sort_by(|a, b| b.total_cmp(a));
    let (mut sum, mut best, mut step) = (0.0f64, -1.0, 0.0);
    for (i, &size) in sizes.iter().enumerate() {
        sum += f64::from(size);
        let k = (i + 1) as f64;
        if sum * sum / k > best {
            (best, step) = (sum * sum / k, sum / k);
        }
    }
    step as f32
}

/// A layer's weights as codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    grid: Grid,
    rows: usize,
    cols: usize,
    codes: Vec<u8>,
    params: Vec<GroupParams>,
}

impl Quantized {
    /// Zeros.
    pub(crate) fn empty(grid: Grid, rows: usize, cols: usize) -> Quantized {
        let zero = GroupParams { step: f16::MIN_POSITIVE, zero: grid.width.middle() };
        let params = vec![zero; rows * grid.groups(cols)];
        Quantized { grid, rows, cols, codes: vec![zero.zero; rows * cols], params }
    }

    /// Codes and parameters from outside: `codes` row by row, `params` group by group of row after row.
    ///
    /// # Errors
    /// [`PtqError::Shape`] where their numbers do not fit; [`PtqError::Grid`] for a code or zero beyond the grid, a
    /// step that is not finite and positive, and zeros other than the middle on a symmetric grid.
    pub fn new(
        grid: Grid,
        rows: usize,
        cols: usize,
        codes: Vec<u8>,
        params: Vec<GroupParams>,
    ) -> Result<Quantized, PtqError> {
        let size = |what, expected: Option<usize>, found: usize| match expected {
            Some(expected) if expected == found => Ok(()),
            _ => Err(PtqError::Shape { what, expected: format!("{expected:?}"), found: found.to_string() }),
        };
        size("codes", rows.checked_mul(cols), codes.len())?;
        size("groups", rows.checked_mul(grid.groups(cols)), params.len())?;
        let max = grid.width.max_code();
        if let Some(code) = codes.iter().find(|&&code| code > max) {
            return Err(PtqError::Grid(format!("code {code}: expected at most {max}")));
        }
        for p in &params {
            if !p.step.is_finite() || p.step <= f16::ZERO {
                return Err(PtqError::Grid(format!("step {}: expected a positive number", p.step)));
            }
            if p.zero > max || (grid.symmetric && p.zero != grid.width.middle()) {
                return Err(PtqError::Grid(format!("zero point {} is not one of the grid", p.zero)));
            }
        }
        Ok(Quantized { grid, rows, cols, codes, params })
    }

    /// The grid.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Number of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Codes, row by row.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// Step and zero of every group, row by row.
    pub fn params(&self) -> &[GroupParams] {
        &self.params
    }

    /// The weights the codes mean.
    pub fn dequantize(&self) -> Matrix {
        let mut out = Matrix::zeros(self.rows, self.cols);
        (0..self.rows).for_each(|r| self.row_to(r, out.row_mut(r)));
        out
    }

    /// Writes the weights of row `r` to `to`.
    ///
    /// # Panics
    /// Where there is no such row or `to` is not one number a column.
    pub fn row_to(&self, r: usize, to: &mut [f32]) {
        assert_eq!(to.len(), self.cols, "a number a column");
        let (len, groups) = (self.grid.group_len(self.cols), self.grid.groups(self.cols));
        let codes = &self.codes[r * self.cols..][..self.cols];
        for ((to, codes), p) in to.chunks_mut(len).zip(codes.chunks(len)).zip(&self.params[r * groups..]) {
            to.iter_mut().zip(codes).for_each(|(to, &code)| *to = p.value(code));
        }
    }

    pub(crate) fn set_params(&mut self, row: usize, group: usize, params: GroupParams) {
        self.params[row * self.grid.groups(self.cols) + group] = params;
    }

    pub(crate) fn set_code(&mut self, row: usize, col: usize, code: u8) {
        self.codes[row * self.cols + col] = code;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grids() -> impl Strategy<Value = Grid> {
        let width = prop_oneof![Just(Width::Ternary), (2u8..=8).prop_map(Width::Bits)];
        let group = prop_oneof![Just(Group::Of(32)), Just(Group::Of(64)), Just(Group::Row)];
        (width, group, any::<bool>()).prop_map(|(w, g, s)| Grid::new(w, g, s || w == Width::Ternary).unwrap())
    }

    proptest! {
        #[test]
        fn rounding_is_nearest_and_stays_on_the_grid(
            grid in grids(),
            data in proptest::collection::vec(-3.0f32..3.0, 2 * 70),
        ) {
            let weights = Matrix::new(2, 70, data).unwrap();
            let q = grid.round(&weights).unwrap();
            prop_assert!(Quantized::new(grid, 2, 70, q.codes().to_vec(), q.params().to_vec()).is_ok());
            let back = q.dequantize();
            let len = grid.group_len(70);
            for r in 0..2 {
                for c in 0..70 {
                    let params = q.params()[r * grid.groups(70) + c / len];
                    let error = (weights.row(r)[c] - back.row(r)[c]).abs();
                    for code in 0..=grid.width().max_code() {
                        let other = (weights.row(r)[c] - params.value(code)).abs();
                        prop_assert!(error <= other + 1e-5, "code {code} is nearer to {}", weights.row(r)[c]);
                    }
                }
            }
        }

        #[test]
        fn the_ternary_step_is_the_best_one(data in proptest::collection::vec(-1.0f32..1.0, 40)) {
            let error = |step: f32| -> f32 {
                data.iter().map(|w| (w - step * (w / step).round().clamp(-1.0, 1.0)).powi(2)).sum()
            };
            let best = error(ternary_step(&data));
            for i in 1..100 {
                prop_assert!(best <= error(i as f32 / 80.0) + 1e-4);
            }
        }
    }

    #[test]
    fn points_of_a_grid_are_kept() {
        let grid = Grid::new(Width::Bits(3), Group::Row, false).unwrap();
        let params = GroupParams { step: f16::from_f32(0.25), zero: 2 };
        let codes: Vec<u8> = (0..8).collect();
        let weights = Matrix::new(1, 8, codes.iter().map(|&c| params.value(c)).collect()).unwrap();
        let q = grid.round(&weights).unwrap();
        assert_eq!((q.codes(), q.params()[0]), (&codes[..], params));
        assert_eq!(q.dequantize(), weights);
        assert_eq!(grid.bits_a_weight(64), 3.0 + 24.0 / 64.0);
    }

    #[test]
    fn groups_of_zeros_and_huge_weights_have_finite_steps() {
        for symmetric in [true, false] {
            let grid = Grid::new(Width::Bits(4), Group::Row, symmetric).unwrap();
            assert_eq!(grid.round(&Matrix::zeros(1, 5)).unwrap().dequantize(), Matrix::zeros(1, 5));
            let huge = grid.round(&Matrix::new(1, 2, vec![1e30, -1e30]).unwrap()).unwrap();
            assert!(huge.dequantize().data().iter().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn what_is_no_grid_is_refused() {
        assert!(Grid::new(Width::Bits(1), Group::Row, true).is_err());
        assert!(Grid::new(Width::Bits(4), Group::Of(40), true).is_err());
        assert!(Grid::new(Width::Ternary, Group::Row, false).is_err());
        assert!("9".parse::<Width>().is_err() && "48".parse::<Group>().is_err());
        assert_eq!(
            ("ternary".parse::<Width>().unwrap(), "row".parse::<Group>().unwrap()),
            (Width::Ternary, Group::Row)
        );
        let grid = Grid::new(Width::Bits(2), Group::Row, true).unwrap();
        let params = GroupParams { step: f16::ONE, zero: 2 };
        assert!(Quantized::new(grid, 1, 2, vec![0, 4], vec![params]).is_err());
        assert!(Quantized::new(grid, 1, 2, vec![0, 3], vec![GroupParams { zero: 1, ..params }]).is_err());
        assert!(Quantized::new(grid, 1, 2, vec![0, 3], vec![GroupParams { step: f16::NAN, ..params }]).is_err());
        assert!(Quantized::new(grid, 1, 2, vec![0, 3], vec![params; 2]).is_err());
    }
}
