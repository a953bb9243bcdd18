//! Project chores. `cargo xtask check` runs what CI runs, cheapest first.

use std::process::{Command, ExitCode};

/// Name, program and arguments of every check, cheapest first. The last one is README's test command.
const CHECKS: [(&str, &[&str]); 6] = [
    ("source files stay under 1,000 lines", &[]),
    ("formatting", &["fmt", "--all", "--check"]),
    ("clippy", &["clippy", "--release", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    ("documentation", &["doc", "--release", "--workspace", "--no-deps", "--locked", "--quiet"]),
    // Only debug builds check integers for overflow.
    ("kernels with overflow checks", &["test", "--package", "bitpact-kernels", "--lib", "--locked", "--quiet"]),
    ("tests", &["test", "--release"]),
];

/// The longest a source file may be.
const MOST_LINES: usize = 1000;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("check") => check(),
        _ => {
            eprintln!("usage: cargo xtask check");
            ExitCode::from(2)
        }
    }
}

fn check() -> ExitCode {
    for (name, args) in CHECKS {
        eprintln!("== {name}");
        let good = if args.is_empty() { files_are_short() } else { cargo(args) };
        if !good {
            eprintln!("xtask: {name} failed");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn cargo(args: &[&str]) -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args);
    if args[0] == "doc" {
        command.env("RUSTDOCFLAGS", "-D warnings");
    }
    command.status().is_ok_and(|status| status.success())
}

/// Whether every tracked Rust file has at most [`MOST_LINES`] lines.
fn files_are_short() -> bool {
    let Ok(output) = Command::new("git").args(["ls-files", "*.rs"]).output() else {
        eprintln!("git is needed to list the source files");
        return false;
    };
    let mut good = output.status.success();
    for file in String::from_utf8_lossy(&output.stdout).lines() {
        let lines = std::fs::read_to_string(file).map_or(0, |text| text.lines().count());
        if lines > MOST_LINES {
            eprintln!("{file}: {lines} lines, at most {MOST_LINES}");
            good = false;
        }
    }
    good
}
