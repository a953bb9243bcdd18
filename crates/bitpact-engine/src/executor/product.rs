//! Products of 8-bit codes whose sums fit 32 bits, on the convolution kernels.

use bitpact_core::step::accumulator_range;
use bitpact_kernels::{Aligned, ConvGeometry, ConvU8S8, Isa, Layout};
use bitpact_model::{IntegerModel, IntegerProduct};

/// A product on [`ConvU8S8`]. Weight codes that do not fit s8 are split, `q = 256 * high + low`, into two convolutions.
#[derive(Debug)]
pub(super) struct ConvProduct {
    conv: ConvU8S8,
    low: Aligned<i8>,
    high: Option<Aligned<i8>>,
    zeros: Aligned<i32>,
}

impl ConvProduct {
    /// Plans a product over 8-bit codes in `x` into accumulators in `y`; `None` where a sum, or a sum of halves, may need
    /// more than 32 bits.
    pub(super) fn new(isa: Isa, model: &IntegerModel, product: &IntegerProduct, x: Layout, y: Layout) -> Option<Self> {
        if product.groups > 1 {
            return None;
        }
        let (_, code_max) = model.code_range(product.input);
        let fits = |codes: &[i16]| {
            codes.chunks_exact(product.weights_per_channel()).all(|channel| {
                // From 0, so that every partial sum lies in the range too.
                let (lo, hi) = accumulator_range(channel, 0, code_max);
                lo >= i64::from(i32::MIN) && hi <= i64::from(i32::MAX)
            })
        };
        let geometry = ConvGeometry {
            kh: product.kernel[0],
            kw: product.kernel[1],
            stride: product.stride,
            pad: product.padding,
            cin: product.in_channels,
            cout: product.out_channels,
        };
        let codes = &product.codes;
        let low: Vec<i8> = codes.iter().map(|&q| q as i8).collect();
        let high: Vec<i8> = codes.iter().zip(&low).map(|(&q, &l)| ((q - i16::from(l)) >> 8) as i8).collect();
        let is_split = high.iter().any(|&h| h != 0);
        let widen = |half: &[i8]| half.iter().map(|&q| i16::from(q)).collect::<Vec<i16>>();
        if !fits(codes) || (is_split && !(fits(&widen(&low)) && fits(&widen(&high)))) {
            return None;
        }
        let conv = ConvU8S8::new(isa, geometry, x, y);
        let pack = |codes: &[i8]| {
            let mut packed = Aligned::zeroed(conv.packed_len());
            conv.pack(codes, &mut packed);
            packed
        };
        let (low, high) = (pack(&low), is_split.then(|| pack(&high)));
        Some(Self { conv, low, high, zeros: Aligned::zeroed(y.cs) })
    }

    /// Whether weights are split, and a run needs scratch memory.
    pub(super) fn is_split(&self) -> bool {
        self.high.is_some()
    }

    /// Writes the accumulators; `scratch` is of their size where weights are split.
    pub(super) fn run(&self, x: &[u8], acc: &mut [i32], scratch: &mut [i32]) {
        self.conv.run(x, &self.low, &self.zeros, acc);
        if let Some(high) = &self.high {
            let scratch = &mut scratch[..acc.len()];
            self.conv.run(x, high, &self.zeros, scratch);
            for (acc, high) in acc.iter_mut().zip(scratch) {
                // The whole sum fits 32 bits; its high part alone need not.
                *acc = acc.wrapping_add(high.wrapping_shl(8));
            }
        }
    }
}
