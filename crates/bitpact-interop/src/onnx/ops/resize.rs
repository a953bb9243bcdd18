//! Rows and columns many times, or fewer of them.

use bitpact_graph::{Move, Op};

use super::super::importer::Importer;
use super::super::node::{NodeView, axes};
use super::super::value::Tensor;

/// Where the places of a resized size come from, as ONNX defines it (operator Resize).
struct Places<'a> {
    mode: &'a str,
    rounding: &'a str,
    from: usize,
    to: usize,
    scale: f64,
}

impl Places<'_> {
    /// The place in the input, a real number.
    fn real(&self, at: usize) -> Result<f64, String> {
        let (at, from, to) = (at as f64, self.from as f64, self.to as f64);
        Ok(match self.mode {
            "half_pixel" => (at + 0.5) / self.scale - 0.5,
            "pytorch_half_pixel" if self.to == 1 => -0.5,
            "pytorch_half_pixel" => (at + 0.5) / self.scale - 0.5,
            "half_pixel_symmetric" => {
                let adjusted = to / (self.scale * from);
                let centre = from / 2.0;
                centre * (1.0 - adjusted) + (at + 0.5) / self.scale - 0.5
            }
            "align_corners" if self.to == 1 => 0.0,
            "align_corners" => at * (from - 1.0) / (to - 1.0),
            "asymmetric" => at / self.scale,
            other => return Err(format!("coordinate_transformation_mode {other:?}")),
        })
    }

    /// The element of the input that each place holds.
    fn nearest(&self) -> Result<Vec<usize>, String> {
        (0..self.to)
            .map(|at| {
                let x = self.real(at)?;
                let rounded = match self.rounding {
                    "round_prefer_floor" => (x - 0.5).ceil(),
                    "round_prefer_ceil" => (x + 0.5).floor(),
                    "floor" => x.floor(),
                    "ceil" => x.ceil(),
                    other => return Err(format!("nearest_mode {other:?}")),
                };
                Ok(rounded.clamp(0.0, self.from as f64 - 1.0) as usize)
            })
            .collect()
    }
}

/// What gives the elements `sources` of a size: times that each of a range is there.
enum Kind {
    Times(usize),
    /// First and step.
    Every(usize, usize),
}

fn kind(sources: &[usize], from: usize) -> Option<Kind> {
    let to = sources.len();
    if to.is_multiple_of(from) && sources.iter().enumerate().all(|(at, &source)| source == at / (to / from)) {
        return Some(Kind::Times(to / from));
    }
    let (&first, step) = (sources.first()?, sources.get(1).map_or(1, |second| second.saturating_sub(sources[0])));
    (step > 0 && sources.iter().enumerate().all(|(at, &source)| source == first + at * step))
        .then_some(Kind::Every(first, step))
}

/// Resize and Upsample.
pub(super) fn resize(importer: &mut Importer, node: NodeView) -> Result<Tensor, String> {
    let tensor = importer.tensor(node, 0)?;
    let (tensor, spatial) = importer.usual_solid(&tensor)?;
    let sizes = tensor.layout.sizes();
    let rank = sizes.len();
    let floats = |importer: &Importer, i: usize| -> Result<Option<Vec<f64>>, String> {
        let array = importer.constant(node, i)?.filter(|array| array.len() > 0);
        Ok(array.map(|array| array.to_floats().into_iter().map(f64::from).collect()))
    };
    let is_old = node.op() == "Upsample" || node.opset < 11;
    let on = node.ints("axes").map_or_else(|| Ok((0..rank).collect()), |numbers| axes(numbers, rank))?;
    let scales = match (node.floats("scales"), is_old) {
        (Some(scales), _) => Some(scales.iter().map(|&s| f64::from(s)).collect()),
        (None, true) => floats(importer, 1)?,
        (None, false) => floats(importer, 2)?,
    };
    let wanted = if is_old { None } else { floats(importer, 3)? };
    let (mut scale, mut to) = (vec![1.0; rank], sizes.clone());
    match (scales, wanted) {
        (Some(scales), _) if scales.len() == on.len() => {
            for (&dim, by) in on.iter().zip(scales) {
                scale[dim] = by;
                to[dim] = (sizes[dim] as f64 * by).floor().clamp(0.0, 65536.0) as usize;
            }
        }
        (None, Some(wanted)) if wanted.len() == on.len() => {
            if node.text("keep_aspect_ratio_policy", "stretch") != "stretch" {
                return Err("a keep_aspect_ratio_policy other than stretch".to_owned());
            }
            for (&dim, size) in on.iter().zip(wanted) {
                to[dim] = size.clamp(0.0, 65536.0) as usize;
                scale[dim] = size / sizes[dim] as f64;
            }
        }
        _ => return Err("neither scales nor sizes of each axis".to_owned()),
    }
    if to[..2] != sizes[..2] || to.contains(&0) {
        return Err(format!("{sizes:?} to {to:?}, expected other rows and columns alone"));
    }
    if to == sizes {
        return Ok(tensor);
    }
    let old_mode = if is_old { "asymmetric" } else { "half_pixel" };
    let mode = node.text("coordinate_transformation_mode", old_mode);
    let rounding = node.text("nearest_mode", if is_old { "floor" } else { "round_prefer_floor" });
    match node.text("mode", "nearest") {
        "nearest" => {}
        "linear" | "bilinear" => return Err("linear interpolation, expected nearest".to_owned()),
        other => return Err(format!("mode {other:?}, expected nearest")),
    }
    let mut kinds = Vec::new();
    for dim in 2..rank {
        let places = Places { mode, rounding, from: sizes[dim], to: to[dim], scale: scale[dim] };
        let wrong = || format!("{} to {} elements of axis {dim}, expected a whole factor", sizes[dim], to[dim]);
        let (first, step, times) = match kind(&places.nearest()?, sizes[dim]).ok_or_else(wrong)? {
            Kind::Times(times) => (0, 1, times),
            Kind::Every(first, step) => (first, step, 1),
        };
        kinds.push((first, step, times, to[dim]));
    }
    let [rows, columns] = spatial.spread(&kinds, (0, 1, 1, 1));
    let mut id = tensor.node;
    let name = importer.name(node);
    let shape = importer.builder.shape(id);
    let covered = |(first, step, times, to): (usize, usize, usize, usize), side: usize| match (first, step, times) {
        (0, 1, _) => side,
        (_, step, _) => (to - 1) * step + 1,
    };
    let moves = [
        Move::Crop { top: rows.0, left: columns.0, height: covered(rows, shape.h), width: covered(columns, shape.w) },
        Move::Stride { rows: rows.1, columns: columns.1 },
        Move::Repeat { rows: rows.2, columns: columns.2 },
    ];
    for step in moves {
        let from = importer.builder.shape(id);
        if step.shape(from) != Ok(from) {
            id = importer.builder.push(&name, Op::View(step), &[id])?;
        }
    }
    Ok(Tensor::new(id, spatial.layout(importer.batch, importer.builder.shape(id))))
}
