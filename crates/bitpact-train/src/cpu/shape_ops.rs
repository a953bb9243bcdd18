//! Average pooling, concatenation, dropout, and units without weights, forward and backward.

use bitpact_core::rng::Key;
use bitpact_kernels::norm::GradientOutput;
use bitpact_kernels::pool2d::{self, Window};
use bitpact_kernels::{Chunked, Isa, Layout, norm};

use super::plan::{StepPlan, Store, ValueId};
use super::product::Product;
use super::profile::Pool;
use super::slabs::{Slabs, Target};

impl StepPlan {
    pub(super) fn avg_pool(&mut self, pool: &Pool, n: usize, window: Window, input: ValueId, output: ValueId) {
        let mut store = std::mem::take(&mut self.values[output].store);
        let (x, y) = (&self.values[input], self.values[output].layout);
        let Store::Real(to) = &mut store else { unreachable!("means are real") };
        let scale = x.source.step(&self.params) / (window.kernel * window.kernel) as f32;
        let (len, zero) = (x.layout.len(), f32::from(x.source.zero_code()));
        let to = Chunked::new(to, y.len());
        pool.run(n, &|i, _| match &x.store {
            Store::Codes(_) => {
                pool2d::avg_forward(window, x.store.codes(i, len), x.layout, scale, zero, &mut to.get(i), y);
            }
            _ => pool2d::avg_forward(window, x.store.real(i, len), x.layout, scale, zero, &mut to.get(i), y),
        });
        drop(to);
        self.values[output].store = store;
    }

    pub(super) fn avg_pool_backward(
        &mut self,
        pool: &Pool,
        window: Window,
        input: ValueId,
        output: ValueId,
        slabs: Slabs,
    ) {
        let (x, y) = (self.values[input].dense(), self.values[output].dense());
        let target = slabs.input.expect("a pool never reads the image");
        self.map_gradient(pool, slabs.output, target, (y.len(), x.len()), |_, g, to| {
            pool2d::avg_backward(window, g, y, to, x);
        });
    }

    pub(super) fn concat(&mut self, pool: &Pool, n: usize, inputs: &[ValueId], output: ValueId) {
        let mut store = std::mem::take(&mut self.values[output].store);
        let (values, y) = (&self.values, self.values[output].layout);
        match &mut store {
            Store::Codes(to) => {
                let to = Chunked::new(to, y.len());
                pool.run(n, &|i, _| {
                    let mut first = 0;
                    for x in inputs.iter().map(|&input| &values[input]) {
                        copy_channels(
                            x.store.codes(i, x.layout.len()),
                            (x.layout, 0),
                            &mut to.get(i),
                            (y, first),
                            x.layout.c,
                        );
                        first += x.layout.c;
                    }
                });
            }
            Store::Real(to) => {
                let to = Chunked::new(to, y.len());
                pool.run(n, &|i, _| {
                    let mut first = 0;
                    for x in inputs.iter().map(|&input| &values[input]) {
                        copy_channels(
                            x.store.real(i, x.layout.len()),
                            (x.layout, 0),
                            &mut to.get(i),
                            (y, first),
                            x.layout.c,
                        );
                        first += x.layout.c;
                    }
                });
            }
            Store::Taken => unreachable!("nobody else writes this tensor"),
        }
        self.values[output].store = store;
    }

    pub(super) fn concat_backward(
        &mut self,
        pool: &Pool,
        inputs: &[ValueId],
        targets: &[Target],
        output: ValueId,
        slab: usize,
    ) {
        let y = self.values[output].dense();
        let mut first = 0;
        for (&input, &target) in inputs.iter().zip(targets) {
            let x = self.values[input].dense();
            self.map_gradient(pool, slab, target, (y.len(), x.len()), |_, g, to| {
                for (to, g) in to.chunks_exact_mut(x.cs).zip(g.chunks_exact(y.cs)) {
                    to[..x.c].iter_mut().zip(&g[first..]).for_each(|(to, g)| *to += g);
                }
            });
            first += x.c;
        }
    }

    /// Real values, those that `key` drops being 0 and the others divided by `1 - rate`; all of them where the rate is
    /// 0.
    pub(super) fn dropout(&mut self, pool: &Pool, n: usize, key: Key, rate: f32, input: ValueId, output: ValueId) {
        let mut store = std::mem::take(&mut self.values[output].store);
        let (x, y) = (&self.values[input], self.values[output].layout);
        let Store::Real(to) = &mut store else { unreachable!("what dropout gives is real") };
        let (len, step, zero) = (x.layout.len(), x.source.step(&self.params), f32::from(x.source.zero_code()));
        let to = Chunked::new(to, y.len());
        pool.run(n, &|i, _| {
            let (mut to, mask) = (to.get(i), Mask::new(key, i, rate));
            for (row, column) in (0..y.h).flat_map(|row| (0..y.w).map(move |column| (row, column))) {
                let (from, at) = (x.layout.offset(row, column), y.offset(row, column));
                let counter = ((row * y.w + column) * y.cs) as u64;
                let to = to[at..at + y.c].iter_mut().zip(counter..);
                match &x.store {
                    Store::Codes(_) => to.zip(&x.store.codes(i, len)[from..]).for_each(|((to, at), &code)| {
                        *to = step * (f32::from(code) - zero) * mask.factor(at);
                    }),
                    _ => to.zip(&x.store.real(i, len)[from..]).for_each(|((to, at), &value)| {
                        *to = value * mask.factor(at);
                    }),
                }
            }
        });
        drop(to);
        self.values[output].store = store;
    }

    pub(super) fn dropout_backward(&mut self, pool: &Pool, key: Key, rate: f32, input: ValueId, slabs: Slabs) {
        let len = self.values[input].dense().len();
        let target = slabs.input.expect("a dropout never reads the image");
        self.map_gradient(pool, slabs.output, target, (len, len), |i, g, to| {
            let mask = Mask::new(key, i, rate);
            for (j, (to, g)) in to.iter_mut().zip(g).enumerate() {
                *to += g * mask.factor(j as u64);
            }
        });
    }

    /// The second pass of a unit without weights: the gradient of its input from dL/du in slab `g`.
    pub(super) fn identity_backward(
        &mut self,
        isa: Isa,
        pool: &Pool,
        product: &Product,
        g: usize,
        target: Option<Target>,
    ) {
        let Some(target) = target else { return };
        let shape = product.z_layout;
        let mut scratch = std::mem::take(&mut self.scratch);
        {
            let scratch = Chunked::new(&mut scratch, 1);
            let (own, mut dx) = (std::mem::take(&mut self.slabs[g]), std::mem::take(&mut self.slabs[target.slab]));
            let to = Chunked::new(&mut dx[..self.batch * shape.len()], shape.len());
            let [k1, k2, k3] = &product.channels.k;
            pool.run(self.batch, &|i, worker| {
                let (g, mut to) = (&own[i * shape.len()..(i + 1) * shape.len()], to.get(i));
                if !target.accumulate {
                    return norm::backward_apply(
                        isa,
                        shape,
                        product.z(i),
                        [k1, k2, k3],
                        g,
                        GradientOutput::Real(&mut to),
                        shape,
                    );
                }
                let mut scratch = scratch.get(worker);
                let dz = &mut scratch[0].dz[..shape.len()];
                norm::backward_apply(isa, shape, product.z(i), [k1, k2, k3], g, GradientOutput::Real(dz), shape);
                to.iter_mut().zip(&*dz).for_each(|(to, dz)| *to += dz);
            });
            drop(to);
            (self.slabs[g], self.slabs[target.slab]) = (own, dx);
        }
        self.scratch = scratch;
    }

    /// Calls `f(i, g, to)` for the gradients of image `i`, of `lens` elements, from slab `from` to `target`, zeroed
    /// where nothing stands there yet.
    fn map_gradient(
        &mut self,
        pool: &Pool,
        from: usize,
        target: Target,
        lens: (usize, usize),
        f: impl Fn(usize, &[f32], &mut [f32]) + Sync,
    ) {
        debug_assert_ne!(from, target.slab);
        let g = std::mem::take(&mut self.slabs[from]);
        let mut dx = std::mem::take(&mut self.slabs[target.slab]);
        let to = Chunked::new(&mut dx[..self.batch * lens.1], lens.1);
        pool.run(self.batch, &|i, _| {
            let mut to = to.get(i);
            if !target.accumulate {
                to.fill(0.0);
            }
            f(i, &g[i * lens.0..(i + 1) * lens.0], &mut to);
        });
        drop(to);
        (self.slabs[from], self.slabs[target.slab]) = (g, dx);
    }
}

/// Which elements of one image a dropout keeps: a function of key, image and element.
struct Mask {
    key: Key,
    rate: f32,
    kept: f32,
}

impl Mask {
    fn new(key: Key, image: usize, rate: f32) -> Self {
        Self { key: key.at(image as u64), rate, kept: 1.0 / (1.0 - rate) }
    }

    /// 0 with the probability of the rate, else `1 / (1 - rate)`.
    fn factor(&self, element: u64) -> f32 {
        if self.key.uniform(element) < self.rate { 0.0 } else { self.kept }
    }
}

/// Copies `channels` channels of every pixel, from and to the given first ones.
fn copy_channels<T: Copy>(
    x: &[T],
    (from, first): (Layout, usize),
    y: &mut [T],
    (to, start): (Layout, usize),
    channels: usize,
) {
    for row in 0..from.h {
        for column in 0..from.w {
            let (a, b) = (from.offset(row, column) + first, to.offset(row, column) + start);
            y[b..b + channels].copy_from_slice(&x[a..a + channels]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_keeps_its_share_and_the_mean() {
        let n = 100_000;
        for rate in [0.0f32, 0.1, 0.5] {
            let mask = Mask::new(Key::new(5), 3, rate);
            let factors: Vec<f32> = (0..n).map(|i| mask.factor(i)).collect();
            let dropped = factors.iter().filter(|f| **f == 0.0).count() as f32 / n as f32;
            let mean = factors.iter().sum::<f32>() / n as f32;
            assert!((dropped - rate).abs() < 0.006 && (mean - 1.0).abs() < 0.012, "{rate}: {dropped}, mean {mean}");
        }
        let of = |image: usize| (0..64).map(|i| Mask::new(Key::new(5), image, 0.5).factor(i)).collect::<Vec<_>>();
        assert_ne!(of(0), of(1));
    }
}
