//! `bitpact lm quantize`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::Result;
use bitpact::unstable::kernels::Pool;
use bitpact::unstable::lm::{
    Calibration, Layer, LmError, Method, Model, PackedWriter, Part, Recipe, Weights, quantize_layer,
    quantize_layer_each,
};
use bitpact::unstable::ptq::{Gptq, Grid, Group, Order, PtqError, Width};

use super::open::ModelArgs;
use super::text::CalibrationArgs;
use crate::interrupt;
use crate::out::{bytes, print, say};
use crate::progress::bar;

/// Quantize a model layer by layer into a packed file; a stopped run goes on where it was
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// rtn, gptq, gptq-paper, smooth, awq, awq-scales, osaq, osaq-guarded, osaq-paper, or several joined by +, as
    /// awq+gptq
    #[arg(long, default_value = "rtn")]
    method: String,
    #[command(flatten)]
    grid: GridArgs,
    /// 2 to 8 or ternary
    #[arg(long, value_name = "WIDTH", default_value = "4")]
    bits: String,
    /// Another width for some matrices: NAME=WIDTH or LAYER.NAME=WIDTH, as down_proj=8 or 0.q_proj=float
    #[arg(long = "keep", value_name = "NAME=WIDTH")]
    overrides: Vec<String>,
    /// Width of the embedding and the output matrix; float keeps them
    #[arg(long, value_name = "WIDTH", default_value = "float")]
    embedding: String,
    #[command(flatten)]
    calibration: CalibrationArgs,
    /// The file to write, NAME.safetensors
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Groups and order.
#[derive(clap::Args)]
pub(super) struct GridArgs {
    /// Inputs that share a step: 32, 64, 128, 256 or row
    #[arg(long, value_name = "N|row", default_value = "128")]
    group: Group,
    /// Steps without zero points
    #[arg(long)]
    symmetric: bool,
    /// `gptq-paper` rounds inputs by falling activation, as `gptq` always does
    #[arg(long)]
    act_order: bool,
    /// `gptq-paper` fits steps before it begins, as `gptq` always does
    #[arg(long)]
    static_groups: bool,
}

impl GridArgs {
    /// A grid of a width; ternary ones are symmetric always.
    pub(super) fn grid(&self, width: &str) -> Result<Grid, PtqError> {
        let width: Width = width.parse()?;
        Grid::new(width, self.group, self.symmetric || width == Width::Ternary)
    }

    /// A method with the order asked for.
    pub(super) fn method(&self, text: &str) -> Result<Method, LmError> {
        let mut method: Method = text.parse()?;
        if let Some(gptq) = &mut method.gptq {
            let order = if self.act_order { Order::Activation } else { gptq.order };
            *gptq = Gptq { order, static_groups: gptq.static_groups || self.static_groups || self.act_order, ..*gptq };
        }
        Ok(method)
    }
}

fn usage(error: PtqError) -> LmError {
    LmError::Input(error.to_string())
}

fn parse_overrides(args: &Args) -> Result<BTreeMap<String, Option<Grid>>, LmError> {
    let mut out = BTreeMap::new();
    for text in &args.overrides {
        let parsed = text.split_once('=').filter(|(name, _)| {
            let part = name.split_once('.').filter(|(layer, _)| layer.parse::<usize>().is_ok()).map_or(*name, |p| p.1);
            Part::ALL.iter().any(|p| p.name() == part)
        });
        let (name, width) =
            parsed.ok_or_else(|| LmError::Input(format!("--keep {text}: expected NAME=WIDTH, as down_proj=8")))?;
        let grid = if width == "float" { None } else { Some(args.grid.grid(width).map_err(usage)?) };
        out.insert(name.to_owned(), grid);
    }
    Ok(out)
}

pub(super) fn run(args: Args) -> Result<()> {
    let pool = args.model.pool();
    if args.output.extension().is_none_or(|e| e != "safetensors") {
        return Err(LmError::Input(format!("{}: the name must end in .safetensors", args.output.display())).into());
    }
    let grid = args.grid.grid(&args.bits).map_err(usage)?;
    let mut recipe = Recipe::new(args.grid.method(&args.method)?, grid);
    recipe.overrides = parse_overrides(&args)?;
    let source = args.model.source()?;
    let config = source.config().clone();
    let tokenizer = args.model.tokenizer(config.vocab)?;
    let sequences = args.calibration.sequences(&tokenizer)?;
    let mut outer = source.outer()?;
    if args.embedding != "float" {
        let grid = args.grid.grid(&args.embedding).map_err(usage)?;
        let code = |w: &Weights| grid.round(&w.to_float()).map(Weights::Codes).map_err(usage);
        outer.head = outer.head.as_ref().map(code).transpose()?;
        outer.embedding = code(&outer.embedding)?;
    }
    let how = format!("{} {}-bit groups of {}", args.method, args.bits, grid.group());
    let file = args.model.tokenizer_file()?;
    let mut writer = PackedWriter::begin(&args.output, &config, &source.layer(0)?, &outer, &recipe, &how, Some(file))?;
    if writer.done() > 0 {
        say!("going on after layer {} of {}", writer.done(), config.layers);
    }
    interrupt::stop_flag();
    let mut calibration = match &sequences {
        Some(sequences) if recipe.method.calibrated() => Some(Calibration::new(&*source, sequences)?),
        _ => None,
    };
    let bar = bar("quantizing", config.layers, "layers");
    for index in 0..config.layers {
        let layer = source.layer(index)?.dequantized();
        if index < writer.done() {
            if let Some(calibration) = &mut calibration {
                calibration.skip(&config, &layer, &pool)?;
            }
            continue;
        }
        let (layer, reports) = quantize_layer(&config, index, layer, &recipe, calibration.as_mut(), &pool)?;
        writer.layer(&layer)?;
        bar.set_position(index as u64 + 1);
        if bar.is_hidden() && recipe.method.calibrated() {
            let parts: Vec<String> = reports.iter().map(|r| r.to_string()).collect();
            say!("layer {}/{}: {}", index + 1, config.layers, parts.join(", "));
        }
        if interrupt::stop_flag().load(Ordering::Relaxed) {
            return Err(LmError::Stopped.into());
        }
    }
    bar.finish_and_clear();
    writer.finish()?;
    let size = std::fs::metadata(&args.output)?.len();
    print(&format!("{}: {}, {how}", args.output.display(), bytes(size)))
}

/// The layers after quantization with each recipe, and bits a weight of their matrices.
pub(super) fn simulated(
    model: &Model,
    recipes: &[Recipe],
    sequences: &[Vec<u32>],
    pool: &Pool,
) -> Result<Vec<(Vec<Layer>, f64)>, LmError> {
    let mut calibration = match recipes.iter().any(|r| r.method.calibrated()) {
        true => Some(Calibration::new(model, sequences)?),
        false => None,
    };
    let mut layers = vec![Vec::new(); recipes.len()];
    let progress = bar("quantizing", model.config.layers, "layers");
    for (index, layer) in model.layers.iter().enumerate() {
        let each = quantize_layer_each(&model.config, index, layer, recipes, calibration.as_mut(), pool)?;
        layers.iter_mut().zip(each).for_each(|(all, (layer, _))| all.push(layer));
        progress.set_position(index as u64 + 1);
        if progress.is_hidden() && calibration.is_some() {
            say!("quantized layer {}/{}", index + 1, model.config.layers);
        }
        if interrupt::stop_flag().load(Ordering::Relaxed) {
            return Err(LmError::Stopped);
        }
    }
    progress.finish_and_clear();
    let bits = |recipe: &Recipe| {
        let (mut bits, mut weights) = (0.0, 0.0);
        for (index, part) in (0..model.config.layers).flat_map(|i| Part::ALL.map(|part| (i, part))) {
            let (rows, cols) = part.shape(&model.config);
            bits += recipe.grid_of(index, part).map_or(32.0, |g| g.bits_a_weight(cols)) * (rows * cols) as f64;
            weights += (rows * cols) as f64;
        }
        bits / weights
    };
    Ok(layers.into_iter().zip(recipes).map(|(layers, recipe)| (layers, bits(recipe))).collect())
}
