//! Settings that change nothing beside the others of their recipe.

use bitpact_core::WeightQuant;
use bitpact_data::DatasetName;
use bitpact_graph::{BitSpec, Override, Shape, WeightPlan, name_matches, zoo};

use super::{Key, Recipe};
use crate::OptimizerKind;
use crate::schedule::ScheduleKind;

/// A key and when its value is read by nothing.
pub(super) struct Rule {
    pub(super) key: &'static str,
    /// The key whose value is the reason.
    pub(super) by: &'static str,
    /// The reason, and what would have an effect.
    pub(super) because: &'static str,
    /// Whether nothing reads the value.
    is_unread: fn(&Recipe) -> bool,
}

/// Whether no layer reads the recipe's words about weights: all have 8 bits, which take `minmax`, or stay float. A
/// layer of 8 bits whose override names a quantizer `reads_named` them all the same. False where the network is not
/// known, or has no such plan.
fn leaves_weights_to_minmax(recipe: &Recipe, reads_named: bool) -> bool {
    let (side, classes) = zoo::usual_input(&recipe.arch);
    let built = || zoo::build(&recipe.arch, Shape::new(side, side, 3), classes)?.ok();
    let Some(graph) = recipe.graph.clone().or_else(built) else { return false };
    let takes = |name: &String, plan: &WeightPlan| {
        let named = |(pattern, keys): (&String, &Override)| keys.weight_quant.is_some() && name_matches(pattern, name);
        let is_named = recipe.overrides.iter().any(named);
        let reads = |bits: u8| if is_named { reads_named } else { bits != 8 };
        matches!(plan, WeightPlan::Quantized(spec) if reads(spec.bits.get()))
    };
    let mut quantized = recipe.bits.all().filter(|bits| *bits != BitSpec::Float).peekable();
    quantized.peek().is_some()
        && quantized.all(|bits| match recipe.plan_of(&graph, bits) {
            Ok(plan) => !plan.weights.iter().any(|(name, plan)| takes(name, plan)),
            Err(_) => false,
        })
}

/// Reason why no layer reads a key about weights.
const MINMAX: &str =
    "every layer has 8 bits, which take `minmax`, or stays float; an override's `weight_quant` names another";

/// A key of one's own data, which no other set reads.
const fn of_folder(key: &'static str) -> Rule {
    const BECAUSE: &str = "only the data set `folder` has it; others are read as they are";
    Rule { key, by: "dataset", because: BECAUSE, is_unread: |r| r.dataset != DatasetName::Folder.as_str() }
}

const RULES: [Rule; 23] = [
    of_folder("task"),
    of_folder("crop"),
    of_folder("resize"),
    of_folder("random_crop"),
    of_folder("channels"),
    of_folder("upscale"),
    of_folder("test_share"),
    Rule {
        key: "fold",
        by: "dataset",
        because: "only the data set `ppg-bp` has folds",
        is_unread: |r| r.dataset != DatasetName::PpgBp.as_str(),
    },
    Rule {
        key: "color_jitter",
        by: "color_jitter",
        because: "all four numbers are 0",
        is_unread: |r| r.color_jitter.is_some_and(|reach| reach == [0.0; 4]),
    },
    Rule {
        key: "weight_quant",
        by: "bits",
        because: MINMAX,
        is_unread: |r| r.weight_quant != WeightQuant::Minmax && leaves_weights_to_minmax(r, false),
    },
    Rule { key: "weight_grid", by: "bits", because: MINMAX, is_unread: |r| leaves_weights_to_minmax(r, true) },
    Rule { key: "weight_scale", by: "bits", because: MINMAX, is_unread: |r| leaves_weights_to_minmax(r, true) },
    Rule {
        key: "milestones",
        by: "schedule",
        because: "only `schedule = \"step\"` has them",
        is_unread: |r| r.schedule != ScheduleKind::Step,
    },
    Rule {
        key: "lr_decay",
        by: "schedule",
        because: "only `schedule = \"step\"` has it",
        is_unread: |r| r.schedule != ScheduleKind::Step,
    },
    Rule {
        key: "schedule",
        by: "milestones",
        because: "a step schedule without `milestones` is constant",
        is_unread: |r| r.schedule == ScheduleKind::Step && r.milestones.is_empty(),
    },
    Rule {
        key: "betas",
        by: "optimizer",
        because: "only Adam has them; SGD has `momentum`",
        is_unread: |r| r.optimizer == OptimizerKind::Sgd,
    },
    Rule {
        key: "eps",
        by: "optimizer",
        because: "only Adam has it; SGD has `momentum`",
        is_unread: |r| r.optimizer == OptimizerKind::Sgd,
    },
    Rule {
        key: "momentum",
        by: "optimizer",
        because: "only SGD has it; Adam has `betas`",
        is_unread: |r| r.optimizer != OptimizerKind::Sgd,
    },
    Rule { key: "distill_weight", by: "teacher", because: "it needs a `teacher`", is_unread: |r| r.teacher.is_none() },
    Rule {
        key: "distill_temperature",
        by: "teacher",
        because: "it needs a `teacher`",
        is_unread: |r| r.teacher.is_none(),
    },
    Rule {
        key: "teacher",
        by: "distill_weight",
        because: "`distill_weight = 0` leaves it no part in the loss",
        is_unread: |r| r.distill_weight == 0.0,
    },
    Rule {
        key: "precision",
        by: "gradient_bits",
        because: "`gradient_bits = 8` decides what the backward products read",
        is_unread: |r| r.gradient_bits.is_some(),
    },
    Rule {
        key: "no_weight_decay",
        by: "weight_decay",
        because: "`weight_decay` and `clip_weight_decay` are 0, so no tensor decays",
        is_unread: |r| r.weight_decay == 0.0 && r.clip_weight_decay == 0.0,
    },
];

/// The rules by which a value of `recipe` changes nothing: another than the usual one, and read by nothing.
pub(super) fn void(recipe: &Recipe) -> impl Iterator<Item = &'static Rule> {
    let says = toml::Table::try_from(recipe).expect("a recipe is TOML");
    let usual = |rule: &Rule| Recipe::key(rule.key).and_then(Key::default);
    let unusual = move |rule: &&Rule| says.get(rule.key) != usual(rule).as_ref();
    RULES.iter().filter(|rule| (rule.is_unread)(recipe)).filter(unusual).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use crate::recipe::{Draft, Recipe, RecipeError};

    /// A recipe of `words`; every network of one's own has two layers, both of which are ends.
    fn recipe(words: &str) -> Result<Recipe, RecipeError> {
        Draft::parse(&format!("dataset = \"builtin\"\nepochs = 2\n{words}"), "test").unwrap().finish()
    }

    const TWO: &str = r#"
arch = "two"
[graph]
name = "two"
nodes = [
  { name = "input", op = "input", height = 8, width = 8, channels = 1 },
  { name = "conv1", op = "conv", out_channels = 4, kernel = 3 },
  { name = "act1", op = "act" },
  { name = "linear", op = "linear", out_features = 3 },
]
"#;

    #[test]
    fn words_about_weights_that_every_layer_leaves_to_minmax_are_told() {
        let words = ["weight_quant = \"sawb\"", "weight_grid = \"zero\"", "weight_scale = \"channel\""];
        for word in words {
            let void = [
                format!("arch = \"cnn\"\nbits = \"W8A8\"\n{word}"),
                format!("arch = \"resnet20\"\nbits = \"W8A2\"\nfirst_last = \"float\"\n{word}"),
                format!("arch = \"cnn\"\nbits = \"float@1,W8A4\"\n{word}"),
                format!("arch = \"cnn\"\n{word}\n[overrides.\"*\"]\nweight_bits = 8"),
                format!("{word}\n{TWO}"),
            ];
            for text in void {
                let error = recipe(&text).unwrap_err().to_string();
                let key = word.split(' ').next().unwrap();
                assert!(
                    error.contains(key) && error.contains("changes nothing") && error.contains("minmax"),
                    "{error}"
                );
            }
            let read = [
                format!("arch = \"cnn\"\nbits = \"W4A4\"\n{word}"),
                format!("arch = \"cnn\"\nbits = \"W8A8@1,W4A4\"\n{word}"),
                format!("arch = \"cnn\"\nbits = \"W8A8\"\n{word}\n[overrides.conv2]\nweight_bits = 4"),
                format!("first_last = \"same\"\n{word}\n{TWO}"),
            ];
            for text in read {
                recipe(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            }
        }
        // An override that names a quantizer at 8 bits reads the recipe's grid and scale, not its quantizer.
        let named = |word: &str| {
            recipe(&format!("arch = \"cnn\"\nbits = \"W8A8\"\n{word}\n[overrides.conv2]\nweight_quant = \"lsq\""))
        };
        named(words[2]).unwrap();
        named(words[0]).unwrap_err();
        recipe("arch = \"cnn\"\nbits = \"W8A8\"\nweight_quant = \"minmax\"").unwrap();
    }

    #[test]
    fn a_flag_about_weights_that_changes_nothing_is_a_warning() {
        let mut draft = Draft::open("builtin").unwrap();
        draft.set("bits", "W8A8", "--bits");
        draft.set("weight_quant", "sawb", "--weight-quant");
        let (recipe, warnings) = draft.finish_with_warnings().unwrap();
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.starts_with("--weight-quant changes nothing") && warning.contains("minmax"), "{warning}");
        assert_eq!(recipe.weight_quant, bitpact_core::WeightQuant::Dorefa);
    }
}
