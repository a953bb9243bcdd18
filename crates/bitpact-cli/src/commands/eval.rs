//! `bitpact eval`: the accuracy of a network on a test set.

use anyhow::Result;
use bitpact::Dataset;
use bitpact::engine::Accuracy;
use bitpact::train::{BackendKind, BackendSpec, RunError, evaluate_integer, evaluate_simulated, memory};
use serde_json::json;

use super::test_set::TestSetArgs;
use crate::loaded::{Loaded, Network};
use crate::machine::MachineArgs;
use crate::out::{percent, print, say};
use crate::progress::image_bar;

/// Measures the accuracy of a network on a test set: of its integers, or of its floats where it has no integers
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpact eval runs/builtin-W4A4-seed1
  bitpact eval model.bitpact --dataset cifar10 --data cifar-10-batches-bin --json")]
pub(crate) struct Args {
    #[command(flatten)]
    on: TestSetArgs,
    /// Images computed at once
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
    /// What computes a float network: cpu or reference
    #[arg(long, value_name = "NAME", default_value_t, help_heading = "Machine")]
    backend: BackendKind,
    #[command(flatten)]
    machine: MachineArgs,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let loaded = args.on.network()?;
    let (name, test) = args.on.images(&loaded)?;
    let evaluation = evaluate(&args, &loaded, &*test)?;
    let is_integer = matches!(loaded.network, Network::Integer { .. });
    let view = if is_integer { "integer" } else { "float" };
    if args.json {
        let object = json!({
            "top1": evaluation.top1,
            "top5": evaluation.top5,
            "images": evaluation.images,
            "images_per_s": evaluation.images_per_s,
            "view": view,
            "dataset": name.as_str(),
        });
        return print(&object.to_string());
    }
    if !is_integer {
        say!("{} is a float network: it has no integers, so its floats are evaluated", loaded.file.display());
    }
    print(&format!(
        "{} on {name}, {} images: top-1 {}, top-5 {} ({view}, {:.0} images/s)",
        loaded.file.display(),
        evaluation.images,
        percent(evaluation.top1),
        percent(evaluation.top5),
        evaluation.images_per_s
    ))
}

fn evaluate(args: &Args, loaded: &Loaded, test: &dyn Dataset) -> Result<Accuracy> {
    let machine = args.machine.resolve();
    let bar = image_bar("evaluating", test.len());
    let mut told = |done: usize, _| bar.set_position(done as u64);
    let batch_size = args.batch_size as usize;
    let evaluation = match &loaded.network {
        Network::Integer { model, .. } => {
            evaluate_integer(model, test, machine.isa, machine.threads, batch_size, &mut told)
        }
        Network::Float(checkpoint) => {
            let model = &checkpoint.model;
            let batch_size = batch_size.min(test.len());
            let (graph, plan, input) = (&model.graph, &model.plan, &model.input);
            memory::check(&[(graph, plan)], batch_size, memory::free())
                .map_err(|too_much| RunError::Memory { batch_size, too_much })?;
            let (isa, threads) = (machine.isa, machine.threads);
            let spec = BackendSpec { isa, threads, ..BackendSpec::new(graph, plan, input, batch_size) };
            let mut backend = args.backend.build(&spec)?;
            backend.load(&model.tensors, None)?;
            evaluate_simulated(&mut *backend, test, &mut told)
        }
    }?;
    bar.finish_and_clear();
    Ok(evaluation)
}
