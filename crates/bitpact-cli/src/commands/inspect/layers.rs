//! The layers of a network as tables for people.

use bitpact::unstable::report::layers::{Layers, Unit};
use serde_json::Value;

use crate::out::{bytes, count, table};

/// How a value is shown to people.
fn show(unit: Unit, value: &Value) -> String {
    match (unit, value.as_u64(), value.as_f64()) {
        (Unit::Count, Some(n), _) => count(n),
        (Unit::Bytes, Some(n), _) => bytes(n),
        (Unit::Real, _, Some(x)) if x != 0.0 && x.abs() < 1e-3 => format!("{x:.2e}"),
        (Unit::Real, _, Some(x)) => format!("{x:.4}"),
        (Unit::Percent, _, Some(x)) => format!("{:.1} %", x * 100.0),
        _ => plain(value),
    }
}

/// A value as a person reads it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// The name of a head line as a key.
pub(super) fn key(name: &str) -> String {
    name.replace([' ', '-'], "_")
}

/// The tables of `layers`, without the rows and columns in which nothing stands.
pub(super) fn text(layers: &Layers) -> String {
    let mut texts = Vec::new();
    let mut from = 0;
    for columns in &layers.tables {
        let shown: Vec<usize> = (0..columns.len())
            .filter(|&c| !columns[c].1.is_empty())
            .filter(|&c| layers.rows.iter().any(|(_, row)| !row[from + c].is_null()))
            .collect();
        let mut rows =
            vec![["layer"].into_iter().chain(shown.iter().map(|&c| columns[c].1)).map(str::to_owned).collect()];
        for (name, row) in &layers.rows {
            if shown.iter().all(|&c| row[from + c].is_null()) {
                continue;
            }
            let cells = shown.iter().map(|&c| show(columns[c].2, &row[from + c]));
            rows.push([name.clone()].into_iter().chain(cells).collect::<Vec<String>>());
        }
        let left: &[usize] = if columns[0].0 == "op" { &[0, 1] } else { &[0] };
        texts.push(table(&rows, left));
        from += columns.len();
    }
    texts.join("\n")
}
