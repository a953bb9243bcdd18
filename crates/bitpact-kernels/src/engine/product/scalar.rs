//! The scalar product: the definition the other kernels are tested against.

use std::ops::Range;

use super::walk::Walk;
use super::{Product, ProductSpec};

/// One output after the other, for weights of up to 16 bits.
#[derive(Debug)]
pub(super) struct ScalarProduct {
    walk: Walk,
    /// Where each run of consecutive codes of the window begins in x, from the group's first channel on.
    runs: Vec<usize>,
    /// Codes of a run.
    codes: usize,
    /// First input channel of each output's group.
    first: Vec<usize>,
    /// `[out][run][code]`.
    weights: Vec<i16>,
}

impl ScalarProduct {
    /// Orders the weights by runs.
    pub(super) fn new(spec: &ProductSpec<'_>) -> Self {
        let (g, inputs) = (&spec.geometry, spec.geometry.cin / spec.groups);
        let window = || (0..g.kh).flat_map(|a| (0..g.kw).map(move |b| (a, b)));
        let weight = |o: usize, (a, b): (usize, usize), i: usize| spec.codes[((o * inputs + i) * g.kh + a) * g.kw + b];
        let runs = window().map(|(a, b)| a * spec.x.row() + b * spec.x.cs).collect();
        let weights = (0..g.cout).flat_map(|o| window().flat_map(move |at| (0..inputs).map(move |i| weight(o, at, i))));
        let first = (0..g.cout).map(|o| o / (g.cout / spec.groups) * inputs).collect();
        Self { walk: Walk::new(spec), runs, codes: inputs, first, weights: weights.collect() }
    }
}

impl Product for ScalarProduct {
    fn name(&self) -> String {
        "direct scalar".to_owned()
    }

    fn block(&self) -> usize {
        16
    }

    fn weight_bytes(&self) -> usize {
        size_of_val(&*self.weights)
    }

    fn accumulate(&self, x: &[u8], _scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        assert_eq!(acc.len(), rows.len() * self.walk.width * channels.len(), "accumulators");
        let pixels = rows.flat_map(|r| (0..self.walk.width).map(move |q| (r, q)));
        for ((r, q), acc) in pixels.zip(acc.chunks_exact_mut(channels.len())) {
            let x = &x[self.walk.at(r, q)..];
            for (o, acc) in channels.clone().zip(acc) {
                *acc = 0;
                let Some(first) = self.first.get(o) else { continue };
                let weights = self.weights[o * self.runs.len() * self.codes..].chunks_exact(self.codes);
                for (run, weights) in self.runs.iter().zip(weights) {
                    let codes = &x[run + first..][..self.codes];
                    *acc += codes.iter().zip(weights).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum::<i32>();
                }
            }
        }
    }
}
