//! A memory cell and the array it stands in, as data: read currents from stated physics, with the source of every
//! constant.

use std::collections::BTreeMap;
use std::path::Path;

use bitpact_core::rng::Key;
use serde::Deserialize;

use crate::AccelError;

/// How inputs and weights become currents: the current that a row adds to its column, and the count that the converter
/// subtracts (`docs/in-memory.md`, "Encodings").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// XNOR with two bit lines: a row is driven where the input is 1 and the lines' difference is `sum In' W`, with In'
    /// of 0 and 1 and W of -1 and +1; the sum over inputs of -1 and +1 is `2 sum In' W - sum W`.
    Differential,
    /// AND with one bit line: a row is driven where the input is 1, and a dummy column of cells that store 0 is
    /// subtracted; `sum In' b` with both of 0 and 1.
    And,
    /// XNOR with one bit line: every row is driven and carries the high current where input and weight are equal; the
    /// matches.
    Match,
}

/// Device that stores a bit, with the currents that it conducts in both states.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Storage {
    /// A magnetic tunnel junction: `R_P = RA / (pi d^2 / 4)`, `R_AP = R_P (1 + TMR(V))`, `TMR(V) = TMR / (1 + (V /
    /// V_h)^2)` with the voltage V over the junction.
    #[serde(rename_all = "snake_case")]
    Junction {
        /// Resistance-area product in ohm square micrometres.
        ra_ohm_um2: f64,
        /// Diameter in nanometres.
        diameter_nm: f64,
        /// Tunnel magnetoresistance at no bias: 1.5 is 150 %.
        tmr: f64,
        /// Bias that halves the magnetoresistance, in volts; not given means that it does not fall.
        #[serde(default = "unlimited")]
        half_v: f64,
    },
    /// A resistor of two values.
    #[serde(rename_all = "snake_case")]
    Resistor {
        /// Low resistance in ohm.
        low_ohm: f64,
        /// High resistance in ohm.
        high_ohm: f64,
    },
    /// A transistor that is on or off; the access resistance is part of the currents.
    #[serde(rename_all = "snake_case")]
    Transistor {
        /// Current of the stored 1 in microamperes.
        high_ua: f64,
        /// Current of the stored 0 in microamperes.
        low_ua: f64,
    },
}

fn unlimited() -> f64 {
    f64::INFINITY
}

/// The law of a parameter's spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Law {
    /// `value * exp(sigma N)`, N standard normal.
    LogNormal,
    /// `value * (1 + sigma N)`, never below a hundredth of the value.
    Normal,
}

/// Relative standard deviation of every parameter from cell to cell; drawn once a chip.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The law of all of them.
    pub law: Law,
    /// The current of a cell as a whole.
    #[serde(default)]
    pub current: f64,
    /// Resistance-area product, or the resistances of a resistor: oxide thickness.
    #[serde(default)]
    pub resistance: f64,
    /// Tunnel magnetoresistance.
    #[serde(default)]
    pub tmr: f64,
    /// Diameter.
    #[serde(default)]
    pub diameter: f64,
    /// Access resistance: width and threshold of the transistors.
    #[serde(default)]
    pub access: f64,
    /// Current of a cut off-path, exponential in a threshold.
    #[serde(default)]
    pub off: f64,
}

/// The array: what is wired to what, and how much is read at once.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Array {
    /// Rows of a sub-array.
    pub rows: usize,
    /// Columns of a sub-array; a differential column has two bit lines.
    pub columns: usize,
    /// Rows that are driven together.
    pub rows_at_once: usize,
    /// Bit line and source line from row to row, in ohm, both tapped at the same end.
    pub bit_line_ohm: f64,
    /// Word line from column to column in ohm, where it carries the read current; 0 where it drives gates.
    #[serde(default)]
    pub word_line_ohm: f64,
    /// Driver and sense circuit of a bit line in ohm.
    pub driver_ohm: f64,
    /// Columns that share a converter.
    pub columns_per_adc: usize,
    /// Time of a read in nanoseconds.
    pub read_ns: f64,
}

/// The flash converter of a column.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adc {
    /// Bits, without the sign that a differential column has in addition.
    pub bits: u8,
    /// Counts between neighbouring codes: above 1 the range is wider and counts are rounded.
    #[serde(default = "one")]
    pub counts_per_code: u32,
    /// Standard deviation of every threshold, in counts; drawn once a chip and column.
    #[serde(default)]
    pub offset_sigma: f64,
    /// Time of a conversion in nanoseconds.
    pub ns: f64,
    /// Energy of a conversion in femtojoules for each of its 2^bits levels.
    pub fj_per_level: f64,
}

fn one() -> u32 {
    1
}

/// A cell, its array and its converter. Always possible: every constant has been checked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Name, such as `stride-xnor`.
    pub name: String,
    /// One sentence that describes the cell.
    pub summary: String,
    /// How inputs and weights become currents of a column.
    pub encoding: Encoding,
    /// Voltage of a read, over storage and access, in volts.
    pub read_v: f64,
    /// Device that stores a bit.
    pub storage: Storage,
    /// Resistance in series with the storage when read, in ohm.
    #[serde(default)]
    pub access_ohm: f64,
    /// Current of the stored 0 in microamperes where cross-coupled transistors cut its path; else it follows from the
    /// storage.
    #[serde(default)]
    pub cut_off_ua: Option<f64>,
    /// High over low current, in place of what the physics gives: the low current is the high one over this. `inf` is
    /// possible.
    #[serde(default)]
    pub ratio: Option<f64>,
    /// Current above which a read can switch the cell, in microamperes; not given where reads do not disturb.
    #[serde(default)]
    pub critical_ua: Option<f64>,
    /// Energy of an addition for each bit of the sum, in femtojoules.
    pub add_fj_per_bit: f64,
    /// Random spread of the parameters from cell to cell.
    pub spread: Spread,
    /// The array.
    pub array: Array,
    /// The converter.
    pub adc: Adc,
    /// Source of each constant (paper, data sheet or assumption), by the key of the constant.
    #[serde(default)]
    pub sources: BTreeMap<String, String>,
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// Names of the cells that are part of the program.
        pub const CELL_NAMES: [&str; [$($name),*].len()] = [$($name),*];

        fn built_in_text(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(include_str!(concat!("../../devices/in-memory/", $name, ".toml"))),)*
                _ => None,
            }
        }
    };
}

built_in!["stride-xnor", "stride-and", "crest", "2t2mtj", "1t1mtj", "rram", "rram-crossbar", "sram"];

/// State of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The high current.
    High,
    /// The low current.
    Low,
}

impl Cell {
    /// The built-in cell called `name`, or the cell of the TOML file at that path.
    ///
    /// # Errors
    /// Neither of the two, a file that is not TOML, or a cell that cannot exist.
    pub fn open(name: &str) -> Result<Self, AccelError> {
        if let Some(text) = built_in_text(name) {
            return Self::parse(text, name);
        }
        let path = Path::new(name);
        if !path.is_file() {
            return Err(AccelError::UnknownDevice { name: name.to_owned(), known: CELL_NAMES.join(", ") });
        }
        let text =
            std::fs::read_to_string(path).map_err(|source| AccelError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, name)
    }

    /// Reads the TOML `text` of a cell; `place` is what errors call it.
    ///
    /// # Errors
    /// Text that is not TOML, unknown or missing keys, or constants that no cell has.
    pub fn parse(text: &str, place: &str) -> Result<Self, AccelError> {
        let cell: Self = toml::from_str(text).map_err(|e| AccelError::Syntax {
            place: place.to_owned(),
            message: e.to_string().trim_end().to_owned(),
        })?;
        cell.check()?;
        Ok(cell)
    }

    /// Returns this cell with the relative spread `sigma` of the cell current and no spread of any other parameter.
    ///
    /// # Errors
    /// A spread that is negative, not a number or above 1.
    pub fn with_sigma(mut self, sigma: f64) -> Result<Self, AccelError> {
        let none = Spread {
            law: self.spread.law,
            current: 0.0,
            resistance: 0.0,
            tmr: 0.0,
            diameter: 0.0,
            access: 0.0,
            off: 0.0,
        };
        self.spread = Spread { current: sigma, ..none };
        self.check()?;
        Ok(self)
    }

    /// Returns this cell with a low current of the high current divided by `ratio`.
    ///
    /// # Errors
    /// A ratio of 1 or less.
    pub fn with_ratio(mut self, ratio: f64) -> Result<Self, AccelError> {
        self.ratio = Some(ratio);
        self.check()?;
        Ok(self)
    }

    /// Returns this cell with `rows` driven together, in sub-arrays of at least as many rows, and a converter whose
    /// bits grow with the logarithm of the rows.
    ///
    /// # Errors
    /// Rows that an array cannot have.
    pub fn with_rows(mut self, rows: usize) -> Result<Self, AccelError> {
        let before = self.array.rows_at_once.max(1);
        let grown = f64::from(self.adc.bits) + (rows.max(1) as f64 / before as f64).log2().ceil();
        self.adc.bits = grown.clamp(1.0, 16.0) as u8;
        self.array.rows_at_once = rows;
        self.array.rows = self.array.rows.max(rows);
        self.check()?;
        Ok(self)
    }

    /// Returns this cell with a converter of `bits` bits.
    ///
    /// # Errors
    /// Bits that no flash converter has.
    pub fn with_adc_bits(mut self, bits: u8) -> Result<Self, AccelError> {
        self.adc.bits = bits;
        self.check()?;
        Ok(self)
    }

    /// Returns this cell without any imperfection: infinite ratio, no spread, no wire or driver resistance, and a
    /// converter that holds every count.
    pub fn ideal(mut self) -> Self {
        self = self.with_sigma(0.0).expect("0 is a spread");
        self.ratio = Some(f64::INFINITY);
        self.array = Array { bit_line_ohm: 0.0, word_line_ohm: 0.0, driver_ohm: 0.0, ..self.array };
        let bits = (usize::BITS - self.array.rows_at_once.leading_zeros()) as u8;
        self.adc = Adc { bits, counts_per_code: 1, offset_sigma: 0.0, ..self.adc };
        self
    }

    /// Current of the stored 1, in microamperes, with nominal parameters and without wires.
    pub fn high_ua(&self) -> f64 {
        self.current(Stored::High, &mut |_, value| value)
    }

    /// Current of the stored 0, in microamperes, with nominal parameters and without wires.
    pub fn low_ua(&self) -> f64 {
        self.current(Stored::Low, &mut |_, value| value)
    }

    /// High over low current: what the papers call the ratio.
    pub fn on_off_ratio(&self) -> f64 {
        self.high_ua() / self.low_ua()
    }

    /// Current of one cell in microamperes: its parameters are the nominal ones, spread by the numbers of the key
    /// `cell`.
    pub fn sample(&self, stored: Stored, cell: Key) -> f64 {
        let law = self.spread.law;
        let mut draw = 0;
        self.current(stored, &mut |sigma, value| {
            draw += 1;
            if sigma == 0.0 {
                return value;
            }
            let x = sigma * f64::from(cell.normal(draw));
            match law {
                Law::LogNormal => value * x.exp(),
                Law::Normal => value * (1.0 + x).max(0.01),
            }
        })
    }

    /// The current with every parameter passed through `vary(sigma, value)`, in a fixed order.
    fn current(&self, stored: Stored, vary: &mut impl FnMut(f64, f64) -> f64) -> f64 {
        let spread = &self.spread;
        match (stored, self.ratio, self.cut_off_ua) {
            (Stored::Low, Some(ratio), _) => return self.current(Stored::High, vary) / ratio,
            (Stored::Low, None, Some(off)) => return vary(spread.current, 1.0) * vary(spread.off, off),
            _ => {}
        }
        let whole = vary(spread.current, 1.0);
        let access = vary(spread.access, self.access_ohm);
        let ohm = match self.storage {
            Storage::Transistor { high_ua, low_ua } => {
                return whole * if stored == Stored::High { high_ua } else { low_ua };
            }
            Storage::Resistor { low_ohm, high_ohm } => {
                vary(spread.resistance, if stored == Stored::High { low_ohm } else { high_ohm })
            }
            Storage::Junction { ra_ohm_um2, diameter_nm, tmr, half_v } => {
                let um = vary(spread.diameter, diameter_nm) * 1e-3;
                let parallel = vary(spread.resistance, ra_ohm_um2) / (std::f64::consts::FRAC_PI_4 * um * um);
                match stored {
                    Stored::High => parallel,
                    Stored::Low => anti_parallel(parallel, vary(spread.tmr, tmr), half_v, access, self.read_v),
                }
            }
        };
        whole * 1e6 * self.read_v / (ohm + access)
    }
}

/// Resistance of an antiparallel junction in series with `access` ohm at `volts`: its magnetoresistance falls with the
/// voltage it gets, which falls with its resistance. The map from voltage to voltage is decreasing, so bisection finds
/// its one fixed point.
fn anti_parallel(parallel: f64, tmr: f64, half_v: f64, access: f64, volts: f64) -> f64 {
    let at = |v: f64| parallel * (1.0 + tmr / (1.0 + (v / half_v).powi(2)));
    let (mut low, mut high) = (0.0, volts);
    for _ in 0..50 {
        let v = 0.5 * (low + high);
        let ohm = at(v);
        if volts * ohm / (ohm + access) > v { low = v } else { high = v }
    }
    at(0.5 * (low + high))
}
