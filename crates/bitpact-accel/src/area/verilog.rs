//! Synthesizable Verilog: a multiply-accumulate unit of any two widths, and a systolic array of them.

use crate::Widths;

/// Products that the unit of the area table can sum: 3 * 3 * 512, the longest sum of ResNet-50.
pub const MAC_TERMS: u64 = 4608;

/// Bits of a two's complement sum that holds `terms` products of an unsigned activation and a signed weight, whatever
/// their values: `[-terms * a_max * 2^(w-1), terms * a_max * (2^(w-1) - 1)]` with `a_max = 2^a - 1`.
pub fn accumulator_bits(widths: Widths, terms: u64) -> u32 {
    let a_max = (1u128 << widths.activations()) - 1;
    let least = u128::from(terms) * a_max * (1u128 << (widths.weights() - 1));
    // Smallest n with 2^(n-1) >= least; the positive end is nearer.
    1 + least.next_power_of_two().trailing_zeros()
}

/// Module `multiplier`: `y = a * w`, combinational.
pub fn multiplier(widths: Widths) -> String {
    let (a, w) = (widths.activations(), widths.weights());
    format!(
        "// y = a * w: {a}-bit unsigned times {w}-bit signed.
module multiplier(
  input [{}:0] a,
  input signed [{}:0] w,
  output signed [{}:0] y
);
  assign y = $signed({{1'b0, a}}) * w;
endmodule
",
        a - 1,
        w - 1,
        a + w
    )
}

/// Module `mac`: on every clock `acc = (clear ? 0 : acc) + a * w`, with an accumulator that cannot overflow in `terms`
/// steps.
pub fn mac(widths: Widths, terms: u64) -> String {
    let (a, w, acc) = (widths.activations(), widths.weights(), accumulator_bits(widths, terms));
    format!(
        "// acc <= (clear ? 0 : acc) + a * w: {a}-bit unsigned times {w}-bit signed, {acc} bits for {terms} terms.
module mac(
  input clk,
  input clear,
  input [{}:0] a,
  input signed [{}:0] w,
  output reg signed [{acc_top}:0] acc
);
  wire signed [{}:0] product = $signed({{1'b0, a}}) * w;
  always @(posedge clk) acc <= (clear ? {acc}'sd0 : acc) + product;
endmodule
",
        a - 1,
        w - 1,
        a + w,
        acc_top = acc - 1,
    )
}

/// Modules `array`, `pe` and `mac`: an output-stationary systolic array of `rows` pixels by `columns` output channels.
///
/// Each clock takes one activation a row and one weight a column, all of the same index of the sum; `clear` comes with
/// the first. Skewing registers at the edges delay row `i` by `i` clocks and column `j` by `j`; activations then move
/// right and weights down, one unit a clock. The sum of row `i` and column `j` stands in `acc` `i + j + 1` clocks after
/// its last operands. Every sum can be read at once; a chip would shift them out.
pub fn array(widths: Widths, terms: u64, rows: usize, columns: usize) -> String {
    let (a, w, acc) = (widths.activations(), widths.weights(), accumulator_bits(widths, terms));
    format!(
        "{mac}
// One unit with the registers that pass its operands on.
module pe(
  input clk,
  input clear_in,
  input [{a_top}:0] a_in,
  input signed [{w_top}:0] w_in,
  output reg clear_out,
  output reg [{a_top}:0] a_out,
  output reg signed [{w_top}:0] w_out,
  output signed [{acc_top}:0] acc
);
  always @(posedge clk) begin
    clear_out <= clear_in;
    a_out <= a_in;
    w_out <= w_in;
  end
  mac unit(.clk(clk), .clear(clear_in), .a(a_in), .w(w_in), .acc(acc));
endmodule

// {rows} x {columns} units; operands of row i and column j are delayed by i and j clocks.
module array(
  input clk,
  input clear,
  input [{a_bus}:0] a,
  input [{w_bus}:0] w,
  output [{acc_bus}:0] acc
);
  genvar i, j, k;
  generate
    for (i = 0; i < {rows}; i = i + 1) begin : row
      wire [{a}:0] delayed [0:i];
      assign delayed[0] = {{clear, a[{a} * i +: {a}]}};
      for (k = 0; k < i; k = k + 1) begin : skew
        reg [{a}:0] held;
        always @(posedge clk) held <= delayed[k];
        assign delayed[k + 1] = held;
      end
      for (j = 0; j < {columns}; j = j + 1) begin : column
        wire clear_in, clear_out;
        wire [{a_top}:0] a_in, a_out;
        wire [{w_top}:0] w_in, w_out;
        if (j == 0) assign {{clear_in, a_in}} = delayed[i];
        else assign {{clear_in, a_in}} = {{row[i].column[j - 1].clear_out, row[i].column[j - 1].a_out}};
        if (i == 0) assign w_in = top[j].delayed[j];
        else assign w_in = row[i - 1].column[j].w_out;
        pe cell_(
          .clk(clk), .clear_in(clear_in), .a_in(a_in), .w_in(w_in),
          .clear_out(clear_out), .a_out(a_out), .w_out(w_out),
          .acc(acc[{acc} * ({columns} * i + j) +: {acc}])
        );
      end
    end
    for (j = 0; j < {columns}; j = j + 1) begin : top
      wire [{w_top}:0] delayed [0:j];
      assign delayed[0] = w[{w} * j +: {w}];
      for (k = 0; k < j; k = k + 1) begin : skew
        reg [{w_top}:0] held;
        always @(posedge clk) held <= delayed[k];
        assign delayed[k + 1] = held;
      end
    end
  endgenerate
endmodule
",
        mac = mac(widths, terms),
        a_top = a - 1,
        w_top = w - 1,
        acc_top = acc - 1,
        a_bus = usize::from(a) * rows - 1,
        w_bus = usize::from(w) * columns - 1,
        acc_bus = acc as usize * rows * columns - 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accumulator_is_wide_enough_and_not_wider() {
        for (a, w, terms) in
            [(1, 1, 1), (1, 1, 4608), (2, 2, 4608), (8, 8, 4608), (16, 16, 1), (16, 16, 25088), (8, 2, 9)]
        {
            let bits = accumulator_bits(Widths::new(a, w).unwrap(), terms);
            let least = -(i128::from(terms) * ((1 << a) - 1) * (1 << (w - 1)));
            let most = i128::from(terms) * ((1 << a) - 1) * ((1 << (w - 1)) - 1);
            let holds = |bits: u32| least >= -(1i128 << (bits - 1)) && most < 1i128 << (bits - 1);
            assert!(holds(bits), "W{w}A{a} {terms}: {bits}");
            assert!(bits == 1 || !holds(bits - 1), "W{w}A{a} {terms}: {bits}");
        }
        assert_eq!(accumulator_bits(Widths::same(2).unwrap(), MAC_TERMS), 16);
    }
}
