//! What is still to be done to a tensor, as nodes.

use bitpact_core::Function;
use bitpact_graph::{NodeId, Op, Padding};

use super::importer::Importer;
use super::input::described;
use super::layout::Layout;
use super::value::{Affine, Form, Lazy, Tensor};

/// Whether a clip to 0 to `high` of what `before` gives is a multiple of a hard sigmoid of its input.
fn is_hard_sigmoid(before: &Affine, high: f64) -> bool {
    before.then(&Affine::of(6.0 / high, -3.0)).is_identity()
}

impl Importer<'_> {
    /// Adds nodes until nothing is left to be done to a tensor.
    pub(super) fn solid(&mut self, tensor: &Tensor) -> Result<Tensor, String> {
        let node = self.formed(tensor)?;
        let node = if tensor.pad.is_none() { node } else { self.padded(node, tensor.pad)? };
        let layout = match tensor.pad.is_none() {
            true => tensor.layout.clone(),
            false => Layout::usual(tensor.layout.dims.len(), self.batch, self.builder.shape(node)),
        };
        Ok(Tensor { ended: tensor.ended.clone(), ..Tensor::new(node, layout) })
    }

    /// As [`Self::solid`], for a layer with weights: it reads the image itself, and pads on its own.
    pub(super) fn for_product(&mut self, tensor: &Tensor) -> Result<Tensor, String> {
        if let (0, Form::Affine(affine)) = (tensor.node, &tensor.form)
            && self.means(affine)
        {
            return Ok(Tensor { form: Form::Affine(Affine::identity()), ..tensor.clone() });
        }
        let node = self.formed(tensor)?;
        Ok(Tensor { pad: tensor.pad, ..Tensor::new(node, tensor.layout.clone()) })
    }

    /// Whether the meaning of pixels can do what is to be done to the image.
    fn means(&mut self, affine: &Affine) -> bool {
        match &self.image {
            Some(image) => affine.is_close(image),
            None if affine.is_identity() || described(&self.pixels, affine).is_ok() => {
                self.image = Some(affine.clone());
                true
            }
            None => false,
        }
    }

    fn padded(&mut self, node: NodeId, Padding { top, left, bottom, right }: Padding) -> Result<NodeId, String> {
        let insert = bitpact_graph::Move::Insert { top, left, bottom, right, before: 0, after: 0 };
        self.builder.push("pad", Op::View(insert), &[node])
    }

    /// The node that does what is to be done to the output of a tensor's node.
    fn formed(&mut self, tensor: &Tensor) -> Result<NodeId, String> {
        let (node, form) = (tensor.node, &tensor.form);
        if let Some(&(_, _, done)) = self.done.iter().find(|(of, what, _)| *of == node && what == form) {
            return Ok(done);
        }
        let done = match form {
            Form::Affine(affine) => self.affine(node, affine, "affine")?,
            Form::Function { kind, before, after, name } => {
                let (function, rest) = self.function(node, *kind, before, name)?;
                let all = rest.then(after);
                self.affine(function, &all, &format!("{name}.affine"))?
            }
        };
        self.done.push((node, form.clone(), done));
        Ok(done)
    }

    /// The node that multiplies and adds.
    fn affine(&mut self, node: NodeId, affine: &Affine, name: &str) -> Result<NodeId, String> {
        if node == 0 {
            // Only layers with weights read the image.
            let image = self.image.get_or_insert_with(Affine::identity).clone();
            let relative = affine.relative_to(&image).ok_or("multiplies the image by 0")?;
            return self.builder.pixelwise("image_layer", 0, &relative);
        }
        if affine.is_identity() {
            return Ok(node);
        }
        let name = format!("{}.{name}", self.builder.nodes[node].name);
        self.builder.affine(&name, node, affine)
    }

    /// The node that computes a function, and what is still to be done to it.
    fn function(&mut self, node: NodeId, kind: Lazy, before: &Affine, name: &str) -> Result<(NodeId, Affine), String> {
        let identity = Affine::identity();
        let (low, high) = match kind {
            Lazy::Erf => return Err("Erf other than in Gelu".to_owned()),
            Lazy::Sigmoid => {
                let input = self.affine(node, before, "scaled")?;
                return Ok((self.builder.function(name, Function::Sigmoid, input)?, identity));
            }
            Lazy::Clip { low, high } => (low, high),
        };
        let act = |importer: &mut Self, input: &Affine| {
            let input = importer.affine(node, input, "scaled")?;
            importer.builder.push(name, Op::Act { signed: false }, &[input])
        };
        match (low.is_finite(), high.is_finite()) {
            (false, false) => Ok((self.affine(node, before, "scaled")?, identity)),
            // low + relu(x - low)
            (true, false) => Ok((act(self, &before.then(&Affine::of(1.0, -low)))?, Affine::of(1.0, low))),
            // high - relu(high - x)
            (false, true) => Ok((act(self, &before.then(&Affine::of(-1.0, high)))?, Affine::of(-1.0, high))),
            // low + (high - low) hard_sigmoid(6 (x - low) / (high - low) - 3)
            (true, true) if low == 0.0 && !is_hard_sigmoid(before, high) => {
                let input = act(self, before)?;
                let name = format!("{name}.limit");
                Ok((self.builder.function(&name, Function::ClippedRelu { limit: high }, input)?, identity))
            }
            (true, true) => {
                let unit = 6.0 / (high - low);
                let input = before.then(&Affine::of(unit, -unit * low - 3.0));
                let input = self.affine(node, &input, "scaled")?;
                let function = self.builder.function(name, Function::HardSigmoid, input)?;
                Ok((function, Affine::of(high - low, low)))
            }
        }
    }
}
