//! Products of real numbers, lowered to matrices: the windows of an image are the rows of one, the weights the other.

use bitpact_core::rng::Key;
use bitpact_graph::{Graph, NodeId, Shape, Window};
use bitpact_kernels::float::{View, ViewMut, multiply};
use bitpact_kernels::{Chunked, Pool};
use bitpact_model::InputDescription;
use bitpact_ptq::{Gram, Matrix, PtqError};

use super::forward::each_image;

/// Windows that a Gram matrix is made of, at the most, and for each column where those are many.
const TOKENS: usize = 1 << 13;
const TOKENS_PER_COLUMN: usize = 4;
/// Windows of these that are lowered at once.
const TOKENS_AT_ONCE: usize = 1 << 12;
/// Rows of lowered windows that are one task.
const TASK_ROWS: usize = 64;

/// A convolution or linear layer as products of matrices, one a group: `outputs x columns`, with the columns in the
/// order `[row of the window][column][input of the group]`.
pub(super) struct Lowered {
    window: Window,
    groups: usize,
    from: Shape,
    to: Shape,
    /// For each element of the matrices, group after group, its place in the weight tensor.
    places: Vec<usize>,
    /// What each element is multiplied with before it is quantized: of layers that read the image, the scale of the
    /// pixel; else empty.
    pixel_scales: Vec<f32>,
}

impl Lowered {
    pub(super) fn new(graph: &Graph, id: NodeId, input: &InputDescription) -> Self {
        let (op, from, to) = (graph.node(id).op, graph.input_shape(id), graph.shape(id));
        let (window, groups) = (op.window(from).expect("a product has a window"), op.groups());
        let plane = window.kernel[0] * window.kernel[1];
        let (inputs, outputs) = (from.c / groups, to.c / groups);
        let (order, columns) = (graph.weight_order(id), inputs * plane);
        let place = |at: usize| {
            let (o, tap, i) = (at / columns, at % columns / inputs, at % inputs);
            let oihw = (o * inputs + i) * plane + tap;
            order.as_ref().map_or(oihw, |order| order[oihw])
        };
        let scale = |at: usize| input.scale[at / columns / outputs * inputs + at % inputs];
        let reads_image = graph.node(id).inputs[0] == 0;
        let all = || 0..to.c * columns;
        let pixel_scales = if reads_image { all().map(scale).collect() } else { Vec::new() };
        Self { window, groups, from, to, places: all().map(place).collect(), pixel_scales }
    }

    /// Groups of channels.
    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// Rows of each group's matrix.
    pub(super) fn rows(&self) -> usize {
        self.to.c / self.groups
    }

    /// Columns of each group's matrix.
    pub(super) fn columns(&self) -> usize {
        self.places.len() / self.to.c
    }

    /// The matrices of a weight tensor, group after group, pixel scales multiplied in.
    pub(super) fn matrices(&self, tensor: &[f32]) -> Vec<f32> {
        let mut all: Vec<f32> = self.places.iter().map(|&at| tensor[at]).collect();
        all.iter_mut().zip(&self.pixel_scales).for_each(|(w, scale)| *w *= scale);
        all
    }

    /// The weight tensor of such matrices.
    pub(super) fn tensor(&self, matrices: &[f32]) -> Vec<f32> {
        let mut tensor = vec![0.0; matrices.len()];
        for (i, (&at, &w)) in self.places.iter().zip(matrices).enumerate() {
            tensor[at] = self.pixel_scales.get(i).map_or(w, |scale| w / scale);
        }
        tensor
    }

    /// Writes what the window of one output position sees of a group's channels of an image; padding is 0.
    fn lower(&self, image: &[f32], group: usize, (y, x): (usize, usize), row: &mut [f32]) {
        let ([_, kw], c) = (self.window.kernel, self.from.c);
        let inputs = c / self.groups;
        for (tap, to) in row.chunks_exact_mut(inputs).enumerate() {
            match self.window.source(self.from, (y, x), (tap / kw, tap % kw)) {
                Some((iy, ix)) => {
                    let at = (iy * self.from.w + ix) * c + group * inputs;
                    to.copy_from_slice(&image[at..at + inputs]);
                }
                None => to.fill(0.0),
            }
        }
    }

    /// `y = W x + bias` at every position of every image.
    pub(super) fn forward(&self, x: &[f32], matrices: &[f32], bias: &[f32], images: usize, pool: &Pool) -> Vec<f32> {
        let (positions, columns) = (self.to.h * self.to.w, self.columns());
        each_image(self.to.elements(), images, pool, &|n, out| {
            let image = &x[n * self.from.elements()..][..self.from.elements()];
            if columns == self.window.kernel[0] * self.window.kernel[1] && self.to.c == self.from.c {
                self.depthwise(image, matrices, out);
            } else {
                let mut windows = vec![0.0; positions * columns];
                for group in 0..self.groups {
                    for (p, row) in windows.chunks_exact_mut(columns).enumerate() {
                        self.lower(image, group, (p / self.to.w, p % self.to.w), row);
                    }
                    let rows = self.rows();
                    let weights = View::new(&matrices[group * rows * columns..], rows, columns).t();
                    let to = ViewMut::strided(&mut out[group * rows..], positions, rows, self.to.c);
                    multiply(View::new(&windows, positions, columns), weights, to);
                }
            }
            for pixel in out.chunks_exact_mut(self.to.c) {
                pixel.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        })
    }

    /// One input and one output a group.
    fn depthwise(&self, image: &[f32], matrices: &[f32], out: &mut [f32]) {
        let ([_, kw], c, taps) = (self.window.kernel, self.to.c, self.columns());
        let by_tap: Vec<f32> = (0..taps * c).map(|at| matrices[at % c * taps + at / c]).collect();
        for (p, out) in out.chunks_exact_mut(c).enumerate() {
            out.fill(0.0);
            for (tap, weights) in by_tap.chunks_exact(c).enumerate() {
                let position = (p / self.to.w, p % self.to.w);
                let Some((iy, ix)) = self.window.source(self.from, position, (tap / kw, tap % kw)) else { continue };
                let pixel = &image[(iy * self.from.w + ix) * c..][..c];
                out.iter_mut().zip(pixel).zip(weights).for_each(|((y, x), w)| *y += x * w);
            }
        }
    }

    /// The Gram matrix of each group's windows: of all, or of 8192 (or four a column) that lie anywhere in all images,
    /// one in each of as many equal parts of them.
    pub(super) fn grams(&self, x: &[f32], images: usize, pool: &Pool) -> Result<Vec<Gram>, PtqError> {
        let (positions, columns) = (self.to.h * self.to.w, self.columns());
        let all = images * positions;
        let tokens = all.min(TOKENS.max(TOKENS_PER_COLUMN * columns));
        let key = Key::new(0).with("windows");
        let token = |i: usize| match all > tokens {
            true => {
                (((i as f64 + f64::from(key.uniform(i as u64))) * all as f64 / tokens as f64) as usize).min(all - 1)
            }
            false => i,
        };
        let of_group = |group: usize| {
            let mut gram = Gram::new(columns);
            for first in (0..tokens).step_by(TOKENS_AT_ONCE) {
                let rows = TOKENS_AT_ONCE.min(tokens - first);
                let mut windows = vec![0.0; rows * columns];
                let parts = Chunked::new(&mut windows, TASK_ROWS * columns);
                pool.run(parts.chunks(), &|task, _| {
                    for (r, row) in parts.get(task).chunks_exact_mut(columns).enumerate() {
                        let token = token(first + task * TASK_ROWS + r);
                        let image = &x[token / positions * self.from.elements()..][..self.from.elements()];
                        let p = token % positions;
                        self.lower(image, group, (p / self.to.w, p % self.to.w), row);
                    }
                });
                gram.add(&Matrix::new(rows, columns, windows)?, pool)?;
            }
            Ok(gram)
        };
        (0..self.groups).map(of_group).collect()
    }
}
