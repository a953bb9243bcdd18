//! Writes a checked integer network; the field order is that of docs/format.md.

use bitpact_core::{Bits, IntegerStep, pack};

use super::{CRC_BYTES, HEADER_BYTES, MAGIC, list_head, tag, version_of};
use crate::{IntegerModel, IntegerOp, IntegerProduct, IntegerResidual};

/// The bytes of `model`, which has passed `check`.
pub(crate) fn write(model: &IntegerModel) -> Vec<u8> {
    let mut out = Writer { bytes: vec![0; HEADER_BYTES] };
    out.string(&model.arch);
    for size in [model.input_shape.h, model.input_shape.w, model.input_shape.c] {
        out.u32(size);
    }
    out.bytes.extend(&model.input.zero_point);
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
    let length = (out.bytes.len() + CRC_BYTES) as u64;
    out.bytes[..8].copy_from_slice(&MAGIC);
    out.bytes[8..12].copy_from_slice(&version_of(model.layers.iter().map(|l| &l.op)).to_le_bytes());
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

    fn list(&mut self, values: impl IntoIterator<Item = impl Into<i64>>) {
        let values: Vec<i64> = values.into_iter().map(Into::into).collect();
        self.values(&values, list_head(&values));
    }

    /// A list that is written out even where its values are equal.
    fn list_in_full(&mut self, values: impl IntoIterator<Item = impl Into<i64>>) {
        let values: Vec<i64> = values.into_iter().map(Into::into).collect();
        self.values(&values, list_head(&values) & !tag::UNIFORM);
    }

    fn values(&mut self, values: &[i64], head: u8) {
        self.u8(head);
        let written = if head & tag::UNIFORM != 0 { &values[..1] } else { values };
        for value in written {
            self.bytes.extend(&value.to_le_bytes()[..usize::from(head & !tag::UNIFORM)]);
        }
    }

    fn op(&mut self, op: &IntegerOp) {
        match op {
            IntegerOp::Product { main, second, residual, step } => {
                self.u8(tag::PRODUCT);
                self.sum(main, second.as_ref(), residual.as_ref(), !step.bounds.is_empty());
                self.u8(step.shift as u8);
                self.code_range(step);
                self.list(step.mul.iter().copied());
                if second.is_some() {
                    self.list(step.mul2.iter().copied());
                }
                if residual.is_some() {
                    self.list(step.res_mul.iter().copied());
                }
                self.list(step.add.iter().copied());
            }
            IntegerOp::Logits { main, mul, add } => {
                self.u8(tag::LOGITS);
                self.product(main);
                self.list(mul.iter().copied());
                self.list(add.iter().copied());
            }
            IntegerOp::MaxPool { input, kernel, stride, padding } => {
                self.u8(tag::MAX_POOL);
                for value in [*input, *kernel, *stride, *padding] {
                    self.u32(value);
                }
            }
            IntegerOp::SumPool { input } => {
                self.u8(tag::SUM_POOL);
                self.u32(*input);
            }
            IntegerOp::WindowSum { input, kernel, stride, padding, padding_code } => {
                self.u8(tag::WINDOW_SUM);
                for value in [*input, *kernel, *stride, *padding, *padding_code as usize] {
                    self.u32(value);
                }
            }
            IntegerOp::Stream { main, second, residual, step, res_mul } => {
                self.u8(tag::STREAM);
                self.sum(main, second.as_ref(), residual.as_ref(), false);
                self.u8(step.shift as u8);
                self.list(step.mul.iter().copied());
                if second.is_some() {
                    self.list(step.mul2.iter().copied());
                }
                if residual.is_some() {
                    self.bytes.extend(res_mul.to_le_bytes());
                }
                self.list(step.add.iter().copied());
            }
            IntegerOp::Act { input, step } => {
                self.u8(if step.bounds.is_empty() { tag::ACT } else { tag::ACT_BOUNDS });
                self.u32(*input);
                self.u8(step.shift as u8);
                self.code_range(step);
                self.list_in_full(step.mul.iter().copied());
                self.list_in_full(step.add.iter().copied());
            }
            IntegerOp::Concat { inputs } => {
                self.u8(tag::CONCAT);
                self.u32(inputs.len());
                for &input in inputs {
                    self.u32(input);
                }
            }
        }
    }

    /// Smallest and largest code, of the layer or of each channel.
    fn code_range(&mut self, step: &IntegerStep) {
        if step.bounds.is_empty() {
            self.u8(step.lo as u8);
            self.u8(step.hi as u8);
        } else {
            self.list(step.bounds.iter().map(|bound| bound.0));
            self.list(step.bounds.iter().map(|bound| bound.1));
        }
    }

    /// Flags, products and shortcut.
    fn sum(
        &mut self,
        main: &IntegerProduct,
        second: Option<&IntegerProduct>,
        residual: Option<&IntegerResidual>,
        bounds: bool,
    ) {
        let flag = |present: bool, bit: u8| if present { bit } else { 0 };
        let inputs = flag(second.is_some(), tag::SECOND) | flag(residual.is_some(), tag::RESIDUAL);
        self.u8(inputs | flag(bounds, tag::BOUNDS));
        self.product(main);
        if let Some(second) = second {
            self.product(second);
        }
        if let Some(r) = residual {
            for value in [r.input, r.stride, r.pad_before, r.pad_after] {
                self.u32(value);
            }
        }
    }

    fn product(&mut self, product: &IntegerProduct) {
        self.string(&product.name);
        let [rows, columns] = product.kernel;
        for value in [product.input, rows, columns, product.stride, product.padding] {
            self.u32(value);
        }
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
