//! What CI runs.

use std::process::{Command, Stdio};

use crate::{cargo, isa, lists, succeeds, text};

/// How one check is made.
enum Kind {
    /// A function of this program, which lists what is wrong.
    Text(fn() -> Vec<String>),
    /// Arguments of cargo.
    Cargo(&'static [&'static str]),
    /// A program that may be missing, which is said, and its arguments.
    Tool(&'static str, &'static [&'static str]),
}
use Kind::{Cargo, Text, Tool};

/// Every check with its name, cheapest first. The last one is README's test command.
const CHECKS: [(&str, Kind); 15] = [
    ("source files stay under 1,000 lines", Text(text::long_files)),
    ("comments stay within 120 columns", Text(text::wide_comments)),
    ("links in documents lead to files", Text(text::broken_links)),
    ("files that the architecture names exist", Text(text::stale_paths)),
    ("lists of what to touch", Text(lists::unlisted)),
    ("every dependency has a reason", Text(text::unexplained_dependencies)),
    ("packages of a build without optional features", Text(text::too_many_packages)),
    ("these checks", Cargo(&["test", "--package", "xtask", "--locked", "--quiet"])),
    ("spelling", Tool("typos", &[])),
    ("formatting", Cargo(&["fmt", "--all", "--check"])),
    ("licences, sources and bans of dependencies", Tool("cargo-deny", &["check", "bans", "licenses", "sources"])),
    ("clippy", Cargo(&["clippy", "--release", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])),
    ("documentation", Cargo(&["doc", "--release", "--workspace", "--no-deps", "--locked", "--quiet"])),
    // Only debug builds check integers for overflow.
    ("kernels with overflow checks", Cargo(&["test", "--package", "bitpact-kernels", "--lib", "--locked", "--quiet"])),
    ("tests", Cargo(&["test", "--release"])),
];

/// Runs every check until one fails.
pub(crate) fn check() -> bool {
    let required = isa::required();
    eprintln!("== paths that tests must run: {required}");
    CHECKS.iter().all(|(name, kind)| {
        eprintln!("== {name}");
        let good = match kind {
            Text(find) => {
                let found = find();
                found.iter().for_each(|line| eprintln!("{line}"));
                found.is_empty()
            }
            Cargo(args) => {
                let mut command = cargo();
                command.args(*args).env(isa::REQUIRE_ISA, &required);
                if args[0] == "doc" {
                    command.env("RUSTDOCFLAGS", "-D warnings");
                }
                succeeds(&mut command)
            }
            Tool(program, args) => tool(program, args),
        };
        if !good {
            eprintln!("xtask: {name} failed");
        }
        good
    })
}

/// Runs a program, or says that it is skipped where it is not installed.
fn tool(program: &str, args: &[&str]) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        eprintln!("skipped: `{program}` is not installed");
        return true;
    }
    succeeds(Command::new(program).args(args))
}
