//! The systolic array computes: its Verilog under iverilog, tile after tile.

use std::fmt::Write as _;

use super::run;
use super::verilog::{accumulator_bits, array};
use crate::{AccelError, Widths};

/// A matrix of integers, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Values, `rows * columns`.
    pub values: Vec<i64>,
}

impl Matrix {
    /// The value of a row and column.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn at(&self, row: usize, column: usize) -> i64 {
        assert!(column < self.columns, "column {column} of {}", self.columns);
        self.values[row * self.columns + column]
    }
}

/// The product of `activations` (pixels by inputs, codes in `[0, 2^a - 1]`) and `weights` (inputs by output channels,
/// two's complement codes of `w` bits) as a systolic array of `rows x columns` units computes it: the Verilog of
/// [`super::array()`], run by iverilog.
///
/// # Errors
/// Matrices that do not fit each other or the widths, or iverilog is absent or fails.
pub fn simulate(
    widths: Widths,
    rows: usize,
    columns: usize,
    activations: &Matrix,
    weights: &Matrix,
) -> Result<Matrix, AccelError> {
    let (a, w) = (widths.activations(), widths.weights());
    let fail = |message: String| Err(AccelError::Tool { program: "iverilog", message });
    if activations.columns != weights.rows || activations.columns == 0 || rows == 0 || columns == 0 {
        return fail(format!(
            "{}x{} times {}x{} on {rows}x{columns} units is not a product",
            activations.rows, activations.columns, weights.rows, weights.columns
        ));
    }
    let outside = |m: &Matrix, least: i64, most: i64| m.values.iter().copied().find(|v| !(least..=most).contains(v));
    if let Some(code) = outside(activations, 0, (1 << a) - 1) {
        return fail(format!("activation {code} is not an unsigned code of {a} bits"));
    }
    if let Some(code) = outside(weights, -(1 << (w - 1)), (1 << (w - 1)) - 1) {
        return fail(format!("weight {code} is not a two's complement code of {w} bits"));
    }
    let folder = tempfile::tempdir().map_err(|e| tool(format!("no temporary folder: {e}")))?;
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).map_err(|e| tool(format!("{name}: {e}")))
    };
    let terms = activations.columns;
    write("array.v", &array(widths, terms as u64, rows, columns))?;
    let (row_tiles, column_tiles) = (activations.rows.div_ceil(rows), weights.columns.div_ceil(columns));
    // One line a clock: the operands of all rows, or of all columns, the highest first.
    let lines = |matrix: &Matrix, tiles: usize, lanes: usize, bits: u8, of_row: bool| {
        let mut text = String::new();
        for tile in 0..tiles {
            for k in 0..terms {
                for lane in (tile * lanes..(tile + 1) * lanes).rev() {
                    let inside = lane < if of_row { matrix.rows } else { matrix.columns };
                    let code = match (inside, of_row) {
                        (true, true) => matrix.at(lane, k),
                        (true, false) => matrix.at(k, lane),
                        (false, _) => 0,
                    };
                    let _ = write!(text, "{:0width$b}", code & ((1 << bits) - 1), width = usize::from(bits));
                }
                text.push('\n');
            }
        }
        text
    };
    write("a.txt", &lines(activations, row_tiles, rows, a, true))?;
    write("w.txt", &lines(weights, column_tiles, columns, w, false))?;
    write("bench.v", &bench(widths, terms, rows, columns, row_tiles, column_tiles))?;
    run("iverilog", folder.path(), &["-g2005", "-o", "bench.vvp", "bench.v", "array.v"])?;
    let said = run("vvp", folder.path(), &["-n", "bench.vvp"])?;
    let mut sums = said.split_whitespace().map(|n| n.parse::<i64>().map_err(|_| tool(format!("unexpected `{n}`"))));
    let mut out = Matrix {
        rows: activations.rows,
        columns: weights.columns,
        values: vec![0; activations.rows * weights.columns],
    };
    for row_tile in 0..row_tiles {
        for column_tile in 0..column_tiles {
            for i in row_tile * rows..(row_tile + 1) * rows {
                for j in column_tile * columns..(column_tile + 1) * columns {
                    let sum = sums.next().ok_or_else(|| tool("the simulation ended early".to_owned()))??;
                    if i < out.rows && j < out.columns {
                        out.values[i * out.columns + j] = sum;
                    }
                }
            }
        }
    }
    Ok(out)
}

fn tool(message: String) -> AccelError {
    AccelError::Tool { program: "iverilog", message }
}

/// Feeds every pair of tiles to the array, waits until the last sum stands, prints all sums.
fn bench(widths: Widths, terms: usize, rows: usize, columns: usize, row_tiles: usize, column_tiles: usize) -> String {
    let acc = accumulator_bits(widths, terms as u64);
    let (a_bits, w_bits) = (usize::from(widths.activations()) * rows, usize::from(widths.weights()) * columns);
    format!(
        "module bench;
  reg clk = 0, clear = 0;
  reg [{a_top}:0] a = 0, a_lines [0:{a_last}];
  reg [{w_top}:0] w = 0, w_lines [0:{w_last}];
  wire [{acc_top}:0] acc;
  array dut(.clk(clk), .clear(clear), .a(a), .w(w), .acc(acc));
  always #1 clk = ~clk;
  integer r, c, k, n;
  initial begin
    $readmemb(\"a.txt\", a_lines);
    $readmemb(\"w.txt\", w_lines);
    for (r = 0; r < {row_tiles}; r = r + 1)
      for (c = 0; c < {column_tiles}; c = c + 1) begin
        for (k = 0; k < {terms}; k = k + 1) begin
          @(negedge clk);
          clear = k == 0;
          a = a_lines[r * {terms} + k];
          w = w_lines[c * {terms} + k];
        end
        for (k = 0; k < {wait}; k = k + 1) begin
          @(negedge clk);
          clear = 0;
          a = 0;
          w = 0;
        end
        for (n = 0; n < {units}; n = n + 1) $display(\"%0d\", $signed(acc[{acc} * n +: {acc}]));
      end
    $finish;
  end
endmodule
",
        a_top = a_bits - 1,
        a_last = row_tiles * terms - 1,
        w_top = w_bits - 1,
        w_last = column_tiles * terms - 1,
        acc_top = acc as usize * rows * columns - 1,
        wait = rows + columns,
        units = rows * columns,
    )
}
