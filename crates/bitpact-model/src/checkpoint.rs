//! The file of a trained network: safetensors with one metadata entry, a pure function of the value.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bitpact_graph::{Graph, QuantPlan};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::model::{check_tensors, check_texts};
use crate::{InputDescription, Model, ModelError, Tensor, file};

/// The one key of the safetensors metadata; its value is the [`Header`] as JSON.
const KEY: &str = "bitpact";
const VERSION: u64 = 1;
const KIND: &str = "bitpact checkpoint";
/// Prefixes of the optimizer's tensors.
pub(crate) const PREFIXES: [&str; 3] = [MOMENTUM, SECOND_MOMENT, RAW];
const MOMENTUM: &str = "optimizer.momentum.";
const SECOND_MOMENT: &str = "optimizer.second_moment.";
const RAW: &str = "optimizer.raw.";

/// What a training run needs, beyond the model, to go on as if it had never stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingState {
    /// The resolved recipe as TOML.
    pub recipe: String,
    /// Optimizer steps done.
    pub step: u64,
    /// The trainer's own small numbers.
    pub progress: serde_json::Value,
    /// The optimizer's momentum, of Adam the first moment, under the names of the tensors it belongs to; those that are
    /// not trained have none.
    pub momentum: BTreeMap<String, Tensor>,
    /// Adam's second moment; empty for other optimizers.
    pub second_moment: BTreeMap<String, Tensor>,
    /// Updates since the optimizer began, where it counts them; else 0.
    pub optimizer_steps: u64,
    /// The tensors that training goes on with, where the model has others, their moving averages; else empty.
    pub raw: BTreeMap<String, Tensor>,
}

impl TrainingState {
    /// The optimizer's tensors, each kind with its prefix in the file.
    fn kinds(&self) -> [(&'static str, &BTreeMap<String, Tensor>); 3] {
        [(MOMENTUM, &self.momentum), (SECOND_MOMENT, &self.second_moment), (RAW, &self.raw)]
    }
}

/// A model with its training state.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The network.
    pub model: Model,
    /// Where training stood; `None` in a file that is not meant to be resumed.
    pub training: Option<TrainingState>,
    /// Anything a reader of the file should know, such as how it was chosen.
    pub note: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u64,
    graph: Graph,
    plan: QuantPlan,
    input: InputDescription,
    class_names: Vec<String>,
    note: Option<String>,
    training: Option<TrainingHeader>,
    /// CRC-32 of this header with 0 in this field, then of every tensor in name order: name, shape as text, values.
    crc32: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainingHeader {
    recipe: String,
    step: u64,
    progress: serde_json::Value,
    #[serde(default, skip_serializing_if = "is_zero")]
    optimizer_steps: u64,
}

/// What is 0 is not written, so that the checksums of files from before there was a count still hold.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Checkpoint {
    /// Writes the file, atomically.
    ///
    /// # Errors
    /// An invalid model, or a file that cannot be written; then whatever stood at `path` still does.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        file::save(path.as_ref(), self.to_bytes())
    }

    /// Reads a file written by [`Checkpoint::save`].
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        Self::from_bytes(&file::read(path)?, path)
    }

    /// The bytes of the file: the same for equal values, on every machine.
    ///
    /// # Errors
    /// If the model is not valid ([`Model::check`]) or momentum does not belong to its tensors.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        self.check()?;
        let tensors = self.all_tensors();
        let mut header = self.header();
        header.crc32 = checksum(&header, &tensors)?;
        let metadata = HashMap::from([(KEY.to_owned(), json(&header)?)]);
        let data: Vec<(&String, Vec<u8>)> =
            tensors.iter().map(|(name, t)| (name, t.data.iter().flat_map(|v| v.to_le_bytes()).collect())).collect();
        let views = data
            .iter()
            .map(|(name, bytes)| {
                TensorView::new(Dtype::F32, tensors[*name].shape.clone(), bytes).map(|view| (name.as_str(), view))
            })
            .collect::<Result<Vec<_>, _>>();
        views
            .and_then(|views| safetensors::serialize(views, Some(metadata)))
            .map_err(|e| ModelError::Kind { kind: KIND, what: e.to_string() })
    }

    /// Reads the bytes of a file; `name` is what errors call it.
    ///
    /// # Errors
    /// Bytes that are not a checkpoint, of another version, damaged, or whose tensors do not fit their network.
    pub fn from_bytes(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self, ModelError> {
        Self::decode(bytes).map_err(|e| e.in_file(name))
    }

    /// Tells whether `bytes` are a safetensors file with the metadata of a checkpoint, damaged or not.
    pub fn is_one(bytes: &[u8]) -> bool {
        SafeTensors::read_metadata(bytes)
            .is_ok_and(|(_, metadata)| metadata.metadata().as_ref().is_some_and(|m| m.contains_key(KEY)))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ModelError> {
        let kind = |what: String| ModelError::Kind { kind: KIND, what };
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| kind(not_safetensors(bytes, &e)))?;
        let Some(text) = metadata.metadata().as_ref().and_then(|m| m.get(KEY)) else {
            return Err(kind(format!("a safetensors file without the metadata entry `{KEY}`")));
        };
        let version = serde_json::from_str::<VersionOnly>(text).map_err(|e| kind(format!("metadata: {e}")))?.version;
        if version != VERSION {
            return Err(ModelError::Version { kind: KIND, got: version, expected: format!("version {VERSION}") });
        }
        let mut header: Header = serde_json::from_str(text).map_err(|e| kind(format!("metadata: {e}")))?;
        let mut tensors = BTreeMap::new();
        let file = SafeTensors::deserialize(bytes).map_err(|e| kind(e.to_string()))?;
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(ModelError::tensor(name, format!("{:?}, expected F32", view.dtype())));
            }
            tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), data: floats(view.data()) });
        }
        let stored = std::mem::take(&mut header.crc32);
        let computed = checksum(&header, &tensors)?;
        if computed != stored {
            return Err(ModelError::Checksum { kind: KIND, stored, computed });
        }
        let own = tensors.keys().find(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        if let (None, Some(name)) = (&header.training, own) {
            return Err(ModelError::tensor(name, "is an optimizer's, but the file says nothing about training"));
        }
        let [momentum, second_moment, raw] = PREFIXES.map(|prefix| take_prefixed(&mut tensors, prefix));
        let Header { graph, plan, input, class_names, note, training, .. } = header;
        let training = training.map(|t| TrainingState {
            recipe: t.recipe,
            step: t.step,
            progress: t.progress,
            momentum,
            second_moment,
            optimizer_steps: t.optimizer_steps,
            raw,
        });
        let checkpoint = Self { model: Model { graph, plan, input, class_names, tensors }, training, note };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    fn check(&self) -> Result<(), ModelError> {
        self.model.check()?;
        check_texts("note", &self.note)?;
        let Some(training) = &self.training else { return Ok(()) };
        let shapes = Model::tensor_shapes(&self.model.graph, &self.model.plan);
        for (prefix, tensors) in training.kinds() {
            let mut shapes = shapes.clone();
            // What is not trained has no momentum; raw tensors are all there or none.
            if prefix != RAW || tensors.is_empty() {
                shapes.retain(|name, _| tensors.contains_key(name));
            }
            check_tensors(tensors, &shapes).map_err(|e| match e {
                ModelError::Tensor { name, what } => ModelError::Tensor { name: format!("{prefix}{name}"), what },
                other => other,
            })?;
        }
        Ok(())
    }

    fn header(&self) -> Header {
        let Model { graph, plan, input, class_names, .. } = self.model.clone();
        let training = self.training.as_ref().map(|t| TrainingHeader {
            recipe: t.recipe.clone(),
            step: t.step,
            progress: t.progress.clone(),
            optimizer_steps: t.optimizer_steps,
        });
        Header { version: VERSION, graph, plan, input, class_names, note: self.note.clone(), training, crc32: 0 }
    }

    /// The model's tensors and the optimizer's under their names in the file.
    fn all_tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = self.model.tensors.clone();
        if let Some(training) = &self.training {
            for (prefix, own) in training.kinds() {
                tensors.extend(own.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())));
            }
        }
        tensors
    }
}

impl Model {
    /// CRC-32 of everything in the model: equal for equal models, in whatever file they are.
    ///
    /// # Errors
    /// A model that cannot be written as JSON.
    pub fn checksum(&self) -> Result<u32, ModelError> {
        let bare = Model { tensors: BTreeMap::new(), ..self.clone() };
        checksum(&Checkpoint { model: bare, training: None, note: None }.header(), &self.tensors)
    }
}

/// Takes the tensors whose names begin with `prefix`, without it.
fn take_prefixed(tensors: &mut BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let rest = tensors.split_off(prefix);
    let (taken, others): (BTreeMap<_, _>, BTreeMap<_, _>) = rest.into_iter().partition(|(n, _)| n.starts_with(prefix));
    tensors.extend(others);
    taken.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect()
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

/// Why `bytes` are no safetensors file: what they are, where that is known, else what the reader says.
fn not_safetensors(bytes: &[u8], error: &safetensors::SafeTensorError) -> String {
    crate::kind::of(bytes).map_or_else(|| error.to_string(), str::to_owned)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn json(header: &Header) -> Result<String, ModelError> {
    serde_json::to_string(header).map_err(|e| ModelError::Kind { kind: KIND, what: format!("metadata: {e}") })
}

/// Over what the file means, not over its bytes; `header.crc32` is 0.
fn checksum(header: &Header, tensors: &BTreeMap<String, Tensor>) -> Result<u32, ModelError> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(json(header)?.as_bytes());
    for (name, tensor) in tensors {
        crc.update(format!("\n{name} {:?}\n", tensor.shape).as_bytes());
        let bytes: Vec<u8> = tensor.data.iter().flat_map(|v| v.to_le_bytes()).collect();
        crc.update(&bytes);
    }
    Ok(crc.finalize())
}
