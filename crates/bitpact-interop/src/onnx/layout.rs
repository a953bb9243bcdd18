//! Which element of our height x width x channels stands where in a tensor of ONNX.
//!
//! A tensor of ONNX is a list of sizes; a tensor here has rows, columns and channels beside the batch. The two are tied
//! by atoms: each size of the ONNX tensor is a product of pieces of our axes, the outermost first. Reshapes cut and
//! join atoms, transpositions order them, so that chains of both cost nothing and a channel shuffle is recognized
//! whole.

use bitpact_graph::{Move, Shape};

/// An axis of a tensor here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    Batch,
    Channel,
    Row,
    Column,
}

/// A piece of an axis: `size` steps of `stride` elements along it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Atom {
    pub(super) axis: Axis,
    pub(super) size: usize,
    pub(super) stride: usize,
}

/// The sizes of an ONNX tensor as pieces of our axes; a size of 1 has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) dims: Vec<Vec<Atom>>,
}

/// A whole axis.
fn whole(axis: Axis, size: usize) -> Vec<Atom> {
    if size == 1 { Vec::new() } else { vec![Atom { axis, size, stride: 1 }] }
}

fn product(atoms: &[Atom]) -> usize {
    atoms.iter().map(|atom| atom.size).product()
}

impl Layout {
    /// The layout whose sizes are these axes, in this order.
    pub(super) fn of(axes: &[Axis], batch: usize, shape: Shape) -> Self {
        let size = |axis: Axis| match axis {
            Axis::Batch => batch,
            Axis::Channel => shape.c,
            Axis::Row => shape.h,
            Axis::Column => shape.w,
        };
        Self { dims: axes.iter().map(|&axis| whole(axis, size(axis))).collect() }
    }

    /// ONNX's usual layout of `rank` sizes: N x C, N x C x L, or N x C x H x W.
    pub(super) fn usual(rank: usize, batch: usize, shape: Shape) -> Self {
        let axes: &[Axis] = match rank {
            2 => &[Axis::Batch, Axis::Channel],
            3 => &[Axis::Batch, Axis::Channel, Axis::Column],
            _ => &[Axis::Batch, Axis::Channel, Axis::Row, Axis::Column],
        };
        Self::of(axes, batch, shape)
    }

    /// Sizes of the ONNX tensor.
    pub(super) fn sizes(&self) -> Vec<usize> {
        self.dims.iter().map(|atoms| product(atoms)).collect()
    }

    /// Whether a size is a whole axis.
    pub(super) fn is_whole(&self, dim: usize, axis: Axis, size: usize) -> bool {
        self.dims[dim] == whole(axis, size)
    }

    /// The sizes `perm`, in this order.
    pub(super) fn transposed(&self, perm: &[usize]) -> Self {
        Self { dims: perm.iter().map(|&dim| self.dims[dim].clone()).collect() }
    }

    /// The same elements in the same order as other sizes; `None` where an atom would be cut in pieces that do not
    /// divide it.
    pub(super) fn reshaped(&self, sizes: &[usize]) -> Option<Self> {
        let mut atoms = self.dims.iter().flatten().copied().collect::<Vec<_>>().into_iter();
        let mut left: Option<Atom> = None;
        let mut dims = Vec::with_capacity(sizes.len());
        for &size in sizes {
            let (mut dim, mut missing) = (Vec::new(), size);
            while missing > 1 {
                let atom = left.take().or_else(|| atoms.next())?;
                if missing.is_multiple_of(atom.size) {
                    missing /= atom.size;
                    dim.push(atom);
                } else if atom.size.is_multiple_of(missing) {
                    let inner = atom.size / missing;
                    dim.push(Atom { size: missing, stride: atom.stride * inner, ..atom });
                    left = Some(Atom { size: inner, ..atom });
                    missing = 1;
                } else {
                    return None;
                }
            }
            dims.push(joined(dim));
        }
        (left.is_none() && atoms.next().is_none()).then_some(Self { dims })
    }

    /// The order of elements of one image, as the position in channel, row, column order of each.
    pub(super) fn order(&self, shape: Shape) -> Vec<usize> {
        let atoms: Vec<Atom> = self.dims.iter().flatten().copied().filter(|a| a.axis != Axis::Batch).collect();
        let mut order = vec![0];
        for atom in atoms {
            let unit = atom.stride
                * match atom.axis {
                    Axis::Channel => shape.h * shape.w,
                    Axis::Row => shape.w,
                    Axis::Column | Axis::Batch => 1,
                };
            order = order.iter().flat_map(|&at| (0..atom.size).map(move |step| at + step * unit)).collect();
        }
        order
    }

    /// The moves that make a tensor of `shape` whose channels, rows and columns are whole sizes of this layout, in its
    /// usual form; `None` where no move does it.
    pub(super) fn moves(&self, batch: usize, shape: Shape) -> Option<Vec<Move>> {
        if self.dims.len() != 4 || !self.is_whole(0, Axis::Batch, batch) {
            return None;
        }
        let [channels, rows, columns] = [&self.dims[1], &self.dims[2], &self.dims[3]];
        let usual = |dim: usize, axis: Axis, size: usize| self.is_whole(dim, axis, size);
        if usual(2, Axis::Row, shape.h) && usual(3, Axis::Column, shape.w) {
            return shuffle(channels).map(|groups| vec![Move::ChannelShuffle { groups }]);
        }
        // Channels that became pixels.
        if let (Some((row, a)), Some((column, b))) =
            (pixels(rows, Axis::Row, shape.h), pixels(columns, Axis::Column, shape.w))
            && let (Some(a), Some(b)) = (a, b)
            && a.size == b.size
            && row
            && column
        {
            let (factor, square) = (a.size, a.size * a.size);
            let kept = shape.c / square;
            let kept_stride =
                |stride: usize| kept == 1 || channels[..] == [Atom { axis: Axis::Channel, size: kept, stride }];
            let unshuffled = Move::PixelShuffle { factor };
            if (a.stride, b.stride) == (factor, 1) && kept_stride(square) {
                return Some(vec![unshuffled]);
            }
            if (a.stride, b.stride) == (factor * kept, kept) && kept_stride(1) {
                return Some(vec![Move::ChannelShuffle { groups: square }, unshuffled]);
            }
        }
        // Pixels that became channels.
        let factor = channels.iter().find(|atom| atom.axis == Axis::Row)?.size;
        let (rows_left, columns_left) = (shape.h / factor, shape.w / factor);
        let strided = |atoms: &[Atom], axis: Axis, size: usize| match size {
            1 => atoms.is_empty(),
            _ => atoms == [Atom { axis, size, stride: factor }],
        };
        if !strided(rows, Axis::Row, rows_left) || !strided(columns, Axis::Column, columns_left) {
            return None;
        }
        let offsets =
            [Atom { axis: Axis::Row, size: factor, stride: 1 }, Atom { axis: Axis::Column, size: factor, stride: 1 }];
        let all = whole(Axis::Channel, shape.c);
        let gathered = Move::PixelUnshuffle { factor };
        if *channels == [&all[..], &offsets].concat() {
            return Some(vec![gathered]);
        }
        if *channels == [&offsets[..], &all].concat() {
            return Some(vec![gathered, Move::ChannelShuffle { groups: shape.c }]);
        }
        None
    }
}

/// Atoms that follow each other along one axis are one.
fn joined(atoms: Vec<Atom>) -> Vec<Atom> {
    let mut joined: Vec<Atom> = Vec::with_capacity(atoms.len());
    for atom in atoms {
        match joined.last_mut() {
            Some(last) if last.axis == atom.axis && last.stride == atom.stride * atom.size => {
                *last = Atom { size: last.size * atom.size, ..atom };
            }
            _ => joined.push(atom),
        }
    }
    joined
}

/// Groups of the channel shuffle that two atoms of channels are.
fn shuffle(channels: &[Atom]) -> Option<usize> {
    match channels {
        [inner, groups] if inner.axis == Axis::Channel && groups.axis == Axis::Channel => {
            (inner.stride == 1 && groups.stride == inner.size).then_some(groups.size)
        }
        _ => None,
    }
}

/// Whether the atoms begin with a whole axis, and the piece of the channels behind it.
fn pixels(atoms: &[Atom], axis: Axis, size: usize) -> Option<(bool, Option<Atom>)> {
    let (first, last) = match atoms {
        [last] if size == 1 => (true, last),
        [first, last] => (*first == Atom { axis, size, stride: 1 }, last),
        _ => return None,
    };
    Some((first, (last.axis == Axis::Channel).then_some(*last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape::new(4, 6, 12);

    fn after(steps: &[(&[usize], &[usize])]) -> Layout {
        steps.iter().fold(Layout::usual(4, 1, SHAPE), |layout, (sizes, perm)| {
            let layout = if sizes.is_empty() { layout } else { layout.reshaped(sizes).unwrap() };
            if perm.is_empty() { layout } else { layout.transposed(perm) }
        })
    }

    #[test]
    fn reshapes_and_transpositions_become_moves() {
        let shuffle = after(&[(&[1, 3, 4, 4, 6], &[0, 2, 1, 3, 4]), (&[1, 12, 4, 6], &[])]);
        assert_eq!(shuffle.moves(1, SHAPE), Some(vec![Move::ChannelShuffle { groups: 3 }]));
        let up = after(&[(&[1, 3, 2, 2, 4, 6], &[0, 1, 4, 2, 5, 3]), (&[1, 3, 8, 12], &[])]);
        assert_eq!(up.moves(1, SHAPE), Some(vec![Move::PixelShuffle { factor: 2 }]));
        let dcr = after(&[(&[1, 2, 2, 3, 4, 6], &[0, 3, 4, 1, 5, 2]), (&[1, 3, 8, 12], &[])]);
        assert_eq!(
            dcr.moves(1, SHAPE),
            Some(vec![Move::ChannelShuffle { groups: 4 }, Move::PixelShuffle { factor: 2 }])
        );
        let down = after(&[(&[1, 12, 2, 2, 3, 2], &[0, 1, 3, 5, 2, 4]), (&[1, 48, 2, 3], &[])]);
        assert_eq!(down.moves(1, SHAPE), Some(vec![Move::PixelUnshuffle { factor: 2 }]));
        assert_eq!(after(&[(&[], &[0, 2, 3, 1]), (&[], &[0, 3, 1, 2])]), Layout::usual(4, 1, SHAPE));
        assert_eq!(after(&[(&[], &[0, 1, 3, 2])]).moves(1, SHAPE), None);
        assert!(Layout::usual(4, 1, SHAPE).reshaped(&[1, 5, 4, 6]).is_none());
    }

    #[test]
    fn the_order_of_a_flattened_tensor_follows_its_layout() {
        let last = after(&[(&[], &[0, 2, 3, 1]), (&[1, 288], &[])]);
        let order = last.order(SHAPE);
        assert_eq!(order[..3], [0, 24, 48]);
        assert_eq!(order[12], 1);
        assert!(after(&[(&[1, 288], &[])]).order(SHAPE).into_iter().eq(0..288));
    }
}
