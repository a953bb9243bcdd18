//! Reads a `.bitpact` file from untrusted bytes: every length is checked against what is left before memory is reserved.

use bitpact_core::{Bits, Grid, IntegerStep, pack};
use bitpact_graph::Shape;

use super::{CRC_BYTES, FIRST_VERSION, HEADER_BYTES, KIND, MAGIC, VERSION, list_head, tag, version_of};
use crate::integer::{check_shape, layer_output};
use crate::{
    InputDescription, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerResidual, ModelError, TensorId,
};

/// Bytes of the smallest layer, a sum pool without a name.
const LEAST_LAYER: usize = 15;

/// Reads everything; what the values mean is left to `IntegerModel::check`.
pub(crate) fn read(bytes: &[u8]) -> Result<IntegerModel, ModelError> {
    let (body, version) = envelope(bytes)?;
    let mut r = Reader { bytes: body, at: HEADER_BYTES, place: String::new() };
    let arch = r.string("arch")?;
    let offset = r.at;
    let [h, w, c] = [r.u32("input height")?, r.u32("input width")?, r.u32("input channels")?];
    check_shape(Shape::new(h, w, c)).map_err(|what| r.error(offset, "input", what))?;
    let zero_point = r.take("zero points", c)?.to_vec();
    let scale = r.take("scales", c.saturating_mul(4))?.as_chunks::<4>().0;
    let scale = scale.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let classes = r.count("number of classes", 2)?;
    let class_names = (0..classes).map(|i| r.string(&format!("class name {i}"))).collect::<Result<_, _>>()?;
    let layers = r.count("number of layers", LEAST_LAYER)?;
    let input = InputDescription { zero_point, scale };
    let mut model =
        IntegerModel { arch, input, input_shape: Shape::new(h, w, c), class_names, layers: Vec::with_capacity(layers) };
    for i in 0..layers {
        r.place = format!("layer {i}");
        let name = r.string("name")?;
        r.place = format!("layer {i} `{name}`");
        let scale = f64::from_le_bytes(r.array("scale")?);
        let offset = r.at;
        let op = r.op(&model)?;
        let (shape, (lo, hi)) = layer_output(&model, &op).map_err(|what| r.error(offset, "op", what))?;
        model.layers.push(IntegerLayer { name, op, shape, lo: lo as i32, hi: hi as i32, scale });
    }
    r.place.clear();
    if r.at != body.len() {
        return Err(r.error(r.at, "end", format!("{} bytes follow the last layer", body.len() - r.at)));
    }
    let expected = version_of(model.layers.iter().map(|l| &l.op));
    if version != expected {
        return Err(r.error(8, "version", format!("{version}, but its ops are those of version {expected}")));
    }
    Ok(model)
}

/// Checks magic, version, length and checksum; returns everything before the checksum, and the version.
fn envelope(bytes: &[u8]) -> Result<(&[u8], u32), ModelError> {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Err(ModelError::Kind { kind: KIND, what: format!("{} bytes", bytes.len()) });
    };
    if header[..8] != MAGIC {
        return Err(ModelError::Kind { kind: KIND, what: "it does not begin with `BITPACT`".to_owned() });
    }
    let number = |range: std::ops::Range<usize>| header[range].iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    let version = number(8..12);
    if !(u64::from(FIRST_VERSION)..=u64::from(VERSION)).contains(&version) {
        let expected = format!("versions {FIRST_VERSION} to {VERSION}");
        return Err(ModelError::Version { kind: KIND, got: version, expected });
    }
    let length = number(12..20);
    if length != bytes.len() as u64 || bytes.len() < HEADER_BYTES + CRC_BYTES {
        let what = format!("{length}, but the file has {} bytes", bytes.len());
        return Err(ModelError::Field { offset: 12, field: "length".to_owned(), what });
    }
    let (body, crc) = bytes.split_at(bytes.len() - CRC_BYTES);
    let stored = crc.iter().rev().fold(0u32, |n, &b| n << 8 | u32::from(b));
    let computed = crc32fast::hash(body);
    if computed != stored {
        return Err(ModelError::Checksum { kind: KIND, stored, computed });
    }
    Ok((body, version as u32))
}

/// Main product, second product, shortcut.
type Sum = (IntegerProduct, Option<IntegerProduct>, Option<IntegerResidual>);

/// Smallest and largest code, and those of each channel where they differ.
type CodeRange = (i32, i32, Vec<(i32, i32)>);

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where in the network: empty, or the layer.
    place: String,
}

impl<'a> Reader<'a> {
    fn error(&self, offset: usize, field: &str, what: String) -> ModelError {
        let field = if self.place.is_empty() { field.to_owned() } else { format!("{}, {field}", self.place) };
        ModelError::Field { offset, field, what }
    }

    fn take(&mut self, field: &str, n: usize) -> Result<&'a [u8], ModelError> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..n) else {
            return Err(self.error(self.at, field, format!("{n} bytes, but {} are left", rest.len())));
        };
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], ModelError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    fn u8(&mut self, field: &str) -> Result<u8, ModelError> {
        Ok(self.array::<1>(field)?[0])
    }

    fn u32(&mut self, field: &str) -> Result<usize, ModelError> {
        Ok(u32::from_le_bytes(self.array(field)?) as usize)
    }

    /// A number of things that take at least `least` bytes each.
    fn count(&mut self, field: &str, least: usize) -> Result<usize, ModelError> {
        let offset = self.at;
        let count = self.u32(field)?;
        let left = self.bytes.len() - self.at;
        if count > left / least {
            return Err(self.error(offset, field, format!("{count}, but only {left} bytes are left")));
        }
        Ok(count)
    }

    fn string(&mut self, field: &str) -> Result<String, ModelError> {
        let offset = self.at;
        let length = u16::from_le_bytes(self.array(field)?);
        let bytes = self.take(field, length.into())?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(e) => Err(self.error(offset, field, format!("not UTF-8: {e}"))),
        }
    }

    fn list(&mut self, field: &str, n: usize) -> Result<Vec<i64>, ModelError> {
        let offset = self.at;
        let head = self.u8(field)?;
        let width = usize::from(head & !tag::UNIFORM);
        if !(1..=8).contains(&width) {
            return Err(self.error(offset, field, format!("values of {width} bytes, expected 1 to 8")));
        }
        let uniform = head & tag::UNIFORM != 0;
        self.values(offset, field, n, (head, 0xff), uniform)
    }

    /// A list that is written out even where its values are equal: n is not a number of things that the file holds.
    fn list_in_full(&mut self, field: &str, n: usize) -> Result<Vec<i64>, ModelError> {
        let offset = self.at;
        let width = self.u8(field)?;
        if !(1..=8).contains(&width) {
            return Err(self.error(offset, field, format!("values of {width} bytes, expected 1 to 8")));
        }
        self.values(offset, field, n, (width, !tag::UNIFORM), false)
    }

    /// `n` integers behind a head, which must be, under `mask`, the one they ask for.
    fn values(
        &mut self,
        offset: usize,
        field: &str,
        n: usize,
        (head, mask): (u8, u8),
        uniform: bool,
    ) -> Result<Vec<i64>, ModelError> {
        let width = usize::from(head & !tag::UNIFORM);
        let written = if uniform { 1 } else { n };
        let bytes = self.take(field, written.saturating_mul(width))?;
        let value = |bytes: &[u8]| {
            let unsigned = bytes.iter().rev().fold(0u64, |v, &b| v << 8 | u64::from(b));
            let unused = 64 - 8 * width;
            ((unsigned << unused) as i64) >> unused
        };
        let mut values: Vec<i64> = bytes.chunks_exact(width).map(value).collect();
        if uniform {
            values.resize(n, values[0]);
        }
        if n == 0 || list_head(&values) & mask != head {
            return Err(self.error(offset, field, format!("{n} values are not written in the shortest form")));
        }
        Ok(values)
    }

    fn list_i32(&mut self, field: &str, n: usize) -> Result<Vec<i32>, ModelError> {
        let offset = self.at;
        let values = self.list(field, n)?;
        self.narrow(offset, field, values)
    }

    fn narrow(&self, offset: usize, field: &str, values: Vec<i64>) -> Result<Vec<i32>, ModelError> {
        let narrow = values.iter().map(|&v| i32::try_from(v)).collect::<Result<_, _>>();
        narrow.map_err(|_| self.error(offset, field, "a multiplier that is no 32-bit number".to_owned()))
    }

    fn op(&mut self, model: &IntegerModel) -> Result<IntegerOp, ModelError> {
        let offset = self.at;
        match self.u8("op")? {
            tag::PRODUCT => self.product_op(model),
            tag::LOGITS => {
                let main = self.product(model)?;
                let mul = self.list_i32("mul", main.out_channels)?;
                let add = self.list("add", main.out_channels)?;
                Ok(IntegerOp::Logits { main, mul, add })
            }
            tag::MAX_POOL => Ok(IntegerOp::MaxPool {
                input: self.tensor(model)?,
                kernel: self.u32("kernel")?,
                stride: self.u32("stride")?,
                padding: self.u32("padding")?,
            }),
            tag::SUM_POOL => Ok(IntegerOp::SumPool { input: self.tensor(model)? }),
            tag::WINDOW_SUM => Ok(IntegerOp::WindowSum {
                input: self.tensor(model)?,
                kernel: self.u32("kernel")?,
                stride: self.u32("stride")?,
                padding: self.u32("padding")?,
                padding_code: self.u32("padding code")? as u32,
            }),
            tag::STREAM => self.stream_op(model),
            op @ (tag::ACT | tag::ACT_BOUNDS) => {
                let input = self.tensor(model)?;
                let n = model.shape(input).c;
                let shift = self.u8("shift")?.into();
                let (lo, hi, bounds) = self.code_range(op == tag::ACT_BOUNDS, n)?;
                let offset = self.at;
                let mul = self.list_in_full("mul", n)?;
                let mul = self.narrow(offset, "mul", mul)?;
                let add = self.list_in_full("add", n)?;
                let step = IntegerStep { shift, mul, mul2: Vec::new(), res_mul: Vec::new(), add, lo, hi, bounds };
                Ok(IntegerOp::Act { input, step })
            }
            tag::CONCAT => {
                let n = self.count("number of inputs", 4)?;
                Ok(IntegerOp::Concat { inputs: (0..n).map(|_| self.tensor(model)).collect::<Result<_, _>>()? })
            }
            other => Err(self.error(offset, "op", format!("{other}, expected 0 to 8"))),
        }
    }

    /// Smallest and largest code, and those of each of `n` channels where they are written channel by channel.
    fn code_range(&mut self, by_channel: bool, n: usize) -> Result<CodeRange, ModelError> {
        if !by_channel {
            return Ok((self.u8("lo")?.into(), self.u8("hi")?.into(), Vec::new()));
        }
        let (lo, hi) = (self.list_i32("lo", n)?, self.list_i32("hi", n)?);
        let least = lo.iter().copied().min().unwrap_or(0);
        let most = hi.iter().copied().max().unwrap_or(0);
        Ok((least, most, lo.into_iter().zip(hi).collect()))
    }

    /// Flags, products and shortcut; whether codes are bounded by channel, which they are only where `bounds` says they may be.
    fn sum(&mut self, model: &IntegerModel, bounds: u8) -> Result<(Sum, bool), ModelError> {
        let offset = self.at;
        let flags = self.u8("flags")?;
        let known = tag::SECOND | tag::RESIDUAL | bounds;
        if flags & !known != 0 {
            return Err(self.error(offset, "flags", format!("{flags}, expected 0 to {known}")));
        }
        let has = |bit: u8| flags & bit != 0;
        let main = self.product(model)?;
        let second = if has(tag::SECOND) { Some(self.product(model)?) } else { None };
        let residual = if has(tag::RESIDUAL) {
            Some(IntegerResidual {
                input: self.tensor(model)?,
                stride: self.u32("stride of the shortcut")?,
                pad_before: self.u32("channels before the shortcut")?,
                pad_after: self.u32("channels after the shortcut")?,
            })
        } else {
            None
        };
        Ok(((main, second, residual), has(tag::BOUNDS)))
    }

    fn stream_op(&mut self, model: &IntegerModel) -> Result<IntegerOp, ModelError> {
        let ((main, second, residual), _) = self.sum(model, 0)?;
        let n = main.out_channels;
        let (shift, mul) = (self.u8("shift")?.into(), self.list_i32("mul", n)?);
        let mul2 = if second.is_some() { self.list_i32("mul2", n)? } else { Vec::new() };
        let res_mul = if residual.is_some() { i32::from_le_bytes(self.array("res_mul")?) } else { 0 };
        let add = self.list("add", n)?;
        let (lo, hi) = (i32::MIN, i32::MAX);
        let step = IntegerStep { shift, mul, mul2, res_mul: Vec::new(), add, lo, hi, bounds: Vec::new() };
        Ok(IntegerOp::Stream { main, second, residual, step, res_mul })
    }

    fn product_op(&mut self, model: &IntegerModel) -> Result<IntegerOp, ModelError> {
        let ((main, second, residual), by_channel) = self.sum(model, tag::BOUNDS)?;
        let n = main.out_channels;
        let shift = self.u8("shift")?.into();
        let (lo, hi, bounds) = self.code_range(by_channel, n)?;
        let step = IntegerStep {
            shift,
            lo,
            hi,
            bounds,
            mul: self.list_i32("mul", n)?,
            mul2: if second.is_some() { self.list_i32("mul2", n)? } else { Vec::new() },
            res_mul: if residual.is_some() { self.list_i32("res_mul", n)? } else { Vec::new() },
            add: self.list("add", n)?,
        };
        Ok(IntegerOp::Product { main, second, residual, step })
    }

    /// A tensor that exists before the layer being read.
    fn tensor(&mut self, model: &IntegerModel) -> Result<TensorId, ModelError> {
        let offset = self.at;
        let input = self.u32("input")?;
        if input > model.layers.len() {
            let what = format!("tensor {input}, but only 0 to {} exist before this layer", model.layers.len());
            return Err(self.error(offset, "input", what));
        }
        Ok(input)
    }

    fn product(&mut self, model: &IntegerModel) -> Result<IntegerProduct, ModelError> {
        let name = self.string("name of the product")?;
        let input = self.tensor(model)?;
        let kernel = [self.u32("kernel rows")?, self.u32("kernel columns")?];
        let (stride, padding) = (self.u32("stride")?, self.u32("padding")?);
        let padding_code = self.u32("padding code")? as u32;
        let out_channels = self.u32("output channels")?;
        let in_channels = model.shape(input).c;
        let offset = self.at;
        let groups = self.u32("groups")?;
        if groups == 0 || !in_channels.is_multiple_of(groups) {
            return Err(self.error(
                offset,
                "groups",
                format!("{groups}, expected a divisor of {in_channels} input channels"),
            ));
        }
        let offset = self.at;
        let weight_bits = self.u8("weight bits")?;
        if !matches!(weight_bits, 1..=8 | 16) {
            return Err(self.error(offset, "weight bits", format!("{weight_bits}, expected 1 to 8, or 16")));
        }
        let offset = self.at;
        let grid = match self.u8("grid")? {
            tag::WITH_ZERO => Grid::WithZero,
            tag::WITHOUT_ZERO => Grid::WithoutZero,
            other => return Err(self.error(offset, "grid", format!("{other}, expected 0 or 1"))),
        };
        let sizes = [out_channels, in_channels / groups, kernel[0], kernel[1]];
        let codes = self.codes(sizes, weight_bits, grid)?;
        Ok(IntegerProduct {
            name,
            input,
            kernel,
            stride,
            padding,
            padding_code,
            out_channels,
            in_channels,
            groups,
            weight_bits,
            grid,
            codes,
        })
    }

    fn codes(&mut self, sizes: [usize; 4], weight_bits: u8, grid: Grid) -> Result<Vec<i16>, ModelError> {
        let bits = u32::from(weight_bits);
        let offset = self.at;
        let count = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        let Some(n) = count.filter(|&n| n > 0) else {
            return Err(self.error(offset, "weights", format!("{sizes:?} weights")));
        };
        let packed = self.take("weights", pack::packed_bytes(n, bits))?;
        let mut codes = Vec::with_capacity(n);
        let unpacked = match Bits::new(weight_bits) {
            Some(bits) => {
                pack::unpack_into(&mut codes, packed, n, bits.get().into(), |field| grid.from_field(field, bits) as i16)
            }
            None => pack::unpack_into(&mut codes, packed, n, bits, |field| field as u16 as i16),
        };
        unpacked.map_err(|e| self.error(offset, "weights", e.to_string()))?;
        Ok(codes)
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;

    fn list(bytes: &[u8], n: usize) -> Result<Vec<i64>, String> {
        let mut reader = Reader { bytes, at: 0, place: "layer 7".to_owned() };
        let values = reader.list("add", n).map_err(|e| e.to_string())?;
        assert_eq!(reader.at, bytes.len());
        Ok(values)
    }

    #[test]
    fn a_list_has_one_form() {
        assert_eq!(list(&[1, 5, 0xfe], 2), Ok(vec![5, -2]));
        assert_eq!(list(&[0x82, 0, 0x80], 3), Ok(vec![-32_768; 3]));
        assert_eq!(list(&[0x88, 0, 0, 0, 0, 0, 0, 0, 0x80], 1), Ok(vec![i64::MIN]));
        for (bytes, n, what) in [
            (&[2, 5, 0, 4, 0][..], 2, "shortest form"),
            (&[1, 5, 5], 2, "shortest form"),
            (&[1, 5], 1, "shortest form"),
            (&[0x82, 5, 0], 2, "shortest form"),
            (&[0x81, 5], 0, "shortest form"),
            (&[0, 5, 6], 2, "values of 0 bytes"),
            (&[9, 5, 6], 2, "values of 9 bytes"),
            (&[2, 5, 0, 4], 2, "4 bytes, but 3 are left"),
            (&[], 1, "1 bytes, but 0 are left"),
            (&[0x88, 1], usize::MAX, "8 bytes, but 1 are left"),
            (&[8, 1], usize::MAX, "bytes, but 1 are left"),
        ] {
            let message = list(bytes, n).unwrap_err();
            assert!(message.contains(what) && message.contains("layer 7, add"), "{message}, expected {what}");
        }
    }
}
