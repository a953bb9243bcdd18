//! Writes a checked integer network; the field order is that of docs/format.md.

use bitpact_core::{Bits, pack};
use bitpact_graph::{Move, Window};

use super::{CRC_BYTES, HEADER_BYTES, MAGIC, VERSION, list_head, tag};
use crate::{IntegerEnd, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm, IntegerView};

/// The bytes of `model`, which has passed `check`.
pub(crate) fn write(model: &IntegerModel) -> Vec<u8> {
    let mut out = Writer { bytes: vec![0; HEADER_BYTES] };
    out.string(&model.arch);
    for size in [model.input_shape.h, model.input_shape.w, model.input_shape.c] {
        out.u32(size);
    }
    out.u8(model.input.bits);
    out.bytes.extend(model.input.zero_bytes());
    for scale in &model.input.scale {
        out.bytes.extend(scale.to_le_bytes());
    }
    out.u32(model.class_names.len());
    for name in &model.class_names {
        out.string(name);
    }
    out.u32(model.layers.len());
    for layer in &model.layers {
        out.string(&layer.name);
        out.bytes.extend(layer.scale.to_le_bytes());
        out.op(&layer.op);
    }
    out.u32(model.outputs.len());
    for output in &model.outputs {
        out.u32(output.tensor);
        out.bytes.extend((output.zero as i32).to_le_bytes());
    }
    let length = (out.bytes.len() + CRC_BYTES) as u64;
    out.bytes[..8].copy_from_slice(&MAGIC);
    out.bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out.bytes[12..20].copy_from_slice(&length.to_le_bytes());
    let crc = crc32fast::hash(&out.bytes);
    out.bytes.extend(crc.to_le_bytes());
    out.bytes
}

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Sizes are below 2^32 in a checked network.
    fn u32(&mut self, value: usize) {
        self.bytes.extend((value as u32).to_le_bytes());
    }

    /// Names are at most 4096 bytes in a checked network.
    fn string(&mut self, text: &str) {
        self.bytes.extend((text.len() as u16).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    /// A list of integers; `full` writes it out even where its values are equal.
    fn list(&mut self, full: bool, values: impl IntoIterator<Item = impl Into<i64>>) {
        let values: Vec<i64> = values.into_iter().map(Into::into).collect();
        let head = list_head(&values) & if full { !tag::UNIFORM } else { 0xff };
        self.u8(head);
        let written = if head & tag::UNIFORM != 0 { &values[..1] } else { &values[..] };
        for value in written {
            self.bytes.extend(&value.to_le_bytes()[..usize::from(head & !tag::UNIFORM)]);
        }
    }

    /// Tag, flags, and the length of what follows them.
    fn op(&mut self, op: &IntegerOp) {
        self.u8(match op {
            IntegerOp::Sum(_) => tag::SUM,
            IntegerOp::MaxPool { .. } => tag::MAX_POOL,
            IntegerOp::WindowSum { .. } => tag::WINDOW_SUM,
            IntegerOp::Concat { .. } => tag::CONCAT,
            IntegerOp::View(_) => tag::VIEW,
        });
        let has_factors = matches!(op, IntegerOp::WindowSum { factors, .. } if !factors.is_empty());
        self.u8(if has_factors { tag::FACTORS } else { 0 });
        let at = self.bytes.len();
        self.bytes.extend([0; 8]);
        match op {
            IntegerOp::Sum(sum) => self.sum(sum),
            IntegerOp::MaxPool { input, window } => {
                self.u32(*input);
                self.window(window);
            }
            IntegerOp::WindowSum { input, window, padding_code, factors } => {
                self.u32(*input);
                self.window(window);
                self.u32(*padding_code as usize);
                if !factors.is_empty() {
                    self.u32(factors.len());
                }
                factors.iter().for_each(|&factor| self.u32(factor as usize));
            }
            IntegerOp::Concat { inputs } => {
                self.u32(inputs.len());
                inputs.iter().for_each(|&input| self.u32(input));
            }
            IntegerOp::View(view) => self.view(view),
        }
        let length = (self.bytes.len() - at - 8) as u64;
        self.bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
    }

    fn sum(&mut self, sum: &IntegerSum) {
        let requant = &sum.requant;
        // Where no weights stand for the channels, what grows with them in memory grows with them in the file too.
        let full = !sum.terms.iter().any(|term| term.product().is_some());
        self.u32(requant.channels());
        self.u8(sum.terms.len() as u8);
        for term in &sum.terms {
            match term {
                IntegerTerm::Product(product) => {
                    self.u8(tag::PRODUCT_TERM);
                    self.product(product);
                }
                IntegerTerm::View(view) => {
                    self.u8(tag::VIEW_TERM);
                    self.view(view);
                }
                IntegerTerm::Multiplication { a, b, zeros } => {
                    self.u8(tag::MULTIPLICATION_TERM);
                    for (view, &zero) in [a, b].into_iter().zip(zeros) {
                        self.view(view);
                        self.u8(zero as u8);
                    }
                }
            }
        }
        self.u8(requant.shift as u8);
        for (term, mul) in sum.terms.iter().zip(&requant.mul) {
            self.list(term.product().is_none(), mul.iter().copied());
        }
        self.list(full, requant.add.iter().copied());
        self.u8(sum.base.len() as u8);
        for (view, mul) in &sum.base {
            self.view(view);
            self.bytes.extend(mul.to_le_bytes());
        }
        match &sum.end {
            IntegerEnd::Codes if requant.bounds.is_empty() => {
                self.bytes.extend([tag::CODES, requant.lo as u8, requant.hi as u8]);
            }
            IntegerEnd::Codes => {
                self.u8(tag::CODES_BY_CHANNEL);
                self.list(full, requant.bounds.iter().map(|bound| bound.0));
                self.list(full, requant.bounds.iter().map(|bound| bound.1));
            }
            IntegerEnd::Table(tables) => {
                self.u8(tag::TABLE);
                self.bytes.extend(requant.lo.to_le_bytes());
                self.bytes.extend(requant.hi.to_le_bytes());
                self.u32(tables.len());
                tables.iter().for_each(|table| self.bytes.extend(table));
            }
            IntegerEnd::Wide => self.u8(tag::WIDE),
            IntegerEnd::Output => self.u8(tag::OUTPUT),
        }
    }

    fn window(&mut self, window: &Window) {
        let Window { kernel, stride, padding, dilation, spread } = *window;
        let padding = [padding.top, padding.left, padding.bottom, padding.right];
        let sizes = [&kernel[..], &stride, &padding, &dilation, &spread];
        sizes.into_iter().flatten().for_each(|&size| self.u32(size));
    }

    fn view(&mut self, view: &IntegerView) {
        self.u32(view.input);
        self.bytes.extend((view.fill as i32).to_le_bytes());
        self.u8(view.moves.len() as u8);
        for step in &view.moves {
            let (tag, sizes): (u8, &[usize]) = match *step {
                Move::Stride { rows, columns } => (tag::STRIDE, &[rows, columns]),
                Move::Crop { top, left, height, width } => (tag::CROP, &[top, left, height, width]),
                Move::Channels { first, count } => (tag::CHANNELS, &[first, count]),
                Move::Insert { top, left, bottom, right, before, after } => {
                    (tag::INSERT, &[top, left, bottom, right, before, after])
                }
                Move::PixelShuffle { factor } => (tag::PIXEL_SHUFFLE, &[factor]),
                Move::PixelUnshuffle { factor } => (tag::PIXEL_UNSHUFFLE, &[factor]),
                Move::ChannelShuffle { groups } => (tag::CHANNEL_SHUFFLE, &[groups]),
                Move::Repeat { rows, columns } => (tag::REPEAT, &[rows, columns]),
            };
            self.u8(tag);
            sizes.iter().for_each(|&size| self.u32(size));
        }
    }

    fn product(&mut self, product: &IntegerProduct) {
        self.string(&product.name);
        self.u32(product.input);
        self.window(&product.window);
        self.u32(product.padding_code as usize);
        self.u32(product.out_channels);
        self.u32(product.groups);
        self.u8(product.weight_bits);
        self.u8(match product.grid {
            bitpact_core::Grid::WithZero => tag::WITH_ZERO,
            bitpact_core::Grid::WithoutZero => tag::WITHOUT_ZERO,
        });
        let field = |&code: &i16| match Bits::new(product.weight_bits) {
            Some(bits) => product.grid.to_field(code.into(), bits),
            None => u32::from(code as u16),
        };
        let fields: Vec<u32> = product.codes.iter().map(field).collect();
        self.bytes.extend(pack::pack(&fields, product.weight_bits.into()));
    }
}
