//! Networks that grow node by node from the image to the logits.

use super::{Choices, Form};
use bitpact_core::Function;

use crate::{AvgPool, BatchNorm, Conv, ConvTranspose, Graph, MaxPool, Move, Node, NodeId, Op, Padding, Shape};

/// What a tensor is to those that may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    /// Of an activation, signed or not.
    Codes(bool),
    /// Of an average pool.
    Sums,
    /// A sum of products.
    Stream,
    /// Behind a dropout.
    Dropped,
}

struct Grower<'a> {
    form: Form,
    choices: &'a mut Choices,
    nodes: Vec<Node>,
    shapes: Vec<Shape>,
    /// Of the nodes that others than the next may read.
    kinds: Vec<Option<Kind>>,
}

/// Layers after the first, at the most.
const LAYERS: usize = 7;

/// Elements of a tensor, at the most.
const ELEMENTS: usize = 1500;

pub(super) fn graph(form: Form, choices: &mut Choices) -> Graph {
    let mut g = Grower { form, choices, nodes: Vec::new(), shapes: Vec::new(), kinds: Vec::new() };
    let [height, width] = [(); 2].map(|()| g.choices.of(&[4, 1, 2, 3, 5, 6, 7, 8, 9, 12]));
    let [height, width] = if g.choices.one_in(20) { [1, 1] } else { [height, width] };
    let channels = g.choices.of(&[3, 1, 2, 4, 5, 16]);
    g.push(Op::Input { height, width, channels }, &[], Some(Kind::Image));
    let mut last = g.layer(0);
    for _ in 0..g.choices.below(LAYERS) {
        last = g.after(last);
    }
    g.end(last);
    let outputs = g.outputs();
    Graph::with_outputs("random", g.nodes, outputs).expect("a random network is valid")
}

impl Grower<'_> {
    fn push(&mut self, op: Op, inputs: &[NodeId], kind: Option<Kind>) -> NodeId {
        let name = format!("{}{}", op.name(), self.nodes.len());
        let shapes: Vec<Shape> = inputs.iter().map(|&i| self.shapes[i]).collect();
        self.shapes.push(op.output_shape(&name, &shapes).expect("a random op fits its inputs"));
        self.nodes.push(Node { name, op, inputs: inputs.to_vec() });
        self.kinds.push(kind);
        self.nodes.len() - 1
    }

    fn signed(&mut self) -> bool {
        self.choices.one_in(4)
    }

    fn act(&mut self, input: NodeId) -> NodeId {
        let signed = self.signed();
        self.push(Op::Act { signed }, &[input], Some(Kind::Codes(signed)))
    }

    /// A batch norm, or nothing.
    fn norm(&mut self, input: NodeId) -> NodeId {
        if self.choices.one_in(3) {
            return input;
        }
        let norm = match self.form.is_any && self.choices.one_in(4) {
            true => {
                BatchNorm { eps: self.choices.of(&[1e-3, 1e-5, 0.5]), momentum: self.choices.of(&[0.1, 0.01, 1.0]) }
            }
            false => BatchNorm::default(),
        };
        self.push(Op::BatchNorm(norm), &[input], None)
    }

    /// Output channels: few, about a block of 16, or one.
    fn channels(&mut self) -> usize {
        self.choices.of(&[4, 1, 2, 3, 5, 6, 8, 12, 15, 16, 17, 33])
    }

    /// Kernel, stride and padding that fit, one in four of them far out.
    fn window(&mut self, from: Shape, is_pool: bool) -> [usize; 3] {
        let side = from.h.min(from.w);
        let padding = match self.choices.below(8) {
            0..3 => 0,
            3..6 => 1,
            6 => 2,
            _ => 3 + self.choices.below(4),
        };
        let largest = (side + 2 * padding).min(if self.choices.one_in(4) { 9 } else { 3 });
        let kernel = largest - self.choices.below(largest);
        let stride = if self.choices.one_in(8) { 5 + self.choices.below(9) } else { 1 + self.choices.below(2) };
        // A pool's padding is less than its kernel.
        if is_pool && padding >= kernel {
            return [kernel.min(side), stride, 0];
        }
        [kernel, stride, padding]
    }

    /// A convolution or linear layer of any kind.
    fn product(&mut self, input: NodeId) -> NodeId {
        let from = self.shapes[input];
        let bias = self.choices.one_in(3);
        if self.choices.one_in(8) {
            let out_features = self.channels();
            return self.push(Op::Linear { out_features, bias }, &[input], None);
        }
        let [kernel, stride, padding] = self.window(from, false);
        let mut out_channels = self.channels();
        let groups = match self.choices.below(4) {
            2 => [4, 3, 2, 1].into_iter().find(|g| from.c.is_multiple_of(*g)).unwrap_or(1),
            3 => from.c,
            _ => 1,
        };
        out_channels = if groups > 1 { (out_channels.min(2 * from.c)).next_multiple_of(groups) } else { out_channels };
        let plain = |kernel, stride, padding| {
            Op::Conv(Conv { bias, groups, ..Conv::square(out_channels, kernel, stride, padding) })
        };
        let mut op = plain(kernel, stride, padding);
        if self.form.is_any && self.choices.one_in(2) {
            op = self.any_window(op);
        }
        if op.output_shape("", &[from]).is_ok_and(|shape| shape.elements() <= ELEMENTS) {
            return self.push(op, &[input], None);
        }
        self.push(plain(1, 2, 0), &[input], None)
    }

    /// The op with any window, which may not fit.
    fn any_window(&mut self, op: Op) -> Op {
        let choices = &mut *self.choices;
        let mut pair = |from: &[usize]| [choices.of(from), choices.of(from)];
        let (kernel, stride, dilation) = (pair(&[3, 1, 2, 4, 5]), pair(&[1, 2, 3, 5]), pair(&[1, 1, 2, 3]));
        let [[top, left], [bottom, right]] = [pair(&[1, 0, 2, 3]), pair(&[1, 0, 2])];
        let padding = Padding { top, left, bottom, right };
        let flag = self.choices.one_in(2);
        match op {
            Op::Conv(conv) if self.choices.one_in(3) => Op::ConvTranspose(ConvTranspose {
                out_channels: conv.out_channels,
                kernel,
                stride,
                padding: if flag { Padding::default() } else { padding },
                output_padding: if self.choices.one_in(3) { [stride[0] - 1, 0] } else { [0, 0] },
                dilation,
                bias: conv.bias,
                groups: conv.groups,
            }),
            Op::Conv(conv) => Op::Conv(Conv { kernel, stride, padding, dilation, ..conv }),
            Op::MaxPool(_) => Op::MaxPool(MaxPool { kernel, stride, padding, dilation, ceil_mode: flag }),
            Op::AvgPool(_) => Op::AvgPool(AvgPool {
                kernel,
                stride,
                padding,
                ceil_mode: flag,
                count_include_pad: self.choices.one_in(2),
            }),
            other => other,
        }
    }

    /// A view, a function or a multiplication that reads codes.
    fn any_op(&mut self, last: NodeId) -> NodeId {
        let shape = self.shapes[last];
        match self.choices.below(4) {
            0 | 1 => self.view(last),
            2 => {
                let functions = [
                    Function::HardSwish,
                    Function::Prelu,
                    Function::LeakyRelu { slope: 0.2 },
                    Function::ClippedRelu { limit: 1.5 },
                    Function::Elu { scale: 1.0 },
                    Function::HardSigmoid,
                    Function::Sigmoid,
                    Function::Tanh,
                    Function::Gelu,
                    Function::Silu,
                ];
                let function = self.choices.of(&functions);
                let node = self.push(Op::Function(function), &[last], None);
                self.act(node)
            }
            _ => {
                let pixel = Shape::new(1, 1, shape.c);
                let mut other = self.readable(|kind| matches!(kind, Kind::Codes(_)));
                other.retain(|&id| self.shapes[id] == shape || self.shapes[id] == pixel);
                let other = other[self.choices.below(other.len())];
                let product = self.push(Op::Mul, &[last, other], None);
                let norm = self.norm(product);
                self.act(norm)
            }
        }
    }

    fn view(&mut self, last: NodeId) -> NodeId {
        let Shape { h, w, c } = self.shapes[last];
        let choices = &mut *self.choices;
        let (height, width, count) = (1 + choices.below(h), 1 + choices.below(w), 1 + choices.below(c));
        let (top, left, first) =
            (choices.below(h - height + 1), choices.below(w - width + 1), choices.below(c - count + 1));
        let moves = [
            Move::Stride { rows: 1 + top, columns: 1 + left },
            Move::Crop { top, left, height, width },
            Move::Channels { first, count },
            Move::Insert { top: 1, left: 0, bottom: 0, right: 2, before: first, after: 1 },
            Move::PixelShuffle { factor: 2 },
            Move::PixelUnshuffle { factor: 2 },
            Move::Repeat { rows: 2, columns: 1 },
            Move::ChannelShuffle { groups: 2 },
        ];
        let op = Op::View(choices.of(&moves));
        match op.output_shape("", &[self.shapes[last]]).is_ok_and(|to| to.elements() <= ELEMENTS) {
            true => self.push(op, &[last], self.kinds[last]),
            false if self.kinds[last] == Some(Kind::Stream) => self.act_of_stream(last),
            false => self.layer(last),
        }
    }

    /// A convolution from `input` to a tensor of shape `to`, if there is one.
    fn product_to(&mut self, input: NodeId, to: Shape) -> Option<NodeId> {
        let (from, bias) = (self.shapes[input], self.choices.one_in(3));
        let mut fits = Vec::new();
        for kernel in [3, 1, 2, 5] {
            for stride in 1..4 {
                for padding in 0..4 {
                    let op = Op::Conv(Conv { bias, ..Conv::square(to.c, kernel, stride, padding) });
                    fits.extend(op.output_shape("", &[from]).ok().filter(|s| *s == to).map(|_| op));
                }
            }
        }
        let op = if fits.is_empty() { return None } else { fits[self.choices.below(fits.len())] };
        Some(self.push(op, &[input], None))
    }

    /// Tensors that more than one node may read and whose kind is one of these, the last ones first.
    fn readable(&self, is: impl Fn(Kind) -> bool) -> Vec<NodeId> {
        (0..self.nodes.len()).rev().filter(|&id| self.kinds[id].is_some_and(&is)).collect()
    }

    /// A product with what may follow it up to its activation, or without one a stream.
    fn layer(&mut self, input: NodeId) -> NodeId {
        let product = self.product(input);
        let mut last = self.norm(product);
        if self.choices.one_in(3) {
            last = self.shortcut(input, last);
        }
        for _ in 2..self.form.terms {
            if self.choices.one_in(3) {
                last = self.another_term(last);
            }
        }
        self.act_or_stream(last)
    }

    /// Adds a tensor of the same shape or a product of any tensor to a sum.
    fn another_term(&mut self, sum: NodeId) -> NodeId {
        let to = self.shapes[sum];
        // What is added to a stream is a stream itself, and ends the sum.
        if self.adds_stream(sum) {
            return sum;
        }
        let view = self.readable(|kind| matches!(kind, Kind::Codes(_) | Kind::Stream));
        let view: Vec<NodeId> = view.into_iter().filter(|&id| self.shapes[id] == to).collect();
        let input = self.readable(|kind| kind != Kind::Stream);
        let term = match self.choices.below(3) {
            0 if !view.is_empty() => Some(view[self.choices.below(view.len())]),
            _ => {
                let input = input[self.choices.below(input.len().min(4))];
                self.product_to(input, to).map(|product| self.norm(product))
            }
        };
        match term {
            None => sum,
            Some(term) if self.choices.one_in(2) => self.push(Op::Add, &[term, sum], None),
            Some(term) => self.push(Op::Add, &[sum, term], None),
        }
    }

    fn adds_stream(&self, id: NodeId) -> bool {
        let node = &self.nodes[id];
        let moves = node.op == Op::Add || (self.kinds[id].is_none() && node.op.moves().is_some());
        moves && node.inputs.iter().any(|&input| self.kinds[input] == Some(Kind::Stream) || self.adds_stream(input))
    }

    fn act_or_stream(&mut self, last: NodeId) -> NodeId {
        if !self.choices.one_in(4) {
            return self.act(last);
        }
        self.kinds[last] = Some(Kind::Stream);
        last
    }

    /// Adds a shortcut to a branch from `input`: an earlier tensor, subsampled or not, or its projection.
    fn shortcut(&mut self, input: NodeId, branch: NodeId) -> NodeId {
        let to = self.shapes[branch];
        let earlier = self.readable(|kind| matches!(kind, Kind::Codes(_) | Kind::Stream));
        let same: Vec<NodeId> = earlier.iter().copied().filter(|&id| self.shapes[id] == to).collect();
        let halved = |id: NodeId| {
            let Shape { h, w, c } = self.shapes[id];
            (1..4).find(|&s| (h.div_ceil(s), w.div_ceil(s)) == (to.h, to.w) && c <= to.c).map(|s| (id, s))
        };
        let smaller: Vec<(NodeId, usize)> = earlier.iter().filter_map(|&id| halved(id)).collect();
        match self.choices.below(3) {
            0 if !same.is_empty() => {
                let tensor = same[self.choices.below(same.len())];
                let inputs = if self.choices.one_in(2) { [tensor, branch] } else { [branch, tensor] };
                self.push(Op::Add, &inputs, None)
            }
            1 if !smaller.is_empty() => {
                let (tensor, stride) = smaller[self.choices.below(smaller.len())];
                let zeros = to.c - self.shapes[tensor].c;
                let pad_before = self.choices.below(zeros + 1);
                let op = Op::Subsample { stride, pad_before, pad_after: zeros - pad_before };
                let sub = self.push(op, &[tensor], None);
                self.push(Op::Add, &[branch, sub], None)
            }
            2 => self.projection(input, branch),
            _ => branch,
        }
    }

    /// A branch of two layers and the projection of the tensor that it starts from.
    fn projection(&mut self, input: NodeId, branch: NodeId) -> NodeId {
        if self.kinds[input] == Some(Kind::Image) {
            return branch;
        }
        let inner = self.act(branch);
        let second = self.product(inner);
        let to = self.shapes[second];
        let second = self.norm(second);
        match self.product_to(input, to) {
            None => second,
            Some(side) => {
                let side = self.norm(side);
                self.push(Op::Add, &[second, side], None)
            }
        }
    }

    /// Something that reads `last`.
    fn after(&mut self, last: NodeId) -> NodeId {
        let kind = self.kinds[last].expect("a layer ends in a tensor that can be read");
        match kind {
            Kind::Stream => self.after_stream(last),
            Kind::Codes(_) if self.form.is_any && self.choices.one_in(2) => self.any_op(last),
            Kind::Codes(signed) => match self.choices.below(12) {
                6 | 7 => self.pool(last),
                8 => self.push(Op::GlobalAvgPool, &[last], Some(Kind::Sums)),
                9 => self.push(Op::Dropout { rate: 0.3 }, &[last], Some(Kind::Dropped)),
                10 | 11 => self.concat(last, signed),
                _ => self.layer(last),
            },
            Kind::Sums => match self.choices.below(4) {
                2 => self.push(Op::Dropout { rate: 0.5 }, &[last], Some(Kind::Dropped)),
                3 => {
                    let norm = self.norm(last);
                    self.act(norm)
                }
                _ => self.layer(last),
            },
            Kind::Image | Kind::Dropped => self.layer(last),
        }
    }

    fn pool(&mut self, last: NodeId) -> NodeId {
        let [kernel, stride, padding] = self.window(self.shapes[last], true);
        let mut op = match self.choices.one_in(2) {
            true => Op::MaxPool(MaxPool::square(kernel, stride, padding)),
            false => Op::AvgPool(AvgPool::square(kernel, stride, padding)),
        };
        if self.form.is_any && self.choices.one_in(2) {
            let any = self.any_window(op);
            op = if any.output_shape("", &[self.shapes[last]]).is_ok() { any } else { op };
        }
        let kind = if matches!(op, Op::MaxPool(_)) { self.kinds[last] } else { Some(Kind::Sums) };
        self.push(op, &[last], kind)
    }

    fn max_pool(&mut self, last: NodeId) -> NodeId {
        let [kernel, stride, padding] = self.window(self.shapes[last], true);
        self.push(Op::MaxPool(MaxPool::square(kernel, stride, padding)), &[last], self.kinds[last])
    }

    /// Channels of `last` beside those of other activations, or of a branch of their own.
    fn concat(&mut self, last: NodeId, signed: bool) -> NodeId {
        let to = self.shapes[last];
        let beside = self.readable(|kind| kind == Kind::Codes(signed));
        let beside: Vec<NodeId> =
            beside.into_iter().filter(|&id| (self.shapes[id].h, self.shapes[id].w) == (to.h, to.w)).collect();
        let mut other = beside[self.choices.below(beside.len())];
        if other == last {
            let Some(product) = self.product_to(last, Shape { c: 3, ..to }) else { return self.layer(last) };
            let norm = self.norm(product);
            other = self.push(Op::Act { signed }, &[norm], Some(Kind::Codes(signed)));
        }
        let mut inputs = vec![last, other];
        if self.choices.one_in(3) {
            inputs.push(last);
        }
        if self.choices.one_in(2) {
            inputs.reverse();
        }
        if inputs.iter().map(|&id| self.shapes[id].elements()).sum::<usize>() > ELEMENTS {
            // The branch must be read all the same.
            return self.push(Op::Concat, &[other, last], Some(Kind::Codes(signed)));
        }
        self.push(Op::Concat, &inputs, Some(Kind::Codes(signed)))
    }

    fn after_stream(&mut self, last: NodeId) -> NodeId {
        let to = self.shapes[last];
        if self.form.is_any && self.choices.one_in(3) {
            return if self.choices.one_in(2) { self.view(last) } else { self.max_pool(last) };
        }
        match self.choices.below(6) {
            // A sum with another layer.
            3 | 4 => {
                let mut from = self.readable(|kind| matches!(kind, Kind::Codes(_) | Kind::Sums));
                from.truncate(4);
                // A sum is a stream only where something else reads it too; else its terms are those of this one.
                if self.form.terms == 2 || from.is_empty() || self.choices.one_in(2) {
                    from = vec![self.act_of_stream(last)];
                }
                let input = from[self.choices.below(from.len())];
                let Some(product) = self.product_to(input, to) else {
                    let is_read = self.nodes.iter().any(|node| node.inputs.contains(&last));
                    return if is_read { input } else { self.act_of_stream(last) };
                };
                let norm = self.norm(product);
                let sum = self.push(Op::Add, &[norm, last], None);
                self.act_or_stream(sum)
            }
            // Beside another layer that nothing else reads, or beside itself.
            5 if 2 * to.elements() < ELEMENTS => {
                let inner = self.act_of_stream(last);
                match self.product_to(inner, Shape { c: 2, ..to }) {
                    None => inner,
                    Some(other) => {
                        let other = self.norm(other);
                        self.kinds[other] = Some(Kind::Stream);
                        self.push(Op::Concat, &[other, last], Some(Kind::Stream))
                    }
                }
            }
            _ => self.act_of_stream(last),
        }
    }

    fn act_of_stream(&mut self, last: NodeId) -> NodeId {
        let norm = self.norm(last);
        self.act(norm)
    }

    /// The logits: a layer over everything, or one that a window leaves one position of, with or without what may
    /// follow it.
    fn end(&mut self, mut last: NodeId) {
        if self.kinds[last] == Some(Kind::Stream) {
            last = self.act_of_stream(last);
        }
        let (from, bias) = (self.shapes[last], self.choices.one_in(2));
        let classes = match self.choices.below(16) {
            15 if from.elements() < 200 => 1000,
            14 => 1,
            n => 2 + n,
        };
        let side = from.h.max(from.w);
        let mut product = match self.choices.below(4) {
            // A stride that leaves one position.
            2 => {
                let (kernel, padding) = (1 + self.choices.below(from.h.min(from.w)), self.choices.below(3));
                let stride = side + 2 * padding - kernel + 1;
                Op::Conv(Conv { bias, ..Conv::square(classes, kernel, stride, padding) })
            }
            3 if from.h == from.w => Op::Conv(Conv { bias, ..Conv::square(classes, side, 1, 0) }),
            _ => Op::Linear { out_features: classes, bias },
        };
        if product.output_shape("", &[from]).expect("the window fits").h != 1 {
            product = Op::Linear { out_features: classes, bias };
        }
        let product = self.push(product, &[last], None);
        if self.choices.one_in(4) {
            self.push(Op::BatchNorm(BatchNorm::default()), &[product], None);
        }
    }

    /// The last node, and for one network in six others: tensors, or a product of one that nothing else reads.
    fn outputs(&mut self) -> Vec<NodeId> {
        let mut outputs = vec![self.nodes.len() - 1];
        if !self.form.is_any || !self.choices.one_in(6) {
            return outputs;
        }
        for id in 1..outputs[0] {
            match self.kinds[id] {
                Some(Kind::Codes(_) | Kind::Sums) if self.choices.one_in(4) => {
                    let head = Op::Linear { out_features: 3, bias: true };
                    outputs.push(self.push(head, &[id], None));
                }
                Some(Kind::Codes(_) | Kind::Sums | Kind::Stream) if self.choices.one_in(3) => outputs.push(id),
                _ => {}
            }
        }
        outputs
    }
}
