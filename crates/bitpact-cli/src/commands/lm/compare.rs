//! `bitpact lm compare`: methods times widths.

use std::sync::atomic::Ordering;

use anyhow::Result;
use bitpact::unstable::lm::{LmError, Model, Recipe, Reference, Score};

use super::open::ModelArgs;
use super::perplexity::scored;
use super::quantize::{GridArgs, simulated};
use super::text::{CalibrationArgs, Text, TextArgs};
use crate::interrupt;
use crate::out::{print, say, table};
use crate::progress::bar;

/// Bytes, perplexity and distance from the float model, methods times widths
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Methods as in `lm quantize`, with commas between
    #[arg(long, value_delimiter = ',', default_value = "rtn,awq,gptq,osaq,osaq+gptq")]
    methods: Vec<String>,
    /// Widths with commas between
    #[arg(long, value_delimiter = ',', default_value = "4,3,2")]
    bits: Vec<String>,
    #[command(flatten)]
    grid: GridArgs,
    #[command(flatten)]
    calibration: CalibrationArgs,
    #[command(flatten)]
    text: TextArgs,
}

pub(super) fn run(args: Args) -> Result<()> {
    let pool = args.model.pool();
    let source = args.model.source()?;
    let tokenizer = args.model.tokenizer(source.config().vocab)?;
    let texts = args.text.cut(&tokenizer)?;
    let sequences = args.calibration.sequences(&tokenizer)?.unwrap_or_default();
    let mut recipes = Vec::new();
    for bits in &args.bits {
        let grid = args.grid.grid(bits).map_err(|e| LmError::Input(e.to_string()))?;
        for name in &args.methods {
            let method = args.grid.method(name)?;
            if method.calibrated() && sequences.is_empty() {
                return Err(LmError::Input(format!("{name} needs --calibrate")).into());
            }
            recipes.push((bits, name, Recipe::new(method, grid)));
        }
    }
    interrupt::stop_flag();
    let model = source.load()?.dequantized();
    let plain: Vec<Recipe> = recipes.iter().map(|(_, _, recipe)| recipe.clone()).collect();
    let quantized = simulated(&model, &plain, &sequences, &pool)?;
    let calibrated: usize = sequences.iter().map(Vec::len).sum();
    let matrices = (model.config.layers * model.config.layer_weights()) as f64;
    let megabytes = |bits: f64| format!("{:.2}", matrices * bits / 8e6);
    let first = &args.methods[0];
    for Text { name: text, windows, how } in &texts {
        let progress = bar("float", windows.len(), "windows");
        let float = Reference::new(&model, windows, &pool, &mut |i, _| {
            progress.set_position(i as u64 + 1);
            if interrupt::stop_flag().load(Ordering::Relaxed) { Err(LmError::Stopped) } else { Ok(()) }
        })?;
        progress.finish_and_clear();
        let heading = ["width", "method", "bits/weight", "MB", "nll", "perplexity", "above float"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows[0].extend([format!("above {first}"), "KL to float".to_owned(), "same first guess".to_owned()]);
        let (nll, perplexity) = (format!("{:.4}", float.score.mean_nll()), format!("{:.3}", float.score.perplexity()));
        let cells = ["float", "", "32", &megabytes(32.0), &nll, &perplexity, "", "", "0", "1"];
        rows.push(cells.map(str::to_owned).to_vec());
        let mut base: Option<Score> = None;
        for (i, ((bits, name, _), (layers, bits_a_weight))) in recipes.iter().zip(&quantized).enumerate() {
            let layers = layers.iter().map(|layer| layer.clone().dequantized()).collect();
            let other = Model { config: model.config.clone(), outer: model.outer.clone(), layers };
            let s = scored(&format!("{bits} {name}"), &other, Some(&float), windows, &pool)?;
            say!("{text}, {bits} {name}: nll {:.4}", s.mean_nll());
            let paired = |other: &Score| {
                let (mean, error) = s.excess(other);
                format!("{mean:+.4} \u{b1}{error:.4}")
            };
            let above = match &base {
                Some(base) if i % args.methods.len() != 0 => paired(base),
                _ => String::new(),
            };
            rows.push(vec![
                (*bits).clone(),
                (*name).clone(),
                format!("{bits_a_weight:.3}"),
                megabytes(*bits_a_weight),
                format!("{:.4}", s.mean_nll()),
                format!("{:.3}", s.perplexity()),
                paired(&float.score),
                above,
                format!("{:.4}", s.mean_divergence()),
                format!("{:.3}", s.agreement()),
            ]);
            if i % args.methods.len() == 0 {
                base = Some(s);
            }
        }
        print(&format!(
            "{}\n{} predicted tokens of {text} ({how}), {calibrated} for calibration; \u{b1} the standard error of the mean difference, token by token",
            table(&rows, &[0, 1]),
            float.score.tokens()
        ))?;
    }
    Ok(())
}
