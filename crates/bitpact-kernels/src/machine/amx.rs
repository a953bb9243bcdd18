//! AMX, where stable Rust has no intrinsics yet: whether this process may use it, and the tiles' configuration of a
//! thread.
//!
//! A tile is up to 16 rows of up to 64 bytes. `tdpbusd C, A, B` adds to C (i32, M x N) the product of A (u8, M rows of
//! 4K) and B (s8, K rows of N quads); `tdpbf16ps` the same in bfloat16 pairs with float32 sums (Intel 64 manual, volume
//! 2, TDPBUSD and TDPBF16PS). Kernels put a whole loop over tiles into one block of assembly.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

use crate::machine::isa::Amx;

/// arch_prctl's request for a part of the extended state, and AMX's tile data in it (Linux,
/// Documentation/arch/x86/xstate.rst).
const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
const XFEATURE_XTILEDATA: usize = 18;
#[cfg(target_os = "linux")]
const SYS_ARCH_PRCTL: usize = 158;

/// Whether the CPU has AMX TILE, INT8 and BF16 and the system gives this process the tiles.
pub(crate) fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| has_instructions() && has_state() && request())
}

/// CPUID leaf 7, EDX: AMX-BF16, AMX-TILE, AMX-INT8.
fn has_instructions() -> bool {
    const BITS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BITS == BITS
}

/// Tells whether the system saves the tiles' configuration and data: XCR0, bits 17 and 18.
fn has_state() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: register 0 exists wherever the instruction does.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: OSXSAVE says that the instruction is there.
    let xcr0 = unsafe { xcr0() };
    xcr0 >> 17 & 3 == 3
}

/// Asks Linux for the tiles; the permission is the whole process's.
#[cfg(target_os = "linux")]
fn request() -> bool {
    let result: isize;
    // SAFETY: the system call has two numbers for arguments, touches no memory and changes rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") SYS_ARCH_PRCTL as isize => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// Other systems are not known to us.
#[cfg(not(target_os = "linux"))]
fn request() -> bool {
    false
}

/// The shapes of the eight tiles, as `ldtilecfg` reads them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    /// Eight tiles of (rows, bytes of a row).
    ///
    /// # Panics
    /// If a tile has not 1 to 16 rows of 4 to 64 bytes, a multiple of 4.
    pub(crate) fn new(tiles: [(usize, usize); 8]) -> TileConfig {
        let mut config = TileConfig { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        for (i, (rows, bytes)) in tiles.into_iter().enumerate() {
            assert!((1..=16).contains(&rows), "{rows} rows in a tile");
            assert!((4..=64).contains(&bytes) && bytes.is_multiple_of(4), "{bytes} bytes in a row of a tile");
            (config.rows[i], config.bytes[i]) = (rows as u8, bytes as u16);
        }
        config
    }
}

/// This thread's tiles, configured; gives them back to the system when it is dropped. Not to be nested.
#[derive(Debug)]
pub(crate) struct Tiles(());

impl Tiles {
    /// Configures the tiles of this thread; their contents are zero.
    pub(crate) fn configure(_: Amx, config: &TileConfig) -> Tiles {
        // SAFETY: the token proves the instruction; it reads the 64 bytes of a configuration that `TileConfig::new` has
        // checked.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) config, out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
                out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nostack, readonly));
        }
        Tiles(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: a configuration exists, so the instruction does; it touches the tiles only.
        unsafe {
            asm!("tilerelease", out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                out("tmm6") _, out("tmm7") _, options(nostack, nomem));
        }
    }
}
