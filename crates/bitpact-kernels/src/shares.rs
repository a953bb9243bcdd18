//! The strips of a layer, shared by threads: each takes whole strips, and who finds none left helps with the blocks of channels
//! of those still in work, so that nobody waits for longer than a few blocks take.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The last strips, which more than one thread may work on.
const SHARED: usize = 32;

/// The first block of a strip that nobody has taken.
#[derive(Debug, Default)]
#[repr(align(64))]
struct NextBlock(AtomicUsize);

/// What is left to do of `strips` strips of `blocks` blocks.
#[derive(Debug)]
pub(crate) struct Shares {
    strips: usize,
    blocks: usize,
    /// Blocks taken at a time.
    grain: usize,
    next: AtomicUsize,
    next_block: [NextBlock; SHARED],
}

/// Blocks of a strip for one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) strip: usize,
    pub(crate) blocks: Range<usize>,
}

impl Shares {
    pub(crate) fn new(strips: usize, blocks: usize, grain: usize) -> Self {
        Self { strips, blocks, grain: grain.max(1), next: AtomicUsize::new(0), next_block: Default::default() }
    }

    /// Threads that can work at a time.
    pub(crate) fn most_threads(&self) -> usize {
        self.strips * self.blocks.div_ceil(self.grain)
    }

    /// What a thread does next: more of the strip it has, another strip, or blocks of one that others have.
    pub(crate) fn take(&self, strip: Option<usize>) -> Option<Share> {
        strip.and_then(|strip| self.of(strip)).or_else(|| self.new_strip()).or_else(|| self.help())
    }

    fn new_strip(&self) -> Option<Share> {
        let strip = self.next.fetch_add(1, Ordering::Relaxed);
        if strip >= self.strips {
            return None;
        }
        if self.shared(strip).is_none() {
            return Some(Share { strip, blocks: 0..self.blocks });
        }
        self.of(strip)
    }

    /// The counter of one of the last strips.
    fn shared(&self, strip: usize) -> Option<&AtomicUsize> {
        let first = self.strips.saturating_sub(SHARED);
        strip.checked_sub(first).map(|i| &self.next_block[i].0)
    }

    fn of(&self, strip: usize) -> Option<Share> {
        let first = self.shared(strip)?.fetch_add(self.grain, Ordering::Relaxed);
        (first < self.blocks).then(|| Share { strip, blocks: first..(first + self.grain).min(self.blocks) })
    }

    /// Blocks of the strip with most of them left, unless they hardly make up for preparing it once more.
    fn help(&self) -> Option<Share> {
        loop {
            let left = |strip: usize| {
                self.shared(strip).map_or(0, |next| self.blocks.saturating_sub(next.load(Ordering::Relaxed)))
            };
            let all = self.strips.saturating_sub(SHARED)..self.strips;
            let (most, strip) = all.map(|strip| (left(strip), strip)).max()?;
            if most < 2 * self.grain {
                return None;
            }
            if let Some(share) = self.of(strip) {
                return Some(share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::pool::Pool;

    #[test]
    fn every_block_is_done_once_by_any_number_of_threads() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            for (strips, blocks, grain) in [(1, 1, 1), (1, 17, 1), (3, 8, 3), (40, 5, 2), (100, 1, 4)] {
                let shares = Shares::new(strips, blocks, grain);
                let done = Mutex::new(vec![0; strips * blocks]);
                pool.run(threads, &|_, _| {
                    let mut strip = None;
                    while let Some(share) = shares.take(strip) {
                        strip = Some(share.strip);
                        for block in share.blocks {
                            done.lock().unwrap()[share.strip * blocks + block] += 1;
                        }
                    }
                });
                assert!(done.into_inner().unwrap().iter().all(|&n| n == 1), "{strips}, {blocks}, {grain}");
            }
        }
    }

    #[test]
    fn who_finds_no_strip_left_helps_with_the_one_that_has_most_to_do() {
        let shares = Shares::new(2, 4, 1);
        let share = |strip, block| Some(Share { strip, blocks: block..block + 1 });
        assert_eq!(shares.take(None), share(0, 0));
        assert_eq!(shares.take(None), share(1, 0));
        assert_eq!(shares.take(Some(0)), share(0, 1));
        assert_eq!(shares.take(Some(0)), share(0, 2));
        assert_eq!(shares.take(Some(0)), share(0, 3));
        assert_eq!(shares.take(Some(0)), share(1, 1));
        assert_eq!(shares.take(Some(1)), share(1, 2));
        // One block is left: not worth preparing a strip for.
        assert_eq!(shares.take(None), None);
        assert_eq!(shares.take(Some(1)), share(1, 3));
        assert_eq!(shares.take(Some(1)), None);
    }
}
