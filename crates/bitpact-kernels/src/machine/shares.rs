//! The strips of a layer, shared by threads: each takes those of its own part of the image, where its caches have what
//! it wrote of the layer before, then those that others have not begun, and at last blocks of channels of strips in
//! work, so that nobody waits for longer than a few blocks take.

use std::ops::Range;

use crate::machine::sync::sync::atomic::{AtomicU64, Ordering};

/// Parts that a layer is cut into at most; more threads share them.
const PARTS: usize = 32;

/// Two numbers that change together.
#[derive(Debug, Default)]
struct Pair(AtomicU64);

impl Pair {
    fn set(&self, pair: (usize, usize)) {
        self.0.store(Self::packed(pair), Ordering::Relaxed);
    }

    fn get(&self) -> (usize, usize) {
        Self::unpacked(self.0.load(Ordering::Relaxed))
    }

    /// Takes what `f` makes of the numbers as the new ones, until it gives nothing; returns the old ones.
    fn update(&self, f: impl Fn(usize, usize) -> Option<(usize, usize)>) -> Option<(usize, usize)> {
        let f = |pair| {
            let (a, b) = Self::unpacked(pair);
            f(a, b).map(Self::packed)
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, f).ok().map(Self::unpacked)
    }

    fn packed((a, b): (usize, usize)) -> u64 {
        (a as u64) << 32 | b as u64
    }

    fn unpacked(pair: u64) -> (usize, usize) {
        ((pair >> 32) as usize, (pair & u64::from(u32::MAX)) as usize)
    }
}

/// A part of the image.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Part {
    /// The strips nobody has begun, from here to there.
    strips: Pair,
    /// The strip in work, and the first of its blocks that nobody has taken.
    in_work: Pair,
}

/// What is left to do of `strips` strips of `blocks` blocks.
#[derive(Debug)]
pub(crate) struct Shares {
    blocks: usize,
    /// Blocks taken at a time.
    grain: usize,
    parts: usize,
    part: [Part; PARTS],
}

/// Blocks of a strip for one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) strip: usize,
    pub(crate) blocks: Range<usize>,
    /// The part in whose `in_work` the strip stands.
    part: usize,
}

impl Shares {
    /// # Panics
    /// If there are more than 2^32 strips or blocks.
    pub(crate) fn new(threads: usize, strips: usize, blocks: usize, grain: usize) -> Self {
        assert!(strips.max(2 * blocks) <= u32::MAX as usize, "{strips} strips of {blocks} blocks");
        let (parts, part) = (threads.clamp(1, PARTS), std::array::from_fn(|_| Part::default()));
        for (i, part) in part.iter().take(parts).enumerate() {
            part.strips.set((i * strips / parts, (i + 1) * strips / parts));
            part.in_work.set((0, blocks));
        }
        Self { blocks, grain: grain.clamp(1, blocks.max(1)), parts, part }
    }

    /// What thread `worker` does next: more of the strip it has, another strip, or blocks of one that others have. No
    /// two threads are the same worker at a time.
    pub(crate) fn take(&self, worker: usize, last: Option<&Share>) -> Option<Share> {
        last.and_then(|last| self.more_of(last)).or_else(|| self.new_strip(worker)).or_else(|| self.help())
    }

    fn more_of(&self, last: &Share) -> Option<Share> {
        let more = |strip, next| (strip == last.strip && next < self.blocks).then(|| (strip, next + self.grain));
        let (strip, next) = self.part[last.part].in_work.update(more)?;
        Some(self.share(strip, next, last.part))
    }

    fn share(&self, strip: usize, first: usize, part: usize) -> Share {
        Share { strip, blocks: first..(first + self.grain).min(self.blocks), part }
    }

    fn new_strip(&self, worker: usize) -> Option<Share> {
        let own = worker % self.parts;
        let first = |from, to| (from < to).then(|| (from + 1, to));
        let strip = match self.part[own].strips.update(first) {
            Some((strip, _)) => strip,
            None => self.others_strip(own)?,
        };
        // Of workers that share a part only one shares its strip.
        if self.grain == self.blocks || worker >= self.parts {
            return Some(Share { strip, blocks: 0..self.blocks, part: own });
        }
        self.part[own].in_work.set((strip, self.grain));
        Some(self.share(strip, 0, own))
    }

    /// The last strip of the part with most of them left.
    fn others_strip(&self, own: usize) -> Option<usize> {
        let left = |part: usize| {
            let (from, to) = self.part[part].strips.get();
            to - from
        };
        loop {
            let (most, part) = (0..self.parts).filter(|&part| part != own).map(|part| (left(part), part)).max()?;
            if most == 0 {
                return None;
            }
            if let Some((_, to)) = self.part[part].strips.update(|from, to| (from < to).then(|| (from, to - 1))) {
                return Some(to - 1);
            }
        }
    }

    /// Blocks of the strip with most of them left, unless they hardly make up for preparing it once more.
    fn help(&self) -> Option<Share> {
        if self.blocks < 2 * self.grain {
            return None;
        }
        let left = |part: usize| self.blocks.saturating_sub(self.part[part].in_work.get().1);
        loop {
            let (most, part) = (0..self.parts).map(|part| (left(part), part)).max()?;
            if most < 2 * self.grain {
                return None;
            }
            let some = |strip, next| (next < self.blocks).then(|| (strip, next + self.grain));
            if let Some((strip, next)) = self.part[part].in_work.update(some) {
                return Some(self.share(strip, next, part));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::machine::pool::Pool;

    #[test]
    fn every_block_is_done_once_by_any_number_of_threads() {
        for threads in [1, 2, 3, if cfg!(miri) { 4 } else { PARTS + 1 }] {
            let pool = Pool::new(threads);
            for (strips, blocks, grain) in [(1, 1, 1), (1, 17, 1), (3, 8, 3), (40, 5, 2), (100, 1, 4), (70, 2, 1)] {
                let shares = Shares::new(threads, strips, blocks, grain);
                let done = Mutex::new(vec![0; strips * blocks]);
                pool.run(threads, &|_, worker| {
                    let mut last = None;
                    while let Some(share) = shares.take(worker, last.as_ref()) {
                        for block in share.blocks.clone() {
                            done.lock().unwrap()[share.strip * blocks + block] += 1;
                        }
                        last = Some(share);
                    }
                });
                assert!(done.into_inner().unwrap().iter().all(|&n| n == 1), "{strips}, {blocks}, {grain}");
            }
        }
    }

    #[test]
    fn threads_take_their_own_strips_then_the_last_of_others_then_blocks() {
        let shares = Shares::new(2, 5, 4, 1);
        let mut last = [None, None];
        let mut take = |worker: usize| {
            last[worker] = shares.take(worker, last[worker].as_ref());
            last[worker].clone().map(|share| (share.strip, share.blocks.start))
        };
        let every_block = |strip| (0..4).map(move |block| Some((strip, block)));
        for block in [0, 1].into_iter().flat_map(every_block) {
            assert_eq!(take(0), block);
        }
        assert_eq!(take(1), Some((2, 0)));
        for block in [4, 3].into_iter().flat_map(every_block) {
            assert_eq!(take(0), block);
        }
        assert_eq!(take(0), Some((2, 1)));
        assert_eq!(take(0), Some((2, 2)));
        assert_eq!(take(0), Some((2, 3)));
        assert_eq!(take(0), None);
        assert_eq!(take(1), None);
    }

    #[test]
    fn one_block_that_is_left_is_not_worth_preparing_a_strip_for() {
        let shares = Shares::new(2, 1, 3, 1);
        let first = shares.take(1, None).unwrap();
        let second = shares.take(1, Some(&first)).unwrap();
        assert_eq!((second.strip, second.blocks), (0, 1..2));
        assert_eq!(shares.take(0, None), None);
    }
}
