//! What this machine can do at most: its features and caches, and multiply-add rates and memory bandwidth measured by
//! small loops, so that a kernel's speed can be told as a share of them.

mod cpu;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

pub use cpu::{Cache, Cpu};

#[cfg(target_arch = "x86_64")]
use crate::machine::isa::Amx;
use crate::machine::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::machine::isa::Proof;
use crate::machine::pool::Pool;

/// The kind of numbers that a unit multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Unsigned with signed 8-bit integers.
    Int8,
    /// Products of bfloat16, summed in float32.
    Bf16,
    /// Products of float32.
    F32,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Number::Int8 => "int8",
            Number::Bf16 => "bf16",
            Number::F32 => "f32",
        })
    }
}

/// The multiply-add rate of one unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// The path whose kernels may use the unit.
    pub isa: Isa,
    /// Kind of numbers that the unit multiplies.
    pub number: Number,
    /// The instructions that were measured.
    pub instructions: &'static str,
    /// Multiply-adds per second, all threads together.
    pub macs_per_s: f64,
}

/// A loop of multiply-adds over registers: runs so many rounds.
struct Loop {
    number: Number,
    instructions: &'static str,
    macs_per_round: usize,
    run: Box<dyn Fn(usize) + Sync>,
}

/// How long one loop is run at a time, and how often; the best time counts, as whatever disturbs only slows down.
const SAMPLE: Duration = Duration::from_micros(500);
const SAMPLES: usize = 40;

/// Measures the units of `isa` on `threads` threads at once; takes less than a tenth of a second for each.
///
/// The int8 entries of a path differ in what they can do: on AVX2, `vpmaddubsw + vpaddw` is exact only while the sums
/// of small codes fit 16 bits, `vpmaddwd + vpaddd` always. Winograd and table look-ups need fewer multiply-adds than a
/// convolution has, so that a kernel can exceed the rate of its unit.
///
/// # Panics
/// If the machine lacks `isa`.
pub fn rates(isa: Isa, threads: usize) -> Vec<Rate> {
    let pool = Pool::new(threads);
    let rate = |unit: &Loop| {
        let macs_per_s = pool.threads() as f64 * unit.macs_per_round as f64 * rounds_per_s(&pool, &*unit.run);
        Rate { isa, number: unit.number, instructions: unit.instructions, macs_per_s }
    };
    loops(isa).iter().map(rate).collect()
}

/// The highest int8 rate of `isa` on `threads` threads, in multiply-adds per second.
///
/// # Panics
/// If the machine lacks `isa`.
pub fn int8_rate(isa: Isa, threads: usize) -> f64 {
    let int8 = rates(isa, threads).into_iter().filter(|rate| rate.number == Number::Int8);
    int8.map(|rate| rate.macs_per_s).fold(0.0, f64::max)
}

/// Bytes per second that `threads` threads read together from a buffer of `bytes` bytes, which should be several times
/// the last cache.
pub fn read_bandwidth(threads: usize, bytes: usize) -> f64 {
    let pool = Pool::new(threads);
    let words = vec![1u64; (bytes / 8).max(pool.threads())];
    let part = words.len().div_ceil(pool.threads());
    let best = (0..5).map(|_| {
        let begin = Instant::now();
        pool.run(pool.threads(), &|thread, _| {
            let part = words.chunks(part).nth(thread).unwrap_or(&[]);
            black_box(part.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        });
        begin.elapsed()
    });
    let best = best.min().unwrap_or(Duration::MAX);
    (8 * words.len()) as f64 / best.as_secs_f64()
}

/// Rounds per second of each of the pool's threads, all running at once.
fn rounds_per_s(pool: &Pool, run: &(dyn Fn(usize) + Sync)) -> f64 {
    let time = |rounds: usize| {
        let begin = Instant::now();
        pool.run(pool.threads(), &|_, _| run(rounds));
        begin.elapsed()
    };
    let mut rounds = 1000;
    while time(rounds) < SAMPLE && rounds < 1 << 40 {
        rounds *= 2;
    }
    let best = (0..SAMPLES).map(|_| time(rounds)).min().unwrap_or(Duration::MAX);
    rounds as f64 / best.as_secs_f64()
}

fn loops(isa: Isa) -> Vec<Loop> {
    match isa.prove() {
        #[cfg(target_arch = "x86_64")]
        Proof::Avx2(token) => x86::avx2(token),
        #[cfg(target_arch = "x86_64")]
        Proof::Avx512(token) => {
            let mut units = x86::avx512(token);
            if let Some(token) = Amx::detect().filter(|_| isa == Isa::Amx) {
                units.extend(x86::amx(token));
            }
            units
        }
        _ => portable(),
    }
}

/// What the compiler makes of plain loops over data in the first cache.
fn portable() -> Vec<Loop> {
    const N: usize = 1024;
    let int8 = |rounds| {
        let (x, w) = ([1u8; N], [-1i8; N]);
        for _ in 0..rounds {
            let (x, w) = (black_box(&x), black_box(&w));
            black_box(x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum::<i32>());
        }
    };
    let f32 = |rounds| {
        let (x, w) = ([1f32; N], [0.5f32; N]);
        for _ in 0..rounds {
            let (x, w) = (black_box(&x).as_chunks::<32>().0, black_box(&w).as_chunks::<32>().0);
            let mut sums = [0f32; 32];
            for (x, w) in x.iter().zip(w) {
                for lane in 0..32 {
                    sums[lane] += x[lane] * w[lane];
                }
            }
            black_box(sums);
        }
    };
    vec![
        Loop { number: Number::Int8, instructions: "plain Rust", macs_per_round: N, run: Box::new(int8) },
        Loop { number: Number::F32, instructions: "plain Rust", macs_per_round: N, run: Box::new(f32) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_positive_rates_for_both_kinds_of_numbers() {
        for isa in Isa::available() {
            let rates = rates(isa, 1);
            for number in [Number::Int8, Number::F32] {
                assert!(rates.iter().any(|rate| rate.number == number), "{isa} {number}");
            }
            for rate in rates {
                assert!(rate.isa == isa && rate.macs_per_s.is_finite() && rate.macs_per_s > 1e6, "{rate:?}");
            }
        }
    }

    #[test]
    fn bandwidth_is_positive_for_any_number_of_threads() {
        for (threads, bytes) in [(1, 1 << 20), (3, 0)] {
            assert!(read_bandwidth(threads, bytes) > 0.0);
        }
    }
}
