//! A machine as data: the constants of the model, read from TOML, each with the name of its source.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::{AccelError, Product, Widths};

/// The operands that stay in a systolic array while the others pass through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dataflow {
    /// Weights: rows are input channels, columns output channels, and the pixels stream through.
    WeightStationary,
    /// Sums: rows are pixels, columns output channels, and the inputs of a sum stream through.
    OutputStationary,
}

/// The cost of operands wider than the units of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wider {
    /// The cycles of the operand that is too wide by the larger factor: 8-bit operands on 2-bit units take 4.
    Linear,
    /// One pass for every pair of parts, as in bit-serial machines: 8-bit operands on 2-bit units take 16.
    Product,
    /// Operands wider than the units are refused.
    Refuse,
}

/// Whether external transfers run while the array computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// Weights and spilled activations of a layer stream in while the same layer computes.
    Layer,
    /// Transfers come before the array computes, and take their own time.
    None,
}

/// Energy of every event, in picojoules.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Energy {
    /// Multiplying, for each bit of one operand times each bit of the other.
    pub multiply_pj_per_bit2: f64,
    /// Adding, for each of the 32 bits of a sum.
    pub add_pj_per_bit: f64,
    /// Reading or writing a byte of the large on-chip memory.
    pub on_chip_pj_per_byte: f64,
    /// Reading or writing a byte of the memory that holds partial sums beside the array.
    pub local_pj_per_byte: f64,
    /// Moving a byte to or from external memory.
    pub external_pj_per_byte: f64,
}

/// A multi-core systolic accelerator, or something that behaves like one. Always possible: every constant has been
/// checked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Name, such as `pact-4`.
    pub name: String,
    /// One sentence that describes the device.
    pub summary: String,
    /// Clock in GHz.
    pub frequency_ghz: f64,
    /// Cores, each with an array of its own.
    pub cores: u64,
    /// Rows of an array.
    pub rows: u64,
    /// Columns of an array.
    pub columns: u64,
    /// Multiply-adds of one unit a cycle, all into one sum.
    #[serde(default = "one")]
    pub lanes: u64,
    /// The operands that stay in the array.
    pub dataflow: Dataflow,
    /// Bits of the units' activation operand; narrower ones gain nothing.
    pub activation_bits: u8,
    /// Bits of the units' weight operand.
    pub weight_bits: u8,
    /// The cost of operands wider than the units.
    pub wider: Wider,
    /// On-chip memory in KiB (1024 bytes), shared by the cores.
    pub on_chip_kib: u64,
    /// External bandwidth in GB/s (10^9 bytes a second); not given means unlimited.
    #[serde(default)]
    pub bandwidth_gbps: Option<f64>,
    /// Whether transfers and compute overlap.
    pub overlap: Overlap,
    /// How often an activation tensor is held on chip: 2 for double buffering.
    pub activation_buffers: u64,
    /// Share of the peak that the best code reaches where nothing else limits it.
    #[serde(default = "whole")]
    pub efficiency: f64,
    /// Fixed time of starting a layer, in microseconds.
    #[serde(default)]
    pub layer_overhead_us: f64,
    /// Energy of every event.
    #[serde(default)]
    pub energy: Option<Energy>,
    /// Where each constant comes from, by its key.
    #[serde(default)]
    pub sources: BTreeMap<String, String>,
}

fn one() -> u64 {
    1
}

fn whole() -> f64 {
    1.0
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// Names of the devices that are part of the program.
        pub const DEVICE_NAMES: [&str; [$($name),*].len()] = [$($name),*];

        fn built_in_text(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(include_str!(concat!("../devices/", $name, ".toml"))),)*
                _ => None,
            }
        }
    };
}

built_in![
    "pact-16",
    "pact-8",
    "pact-4",
    "pact-2",
    "ethos-u65",
    "bismo-pynq",
    "stm32f746",
    "cortex-m4",
    "cortex-m7",
    "cortex-m55",
    "cortex-a53",
    "zen5-2core",
    "this-cpu",
];

/// The keys a source can be named for.
const KEYS: [&str; 22] = [
    "frequency_ghz",
    "cores",
    "rows",
    "columns",
    "lanes",
    "dataflow",
    "activation_bits",
    "weight_bits",
    "wider",
    "on_chip_kib",
    "bandwidth_gbps",
    "overlap",
    "activation_buffers",
    "efficiency",
    "layer_overhead_us",
    "energy",
    "energy.multiply_pj_per_bit2",
    "energy.add_pj_per_bit",
    "energy.on_chip_pj_per_byte",
    "energy.local_pj_per_byte",
    "energy.external_pj_per_byte",
    "summary",
];

impl Device {
    /// The built-in device called `name`, or the device of the file at that path.
    ///
    /// # Errors
    /// Neither of the two, a file that is not TOML, or a device that cannot exist.
    pub fn open(name: &str) -> Result<Self, AccelError> {
        if let Some(text) = built_in_text(name) {
            return Self::parse(text, name);
        }
        let path = Path::new(name);
        if !path.is_file() {
            return Err(AccelError::UnknownDevice { name: name.to_owned(), known: DEVICE_NAMES.join(", ") });
        }
        let text =
            std::fs::read_to_string(path).map_err(|source| AccelError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, name)
    }

    /// Reads the TOML `text` of a device; `place` is what errors call it.
    ///
    /// # Errors
    /// Text that is not TOML, unknown or missing keys, or constants that no machine has.
    pub fn parse(text: &str, place: &str) -> Result<Self, AccelError> {
        let device: Self = toml::from_str(text).map_err(|e| AccelError::Syntax {
            place: place.to_owned(),
            message: e.to_string().trim_end().to_owned(),
        })?;
        device.check()?;
        Ok(device)
    }

    /// A copy of the device with another external bandwidth in GB/s; `None` is unlimited.
    ///
    /// # Errors
    /// A bandwidth that is not a positive number.
    pub fn with_bandwidth(mut self, gbps: Option<f64>) -> Result<Self, AccelError> {
        self.bandwidth_gbps = gbps;
        self.check()?;
        Ok(self)
    }

    /// Checks that such a machine can exist.
    ///
    /// # Errors
    /// Names the first constant that is impossible.
    pub fn check(&self) -> Result<(), AccelError> {
        let fail =
            |key, got: String, expected| Err(AccelError::Constant { device: self.name.clone(), key, got, expected });
        for (key, got) in [("cores", self.cores), ("rows", self.rows), ("columns", self.columns), ("lanes", self.lanes)]
        {
            if !(1..=1 << 16).contains(&got) {
                return fail(key, got.to_string(), "1 to 65536");
            }
        }
        for (key, got) in [("activation_bits", self.activation_bits), ("weight_bits", self.weight_bits)] {
            if !(1..=16).contains(&got) {
                return fail(key, got.to_string(), "1 to 16");
            }
        }
        if !(1..=1 << 30).contains(&self.on_chip_kib) {
            return fail("on_chip_kib", self.on_chip_kib.to_string(), "1 to 2^30");
        }
        if !(1..=16).contains(&self.activation_buffers) {
            return fail("activation_buffers", self.activation_buffers.to_string(), "1 to 16");
        }
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if !positive(self.frequency_ghz) {
            return fail("frequency_ghz", self.frequency_ghz.to_string(), "a positive number");
        }
        if let Some(gbps) = self.bandwidth_gbps.filter(|&gbps| !positive(gbps)) {
            return fail("bandwidth_gbps", gbps.to_string(), "a positive number, or nothing for unlimited");
        }
        if !(positive(self.efficiency) && self.efficiency <= 1.0) {
            return fail("efficiency", self.efficiency.to_string(), "above 0, at most 1");
        }
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        if !not_negative(self.layer_overhead_us) {
            return fail("layer_overhead_us", self.layer_overhead_us.to_string(), "0 or a positive number");
        }
        if let Some(e) = &self.energy {
            for (key, got) in [
                ("energy.multiply_pj_per_bit2", e.multiply_pj_per_bit2),
                ("energy.add_pj_per_bit", e.add_pj_per_bit),
                ("energy.on_chip_pj_per_byte", e.on_chip_pj_per_byte),
                ("energy.local_pj_per_byte", e.local_pj_per_byte),
                ("energy.external_pj_per_byte", e.external_pj_per_byte),
            ] {
                if !not_negative(got) {
                    return fail(key, got.to_string(), "0 or a positive number");
                }
            }
        }
        match self.sources.keys().find(|key| !KEYS.contains(&key.as_str())) {
            Some(key) => Err(AccelError::Source { device: self.name.clone(), key: key.clone() }),
            None => Ok(()),
        }
    }

    /// Widths of the units' operands.
    pub fn units(&self) -> Widths {
        Widths::new(self.activation_bits, self.weight_bits).expect("checked")
    }

    /// Multiply-adds of all units in one cycle.
    pub fn units_per_cycle(&self) -> f64 {
        (self.cores * self.rows * self.columns * self.lanes) as f64
    }

    /// Multiply-adds a second of all units, for operands they take in one cycle.
    pub fn peak_macs_per_s(&self) -> f64 {
        self.units_per_cycle() * self.frequency_ghz * 1e9 * self.efficiency
    }

    /// On-chip memory in bytes.
    pub fn on_chip_bytes(&self) -> u64 {
        self.on_chip_kib * 1024
    }

    /// Seconds that moving `bytes` to or from external memory takes.
    pub fn transfer_s(&self, bytes: u64) -> f64 {
        self.bandwidth_gbps.map_or(0.0, |gbps| bytes as f64 / (gbps * 1e9))
    }

    /// Cycles that one multiply-add of `product` takes a unit.
    ///
    /// # Errors
    /// Operands that the units cannot do.
    pub fn passes(&self, product: &Product) -> Result<u64, AccelError> {
        let (needed, units) = (product.widths, self.units());
        let a = u64::from(needed.activations().div_ceil(units.activations()));
        let w = u64::from(needed.weights().div_ceil(units.weights()));
        match self.wider {
            Wider::Linear => Ok(a.max(w)),
            Wider::Product => Ok(a * w),
            Wider::Refuse if a * w == 1 => Ok(1),
            Wider::Refuse => {
                Err(AccelError::Wider { device: self.name.clone(), layer: product.name.clone(), needed, units })
            }
        }
    }

    /// Bytes of on-chip memory that two tiles of weights take on every core: one in use, one arriving.
    pub fn staging_bytes(&self, product: &Product) -> u64 {
        let tile = self.cores * self.rows * self.columns * self.lanes;
        (2 * tile.min(product.weights()) * u64::from(product.widths.weights())).div_ceil(8)
    }
}
