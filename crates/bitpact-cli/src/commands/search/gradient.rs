//! `bitpact search bits --gradient`: the bits of weights, trained with the weights.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bitpact::unstable::accel::Widths;
use bitpact::unstable::core::Bits;
use bitpact::unstable::data::{DatasetName, Limits};
use bitpact::unstable::graph::{BitSpec, WeightPlan};
use bitpact::unstable::model::write_atomically;
use bitpact::unstable::search::{Bitwidths, Choice, Limited, Part, Space, exact};
use bitpact::unstable::train::Draft;
use bitpact::unstable::train::mix::{MixOptions, Mixture, Width, search};
use bitpact::{Checkpoint, Images, QuantConfig, QuantPlan, Recipe, RunFolder, RunOptions, Start};
use serde_json::json;

use super::bits::Args;
use super::source::Source;
use crate::exit::{Interrupted, Usage};
use crate::interrupt;
use crate::machine::load_images;
use crate::out::{say, table};
use crate::progress::Display;

/// Leaves of a space the weights, with activations as the recipe has them.
pub(super) fn weights_only(space: &mut Space, config: &QuantConfig) -> Result<()> {
    space.widest.activations = Bitwidths::of(&QuantPlan::resolve(&space.graph, config)?).activations;
    space.variables.retain(|variable| variable.part == Part::Weights);
    if space.variables.is_empty() {
        bail!(Usage(format!(
            "{}: first_last, shortcut and overrides leave no weights to choose bits for",
            space.graph.name()
        )));
    }
    Ok(())
}

/// Trains the widths, chooses within the budgets the ones with the largest shares, and writes the recipe.
pub(super) fn run(
    args: &Args,
    source: &Source,
    config: &QuantConfig,
    space: &mut Space,
    limited: &[Limited],
) -> Result<String> {
    let recipe = &source.recipe;
    let options = options(args, config, space, limited)?;
    let mut searched = recipe.clone();
    for variable in &space.variables {
        searched.overrides.entry(variable.name.clone()).or_default().weight_bits = Some(32);
    }
    searched.epochs = args.epochs.unwrap_or(recipe.epochs);
    searched.compare_float = false;
    let file = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("search-{}.toml", recipe.name)));
    let folder = RunFolder::create(file.with_extension("run"))?;
    let limits = Limits { train: recipe.limit_train, test: recipe.limit_test };
    let dataset: DatasetName = recipe.dataset.parse()?;
    let (split, _reading) = load_images(dataset, args.data.as_ref(), limits, &recipe.own_options())?;
    let mut display = Display::new("searching", searched.epochs, searched.batch_size);
    let machine = args.machine.resolve();
    let run = RunOptions {
        backend: args.backend,
        isa: machine.isa,
        threads: machine.threads,
        stop: interrupt::stop_flag(),
        observer: &mut |event| display.show(&event),
    };
    let images = Images { train: &*split.train, test: &*split.test };
    let (outcome, found) =
        search(&searched, images, &folder, Start::Fresh { weights: source.tensors() }, run, &options)?;
    let Some(found) = found else {
        say!("stopped after step {}; shares are not kept: begin again in another folder", outcome.step);
        return Err(Interrupted.into());
    };
    for variable in &mut space.variables {
        let shares = &found.shares[&variable.name];
        let largest = shares.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let change = |share: &f64| (largest / share.max(f64::MIN_POSITIVE)).ln();
        variable.changes = shares.iter().map(change).collect();
    }
    let choice = exact(space, limited)?;
    let text = written(recipe, space, &choice.bits, &file)?;
    write_atomically(&file, text.as_bytes())?;
    let weights = file.with_extension("safetensors");
    let note = Some("weights of bitpact search bits --gradient, to be trained on at the bits it chose".to_owned());
    Checkpoint { model: found.model.clone(), training: None, note }.save(&weights)?;
    say!("wrote {} and {}; go on with: bitpact train {0} --init-from {1}", file.display(), weights.display());
    shown(args, space, limited, &choice, &found)
}

/// The widths of every layer with what they cost.
fn options(args: &Args, config: &QuantConfig, space: &Space, limited: &[Limited]) -> Result<MixOptions> {
    let activations = match config.bits {
        BitSpec::Bits { activations, .. } => activations,
        BitSpec::Float => unreachable!("a float recipe was refused"),
    };
    let plan = |bits: u8| -> Result<QuantPlan> {
        let weights = Bits::new(bits).context("a width")?;
        let bits = BitSpec::Bits { weights, activations };
        Ok(QuantPlan::resolve(&space.graph, &QuantConfig { bits, ..config.clone() })?)
    };
    let cost = |limited: &Limited, name: &str, bits: u8| -> Result<f64> {
        let product = space.products.iter().find(|product| product.name == name).context("a layer of the network")?;
        let own = space.widest.operands(&space.graph, product);
        let widths = Widths::new(own.activations(), bits).context("a width")?;
        let found = limited.cost.product(product, widths)?;
        found.with_context(|| format!("{}: --gradient needs a cost that is a sum over layers", limited.budget))
    };
    let mut widths = std::collections::BTreeMap::new();
    for variable in &space.variables {
        let of = |&bits: &u8| -> Result<Width> {
            let plan = plan(bits)?;
            let Some(WeightPlan::Quantized(spec)) = plan.weights.get(&variable.name) else {
                bail!("{}: its weights are not quantized", variable.name);
            };
            let costs = limited.iter().map(|limited| cost(limited, &variable.name, bits)).collect::<Result<_>>()?;
            Ok(Width { spec: *spec, costs })
        };
        widths.insert(variable.name.clone(), variable.bits.iter().map(of).collect::<Result<Vec<_>>>()?);
    }
    let budget = |limited: &Limited| -> Result<(f64, f64)> {
        let mut rest = limited.cost.fixed();
        for product in space.products.iter().filter(|product| !widths.contains_key(&product.name)) {
            rest += cost(limited, &product.name, space.widest.operands(&space.graph, product).weights())?;
        }
        Ok((rest, limited.limit))
    };
    let budgets = limited.iter().map(budget).collect::<Result<_>>()?;
    Ok(MixOptions { widths, budgets, rate: args.rate.unwrap_or(0.01) })
}

/// The recipe with an override for the weights of every layer; activations stay as they are.
fn written(recipe: &Recipe, space: &Space, bits: &Bitwidths, file: &Path) -> Result<String> {
    let mut recipe = recipe.clone();
    recipe.overrides = space.overrides(bits);
    recipe.name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("search").to_owned();
    let text = recipe.to_toml();
    // What is written must be what `bitpact train` takes.
    Draft::parse(&text, &file.display().to_string())?.stored().finish()?;
    Ok(text)
}

fn shown(args: &Args, space: &Space, limited: &[Limited], choice: &Choice, found: &Mixture) -> Result<String> {
    if args.json {
        let budgets = limited.iter().zip(&choice.costs);
        let budgets: Vec<_> = budgets
            .map(
                |(limited, cost)| json!({ "budget": limited.budget.to_string(), "limit": limited.limit, "cost": cost }),
            )
            .collect();
        let shares: serde_json::Map<_, _> = space
            .variables
            .iter()
            .map(|variable| {
                (variable.name.clone(), json!({ "bits": variable.bits, "shares": found.shares[&variable.name] }))
            })
            .collect();
        return Ok(json!({ "budgets": budgets, "weights": choice.bits.weights, "shares": shares }).to_string());
    }
    let mut rows = vec![["layer", "bits", "shares of the widths"].map(str::to_owned).to_vec()];
    for variable in &space.variables {
        let shares = variable.bits.iter().zip(&found.shares[&variable.name]);
        let shares: Vec<String> = shares.map(|(bits, share)| format!("{bits}: {share:.3}")).collect();
        rows.push(vec![variable.name.clone(), choice.bits.weights[&variable.name].to_string(), shares.join(", ")]);
    }
    let mut text = table(&rows, &[0, 2]);
    for (limited, &cost) in limited.iter().zip(&choice.costs) {
        let show = |value: f64| limited.budget.quantity.show(value);
        text += &format!("\nbudget {}: {} of {}", limited.budget, show(cost), show(limited.limit));
    }
    Ok(text)
}
