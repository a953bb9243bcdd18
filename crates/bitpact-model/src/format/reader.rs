//! Reads a `.bitpact` file from untrusted bytes: every length is checked against what is left before memory is
//! reserved.

use bitpact_core::{Bits, Grid, Requantization, pack};
use bitpact_graph::{Move, Padding, Shape, Window};

use super::{CRC_BYTES, HEADER_BYTES, KIND, MAGIC, VERSION, list_head, tag};
use crate::integer::{Known, check_shape, layer_output};
use crate::{
    InputDescription, IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerOutput, IntegerProduct, IntegerSum,
    IntegerTerm, IntegerView, ModelError, TensorId, TensorKind,
};

/// Bytes of the smallest layer, a concatenation of nothing without a name.
const LEAST_LAYER: usize = 24;

/// Reads everything; what the values mean is left to `IntegerModel::check`.
pub(crate) fn read(bytes: &[u8]) -> Result<IntegerModel, ModelError> {
    let body = envelope(bytes)?;
    let mut r = Reader { bytes: body, at: HEADER_BYTES, place: String::new() };
    let arch = r.string("arch")?;
    let offset = r.at;
    let [h, w, c] = [r.u32("input height")?, r.u32("input width")?, r.u32("input channels")?];
    check_shape(Shape::new(h, w, c)).map_err(|what| r.error(offset, "input", what))?;
    let offset = r.at;
    let bits = r.u8("bits of the input")?;
    if ![8, 16].contains(&bits) {
        return Err(r.error(offset, "bits of the input", format!("{bits}, expected 8 or 16")));
    }
    let mut input = InputDescription { bits, zero_point: Vec::new(), scale: Vec::new() };
    input.zero_point = input.codes(r.take("zero points", c.saturating_mul(input.code_bytes()))?).collect();
    let scale = r.take("scales", c.saturating_mul(4))?.as_chunks::<4>().0;
    input.scale = scale.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let classes = r.count("number of classes", 2)?;
    let class_names = (0..classes).map(|i| r.string(&format!("class name {i}"))).collect::<Result<_, _>>()?;
    let layers = r.count("number of layers", LEAST_LAYER)?;
    let mut model = IntegerModel {
        arch,
        input,
        input_shape: Shape::new(h, w, c),
        class_names,
        layers: Vec::with_capacity(layers),
        outputs: Vec::new(),
    };
    let mut kinds = vec![TensorKind::Image];
    for i in 0..layers {
        r.place = format!("layer {i}");
        let name = r.string("name")?;
        r.place = format!("layer {i} `{name}`");
        let scale = f64::from_le_bytes(r.array("scale")?);
        let offset = r.at;
        let op = r.op(&model)?;
        let (shape, (lo, hi)) =
            layer_output(Known { model: &model, kinds: &kinds }, &op).map_err(|what| r.error(offset, "op", what))?;
        kinds.push(op.kind(&kinds));
        model.layers.push(IntegerLayer { name, op, shape, lo: lo as i32, hi: hi as i32, scale });
    }
    r.place.clear();
    let outputs = r.count("number of outputs", 8)?;
    for i in 0..outputs {
        r.place = format!("output {i}");
        let offset = r.at;
        let tensor = r.u32("tensor")?;
        if !(1..=layers).contains(&tensor) {
            return Err(r.error(offset, "tensor", format!("{tensor}, expected 1 to {layers}")));
        }
        let zero = i32::from_le_bytes(r.array("zero")?).into();
        model.outputs.push(IntegerOutput { tensor, zero });
    }
    r.place.clear();
    if r.at != body.len() {
        return Err(r.error(r.at, "end", format!("{} bytes follow the outputs", body.len() - r.at)));
    }
    Ok(model)
}

/// Checks magic, version, length and checksum; returns everything before the checksum.
fn envelope(bytes: &[u8]) -> Result<&[u8], ModelError> {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Err(ModelError::Kind { kind: KIND, what: format!("{} bytes", bytes.len()) });
    };
    if header[..8] != MAGIC {
        return Err(ModelError::Kind { kind: KIND, what: "it does not begin with `BITPACT`".to_owned() });
    }
    let number = |range: std::ops::Range<usize>| header[range].iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    let version = number(8..12);
    if version != u64::from(VERSION) {
        return Err(ModelError::Version { kind: KIND, got: version, expected: format!("version {VERSION}") });
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
    Ok(body)
}

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

    /// `n` integers; `full` ones are written out even where they are equal, because n is not a number of things that
    /// the file holds.
    fn list(&mut self, field: &str, n: usize, full: bool) -> Result<Vec<i64>, ModelError> {
        let offset = self.at;
        let head = self.u8(field)?;
        let mask = if full { !tag::UNIFORM } else { 0xff };
        let uniform = !full && head & tag::UNIFORM != 0;
        let width = usize::from(if full { head } else { head & !tag::UNIFORM });
        if !(1..=8).contains(&width) {
            return Err(self.error(offset, field, format!("values of {width} bytes, expected 1 to 8")));
        }
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

    fn list_i32(&mut self, field: &str, n: usize, full: bool) -> Result<Vec<i32>, ModelError> {
        let offset = self.at;
        let values = self.list(field, n, full)?;
        let narrow = values.iter().map(|&v| i32::try_from(v)).collect::<Result<_, _>>();
        narrow.map_err(|_| self.error(offset, field, "a value that is no 32-bit number".to_owned()))
    }

    /// Tag, flags, and as many bytes of the op as are announced.
    fn op(&mut self, model: &IntegerModel) -> Result<IntegerOp, ModelError> {
        let offset = self.at;
        let tag = self.u8("op")?;
        let at_flags = self.at;
        let flags = self.u8("flags")?;
        let has_factors = tag == tag::WINDOW_SUM && flags == tag::FACTORS;
        if flags != 0 && !has_factors {
            return Err(self.error(at_flags, "flags", format!("{flags}, which op {tag} does not have")));
        }
        let at_length = self.at;
        let length = u64::from_le_bytes(self.array("length of the op")?);
        let left = self.bytes.len() - self.at;
        if length > left as u64 {
            return Err(self.error(at_length, "length of the op", format!("{length}, but only {left} bytes are left")));
        }
        let end = self.at + length as usize;
        let op = match tag {
            tag::SUM => IntegerOp::Sum(self.sum(model)?),
            tag::MAX_POOL => IntegerOp::MaxPool { input: self.tensor(model)?, window: self.window()? },
            tag::WINDOW_SUM => IntegerOp::WindowSum {
                input: self.tensor(model)?,
                window: self.window()?,
                padding_code: self.u32("padding code")? as u32,
                factors: match has_factors {
                    true => {
                        let offset = self.at;
                        let n = self.count("number of factors", 4)?;
                        if n == 0 {
                            return Err(self.error(
                                offset,
                                "number of factors",
                                "0, where flags announce some".to_owned(),
                            ));
                        }
                        (0..n).map(|_| Ok(self.u32("factor")? as u32)).collect::<Result<_, ModelError>>()?
                    }
                    false => Vec::new(),
                },
            },
            tag::CONCAT => {
                let n = self.count("number of inputs", 4)?;
                IntegerOp::Concat { inputs: (0..n).map(|_| self.tensor(model)).collect::<Result<_, _>>()? }
            }
            tag::VIEW => IntegerOp::View(self.view(model)?),
            other => return Err(self.error(offset, "op", format!("{other}, expected 0 to 4"))),
        };
        if self.at != end {
            let took = self.at + length as usize - end;
            let what = format!("{length}, but the op takes {took} bytes");
            return Err(self.error(at_length, "length of the op", what));
        }
        Ok(op)
    }

    fn sum(&mut self, model: &IntegerModel) -> Result<IntegerSum, ModelError> {
        let offset = self.at;
        let channels = self.u32("channels")?;
        let count = self.u8("number of terms")?;
        let terms = (0..count).map(|i| self.term(model, i)).collect::<Result<Vec<_>, _>>()?;
        let mut of_products = terms.iter().filter_map(|term| term.product().map(|product| product.out_channels));
        if let Some(other) = of_products.clone().find(|&n| n != channels) {
            return Err(self.error(offset, "channels", format!("{channels}, but a product has {other}")));
        }
        let full = of_products.next().is_none();
        let shift = self.u8("shift")?.into();
        let multipliers = |(i, term): (usize, &IntegerTerm)| {
            self.list_i32(&format!("multipliers of term {i}"), channels, term.product().is_none())
        };
        let mul = terms.iter().enumerate().map(multipliers).collect::<Result<_, _>>()?;
        let add = self.list("constants", channels, full)?;
        let bases = self.u8("number of tensors added")?;
        let base = |reader: &mut Self| {
            Ok((reader.view(model)?, i32::from_le_bytes(reader.array("multiplier of a tensor added")?)))
        };
        let base = (0..bases).map(|_| base(self)).collect::<Result<_, ModelError>>()?;
        let mut requant = Requantization { shift, mul, add, lo: i32::MIN, hi: i32::MAX, bounds: Vec::new() };
        let offset = self.at;
        let end = match self.u8("end")? {
            tag::CODES => {
                (requant.lo, requant.hi) = (self.u8("lo")?.into(), self.u8("hi")?.into());
                IntegerEnd::Codes
            }
            tag::CODES_BY_CHANNEL => {
                let lo = self.list_i32("lo", channels, full)?;
                let hi = self.list_i32("hi", channels, full)?;
                requant.lo = lo.iter().copied().min().unwrap_or(0);
                requant.hi = hi.iter().copied().max().unwrap_or(0);
                requant.bounds = lo.into_iter().zip(hi).collect();
                IntegerEnd::Codes
            }
            tag::TABLE => {
                requant.lo = i32::from_le_bytes(self.array("lo")?);
                requant.hi = i32::from_le_bytes(self.array("hi")?);
                let entries = i64::from(requant.hi) - i64::from(requant.lo) + 1;
                if !(1..=256).contains(&entries) {
                    return Err(self.error(offset, "table", format!("{entries} entries, expected 1 to 256")));
                }
                let tables = self.count("number of tables", entries as usize)?;
                let table = |reader: &mut Self| Ok(reader.take("table", entries as usize)?.to_vec());
                IntegerEnd::Table((0..tables).map(|_| table(self)).collect::<Result<_, ModelError>>()?)
            }
            tag::WIDE => IntegerEnd::Wide,
            tag::OUTPUT => IntegerEnd::Output,
            other => return Err(self.error(offset, "end", format!("{other}, expected 0 to 4"))),
        };
        Ok(IntegerSum { terms, requant, base, end })
    }

    fn term(&mut self, model: &IntegerModel, i: u8) -> Result<IntegerTerm, ModelError> {
        let offset = self.at;
        match self.u8("term")? {
            tag::PRODUCT_TERM => Ok(IntegerTerm::Product(self.product(model)?)),
            tag::VIEW_TERM => Ok(IntegerTerm::View(self.view(model)?)),
            tag::MULTIPLICATION_TERM => {
                let (a, zero_a) = (self.view(model)?, self.u8("zero of the first factor")?);
                let (b, zero_b) = (self.view(model)?, self.u8("zero of the second factor")?);
                Ok(IntegerTerm::Multiplication { a, b, zeros: [zero_a.into(), zero_b.into()] })
            }
            other => Err(self.error(offset, "term", format!("term {i} is {other}, expected 0 to 2"))),
        }
    }

    fn sizes<const N: usize>(&mut self, fields: [&str; N]) -> Result<[usize; N], ModelError> {
        let mut sizes = [0; N];
        for (size, field) in sizes.iter_mut().zip(fields) {
            *size = self.u32(field)?;
        }
        Ok(sizes)
    }

    fn window(&mut self) -> Result<Window, ModelError> {
        let kernel = self.sizes(["kernel rows", "kernel columns"])?;
        let stride = self.sizes(["stride rows", "stride columns"])?;
        let [top, left, bottom, right] = self.sizes(["padding"; 4])?;
        let dilation = self.sizes(["dilation rows", "dilation columns"])?;
        let spread = self.sizes(["spread rows", "spread columns"])?;
        Ok(Window { kernel, stride, padding: Padding { top, left, bottom, right }, dilation, spread })
    }

    fn view(&mut self, model: &IntegerModel) -> Result<IntegerView, ModelError> {
        let input = self.tensor(model)?;
        let fill = i32::from_le_bytes(self.array("inserted value")?).into();
        let moves = (0..self.u8("number of moves")?).map(|_| self.one_move()).collect::<Result<_, _>>()?;
        Ok(IntegerView { input, moves, fill })
    }

    fn one_move(&mut self) -> Result<Move, ModelError> {
        let offset = self.at;
        Ok(match self.u8("move")? {
            tag::STRIDE => {
                let [rows, columns] = self.sizes(["rows", "columns"])?;
                Move::Stride { rows, columns }
            }
            tag::CROP => {
                let [top, left, height, width] = self.sizes(["top", "left", "height", "width"])?;
                Move::Crop { top, left, height, width }
            }
            tag::CHANNELS => {
                let [first, count] = self.sizes(["first channel", "number of channels"])?;
                Move::Channels { first, count }
            }
            tag::INSERT => {
                let [top, left, bottom, right, before, after] =
                    self.sizes(["rows above", "columns left", "rows below", "columns right", "channels", "channels"])?;
                Move::Insert { top, left, bottom, right, before, after }
            }
            tag::PIXEL_SHUFFLE => Move::PixelShuffle { factor: self.u32("factor")? },
            tag::PIXEL_UNSHUFFLE => Move::PixelUnshuffle { factor: self.u32("factor")? },
            tag::REPEAT => {
                let [rows, columns] = self.sizes(["rows", "columns"])?;
                Move::Repeat { rows, columns }
            }
            tag::CHANNEL_SHUFFLE => Move::ChannelShuffle { groups: self.u32("groups")? },
            other => return Err(self.error(offset, "move", format!("{other}, expected 0 to 7"))),
        })
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
        let window = self.window()?;
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
        let sizes = [out_channels, in_channels / groups, window.kernel[0], window.kernel[1]];
        let codes = self.codes(sizes, weight_bits, grid)?;
        Ok(IntegerProduct {
            name,
            input,
            window,
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
        let room = bitpact_kernels::memory::check(2 * n as u64);
        room.map_err(|shortage| self.error(offset, "weights", shortage.to_string()))?;
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

    fn read(bytes: &[u8], n: usize, full: bool) -> Result<Vec<i64>, String> {
        let mut reader = Reader { bytes, at: 0, place: "layer 7".to_owned() };
        let values = reader.list("add", n, full).map_err(|e| e.to_string())?;
        assert_eq!(reader.at, bytes.len());
        Ok(values)
    }

    fn list(bytes: &[u8], n: usize) -> Result<Vec<i64>, String> {
        read(bytes, n, false)
    }

    #[test]
    fn a_full_list_writes_equal_values_out() {
        assert_eq!(read(&[1, 5, 5], 2, true), Ok(vec![5, 5]));
        for (bytes, what) in [(&[0x81, 5][..], "129 bytes"), (&[2, 5, 0, 5, 0], "shortest form"), (&[1, 5], "are left")]
        {
            assert!(read(bytes, 2, true).unwrap_err().contains(what));
        }
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
