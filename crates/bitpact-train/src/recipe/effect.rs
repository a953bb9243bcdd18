//! Settings that change nothing beside the others of their recipe.

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

const RULES: [Rule; 11] = [
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
