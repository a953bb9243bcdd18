//! Packed weights of 2, 3, 4 and 8 bits times activations of 8 bits, for one token to hundreds.
//!
//! Output `o` of token `t` is `y = x_step[t] * sum over groups g of step[g][o] * (sum over k in g of code[o][k] *
//! x[t][k] - zero[g][o] * sum over k in g of x[t][k])`. The sums of a group are exact integers; the float32 sum over
//! groups is taken in their order with fused multiply-adds. So every path and any number of threads give the same bits.

pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod float;
mod layout;
mod scalar_panel;
#[cfg(test)]
mod tests;

use crate::Isa;
use crate::machine::isa::Proof;
use crate::machine::pool::{Chunked, Pool};
use crate::machine::weights::{WeightArena, Weights};

use layout::{OUTPUTS, Panels};

/// Tokens of a tile.
const TILE: usize = 8;

/// Zero points of groups.
#[derive(Clone, Copy, Debug)]
pub enum Zeros<'a> {
    /// The same everywhere.
    All(u8),
    /// One a group, row by row.
    Each(&'a [u8]),
}

/// Weights in the order in which kernels read them: for every 16 outputs one stream of steps and codes.
#[derive(Debug)]
pub struct GemvWeights {
    panels: Panels,
    data: Weights<u8>,
}

/// Tokens rounded to 8 bits for weights with groups of one length, in tiles of up to eight.
#[derive(Clone, Debug)]
pub struct GemvInputs {
    cols: usize,
    group: usize,
    tiles: Vec<TokenTile>,
}

/// Up to eight tokens, in the order in which kernels read them.
#[derive(Clone, Debug)]
struct TokenTile {
    tokens: usize,
    /// Four codes of a token in a word: word `w` of token `t` at `w * tokens + t`. Inputs are filled up with zeros to
    /// whole groups.
    words: Vec<i32>,
    /// Sum of the codes of group `g` of token `t` at `g * tokens + t`.
    sums: Vec<i32>,
    /// What a code of token `t` means.
    steps: [f32; TILE],
}

impl GemvWeights {
    /// Longest group.
    pub const MAX_GROUP: usize = layout::MAX_GROUP;

    /// Packs `rows x cols` codes of at most `bits` bits with steps (float16 bits) and zeros of groups of `group`
    /// inputs, row by row, into `arena`.
    ///
    /// # Panics
    /// Where `bits` is not 2, 3, 4 or 8, `group` is no multiple of 32 up to 32,768, or a slice has another length than
    /// these sizes mean.
    pub fn pack(
        rows: usize,
        cols: usize,
        bits: usize,
        group: usize,
        codes: &[u8],
        steps: &[u16],
        zeros: Zeros<'_>,
        arena: &WeightArena,
    ) -> GemvWeights {
        let panels = Panels::new(rows, cols, bits, group, zeros);
        GemvWeights { panels, data: arena.keep(&panels.pack(codes, steps, zeros)) }
    }

    /// Number of outputs.
    pub fn rows(&self) -> usize {
        self.panels.rows
    }

    /// Number of inputs.
    pub fn cols(&self) -> usize {
        self.panels.cols
    }

    /// Inputs that share a step.
    pub fn group(&self) -> usize {
        self.panels.group
    }

    /// Bytes that one token reads.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Writes the weights of output `row`, `step * (code - zero)`, to `to`.
    ///
    /// # Panics
    /// Where there is no such output or `to` is not one number an input.
    pub fn row_to(&self, row: usize, to: &mut [f32]) {
        assert!(row < self.panels.rows && to.len() == self.panels.cols, "a row of weights");
        let panel = &self.data[row / OUTPUTS * self.panels.bytes..][..self.panels.bytes];
        scalar_panel::row(&self.panels, panel, row % OUTPUTS, to);
    }

    /// Writes the outputs of token after token to `to`, on the path `isa`.
    ///
    /// # Panics
    /// Where the inputs were rounded for other sizes, `to` is not one row of outputs a token, or the machine lacks the
    /// path.
    pub fn multiply(&self, inputs: &GemvInputs, to: &mut [f32], isa: Isa, pool: &Pool) {
        let p = &self.panels;
        assert_eq!((inputs.cols, inputs.group), (p.cols, p.group), "inputs and groups");
        assert_eq!(to.len(), inputs.tokens() * p.rows, "outputs");
        let proof = isa.prove();
        let count = p.rows.div_ceil(OUTPUTS);
        // Each thread reads long runs of memory; a few parts each even out their pace.
        let run = count.div_ceil(4 * pool.threads()).max(1);
        if inputs.tokens() == 1 {
            let parts = Chunked::new(to, run * OUTPUTS);
            pool.run(parts.chunks(), &|task, _| {
                let part = &mut *parts.get(task);
                for (i, out) in part.chunks_mut(OUTPUTS).enumerate() {
                    let mut y = [0.0; TILE * OUTPUTS];
                    self.panel(proof, task * run + i, &inputs.tiles[0], &mut y);
                    out.copy_from_slice(&y[..out.len()]);
                }
            });
            return;
        }
        // Outputs of a panel lie apart in `to`: panels write to a buffer of their own first.
        let mut panels = vec![0.0f32; count * OUTPUTS * inputs.tokens()];
        let size = OUTPUTS * inputs.tokens();
        let parts = Chunked::new(&mut panels, run * size);
        pool.run(parts.chunks(), &|task, _| {
            let part = &mut *parts.get(task);
            for (i, out) in part.chunks_exact_mut(size).enumerate() {
                let mut first = 0;
                for tile in &inputs.tiles {
                    let mut y = [0.0; TILE * OUTPUTS];
                    self.panel(proof, task * run + i, tile, &mut y);
                    let n = tile.tokens * OUTPUTS;
                    out[first..first + n].copy_from_slice(&y[..n]);
                    first += n;
                }
            }
        });
        drop(parts);
        for (t, row) in to.chunks_exact_mut(p.rows).enumerate() {
            for (panel, out) in row.chunks_mut(OUTPUTS).enumerate() {
                let from = &panels[panel * size + t * OUTPUTS..];
                out.copy_from_slice(&from[..out.len()]);
            }
        }
    }

    /// Outputs of a panel, token after token.
    fn panel(&self, proof: Proof, index: usize, tile: &TokenTile, y: &mut [f32; TILE * OUTPUTS]) {
        let panel = &self.data[index * self.panels.bytes..][..self.panels.bytes];
        match proof {
            #[cfg(target_arch = "x86_64")]
            Proof::Avx512(token) => avx512::panel(token, &self.panels, panel, tile, y),
            #[cfg(target_arch = "x86_64")]
            Proof::Avx2(token) => avx2::panel(token, &self.panels, panel, tile, y),
            _ => scalar_panel::panel(&self.panels, panel, tile, y),
        }
    }
}

impl GemvInputs {
    /// Rounds tokens of `cols` numbers, row by row, to 8 bits: `code = round(x * 127 / max|x|)`, ties to even, a step a
    /// token; sums for groups of `group` inputs. Numbers that are not finite give codes of no meaning.
    ///
    /// # Panics
    /// Where `x` is not whole tokens, or `group` is no multiple of 32.
    pub fn round(x: &[f32], cols: usize, group: usize, pool: &Pool) -> GemvInputs {
        assert!(cols > 0 && x.len().is_multiple_of(cols), "{} numbers, tokens of {cols}", x.len());
        assert!(group > 0 && group.is_multiple_of(32), "groups of {group}: expected a multiple of 32");
        let tokens: Vec<&[f32]> = x.chunks_exact(cols).collect();
        let mut parts = Vec::new();
        let mut rest = &tokens[..];
        while !rest.is_empty() {
            let n = [8, 4, 2, 1].into_iter().find(|&n| n <= rest.len()).unwrap_or(1);
            let part;
            (part, rest) = rest.split_at(n);
            parts.push(part);
        }
        let mut tiles: Vec<Option<TokenTile>> = vec![None; parts.len()];
        let places = Chunked::new(&mut tiles, 1);
        pool.run(parts.len(), &|i, _| places.get(i)[0] = Some(TokenTile::new(parts[i], group)));
        drop(places);
        GemvInputs { cols, group, tiles: tiles.into_iter().flatten().collect() }
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.tiles.iter().map(|t| t.tokens).sum()
    }
}

impl TokenTile {
    fn new(rows: &[&[f32]], group: usize) -> TokenTile {
        let (tokens, cols) = (rows.len(), rows[0].len());
        let groups = cols.div_ceil(group);
        let words = groups * group / 4;
        let mut tile =
            TokenTile { tokens, words: vec![0; words * tokens], sums: vec![0; groups * tokens], steps: [0.0; TILE] };
        let mut codes = vec![0i32; words * 4];
        for (t, row) in rows.iter().enumerate() {
            let peak = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            tile.steps[t] = peak / 127.0;
            let factor = if peak > 0.0 { 127.0 / peak } else { 0.0 };
            codes.iter_mut().zip(*row).for_each(|(code, v)| *code = nearest(v * factor));
            for (w, four) in codes.chunks_exact(4).enumerate() {
                tile.words[w * tokens + t] =
                    i32::from_le_bytes([four[0] as u8, four[1] as u8, four[2] as u8, four[3] as u8]);
            }
            for (g, codes) in codes.chunks_exact(group).enumerate() {
                tile.sums[g * tokens + t] = codes.iter().sum();
            }
        }
        tile
    }
}

/// The nearest whole number, ties to even, of a value within 2^21: adding 3 * 2^22 leaves no bits below the point.
fn nearest(v: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0;
    (v + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32
}
