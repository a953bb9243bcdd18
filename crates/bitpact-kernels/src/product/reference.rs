//! The scalar product: the definition the other kernels are tested against.

use std::ops::Range;

use super::walk::{Walk, Word};
use super::{Product, ProductSpec};

/// One multiplication after the other, for weights of up to 16 bits.
#[derive(Debug)]
pub(super) struct Reference {
    walk: Walk,
    words: Vec<Word>,
    /// `[channel][word][4]`.
    weights: Vec<i16>,
    cout: usize,
}

impl Reference {
    /// Packs the weights.
    pub(super) fn new(spec: &ProductSpec<'_>) -> Self {
        let (walk, words) = Walk::new(spec);
        let cout = spec.geometry.cout;
        let weights = (0..cout).flat_map(|o| words.iter().flat_map(move |word| spec.word(o, word))).collect();
        Self { walk, words, weights, cout }
    }
}

impl Product for Reference {
    fn name(&self) -> String {
        "direct scalar".to_owned()
    }

    fn block(&self) -> usize {
        16
    }

    fn weight_bytes(&self) -> usize {
        size_of_val(&*self.weights)
    }

    fn accumulate(&self, x: &[u8], _scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        assert_eq!(acc.len(), rows.len() * self.walk.width * channels.len(), "accumulators");
        let pixels = rows.flat_map(|r| (0..self.walk.width).map(move |q| (r, q)));
        for ((r, q), acc) in pixels.zip(acc.chunks_exact_mut(channels.len())) {
            let x = &x[self.walk.at(r, q)..];
            for (o, acc) in channels.clone().zip(acc) {
                *acc = 0;
                if o < self.cout {
                    let weights = self.weights[o * 4 * self.words.len()..].chunks_exact(4);
                    for (word, w) in self.words.iter().zip(weights) {
                        let x = &x[word.offset..word.offset + 4];
                        *acc += x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum::<i32>();
                    }
                }
            }
        }
    }
}
