//! From a draft to a recipe: every value read, checked and told where it came from when it is wrong.

use std::collections::BTreeMap;
use std::path::Path;

use bitpact_core::{ActQuant, WeightQuant};
use bitpact_data::DatasetName;
use bitpact_graph::{BitSpec, FirstLast, Graph, Override, ShortcutBits, zoo};

use super::draft::{line_of, quoted, read_text, short};
use super::effect;
use super::error::hint;
use super::values::Calibration;
use super::{Augmentation, BitSchedule, ClipInit, Draft, GroupRates, InputScale, Origin, Recipe, RecipeError};
use crate::OptimizerKind;
use crate::schedule::ScheduleKind;

/// What a fraction that is not everything may be.
const FRACTION: &str = "a number of at least 0 and below 1";

fn is_fraction(value: f64) -> bool {
    // Still below 1 in the f32 that training keeps.
    (0.0..1.0).contains(&value) && (value as f32) < 1.0
}

impl Draft {
    /// Checks every value and gives the recipe.
    ///
    /// Keys that are not written have these values: `bits = "W4A4"`, `act_quant = "pact"`, `weight_quant = "dorefa"`, `clip_scale = "layer"`,
    /// `first_last = "8bit"`, `shortcut = "same"`, `clip_init = "calibrate"`, `clip_lr` as `lr`,
    /// `clip_weight_decay` as `weight_decay`, `batch_size = 128`, `precision = "fp32"`, no `gradient_bits`, `lr = 0.1`, with Adam 1e-3, `optimizer = "sgd"`,
    /// `momentum = 0.9`, `nesterov = false`, `betas = [0.9, 0.999]`, `eps = 1e-8`, `weight_decay = 2e-4`, the training switches off, `no_weight_decay = []`, `schedule = "constant"`, `milestones = []`, `lr_decay = 0.1`,
    /// `warmup_epochs = 0`, `seed = 1`, `simulated_every = 0`, no limits, `holdout = 0`, `compare_float = false`,
    /// `input = { zero_point = 128, scale = 0.015625 }`, `augment = { pad = 0, flip = false }`. The keys `dataset`,
    /// `arch` and `epochs` must be written.
    ///
    /// # Errors
    /// The first value that its key cannot have, and a value of a file that changes nothing beside the file's others.
    pub fn finish(self) -> Result<Recipe, RecipeError> {
        self.finish_with_warnings().map(|(recipe, _)| recipe)
    }

    /// The same, with a line for every flag that changes nothing.
    ///
    /// # Errors
    /// Those of [`Draft::finish`].
    pub fn finish_with_warnings(mut self) -> Result<(Recipe, Vec<String>), RecipeError> {
        let (arch, graph) = self.architecture()?;
        let weight_decay = self.number("weight_decay", 2e-4, "a number of 0 or more", |v| v >= 0.0)?;
        let bits = self.bits()?;
        let optimizer = self.choice("optimizer", &OptimizerKind::NAMES)?.unwrap_or_default();
        let usual_lr = if optimizer == OptimizerKind::Sgd { 0.1 } else { 1e-3 };
        let lr = self.number("lr", usual_lr, "a number above 0", |v| v > 0.0)?;
        let clip_init = self.clip_init(bits.first_quantized())?;
        let mut recipe = Recipe {
            name: self.name()?,
            dataset: self.dataset()?,
            arch,
            graph,
            bits,
            act_quant: self.act_quant()?,
            weight_quant: self
                .choice("weight_quant", &WeightQuant::ALL.map(WeightQuant::name))?
                .unwrap_or(WeightQuant::Dorefa),
            weight_grid: self.choice("weight_grid", &["zero", "no_zero"])?,
            weight_scale: self.choice("weight_scale", &["layer", "channel"])?,
            clip_scale: self.choice("clip_scale", &["layer", "channel"])?.unwrap_or_default(),
            first_last: self.choice("first_last", &["float", "8bit", "same"])?.unwrap_or(FirstLast::Bits8),
            shortcut: self.choice("shortcut", &["same", "8bit"])?.unwrap_or(ShortcutBits::Same),
            clip_init,
            clip_lr: self.number("clip_lr", lr, "a number of 0 or more", |v| v >= 0.0)?,
            clip_weight_decay: self.number("clip_weight_decay", weight_decay, "a number of 0 or more", |v| v >= 0.0)?,
            epochs: self.whole("epochs", None, 1, 1_000_000)? as u32,
            batch_size: self.whole("batch_size", Some(128), 1, 1 << 20)? as usize,
            precision: self.choice("precision", &["fp32", "bf16"])?.unwrap_or_default(),
            gradient_bits: self.gradient_bits()?,
            lr,
            optimizer,
            momentum: self.number("momentum", 0.9, FRACTION, is_fraction)?,
            nesterov: self.take("nesterov")?.unwrap_or(false),
            betas: self.betas()?,
            eps: self.number("eps", 1e-8, "a number above 0", |v| v > 0.0)?,
            max_grad_norm: self.number("max_grad_norm", 0.0, "a number of 0 or more", |v| v >= 0.0)?,
            weight_decay,
            no_weight_decay: self.take("no_weight_decay")?.unwrap_or_default(),
            schedule: self.choice("schedule", &ScheduleKind::NAMES)?.unwrap_or(ScheduleKind::Constant),
            milestones: self.milestones()?,
            lr_decay: self.number("lr_decay", 0.1, "a number above 0 and at most 1", |v| v > 0.0 && v <= 1.0)?,
            warmup_epochs: self.number("warmup_epochs", 0.0, "a number of 0 or more", |v| v >= 0.0)?,
            label_smoothing: self.number("label_smoothing", 0.0, FRACTION, is_fraction)?,
            sum_noise: self.number("sum_noise", 0.0, "a number from 0 to 1", |v| (0.0..=1.0).contains(&v))?,
            cutout: self.whole("cutout", Some(0), 0, 1024)? as usize,
            mixup: self.number("mixup", 0.0, "a number from 0 to 4", |v| (0.0..=4.0).contains(&v))?,
            teacher: self.take("teacher")?,
            distill_temperature: self.number("distill_temperature", 4.0, "a number above 0", |v| v > 0.0)?,
            distill_weight: self.number("distill_weight", 0.7, "a number from 0 to 1", |v| (0.0..=1.0).contains(&v))?,
            ema_decay: self.number("ema_decay", 0.0, FRACTION, is_fraction)?,
            bn_reestimate: self.whole("bn_reestimate", Some(0), 0, 1_000_000)? as u32,
            seed: self.whole("seed", Some(1), 0, i64::MAX)? as u64,
            simulated_every: self.whole("simulated_every", Some(0), 0, 1_000_000)? as u32,
            limit_train: self.limit("limit_train")?,
            limit_test: self.limit("limit_test")?,
            holdout: self.whole("holdout", Some(0), 0, i64::MAX)? as usize,
            compare_float: self.take("compare_float")?.unwrap_or(false),
            input: self.input()?,
            augment: self.augment()?,
            param_groups: self.param_groups()?,
            overrides: self.take::<BTreeMap<String, Override>>("overrides")?.unwrap_or_default(),
        };
        if recipe.warmup_epochs >= f64::from(recipe.epochs) {
            let message = format!("= {}: expected less than the {} epochs", recipe.warmup_epochs, recipe.epochs);
            return Err(self.wrong("warmup_epochs", message));
        }
        if let Some(change) = recipe.bits.last_change().filter(|change| *change >= recipe.epochs) {
            let message =
                format!("= {}: expected epochs below the {} of the run, not {change}", recipe.bits, recipe.epochs);
            return Err(self.wrong("bits", message));
        }
        if recipe.nesterov && recipe.momentum == 0.0 {
            return Err(self.wrong("nesterov", "= true: expected a momentum above 0 with it".to_owned()));
        }
        if recipe.nesterov && recipe.optimizer != OptimizerKind::Sgd {
            return Err(self.wrong("nesterov", "= true: expected the optimizer \"sgd\" with it".to_owned()));
        }
        let warnings = if self.is_stored { Vec::new() } else { self.drop_without_effect(&mut recipe)? };
        Ok((recipe, warnings))
    }

    /// Sets values without effect to the usual ones, so that recipes that train the same are the same.
    fn drop_without_effect(&self, recipe: &mut Recipe) -> Result<Vec<String>, RecipeError> {
        let mut warnings = Vec::new();
        for rule in effect::void(&recipe.clone()) {
            let by_flag = matches!(self.values.get(rule.by), Some((Origin::Flag(_), _)));
            match self.values.get(rule.key) {
                Some((Origin::Flag(flag), _)) => warnings.push(format!("{flag} changes nothing: {}", rule.because)),
                Some((_, value)) if !by_flag => {
                    let message = format!("= {} changes nothing: {}", short(value), rule.because);
                    return Err(self.wrong(rule.key, message));
                }
                // A flag over a recipe that has more to say.
                _ => {}
            }
            (rule.reset)(recipe);
        }
        Ok(warnings)
    }

    fn act_quant(&mut self) -> Result<ActQuant, RecipeError> {
        let names = ["pact", "pact+", "lsq", "fixed", "relu"];
        if self.values.get("act_quant").is_some_and(|(_, value)| value.as_str() == Some("pact-sym")) {
            let message = format!(
                "= \"pact-sym\": that is for signed activations alone, which have it without being asked (`signed = true` of an `act` in a \
                 network file, the bottlenecks of mobilenet_v2); for activations with a ReLU expected one of {}",
                quoted(&names)
            );
            return Err(self.wrong("act_quant", message));
        }
        Ok(self.choice("act_quant", &names)?.unwrap_or(ActQuant::Pact))
    }

    fn name(&mut self) -> Result<String, RecipeError> {
        let plain = |name: &str| {
            let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
            first && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let Some(name) = self.take::<String>("name")? else {
            return Ok(if plain(&self.stem) { self.stem.clone() } else { "recipe".to_owned() });
        };
        if !plain(&name) {
            let expected = "expected up to 64 letters, digits, dots, dashes and underscores, a letter or digit first";
            return Err(self.wrong("name", format!("= {}: {expected}", short(&name.into()))));
        }
        Ok(name)
    }

    /// Any plain name is a data set here: a library user brings sets of their own. The command checks the known ones.
    fn dataset(&mut self) -> Result<String, RecipeError> {
        let name: String =
            self.take("dataset")?.ok_or(RecipeError::Missing { file: self.file.clone(), key: "dataset" })?;
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(self.wrong("dataset", "expected a name of 1 to 64 characters".to_owned()));
        }
        Ok(name)
    }

    /// The data set, if it is one that bitpact loads by name.
    ///
    /// # Errors
    /// Another name, or none.
    pub fn known_dataset(&self) -> Result<DatasetName, RecipeError> {
        let name = self.clone().dataset()?;
        let names = DatasetName::ALL.map(DatasetName::as_str);
        name.parse().map_err(|_| {
            let hint = hint(&name, names);
            self.wrong("dataset", format!("= \"{name}\": expected one of {}{hint}", quoted(&names)))
        })
    }

    fn bits(&mut self) -> Result<BitSchedule, RecipeError> {
        match self.take::<String>("bits")? {
            None => Ok("W4A4".parse().expect("a form like W4A4")),
            Some(text) => text.parse().map_err(|message| self.wrong("bits", format!("= {message}"))),
        }
    }

    fn architecture(&mut self) -> Result<(String, Option<Graph>), RecipeError> {
        let arch: String = self.take("arch")?.ok_or(RecipeError::Missing { file: self.file.clone(), key: "arch" })?;
        if let Some(graph) = self.take::<Graph>("graph")? {
            return match graph.name() == arch {
                true => Ok((arch, Some(graph))),
                false => {
                    Err(self.wrong("arch", format!("= \"{arch}\", but the network is named \"{}\"", graph.name())))
                }
            };
        }
        let origin = self.values.get("arch").map_or(Origin::Default, |(origin, _)| origin.clone());
        let graph = network_file(Path::new(&arch), &self.folder, &origin)?;
        Ok((graph.as_ref().map_or(arch, |g| g.name().to_owned()), graph))
    }

    fn clip_init(&mut self, bits: BitSpec) -> Result<ClipInit, RecipeError> {
        let usual = ClipInit::calibrate(bits);
        let Some((_, value)) = self.values.get("clip_init") else { return Ok(usual) };
        let expected = "expected a number from 0.01 to 10000, \"calibrate\" or { percentile = 99.9, batches = 8 }";
        let wrong = |draft: &Self, what: &str| Err(draft.wrong("clip_init", format!("= {what}: {expected}")));
        let init = match value {
            toml::Value::String(name) if name == "calibrate" => usual,
            toml::Value::Integer(value) => ClipInit::Fixed(*value as f64),
            toml::Value::Float(value) => ClipInit::Fixed(*value),
            toml::Value::Table(_) => {
                let Calibration { percentile, batches } = self.take("clip_init")?.expect("it is there");
                let ClipInit::Calibrate { percentile: p, batches: n } = usual else { unreachable!("calibrated") };
                ClipInit::Calibrate { percentile: percentile.unwrap_or(p), batches: batches.unwrap_or(n) }
            }
            other => return wrong(self, &short(other)),
        };
        match init {
            ClipInit::Fixed(value) if !(0.01..=10_000.0).contains(&value) => wrong(self, &value.to_string()),
            ClipInit::Calibrate { percentile, .. } if !(percentile > 0.0 && percentile <= 100.0) => {
                Err(self.wrong("clip_init", format!("has percentile = {percentile}: expected above 0 and at most 100")))
            }
            ClipInit::Calibrate { batches, .. } if !(1..=10_000).contains(&batches) => {
                Err(self.wrong("clip_init", format!("has batches = {batches}: expected 1 to 10000")))
            }
            init => Ok(init),
        }
    }

    fn gradient_bits(&mut self) -> Result<Option<u32>, RecipeError> {
        match self.take::<i64>("gradient_bits")? {
            None => Ok(None),
            Some(8) => Ok(Some(8)),
            Some(other) => Err(self.wrong("gradient_bits", format!("= {other}: expected 8, or no such key"))),
        }
    }

    fn betas(&mut self) -> Result<[f64; 2], RecipeError> {
        let betas: Vec<f64> = self.take("betas")?.unwrap_or_else(|| vec![0.9, 0.999]);
        match betas[..] {
            [b1, b2] if is_fraction(b1) && is_fraction(b2) => Ok([b1, b2]),
            _ => Err(self.wrong("betas", format!("= {betas:?}: expected two numbers of at least 0 and below 1"))),
        }
    }

    fn param_groups(&mut self) -> Result<BTreeMap<String, GroupRates>, RecipeError> {
        let groups: BTreeMap<String, GroupRates> = self.take("param_groups")?.unwrap_or_default();
        let good = |value: Option<f64>| value.is_none_or(|v| v >= 0.0 && (v as f32).is_finite());
        for (pattern, rates) in &groups {
            let wrong = |what: String| Err(self.wrong("param_groups", format!(".\"{pattern}\" {what}")));
            for (key, value) in [("lr", rates.lr), ("weight_decay", rates.weight_decay)] {
                if !good(value) {
                    return wrong(format!("has {key} = {}: expected a number of 0 or more", value.unwrap_or(f64::NAN)));
                }
            }
            if *rates == GroupRates::default() {
                return wrong("says nothing: expected lr, weight_decay or both".to_owned());
            }
        }
        Ok(groups)
    }

    fn milestones(&mut self) -> Result<Vec<f64>, RecipeError> {
        let milestones: Vec<f64> = self.take("milestones")?.unwrap_or_default();
        let inside = milestones.iter().all(|&m| m > 0.0 && m < 1.0);
        if !inside || milestones.windows(2).any(|pair| pair[0] >= pair[1]) {
            let expected = "expected fractions of the run, each above 0, below 1 and above the one before";
            return Err(self.wrong("milestones", format!("= {milestones:?}: {expected}")));
        }
        Ok(milestones)
    }

    fn input(&mut self) -> Result<InputScale, RecipeError> {
        match self.take::<toml::Table>("input")? {
            None => Ok(InputScale::default()),
            Some(table) => InputScale::parse(&table).map_err(|message| self.wrong("input", message)),
        }
    }

    fn augment(&mut self) -> Result<Augmentation, RecipeError> {
        let augment: Augmentation = self.take("augment")?.unwrap_or_default();
        if augment.pad > 1024 {
            return Err(self.wrong("augment", format!("has pad = {}: expected at most 1024 pixels", augment.pad)));
        }
        Ok(augment)
    }

    fn limit(&mut self, key: &str) -> Result<Option<usize>, RecipeError> {
        if !self.values.contains_key(key) {
            return Ok(None);
        }
        Ok(Some(self.whole(key, None, 1, i64::MAX)? as usize))
    }

    fn number(
        &mut self,
        key: &str,
        default: f64,
        expected: &str,
        holds: impl Fn(f64) -> bool,
    ) -> Result<f64, RecipeError> {
        let value = self.take(key)?.unwrap_or(default);
        // Kept in f32 while training: what is fine as f64 must be so there.
        if !(value.is_finite() && (value as f32).is_finite() && holds(value) && (value == 0.0 || value as f32 != 0.0)) {
            return Err(self.wrong(key, format!("= {value}: expected {expected}")));
        }
        Ok(value)
    }

    fn whole(&mut self, key: &str, default: Option<i64>, least: i64, most: i64) -> Result<i64, RecipeError> {
        let Some((_, value)) = self.values.get(key) else {
            let key = if key == "epochs" { "epochs" } else { "" };
            return default.ok_or(RecipeError::Missing { file: self.file.clone(), key });
        };
        match value {
            toml::Value::Integer(value) if (least..=most).contains(value) => Ok(*value),
            other => {
                let range = if most >= 1 << 40 { format!("{least} or more") } else { format!("{least} to {most}") };
                Err(self.wrong(key, format!("= {}: expected a whole number, {range}", short(other))))
            }
        }
    }
}

/// The network in the file `name`, or nothing where `name` is in the zoo.
///
/// # Errors
/// Neither a network of the zoo nor a file, or a file that is no network.
pub(super) fn network_file(file: &Path, folder: &Path, origin: &Origin) -> Result<Option<Graph>, RecipeError> {
    if file.to_str().is_some_and(|name| zoo::NAMES.contains(&name)) {
        return Ok(None);
    }
    let path = folder.join(file);
    if !path.exists() {
        let name = &*file.to_string_lossy();
        let hint = hint(name, zoo::NAMES);
        let known = quoted(&zoo::NAMES);
        let message = format!("= \"{name}\": expected a TOML or JSON file with a network, or one of {known}{hint}");
        return Err(RecipeError::Value { origin: origin.clone(), key: "arch".to_owned(), message });
    }
    read_network(&path).map(Some)
}

/// The network in a TOML or JSON file (docs/recipe.md).
///
/// # Errors
/// A file that cannot be read, is larger than 1 MiB or no network; the error names file, line and node.
pub fn read_network(path: &Path) -> Result<Graph, RecipeError> {
    let text = read_text(path)?;
    let syntax = |line: usize, message: String| RecipeError::Syntax {
        origin: Origin::Line { file: path.display().to_string(), line },
        message,
    };
    if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| syntax(error.line(), error.to_string()))
    } else {
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            syntax(error.span().map_or(1, |span| line_of(&text, span.start)), error.message().to_owned())
        })
    }
}
