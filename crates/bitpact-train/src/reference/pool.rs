//! Maximum and mean over windows.

use bitpact_graph::{NodeId, Shape, Window};

use super::ReferenceBackend;
use super::value::Value;

/// How a pool's window moves over an image.
struct Moving {
    window: Window,
    shapes: [Shape; 2],
}

impl Moving {
    /// Elements of the input, inside the image and in row order, that element `y` of the output sees.
    fn elements(&self, y: usize) -> impl Iterator<Item = usize> {
        let ([from, to], window) = (self.shapes, self.window);
        let (c, column, row, image) = (y % to.c, y / to.c % to.w, y / to.c / to.w % to.h, y / to.elements());
        let taps = (0..window.kernel[0]).flat_map(move |ky| (0..window.kernel[1]).map(move |kx| (ky, kx)));
        let sources = taps.filter_map(move |tap| window.source(from, (row, column), tap));
        sources.map(move |(iy, ix)| ((image * from.h + iy) * from.w + ix) * from.c + c)
    }
}

impl ReferenceBackend {
    pub(super) fn max_pool(&self, id: NodeId) -> Value {
        let first = self.maxima(id);
        self.input(id).gather(first.len(), |y| Some(first[y]))
    }

    pub(super) fn max_pool_backward(&self, id: NodeId, g: &[f32]) -> Vec<Vec<f32>> {
        let mut dx = vec![0f64; self.input(id).len()];
        self.maxima(id).into_iter().zip(g).for_each(|(x, &g)| dx[x] += f64::from(g));
        vec![dx.into_iter().map(|dx| dx as f32).collect()]
    }

    /// Position of the largest element of each window; of equal ones, the first.
    fn maxima(&self, id: NodeId) -> Vec<usize> {
        let (pool, x) = (self.pool(id), self.real(self.input(id)));
        let largest = |y: usize| {
            let all = pool.elements(y);
            all.reduce(|best, at| if x[at] > x[best] { at } else { best }).expect("a pool sees more than padding")
        };
        (0..self.images * pool.shapes[1].elements()).map(largest).collect()
    }

    /// The mean of every window; global, of the image.
    pub(super) fn mean_pool(&self, id: NodeId) -> Value {
        let (pool, divisor) = (self.pool(id), self.divisor(id));
        let mean = |y: usize| match self.input(id) {
            Value::Codes { codes, scale, .. } => {
                (scale / divisor(y) as f32) * pool.elements(y).map(|x| codes[x]).sum::<i32>() as f32
            }
            Value::Real(values) => {
                (pool.elements(y).map(|x| f64::from(values[x])).sum::<f64>() / f64::from(divisor(y) as f32)) as f32
            }
            Value::Sums { .. } => unreachable!("sums are read by batch norms alone"),
        };
        Value::Real((0..self.images * pool.shapes[1].elements()).map(mean).collect())
    }

    pub(super) fn mean_pool_backward(&self, id: NodeId, g: &[f32]) -> Vec<Vec<f32>> {
        let (pool, divisor) = (self.pool(id), self.divisor(id));
        let mut dx = vec![0f64; self.input(id).len()];
        for (y, &g) in g.iter().enumerate() {
            pool.elements(y).for_each(|x| dx[x] += f64::from(g) / divisor(y) as f64);
        }
        vec![dx.into_iter().map(|dx| dx as f32).collect()]
    }

    /// Divisor of the mean at an element of the output.
    fn divisor(&self, id: NodeId) -> impl Fn(usize) -> usize {
        let divisors = self.graph.node(id).op.divisors(self.graph.input_shape(id)).expect("an average pool");
        let c = self.graph.shape(id).c;
        move |y| divisors[y / c % divisors.len()]
    }

    fn pool(&self, id: NodeId) -> Moving {
        let shapes = [self.graph.input_shape(id), self.graph.shape(id)];
        Moving { window: self.graph.node(id).op.window(shapes[0]).expect("a pool has a window"), shapes }
    }
}
