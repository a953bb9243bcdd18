//! Tensors in the layout that operators with places expect.

use bitpact_graph::{Op, Shape};

use super::super::importer::Importer;
use super::super::layout::{Axis, Layout};
use super::super::value::{Form, Tensor};

/// How the spatial sizes of a tensor of ONNX lie in ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spatial {
    /// None: batch and channels.
    None,
    /// One size, our columns.
    Columns,
    /// One size, our rows.
    Rows,
    /// Rows and columns.
    Both,
}

impl Spatial {
    /// The numbers of the spatial sizes as rows and columns; `one` where there is no such size.
    pub(super) fn spread<T: Copy>(self, values: &[T], one: T) -> [T; 2] {
        match (self, values) {
            (Spatial::Both, &[rows, columns]) => [rows, columns],
            (Spatial::Rows, &[rows]) => [rows, one],
            (Spatial::Columns, &[columns]) => [one, columns],
            _ => [one, one],
        }
    }

    /// Sizes beside batch and channels.
    pub(super) fn count(self) -> usize {
        match self {
            Spatial::None => 0,
            Spatial::Columns | Spatial::Rows => 1,
            Spatial::Both => 2,
        }
    }

    /// The layout of a tensor of this kind.
    pub(super) fn layout(self, batch: usize, shape: Shape) -> Layout {
        let axes: &[Axis] = match self {
            Spatial::None => &[Axis::Batch, Axis::Channel],
            Spatial::Columns => &[Axis::Batch, Axis::Channel, Axis::Column],
            Spatial::Rows => &[Axis::Batch, Axis::Channel, Axis::Row],
            Spatial::Both => &[Axis::Batch, Axis::Channel, Axis::Row, Axis::Column],
        };
        Layout::of(axes, batch, shape)
    }
}

impl Importer<'_> {
    /// The tensor as N x C, N x C x L or N x C x H x W of a node, which is added where elements must move. What is
    /// still to be done to it stays where the layout is usual already.
    pub(super) fn usual(&mut self, tensor: &Tensor) -> Result<(Tensor, Spatial), String> {
        let shape = self.builder.shape(tensor.node);
        for spatial in [Spatial::None, Spatial::Columns, Spatial::Rows, Spatial::Both] {
            let layout = spatial.layout(self.batch, shape);
            // A size that is no axis of the layout must be 1.
            let is_whole = layout.sizes().iter().product::<usize>() == self.batch * shape.elements();
            if is_whole && layout == tensor.layout {
                return Ok((tensor.clone(), spatial));
            }
        }
        let sizes = tensor.layout.sizes();
        let Some(moves) = tensor.layout.moves(self.batch, shape) else {
            return Err(format!(
                "reads a tensor of {sizes:?}, expected batch, channels and up to two sizes of pixels, but those are mixed by what comes before"
            ));
        };
        let solid = self.solid(tensor)?;
        let mut node = solid.node;
        for step in moves {
            let name = format!("{}.{}", self.builder.nodes[node].name, step.name());
            node = self.builder.push(&name, Op::View(step), &[node])?;
        }
        let layout = Spatial::Both.layout(self.batch, self.builder.shape(node));
        debug_assert_eq!(layout.sizes(), sizes);
        Ok((Tensor { ended: solid.ended, ..Tensor::new(node, layout) }, Spatial::Both))
    }

    /// As [`Self::usual`], with nothing left to be done.
    pub(super) fn usual_solid(&mut self, tensor: &Tensor) -> Result<(Tensor, Spatial), String> {
        let (tensor, spatial) = self.usual(tensor)?;
        Ok((self.solid(&tensor)?, spatial))
    }

    /// The tensor with the output of another node of the same shape.
    pub(super) fn with_node(tensor: &Tensor, node: usize) -> Tensor {
        Tensor { ended: tensor.ended.clone(), ..Tensor::new(node, tensor.layout.clone()) }
    }

    /// The constant of each channel, or the one of all, that an array broadcast to the tensor means.
    pub(super) fn channel_constant(
        &self,
        array: &super::super::tensor::Array,
        tensor: &Tensor,
    ) -> Result<Vec<f64>, String> {
        let values: Vec<f64> = array.to_floats().into_iter().map(f64::from).collect();
        if let Some(first) = values.first()
            && values.iter().all(|v| v == first)
            && super::super::fold::broadcast(&array.dims, &tensor.layout.sizes()).as_deref()
                == Ok(&tensor.layout.sizes()[..])
        {
            return Ok(vec![*first]);
        }
        let channels = self.builder.shape(tensor.node).c;
        let dims = &tensor.layout.dims;
        let wrong = || {
            let sizes = tensor.layout.sizes();
            format!("a constant of {:?} for a tensor of {sizes:?}, expected one number, or one a channel", array.dims)
        };
        let skipped = dims.len().checked_sub(array.dims.len()).ok_or_else(wrong)?;
        for (i, &size) in array.dims.iter().enumerate() {
            if size != 1 && !(size == channels && tensor.layout.is_whole(i + skipped, Axis::Channel, channels)) {
                return Err(wrong());
            }
        }
        Ok(values)
    }

    /// Whether nothing is to be done to the tensor of a node.
    pub(super) fn is_plain(tensor: &Tensor) -> bool {
        tensor.pad.is_none() && matches!(&tensor.form, Form::Affine(affine) if affine.is_identity())
    }
}
