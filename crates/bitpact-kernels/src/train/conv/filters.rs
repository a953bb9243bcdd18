//! Weights on their way to a plan: `[cout][kh * kw][cin]`, tap-major, so that both directions of a convolution read
//! rows of channels.

use super::{ConvGeometry, LANES};

/// Words packed before the next row of weights is read: 16 words of float32 are a cache line of it.
const AT_ONCE: usize = 16;

/// The weights of a plan, from the channels that it writes to those that it reads.
#[derive(Clone, Copy)]
pub(super) struct Filters<'a, T> {
    /// Tap-major.
    weights: &'a [T],
    taps: usize,
    outputs: usize,
    inputs: usize,
    /// Whether the plan writes the convolution's inputs and reads its outputs.
    is_transposed: bool,
}

impl<'a, T: Copy> Filters<'a, T> {
    /// Weights of a plan that reads what the convolution reads.
    ///
    /// # Panics
    /// If the length is wrong.
    pub(super) fn forward(g: &ConvGeometry, weights: &'a [T]) -> Self {
        assert_eq!(weights.len(), g.weights(), "weights of {g:?}");
        Self { weights, taps: g.kh * g.kw, outputs: g.cout, inputs: g.cin, is_transposed: false }
    }

    /// Weights of a plan that reads what the convolution writes.
    ///
    /// # Panics
    /// If the length is wrong.
    pub(super) fn transposed(g: &ConvGeometry, weights: &'a [T]) -> Self {
        Self { is_transposed: true, ..Self::forward(g, weights) }
    }

    /// The weights from input channel `first` on of output channel `output` at `tap`.
    fn row(&self, output: usize, tap: usize, first: usize) -> &'a [T] {
        let at = (output * self.taps + tap) * self.inputs;
        &self.weights[at + first.min(self.inputs)..at + self.inputs]
    }

    /// Fills consecutive words, `[word][16 channels written][K channels read]`, of the channels written from `written`
    /// on and those read from `read` on; zeros where there is no channel.
    pub(super) fn words<const K: usize, U: Copy + Default>(
        &self,
        tap: usize,
        written: usize,
        read: usize,
        out: &mut [[[U; K]; LANES]],
        convert: impl Fn(T) -> U,
    ) {
        for (words, read) in out.chunks_mut(AT_ONCE).zip((read..).step_by(AT_ONCE * K)) {
            if self.is_transposed {
                for (word, read) in words.iter_mut().zip((read..).step_by(K)) {
                    *word = [[U::default(); K]; LANES];
                    for (k, output) in (read..self.outputs).take(K).enumerate() {
                        let row = self.row(output, tap, written);
                        word.iter_mut().zip(row).for_each(|(lane, &w)| lane[k] = convert(w));
                    }
                }
            } else {
                for lane in 0..LANES {
                    let row = match written + lane {
                        output if output < self.outputs => self.row(output, tap, read),
                        _ => &[],
                    };
                    let (whole, rest) = row.as_chunks::<K>();
                    let (full, beyond) = words.split_at_mut(whole.len().min(words.len()));
                    full.iter_mut().zip(whole).for_each(|(word, weights)| word[lane] = weights.map(&convert));
                    for (word, rest) in beyond.iter_mut().zip([rest].into_iter().chain(std::iter::repeat(&[][..]))) {
                        word[lane] = std::array::from_fn(|k| rest.get(k).map_or(U::default(), |&w| convert(w)));
                    }
                }
            }
        }
    }
}

impl Filters<'_, i8> {
    /// sums[c] = the weights of channel c of those written over the taps and all channels read; for plans that write
    /// the convolution's inputs.
    pub(super) fn sum_transposed(&self, taps: impl Iterator<Item = usize> + Clone, sums: &mut [i32]) {
        assert!(self.is_transposed, "rows are channels read");
        sums.fill(0);
        for output in 0..self.outputs {
            for tap in taps.clone() {
                sums.iter_mut().zip(self.row(output, tap, 0)).for_each(|(sum, &w)| *sum += i32::from(w));
            }
        }
    }
}

impl ConvGeometry {
    /// Converts OIHW weights to `[cout][kh * kw][cin]`, the order that plans pack.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn tap_major<T: Copy, U>(&self, oihw: &[T], out: &mut [U], convert: impl Fn(T) -> U) {
        let (n, taps) = (self.weights(), self.kh * self.kw);
        assert!(oihw.len() == n && out.len() == n, "weights of {self:?}");
        for (filter, out) in oihw.chunks_exact(taps * self.cin).zip(out.chunks_exact_mut(taps * self.cin)) {
            for (tap, out) in out.chunks_exact_mut(self.cin).enumerate() {
                out.iter_mut().zip(filter[tap..].iter().step_by(taps)).for_each(|(to, &w)| *to = convert(w));
            }
        }
    }
}

/// Copies the sums of a weight gradient, `[cout / 16][tap][channels][16]` with `channels >= cin`, to OIHW order: 16
/// channels of either side at a time, so that what is read stays in the first-level cache and what is written follows
/// itself.
///
/// # Panics
/// If a length is wrong.
pub(super) fn unpack_sums(g: &ConvGeometry, channels: usize, sums: &[f32], dw_oihw: &mut [f32]) {
    let taps = g.kh * g.kw;
    assert_eq!(sums.len(), g.cout.div_ceil(LANES) * taps * channels * LANES, "sums of {g:?}");
    assert_eq!(dw_oihw.len(), g.weights(), "weights of {g:?}");
    let blocks = sums.chunks_exact(taps * channels * LANES).zip(dw_oihw.chunks_mut(LANES * g.cin * taps));
    for (sums, filters) in blocks {
        for first in (0..g.cin).step_by(LANES) {
            let inputs = first * taps..(first + LANES).min(g.cin) * taps;
            for (lane, filter) in filters.chunks_exact_mut(g.cin * taps).enumerate() {
                for (weights, row) in filter[inputs.clone()].chunks_exact_mut(taps).zip(0..) {
                    for (tap, to) in weights.iter_mut().enumerate() {
                        *to = sums[(tap * channels + first + row) * LANES + lane];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every weight is found where its channels and its tap say, in both directions, and nothing else is.
    #[test]
    fn words_hold_the_weights_of_their_channels() {
        for (cin, cout) in [(16, 16), (5, 19), (40, 3), (1, 1), (70, 33)] {
            let g = ConvGeometry { kh: 3, kw: 2, stride: 1, pad: 0, cin, cout };
            let oihw: Vec<i16> = (1..=g.weights() as i16).collect();
            let mut rows = vec![0; oihw.len()];
            g.tap_major(&oihw, &mut rows, |w| w);
            check::<1>(&g, &oihw, &rows);
            check::<2>(&g, &oihw, &rows);
            check::<4>(&g, &oihw, &rows);
        }
    }

    fn check<const K: usize>(g: &ConvGeometry, oihw: &[i16], rows: &[i16]) {
        let at = |o: usize, i: usize, tap: usize| {
            if o < g.cout && i < g.cin { i32::from(oihw[g.weight(o, i, tap / g.kw, tap % g.kw)]) } else { 0 }
        };
        for (filters, written, read, is_transposed) in
            [(Filters::forward(g, rows), g.cout, g.cin, false), (Filters::transposed(g, rows), g.cin, g.cout, true)]
        {
            for first in (0..written).step_by(LANES) {
                for tap in 0..g.kh * g.kw {
                    let mut words = vec![[[-1; K]; LANES]; read.div_ceil(K) + 1];
                    filters.words(tap, first, 0, &mut words, i32::from);
                    for (lane, k) in (0..LANES).flat_map(|lane| (0..words.len() * K).map(move |k| (lane, k))) {
                        let expected = if is_transposed { at(k, first + lane, tap) } else { at(first + lane, k, tap) };
                        assert_eq!(words[k / K][lane][k % K], expected, "{g:?}, channels {} and {k}", first + lane);
                    }
                }
            }
        }
    }
}
