//! Operations that move elements of a tensor and compute nothing.

use serde::{Deserialize, Serialize};

use crate::{Padding, Shape};

/// An operation that moves elements of a tensor. Rows, columns and channels that it inserts hold what stands for zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "move", rename_all = "snake_case", deny_unknown_fields)]
pub enum Move {
    /// Every `rows`-th row and every `columns`-th column, the first ones included.
    Stride {
        /// Distance of the rows that stay.
        rows: usize,
        /// Distance of the columns that stay.
        columns: usize,
    },
    /// A rectangle of the tensor.
    Crop {
        /// First row of the rectangle.
        top: usize,
        /// First column of the rectangle.
        left: usize,
        /// Number of rows.
        height: usize,
        /// Number of columns.
        width: usize,
    },
    /// A range of the channels.
    Channels {
        /// First channel.
        first: usize,
        /// Number of channels.
        count: usize,
    },
    /// Zero rows, columns and channels beside the tensor.
    Insert {
        /// Rows that are inserted above.
        top: usize,
        /// Columns that are inserted to the left.
        left: usize,
        /// Rows that are inserted below.
        bottom: usize,
        /// Columns that are inserted to the right.
        right: usize,
        /// Channels that are inserted before.
        before: usize,
        /// Channels that are inserted after.
        after: usize,
    },
    /// Channels become pixels: channel `c * factor^2 + a * factor + b` of pixel `(y, x)` is channel `c` of pixel
    /// `(y * factor + a, x * factor + b)`, as in PyTorch's `PixelShuffle`.
    PixelShuffle {
        /// Times as many rows and columns.
        factor: usize,
    },
    /// Pixels become channels, the inverse of [`Move::PixelShuffle`].
    PixelUnshuffle {
        /// Times as few rows and columns.
        factor: usize,
    },
    /// Channels of equal groups one after the other: channel `j * groups + g` is channel `g * (c / groups) + j`, the
    /// j-th of group g (Zhang et al. 2017, ShuffleNet, arXiv 1707.01083, section 3.1).
    ChannelShuffle {
        /// Number of groups.
        groups: usize,
    },
    /// Each pixel many times (nearest upsampling by whole factors).
    Repeat {
        /// Times that a row is there.
        rows: usize,
        /// Times that a column is there.
        columns: usize,
    },
}

/// An element by row, column and channel.
pub type Place = (usize, usize, usize);

impl Move {
    /// The move of an option-A shortcut: every `stride`-th pixel.
    pub const fn stride(stride: usize) -> Self {
        Move::Stride { rows: stride, columns: stride }
    }

    /// Zero channels before and after.
    pub const fn channels_inserted(before: usize, after: usize) -> Self {
        Move::Insert { top: 0, left: 0, bottom: 0, right: 0, before, after }
    }

    /// The move's name as it stands in files and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Move::Stride { .. } => "stride",
            Move::Crop { .. } => "crop",
            Move::Channels { .. } => "channels",
            Move::Insert { .. } => "insert",
            Move::PixelShuffle { .. } => "pixel_shuffle",
            Move::PixelUnshuffle { .. } => "pixel_unshuffle",
            Move::ChannelShuffle { .. } => "channel_shuffle",
            Move::Repeat { .. } => "repeat",
        }
    }

    /// The padding that the move inserts beside the tensor; none for other moves.
    pub fn padding(&self) -> Padding {
        match *self {
            Move::Insert { top, left, bottom, right, .. } => Padding { top, left, bottom, right },
            _ => Padding::default(),
        }
    }

    /// Tells whether the move inserts elements.
    pub fn inserts(&self) -> bool {
        matches!(self, Move::Insert { .. })
    }

    /// Shape of the moved tensor, from a tensor of shape `from`.
    ///
    /// # Errors
    /// Says what does not fit: a factor or stride of 0, a rectangle or range beyond the tensor or empty, sides or
    /// channels that a factor does not divide.
    pub fn shape(&self, from: Shape) -> Result<Shape, String> {
        let Shape { h, w, c } = from;
        let positive = |what: &str, n: usize| if n > 0 { Ok(()) } else { Err(format!("{what} 0, expected 1 or more")) };
        match *self {
            Move::Stride { rows, columns } => {
                positive("stride", rows.min(columns))?;
                Ok(Shape::new(h.div_ceil(rows), w.div_ceil(columns), c))
            }
            Move::Crop { top, left, height, width } => {
                positive("height", height)?;
                positive("width", width)?;
                let fits = |from: usize, n: usize, side: usize| from.checked_add(n).is_some_and(|end| end <= side);
                if !fits(top, height, h) || !fits(left, width, w) {
                    return Err(format!("a rectangle of {height}x{width} from row {top}, column {left} of {from}"));
                }
                Ok(Shape::new(height, width, c))
            }
            Move::Channels { first, count } => {
                positive("count", count)?;
                if first.checked_add(count).is_none_or(|end| end > c) {
                    return Err(format!("{count} channels from number {first} of {from}"));
                }
                Ok(Shape::new(h, w, count))
            }
            Move::Insert { top, left, bottom, right, before, after } => {
                let sum = |parts: [usize; 3]| parts.iter().try_fold(0usize, |sum, &part| sum.checked_add(part));
                match (sum([top, h, bottom]), sum([left, w, right]), sum([before, c, after])) {
                    (Some(h), Some(w), Some(c)) => Ok(Shape::new(h, w, c)),
                    _ => Err("more rows, columns or channels than can be counted".to_owned()),
                }
            }
            Move::PixelShuffle { factor } => {
                positive("factor", factor)?;
                let (Some(square), Some(h), Some(w)) =
                    (factor.checked_mul(factor), h.checked_mul(factor), w.checked_mul(factor))
                else {
                    return Err(format!("factor {factor} for {from}"));
                };
                match c.is_multiple_of(square) {
                    true => Ok(Shape::new(h, w, c / square)),
                    false => Err(format!("factor {factor}, but its square does not divide the {c} channels of {from}")),
                }
            }
            Move::PixelUnshuffle { factor } => {
                positive("factor", factor)?;
                let channels = factor.checked_mul(factor).and_then(|square| square.checked_mul(c));
                match channels {
                    Some(c) if h.is_multiple_of(factor) && w.is_multiple_of(factor) => {
                        Ok(Shape::new(h / factor, w / factor, c))
                    }
                    _ => Err(format!("factor {factor}, which does not divide the sides of {from}")),
                }
            }
            Move::ChannelShuffle { groups } => {
                positive("groups", groups)?;
                match c.is_multiple_of(groups) {
                    true => Ok(from),
                    false => Err(format!("{groups} groups, which do not divide the {c} channels of {from}")),
                }
            }
            Move::Repeat { rows, columns } => {
                positive("repetition", rows.min(columns))?;
                match (h.checked_mul(rows), w.checked_mul(columns)) {
                    (Some(h), Some(w)) => Ok(Shape::new(h, w, c)),
                    _ => Err(format!("{rows}x{columns} repetitions of {from}")),
                }
            }
        }
    }

    /// The element of a tensor of shape `from` that stands at a place of the moved one; `None` where it was inserted.
    pub fn source(&self, from: Shape, (y, x, c): Place) -> Option<Place> {
        match *self {
            Move::Stride { rows, columns } => Some((y * rows, x * columns, c)),
            Move::Crop { top, left, .. } => Some((y + top, x + left, c)),
            Move::Channels { first, .. } => Some((y, x, c + first)),
            Move::Insert { top, left, before, .. } => {
                let (y, x, c) = (y.checked_sub(top)?, x.checked_sub(left)?, c.checked_sub(before)?);
                (y < from.h && x < from.w && c < from.c).then_some((y, x, c))
            }
            Move::PixelShuffle { factor } => {
                let channel = (c * factor + y % factor) * factor + x % factor;
                Some((y / factor, x / factor, channel))
            }
            Move::PixelUnshuffle { factor } => {
                let (a, b) = (c / factor % factor, c % factor);
                Some((y * factor + a, x * factor + b, c / (factor * factor)))
            }
            Move::ChannelShuffle { groups } => Some((y, x, c % groups * (from.c / groups) + c / groups)),
            Move::Repeat { rows, columns } => Some((y / rows, x / columns, c)),
        }
    }
}

/// Shape after all of `moves`, one after the other.
///
/// # Errors
/// As [`Move::shape`].
pub fn moved_shape(from: Shape, moves: &[Move]) -> Result<Shape, String> {
    moves.iter().try_fold(from, |shape, step| step.shape(shape))
}

/// The element of a tensor of shape `from` that stands at a place after all of `moves`; `None` where it was inserted.
///
/// # Panics
/// If the moves do not fit the shape ([`moved_shape`]).
pub fn moved_source(from: Shape, moves: &[Move], place: Place) -> Option<Place> {
    let Some((last, before)) = moves.split_last() else { return Some(place) };
    let between = moved_shape(from, before).expect("moves fit their shape");
    moved_source(from, before, last.source(between, place)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Shape = Shape::new(4, 6, 8);

    fn all() -> [Move; 8] {
        [
            Move::Stride { rows: 3, columns: 2 },
            Move::Crop { top: 1, left: 2, height: 3, width: 1 },
            Move::Channels { first: 3, count: 5 },
            Move::Insert { top: 1, left: 0, bottom: 2, right: 3, before: 4, after: 1 },
            Move::PixelShuffle { factor: 2 },
            Move::PixelUnshuffle { factor: 2 },
            Move::Repeat { rows: 2, columns: 3 },
            Move::ChannelShuffle { groups: 2 },
        ]
    }

    #[test]
    fn every_source_lies_in_the_tensor_and_inserted_elements_have_none() {
        for step in all() {
            let to = step.shape(FROM).unwrap();
            let mut seen = 0;
            for (y, x, c) in places(to) {
                let source = step.source(FROM, (y, x, c));
                assert!(source.is_some() || step.inserts(), "{step:?}");
                if let Some((y, x, c)) = source {
                    assert!(y < FROM.h && x < FROM.w && c < FROM.c, "{step:?}");
                    seen += 1;
                }
            }
            if step.inserts() {
                assert_eq!(seen, FROM.elements());
            }
        }
    }

    fn places(shape: Shape) -> impl Iterator<Item = Place> {
        (0..shape.elements()).map(move |i| (i / shape.c / shape.w, i / shape.c % shape.w, i % shape.c))
    }

    #[test]
    fn a_shuffle_and_its_inverse_move_nothing() {
        let [shuffle, unshuffle] = [Move::PixelShuffle { factor: 2 }, Move::PixelUnshuffle { factor: 2 }];
        for moves in [[shuffle, unshuffle], [unshuffle, shuffle]] {
            assert_eq!(moved_shape(FROM, &moves), Ok(FROM));
            assert!(places(FROM).all(|place| moved_source(FROM, &moves, place) == Some(place)));
        }
        // PyTorch: pixel_shuffle of [1, 4, 1, 1] holding 0, 1, 2, 3 is [[0, 1], [2, 3]].
        let one = Shape::new(1, 1, 4);
        let channels = places(Shape::new(2, 2, 1)).map(|place| shuffle.source(one, place).unwrap().2);
        assert!(channels.eq(0..4));
        // channel_shuffle of 0, 1, 2, 3 in 2 groups is 0, 2, 1, 3.
        let shuffle = Move::ChannelShuffle { groups: 2 };
        assert!(places(one).map(|place| shuffle.source(one, place).unwrap().2).eq([0, 2, 1, 3]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (step, part) in [
            (Move::Stride { rows: 0, columns: 1 }, "stride 0"),
            (Move::Crop { top: 2, left: 0, height: 3, width: 1 }, "3x1 from row 2"),
            (Move::Crop { top: usize::MAX, left: 0, height: 1, width: 1 }, "from row"),
            (Move::Crop { top: 0, left: 0, height: 0, width: 1 }, "height 0"),
            (Move::Channels { first: 8, count: 1 }, "1 channels from number 8"),
            (Move::Channels { first: 0, count: 0 }, "count 0"),
            (Move::channels_inserted(usize::MAX, 1), "than can be counted"),
            (Move::PixelShuffle { factor: 3 }, "does not divide"),
            (Move::PixelShuffle { factor: usize::MAX }, "factor"),
            (Move::PixelUnshuffle { factor: 4 }, "does not divide"),
            (Move::ChannelShuffle { groups: 0 }, "groups 0"),
            (Move::ChannelShuffle { groups: 5 }, "do not divide"),
            (Move::Repeat { rows: 1, columns: 0 }, "repetition 0"),
        ] {
            let message = step.shape(FROM).unwrap_err();
            assert!(message.contains(part), "{step:?}: {message}");
        }
    }
}
