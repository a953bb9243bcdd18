//! Random networks for the tests of every crate that computes them: every op, every parameter at its edges.
//!
//! A network is a function of a list of numbers, its choices, and the simplest one where they are zero or run out. A
//! property test draws the list, so that its counterexample shrinks to a small network:
//!
//! ```
//! use bitpact_graph::testing::{Choices, network};
//!
//! let mut choices = Choices::of_seed(7);
//! let (graph, plan) = network(&mut choices);
//! plan.check(&graph).unwrap();
//! ```

mod bits;
mod grow;

use bitpact_core::rng::Key;

use crate::{Graph, QuantPlan, Shape, zoo};

/// A network of the zoo for `classes` classes, with a fraction of its channels and at a size that its strides leave
/// something of.
///
/// # Panics
/// If `name` is not in the zoo.
pub fn small_zoo(name: &str, classes: usize) -> Graph {
    let (side, divisor) = match name {
        "alexnet" => (66, 16),
        "cnn" => (8, 2),
        "svhn_cnn" => (24, 16),
        "vgg_small" => (8, 16),
        "resnet8" => (8, 2),
        _ if zoo::usual_input(name).0 == 224 => (33, 16),
        _ if name.starts_with("mobilenet") => (17, 8),
        _ => (8, 4),
    };
    let graph = zoo::build(name, Shape::new(side, side, 3), classes).unwrap().unwrap();
    graph.narrowed(divisor).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A list of choices that is read from its beginning.
#[derive(Debug, Clone)]
pub struct Choices {
    list: Vec<u32>,
    read: usize,
}

impl Choices {
    /// These choices, then zeros.
    pub fn new(list: Vec<u32>) -> Self {
        Self { list, read: 0 }
    }

    /// Choices enough for a large network, a function of `seed`.
    pub fn of_seed(seed: u64) -> Self {
        let key = Key::new(seed).with("choices");
        Self::new((0..1000).map(|i| key.u64(i) as u32).collect())
    }

    /// Draws one of `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        let choice = self.list.get(self.read).copied().unwrap_or(0);
        self.read += 1;
        ((u64::from(choice) * n as u64) >> 32) as usize
    }

    /// True for one choice in `n`, false where choices have run out.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// Draws one of `all`; the first, where there is no choice.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// The forms of networks that are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Terms of a sum at the most, at least 2. With 2 they are a product and a shortcut, or a branch of products and
    /// the projection of the tensor that it starts from.
    pub terms: usize,
    /// Whether windows are drawn that are not square or have other strides, dilation or uneven padding, and transposed
    /// convolutions, views, functions and multiplications.
    pub is_any: bool,
}

/// A network of sums of two terms, and its bits. It fits the form that integers can follow, and its tensors are small
/// enough for plain loops.
pub fn network(choices: &mut Choices) -> (Graph, QuantPlan) {
    network_of(Form { terms: 2, is_any: false }, choices)
}

/// A network of the given form, and its bits.
pub fn network_of(form: Form, choices: &mut Choices) -> (Graph, QuantPlan) {
    let graph = grow::graph(form, choices);
    let plan = bits::plan(choices, &graph);
    (graph, plan)
}
