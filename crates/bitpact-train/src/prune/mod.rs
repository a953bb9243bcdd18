//! Channels pruned by masks that are trained with the weights (PIT: Risso et al. 2023, IEEE Transactions on Computers,
//! doi 10.1109/TC.2022.3230914).
//!
//! Every group of channels that stand or fall together ([`ChannelGroups`]) has a number alpha from 0 to 1, at first 1.
//! Its mask is theta = [alpha > 1/2]; what makes its channels 0 is multiplied by theta, and alpha gets theta's gradient
//! as if theta were alpha (straight-through). The loss gains the cost of what is left ([`Pressure`]). Alphas take steps
//! of Adam; of every layer the channels with the largest alpha stay.
//!
//! The taps of one-dimensional convolutions may have masks too, of the length of a kernel and of its dilation.
//!
//! At the end the network without the masked channels is another [`Model`], smaller and with the same outputs but for
//! quantizers whose scale depends on all weights of a layer.

mod cut;
mod masks;
mod taps;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bitpact_graph::{ChannelGroups, Graph};
use bitpact_model::Model;

use crate::trainer::{Outcome, train_around};
use crate::{Images, Recipe, RunError, RunFolder, RunOptions, Start};

pub use crate::numbers::Pressure;
pub use cut::cut;
use masks::Masked;
use taps::{Kernel, shortened, shortened_graph};

/// Alpha above which something stays.
const THRESHOLD: f32 = 0.5;

/// What a pruning is told.
#[derive(Debug, Clone, PartialEq)]
pub struct PruneOptions {
    /// Cost of a weight of each convolution and linear layer by its name; others cost nothing.
    pub prices: BTreeMap<String, f64>,
    /// How cost weighs.
    pub pressure: Pressure,
    /// Learning rate of the alphas; it does not follow the schedule.
    pub rate: f32,
    /// Whether kernels of one-dimensional convolutions are shortened and dilated too.
    pub kernels: bool,
}

/// A network with fewer channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Pruned {
    /// The network.
    pub model: Model,
    /// Groups of channels that could be removed.
    pub groups: usize,
    /// Groups of channels that were.
    pub removed: usize,
    /// Groups among them that no mask had removed, but the target at the end.
    pub trimmed: usize,
    /// Layers that may be shortened, with the taps and the dilation of what is left of each.
    pub kernels: Vec<(String, [usize; 2])>,
    /// Cost of the whole network and of what is left.
    pub costs: [f64; 2],
}

/// Trains `recipe` with masks into `folder`, as [`crate::train`] does without, and cuts out what they leave; no network
/// where the run was stopped. `cost` is the exact cost of a network of these names and bits.
///
/// # Errors
/// Those of [`crate::train`]; a recipe whose bits change; a network of which no channel can be removed; a target that
/// none or all of the channels meet.
pub fn prune<'a>(
    recipe: &Recipe,
    images: Images<'a>,
    folder: &'a RunFolder,
    start: Start,
    options: RunOptions<'a>,
    prune: &PruneOptions,
    cost: &dyn Fn(&Graph) -> Result<f64, RunError>,
) -> Result<(Outcome, Option<Pruned>), RunError> {
    let wrong = |what: String| Err(RunError::Search { what });
    let mut whole = 0.0;
    let (outcome, model, masked) = train_around(recipe, images, folder, start, options, |setup, inner, steps| {
        let groups = ChannelGroups::of(&setup.graph, &setup.plan);
        let kernels = if prune.kernels { Kernel::all(&setup.graph, &setup.plan) } else { Vec::new() };
        if prune.kernels && kernels.is_empty() {
            return wrong(format!(
                "no kernel of {} can be shortened: expected convolutions along one row, padded by half a kernel or on the \
                 left, with batch norms",
                setup.graph.name()
            ));
        }
        if groups.is_empty() && kernels.is_empty() {
            return wrong(format!("no channel of {} can be removed", setup.graph.name()));
        }
        whole = cost(&setup.graph)?;
        if let Pressure::Target(target) = prune.pressure {
            let anchors: Vec<Kernel> = kernels.iter().map(Kernel::least).collect();
            let least = cost(&cut::smallest(&shortened_graph(&setup.graph, &anchors)?, &groups)?)?;
            if target < least {
                return wrong(format!("a cost of {target}, and with one channel in every layer it is {least}"));
            }
            if target >= whole {
                return wrong(format!(
                    "a cost of {target}, and nothing is to be removed: the whole network has {whole}"
                ));
            }
        }
        Ok(Masked::new(inner, &setup.graph, groups, kernels, prune, steps))
    })?;
    if !outcome.finished {
        return Ok((outcome, None));
    }
    let tensors = crate::TrainBackend::tensors(&masked);
    let model = shortened(&Model { tensors, ..model }, &masked.kernels())?;
    let (mut stays, groups) = (masked.stays(), masked.groups());
    let by_masks = count(&stays);
    if let Pressure::Target(target) = prune.pressure {
        cut::trim(&model.graph, groups, masked.alphas(), target, &mut stays, cost)?;
    }
    let trimmed = by_masks - count(&stays);
    let model = cut(&model, groups, &stays)?;
    let kernel = |kernel: &Kernel| {
        let node = model.graph.node(kernel.node);
        let window = node.op.window(model.graph.input_shape(kernel.node)).expect("a convolution has a window");
        (node.name.clone(), [window.kernel[1], window.dilation[1]])
    };
    let kernels = masked.kernels().iter().map(kernel).collect();
    let left = cost(&model.graph)?;
    let (groups, removed) = (stays.len(), stays.len() - count(&stays));
    Ok((outcome, Some(Pruned { model, groups, removed, trimmed, kernels, costs: [whole, left] })))
}

fn count(stays: &[bool]) -> usize {
    stays.iter().filter(|&&stays| stays).count()
}
