//! What a person should look at: clip values that do not move or cannot fall, layers that clip much of what they see.

use super::progress::Progress;
use crate::LayerStatistics;
use crate::records::{WarningKind, WarningRecord};

/// A clip value that moved by less than this, relative, over several epochs does not move.
const STILL: f64 = 0.01;
/// A layer that clips more than this fraction clips too much.
const MUCH: f64 = 0.3;

/// The warnings an epoch gives rise to; each kind once a layer. `learning` says whether the clip values are learned and
/// the learning rate has not yet fallen so far that they may well stand still.
pub(super) fn of_epoch(
    progress: &mut Progress,
    layers: &[LayerStatistics],
    step: u64,
    learning: impl Fn(&str) -> bool,
) -> Vec<WarningRecord> {
    let mut warnings = Vec::new();
    let epoch = progress.epochs_done;
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
        if layer.alpha_clamped > 0 {
            let steps = layer.alpha_clamped;
            let message = format!(
                "the clip value of {name} was held at its smallest value, {}, in {steps} steps; lower clip_weight_decay",
                bitpact_core::ALPHA_MIN
            );
            warn(WarningKind::AlphaMin, message);
        }
    }
    for layer in layers {
        let key = (WarningKind::AlphaStill, layer.name.clone());
        if learning(&layer.name) && progress.alpha_still(&layer.name, STILL) && progress.warned.insert(key) {
            let message = format!(
                "the clip value of {} stayed within 1 % of {} for {} epochs; start it lower or raise clip_weight_decay",
                layer.name,
                layer.alpha,
                Progress::ALPHA_EPOCHS
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

    fn kinds(progress: &mut Progress, layers: &[LayerStatistics], learning: bool) -> Vec<WarningKind> {
        progress.remember_alphas(layers);
        of_epoch(progress, layers, 1, |_| learning).into_iter().map(|w| w.warning).collect()
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
}
