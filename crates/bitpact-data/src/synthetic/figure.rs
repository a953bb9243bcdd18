//! The figures: for a point in units of the figure, how far it is outside (positive) or inside (negative), in about
//! those units near the edge.

use super::canvas::{Canvas, Frame};
use super::{CLASS_NAMES, Dice};

/// Radius of a ring's hole.
const RING_HOLE: (f32, f32) = (0.3, 0.5);
/// How far the bite out of a crescent is from the middle.
const CRESCENT_SHIFT: (f32, f32) = (0.4, 0.6);
/// Radius of the bite.
const CRESCENT_BITE: f32 = 0.75;
/// Half the width of a cross's arms.
const CROSS_ARM: (f32, f32) = (0.25, 0.38);
/// Radius of a star's inner corners.
const STAR_WAIST: (f32, f32) = (0.45, 0.55);
/// Half the side of the patch that stripes and checks fill.
const PATCH: f32 = 0.85;
/// Length of one dark and one light bar or cell.
const PERIOD: (f32, f32) = (0.55, 0.8);

/// Paints the figure of a class with random proportions.
pub(super) fn paint(canvas: &mut Canvas, frame: &Frame, colour: [f32; 3], class: usize, dice: &mut Dice) {
    let mut fill = |distance: &dyn Fn([f32; 2]) -> f32| canvas.paint(frame, 1.0, colour, distance);
    match CLASS_NAMES[class] {
        "disc" => fill(&|p| disc(p, 1.0)),
        "ring" => {
            let hole = dice.between(RING_HOLE);
            fill(&|p| disc(p, 1.0).max(-disc(p, hole)))
        }
        "crescent" => {
            let shift = dice.between(CRESCENT_SHIFT);
            fill(&|p| disc(p, 1.0).max(-disc([p[0] - shift, p[1]], CRESCENT_BITE)))
        }
        "triangle" => fill(&|p| polygon(p, &TRIANGLE, 0.5)),
        "square" => fill(&|p| rectangle(p, 0.75, 0.75)),
        "cross" => {
            let arm = dice.between(CROSS_ARM);
            fill(&|p| rectangle(p, 1.0, arm).min(rectangle(p, arm, 1.0)))
        }
        "star5" => {
            let waist = dice.between(STAR_WAIST);
            fill(&|p| star(p, &FIVE, FIVE_BETWEEN, waist))
        }
        "star6" => {
            let waist = dice.between(STAR_WAIST);
            fill(&|p| star(p, &SIX, SIX_BETWEEN, waist))
        }
        "stripes" => {
            let (period, phase) = (dice.between(PERIOD), dice.between((0.0, 1.0)));
            fill(&|p| rectangle(p, PATCH, PATCH).max(bars(p[0], period, phase)))
        }
        "checker" => {
            let (period, phase) = (dice.between(PERIOD), [0; 2].map(|_| dice.between((0.0, 1.0))));
            fill(&|p| {
                let (across, along) = (bars(p[0], period, phase[0]), bars(p[1], period, phase[1]));
                let nearest = across.abs().min(along.abs());
                let cells = if (across < 0.0) == (along < 0.0) { -nearest } else { nearest };
                rectangle(p, PATCH, PATCH).max(cells)
            })
        }
        name => unreachable!("no figure for {name}"),
    }
}

const TRIANGLE: [[f32; 2]; 3] = [[1.0, 0.0], [-0.5, 0.866_025_4], [-0.5, -0.866_025_4]];
const FIVE: [[f32; 2]; 5] = [
    [1.0, 0.0],
    [0.309_017, 0.951_056_54],
    [-0.809_017, 0.587_785_24],
    [-0.809_017, -0.587_785_24],
    [0.309_017, -0.951_056_54],
];
const SIX: [[f32; 2]; 6] =
    [[1.0, 0.0], [0.5, 0.866_025_4], [-0.5, 0.866_025_4], [-1.0, 0.0], [-0.5, -0.866_025_4], [0.5, -0.866_025_4]];

const FIVE_BETWEEN: [f32; 2] = [0.809_017, 0.587_785_24];
const SIX_BETWEEN: [f32; 2] = [0.866_025_4, 0.5];

/// Near the edge of a disc of radius r: (|p|^2 - r^2) / 2r, which is |p| - r in first order.
pub(super) fn disc(p: [f32; 2], radius: f32) -> f32 {
    (p[0] * p[0] + p[1] * p[1] - radius * radius) / (2.0 * radius)
}

/// An upright rectangle by its half sides.
pub(super) fn rectangle(p: [f32; 2], half_width: f32, half_height: f32) -> f32 {
    (p[0].abs() - half_width).max(p[1].abs() - half_height)
}

/// A convex polygon whose sides lie `inner` from the middle in the directions `normals`.
fn polygon(p: [f32; 2], normals: &[[f32; 2]], inner: f32) -> f32 {
    normals.iter().map(|n| p[0] * n[0] + p[1] * n[1] - inner).fold(f32::NEG_INFINITY, f32::max)
}

/// A star with tips 1 from the middle in the evenly spaced directions `tips` and corners `waist` from it in the
/// directions between them, of which `between` is the first.
fn star(p: [f32; 2], tips: &[[f32; 2]], between: [f32; 2], waist: f32) -> f32 {
    let mut along = f32::NEG_INFINITY;
    let mut across = 0.0;
    for t in tips {
        let dot = p[0] * t[0] + p[1] * t[1];
        if dot > along {
            (along, across) = (dot, (p[0] * t[1] - p[1] * t[0]).abs());
        }
    }
    // The side from the tip (1, 0) to the corner has the outward normal (corner[1], 1 - corner[0]).
    let corner = [waist * between[0], waist * between[1]];
    let normal = [corner[1], 1.0 - corner[0]];
    let length_about = normal[0].max(normal[1]) + 0.4 * normal[0].min(normal[1]);
    ((along - 1.0) * normal[0] + across * normal[1]) / length_about
}

/// Bars across the first axis, each half of `period` wide.
fn bars(x: f32, period: f32, phase: f32) -> f32 {
    let turns = x / period + phase;
    ((turns - turns.floor() - 0.5).abs() - 0.25) * period
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often `distance` changes sign on a circle around the middle.
    fn crossings(radius: f32, distance: impl Fn([f32; 2]) -> f32) -> usize {
        let inside: Vec<bool> = (0..3600)
            .map(|i| {
                let (sin, cos) = (i as f32 * std::f32::consts::TAU / 3600.0).sin_cos();
                distance([radius * cos, radius * sin]) < 0.0
            })
            .collect();
        (0..3600).filter(|&i| inside[i] != inside[(i + 1) % 3600]).count()
    }

    #[test]
    fn stars_and_polygons_have_their_tips() {
        assert_eq!(crossings(0.8, |p| star(p, &FIVE, FIVE_BETWEEN, 0.5)), 10);
        assert_eq!(crossings(0.8, |p| star(p, &SIX, SIX_BETWEEN, 0.5)), 12);
        assert_eq!(crossings(0.8, |p| polygon(p, &TRIANGLE, 0.5)), 6);
        assert_eq!(crossings(0.9, |p| rectangle(p, 0.75, 0.75)), 8);
        assert_eq!(crossings(0.8, |p| rectangle(p, 1.0, 0.3).min(rectangle(p, 0.3, 1.0))), 8);
        assert_eq!(crossings(0.4, |p| star(p, &FIVE, FIVE_BETWEEN, 0.5)), 0);
    }

    #[test]
    fn distances_are_zero_on_the_edge_and_about_right_beside_it() {
        for (p, expected) in [([0.5, 0.0], 0.0), ([0.0, -0.55], 0.05), ([0.3, 0.3], -0.075)] {
            assert!((disc(p, 0.5) - expected).abs() < 0.01, "{p:?}: {}", disc(p, 0.5));
        }
        assert_eq!(rectangle([0.5, 0.1], 0.75, 0.25), -0.15);
        assert_eq!(star([1.0, 0.0], &FIVE, FIVE_BETWEEN, 0.5), 0.0);
        assert!(star([FIVE_BETWEEN[0] * 0.5, FIVE_BETWEEN[1] * 0.5], &FIVE, FIVE_BETWEEN, 0.5).abs() < 1e-6);
        assert_eq!(polygon([0.5, 0.0], &TRIANGLE, 0.5), 0.0);
    }

    #[test]
    fn bars_take_turns_every_half_period() {
        let signs: Vec<bool> = (0..8).map(|i| bars(i as f32 * 0.25 + 0.125, 0.5, 0.25) < 0.0).collect();
        assert_eq!(signs, [true, false, true, false, true, false, true, false]);
    }
}
