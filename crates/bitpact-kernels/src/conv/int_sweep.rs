//! One sweep of u8 with s8 to i32 on any path: its packed weights and its dispatch.

use super::sweep::Sweep;
#[cfg(target_arch = "x86_64")]
use super::tile_sweep::TileSweep;
#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::{LANES, reference};
#[cfg(target_arch = "x86_64")]
use crate::isa::Amx;
use crate::isa::{Isa, Proof};

/// A sweep that reads u8 and writes i32, with packed s8 weights.
#[derive(Clone, Debug)]
pub(super) struct IntSweep {
    sweep: Sweep,
    proof: Proof,
    /// The walk on tiles, where the path has them.
    #[cfg(target_arch = "x86_64")]
    tiles: Option<(Amx, TileSweep)>,
}

impl IntSweep {
    /// `x_cs` is the channel stride of the tensor read.
    ///
    /// # Panics
    /// If the sweep reads no multiple of 4 channels or the machine lacks `isa`.
    pub(super) fn new(isa: Isa, sweep: Sweep, x_cs: usize) -> IntSweep {
        assert!(sweep.reads().is_multiple_of(4) && sweep.reads() <= x_cs, "{} of {x_cs} channels", sweep.reads());
        #[cfg(target_arch = "x86_64")]
        let tiles = Amx::detect()
            .filter(|_| isa == Isa::Amx && !sweep.taps().is_empty())
            .map(|amx| (amx, TileSweep::new(&sweep, x_cs, 1)));
        IntSweep {
            sweep,
            proof: isa.prove(),
            #[cfg(target_arch = "x86_64")]
            tiles,
        }
    }

    /// Elements of the packed weights.
    pub(super) fn packed_len(&self) -> usize {
        self.sweep.packed_len() * self.weight_bytes()
    }

    /// Channels written, a multiple of 16.
    pub(super) fn channels(&self) -> usize {
        self.sweep.y_channels()
    }

    /// Kernel positions.
    pub(super) fn taps(&self) -> &[super::sweep::Tap] {
        self.sweep.taps()
    }

    /// Bytes of a packed weight.
    fn weight_bytes(&self) -> usize {
        match self.proof {
            Proof::Avx2(_) => 2,
            _ => 1,
        }
    }

    /// Packs weight(channel written, channel read, kernel row, kernel column).
    ///
    /// # Panics
    /// If the length is wrong.
    pub(super) fn pack(&self, out: &mut [i8], weight: impl Fn(usize, usize, usize, usize) -> i8) {
        assert_eq!(out.len(), self.packed_len(), "packed weights");
        #[cfg(target_arch = "x86_64")]
        if let Some((_, tiles)) = &self.tiles {
            let taps = self.sweep.taps();
            return tiles.pack(out, |o, i, tap| weight(o, i, taps[tap].a, taps[tap].b));
        }
        let mut words = out.chunks_exact_mut(4 * LANES * self.weight_bytes());
        for block in 0..self.sweep.y_channels() / LANES {
            for tap in self.sweep.taps() {
                for (word, out) in (0..self.sweep.reads() / 4).zip(&mut words) {
                    let codes: [i8; 4 * LANES] =
                        std::array::from_fn(|k| weight(block * LANES + k / 4, word * 4 + k % 4, tap.a, tap.b));
                    match self.proof {
                        #[cfg(target_arch = "x86_64")]
                        Proof::Avx2(_) => super::avx2::widen(&codes, out),
                        _ => out.copy_from_slice(&codes),
                    }
                }
            }
        }
    }

    /// y = init + sums: writes all channels of the sweep's pixels.
    ///
    /// # Panics
    /// If a length is wrong.
    pub(super) fn run(&self, x: &[u8], packed: &[i8], init: &[i32], y: &mut [i32]) {
        self.sweep.check(x.len(), y.len());
        assert_eq!(packed.len(), self.packed_len(), "packed weights");
        assert_eq!(init.len(), self.sweep.y_channels(), "initial values");
        #[cfg(target_arch = "x86_64")]
        if let Some((amx, tiles)) = &self.tiles {
            let (x, w, y, init) = (x.as_ptr(), packed.as_ptr().cast(), y.as_mut_ptr().cast(), init.as_ptr().cast());
            // SAFETY: the lengths are the sweep's.
            unsafe { tiles.run(*amx, tiles::Product::U8S8, &self.sweep, x, w, y, tiles::Start::Init, init) };
            return;
        }
        match self.proof {
            #[cfg(target_arch = "x86_64")]
            Proof::Avx2(token) => super::avx2::sweep_u8s8(token, &self.sweep, x, packed, init, y),
            #[cfg(target_arch = "x86_64")]
            Proof::Avx512(token) => super::avx512::sweep_u8s8(token, &self.sweep, x, packed, init, y),
            _ => reference::sweep_u8s8(&self.sweep, x, packed, init, y),
        }
    }
}
