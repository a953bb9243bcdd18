//! From a sum of terms to an integer layer.

use bitpact_core::requant::{self, Derived, RealRequantization, Requantization};
use bitpact_graph::{End, Factor, NodeId, Op, Sum, Term};

use super::fold::Folded;
use super::{Act, ActReport, Computed, ConvertError, Converter, LayerReport, Quantizer};
use crate::{IntegerEnd, IntegerOp, IntegerSum, IntegerTerm, IntegerView, TensorId, TensorKind};

/// A requantization that computes nothing, for the first look at a network, in which only ranges matter.
pub(super) fn unmeasured(real: &RealRequantization) -> Derived {
    let mul = real.scale.iter().map(|scale| vec![0; scale.len()]).collect();
    let add = vec![0; real.offset.len()];
    let requant = Requantization { shift: 0, mul, add, lo: real.lo, hi: real.hi, bounds: Vec::new() };
    Derived { requant, worst_error: 0.0 }
}

impl Converter<'_> {
    /// A sum of terms with its end.
    pub(super) fn sum(&mut self, sum: &Sum) -> Result<(), ConvertError> {
        if let (End::Act(act), [Term { factor: Factor::View(view), .. }]) = (sum.end, &sum.terms[..])
            && let Some(&Computed::Function(input)) = self.computed.get(&view.tensor)
        {
            return self.table(view.tensor, input, act);
        }
        let fold = |term: &Term| match term.factor {
            Factor::Product { input, node } => self.fold(node, term.norm, input),
            Factor::View(view) => self.fold_view(view, term.norm, sum.output),
        };
        let terms = sum.terms.iter().map(fold).collect::<Result<Vec<_>, _>>()?;
        match sum.end {
            End::Act(act) => self.codes(sum, terms, act),
            End::Wide => self.stream(sum, terms),
            End::Output => self.output(sum, terms),
        }
    }

    /// Name of the layer for messages: of its first product, or of its last node.
    pub(super) fn layer_name(&self, sum: &Sum) -> String {
        self.name(sum.products().next().map_or(sum.output, |(_, product, _)| product)).to_owned()
    }

    /// Reports what was proved about the products of a sum.
    pub(super) fn report(&mut self, terms: &[Folded], worst_error: f64, shift: i32, act_bits: Option<u8>) {
        for folded in terms {
            if let IntegerTerm::Product(product) = &folded.term {
                self.report.push(LayerReport {
                    name: product.name.clone(),
                    acc_range: hull(&folded.ranges),
                    worst_error,
                    shift,
                    weight_bits: product.weight_bits,
                    act_bits,
                });
            }
        }
    }

    fn codes(&mut self, sum: &Sum, terms: Vec<Folded>, act: NodeId) -> Result<(), ConvertError> {
        let Quantizer { inverse, zero, hi, bounds, scale: unit, bits, .. } = self.quantizer(act)?;
        let bits = bits.get();
        let scale: Vec<Vec<f64>> =
            terms.iter().map(|folded| folded.scale.iter().map(|s| s * inverse).collect()).collect();
        let is_product = |folded: &&Folded| matches!(folded.term, IntegerTerm::Product(_));
        let offset = |c: usize| {
            let products = terms.iter().filter(is_product).fold(0.0, |sum, folded| sum + folded.offset[c]);
            let views = terms.iter().zip(&scale).filter(|(folded, _)| !is_product(folded));
            let sum = views.fold(products * inverse, |sum, (folded, scale)| {
                sum + folded.offset[c] * inverse - scale[c] * folded.zero
            });
            sum + zero
        };
        let offset = (0..self.model.graph.shape(act).c).map(offset).collect();
        let real = RealRequantization { scale, offset, lo: 0, hi, bounds };
        let ranges: Vec<_> = terms.iter().map(|folded| folded.ranges.clone()).collect();
        let derived = match terms.iter().any(|folded| self.is_unmeasured(folded)) {
            true => Ok(unmeasured(&real)),
            false => requant::derive(&real, &ranges),
        };
        let layer = self.layer_name(sum);
        let Derived { requant, worst_error } = derived.map_err(|source| ConvertError::Step { layer, source })?;
        let shift = requant.shift;
        self.report(&terms, worst_error, shift as i32, Some(bits));
        if sum.products().next().is_none() {
            let of_stream = |(folded, scale): (&Folded, &Vec<f64>)| {
                let largest = scale.iter().fold(0.0, |most, gain| f64::max(most, gain.abs()));
                let error = wide_view(folded).and_then(|tensor| self.streams.errors.get(&tensor)).copied();
                largest * error.unwrap_or(0.0)
            };
            let all: Vec<(i64, i64)> = terms.iter().flat_map(|folded| folded.ranges.clone()).collect();
            self.acts.push(ActReport {
                name: self.name(act).to_owned(),
                range: hull(&all),
                worst_error: terms.iter().zip(&real.scale).map(of_stream).fold(worst_error, |sum, error| sum + error),
                shift,
                bits,
            });
        }
        let terms = terms.into_iter().map(|folded| folded.term).collect();
        let op = IntegerOp::Sum(IntegerSum { terms, requant, base: Vec::new(), end: IntegerEnd::Codes });
        self.push(act, op, (0, hi.into()), zero, unit);
        Ok(())
    }

    /// The codes of an activation that reads a function of the codes of `input`, all of them from a table.
    fn table(&mut self, function: NodeId, input: NodeId, act: NodeId) -> Result<(), ConvertError> {
        let graph = &self.model.graph;
        let Op::Function(of) = graph.node(function).op else { unreachable!("a function layer is a function node") };
        let channels = graph.shape(act).c;
        let tensor = self.tensor_of(input, function)?;
        let (lo, hi) = self.out.code_range(tensor);
        let (zero, scale) = (self.zeros[tensor] as f32, self.scale_of(tensor) as f32);
        let slopes = match of.is_learned() {
            true => self.model.tensor(&format!("{}.weight", self.name(function)))?.data.clone(),
            false => vec![0.0],
        };
        let Act { quantizer, code } = self.act_codes(act)?;
        let tables = if slopes.len() > 1 || !quantizer.bounds.is_empty() { channels } else { 1 };
        let of_channel = |c: usize| {
            let slope = slopes[c % slopes.len()];
            // As training computes it: float32, rounded in this order.
            (lo..=hi).map(|q| code(of.value(scale * (q as f32 - zero), slope), c)).collect()
        };
        let mut table: Vec<Vec<u8>> = (0..tables).map(of_channel).collect();
        if table.iter().all(|other| *other == table[0]) {
            table.truncate(1);
        }
        let mul = vec![vec![1; channels]];
        let (lo, hi) = (lo as i32, hi as i32);
        let requant = Requantization { shift: 0, mul, add: vec![0; channels], lo, hi, bounds: Vec::new() };
        self.acts.push(ActReport {
            name: self.name(act).to_owned(),
            range: (lo.into(), hi.into()),
            worst_error: 0.0,
            shift: 0,
            bits: quantizer.bits.get(),
        });
        let terms = vec![IntegerTerm::View(IntegerView::of(tensor))];
        let op = IntegerOp::Sum(IntegerSum { terms, requant, base: Vec::new(), end: IntegerEnd::Table(table) });
        self.push_checked(act, op, quantizer.zero, quantizer.scale)
    }

    /// Tells whether a term reads a residual stream whose scale is not known yet.
    fn is_unmeasured(&self, folded: &Folded) -> bool {
        wide_view(folded).is_some_and(|tensor| {
            self.out.kind(tensor) == TensorKind::Wide && self.streams.is_unmeasured(&self.tensors, tensor)
        })
    }

    fn output(&mut self, sum: &Sum, terms: Vec<Folded>) -> Result<(), ConvertError> {
        let layer = self.layer_name(sum);
        let channels = self.model.graph.shape(sum.output).c;
        let offset: Vec<f64> = (0..channels)
            .map(|c| {
                let offset = |folded: &Folded| folded.offset[c] - folded.scale[c] * folded.zero;
                terms.iter().fold(0.0, |sum, folded| sum + offset(folded))
            })
            .collect();
        let Some(exponent) = output_exponent(&terms, &offset) else {
            let what = "its multipliers and sums leave no common scale for the logits in 64 bits".to_owned();
            return Err(ConvertError::Layer { layer, what });
        };
        let unit = power_of_two(exponent);
        let round = |v: &f64| (v * unit).round_ties_even();
        let mul: Vec<Vec<i32>> =
            terms.iter().map(|folded| folded.scale.iter().map(|s| round(s) as i32).collect()).collect();
        let add: Vec<i64> = offset.iter().map(|o| round(o) as i64).collect();
        let (mut error, mut largest) = (0.0, 0.0);
        for c in 0..channels {
            let (mut by_mul, mut sum) = (0.0, 0.0);
            for (folded, mul) in terms.iter().zip(&mul) {
                let reach = reach(folded.ranges[c]);
                by_mul += (f64::from(mul[c]) - folded.scale[c] * unit).abs() * reach;
                sum += folded.scale[c].abs() * reach;
            }
            error = f64::max(error, by_mul + (add[c] as f64 - offset[c] * unit).abs());
            largest = f64::max(largest, (sum + offset[c].abs()) * unit);
        }
        self.report(&terms, if largest > 0.0 { error / largest } else { 0.0 }, exponent, None);
        let requant = Requantization { shift: 0, mul, add, lo: i32::MIN, hi: i32::MAX, bounds: Vec::new() };
        let terms = terms.into_iter().map(|folded| folded.term).collect();
        let op = IntegerOp::Sum(IntegerSum { terms, requant, base: Vec::new(), end: IntegerEnd::Output });
        self.push(sum.output, op, (0, 0), 0.0, power_of_two(-exponent));
        Ok(())
    }
}

/// The tensor that a term reads as a view.
fn wide_view(folded: &Folded) -> Option<TensorId> {
    match &folded.term {
        IntegerTerm::View(view) => Some(view.input),
        _ => None,
    }
}

fn reach((lo, hi): (i64, i64)) -> f64 {
    lo.unsigned_abs().max(hi.unsigned_abs()) as f64
}

/// The largest power of two whose multiples of the scales stay below 2^30, and of the outputs below 2^62; between
/// 2^-1000 and 2^1000.
pub(super) fn output_exponent(terms: &[Folded], offset: &[f64]) -> Option<i32> {
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let scale = largest(&mut terms.iter().flat_map(|folded| folded.scale.iter().map(|s| s.abs())));
    let output = largest(&mut (0..offset.len()).map(|c| {
        let term = |folded: &Folded| (folded.scale[c].abs() + scale * 2f64.powi(-29)) * reach(folded.ranges[c]);
        terms.iter().fold(0.0, |sum, folded| sum + term(folded)) + offset[c].abs()
    }));
    let fits = |e: i32| scale * power_of_two(e) <= power_of_two(30) && output * power_of_two(e) <= power_of_two(62);
    (-1000..=1000).rev().find(|&e| fits(e))
}

/// `2^exponent`, exactly.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + i64::from(exponent)) as u64) << 52)
}

pub(super) fn hull(ranges: &[(i64, i64)]) -> (i64, i64) {
    ranges.iter().fold((i64::MAX, i64::MIN), |(lo, hi), r| (lo.min(r.0), hi.max(r.1)))
}
