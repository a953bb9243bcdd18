//! What a name of the file stands for while its graph is read.

use std::rc::Rc;

use bitpact_graph::{NodeId, Padding};

use super::layout::Layout;
use super::tensor::Array;

/// What a name stands for.
#[allow(clippy::large_enum_variant)] // A graph has hundreds of them.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A tensor that is known.
    Const(Rc<Array>),
    /// A tensor of the network.
    Data(Tensor),
    /// What a node that is not read would give.
    Unknown,
}

/// A tensor of the network: the output of a node, what is still to be done to it, and how the file sees its elements.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub(super) node: NodeId,
    pub(super) layout: Layout,
    pub(super) form: Form,
    /// Zeros beside the rows and columns, after `form`.
    pub(super) pad: Padding,
    /// Operator at the end of the network that was taken off.
    pub(super) ended: Option<String>,
}

/// What is still to be done to the output of a node. Operators are put off so that several together can be recognized.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form {
    Affine(Affine),
    /// `after(kind(before(x)))`.
    Function {
        kind: Lazy,
        before: Affine,
        after: Affine,
        /// Name for the node.
        name: String,
    },
}

/// A function that is put off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Lazy {
    Erf,
    Sigmoid,
    /// Clipped to a range whose ends may be infinite.
    Clip {
        low: f64,
        high: f64,
    },
}

/// `scale x + shift`, with one number for all channels or one for each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Affine {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
}

/// Numbers this close to each other, relative to the larger of 1 and themselves, are float32 roundings of one.
const CLOSE: f64 = 2e-6;

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= CLOSE * a.abs().max(b.abs()).max(1.0)
}

fn joint(a: &[f64], b: &[f64], of: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let n = a.len().max(b.len());
    (0..n).map(|i| of(a[i % a.len()], b[i % b.len()])).collect()
}

impl Affine {
    pub(super) fn identity() -> Self {
        Self::of(1.0, 0.0)
    }

    pub(super) fn of(scale: f64, shift: f64) -> Self {
        Self { scale: vec![scale], shift: vec![shift] }
    }

    /// `factor x`.
    pub(super) fn times(factor: Vec<f64>) -> Self {
        Self { scale: factor, shift: vec![0.0] }
    }

    /// `x + term`.
    pub(super) fn plus(term: Vec<f64>) -> Self {
        Self { scale: vec![1.0], shift: term }
    }

    /// `next` of this.
    pub(super) fn then(&self, next: &Self) -> Self {
        let moved = joint(&self.shift, &next.scale, |t, s| t * s);
        Self { scale: joint(&self.scale, &next.scale, |a, b| a * b), shift: joint(&moved, &next.shift, |a, b| a + b) }
    }

    pub(super) fn is_identity(&self) -> bool {
        self.is_close(&Self::identity())
    }

    /// Whether both are the same but for roundings.
    pub(super) fn is_close(&self, other: &Self) -> bool {
        let all =
            |a: &[f64], b: &[f64]| joint(a, b, |a, b| if close(a, b) { 0.0 } else { 1.0 }).iter().all(|&d| d == 0.0);
        all(&self.scale, &other.scale) && all(&self.shift, &other.shift)
    }

    /// What is to be done to `of` to get this, where `of` loses nothing.
    pub(super) fn relative_to(&self, of: &Self) -> Option<Self> {
        if of.scale.contains(&0.0) {
            return None;
        }
        let scale = joint(&self.scale, &of.scale, |a, b| a / b);
        let moved = joint(&scale, &of.shift, |s, t| s * t);
        let shift = joint(&self.shift, &moved, |a, b| a - b);
        Some(Self { scale, shift })
    }

    /// The factor between this and `of`, where it is one number and nothing is added.
    pub(super) fn multiple_of(&self, of: &Self) -> Option<f64> {
        let Self { scale, shift } = self.relative_to(of)?;
        let one = scale.iter().all(|&s| close(s, scale[0])) && shift.iter().all(|&t| close(t, 0.0));
        one.then_some(scale[0])
    }

    /// Numbers of `channels` channels.
    pub(super) fn spread(&self, channels: usize) -> Result<(Vec<f32>, Vec<f32>), String> {
        let over = |values: &[f64]| (0..channels).map(|c| values[c % values.len()] as f32).collect();
        let fits = |values: &[f64]| values.len() == 1 || values.len() == channels;
        match fits(&self.scale) && fits(&self.shift) {
            true => Ok((over(&self.scale), over(&self.shift))),
            false => Err(format!("{} constants for {channels} channels", self.scale.len().max(self.shift.len()))),
        }
    }
}

impl Tensor {
    pub(super) fn new(node: NodeId, layout: Layout) -> Self {
        Self { node, layout, form: Form::Affine(Affine::identity()), pad: Padding::default(), ended: None }
    }

    /// Sizes as the file sees them.
    pub(super) fn sizes(&self) -> Vec<usize> {
        let mut sizes = self.layout.sizes();
        if !self.pad.is_none() && sizes.len() == 4 {
            sizes[2] += self.pad.top + self.pad.bottom;
            sizes[3] += self.pad.left + self.pad.right;
        }
        sizes
    }

    /// This tensor with `next` done to it; `None` where a function comes between that must be done first.
    pub(super) fn then(&self, next: &Affine) -> Self {
        let form = match &self.form {
            Form::Affine(affine) => Form::Affine(affine.then(next)),
            Form::Function { kind, before, after, name } => {
                let after = after.then(next);
                Form::Function { kind: *kind, before: before.clone(), after, name: name.clone() }
            }
        };
        Self { form, ..self.clone() }
    }
}
