//! Tables and JSON of what was found.

use bitpact::unstable::accel::in_memory::{Cell, Layer, Margins, Study};
use serde_json::{Value, json};

use super::{Bench, Found};
use crate::out::{count, percent, table};

pub(super) fn json(head: &str, bench: &Bench<'_>, found: &[Found]) -> Value {
    let study = |study: &Study| {
        json!({
            "mean": study.mean(),
            "deviation": study.deviation(),
            "worst": study.worst(),
            "chips": study.chips,
            "agreement": study.agreement,
            "identical": study.identical,
            "count_error_rate": study.errors().rate(),
        })
    };
    let cells = found.iter().map(|found| {
        let swept = found.swept.iter().map(|swept| {
            let (margins, mut object) = (&swept.margins, study(&swept.study));
            object["key"] = swept.key.into();
            object["value"] = swept.value.into();
            object["margins"] = json!(margins);
            object
        });
        json!({
            "cell": found.cell.name,
            "rows": found.cell.array.rows_at_once,
            "adc_bits": found.cell.adc.bits,
            "high_ua": found.cell.high_ua(),
            "low_ua": found.cell.low_ua(),
            "margins": found.margins,
            "read_disturb": found.disturb,
            "accuracy": study(&found.study),
            "layers": found.study.layers,
            "sweep": swept.collect::<Vec<_>>(),
        })
    });
    json!({
        "on": head,
        "images": bench.images.labels.len(),
        "seed": bench.options.seed,
        "exact": found.first().map(|found| found.study.exact),
        "cells": cells.collect::<Vec<_>>(),
    })
}

pub(super) fn text(head: &str, layers: &[Layer], found: &[Found]) -> String {
    let mut out = format!("{head}, {} chips\n\n", found.first().map_or(0, |found| found.study.chips.len()));
    out += &accuracy(found);
    out += "\nMargins in microamperes: half of the smallest distance of neighbouring counts\n\n";
    out += &margin_table(found);
    for one in found {
        out += &format!("\n{}: {}\n\n", one.cell.name, one.cell.summary);
        out += &layer_table(layers, one);
        if !one.swept.is_empty() {
            out += "\n";
            out += &sweep_table(one);
        }
    }
    out
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// The rate of wrong reads; a table of errors by count has none to compare.
fn rate(study: &Study) -> String {
    let errors = study.errors();
    if errors.reads == 0 { String::new() } else { percent(errors.rate()) }
}

fn accuracy(found: &[Found]) -> String {
    let mut rows = vec![row([
        "cell",
        "rows",
        "bits",
        "ratio",
        "exact",
        "mean",
        "deviation",
        "worst",
        "as exact",
        "same logits",
        "wrong reads",
    ])];
    for Found { cell, study, .. } in found {
        rows.push(vec![
            cell.name.clone(),
            cell.array.rows_at_once.to_string(),
            cell.adc.bits.to_string(),
            ratio(cell),
            percent(study.exact),
            percent(study.mean()),
            percent(study.deviation()),
            percent(study.worst()),
            percent(study.agreement),
            percent(study.identical),
            rate(study),
        ]);
    }
    table(&rows, &[0])
}

fn ratio(cell: &Cell) -> String {
    let ratio = cell.on_off_ratio();
    if ratio < 100.0 { format!("{ratio:.3}") } else { format!("{ratio:.0}") }
}

fn margin_cells(margins: &Margins) -> [String; 6] {
    let ua = |x: f64| format!("{x:.3}");
    [
        ua(margins.ideal_ua),
        ua(margins.droop_ua),
        ua(margins.exact_ua),
        ua(margins.three_sigma_ua),
        format!("{:.3}", margins.droop_error_counts),
        format!("{:.3}", margins.array_error_counts),
    ]
}

const MARGIN_HEAD: [&str; 6] = ["no wires", "droop", "ladder", "3 sigma", "droop - ladder, counts", "- array"];

fn margin_table(found: &[Found]) -> String {
    let head = ["cell", "high", "low"].into_iter().chain(MARGIN_HEAD).chain(["read disturb P", "AP"]);
    let mut rows = vec![head.map(str::to_owned).collect()];
    for Found { cell, margins, disturb, .. } in found {
        let mut cells = vec![cell.name.clone(), format!("{:.2}", cell.high_ua()), format!("{:.4}", cell.low_ua())];
        cells.extend(margin_cells(margins));
        let disturb = disturb.map(|d| [percent(d.parallel), percent(d.antiparallel)]);
        cells.extend(disturb.unwrap_or_else(|| ["none".to_owned(), "none".to_owned()]));
        rows.push(cells);
    }
    table(&rows, &[0])
}

fn layer_table(layers: &[Layer], found: &Found) -> String {
    let head = ["layer", "columns", "arrays", "used", "reads", "wrong", "rms", "inputs on", "nJ", "us"];
    let mut rows = vec![row(head)];
    let number = |x: f64| format!("{x:.3}");
    for (layer, study) in layers.iter().zip(&found.study.layers) {
        let (errors, cost) = (&study.errors, &study.cost);
        let seen = errors.reads > 0;
        let rms = (errors.squares as f64 / errors.reads.max(1) as f64).sqrt();
        rows.push(vec![
            study.name.clone(),
            format!("{} x {}", layer.inputs, layer.out_channels * usize::from(layer.weight_bits)),
            cost.sub_arrays.to_string(),
            percent(cost.utilization),
            count(cost.conversions),
            if seen { percent(errors.rate()) } else { String::new() },
            if seen { number(rms) } else { String::new() },
            percent(study.activity),
            number(cost.energy_nj()),
            number(cost.time_us),
        ]);
    }
    let sum = |of: fn(&bitpact::unstable::accel::in_memory::LayerCost) -> f64| {
        found.study.layers.iter().map(|layer| of(&layer.cost)).sum::<f64>()
    };
    let (cells, converters, adders) = (sum(|c| c.cells_nj), sum(|c| c.converters_nj), sum(|c| c.adders_nj));
    let arrays = sum(|c| c.sub_arrays as f64);
    let used = sum(|c| c.utilization * c.sub_arrays as f64) / arrays;
    table(&rows, &[0])
        + &format!(
            "\nan image: {:.1} nJ (cells {cells:.1}, converters {converters:.1}, adders {adders:.1}), {:.1} us; {arrays} sub-arrays, {} used\n",
            cells + converters + adders,
            sum(|c| c.time_us),
            percent(used)
        )
}

fn sweep_table(found: &Found) -> String {
    let head = ["swept", "value", "mean", "deviation", "worst", "wrong reads"].into_iter().chain(MARGIN_HEAD);
    let mut rows = vec![head.map(str::to_owned).collect()];
    for swept in &found.swept {
        let study = &swept.study;
        let mut cells = vec![swept.key.to_owned(), swept.value.to_string()];
        cells.extend([percent(study.mean()), percent(study.deviation()), percent(study.worst()), rate(study)]);
        cells.extend(margin_cells(&swept.margins));
        rows.push(cells);
    }
    table(&rows, &[0])
}
