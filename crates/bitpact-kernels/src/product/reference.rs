//! The scalar product: the definition the other kernels are tested against.

use std::ops::Range;

use super::walk::Walk;
use super::{Product, ProductSpec};

/// One multiplication after the other, for weights of up to 16 bits.
#[derive(Debug)]
pub(super) struct Reference {
    walk: Walk,
    /// Offset in x and weight of every product of each channel.
    products: Vec<Vec<(usize, i32)>>,
}

impl Reference {
    /// Lists the products.
    pub(super) fn new(spec: &ProductSpec<'_>) -> Self {
        let (g, inputs) = (&spec.geometry, spec.geometry.cin / spec.groups);
        let products = (0..g.cout).map(|o| {
            let first = o / (g.cout / spec.groups) * inputs;
            let window = (0..g.kh).flat_map(|a| (0..g.kw).map(move |b| (a, b)));
            let places = window.flat_map(|(a, b)| (0..inputs).map(move |i| (a, b, i)));
            let product = |(a, b, i): (usize, usize, usize)| {
                let weight = spec.codes[((o * inputs + i) * g.kh + a) * g.kw + b];
                (a * spec.x.row() + b * spec.x.cs + first + i, i32::from(weight))
            };
            places.map(product).filter(|&(_, w)| w != 0).collect()
        });
        Self { walk: Walk::new(spec), products: products.collect() }
    }
}

impl Product for Reference {
    fn name(&self) -> String {
        "direct scalar".to_owned()
    }

    fn block(&self) -> usize {
        16
    }

    fn weight_bytes(&self) -> usize {
        self.products.iter().map(|products| size_of_val(&**products)).sum()
    }

    fn accumulate(&self, x: &[u8], _scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        assert_eq!(acc.len(), rows.len() * self.walk.width * channels.len(), "accumulators");
        let pixels = rows.flat_map(|r| (0..self.walk.width).map(move |q| (r, q)));
        for ((r, q), acc) in pixels.zip(acc.chunks_exact_mut(channels.len())) {
            let x = &x[self.walk.at(r, q)..];
            for (o, acc) in channels.clone().zip(acc) {
                let products = self.products.get(o).map_or(&[][..], |products| products);
                *acc = products.iter().map(|&(at, w)| i32::from(x[at]) * w).sum();
            }
        }
    }
}
