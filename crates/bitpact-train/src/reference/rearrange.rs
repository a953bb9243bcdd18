//! Sums of two tensors, and operations that move or drop elements.

use bitpact_core::rng::Key;
use bitpact_graph::{NodeId, Op, Rate, Shape};

use super::value::Value;
use super::{Mode, ReferenceBackend};

impl ReferenceBackend {
    pub(super) fn add(&self, id: NodeId) -> Value {
        let [a, b] = [0, 1].map(|i| &self.values[self.graph.node(id).inputs[i]]);
        let (codes, scale, other) = match (a, b) {
            (Value::Codes { codes, scale }, other) | (other, Value::Codes { codes, scale }) => (codes, *scale, other),
            _ => return Value::Real(self.real(a).iter().zip(self.real(b)).map(|(a, b)| a + b).collect()),
        };
        let sum = |(&q, real)| self.multiply_add(q as f32, scale, real);
        Value::Real(codes.iter().zip(self.real(other)).map(sum).collect())
    }

    pub(super) fn subsample(&self, id: NodeId) -> Value {
        let len = self.images * self.graph.shape(id).elements();
        self.input(id).gather(len, |y| self.subsampled(id, y))
    }

    pub(super) fn subsample_backward(&self, id: NodeId, g: &[f32]) -> Vec<Vec<f32>> {
        let mut dx = vec![0.0; self.input(id).len()];
        for (y, &g) in g.iter().enumerate() {
            self.subsampled(id, y).into_iter().for_each(|x| dx[x] = g);
        }
        vec![dx]
    }

    /// The element of the input that element `y` of the output is; none where it is a zero channel.
    fn subsampled(&self, id: NodeId, y: usize) -> Option<usize> {
        let Op::Subsample { stride, pad_before, .. } = self.graph.node(id).op else { unreachable!("a subsample") };
        let (from, to) = (self.graph.input_shape(id), self.graph.shape(id));
        let (c, column, row, image) = (y % to.c, y / to.c % to.w, y / to.c / to.w % to.h, y / to.elements());
        let c = c.checked_sub(pad_before).filter(|&c| c < from.c)?;
        Some(((image * from.h + row * stride) * from.w + column * stride) * from.c + c)
    }

    pub(super) fn concat(&self, id: NodeId) -> Value {
        let inputs: Vec<&Value> = self.graph.node(id).inputs.iter().map(|&input| &self.values[input]).collect();
        let place = self.concatenated(id);
        let codes = |value: &&Value| match value {
            Value::Codes { codes, scale } => Some((codes.clone(), *scale)),
            _ => None,
        };
        match inputs.iter().map(codes).collect::<Option<Vec<_>>>() {
            // Activations that are concatenated share their clip value, and so their scale.
            Some(all) if all.iter().all(|(_, scale)| *scale == all[0].1) => {
                Value::Codes { codes: place.iter().map(|&(input, x)| all[input].0[x]).collect(), scale: all[0].1 }
            }
            _ => {
                let all: Vec<Vec<f32>> = inputs.iter().map(|value| self.real(value)).collect();
                Value::Real(place.iter().map(|&(input, x)| all[input][x]).collect())
            }
        }
    }

    pub(super) fn concat_backward(&self, id: NodeId, g: &[f32]) -> Vec<Vec<f32>> {
        let inputs = &self.graph.node(id).inputs;
        let mut all: Vec<Vec<f32>> = inputs.iter().map(|&input| vec![0.0; self.values[input].len()]).collect();
        self.concatenated(id).into_iter().zip(g).for_each(|((input, x), &g)| all[input][x] = g);
        all
    }

    /// The input, and its element, that each element of the output is.
    fn concatenated(&self, id: NodeId) -> Vec<(usize, usize)> {
        let channels: Vec<usize> = self.graph.node(id).inputs.iter().map(|&i| self.graph.shape(i).c).collect();
        let Shape { h, w, .. } = self.graph.shape(id);
        let pixel = |pixel: usize| {
            let of_input = move |(input, c): (usize, usize)| (0..c).map(move |i| (input, pixel * c + i));
            channels.iter().copied().enumerate().flat_map(of_input).collect::<Vec<_>>()
        };
        (0..self.images * h * w).flat_map(pixel).collect()
    }

    pub(super) fn dropout(&self, id: NodeId, mode: Mode) -> Value {
        let x = self.real(self.input(id));
        match mode {
            Mode::Train => Value::Real(x.iter().zip(self.kept(id)).map(|(x, factor)| x * factor).collect()),
            _ => Value::Real(x),
        }
    }

    pub(super) fn dropout_backward(&self, id: NodeId, g: &[f32]) -> Vec<Vec<f32>> {
        vec![g.iter().zip(self.kept(id)).map(|(g, factor)| g * factor).collect()]
    }

    /// The factor of every element: 0 with the probability of the rate, else `1 / (1 - rate)`. An element draws by the step's key, the
    /// node's name, its image, and its number in an image whose channels are filled up to a multiple of 16.
    fn kept(&self, id: NodeId) -> Vec<f32> {
        let Op::Dropout { rate: Rate(rate) } = self.graph.node(id).op else { unreachable!("a dropout") };
        let (rate, shape) = (rate as f32, self.graph.shape(id));
        let key = self.key.with("dropout").with(&self.graph.node(id).name);
        let of_image = |key: Key| {
            let numbers = (0..shape.elements()).map(|i| i / shape.c * shape.c.next_multiple_of(16) + i % shape.c);
            numbers.map(move |number| if key.uniform(number as u64) < rate { 0.0 } else { 1.0 / (1.0 - rate) })
        };
        (0..self.images).flat_map(|image| of_image(key.at(image as u64))).collect()
    }
}
