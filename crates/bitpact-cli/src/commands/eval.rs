//! `bitpact eval`: the accuracy of a network on a test set.

use anyhow::Result;
use bitpact::Dataset;
use bitpact::unstable::model::are_numbers;
use bitpact::unstable::train::{
    BackendKind, BackendSpec, Evaluation, RunError, evaluate_integer, evaluate_simulated, memory,
};
use serde_json::json;

use super::test_set::TestSetArgs;
use crate::exit::or_force;
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
    /// Backend that computes a float network: cpu or reference
    #[arg(long, value_name = "NAME", default_value_t, help_heading = "Machine")]
    backend: BackendKind,
    /// Evaluate on a set with other classes, or pixels of another meaning, than those the network was made for
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    machine: MachineArgs,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let loaded = args.on.network()?;
    let (name, test) = args.on.images(&loaded)?;
    if let Some(difference) = other_classes(loaded.class_names(), test.class_names()) {
        let text = format!("{}: made for other classes than those of {name}: {difference}", loaded.file.display());
        or_force(args.force, text, "evaluates it")?;
    }
    let said = loaded.recipe.as_ref().map(|recipe| recipe.input_description(loaded.input_shape().c));
    if let Some(difference) = said.and_then(|said| loaded.input().difference(&said)) {
        let file = loaded.file.display();
        let text = format!("{file}: its pixels have another meaning than those of the recipe beside it: {difference}");
        or_force(args.force, text, "evaluates it")?;
    }
    let evaluation = evaluate(&args, &loaded, &*test)?;
    let is_integer = matches!(loaded.network, Network::Integer { .. });
    let view = if is_integer { "integer" } else { "float" };
    if args.json {
        let mut object = json!({
            "images": evaluation.images,
            "images_per_s": evaluation.images_per_s,
            "view": view,
            "dataset": name.as_str(),
        });
        if evaluation.metrics.is_empty() {
            (object["top1"], object["top5"]) = (json!(evaluation.top1), json!(evaluation.top5));
        }
        for metric in &evaluation.metrics {
            object[&metric.name] = json!(metric.value);
        }
        return print(&object.to_string());
    }
    if !is_integer {
        say!("{} is a float network: it has no integers, so its floats are evaluated", loaded.file.display());
    }
    let found = match &evaluation.metrics[..] {
        [] => format!("top-1 {}, top-5 {}", percent(evaluation.top1), percent(evaluation.top5)),
        metrics => metrics.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    print(&format!(
        "{} on {name}, {} images: {found} ({view}, {:.0} images/s)",
        loaded.file.display(),
        evaluation.images,
        evaluation.images_per_s
    ))
}

/// The first class in which two lists of names differ; nothing where one of them says nothing.
pub(super) fn other_classes(network: &[String], set: &[String]) -> Option<String> {
    if network.len() != set.len() {
        return Some(format!("{} classes, and the set has {}", network.len(), set.len()));
    }
    if are_numbers(network) || are_numbers(set) {
        return None;
    }
    let class = (0..set.len()).find(|&class| network[class] != set[class])?;
    Some(format!("class {class} is `{}`, and that of the set `{}`", network[class], set[class]))
}

fn evaluate(args: &Args, loaded: &Loaded, test: &dyn Dataset) -> Result<Evaluation> {
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

#[cfg(test)]
mod tests {
    use super::other_classes;

    #[test]
    fn classes_are_the_same_in_the_same_order_or_other_ones() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let animals = names(&["cat", "dog"]);
        assert_eq!(other_classes(&animals, &animals), None);
        let text = other_classes(&animals, &names(&["dog", "cat"])).unwrap();
        assert_eq!(text, "class 0 is `cat`, and that of the set `dog`");
        assert!(other_classes(&animals, &names(&["cat", "dog", "cow"])).unwrap().contains("2 classes"));
        // Numbers and nothing are no names.
        assert_eq!(other_classes(&names(&["0", "1"]), &animals), None);
        assert_eq!(other_classes(&names(&["", ""]), &animals), None);
        assert_eq!(other_classes(&names(&["class0", "class1"]), &animals), None);
        assert!(other_classes(&names(&["class1", "class0"]), &animals).is_some());
    }
}
