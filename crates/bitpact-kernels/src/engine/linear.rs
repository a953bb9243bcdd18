//! A fully connected layer over the codes, or sums of codes, of one pixel: `acc[o] = sum over i of w[o][i] * x[i]` in
//! 32 bits.

use crate::machine::isa::{Isa, Proof};
use crate::machine::layout::Plain;
use crate::machine::pool::Chunked;
use crate::machine::weights::{WeightArena, Weights};
use crate::machine::workers::Workers;

/// Inputs summed in one go; longer rows are cut.
const CHUNK: usize = 1024;

/// Multiplications of the rows that a thread takes at a time: some microseconds of work.
const TASK_MACS: usize = 1 << 17;

/// Weights `[out][in]`, of one byte where they fit.
#[derive(Debug)]
pub struct Linear {
    weights: Kept,
    inputs: usize,
    proof: Proof,
}

#[derive(Debug)]
enum Kept {
    Bytes(Weights<i8>),
    Words(Weights<i16>),
}

impl Linear {
    /// Plans a layer of `inputs` inputs, each in `0..=x_max`, its weights in `arena`; `None` where an input needs more
    /// than 15 bits or a sum, partial ones included, more than 32.
    ///
    /// # Panics
    /// If the codes are no whole rows, or the machine lacks `isa`.
    pub fn new(isa: Isa, codes: &[i16], inputs: usize, x_max: i64, arena: &WeightArena) -> Option<Linear> {
        assert!(inputs > 0 && codes.len().is_multiple_of(inputs), "rows of {inputs} weights");
        let fits = codes.chunks_exact(inputs).all(|row| {
            let (lo, hi) = bitpact_core::requant::accumulator_range(row, 0, x_max);
            lo >= i64::from(i32::MIN) && hi <= i64::from(i32::MAX)
        });
        if !(0..=i64::from(i16::MAX)).contains(&x_max) || !fits {
            return None;
        }
        let bytes: Option<Vec<i8>> = codes.iter().map(|&q| i8::try_from(q).ok()).collect();
        let weights = match bytes {
            Some(bytes) => Kept::Bytes(arena.keep(&bytes)),
            None => Kept::Words(arena.keep(codes)),
        };
        Some(Linear { weights, inputs, proof: isa.prove() })
    }

    /// Bytes of weights.
    pub fn weight_bytes(&self) -> usize {
        match &self.weights {
            Kept::Bytes(weights) => weights.len(),
            Kept::Words(weights) => 2 * weights.len(),
        }
    }

    /// Writes the sums of inputs in the range promised.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn run<X: Copy + Into<i32> + Sync>(&self, workers: Workers<'_>, x: &[X], acc: &mut [i32]) {
        assert_eq!(x.len(), self.inputs, "inputs");
        match &self.weights {
            Kept::Bytes(weights) => self.shared(workers, weights, x, acc),
            Kept::Words(weights) => self.shared(workers, weights, x, acc),
        }
    }

    fn shared<W: Plain + Into<i16>, X: Copy + Into<i32> + Sync>(
        &self,
        workers: Workers<'_>,
        weights: &[W],
        x: &[X],
        acc: &mut [i32],
    ) {
        assert_eq!(acc.len() * self.inputs, weights.len(), "sums");
        let rows = TASK_MACS.div_ceil(self.inputs);
        let chunks = Chunked::new(acc, rows);
        workers.tasks(chunks.chunks(), &|task| {
            let mut acc = chunks.get(task);
            let weights = &weights[task * rows * self.inputs..][..acc.len() * self.inputs];
            self.rows(weights, x, &mut acc);
        });
    }

    fn rows<W: Copy + Into<i16>, X: Copy + Into<i32>>(&self, weights: &[W], x: &[X], acc: &mut [i32]) {
        acc.fill(0);
        let mut chunk = [0; CHUNK];
        for (i, x) in x.chunks(CHUNK).enumerate() {
            let chunk = &mut chunk[..x.len()];
            chunk.iter_mut().zip(x).for_each(|(to, &x)| *to = x.into() as i16);
            for (acc, row) in acc.iter_mut().zip(weights.chunks_exact(self.inputs)) {
                *acc += dot(self.proof, chunk, &row[i * CHUNK..][..x.len()]);
            }
        }
    }
}

fn dot<W: Copy + Into<i16>>(proof: Proof, x: &[i16], w: &[W]) -> i32 {
    match proof {
        // SAFETY: the token proves the features.
        #[cfg(target_arch = "x86_64")]
        Proof::Avx512(_) => unsafe { avx512(x, w) },
        // SAFETY: the token proves the features.
        #[cfg(target_arch = "x86_64")]
        Proof::Avx2(_) => unsafe { avx2(x, w) },
        _ => plain(x, w),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn avx512<W: Copy + Into<i16>>(x: &[i16], w: &[W]) -> i32 {
    plain(x, w)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<W: Copy + Into<i16>>(x: &[i16], w: &[W]) -> i32 {
    plain(x, w)
}

#[inline(always)]
fn plain<W: Copy + Into<i16>>(x: &[i16], w: &[W]) -> i32 {
    x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w.into())).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bitpact_core::rng::Key;

    use super::*;

    #[test]
    fn every_path_gives_the_sums() {
        let key = Key::new(5);
        let pool = crate::Pool::new(2);
        let scratch = [Mutex::default(), Mutex::default()];
        let cases = [(1, 32767, 32639), (17, 3000, 127), (1030, 20000, 101), (2500, 15, 127), (30_000, 15, 127)];
        // Miri takes a thousand times as long.
        let cases = if cfg!(miri) { &cases[..2] } else { &cases[..] };
        for &(inputs, x_max, bound) in cases {
            let x: Vec<i32> = (0..inputs).map(|i| (key.u64(i as u64) % (x_max + 1)) as i32).collect();
            let draw = |i: usize| ((key.with("w").u64(i as u64) % (2 * bound + 1)) as i64 - bound as i64) as i16;
            let codes: Vec<i16> = (0..7 * inputs).map(draw).collect();
            let expected: Vec<i64> = codes
                .chunks_exact(inputs)
                .map(|row| row.iter().zip(&x).map(|(&w, &x)| i64::from(w) * i64::from(x)).sum())
                .collect();
            for isa in crate::testing::paths() {
                let mut acc = [0; 7];
                let linear = Linear::new(isa, &codes, inputs, x_max as i64, &WeightArena::new()).unwrap();
                linear.run(Workers::One(&Mutex::default()), &x, &mut acc);
                assert_eq!(acc.map(i64::from).to_vec(), expected, "{isa}");
                acc.fill(1);
                linear.run(Workers::All(&pool, &scratch), &x, &mut acc);
                assert_eq!(acc.map(i64::from).to_vec(), expected, "{isa}, two threads");
            }
        }
    }

    #[test]
    fn sums_that_do_not_fit_are_refused() {
        let new = |codes: &[i16], x_max| Linear::new(Isa::Scalar, codes, codes.len(), x_max, &WeightArena::new());
        assert!(new(&[1], 32768).is_none());
        assert!(new(&[32767, 32767], 32767).is_some());
        assert!(new(&[32767, 32767, 5], 32767).is_none());
    }
}
