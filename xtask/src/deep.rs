//! Checks that need a nightly compiler or another build of the kernels. Each builds into a folder of its own.

use std::path::PathBuf;
use std::process::Command;

use crate::{isa, succeeds};

/// Tests that Miri interprets in minutes: threads, memory, and kernels on the portable path, the only one it has.
const MIRI: [&str; 16] = [
    "machine::pool",
    "machine::shares",
    "machine::weights",
    "machine::layout",
    "machine::workers",
    "engine::linear",
    "engine::product::lookup::digits",
    "engine::requant::tests::a_sum_that",
    "engine::requant::tests::the_largest_sum",
    "gemv::tests::codes_come_back",
    "gemv::tests::inputs_round",
    "train::elements",
    "train::norm::tests::exact_ties",
    "train::norm::tests::relu_and_keep",
    "train::norm::tests::widen",
    "train::pool2d",
];

/// Random cases of a property where each takes ten times as long as usual, or a hundred.
const FEW_CASES: &str = "16";

/// Processors that QEMU emulates, and the paths that each has.
const PROCESSORS: [(&str, &str); 2] = [("Nehalem", "scalar"), ("Haswell", "scalar,avx2")];

/// Tests that run there: those of arithmetic, which emulation slows down a few dozen times.
const EMULATED: [&str; 3] = ["engine::", "gemv::", "train::"];

/// A folder of its own for what a check builds, in the folder of the environment or `target`.
fn folder(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join(name)
}

/// A cargo of the nightly toolchain that builds into [`folder`].
fn nightly(name: &str) -> Command {
    let mut command = Command::new("cargo");
    // A cargo that was started by another one inherits its choice of compiler.
    command.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
    command.arg("+nightly").env("CARGO_TARGET_DIR", folder(name));
    command
}

/// Needs `rustup +nightly component add miri rust-src`.
pub(crate) fn miri() -> bool {
    let mut command = nightly("miri");
    command.args(["miri", "test", "--package", "bitpact-kernels", "--lib", "--"]).args(MIRI);
    // The pool's threads read a clock, and large zeroed buffers are leaked by nobody.
    succeeds(command.env("MIRIFLAGS", "-Zmiri-disable-isolation"))
}

/// ThreadSanitizer needs `rustup +nightly component add rust-src`.
pub(crate) fn sanitize(which: &str) -> bool {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let packages: [&[&str]; 2] = [
        &["--package", "bitpact-kernels", "--lib"],
        &["--package", "bitpact-engine", "--test", "executor", "--test", "random_networks"],
    ];
    packages.iter().all(|package| {
        let mut command = nightly(which);
        command.args(["test", "--target", TARGET]).args(*package);
        if which == "thread" {
            // The standard library's own accesses must be seen too.
            command.arg("-Zbuild-std");
        }
        command.env("RUSTFLAGS", format!("-Zsanitizer={which}")).env("PROPTEST_CASES", FEW_CASES);
        succeeds(command.env(isa::REQUIRE_ISA, isa::required()))
    })
}

/// Runs the tests of `machine::orders`, which exist only in this build.
pub(crate) fn orders() -> bool {
    let mut command = crate::cargo();
    command.args(["test", "--package", "bitpact-kernels", "--lib", "machine::orders", "--", "--nocapture"]);
    succeeds(command.env("CARGO_TARGET_DIR", folder("shuttle")).env("RUSTFLAGS", "--cfg shuttle"))
}

/// Runs the tests of kernels under QEMU's user mode (`qemu-x86_64`), once for each of [`PROCESSORS`]: what finds the
/// instruction sets must find those that the processor has, and no path may use an instruction that it lacks.
pub(crate) fn emulate() -> bool {
    PROCESSORS.iter().all(|(processor, paths)| {
        eprintln!("== {processor}: {paths}");
        let mut command = crate::cargo();
        command.args(["test", "--package", "bitpact-kernels", "--lib", "--"]).args(EMULATED);
        let runner = format!("qemu-x86_64 -cpu {processor}");
        command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner).env("PROPTEST_CASES", FEW_CASES);
        succeeds(command.env(isa::REQUIRE_ISA, paths))
    })
}

/// Needs `rustup target add aarch64-unknown-linux-gnu`.
pub(crate) fn neon() -> bool {
    let mut command = crate::cargo();
    succeeds(command.args(["check", "--package", "bitpact-kernels", "--target", "aarch64-unknown-linux-gnu"]))
}
