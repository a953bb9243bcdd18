//! `bitpact search blocks`: one alternative of every choice of a network, by shares that are trained with the weights.

use std::path::Path;

use anyhow::Result;
use bitpact::unstable::graph::counts;
use bitpact::unstable::train::blocks::{BlockOptions, Chosen, choose};
use serde_json::json;

use super::pressed::{Job, PressedArgs, Priced, next};
use crate::exit::Interrupted;
use crate::out::{print, say, table};

/// Takes one alternative of every choice of a network, by shares that are trained with the weights
#[derive(clap::Args)]
#[command(after_help = "\
The network's file marks its choices: `choices = [\"NODE\", ...]` names additions, and each term of one is an alternative
that ends in a batch norm, which alone is an identity. In the search a choice is the sum of its alternatives times their
shares, the softmax of numbers that are trained; the loss gains the cost of the mixture, `--strength` times its share of
the first one, or with a budget as much as meets it. In the end the alternative with the largest share stays, or a
cheaper one where the budget asks for it.

Written into the output folder: the run with shares, chosen.safetensors with the network, and chosen.toml, the recipe
that trains it on. Flags of `bitpact train` change the recipe of the run.

Examples:
  bitpact search blocks builtin --arch docs/networks/choices_resnet8.toml --bits float --budget params=30k --epochs 4 -o one
  bitpact train one/chosen.toml --init-from one/chosen.safetensors --bits W4A4")]
pub(crate) struct Args {
    #[command(flatten)]
    pressed: PressedArgs,
}

pub(crate) fn run(args: Args) -> Result<()> {
    print(&chosen(args)?)
}

/// Chooses, writes, and gives what is to be shown.
pub(super) fn chosen(args: Args) -> Result<String> {
    let job = Job::open(&args.pressed)?;
    let priced = &job.priced;
    let ((outcome, chosen), folder) = job.run("blocks", "choosing", |run| {
        let costs = priced.costs(run.graph)?.into_iter().map(|(product, cost)| (product.name, cost)).collect();
        let options = BlockOptions { costs, pressure: run.pressure, rate: run.rate };
        Ok(choose(run.recipe, run.images, run.folder, run.start, run.options, &options)?)
    })?;
    let Some(chosen) = chosen else {
        say!("stopped after step {}; shares are not kept: begin again in another folder", outcome.step);
        return Err(Interrupted.into());
    };
    job.write(&chosen.model, "chosen", "blocks were chosen by bitpact search blocks", &folder)?;
    Ok(shown(args.pressed.json, priced, &chosen, &folder))
}

fn shown(is_json: bool, priced: &Priced, chosen: &Chosen, folder: &Path) -> String {
    let [most, cost] = chosen.costs;
    let parameters = counts::parameters(&chosen.model.graph);
    if is_json {
        let pick = |pick: &bitpact::unstable::train::blocks::Pick| {
            json!({
                "choice": pick.name,
                "taken": pick.alternatives[pick.taken],
                "alternatives": pick.alternatives,
                "shares": pick.shares,
            })
        };
        let object = json!({
            "network": chosen.model.graph.name(),
            "quantity": priced.quantity.name(),
            "cost": { "most": most, "chosen": cost },
            "parameters": parameters,
            "choices": chosen.picks.iter().map(pick).collect::<Vec<_>>(),
            "folder": folder.display().to_string(),
        });
        return object.to_string();
    }
    let mut rows = vec![["choice", "taken", "shares"].map(str::to_owned).to_vec()];
    for pick in &chosen.picks {
        let shares = pick.alternatives.iter().zip(&pick.shares);
        let shares: Vec<String> = shares.map(|(name, share)| format!("{name} {share:.3}")).collect();
        rows.push(vec![pick.name.clone(), pick.alternatives[pick.taken].clone(), shares.join(", ")]);
    }
    let show = |value: f64| priced.quantity.show(value);
    format!(
        "{}\n\n{}: {}, and {} with the most expensive alternatives\nparameters with batch norms: {parameters}\n\n{}",
        table(&rows, &[0, 1, 2]),
        priced.quantity.name(),
        show(cost),
        show(most),
        next("chosen", folder),
    )
}
