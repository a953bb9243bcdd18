//! The word lines of all pixels of a layer: which rows each read drives.

use super::layers::Layer;

/// Rows that are looked at together: a pattern of them is a byte.
pub(crate) const CHUNK: usize = 8;

/// Bits of the inputs of one group of channels, for all pixels.
pub(crate) struct Patterns {
    pub(crate) pixels: usize,
    bits: usize,
    /// `[chunk][input bit][pixel]`: bit `r` is row `chunk * chunk_rows + r`.
    chunks: Vec<u8>,
    /// Sum of the inputs of every pixel.
    pub(crate) sums: Vec<i64>,
}

impl Patterns {
    /// Collects the patterns of the group whose first output channel is `channel`, `chunk_rows` rows together, from
    /// windows that lie one after the other.
    pub(crate) fn new(layer: &Layer, channel: usize, chunk_rows: usize, windows: &[i64]) -> Self {
        let first = channel / layer.group_channels * layer.inputs;
        let (pixels, bits) = (windows.len() / layer.window, usize::from(layer.input_bits));
        let mut chunks = vec![0u8; layer.inputs.div_ceil(chunk_rows) * bits * pixels];
        let mut sums = vec![0; pixels];
        for (pixel, window) in windows.chunks_exact(layer.window).enumerate() {
            let inputs = &window[first..first + layer.inputs];
            sums[pixel] = inputs.iter().sum();
            for (c, codes) in inputs.chunks(chunk_rows).enumerate() {
                for first in (0..bits).step_by(8) {
                    let bytes = codes.iter().rev().fold(0, |word, &code| word << 8 | u64::from((code >> first) as u8));
                    let by_bit = transposed(bytes).to_le_bytes();
                    for (bit, rows) in (first..bits).zip(by_bit) {
                        chunks[(c * bits + bit) * pixels + pixel] = rows;
                    }
                }
            }
        }
        Self { pixels, bits, chunks, sums }
    }

    /// Rows that are driven in chunk `chunk` for input bit `bit`, pixel by pixel.
    #[inline]
    pub(crate) fn of(&self, chunk: usize, bit: usize) -> &[u8] {
        &self.chunks[(chunk * self.bits + bit) * self.pixels..][..self.pixels]
    }

    /// Share of word lines that are driven.
    pub(crate) fn activity(&self, layer: &Layer) -> f64 {
        let driven: u64 = self.chunks.iter().map(|c| u64::from(c.count_ones())).sum();
        driven as f64 / (layer.inputs * self.bits * self.pixels) as f64
    }
}

/// Bit j of byte i of `x` becomes bit i of byte j: the transpose of 8 by 8 bits, in three steps of blocks of 1, 2 and
/// 4.
fn transposed(x: u64) -> u64 {
    let swap = |x: u64, by: u32, mask: u64| {
        let t = (x ^ (x >> by)) & mask;
        x ^ t ^ (t << by)
    };
    let x = swap(x, 7, 0x00aa_00aa_00aa_00aa);
    let x = swap(x, 14, 0x0000_cccc_0000_cccc);
    swap(x, 28, 0x0000_0000_f0f0_f0f0)
}

#[cfg(test)]
mod tests {
    use super::transposed;

    #[test]
    fn bits_and_bytes_change_places() {
        for (byte, bit) in (0..8).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            assert_eq!(transposed(1 << (8 * byte + bit)), 1 << (8 * bit + byte));
        }
    }
}
