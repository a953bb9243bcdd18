//! `bitpact inspect`: what is in a network, layer by layer.

mod drawing;
mod layers;

use std::path::PathBuf;

use anyhow::Result;
use bitpact::unstable::graph::{BitSpec, QuantConfig, counts};
use bitpact::unstable::model::IntegerOutput;
use bitpact::unstable::report::layers::{Layers, macs, packed_bytes};
use bitpact::unstable::train::{LayerStatistics, Record, RunFolder};
use bitpact::{Checkpoint, Graph, IntegerModel, QuantPlan};
use serde_json::{Value, json};

use crate::loaded::{Loaded, Network, architecture, open};
use crate::out::print;
pub(crate) use drawing::Drawing;

/// Shows a network: its graph, and layer by layer shapes, bits, clip values, cost, ranges and use of levels
#[derive(clap::Args)]
#[command(after_help = "\
Columns: step is the real value of one step of the output codes and alpha that of their whole range, the
clip value (twice that where the activation is signed); alpha min is the least of a channel where channels
have clip values of their own. acc is the range of the products' sums over all images, proved from the
weight codes, and the bits it takes. w levels counts the weight codes that occur.
In the folder of a run, from its last epoch: levels is the number of output codes that occur, entropy the bits they carry,
zero and clipped the fractions at either end.

Examples:
  bitpact inspect runs/builtin-W4A4-seed1
  bitpact inspect runs/builtin-W4A4-seed1 --graph
  bitpact inspect model.bitpact --json
  bitpact inspect resnet20 --graph")]
pub(crate) struct Args {
    /// A .bitpact file, a checkpoint (.safetensors, converted on the fly), the folder of a run, the name of an
    /// architecture, or a TOML or JSON file with a network
    model: PathBuf,
    /// Only the drawing of the graph
    #[arg(long, conflicts_with = "json")]
    graph: bool,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    if let Some(graph) = architecture(&args.model, None)? {
        let plan = QuantPlan::resolve(&graph, &QuantConfig::new(BitSpec::Float))?;
        let layers = Layers::of_floats(&graph, &plan);
        return show(&args, &graph_head(&graph, &plan), &Drawing::of_graph(&graph)?, &layers);
    }
    let path = args.model.as_path();
    let loaded = open(path)?;
    let statistics = match path.is_dir() {
        true => last_statistics(&RunFolder::open(path)?)?,
        false => Vec::new(),
    };
    let (head, drawing, layers) = match &loaded.network {
        Network::Integer { model, worst_error, checkpoint } => {
            let mut head = integer_head(&loaded, model);
            head.extend(worst_error.map(|worst| ("worst step error", json!(worst))));
            head.extend(checkpoint.iter().flat_map(|checkpoint| training_head(checkpoint)));
            (head, Drawing::of_integers(model), Layers::of_integers(model, &statistics).map_err(anyhow::Error::msg)?)
        }
        Network::Float(checkpoint) => {
            let model = &checkpoint.model;
            let head = float_head(&loaded, checkpoint);
            (head, Drawing::of_graph(&model.graph)?, Layers::of_floats(&model.graph, &model.plan))
        }
    };
    show(&args, &head, &drawing, &layers)
}

/// Shows a network as the arguments ask for.
fn show(args: &Args, head: &[(&str, Value)], drawing: &Drawing, layers: &Layers) -> Result<()> {
    if args.json {
        let mut object: serde_json::Map<String, Value> =
            head.iter().map(|(k, v)| (layers::key(k), v.clone())).collect();
        object.insert("layers".to_owned(), layers.json());
        return print(&Value::Object(object).to_string());
    }
    if args.graph {
        return print(&drawing.text());
    }
    let width = head.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let line = |(key, value): &(&str, Value)| format!("{key:width$}  {}\n", wrapped(&layers::plain(value), width + 2));
    let head: String = head.iter().map(line).collect();
    print(&format!("{head}\n{}\n{}", drawing.text(), layers::text(layers)))
}

/// The words of `text` in lines of at most 100 columns, all but the first set in by `indent`.
fn wrapped(text: &str, indent: usize) -> String {
    const COLUMNS: usize = 100;
    let (mut out, mut column) = (String::new(), indent);
    for (i, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if i > 0 && column + 1 + length > COLUMNS {
            out += &format!("\n{:indent$}", "");
            column = indent;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += length;
    }
    out
}

/// How the activations stood in the last epoch that the run wrote down.
fn last_statistics(folder: &RunFolder) -> Result<Vec<LayerStatistics>> {
    let epochs = folder.records()?.into_iter().rev().find_map(|record| match record {
        Record::Epoch(epoch) => Some(epoch.layers),
        Record::Warning(_) => None,
    });
    Ok(epochs.unwrap_or_default())
}

fn integer_head(loaded: &Loaded, model: &IntegerModel) -> Vec<(&'static str, Value)> {
    let products = || model.layers.iter().flat_map(|layer| layer.op.products().map(move |p| (layer, p)));
    let weights: u64 = products().map(|(_, p)| p.codes.len() as u64).sum();
    let packed: u64 = products().map(|(_, p)| packed_bytes(p)).sum();
    let macs: u64 = products().map(|(layer, p)| macs(layer, p)).sum();
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
        ("outputs", json!(model.outputs.iter().map(|output| described(model, output)).collect::<Vec<_>>())),
    ]
}

/// Name, shape and meaning of an output.
fn described(model: &IntegerModel, output: &IntegerOutput) -> String {
    let layer = &model.layers[output.tensor - 1];
    let zero = if output.zero == 0 { String::new() } else { format!(" - {}", output.zero) };
    format!("{} {}: {:.6} x (q{zero})", layer.name, layer.shape, layer.scale)
}

/// What is known of a network without weights.
fn graph_head(graph: &Graph, plan: &QuantPlan) -> Vec<(&'static str, Value)> {
    vec![
        ("network", json!(format!("{}, without weights", graph.name()))),
        ("input", json!(graph.input().to_string())),
        ("classes", json!(graph.classes())),
        ("parameters", json!(counts::parameters(graph))),
        ("macs", json!(counts::layers(graph, plan).iter().map(|l| l.macs).sum::<u64>())),
    ]
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

/// What a checkpoint says about its training.
fn training_head(checkpoint: &Checkpoint) -> Vec<(&'static str, Value)> {
    let step = checkpoint.training.as_ref().map(|training| ("training steps", json!(training.step)));
    let note = checkpoint.note.as_ref().map(|note| ("note", json!(note)));
    step.into_iter().chain(note).collect()
}
