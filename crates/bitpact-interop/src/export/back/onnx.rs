//! ONNX files.

use std::collections::HashMap;
use std::path::Path;

use super::super::metadata::{FORMAT, NETWORK, PREFIX, ROUNDED};
use super::super::network::{Network, Product};
use super::super::{ExportOptions, Format, onnx};
use super::{Exported, Fault, codes_of_reals, network, parent};
use crate::error::short;
use crate::onnx::proto::{self, Graph, Model, Node, Tensor};
use crate::onnx::tensor::{self, Data, kind};

/// The network of a file; `None` where it does not say that it is one.
pub(super) fn read(path: &Path) -> Result<Option<Exported>, Fault> {
    // What is no ONNX file is told by who reads it as one.
    let Ok(bytes) = crate::onnx::read(path) else { return Ok(None) };
    let Ok(file) = proto::decode(bytes.into()) else { return Ok(None) };
    let Some(description) = entry(&file, NETWORK) else { return Ok(None) };
    let name = entry(&file, FORMAT).unwrap_or_default();
    let format = Format::ALL.into_iter().find(|format| format.is_onnx() && format.name() == name);
    let format = format.ok_or_else(|| format!("its `{FORMAT}` is {:?}, expected a format of ONNX", short(name)))?;
    let options = ExportOptions { rounded_biases: entry(&file, ROUNDED).is_some() };
    let graph = file.graph.as_ref().ok_or_else(|| "has no graph".to_owned())?;
    let folder = parent(path);
    let constants = Constants { by_name: by_name(graph), folder: &folder };
    let description = Network::parse(description).map_err(|what| format!("`{NETWORK}`: {what}"))?;
    let model = network(description, |product, sizes| match format {
        Format::OnnxInteger => constants.digits(product, sizes),
        Format::Qonnx => constants.reals(product, sizes),
        _ => constants.codes(product),
    })?;
    let again = onnx(&model, format, options).map_err(|error| Fault::Wrong(error.to_string()))?;
    match difference(&again, &file, graph, &constants) {
        None => Ok(Some(Exported { model, format })),
        Some(place) => {
            let version =
                file.producer_version.clone().filter(|version| again.producer_version.as_ref() != Some(version));
            Err(Fault::Changed { place, version: version.map(|version| short(&version)) })
        }
    }
}

/// The value of a metadata entry.
fn entry<'a>(file: &'a Model, key: &str) -> Option<&'a str> {
    let found = file.metadata_props.iter().find(|entry| entry.key.as_deref() == Some(key));
    found.map(|entry| entry.value.as_deref().unwrap_or_default())
}

fn by_name(graph: &Graph) -> HashMap<&str, &Tensor> {
    graph.initializer.iter().map(|tensor| (tensor.name.as_deref().unwrap_or_default(), tensor)).collect()
}

/// The constant tensors of a graph.
struct Constants<'a> {
    by_name: HashMap<&'a str, &'a Tensor>,
    /// Where tensors outside the file may be.
    folder: &'a Path,
}

impl Constants<'_> {
    fn array(&self, name: &str) -> Result<tensor::Array, String> {
        let tensor = self.by_name.get(name).ok_or_else(|| format!("no tensor is called `{}`", short(name)))?;
        tensor::read(tensor, self.folder).map_err(|what| format!("tensor `{}`: {what}", short(name)))
    }

    fn one(&self, product: &Product) -> Result<tensor::Array, String> {
        match product.weight.all() {
            [name] => self.array(name),
            names => Err(format!("{} tensors of weights, expected one", names.len())),
        }
    }

    /// Codes of `onnx-qcdq` and `onnx-qdq`: whole or halved, and turned where the multiplier is below 0.
    fn codes(&self, product: &Product) -> Result<Vec<i16>, String> {
        let stored = self.one(product)?;
        let values = stored.to_ints()?;
        let code = |&value: &i64| {
            let code = if product.halved { value.checked_mul(2)?.checked_add(1)? } else { value };
            i16::try_from(code).ok()
        };
        let codes: Option<Vec<i16>> = values.iter().map(code).collect();
        turned(codes.ok_or("weights beyond 16 bits")?, &product.multiplier)
    }

    /// Codes of `qonnx`, from real weights.
    fn reals(&self, product: &Product, sizes: [usize; 4]) -> Result<Vec<i16>, String> {
        let stored = self.one(product)?;
        let scale = self.array(product.scale.as_deref().ok_or("weights without a scale")?)?;
        turned(codes_of_reals(&stored.to_floats(), &scale.to_floats(), sizes[0])?, &product.multiplier)
    }

    /// Codes of `onnx-integer`: digits of base 256, the lowest first, each in parts.
    fn digits(&self, product: &Product, sizes: [usize; 4]) -> Result<Vec<i16>, String> {
        let [outputs, inputs, rows, columns] = sizes;
        let count = sizes.iter().product::<usize>();
        let parts = product.weight.all().iter().map(|name| self.array(name)).collect::<Result<Vec<_>, _>>()?;
        let stored = parts.iter().map(tensor::Array::len).sum::<usize>();
        if count == 0 || ![Some(stored), stored.checked_div(2)].contains(&Some(count)) {
            return Err(format!("{stored} weights in parts, expected one or two digits of the sizes {sizes:?}"));
        }
        let mut codes = vec![0i64; count];
        let (mut digit, mut first_input, mut first_row) = (0, 0, 0);
        for part in &parts {
            let [_, part_inputs, part_rows, _] = part.dims[..] else { return Err("a part without four sizes".into()) };
            let fits = part.dims == [outputs, part_inputs, part_rows, columns]
                && first_input + part_inputs <= inputs
                && first_row + part_rows <= rows
                && digit < 2
                && [kind::INT8, kind::UINT8].contains(&part.kind);
            if !fits {
                return Err(format!("a part of weights of the sizes {:?} in {sizes:?}", part.dims));
            }
            let zero = if part.kind == kind::UINT8 { 128 } else { 0 };
            let values = part.to_ints()?.chunks_exact((part_rows * columns).max(1)).enumerate();
            for (plane, values) in values {
                let (o, i) = (plane / part_inputs, first_input + plane % part_inputs);
                let at = ((o * inputs + i) * rows + first_row) * columns;
                codes[at..][..values.len()]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(code, value)| *code += (value - zero) << (8 * digit));
            }
            first_row += part_rows;
            if first_row == rows {
                (first_row, first_input) = (0, first_input + part_inputs);
            }
            if first_input == inputs {
                (first_input, digit) = (0, digit + 1);
            }
        }
        let codes: Result<Vec<i16>, _> = codes.into_iter().map(i16::try_from).collect();
        codes.map_err(|_| "weights beyond 16 bits".to_owned())
    }

    /// Whether two tensors hold the same numbers, however they are encoded.
    fn same(&self, ours: &Tensor, theirs: &Tensor) -> bool {
        let read = |tensor| tensor::read(tensor, self.folder).ok();
        let numbers = |array: tensor::Array| match array.data {
            Data::Int(values) => (array.dims, array.kind, values),
            Data::Float(values) => {
                (array.dims, array.kind, values.into_iter().map(|v| i64::from(v.to_bits())).collect())
            }
        };
        ours == theirs || read(ours).map(numbers) == read(theirs).map(numbers)
    }
}

/// Codes whose channels are turned back where the multiplier is below 0.
fn turned(mut codes: Vec<i16>, multiplier: &[i32]) -> Result<Vec<i16>, String> {
    let length = codes.len() / multiplier.len().max(1);
    if length == 0 || !codes.len().is_multiple_of(length) {
        return Err(format!("{} weights for {} channels", codes.len(), multiplier.len()));
    }
    for (channel, &mul) in codes.chunks_exact_mut(length).zip(multiplier) {
        if mul < 0 {
            channel.iter_mut().for_each(|code| *code = code.saturating_neg());
        }
    }
    Ok(codes)
}

/// The first place where a file is not what the network in it is written as, and how.
fn difference(ours: &Model, file: &Model, graph: &Graph, constants: &Constants) -> Option<String> {
    let expected = ours.graph.as_ref()?;
    let sets = |model: &Model| {
        let mut sets: Vec<(String, i64)> = model
            .opset_import
            .iter()
            .map(|set| (set.domain.clone().unwrap_or_default(), set.version.unwrap_or_default()))
            .collect();
        sets.sort();
        sets
    };
    if sets(ours) != sets(file) {
        return Some("the operator sets are others".to_owned());
    }
    let values = [("input", &expected.input, &graph.input), ("output", &expected.output, &graph.output)];
    for (what, ours, theirs) in values {
        if ours != theirs {
            let name = ours
                .iter()
                .zip(theirs)
                .find(|(ours, theirs)| ours != theirs)
                .and_then(|(ours, _)| ours.name.as_deref());
            return Some(
                name.map_or_else(
                    || format!("other {what}s"),
                    |name| format!("the {what} `{}` is another", short(name)),
                ),
            );
        }
    }
    if let Some((ours, theirs)) = expected.node.iter().zip(&graph.node).find(|(ours, theirs)| ours != theirs) {
        let name = |node: &Node| node.name.as_deref().map(short).unwrap_or_default();
        return Some(format!("the node `{}` stands where `{}` was", name(theirs), name(ours)));
    }
    if expected.node.len() != graph.node.len() {
        return Some(format!("{} nodes instead of {}", graph.node.len(), expected.node.len()));
    }
    let name = |tensor: &Tensor| tensor.name.clone().unwrap_or_default();
    let is_other = |ours: &&Tensor| {
        let theirs = constants.by_name.get(ours.name.as_deref().unwrap_or_default());
        !theirs.is_some_and(|theirs| constants.same(ours, theirs))
    };
    if let Some(tensor) = expected.initializer.iter().find(is_other) {
        return Some(format!("the tensor `{}` is another", short(&name(tensor))));
    }
    if expected.initializer.len() != graph.initializer.len() {
        return Some(format!("{} tensors instead of {}", graph.initializer.len(), expected.initializer.len()));
    }
    let entries = |model: &Model| -> Vec<(String, String)> {
        let mut entries: Vec<(String, String)> = model
            .metadata_props
            .iter()
            .map(|entry| (entry.key.clone().unwrap_or_default(), entry.value.clone().unwrap_or_default()))
            .filter(|(key, _)| key.starts_with(PREFIX))
            .collect();
        entries.sort();
        entries
    };
    let (ours, theirs) = (entries(ours), entries(file));
    let other = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs).map(|(ours, _)| ours.0.clone());
    match other {
        Some(key) => Some(format!("the metadata `{key}` say something else")),
        None if ours.len() != theirs.len() => Some("entries of the metadata are missing or new".to_owned()),
        None => None,
    }
}
