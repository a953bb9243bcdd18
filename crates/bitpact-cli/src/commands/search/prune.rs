//! `bitpact search prune`: fewer channels, by masks that are trained with the weights.

use std::path::Path;

use anyhow::Result;
use bitpact::unstable::graph::counts;
use bitpact::unstable::train::prune::{PruneOptions, Pruned, prune};
use bitpact::{Graph, RunError};
use serde_json::json;

use super::pressed::{Job, PressedArgs, Priced, next};
use crate::exit::Interrupted;
use crate::out::{print, say};

/// Removes channels by masks that are trained with the weights, and writes the smaller network with its weights
#[derive(clap::Args)]
#[command(after_help = "\
Channels that stand or fall together have one mask, a number from 0 to 1 that is trained with the weights; where it is
below 1/2 they are gone. With --kernels the taps of convolutions along a row have masks too, of the length of the kernel
and of its dilation, which doubles. The loss gains the cost of what is left: `--strength` times its share of the whole, or with a
budget as much as meets it. Channels of the image, of the outputs, and those that a view renumbers stay.

Written into the output folder: the run with masks, pruned.safetensors with the smaller network, and pruned.toml, the
recipe that trains it on. Flags of `bitpact train` change the recipe of the run.

Examples:
  bitpact search prune runs/builtin-float-seed1 --budget params=20k --epochs 6 -o small
  bitpact train small/pruned.toml --init-from small/pruned.safetensors --bits W8A8
  bitpact search prune cifar10-resnet20 --bits float --strength 0.5 --data DIR")]
pub(crate) struct Args {
    #[command(flatten)]
    pressed: PressedArgs,
    /// Shorten kernels of convolutions along a row too, and widen their dilation
    #[arg(long)]
    kernels: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    print(&pruned(args)?)
}

/// Prunes, writes, and gives what is to be shown.
pub(super) fn pruned(args: Args) -> Result<String> {
    let job = Job::open(&args.pressed)?;
    let priced = &job.priced;
    let ((graph, outcome, pruned), folder) = job.run("prune", "pruning", |run| {
        let prices = priced.costs(run.graph)?.into_iter();
        let prices = prices.map(|(product, cost)| (product.name, cost / product.weights as f64)).collect();
        let options = PruneOptions { prices, pressure: run.pressure, rate: run.rate, kernels: args.kernels };
        let exact = |graph: &Graph| priced.cost(graph).map_err(|error| RunError::Search { what: error.to_string() });
        let (outcome, pruned) = prune(run.recipe, run.images, run.folder, run.start, run.options, &options, &exact)?;
        Ok((run.graph.clone(), outcome, pruned))
    })?;
    let Some(pruned) = pruned else {
        say!("stopped after step {}; masks are not kept: begin again in another folder", outcome.step);
        return Err(Interrupted.into());
    };
    job.write(&pruned.model, "pruned", "channels were removed by bitpact search prune", &folder)?;
    Ok(shown(args.pressed.json, priced, &graph, &pruned, &folder))
}

fn shown(is_json: bool, priced: &Priced, graph: &Graph, pruned: &Pruned, folder: &Path) -> String {
    let [before, after] = [graph, &pruned.model.graph].map(counts::parameters);
    let [whole, left] = pruned.costs;
    if is_json {
        let layers = pruned.model.graph.nodes().iter().enumerate().filter(|(_, node)| node.op.is_product());
        let channels: serde_json::Map<_, _> =
            layers.map(|(id, node)| (node.name.clone(), json!(pruned.model.graph.shape(id).c))).collect();
        let object = json!({
            "network": graph.name(),
            "quantity": priced.quantity.name(),
            "cost": { "whole": whole, "left": left },
            "parameters": { "whole": before, "left": after },
            "groups": pruned.groups,
            "removed": pruned.removed,
            "trimmed": pruned.trimmed,
            "channels": channels,
            "kernels": pruned.kernels.iter().map(|(name, [taps, dilation])| {
                (name.clone(), json!({ "taps": taps, "dilation": dilation }))
            }).collect::<serde_json::Map<_, _>>(),
            "folder": folder.display().to_string(),
        });
        return object.to_string();
    }
    let show = |value: f64| priced.quantity.show(value);
    let trimmed = match pruned.trimmed {
        0 => String::new(),
        n => format!(", {n} of them at the end, to meet the budget"),
    };
    let kernels = pruned.kernels.iter().map(|(name, [taps, dilation])| format!("{name} {taps}/{dilation}"));
    let kernels = match &kernels.collect::<Vec<_>>()[..] {
        [] => String::new(),
        all => format!("\ntaps/dilation of kernels: {}", all.join(", ")),
    };
    format!(
        "{}: {} of {} groups of channels removed{trimmed}{kernels}\n{}: {} of {}\nparameters with batch norms: {after} of {before}, \
         {:.2} times fewer\n\n{}",
        graph.name(),
        pruned.removed,
        pruned.groups,
        priced.quantity.name(),
        show(left),
        show(whole),
        before as f64 / after as f64,
        next("pruned", folder),
    )
}
