//! A folder with which other programs are held against the engine: images, the engine's numbers, and a script.

use std::path::{Path, PathBuf};

use bitpact_core::rng::Key;
use bitpact_graph::Shape;
use bitpact_model::{InputDescription, IntegerModel, ModelError, TensorKind, write_atomically};
use serde_json::{Value, json};

use super::npy::{self, Dtype};
use super::{ExportError, Format, meanings};

/// The script that compares.
const SCRIPT: &str = include_str!("check.py");
const SCRIPT_NAME: &str = "check.py";

/// Images and the engine's numbers for them.
#[derive(Debug, Clone, Default)]
pub struct CheckData {
    /// The bytes of the images, `[image][row][column][channel]`.
    pub pixels: Vec<u8>,
    /// Every output of the network for all images, `[image][row][column][channel]`.
    pub outputs: Vec<Vec<i64>>,
    /// Every layer for the first of the images, `[image][row][column][channel]`.
    pub layers: Vec<Vec<i64>>,
}

impl CheckData {
    /// Writes the folder and returns the script in it. `python SCRIPT MODEL.onnx` runs a file of format `format` and
    /// compares.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn write(&self, folder: &Path, model: &IntegerModel, format: Format) -> Result<PathBuf, ExportError> {
        std::fs::create_dir_all(folder).map_err(|source| ModelError::Write { path: folder.to_owned(), source })?;
        let write = |name: &str, bytes: &[u8]| write_atomically(folder.join(name), bytes);
        let codes: Vec<u16> = model.input.codes(&self.pixels).collect();
        let (sizes, codes) = image_first(&codes, model.input_shape);
        let bytes = codes
            .iter()
            .flat_map(|code| code.to_le_bytes().into_iter().take(model.input.code_bytes()))
            .collect::<Vec<u8>>();
        let dtype = if model.input.bits == 8 { Dtype::U8 } else { Dtype::U16 };
        write("input.npy", &npy::file(dtype, &sizes, &bytes))?;
        let meanings = meanings(model, format);
        let mut layers: Vec<Value> = Vec::new();
        for (i, (layer, values)) in model.layers.iter().zip(&self.layers).enumerate() {
            let name = format!("layer{i}.npy");
            write(&name, &array(values, layer.shape, model.kind(i + 1)))?;
            let (scale, zero) = meanings[i + 1];
            layers.push(json!({ "name": layer.name, "file": name, "scale": scale, "zero": zero }));
        }
        let mut outputs: Vec<Value> = Vec::new();
        for (i, (output, values)) in model.outputs.iter().zip(&self.outputs).enumerate() {
            let layer = &model.layers[output.tensor - 1];
            let name = format!("output{i}.npy");
            write(&name, &array(values, layer.shape, model.kind(output.tensor)))?;
            let (scale, zero) = meanings[output.tensor];
            let kind = if layer.op.is_output() { "logits" } else { "codes" };
            layers.iter_mut().filter(|other| other["name"] == json!(layer.name)).for_each(|o| o["kind"] = json!(kind));
            outputs.push(json!({ "name": layer.name, "file": name, "scale": scale, "zero": zero, "kind": kind }));
        }
        let contents = json!({ "format": format.name(), "input": "input.npy", "outputs": outputs, "layers": layers });
        write("check.json", format!("{contents:#}\n").as_bytes())?;
        write(SCRIPT_NAME, SCRIPT.as_bytes())?;
        Ok(folder.join(SCRIPT_NAME))
    }
}

/// The bytes of so many images of noise in `shape`, `[image][row][column][channel]`, always the same, for a network
/// that reads codes of `input` and of whose own images there are none.
pub fn noise(input: &InputDescription, shape: Shape, images: usize) -> Vec<u8> {
    let key = Key::new(1).with("export");
    (0..(images * input.example_bytes(shape)) as u64).map(|i| key.u64(i) as u8).collect()
}

/// Sizes and elements with the channels before rows and columns.
fn image_first<T: Copy>(values: &[T], shape: Shape) -> (Vec<usize>, Vec<T>) {
    let Shape { h, w, c } = shape;
    let images = values.chunks_exact(shape.elements());
    let sizes = vec![images.len(), c, h, w];
    let of_image = |image: &[T]| (0..c).flat_map(|c| image[c..].iter().step_by(shape.c).copied()).collect::<Vec<T>>();
    (sizes, images.flat_map(of_image).collect())
}

/// The file of a tensor: codes as uint8, others as int64.
fn array(values: &[i64], shape: Shape, kind: TensorKind) -> Vec<u8> {
    let (sizes, values) = image_first(values, shape);
    match kind {
        TensorKind::Image | TensorKind::Codes => {
            let bytes: Vec<u8> = values.iter().map(|&q| q as u8).collect();
            npy::file(Dtype::U8, &sizes, &bytes)
        }
        _ => {
            let bytes: Vec<u8> = values.iter().flat_map(|q| q.to_le_bytes()).collect();
            npy::file(Dtype::I64, &sizes, &bytes)
        }
    }
}
