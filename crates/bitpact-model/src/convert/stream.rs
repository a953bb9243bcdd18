//! Residual streams: their scale, their integers, and the activations that read them.
//!
//! All streams that are added up or concatenated have one scale s, so that an identity shortcut is an exact integer
//! addition, however deep the network. s is found before any integer is made: the real range of every stream is proved
//! from the ranges of the sums and shortcuts that are added to it, and s is the smallest `a / 2^m` for which no stream of
//! the group can leave `[-2^26, 2^26]`, where `a` is the step of the first codes that are added as a shortcut, or 1 (m may
//! then be negative). What is added to a stream is rounded to a multiple of s, to the nearest one, and to nothing else.

use std::collections::HashMap;

use bitpact_core::step::{self, Derived, IntegerStep, Ranges, RealStep};
use bitpact_graph::{End, Graph, Layer, NodeId, Sum};

use super::{ActReport, ConvertError, Converter, LayerReport, Quantizer, hull};
use crate::{IntegerOp, TensorId, TensorKind};

/// Largest value of a stream. What a network really reaches is some hundred times less than what it can be proved to
/// reach, so about 18 bits are left for the spread of values; the multipliers of 31 bits keep up with that, and the sums stay below
/// 2^53.
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
    /// Real value of one step, once it is known.
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
    /// Largest distance of each stream from the real one, in steps.
    errors: HashMap<TensorId, f64>,
}

impl Streams {
    /// Groups of streams that are added up or concatenated.
    pub(super) fn of(graph: &Graph, layers: &[Layer]) -> Self {
        let mut group_of: HashMap<NodeId, usize> = HashMap::new();
        for (number, layer) in layers.iter().enumerate() {
            let joined: Vec<NodeId> = match layer {
                Layer::Sum(sum) if sum.end == End::Wide => sum.views().map(|(view, _)| view.tensor).collect(),
                Layer::Concat { node } if graph.node(*node).inputs.iter().all(|i| group_of.contains_key(i)) => {
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

    pub(super) fn is_empty(&self) -> bool {
        self.group_of.is_empty()
    }

    /// The same streams with the scales that the measured ranges ask for.
    pub(super) fn scaled(self) -> Self {
        let groups = self.groups.into_iter().map(|g| Group { scale: Some(g.smallest_scale()), ..g }).collect();
        Self { group_of: self.group_of, groups, ..Self::default() }
    }

    /// Takes down a concatenation, if it is one of streams.
    pub(super) fn concat(&mut self, node: NodeId, inputs: &[TensorId], output: TensorId) {
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

/// A step that computes nothing, for the first look at a network, in which only ranges matter.
fn unmeasured(real: &RealStep) -> Derived {
    let (mul, mul2, add) = (vec![0; real.scale.len()], vec![0; real.scale2.len()], vec![0; real.scale.len()]);
    let step =
        IntegerStep { shift: 0, mul, mul2, res_mul: Vec::new(), add, lo: real.lo, hi: real.hi, bounds: Vec::new() };
    Derived { step, worst_error: 0.0 }
}

impl Converter<'_> {
    /// A sum that stays a residual stream.
    pub(super) fn stream(&mut self, sum: &Sum) -> Result<(), ConvertError> {
        let ((input, product, norm), second, view) = self.terms(sum)?;
        let layer = self.name(product).to_owned();
        let main = self.fold(product, norm, input)?;
        let second = second.map(|(tensor, product, norm)| self.fold(product, norm, tensor)).transpose()?;
        let residual = match view {
            Some(view) => Some(self.shortcut(view, self.tensor_of(view.tensor, sum.output)?)),
            None => None,
        };
        let output = self.out.layers.len() + 1;
        let channels = main.scale.len();
        let group = self.streams.group_of[&sum.output];
        // The real range: of the sums, channel by channel, and of the shortcut.
        let term = |folded: &super::Folded, c: usize| {
            let ends =
                [folded.ranges[c].0, folded.ranges[c].1].map(|acc| acc as f64 * folded.scale[c] + folded.offset[c]);
            (f64::min(ends[0], ends[1]), f64::max(ends[0], ends[1]))
        };
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for c in 0..channels {
            let (a, b) = (term(&main, c), second.as_ref().map_or((0.0, 0.0), |s| term(s, c)));
            (least, most) = (least.min(a.0 + b.0), most.max(a.1 + b.1));
        }
        if let Some(residual) = &residual {
            let (lo, hi) = match self.streams.intervals.get(&residual.input) {
                Some(&interval) => interval,
                None => {
                    let step = self.scale_of(residual.input);
                    let (lo, hi) = self.out.code_range(residual.input);
                    let zero = self.zeros[residual.input];
                    self.streams.groups[group].anchor.get_or_insert(step);
                    ((lo - zero) as f64 * step, (hi - zero) as f64 * step)
                }
            };
            (least, most) = (least + lo.min(0.0), most + hi.max(0.0));
        }
        if !(least.is_finite() && most.is_finite()) {
            let what = format!("its sums range from {least} to {most}, which no residual stream holds");
            return Err(ConvertError::Layer { layer, what });
        }
        let of = &mut self.streams.groups[group];
        of.reach = of.reach.max(least.abs()).max(most.abs());
        let scale = of.scale;
        self.streams.intervals.insert(output, (least, most));
        let measuring = scale.is_none();
        let scale = scale.unwrap_or(1.0);
        let (mut res_mul, mut error, mut zero) = (0i32, 0.0, 0i64);
        if let Some(residual) = &residual {
            res_mul = 1;
            error = self.streams.errors.get(&residual.input).copied().unwrap_or(0.0);
            if self.out.kind(residual.input) != TensorKind::Stream {
                let real = self.scale_of(residual.input) / scale;
                res_mul = real.round_ties_even().clamp(0.0, f64::from(1 << 30)) as i32;
                zero = self.zeros[residual.input];
                error = (real - f64::from(res_mul)).abs() * self.out.code_range(residual.input).1 as f64;
            }
        }
        let kept = residual.map_or(0..0, |r| r.pad_before..channels - r.pad_after);
        let real = RealStep {
            scale: main.scale.iter().map(|s| s / scale).collect(),
            scale2: second.iter().flat_map(|second| second.scale.iter().map(|s| s / scale)).collect(),
            res_scale: Vec::new(),
            offset: (0..channels)
                .map(|c| {
                    let offset = main.offset[c] + second.as_ref().map_or(0.0, |s| s.offset[c]);
                    let shift = if kept.contains(&c) { (zero * i64::from(res_mul)) as f64 } else { 0.0 };
                    offset / scale - shift
                })
                .collect(),
            lo: i32::MIN,
            hi: i32::MAX,
            bounds: Vec::new(),
        };
        let ranges2 = second.as_ref().map_or(Vec::new(), |s| s.ranges.clone());
        let ranges = Ranges { acc: &main.ranges, acc2: &ranges2, res: (0, 0) };
        let derived = if measuring { Ok(unmeasured(&real)) } else { step::derive_finest(&real, &ranges) };
        let derived = derived.map_err(|source| ConvertError::Step { layer, source })?;
        let error = error + derived.worst_error + 0.5;
        self.streams.errors.insert(output, error);
        let folded = [Some(&main), second.as_ref()];
        for folded in folded.into_iter().flatten() {
            self.report.push(LayerReport {
                name: folded.product.name.clone(),
                acc_range: hull(&folded.ranges),
                worst_error: error,
                shift: derived.step.shift as i32,
                weight_bits: folded.product.weight_bits,
                act_bits: None,
            });
        }
        let second = second.map(|second| second.product);
        let op = IntegerOp::Stream { main: main.product, second, residual, step: derived.step, res_mul };
        if measuring {
            self.push(sum.output, op, (0, 0), 0, scale);
            return Ok(());
        }
        self.push_checked(sum.output, op, 0, scale)
    }

    /// `act(norm(x))` of a residual stream or of sums of codes.
    pub(super) fn act(&mut self, input: NodeId, norm: Option<NodeId>, act: NodeId) -> Result<(), ConvertError> {
        let Quantizer { inverse, zero, hi, bounds, step: scale, bits } = self.quantizer(act)?;
        let tensor = self.tensor_of(input, act)?;
        let channels = self.out.shape(tensor).c;
        let affine = match norm {
            Some(norm) => self.norm(norm, &vec![0.0; channels])?,
            None => vec![(1.0, 0.0); channels],
        };
        let unit = self.scale_of(tensor);
        let read_zero = self.zeros[tensor] as f64;
        let gains: Vec<f64> = affine.iter().map(|(gain, _)| gain * unit * inverse).collect();
        let offset = |(&(_, shift), gain): (&(f64, f64), &f64)| shift * inverse - gain * read_zero + f64::from(zero);
        let offset = affine.iter().zip(&gains).map(offset).collect();
        let range = self.out.code_range(tensor);
        let acc = vec![range; channels];
        let real = RealStep { scale: gains, scale2: Vec::new(), res_scale: Vec::new(), offset, lo: 0, hi, bounds };
        let measuring = self.streams.group_of.get(&input).is_some_and(|&g| self.streams.groups[g].scale.is_none());
        let derived = if measuring {
            Ok(unmeasured(&real))
        } else {
            step::derive(&real, &Ranges { acc: &acc, acc2: &[], res: (0, 0) })
        };
        let derived = derived.map_err(|source| ConvertError::Step { layer: self.name(act).to_owned(), source })?;
        let largest = real.scale.iter().fold(0.0, |most, gain| f64::max(most, gain.abs()));
        let name = self.name(act).to_owned();
        self.acts.push(ActReport {
            name,
            range,
            worst_error: derived.worst_error + largest * self.streams.errors.get(&tensor).copied().unwrap_or(0.0),
            shift: derived.step.shift,
            bits,
        });
        let op = IntegerOp::Act { input: tensor, step: derived.step };
        self.push(act, op, (0, hi.into()), zero.into(), scale);
        Ok(())
    }
}
