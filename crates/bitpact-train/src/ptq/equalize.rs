//! Cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721, section 4.1): the channels of an activation are
//! divided by factors that the layers before and after it take up, so that the network stays what it is and its codes
//! are better used.

use bitpact_graph::{Factor, Graph, Layer, NodeId, Op, QuantPlan, WeightPlan, fuse};
use bitpact_model::{Model, ModelError};

use super::PtqError;
use super::forward::norm_lines;
use super::product::Lowered;
use super::seen::Seen;

/// Exponents that are tried.
const EXPONENTS: [f64; 4] = [0.25, 0.5, 0.75, 1.0];
/// Factors lie between this and its inverse.
const LARGEST_FACTOR: f64 = 1e3;

/// One activation whose channels were rescaled.
#[derive(Debug, Clone, PartialEq)]
pub struct Equalized {
    /// Name of the activation.
    pub act: String,
    /// What the expected squared error of the layers after it falls to, as a share.
    pub error: f64,
}

/// Where factors can go: to the tensors before an activation, and to the products after it.
struct Place {
    act: NodeId,
    before: Vec<Before>,
    after: Vec<NodeId>,
}

/// What gives a term of the sum before an activation its scale.
enum Before {
    Norm(NodeId),
    Product(NodeId),
}

/// Activations that end a sum whose every term has a batch norm or is a product, and that products alone read. ReLU is
/// homogeneous (`relu(x / s) = relu(x) / s` for `s > 0`), a signed activation is linear, so the factors are exact
/// there.
fn places(graph: &Graph) -> Result<Vec<Place>, PtqError> {
    let of_layer = |layer: Layer| {
        let Layer::Sum(sum) = layer else { return None };
        let act = sum.act()?;
        let before = |term: &bitpact_graph::Term| match (term.norm, term.factor) {
            (Some(norm), _) => Some(Before::Norm(norm)),
            (None, Factor::Product { node, .. }) => Some(Before::Product(node)),
            (None, Factor::View(_)) => None,
        };
        let before = sum.terms.iter().map(before).collect::<Option<Vec<_>>>()?;
        let after = graph.consumers(act).to_vec();
        after.iter().all(|&id| graph.node(id).op.is_product()).then_some(Place { act, before, after })
    };
    Ok(fuse(graph)?.into_iter().filter_map(of_layer).collect())
}

/// Rescales the channels of every activation for which that lowers the error that rounding is expected to make, and
/// says which. The factors of channel c are `r_c^p` of its largest value `r_c` for some p of 1/4, 1/2, 3/4 and 1, or
/// `sqrt(r_c / w_c)` (eq. 11 of the paper, with `w_c` the largest weight that reads it), whichever has the least
/// expected error ([`expected_error`]).
///
/// # Errors
/// A graph without an integer form, or a tensor that is missing.
pub(super) fn equalize(model: &mut Model, seen: &Seen, plan: &QuantPlan) -> Result<Vec<Equalized>, PtqError> {
    let mut done = Vec::new();
    for place in places(&model.graph)? {
        let act = &model.graph.node(place.act).name;
        let Some(q_max) = plan.activations.get(act).map(|act| act.quant.q_max(act.bits)) else { continue };
        let ranges: Vec<f64> = seen.moments[place.act].largest.iter().map(|&r| r.into()).collect();
        let readers =
            place.after.iter().map(|&id| Reader::new(model, plan, id)).collect::<Result<Vec<_>, PtqError>>()?;
        let squares = &seen.moments[place.act].mean_square;
        let error = |factors: &[f64]| -> f64 {
            readers.iter().map(|reader| expected_error(reader, factors, &ranges, squares, q_max)).sum()
        };
        let channels = ranges.len();
        let largest = |c: usize| readers.iter().map(|reader| reader.largest[c]).fold(0.0, f64::max);
        let powers = EXPONENTS.iter().map(|p| (0..channels).map(|c| ranges[c].powf(*p)).collect::<Vec<f64>>());
        let balanced: Vec<f64> = (0..channels).map(|c| (ranges[c] / largest(c)).sqrt()).collect();
        let before = error(&vec![1.0; channels]);
        let tried =
            powers.chain([balanced]).map(|factors| normalized(&factors)).map(|factors| (error(&factors), factors));
        let best = tried.reduce(|a, b| if b.0 < a.0 { b } else { a });
        let Some((after, factors)) = best.filter(|(after, _)| *after < before) else { continue };
        done.push(Equalized { act: act.clone(), error: after / before });
        apply(model, &place, &factors)?;
    }
    Ok(done)
}

/// Factors over their geometric mean, 1 for channels that are always 0 or that nothing reads.
fn normalized(factors: &[f64]) -> Vec<f64> {
    let is_live = |factor: &f64| factor.is_finite() && *factor > 0.0;
    let live: Vec<f64> = factors.iter().copied().filter(is_live).collect();
    let mean = (live.iter().map(|f| f.ln()).sum::<f64>() / live.len().max(1) as f64).exp();
    let bounded = |f: &f64| if is_live(f) { (f / mean).clamp(1.0 / LARGEST_FACTOR, LARGEST_FACTOR) } else { 1.0 };
    factors.iter().map(bounded).collect()
}

/// A product after an activation.
struct Reader {
    lowered: Lowered,
    /// Weights, each row times the gain of its batch norm, as what follows sees them.
    matrices: Vec<f64>,
    inputs: usize,
    /// The largest weight that reads each channel.
    largest: Vec<f64>,
    /// The largest code of a weight; `None` for float weights.
    code_limit: Option<f64>,
}

impl Reader {
    fn new(model: &Model, plan: &QuantPlan, id: NodeId) -> Result<Self, PtqError> {
        let graph = &model.graph;
        let name = &graph.node(id).name;
        let lowered = Lowered::new(graph, id, &model.input);
        let columns = lowered.columns();
        let mut matrices: Vec<f64> =
            lowered.matrices(&model.tensor(&format!("{name}.weight"))?.data).iter().map(|&w| w.into()).collect();
        if let [norm] = *graph.consumers(id)
            && graph.node(norm).op.is_norm()
        {
            let gains = norm_lines(model, norm)?;
            matrices.chunks_exact_mut(columns).zip(gains).for_each(|(row, (gain, _))| {
                row.iter_mut().for_each(|w| *w *= gain);
            });
        }
        let channels = graph.input_shape(id).c;
        let mut largest = vec![0.0; channels];
        let inputs = channels / lowered.groups();
        for (at, w) in matrices.iter().enumerate() {
            let channel = at / columns / lowered.rows() * inputs + at % inputs;
            largest[channel] = f64::max(largest[channel], w.abs());
        }
        let code_limit = match plan.weights.get(name) {
            Some(WeightPlan::Quantized(spec)) => Some(f64::from(spec.code_limit().max(1))),
            _ => None,
        };
        Ok(Self { lowered, matrices, inputs, largest, code_limit })
    }
}

/// The expected squared error of a reader's outputs when channel c of what it reads was divided by `factors[c]` and its
/// weights multiplied: codes are off by a twelfth of the squared step, evenly, in values, whose step is that of the
/// largest range over `q_max`, and in weights, whose step is that of the row's largest weight. `squares` are the mean
/// squares of the values.
fn expected_error(reader: &Reader, factors: &[f64], ranges: &[f64], squares: &[f64], q_max: i32) -> f64 {
    let step = ranges.iter().zip(factors).map(|(r, s)| r / s).fold(0.0, f64::max) / f64::from(q_max);
    let (columns, rows) = (reader.lowered.columns(), reader.lowered.rows());
    let mut sum = 0.0;
    for (o, row) in reader.matrices.chunks_exact(columns).enumerate() {
        let first = o / rows * reader.inputs;
        let channel = |at: usize| first + at % reader.inputs;
        let weight = |(at, w): (usize, &f64)| w * factors[channel(at)];
        let weights = || row.iter().enumerate().map(weight);
        sum += weights().map(|w| w * w).sum::<f64>() * step * step;
        if let Some(limit) = reader.code_limit {
            let step = weights().fold(0.0, |most, w| f64::max(most, w.abs())) / limit;
            let energy: f64 = (0..columns).map(|at| squares[channel(at)] / factors[channel(at)].powi(2)).sum();
            sum += step * step * energy;
        }
    }
    sum / 12.0
}

/// Divides channel c of the activation by `factors[c]`, and multiplies what reads it.
fn apply(model: &mut Model, place: &Place, factors: &[f64]) -> Result<(), ModelError> {
    let scaled = |model: &mut Model, node: NodeId, tensor: &str, by: &dyn Fn(usize) -> f64| -> Result<(), ModelError> {
        let name = format!("{}.{tensor}", model.graph.node(node).name);
        let Some(tensor) = model.tensors.get_mut(&name) else { return model.tensor(&name).map(|_| ()) };
        tensor.data.iter_mut().enumerate().for_each(|(i, v)| *v = (f64::from(*v) * by(i)) as f32);
        Ok(())
    };
    for before in &place.before {
        match *before {
            Before::Norm(norm) => {
                for tensor in ["weight", "bias"] {
                    scaled(model, norm, tensor, &|c| 1.0 / factors[c])?;
                }
            }
            Before::Product(product) => {
                scale_matrices(model, product, &|row, _| 1.0 / factors[row])?;
                if model.graph.node(product).op.has_bias() {
                    scaled(model, product, "bias", &|c| 1.0 / factors[c])?;
                }
            }
        }
    }
    for &reader in &place.after {
        scale_matrices(model, reader, &|_, channel| factors[channel])?;
    }
    Ok(())
}

/// Multiplies every weight by `by(output channel, input channel)`.
fn scale_matrices(model: &mut Model, product: NodeId, by: &dyn Fn(usize, usize) -> f64) -> Result<(), ModelError> {
    let graph = &model.graph;
    debug_assert!(!matches!(graph.node(product).op, Op::Input { .. }));
    let lowered = Lowered::new(graph, product, &model.input);
    let (columns, rows) = (lowered.columns(), lowered.rows());
    let inputs = graph.input_shape(product).c / lowered.groups();
    let name = format!("{}.weight", graph.node(product).name);
    let mut matrices = lowered.matrices(&model.tensor(&name)?.data);
    for (at, w) in matrices.iter_mut().enumerate() {
        let row = at / columns;
        *w = (f64::from(*w) * by(row, row / rows * inputs + at % inputs)) as f32;
    }
    let data = lowered.tensor(&matrices);
    if let Some(tensor) = model.tensors.get_mut(&name) {
        tensor.data = data;
    }
    Ok(())
}
