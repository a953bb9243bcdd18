//! `bitpact lm inspect`.

use std::collections::BTreeMap;

use anyhow::Result;
use bitpact::unstable::lm::{Part, Weights};

use super::open::ModelArgs;
use crate::out::{bytes, count, print, table};

/// Shape, matrices and bytes of a model
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
}

/// Grid in words and bits a weight.
fn describe(weights: &Weights) -> (String, f64) {
    match weights {
        Weights::Float(_) | Weights::Packed(_) => ("float32".to_owned(), 32.0),
        Weights::Codes(q) => {
            let grid = q.grid();
            let kind = if grid.symmetric() { "symmetric" } else { "asymmetric" };
            let unit = if grid.width().to_string() == "ternary" { "" } else { " bits" };
            (format!("{}{unit}, groups of {}, {kind}", grid.width(), grid.group()), grid.bits_a_weight(q.cols()))
        }
    }
}

pub(super) fn run(args: Args) -> Result<()> {
    let source = args.model.source()?;
    let c = source.config().clone();
    let outer = source.outer()?;
    let mut rows = vec![
        ["matrix", "layers", "outputs", "inputs", "stored as", "bits/weight", "bytes"].map(str::to_owned).to_vec(),
    ];
    let (mut weights, mut total) = (0u64, 0.0);
    let mut add = |name: &str, layers: usize, w: (usize, usize), (stored, bits): (String, f64)| {
        let n = (layers * w.0 * w.1) as u64;
        weights += n;
        total += n as f64 * bits / 8.0;
        let size = bytes((n as f64 * bits / 8.0) as u64);
        let (outputs, inputs) = (w.0.to_string(), w.1.to_string());
        rows.push(vec![name.to_owned(), layers.to_string(), outputs, inputs, stored, format!("{bits:.3}"), size]);
    };
    add("embed_tokens", 1, (c.vocab, c.dim), describe(&outer.embedding));
    if let Some(head) = &outer.head {
        add("lm_head", 1, (c.vocab, c.dim), describe(head));
    }
    let mut seen: BTreeMap<(Part, String), (usize, f64)> = BTreeMap::new();
    for index in 0..c.layers {
        let layer = source.layer(index)?;
        for part in Part::ALL {
            let (stored, bits) = describe(&layer.part(part).weights);
            seen.entry((part, stored)).or_insert((0, bits)).0 += 1;
        }
    }
    for ((part, stored), (layers, bits)) in seen {
        add(part.name(), layers, part.shape(&c), (stored, bits));
    }
    let heads = format!("{} heads of {} ({} for keys and values)", c.heads, c.head_dim, c.kv_heads);
    let shape = format!(
        "{} layers, {} wide, {} inside, {heads}, {} tokens, context {}",
        c.layers, c.dim, c.hidden, c.vocab, c.context
    );
    let sum = format!("{} weights in matrices, {}", count(weights), bytes(total as u64));
    print(&format!("{shape}\n\n{}\n{sum}", table(&rows, &[0, 4])))
}
