//! `bitpact sensitivity`: what few bits of one tensor alone cost.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use bitpact::unstable::core::Bits;
use bitpact::unstable::model::write_atomically;
use bitpact::unstable::report::sensitivity::{BASE_BITS, Options, Part, Sensitivity, measure};
use bitpact::unstable::train::{BackendKind, DenseLoss};

use super::test_set::TestSetArgs;
use crate::exit::Interrupted;
use crate::interrupt;
use crate::loaded::{Network, open, open_checkpoint};
use crate::machine::{Machine, MachineArgs};
use crate::out::{print, say, table};
use crate::progress::bar;

/// Test images that are measured where nothing is said.
const IMAGES: u64 = 1000;

/// Measures what few bits of one layer's weights, or of one activation, cost in loss and accuracy
#[derive(clap::Args)]
#[command(after_help = "\
Everything else has 8 bits meanwhile, and nothing is trained anew: of a network trained with quantizers these are its
own, with its clip values; of a float network weights stay float (sawb where they get few bits) and activations are
clipped at the 99.9th percentile of what they see. Losses and metrics are those of the simulated view, on the first
1000 test images where --limit-test says nothing.

Examples:
  bitpact sensitivity runs/builtin-W4A4-seed1
  bitpact sensitivity runs/w4 --data DIR --bits 2,3,4 --output runs/w4/sensitivity.json   # where bitpact report looks")]
pub(crate) struct Args {
    #[command(flatten)]
    on: TestSetArgs,
    /// Widths to try
    #[arg(long, value_name = "BITS", value_delimiter = ',', default_value = "2,3,4,6", value_parser = parse_bits)]
    bits: Vec<Bits>,
    /// Write the measures as JSON to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Backend of the simulated view: cpu or reference
    #[arg(long, value_name = "NAME", default_value_t, help_heading = "Machine")]
    backend: BackendKind,
    #[command(flatten)]
    machine: MachineArgs,
    /// Write one JSON object to standard output
    #[arg(long)]
    json: bool,
}

fn parse_bits(text: &str) -> Result<Bits, String> {
    let bits = text.parse().ok().and_then(Bits::new).filter(|bits| bits.get() < BASE_BITS);
    bits.ok_or_else(|| format!("expected 1 to {}", BASE_BITS - 1))
}

pub(crate) fn run(args: Args) -> Result<()> {
    let on = args.on.usually(IMAGES);
    let (file, _) = open_checkpoint(on.model())?;
    let loaded = open(&file)?;
    let (_, images) = on.images(&loaded)?;
    let Machine { isa, threads } = args.machine.resolve();
    let named = loaded.recipe.as_ref().and_then(|recipe| recipe.loss);
    let loss = named.or_else(|| DenseLoss::usual(images.target_kind()));
    let model = match loaded.network {
        Network::Integer { checkpoint: Some(checkpoint), .. } | Network::Float(checkpoint) => checkpoint.model,
        Network::Integer { .. } => {
            bail!("{}: has no float weights; expected a run folder or a checkpoint", file.display())
        }
    };
    let options = Options { bits: args.bits, reestimate: 0, loss, backend: args.backend, isa, threads };
    let (bar, stop) = (bar("measuring", 0, "tensors and widths"), interrupt::stop_flag());
    let found = measure(&model, &*images, &options, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        !stop.load(Ordering::Relaxed)
    })?;
    bar.finish_and_clear();
    let found = found.ok_or(Interrupted)?;
    if let Some(path) = &args.output {
        write_atomically(path, found.to_json().as_bytes())?;
        say!("wrote {}", path.display());
    }
    if args.json {
        return print(&found.to_json());
    }
    print(&text(&found))
}

fn text(found: &Sensitivity) -> String {
    let is_fraction = ["top1", "miou", "pixels"].contains(&found.metric.as_str());
    let by = if is_fraction { 100.0 } else { 1.0 };
    let mut bits: Vec<u8> = found.rows.iter().map(|row| row.bits).collect();
    bits.sort_unstable();
    bits.dedup();
    let mut rows = vec![vec!["layer".to_owned(), "tensor".to_owned()]];
    for b in &bits {
        rows[0].extend([format!("loss at {b}"), found.metric.clone()]);
    }
    for row in &found.rows {
        let part = match row.part {
            Part::Weights => "weights",
            Part::Activations => "activation",
        };
        if rows.last().is_none_or(|last| last[0] != row.layer || last[1] != part) {
            rows.push(vec![row.layer.clone(), part.to_owned()]);
        }
        let last = rows.last_mut().expect("just pushed");
        let at = 2 + 2 * bits.iter().position(|&b| b == row.bits).unwrap_or(0);
        last.resize(last.len().max(at), String::new());
        let metric = by * found.metric_change(row);
        last.extend([format!("{:+.4}", found.loss_change(row)), format!("{metric:+.2}")]);
    }
    let base = format!("{:.4} {}", by * found.base.metric, if is_fraction { "%" } else { "" });
    format!(
        "{} on {} images, 8 bits everywhere: loss {:.4}, {} {}\nchanges when one tensor alone has fewer bits:\n\n{}",
        found.network,
        found.images,
        found.base.loss,
        found.metric,
        base.trim_end(),
        table(&rows, &[0, 1])
    )
}
