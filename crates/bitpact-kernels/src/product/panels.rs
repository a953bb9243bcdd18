//! Packed weights: for each block of channels the segments of words to read, and the weights in that order.

use super::dot::Dot;
use super::tile::{Block, Segment};
use crate::layout::Aligned;

/// The packed weights of a product.
#[derive(Debug)]
pub(super) struct Panels {
    block: usize,
    weights: Aligned<i8>,
    segments: Vec<Segment>,
    /// Where segments and weights of each panel begin, and those of the last end.
    begins: Vec<(usize, usize)>,
}

impl Panels {
    /// Panel `i`.
    pub(super) fn get(&self, i: usize) -> Block<'_> {
        let ((segments, weights), (segments_end, weights_end)) = (self.begins[i], self.begins[i + 1]);
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

    /// Words of all panels, and how often sums are flushed.
    pub(super) fn words_and_flushes(&self) -> (usize, usize) {
        (self.weights.len() / (4 * self.block), self.segments.iter().filter(|s| s.flush).count())
    }
}

/// Lays out panels for the instructions `D`, word by word.
pub(super) struct Packer<D> {
    block: usize,
    x_max: i64,
    weights: Vec<i8>,
    segments: Vec<Segment>,
    begins: Vec<(usize, usize)>,
    /// The largest sums that each half lane can have reached since the last flush, positive and negative.
    reached: Vec<[i64; 2]>,
    dot: std::marker::PhantomData<D>,
}

impl<D: Dot> Packer<D> {
    /// A packer of panels of `block` channels for codes in `0..=x_max`.
    pub(super) fn new(block: usize, x_max: u8) -> Self {
        Self {
            block,
            x_max: x_max.into(),
            weights: Vec::new(),
            segments: Vec::new(),
            begins: Vec::new(),
            reached: vec![[0; 2]; 2 * block],
            dot: std::marker::PhantomData,
        }
    }

    /// Begins a panel.
    pub(super) fn begin(&mut self) {
        self.end();
        self.begins.push((self.segments.len(), self.weights.len()));
    }

    /// Adds the word at `offset` of x, with four weights of each channel of the panel. Words of zeros are left out; where a
    /// weight leaves s8, or the sum of two products the 16 bits they have, the word is split into several.
    pub(super) fn push(&mut self, offset: usize, mut lanes: Vec<[i16; 4]>) {
        while lanes.iter().any(|w| *w != [0; 4]) {
            let part: Vec<[i8; 4]> = lanes.iter_mut().map(|w| self.take(w)).collect();
            if !self.reach(&part) {
                if let Some(last) = self.segments.last_mut() {
                    last.flush = true;
                }
                self.reached.fill([0; 2]);
                self.reach(&part);
            }
            self.weights.extend(part.as_flattened());
            self.extend(offset);
        }
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

    /// Takes as much of four weights as one word may hold.
    fn take(&self, weights: &mut [i16; 4]) -> [i8; 4] {
        let limit = i64::from(i16::MAX) / self.x_max.max(1);
        let mut part = weights.map(|w| w.clamp(i8::MIN.into(), i8::MAX.into()) as i8);
        if D::REACH.is_some() {
            for (a, b) in [(0, 1), (2, 3)] {
                let is_same = (part[a] < 0) == (part[b] < 0);
                if is_same && (i64::from(part[a]) + i64::from(part[b])).abs() > limit {
                    part[b] = 0;
                }
            }
        }
        weights.iter_mut().zip(part).for_each(|(w, part)| *w -= i16::from(part));
        part
    }

    /// Adds the products of a word to what half lanes can have reached, and says whether all of it still fits.
    fn reach(&mut self, lanes: &[[i8; 4]]) -> bool {
        let Some(reach) = D::REACH else { return true };
        let halves = lanes.iter().flat_map(|w| [[w[0], w[1]], [w[2], w[3]]]);
        for (sum, pair) in self.reached.iter_mut().zip(halves) {
            for w in pair {
                sum[usize::from(w < 0)] += i64::from(w).abs() * self.x_max;
            }
        }
        self.reached.iter().flatten().all(|&sum| sum <= reach)
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
        self.reached.fill([0; 2]);
    }

    /// The panels.
    pub(super) fn finish(mut self) -> Panels {
        self.end();
        self.begins.push((self.segments.len(), self.weights.len()));
        let Self { block, weights, segments, begins, .. } = self;
        Panels { block, weights: Aligned::from_slice(&weights), segments, begins }
    }
}
