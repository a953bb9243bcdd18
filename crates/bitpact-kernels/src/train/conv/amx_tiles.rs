//! Sums of products of AMX tiles: one block of assembly that every convolution on tiles is made of.

use std::arch::asm;

use crate::machine::amx::TileConfig;

/// What sums begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Start {
    /// Zero.
    Zero = 0,
    /// What the tiles written hold.
    Old = 1,
    /// One row of 16 values for all rows, [`Job::init`].
    Init = 2,
}

/// `c[i][j] = start + sum over steps s of a[i][s] * b[j][s]`, of 4 x 1 or 2 x 2 tiles or of one.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Job {
    /// Bytes from a's beginning to its tile of every step.
    pub(super) offsets: *const usize,
    pub(super) steps: usize,
    pub(super) a: [*const u8; 4],
    /// Bytes from one row of a to the next.
    pub(super) a_row: usize,
    pub(super) b: [*const u8; 2],
    /// Bytes from one row of b to the next, and from one step to the next.
    pub(super) b_row: usize,
    pub(super) b_step: usize,
    pub(super) start: Start,
    pub(super) init: [*const u8; 2],
    /// Row-major: `c[i * 2 + j]` of 2 x 2, `c[i]` of 4 x 1.
    pub(super) c: [*mut u8; 4],
    /// Bytes from one row of c to the next.
    pub(super) c_row: usize,
}

/// Tiles 0 to 3 from zero, from `c`, or from `init`: `$i` is the offset of the initial row's pointer for each.
macro_rules! begin {
    ($($tile:literal $c:literal $init:literal),*) => {
        concat!(
            "mov rax, [r15 + 88]\n", "cmp rax, 1\n", "je 3f\n", "ja 4f\n",
            $("tilezero tmm", $tile, "\n",)*
            "jmp 5f\n",
            "3:\n", "mov rax, [r15 + 144]\n",
            $("mov rcx, [r15 + ", $c, "]\n", "tileloadd tmm", $tile, ", [rcx + rax*1]\n",)*
            "jmp 5f\n",
            "4:\n", "xor eax, eax\n",
            $("mov rcx, [r15 + ", $init, "]\n", "tileloadd tmm", $tile, ", [rcx + rax*1]\n",)*
            "5:\n",
            "mov rdi, [r15]\n", "mov rdx, [r15 + 8]\n",
            "mov r8, [r15 + 16]\n", "mov r9, [r15 + 24]\n", "mov r10, [r15 + 32]\n", "mov r11, [r15 + 40]\n",
            "mov rsi, [r15 + 48]\n",
            "mov r12, [r15 + 56]\n", "mov r13, [r15 + 64]\n",
            "mov rcx, [r15 + 72]\n", "mov r14, [r15 + 80]\n",
        )
    };
}

/// Tiles 0 to 3 to `c`.
macro_rules! end {
    ($($tile:literal $c:literal),*) => {
        concat!(
            "mov rax, [r15 + 144]\n",
            $("mov rcx, [r15 + ", $c, "]\n", "tilestored [rcx + rax*1], tmm", $tile, "\n",)*
        )
    };
}

macro_rules! kernel {
    ($name:ident, $doc:literal, $begin:expr, [$($step:expr),*], $end:expr) => {
        #[doc = $doc]
        ///
        /// # Safety
        /// AMX is there and this thread's tiles are configured; every address that the job's pointers, rows and steps
        /// name is valid.
        unsafe fn $name(job: &Job) {
            // SAFETY: the caller's promise; every register and tile written is declared.
            unsafe {
                asm!(
                    $begin,
                    "2:",
                    "mov rax, [rdi]",
                    $($step,)*
                    "add rdi, 8",
                    "add r12, r14",
                    "add r13, r14",
                    "sub rdx, 1",
                    "jnz 2b",
                    $end,
                    in("r15") job,
                    out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _,
                    out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                    out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
        }
    };
}

/// The three shapes for one instruction. rax: offset of the step, rcx: row of b, rsi: row of a, r8 to r11: a, r12 and
/// r13: b.
macro_rules! kernels {
    ($four:ident, $two:ident, $one:ident, $product:literal) => {
        kernel!(
            $four,
            "Four tiles of a, one of b.",
            begin!("0" "112" "96", "1" "120" "96", "2" "128" "96", "3" "136" "96"),
            [
                "tileloadd tmm6, [r12 + rcx*1]",
                "add r8, rax", "tileloadd tmm4, [r8 + rsi*1]", "sub r8, rax", concat!($product, " tmm0, tmm4, tmm6"),
                "add r9, rax", "tileloadd tmm5, [r9 + rsi*1]", "sub r9, rax", concat!($product, " tmm1, tmm5, tmm6"),
                "add r10, rax", "tileloadd tmm4, [r10 + rsi*1]", "sub r10, rax", concat!($product, " tmm2, tmm4, tmm6"),
                "add r11, rax", "tileloadd tmm5, [r11 + rsi*1]", "sub r11, rax", concat!($product, " tmm3, tmm5, tmm6")
            ],
            end!("0" "112", "1" "120", "2" "128", "3" "136")
        );
        kernel!(
            $two,
            "Two tiles of a, two of b.",
            begin!("0" "112" "96", "1" "120" "104", "2" "128" "96", "3" "136" "104"),
            [
                "tileloadd tmm6, [r12 + rcx*1]",
                "add r8, rax", "tileloadd tmm4, [r8 + rsi*1]", "sub r8, rax", concat!($product, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [r13 + rcx*1]", concat!($product, " tmm1, tmm4, tmm7"),
                "add r9, rax", "tileloadd tmm5, [r9 + rsi*1]", "sub r9, rax", concat!($product, " tmm2, tmm5, tmm6"),
                concat!($product, " tmm3, tmm5, tmm7")
            ],
            end!("0" "112", "1" "120", "2" "128", "3" "136")
        );
        kernel!(
            $one,
            "One tile of a, one of b.",
            begin!("0" "112" "96"),
            [
                "tileloadd tmm6, [r12 + rcx*1]",
                "add r8, rax", "tileloadd tmm4, [r8 + rsi*1]", "sub r8, rax", concat!($product, " tmm0, tmm4, tmm6")
            ],
            end!("0" "112")
        );
    };
}

kernels!(four_u8s8, two_u8s8, one_u8s8, "tdpbusd");
kernels!(four_bf16, two_bf16, one_bf16, "tdpbf16ps");

/// Which product a tile instruction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    /// u8 a, s8 b, i32 sums.
    U8S8,
    /// bfloat16, float32 sums.
    Bf16,
}

/// How many tiles of a and b a job has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    FourByOne,
    TwoByTwo,
    One,
}

impl Shape {
    /// Tiles of a and of b.
    pub(super) fn tiles(self) -> (usize, usize) {
        match self {
            Shape::FourByOne => (4, 1),
            Shape::TwoByTwo => (2, 2),
            Shape::One => (1, 1),
        }
    }
}

/// The configuration of a job: c of `rows` x 16 sums, a of `rows` x `words` words of 4 bytes, b of `words` x 16 words.
pub(super) fn config(rows: usize, words: usize) -> TileConfig {
    let (a, b, c) = ((rows, 4 * words), (words, 64), (rows, 64));
    TileConfig::new([c, c, c, c, a, a, b, b])
}

/// Runs a job.
///
/// # Safety
/// AMX is there and this thread's tiles are as [`config`] says. Every address that the job's pointers, rows and steps
/// name, for the tiles of the shape, is valid.
pub(super) unsafe fn run(product: Product, shape: Shape, job: &Job) {
    let kernel: unsafe fn(&Job) = match (product, shape) {
        (Product::U8S8, Shape::FourByOne) => four_u8s8,
        (Product::U8S8, Shape::TwoByTwo) => two_u8s8,
        (Product::U8S8, Shape::One) => one_u8s8,
        (Product::Bf16, Shape::FourByOne) => four_bf16,
        (Product::Bf16, Shape::TwoByTwo) => two_bf16,
        (Product::Bf16, Shape::One) => one_bf16,
    };
    // SAFETY: the caller's promise.
    unsafe { kernel(job) }
}
