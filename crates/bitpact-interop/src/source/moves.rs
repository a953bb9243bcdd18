//! Moves of elements as statements, whose expressions are those of C and of Rust.

use bitpact_graph::{Move, Shape};

/// Statements that take `(y, x, k)` of the moved tensor to the row, column and channel of the tensor of shape `from`,
/// and conditions under which the element was inserted, in the order in which they are to be computed.
pub(super) fn statements(from: Shape, moves: &[Move]) -> Vec<Step> {
    let mut shapes = vec![from];
    for step in moves {
        let last = shapes[shapes.len() - 1];
        // A checked model's moves fit.
        shapes.push(step.shape(last).unwrap_or(last));
    }
    let mut steps = Vec::new();
    for (step, from) in moves.iter().zip(&shapes).rev() {
        one(*step, *from, &mut steps);
    }
    steps
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Variables and what they become, all at once.
    Set(Vec<(&'static str, String)>),
    /// The element was inserted where the variable is below `first` or not below `last`: one of them at least.
    Inserted {
        /// The variable.
        name: &'static str,
        /// The first that was not inserted, where others are before it.
        first: Option<usize>,
        /// The first behind those, where there are others.
        last: Option<usize>,
    },
}

fn one(step: Move, from: Shape, steps: &mut Vec<Step>) {
    let mut set = |pairs: &[(&'static str, String)]| {
        let pairs: Vec<_> = pairs.iter().filter(|(name, value)| name != value).cloned().collect();
        if !pairs.is_empty() {
            steps.push(Step::Set(pairs));
        }
    };
    match step {
        Move::Stride { rows, columns } => set(&[("y", times("y", rows)), ("x", times("x", columns))]),
        Move::Crop { top, left, .. } => set(&[("y", plus("y", top)), ("x", plus("x", left))]),
        Move::Channels { first, .. } => set(&[("k", plus("k", first))]),
        Move::Insert { top, left, bottom, right, before, after } => {
            for (name, first, side, last) in
                [("y", top, from.h, bottom), ("x", left, from.w, right), ("k", before, from.c, after)]
            {
                let ends = ((first > 0).then_some(first), (last > 0).then_some(first + side));
                if ends != (None, None) {
                    steps.push(Step::Inserted { name, first: ends.0, last: ends.1 });
                }
                if first > 0 {
                    steps.push(Step::Set(vec![(name, format!("{name} - {first}"))]));
                }
            }
        }
        Move::PixelShuffle { factor } if factor > 1 => {
            set(&[("k", format!("(k * {factor} + y % {factor}) * {factor} + x % {factor}"))]);
            set(&[("y", format!("y / {factor}")), ("x", format!("x / {factor}"))]);
        }
        Move::PixelUnshuffle { factor } if factor > 1 => {
            set(&[
                ("y", format!("y * {factor} + k / {factor} % {factor}")),
                ("x", format!("x * {factor} + k % {factor}")),
            ]);
            set(&[("k", format!("k / {}", factor * factor))]);
        }
        Move::PixelShuffle { .. } | Move::PixelUnshuffle { .. } => {}
        Move::ChannelShuffle { groups } if groups > 1 && groups < from.c => {
            set(&[("k", format!("k % {groups} * {} + k / {groups}", from.c / groups))]);
        }
        Move::ChannelShuffle { .. } => {}
        Move::Repeat { rows, columns } => set(&[("y", over("y", rows)), ("x", over("x", columns))]),
    }
}

fn times(name: &str, factor: usize) -> String {
    if factor == 1 { name.to_owned() } else { format!("{name} * {factor}") }
}

fn over(name: &str, factor: usize) -> String {
    if factor == 1 { name.to_owned() } else { format!("{name} / {factor}") }
}

fn plus(name: &str, more: usize) -> String {
    if more == 0 { name.to_owned() } else { format!("{name} + {more}") }
}

/// The number of the pixel at row `y`, column `x` of a tensor.
pub(super) fn pixel(from: Shape) -> String {
    format!("{} + x", times("y", from.w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_that_change_nothing_are_no_statements() {
        let moves = [Move::stride(1), Move::ChannelShuffle { groups: 1 }, Move::Repeat { rows: 1, columns: 2 }];
        let steps = statements(Shape::new(4, 4, 8), &moves);
        assert_eq!(steps, [Step::Set(vec![("x", "x / 2".to_owned())])]);
        assert_eq!((pixel(Shape::new(4, 1, 8)), pixel(Shape::new(4, 3, 8))), ("y + x".into(), "y * 3 + x".into()));
    }

    #[test]
    fn statements_run_from_the_last_move_to_the_first() {
        let moves = [Move::stride(2), Move::channels_inserted(3, 0)];
        let steps = statements(Shape::new(4, 4, 8), &moves);
        let set = |name, text: &str| (name, text.to_owned());
        assert_eq!(
            steps,
            [
                Step::Inserted { name: "k", first: Some(3), last: None },
                Step::Set(vec![set("k", "k - 3")]),
                Step::Set(vec![set("y", "y * 2"), set("x", "x * 2")]),
            ]
        );
    }
}
