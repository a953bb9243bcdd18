//! Pools and means.

use bitpact_graph::{AvgPool, MaxPool, Op, Padding};

use super::super::importer::Importer;
use super::super::layout::Axis;
use super::super::node::{NodeView, axes};
use super::super::value::{Affine, Tensor};
use super::usual::Spatial;
use super::window::Geometry;

fn kernel(node: NodeView) -> Result<Vec<usize>, String> {
    let given = node.ints("kernel_shape").ok_or("no kernel_shape")?;
    let sizes: Option<Vec<usize>> = given.iter().map(|&size| usize::try_from(size).ok()).collect();
    sizes.ok_or_else(|| format!("kernel_shape {given:?}"))
}

/// The maximum over a window.
pub(super) fn max_pool(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let lazy = importer.lazy(node, 0)?;
    let around = lazy.pad;
    // Zeros around values that are not negative change no maximum.
    let tensor =
        match around.is_none() || importer.builder.is_nonnegative(lazy.node) && Importer::is_plain(&unpadded(&lazy)) {
            true => unpadded(&lazy),
            false => importer.solid(&lazy)?,
        };
    let around = if lazy.pad.is_none() || tensor.node == lazy.node { around } else { Padding::default() };
    let (tensor, spatial) = importer.usual_solid(&tensor)?;
    let from = importer.builder.shape(tensor.node);
    let window = Geometry::new(node, spatial, &kernel(node)?, from, around)?;
    let Geometry { kernel, stride, dilation, padding } = window.around(around);
    let ceil_mode = node.int("ceil_mode", 0) != 0;
    let op = Op::MaxPool(MaxPool { kernel, stride, padding, dilation, ceil_mode });
    pooled(importer, node, op, &tensor, spatial)
}

fn unpadded(tensor: &Tensor) -> Tensor {
    Tensor { pad: Padding::default(), ..tensor.clone() }
}

/// The mean over a window.
pub(super) fn average_pool(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let tensor = importer.tensor(node, 0)?;
    let (tensor, spatial) = importer.usual_solid(&tensor)?;
    let from = importer.builder.shape(tensor.node);
    let Geometry { kernel, stride, dilation, padding } =
        Geometry::new(node, spatial, &kernel(node)?, from, Padding::default())?;
    if dilation != [1; 2] {
        return Err(format!("dilations {dilation:?}, expected 1"));
    }
    let ceil_mode = node.int("ceil_mode", 0) != 0;
    let count_include_pad = node.int("count_include_pad", 0) != 0;
    let op = Op::AvgPool(AvgPool { kernel, stride, padding, ceil_mode, count_include_pad });
    pooled(importer, node, op, &tensor, spatial)
}

fn pooled(importer: &mut Importer, node: NodeView, op: Op, input: &Tensor, spatial: Spatial) -> Result<Tensor, String> {
    let id = importer.builder.push(&importer.name(node), op, &[input.node])?;
    let layout = spatial.layout(importer.batch, importer.builder.shape(id));
    Ok(Tensor::new(id, layout))
}

/// Means, maxima and sums over all rows and columns, or over one of both.
pub(super) fn reduce(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let tensor = importer.tensor(node, 0)?;
    let rank = tensor.layout.dims.len();
    let is_global = matches!(node.op(), "GlobalAveragePool" | "GlobalMaxPool" | "QLinearGlobalAveragePool");
    let numbers = match is_global {
        true => Some((2..rank as i64).collect()),
        false => importer.ints(node, "axes", 1)?.filter(|axes| !axes.is_empty()),
    };
    let Some(numbers) = numbers else {
        return Err("a mean over all sizes, the batch too".to_owned());
    };
    let on = axes(&numbers, rank)?;
    let shape = importer.builder.shape(tensor.node);
    let mut kernel = [1; 2];
    for &dim in &on {
        if tensor.layout.is_whole(dim, Axis::Row, shape.h) {
            kernel[0] = shape.h;
        } else if tensor.layout.is_whole(dim, Axis::Column, shape.w) {
            kernel[1] = shape.w;
        } else {
            let size = tensor.layout.sizes()[dim];
            return Err(format!("axis {dim} of size {size}, expected height or width"));
        }
    }
    let mut layout = tensor.layout.clone();
    for &dim in &on {
        layout.dims[dim] = Vec::new();
    }
    if !is_global && node.int("keepdims", 1) == 0 {
        let mut dim = 0;
        layout.dims.retain(|_| {
            dim += 1;
            !on.contains(&(dim - 1))
        });
    }
    let id = if kernel == [1; 2] {
        tensor.node
    } else {
        let is_max = matches!(node.op(), "GlobalMaxPool" | "ReduceMax");
        let whole = kernel == [shape.h, shape.w];
        let op = match (is_max, whole) {
            (true, _) => Op::MaxPool(MaxPool {
                kernel,
                stride: kernel,
                padding: Padding::default(),
                dilation: [1; 2],
                ceil_mode: false,
            }),
            (false, true) => Op::GlobalAvgPool,
            (false, false) => Op::AvgPool(AvgPool {
                kernel,
                stride: kernel,
                padding: Padding::default(),
                ceil_mode: false,
                count_include_pad: true,
            }),
        };
        importer.builder.push(&importer.name(node), op, &[tensor.node])?
    };
    let reduced = Tensor::new(id, layout);
    Ok(match node.op() {
        "ReduceSum" => reduced.then(&Affine::of((kernel[0] * kernel[1]) as f64, 0.0)),
        _ => reduced,
    })
}
