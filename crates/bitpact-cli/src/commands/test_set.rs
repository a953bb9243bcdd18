//! A network and the images it meets: the arguments that `eval`, `verify`, `ptq` and `export` share.

use std::path::PathBuf;

use anyhow::Result;
use bitpact::unstable::data::own::{Options, Task};
use bitpact::unstable::data::{DatasetName, Limits, Split};
use bitpact::unstable::graph::Shape;
use bitpact::unstable::interop::export::noise;
use bitpact::{Dataset, Recipe};

use crate::exit::Usage;
use crate::loaded::{Loaded, open};
use crate::machine::load_images;
use crate::out::say;
use crate::own;

#[derive(clap::Args, Clone)]
pub(crate) struct TestSetArgs {
    /// A .bitpact file, a checkpoint (.safetensors, converted on the fly) or the folder of a run
    model: PathBuf,
    /// Folder that holds the data set; of --dataset folder also a CSV or .npz file
    #[arg(long, value_name = "DIR|FILE")]
    data: Option<PathBuf>,
    /// Refuse data of your own (--dataset folder) with a file that cannot be used, instead of leaving it out
    #[arg(long)]
    strict: bool,
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
        let options = self.options(loaded);
        if let (DatasetName::Folder, Some(path)) = (name, &self.data) {
            return Ok((name, own::load_test(path, limit, &options)?.0));
        }
        let (split, _) = load_images(name, self.data.as_ref(), Limits { train: Some(1), test: limit }, &options)?;
        Ok((name, split.test))
    }

    /// How one's own data are read for `loaded`: as in its training, as images that it reads.
    fn options(&self, loaded: &Loaded) -> Options {
        let own = loaded.recipe.as_ref().filter(|recipe| recipe.dataset == DatasetName::Folder.as_str());
        let (shape, classes) = (loaded.input_shape(), loaded.class_names().to_vec());
        Options {
            crop: Some([shape.h, shape.w]),
            channels: Some(shape.c),
            random_crop: None,
            names: if own.is_some_and(|recipe| recipe.task == Some(Task::Segment)) { classes } else { Vec::new() },
            strict: self.strict,
            fold: loaded.recipe.as_ref().and_then(|recipe| recipe.fold).unwrap_or(0),
            ..own.map(Recipe::own_options).unwrap_or_default()
        }
    }

    /// The folder that was named.
    pub(crate) fn data(&self) -> Option<&PathBuf> {
        self.data.as_ref()
    }

    /// All training images and the test images for `loaded`, with the name of their set.
    pub(crate) fn split(&self, loaded: &Loaded) -> Result<(DatasetName, Split)> {
        let name = self.name(loaded)?;
        let test = self.limit_test.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let (split, _) = load_images(name, self.data.as_ref(), Limits { train: None, test }, &self.options(loaded))?;
        Ok((name, split))
    }

    /// The images, `usually` so many, one after the other; noise where nothing tells which set they are of, or where
    /// its files lie.
    pub(crate) fn pixels_or_noise(&self, loaded: &Loaded, usually: u64) -> Result<Vec<u8>> {
        let images = self.limit_test.unwrap_or(usually);
        let is_told = self.dataset.is_some() || self.data.is_some();
        if !is_told && !self.name(loaded).is_ok_and(DatasetName::is_drawn) {
            say!("the images are noise: --data DIR gives those of the network's data set");
            return Ok(noise(loaded.input(), loaded.input_shape(), images.min(usually) as usize));
        }
        let limited = Self { limit_test: Some(images), ..self.clone() };
        let (_, test) = limited.images(loaded)?;
        let shape = test.bytes_shape();
        let mut pixels = vec![0; test.len() * shape.len()];
        pixels.chunks_exact_mut(shape.len()).enumerate().for_each(|(i, image)| test.image(i, image));
        Ok(pixels)
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
        let names = format!("{names} or folder");
        Err(Usage(format!("--dataset is needed: the file does not tell which of {names} to evaluate on")).into())
    }
}
