//! The block formats of GGUF: so many weights in so many bytes, and what they mean.

use half::{bf16, f16};

/// A type of tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q8_0,
    Q4K,
    Q6K,
}

impl BlockType {
    /// By its number in files.
    pub(super) fn from_number(number: u32) -> Option<BlockType> {
        Some(match number {
            0 => BlockType::F32,
            1 => BlockType::F16,
            2 => BlockType::Q4_0,
            3 => BlockType::Q4_1,
            8 => BlockType::Q8_0,
            12 => BlockType::Q4K,
            14 => BlockType::Q6K,
            30 => BlockType::Bf16,
            _ => return None,
        })
    }

    /// Weights and bytes of a block.
    pub(super) fn size(self) -> (usize, usize) {
        match self {
            BlockType::F32 => (1, 4),
            BlockType::F16 | BlockType::Bf16 => (1, 2),
            BlockType::Q4_0 => (32, 18),
            BlockType::Q4_1 => (32, 20),
            BlockType::Q8_0 => (32, 34),
            BlockType::Q4K => (256, 144),
            BlockType::Q6K => (256, 210),
        }
    }

    /// The weights of whole blocks.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let (weights, size) = self.size();
        let mut out = Vec::with_capacity(bytes.len() / size * weights);
        for block in bytes.chunks_exact(size) {
            self.decode_block(block, &mut out);
        }
        out
    }

    fn decode_block(self, b: &[u8], out: &mut Vec<f32>) {
        let half = |at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f32();
        match self {
            BlockType::F32 => out.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            BlockType::F16 => out.push(half(0)),
            BlockType::Bf16 => out.push(bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            BlockType::Q4_0 => {
                let d = half(0);
                out.extend(nibbles(&b[2..18]).map(|q| (f32::from(q) - 8.0) * d));
            }
            BlockType::Q4_1 => {
                let (d, m) = (half(0), half(2));
                out.extend(nibbles(&b[4..20]).map(|q| f32::from(q) * d + m));
            }
            BlockType::Q8_0 => {
                let d = half(0);
                out.extend(b[2..34].iter().map(|&q| f32::from(q as i8) * d));
            }
            BlockType::Q4K => {
                let (d, m) = (half(0), half(2));
                for (pair, codes) in b[16..144].chunks_exact(32).enumerate() {
                    for high in 0..2 {
                        let (step, min) = step_and_min(&b[4..16], 2 * pair + high);
                        let (d, m) = (d * f32::from(step), m * f32::from(min));
                        out.extend(codes.iter().map(|&q| d * f32::from(q >> (4 * high) & 15) - m));
                    }
                }
            }
            BlockType::Q6K => {
                let (low, high, steps, d) = (&b[..128], &b[128..192], &b[192..208], half(208));
                for i in 0..256 {
                    // Halves of 128, quarters of 32: the low four bits of quarters 0 and 2, and of 1 and 3, share
                    // bytes.
                    let (part, quarter, l) = (i / 128, i % 128 / 32, i % 32);
                    let four = low[part * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
                    let two = high[part * 32 + l] >> (quarter * 2) & 3;
                    let code = i32::from(four | two << 4) - 32;
                    out.push(d * f32::from(steps[i / 16] as i8) * code as f32);
                }
            }
        }
    }
}

/// The low halves of all bytes, then the high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|b| b & 15).chain(bytes.iter().map(|b| b >> 4))
}

/// Six bits each of step and minimum of 32 weights, eight of them in 12 bytes.
fn step_and_min(b: &[u8], i: usize) -> (u8, u8) {
    if i < 4 {
        return (b[i] & 63, b[i + 4] & 63);
    }
    (b[i + 4] & 15 | (b[i - 4] >> 6) << 4, b[i + 4] >> 4 | (b[i] >> 6) << 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: impl IntoIterator<Item = u8>) -> Vec<u8> {
        values.into_iter().collect()
    }

    #[test]
    fn simple_blocks_mean_what_their_formulas_say() {
        let two = f16::from_f32(2.0).to_le_bytes();
        let one = f16::from_f32(1.0).to_le_bytes();
        let codes: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let q = |i: usize| if i < 16 { i as f32 } else { 31.0 - i as f32 };
        let expected = |f: &dyn Fn(f32) -> f32| (0..32).map(|i| f(q(i))).collect::<Vec<f32>>();
        let block = [&two[..], &codes].concat();
        assert_eq!(BlockType::Q4_0.decode(&block), expected(&|q| 2.0 * (q - 8.0)));
        let block = [&two[..], &one, &codes].concat();
        assert_eq!(BlockType::Q4_1.decode(&block), expected(&|q| 2.0 * q + 1.0));
        let block = [&two[..], &bytes((0..32).map(|i| (i as i8 - 16) as u8))].concat();
        assert_eq!(BlockType::Q8_0.decode(&block), (0..32).map(|i| 2.0 * (i as f32 - 16.0)).collect::<Vec<_>>());
        assert_eq!(BlockType::Bf16.decode(&[0x80, 0x3f]), [1.0]);
    }

    #[test]
    fn k_blocks_unpack_steps_and_codes_that_were_packed() {
        // Q4_K: steps i + 1 .. and minima 63 - i, packed as the format has it.
        let (steps, mins): (Vec<u8>, Vec<u8>) =
            ((0..8).map(|i| 8 * i + 1).collect(), (0..8).map(|i| 63 - 7 * i).collect());
        let mut packed = [0u8; 12];
        for i in 0..4 {
            packed[i] = steps[i] | (steps[i + 4] >> 4) << 6;
            packed[i + 4] = mins[i] | (mins[i + 4] >> 4) << 6;
            packed[i + 8] = steps[i + 4] & 15 | (mins[i + 4] & 15) << 4;
        }
        let code = |i: usize| (i * 5 % 16) as u8;
        let codes = (0..128).map(|at| {
            let i = at / 32 * 64 + at % 32;
            code(i) | code(i + 32) << 4
        });
        let d = f16::from_f32(0.5).to_le_bytes();
        let m = f16::from_f32(0.25).to_le_bytes();
        let block = [&d[..], &m, &packed, &bytes(codes)].concat();
        let value = |i: usize| 0.5 * f32::from(steps[i / 32]) * f32::from(code(i)) - 0.25 * f32::from(mins[i / 32]);
        assert_eq!(BlockType::Q4K.decode(&block), (0..256).map(value).collect::<Vec<_>>());

        let code = |i: usize| (i * 7 % 64) as u8;
        let low = (0..128).map(|at| {
            let i = at / 64 * 128 + at % 64;
            code(i) & 15 | (code(i + 64) & 15) << 4
        });
        let high = (0..64).map(|at| {
            let i = at / 32 * 128 + at % 32;
            (0..4).fold(0, |byte, quarter| byte | (code(i + 32 * quarter) >> 4) << (2 * quarter))
        });
        let steps = (0..16).map(|i| (i as i8 - 8) as u8);
        let block = [&bytes(low)[..], &bytes(high), &bytes(steps), &d].concat();
        let value = |i: usize| 0.5 * (i as f32 / 16.0).floor().mul_add(1.0, -8.0) * (f32::from(code(i)) - 32.0);
        assert_eq!(BlockType::Q6K.decode(&block), (0..256).map(value).collect::<Vec<_>>());
    }
}
