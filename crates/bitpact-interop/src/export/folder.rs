//! `npy`: the network as NumPy arrays of its weights, and everything else in one JSON file.

use std::collections::BTreeSet;
use std::path::Path;

use bitpact_graph::Window;
use bitpact_model::{
    IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm, IntegerView,
    ModelError, write_atomically,
};
use serde_json::{Value, json};

use super::meaning::{self, Meaning};
use super::npy::{self, Dtype};
use super::{ExportError, describe};

/// The file of everything but arrays, written last.
const CONTENTS: &str = "model.json";

/// Writes the folder.
pub(super) fn write(model: &IntegerModel, folder: &Path) -> Result<(), ExportError> {
    std::fs::create_dir_all(folder).map_err(|source| ModelError::Write { path: folder.to_owned(), source })?;
    let mut files = Files { folder, taken: BTreeSet::new() };
    let meanings = meaning::of(model);
    let mut layers = Vec::new();
    for (i, layer) in model.layers.iter().enumerate() {
        let mut object = describe(model, i, layer);
        object["tensor"] = json!(i + 1);
        object["shape"] = json!([layer.shape.h, layer.shape.w, layer.shape.c]);
        object["lo"] = json!(layer.lo);
        object["hi"] = json!(layer.hi);
        object["zero"] = json!(meanings[i + 1].zero);
        object["op"] = files.op(model, &meanings, i, layer)?;
        layers.push(object);
    }
    let outputs: Vec<Value> =
        model.outputs.iter().map(|output| json!({ "tensor": output.tensor, "zero": output.zero })).collect();
    let shape = model.input_shape;
    let contents = json!({
        "format": "bitpact npy 1",
        "arch": model.arch,
        "input": {
            "shape": [shape.h, shape.w, shape.c],
            "bits": model.input.bits,
            "zero_point": model.input.zero_point,
            "scale": model.input.scale,
        },
        "class_names": model.class_names,
        "layers": layers,
        "outputs": outputs,
    });
    Ok(write_atomically(folder.join(CONTENTS), format!("{contents:#}\n").as_bytes())?)
}

/// The arrays of a folder.
struct Files<'a> {
    folder: &'a Path,
    taken: BTreeSet<String>,
}

impl Files<'_> {
    /// Writes an array and returns the name of its file, which begins with `base`.
    fn array(&mut self, base: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<String, ModelError> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let stem: String = base.chars().map(plain).collect();
        let stem = format!("{}{}", if stem.starts_with(['.', '-']) { "_" } else { "" }, stem);
        // Names of any length, in any case, on any file system.
        let stem: String = stem.chars().take(150).collect();
        let mut name = format!("{stem}.npy");
        let mut n = 1;
        while !self.taken.insert(name.to_lowercase()) {
            n += 1;
            name = format!("{stem}-{n}.npy");
        }
        write_atomically(self.folder.join(&name), &npy::file(dtype, shape, bytes))?;
        Ok(name)
    }

    fn op(
        &mut self,
        model: &IntegerModel,
        meanings: &[Meaning],
        i: usize,
        layer: &IntegerLayer,
    ) -> Result<Value, ModelError> {
        Ok(match &layer.op {
            IntegerOp::Sum(sum) => self.sum(model, meanings, i, sum)?,
            IntegerOp::MaxPool { input, window } => {
                json!({ "kind": "max_pool", "tensor": input, "window": of_window(window) })
            }
            IntegerOp::WindowSum { input, window, padding_code, factors } => json!({
                "kind": "window_sum",
                "tensor": input,
                "window": of_window(window),
                "padding_code": padding_code,
                "factors": factors,
            }),
            IntegerOp::Concat { inputs } => json!({ "kind": "concat", "tensors": inputs }),
            IntegerOp::View(view) => json!({ "kind": "view", "view": of_view(view) }),
        })
    }

    fn sum(
        &mut self,
        model: &IntegerModel,
        meanings: &[Meaning],
        i: usize,
        sum: &IntegerSum,
    ) -> Result<Value, ModelError> {
        let gains = meaning::affine(model, meanings, i, sum).gains;
        let mut terms = Vec::new();
        for ((term, mul), gains) in sum.terms.iter().zip(&sum.requant.mul).zip(gains) {
            let mut object = match term {
                IntegerTerm::Product(product) => self.product(product, &gains, meanings)?,
                IntegerTerm::View(view) => json!({ "kind": "view", "view": of_view(view) }),
                IntegerTerm::Multiplication { a, b, zeros } => {
                    json!({ "kind": "multiplication", "a": of_view(a), "b": of_view(b), "zeros": zeros })
                }
            };
            object["multiplier"] = json!(mul);
            terms.push(object);
        }
        let added: Vec<Value> =
            sum.base.iter().map(|(view, mul)| json!({ "view": of_view(view), "multiplier": mul })).collect();
        let requant = &sum.requant;
        let range = json!({ "lo": requant.lo, "hi": requant.hi, "by_channel": requant.bounds });
        let end = match &sum.end {
            IntegerEnd::Codes => json!({ "kind": "codes", "range": range }),
            IntegerEnd::Table(tables) => json!({ "kind": "table", "range": range, "tables": tables }),
            IntegerEnd::Wide => json!({ "kind": "wide" }),
            IntegerEnd::Output => json!({ "kind": "output" }),
        };
        Ok(json!({
            "kind": "sum",
            "terms": terms,
            "constant": requant.add,
            "shift": requant.shift,
            "added": added,
            "end": end,
        }))
    }

    fn product(&mut self, product: &IntegerProduct, gains: &[f64], meanings: &[Meaning]) -> Result<Value, ModelError> {
        let [rows, columns] = product.window.kernel;
        let shape = [product.out_channels, product.group_inputs(), rows, columns];
        let named = |what: &str| format!("{}.{what}", product.name);
        let is_narrow = product.codes.iter().all(|&q| i8::try_from(q).is_ok());
        let weight = match is_narrow {
            true => {
                let bytes: Vec<u8> = product.codes.iter().map(|&q| q as u8).collect();
                self.array(&named("weight"), Dtype::I8, &shape, &bytes)?
            }
            false => {
                let bytes: Vec<u8> = product.codes.iter().flat_map(|q| q.to_le_bytes()).collect();
                self.array(&named("weight"), Dtype::I16, &shape, &bytes)?
            }
        };
        let step = meanings[product.input].scale;
        let scales: Vec<u8> = gains.iter().flat_map(|gain| ((gain / step) as f32).to_le_bytes()).collect();
        let scale = self.array(&named("scale"), Dtype::F32, &[gains.len()], &scales)?;
        Ok(json!({
            "kind": "product",
            "name": product.name,
            "tensor": product.input,
            "window": of_window(&product.window),
            "padding_code": product.padding_code,
            "groups": product.groups,
            "weight_bits": product.weight_bits,
            "grid": product.grid.name(),
            "weight": weight,
            "scale": scale,
        }))
    }
}

fn of_window(window: &Window) -> Value {
    let padding = window.padding;
    json!({
        "kernel": window.kernel,
        "stride": window.stride,
        "padding": [padding.top, padding.left, padding.bottom, padding.right],
        "dilation": window.dilation,
        "spread": window.spread,
    })
}

fn of_view(view: &IntegerView) -> Value {
    json!({ "tensor": view.input, "moves": view.moves, "fill": view.fill })
}
