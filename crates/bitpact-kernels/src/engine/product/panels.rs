//! Packed weights: for each block of channels the segments of words to read, and the weights in that order.

use super::tile::{Block, Segment};
use crate::machine::registers::dot::Dot;
use crate::machine::weights::{WeightArena, Weights};

/// The packed weights of a product.
#[derive(Debug)]
pub(super) struct Panels {
    block: usize,
    weights: Weights<i8>,
    segments: Vec<Segment>,
    /// Where segments and weights of each panel begin, and those of the last end.
    begins: Vec<(usize, usize)>,
}

impl Panels {
    /// Panel `i`; beyond the last, one of sums that are zero.
    pub(super) fn get(&self, i: usize) -> Block<'_> {
        let Some((&(segments, weights), &(segments_end, weights_end))) = self.begins.get(i).zip(self.begins.get(i + 1))
        else {
            return Block {
                channels: self.block,
                segments: &[Segment { offset: 0, words: 0, flush: true }],
                weights: &[],
            };
        };
        Block {
            channels: self.block,
            segments: &self.segments[segments..segments_end],
            weights: &self.weights[weights..weights_end],
        }
    }

    /// Bytes of weights.
    pub(super) fn bytes(&self) -> usize {
        self.weights.len()
    }
}

/// Words between two flushes of 16-bit sums, on average, from which on they beat products of 16-bit words.
const LEAST_WORDS: usize = 3;

/// Most channels of a panel.
const MOST_CHANNELS: usize = 32;

/// Half lanes of the most channels: pairs of weights whose products are summed in 16 bits.
const HALVES: usize = 2 * MOST_CHANNELS;

/// Lays out panels for the instructions `D`, word by word.
pub(super) struct Packer<D> {
    block: usize,
    /// Most that the weights of one sign may sum up to in a half lane between two flushes.
    limit: i32,
    weights: Vec<i8>,
    segments: Vec<Segment>,
    begins: Vec<(usize, usize)>,
    /// The positive and the negative weights of each half lane since the last flush.
    positive: [i32; HALVES],
    negative: [i32; HALVES],
    dot: std::marker::PhantomData<D>,
}

impl<D: Dot> Packer<D> {
    /// A packer of panels of `block` channels, at most 32, for codes in `0..=x_max`.
    pub(super) fn new(block: usize, x_max: u8) -> Self {
        assert!(block <= MOST_CHANNELS, "{block} channels of a panel");
        Self {
            block,
            limit: i32::from(i16::MAX) / i32::from(x_max.max(1)),
            weights: Vec::new(),
            segments: Vec::new(),
            begins: Vec::new(),
            positive: [0; HALVES],
            negative: [0; HALVES],
            dot: std::marker::PhantomData,
        }
    }

    /// Begins a panel.
    pub(super) fn begin(&mut self) {
        self.end();
        self.begins.push((self.segments.len(), self.weights.len()));
    }

    /// Adds the word at `offset` of x, with four weights of each channel of the panel. Words of zeros are left out;
    /// where a weight leaves s8, or the sum of two products the 16 bits they have, the word is split into several.
    pub(super) fn push(&mut self, offset: usize, lanes: &[[i16; 4]]) {
        let flat = lanes.as_flattened();
        let any = flat.iter().fold(0, |any, w| any | w);
        if any == 0 {
            return;
        }
        let is_bytes = flat.iter().fold(true, |all, &w| all & (w == i16::from(w as i8)));
        let is_pair_too_large = flat
            .as_chunks::<2>()
            .0
            .iter()
            .fold(false, |any, &[a, b]| any | ((i32::from(a) + i32::from(b)).abs() > self.limit));
        if is_bytes && !(D::REACH.is_some() && is_pair_too_large) {
            let mut part = [0; 4 * MOST_CHANNELS];
            part.iter_mut().zip(flat).for_each(|(part, &w)| *part = w as i8);
            return self.word(offset, &part[..flat.len()]);
        }
        let mut left = [0; 4 * MOST_CHANNELS];
        let left = &mut left[..flat.len()];
        left.copy_from_slice(flat);
        while left.iter().any(|&w| w != 0) {
            let mut part = [0; 4 * MOST_CHANNELS];
            let part = &mut part[..flat.len()];
            for (part, &w) in part.iter_mut().zip(&*left) {
                *part = w.clamp(i8::MIN.into(), i8::MAX.into()) as i8;
            }
            if D::REACH.is_some() {
                for [a, b] in part.as_chunks_mut::<2>().0 {
                    if (i32::from(*a) + i32::from(*b)).abs() > self.limit && (*a < 0) == (*b < 0) {
                        *b = 0;
                    }
                }
            }
            self.word(offset, part);
            for (w, &part) in left.iter_mut().zip(&*part) {
                *w -= i16::from(part);
            }
        }
    }

    /// Adds a word of weights of which no two leave 16 bits.
    fn word(&mut self, offset: usize, part: &[i8]) {
        if D::REACH.is_some() && !self.reach(part) {
            if let Some(last) = self.segments.last_mut() {
                last.flush = true;
            }
            self.flushed();
            self.reach(part);
        }
        self.weights.extend_from_slice(part);
        self.extend(offset);
    }

    /// Adds the word at `offset` of x with two weights of 16 bits of each channel, unless all are zero.
    pub(super) fn push16(&mut self, offset: usize, lanes: &[[i16; 2]]) {
        if lanes.iter().all(|w| *w == [0; 2]) {
            return;
        }
        self.weights.extend(lanes.as_flattened().iter().flat_map(|w| w.to_le_bytes().map(|b| b as i8)));
        self.extend(offset);
    }

    fn extend(&mut self, offset: usize) {
        let offset = offset as u32;
        match self.segments.last_mut() {
            Some(last) if !last.flush && last.offset + 4 * last.words == offset => last.words += 1,
            _ => self.segments.push(Segment { offset, words: 1, flush: false }),
        }
    }

    /// Adds the weights of a word to those since the last flush, and says whether all sums still fit.
    fn reach(&mut self, weights: &[i8]) -> bool {
        let mut largest = 0;
        let halves = weights.as_chunks::<2>().0;
        for ((positive, negative), &[a, b]) in self.positive.iter_mut().zip(&mut self.negative).zip(halves) {
            let (a, b) = (i32::from(a), i32::from(b));
            *positive += a.max(0) + b.max(0);
            *negative -= a.min(0) + b.min(0);
            largest = largest.max(*positive).max(*negative);
        }
        largest <= self.limit
    }

    fn flushed(&mut self) {
        (self.positive, self.negative) = ([0; HALVES], [0; HALVES]);
    }

    /// Ends the panel: it has a segment, and its last one is flushed.
    fn end(&mut self) {
        let Some(&(begin, _)) = self.begins.last() else { return };
        if self.segments.len() == begin {
            self.segments.push(Segment { offset: 0, words: 0, flush: false });
        }
        if let Some(last) = self.segments.last_mut() {
            last.flush = true;
        }
        self.flushed();
    }

    /// Whether the sums of the panels so far are flushed so rarely that 16 bits pay.
    pub(super) fn pays(&mut self) -> bool {
        self.end();
        let (words, panels) = (self.weights.len() / (4 * self.block), self.begins.len());
        let flushes = self.segments.iter().filter(|s| s.flush).count();
        D::REACH.is_none() || flushes == panels || words >= LEAST_WORDS * flushes
    }

    /// The panels, with their weights in `arena`.
    pub(super) fn finish(mut self, arena: &WeightArena) -> Panels {
        self.end();
        self.begins.push((self.segments.len(), self.weights.len()));
        let Self { block, weights, segments, begins, .. } = self;
        Panels { block, weights: arena.keep(&weights), segments, begins }
    }
}
