//! Project chores: `cargo xtask check` runs what CI runs, cheapest first; the other commands need a nightly compiler,
//! another build of the kernels or a large download, and run by hand.

mod check;
mod cross;
mod deep;
mod isa;
mod lists;
mod text;

use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask COMMAND
  check              what CI runs: text, formatting, clippy, documentation, licences, tests
  miri               the portable path, the threads and the memory of the kernels under Miri
  sanitize address   kernels and engine under AddressSanitizer
  sanitize thread    kernels and engine under ThreadSanitizer
  emulate            the scalar and AVX2 paths of the kernels on emulated processors without and with AVX2
  orders             the thread pool and its shares in many orders of their threads, under shuttle
  neon               whether the kernels compile for aarch64
  cross-c            exported C for Cortex-M and AArch64 in QEMU (Debian: gcc-arm-none-eabi, libnewlib-arm-none-eabi,
                     gcc-aarch64-linux-gnu, qemu-user, qemu-system-arm, cmake)
  notebooks          the Python package against the command, with both notebooks; downloads torch";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let good = match words[..] {
        ["check"] => check::check(),
        ["miri"] => deep::miri(),
        ["sanitize", which @ ("address" | "thread")] => deep::sanitize(which),
        ["emulate"] => deep::emulate(),
        ["orders"] => deep::orders(),
        ["neon"] => deep::neon(),
        ["cross-c"] => cross::cross_c(),
        ["notebooks"] => succeeds(Command::new(".ci/python").arg("all")),
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
