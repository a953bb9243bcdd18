//! Loops over the multiply-add instructions of x86-64, in assembly so that the compiler cannot shorten them:
//! independent accumulators enough to hide the latency, operands in registers.

use std::arch::asm;

use super::{Loop, Number};
use crate::machine::amx::{TileConfig, Tiles};
use crate::machine::isa::{Amx, Avx2, Avx512, Bf16};

/// One line of assembly for each of twelve accumulators.
macro_rules! twelve {
    ($line:ident) => {
        concat!(
            $line!("0"),
            $line!("1"),
            $line!("2"),
            $line!("3"),
            $line!("4"),
            $line!("5"),
            $line!("6"),
            $line!("7"),
            $line!("8"),
            $line!("9"),
            $line!("10"),
            $line!("11")
        )
    };
}

/// A function that runs so many rounds of a line of assembly for each accumulator.
///
/// Registers 0 to 11 are the accumulators, 12 and 13 the operands, all zero; 14 is scratch.
macro_rules! rounds {
    ($name:ident, $features:literal, $clear:ident, $line:ident) => {
        /// # Safety
        /// The CPU has the features.
        #[target_feature(enable = $features)]
        unsafe fn $name(rounds: usize) {
            // SAFETY: the features are there, every register written is declared, and memory is not touched.
            unsafe {
                asm!(
                    twelve!($clear), $clear!("12"), $clear!("13"), $clear!("14"),
                    "2:", twelve!($line), "sub {n}, 1", "jnz 2b",
                    n = inout(reg) rounds.max(1) => _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                    out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                    out("xmm12") _, out("xmm13") _, out("xmm14") _,
                    options(nomem, nostack)
                );
            }
        }
    };
}

macro_rules! clear {
    ($i:literal) => {
        concat!("vpxor xmm", $i, ", xmm", $i, ", xmm", $i, "\n")
    };
}
macro_rules! maddubs_add {
    ($i:literal) => {
        concat!("vpmaddubsw ymm14, ymm12, ymm13\nvpaddw ymm", $i, ", ymm", $i, ", ymm14\n")
    };
}
macro_rules! madd_add {
    ($i:literal) => {
        concat!("vpmaddwd ymm14, ymm12, ymm13\nvpaddd ymm", $i, ", ymm", $i, ", ymm14\n")
    };
}
macro_rules! fma256 {
    ($i:literal) => {
        concat!("vfmadd231ps ymm", $i, ", ymm12, ymm13\n")
    };
}
macro_rules! dpbusd256 {
    ($i:literal) => {
        concat!("{{vex}} vpdpbusd ymm", $i, ", ymm12, ymm13\n")
    };
}
macro_rules! fma512 {
    ($i:literal) => {
        concat!("vfmadd231ps zmm", $i, ", zmm12, zmm13\n")
    };
}
macro_rules! dpbusd512 {
    ($i:literal) => {
        concat!("vpdpbusd zmm", $i, ", zmm12, zmm13\n")
    };
}
macro_rules! dpbf16 {
    ($i:literal) => {
        concat!("vdpbf16ps zmm", $i, ", zmm12, zmm13\n")
    };
}

rounds!(run_maddubs_add, "avx2,fma", clear, maddubs_add);
rounds!(run_madd_add, "avx2,fma", clear, madd_add);
rounds!(run_fma256, "avx2,fma", clear, fma256);
rounds!(run_dpbusd256, "avx2,fma,avxvnni", clear, dpbusd256);
rounds!(run_fma512, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni", clear, fma512);
rounds!(run_dpbusd512, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni", clear, dpbusd512);
rounds!(run_dpbf16, "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16", clear, dpbf16);

/// A function that runs so many rounds of a tile product for each of six accumulators.
macro_rules! tile_rounds {
    ($name:ident, $product:literal) => {
        /// # Safety
        /// The CPU has AMX, and the tiles of this thread are configured.
        unsafe fn $name(rounds: usize) {
            // SAFETY: the caller's promise; only tiles are touched, and all of them are declared.
            unsafe {
                asm!(
                    "2:",
                    concat!($product, " tmm0, tmm6, tmm7"), concat!($product, " tmm1, tmm6, tmm7"),
                    concat!($product, " tmm2, tmm6, tmm7"), concat!($product, " tmm3, tmm6, tmm7"),
                    concat!($product, " tmm4, tmm6, tmm7"), concat!($product, " tmm5, tmm6, tmm7"),
                    "sub {n}, 1", "jnz 2b",
                    n = inout(reg) rounds.max(1) => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                    out("tmm6") _, out("tmm7") _,
                    options(nomem, nostack)
                );
            }
        }
    };
}

tile_rounds!(run_tdpbusd, "tdpbusd");
tile_rounds!(run_tdpbf16, "tdpbf16ps");

/// Accumulators of a round.
const ROUND: usize = 12;

fn unit(number: Number, instructions: &'static str, macs: usize, run: impl Fn(usize) + Sync + 'static) -> Loop {
    Loop { number, instructions, macs_per_round: ROUND * macs, run: Box::new(run) }
}

pub(super) fn avx2(_: Avx2) -> Vec<Loop> {
    let mut units = vec![
        // SAFETY: the token proves the features.
        unit(Number::Int8, "vpmaddubsw + vpaddw", 32, |n| unsafe { run_maddubs_add(n) }),
        // SAFETY: the token proves the features.
        unit(Number::Int8, "vpmaddwd + vpaddd", 16, |n| unsafe { run_madd_add(n) }),
    ];
    if is_x86_feature_detected!("avxvnni") {
        // SAFETY: the token and the detection prove the features.
        units.push(unit(Number::Int8, "vpdpbusd (256 bit)", 32, |n| unsafe { run_dpbusd256(n) }));
    }
    // SAFETY: the token proves the features.
    units.push(unit(Number::F32, "vfmadd231ps (256 bit)", 8, |n| unsafe { run_fma256(n) }));
    units
}

pub(super) fn avx512(_: Avx512) -> Vec<Loop> {
    let mut units = vec![
        // SAFETY: the token proves the features.
        unit(Number::Int8, "vpdpbusd (512 bit)", 64, |n| unsafe { run_dpbusd512(n) }),
        // SAFETY: the token proves the features.
        unit(Number::F32, "vfmadd231ps (512 bit)", 16, |n| unsafe { run_fma512(n) }),
    ];
    if Bf16::detect().is_some() {
        // SAFETY: the token and the detection prove the features.
        units.push(unit(Number::Bf16, "vdpbf16ps (512 bit)", 32, |n| unsafe { run_dpbf16(n) }));
    }
    units
}

/// Multiply-adds of a full int8 tile: 16 x 16 x 64, for six accumulators.
const TILE_ROUND: usize = 6 * 16 * 16 * 64;

pub(super) fn amx(token: Amx) -> Vec<Loop> {
    let config = TileConfig::new([(16, 64); 8]);
    let int8 = move |n| {
        let _tiles = Tiles::configure(token, &config);
        // SAFETY: the token proves the instructions, and the tiles are configured.
        unsafe { run_tdpbusd(n) }
    };
    let bf16 = move |n| {
        let _tiles = Tiles::configure(token, &config);
        // SAFETY: the token proves the instructions, and the tiles are configured.
        unsafe { run_tdpbf16(n) }
    };
    let unit = |number, instructions, macs_per_round, run| Loop { number, instructions, macs_per_round, run };
    vec![
        unit(Number::Int8, "tdpbusd (tiles)", TILE_ROUND, Box::new(int8)),
        unit(Number::Bf16, "tdpbf16ps (tiles)", TILE_ROUND / 2, Box::new(bf16)),
    ]
}
