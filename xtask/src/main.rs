//! Project chores: `cargo xtask check` runs what CI runs, cheapest first; the other commands need a nightly compiler,
//! another build of the kernels or a large download, and run by hand.

mod check;
mod deep;
mod isa;
mod text;

use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask COMMAND
  check              what CI runs: text, formatting, clippy, documentation, licences, tests
  miri               the portable path, the threads and the memory of the kernels under Miri
  sanitize address   kernels and engine under AddressSanitizer
  sanitize thread    kernels and engine under ThreadSanitizer
  orders             the thread pool and its shares in many orders of their threads, under shuttle
  neon               whether the kernels compile for aarch64
  notebooks          the Python package with both notebooks; downloads torch";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let good = match words[..] {
        ["check"] => check::check(),
        ["miri"] => deep::miri(),
        ["sanitize", which @ ("address" | "thread")] => deep::sanitize(which),
        ["orders"] => deep::orders(),
        ["neon"] => deep::neon(),
        ["notebooks"] => succeeds(Command::new(".ci/python").arg("torchvision")),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a program and says whether it succeeded.
fn succeeds(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("xtask: {}: {error}", command.get_program().display());
            false
        }
    }
}

/// The cargo that runs this program.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
