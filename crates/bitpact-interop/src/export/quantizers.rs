//! How each dialect writes integers between floats: weights, codes and tables.

use bitpact_core::Grid;
use bitpact_model::IntegerProduct;

use super::meaning::Meaning;
use super::network::Stored;
use super::writer::{Parameter, Scalar, Writer};
use super::{Format, range};
use crate::onnx::tensor::kind;

/// Domain of QONNX's operators.
const QONNX: &str = "qonnx.custom_op.general";

/// A dialect, and what was used of it.
pub(super) enum Dialect {
    /// 8-bit integers and `Clip`.
    Qcdq,
    /// Integers of 8, 4 and 2 bits.
    Qdq {
        /// Whether some have 2.
        two_bits: bool,
    },
    /// Floats and `Quant`.
    Qonnx,
}

/// Integers between a quantizer and what makes them real.
#[derive(Debug, Clone)]
pub(super) struct Quantized {
    codes: String,
    /// The constant that stands for zero.
    origin: String,
}

impl Quantized {
    /// The integers as multiples of `scale`.
    pub(super) fn real(&self, w: &mut Writer, scale: f64, base: &str) -> String {
        let step = w.scalar("scale", Scalar::F32(scale as f32));
        w.node("DequantizeLinear", &[&self.codes, &step, &self.origin], base, &[])
    }
}

/// Weights as a constant of an element type: `scale * q`, or, `centred`, `scale * (2 * q + 1)`.
struct Packed {
    kind: i32,
    bits: u32,
    values: Vec<i16>,
    centred: bool,
}

impl Dialect {
    /// The dialect of a format of floats.
    pub(super) fn of(format: Format) -> Self {
        match format {
            Format::OnnxQdq => Dialect::Qdq { two_bits: false },
            Format::Qonnx => Dialect::Qonnx,
            _ => Dialect::Qcdq,
        }
    }

    /// Operator set, version of the file format, and further domains.
    pub(super) fn versions(&self) -> (i64, i64, Vec<&'static str>) {
        match self {
            Dialect::Qcdq => (13, 7, Vec::new()),
            Dialect::Qdq { two_bits: false } => (21, 10, Vec::new()),
            Dialect::Qdq { two_bits: true } => (25, 13, Vec::new()),
            Dialect::Qonnx => (13, 7, vec![QONNX]),
        }
    }

    /// Images in a batch: one where the dialect's tools want sizes that are known, else any number.
    pub(super) fn batch(&self) -> Option<i64> {
        matches!(self, Dialect::Qonnx).then_some(1)
    }

    /// Whether the file holds integers that runtimes compute with.
    pub(super) fn is_quantized(&self) -> bool {
        !matches!(self, Dialect::Qonnx)
    }

    /// Whether pixels come as floats.
    pub(super) fn reads_floats(&self) -> bool {
        matches!(self, Dialect::Qonnx)
    }

    /// The pixels, codes of `bits` bits, as floats.
    pub(super) fn pixels(&self, w: &mut Writer, input: &str, bits: u8) -> String {
        match self {
            Dialect::Qonnx => {
                let step = channel_scales(w, "input.codes", &[1.0], 1);
                int_quant(w, input, &step, bits.into(), [false, false], "input.codes")
            }
            _ => w.cast(input, kind::FLOAT, "input.real"),
        }
    }

    /// Weights of a product with the sizes `dims`, the output channels first, and a scale for each of those, and where
    /// they stand. A scale below 0 becomes one above by turning the codes of its channel, which both grids allow.
    pub(super) fn weights(
        &mut self,
        w: &mut Writer,
        product: &IntegerProduct,
        scales: &[f64],
        dims: &[usize],
    ) -> (String, Stored) {
        let length = product.weights_per_channel();
        let codes: Vec<i16> = product
            .codes
            .chunks_exact(length)
            .zip(scales)
            .flat_map(|(codes, &scale)| codes.iter().map(move |&q| if scale < 0.0 { -q } else { q }))
            .collect();
        let mut scales: Vec<f32> = scales.iter().map(|&scale| range::step(scale).abs()).collect();
        let name = &format!("{}.weight", product.name);
        if let Dialect::Qonnx = self {
            let values: Vec<f32> = codes
                .chunks_exact(length)
                .zip(&scales)
                .flat_map(|(q, s)| q.iter().map(move |&q| f32::from(q) * s))
                .collect();
            let values = w.f32s(name, dims, &values);
            let steps = channel_scales(w, name, &scales, dims.len());
            let stored = Stored { scale: Some(steps.clone()), ..Stored::plain(vec![values.clone()]) };
            let named = &format!("{name}.codes");
            let bits = u32::from(product.weight_bits);
            let bits = match product.grid {
                Grid::WithoutZero if bits == 1 => {
                    return (w.node_of(QONNX, "BipolarQuant", &[&values, &steps], named, &[]), stored);
                }
                // Odd codes of k bits are codes of k + 1 bits.
                Grid::WithoutZero => bits + 1,
                Grid::WithZero => bits.max(2),
            };
            return (int_quant(w, &values, &steps, bits, [true, true], named), stored);
        }
        let Packed { kind, bits, values, centred } = self.packed(&codes, product);
        if centred {
            scales.iter_mut().for_each(|scale| *scale *= 2.0);
        }
        let values = w.constant(name, kind, dims, pack(&values, bits));
        let stored = Stored { halved: centred, ..Stored::plain(vec![values.clone()]) };
        let is_one = scales.iter().all(|scale| *scale == scales[0]);
        let steps = match is_one {
            true => w.scalar(&format!("{name}.scale"), Scalar::F32(scales[0])),
            false => w.f32s(&format!("{name}.scale"), &[scales.len()], &scales),
        };
        let axis = [("axis", Parameter::Int(0))];
        let axis: &[_] = if is_one { &[] } else { &axis };
        let real = w.node("DequantizeLinear", &[&values, &steps], &format!("{name}.real"), axis);
        if !centred {
            return (real, stored);
        }
        let halves: Vec<f32> = scales.iter().map(|scale| scale / 2.0).collect();
        let halves = match is_one {
            true => w.scalar(&format!("{name}.half"), Scalar::F32(halves[0])),
            false => w.f32s(&format!("{name}.half"), &leading(halves.len(), dims.len()), &halves),
        };
        (w.node("Add", &[&real, &halves], &format!("{name}.odd"), &[]), stored)
    }

    /// The narrowest element type that holds the codes, or, on a grid without zero, their halves.
    fn packed(&mut self, codes: &[i16], product: &IntegerProduct) -> Packed {
        let types: &[(i32, u32)] = match self {
            Dialect::Qdq { .. } => &[(kind::INT2, 2), (kind::INT4, 4), (kind::INT8, 8), (kind::INT16, 16)],
            _ => &[(kind::INT8, 8), (kind::INT32, 32)],
        };
        let fits = |values: &[i16], bits: u32| {
            let limit = 1i32 << (bits.min(17) - 1);
            values.iter().all(|&v| (-limit..limit).contains(&i32::from(v)))
        };
        let halves: Option<Vec<i16>> = (product.grid == Grid::WithoutZero && product.weight_bits < 16)
            .then(|| codes.iter().map(|&q| (q - 1) >> 1).collect());
        for &(kind, bits) in types {
            let packed = |values: &[i16], centred| Packed { kind, bits, values: values.to_vec(), centred };
            let found = match &halves {
                _ if fits(codes, bits) => packed(codes, false),
                Some(halves) if fits(halves, bits) => packed(halves, true),
                _ => continue,
            };
            if let Dialect::Qdq { two_bits } = self {
                *two_bits |= bits == 2;
            }
            return found;
        }
        unreachable!("weight codes have 16 bits at most")
    }

    /// Quantizes `x` to the codes `lo..=hi` of `meaning`, where there are `bounds` to those of each channel, and gives
    /// their real numbers and, where the dialect has integers, these; `is_narrow` where their readers allow less than 8
    /// bits.
    pub(super) fn codes(
        &mut self,
        w: &mut Writer,
        x: &str,
        (lo, hi): (i32, i32),
        bounds: &[(i32, i32)],
        meaning: Meaning,
        is_narrow: bool,
        name: &str,
    ) -> (String, Option<Quantized>) {
        let Meaning { scale, zero } = meaning;
        let base = &format!("{name}/codes");
        let real = |code: i32| ((i64::from(code) - zero) as f64 * scale) as f32;
        let mut x = x.to_owned();
        if !bounds.is_empty() {
            let (los, his): (Vec<f32>, Vec<f32>) = bounds.iter().map(|&(lo, hi)| (real(lo), real(hi))).unzip();
            for (op, limits) in [("Max", los), ("Min", his)] {
                let limits = w.channels_f32(&format!("{base}.bounds"), &limits);
                x = w.node(op, &[&x, &limits], base, &[]);
            }
        }
        let (lo, hi) = (i64::from(lo) - zero, i64::from(hi) - zero);
        let scale = scale as f32;
        match self {
            Dialect::Qcdq | Dialect::Qdq { .. } => {
                let step = w.scalar("scale", Scalar::F32(scale));
                // Codes with a zero of their own go to int8, where that is 0.
                let bytes = match zero {
                    0 => (kind::UINT8, 0, 255, 0),
                    _ if lo >= -128 && hi <= 127 => (kind::INT8, -128, 127, 0),
                    _ => (kind::UINT8, -zero, 255 - zero, zero),
                };
                // A narrow type has no `Clip` of its own, and runtimes refuse one before its quantizer: it must fit.
                let narrow = match (&mut *self, lo, hi) {
                    _ if !is_narrow => None,
                    (Dialect::Qdq { two_bits }, 0, 3) => {
                        *two_bits = true;
                        Some((kind::UINT2, lo, hi, 0))
                    }
                    (Dialect::Qdq { .. }, 0, 15) => Some((kind::UINT4, lo, hi, 0)),
                    _ => None,
                };
                let (of, from, to, shift) = narrow.unwrap_or(bytes);
                let byte =
                    |w: &mut Writer, base: &str, value: i64| w.constant(base, of, &[], vec![(value + shift) as u8]);
                let origin = byte(w, "zero", 0);
                let mut codes = w.node("QuantizeLinear", &[&x, &step, &origin], base, &[]);
                if (lo, hi) != (from, to) {
                    let [lo, hi] = [lo, hi].map(|limit| byte(w, "limit", limit));
                    codes = w.node("Clip", &[&codes, &lo, &hi], base, &[]);
                }
                let real = w.node("DequantizeLinear", &[&codes, &step, &origin], name, &[]);
                (real, Some(Quantized { codes, origin }))
            }
            Dialect::Qonnx => {
                let is_signed = lo < 0;
                let bits = match is_signed {
                    true => super::bits_of(hi.max(-lo)) + 1,
                    false => super::bits_of(hi).max(1),
                };
                let limit = if is_signed { (1 << (bits - 1)) - 1 } else { (1 << bits) - 1 };
                x = limited(w, &x, (lo, hi), (if is_signed { -limit } else { 0 }, limit), scale, base);
                let step = channel_scales(w, name, &[scale], 1);
                (int_quant(w, &x, &step, bits, [is_signed, is_signed], name), None)
            }
        }
    }

    /// The real numbers of the entries of a table of codes.
    pub(super) fn table(&self, w: &mut Writer, index: &str, table: &[u8], meaning: Meaning, name: &str) -> String {
        let Meaning { scale, zero } = meaning;
        if let Dialect::Qonnx = self {
            let real: Vec<f32> = table.iter().map(|&code| ((i64::from(code) - zero) as f64 * scale) as f32).collect();
            let real = w.f32s(&format!("{name}.table"), &[table.len()], &real);
            return w.node("Gather", &[&real, index], name, &[]);
        }
        let values = w.constant(&format!("{name}.table"), kind::UINT8, &[table.len()], table.to_vec());
        let codes = w.node("Gather", &[&values, index], &format!("{name}/codes"), &[]);
        let step = w.scalar("scale", Scalar::F32(scale as f32));
        let origin = w.scalar("zero", Scalar::U8(zero as u8));
        w.node("DequantizeLinear", &[&codes, &step, &origin], name, &[])
    }
}

/// `x` cut to the real numbers of the codes `lo..=hi`, where a type has others.
fn limited(w: &mut Writer, x: &str, codes: (i64, i64), of_type: (i64, i64), scale: f32, base: &str) -> String {
    if codes == of_type {
        return x.to_owned();
    }
    let [lo, hi] = [codes.0, codes.1].map(|code| w.scalar("limit", Scalar::F32(code as f32 * scale)));
    w.node("Clip", &[x, &lo, &hi], base, &[])
}

/// A scale for each output channel, of `rank` dimensions, or one for all.
fn channel_scales(w: &mut Writer, name: &str, scales: &[f32], rank: usize) -> String {
    match scales.iter().all(|scale| *scale == scales[0]) {
        true => w.scalar(&format!("{name}.scale"), Scalar::F32(scales[0])),
        false => w.f32s(&format!("{name}.scale"), &leading(scales.len(), rank), scales),
    }
}

fn leading(n: usize, rank: usize) -> Vec<usize> {
    std::iter::once(n).chain(std::iter::repeat_n(1, rank - 1)).collect()
}

/// `Quant` with rounding to nearest, halves to even; `flags` are signed and narrow.
fn int_quant(w: &mut Writer, x: &str, scale: &str, bits: u32, [signed, narrow]: [bool; 2], name: &str) -> String {
    let zero = w.scalar("zero_point", Scalar::F32(0.0));
    let bits = w.scalar("bit_width", Scalar::F32(bits as f32));
    let parameters = [
        ("signed", Parameter::Int(signed.into())),
        ("narrow", Parameter::Int(narrow.into())),
        ("rounding_mode", Parameter::Text("ROUND")),
    ];
    w.node_of(QONNX, "Quant", &[x, scale, &zero, &bits], name, &parameters)
}

/// Integers of `bits` bits, the first in the low bits of a byte; of more than 8, as little-endian bytes.
fn pack(values: &[i16], bits: u32) -> Vec<u8> {
    match bits {
        32 => values.iter().flat_map(|&v| i32::from(v).to_le_bytes()).collect(),
        16 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        8 => values.iter().map(|&v| v as u8).collect(),
        _ => {
            let each = (8 / bits) as usize;
            let mask = (1u8 << bits) - 1;
            let byte = |values: &[i16]| {
                values.iter().enumerate().fold(0, |byte, (i, &v)| byte | (v as u8 & mask) << (i as u32 * bits))
            };
            values.chunks(each).map(byte).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pack;

    #[test]
    fn the_first_integer_is_in_the_low_bits() {
        assert_eq!(pack(&[1, -2, 7], 4), [0xe1, 0x07]);
        assert_eq!(pack(&[1, -1, 0, -2, 1], 2), [0b1000_1101, 1]);
        assert_eq!(pack(&[-1, 2], 8), [0xff, 2]);
        assert_eq!(pack(&[-2], 16), [0xfe, 0xff]);
        assert_eq!(pack(&[-2], 32), [0xfe, 0xff, 0xff, 0xff]);
    }
}
