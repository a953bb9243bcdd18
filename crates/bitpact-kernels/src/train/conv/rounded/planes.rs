//! Where the weight gradient finds its words: the input channel by channel, and the gradient in words of neighbouring
//! pixels.
//!
//! Output pixels are numbered along rows of `width` places, of which the convolution's columns use the first; the
//! gradient is zero in the others. For stride s the input falls into planes, one for every pair (row mod s, column mod
//! s) that a tap meets, each with rows of the same `width` places, so that place n of the output meets place n + tap of
//! a plane.

use super::Format;
use crate::machine::ConvGeometry;
use crate::machine::isa::Isa;
use crate::machine::layout::Layout;
use crate::machine::on_isa;
use crate::train::norm::gradient::to_bf16;

/// Channels, or places, moved together.
const SIDE: usize = 16;

/// Bytes that a tile takes of a channel at once; every channel is that much longer than its last place.
const STEP: usize = 64;

/// The places of a weight gradient.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    format: Format,
    x: Layout,
    dz: Layout,
    stride: usize,
    /// (row, column) modulo the stride of every plane.
    classes: Vec<(usize, usize)>,
    /// Smallest shift of a tap, in rows and columns of a plane.
    first: (usize, usize),
    /// Rows and places in a row of a plane.
    rows: usize,
    width: usize,
    /// Places of one channel of one plane, a multiple of a step.
    len: usize,
    /// Places that are summed, a multiple of a step.
    summed: usize,
    /// (plane, place) of every tap, kernel row by kernel row.
    taps: Vec<(usize, usize)>,
}

impl Planes {
    /// Border that dz needs, so that its rows are as long as those of the planes.
    pub(super) fn border(geometry: &ConvGeometry) -> usize {
        (geometry.kw.max(geometry.kh).saturating_sub(1)).div_ceil(geometry.stride).div_ceil(2)
    }

    /// # Panics
    /// If dz has less than [`Planes::border`], or x less than the padding.
    pub(super) fn new(format: Format, geometry: &ConvGeometry, x: Layout, dz: Layout) -> Planes {
        let (g, s) = (geometry, geometry.stride);
        assert_eq!(g.output(x.h, x.w), (dz.h, dz.w), "output size of {g:?} over {x:?}");
        assert!(x.border >= g.pad && dz.border >= Planes::border(g), "borders of {x:?} and {dz:?} for {g:?}");
        assert!(dz.cs.is_multiple_of(SIDE) && (x.cs == 4 || x.cs.is_multiple_of(SIDE)), "channels of {x:?} and {dz:?}");
        let place = |k: usize| (x.border - g.pad + k).div_euclid(s);
        let class = |k: usize| (x.border - g.pad + k) % s;
        let (first, last) = ((place(0), place(0)), (place(g.kh - 1), place(g.kw - 1)));
        let (rows, width) = (dz.h + last.0 - first.0, dz.w + 2 * dz.border);
        assert!(dz.w + last.1 - first.1 <= width, "rows of {width} places for {g:?}");
        let mut classes = Vec::new();
        let mut taps = Vec::new();
        for (a, b) in (0..g.kh).flat_map(|a| (0..g.kw).map(move |b| (a, b))) {
            let class = (class(a), class(b));
            let plane = classes.iter().position(|c| *c == class).unwrap_or_else(|| {
                classes.push(class);
                classes.len() - 1
            });
            taps.push((plane, (place(a) - first.0) * width + place(b) - first.1));
        }
        let step = STEP / format.bytes();
        let summed = (dz.h * width).next_multiple_of(step);
        let furthest = taps.iter().map(|t| t.1).max().unwrap_or(0);
        let len = (furthest + summed).max(rows * width + SIDE).next_multiple_of(step);
        Planes { format, x, dz, stride: s, classes, first, rows, width, len, summed, taps }
    }

    /// Channels of x with those that fill the last block.
    fn channels(&self) -> usize {
        self.x.c.next_multiple_of(SIDE)
    }

    /// Bytes of all planes.
    pub(super) fn planes_len(&self) -> usize {
        self.classes.len() * self.channels() * self.len * self.format.bytes()
    }

    /// Bytes from one channel to the next.
    pub(super) fn channel(&self) -> usize {
        self.len * self.format.bytes()
    }

    /// Bytes from the planes' beginning to channel 0 of what every tap meets at place 0.
    pub(super) fn taps(&self) -> impl Iterator<Item = usize> + '_ {
        let bytes = self.format.bytes();
        self.taps.iter().map(move |&(plane, place)| (plane * self.channels() * self.len + place) * bytes)
    }

    /// Words that are summed, a multiple of 16.
    pub(super) fn words(&self) -> usize {
        self.summed / self.format.per_word()
    }

    /// Words of one image that hold pixels; the others meet a gradient of zero.
    pub(super) fn words_with_pixels(&self) -> usize {
        (self.dz.h * self.width).div_ceil(self.format.per_word())
    }

    /// Bytes of the gradient in words.
    pub(super) fn words_len(&self) -> usize {
        self.words() * self.dz.cs * 4
    }

    /// Copies one image of codes, less their zero code in bfloat16, into the planes. `zero`, a multiple of 16 long,
    /// repeats.
    pub(super) fn fill(&self, isa: Isa, codes: &[u8], zero: &[u8], planes: &mut [u8]) {
        assert!(codes.len() == self.x.len() && planes.len() == self.planes_len());
        let (channel, zeros) = (self.channel(), zero.as_chunks::<SIDE>().0);
        on_isa!(isa, |_FMA| self.fill_body(planes, |block, begin, col, places, to| {
            let zero = &zeros[block % zeros.len()];
            let tile = gather(codes, begin, col, places, zero);
            put(self.format, &tile, zero, to, channel);
        }));
    }

    /// Copies one image of real numbers, rounded to bfloat16, into the planes.
    pub(super) fn fill_real(&self, isa: Isa, x: &[f32], planes: &mut [u8]) {
        assert!(x.len() == self.x.len() && planes.len() == self.planes_len());
        assert!(self.format == Format::Bf16 && self.x.cs.is_multiple_of(SIDE), "real numbers of {:?}", self.x);
        let channel = self.channel();
        on_isa!(isa, |_FMA| self.fill_body(planes, |_, begin, col, places, to| {
            let tile = gather_real(x, begin, col, places);
            for (c, row) in tile.iter().enumerate() {
                to[c * channel..][..2 * SIDE].as_chunks_mut::<SIDE>().0.copy_from_slice(row);
            }
        }));
    }

    /// Calls `copy` with the number of a block of channels, where a tile of an image begins, the distance of its
    /// places, their number, and where the tile belongs.
    #[inline(always)]
    fn fill_body(&self, planes: &mut [u8], copy: impl Fn(usize, usize, usize, usize, &mut [u8])) {
        let bytes = self.format.bytes();
        let (row_places, col) = (self.x.w + 2 * self.x.border, self.x.cs * self.stride);
        // One run of places where the planes' rows are the image's.
        let whole = self.stride == 1 && self.width == row_places && self.first.1 == 0;
        let (rows, width) = if whole { (1, self.rows * self.width) } else { (self.rows, self.width) };
        for (plane, &(ra, cb)) in planes.chunks_exact_mut(self.channels() * self.channel()).zip(&self.classes) {
            for (block, plane) in plane.chunks_exact_mut(SIDE * self.channel()).enumerate() {
                for row in 0..rows {
                    let y = (row + self.first.0) * self.stride + ra;
                    let first = self.first.1 * self.stride + cb;
                    let begin = (y * row_places + first) * self.x.cs + block * SIDE;
                    let places = if whole {
                        width
                    } else if y < self.x.h + 2 * self.x.border {
                        row_places.saturating_sub(first).div_ceil(self.stride).min(width)
                    } else {
                        0
                    };
                    let mut place = 0;
                    while place < width {
                        let to = &mut plane[(row * width + place) * bytes..];
                        copy(block, begin + place * col, col, places.saturating_sub(place).min(SIDE), to);
                        place += SIDE;
                    }
                }
                // The places beyond the last row meet a gradient of zero and must be numbers.
                for channel in plane.chunks_exact_mut(self.channel()) {
                    channel[rows * width * bytes..].fill(0);
                }
            }
        }
    }

    /// The gradient of one image, stored as NHWC of the format, in words; where it is stored as `128 + n`, also the sum
    /// of n over all pixels of every channel.
    pub(super) fn words_of(&self, isa: Isa, dz: &[u8], words: &mut [u8]) {
        assert!(dz.len() == self.dz.len() * self.format.bytes() && words.len() == self.words_len());
        on_isa!(isa, |_FMA| match self.format {
            Format::Bf16 => self.pairs(dz, words),
            Format::S8 => self.quads(dz, words),
        });
    }

    #[inline(always)]
    fn pairs(&self, dz: &[u8], words: &mut [u8]) {
        let from = dz[2 * self.dz.offset(0, 0)..].as_chunks::<SIDE>().0;
        let halves = 2 * self.dz.cs / SIDE;
        let words = words.as_chunks_mut::<{ 2 * SIDE }>().0;
        for (w, word) in words.chunks_exact_mut(halves).enumerate() {
            for (half, out) in word.iter_mut().enumerate() {
                let [a, b] = [0, 1].map(|k| pixel(from, (2 * w + k) * halves + half, 0));
                let (low, high) = interleave_pairs(a, b);
                out[..SIDE].copy_from_slice(&low);
                out[SIDE..].copy_from_slice(&high);
            }
        }
    }

    #[inline(always)]
    fn quads(&self, dz: &[u8], words: &mut [u8]) {
        let from = dz[self.dz.offset(0, 0)..].as_chunks::<SIDE>().0;
        let blocks = self.dz.cs / SIDE;
        let words = words.as_chunks_mut::<{ 4 * SIDE }>().0;
        for (w, word) in words.chunks_exact_mut(blocks).enumerate() {
            for (block, out) in word.iter_mut().enumerate() {
                let [a, b, c, d] = [0, 1, 2, 3].map(|k| pixel(from, (4 * w + k) * blocks + block, 128));
                let (ab, cd) = (interleave(a, b), interleave(c, d));
                let (first, second) = (interleave_pairs(ab.0, cd.0), interleave_pairs(ab.1, cd.1));
                for (out, quads) in out.as_chunks_mut::<SIDE>().0.iter_mut().zip([first.0, first.1, second.0, second.1])
                {
                    *out = quads.map(|n| n ^ 128);
                }
            }
        }
    }
}

/// 16 bytes of the pixels that follow each other in memory, or `zero` beyond the last.
#[inline(always)]
fn pixel(from: &[[u8; SIDE]], index: usize, zero: u8) -> [u8; SIDE] {
    from.get(index).copied().unwrap_or([zero; SIDE])
}

/// A tile of codes: `[place][channel]` turned into `[channel][place]`, zero codes beyond `places`.
#[inline(always)]
fn gather(codes: &[u8], begin: usize, col: usize, places: usize, zero: &[u8; SIDE]) -> [[u8; SIDE]; SIDE] {
    let mut pixels = [*zero; SIDE];
    for (p, pixel) in pixels.iter_mut().enumerate().take(places) {
        let from = &codes[begin + p * col..];
        match from.first_chunk::<SIDE>() {
            Some(all) if col >= SIDE => *pixel = *all,
            // Four channels a pixel: the others are not there.
            _ => pixel[..4].copy_from_slice(&from[..4]),
        }
    }
    transpose(pixels)
}

/// A tile of real numbers in bfloat16: `[place][channel]` turned into `[channel][place]`, zeros beyond `places`.
#[inline(always)]
fn gather_real(x: &[f32], begin: usize, col: usize, places: usize) -> [[[u8; SIDE]; 2]; SIDE] {
    let mut rows = [[[0; SIDE]; 2]; SIDE];
    for (p, row) in rows.iter_mut().enumerate().take(places) {
        let from = x[begin + p * col..].first_chunk::<SIDE>().expect("16 channels");
        let mut values = [0u16; SIDE];
        for (to, &v) in values.iter_mut().zip(from) {
            *to = (to_bf16(v) >> 16) as u16;
        }
        for (half, values) in row.iter_mut().zip(values.as_chunks::<{ SIDE / 2 }>().0) {
            for (to, v) in half.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *to = v.to_ne_bytes();
            }
        }
    }
    for _ in 0..4 {
        let mut next = [[[0; SIDE]; 2]; SIDE];
        for i in 0..SIDE / 2 {
            for half in 0..2 {
                let (low, high) = interleave_pairs(rows[i][half], rows[i + SIDE / 2][half]);
                next[2 * i + half] = [low, high];
            }
        }
        rows = next;
    }
    rows
}

/// Four rounds of interleaving the first half with the second turn rows into columns.
#[inline(always)]
fn transpose(mut rows: [[u8; SIDE]; SIDE]) -> [[u8; SIDE]; SIDE] {
    for _ in 0..4 {
        let mut next = [[0; SIDE]; SIDE];
        for i in 0..SIDE / 2 {
            (next[2 * i], next[2 * i + 1]) = interleave(rows[i], rows[i + SIDE / 2]);
        }
        rows = next;
    }
    rows
}

/// a[0] b[0] a[1] b[1] ..., in two halves.
#[inline(always)]
fn interleave(a: [u8; SIDE], b: [u8; SIDE]) -> ([u8; SIDE], [u8; SIDE]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_unpackhi_epi8, _mm_unpacklo_epi8};
        let (a, b) = (vector(a), vector(b));
        // SAFETY: SSE2 is part of x86-64.
        let low = unsafe { _mm_unpacklo_epi8(a, b) };
        // SAFETY: as above.
        let high = unsafe { _mm_unpackhi_epi8(a, b) };
        (bytes(low), bytes(high))
    }
    #[cfg(not(target_arch = "x86_64"))]
    (std::array::from_fn(|k| [a, b][k % 2][k / 2]), std::array::from_fn(|k| [a, b][k % 2][8 + k / 2]))
}

/// As [`interleave`], in pairs of bytes.
#[inline(always)]
fn interleave_pairs(a: [u8; SIDE], b: [u8; SIDE]) -> ([u8; SIDE], [u8; SIDE]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_unpackhi_epi16, _mm_unpacklo_epi16};
        let (a, b) = (vector(a), vector(b));
        // SAFETY: SSE2 is part of x86-64.
        let low = unsafe { _mm_unpacklo_epi16(a, b) };
        // SAFETY: as above.
        let high = unsafe { _mm_unpackhi_epi16(a, b) };
        (bytes(low), bytes(high))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let byte = |k: usize| [a, b][k / 2 % 2][k / 4 * 2 + k % 2];
        (std::array::from_fn(byte), std::array::from_fn(|k| byte(k + SIDE)))
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn vector(bytes: [u8; SIDE]) -> std::arch::x86_64::__m128i {
    // SAFETY: both are 16 bytes of any pattern.
    unsafe { std::mem::transmute(bytes) }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn bytes(vector: std::arch::x86_64::__m128i) -> [u8; SIDE] {
    // SAFETY: both are 16 bytes of any pattern.
    unsafe { std::mem::transmute(vector) }
}

/// Writes a tile, channel after channel, `channel` bytes apart.
#[inline(always)]
fn put(format: Format, tile: &[[u8; SIDE]; SIDE], zero: &[u8; SIDE], to: &mut [u8], channel: usize) {
    for (c, codes) in tile.iter().enumerate() {
        match format {
            Format::S8 => to[c * channel..][..SIDE].copy_from_slice(codes),
            Format::Bf16 => {
                let out = &mut to[c * channel..][..2 * SIDE];
                let mut values = [0u16; SIDE];
                for i in 0..SIDE {
                    let n = i32::from(codes[i]) - i32::from(zero[c]);
                    values[i] = ((n as f32).to_bits() >> 16) as u16;
                }
                for i in 0..SIDE {
                    [out[2 * i], out[2 * i + 1]] = values[i].to_ne_bytes();
                }
            }
        }
    }
}
