//! Residual streams: their scale, their integers, and the activations that read them.
//!
//! All streams that are added up or concatenated have one scale s, so that an identity shortcut is an exact integer
//! addition, however deep the network. s is found before any integer is made: the real range of every stream is proved
//! from the ranges of the sums and shortcuts that are added to it, and s is the smallest `a / 2^m` for which no stream
//! of the group can leave `[-2^26, 2^26]`, where `a` is the scale of the first codes that are added as a shortcut, or 1
//! (m may then be negative). What is added to a stream is rounded to a multiple of s, to the nearest one, and to
//! nothing else.

use std::collections::HashMap;

use bitpact_core::requant::{self, Derived, RealRequantization};
use bitpact_graph::{End, Graph, Layer, NodeId, Sum};

use super::fold::Folded;
use super::sum::unmeasured;
use super::{ConvertError, Converter};
use crate::{IntegerEnd, IntegerOp, IntegerSum, IntegerTerm, IntegerView, TensorId, TensorKind};

/// Largest value of a stream. What a network really reaches is some hundred times less than what it can be proved to
/// reach, so about 18 bits are left for the spread of values; the multipliers of 31 bits keep up with that, and the
/// sums stay below 2^53.
const LARGEST: f64 = (1u64 << 26) as f64;

/// Halvings of a scale at the most; a stream that is always 0 would never end them.
const MOST_HALVINGS: u32 = 60;

/// What is known of one group of streams.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    /// Largest absolute real value.
    reach: f64,
    /// Step of the first codes that are a shortcut of it.
    anchor: Option<f64>,
    /// Scale of the stream, once it is known.
    scale: Option<f64>,
}

/// The residual streams of a network.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams {
    /// Group of each stream.
    group_of: HashMap<NodeId, usize>,
    groups: Vec<Group>,
    /// Real range of each stream.
    intervals: HashMap<TensorId, (f64, f64)>,
    /// Largest distance of each stream from the real one, in units of its scale.
    pub(super) errors: HashMap<TensorId, f64>,
}

impl Streams {
    /// Groups of streams that are added up or concatenated.
    pub(super) fn of(graph: &Graph, layers: &[Layer]) -> Self {
        let mut group_of: HashMap<NodeId, usize> = HashMap::new();
        for (number, layer) in layers.iter().enumerate() {
            let joined: Vec<NodeId> = match layer {
                Layer::Sum(sum) if sum.end == End::Wide => sum.views().map(|(view, _)| view.tensor).collect(),
                Layer::Concat { node } | Layer::View { node, .. } | Layer::MaxPool { node, .. }
                    if graph.node(*node).inputs.iter().all(|i| group_of.contains_key(i)) =>
                {
                    graph.node(*node).inputs.clone()
                }
                _ => continue,
            };
            let joined: Vec<usize> = joined.iter().filter_map(|id| group_of.get(id).copied()).collect();
            let group = joined.first().copied().unwrap_or(number);
            group_of.values_mut().filter(|g| joined.contains(g)).for_each(|g| *g = group);
            group_of.insert(layer.output(), group);
        }
        let groups = vec![Group::default(); if group_of.is_empty() { 0 } else { layers.len() }];
        Self { group_of, groups, ..Self::default() }
    }

    /// Whether `tensor` is a stream whose scale is not known yet.
    pub(super) fn is_unmeasured(&self, tensors: &HashMap<NodeId, TensorId>, tensor: TensorId) -> bool {
        let nodes = tensors.iter().filter(|(_, id)| **id == tensor).map(|(node, _)| node);
        nodes.filter_map(|node| self.group_of.get(node)).any(|&group| self.groups[group].scale.is_none())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.group_of.is_empty()
    }

    /// The same streams with the scales that the measured ranges ask for.
    pub(super) fn scaled(self) -> Self {
        let groups = self.groups.into_iter().map(|g| Group { scale: Some(g.smallest_scale()), ..g }).collect();
        Self { group_of: self.group_of, groups, ..Self::default() }
    }

    /// Takes down a concatenation, view or pool, if it is one of streams.
    pub(super) fn pass(&mut self, node: NodeId, inputs: &[TensorId], output: TensorId) {
        if !self.group_of.contains_key(&node) {
            return;
        }
        let all = |values: &HashMap<TensorId, (f64, f64)>| {
            inputs
                .iter()
                .filter_map(|t| values.get(t))
                .fold((0.0, 0.0), |a, b| (f64::min(a.0, b.0), f64::max(a.1, b.1)))
        };
        let error = inputs.iter().filter_map(|t| self.errors.get(t)).fold(0.0, |a, &b| f64::max(a, b));
        self.intervals.insert(output, all(&self.intervals));
        self.errors.insert(output, error);
    }
}

impl Group {
    fn smallest_scale(&self) -> f64 {
        let mut scale = self.anchor.unwrap_or(1.0);
        while self.anchor.is_none() && self.reach > LARGEST * scale && scale < f64::from(f32::MAX) {
            scale *= 2.0;
        }
        for _ in 0..MOST_HALVINGS {
            // Codes are added in multiples of 32 bits.
            let multiple = self.anchor.is_none_or(|a| a / scale < f64::from(1 << 30));
            if self.reach > LARGEST * (scale / 2.0) || !multiple {
                break;
            }
            scale /= 2.0;
        }
        scale
    }
}

impl Converter<'_> {
    /// A sum that stays a residual stream.
    pub(super) fn stream(&mut self, sum: &Sum, terms: Vec<Folded>) -> Result<(), ConvertError> {
        let layer = self.layer_name(sum);
        let channels = self.model.graph.shape(sum.output).c;
        let group = self.streams.group_of[&sum.output];
        let output = self.out.layers.len() + 1;
        // Tensors as they are keep their codes; what goes through a product or a batch norm is rounded.
        let is_base =
            |(i, folded): &(usize, Folded)| sum.terms[*i].norm.is_none() && matches!(folded.term, IntegerTerm::View(_));
        let (bases, terms): (Vec<_>, Vec<_>) = terms.into_iter().enumerate().partition(is_base);
        let terms: Vec<Folded> = terms.into_iter().map(|(_, folded)| folded).collect();
        let bases: Vec<(IntegerView, Folded)> = bases
            .into_iter()
            .filter_map(|(_, folded)| match &folded.term {
                IntegerTerm::View(view) => Some((view.clone(), folded)),
                _ => None,
            })
            .collect();
        // The real range: of the sums, channel by channel, and of the tensors.
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for c in 0..channels {
            let (mut lo, mut hi) = (0.0, 0.0);
            for folded in &terms {
                let real = |value: i64| (value as f64 - folded.zero) * folded.scale[c] + folded.offset[c];
                let ends = [real(folded.ranges[c].0), real(folded.ranges[c].1)];
                (lo, hi) = (lo + f64::min(ends[0], ends[1]), hi + f64::max(ends[0], ends[1]));
            }
            (least, most) = (least.min(lo), most.max(hi));
        }
        for (view, _) in &bases {
            let (lo, hi) = self.real_range(view.input, group);
            (least, most) = (least + lo.min(0.0), most + hi.max(0.0));
        }
        if !(least.is_finite() && most.is_finite()) {
            let what = format!("its sums range from {least} to {most}, which no residual stream holds");
            return Err(ConvertError::Layer { layer, what });
        }
        let of = &mut self.streams.groups[group];
        of.reach = of.reach.max(least.abs()).max(most.abs());
        let measured = of.scale;
        self.streams.intervals.insert(output, (least, most));
        let scale = measured.unwrap_or(1.0);
        let mut offset: Vec<f64> = (0..channels)
            .map(|c| {
                let offset = |folded: &Folded| folded.offset[c] - folded.scale[c] * folded.zero;
                terms.iter().fold(0.0, |sum, folded| sum + offset(folded)) / scale
            })
            .collect();
        let (mut base, mut error) = (Vec::new(), 0.0);
        for (view, folded) in bases {
            let mul = self.base_multiplier(&view, scale, &mut error);
            let (zero, is_whole) = (folded.zero * f64::from(mul), folded.zero.fract() == 0.0);
            for (offset, &scale) in offset.iter_mut().zip(&folded.scale) {
                // Inserted channels hold the code of zero; of signs, which have none, the code 0 in its place.
                *offset -= if is_whole || scale != 0.0 { zero } else { 0.0 };
            }
            base.push((view, mul));
        }
        let real = RealRequantization {
            scale: terms.iter().map(|folded| folded.scale.iter().map(|s| s / scale).collect()).collect(),
            offset,
            lo: i32::MIN,
            hi: i32::MAX,
            bounds: Vec::new(),
        };
        let ranges: Vec<_> = terms.iter().map(|folded| folded.ranges.clone()).collect();
        let derived = if measured.is_none() { Ok(unmeasured(&real)) } else { requant::derive_finest(&real, &ranges) };
        let Derived { requant, worst_error } = derived.map_err(|source| ConvertError::Step { layer, source })?;
        let error = error + worst_error + 0.5;
        self.streams.errors.insert(output, error);
        self.report(&terms, error, requant.shift as i32, None);
        let terms = terms.into_iter().map(|folded| folded.term).collect();
        let op = IntegerOp::Sum(IntegerSum { terms, requant, base, end: IntegerEnd::Wide });
        if measured.is_none() {
            self.push(sum.output, op, (0, 0), 0.0, scale);
            return Ok(());
        }
        self.push_checked(sum.output, op, 0.0, scale)
    }

    /// Real range of a tensor that is added to a stream of `group`; codes may anchor the scale of the group.
    fn real_range(&mut self, tensor: TensorId, group: usize) -> (f64, f64) {
        if let Some(&interval) = self.streams.intervals.get(&tensor) {
            return interval;
        }
        let unit = self.scale_of(tensor);
        let (lo, hi) = self.out.code_range(tensor);
        let zero = self.zeros[tensor];
        self.streams.groups[group].anchor.get_or_insert(unit);
        ((lo as f64 - zero) * unit, (hi as f64 - zero) * unit)
    }

    /// The multiplier of a tensor that is added to a stream of `scale`; adds to `error` what it is off by.
    fn base_multiplier(&self, view: &IntegerView, scale: f64, error: &mut f64) -> i32 {
        if self.out.kind(view.input) == TensorKind::Wide {
            *error += self.streams.errors.get(&view.input).copied().unwrap_or(0.0);
            return 1;
        }
        let real = self.scale_of(view.input) / scale;
        let mul = real.round_ties_even().clamp(0.0, f64::from(1 << 30)) as i32;
        *error += (real - f64::from(mul)).abs() * self.out.code_range(view.input).1 as f64;
        mul
    }
}
