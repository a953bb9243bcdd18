//! Tensors side by side.

use bitpact_graph::Op;

use super::super::importer::Importer;
use super::super::layout::Axis;
use super::super::node::{NodeView, axis};
use super::super::value::Tensor;

/// The channels of tensors one after the other.
pub(super) fn concat(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let mut tensors = Vec::with_capacity(node.node.input.len());
    for i in 0..node.node.input.len() {
        tensors.push(importer.tensor(node, i)?);
    }
    let first = tensors.first().ok_or("no inputs")?;
    if tensors.len() == 1 {
        return Ok(first.clone());
    }
    let rank = first.layout.dims.len();
    let dim = axis(node.int("axis", 1), rank)?;
    // Rows and columns as they are where all have one layout but for the channels, usual ones elsewhere.
    let alike = |importer: &Importer, tensor: &Tensor| {
        let c = importer.builder.shape(tensor.node).c;
        let others = |layout: &super::super::layout::Layout| {
            let mut dims = layout.dims.clone();
            dims[dim] = Vec::new();
            dims
        };
        tensor.layout.dims.len() == rank
            && tensor.layout.is_whole(dim, Axis::Channel, c)
            && others(&tensor.layout) == others(&first.layout)
    };
    let all_alike = tensors.iter().all(|tensor| alike(importer, tensor));
    if !all_alike {
        if dim != 1 {
            let sizes: Vec<_> = tensors.iter().map(|tensor| tensor.layout.sizes()).collect();
            return Err(format!("tensors of {sizes:?} side by side along axis {dim}, expected channels"));
        }
        for tensor in &mut tensors {
            *tensor = importer.usual_solid(tensor)?.0;
        }
    }
    let nodes: Vec<usize> = tensors.iter().map(|tensor| tensor.node).collect();
    let id = importer.builder.push(&importer.name(node), Op::Concat, &nodes)?;
    let mut layout = tensors[0].layout.clone();
    layout.dims[dim] = super::usual::Spatial::None.layout(1, importer.builder.shape(id)).dims[1].clone();
    Ok(Tensor::new(id, layout))
}
