//! Constant folding: operators whose inputs are all known, as exporters write the arithmetic of shapes and scales.

use numbers::{binary, cast, reduce, unary};

use super::node::{NodeView, axes, axis, range, reshaped};
use super::tensor::{Array, Data};

mod numbers;

/// Elements of a folded tensor at the most.
const MOST: usize = 1 << 27;

/// Every operator that is folded; operators of networks that are not here need an input that is known only when the
/// network runs.
pub(super) const FOLDED: [&str; 43] = [
    "Abs",
    "Add",
    "And",
    "Cast",
    "CastLike",
    "Ceil",
    "Clip",
    "Concat",
    "ConstantOfShape",
    "Div",
    "Equal",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "Greater",
    "Identity",
    "Less",
    "Log",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "Range",
    "Reciprocal",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Reshape",
    "Round",
    "Shape",
    "Size",
    "Slice",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Transpose",
];

/// Operators that are folded beside [`FOLDED`].
pub(super) const ALSO_FOLDED: [&str; 4] = ["Unsqueeze", "Where", "Split", "Tile"];

/// The outputs of a node whose inputs are `inputs`, absent ones `None`.
pub(super) fn fold(node: NodeView, inputs: &[Option<&Array>]) -> Result<Vec<Array>, String> {
    let input = |i: usize| inputs.get(i).copied().flatten().ok_or_else(|| format!("input {i} is missing"));
    let optional = |i: usize| inputs.get(i).copied().flatten();
    let list = |name: &str, i: usize| -> Result<Option<Vec<i64>>, String> {
        match (node.ints(name), optional(i)) {
            (Some(ints), _) => Ok(Some(ints.to_vec())),
            (None, Some(array)) => array.to_ints().map(|ints| Some(ints.to_vec())),
            (None, None) => Ok(None),
        }
    };
    let one = |array: Array| Ok(vec![array]);
    match node.op() {
        "Identity" => one(input(0)?.clone()),
        "Cast" => one(cast(input(0)?, node.int("to", 1) as i32)?),
        "CastLike" => one(cast(input(0)?, input(1)?.kind)?),
        "Shape" => {
            let sizes = &input(0)?.dims;
            let (first, count, _) = range(node.int("start", 0), node.int("end", i64::MAX), 1, sizes.len())?;
            one(Array::of_sizes(&sizes[first..first + count]))
        }
        "Size" => one(Array::ints(vec![], vec![input(0)?.len() as i64])),
        "Reshape" => {
            let array = input(0)?;
            let target = input(1)?.to_ints()?;
            one(Array { dims: reshaped(&array.dims, target, node.int("allowzero", 0) == 1)?, ..array.clone() })
        }
        "Flatten" => {
            let array = input(0)?;
            let rank = array.dims.len() as i64;
            let at = node.int("axis", 1);
            let at = if at < 0 { at + rank } else { at }.clamp(0, rank) as usize;
            let dims = vec![array.dims[..at].iter().product(), array.dims[at..].iter().product()];
            one(Array { dims, ..array.clone() })
        }
        "Squeeze" => {
            let array = input(0)?;
            let squeezed = match list("axes", 1)? {
                Some(numbers) => axes(&numbers, array.dims.len())?,
                None => (0..array.dims.len()).filter(|&i| array.dims[i] == 1).collect(),
            };
            if let Some(&i) = squeezed.iter().find(|&&i| array.dims[i] != 1) {
                return Err(format!("squeezes size {} of axis {i}", array.dims[i]));
            }
            let dims = (0..array.dims.len()).filter(|i| !squeezed.contains(i)).map(|i| array.dims[i]).collect();
            one(Array { dims, ..array.clone() })
        }
        "Unsqueeze" => {
            let array = input(0)?;
            let dims = unsqueezed(&array.dims, &list("axes", 1)?.ok_or("no axes")?)?;
            one(Array { dims, ..array.clone() })
        }
        "Transpose" => {
            let array = input(0)?;
            let rank = array.dims.len();
            let perm = node.ints("perm").map_or_else(|| Ok((0..rank).rev().collect()), |perm| axes(perm, rank))?;
            if perm.len() != rank || (0..rank).any(|i| !perm.contains(&i)) {
                return Err(format!("the permutation {perm:?} for {rank} sizes"));
            }
            let dims: Vec<usize> = perm.iter().map(|&i| array.dims[i]).collect();
            let strides = strides(&array.dims);
            let moved: Vec<usize> = perm.iter().map(|&i| strides[i]).collect();
            let moved = pick(array, dims, |place| place.iter().zip(&moved).map(|(at, stride)| at * stride).sum());
            one(Array { steps: array.steps.clone(), ..moved })
        }
        "Concat" => concat(node, inputs),
        "Gather" => gather(input(0)?, input(1)?, node.int("axis", 0)),
        "Slice" => {
            let array = input(0)?;
            let starts = list("starts", 1)?.ok_or("no starts")?;
            let ends = list("ends", 2)?.ok_or("no ends")?;
            let on = list("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
            let steps =
                optional(4).map(Array::to_ints).transpose()?.map_or_else(|| vec![1; starts.len()], <[i64]>::to_vec);
            if ends.len() != starts.len() || on.len() != starts.len() || steps.len() != starts.len() {
                return Err("starts, ends, axes and steps of different numbers".to_owned());
            }
            let mut array = array.clone();
            for (i, at) in axes(&on, array.dims.len())?.into_iter().enumerate() {
                let (first, count, step) = range(starts[i], ends[i], steps[i], array.dims[at])?;
                let indices: Vec<usize> = (0..count).map(|k| (first as i64 + k as i64 * step) as usize).collect();
                array = take(&array, at, &indices);
            }
            one(array)
        }
        "Split" => {
            let array = input(0)?;
            let at = axis(node.int("axis", 0), array.dims.len())?;
            let sizes = split_sizes(node, array.dims[at], list("split", 1)?)?;
            let mut first = 0;
            Ok(sizes
                .into_iter()
                .map(|size| {
                    let part = take(array, at, &(first..first + size).collect::<Vec<_>>());
                    first += size;
                    part
                })
                .collect())
        }
        "ConstantOfShape" => {
            let dims = sizes_of(input(0)?)?;
            let count = bounded(&dims)?;
            let value = match node.tensor("value") {
                Some(tensor) => super::tensor::read(tensor, std::path::Path::new("."))?,
                None => Array::floats(vec![1], vec![0.0]),
            };
            if value.len() != 1 {
                return Err(format!("a value of {} elements, expected one", value.len()));
            }
            let data = match value.data {
                Data::Float(data) => Data::Float(vec![data[0]; count]),
                Data::Int(data) => Data::Int(vec![data[0]; count]),
            };
            one(Array { dims, kind: value.kind, data, steps: None })
        }
        "Range" => {
            let [start, limit, delta] = [input(0)?, input(1)?, input(2)?];
            match (&start.data, &limit.data, &delta.data) {
                (Data::Int(s), Data::Int(l), Data::Int(d)) if [s.len(), l.len(), d.len()] == [1; 3] && d[0] != 0 => {
                    let (span, step) = (i128::from(l[0]) - i128::from(s[0]), i128::from(d[0]));
                    let count = span / step + i128::from(span % step != 0 && (span < 0) == (step < 0));
                    let count = usize::try_from(count.max(0)).map_err(|e| e.to_string())?;
                    bounded(&[count])?;
                    one(Array::ints(vec![count], (0..count as i64).map(|i| s[0] + i * d[0]).collect()))
                }
                _ => Err("a range that is not of whole numbers".to_owned()),
            }
        }
        "Expand" => {
            let array = input(0)?;
            let dims = broadcast(&array.dims, &sizes_of(input(1)?)?)?;
            bounded(&dims)?;
            one(broadcast_to(array, &dims))
        }
        "Tile" => {
            let mut array = input(0)?.clone();
            let repeats = sizes_of(input(1)?)?;
            if repeats.len() != array.dims.len() {
                return Err(format!("{} repeats for {} sizes", repeats.len(), array.dims.len()));
            }
            for (at, &times) in repeats.iter().enumerate() {
                bounded(&[array.len(), times])?;
                let indices: Vec<usize> = (0..times).flat_map(|_| 0..array.dims[at]).collect();
                array = take(&array, at, &indices);
            }
            one(array)
        }
        "Where" => {
            let dims = broadcast(&broadcast(&input(0)?.dims, &input(1)?.dims)?, &input(2)?.dims)?;
            bounded(&dims)?;
            let condition = broadcast_to(input(0)?, &dims);
            let flags = condition.to_ints()?;
            let (yes, no) = (broadcast_to(input(1)?, &dims), broadcast_to(input(2)?, &dims));
            let data = match (&yes.data, &no.data) {
                (Data::Int(y), Data::Int(n)) => Data::Int(select(flags, y, n)),
                (Data::Float(y), Data::Float(n)) => Data::Float(select(flags, y, n)),
                _ => return Err("branches of two types".to_owned()),
            };
            one(Array { dims, kind: yes.kind, data, steps: None })
        }
        "Not" | "Neg" | "Abs" | "Floor" | "Ceil" | "Round" | "Sqrt" | "Reciprocal" | "Exp" | "Log" => {
            one(unary(node.op(), input(0)?)?)
        }
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Equal" | "Less" | "Greater" | "And" | "Or" => {
            let op = if node.int("fmod", 0) == 1 { "Fmod" } else { node.op() };
            one(binary(op, input(0)?, input(1)?)?)
        }
        "Min" | "Max" => {
            let rest = (1..inputs.len()).map(input).collect::<Result<Vec<_>, _>>()?;
            one(rest.into_iter().try_fold(input(0)?.clone(), |so_far, next| binary(node.op(), &so_far, next))?)
        }
        "Clip" => {
            let mut array = input(0)?.clone();
            for (name, i, op) in [("min", 1, "Max"), ("max", 2, "Min")] {
                if node.has(name) {
                    array = binary(op, &array, &Array::floats(vec![], vec![node.float(name, 0.0)]))?;
                } else if let Some(limit) = optional(i) {
                    array = binary(op, &array, limit)?;
                }
            }
            one(array)
        }
        "ReduceProd" | "ReduceSum" | "ReduceMin" | "ReduceMax" => {
            let array = input(0)?;
            let rank = array.dims.len();
            let given = list("axes", 1)?.unwrap_or_default();
            if given.is_empty() && node.int("noop_with_empty_axes", 0) == 1 {
                return one(array.clone());
            }
            let on = if given.is_empty() { (0..rank).collect() } else { axes(&given, rank)? };
            one(reduce(node.op(), array, &on, node.int("keepdims", 1) == 1)?)
        }
        other => Err(format!("{other} of constants, which is not computed")),
    }
}

fn select<T: Copy>(flags: &[i64], yes: &[T], no: &[T]) -> Vec<T> {
    flags.iter().zip(yes.iter().zip(no)).map(|(&flag, (&y, &n))| if flag != 0 { y } else { n }).collect()
}

fn sizes_of(array: &Array) -> Result<Vec<usize>, String> {
    let ints = array.to_ints()?;
    ints.iter().map(|&n| usize::try_from(n).map_err(|_| format!("a size of {n}"))).collect()
}

/// Number of elements, where it is no more than a folded tensor may have.
fn bounded(dims: &[usize]) -> Result<usize, String> {
    let is_small = super::tensor::volume(dims).is_some_and(|n| n <= MOST);
    is_small
        .then(|| dims.iter().product::<usize>())
        .ok_or_else(|| format!("a constant of the shape {dims:?}, expected at most {MOST} elements"))
}

fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i];
    }
    strides
}

/// The array of shape `dims` whose element at a place is the one of `array` that `source` names.
fn pick(array: &Array, dims: Vec<usize>, source: impl Fn(&[usize]) -> usize) -> Array {
    let count: usize = dims.iter().product();
    let mut place = vec![0; dims.len()];
    let mut sources = Vec::with_capacity(count);
    for _ in 0..count {
        sources.push(source(&place));
        for i in (0..dims.len()).rev() {
            place[i] += 1;
            if place[i] < dims[i] {
                break;
            }
            place[i] = 0;
        }
    }
    let data = match &array.data {
        Data::Float(data) => Data::Float(sources.into_iter().map(|at| data[at]).collect()),
        Data::Int(data) => Data::Int(sources.into_iter().map(|at| data[at]).collect()),
    };
    Array { dims, kind: array.kind, data, steps: None }
}

/// The slices `indices` along one axis.
fn take(array: &Array, axis: usize, indices: &[usize]) -> Array {
    let strides = strides(&array.dims);
    let mut dims = array.dims.clone();
    dims[axis] = indices.len();
    pick(array, dims, |place| {
        let at = |i: usize| if i == axis { indices[place[i]] } else { place[i] };
        (0..place.len()).map(|i| at(i) * strides[i]).sum()
    })
}

/// The shape of two that are broadcast to each other.
pub(super) fn broadcast(left: &[usize], right: &[usize]) -> Result<Vec<usize>, String> {
    let rank = left.len().max(right.len());
    let size = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    (0..rank)
        .map(|i| match (size(left, i), size(right, i)) {
            (a, b) if a == b || b == 1 => Ok(a),
            (1, b) => Ok(b),
            _ => Err(format!("the shapes {left:?} and {right:?}, which do not fit each other")),
        })
        .collect()
}

fn broadcast_to(array: &Array, dims: &[usize]) -> Array {
    let strides = strides(&array.dims);
    let skipped = dims.len() - array.dims.len();
    pick(array, dims.to_vec(), |place| {
        let at = |i: usize| if array.dims[i] == 1 { 0 } else { place[i + skipped] };
        (0..array.dims.len()).map(|i| at(i) * strides[i]).sum()
    })
}

/// A shape with sizes of 1 inserted so that they stand at `numbers`.
pub(super) fn unsqueezed<T: Clone + Default + One>(dims: &[T], numbers: &[i64]) -> Result<Vec<T>, String> {
    let rank = dims.len() + numbers.len();
    let inserted = axes(numbers, rank)?;
    if (1..inserted.len()).any(|i| inserted[..i].contains(&inserted[i])) {
        return Err(format!("axes {numbers:?}, one of them twice"));
    }
    let mut old = dims.iter();
    Ok((0..rank)
        .map(|i| if inserted.contains(&i) { T::one() } else { old.next().cloned().unwrap_or_default() })
        .collect())
}

/// What stands for a size of 1.
pub(super) trait One {
    fn one() -> Self;
}

impl One for usize {
    fn one() -> Self {
        1
    }
}

impl<T> One for Vec<T> {
    fn one() -> Self {
        Vec::new()
    }
}

/// Sizes of the parts of a split of `size` elements.
pub(super) fn split_sizes(node: NodeView, size: usize, given: Option<Vec<i64>>) -> Result<Vec<usize>, String> {
    let outputs = node.node.output.len();
    let sizes = match given {
        Some(given) => given.iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect(),
        None => {
            let parts = node.int("num_outputs", outputs as i64);
            let parts = usize::try_from(parts).ok().filter(|&n| n == outputs && n > 0);
            let parts = parts.ok_or_else(|| format!("num_outputs of a node with {outputs} outputs"))?;
            let each = size.div_ceil(parts);
            (0..parts).map(|i| each.min(size.saturating_sub(i * each))).collect::<Vec<usize>>()
        }
    };
    let sum = sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    match sum == Some(size) && sizes.len() == outputs {
        true => Ok(sizes),
        false => Err(format!("{outputs} parts of {sizes:?} from {size} elements")),
    }
}

fn concat(node: NodeView, inputs: &[Option<&Array>]) -> Result<Vec<Array>, String> {
    let parts: Vec<&Array> = inputs.iter().copied().collect::<Option<_>>().ok_or("an input is missing")?;
    let first = *parts.first().ok_or("no inputs")?;
    let at = axis(node.int("axis", 0), first.dims.len())?;
    let outer: usize = first.dims[..at].iter().product();
    let mut dims = first.dims.clone();
    dims[at] = 0;
    for part in &parts {
        let fits = part.dims.len() == dims.len() && (0..dims.len()).all(|i| i == at || part.dims[i] == dims[i]);
        if !fits || matches!(part.data, Data::Int(_)) != matches!(first.data, Data::Int(_)) {
            return Err(format!("tensors of {:?} and {:?} side by side", first.dims, part.dims));
        }
        dims[at] += part.dims[at];
    }
    bounded(&dims)?;
    fn join<'a, T: Copy + 'a>(parts: impl Iterator<Item = &'a [T]> + Clone, outer: usize) -> Vec<T> {
        (0..outer)
            .flat_map(|i| {
                parts.clone().flat_map(move |part| part[i * (part.len() / outer)..][..part.len() / outer].to_vec())
            })
            .collect()
    }
    let data = match first.data {
        Data::Int(_) => Data::Int(join(parts.iter().filter_map(|part| part.to_ints().ok()), outer.max(1))),
        Data::Float(_) => {
            let floats =
                parts.iter().filter_map(|part| if let Data::Float(data) = &part.data { Some(&data[..]) } else { None });
            Data::Float(join(floats, outer.max(1)))
        }
    };
    Ok(vec![Array { dims, kind: first.kind, data, steps: None }])
}

fn gather(array: &Array, indices: &Array, number: i64) -> Result<Vec<Array>, String> {
    let at = axis(number, array.dims.len())?;
    let size = array.dims[at] as i64;
    let places = indices.to_ints()?.iter().map(|&i| {
        let i = if i < 0 { i + size } else { i };
        usize::try_from(i).ok().filter(|&i| i < size as usize).ok_or_else(|| format!("index {i} of {size}"))
    });
    let dims = [&array.dims[..at], &indices.dims, &array.dims[at + 1..]].concat();
    bounded(&dims)?;
    let taken = take(array, at, &places.collect::<Result<Vec<_>, _>>()?);
    Ok(vec![Array { dims, ..taken }])
}
