//! `bitpact lm perplexity`.

use std::sync::atomic::Ordering;

use anyhow::Result;
use bitpact::Isa;
use bitpact::unstable::kernels::Pool;
use bitpact::unstable::lm::{LmError, Model, Reference, Score, Window, load_packed, score};

use super::open::ModelArgs;
use super::text::{Text, TextArgs};
use crate::interrupt;
use crate::out::print;
use crate::progress::bar;

/// How well a model predicts a text
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Run matrices of codes on the kernels, with activations of 8 bits, in place of the float32 weights they mean
    #[arg(long)]
    kernels: bool,
    /// As JSON, a line for each text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<()> {
    let pool = args.model.pool();
    let source = args.model.source()?;
    let tokenizer = args.model.tokenizer(source.config().vocab)?;
    let texts = args.text.cut(&tokenizer)?;
    let model = match args.kernels {
        true => load_packed(&*source, Isa::detect())?,
        false => source.load()?.dequantized(),
    };
    interrupt::stop_flag();
    for Text { name, windows, how } in &texts {
        let score = scored("perplexity", &model, None, windows, &pool)?;
        let (tokens, nll, perplexity) = (score.tokens(), score.mean_nll(), score.perplexity());
        if args.json {
            let line = serde_json::json!({ "text": name, "tokens": tokens, "nll": nll, "perplexity": perplexity, "windows": how });
            print(&line.to_string())?;
        } else {
            print(&format!("nll {nll:.4}  perplexity {perplexity:.3}  over {tokens} tokens of {name} ({how})"))?;
        }
    }
    Ok(())
}

/// [`score`] with a bar; Ctrl-C stops it.
pub(super) fn scored(
    doing: &str,
    model: &Model,
    reference: Option<&Reference>,
    windows: &[Window],
    pool: &Pool,
) -> Result<Score, LmError> {
    let bar = bar(doing, windows.len(), "windows");
    let result = score(model, reference, windows, pool, &mut |i, score| {
        bar.set_position(i as u64 + 1);
        bar.set_message(format!("nll {:.4}", score.mean_nll()));
        if interrupt::stop_flag().load(Ordering::Relaxed) { Err(LmError::Stopped) } else { Ok(()) }
    });
    bar.finish_and_clear();
    result
}
