//! Where gradients live: every tensor's gradient gets a slab of memory, used again when the gradient is dead.

use super::plan::{Shortcut, StageKind, StageStep, Value, ValueId};

/// Where the gradient of a tensor goes: its slab, and whether something stands there already.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Target {
    pub(super) slab: usize,
    pub(super) accumulate: bool,
}

/// Gradient slabs of one stage's backward.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slabs {
    /// Of the output.
    pub(super) output: usize,
    /// Of the input; `None` for the image.
    pub(super) input: Option<Target>,
    /// Of the shortcut's tensor; the output's own slab where the identity simply passes it on.
    pub(super) shortcut: Option<Target>,
}

/// Walks the stages backward and gives every tensor's gradient a slab, used again when it is dead. Returns the slabs'
/// sizes in elements of one image.
pub(super) fn assign(stages: &mut [StageStep], values: &[Value]) -> Vec<usize> {
    let mut sizes: Vec<usize> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut slab_of: Vec<Option<usize>> = vec![None; values.len()];
    let mut target = |value: ValueId, slab_of: &mut Vec<Option<usize>>, free: &mut Vec<usize>| {
        let accumulate = slab_of[value].is_some();
        let slab = *slab_of[value].get_or_insert_with(|| {
            free.pop().unwrap_or_else(|| {
                sizes.push(0);
                sizes.len() - 1
            })
        });
        sizes[slab] = sizes[slab].max(values[value].dense().len());
        Target { slab, accumulate }
    };
    for stage in stages.iter_mut().rev() {
        let many = match &mut stage.kind {
            StageKind::Concat { inputs, output, targets } => Some((inputs, *output, targets)),
            StageKind::General(step) => Some((&mut step.inputs, step.output, &mut step.targets)),
            _ => None,
        };
        if let Some((inputs, output, targets)) = many {
            let out = target(output, &mut slab_of, &mut free).slab;
            let trained = inputs.iter().filter(|&&input| !values[input].source.is_input());
            *targets = trained.map(|&input| target(input, &mut slab_of, &mut free)).collect();
            stage.slabs = Slabs { output: out, input: None, shortcut: None };
            slab_of[output] = None;
            free.push(out);
        }
        let (input, output, shortcut) = match &stage.kind {
            StageKind::Unit(unit) => (unit.input, unit.output, Some(&unit.shortcut)),
            StageKind::MaxPool { input, output, .. }
            | StageKind::AvgPool { input, output, .. }
            | StageKind::Dropout { input, output, .. }
            | StageKind::MeanPool { input, output } => (*input, *output, None),
            StageKind::Concat { .. } | StageKind::General(_) => continue,
        };
        let out = target(output, &mut slab_of, &mut free).slab;
        let mut keep = false;
        let shortcut = match shortcut {
            None | Some(Shortcut::None) => None,
            Some(Shortcut::Identity { value }) if slab_of[*value].is_none() => {
                slab_of[*value] = Some(out);
                keep = true;
                Some(Target { slab: out, accumulate: true })
            }
            Some(
                Shortcut::Identity { value } | Shortcut::Subsample { value, .. } | Shortcut::Projection { value, .. },
            ) => Some(target(*value, &mut slab_of, &mut free)),
        };
        let input = (!values[input].source.is_input()).then(|| target(input, &mut slab_of, &mut free));
        stage.slabs = Slabs { output: out, input, shortcut };
        slab_of[output] = None;
        if !keep {
            free.push(out);
        }
    }
    sizes
}
