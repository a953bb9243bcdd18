//! The input of a search: the recipe of a trained network, and the changes of its loss.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use bitpact::unstable::core::Bits;
use bitpact::unstable::data::{DatasetName, Limits, Subset};
use bitpact::unstable::graph::Shape;
use bitpact::unstable::model::write_atomically;
use bitpact::unstable::report::sensitivity::{self, BASE_BITS, Options, Sensitivity};
use bitpact::unstable::search::{Bitwidths, Change, Part, Space, Variable};
use bitpact::unstable::train::{DenseLoss, Draft};
use bitpact::{Checkpoint, Dataset, Graph, Recipe, Tensor};

use super::bits::Args;
use crate::exit::{Interrupted, Usage};
use crate::interrupt;
use crate::loaded::{Network, open, open_checkpoint};
use crate::machine::{Machine, load_images};
use crate::out::say;
use crate::progress::bar;

/// A recipe with its network, and the trained network where there is one.
pub(super) struct Source {
    pub(super) recipe: Recipe,
    pub(super) graph: Graph,
    checkpoint: Option<Box<Checkpoint>>,
}

impl Source {
    /// A run, a checkpoint that knows its recipe, or a recipe.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let is_recipe = path.extension().is_some_and(|extension| extension == "toml") || !path.exists();
        if is_recipe {
            let draft = Draft::open(path)?;
            let dataset = draft.known_dataset()?;
            let recipe = draft.finish()?;
            let (shape, classes) = match (dataset, recipe.graph.as_ref()) {
                (_, Some(graph)) => (graph.input(), graph.classes()),
                (DatasetName::Folder, None) => {
                    bail!("{}: data of your own tell their shape in a run; expected the folder of one", path.display())
                }
                (known, None) => {
                    let info = known.info();
                    let shape = info.image_shape;
                    (Shape::new(shape.h, shape.w, shape.c), info.class_names.len())
                }
            };
            let graph = recipe.network(shape, classes)?;
            return Ok(Self { recipe, graph, checkpoint: None });
        }
        let (file, _) = open_checkpoint(path)?;
        let loaded = open(&file)?;
        let recipe = loaded
            .recipe
            .with_context(|| format!("{}: does not tell its recipe; expected the folder of a run", file.display()))?;
        let checkpoint = match loaded.network {
            Network::Integer { checkpoint: Some(checkpoint), .. } | Network::Float(checkpoint) => checkpoint,
            Network::Integer { .. } => bail!("{}: has no float weights; expected the folder of a run", file.display()),
        };
        Ok(Self { recipe, graph: checkpoint.model.graph.clone(), checkpoint: Some(checkpoint) })
    }

    /// The weights, where there are any.
    pub(super) fn tensors(&self) -> Option<BTreeMap<String, Tensor>> {
        self.checkpoint.as_ref().map(|checkpoint| checkpoint.model.tensors.clone())
    }

    /// The changes of the loss at `bits`: from the file that was named where it is there, else measured.
    pub(super) fn sensitivity(&self, args: &Args, bits: &[Bits]) -> Result<Sensitivity> {
        if let Some(path) = args.sensitivity.as_ref().filter(|path| path.exists()) {
            let text = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
            let found: Sensitivity = serde_json::from_slice(&text)
                .with_context(|| format!("{}: not what bitpact sensitivity writes", path.display()))?;
            if found.network != self.graph.name() {
                bail!("{}: is of the network `{}`, not `{}`", path.display(), found.network, self.graph.name());
            }
            return Ok(found);
        }
        let Some(checkpoint) = &self.checkpoint else {
            let message = "a recipe has no trained weights to measure: name the folder of a run, or a file with \
                           --sensitivity that `bitpact sensitivity` or an earlier search wrote";
            return Err(Usage(message.to_owned()).into());
        };
        let (bar, stop) = (bar("measuring", 0, "tensors and widths"), interrupt::stop_flag());
        let found = self.on_images(checkpoint, args, bits, |images, options| {
            say!("measuring every tensor at every width on {} images", images.len());
            Ok(sensitivity::measure(&checkpoint.model, images, options, &mut |done, all| {
                bar.set_length(all as u64);
                bar.set_position(done as u64);
                !stop.load(Ordering::Relaxed)
            })?)
        })?;
        bar.finish_and_clear();
        let found = found.ok_or(Interrupted)?;
        if let Some(path) = &args.sensitivity {
            write_atomically(path, found.to_json().as_bytes())?;
            say!("wrote {}", path.display());
        }
        Ok(found)
    }

    /// The losses of the network at each of `all`, without training; `None` of a recipe.
    pub(super) fn untrained(&self, args: &Args, space: &Space, all: &[&Bitwidths]) -> Result<Option<Vec<f64>>> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(None) };
        let together = |bits: &&Bitwidths| {
            let of = |variable: &Variable| {
                let part = match variable.part {
                    Part::Weights => sensitivity::Part::Weights,
                    Part::Activations => sensitivity::Part::Activations,
                };
                (variable.name.clone(), part, Bits::new(variable.of(bits)).expect("a width of the space"))
            };
            space.variables.iter().map(of).collect()
        };
        let together: Vec<_> = all.iter().map(together).collect();
        let measures = self.on_images(checkpoint, args, &[], |images, options| {
            Ok(sensitivity::measure_together(&checkpoint.model, images, options, &together)?)
        })?;
        Ok(Some(measures.iter().map(|measure| measure.loss).collect()))
    }

    /// Calls `f` with the training images that are measured on, and how.
    fn on_images<R>(
        &self,
        checkpoint: &Checkpoint,
        args: &Args,
        bits: &[Bits],
        f: impl FnOnce(&dyn Dataset, &Options) -> Result<R>,
    ) -> Result<R> {
        let recipe = &self.recipe;
        let name: DatasetName = recipe.dataset.parse()?;
        let limits = Limits { train: recipe.limit_train, test: Some(1) };
        let (split, _) = load_images(name, args.data.as_ref(), limits, &recipe.own_options())?;
        let count = usize::try_from(args.images).unwrap_or(usize::MAX);
        let all = split.train.len();
        let Some((_, held)) = Subset::hold_out(&*split.train, count.min(all.saturating_sub(1))) else {
            bail!("the set has {all} training images, of which none can be held out");
        };
        let (seen, held_out) = (held.len().saturating_sub(recipe.holdout), held.len());
        if seen > 0 && !bits.is_empty() {
            say!(
                "note: {} has learned from {seen} of the {held_out} images that it is measured on; train with \
                 holdout = {held_out} to keep them apart",
                checkpoint.model.graph.name()
            );
        }
        let Machine { isa, threads } = args.machine.resolve();
        let loss = recipe.loss.or_else(|| DenseLoss::usual(split.train.target_kind()));
        let bits = bits.iter().copied().filter(|bits| bits.get() < BASE_BITS).collect();
        f(&held, &Options { bits, reestimate: args.reestimate, loss, backend: args.backend, isa, threads })
    }
}

/// The changes of the loss that a search takes from a measured sensitivity.
pub(super) fn changes(found: &Sensitivity) -> Vec<Change> {
    let change = |row: &sensitivity::Row| Change {
        layer: row.layer.clone(),
        part: match row.part {
            sensitivity::Part::Weights => Part::Weights,
            sensitivity::Part::Activations => Part::Activations,
        },
        bits: row.bits,
        loss: found.loss_change(row),
    };
    found.rows.iter().map(change).collect()
}
