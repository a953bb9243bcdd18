//! Moves of elements, padding and spreading as standard operators, on tensors `[N, C, H, W]` of any element type.

use bitpact_graph::{Move, Padding, Shape, Window};

use super::writer::{Parameter, Scalar, Writer};

/// Axes of the tensors.
const CHANNELS: i64 = 1;
const ROWS: i64 = 2;
const COLUMNS: i64 = 3;

/// The tensor `x` of shape `from` after `moves`; `fill` is what they insert.
pub(super) fn moved(w: &mut Writer, x: &str, from: Shape, moves: &[Move], fill: Scalar, base: &str) -> String {
    let mut x = x.to_owned();
    let mut shape = from;
    for step in moves {
        let to = step.shape(shape).expect("moves of a checked network fit");
        x = match *step {
            Move::Stride { rows, columns } => {
                let ends = [shape.h as i64, shape.w as i64];
                slice(w, &x, &[ROWS, COLUMNS], &[0, 0], &ends, &[rows as i64, columns as i64], base)
            }
            Move::Crop { top, left, height, width } => {
                let [top, left, height, width] = [top, left, height, width].map(|n| n as i64);
                slice(w, &x, &[ROWS, COLUMNS], &[top, left], &[top + height, left + width], &[1, 1], base)
            }
            Move::Channels { first, count } => channels(w, &x, first, count, base),
            Move::Insert { top, left, bottom, right, before, after } => {
                pad(w, &x, &[0, before, top, left, 0, after, bottom, right], fill, base)
            }
            Move::PixelShuffle { factor: f } => {
                let x = w.reshape(&x, &[to.c, f, f, shape.h, shape.w], base);
                let x = w.node("Transpose", &[&x], base, &[("perm", Parameter::Perm(&[0, 1, 4, 2, 5, 3]))]);
                w.reshape(&x, &[to.c, to.h, to.w], base)
            }
            Move::PixelUnshuffle { factor: f } => {
                let x = w.reshape(&x, &[shape.c, to.h, f, to.w, f], base);
                let x = w.node("Transpose", &[&x], base, &[("perm", Parameter::Perm(&[0, 1, 3, 5, 2, 4]))]);
                w.reshape(&x, &[to.c, to.h, to.w], base)
            }
            Move::ChannelShuffle { groups } => {
                let x = w.reshape(&x, &[groups, shape.c / groups, shape.h, shape.w], base);
                let x = w.node("Transpose", &[&x], base, &[("perm", Parameter::Perm(&[0, 2, 1, 3, 4]))]);
                w.reshape(&x, &[to.c, to.h, to.w], base)
            }
            Move::Repeat { rows, columns } => {
                let x = w.reshape(&x, &[shape.c, shape.h, 1, shape.w, 1], base);
                let times = w.ints("times", &[1, 1, 1, rows as i64, 1, columns as i64]);
                let x = w.node("Expand", &[&x, &times], base, &[]);
                w.reshape(&x, &[to.c, to.h, to.w], base)
            }
        };
        shape = to;
    }
    x
}

/// `count` channels from number `first`.
pub(super) fn channels(w: &mut Writer, x: &str, first: usize, count: usize, base: &str) -> String {
    slice(w, x, &[CHANNELS], &[first as i64], &[(first + count) as i64], &[1], base)
}

/// What position by position the element `(row, column)` of a window sees, of a tensor that is padded already.
pub(super) fn tap(
    w: &mut Writer,
    x: &str,
    window: &Window,
    k: [usize; 2],
    positions: [usize; 2],
    base: &str,
) -> String {
    let start = [0, 1].map(|i| (k[i] * window.dilation[i]) as i64);
    let step = window.stride.map(|s| s as i64);
    let end = [0, 1].map(|i| start[i] + (positions[i] as i64 - 1) * step[i] + 1);
    slice(w, x, &[ROWS, COLUMNS], &start, &end, &step, base)
}

/// The rows of a tensor, padded already, that `rows` of the kernel see at `positions` places below each other.
pub(super) fn rows(
    w: &mut Writer,
    x: &str,
    window: &Window,
    rows: std::ops::Range<usize>,
    positions: usize,
    base: &str,
) -> String {
    let from = rows.start * window.dilation[0];
    let to = (positions - 1) * window.stride[0] + (rows.end - 1) * window.dilation[0] + 1;
    slice(w, x, &[ROWS], &[from as i64], &[to as i64], &[1], base)
}

fn slice(w: &mut Writer, x: &str, axes: &[i64], from: &[i64], to: &[i64], steps: &[i64], base: &str) -> String {
    let lists =
        [("starts", from), ("ends", to), ("axes", axes), ("steps", steps)].map(|(name, list)| w.ints(name, list));
    let [from, to, axes, steps] = &lists;
    w.node("Slice", &[x, from, to, axes, steps], base, &[])
}

/// Padding by sides, all before the first axis to the last, then all after.
fn pad(w: &mut Writer, x: &str, sides: &[usize], fill: Scalar, base: &str) -> String {
    let sides: Vec<i64> = sides.iter().map(|&n| n as i64).collect();
    let sides = w.ints("pads", &sides);
    let fill = w.scalar("fill", fill);
    w.node("Pad", &[x, &sides, &fill], base, &[])
}

/// Rows and columns of `fill` beside a tensor; the tensor itself where there are none.
pub(super) fn padded(w: &mut Writer, x: &str, padding: Padding, fill: Scalar, base: &str) -> String {
    let Padding { top, left, bottom, right } = padding;
    if padding.is_none() {
        return x.to_owned();
    }
    pad(w, x, &[0, 0, top, left, 0, 0, bottom, right], fill, base)
}

/// The tensor as a window with spread sees it, `spread - 1` rows and columns of `fill` between each two of its own; the
/// tensor itself where the spread is 1.
pub(super) fn spread(w: &mut Writer, x: &str, shape: Shape, spread: [usize; 2], fill: Scalar, base: &str) -> String {
    let [rows, columns] = spread;
    if spread == [1; 2] {
        return x.to_owned();
    }
    let x = w.reshape(x, &[shape.c, shape.h, 1, shape.w, 1], base);
    let x = pad(w, &x, &[0, 0, 0, 0, 0, 0, 0, 0, 0, rows - 1, 0, columns - 1], fill, base);
    let x = w.reshape(&x, &[shape.c, shape.h * rows, shape.w * columns], base);
    let ends = [(shape.h - 1) * rows + 1, (shape.w - 1) * columns + 1].map(|n| n as i64);
    slice(w, &x, &[ROWS, COLUMNS], &[0, 0], &ends, &[1, 1], base)
}

/// Parameters of a convolution or pool over a tensor that is spread already; `pads` are left to the operator.
pub(super) fn window<'a>(window: &'a Window, pads: &'a [usize; 4]) -> [(&'static str, Parameter<'a>); 4] {
    [
        ("kernel_shape", Parameter::Ints(&window.kernel)),
        ("strides", Parameter::Ints(&window.stride)),
        ("pads", Parameter::Ints(pads)),
        ("dilations", Parameter::Ints(&window.dilation)),
    ]
}

/// Paddings in the order of ONNX.
pub(super) fn pads(padding: Padding) -> [usize; 4] {
    let Padding { top, left, bottom, right } = padding;
    [top, left, bottom, right]
}
