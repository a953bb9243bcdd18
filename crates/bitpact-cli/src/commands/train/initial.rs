//! The trained weights that a run starts from, of whatever file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bitpact::graph::Shape;
use bitpact::interop::{ImportOptions, Source};
use bitpact::model::Tensor;
use bitpact::train::Draft;
use bitpact::{Dataset, Graph, Recipe};

use crate::exit::or_force;
use crate::out::say;

const FLAG: &str = "--init-from";

/// What a file holds, and where it was.
pub(super) struct Initial {
    path: PathBuf,
    source: Source,
}

impl Initial {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let source = Source::open(path, &ImportOptions::default())?;
        let notes = match &source {
            Source::Network(imported) => &imported.notes,
            Source::Weights(weights) => &weights.notes,
        };
        notes.iter().for_each(|note| say!("note: {note}"));
        Ok(Self { path: path.to_owned(), source })
    }

    /// Says in `draft` which network the weights are of and what its pixels mean, but what flags say.
    pub(super) fn describe(self, draft: &mut Draft, arch_is_given: bool, input_is_given: bool) -> Result<Self> {
        let options = ImportOptions::default();
        let imported = match &self.source {
            Source::Network(imported) => imported.clone(),
            Source::Weights(_) if arch_is_given => {
                if !input_is_given {
                    say!("note: what a pixel means is not in the file; taken as the recipe's (--input)");
                }
                return Ok(self);
            }
            Source::Weights(weights) => {
                let imported = weights.import(&self.path, &options)?;
                let is_said = |note: &&String| !weights.notes.contains(note);
                let notes = imported.notes.iter().filter(is_said);
                notes
                    .filter(|note| !input_is_given || !note.contains("a pixel means"))
                    .for_each(|note| say!("note: {note}"));
                imported
            }
        };
        if !arch_is_given {
            draft.set_graph(&imported.model.graph, FLAG);
        }
        if !input_is_given {
            draft.set_input(&imported.model.input, FLAG);
        }
        Ok(self)
    }

    /// The weights must have been trained on pixels of the recipe's meaning where their file tells.
    pub(super) fn check_pixels(&self, recipe: &Recipe, force: bool) -> Result<()> {
        let Source::Network(imported) = &self.source else { return Ok(()) };
        let input = &imported.model.input;
        let Some(difference) = input.difference(&recipe.input_description(input.scale.len())) else { return Ok(()) };
        let file = self.path.display();
        let text = format!("{file}: its pixels have another meaning than the recipe's `input`: {difference}");
        or_force(force, text, "takes its weights")
    }

    /// The tensors by the names of the recipe's network for `images`. Those of a last layer with other classes are left
    /// out.
    pub(super) fn tensors(self, recipe: &Recipe, images: &dyn Dataset) -> Result<BTreeMap<String, Tensor>> {
        let shape = images.image_shape();
        let graph = recipe.network(Shape::new(shape.h, shape.w, shape.c), images.class_names().len())?;
        let mut tensors = match self.source {
            Source::Network(imported) => imported.model.tensors,
            Source::Weights(weights) => weights.named_for(&graph),
        };
        drop_other_head(&graph, &mut tensors);
        Ok(tensors)
    }
}

/// Removes the tensors of the last layer where they are of another number of classes.
fn drop_other_head(graph: &Graph, tensors: &mut BTreeMap<String, Tensor>) {
    let Some(last) = (0..graph.nodes().len()).rev().find(|&id| graph.node(id).op.is_product()) else { return };
    let name = &graph.node(last).name;
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    let (Some(theirs), Some(own)) = (tensors.get(&weight), graph.weight_shape(last)) else { return };
    let classes = theirs.shape.first().copied().unwrap_or(0);
    if graph.weight_order(last).is_none() && classes != own[0] && theirs.shape.get(1..) == own.get(1..) {
        say!("note: `{name}` has {classes} outputs in the file and {} here: it starts anew", own[0]);
        tensors.remove(&weight);
        tensors.remove(&bias);
    }
}
