//! `bitpact lm compare`: methods times widths.

use anyhow::Result;
use bitpact::unstable::lm::{LmError, Recipe};

use super::open::ModelArgs;
use super::perplexity::scored;
use super::quantize::{GridArgs, simulated};
use super::text::{CalibrationArgs, TextArgs};
use crate::interrupt;
use crate::out::{print, say, table};

/// Bytes, perplexity and distance from the float model, methods times widths
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Methods as in `lm quantize`, with commas between
    #[arg(long, value_delimiter = ',', default_value = "rtn,awq,gptq,osaq+gptq")]
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
    let (windows, how) = args.text.windows(&tokenizer)?;
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
    let float = scored("float", &model, None, &windows, &pool)?;
    let row = |cells: [String; 8]| cells.to_vec();
    let heading = ["width", "method", "bits/weight", "MB", "nll", "perplexity", "KL to float", "same first guess"];
    let matrices = (model.config.layers * model.config.layer_weights()) as f64;
    let megabytes = |bits: f64| format!("{:.2}", matrices * bits / 8e6);
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let (nll, perplexity) = (format!("{:.4}", float.mean_nll()), format!("{:.3}", float.perplexity()));
    rows.push(row([
        "float".into(),
        String::new(),
        "32".into(),
        megabytes(32.0),
        nll,
        perplexity,
        "0".into(),
        "1".into(),
    ]));
    for (bits, name, recipe) in &recipes {
        let (quantized, bits_a_weight) = simulated(&model, recipe, &sequences, &pool)?;
        let s = scored(&format!("{bits} {name}"), &quantized, Some(&model), &windows, &pool)?;
        say!("{bits} {name}: nll {:.4}", s.mean_nll());
        rows.push(row([
            (*bits).clone(),
            (*name).clone(),
            format!("{bits_a_weight:.3}"),
            megabytes(bits_a_weight),
            format!("{:.4}", s.mean_nll()),
            format!("{:.3}", s.perplexity()),
            format!("{:.4}", s.mean_divergence()),
            format!("{:.3}", s.agreement()),
        ]));
    }
    let calibrated: usize = sequences.iter().map(Vec::len).sum();
    print(&format!(
        "{}\n{} predicted tokens ({how}), {calibrated} for calibration",
        table(&rows, &[0, 1]),
        float.tokens
    ))
}
