//! The words of every two output channels, two by two where their products fit 16 bits together.

use crate::engine::product::ProductSpec;
use crate::engine::product::walk::Word;
use crate::machine::layout::Plain;
use crate::machine::weights::Weights;

/// Channels that share an order of words, and loads of codes.
pub(super) const GROUP: usize = 2;

/// Words of a window that are summed for all channels of a block before the next: what a tile's pixels have of them
/// fits the first-level cache, and a byte tells which it is.
pub(super) const CHUNK: usize = 128;

/// Four weights of each channel of a group.
type Group = [[i8; 4]; GROUP];

/// Words that wait for one they fit with.
const WAITING: usize = 16;

/// Two words of a chunk and their weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Pair {
    pub(super) words: [u8; 2],
    pub(super) weights: [Group; 2],
}

/// A word alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Single {
    pub(super) word: u8,
    pub(super) weights: Group,
}

// SAFETY: bytes without padding.
unsafe impl Plain for Pair {}
// SAFETY: as above.
unsafe impl Plain for Single {}

/// What a group has of a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<'a> {
    pub(super) pairs: &'a [Pair],
    pub(super) singles: &'a [Single],
}

/// The lists of all groups and chunks.
#[derive(Debug)]
pub(super) struct Lists {
    pairs: Weights<Pair>,
    singles: Weights<Single>,
    /// Where list `group * chunks + chunk` begins, and where the last ends.
    begins: Vec<[u32; 2]>,
    chunks: usize,
}

impl Lists {
    /// Packs the weights of `spec` for `words`, `block` channels at a time.
    pub(super) fn pack<'a>(
        spec: &ProductSpec<'_>,
        block: usize,
        words: impl ExactSizeIterator<Item = &'a Word<4>> + Clone,
    ) -> Self {
        let mut lists = Growing::default();
        let mut sorter = Sorter::new(spec.x_max);
        let mut lanes = vec![[0; 4]; block];
        let mut weights = vec![[[0; 4]; GROUP]; block / GROUP * words.len()];
        for first in (0..spec.geometry.cout).step_by(block) {
            for (i, word) in words.clone().enumerate() {
                spec.lanes(first, word, &mut lanes);
                for (g, group) in lanes.as_chunks::<GROUP>().0.iter().enumerate() {
                    weights[g * words.len() + i] = *group;
                }
            }
            for group in weights.chunks(words.len()).take((spec.geometry.cout - first).div_ceil(GROUP)) {
                for chunk in group.chunks(CHUNK) {
                    lists.begin();
                    chunk.iter().enumerate().for_each(|(word, &w)| sorter.push(word as u8, w, &mut lists));
                    sorter.finish(&mut lists);
                }
            }
        }
        lists.begin();
        let Growing { pairs, singles, begins } = lists;
        let (pairs, singles) = (spec.arena.keep(&pairs), spec.arena.keep(&singles));
        Self { pairs, singles, begins, chunks: words.len().div_ceil(CHUNK) }
    }

    /// What a group has of a chunk: nothing beyond the last group.
    pub(super) fn get(&self, group: usize, chunk: usize) -> List<'_> {
        let at = group * self.chunks + chunk;
        let [from, to] = [at, at + 1].map(|at| self.begins.get(at).copied());
        match (from, to) {
            (Some(from), Some(to)) => List {
                pairs: &self.pairs[from[0] as usize..to[0] as usize],
                singles: &self.singles[from[1] as usize..to[1] as usize],
            },
            _ => List { pairs: &[], singles: &[] },
        }
    }

    /// Bytes of weights and their words.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.pairs[..]) + size_of_val(&self.singles[..])
    }
}

/// Lists that are being made.
#[derive(Debug, Default)]
struct Growing {
    pairs: Vec<Pair>,
    singles: Vec<Single>,
    begins: Vec<[u32; 2]>,
}

impl Growing {
    fn begin(&mut self) {
        self.begins.push([self.pairs.len() as u32, self.singles.len() as u32]);
    }
}

/// How full the 16-bit sums of a word can get: for each channel 16 bits each for the positive and the negative weights
/// of the first two codes, and of the others.
type Fill = [u64; GROUP];

/// Finds words that fit together.
struct Sorter {
    /// Most that weights of one sign may add up to.
    limit: i16,
    /// What carries a sum beyond the limit into its highest bit.
    excess: u64,
    waiting: [(Fill, Single); WAITING],
    /// Words waiting.
    n: usize,
    /// The word that leaves when all places are taken.
    oldest: usize,
}

impl Sorter {
    fn new(x_max: u8) -> Self {
        let limit = i16::MAX / i16::from(x_max.max(1));
        Self {
            limit,
            excess: 0x0001_0001_0001_0001 * (0x7fff - limit as u64),
            waiting: [([0; GROUP], Single { word: 0, weights: [[0; 4]; GROUP] }); WAITING],
            n: 0,
            oldest: 0,
        }
    }

    fn fits(&self, a: &Fill, b: &Fill) -> bool {
        a.iter().zip(b).fold(0, |over, (a, b)| over | (a + b + self.excess)) & 0x8000_8000_8000_8000 == 0
    }

    /// Adds a word; without weights it is left out, and one whose pairs do not fit becomes two.
    fn push(&mut self, word: u8, weights: [[i16; 4]; GROUP], lists: &mut Growing) {
        let mut left = weights;
        while left != [[0; 4]; GROUP] {
            let mut part = left;
            for [a, b] in part.as_flattened_mut().as_chunks_mut::<2>().0 {
                if (*a < 0) == (*b < 0) && (*a + *b).abs() > self.limit {
                    *b = (self.limit - a.abs()) * b.signum();
                }
            }
            left.as_flattened_mut().iter_mut().zip(part.as_flattened()).for_each(|(w, part)| *w -= part);
            self.place(Single { word, weights: part.map(|channel| channel.map(|w| w as i8)) }, lists);
        }
    }

    /// Joins a word to one that waits, or lets it wait.
    fn place(&mut self, new: Single, lists: &mut Growing) {
        let sign = |a: i64, b: i64| [a.max(0) + b.max(0), -(a.min(0) + b.min(0))];
        let fill = new.weights.map(|channel| {
            let [a, b, c, d] = channel.map(i64::from);
            [sign(a, b), sign(c, d)].as_flattened().iter().fold(0, |fill, &sum| fill << 16 | sum as u64)
        });
        debug_assert!(self.fits(&fill, &[0; GROUP]), "{new:?}");
        let found = self.waiting[..self.n].iter().position(|(other, _)| self.fits(&fill, other));
        if let Some(i) = found {
            let (_, other) = self.waiting[i];
            lists.pairs.push(Pair { words: [other.word, new.word], weights: [other.weights, new.weights] });
            self.n -= 1;
            self.waiting[i] = self.waiting[self.n];
        } else if self.n < WAITING {
            self.waiting[self.n] = (fill, new);
            self.n += 1;
        } else {
            let (_, old) = std::mem::replace(&mut self.waiting[self.oldest], (fill, new));
            lists.singles.push(old);
            self.oldest = (self.oldest + 1) % WAITING;
        }
    }

    /// Words that still wait are alone.
    fn finish(&mut self, lists: &mut Growing) {
        lists.singles.extend(self.waiting[..self.n].iter().map(|&(_, word)| word));
        (self.n, self.oldest) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use bitpact_core::rng::Key;

    use super::*;
    use crate::{ConvGeometry, Layout, WeightArena};

    /// Normal weights with the largest one the largest code, as 8-bit layers have them, and the worst ones.
    #[test]
    fn words_fit_together_and_give_the_weights_back() {
        let (cin, cout) = (600, 18);
        let key = Key::new(5);
        let normal = |i: usize| (key.normal(i as u64) * 36.0).clamp(-127.0, 127.0) as i16;
        let extreme = |i: usize| [127, -128, 0, 64][key.u64(i as u64) as usize % 4];
        for (kind, codes) in [
            ("normal", (0..cin * cout).map(normal).collect::<Vec<_>>()),
            ("extreme", (0..cin * cout).map(extreme).collect()),
            ("largest", vec![127; cin * cout]),
            ("none", vec![0; cin * cout]),
        ] {
            let geometry = ConvGeometry { kh: 1, kw: 1, stride: 1, pad: 0, cin, cout };
            let spec = ProductSpec {
                geometry,
                x: Layout::new(4, 4, cin, 0),
                x_max: 255,
                groups: 1,
                codes: &codes,
                arena: &WeightArena::new(),
            };
            let words = super::super::Walk::words::<4>(&spec);
            let lists = Lists::pack(&spec, 16, words.iter());
            let mut left: Vec<i32> = codes.iter().map(|&w| w.into()).collect();
            let mut summed = 0;
            for group in 0..cout / GROUP {
                for chunk in 0..words.len().div_ceil(CHUNK) {
                    let list = lists.get(group, chunk);
                    let pairs = list.pairs.iter().map(|pair| (pair.words.to_vec(), pair.weights.to_vec()));
                    let singles = list.singles.iter().map(|single| (vec![single.word], vec![single.weights]));
                    for (words, weights) in pairs.chain(singles) {
                        summed += words.len();
                        for c in 0..GROUP {
                            for half in [0, 2] {
                                let of = |sign: i32| {
                                    weights
                                        .iter()
                                        .flat_map(|w| &w[c][half..half + 2])
                                        .map(|&w| (sign * i32::from(w)).max(0))
                                        .sum::<i32>()
                                };
                                assert!(of(1) * 255 <= 32767 && of(-1) * 255 <= 32767, "{kind}: {weights:?}");
                            }
                            for (word, weights) in words.iter().zip(&weights) {
                                let first = (group * GROUP + c) * cin + 4 * (chunk * CHUNK + usize::from(*word));
                                left[first..first + 4]
                                    .iter_mut()
                                    .zip(weights[c])
                                    .for_each(|(left, w)| *left -= i32::from(w));
                            }
                        }
                    }
                }
            }
            assert!(left.iter().all(|&w| w == 0), "{kind}");
            assert!(kind != "normal" || summed < words.len() * cout / GROUP * 5 / 4, "{summed} words");
            assert!(lists.get(cout / GROUP, 0).pairs.is_empty() && lists.get(cout / GROUP, 0).singles.is_empty());
        }
    }
}
