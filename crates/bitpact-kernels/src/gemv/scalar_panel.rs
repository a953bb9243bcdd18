//! The scalar reference: every code by itself.

use super::layout::{INPUTS, OUTPUTS, Panels, get};
use super::{TILE, TokenTile};

pub(super) fn panel(p: &Panels, panel: &[u8], tile: &TokenTile, y: &mut [f32; TILE * OUTPUTS]) {
    for t in 0..tile.tokens {
        for o in 0..OUTPUTS {
            let mut total = 0.0f32;
            for g in 0..p.groups {
                let ((header, start), i) = (p.places(g), g % p.span());
                let at = header + (i * OUTPUTS + o) * 2;
                let step = half_to_float(u16::from_le_bytes([panel[at], panel[at + 1]]));
                let zero = p.zero.unwrap_or_else(|| panel[header + 128 + i * OUTPUTS + o]);
                let mut sum = -i32::from(zero) * tile.sums[g * tile.tokens + t];
                for k in 0..p.group {
                    let block = &panel[start + k / INPUTS * p.bits * 64..];
                    let word = tile.words[(g * p.group + k) / 4 * tile.tokens + t].to_le_bytes();
                    sum += i32::from(get(block, p.bits, o, k % INPUTS)) * i32::from(word[k % 4] as i8);
                }
                total = (sum as f32).mul_add(step, total);
            }
            y[t * OUTPUTS + o] = total * tile.steps[t];
        }
    }
}

/// The weights of output `o` of a panel.
pub(super) fn row(p: &Panels, panel: &[u8], o: usize, to: &mut [f32]) {
    for (g, to) in to.chunks_mut(p.group).enumerate() {
        let ((header, start), i) = (p.places(g), g % p.span());
        let at = header + (i * OUTPUTS + o) * 2;
        let step = half_to_float(u16::from_le_bytes([panel[at], panel[at + 1]]));
        let zero = p.zero.unwrap_or_else(|| panel[header + 128 + i * OUTPUTS + o]);
        for (k, to) in to.iter_mut().enumerate() {
            let code = get(&panel[start + k / INPUTS * p.bits * 64..], p.bits, o, k % INPUTS);
            *to = step * (f32::from(code) - f32::from(zero));
        }
    }
}

/// float16 to float32, exactly.
pub(super) fn half_to_float(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(bits >> 15) << 31, u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    match exponent {
        0 => f32::from_bits(sign | 0x3f80_0000) * fraction as f32 * 2f32.powi(-24),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}
