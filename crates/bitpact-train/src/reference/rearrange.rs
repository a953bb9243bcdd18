//! Sums and products of tensors, and operations that move or drop elements.

use bitpact_core::rng::Key;
use bitpact_graph::{Factor, Graph, GraphError, NodeId, Op, QuantPlan, Shape, fuse, fuse_float, moved_source};

use super::value::Value;
use super::{Mode, ReferenceBackend};

impl ReferenceBackend {
    /// The sum of the terms in their order; of an addition inside a sum, which nothing reads but the sum, of its
    /// inputs.
    pub(super) fn add(&self, id: NodeId) -> Value {
        let terms = &self.terms[id];
        let terms = if terms.is_empty() { &self.graph.node(id).inputs } else { terms };
        let mut sum = self.real(&self.values[terms[0]]);
        for &term in &terms[1..] {
            match &self.values[term] {
                Value::Codes { codes, scale, .. } => {
                    let codes = sum.iter_mut().zip(codes);
                    codes.for_each(|(sum, &q)| *sum = self.multiply_add(q as f32, *scale, *sum));
                }
                value => sum.iter_mut().zip(self.real(value)).for_each(|(sum, x)| *sum += x),
            }
        }
        Value::Real(sum)
    }

    /// Adds `g` to the gradients of every term, those inside additions of the same sum among them.
    pub(super) fn add_backward(&self, id: NodeId, g: &[f32], gradients: &mut [Vec<f32>]) {
        for &term in &self.terms[id] {
            gradients[term].iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
        }
    }

    pub(super) fn multiply(&self, id: NodeId) -> Value {
        let [a, b] = self.multiplied(id);
        Value::Real(a.iter().enumerate().map(|(i, a)| a * b[self.second(id, i)]).collect())
    }

    pub(super) fn multiply_backward(&self, id: NodeId, g: &[f32]) -> Vec<Vec<f32>> {
        let [a, b] = self.multiplied(id);
        let mut db = vec![0f64; b.len()];
        for (i, (&a, &g)) in a.iter().zip(g).enumerate() {
            db[self.second(id, i)] += f64::from(a) * f64::from(g);
        }
        let da = g.iter().enumerate().map(|(i, g)| g * b[self.second(id, i)]).collect();
        vec![da, db.into_iter().map(|d| d as f32).collect()]
    }

    /// The real numbers of both factors.
    fn multiplied(&self, id: NodeId) -> [Vec<f32>; 2] {
        [0, 1].map(|i| self.real(&self.values[self.graph.node(id).inputs[i]]))
    }

    /// The element of the second factor that goes with element `i` of the first.
    fn second(&self, id: NodeId, i: usize) -> usize {
        let (shape, second) = (self.graph.shape(id), self.graph.shape(self.graph.node(id).inputs[1]));
        if second == shape { i } else { i / shape.elements() * shape.c + i % shape.c }
    }

    pub(super) fn view(&self, id: NodeId) -> Value {
        let len = self.images * self.graph.shape(id).elements();
        self.input(id).gather(len, |y| self.moved(id, y))
    }

    pub(super) fn view_backward(&self, id: NodeId, g: &[f32]) -> Vec<Vec<f32>> {
        let mut dx = vec![0f64; self.input(id).len()];
        for (y, &g) in g.iter().enumerate() {
            self.moved(id, y).into_iter().for_each(|x| dx[x] += f64::from(g));
        }
        vec![dx.into_iter().map(|dx| dx as f32).collect()]
    }

    /// The element of the input that element `y` of the output is; none where it was inserted.
    fn moved(&self, id: NodeId, y: usize) -> Option<usize> {
        let (from, to) = (self.graph.input_shape(id), self.graph.shape(id));
        let (c, column, row, image) = (y % to.c, y / to.c % to.w, y / to.c / to.w % to.h, y / to.elements());
        let moves = self.graph.node(id).op.moves().expect("a view");
        let (row, column, c) = moved_source(from, &moves, (row, column, c))?;
        Some(((image * from.h + row) * from.w + column) * from.c + c)
    }

    pub(super) fn concat(&self, id: NodeId) -> Value {
        let inputs: Vec<&Value> = self.graph.node(id).inputs.iter().map(|&input| &self.values[input]).collect();
        let place = self.concatenated(id);
        let codes = |value: &&Value| match value {
            Value::Codes { codes, scale, padding } => Some((codes.clone(), *scale, *padding)),
            _ => None,
        };
        match inputs.iter().map(codes).collect::<Option<Vec<_>>>() {
            // Activations that are concatenated share their clip value, and so their scale.
            Some(all) if all.iter().all(|(_, scale, _)| *scale == all[0].1) => {
                let codes = place.iter().map(|&(input, x)| all[input].0[x]).collect();
                Value::Codes { codes, scale: all[0].1, padding: all[0].2 }
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

    /// The factor of every element: 0 with the probability of the rate, else `1 / (1 - rate)`. An element draws by the
    /// step's key, the node's name, its image, and its number in an image whose channels are filled up to a multiple of
    /// 16.
    fn kept(&self, id: NodeId) -> Vec<f32> {
        let Op::Dropout { rate } = self.graph.node(id).op else { unreachable!("a dropout") };
        let (rate, shape) = (rate as f32, self.graph.shape(id));
        let key = self.key.with("dropout").with(&self.graph.node(id).name);
        let of_image = |key: Key| {
            let numbers = (0..shape.elements()).map(|i| i / shape.c * shape.c.next_multiple_of(16) + i % shape.c);
            numbers.map(move |number| if key.uniform(number as u64) < rate { 0.0 } else { 1.0 / (1.0 - rate) })
        };
        (0..self.images).flat_map(|image| of_image(key.at(image as u64))).collect()
    }
}

/// For each addition that ends a sum, the nodes of its terms, in the order of the layer: training adds
/// them in that order. Other nodes have none.
pub(super) fn terms(graph: &Graph, plan: &QuantPlan) -> Result<Vec<Vec<NodeId>>, GraphError> {
    let mut all = vec![Vec::new(); graph.nodes().len()];
    let layers = if plan.is_float() { fuse_float(graph)? } else { fuse(graph)? };
    for sum in layers.iter().filter_map(|layer| layer.sum()) {
        let last = sum.act().map_or(sum.output, |act| graph.node(act).inputs[0]);
        let reads_it = sum.views().any(|(view, _)| view.tensor == last);
        if graph.node(last).op != Op::Add || reads_it {
            continue;
        }
        let value = |factor: Factor| match factor {
            Factor::Product { node, .. } => node,
            Factor::View(view) => view.node.unwrap_or(view.tensor),
        };
        all[last] = sum.terms.iter().map(|term| term.norm.unwrap_or(value(term.factor))).collect();
    }
    Ok(all)
}
