//! From widths to gates: Verilog, synthesis, simulation, and the table of areas they give.

mod check;
mod simulate;
mod table;
mod verilog;
mod yosys;

pub use check::{LayerCheck, check_layer};
pub use simulate::{Matrix, simulate};
pub use table::{AreaTable, PairArea};
pub use verilog::{MAC_TERMS, accumulator_bits, array, mac, multiplier};
pub use yosys::Yosys;

use crate::AccelError;

/// Runs a program with its arguments in `folder`; what it wrote to standard output.
fn run(program: &'static str, folder: &std::path::Path, args: &[&str]) -> Result<String, AccelError> {
    let fail = |message: String| Err(AccelError::Tool { program, message });
    let output = match std::process::Command::new(program).current_dir(folder).args(args).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return fail("not found; it is in the Debian package of the same name".to_owned());
        }
        Err(error) => return fail(error.to_string()),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().chain(text.lines()).find(|l| l.to_lowercase().contains("error")).unwrap_or("no message");
    fail(format!("failed ({}): {last}", output.status))
}

/// Tells whether `program` can be run: `program -V` ends well.
pub fn is_installed(program: &str) -> bool {
    let mut command = std::process::Command::new(program);
    command.arg("-V").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
