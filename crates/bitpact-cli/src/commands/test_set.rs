//! A network and the test set it meets: the arguments that `eval` and `verify` share.

use std::path::PathBuf;

use anyhow::Result;
use bitpact::Dataset;
use bitpact::unstable::data::{DatasetName, Limits};
use bitpact::unstable::graph::Shape;

use crate::exit::Usage;
use crate::loaded::{Loaded, open};
use crate::machine::load_images;

#[derive(clap::Args)]
pub(crate) struct TestSetArgs {
    /// A .bitpact file, a checkpoint (.safetensors, converted on the fly) or the folder of a run
    model: PathBuf,
    /// Folder that holds the data set
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Data set; the one it was trained on where that is known
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Only the first N test images
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit_test: Option<u64>,
}

impl TestSetArgs {
    pub(crate) fn network(&self) -> Result<Loaded> {
        open(&self.model)
    }

    /// The network as it was named.
    pub(crate) fn model(&self) -> &std::path::Path {
        &self.model
    }

    /// Reads at most `n` images where the user asked for no number.
    pub(crate) fn usually(mut self, n: u64) -> Self {
        self.limit_test.get_or_insert(n);
        self
    }

    /// The test images for `loaded`, with the name of their set.
    pub(crate) fn images(&self, loaded: &Loaded) -> Result<(DatasetName, Box<dyn Dataset>)> {
        let name = self.name(loaded)?;
        let limit = self.limit_test.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let split = load_images(name, self.data.as_ref(), Limits { train: Some(1), test: limit })?;
        Ok((name, split.test))
    }

    /// The flag's set, the recipe's, or the one with the same class names.
    fn name(&self, loaded: &Loaded) -> Result<DatasetName> {
        if let Some(name) = &self.dataset {
            return name
                .parse()
                .map_err(|error: bitpact::unstable::data::DataError| Usage(format!("--dataset: {error}")).into());
        }
        if let Some(name) = loaded.recipe.as_ref().and_then(|recipe| recipe.dataset.parse().ok()) {
            return Ok(name);
        }
        let shape = loaded.input_shape();
        let fits = |name: &DatasetName| {
            let info = name.info();
            let image = info.image_shape;
            loaded.class_names() == info.class_names && shape == Shape::new(image.h, image.w, image.c)
        };
        let known: Vec<DatasetName> = DatasetName::ALL.into_iter().filter(fits).collect();
        if let [name] = known[..] {
            return Ok(name);
        }
        let possible = if known.is_empty() { DatasetName::ALL.to_vec() } else { known };
        let names = possible.into_iter().map(DatasetName::as_str).collect::<Vec<_>>().join(", ");
        Err(Usage(format!("--dataset is needed: the file does not tell which of {names} to evaluate on")).into())
    }
}
