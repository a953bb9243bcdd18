//! What a network costs at given bits.

use std::path::Path;

use bitpact_accel::{DEVICE_NAMES, Device, Estimate, Widths, Workload};
use bitpact_graph::Graph;

use crate::{Bitwidths, Budget, CHIP_NAMES, Chip, LatencyTable, Product, Quantity, SearchError};

/// The word for this machine in a budget.
pub const CPU: &str = "cpu";

/// A cost of a network as a function of its graph and its bits.
#[derive(Debug, Clone)]
pub enum Cost {
    /// Weights and biases, `sum of weights + biases`: what a network file of these layers holds beside its multipliers.
    Parameters,
    /// Bytes of weight codes as a `.bitpact` file packs them, `sum of ceil(weights * bits / 8)`.
    Bytes,
    /// Multiply-adds of an image.
    Macs,
    /// `sum of multiply-adds * weight bits * activation bits`.
    BitOperations,
    /// Seconds on a chip.
    ChipLatency(Chip),
    /// Joules on a chip.
    ChipEnergy(Chip),
    /// Seconds of an image on a device of `bitpact-accel`, what stays on its chip included.
    DeviceLatency(Device),
    /// Joules of an image on a device of `bitpact-accel`.
    DeviceEnergy(Device),
    /// Seconds of an image by measured times of layers.
    Measured(LatencyTable),
}

impl Cost {
    /// The cost that `budget` limits; `cpu` is the table of this machine, which stands for the device `cpu`.
    ///
    /// # Errors
    /// A device that is unknown, cannot be read or has no energies.
    pub fn of(budget: &Budget, cpu: Option<&LatencyTable>) -> Result<Self, SearchError> {
        let of_energy = match budget.quantity {
            Quantity::Parameters => return Ok(Self::Parameters),
            Quantity::Bytes => return Ok(Self::Bytes),
            Quantity::Macs => return Ok(Self::Macs),
            Quantity::BitOperations => return Ok(Self::BitOperations),
            Quantity::Latency => false,
            Quantity::Energy => true,
        };
        let name = budget.device.as_deref().unwrap_or_default();
        let no_energy = || SearchError::NoEnergy { device: name.to_owned() };
        let unknown = || SearchError::UnknownDevice {
            name: name.to_owned(),
            known: CHIP_NAMES.into_iter().chain(DEVICE_NAMES).collect::<Vec<_>>().join(", "),
        };
        let is_table = Path::new(name).extension().is_some_and(|extension| extension == "json");
        if name == CPU || is_table {
            if of_energy {
                return Err(no_energy());
            }
            return match (is_table, cpu) {
                (true, _) => LatencyTable::read(Path::new(name)).map(Self::Measured),
                (false, Some(table)) => Ok(Self::Measured(table.clone())),
                (false, None) => Err(unknown()),
            };
        }
        if let Some(chip) = chip(name)? {
            return match (of_energy, chip.power_mw) {
                (true, None) => Err(no_energy()),
                (true, Some(_)) => Ok(Self::ChipEnergy(chip)),
                (false, _) => Ok(Self::ChipLatency(chip)),
            };
        }
        if !DEVICE_NAMES.contains(&name) && !Path::new(name).is_file() {
            return Err(unknown());
        }
        let device = Device::open(name)?;
        match (of_energy, device.energy) {
            (true, None) => Err(no_energy()),
            (true, Some(_)) => Ok(Self::DeviceEnergy(device)),
            (false, _) => Ok(Self::DeviceLatency(device)),
        }
    }

    /// Cost of one product; `None` where the cost is no sum over products.
    ///
    /// # Errors
    /// Widths or a form of layer that the model has no figure for.
    pub fn product(&self, product: &Product, widths: Widths) -> Result<Option<f64>, SearchError> {
        let operations = u64::from(widths.activations()) * u64::from(widths.weights());
        Ok(Some(match self {
            Self::Parameters => (product.weights + product.biases) as f64,
            Self::Bytes => product.packed_bytes(widths.weights()) as f64,
            Self::Macs => product.macs as f64,
            Self::BitOperations => (product.macs * operations) as f64,
            Self::ChipLatency(chip) => chip.seconds(product, widths)?,
            Self::ChipEnergy(chip) => chip.joules(product, widths)?,
            Self::Measured(table) => table.seconds(product, widths)?,
            Self::DeviceLatency(_) | Self::DeviceEnergy(_) => return Ok(None),
        }))
    }

    /// What is not in the products: of measured times the rest of the network.
    pub fn fixed(&self) -> f64 {
        match self {
            Self::Measured(table) => table.rest_s(),
            _ => 0.0,
        }
    }

    /// Cost of the network `graph` at `bits`; `products` are those of the graph.
    ///
    /// # Errors
    /// A layer that the model or device has no figure for.
    pub fn network(&self, graph: &Graph, products: &[Product], bits: &Bitwidths) -> Result<f64, SearchError> {
        let estimate = |device: &Device| -> Result<Estimate, SearchError> {
            let act = |name: &str| bits.activations.get(name).copied();
            let weights = |name: &str| bits.weights.get(name).copied();
            Ok(Estimate::new(device, &Workload::of_bits(graph, act, weights)?, 1)?)
        };
        match self {
            Self::DeviceLatency(device) => return Ok(estimate(device)?.total_s),
            Self::DeviceEnergy(device) => {
                let none = || SearchError::NoEnergy { device: device.name.clone() };
                return estimate(device)?.energy_j.ok_or_else(none);
            }
            _ => {}
        }
        let mut total = self.fixed();
        for product in products {
            total += self.product(product, bits.operands(graph, product))?.unwrap_or(0.0);
        }
        Ok(total)
    }
}

/// The built-in chip called `name`, or that of a TOML file; `None` where it is none of both.
fn chip(name: &str) -> Result<Option<Chip>, SearchError> {
    if let Some(chip) = Chip::built_in(name) {
        return Ok(Some(chip));
    }
    let path = Path::new(name);
    if DEVICE_NAMES.contains(&name) || !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(|source| SearchError::Read { path: path.to_owned(), source })?;
    // A device of `bitpact-accel` has its clock in GHz.
    let is_chip = toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("frequency_mhz"));
    if is_chip { Chip::parse(&text, name).map(Some) } else { Ok(None) }
}
