//! Weights of 9 to 16 bits as two products of bytes: `q = 256 * high + low`.

use std::ops::Range;

use super::direct::Direct;
use super::instructions::Instructions;
use super::{Product, ProductSpec};

/// The product of the low and of the high bytes.
#[derive(Debug)]
pub(super) struct Split<D> {
    low: Direct<D>,
    high: Direct<D>,
}

impl<D: Instructions> Split<D> {
    /// `None` where the sum of one half could leave 32 bits.
    pub(super) fn new(dot: D, block: usize, spec: &ProductSpec<'_>) -> Option<Self> {
        let low: Vec<i16> = spec.codes.iter().map(|&q| i16::from(q as i8)).collect();
        let high = spec.codes.iter().zip(&low).map(|(&q, &low)| ((i32::from(q) - i32::from(low)) >> 8) as i16);
        let high: Vec<i16> = high.collect();
        // A code of 0x7f80 or more has the high part 128.
        let half = |codes: &[i16]| {
            let half = ProductSpec { codes, ..*spec };
            let fits = codes.iter().all(|&q| i8::try_from(q).is_ok()) && half.fits_i32();
            if fits { Direct::new(dot, block, &half) } else { None }
        };
        Some(Self { low: half(&low)?, high: half(&high)? })
    }
}

impl<D: Instructions> Product for Split<D> {
    fn name(&self) -> String {
        format!("split {}", D::NAME)
    }

    fn block(&self) -> usize {
        self.low.block()
    }

    fn weight_bytes(&self) -> usize {
        self.low.weight_bytes() + self.high.weight_bytes()
    }

    fn accumulate(&self, x: &[u8], _scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        self.high.run(x, rows.clone(), channels.clone(), acc, false);
        // The whole sum fits 32 bits; its high part alone need not.
        acc.iter_mut().for_each(|acc| *acc = acc.wrapping_shl(8));
        self.low.run(x, rows, channels, acc, true);
    }
}
