//! Where the accuracy is lost: a table of layers and widths, coloured by the change of the loss.

use serde::Serialize;

use crate::sensitivity::{Part, Sensitivity};

#[derive(Serialize)]
pub(super) struct Table {
    note: String,
    bits: Vec<u8>,
    rows: Vec<Row>,
    metric: String,
}

#[derive(Serialize)]
struct Row {
    layer: String,
    part: &'static str,
    cells: Vec<Cell>,
}

#[derive(Serialize)]
struct Cell {
    loss: String,
    metric: String,
    /// Share of the largest change, 0 to 1.
    heat: f64,
}

pub(super) fn table(of: &Sensitivity) -> Table {
    let mut bits: Vec<u8> = of.rows.iter().map(|row| row.bits).collect();
    bits.sort_unstable();
    bits.dedup();
    let most = of.rows.iter().map(|row| of.loss_change(row)).fold(1e-12, f64::max);
    let is_fraction = ["top1", "miou", "pixels"].contains(&of.metric.as_str());
    let mut rows: Vec<Row> = Vec::new();
    for row in &of.rows {
        let part = match row.part {
            Part::Weights => "weights",
            Part::Activations => "activation",
        };
        if rows.last().is_none_or(|last| last.layer != row.layer || last.part != part) {
            rows.push(Row { layer: row.layer.clone(), part, cells: Vec::new() });
        }
        let last = rows.last_mut().expect("just made");
        while last.cells.len() < bits.iter().position(|&b| b == row.bits).unwrap_or(0) {
            last.cells.push(Cell { loss: String::new(), metric: String::new(), heat: 0.0 });
        }
        let (loss, metric) = (of.loss_change(row), of.metric_change(row));
        let metric = if is_fraction { format!("{:+.2} points", 100.0 * metric) } else { format!("{metric:+.3}") };
        last.cells.push(Cell { loss: format!("{loss:+.3}"), metric, heat: (loss / most).clamp(0.0, 1.0).sqrt() });
    }
    let base = if is_fraction { format!("{:.2} %", 100.0 * of.base.metric) } else { format!("{:.3}", of.base.metric) };
    let note = format!(
        "Change of the loss when one tensor alone has few bits and all others 8, nothing trained anew, on {} test images; with 8 bits \
         everywhere the loss is {:.4} and {} {base}. The darker, the more.",
        of.images, of.base.loss, of.metric
    );
    Table { note, bits, rows, metric: of.metric.clone() }
}
