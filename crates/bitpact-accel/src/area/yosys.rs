//! Area and depth by yosys, without a cell library: static CMOS gates of up to four transistor pairs.

use std::path::Path;

use super::verilog::{MAC_TERMS, accumulator_bits, mac, multiplier};
use super::{PairArea, run};
use crate::{AccelError, Widths};

/// The yosys of this machine.
#[derive(Debug, Clone)]
pub struct Yosys {
    version: String,
}

/// What one synthesis says.
struct Synthesis {
    transistors: u64,
    depth: u64,
}

impl Yosys {
    /// Finds yosys on the search path.
    ///
    /// # Errors
    /// It is not there, or does not say its version.
    pub fn find() -> Result<Self, AccelError> {
        let said = run("yosys", Path::new("."), &["-V"])?;
        // "Yosys 0.23 (git sha1 ...)"
        let version = said.split_whitespace().nth(1).map(str::to_owned);
        version.map(|version| Self { version }).ok_or_else(|| unexpected("-V", &said))
    }

    /// The version of the program, such as `0.23`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Synthesizes the multiply-accumulate unit of one pair, and its multiplier alone.
    ///
    /// # Errors
    /// yosys fails or says something unexpected.
    pub fn pair(&self, widths: Widths) -> Result<PairArea, AccelError> {
        let mac = synthesize("mac", &mac(widths, MAC_TERMS))?;
        let multiplier = synthesize("multiplier", &multiplier(widths))?;
        Ok(PairArea {
            activation_bits: widths.activations(),
            weight_bits: widths.weights(),
            accumulator_bits: accumulator_bits(widths, MAC_TERMS),
            multiplier_transistors: multiplier.transistors,
            multiplier_depth: multiplier.depth,
            mac_transistors: mac.transistors,
            mac_depth: mac.depth,
        })
    }
}

fn synthesize(top: &str, verilog: &str) -> Result<Synthesis, AccelError> {
    let folder = tempfile::tempdir().map_err(|e| tool(format!("no temporary folder: {e}")))?;
    std::fs::write(folder.path().join("unit.v"), verilog).map_err(|e| tool(format!("unit.v: {e}")))?;
    let script =
        format!("read_verilog unit.v; synth -flatten -top {top}; abc -g cmos4; opt_clean; stat -tech cmos; ltp -noff");
    let said = run("yosys", folder.path(), &["-p", &script])?;
    let last = |before: &str| -> Option<u64> {
        let (_, after) = said.rsplit_once(before)?;
        let digits: String = after.trim_start().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    match (last("Estimated number of transistors:"), last("(length=")) {
        (Some(transistors), Some(depth)) => Ok(Synthesis { transistors, depth }),
        _ => Err(unexpected("stat and ltp", said.lines().last().unwrap_or_default())),
    }
}

fn tool(message: String) -> AccelError {
    AccelError::Tool { program: "yosys", message }
}

fn unexpected(command: &str, said: &str) -> AccelError {
    tool(format!("{command}: unexpected answer `{}`", said.trim()))
}
