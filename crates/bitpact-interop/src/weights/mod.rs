//! Named tensors of PyTorch and safetensors files, and the networks of the zoo that they belong to.

mod arch;
mod dtype;
mod names;
mod pickle;
mod safetensors;
mod state_dict;
mod torch;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

use bitpact_graph::{BitSpec, Graph, QuantConfig, QuantPlan};
use bitpact_model::{Model, Tensor};

use crate::error::short;
use crate::{ImportOptions, Imported, InteropError, Kind};

/// Prefixes that wrappers of a network put before the names of its tensors.
const PREFIXES: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// Tensors with their names.
type Named = Vec<(String, Tensor)>;

/// Named tensors of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// Names without the prefixes of wrappers, and tensors, in the file's order.
    pub tensors: Vec<(String, Tensor)>,
    /// What was left aside, a sentence each.
    pub notes: Vec<String>,
}

impl Weights {
    /// The tensors of the PyTorch or safetensors file `bytes`, but those that only count batches or operations; `name`
    /// is what errors call the file.
    ///
    /// # Errors
    /// Bytes of another kind, damaged or hostile, or with more than tensors in containers of Python, with the place and
    /// the object's name; two tensors whose names differ in a prefix alone.
    pub fn from_bytes(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self, InteropError> {
        let name = name.as_ref();
        match Kind::of(bytes, name) {
            kind @ (Kind::TorchZip | Kind::TorchLegacy) => Self::of_torch(name, Cursor::new(bytes), kind),
            kind => Self::of(name, kind, bytes),
        }
    }

    /// The named tensors `tensors` of another program, as if they had been read from a file called `name`.
    ///
    /// # Errors
    /// Two tensors whose names differ in a prefix of a wrapper alone, and a name that no layer can have.
    pub fn from_tensors(tensors: Vec<(String, Tensor)>, name: impl AsRef<Path>) -> Result<Self, InteropError> {
        Self::named(name.as_ref(), tensors, Vec::new())
    }

    /// The tensors of the file `path`, which begins with `bytes` and is of the kind `kind`; `bytes` are all of a
    /// safetensors file.
    pub(crate) fn of(path: &Path, kind: Kind, bytes: &[u8]) -> Result<Self, InteropError> {
        match kind {
            Kind::TorchZip | Kind::TorchLegacy => {
                let file =
                    File::open(path).map_err(|error| InteropError::file(path, format!("cannot read: {error}")))?;
                Self::of_torch(path, file, kind)
            }
            Kind::Safetensors => Self::named(path, safetensors::read(bytes, path)?, Vec::new()),
            Kind::SafetensorsIndex => Self::named(path, safetensors::read_sharded(path)?, Vec::new()),
            Kind::Unreadable(what) => Err(InteropError::file(path, what)),
            Kind::Checkpoint | Kind::Onnx => Err(InteropError::file(path, "no file of named tensors alone")),
        }
    }

    fn of_torch(path: &Path, file: impl Read + Seek, kind: Kind) -> Result<Self, InteropError> {
        let (named, notes) = state_dict::read(file, kind).map_err(|what| InteropError::file(path, what))?;
        Self::named(path, named, notes)
    }

    /// Takes the prefixes off names.
    fn named(path: &Path, named: Named, notes: Vec<String>) -> Result<Self, InteropError> {
        let mut seen = HashSet::new();
        let mut tensors = Vec::with_capacity(named.len());
        for (name, tensor) in named.into_iter().filter(|(name, _)| !counts_something(name)) {
            let bare = PREFIXES.iter().cycle().take(3 * PREFIXES.len());
            let bare = bare.fold(&*name, |name, prefix| name.strip_prefix(prefix).unwrap_or(name)).to_owned();
            if bare.is_empty() || bare.contains(char::is_control) {
                return Err(InteropError::file(path, format!("tensor `{}`: a name that no layer has", short(&name))));
            }
            if !seen.insert(bare.clone()) {
                let what = format!("tensor `{}` stands twice, with and without a prefix", short(&bare));
                return Err(InteropError::file(path, what));
            }
            tensors.push((bare, tensor));
        }
        Ok(Self { tensors, notes })
    }

    /// The tensors by the names of `graph`, matched by name, or by order where the shapes of all layers agree; tensors
    /// that it does not have keep their names, and biases before a batch norm are subtracted from its running mean.
    pub fn named_for(self, graph: &Graph) -> BTreeMap<String, Tensor> {
        let fit = names::fit(graph, &self);
        let mut tensors = fit.tensors(graph, &self);
        let used: HashSet<usize> = fit.pairs.iter().chain(&fit.folded).map(|(_, at)| *at).collect();
        for (at, (name, tensor)) in self.tensors.into_iter().enumerate() {
            if !used.contains(&at) {
                tensors.entry(name).or_insert(tensor);
            }
        }
        tensors
    }

    /// The network of the zoo that the tensors belong to; `path` is what errors call their file.
    ///
    /// # Errors
    /// Tensors that fit no network or several, with all that does not fit, and options of another number of channels or
    /// classes.
    pub fn import(&self, path: &Path, options: &ImportOptions) -> Result<Imported, InteropError> {
        let found = arch::find(self, options.arch.as_deref(), options.input_shape)
            .map_err(|what| InteropError::file(path, what))?;
        let arch::Found { graph, fit, notes } = found;
        let mut notes = [self.notes.clone(), notes].concat();
        let plan = QuantPlan::resolve(&graph, &QuantConfig::new(BitSpec::Float))
            .map_err(|error| InteropError::file(path, error.to_string()))?;
        let input = options.describe_pixels(path, graph.input().c, &mut notes)?;
        let class_names = options.classes(path, graph.classes())?;
        let tensors = fit.tensors(&graph, self);
        let model = Model { graph, plan, input, class_names, tensors };
        model.check()?;
        Ok(Imported { model, notes })
    }
}

/// Removes the tensors of the last layer of `graph` from `tensors` where they are of another number of outputs; says so
/// in a sentence.
pub fn remove_other_head(graph: &Graph, tensors: &mut BTreeMap<String, Tensor>) -> Option<String> {
    let last = (0..graph.nodes().len()).rev().find(|&id| graph.node(id).op.is_product())?;
    let name = &graph.node(last).name;
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    let (theirs, own) = (tensors.get(&weight)?, graph.weight_shape(last)?);
    let outputs = theirs.shape.first().copied().unwrap_or(0);
    if graph.weight_order(last).is_some() || outputs == own[0] || theirs.shape.get(1..) != own.get(1..) {
        return None;
    }
    tensors.remove(&weight);
    tensors.remove(&bias);
    Some(format!("`{name}` has {outputs} outputs in the file and {} here: it starts anew", own[0]))
}

/// Whether a tensor counts the batches of a norm, or the operations of a layer.
fn counts_something(name: &str) -> bool {
    ["num_batches_tracked", "total_ops", "total_params"].contains(&name.rsplit('.').next().unwrap_or(name))
}
