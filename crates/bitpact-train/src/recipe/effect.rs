//! Settings that change nothing beside the others of their recipe.

use super::{Precision, Recipe};
use crate::OptimizerKind;
use crate::schedule::ScheduleKind;

/// A key and when its value is read by nothing.
pub(super) struct Rule {
    pub(super) key: &'static str,
    /// The key whose value is the reason.
    pub(super) by: &'static str,
    /// The reason, and what would have an effect.
    pub(super) because: &'static str,
    /// Whether the value is another than the usual one, and read by nothing.
    is_void: fn(&Recipe) -> bool,
    /// Sets the usual value.
    pub(super) reset: fn(&mut Recipe),
}

const RULES: [Rule; 11] = [
    Rule {
        key: "milestones",
        by: "schedule",
        because: "only `schedule = \"step\"` has them",
        is_void: |r| !r.milestones.is_empty() && r.schedule != ScheduleKind::Step,
        reset: |r| r.milestones.clear(),
    },
    Rule {
        key: "lr_decay",
        by: "schedule",
        because: "only `schedule = \"step\"` has it",
        is_void: |r| r.lr_decay != 0.1 && r.schedule != ScheduleKind::Step,
        reset: |r| r.lr_decay = 0.1,
    },
    Rule {
        key: "schedule",
        by: "milestones",
        because: "a step schedule without `milestones` is constant",
        is_void: |r| r.schedule == ScheduleKind::Step && r.milestones.is_empty(),
        reset: |r| r.schedule = ScheduleKind::Constant,
    },
    Rule {
        key: "betas",
        by: "optimizer",
        because: "only Adam has them; SGD has `momentum`",
        is_void: |r| r.betas != [0.9, 0.999] && r.optimizer == OptimizerKind::Sgd,
        reset: |r| r.betas = [0.9, 0.999],
    },
    Rule {
        key: "eps",
        by: "optimizer",
        because: "only Adam has it; SGD has `momentum`",
        is_void: |r| r.eps != 1e-8 && r.optimizer == OptimizerKind::Sgd,
        reset: |r| r.eps = 1e-8,
    },
    Rule {
        key: "momentum",
        by: "optimizer",
        because: "only SGD has it; Adam has `betas`",
        is_void: |r| r.momentum != 0.9 && r.optimizer != OptimizerKind::Sgd,
        reset: |r| r.momentum = 0.9,
    },
    Rule {
        key: "distill_weight",
        by: "teacher",
        because: "it needs a `teacher`",
        is_void: |r| r.distill_weight != 0.7 && r.teacher.is_none(),
        reset: |r| r.distill_weight = 0.7,
    },
    Rule {
        key: "distill_temperature",
        by: "teacher",
        because: "it needs a `teacher`",
        is_void: |r| r.distill_temperature != 4.0 && r.teacher.is_none(),
        reset: |r| r.distill_temperature = 4.0,
    },
    Rule {
        key: "teacher",
        by: "distill_weight",
        because: "`distill_weight = 0` leaves it no part in the loss",
        is_void: |r| r.teacher.is_some() && r.distill_weight == 0.0,
        reset: |r| r.teacher = None,
    },
    Rule {
        key: "precision",
        by: "gradient_bits",
        because: "`gradient_bits = 8` decides what the backward products read",
        is_void: |r| r.precision == Precision::Bf16 && r.gradient_bits.is_some(),
        reset: |r| r.precision = Precision::Fp32,
    },
    Rule {
        key: "no_weight_decay",
        by: "weight_decay",
        because: "`weight_decay` and `clip_weight_decay` are 0, so no tensor decays",
        is_void: |r| !r.no_weight_decay.is_empty() && r.weight_decay == 0.0 && r.clip_weight_decay == 0.0,
        reset: |r| r.no_weight_decay.clear(),
    },
];

/// The rules by which a value of `recipe` changes nothing.
pub(super) fn void(recipe: &Recipe) -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(|rule| (rule.is_void)(recipe))
}
