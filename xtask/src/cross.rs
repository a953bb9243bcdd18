//! Exported C on machines that are emulated: every instruction set gives the numbers of portable C.

use std::path::Path;
use std::process::Command;

use crate::{cargo, succeeds};

const WARNINGS: [&str; 7] = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-O1"];
/// Where the programs are written.
const FOLDER: &str = "target/cross-c";

/// A machine of QEMU's user mode: name, architecture of the compiler, processor of the emulator.
const AARCH64: [(&str, &str, &str); 3] =
    [("NEON", "armv8-a", "cortex-a53"), ("dot product", "armv8.2-a+dotprod", "max"), ("i8mm", "armv8.6-a+i8mm", "max")];
/// A board: name, processor, floating point, machine of the emulator, linker script.
const BOARDS: [(&str, &str, &str, &str, &str); 2] = [
    ("DSP", "cortex-m4", "-mfloat-abi=soft", "mps2-an386", "an386.ld"),
    ("MVE", "cortex-m55", "-mfloat-abi=hard", "mps3-an547", "an547.ld"),
];

/// Writes random networks as C and runs their self-tests natively, without the target's instructions, and emulated.
pub(crate) fn cross_c() -> bool {
    let written = succeeds(cargo().args(["run", "-p", "bitpact-interop", "--example", "c_programs", "--", FOLDER]));
    written && native() && cmake() && arm() && AARCH64.into_iter().all(aarch64) && BOARDS.into_iter().all(board)
}

fn step(name: &str) {
    println!("cross-c: {name}");
}

/// Compiles `all.c` and more with `compiler`.
fn compiles(compiler: &str, flags: &[&str], to: &str) -> bool {
    succeeds(Command::new(compiler).args(WARNINGS).args(flags).args(["-o", to]).current_dir(FOLDER))
}

fn native() -> bool {
    step("sanitizers");
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "all.c"];
    compiles("cc", &flags, "all") && succeeds(&mut Command::new(Path::new(FOLDER).join("all")))
}

/// The CMake file, which is that of the last network.
fn cmake() -> bool {
    step("CMake");
    let run = |program: &str, words: &[&str]| succeeds(Command::new(program).args(words).current_dir(FOLDER));
    run("cmake", &["-S", ".", "-B", "build"])
        && run("cmake", &["--build", "build"])
        && run("ctest", &["--test-dir", "build"])
}

/// The DSP instructions of a Cortex-A, in the user mode of QEMU.
fn arm() -> bool {
    step("DSP, A32");
    compiles("arm-none-eabi-gcc", &["-mcpu=cortex-a9", "-marm", "--specs=rdimon.specs", "all.c"], "all")
        && succeeds(Command::new("qemu-arm").args(["-cpu", "cortex-a9", "./all"]).current_dir(FOLDER))
}

fn aarch64((name, arch, cpu): (&str, &str, &str)) -> bool {
    step(name);
    let arch = format!("-march={arch}");
    compiles("aarch64-linux-gnu-gcc", &["-static", &arch, "all.c"], "all")
        && succeeds(Command::new("qemu-aarch64").args(["-cpu", cpu, "./all"]).current_dir(FOLDER))
}

fn board((name, cpu, float, machine, script): (&str, &str, &str, &str, &str)) -> bool {
    step(name);
    let cpu = format!("-mcpu={cpu}");
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards");
    let script = boards.join(script).display().to_string();
    let vectors = boards.join("vectors.c").display().to_string();
    let link = || {
        let flags = ["-mthumb", &cpu, float, "--specs=rdimon.specs", "-T", &script, &vectors, "all.o", "-o", "all.elf"];
        succeeds(Command::new("arm-none-eabi-gcc").args(flags).current_dir(FOLDER))
    };
    let run = || {
        let run = ["-M", machine, "-nographic", "-semihosting", "-kernel", "all.elf"];
        succeeds(Command::new("qemu-system-arm").args(run).current_dir(FOLDER))
    };
    compiles("arm-none-eabi-gcc", &["-mthumb", &cpu, float, "-c", "all.c"], "all.o") && link() && run()
}
