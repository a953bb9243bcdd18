//! The gradient of a convolution's input codes from a rounded gradient of its accumulators.

use super::{Format, RoundedScratch, bf16, bf16_bytes};
use crate::machine::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::machine::isa::{Amx, Bf16};
use crate::machine::layout::{Aligned, Layout};
#[cfg(target_arch = "x86_64")]
use crate::train::conv::LANES;
#[cfg(target_arch = "x86_64")]
use crate::train::conv::amx_sweep::TileSweep;
#[cfg(target_arch = "x86_64")]
use crate::train::conv::amx_tiles;
use crate::train::conv::filters::Filters;
use crate::train::conv::int_sweep::IntSweep;
use crate::train::conv::sweep::Sweep;
use crate::train::conv::{CodeLimits, ConvGeometry};

/// Plan of dq = conv_transpose(dz, k), k being integer weight codes; see [`super`].
#[derive(Clone, Debug)]
pub struct RoundedInputGrad {
    geometry: ConvGeometry,
    dq: Layout,
    sweeps: Sweeps,
}

#[derive(Clone, Debug)]
enum Sweeps {
    Bf16(Vec<Bf16Sweep>),
    S8(Vec<IntSweep>),
}

/// A sweep of bfloat16 to float32.
#[derive(Clone, Debug)]
pub(super) struct Bf16Sweep {
    sweep: Sweep,
    unit: Bf16Unit,
}

/// What multiplies.
#[derive(Clone, Debug)]
enum Bf16Unit {
    #[cfg(target_arch = "x86_64")]
    Tiles(Amx, TileSweep),
    #[cfg(target_arch = "x86_64")]
    Vectors(Bf16),
}

impl RoundedInputGrad {
    /// Border that dz needs: zeros that taps reach beyond its edges.
    pub fn border(geometry: ConvGeometry) -> usize {
        crate::train::conv::sweep::border(&geometry)
    }

    /// Plans the gradient on `isa`, for weight codes of magnitudes up to `largest`. `dz.cs` and `dq.cs` are multiples
    /// of 16, dz has at least [`RoundedInputGrad::border`].
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or the machine lacks `isa` or the format on it.
    pub fn new(isa: Isa, format: Format, geometry: ConvGeometry, dz: Layout, dq: Layout, largest: u8) -> Self {
        assert!(format.is_available(isa), "{format:?} on {isa}");
        let reads = geometry.cout.next_multiple_of(format.per_word());
        let sweeps = Sweep::transposed(&geometry, dz, dq, reads).into_iter();
        let sweeps = match format {
            Format::Bf16 => Sweeps::Bf16(sweeps.map(|sweep| Bf16Sweep::new(isa, sweep)).collect()),
            Format::S8 => {
                let limits = CodeLimits { x: u8::MAX, w: largest };
                Sweeps::S8(sweeps.map(|sweep| IntSweep::new(isa, sweep, dz.cs, limits)).collect())
            }
        };
        Self { geometry, dq, sweeps }
    }

    /// Bytes of the packed weights.
    pub fn packed_len(&self) -> usize {
        match &self.sweeps {
            Sweeps::Bf16(sweeps) => sweeps.iter().map(|s| s.packed_len()).sum(),
            Sweeps::S8(sweeps) => sweeps.iter().map(|s| init_len(s) + s.packed_len()).sum(),
        }
    }

    /// Makes `scratch` large enough for [`RoundedInputGrad::run`].
    pub fn reserve(&self, scratch: &mut RoundedScratch) {
        if let Sweeps::S8(_) = self.sweeps {
            scratch.sums.reserve(self.dq.len());
        }
    }

    /// Packs [tap-major](ConvGeometry::tap_major) weight codes for [`RoundedInputGrad::run`].
    ///
    /// # Panics
    /// If a length is wrong or, in 8 bits, a code is larger than planned.
    pub fn pack(&self, codes: &[i8], out: &mut Aligned<u8>) {
        let (kw, filters) = (self.geometry.kw, Filters::transposed(&self.geometry, codes));
        assert_eq!(out.len(), self.packed_len(), "packed weights");
        let mut rest = &mut out[..];
        match &self.sweeps {
            Sweeps::Bf16(sweeps) => {
                for sweep in sweeps {
                    let (part, after) = rest.split_at_mut(sweep.packed_len());
                    sweep.pack(kw, part, &filters, |code: i8| bf16(code.into()).to_ne_bytes());
                    rest = after;
                }
            }
            Sweeps::S8(sweeps) => {
                if let Some(sweep) = sweeps.first() {
                    sweep.limits().check(codes);
                }
                for sweep in sweeps {
                    let (init, after) = rest.split_at_mut(init_len(sweep));
                    let (part, after) = after.split_at_mut(sweep.packed_len());
                    sweep.pack(kw, bytes_as_codes_mut(part), &filters);
                    // Values are stored with 128 added, so 128 times the weights they meet comes off.
                    let init = bytes_as_ints_mut(init);
                    filters.sum_transposed(sweep.taps(kw), init);
                    init.iter_mut().for_each(|sum| *sum *= -128);
                    rest = after;
                }
            }
        }
    }

    /// Rounds and packs [tap-major](ConvGeometry::tap_major) real weights in place of codes, in bfloat16 only.
    ///
    /// # Panics
    /// If a length is wrong, or the gradient's format is another.
    pub fn pack_real(&self, weights: &[f32], out: &mut Aligned<u8>) {
        let (kw, filters) = (self.geometry.kw, Filters::transposed(&self.geometry, weights));
        assert_eq!(out.len(), self.packed_len(), "packed weights");
        let Sweeps::Bf16(sweeps) = &self.sweeps else { panic!("real weights are those of bfloat16") };
        let mut rest = &mut out[..];
        for sweep in sweeps {
            let (part, after) = rest.split_at_mut(sweep.packed_len());
            sweep.pack(kw, part, &filters, bf16_bytes);
            rest = after;
        }
    }

    /// Computes dq = (or, to `accumulate`, +=) scale * conv_transpose(dz, k) and writes the interior pixels of dq, all
    /// `cs` channels of each. In bfloat16, `scale` must be 1: it belongs into dz.
    ///
    /// # Panics
    /// If a length is wrong, or the scratch memory was not reserved.
    pub fn run(
        &self,
        isa: Isa,
        dz: &[u8],
        packed: &Aligned<u8>,
        scale: f32,
        dq: &mut [f32],
        accumulate: bool,
        scratch: &mut RoundedScratch,
    ) {
        assert_eq!(packed.len(), self.packed_len(), "packed weights");
        let mut rest = &packed[..];
        match &self.sweeps {
            Sweeps::Bf16(sweeps) => {
                for sweep in sweeps {
                    let (part, after) = rest.split_at(sweep.packed_len());
                    sweep.run(dz, part, dq, accumulate);
                    rest = after;
                }
            }
            Sweeps::S8(sweeps) => {
                let sums = &mut scratch.sums[..self.dq.len()];
                for sweep in sweeps {
                    let (init, after) = rest.split_at(init_len(sweep));
                    let (part, after) = after.split_at(sweep.packed_len());
                    sweep.run(dz, bytes_as_codes(part), bytes_as_ints(init), sums);
                    rest = after;
                }
                scale_rows(isa, self.dq, scale, sums, dq, accumulate);
            }
        }
    }
}

/// Bytes of a sweep's initial values, one i32 a channel written.
fn init_len(sweep: &IntSweep) -> usize {
    4 * sweep.channels()
}

/// dq = (or +=) scale * sums over interior pixels.
fn scale_rows(isa: Isa, layout: Layout, scale: f32, sums: &[i32], dq: &mut [f32], accumulate: bool) {
    crate::machine::on_isa!(isa, |FMA| {
        for y in 0..layout.h {
            let row = layout.offset(y, 0)..layout.offset(y, 0) + layout.w * layout.cs;
            let (dq, sums) = (&mut dq[row.clone()], &sums[row]);
            if accumulate {
                for (d, &s) in dq.iter_mut().zip(sums) {
                    *d = if FMA { (s as f32).mul_add(scale, *d) } else { s as f32 * scale + *d };
                }
            } else {
                dq.iter_mut().zip(sums).for_each(|(d, &s)| *d = s as f32 * scale);
            }
        }
    });
}

impl Bf16Sweep {
    pub(super) fn new(isa: Isa, sweep: Sweep) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let unit = match Amx::detect().filter(|_| isa == Isa::Amx) {
                Some(amx) => Bf16Unit::Tiles(amx, TileSweep::new(&sweep, 2)),
                None => Bf16Unit::Vectors(Bf16::detect().expect("the format is available")),
            };
            Bf16Sweep { sweep, unit }
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("bfloat16 on {isa} ({} taps)", sweep.taps().len())
    }

    /// Bytes of the packed weights.
    pub(super) fn packed_len(&self) -> usize {
        2 * self.sweep.packed_len()
    }

    /// Packs weights as the `bytes` of their values; `kw` are the kernel's columns.
    pub(super) fn pack<T: Copy>(
        &self,
        kw: usize,
        out: &mut [u8],
        filters: &Filters<T>,
        bytes: impl Fn(T) -> [u8; 2] + Copy,
    ) {
        let (out, rest) = out.as_chunks_mut::<2>();
        debug_assert!(rest.is_empty());
        match self.unit {
            #[cfg(target_arch = "x86_64")]
            Bf16Unit::Tiles(_, ref tiles) => tiles.pack::<2, _, _>(&self.sweep, kw, out, filters, bytes),
            #[cfg(target_arch = "x86_64")]
            Bf16Unit::Vectors(_) => {
                let words = out.as_chunks_mut::<2>().0.as_chunks_mut::<LANES>().0;
                let words = words.chunks_exact_mut(self.sweep.reads() / 2);
                for ((block, tap), words) in self.sweep.blocks_and_taps().zip(words) {
                    filters.words(tap.index(kw), block * LANES, 0, words, bytes);
                }
            }
        }
    }

    pub(super) fn run(&self, dz: &[u8], packed: &[u8], dq: &mut [f32], accumulate: bool) {
        self.sweep.check(dz.len() / 2, dq.len());
        assert!(dz.len().is_multiple_of(2) && packed.len() == self.packed_len(), "packed weights");
        if self.sweep.taps().is_empty() {
            // Pixels that a stride skips.
            for (r, q) in (0..self.sweep.rows()).flat_map(|r| (0..self.sweep.cols()).map(move |q| (r, q))) {
                if !accumulate {
                    dq[self.sweep.y_at(r, q)..][..self.sweep.y_channels()].fill(0.0);
                }
            }
            return;
        }
        match self.unit {
            #[cfg(target_arch = "x86_64")]
            Bf16Unit::Tiles(amx, ref tiles) => {
                let start = if accumulate { amx_tiles::Start::Old } else { amx_tiles::Start::Zero };
                let (x, w, y) = (dz.as_ptr(), packed.as_ptr(), dq.as_mut_ptr().cast());
                // SAFETY: the lengths are the sweep's, and no initial values are read.
                unsafe { tiles.run(amx, amx_tiles::Product::Bf16, &self.sweep, x, w, y, start, std::ptr::null()) };
            }
            #[cfg(target_arch = "x86_64")]
            Bf16Unit::Vectors(bf16) => super::avx512::sweep_bf16(bf16, &self.sweep, dz, packed, dq, accumulate),
        }
    }
}

fn bytes_as_codes(bytes: &[u8]) -> &[i8] {
    // SAFETY: u8 and i8 have the same layout and no invalid bit pattern.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

fn bytes_as_codes_mut(bytes: &mut [u8]) -> &mut [i8] {
    // SAFETY: u8 and i8 have the same layout and no invalid bit pattern.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
}

/// # Panics
/// If the bytes are not aligned to 4.
fn bytes_as_ints_mut(bytes: &mut [u8]) -> &mut [i32] {
    assert!(bytes.as_ptr().align_offset(4) == 0);
    // SAFETY: aligned, within the slice, and every bit pattern is an i32.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / 4) }
}

/// # Panics
/// If the bytes are not aligned to 4.
fn bytes_as_ints(bytes: &[u8]) -> &[i32] {
    assert!(bytes.as_ptr().align_offset(4) == 0);
    // SAFETY: aligned, within the slice, and every bit pattern is an i32.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 4) }
}
