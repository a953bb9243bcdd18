//! The layers of a network as tables for people and as objects for scripts, from one definition.

use std::collections::BTreeSet;

use bitpact_core::{Grid, Requantization};
use bitpact_graph::{Graph, QuantPlan, Window, counts};
use bitpact_model::{
    IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm, ModelError,
};
use bitpact_train::LayerStatistics;
use serde_json::{Map, Value, json};

use crate::text::{bytes, count, table};

/// How a value is shown to people.
#[derive(Clone, Copy)]
enum Unit {
    Plain,
    Count,
    Bytes,
    Real,
    Percent,
}

impl Unit {
    fn show(self, value: &Value) -> String {
        match (self, value.as_u64(), value.as_f64()) {
            (Unit::Count, Some(n), _) => count(n),
            (Unit::Bytes, Some(n), _) => bytes(n),
            (Unit::Real, _, Some(x)) if x != 0.0 && x.abs() < 1e-3 => format!("{x:.2e}"),
            (Unit::Real, _, Some(x)) => format!("{x:.4}"),
            (Unit::Percent, _, Some(x)) => format!("{:.1} %", x * 100.0),
            _ => plain(value),
        }
    }
}

/// The text of a JSON value as a person reads it: strings without quotes, lists with blanks between, nothing for null.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// A column: its key for scripts and its heading for people, either of them empty where it is not for them.
type Column = (&'static str, &'static str, Unit);

/// The table about size and cost, then the one about ranges and levels. Both begin with the layer.
const COST: [Column; 10] = [
    ("op", "op", Unit::Plain),
    ("shape", "shape", Unit::Plain),
    ("weight_bits", "w bits", Unit::Plain),
    ("act_bits", "a bits", Unit::Plain),
    ("alpha", "alpha", Unit::Real),
    ("alpha_min", "alpha min", Unit::Real),
    ("scale", "scale", Unit::Real),
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

/// A row for each layer of a network, with its shapes, bits, cost, ranges and use of levels.
pub struct Layers {
    tables: Vec<&'static [Column]>,
    /// Per layer its name, then a value for each column of each table.
    rows: Vec<(String, Vec<Value>)>,
}

/// The multiply-adds of a product of `layer` for one image.
pub fn macs(layer: &IntegerLayer, product: &IntegerProduct) -> u64 {
    product.codes.len() as u64 * (layer.shape.h * layer.shape.w) as u64
}

/// The bytes that the weight codes of a product take where each has only its bits.
pub fn packed_bytes(product: &IntegerProduct) -> u64 {
    (product.codes.len() as u64 * u64::from(product.weight_bits)).div_ceil(8)
}

impl Layers {
    /// Lists an integer network: a row for each product, and one for each layer without. `statistics` are those of the
    /// run's last epoch, empty where they are not known.
    ///
    /// # Errors
    /// [`ModelError::Layer`] where the range of a layer's sums cannot be proved.
    pub fn of_integers(model: &IntegerModel, statistics: &[LayerStatistics]) -> Result<Self, ModelError> {
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

    /// Lists a network without an integer form: a row for each layer with weights.
    pub fn of_floats(graph: &Graph, plan: &QuantPlan) -> Self {
        let row = |l: counts::LayerCount| {
            (l.name, vec![json!(l.output.to_string()), json!(l.macs), json!(l.params), json!(l.float_bytes)])
        };
        Self { tables: vec![&FLOAT], rows: counts::layers(graph, plan).into_iter().map(row).collect() }
    }

    /// Every layer as a JSON object, without what it does not have.
    pub fn json(&self) -> Value {
        let object = |(name, row): &(String, Vec<Value>)| {
            let columns = self.tables.iter().flat_map(|columns| columns.iter());
            let there = columns.zip(row).filter(|((key, ..), value)| !value.is_null() && !key.is_empty());
            let fields = there.map(|((key, ..), value)| ((*key).to_owned(), value.clone()));
            Value::Object([("layer".to_owned(), json!(name))].into_iter().chain(fields).collect::<Map<_, _>>())
        };
        Value::Array(self.rows.iter().map(object).collect())
    }

    /// The columns that are for scripts: the key, and a value for each row, null where the layer has none. Columns of
    /// nulls are left out. The first one, `layer`, has the names.
    pub fn columns(&self) -> Vec<(&'static str, Vec<Value>)> {
        let mut columns = vec![("layer", self.rows.iter().map(|(name, _)| json!(name)).collect())];
        for (at, (key, ..)) in self.tables.iter().flat_map(|columns| columns.iter()).enumerate() {
            let values: Vec<Value> = self.rows.iter().map(|(_, row)| row[at].clone()).collect();
            if !key.is_empty() && values.iter().any(|value| !value.is_null()) {
                columns.push((key, values));
            }
        }
        columns
    }

    /// The tables as text, without the rows and columns in which nothing stands.
    pub fn text(&self) -> String {
        let mut texts = Vec::new();
        let mut from = 0;
        for columns in &self.tables {
            let shown: Vec<usize> = (0..columns.len())
                .filter(|&c| !columns[c].1.is_empty())
                .filter(|&c| self.rows.iter().any(|(_, row)| !row[from + c].is_null()))
                .collect();
            let mut rows =
                vec![["layer"].into_iter().chain(shown.iter().map(|&c| columns[c].1)).map(str::to_owned).collect()];
            for (name, row) in &self.rows {
                if shown.iter().all(|&c| row[from + c].is_null()) {
                    continue;
                }
                let cells = shown.iter().map(|&c| columns[c].2.show(&row[from + c]));
                rows.push([name.clone()].into_iter().chain(cells).collect::<Vec<String>>());
            }
            let left: &[usize] = if columns[0].0 == "op" { &[0, 1] } else { &[0] };
            texts.push(table(&rows, left));
            from += columns.len();
        }
        texts.join("\n")
    }
}

fn product_row(
    model: &IntegerModel,
    layer: &IntegerLayer,
    product: &IntegerProduct,
    is_main: bool,
    statistics: Option<&LayerStatistics>,
) -> Result<Vec<Value>, ModelError> {
    let ranges = model.acc_ranges(product).map_err(|what| in_layer(layer, what))?;
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

fn in_layer(layer: &IntegerLayer, what: String) -> ModelError {
    ModelError::Layer { layer: layer.name.clone(), what }
}

/// The row of a sum without products: the range is that of its terms.
fn act_row(
    model: &IntegerModel,
    layer: &IntegerLayer,
    sum: &IntegerSum,
    statistics: Option<&LayerStatistics>,
) -> Result<Vec<Value>, ModelError> {
    let mut row = vec![Value::Null; COST.len() + RANGES.len()];
    let ranges = model.term_ranges(sum, layer.shape.c).map_err(|what| in_layer(layer, what))?;
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
    set("scale", json!(layer.scale));
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

/// Bits of the largest output code.
pub(super) fn code_bits(layer: &IntegerLayer) -> u32 {
    u32::BITS - layer.hi.unsigned_abs().leading_zeros()
}

/// What a layer without a product computes.
pub(super) fn without_product(op: &IntegerOp) -> Option<String> {
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
pub(super) fn window_text(window: &Window) -> String {
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

/// What a product computes: kernel, stride, channels.
pub(super) fn operation(product: &IntegerProduct) -> String {
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
