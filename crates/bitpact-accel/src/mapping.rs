//! How a product lies on the array: cycles, the share of the units that work, and what passes through on-chip memory.
//!
//! Weight-stationary: a tile holds the weights of `rows * lanes` input channels at one position of the window and
//! `columns` output channels; one pixel enters a cycle. The next tile's weights are loaded row by row meanwhile, so
//! that a tile takes `max(pixels, rows)` cycles. Output-stationary: a tile holds the sums of `rows` pixels and
//! `columns` output channels, and takes one cycle for every `lanes` inputs of a sum. Cores divide output tiles by
//! `outputs` and pixels by `pixels`, whichever division with `outputs * pixels <= cores` is fastest. Tiles follow each
//! other without a gap; filling the array costs `rows + columns - 1` cycles once a layer.

use crate::{AccelError, Dataflow, Device, Product};

/// Bytes of a partial sum.
const SUM_BYTES: u64 = 4;

/// How one product runs on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    /// Cycles of all tiles, one after the other on the busiest core.
    pub cycles: f64,
    /// Cycles of filling the array.
    pub fill_cycles: f64,
    /// Multiply-adds over what all units could do in `cycles`, counting a wide one as the several it takes.
    pub utilization: f64,
    /// Parts into which cores divide the output tiles.
    pub outputs: u64,
    /// Parts into which cores divide the pixels.
    pub pixels: u64,
    /// Cycles a unit takes for one multiply-add.
    pub passes: u64,
    /// Bytes read from and written to the large on-chip memory.
    pub on_chip_bytes: f64,
    /// Bytes of partial sums read and written beside the array.
    pub local_bytes: f64,
}

impl Mapping {
    /// Maps `product` for a batch of `batch` images.
    ///
    /// # Errors
    /// Operands the units cannot do, or weights whose tiles do not fit on chip.
    pub fn new(device: &Device, product: &Product, batch: u64) -> Result<Self, AccelError> {
        let passes = device.passes(product)?;
        let needed = device.staging_bytes(product);
        if needed > device.on_chip_bytes() {
            let (device, layer, on_chip) = (device.name.clone(), product.name.clone(), device.on_chip_bytes());
            return Err(AccelError::Memory { device, layer, needed, on_chip });
        }
        let pixels = product.pixels * batch;
        let tiling = Tiling::new(device, product);
        let (outputs, cycles) = tiling.divide(device, pixels);
        let cycles = cycles * passes as f64;
        let work = product.macs() as f64 * batch as f64 * passes as f64;
        let inputs = (product.groups * product.in_channels * product.window) as f64 * pixels as f64;
        let sums = (product.groups * product.out_channels) as f64 * pixels as f64;
        let activation_bytes = f64::from(product.widths.activations()) / 8.0;
        let (input_reads, weight_reads, sum_accesses) = match device.dataflow {
            Dataflow::WeightStationary => {
                (inputs * tiling.column_tiles as f64, (device.cores / outputs) as f64, 2.0 * tiling.depth as f64 - 1.0)
            }
            Dataflow::OutputStationary => {
                (inputs * tiling.column_tiles as f64, pixels.div_ceil(device.rows) as f64, 1.0)
            }
        };
        let written = sums * activation_bytes;
        Ok(Self {
            cycles,
            fill_cycles: (device.rows + device.columns - 1) as f64,
            utilization: work / (cycles * device.units_per_cycle()),
            outputs,
            pixels: device.cores / outputs,
            passes,
            on_chip_bytes: input_reads * activation_bytes + weight_reads * product.weight_bytes() as f64 + written,
            local_bytes: sums * sum_accesses * SUM_BYTES as f64,
        })
    }
}

/// The product cut into what fits the array at once.
struct Tiling {
    /// Tiles that add into the same sums, or inputs of a sum over lanes.
    depth: u64,
    /// Tiles that make different output channels, groups included.
    out_tiles: u64,
    /// Tiles over the output channels of one group: how often its inputs are read.
    column_tiles: u64,
}

impl Tiling {
    fn new(device: &Device, product: &Product) -> Self {
        let column_tiles = product.out_channels.div_ceil(device.columns);
        match device.dataflow {
            Dataflow::WeightStationary => {
                let inputs = device.rows * device.lanes;
                // Small groups lie along the diagonal of the array, everything beside it idle.
                let packed = (inputs / product.in_channels).min(device.columns / product.out_channels).max(1);
                let depth = product.in_channels.div_ceil(inputs) * product.window;
                Self { depth, out_tiles: product.groups.div_ceil(packed) * column_tiles, column_tiles }
            }
            Dataflow::OutputStationary => {
                let depth = (product.in_channels * product.window).div_ceil(device.lanes);
                Self { depth, out_tiles: product.groups * column_tiles, column_tiles }
            }
        }
    }

    /// The fastest division of the cores: parts of the output tiles, and the cycles.
    fn divide(&self, device: &Device, pixels: u64) -> (u64, f64) {
        let cycles = |outputs: u64| {
            let parts = device.cores / outputs;
            let passing = match device.dataflow {
                Dataflow::WeightStationary => pixels.div_ceil(parts).max(device.rows),
                Dataflow::OutputStationary => pixels.div_ceil(device.rows).div_ceil(parts),
            };
            self.depth as f64 * self.out_tiles.div_ceil(outputs) as f64 * passing as f64
        };
        let all = (1..=device.cores.min(self.out_tiles)).map(|outputs| (outputs, cycles(outputs)));
        all.min_by(|a, b| a.1.total_cmp(&b.1)).expect("a device has cores")
    }
}
