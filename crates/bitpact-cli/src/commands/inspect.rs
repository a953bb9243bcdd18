//! `bitpact inspect`: what is in a network, layer by layer.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use bitpact::graph::counts;
use bitpact::model::{IntegerOp, IntegerProduct};
use bitpact::{Checkpoint, IntegerModel};
use serde_json::{Value, json};

use crate::loaded::{Loaded, Network, open};
use crate::out::{bytes, count, print, table};

/// Shows a network layer by layer: shapes, bits, scales, cost, ranges
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact inspect runs/builtin-W4A4-seed1
  bitpact inspect model.bitpact --json")]
pub(crate) struct Args {
    /// A .bitpact file, a checkpoint (.safetensors, converted on the fly) or the folder of a run
    model: PathBuf,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let loaded = open(&args.model)?;
    let (head, layers) = match &loaded.network {
        Network::Integer { model, report, checkpoint } => {
            let mut head = integer_head(&loaded, model);
            if let Some(report) = report {
                let worst = report.iter().fold(0.0f64, |worst, layer| worst.max(layer.worst_error));
                head.push(("worst step error", json!(worst)));
            }
            head.extend(checkpoint.iter().flat_map(|checkpoint| training_head(checkpoint)));
            (head, integer_layers(model)?)
        }
        Network::Float(checkpoint) => (float_head(&loaded, checkpoint), float_layers(checkpoint)),
    };
    if args.json {
        return print(&json_object(&head, &layers).to_string());
    }
    let width = head.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let mut text: String = head.iter().map(|(key, value)| format!("{key:width$}  {}\n", plain(value))).collect();
    text.push('\n');
    let mut rows = vec![layers.columns.iter().map(|&(name, _)| name.to_owned()).collect::<Vec<_>>()];
    for row in &layers.rows {
        rows.push(row.iter().zip(&layers.columns).map(|(value, (_, unit))| unit.show(value)).collect());
    }
    print(&(text + &table(&rows, &[0, 1])))
}

/// How a number of a column is shown.
#[derive(Clone, Copy)]
enum Unit {
    Plain,
    Count,
    Bytes,
    Real,
}

impl Unit {
    fn show(self, value: &Value) -> String {
        match (self, value.as_u64(), value.as_f64()) {
            (Unit::Count, Some(n), _) => count(n),
            (Unit::Bytes, Some(n), _) => bytes(n),
            (Unit::Real, _, Some(x)) => format!("{x:.4}"),
            _ => plain(value),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// The layers as a table: one definition for people and for scripts.
struct Layers {
    columns: Vec<(&'static str, Unit)>,
    rows: Vec<Vec<Value>>,
}

fn json_object(head: &[(&'static str, Value)], layers: &Layers) -> Value {
    let key = |name: &str| name.replace([' ', '-'], "_");
    let mut object: serde_json::Map<String, Value> = head.iter().map(|(k, v)| (key(k), v.clone())).collect();
    let rows = layers.rows.iter().map(|row| {
        let fields = layers.columns.iter().zip(row).filter(|(_, value)| !value.is_null());
        fields.map(|((name, _), value)| (key(name), value.clone())).collect::<serde_json::Map<_, _>>()
    });
    object.insert("layers".to_owned(), rows.map(Value::Object).collect());
    Value::Object(object)
}

fn integer_head(loaded: &Loaded, model: &IntegerModel) -> Vec<(&'static str, Value)> {
    let products = || model.layers.iter().flat_map(|layer| layer.op.products().map(move |p| (layer, p)));
    let weights: u64 = products().map(|(_, p)| p.codes.len() as u64).sum();
    let packed: u64 = products().map(|(_, p)| packed_bytes(p)).sum();
    let macs: u64 = products().map(|(layer, p)| p.codes.len() as u64 * (layer.shape.h * layer.shape.w) as u64).sum();
    vec![
        ("file", json!(loaded.file.display().to_string())),
        ("network", json!(format!("{} in integers", model.arch))),
        ("input", json!(model.input_shape.to_string())),
        ("zero point", json!(model.input.zero_point)),
        ("input scale", json!(model.input.scale)),
        ("classes", json!(model.class_names)),
        ("weights", json!(weights)),
        ("weight bytes", json!(packed)),
        ("macs", json!(macs)),
    ]
}

fn packed_bytes(product: &IntegerProduct) -> u64 {
    (product.codes.len() as u64 * u64::from(product.weight_bits)).div_ceil(8)
}

fn integer_layers(model: &IntegerModel) -> Result<Layers> {
    let columns = vec![
        ("layer", Unit::Plain),
        ("op", Unit::Plain),
        ("shape", Unit::Plain),
        ("weight bits", Unit::Plain),
        ("act bits", Unit::Plain),
        ("clip", Unit::Real),
        ("macs", Unit::Count),
        ("bytes", Unit::Bytes),
        ("acc min", Unit::Plain),
        ("acc max", Unit::Plain),
        ("shift", Unit::Plain),
    ];
    let mut rows = Vec::new();
    for layer in &model.layers {
        let shape = json!(layer.shape.to_string());
        let coded = matches!(layer.op, IntegerOp::Product { .. });
        let act_bits = if coded { json!(u32::BITS - layer.hi.unsigned_abs().leading_zeros()) } else { Value::Null };
        let clip = if coded { json!(f64::from(layer.hi) * layer.scale) } else { Value::Null };
        let shift = match &layer.op {
            IntegerOp::Product { step, .. } => json!(step.shift),
            _ => Value::Null,
        };
        for (i, product) in layer.op.products().enumerate() {
            let range = model.acc_ranges(product).map_err(|what| anyhow!("{what}"))?;
            let least = range.iter().map(|r| r.0).min().unwrap_or(0);
            let most = range.iter().map(|r| r.1).max().unwrap_or(0);
            let macs = product.codes.len() as u64 * (layer.shape.h * layer.shape.w) as u64;
            let main = i == 0;
            let own = |value: &Value| if main { value.clone() } else { Value::Null };
            rows.push(vec![
                json!(product.name),
                json!(operation(product)),
                shape.clone(),
                json!(product.weight_bits),
                own(&act_bits),
                own(&clip),
                json!(macs),
                json!(packed_bytes(product)),
                json!(least),
                json!(most),
                own(&shift),
            ]);
        }
        if let IntegerOp::MaxPool { kernel, stride, .. } = layer.op {
            rows.push(pool_row(&layer.name, format!("max pool {kernel}x{kernel}/{stride}"), shape, columns.len()));
        } else if let IntegerOp::SumPool { .. } = layer.op {
            rows.push(pool_row(&layer.name, "sum pool".to_owned(), shape, columns.len()));
        }
    }
    Ok(Layers { columns, rows })
}

fn pool_row(name: &str, op: String, shape: Value, columns: usize) -> Vec<Value> {
    let mut row = vec![json!(name), json!(op), shape];
    row.resize(columns, Value::Null);
    row
}

fn operation(product: &IntegerProduct) -> String {
    let [h, w] = product.kernel;
    match product.stride {
        1 => format!("{h}x{w} {} to {}", product.in_channels, product.out_channels),
        stride => format!("{h}x{w}/{stride} {} to {}", product.in_channels, product.out_channels),
    }
}

fn float_head(loaded: &Loaded, checkpoint: &Checkpoint) -> Vec<(&'static str, Value)> {
    let model = &checkpoint.model;
    let layers = counts::layers(&model.graph, &model.plan);
    let mut head = vec![
        ("file", json!(loaded.file.display().to_string())),
        ("network", json!(format!("{} in float32, without an integer form", model.graph.name()))),
        ("input", json!(model.graph.input().to_string())),
        ("classes", json!(model.class_names)),
        ("parameters", json!(counts::parameters(&model.graph))),
        ("weight bytes", json!(layers.iter().map(|l| l.float_bytes).sum::<u64>())),
        ("macs", json!(layers.iter().map(|l| l.macs).sum::<u64>())),
    ];
    head.extend(training_head(checkpoint));
    head
}

fn float_layers(checkpoint: &Checkpoint) -> Layers {
    let columns = vec![
        ("layer", Unit::Plain),
        ("shape", Unit::Plain),
        ("macs", Unit::Count),
        ("parameters", Unit::Count),
        ("bytes", Unit::Bytes),
    ];
    let layers = counts::layers(&checkpoint.model.graph, &checkpoint.model.plan).into_iter();
    let row = |l: counts::LayerCount| {
        vec![json!(l.name), json!(l.output.to_string()), json!(l.macs), json!(l.params), json!(l.float_bytes)]
    };
    Layers { columns, rows: layers.map(row).collect() }
}

/// What a checkpoint says about its training.
fn training_head(checkpoint: &Checkpoint) -> Vec<(&'static str, Value)> {
    let step = checkpoint.training.as_ref().map(|training| ("training steps", json!(training.step)));
    let note = checkpoint.note.as_ref().map(|note| ("note", json!(note)));
    step.into_iter().chain(note).collect()
}
