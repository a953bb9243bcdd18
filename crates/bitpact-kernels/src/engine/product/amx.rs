//! TileProduct products on AMX tiles: 16 pixels times 64 codes of each with 64 weights of 16 channels an instruction.
//!
//! The rows of a window are runs of consecutive codes, channels beyond the last included. Each run is cut into pieces
//! of `depth` codes; the rows of a tile are the same piece of 16 pixels. Where the stride is 1 a strip is one line of
//! pixels, those that the border separates included: their sums are computed as well and lie in the gaps between the
//! rows of accumulators.

use std::arch::asm;
use std::ops::Range;

use super::packed::Packed;
use super::walk::Walk;
use super::{Builder, Product, ProductSpec};
use crate::machine::amx::{TileConfig, Tiles};
use crate::machine::isa::{Amx, Isa};
use crate::machine::weights::{WeightArena, Weights};

/// Bytes of weights from which on a layer may keep them packed, and most pixels of such a layer: two strips.
const LEAST_PACKED_BYTES: usize = 1 << 17;
const MOST_PACKED_PIXELS: usize = 448;

/// Rows of a tile of codes or sums, and channels of a tile of weights or sums.
const TILE: usize = 16;

/// Bytes of the next weights that [`tiles_2x2_fetch`] asks for with every piece.
const FETCH: usize = 1024;

/// Most codes of a pixel that a tile takes.
const MOST_DEPTH: usize = 64;

/// The AMX kernel for `spec`; none on other paths, for weights beyond 8 bits and for groups.
pub(super) fn builder<'a>(isa: Isa, spec: &'a ProductSpec<'a>) -> Option<Builder<'a>> {
    let token = Amx::detect().filter(|_| isa == Isa::Amx)?;
    let is_bytes = spec.codes.iter().all(|&q| i8::try_from(q).is_ok());
    (is_bytes && spec.groups == 1).then(|| -> Builder<'a> {
        Box::new(move || TileProduct::new(token, spec).map(|kernel| Box::new(kernel) as Box<dyn Product>))
    })
}

/// A product on tiles.
#[derive(Debug)]
struct TileProduct {
    token: Amx,
    walk: Walk,
    /// Channels of a block, 16 or 32.
    block: usize,
    /// Codes that a tile takes of each pixel.
    depth: usize,
    /// Where the pieces begin, in codes from the first that a pixel reads.
    pieces: Vec<usize>,
    /// Codes from one pixel of a tile to the next.
    step: usize,
    /// Pixels between two rows of accumulators; none where rows are lines of their own.
    gap: Option<usize>,
    /// `[block][piece][channel / 16][code / 4][channel % 16][code % 4]`.
    weights: Kept,
}

/// Weights as the tiles read them, or of few bits, to be expanded block by block.
#[derive(Debug)]
enum Kept {
    Bytes(Weights<i8>),
    Packed(Packed),
}

impl Kept {
    /// Packs the weights of a layer with so many pixels where they are read seldom enough to be expanded each time, and
    /// so many that they come from beyond the second-level cache.
    fn new(token: Amx, bytes: &[i8], panel: usize, pixels: usize, arena: &WeightArena) -> Kept {
        let is_packed = bytes.len() >= LEAST_PACKED_BYTES && pixels <= MOST_PACKED_PIXELS;
        let packed = is_packed.then(|| Packed::new(token.avx512(), bytes, panel, arena)).flatten();
        packed.map_or_else(|| Kept::Bytes(arena.keep(bytes)), Kept::Packed)
    }

    /// The weights of one block, and where those of the next lie; `None` beyond the last.
    fn panel<'a>(&'a self, b: usize, panel: usize, scratch: &'a mut [u8]) -> Option<(*const i8, Range<*const u8>)> {
        match self {
            Kept::Bytes(weights) => {
                let weights = weights.get(b * panel..(b + 1) * panel)?.as_ptr_range();
                let next: *const u8 = weights.end.cast();
                Some((weights.start, next..next.wrapping_add(panel)))
            }
            Kept::Packed(packed) => {
                let scratch = &mut scratch[..panel];
                let next = packed.expand(b, scratch)?;
                Some((scratch.as_ptr().cast(), next))
            }
        }
    }
}

impl TileProduct {
    /// Packs the weights; `None` where a tile would reach beyond x.
    fn new(token: Amx, spec: &ProductSpec<'_>) -> Option<Self> {
        let (g, x) = (&spec.geometry, &spec.x);
        let walk = Walk::new(spec);
        let run = g.kw * x.cs;
        let per_run = run.div_ceil(MOST_DEPTH);
        let depth = run.div_ceil(per_run).next_multiple_of(4);
        // The last piece of a run may reach beyond it, but not beyond x.
        let last = (x.len() - walk.at(walk.height - 1, walk.width - 1)).checked_sub(depth)?;
        let (mut pieces, mut places) = (Vec::new(), vec![0; g.cin * g.kh * g.kw]);
        let block = if g.cout > TILE { 2 * TILE } else { TILE };
        for (a, from) in (0..g.kh).flat_map(|a| (0..run).step_by(depth).map(move |from| (a, from))) {
            let begin = (a * x.row() + from).min(last);
            for code in from..(from + depth).min(run) {
                let (b, i) = (code / x.cs, code % x.cs);
                let k = a * x.row() + code - begin;
                if i < g.cin {
                    places[(i * g.kh + a) * g.kw + b] = pieces.len() * depth * block + k / 4 * 4 * TILE + k % 4;
                }
            }
            pieces.push(begin);
        }
        let mut weights = vec![0; pieces.len() * depth * g.cout.next_multiple_of(block)];
        for o in 0..g.cout {
            let panel = &mut weights[o / block * pieces.len() * depth * block..][..pieces.len() * depth * block];
            let lane = o % block / TILE * depth * TILE + 4 * (o % TILE);
            for (&q, &place) in spec.channel(o).iter().zip(&places) {
                panel[place + lane] = q as i8;
            }
        }
        let line_tiles = ((walk.height - 1) * (x.row() / x.cs) + walk.width).div_ceil(TILE);
        let is_line = g.stride == 1 && line_tiles <= walk.height * walk.width.div_ceil(TILE);
        let gap = is_line.then(|| x.row() / x.cs - walk.width);
        let weights = Kept::new(token, &weights, pieces.len() * depth * block, walk.height * walk.width, spec.arena);
        Some(Self { token, walk, block, depth, pieces, step: x.cs * g.stride, gap, weights })
    }

    /// Sums of the pixels of one line: `codes` is where the first reads, `sums` where its sums go.
    ///
    /// # Safety
    /// `next` is where the weights lie that are needed next, a hint; Every piece of every pixel is readable, `TILE *
    /// block / 16` numbers are writable at `stride` numbers from pixel to pixel; the tiles are configured for `rows <=
    /// pixels` rows, 16 of them or all.
    unsafe fn line(
        &self,
        (codes, pixels, rows): (*const u8, usize, usize),
        weights: *const i8,
        (sums, stride): (*mut i32, usize),
        next: Range<*const u8>,
    ) {
        let tiles = pixels.div_ceil(rows);
        // The last tile ends with the line, and has some pixels of the one before it again.
        let first = |tile: usize| (tile * rows).min(pixels - rows);
        let at = |tile: usize| {
            (codes.wrapping_add(first(tile) * self.step), sums.wrapping_add(first(tile) * stride).cast::<u8>())
        };
        let mut tile = 0;
        while tile < tiles {
            let ((x0, c0), (x1, c1)) = (at(tile), at((tile + 1).min(tiles - 1)));
            let n = (tiles - tile).min(2);
            let (piece, end) = (self.pieces.as_ptr(), self.pieces.as_ptr_range().end);
            let (w, tile_bytes) = (weights, self.depth * TILE);
            // What has been asked for once is in the cache.
            let ahead = next.start.wrapping_add(tile / 2 * FETCH * self.pieces.len());
            let fetches = next.contains(&ahead);
            match (n, self.block) {
                // SAFETY: the caller's promise; `weights` has the tiles of every piece.
                (2, 32) if fetches => unsafe {
                    tiles_2x2_fetch(x0, x1, self.step, piece, end, w, tile_bytes, c0, c1, 4 * stride, ahead)
                },
                // SAFETY: as above.
                (2, 32) => unsafe {
                    tiles_2x2(x0, x1, self.step, piece, end, w, tile_bytes, c0, c1, 4 * stride, ahead)
                },
                // SAFETY: as above.
                (2, _) => unsafe { tiles_2x1(x0, x1, self.step, piece, end, w, tile_bytes, c0, c1, 4 * stride, ahead) },
                // SAFETY: as above.
                (_, 32) => unsafe {
                    tiles_1x2(x0, x1, self.step, piece, end, w, tile_bytes, c0, c1, 4 * stride, ahead)
                },
                // SAFETY: as above.
                _ => unsafe { tiles_1x1(x0, x1, self.step, piece, end, w, tile_bytes, c0, c1, 4 * stride, ahead) },
            }
            tile += n;
        }
    }
}

/// A function that computes one or two tiles of pixels (`x0`, `x1`) times one or two tiles of channels over all pieces.
///
/// Tiles 0 to 3 are the sums, 4 and 5 the codes, 6 and 7 the weights. The order lets a tile of codes or weights be used
/// as soon as it is there.
macro_rules! tiles {
    ($name:ident, [$($zero:literal),*], [$($inner:expr),*], [$($store:literal),*]) => {
        /// # Safety
        /// The tiles are configured; every piece of `depth` bytes is readable at all rows of `x0` and `x1`, whose rows
        /// are `x_stride` apart, `tile_bytes` for each tile of weights and piece at `w`; sums are writable at `c0` and
        /// `c1`.
        #[allow(clippy::too_many_arguments)] // The operands of the assembly.
        unsafe fn $name(
            x0: *const u8,
            x1: *const u8,
            x_stride: usize,
            piece: *const usize,
            end: *const usize,
            w: *const i8,
            tile_bytes: usize,
            c0: *mut u8,
            c1: *mut u8,
            c_stride: usize,
            next: *const u8,
        ) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(
                    $($zero,)*
                    "2:",
                    "mov {o}, [{piece}]",
                    "add {piece}, 8",
                    $($inner,)*
                    "cmp {piece}, {end}",
                    "jne 2b",
                    $($store,)*
                    "/* {x1} {c1} {next} */", // Where there is one tile of pixels.
                    x0 = in(reg) x0, x1 = in(reg) x1, xs = in(reg) x_stride,
                    piece = inout(reg) piece => _, end = in(reg) end,
                    w = inout(reg) w => _, wb = in(reg) tile_bytes, row = in(reg) 64_usize,
                    c0 = inout(reg) c0 => _, c1 = inout(reg) c1 => _, cs = in(reg) c_stride,
                    next = inout(reg) next => _,
                    o = out(reg) _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
        }
    };
}

/// Asks for 512 bytes of the weights that come next.
macro_rules! fetch {
    () => {
        concat!(
            "prefetcht1 [{next}]\n",
            "prefetcht1 [{next} + 64]\n",
            "prefetcht1 [{next} + 128]\n",
            "prefetcht1 [{next} + 192]\n",
            "prefetcht1 [{next} + 256]\n",
            "prefetcht1 [{next} + 320]\n",
            "prefetcht1 [{next} + 384]\n",
            "prefetcht1 [{next} + 448]\n",
            "add {next}, 512"
        )
    };
}
tiles!(
    tiles_2x2,
    ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
    [
        "add {x0}, {o}",
        "tileloadd tmm4, [{x0} + {xs}]",
        "sub {x0}, {o}",
        "tileloadd tmm6, [{w} + {row}]",
        "add {w}, {wb}",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{w} + {row}]",
        "add {w}, {wb}",
        "tdpbusd tmm1, tmm4, tmm7",
        "add {o}, {x1}",
        "tileloadd tmm5, [{o} + {xs}]",
        "tdpbusd tmm2, tmm5, tmm6",
        "tdpbusd tmm3, tmm5, tmm7"
    ],
    [
        "tilestored [{c0} + {cs}], tmm0",
        "tilestored [{c0} + {cs} + 64], tmm1",
        "tilestored [{c1} + {cs}], tmm2",
        "tilestored [{c1} + {cs} + 64], tmm3"
    ]
);
tiles!(
    tiles_2x2_fetch,
    ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
    [
        "add {x0}, {o}",
        "tileloadd tmm4, [{x0} + {xs}]",
        "sub {x0}, {o}",
        "tileloadd tmm6, [{w} + {row}]",
        fetch!(),
        "add {w}, {wb}",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{w} + {row}]",
        fetch!(),
        "add {w}, {wb}",
        "tdpbusd tmm1, tmm4, tmm7",
        "add {o}, {x1}",
        "tileloadd tmm5, [{o} + {xs}]",
        "tdpbusd tmm2, tmm5, tmm6",
        "tdpbusd tmm3, tmm5, tmm7"
    ],
    [
        "tilestored [{c0} + {cs}], tmm0",
        "tilestored [{c0} + {cs} + 64], tmm1",
        "tilestored [{c1} + {cs}], tmm2",
        "tilestored [{c1} + {cs} + 64], tmm3"
    ]
);
tiles!(
    tiles_1x2,
    ["tilezero tmm0", "tilezero tmm1"],
    [
        "add {o}, {x0}",
        "tileloadd tmm4, [{o} + {xs}]",
        "tileloadd tmm6, [{w} + {row}]",
        "add {w}, {wb}",
        "tdpbusd tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{w} + {row}]",
        "add {w}, {wb}",
        "tdpbusd tmm1, tmm4, tmm7"
    ],
    ["tilestored [{c0} + {cs}], tmm0", "tilestored [{c0} + {cs} + 64], tmm1"]
);
tiles!(
    tiles_2x1,
    ["tilezero tmm0", "tilezero tmm2"],
    [
        "add {x0}, {o}",
        "tileloadd tmm4, [{x0} + {xs}]",
        "sub {x0}, {o}",
        "tileloadd tmm6, [{w} + {row}]",
        "add {w}, {wb}",
        "tdpbusd tmm0, tmm4, tmm6",
        "add {o}, {x1}",
        "tileloadd tmm5, [{o} + {xs}]",
        "tdpbusd tmm2, tmm5, tmm6"
    ],
    ["tilestored [{c0} + {cs}], tmm0", "tilestored [{c1} + {cs}], tmm2"]
);
tiles!(
    tiles_1x1,
    ["tilezero tmm0"],
    [
        "add {o}, {x0}",
        "tileloadd tmm4, [{o} + {xs}]",
        "tileloadd tmm6, [{w} + {row}]",
        "add {w}, {wb}",
        "tdpbusd tmm0, tmm4, tmm6"
    ],
    ["tilestored [{c0} + {cs}], tmm0"]
);

impl Product for TileProduct {
    fn name(&self) -> String {
        let packed = match &self.weights {
            Kept::Bytes(_) => String::new(),
            Kept::Packed(packed) => format!("_w{}", packed.bits()),
        };
        format!("direct amx_{TILE}x{}{packed}", self.block)
    }

    fn block(&self) -> usize {
        self.block
    }

    fn strip_pixels(&self) -> usize {
        224
    }

    fn row_gap(&self) -> usize {
        self.gap.unwrap_or(0)
    }

    fn scratch_bytes(&self, _rows: usize) -> usize {
        match self.weights {
            Kept::Bytes(_) => 0,
            Kept::Packed(_) => self.pieces.len() * self.depth * self.block,
        }
    }

    fn weight_bytes(&self) -> usize {
        match &self.weights {
            Kept::Bytes(weights) => weights.len(),
            Kept::Packed(packed) => packed.bytes(),
        }
    }

    fn accumulate(&self, x: &[u8], scratch: &mut [u8], rows: Range<usize>, channels: Range<usize>, acc: &mut [i32]) {
        let (stride, width) = (channels.len(), self.walk.width);
        assert_eq!(x.len(), self.walk.x_len, "elements of the tensor read");
        assert!(rows.start < rows.end && rows.end <= self.walk.height, "rows {rows:?} of {}", self.walk.height);
        assert!(
            channels.start.is_multiple_of(self.block) && stride.is_multiple_of(self.block),
            "channels {channels:?}"
        );
        let pixels = rows.len() * (width + self.row_gap()) - self.row_gap();
        assert_eq!(acc.len(), pixels * stride, "accumulators");
        let (lines, pixels) = if self.gap.is_some() { (1, pixels) } else { (rows.len(), width) };
        let tile_rows = pixels.min(TILE);
        let sums = (tile_rows, 4 * TILE);
        let (codes, weights) = ((tile_rows, self.depth), (self.depth / 4, 4 * TILE));
        let config = TileConfig::new([sums, sums, sums, sums, codes, codes, weights, weights]);
        let _tiles = Tiles::configure(self.token, &config);
        let panel = self.pieces.len() * self.depth * self.block;
        for (i, b) in (channels.start / self.block..channels.end / self.block).enumerate() {
            let Some((weights, next)) = self.weights.panel(b, panel, scratch) else {
                acc[i * self.block..].chunks_mut(stride).for_each(|acc| acc[..self.block].fill(0));
                continue;
            };
            for line in 0..lines {
                let codes = x.as_ptr().wrapping_add(self.walk.at(rows.start + line, 0));
                let sums = acc[line * pixels * stride + i * self.block..].as_mut_ptr();
                // SAFETY: pieces end inside x at the last pixel, and so at all of them; `acc` has `stride` numbers for
                // every pixel of every line; the tiles are configured for `tile_rows` rows.
                unsafe { self.line((codes, pixels, tile_rows), weights, (sums, stride), next.clone()) };
            }
        }
    }
}
