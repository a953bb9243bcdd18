//! ONNX graphs in plain loops: the operators that exports use, on integers or floats.

use std::collections::HashMap;
use std::ops::{Add, Div, Mul, Sub};

use bitpact_interop::onnx::proto::{Attribute, Graph, Node, Tensor};

/// Elements that a graph computes with.
pub(crate) trait Number:
    Copy + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    fn of(v: f64) -> Self;
    fn of_int(v: i64) -> Self;
    fn to_int(self) -> i64;
    fn modulo(self, by: Self) -> Self;
    fn rounded(self) -> Self;
}

impl Number for i64 {
    fn of(_: f64) -> Self {
        panic!("a float in a graph of integers")
    }
    fn of_int(v: i64) -> Self {
        v
    }
    fn to_int(self) -> i64 {
        self
    }
    fn modulo(self, by: Self) -> Self {
        self.rem_euclid(by)
    }
    fn rounded(self) -> Self {
        panic!("a rounding in a graph of integers")
    }
}

impl Number for f64 {
    fn of(v: f64) -> Self {
        v
    }
    fn of_int(v: i64) -> Self {
        v as f64
    }
    fn to_int(self) -> i64 {
        assert_eq!(self.fract(), 0.0, "a whole number");
        self as i64
    }
    fn modulo(self, by: Self) -> Self {
        self.rem_euclid(by)
    }
    fn rounded(self) -> Self {
        self.round_ties_even()
    }
}

/// A tensor.
#[derive(Debug, Clone)]
pub(crate) struct Array<T> {
    pub(crate) dims: Vec<usize>,
    pub(crate) data: Vec<T>,
    /// Number of the element type.
    kind: i32,
}

impl<T: Number> Array<T> {
    pub(crate) fn new(dims: &[usize], data: Vec<T>, kind: i32) -> Self {
        assert_eq!(dims.iter().product::<usize>(), data.len(), "{dims:?}");
        Self { dims: dims.to_vec(), data, kind }
    }

    fn place(&self, index: &[usize]) -> usize {
        self.dims.iter().zip(index).fold(0, |at, (&n, &i)| at * n + i)
    }

    /// An array whose element at each index is that of `self` at `source`, or `fill`.
    fn moved(&self, dims: Vec<usize>, fill: Option<T>, source: impl Fn(&[usize]) -> Option<Vec<usize>>) -> Self {
        let data = indices(&dims)
            .map(|index| match source(&index) {
                Some(from) => self.data[self.place(&from)],
                None => fill.expect("nothing is inserted"),
            })
            .collect();
        Self { dims, data, kind: self.kind }
    }

    fn ints(&self) -> Vec<i64> {
        self.data.iter().map(|v| v.to_int()).collect()
    }
}

fn indices(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let dims = dims.to_vec();
    (0..dims.iter().product()).map(move |mut i| {
        let mut index = vec![0; dims.len()];
        for axis in (0..dims.len()).rev() {
            index[axis] = i % dims[axis];
            i /= dims[axis];
        }
        index
    })
}

/// Bits of an element type and whether it has a sign; floats have none.
fn integer(kind: i32) -> Option<(u32, bool)> {
    Some(match kind {
        2 => (8, false),
        3 => (8, true),
        5 => (16, true),
        6 => (32, true),
        7 => (64, true),
        21 => (4, false),
        22 => (4, true),
        25 => (2, false),
        26 => (2, true),
        1 => return None,
        other => panic!("element type {other}"),
    })
}

/// Smallest and largest value of an element type.
fn limits(kind: i32) -> (i64, i64) {
    match integer(kind).expect("an integer type") {
        (64, _) => (i64::MIN, i64::MAX),
        (bits, true) => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        (bits, false) => (0, (1 << bits) - 1),
    }
}

fn read<T: Number>(tensor: &Tensor) -> Array<T> {
    let dims: Vec<usize> = tensor.dims.iter().map(|&n| n as usize).collect();
    let kind = tensor.data_type.unwrap();
    let bytes = tensor.raw_data.as_ref().unwrap();
    let n: usize = dims.iter().product();
    let data = match integer(kind) {
        None => bytes.chunks_exact(4).map(|b| T::of(f32::from_le_bytes(b.try_into().unwrap()).into())).collect(),
        Some((bits, signed)) => {
            assert_eq!(bytes.len(), (n * bits as usize).div_ceil(8), "bytes of {:?}", tensor.name);
            let bit = |at: usize| u64::from(bytes[at / 8] >> (at % 8) & 1);
            let value = |i: usize| {
                let raw = (0..bits as usize).fold(0, |v, b| v | bit(i * bits as usize + b) << b);
                let up = 64 - bits;
                if signed { ((raw << up) as i64) >> up } else { raw as i64 }
            };
            (0..n).map(|i| T::of_int(value(i))).collect()
        }
    };
    Array::new(&dims, data, kind)
}

/// Every value of a graph for one image, by name.
pub(crate) fn run<T: Number>(graph: &Graph, input: Array<T>) -> HashMap<String, Array<T>> {
    let mut values: HashMap<String, Array<T>> = HashMap::new();
    for tensor in &graph.initializer {
        assert!(values.insert(tensor.name.clone().unwrap(), read(tensor)).is_none(), "{:?} twice", tensor.name);
    }
    values.insert(graph.input[0].name.clone().unwrap(), input);
    for node in &graph.node {
        let inputs: Vec<&Array<T>> = node
            .input
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| values.get(name).unwrap_or_else(|| panic!("{name} is read before it is there")))
            .collect();
        let value = compute(node, &inputs);
        assert!(values.insert(node.output[0].clone(), value).is_none(), "{} twice", node.output[0]);
    }
    for output in &graph.output {
        assert!(values.contains_key(output.name.as_deref().unwrap()));
    }
    values
}

fn attribute<'a>(node: &'a Node, name: &str) -> Option<&'a Attribute> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
}

fn sizes(node: &Node, name: &str) -> Option<Vec<usize>> {
    Some(attribute(node, name)?.ints.iter().map(|&n| n as usize).collect())
}

fn number(node: &Node, name: &str) -> Option<i64> {
    attribute(node, name)?.i
}

fn compute<T: Number>(node: &Node, inputs: &[&Array<T>]) -> Array<T> {
    let x = inputs[0];
    let fold = |f: fn(T, T) -> T| {
        let rest = inputs[1..].iter();
        rest.fold(x.clone(), |sum, other| broadcast(&sum, other, f))
    };
    match node.op_type.as_deref().unwrap() {
        "Identity" => x.clone(),
        "Cast" => {
            let kind = number(node, "to").unwrap() as i32;
            if integer(kind).is_some() {
                let (lo, hi) = limits(kind);
                assert!(x.data.iter().all(|v| (lo..=hi).contains(&v.to_int())), "{:?}", node.name);
            }
            Array { kind, ..x.clone() }
        }
        "Add" => fold(|a, b| a + b),
        "Sub" => fold(|a, b| a - b),
        "Mul" => fold(|a, b| a * b),
        "Div" => fold(|a, b| a / b),
        "Mod" => fold(T::modulo),
        "Max" => fold(|a, b| if a > b { a } else { b }),
        "Min" => fold(|a, b| if a < b { a } else { b }),
        "Round" => Array { data: x.data.iter().map(|v| v.rounded()).collect(), ..x.clone() },
        "Clip" => {
            let (lo, hi) = (inputs[1].data[0], inputs[2].data[0]);
            let clamp = |&v: &T| {
                if v < lo {
                    lo
                } else if v > hi {
                    hi
                } else {
                    v
                }
            };
            Array { data: x.data.iter().map(clamp).collect(), ..x.clone() }
        }
        "Reshape" => {
            let dims = inputs[1].ints();
            let dims: Vec<usize> =
                dims.iter().enumerate().map(|(i, &n)| if n == 0 { x.dims[i] } else { n as usize }).collect();
            Array::new(&dims, x.data.clone(), x.kind)
        }
        "Flatten" => Array::new(&[x.dims[0], x.dims[1..].iter().product()], x.data.clone(), x.kind),
        "Transpose" => {
            let perm = sizes(node, "perm").unwrap();
            let dims = perm.iter().map(|&axis| x.dims[axis]).collect();
            x.moved(dims, None, |index| {
                let mut from = vec![0; perm.len()];
                perm.iter().zip(index).for_each(|(&axis, &i)| from[axis] = i);
                Some(from)
            })
        }
        "Slice" => {
            let [starts, ends, axes, steps] = [1, 2, 3, 4].map(|i| inputs[i].ints());
            let mut dims = x.dims.clone();
            for (i, &axis) in axes.iter().enumerate() {
                let end = ends[i].min(dims[axis as usize] as i64);
                dims[axis as usize] = (end - starts[i]).div_euclid(steps[i]) as usize
                    + usize::from((end - starts[i]).rem_euclid(steps[i]) > 0);
            }
            x.moved(dims, None, |index| {
                let mut from = index.to_vec();
                for (i, &axis) in axes.iter().enumerate() {
                    from[axis as usize] = (starts[i] + index[axis as usize] as i64 * steps[i]) as usize;
                }
                Some(from)
            })
        }
        "Pad" => {
            let pads: Vec<usize> = inputs[1].ints().iter().map(|&n| n as usize).collect();
            let rank = x.dims.len();
            let dims = (0..rank).map(|axis| pads[axis] + x.dims[axis] + pads[rank + axis]).collect();
            x.moved(dims, Some(inputs[2].data[0]), |index| {
                (0..rank)
                    .map(|axis| index[axis].checked_sub(pads[axis]).filter(|&i| i < x.dims[axis]))
                    .collect::<Option<Vec<usize>>>()
            })
        }
        "Expand" => {
            let dims: Vec<usize> = inputs[1].ints().iter().zip(&x.dims).map(|(&to, &n)| n.max(to as usize)).collect();
            x.moved(dims, None, |index| Some(index.iter().zip(&x.dims).map(|(&i, &n)| i.min(n - 1)).collect()))
        }
        "Concat" => {
            assert_eq!(number(node, "axis"), Some(1));
            let mut dims = x.dims.clone();
            dims[1] = inputs.iter().map(|x| x.dims[1]).sum();
            let data = indices(&dims)
                .map(|mut index| {
                    let mut inputs = inputs.iter();
                    loop {
                        let x = inputs.next().unwrap();
                        if index[1] < x.dims[1] {
                            return x.data[x.place(&index)];
                        }
                        index[1] -= x.dims[1];
                    }
                })
                .collect();
            Array { dims, data, kind: x.kind }
        }
        "Gather" => match number(node, "axis").unwrap_or(0) {
            0 => {
                let data = inputs[1].ints().iter().map(|&i| x.data[i as usize]).collect();
                Array { dims: inputs[1].dims.clone(), data, kind: x.kind }
            }
            1 => {
                let picked = inputs[1].ints();
                let mut dims = x.dims.clone();
                dims[1] = picked.len();
                x.moved(dims, None, |index| {
                    let mut from = index.to_vec();
                    from[1] = picked[index[1]] as usize;
                    Some(from)
                })
            }
            axis => panic!("axis {axis}"),
        },
        "ReduceSum" => {
            assert_eq!(inputs[1].ints(), [2, 3]);
            mean(x, T::of_int(1))
        }
        "GlobalAveragePool" => mean(x, T::of_int((x.dims[2] * x.dims[3]) as i64)),
        "Conv" => conv(node, x, inputs[1], T::of_int(0), inputs.get(2).copied()),
        "ConvInteger" => {
            assert_eq!(x.kind, 2, "ConvInteger reads uint8");
            let zero = inputs.get(2).map_or(T::of_int(0), |zero| zero.data[0]);
            let sums = conv(node, x, inputs[1], zero, None);
            assert!(sums.data.iter().all(|v| i32::try_from(v.to_int()).is_ok()), "sums of 32 bits");
            sums
        }
        "MaxPool" => {
            let largest = |seen: &[Option<T>]| {
                let mut seen = seen.iter().flatten().copied();
                let first = seen.next().expect("no window sees padding alone");
                seen.fold(first, |a, b| if b > a { b } else { a })
            };
            pool(node, x, largest)
        }
        "AveragePool" => {
            assert_eq!(number(node, "count_include_pad"), Some(1));
            pool(node, x, |seen| {
                let sum = seen.iter().flatten().fold(T::of_int(0), |a, &b| a + b);
                sum / T::of_int(seen.len() as i64)
            })
        }
        "Gemm" => {
            let (w, k) = (inputs[1], x.dims[1]);
            let data = (0..w.dims[0])
                .map(|o| {
                    let products = (0..k).map(|i| x.data[i] * w.data[o * k + i]);
                    let sum = products.fold(T::of_int(0), |a, b| a + b);
                    inputs.get(2).map_or(sum, |bias| sum + bias.data[o])
                })
                .collect();
            Array::new(&[1, w.dims[0]], data, 1)
        }
        "QuantizeLinear" => {
            let (scale, zero, kind) = (inputs[1].data[0], inputs[2].data[0], inputs[2].kind);
            let (lo, hi) = limits(kind);
            let code = |&v: &T| T::of_int(((v / scale).rounded() + zero).to_int().clamp(lo, hi));
            Array { dims: x.dims.clone(), data: x.data.iter().map(code).collect(), kind }
        }
        "DequantizeLinear" => {
            let zero = inputs.get(2).map_or(T::of_int(0), |zero| zero.data[0]);
            let scales = inputs[1];
            let each = if scales.dims.is_empty() { x.data.len() } else { x.data.len() / scales.data.len() };
            let real = |(i, &v): (usize, &T)| (v - zero) * scales.data[i / each];
            Array { dims: x.dims.clone(), data: x.data.iter().enumerate().map(real).collect(), kind: 1 }
        }
        "Quant" => {
            assert_eq!(node.domain.as_deref(), Some("qonnx.custom_op.general"));
            let bits = inputs[3].data[0].to_int();
            let (signed, narrow) = (number(node, "signed").unwrap(), number(node, "narrow").unwrap());
            let (lo, hi) = match (signed, narrow) {
                (1, narrow) => (-(1 << (bits - 1)) + narrow, (1 << (bits - 1)) - 1),
                _ => (0, (1 << bits) - 1),
            };
            let scaled = broadcast(x, inputs[1], |a, b| a / b);
            let rounded = scaled.data.iter().map(|v| T::of_int(v.rounded().to_int().clamp(lo, hi))).collect();
            broadcast(&Array { data: rounded, ..scaled }, inputs[1], |a, b| a * b)
        }
        "BipolarQuant" => {
            let zero = T::of_int(0);
            let signs = x.data.iter().map(|&v| T::of_int(if v < zero { -1 } else { 1 })).collect();
            broadcast(&Array { data: signs, ..x.clone() }, inputs[1], |a, b| a * b)
        }
        other => panic!("operator {other}"),
    }
}

fn broadcast<T: Number>(a: &Array<T>, b: &Array<T>, f: fn(T, T) -> T) -> Array<T> {
    let rank = a.dims.len().max(b.dims.len());
    let long = |dims: &[usize]| {
        let mut long = vec![1; rank - dims.len()];
        long.extend(dims);
        long
    };
    let [da, db] = [long(&a.dims), long(&b.dims)];
    let dims: Vec<usize> = da.iter().zip(&db).map(|(&a, &b)| a.max(b)).collect();
    assert!(dims.iter().zip(da.iter().zip(&db)).all(|(&n, (&a, &b))| [1, n].contains(&a) && [1, n].contains(&b)));
    let at = |dims: &[usize], index: &[usize]| dims.iter().zip(index).fold(0, |at, (&n, &i)| at * n + i.min(n - 1));
    let data = indices(&dims).map(|index| f(a.data[at(&da, &index)], b.data[at(&db, &index)])).collect();
    Array { dims, data, kind: a.kind }
}

fn mean<T: Number>(x: &Array<T>, by: T) -> Array<T> {
    let plane = x.dims[2] * x.dims[3];
    let data = x.data.chunks_exact(plane).map(|p| p.iter().fold(T::of_int(0), |a, &b| a + b) / by).collect();
    Array { dims: vec![x.dims[0], x.dims[1], 1, 1], data, kind: x.kind }
}

/// What each position of a window sees: `[row][column]` of the kernel, `None` where that is padding.
fn windows(node: &Node, h: usize, w: usize) -> (Vec<usize>, Vec<Vec<Option<usize>>>) {
    let list = |name: &str, or: Vec<usize>| sizes(node, name).unwrap_or(or);
    let kernel = sizes(node, "kernel_shape").unwrap();
    let (stride, dilation) = (list("strides", vec![1, 1]), list("dilations", vec![1, 1]));
    let pads = list("pads", vec![0; 4]);
    let sides = [h, w];
    let out: Vec<usize> = (0..2)
        .map(|i| (sides[i] + pads[i] + pads[i + 2] - ((kernel[i] - 1) * dilation[i] + 1)) / stride[i] + 1)
        .collect();
    let see = |position: Vec<usize>| {
        indices(&kernel)
            .map(|k| {
                let at = |i: usize| (position[i] * stride[i] + k[i] * dilation[i]).checked_sub(pads[i]);
                let (y, x) = (at(0)?, at(1)?);
                (y < h && x < w).then_some(y * w + x)
            })
            .collect()
    };
    let seen = indices(&out).map(see).collect();
    (out, seen)
}

fn pool<T: Number>(node: &Node, x: &Array<T>, f: impl Fn(&[Option<T>]) -> T) -> Array<T> {
    let (out, seen) = windows(node, x.dims[2], x.dims[3]);
    let plane = x.dims[2] * x.dims[3];
    let of_window =
        |p: &[T], window: &Vec<Option<usize>>| f(&window.iter().map(|at| at.map(|at| p[at])).collect::<Vec<_>>());
    let data =
        x.data.chunks_exact(plane).flat_map(|p| seen.iter().map(|window| of_window(p, window)).collect::<Vec<_>>());
    Array { dims: vec![x.dims[0], x.dims[1], out[0], out[1]], data: data.collect(), kind: x.kind }
}

fn conv<T: Number>(node: &Node, x: &Array<T>, w: &Array<T>, zero: T, bias: Option<&Array<T>>) -> Array<T> {
    let groups = number(node, "group").unwrap_or(1) as usize;
    let (out, seen) = windows(node, x.dims[2], x.dims[3]);
    let (outputs, inputs) = (w.dims[0], w.dims[1]);
    assert_eq!(x.dims[1], inputs * groups);
    let (plane, taps) = (x.dims[2] * x.dims[3], w.dims[2] * w.dims[3]);
    let mut data = Vec::new();
    for o in 0..outputs {
        let first = o / (outputs / groups) * inputs;
        for window in &seen {
            let mut sum = bias.map_or(T::of_int(0), |bias| bias.data[o]);
            for i in 0..inputs {
                for (tap, at) in window.iter().enumerate().filter_map(|(tap, at)| Some((tap, (*at)?))) {
                    sum = sum + x.data[(first + i) * plane + at] * (w.data[(o * inputs + i) * taps + tap] - zero);
                }
            }
            data.push(sum);
        }
    }
    Array { dims: vec![1, outputs, out[0], out[1]], data, kind: 6 }
}
