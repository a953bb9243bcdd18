//! Tables and numbers as text for people.

/// Lines up the columns of `rows`, whose first one is the heading. Columns in `left` are aligned left, others right.
pub fn table(rows: &[Vec<String>], left: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(c, (cell, &width))| {
            if left.contains(&c) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Writes a fraction as a percentage with two decimals: `84.43 %`.
pub fn percent(fraction: f64) -> String {
    format!("{:.2} %", fraction * 100.0)
}

/// Writes a number of bytes in B, kB or MB: `12.3 kB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

/// Writes a number with the prefix k, M or G where it has more than four digits: `40.5 M`.
pub fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{:.1} k", n as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} G", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["layer", "macs"], ["a", "12345"], ["longer", "1"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(table(&rows, &[0]), "layer    macs\na       12345\nlonger      1\n");
        assert_eq!(table(&[], &[]), "");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([bytes(9_999), bytes(12_345), bytes(12_345_678)], ["9999 B", "12.3 kB", "12.3 MB"]);
        assert_eq!([count(500), count(40_551_424), count(11_000_000_000)], ["500", "40.6 M", "11.0 G"]);
        assert_eq!(percent(0.84431), "84.43 %");
    }
}
