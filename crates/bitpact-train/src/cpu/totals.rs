//! Sums over the images of a batch, one channel beside the other, in the order of images.

use bitpact_kernels::norm::UnitSums;

/// Memory for the sums of the widest layer.
pub(super) struct Totals {
    int: Vec<i128>,
    real: Vec<f64>,
}

impl Totals {
    /// For `cs` channels at the most.
    pub(super) fn new(cs: usize) -> Self {
        Self { int: vec![0; 2 * cs], real: vec![0.0; UnitSums::PARTS * cs] }
    }

    /// Sums of rows of `cs` sums and `cs` sums of squares, exactly. Those of squares are the bits of a u64.
    pub(super) fn int(&mut self, rows: &[i64], cs: usize) -> &[i128] {
        let totals = &mut self.int[..2 * cs];
        totals.fill(0);
        let (sums, squares) = totals.split_at_mut(cs);
        for row in rows.chunks_exact(2 * cs) {
            sums.iter_mut().zip(row).for_each(|(total, &v)| *total += i128::from(v));
            squares.iter_mut().zip(&row[cs..]).for_each(|(total, &v)| *total += i128::from(v as u64));
        }
        &self.int[..2 * cs]
    }

    /// Sums of the rows, of `width` numbers each, in their order.
    pub(super) fn real(&mut self, rows: &[f64], width: usize) -> &[f64] {
        let totals = &mut self.real[..width];
        totals.fill(0.0);
        for row in rows.chunks_exact(width) {
            totals.iter_mut().zip(row).for_each(|(total, &v)| *total += v);
        }
        totals
    }

    /// What pass one of the backward found in all images, from each image's [`UnitSums`] of `cs` channels.
    pub(super) fn found(&mut self, images: &[f32], cs: usize) -> Found<'_> {
        let totals = &mut self.real[..UnitSums::PARTS * cs];
        let (sums, extremes) = totals.split_at_mut(2 * cs);
        sums.fill(0.0);
        let (largest_g, z) = extremes.split_at_mut(cs);
        let (lowest_z, highest_z) = z.split_at_mut(cs);
        largest_g.fill(f64::from(f32::MIN));
        lowest_z.fill(f64::from(f32::MAX));
        highest_z.fill(f64::from(f32::MIN));
        for image in images.chunks_exact(UnitSums::PARTS * cs) {
            let (image_sums, image) = image.split_at(2 * cs);
            sums.iter_mut().zip(image_sums).for_each(|(total, &v)| *total += f64::from(v));
            let (g, image) = image.split_at(cs);
            let (low, high) = image.split_at(cs);
            largest_g.iter_mut().zip(g).for_each(|(total, &v)| *total = total.max(f64::from(v)));
            lowest_z.iter_mut().zip(low).for_each(|(total, &v)| *total = total.min(f64::from(v)));
            highest_z.iter_mut().zip(high).for_each(|(total, &v)| *total = total.max(f64::from(v)));
        }
        Found { totals, cs }
    }
}

/// What pass one of the backward found in a batch, per channel.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    totals: &'a [f64],
    cs: usize,
}

impl Found<'_> {
    /// Sums of dL/du and of dL/du * xhat.
    pub(super) fn sums(&self, c: usize) -> (f64, f64) {
        (self.totals[c], self.totals[self.cs + c])
    }

    /// Largest |dL/du|, smallest and largest accumulator.
    pub(super) fn extremes(&self, c: usize) -> [f32; 3] {
        [2, 3, 4].map(|part| self.totals[part * self.cs + c] as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitpact_core::rng::Key;

    /// Against sums channel by channel; in float64, whose order would show.
    #[test]
    fn images_are_added_in_their_order() {
        let (cs, n) = (16, 7);
        let normal = |i: usize| Key::new(2).normal(i as u64);
        let mut totals = Totals::new(32);
        let rows: Vec<f64> = (0..n * 2 * cs).map(|i| f64::from(normal(i)) * 1e9f64.powi(i as i32 % 3)).collect();
        let column = |c: usize, width: usize| rows[c..].iter().step_by(width).copied();
        for (c, &total) in totals.real(&rows, 2 * cs).iter().enumerate() {
            assert_eq!(total, column(c, 2 * cs).fold(0.0, |a, b| a + b));
        }
        let large: Vec<i64> = rows.iter().map(|&v| if v > 0.0 { i64::MAX - 1 } else { i64::MIN }).collect();
        for (c, &total) in totals.int(&large, cs).iter().enumerate() {
            let value = |&v: &i64| if c < cs { i128::from(v) } else { i128::from(v as u64) };
            assert_eq!(total, large[c..].iter().step_by(2 * cs).map(value).sum::<i128>());
        }
        let images: Vec<f32> = (0..n * UnitSums::PARTS * cs).map(normal).collect();
        let found = totals.found(&images, cs);
        for c in 0..cs {
            let part = |p: usize| images[p * cs + c..].iter().step_by(UnitSums::PARTS * cs).copied();
            let sum = |p| part(p).map(f64::from).fold(0.0, |a, b| a + b);
            assert_eq!(found.sums(c), (sum(0), sum(1)));
            let largest = |p| part(p).fold(f32::MIN, f32::max);
            assert_eq!(found.extremes(c), [largest(2), part(3).fold(f32::MAX, f32::min), largest(4)]);
        }
    }
}
