//! SVG charts of arrays: sense margin against rows, accuracy against on/off ratio. The same numbers give the same
//! bytes.

use plotters::prelude::{IntoLogRange, SeriesLabelPosition};

use super::cell::Cell;
use super::margin::margins;
use crate::AccelError;
use crate::charts::{Series, draw};

/// Rows of the chart of margins.
pub const MARGIN_ROWS: [usize; 5] = [4, 8, 16, 32, 64];

/// Worst sense margin of every cell against the rows that are read at once, with the linear droop of wires: of nominal
/// cells as lines, with levels three standard deviations off as crosses.
///
/// # Errors
/// A cell that cannot have those rows, or the drawing library fails.
pub fn margin_against_rows(cells: &[Cell]) -> Result<String, AccelError> {
    let mut series = Vec::new();
    for cell in cells {
        let mut of = [Vec::new(), Vec::new()];
        for rows in MARGIN_ROWS {
            let margins = margins(&cell.clone().with_rows(rows)?);
            of[0].push((rows as f64, margins.droop_ua));
            of[1].push((rows as f64, margins.three_sigma_ua));
        }
        let [nominal, spread] = of;
        series.push(Series { name: cell.name.clone(), points: nominal, line: true });
        series.push(Series { name: format!("{}, 3 sigma", cell.name), points: spread, line: false });
    }
    let all = || series.iter().flat_map(|s| s.points.iter().map(|p| p.1));
    let (least, most) = (all().fold(0.0, f64::min), all().fold(0.0, f64::max));
    let labels = ["Worst sense margin", "rows at once", "margin in microamperes"];
    let y = least * 1.05..most * 1.1;
    draw("margin", labels, (3.0..80.0).log_scale(), y, &series, (5, SeriesLabelPosition::LowerLeft))
}

/// Accuracy against on/off ratio: for every name the mean over chips at each ratio, and the exact integers' accuracy.
///
/// # Errors
/// The drawing library fails.
pub fn accuracy_against_ratio(lines: &[(String, Vec<(f64, f64)>)], exact: f64) -> Result<String, AccelError> {
    let ratios = || lines.iter().flat_map(|(_, points)| points.iter().map(|p| p.0).filter(|r| r.is_finite()));
    let (least, most) = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(1.0, f64::max));
    let (least, most) = (least.min(most) * 0.9, most * 1.2);
    let mut series: Vec<Series> = lines
        .iter()
        .map(|(name, points)| {
            let finite = points.iter().filter(|p| p.0.is_finite()).map(|&(r, a)| (r, 100.0 * a));
            Series { name: name.clone(), points: finite.collect(), line: true }
        })
        .collect();
    let flat = vec![(least, 100.0 * exact), (most, 100.0 * exact)];
    series.push(Series { name: "exact integers".to_owned(), points: flat, line: true });
    let labels = ["Accuracy of chips", "high over low current", "mean top-1 accuracy in percent"];
    draw("accuracy", labels, (least..most).log_scale(), 0.0..100.0, &series, (6, SeriesLabelPosition::LowerRight))
}
