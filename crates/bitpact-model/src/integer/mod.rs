//! The integer network: the value that is shipped, run, and promised to be exact.

mod check;
mod layer;
mod ranges;

pub(crate) use check::{Known, check_shape, output as layer_output};
pub(crate) use layer::reads_padding;
pub use layer::{
    IntegerEnd, IntegerLayer, IntegerOp, IntegerOutput, IntegerProduct, IntegerSum, IntegerTerm, IntegerView, TensorId,
    TensorKind,
};

use std::path::Path;

use bitpact_graph::Shape;

use crate::{InputDescription, ModelError, file};

/// A network of integers. Codes are unsigned, at most 255; sums of codes, residual streams and outputs are wider
/// ([`TensorKind`]).
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerModel {
    /// Name of the architecture.
    pub arch: String,
    /// What a pixel means; the zero point is also what padding of the image holds.
    pub input: InputDescription,
    /// Shape of the image.
    pub input_shape: Shape,
    /// Names of the classes, one for each logit.
    pub class_names: Vec<String>,
    /// The layers in the order of computation.
    pub layers: Vec<IntegerLayer>,
    /// The outputs, the main one first, which ends in [`IntegerEnd::Output`]; every layer of that end is one of them.
    pub outputs: Vec<IntegerOutput>,
}

impl IntegerModel {
    /// Shape of a tensor.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn shape(&self, tensor: TensorId) -> Shape {
        if tensor == 0 { self.input_shape } else { self.layers[tensor - 1].shape }
    }

    /// Smallest and largest code of a tensor.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn code_range(&self, tensor: TensorId) -> (i64, i64) {
        match tensor.checked_sub(1) {
            None => (0, self.input.largest_code().into()),
            Some(layer) => (self.layers[layer].lo.into(), self.layers[layer].hi.into()),
        }
    }

    /// Tells whether a tensor holds sums of codes, which may need more than 8 bits.
    pub fn is_sum(&self, tensor: TensorId) -> bool {
        self.kind(tensor) == TensorKind::Sums
    }

    /// Tells what kind of numbers a tensor holds.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn kind(&self, tensor: TensorId) -> TensorKind {
        let mut tensor = tensor;
        loop {
            let Some(layer) = tensor.checked_sub(1) else { return TensorKind::Image };
            let op = &self.layers[layer].op;
            let input = match op {
                IntegerOp::Concat { inputs } => inputs.first().copied(),
                IntegerOp::View(view) => Some(view.input),
                IntegerOp::MaxPool { input, .. } => Some(*input),
                _ => None,
            };
            match input.filter(|&input| input < tensor) {
                Some(input) => tensor = input,
                None => return op.kind(&[]),
            }
        }
    }

    /// Kind of every tensor, the input first.
    fn kinds(&self) -> Vec<TensorKind> {
        self.layers.iter().fold(vec![TensorKind::Image], |mut kinds, layer| {
            kinds.push(layer.op.kind(&kinds));
            kinds
        })
    }

    /// Shape and range of values of a layer with this op, if it came after those there are.
    ///
    /// # Errors
    /// Inputs that do not exist, or that the op cannot read.
    pub fn output_of(&self, op: &IntegerOp) -> Result<(Shape, (i64, i64)), String> {
        match op.inputs().into_iter().find(|&input| input > self.layers.len()) {
            Some(input) => Err(format!("reads tensor {input}, but only 0 to {} exist", self.layers.len())),
            None => check::output(Known { model: self, kinds: &self.kinds() }, op),
        }
    }

    /// Makes the last layer the only output.
    pub fn set_last_output(&mut self) {
        self.outputs = vec![IntegerOutput { tensor: self.layers.len(), zero: 0 }];
    }

    /// The tensor of the main output: that of the last layer where no output is named.
    pub fn main_output(&self) -> TensorId {
        self.outputs.first().map_or(self.layers.len(), |output| output.tensor)
    }

    /// Bytes of one example ([`InputDescription::example_bytes`]).
    pub fn example_bytes(&self) -> usize {
        self.input.example_bytes(self.input_shape)
    }

    /// Shape of the main output.
    pub fn output_shape(&self) -> Shape {
        self.shape(self.main_output())
    }

    /// Real value of one unit of the main output.
    pub fn output_scale(&self) -> f64 {
        self.main_output().checked_sub(1).map_or(1.0, |layer| self.layers[layer].scale)
    }

    /// Number of classes, or of the channels of the main output.
    pub fn classes(&self) -> usize {
        self.output_shape().c
    }

    /// Checks everything that makes the network computable and exact: sizes, order, shapes, codes on their grids, and
    /// that no sum can leave i64 for any image.
    ///
    /// # Errors
    /// Names the first layer at fault.
    pub fn check(&self) -> Result<(), ModelError> {
        check::check(self)
    }

    /// Writes the `.bitpact` file, atomically.
    ///
    /// # Errors
    /// An invalid network, or a file that cannot be written; then whatever stood at `path` still does.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        file::save(path.as_ref(), self.to_bytes())
    }

    /// Reads a `.bitpact` file.
    ///
    /// # Errors
    /// Names the file, the byte and the field at fault.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        Self::from_bytes(&file::read(path)?, path)
    }

    /// The bytes of the `.bitpact` file (docs/format.md): the same for equal networks, on every machine.
    ///
    /// # Errors
    /// If the network is not valid ([`IntegerModel::check`]).
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        self.check()?;
        Ok(crate::format::write(self))
    }

    /// Reads the bytes of a `.bitpact` file; `name` is what errors call it. Takes any bytes without panicking, and
    /// reserves no memory for a list before it has seen that the bytes can hold one.
    ///
    /// # Errors
    /// Names the byte and the field at fault.
    pub fn from_bytes(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self, ModelError> {
        let read = crate::format::read(bytes).and_then(|model| model.check().map(|()| model));
        read.map_err(|e| e.in_file(name))
    }
}
