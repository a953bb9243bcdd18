//! One sweep of u8 with s8 to i32 on any path: its packed weights and its dispatch.

#[cfg(target_arch = "x86_64")]
use super::amx_sweep::TileSweep;
#[cfg(target_arch = "x86_64")]
use super::amx_tiles;
use super::filters::Filters;
use super::sweep::Sweep;
use super::{CodeLimits, LANES, scalar_sweep};
#[cfg(target_arch = "x86_64")]
use crate::machine::isa::{Amx, Avx2, Avx512, AvxVnni};
use crate::machine::isa::{Isa, Proof};

/// A sweep that reads u8 and writes i32, with packed s8 weights.
#[derive(Clone, Debug)]
pub(super) struct IntSweep {
    sweep: Sweep,
    limits: CodeLimits,
    unit: Unit,
}

/// What multiplies.
#[derive(Clone, Debug)]
enum Unit {
    /// Both factors widened to 16 bits.
    #[cfg(target_arch = "x86_64")]
    Wide(Avx2),
    /// Sums of so many words in 16 bits.
    #[cfg(target_arch = "x86_64")]
    Narrow(Avx2, usize),
    #[cfg(target_arch = "x86_64")]
    Vnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Tiles(Amx, TileSweep),
    Scalar,
}

impl IntSweep {
    /// `x_cs` is the channel stride of the tensor read.
    ///
    /// # Panics
    /// If the sweep reads no multiple of 4 channels or the machine lacks `isa`.
    pub(super) fn new(isa: Isa, sweep: Sweep, x_cs: usize, limits: CodeLimits) -> IntSweep {
        assert!(sweep.reads().is_multiple_of(4) && sweep.reads() <= x_cs, "{} of {x_cs} channels", sweep.reads());
        #[cfg(target_arch = "x86_64")]
        let unit = match (isa.prove(), Amx::detect(), AvxVnni::detect()) {
            (_, Some(amx), _) if isa == Isa::Amx && !sweep.taps().is_empty() => {
                Unit::Tiles(amx, TileSweep::new(&sweep, 1))
            }
            (Proof::Avx512(token), ..) => Unit::Avx512(token),
            (Proof::Avx2(_), _, Some(token)) if isa == Isa::AvxVnni => Unit::Vnni(token),
            (Proof::Avx2(token), ..) if limits.words() > 0 => Unit::Narrow(token, limits.words()),
            (Proof::Avx2(token), ..) => Unit::Wide(token),
            _ => Unit::Scalar,
        };
        #[cfg(not(target_arch = "x86_64"))]
        let unit = {
            let _: Proof = isa.prove();
            Unit::Scalar
        };
        IntSweep { sweep, limits, unit }
    }

    /// Elements of the packed weights.
    pub(super) fn packed_len(&self) -> usize {
        self.sweep.packed_len() * self.weight_bytes()
    }

    /// Channels written, a multiple of 16.
    pub(super) fn channels(&self) -> usize {
        self.sweep.y_channels()
    }

    /// Largest codes.
    pub(super) fn limits(&self) -> CodeLimits {
        self.limits
    }

    /// The kernel positions that the sweep meets, in a kernel of `kw` columns.
    pub(super) fn taps(&self, kw: usize) -> impl Iterator<Item = usize> + Clone {
        self.sweep.taps().iter().map(move |tap| tap.index(kw))
    }

    /// Bytes of a packed weight.
    fn weight_bytes(&self) -> usize {
        match self.unit {
            #[cfg(target_arch = "x86_64")]
            Unit::Wide(_) => 2,
            _ => 1,
        }
    }

    /// Packs weights that were checked; `kw` are the kernel's columns.
    ///
    /// # Panics
    /// If the length is wrong.
    pub(super) fn pack(&self, kw: usize, out: &mut [i8], filters: &Filters<i8>) {
        assert_eq!(out.len(), self.packed_len(), "packed weights");
        let words = self.sweep.reads() / 4;
        match &self.unit {
            #[cfg(target_arch = "x86_64")]
            Unit::Tiles(_, tiles) => tiles.pack::<4, _, _>(&self.sweep, kw, out, filters, |w| w),
            #[cfg(target_arch = "x86_64")]
            Unit::Wide(_) => {
                let out = out.as_chunks_mut::<{ 8 * LANES }>().0;
                for ((block, tap), out) in self.sweep.blocks_and_taps().zip(out.chunks_exact_mut(words)) {
                    for (word, out) in out.iter_mut().enumerate() {
                        let mut codes = [[[0; 4]; LANES]];
                        filters.words(tap.index(kw), block * LANES, 4 * word, &mut codes, |w| w);
                        super::bytes::widen(codes.as_flattened().as_flattened(), out);
                    }
                }
            }
            _ => {
                let out = out.as_chunks_mut::<4>().0.as_chunks_mut::<LANES>().0;
                for ((block, tap), out) in self.sweep.blocks_and_taps().zip(out.chunks_exact_mut(words)) {
                    filters.words(tap.index(kw), block * LANES, 0, out, |w| w);
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
        match &self.unit {
            #[cfg(target_arch = "x86_64")]
            Unit::Tiles(amx, tiles) => {
                let (x, w, y, init) = (x.as_ptr(), packed.as_ptr().cast(), y.as_mut_ptr().cast(), init.as_ptr().cast());
                // SAFETY: the lengths are the sweep's.
                unsafe { tiles.run(*amx, amx_tiles::Product::U8S8, &self.sweep, x, w, y, amx_tiles::Start::Init, init) }
            }
            #[cfg(target_arch = "x86_64")]
            Unit::Wide(token) => super::bytes::sweep_wide(*token, &self.sweep, x, packed, init, y),
            #[cfg(target_arch = "x86_64")]
            Unit::Narrow(token, reach) => {
                debug_assert!(x.iter().all(|&x| x <= self.limits.x), "codes of at most {}", self.limits.x);
                super::bytes::sweep_narrow(*token, *reach, &self.sweep, x, packed, init, y)
            }
            #[cfg(target_arch = "x86_64")]
            Unit::Vnni(token) => super::bytes::sweep_vnni(*token, &self.sweep, x, packed, init, y),
            #[cfg(target_arch = "x86_64")]
            Unit::Avx512(token) => super::avx512::sweep_u8s8(*token, &self.sweep, x, packed, init, y),
            Unit::Scalar => scalar_sweep::sweep_u8s8(&self.sweep, x, packed, init, y),
        }
    }
}
