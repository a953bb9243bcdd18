//! The trained weights that a run starts from, of whatever file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bitpact::unstable::graph::Shape;
use bitpact::unstable::interop::weights::remove_other_head;
use bitpact::unstable::interop::{ImportOptions, Source};
use bitpact::unstable::model::{Pixels, Tensor};
use bitpact::unstable::train::Draft;
use bitpact::{Dataset, Recipe};

use crate::exit::or_force;
use crate::out::say;

const FLAG: &str = "--init-from";

/// What a file holds, and where it was.
pub(super) struct Initial {
    path: PathBuf,
    options: ImportOptions,
    source: Source,
}

impl Initial {
    /// The file `path`, whose pixels mean `pixels` where it does not say it itself.
    pub(super) fn open(path: &Path, pixels: Option<Pixels>) -> Result<Self> {
        let options = ImportOptions { pixels, ..ImportOptions::default() };
        let source = Source::open(path, &options)?;
        let notes = match &source {
            Source::Network(imported) => &imported.notes,
            Source::Weights(weights) => &weights.notes,
        };
        notes.iter().for_each(|note| say!("note: {note}"));
        Ok(Self { path: path.to_owned(), options, source })
    }

    /// Says in `draft` which network the weights are of and what its pixels mean, but what flags say.
    pub(super) fn describe(&self, draft: &mut Draft, arch_is_given: bool, input_is_given: bool) -> Result<()> {
        let of_zoo;
        let model = match &self.source {
            Source::Network(imported) => &imported.model,
            Source::Weights(_) if arch_is_given => {
                if !input_is_given {
                    say!("note: what a pixel means is not in the file; taken as the recipe's (--input)");
                }
                return Ok(());
            }
            Source::Weights(weights) => {
                of_zoo = weights.import(&self.path, &self.options)?;
                let is_new = |note: &&String| !weights.notes.contains(note);
                of_zoo.notes.iter().filter(is_new).for_each(|note| say!("note: {note}"));
                &of_zoo.model
            }
        };
        if !arch_is_given {
            draft.set_graph(&model.graph, FLAG);
        }
        if !input_is_given {
            draft.set_input(&model.input, FLAG);
        }
        Ok(())
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
        if let Some(note) = remove_other_head(&graph, &mut tensors) {
            say!("note: {note}");
        }
        Ok(tensors)
    }
}

/// The meaning of pixels that a recipe says; `None` where it is about wider codes.
pub(super) fn pixels_of(recipe: &Recipe) -> Option<Pixels> {
    let input = &recipe.input;
    (input.bits == 8).then(|| Pixels {
        mean: input.zero_point.iter().map(|&zero| f64::from(zero) / 255.0).collect(),
        std: input.scale.iter().map(|scale| 1.0 / (255.0 * scale)).collect(),
    })
}
