//! The table of areas: one row for every pair of widths.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{AccelError, Widths};

/// Heading of the table's file.
const HEADING: &str =
    "activation_bits,weight_bits,accumulator_bits,multiplier_transistors,multiplier_depth,mac_transistors,mac_depth";

/// Area and depth of one pair of widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PairArea {
    /// Bits of the unsigned operand.
    pub activation_bits: u8,
    /// Bits of the signed operand.
    pub weight_bits: u8,
    /// Bits of the sum.
    pub accumulator_bits: u32,
    /// Transistors of the multiplier alone.
    pub multiplier_transistors: u64,
    /// Gates on its longest path.
    pub multiplier_depth: u64,
    /// Transistors of the unit: multiplier, adder, accumulator.
    pub mac_transistors: u64,
    /// Gates on its longest path.
    pub mac_depth: u64,
}

/// Areas by widths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaTable {
    /// The program that made the rows, such as `yosys 0.23`.
    pub source: String,
    rows: BTreeMap<(u8, u8), PairArea>,
}

impl AreaTable {
    /// A table of `rows`, made by `source`.
    pub fn new(source: String, rows: impl IntoIterator<Item = PairArea>) -> Self {
        let rows = rows.into_iter().map(|row| ((row.activation_bits, row.weight_bits), row)).collect();
        Self { source, rows }
    }

    /// The table that is part of the program: every pair of 1 to 8 and 16 bits.
    pub fn committed() -> Self {
        Self::parse(include_str!("../../devices/mac-area.csv"), "devices/mac-area.csv").expect("tested")
    }

    /// Widths of [`AreaTable::committed`], for either operand.
    pub fn widths() -> impl Iterator<Item = u8> + Clone {
        (1..=8).chain([16])
    }

    /// The rows in the order of widths, activations first.
    pub fn rows(&self) -> impl Iterator<Item = &PairArea> {
        self.rows.values()
    }

    /// The row of a pair, where there is one.
    pub fn get(&self, widths: Widths) -> Option<&PairArea> {
        self.rows.get(&(widths.activations(), widths.weights()))
    }

    /// Transistors of the unit of `widths`. Between 8 and 16 bits, where nothing was synthesized, straight lines
    /// between the neighbours of each operand.
    ///
    /// # Panics
    /// If the table lacks the pairs of 1 to 8 and 16 bits.
    pub fn mac(&self, widths: Widths) -> f64 {
        let neighbours = |bits: u8| {
            if bits <= 8 {
                [(bits, 1.0), (bits, 0.0)]
            } else {
                [(8, f64::from(16 - bits) / 8.0), (16, f64::from(bits - 8) / 8.0)]
            }
        };
        let mut sum = 0.0;
        for (a, share_a) in neighbours(widths.activations()) {
            for (w, share_w) in neighbours(widths.weights()).into_iter().filter(|&(_, share)| share > 0.0) {
                if share_a > 0.0 {
                    sum += share_a * share_w * self.rows[&(a, w)].mac_transistors as f64;
                }
            }
        }
        sum
    }

    /// Number of rows of `other` that this table has with other values, or lacks.
    pub fn differences(&self, other: &Self) -> usize {
        other.rows.iter().filter(|(key, row)| self.rows.get(key) != Some(row)).count()
    }

    /// The text of a table's file: a comment that says what made it, a heading, the rows.
    pub fn to_csv(&self) -> String {
        let mut text = format!("# {}\n{HEADING}\n", self.source);
        for r in self.rows() {
            let PairArea { activation_bits: a, weight_bits: w, accumulator_bits: acc, .. } = r;
            text += &format!(
                "{a},{w},{acc},{},{},{},{}\n",
                r.multiplier_transistors, r.multiplier_depth, r.mac_transistors, r.mac_depth
            );
        }
        text
    }

    /// Reads the text of a table's file; `place` is what errors call it.
    ///
    /// # Errors
    /// Names the line at fault.
    pub fn parse(text: &str, place: &str) -> Result<Self, AccelError> {
        let fail = |line: usize, message: &str| {
            Err(AccelError::Syntax { place: format!("{place}: line {line}"), message: message.to_owned() })
        };
        let mut lines = text.lines();
        let Some(source) = lines.next().and_then(|l| l.strip_prefix("# ")) else {
            return fail(1, "expected a comment that says what made the table");
        };
        if lines.next() != Some(HEADING) {
            return fail(2, &format!("expected `{HEADING}`"));
        }
        let mut rows = Vec::new();
        for (i, line) in lines.enumerate() {
            let numbers: Vec<u64> = line.split(',').map_while(|n| n.parse().ok()).collect();
            let narrow = |n: u64| u8::try_from(n).ok().filter(|n| (1..=16).contains(n));
            let &[a, w, accumulator, multiplier_transistors, multiplier_depth, mac_transistors, mac_depth] =
                &numbers[..]
            else {
                return fail(i + 3, "expected seven numbers");
            };
            let (Some(activation_bits), Some(weight_bits), Ok(accumulator_bits)) =
                (narrow(a), narrow(w), u32::try_from(accumulator))
            else {
                return fail(i + 3, "expected widths of 1 to 16 bits");
            };
            rows.push(PairArea {
                activation_bits,
                weight_bits,
                accumulator_bits,
                multiplier_transistors,
                multiplier_depth,
                mac_transistors,
                mac_depth,
            });
        }
        Ok(Self::new(source.to_owned(), rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_table_has_every_pair_and_reads_as_it_was_written() {
        let table = AreaTable::committed();
        assert_eq!(table.rows().count(), 81);
        for a in AreaTable::widths() {
            for w in AreaTable::widths() {
                let row = table.get(Widths::new(a, w).unwrap()).unwrap();
                assert_eq!(row.accumulator_bits, super::super::accumulator_bits(Widths::new(a, w).unwrap(), 4608));
                assert!(row.mac_transistors > row.multiplier_transistors);
            }
        }
        assert_eq!(AreaTable::parse(&table.to_csv(), "again").unwrap(), table);
        let between = table.mac(Widths::same(12).unwrap());
        assert!(table.mac(Widths::same(8).unwrap()) < between && between < table.mac(Widths::same(16).unwrap()));
    }

    #[test]
    fn a_damaged_table_is_told_by_its_line() {
        let good = format!("# made by hand\n{HEADING}\n2,2,16,56,3,1016,24\n");
        assert_eq!(AreaTable::parse(&good, "t").unwrap().rows().count(), 1);
        for (bad, expected) in [
            (String::new(), "t: line 1"),
            ("# x\nother\n".to_owned(), "t: line 2"),
            (good.replace("1016", "many"), "t: line 3: expected seven numbers"),
            (good.replace("2,2,16", "17,2,16"), "t: line 3: expected widths"),
        ] {
            let message = AreaTable::parse(&bad, "t").unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
