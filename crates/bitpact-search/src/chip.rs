//! Microcontrollers as data: cycles of a product by a table of widths, by the tiles of a kernel library, or by the
//! passes of an engine.

mod engine;

use std::collections::BTreeMap;

use bitpact_accel::Widths;
use serde::Deserialize;

use crate::{Kind, Product, SearchError};

use engine::Engine;

/// A chip whose cycles are known for every product alone: `time = cycles / frequency`, `energy = time * power`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chip {
    /// Name, such as `mpic`.
    pub name: String,
    /// One sentence that describes the chip.
    pub summary: String,
    /// Clock in MHz.
    pub frequency_mhz: f64,
    /// Power while it computes, in milliwatts; not given means that its energy is not known.
    #[serde(default)]
    pub power_mw: Option<f64>,
    /// Multiply-adds a cycle for each pair of widths, such as `W4A8`.
    #[serde(default)]
    pub macs_per_cycle: BTreeMap<String, f64>,
    /// Cycles of kernels of 8 bits, in place of a table of widths.
    #[serde(default)]
    pub tiles: Option<Tiles>,
    /// An engine for convolutions of codes of 8 bits, in place of both.
    #[serde(default)]
    pub engine: Option<Engine>,
    /// Where each constant comes from, by its key.
    #[serde(default)]
    pub sources: BTreeMap<String, String>,
}

/// Cycles of a library of kernels of 8 bits, by the form of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiles {
    /// Convolutions.
    pub conv: ConvTiles,
    /// Depthwise convolutions.
    pub depthwise: DepthwiseTiles,
    /// Linear layers.
    pub linear: LinearTiles,
}

/// `ceil(rows / tile_rows) ceil(columns / tile_columns) [copy k Cin + ceil(Cout / outputs) (start + step ceil(k Cin /
/// inputs))]` for a window of k positions and an output of rows times columns.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvTiles {
    /// Output rows together.
    pub tile_rows: u64,
    /// Output columns together.
    pub tile_columns: u64,
    /// Cycles of copying an input of the window.
    pub copy: u64,
    /// Output channels together.
    pub outputs: u64,
    /// Cycles of starting these.
    pub start: u64,
    /// Cycles of one step of the inner loop.
    pub step: u64,
    /// Inputs that a step takes.
    pub inputs: u64,
}

/// `factor ceil(C / channels) rows columns k`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepthwiseTiles {
    /// Cycles of a position of the window.
    pub factor: u64,
    /// Channels together.
    pub channels: u64,
}

/// `ceil(Cin / inputs) ceil(Cout / outputs)`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearTiles {
    /// Inputs together.
    pub inputs: u64,
    /// Outputs together.
    pub outputs: u64,
}

/// Names of the chips that are part of the program.
pub const CHIP_NAMES: [&str; 3] = ["gap8", "mpic", "ne16"];

impl Chip {
    /// The built-in chip called `name`; `None` of other names.
    pub fn built_in(name: &str) -> Option<Self> {
        let text = match name {
            "gap8" => include_str!("../chips/gap8.toml"),
            "mpic" => include_str!("../chips/mpic.toml"),
            "ne16" => include_str!("../chips/ne16.toml"),
            _ => return None,
        };
        Some(Self::parse(text, name).expect("the built-in text is a chip"))
    }

    /// Reads the TOML `text` of a chip; `place` is what errors call it.
    ///
    /// # Errors
    /// Text that is not TOML, unknown or missing keys, or constants that no chip has.
    pub fn parse(text: &str, place: &str) -> Result<Self, SearchError> {
        let fail = |message: String| SearchError::Syntax { place: place.to_owned(), message };
        let chip: Self = toml::from_str(text).map_err(|error| fail(error.to_string().trim_end().to_owned()))?;
        let positive = |key: &str, got: f64| match got.is_finite() && got > 0.0 {
            true => Ok(()),
            false => Err(fail(format!("{key} = {got}, expected a positive number"))),
        };
        positive("frequency_mhz", chip.frequency_mhz)?;
        chip.power_mw.map_or(Ok(()), |power| positive("power_mw", power))?;
        for (widths, &rate) in &chip.macs_per_cycle {
            let read = widths.parse::<Widths>().map_err(|message| fail(format!("macs_per_cycle: {message}")))?;
            if read.to_string() != *widths {
                return Err(fail(format!("macs_per_cycle: `{widths}`, expected the form `{read}`")));
            }
            positive(&format!("macs_per_cycle.{widths}"), rate)?;
        }
        let models = [!chip.macs_per_cycle.is_empty(), chip.tiles.is_some(), chip.engine.is_some()];
        if models.into_iter().filter(|&has| has).count() != 1 {
            return Err(fail(
                "expected a table macs_per_cycle, tables tiles or a table engine, one of them".to_owned(),
            ));
        }
        if chip.engine.as_ref().is_some_and(Engine::has_zero) {
            return Err(fail("engine: 0 rows, columns, channels or bits together".to_owned()));
        }
        if let Some(Tiles { conv, depthwise, linear }) = &chip.tiles {
            let together =
                [conv.tile_rows, conv.tile_columns, conv.outputs, conv.inputs, depthwise.channels, linear.inputs];
            if together.contains(&0) || linear.outputs == 0 {
                return Err(fail("tiles: 0 rows, columns, channels, inputs or outputs together".to_owned()));
            }
        }
        Ok(chip)
    }

    /// Cycles of `product` for one image.
    ///
    /// # Errors
    /// Widths or a form that the chip has no figure for.
    pub fn cycles(&self, product: &Product, widths: Widths) -> Result<f64, SearchError> {
        let fail = |message: String| {
            let (layer, model) = (product.name.clone(), self.name.clone());
            Err(SearchError::NoFigure { layer, widths, model, message })
        };
        if let Some(engine) = &self.engine {
            if widths.activations() > 8 || !(2..=8).contains(&widths.weights()) {
                return fail("its engine takes activations of up to 8 bits and weights of 2 to 8".to_owned());
            }
            let cycles = engine.cycles(product, widths.weights().into());
            let message = "its engine has convolutions, depthwise ones of a multiple of 3x3, and linear layers";
            return cycles.map_or_else(|| fail(message.to_owned()), |cycles| Ok(cycles as f64));
        }
        let Some(Tiles { conv, depthwise, linear }) = &self.tiles else {
            return match self.macs_per_cycle.get(&widths.to_string()) {
                Some(rate) => Ok(product.macs as f64 / rate),
                None => fail(format!("it has {}", self.macs_per_cycle.keys().cloned().collect::<Vec<_>>().join(", "))),
            };
        };
        if widths.activations() > 8 || widths.weights() > 8 {
            return fail("its kernels take up to 8 bits".to_owned());
        }
        let (rows, columns) = (product.output.h as u64, product.output.w as u64);
        let (inputs, outputs) = (product.in_channels, product.out_channels);
        let cycles = match product.kind {
            Kind::Conv => {
                let inner = conv.start + conv.step * (product.window * inputs).div_ceil(conv.inputs);
                rows.div_ceil(conv.tile_rows)
                    * columns.div_ceil(conv.tile_columns)
                    * (conv.copy * product.window * inputs + outputs.div_ceil(conv.outputs) * inner)
            }
            Kind::Depthwise => {
                depthwise.factor * outputs.div_ceil(depthwise.channels) * rows * columns * product.window
            }
            Kind::Linear => inputs.div_ceil(linear.inputs) * outputs.div_ceil(linear.outputs),
            Kind::Grouped | Kind::Transposed => {
                return fail("it has convolutions, depthwise ones and linear layers".to_owned());
            }
        };
        Ok(cycles as f64)
    }

    /// Seconds of `product` for one image.
    ///
    /// # Errors
    /// Those of [`Chip::cycles`].
    pub fn seconds(&self, product: &Product, widths: Widths) -> Result<f64, SearchError> {
        Ok(self.cycles(product, widths)? / (self.frequency_mhz * 1e6))
    }

    /// Joules of `product` for one image.
    ///
    /// # Errors
    /// Those of [`Chip::cycles`], or a chip whose power is not known.
    pub fn joules(&self, product: &Product, widths: Widths) -> Result<f64, SearchError> {
        let Some(power) = self.power_mw else { return Err(SearchError::NoEnergy { device: self.name.clone() }) };
        Ok(self.seconds(product, widths)? * power * 1e-3)
    }
}
