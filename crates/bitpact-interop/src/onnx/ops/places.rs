//! Operators that move elements, or only the sizes that the file sees.

use bitpact_graph::{Move, Op, Padding};

use super::super::fold::{split_sizes, unsqueezed};
use super::super::importer::Importer;
use super::super::layout::{Axis, Layout};
use super::super::node::{NodeView, axes, axis, range, reshaped};
use super::super::tensor::Array;
use super::super::value::{Tensor, Value};

/// Sizes of a tensor, which are known.
pub(super) fn sizes(importer: &mut Importer, node: NodeView) -> Result<Vec<Value>, String> {
    let sizes = importer.lazy(node, 0)?.sizes();
    let array = match node.op() {
        "Size" => Array::ints(vec![], vec![sizes.iter().product::<usize>() as i64]),
        _ => {
            let (first, count, _) = range(node.int("start", 0), node.int("end", i64::MAX), 1, sizes.len())?;
            Array::of_sizes(&sizes[first..first + count])
        }
    };
    Ok(vec![Value::Const(array.into())])
}

/// Operators that only change sizes or their order.
pub(super) fn layout(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let tensor = importer.unpadded(node, 0)?;
    let layout = &tensor.layout;
    let (sizes, rank) = (layout.sizes(), layout.dims.len());
    let cut = |target: &[usize]| {
        layout
            .reshaped(target)
            .ok_or_else(|| format!("{sizes:?} as {target:?}, which cuts a size in parts that do not divide it"))
    };
    let layout = match node.op() {
        "Transpose" => {
            let perm = node.ints("perm").map_or_else(|| Ok((0..rank).rev().collect()), |perm| axes(perm, rank))?;
            if perm.len() != rank || (0..rank).any(|i| !perm.contains(&i)) {
                return Err(format!("the permutation {perm:?} of {rank} sizes"));
            }
            layout.transposed(&perm)
        }
        "Reshape" => {
            let target = match node.ints("shape") {
                Some(target) => target.to_vec(),
                None => importer.needed(node, 1)?.to_ints()?.to_vec(),
            };
            cut(&reshaped(&sizes, &target, node.int("allowzero", 0) == 1)?)?
        }
        "Flatten" => {
            let at = node.int("axis", 1);
            let at = if at < 0 { at + rank as i64 } else { at }.clamp(0, rank as i64) as usize;
            cut(&[sizes[..at].iter().product(), sizes[at..].iter().product()])?
        }
        "Squeeze" => {
            let squeezed = match importer.ints(node, "axes", 1)? {
                Some(numbers) => axes(&numbers, rank)?,
                None => (0..rank).filter(|&i| sizes[i] == 1).collect(),
            };
            if let Some(&i) = squeezed.iter().find(|&&i| sizes[i] != 1) {
                return Err(format!("squeezes size {} of axis {i}", sizes[i]));
            }
            Layout { dims: (0..rank).filter(|i| !squeezed.contains(i)).map(|i| layout.dims[i].clone()).collect() }
        }
        "Unsqueeze" => {
            let numbers = importer.ints(node, "axes", 1)?.ok_or("no axes")?;
            Layout { dims: unsqueezed(&layout.dims, &numbers)? }
        }
        _ => {
            let target = importer.needed(node, 1)?;
            let target: Vec<usize> = target.to_ints()?.iter().map(|&n| n.max(1) as usize).collect();
            if super::super::fold::broadcast(&sizes, &target)? != sizes {
                return Err(format!("{sizes:?} repeated to {target:?}"));
            }
            layout.clone()
        }
    };
    Ok(Tensor { layout, ..tensor })
}

/// Zeros beside rows, columns and channels; rows and columns that are taken away.
pub(super) fn pad(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    match node.text("mode", "constant") {
        "constant" => {}
        other => return Err(format!("mode {other:?}, expected zeros")),
    }
    let value = importer.number(node, "value", 2, 0.0)?;
    let pads = importer.ints(node, "pads", 1)?.ok_or("no pads")?;
    let lazy = importer.lazy(node, 0)?;
    let rank = lazy.layout.dims.len();
    let on = match importer.ints(node, "axes", 3)? {
        Some(numbers) => axes(&numbers, rank)?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * on.len() {
        return Err(format!("{} pads for {} sizes", pads.len(), on.len()));
    }
    if pads.iter().all(|&p| p == 0) {
        return Ok(lazy);
    }
    if value != 0.0 {
        return Err(format!("value {value}, expected zeros"));
    }
    let (tensor, spatial) = importer.usual(&lazy)?;
    let mut ends = [[0i64; 2]; 4];
    for (i, &dim) in on.iter().enumerate() {
        ends[dim] = [pads[i], pads[i + on.len()]];
    }
    if pads.iter().any(|p| p.unsigned_abs() > 1 << 15) {
        return Err(format!("pads {pads:?}"));
    }
    let [batch, channels, ..] = ends;
    let rows: [[i64; 2]; 2] = spatial.spread(&ends[2..2 + spatial.count()], [0, 0]);
    if batch != [0, 0] {
        return Err("zeros beside the batch".to_owned());
    }
    let more = |p: i64| p.max(0) as usize;
    let around =
        Padding { top: more(rows[0][0]), bottom: more(rows[0][1]), left: more(rows[1][0]), right: more(rows[1][1]) };
    let plain = channels == [0, 0] && rows.iter().flatten().all(|&p| p >= 0);
    if plain && spatial == super::usual::Spatial::Both && tensor.pad.is_none() {
        return Ok(Tensor { pad: around, ..tensor });
    }
    let tensor = importer.solid(&tensor)?;
    let mut node_id = tensor.node;
    let shape = importer.builder.shape(node_id);
    let less = |p: i64| (-p).max(0) as usize;
    let cut = [less(rows[0][0]), less(rows[0][1]), less(rows[1][0]), less(rows[1][1])];
    if channels.iter().any(|&p| p < 0)
        || cut[0] + cut[1] >= shape.h && cut[0] + cut[1] > 0
        || cut[2] + cut[3] >= shape.w && cut[2] + cut[3] > 0
    {
        return Err(format!("pads {pads:?} for an input of {shape}"));
    }
    let name = importer.name(node);
    if cut != [0; 4] {
        let (height, width) = (shape.h - cut[0] - cut[1], shape.w - cut[2] - cut[3]);
        node_id = importer.builder.push(
            &name,
            Op::View(Move::Crop { top: cut[0], left: cut[2], height, width }),
            &[node_id],
        )?;
    }
    let Padding { top, left, bottom, right } = around;
    let insert = Move::Insert { top, left, bottom, right, before: more(channels[0]), after: more(channels[1]) };
    if (insert.padding(), channels) != (Padding::default(), [0, 0]) {
        node_id = importer.builder.push(&name, Op::View(insert), &[node_id])?;
    }
    Ok(Tensor::new(node_id, spatial.layout(importer.batch, importer.builder.shape(node_id))))
}

/// Elements `first`, `first + step`, ... of one size.
fn cut(
    importer: &mut Importer,
    node: NodeView,
    tensor: &Tensor,
    dim: usize,
    range: (usize, usize, i64),
) -> Result<Tensor, String> {
    let (first, count, step) = range;
    let sizes = tensor.layout.sizes();
    if (first, count, step) == (0, sizes[dim], 1) {
        return Ok(tensor.clone());
    }
    let step = usize::try_from(step).map_err(|_| format!("step {step}, expected a positive one"))?;
    if count == 0 {
        return Err("a slice without elements".to_owned());
    }
    let mut tensor = importer.solid(tensor)?;
    let from = importer.builder.shape(tensor.node);
    let axes = [(Axis::Channel, from.c), (Axis::Row, from.h), (Axis::Column, from.w)];
    if !axes.into_iter().any(|(axis, size)| tensor.layout.is_whole(dim, axis, size)) {
        tensor = importer.usual_solid(&tensor)?.0;
    }
    let shape = importer.builder.shape(tensor.node);
    let is = |axis: Axis, size: usize| tensor.layout.is_whole(dim, axis, size);
    let covered = (count - 1) * step + 1;
    let mut moves = Vec::new();
    if is(Axis::Channel, shape.c) && step == 1 {
        moves.push(Move::Channels { first, count });
    } else if is(Axis::Row, shape.h) {
        moves.push(Move::Crop { top: first, left: 0, height: covered, width: shape.w });
        moves.push(Move::Stride { rows: step, columns: 1 });
    } else if is(Axis::Column, shape.w) {
        moves.push(Move::Crop { top: 0, left: first, height: shape.h, width: covered });
        moves.push(Move::Stride { rows: 1, columns: step });
    } else {
        return Err(format!("{count} of axis {dim} of {sizes:?}, expected whole channels, rows or columns"));
    }
    let mut id = tensor.node;
    for step in moves {
        let from = importer.builder.shape(id);
        if step.shape(from) == Ok(from) {
            continue;
        }
        id = importer.builder.push(&importer.name(node), Op::View(step), &[id])?;
    }
    let (axes, shape) = (tensor.layout.clone(), importer.builder.shape(id));
    let mut layout = axes;
    let whole = Layout::of(&[Axis::Channel, Axis::Row, Axis::Column], 1, shape);
    let at = if is(Axis::Channel, importer.builder.shape(tensor.node).c) {
        0
    } else if is(Axis::Row, importer.builder.shape(tensor.node).h) {
        1
    } else {
        2
    };
    layout.dims[dim] = whole.dims[at].clone();
    Ok(Tensor::new(id, layout))
}

/// Parts of sizes.
pub(super) fn slice(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let mut tensor = importer.unpadded(node, 0)?;
    let starts = importer.ints(node, "starts", 1)?.ok_or("no starts")?;
    let ends = importer.ints(node, "ends", 2)?.ok_or("no ends")?;
    let on = importer.ints(node, "axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = importer.ints(node, "steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), on.len(), steps.len()] != [starts.len(); 3] {
        return Err("starts, ends, axes and steps of different numbers".to_owned());
    }
    for (i, dim) in axes(&on, tensor.layout.dims.len())?.into_iter().enumerate() {
        let range = range(starts[i], ends[i], steps[i], tensor.layout.sizes()[dim])?;
        tensor = cut(importer, node, &tensor, dim, range)?;
    }
    Ok(tensor)
}

/// Most ranges that channels in any order are put together from.
const MOST_RANGES: usize = 4096;

/// Channels, rows or columns that follow each other, and channels in any order.
pub(super) fn gather(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let tensor = importer.unpadded(node, 0)?;
    let dim = axis(node.int("axis", 0), tensor.layout.dims.len())?;
    let size = tensor.layout.sizes()[dim];
    let indices = importer.needed(node, 1)?;
    let place = |&i: &i64| usize::try_from(if i < 0 { i + size as i64 } else { i }).ok().filter(|&at| at < size);
    let places: Option<Vec<usize>> = indices.to_ints()?.iter().map(place).collect();
    let places = places.ok_or_else(|| format!("indices beyond a size of {size}"))?;
    let Some(&first) = places.first() else { return Err("no indices".to_owned()) };
    if indices.dims.len() > 1 {
        return Err(format!("indices of {:?}, expected a list", indices.dims));
    }
    let step = places.get(1).map_or(1, |&second| second.saturating_sub(first));
    if step > 0 && places.iter().enumerate().all(|(i, &place)| place == first + i * step) {
        let mut part = cut(importer, node, &tensor, dim, (first, places.len(), step as i64))?;
        if indices.dims.is_empty() {
            part.layout.dims.remove(dim);
        }
        return Ok(part);
    }
    ordered(importer, node, &tensor, dim, &places)
}

/// The channels `places` in this order: a shuffle, or ranges of them side by side.
fn ordered(
    importer: &mut Importer,
    node: NodeView,
    tensor: &Tensor,
    dim: usize,
    places: &[usize],
) -> Result<Tensor, String> {
    let mut tensor = importer.solid(tensor)?;
    if !tensor.layout.is_whole(dim, Axis::Channel, importer.builder.shape(tensor.node).c) {
        tensor = importer.usual_solid(&tensor)?.0;
    }
    let c = importer.builder.shape(tensor.node).c;
    if !tensor.layout.is_whole(dim, Axis::Channel, c) {
        return Err(format!("indices {places:?} of rows or columns, expected some at equal distances"));
    }
    let shuffled = |groups: usize| (0..c).map(move |at| at % groups * (c / groups) + at / groups);
    let divides = |groups: &usize| c.is_multiple_of(*groups);
    let name = importer.name(node);
    let id = match (2..c).filter(divides).find(|&groups| places.iter().copied().eq(shuffled(groups))) {
        Some(groups) => importer.builder.push(&name, Op::View(Move::ChannelShuffle { groups }), &[tensor.node])?,
        None => {
            let ranges: Vec<&[usize]> = places.chunk_by(|&a, &b| b == a + 1).collect();
            if ranges.len() > MOST_RANGES {
                return Err(format!("channels in {} ranges, expected at most {MOST_RANGES}", ranges.len()));
            }
            let mut parts = Vec::with_capacity(ranges.len());
            for range in ranges {
                let channels = Move::Channels { first: range[0], count: range.len() };
                parts.push(importer.builder.push(&name, Op::View(channels), &[tensor.node])?);
            }
            importer.builder.push(&name, Op::Concat, &parts)?
        }
    };
    let mut layout = tensor.layout.clone();
    layout.dims[dim] = Layout::of(&[Axis::Channel], 1, importer.builder.shape(id)).dims[0].clone();
    Ok(Tensor::new(id, layout))
}

/// Parts of one size, one after the other.
pub(super) fn split(importer: &mut Importer, node: NodeView) -> Result<Vec<Value>, String> {
    let tensor = importer.tensor(node, 0)?;
    let dim = axis(node.int("axis", 0), tensor.layout.dims.len())?;
    let sizes = split_sizes(node, tensor.layout.sizes()[dim], importer.ints(node, "split", 1)?)?;
    let mut first = 0;
    let mut parts = Vec::with_capacity(sizes.len());
    for (size, output) in sizes.into_iter().zip(&node.node.output) {
        let read = !importer.readers(output).is_empty() || !output.is_empty();
        parts.push(match read {
            true => Value::Data(cut(importer, node, &tensor, dim, (first, size, 1))?),
            false => Value::Unknown,
        });
        first += size;
    }
    Ok(parts)
}

/// Channels as pixels and pixels as channels.
pub(super) fn depth(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let tensor = importer.tensor(node, 0)?;
    let (tensor, spatial) = importer.usual_solid(&tensor)?;
    let factor = usize::try_from(node.int("blocksize", 0)).unwrap_or(0);
    let c = importer.builder.shape(tensor.node).c;
    let square = factor.checked_mul(factor).filter(|&square| square > 0).ok_or("a blocksize of 0")?;
    let moves = match (node.op(), node.text("mode", "DCR")) {
        ("SpaceToDepth", _) => vec![Move::PixelUnshuffle { factor }, Move::ChannelShuffle { groups: c }],
        (_, "CRD") => vec![Move::PixelShuffle { factor }],
        (_, "DCR") => vec![Move::ChannelShuffle { groups: square }, Move::PixelShuffle { factor }],
        (_, mode) => return Err(format!("mode {mode:?}")),
    };
    let mut id = tensor.node;
    for step in moves {
        let is_nothing =
            matches!(step, Move::ChannelShuffle { groups } if groups == 1 || groups == importer.builder.shape(id).c);
        if !is_nothing {
            id = importer.builder.push(&importer.name(node), Op::View(step), &[id])?;
        }
    }
    Ok(Tensor::new(id, spatial.layout(importer.batch, importer.builder.shape(id))))
}
