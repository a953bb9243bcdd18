//! Moves of elements as statements of C.

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
    /// The element was inserted where this holds.
    Inserted(String),
}

fn one(step: Move, from: Shape, steps: &mut Vec<Step>) {
    let mut set = |pairs: &[(&'static str, String)]| steps.push(Step::Set(pairs.to_vec()));
    match step {
        Move::Stride { rows, columns } => set(&[("y", format!("y * {rows}")), ("x", format!("x * {columns}"))]),
        Move::Crop { top, left, .. } => set(&[("y", format!("y + {top}")), ("x", format!("x + {left}"))]),
        Move::Channels { first, .. } => set(&[("k", format!("k + {first}"))]),
        Move::Insert { top, left, bottom, right, before, after } => {
            for (name, first, side, last) in
                [("y", top, from.h, bottom), ("x", left, from.w, right), ("k", before, from.c, after)]
            {
                let mut conditions = Vec::new();
                if first > 0 {
                    conditions.push(format!("{name} < {first}"));
                }
                if last > 0 {
                    conditions.push(format!("{name} >= {}", first + side));
                }
                if !conditions.is_empty() {
                    steps.push(Step::Inserted(conditions.join(" || ")));
                }
                if first > 0 {
                    steps.push(Step::Set(vec![(name, format!("{name} - {first}"))]));
                }
            }
        }
        Move::PixelShuffle { factor } => {
            set(&[("k", format!("(k * {factor} + y % {factor}) * {factor} + x % {factor}"))]);
            set(&[("y", format!("y / {factor}")), ("x", format!("x / {factor}"))]);
        }
        Move::PixelUnshuffle { factor } => {
            set(&[
                ("y", format!("y * {factor} + k / {factor} % {factor}")),
                ("x", format!("x * {factor} + k % {factor}")),
            ]);
            set(&[("k", format!("k / {}", factor * factor))]);
        }
        Move::ChannelShuffle { groups } => {
            set(&[("k", format!("k % {groups} * {} + k / {groups}", from.c / groups))]);
        }
        Move::Repeat { rows, columns } => set(&[("y", format!("y / {rows}")), ("x", format!("x / {columns}"))]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_run_from_the_last_move_to_the_first() {
        let moves = [Move::stride(2), Move::channels_inserted(3, 0)];
        let steps = statements(Shape::new(4, 4, 8), &moves);
        let set = |name, text: &str| (name, text.to_owned());
        assert_eq!(
            steps,
            [
                Step::Inserted("k < 3".to_owned()),
                Step::Set(vec![set("k", "k - 3")]),
                Step::Set(vec![set("y", "y * 2"), set("x", "x * 2")]),
            ]
        );
    }
}
