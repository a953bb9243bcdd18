//! What every value of an integer network can be, for any image.

use bitpact_core::requant::accumulator_range;

use super::{IntegerModel, IntegerProduct, IntegerSum, IntegerTerm, IntegerView};

/// Smallest and largest value.
type Range = (i64, i64);

impl IntegerModel {
    /// Smallest and largest sum of every output channel of a product, for any image.
    ///
    /// # Errors
    /// A sum that can leave i64.
    pub fn acc_ranges(&self, product: &IntegerProduct) -> Result<Vec<Range>, String> {
        let (lo, hi) = self.code_range(product.input);
        let pads = product.reads_padding() && product.input > 0;
        let lo = if pads { lo.min(product.padding_code.into()) } else { lo };
        (0..product.out_channels)
            .map(|o| {
                // Below 2^15 times the number of codes.
                let (negative, positive) = accumulator_range(product.channel(o), 0, 1);
                let [n, p, lo, hi] = [negative, positive, lo, hi].map(i128::from);
                let ends = (i64::try_from(lo * p + hi * n), i64::try_from(hi * p + lo * n));
                let (Ok(from), Ok(to)) = ends else {
                    return Err(format!("channel {o} of `{}`: the sum can leave 64 bits", product.name));
                };
                Ok((from, to))
            })
            .collect()
    }

    /// Smallest and largest value of a view: those of its tensor and, where it inserts elements, of these.
    pub fn view_range(&self, view: &IntegerView) -> Range {
        let (lo, hi) = self.code_range(view.input);
        if view.inserts() { (lo.min(view.fill), hi.max(view.fill)) } else { (lo, hi) }
    }

    /// Smallest and largest value of every term of a sum with so many output channels, `[term][channel]`.
    ///
    /// # Errors
    /// A sum of a product that can leave i64.
    pub fn term_ranges(&self, sum: &IntegerSum, channels: usize) -> Result<Vec<Vec<Range>>, String> {
        let range = |term: &IntegerTerm| match term {
            IntegerTerm::Product(product) => self.acc_ranges(product),
            IntegerTerm::View(view) => Ok(vec![self.view_range(view); channels]),
            IntegerTerm::Multiplication { a, b, zeros } => {
                Ok(vec![self.multiplication_range([a, b], *zeros); channels])
            }
        };
        sum.terms.iter().map(range).collect()
    }

    /// Smallest and largest product of two views less their zeros.
    pub fn multiplication_range(&self, factors: [&IntegerView; 2], zeros: [i64; 2]) -> Range {
        let [a, b] = [0, 1].map(|i| {
            let (lo, hi) = self.view_range(factors[i]);
            [lo - zeros[i], hi - zeros[i]]
        });
        let ends = a.iter().flat_map(|a| b.iter().map(move |b| a * b));
        ends.fold((i64::MAX, i64::MIN), |(lo, hi), end| (lo.min(end), hi.max(end)))
    }

    /// Smallest and largest value of a wide sum: the extremes over the proved ranges of its terms, of all channels, and
    /// what is added after the shift.
    pub(super) fn wide_range(&self, sum: &IntegerSum, channels: usize) -> Result<Range, String> {
        let ranges = self.term_ranges(sum, channels)?;
        let (mut lo, mut hi) = (i128::MAX, i128::MIN);
        for c in 0..channels {
            let (from, to) = sum.requant.sum_range(c, &ranges);
            (lo, hi) = (lo.min(from >> sum.requant.shift.min(62)), hi.max(to >> sum.requant.shift.min(62)));
        }
        for (view, mul) in &sum.base {
            let (from, to) = self.view_range(view);
            let ends = [from, to].map(|end| i128::from(end) * i128::from(*mul));
            (lo, hi) = (lo + ends[0].min(ends[1]), hi + ends[0].max(ends[1]));
        }
        if lo <= i128::from(i32::MIN) || hi > i128::from(i32::MAX) {
            return Err(format!("values from {lo} to {hi}, expected those of 32 bits"));
        }
        Ok((lo as i64, hi as i64))
    }
}
