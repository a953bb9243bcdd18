//! What a layer takes on the arrays: cells, reads, energy and time.

use super::cell::{Cell, Encoding};
use super::encoding::Slices;
use super::layers::Layer;

/// Sub-arrays, energy and time of one layer for one image.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LayerCost {
    /// Sub-arrays, each with word lines and converters of its own.
    pub sub_arrays: u64,
    /// Share of their cells that hold weights.
    pub utilization: f64,
    /// Conversions: reads of a column.
    pub conversions: u64,
    /// Energy of the cells' read currents in nanojoules.
    pub cells_nj: f64,
    /// Energy of the converters in nanojoules.
    pub converters_nj: f64,
    /// Energy of adding up partial sums in nanojoules.
    pub adders_nj: f64,
    /// Time in microseconds.
    pub time_us: f64,
}

impl LayerCost {
    /// Computes the cost of `layer` on arrays of `cell`, where the share `activity` of the input bits is 1.
    ///
    /// Columns are output channels times weight planes; a column longer than a sub-array goes on in others, and groups
    /// have sub-arrays of their own. All sub-arrays work at once; in each, groups of rows, input bits and pixels follow
    /// each other, and a read ends when every column that shares a converter has been converted. A conversion adds one
    /// number of the width of the layer's sums. A column's cells store as many ones as zeros.
    pub fn new(cell: &Cell, layer: &Layer, activity: f64) -> Self {
        let array = &cell.array;
        let slices = Slices::new(cell.encoding, layer.grid, layer.weight_bits, layer.input_bits);
        let columns = layer.group_channels * slices.planes();
        let groups = layer.out_channels / layer.group_channels;
        let sub_arrays = groups * layer.inputs.div_ceil(array.rows) * columns.div_ceil(array.columns);
        let cells = layer.out_channels * slices.planes() * layer.inputs;
        let reads = layer.inputs.div_ceil(array.rows_at_once);
        let steps = layer.pixels * usize::from(layer.input_bits);
        let conversions = (steps * reads * layer.out_channels * slices.planes()) as f64;
        let pair = cell.high_ua() + cell.low_ua();
        let row_ua = match cell.encoding {
            Encoding::Differential => activity * pair,
            Encoding::And => activity * pair / 2.0,
            Encoding::Match => pair / 2.0,
        };
        // V uA ns = fJ.
        let row_fj = cell.read_v * row_ua * array.read_ns;
        let width = layer.bounds.iter().map(|&(lo, hi)| lo.unsigned_abs().max(hi.unsigned_abs())).max().unwrap_or(0);
        let sum_bits = f64::from(65 - width.leading_zeros());
        let in_turn = reads.min(array.rows.div_ceil(array.rows_at_once));
        let read_ns = array.read_ns + array.columns_per_adc.min(columns) as f64 * cell.adc.ns;
        Self {
            sub_arrays: sub_arrays as u64,
            utilization: cells as f64 / (sub_arrays * array.rows * array.columns) as f64,
            conversions: conversions as u64,
            cells_nj: (steps * cells) as f64 * row_fj * 1e-6,
            converters_nj: conversions * f64::from(1u32 << cell.adc.bits) * cell.adc.fj_per_level * 1e-6,
            adders_nj: conversions * sum_bits * cell.add_fj_per_bit * 1e-6,
            time_us: (steps * in_turn) as f64 * read_ns * 1e-3,
        }
    }

    /// Energy in nanojoules.
    pub fn energy_nj(&self) -> f64 {
        self.cells_nj + self.converters_nj + self.adders_nj
    }
}
