//! Products as `ConvInteger`, whose sums have 32 bits: digits of weights and inputs, and parts of a window.

use std::ops::Range;

use bitpact_graph::{Padding, Shape};
use bitpact_model::IntegerProduct;

use super::super::moves;
use super::super::network::Stored;
use super::super::writer::{Parameter, Scalar, Writer};
use super::Integers;
use crate::onnx::tensor::kind;

/// Weights of 8 bits times codes: below this, no kernel that adds pairs of products in 16 bits can saturate.
const PAIR: i64 = 1 << 15;

/// Input channels of every group and rows of the kernel that one operator reads.
struct Part {
    channels: Range<usize>,
    rows: Range<usize>,
}

impl Integers<'_> {
    /// What a product reads, with its padding and spread, and the largest value there.
    fn product_input(&mut self, product: &IntegerProduct, base: &str) -> (String, i64) {
        let input = product.input;
        let (window, shape) = (&product.window, self.model.shape(input));
        let x = self.values[input].clone();
        let largest = self.model.code_range(input).1.max(product.padding_code.into());
        if !product.reads_padding() || self.pads_itself(product) {
            return (x, largest);
        }
        let prepare = |w: &mut Writer, x: &str, shape: Shape, fill: Scalar| {
            let x = moves::spread(w, x, shape, window.spread, fill, base);
            moves::padded(w, &x, window.padding, fill, base)
        };
        if input > 0 {
            let fill = self.scalar(input, product.padding_code.into());
            return (prepare(&mut self.w, &x, shape, fill), largest);
        }
        let zeros: Vec<i64> = self.model.input.zero_point.iter().map(|&zero| i64::from(zero)).collect();
        if zeros.iter().all(|zero| *zero == zeros[0]) {
            let fill = self.scalar(0, zeros[0]);
            return (prepare(&mut self.w, &x, shape, fill), largest);
        }
        let channels: Vec<String> = (0..shape.c)
            .map(|c| {
                let fill = self.scalar(0, zeros[c]);
                let x = moves::channels(&mut self.w, &x, c, 1, base);
                prepare(&mut self.w, &x, Shape::new(shape.h, shape.w, 1), fill)
            })
            .collect();
        let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
        (self.w.node("Concat", &channels, base, &[("axis", Parameter::Int(1))]), largest)
    }

    /// Whether the operator's own padding, which is 0, is that of the product.
    fn pads_itself(&self, product: &IntegerProduct) -> bool {
        let is_zero = match product.input {
            0 => self.model.input.zero_point.iter().all(|&zero| zero == 0),
            _ => product.padding_code == 0,
        };
        is_zero && product.window.spread == [1; 2]
    }

    /// The sums of a product, in int64.
    pub(super) fn product(&mut self, product: &IntegerProduct) -> String {
        let base = &format!("{}/acc", product.name);
        let (x, largest) = self.product_input(product, base);
        let x_digits = if self.kind_of(product.input) == kind::UINT8 {
            vec![x]
        } else {
            let digits = (0..4).take_while(|i| largest >> (8 * i) > 0 || *i == 0).count();
            (0..digits).map(|i| self.digit(&x, i, digits, base)).collect()
        };
        let x_reach = if x_digits.len() > 1 { 255 } else { largest.max(1) };
        let mut total: Option<String> = None;
        let mut names = Vec::new();
        for (i, weights) in digits(&product.codes).iter().enumerate() {
            for (j, x) in x_digits.iter().enumerate() {
                let (sum, stored) = self.conv(product, x, x_reach, weights, base);
                // Every digit of the input reads the same weights.
                if j == 0 {
                    names.extend(stored);
                }
                let sum = self.times(sum, &[1 << (8 * (i + j))], base);
                total = Some(match total {
                    Some(total) => self.binary("Add", &total, &sum, base),
                    None => sum,
                });
            }
        }
        self.stored.push(Stored::plain(names));
        total.expect("a product has a digit")
    }

    /// Byte `i` of the values of `x`, which have `of` bytes, as uint8.
    fn digit(&mut self, x: &str, i: usize, of: usize, base: &str) -> String {
        let mut x = x.to_owned();
        if i > 0 {
            let unit = self.w.scalar("unit", Scalar::I64(1 << (8 * i)));
            x = self.binary("Div", &x, &unit, base);
        }
        if i + 1 < of {
            let unit = self.w.scalar("unit", Scalar::I64(256));
            x = self.binary("Mod", &x, &unit, base);
        }
        self.w.cast(&x, kind::UINT8, base)
    }

    /// Sums of codes up to `reach` times `weights`, in int64, over as few parts as stay in 32 bits, and the names of
    /// the weights of each part.
    fn conv(
        &mut self,
        product: &IntegerProduct,
        x: &str,
        reach: i64,
        weights: &[i8],
        base: &str,
    ) -> (String, Vec<String>) {
        let parts = parts(product, reach, weights);
        let is_cut = parts.iter().any(|part| part.rows.len() < product.window.kernel[0]);
        let x = match is_cut && self.pads_itself(product) {
            true => moves::padded(&mut self.w, x, product.window.padding, Scalar::U8(0), base),
            false => x.to_owned(),
        };
        let mut total: Option<String> = None;
        let mut names = Vec::new();
        for part in &parts {
            let (sum, name) = self.conv_part(product, &x, reach, weights, part, is_cut, base);
            names.push(name);
            total = Some(match total {
                Some(total) => self.binary("Add", &total, &sum, base),
                None => sum,
            });
        }
        (total.expect("a product has an input channel"), names)
    }

    /// One part of a convolution, of an `x` that is padded already where `is_cut`, and the name of its weights.
    fn conv_part(
        &mut self,
        product: &IntegerProduct,
        x: &str,
        reach: i64,
        weights: &[i8],
        part: &Part,
        is_cut: bool,
        base: &str,
    ) -> (String, String) {
        let inputs = product.group_inputs();
        let groups = product.groups;
        let Part { channels, rows } = part;
        let [kernel_rows, columns] = product.window.kernel;
        let mut x = x.to_owned();
        if channels.len() < inputs {
            let of_part: Vec<i64> =
                (0..groups).flat_map(|g| channels.clone().map(move |i| (g * inputs + i) as i64)).collect();
            let of_part = self.w.ints(&format!("{base}.channels"), &of_part);
            x = self.w.node("Gather", &[&x, &of_part], base, &[("axis", Parameter::Int(1))]);
        }
        let mut window = product.window;
        if is_cut {
            let positions = window.positions(self.model.shape(product.input)).expect("a checked window fits");
            x = moves::rows(&mut self.w, &x, &window, rows.clone(), positions[0], base);
            window.kernel[0] = rows.len();
            window.padding = Padding::default();
        }
        let weights: Vec<i8> = weights
            .chunks_exact(inputs * kernel_rows * columns)
            .flat_map(|output| output.chunks_exact(kernel_rows * columns).take(channels.end).skip(channels.start))
            .flat_map(|plane| &plane[rows.start * columns..rows.end * columns])
            .copied()
            .collect();
        let most = weights.iter().map(|&w| i64::from(w).abs()).max().unwrap_or(0);
        let dims = [product.out_channels, channels.len(), rows.len(), columns];
        let named = &format!("{}.weight", product.name);
        let pads = if self.pads_itself(product) { moves::pads(window.padding) } else { [0; 4] };
        let [kernel, strides, pads, dilations] = moves::window(&window, &pads);
        let parameters = [kernel, strides, pads, dilations, ("group", Parameter::Int(groups as i64))];
        let (sum, weights) = if 2 * most * reach < PAIR {
            let weights = self.w.constant(named, kind::INT8, &dims, weights.iter().map(|&w| w as u8).collect());
            (self.w.node("ConvInteger", &[&x, &weights], base, &parameters), weights)
        } else {
            // Kernels for two unsigned factors never add in 16 bits.
            let bytes = weights.iter().map(|&w| (w as u8) ^ 0x80).collect();
            let weights = self.w.constant(named, kind::UINT8, &dims, bytes);
            let zero = self.w.scalar("weight_zero", Scalar::U8(128));
            (self.w.node("ConvInteger", &[&x, &weights, "", &zero], base, &parameters), weights)
        };
        (self.w.cast(&sum, kind::INT64, base), weights)
    }
}

/// The fewest equal parts of a product whose sums of codes up to `reach` times `weights` have 32 bits: of its input
/// channels, and, where one of these is too much, of the rows of its kernel. One row always fits, as it has at most
/// 2^15 places.
fn parts(product: &IntegerProduct, reach: i64, weights: &[i8]) -> Vec<Part> {
    let inputs = product.group_inputs();
    let [rows, columns] = product.window.kernel;
    let largest = |part: &Part| {
        let of_channel = |plane: &[i8]| {
            plane[part.rows.start * columns..part.rows.end * columns].iter().map(|&w| i64::from(w).abs()).sum::<i64>()
        };
        let of_output = |output: &[i8]| {
            output.chunks_exact(rows * columns).take(part.channels.end).skip(part.channels.start).map(of_channel).sum()
        };
        weights.chunks_exact(inputs * rows * columns).map(of_output).max().unwrap_or(0i64) * reach
    };
    let cut = |channels: usize, of_rows: usize| -> Vec<Part> {
        let ranges = |n: usize, size: usize| (0..n).step_by(size).map(move |from| from..(from + size).min(n));
        ranges(inputs, channels)
            .flat_map(|channels| ranges(rows, of_rows).map(move |rows| Part { channels: channels.clone(), rows }))
            .collect()
    };
    let halves = |n: usize| std::iter::successors(Some(n), |&size| (size > 1).then(|| size.div_ceil(2)));
    let sizes = halves(inputs).map(|channels| (channels, rows)).chain(halves(rows).skip(1).map(|rows| (1, rows)));
    let mut parts = sizes.map(|(channels, rows)| cut(channels, rows));
    parts.find(|parts| parts.iter().all(|part| largest(part) <= i32::MAX.into())).unwrap_or_else(|| cut(1, 1))
}

/// Digits of base 256 of weight codes, each from -128 to 127, the lowest first: as many as they need.
fn digits(codes: &[i16]) -> Vec<Vec<i8>> {
    let low: Vec<i8> = codes.iter().map(|&q| q as i8).collect();
    let high: Vec<i8> = codes.iter().zip(&low).map(|(&q, &low)| ((i32::from(q) - i32::from(low)) >> 8) as i8).collect();
    if high.iter().all(|&digit| digit == 0) { vec![low] } else { vec![low, high] }
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn digits_of_a_weight_are_the_weight() {
        let all: Vec<i16> = (-32639..=32639).collect();
        let [low, high] = &digits(&all)[..] else { panic!("two digits") };
        for ((q, low), high) in all.iter().zip(low).zip(high) {
            assert_eq!(i32::from(*q), i32::from(*low) + 256 * i32::from(*high));
        }
        assert_eq!(digits(&[-128, 127]), [[-128, 127]]);
    }
}
