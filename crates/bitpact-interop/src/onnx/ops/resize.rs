//! Rows and columns many times, fewer of them, or values between them.

use bitpact_graph::{AvgPool, Move, Op, Padding};

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
            // ONNX's reference and ONNX Runtime differ here.
            "align_corners" if (self.scale * from - to).abs() > 1e-6 => {
                return Err(format!("align_corners with a scale of {}, which gives no whole size", self.scale));
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

/// How one size becomes another: of the elements from `first` on, `covered` of them, every `step`-th, each `times`
/// over, and means of windows of those.
#[derive(Clone, Copy)]
struct Along {
    first: usize,
    covered: usize,
    step: usize,
    times: usize,
    kernel: usize,
    stride: usize,
    before: usize,
    after: usize,
}

impl Along {
    /// A size that stays.
    fn all(size: usize) -> Self {
        Self { first: 0, covered: size, step: 1, times: 1, kernel: 1, stride: 1, before: 0, after: 0 }
    }

    /// Elements `sources` of `from`; `None` where they are neither all of them many times nor some at equal distances.
    fn elements(sources: &[usize], from: usize) -> Option<Self> {
        let to = sources.len();
        if to.is_multiple_of(from) && sources.iter().enumerate().all(|(at, &source)| source == at / (to / from)) {
            return Some(Self { times: to / from, ..Self::all(from) });
        }
        let (&first, step) = (sources.first()?, sources.get(1).map_or(1, |second| second.saturating_sub(sources[0])));
        let is_even = step > 0 && sources.iter().enumerate().all(|(at, &source)| source == first + at * step);
        is_even.then_some(Self { first, step, covered: (to - 1) * step + 1, ..Self::all(from) })
    }

    /// Values at the places `x` between the elements of `from`, interpolated linearly; those beyond the ends are the
    /// ends'. `None` where the places are not n to an element, nor every n-th element or the middle of two.
    ///
    /// A window of 2n elements over elements repeated 2n times weighs two neighbours by how much of each it sees,
    /// which is their linear interpolation; padding that does not count leaves the ends.
    fn linear(x: &[f64], from: usize) -> Option<Self> {
        let is_close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        let inside = |x: f64| x.clamp(0.0, from as f64 - 1.0);
        if x.iter().all(|&x| is_close(inside(x), inside(x).round())) {
            let sources: Vec<usize> = x.iter().map(|&x| inside(x).round() as usize).collect();
            return Self::elements(&sources, from);
        }
        let &first = x.first()?;
        let slope = x.get(1).map_or(1.0, |second| second - first);
        if slope < 1.0 {
            let n = (1.0 / slope).round() as usize;
            let before = (-2.0 * n as f64 * first).round() as i64;
            let place = |at: usize| (2.0 * at as f64 - before as f64) / (2.0 * n as f64);
            let before = usize::try_from(before).ok()?;
            let after = (2 * (x.len() - 1) + 2 * n).checked_sub(2 * n * from + before)?;
            let fits = before.max(after) < 2 * n && x.iter().enumerate().all(|(at, &x)| is_close(x, place(at)));
            return fits.then_some(Self { times: 2 * n, kernel: 2 * n, stride: 2, before, after, ..Self::all(from) });
        }
        let n = slope.round() as usize;
        let covered = (x.len() - 1) * n + 2;
        let begin = first.floor() as usize;
        let middle = |at: usize| begin as f64 + (at * n) as f64 + 0.5;
        let fits =
            first > 0.0 && begin + covered <= from && x.iter().enumerate().all(|(at, &x)| is_close(x, middle(at)));
        fits.then_some(Self { first: begin, covered, kernel: 2, stride: n, ..Self::all(from) })
    }
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
    let is_linear = match node.text("mode", "nearest") {
        "nearest" => false,
        "linear" | "bilinear" => true,
        other => return Err(format!("mode {other:?}, expected nearest or linear")),
    };
    let antialiased = is_linear && node.int("antialias", 0) != 0 && to.iter().zip(&sizes).any(|(to, from)| to < from);
    if antialiased {
        return Err("antialias, expected none".to_owned());
    }
    let mut along = Vec::new();
    for dim in 2..rank {
        let places = Places { mode, rounding, from: sizes[dim], to: to[dim], scale: scale[dim] };
        let found = match is_linear {
            false => Along::elements(&places.nearest()?, sizes[dim]),
            true => {
                let places: Vec<f64> = (0..to[dim]).map(|at| places.real(at)).collect::<Result<_, _>>()?;
                Along::linear(&places, sizes[dim])
            }
        };
        along.push(
            found.ok_or_else(|| {
                format!("{} to {} elements of axis {dim}, expected a whole factor", sizes[dim], to[dim])
            })?,
        );
    }
    let [rows, columns] = spatial.spread(&along, Along::all(1));
    let name = importer.name(node);
    let mut id = tensor.node;
    let moves = [
        Move::Crop { top: rows.first, left: columns.first, height: rows.covered, width: columns.covered },
        Move::Stride { rows: rows.step, columns: columns.step },
        Move::Repeat { rows: rows.times, columns: columns.times },
    ];
    for step in moves {
        let from = importer.builder.shape(id);
        if step.shape(from) != Ok(from) {
            id = importer.builder.push(&name, Op::View(step), &[id])?;
        }
    }
    if [rows.kernel, columns.kernel] != [1; 2] {
        let mean = AvgPool {
            kernel: [rows.kernel, columns.kernel],
            stride: [rows.stride, columns.stride],
            padding: Padding { top: rows.before, left: columns.before, bottom: rows.after, right: columns.after },
            ceil_mode: false,
            count_include_pad: false,
        };
        id = importer.builder.push(&name, Op::AvgPool(mean), &[id])?;
    }
    Ok(Tensor::new(id, spatial.layout(importer.batch, importer.builder.shape(id))))
}
