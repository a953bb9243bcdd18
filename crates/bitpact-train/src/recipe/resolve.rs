//! From a draft to a recipe: every value read, checked and told where it came from when it is wrong.

use std::path::Path;

use bitpact_data::DatasetName;
use bitpact_graph::{BitSpec, Graph, zoo};
use toml::Value;

use super::draft::{line_of, quoted, read_text, short};
use super::error::hint;
use super::values::Calibration;
use super::{BitSchedule, ClipInit, Draft, Origin, Recipe, RecipeError, check, effect};
use crate::OptimizerKind;

impl Draft {
    /// Checks every value and gives the recipe. Keys that are not written have their defaults (docs/recipe.md);
    /// `dataset`, `arch` and `epochs` must be written.
    ///
    /// # Errors
    /// The first value that its key cannot have, and a value of a file that changes nothing beside the file's others.
    pub fn finish(self) -> Result<Recipe, RecipeError> {
        self.finish_with_warnings().map(|(recipe, _)| recipe)
    }

    /// Resolves the draft as [`Draft::finish`] does, with a line for every flag that changes nothing.
    ///
    /// # Errors
    /// Those of [`Draft::finish`].
    pub fn finish_with_warnings(mut self) -> Result<(Recipe, Vec<String>), RecipeError> {
        self.settle()?;
        let recipe = self.fields()?;
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
        if self.is_stored {
            return Ok((recipe, Vec::new()));
        }
        let warnings = self.drop_without_effect(&recipe)?;
        Ok((self.fields()?, warnings))
    }

    /// Removes values without effect, so that recipes that train the same are the same.
    fn drop_without_effect(&mut self, recipe: &Recipe) -> Result<Vec<String>, RecipeError> {
        let mut warnings = Vec::new();
        for rule in effect::void(recipe) {
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
            self.values.remove(rule.key);
        }
        Ok(warnings)
    }

    /// Writes the values that depend on other files and keys: network, name, learning rate and start of the clip
    /// values.
    fn settle(&mut self) -> Result<(), RecipeError> {
        self.architecture()?;
        if self.values.get("act_quant").is_some_and(|(_, value)| value.as_str() == Some("pact-sym")) {
            let message = "= \"pact-sym\": that is for signed activations alone, which have it without being asked \
                           (`signed = true` of an `act` in a network file, the bottlenecks of mobilenet_v2)";
            return Err(self.wrong("act_quant", message.to_owned()));
        }
        let name = if check::is_plain(&self.stem) { &self.stem } else { "recipe" };
        let adam = self.value::<OptimizerKind>("optimizer")? != OptimizerKind::Sgd;
        for (key, value) in [("name", Value::from(name)), ("lr", Value::from(if adam { 1e-3 } else { 0.1 }))] {
            self.values.entry(key.to_owned()).or_insert((Origin::Default, value));
        }
        let clip_init = self.clip_init(self.value::<BitSchedule>("bits")?.first_quantized())?;
        let origin = self.origin("clip_init");
        let value = Value::try_from(clip_init).expect("a start is TOML");
        self.values.insert("clip_init".to_owned(), (origin, value));
        Ok(())
    }

    /// Reads the network file that `arch` names, if it names one.
    fn architecture(&mut self) -> Result<(), RecipeError> {
        let arch: String = self.value("arch")?;
        if let Some(graph) = self.value::<Option<Graph>>("graph")? {
            return match graph.name() == arch {
                true => Ok(()),
                false => {
                    Err(self.wrong("arch", format!("= \"{arch}\", but the network is named \"{}\"", graph.name())))
                }
            };
        }
        let origin = self.origin("arch");
        if let Some(graph) = network_file(Path::new(&arch), &self.folder, &origin)? {
            self.set_network(&graph, origin);
        }
        Ok(())
    }

    /// The data set, if it is one that bitpact loads by name.
    ///
    /// # Errors
    /// Another name, or none.
    pub fn known_dataset(&self) -> Result<DatasetName, RecipeError> {
        let name: String = self.value("dataset")?;
        let names: Vec<&str> = DatasetName::every().map(DatasetName::as_str).collect();
        name.parse().map_err(|_| {
            let hint = hint(&name, names.iter().copied());
            self.wrong("dataset", format!("= \"{name}\": expected one of {}{hint}", quoted(&names)))
        })
    }

    fn clip_init(&self, bits: BitSpec) -> Result<ClipInit, RecipeError> {
        let usual = ClipInit::calibrate(bits);
        let Some((_, value)) = self.values.get("clip_init") else { return Ok(usual) };
        let expected = "expected a number from 0.01 to 10000, \"calibrate\" or { percentile = 99.9, batches = 8 }";
        let wrong = |draft: &Self, what: &str| Err(draft.wrong("clip_init", format!("= {what}: {expected}")));
        let init = match value {
            Value::String(name) if name == "calibrate" => usual,
            Value::Integer(value) => ClipInit::Fixed(*value as f64),
            Value::Float(value) => ClipInit::Fixed(*value),
            Value::Table(_) => {
                let Calibration { percentile, batches } = self.take("clip_init")?;
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
