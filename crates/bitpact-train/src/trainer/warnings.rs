//! What a person should look at: clip values that do not move or cannot fall, layers that clip much of what they see.

use super::progress::Progress;
use crate::LayerStatistics;
use crate::records::{WarningKind, WarningRecord};

/// A clip value that moved by less than this, relative, over several epochs does not move.
const STILL: f64 = 0.01;
/// Steps before a clip value that stands still is worth a word.
const STILL_STEPS: u64 = 300;
/// A layer that clips more than this fraction clips too much.
const MUCH: f64 = 0.3;

/// A layer that gives more than this fraction of zeros is dead.
const DEAD: f64 = 0.99;
/// A loss of more than this times that of guessing diverges.
const DIVERGED: f64 = 10.0;
/// An evaluated accuracy of less than this part of the one in training has another reason than the images.
const GAP: f64 = 0.5;

/// Whether the evaluated accuracy is so far below that in training, of more than guesses, that there is a reason to
/// look for.
pub(super) fn is_gap(train_top1: f64, top1: f64, classes: usize) -> bool {
    top1 < GAP * train_top1 && train_top1 > 3.0 / classes as f64
}

/// Losses, accuracies and settings of an epoch, beside its layers.
#[derive(Clone, Copy)]
pub(super) struct Course {
    /// Mean loss.
    pub(super) loss: f64,
    /// Classes, where the targets are classes.
    pub(super) classes: Option<usize>,
    /// Accuracy in training.
    pub(super) train_top1: f64,
    /// Accuracy of the network that is evaluated.
    pub(super) top1: Option<f64>,
    /// Accuracy of that network on training images, where the two lie far apart.
    pub(super) top1_in_training: Option<f64>,
    /// Whether batch norm's statistics are estimated anew before it.
    pub(super) reestimates: bool,
    /// Whether clip values decay.
    pub(super) clips_decay: bool,
}

impl Course {
    /// Warnings about the epoch as a whole.
    fn wrong(&self) -> Vec<(WarningKind, String)> {
        let mut found = Vec::new();
        let Some(classes) = self.classes else { return found };
        let guessing = (classes as f64).ln().max(1.0);
        if self.loss > DIVERGED * guessing {
            let text = "the run diverges; lower lr, or bound the gradients (max_grad_norm)";
            found.push((
                WarningKind::Diverged,
                format!("the loss is {:.3}, and {guessing:.3} by guessing: {text}", self.loss),
            ));
        }
        if let (Some(top1), Some(same)) = (self.top1, self.top1_in_training) {
            let [trained, evaluated, same_percent] = [self.train_top1, top1, same].map(|top1| top1 * 100.0);
            let (kind, cause) = if same >= GAP * self.train_top1 {
                let remedy = "take more images, change them more (augment, cutout, mixup), or raise weight_decay";
                (WarningKind::Overfit, format!("it knows its images by heart; {remedy}"))
            } else {
                let remedy = if self.reestimates { "from more batches" } else { "anew" };
                let text = "batch norm's running statistics do not fit the weights; estimate them";
                (WarningKind::Gap, format!("{text} {remedy} (bn_reestimate)"))
            };
            found.push((
                kind,
                format!(
                    "{trained:.1} % are right in training and {evaluated:.1} % when evaluated, of training images {same_percent:.1} %: {cause}"
                ),
            ));
        }
        found
    }
}

/// The warnings an epoch gives rise to; each kind once a layer. `learning` says whether the clip values are learned and
/// the learning rate has not yet fallen so far that they may well stand still.
pub(super) fn of_epoch(
    progress: &mut Progress,
    layers: &[LayerStatistics],
    course: &Course,
    step: u64,
    learning: impl Fn(&str) -> bool,
) -> Vec<WarningRecord> {
    let mut warnings = Vec::new();
    let epoch = progress.epochs_done;
    for (warning, message) in course.wrong() {
        let layer = String::new();
        if progress.warned.insert((warning, layer.clone())) {
            warnings.push(WarningRecord { epoch, step, warning, layer, message });
        }
    }
    for layer in layers {
        let mut warn = |warning: WarningKind, message: String| {
            if progress.warned.insert((warning, layer.name.clone())) {
                warnings.push(WarningRecord { epoch, step, warning, layer: layer.name.clone(), message });
            }
        };
        let (name, alpha) = (&layer.name, layer.alpha);
        if layer.clipped > MUCH {
            let percent = layer.clipped * 100.0;
            let message = format!("{name} clips {percent:.0} % of its values at {alpha}; start its clip value higher");
            warn(WarningKind::Clipping, message);
        }
        if layer.zero > DEAD {
            let percent = layer.zero * 100.0;
            let message = format!(
                "{percent:.1} % of the codes of {name} are 0: it sees little above 0, or its clip value {alpha} is far above what it sees; \
                 lower lr, or start the clip value lower (clip_init)"
            );
            warn(WarningKind::Dead, message);
        }
        if layer.alpha_clamped > 0 {
            let steps = layer.alpha_clamped;
            let remedy = if course.clips_decay { "lower clip_weight_decay, or clip_lr" } else { "lower clip_lr" };
            let message = format!(
                "the clip value of {name} was held at its smallest value, {}, in {steps} steps; {remedy}",
                bitpact_core::ALPHA_MIN
            );
            warn(WarningKind::AlphaMin, message);
        }
    }
    let steps = step * Progress::ALPHA_EPOCHS as u64 / u64::from(epoch.max(1));
    for layer in layers.iter().filter(|_| steps >= STILL_STEPS) {
        let key = (WarningKind::AlphaStill, layer.name.clone());
        if learning(&layer.name) && progress.alpha_still(&layer.name, STILL) && progress.warned.insert(key) {
            let message = format!(
                "the clip value of {} stayed within 1 % of {} since the first epoch; start it lower, or raise clip_lr or \
                 clip_weight_decay",
                layer.name, layer.alpha
            );
            let layer = layer.name.clone();
            warnings.push(WarningRecord { epoch, step, warning: WarningKind::AlphaStill, layer, message });
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(clipped: f64, alpha: f32, alpha_clamped: u64) -> Vec<LayerStatistics> {
        let (name, occupancy) = ("act1".to_owned(), Vec::new());
        vec![LayerStatistics { name, alpha, alpha_gradient: 0.0, clipped, zero: 0.5, occupancy, alpha_clamped }]
    }

    fn course() -> Course {
        Course {
            loss: 2.0,
            classes: Some(10),
            train_top1: 0.5,
            top1: Some(0.4),
            top1_in_training: None,
            reestimates: false,
            clips_decay: true,
        }
    }

    fn kinds(progress: &mut Progress, layers: &[LayerStatistics], learning: bool) -> Vec<WarningKind> {
        progress.remember_alphas(layers);
        of_epoch(progress, layers, &course(), 1000, |_| learning).into_iter().map(|w| w.warning).collect()
    }

    #[test]
    fn each_kind_comes_once_and_only_for_a_reason() {
        let mut progress = Progress::default();
        assert!(kinds(&mut progress, &layer(0.3, 1.0, 0), true).is_empty());
        let both = kinds(&mut progress, &layer(0.31, 1.5, 4), true);
        assert_eq!(both, [WarningKind::Clipping, WarningKind::AlphaMin]);
        assert!(kinds(&mut progress, &layer(0.9, 2.0, 9), true).is_empty());
    }

    #[test]
    fn a_still_clip_value_is_told_only_while_it_should_move() {
        for learning in [false, true] {
            let mut progress = Progress::default();
            let counts: Vec<usize> =
                (0..6).map(|_| kinds(&mut progress, &layer(0.1, 2.0, 0), learning).len()).collect();
            assert_eq!(counts, if learning { [0, 0, 0, 1, 0, 0] } else { [0; 6] });
        }
    }

    #[test]
    fn warnings_name_the_cause_that_holds() {
        let told = |layers: &[LayerStatistics], course: &Course| {
            let all = of_epoch(&mut Progress::default(), layers, course, 1, |_| false);
            all.into_iter().map(|warning| (warning.warning, warning.message)).collect::<Vec<_>>()
        };
        assert_eq!(told(&layer(0.1, 2.0, 0), &course()), []);
        let clamped = |clips_decay| told(&layer(0.1, 0.01, 5), &Course { clips_decay, ..course() }).remove(0).1;
        assert!(clamped(true).ends_with("lower clip_weight_decay, or clip_lr"));
        assert!(clamped(false).ends_with("steps; lower clip_lr"));
        let mut dead = layer(0.0, 30.0, 0);
        dead[0].zero = 0.998;
        let (kind, text) = told(&dead, &course()).remove(0);
        assert!(kind == WarningKind::Dead && text.contains("99.8 %") && text.contains("clip value 30"), "{text}");
        let (kind, text) = told(&[], &Course { loss: 624.0, ..course() }).remove(0);
        assert!(kind == WarningKind::Diverged && text.contains("624.000") && text.contains("lower lr"), "{text}");
        assert_eq!(told(&[], &Course { loss: 2.31, ..course() }), []);
        let gap = Course { train_top1: 0.85, top1: Some(0.107), top1_in_training: Some(0.11), ..course() };
        let (kind, text) = told(&[], &gap).remove(0);
        assert!(
            kind == WarningKind::Gap && text.contains("85.0 %") && text.ends_with("anew (bn_reestimate)"),
            "{text}"
        );
        let (_, text) = told(&[], &Course { reestimates: true, ..gap }).remove(0);
        assert!(text.ends_with("from more batches (bn_reestimate)"), "{text}");
        let (kind, text) = told(&[], &Course { top1_in_training: Some(0.8), ..gap }).remove(0);
        assert!(kind == WarningKind::Overfit && text.contains("80.0 %") && text.contains("by heart"), "{text}");
        assert!(is_gap(0.85, 0.107, 10) && !is_gap(0.25, 0.1, 10) && !is_gap(0.85, 0.5, 10));
    }
}
