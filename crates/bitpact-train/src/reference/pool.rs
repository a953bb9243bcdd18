//! Maximum and mean over windows.

use std::ops::Range;

use bitpact_graph::{NodeId, Op, Shape};

use super::ReferenceBackend;
use super::value::Value;

/// How a pool's window moves over an image.
struct Window {
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
    shapes: [Shape; 2],
}

impl Window {
    /// Elements of the input, inside the image and in row order, that element `y` of the output sees.
    fn elements(&self, y: usize) -> impl Iterator<Item = usize> {
        let [from, to] = self.shapes;
        let (c, column, row, image) = (y % to.c, y / to.c % to.w, y / to.c / to.w % to.h, y / to.elements());
        let span = |at: usize, kernel: usize, side: usize| -> Range<usize> {
            let start = at * self.stride;
            start.saturating_sub(self.padding)..(start + kernel).saturating_sub(self.padding).min(side)
        };
        let columns = span(column, self.kernel[1], from.w);
        span(row, self.kernel[0], from.h)
            .flat_map(move |iy| columns.clone().map(move |ix| ((image * from.h + iy) * from.w + ix) * from.c + c))
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

    /// Where each window has its largest element, of equal ones the first.
    fn maxima(&self, id: NodeId) -> Vec<usize> {
        let (window, x) = (self.pool(id), self.real(self.input(id)));
        let largest = |y: usize| {
            let all = window.elements(y);
            all.reduce(|best, at| if x[at] > x[best] { at } else { best }).expect("padding is less than the kernel")
        };
        (0..self.images * window.shapes[1].elements()).map(largest).collect()
    }

    /// The mean of every window, padding counting as zeros; global, of the image.
    pub(super) fn mean_pool(&self, id: NodeId) -> Value {
        let window = self.pool(id);
        let count = (window.kernel[0] * window.kernel[1]) as f32;
        let mean = |y: usize| match self.input(id) {
            Value::Codes { codes, scale } => (scale / count) * window.elements(y).map(|x| codes[x]).sum::<i32>() as f32,
            Value::Real(values) => {
                (window.elements(y).map(|x| f64::from(values[x])).sum::<f64>() / f64::from(count)) as f32
            }
            Value::Sums { .. } => unreachable!("sums are read by batch norms alone"),
        };
        Value::Real((0..self.images * window.shapes[1].elements()).map(mean).collect())
    }

    pub(super) fn mean_pool_backward(&self, id: NodeId, g: &[f32]) -> Vec<Vec<f32>> {
        let window = self.pool(id);
        let count = (window.kernel[0] * window.kernel[1]) as f64;
        let mut dx = vec![0f64; self.input(id).len()];
        for (y, &g) in g.iter().enumerate() {
            window.elements(y).for_each(|x| dx[x] += f64::from(g) / count);
        }
        vec![dx.into_iter().map(|dx| dx as f32).collect()]
    }

    fn pool(&self, id: NodeId) -> Window {
        let shapes = [self.graph.input_shape(id), self.graph.shape(id)];
        match self.graph.node(id).op {
            Op::MaxPool { kernel, stride, padding } | Op::AvgPool { kernel, stride, padding } => {
                Window { kernel: [kernel; 2], stride, padding, shapes }
            }
            _ => Window { kernel: [shapes[0].h, shapes[0].w], stride: 1, padding: 0, shapes },
        }
    }
}
