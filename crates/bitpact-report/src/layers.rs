//! The layers of a network as rows, for tables that people read and for programs, from one definition.

use std::collections::BTreeSet;

use bitpact_core::{Grid, Requantization};
use bitpact_graph::{Graph, QuantPlan, Window, counts};
use bitpact_model::{IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm};
use bitpact_train::LayerStatistics;
use serde_json::{Map, Value, json};

/// How a value of a column is shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The value as it is.
    Plain,
    /// A number of things.
    Count,
    /// A number of bytes.
    Bytes,
    /// A real number.
    Real,
    /// A fraction, as a percentage.
    Percent,
}

/// A column: its key for programs and its heading for people, either of them empty where it is not for them.
pub type Column = (&'static str, &'static str, Unit);

/// The table about size and cost, then the one about ranges and levels. Both begin with the layer.
const COST: [Column; 10] = [
    ("op", "op", Unit::Plain),
    ("shape", "shape", Unit::Plain),
    ("weight_bits", "w bits", Unit::Plain),
    ("act_bits", "a bits", Unit::Plain),
    ("alpha", "alpha", Unit::Real),
    ("alpha_min", "alpha min", Unit::Real),
    ("step", "step", Unit::Real),
    ("macs", "macs", Unit::Count),
    ("bytes", "bytes", Unit::Bytes),
    ("inputs", "", Unit::Plain),
];
const RANGES: [Column; 15] = [
    ("acc_min", "acc min", Unit::Plain),
    ("acc_max", "acc max", Unit::Plain),
    ("acc_bits", "acc bits", Unit::Plain),
    ("shift", "shift", Unit::Plain),
    ("", "w levels", Unit::Plain),
    ("", "levels", Unit::Plain),
    ("entropy", "entropy", Unit::Real),
    ("zero", "zero", Unit::Percent),
    ("clipped", "clipped", Unit::Percent),
    ("weight_levels", "", Unit::Plain),
    ("levels", "", Unit::Plain),
    ("multiplier_min", "", Unit::Plain),
    ("multiplier_max", "", Unit::Plain),
    ("occupancy", "", Unit::Plain),
    ("grid", "", Unit::Plain),
];
const FLOAT: [Column; 4] = [
    ("shape", "shape", Unit::Plain),
    ("macs", "macs", Unit::Count),
    ("parameters", "parameters", Unit::Count),
    ("bytes", "bytes", Unit::Bytes),
];

/// The layers of a network, one after the other.
#[derive(Clone, Debug)]
pub struct Layers {
    /// Tables beside each other, each a list of columns.
    pub tables: Vec<&'static [Column]>,
    /// Per layer its name, then a value for each column of each table; null for one that the layer does not have.
    pub rows: Vec<(String, Vec<Value>)>,
}

/// Multiply-adds of a product for one image: weights times output positions.
pub fn macs(layer: &IntegerLayer, product: &IntegerProduct) -> u64 {
    product.codes.len() as u64 * (layer.shape.h * layer.shape.w) as u64
}

/// Bytes of the packed weight codes of a product: codes times bits, rounded up.
pub fn packed_bytes(product: &IntegerProduct) -> u64 {
    (product.codes.len() as u64 * u64::from(product.weight_bits)).div_ceil(8)
}

impl Layers {
    /// One row a product of an integer network, and one a layer without. `statistics` are those of the last epoch, where
    /// known.
    ///
    /// # Errors
    /// A network with a sum that can leave 64 bits.
    pub fn of_integers(model: &IntegerModel, statistics: &[LayerStatistics]) -> Result<Self, String> {
        let mut rows = Vec::new();
        for layer in &model.layers {
            let own = statistics.iter().find(|own| own.name == layer.name);
            for (i, product) in layer.op.products().enumerate() {
                rows.push((product.name.clone(), product_row(model, layer, product, i == 0, own)?));
            }
            let Some(op) = without_product(&layer.op) else { continue };
            let mut row = vec![Value::Null; COST.len() + RANGES.len()];
            if let Some(sum) = layer.op.sum() {
                row = act_row(model, layer, sum, own)?;
            }
            row[0] = json!(op);
            row[1] = json!(layer.shape.to_string());
            row[COST.len() - 1] = inputs(model, &layer.op.inputs());
            rows.push((layer.name.clone(), row));
        }
        Ok(Self { tables: vec![&COST, &RANGES], rows })
    }

    /// One row a layer with weights of a float network.
    pub fn of_floats(graph: &Graph, plan: &QuantPlan) -> Self {
        let row = |l: counts::LayerCount| {
            (l.name, vec![json!(l.output.to_string()), json!(l.macs), json!(l.params), json!(l.float_bytes)])
        };
        Self { tables: vec![&FLOAT], rows: counts::layers(graph, plan).into_iter().map(row).collect() }
    }

    /// Every layer as an object, without what it does not have.
    pub fn json(&self) -> Value {
        let object = |(name, row): &(String, Vec<Value>)| {
            let columns = self.tables.iter().flat_map(|columns| columns.iter());
            let there = columns.zip(row).filter(|((key, ..), value)| !value.is_null() && !key.is_empty());
            let fields = there.map(|((key, ..), value)| ((*key).to_owned(), value.clone()));
            Value::Object([("layer".to_owned(), json!(name))].into_iter().chain(fields).collect::<Map<_, _>>())
        };
        Value::Array(self.rows.iter().map(object).collect())
    }
}

fn product_row(
    model: &IntegerModel,
    layer: &IntegerLayer,
    product: &IntegerProduct,
    is_main: bool,
    statistics: Option<&LayerStatistics>,
) -> Result<Vec<Value>, String> {
    let ranges = model.acc_ranges(product)?;
    let least = ranges.iter().map(|r| r.0).min().unwrap_or(0);
    let most = ranges.iter().map(|r| r.1).max().unwrap_or(0);
    // What the layer makes stands in the row of its main product.
    let of_layer = |value: Option<Value>| value.filter(|_| is_main).unwrap_or(Value::Null);
    let sum = layer.op.sum();
    let own = sum.and_then(|sum| {
        let is_own = |term: &IntegerTerm| term.product().is_some_and(|p| std::ptr::eq(p, product));
        sum.terms.iter().position(is_own).map(|term| &sum.requant.mul[term])
    });
    let requant = sum.filter(|sum| sum.end != IntegerEnd::Output).map(|sum| &sum.requant);
    // A stream has no alpha, and no bits of an activation.
    let coded = requant.filter(|_| !layer.op.is_wide());
    let multipliers = own.map_or(&[][..], Vec::as_slice);
    let mut read = vec![product.input];
    if is_main {
        let views = sum.into_iter().flat_map(|sum| sum.terms.iter().filter(|term| term.product().is_none()));
        read.extend(views.flat_map(IntegerTerm::inputs));
        read.extend(sum.into_iter().flat_map(|sum| sum.base.iter().map(|(view, _)| view.input)));
    }
    let (used, possible) = weight_levels(product);
    let fraction = |of: fn(&LayerStatistics) -> f64| of_layer(statistics.map(|own| json!(of(own))));
    Ok(vec![
        json!(operation(product)),
        json!(layer.shape.to_string()),
        json!(product.weight_bits),
        of_layer(coded.map(|_| json!(code_bits(layer)))),
        of_layer(coded.map(|_| json!(f64::from(layer.hi) * layer.scale))),
        of_layer(coded.map(|requant| least_alpha(layer, requant))),
        of_layer(requant.map(|_| json!(layer.scale))),
        json!(macs(layer, product)),
        json!(packed_bytes(product)),
        inputs(model, &read),
        json!(least),
        json!(most),
        json!(signed_bits(least, most)),
        of_layer(requant.map(|requant| json!(requant.shift))),
        possible.map_or(Value::Null, |possible| json!(format!("{used}/{possible}"))),
        of_layer(statistics.map(|own| json!(format!("{}/{}", levels(own), own.occupancy.len())))),
        of_layer(statistics.map(|own| json!(entropy(&own.occupancy)))),
        fraction(|own| own.zero),
        fraction(|own| own.clipped),
        json!(used),
        of_layer(statistics.map(|own| json!(levels(own)))),
        multipliers.iter().min().map_or(Value::Null, |least| json!(least)),
        multipliers.iter().max().map_or(Value::Null, |most| json!(most)),
        of_layer(statistics.map(|own| json!(own.occupancy))),
        json!(product.grid.name()),
    ])
}

/// The row of a sum without products: the range is that of its terms.
fn act_row(
    model: &IntegerModel,
    layer: &IntegerLayer,
    sum: &IntegerSum,
    statistics: Option<&LayerStatistics>,
) -> Result<Vec<Value>, String> {
    let mut row = vec![Value::Null; COST.len() + RANGES.len()];
    let ranges = model.term_ranges(sum, layer.shape.c)?;
    let ends = || ranges.iter().flatten();
    let least = ends().map(|range| range.0).min().unwrap_or(0);
    let most = ends().map(|range| range.1).max().unwrap_or(0);
    let mut set = |key: &str, value: Value| {
        if let Some(at) = COST.iter().chain(&RANGES).position(|column| column.0 == key) {
            row[at] = value;
        }
    };
    set("act_bits", json!(code_bits(layer)));
    set("alpha", json!(f64::from(layer.hi) * layer.scale));
    set("alpha_min", least_alpha(layer, &sum.requant));
    set("step", json!(layer.scale));
    set("acc_min", json!(least));
    set("acc_max", json!(most));
    set("acc_bits", json!(signed_bits(least, most)));
    set("shift", json!(sum.requant.shift));
    set("multiplier_min", json!(sum.requant.mul.iter().flatten().min()));
    set("multiplier_max", json!(sum.requant.mul.iter().flatten().max()));
    if let Some(own) = statistics {
        set("entropy", json!(entropy(&own.occupancy)));
        set("zero", json!(own.zero));
        set("clipped", json!(own.clipped));
        set("levels", json!(levels(own)));
        set("occupancy", json!(own.occupancy));
        if let Some(at) = RANGES.iter().position(|column| column.1 == "levels") {
            row[COST.len() + at] = json!(format!("{}/{}", levels(own), own.occupancy.len()));
        }
    }
    Ok(row)
}

/// The least alpha of a channel, as codes have it; nothing where the layer has one alpha.
fn least_alpha(layer: &IntegerLayer, requant: &Requantization) -> Value {
    let least = requant.bounds.iter().map(|(lo, hi)| hi - lo).min();
    least.map_or(Value::Null, |codes| json!(f64::from(codes) * layer.scale))
}

/// Bits of the largest output code of a layer.
pub fn code_bits(layer: &IntegerLayer) -> u32 {
    u32::BITS - layer.hi.unsigned_abs().leading_zeros()
}

/// What a layer computes that has no product, in words; `None` where it has one.
pub fn without_product(op: &IntegerOp) -> Option<String> {
    Some(match op {
        IntegerOp::MaxPool { window, .. } => format!("max pool {}", window_text(window)),
        IntegerOp::WindowSum { window, .. } => format!("window sum {}", window_text(window)),
        IntegerOp::Concat { .. } => "concat".to_owned(),
        IntegerOp::View(_) => "view".to_owned(),
        IntegerOp::Sum(sum) if sum.terms.iter().any(|term| term.product().is_some()) => return None,
        IntegerOp::Sum(sum) if sum.end == IntegerEnd::Codes && sum.terms.len() == 1 => "act".to_owned(),
        IntegerOp::Sum(_) => "sum".to_owned(),
    })
}

/// A window by its sides and stride.
fn window_text(window: &Window) -> String {
    let pair = |[a, b]: [usize; 2]| if a == b { a.to_string() } else { format!("{a}x{b}") };
    let [h, w] = window.kernel;
    match window.stride {
        [1, 1] => format!("{h}x{w}"),
        stride => format!("{h}x{w}/{}", pair(stride)),
    }
}

/// Names of the layers behind tensors.
fn inputs(model: &IntegerModel, tensors: &[usize]) -> Value {
    let name = |&tensor: &usize| tensor.checked_sub(1).map_or("image", |layer| model.layers[layer].name.as_str());
    json!(tensors.iter().map(name).collect::<Vec<_>>())
}

/// Weight codes that occur, and how many the grid has; `None` at 16 bits, where that says nothing.
fn weight_levels(product: &IntegerProduct) -> (usize, Option<usize>) {
    let used = product.codes.iter().collect::<BTreeSet<_>>().len();
    let all = 1usize << product.weight_bits.min(16);
    let possible = match product.grid {
        Grid::WithZero => all - 1,
        Grid::WithoutZero => all,
    };
    (used, (product.weight_bits <= 8).then_some(possible))
}

/// Output codes that occurred.
fn levels(own: &LayerStatistics) -> usize {
    own.occupancy.iter().filter(|&&part| part > 0.0).count()
}

/// Bits of two's complement that hold everything from `least` to `most`.
fn signed_bits(least: i64, most: i64) -> u32 {
    let bits = |v: i64| i64::BITS + 1 - (v ^ (v >> 63)).leading_zeros();
    bits(least).max(bits(most))
}

/// Shannon entropy in bits: what codes of these frequencies carry.
fn entropy(parts: &[f64]) -> f64 {
    parts.iter().filter(|&&p| p > 0.0).map(|&p| -p * p.log2()).sum::<f64>().max(0.0)
}

/// What a product computes, in words: kernel, stride, channels.
pub fn operation(product: &IntegerProduct) -> String {
    format!("{} {} to {}", window_text(&product.window), product.in_channels, product.out_channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_ranges() {
        for (least, most, bits) in
            [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-2, 1, 2), (-128, 127, 8), (-129, 0, 9), (0, 128, 9), (i64::MIN, 0, 64)]
        {
            assert_eq!(signed_bits(least, most), bits, "{least} to {most}");
        }
    }

    #[test]
    fn entropy_of_uniform_and_single_levels() {
        assert_eq!(entropy(&[0.25; 4]), 2.0);
        assert_eq!(entropy(&[1.0, 0.0]), 0.0);
    }
}
