//! A layer of an integer network on the Verilog of the systolic array, compared with what the interpreter made of it.

use bitpact_core::Grid;
use bitpact_graph::{Place, moved_source};
use bitpact_model::{IntegerEnd, IntegerLayer, IntegerModel, IntegerProduct, IntegerTerm, IntegerView};
use serde::Serialize;

use super::simulate::{Matrix, simulate};
use crate::{AccelError, Widths};

/// The outcome of simulating one layer on the generated unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerCheck {
    /// Name of the layer.
    pub layer: String,
    /// Widths of the array's units.
    pub widths: Widths,
    /// Multiply-adds of the layer.
    pub macs: u64,
    /// Output codes, or logits.
    pub values: usize,
    /// Number of sums that differ from the interpreter's.
    pub differing: usize,
}

/// Computes the sums of layer number `layer` of `model` on an array of `rows x columns` units, applies the layer's
/// requantization to them, and counts the codes that are not those of `tensors`, the interpreter's trace for `pixels`.
///
/// On a grid without zero a weight is `2 q' + 1`, and the array holds `q'`: its sum is `2 sum(a q') + sum(a)`, where
/// the sum of codes comes from one more output channel with the weight -1 everywhere, which every width has.
///
/// # Errors
/// iverilog is absent or fails, or the layer has operands of more than 16 bits.
///
/// # Panics
/// If the layer has no product, or `tensors` is not a trace of `model`.
pub fn check_layer(
    model: &IntegerModel,
    layer: usize,
    pixels: &[u8],
    tensors: &[Vec<i64>],
    rows: usize,
    columns: usize,
) -> Result<LayerCheck, AccelError> {
    let image: Vec<i64> = pixels.iter().map(|&p| p.into()).collect();
    let tensor = |id: usize| if id == 0 { &image } else { &tensors[id - 1] };
    let IntegerLayer { name, op, shape, .. } = &model.layers[layer];
    let sums = |product: &IntegerProduct| -> Result<Vec<i64>, AccelError> {
        sums(model, product, tensor(product.input), shape.w, shape.h * shape.w, rows, columns)
    };
    let sum = op.sum().filter(|_| op.products().next().is_some());
    let sum = sum.unwrap_or_else(|| panic!("layer `{name}` has no product"));
    let view = |view: &IntegerView, place: Place| {
        let from = model.shape(view.input);
        let source = moved_source(from, &view.moves, place);
        source.map_or(view.fill, |(y, x, c)| tensor(view.input)[(y * from.w + x) * from.c + c])
    };
    let product_sums = sum.terms.iter().map(|term| term.product().map(&sums).transpose());
    let product_sums = product_sums.collect::<Result<Vec<_>, _>>()?;
    let value = |i: usize| {
        let (y, x, c) = (i / shape.c / shape.w, i / shape.c % shape.w, i % shape.c);
        let values = sum.terms.iter().zip(&product_sums).map(|(term, sums)| match (term, sums) {
            (_, Some(sums)) => sums[i],
            (IntegerTerm::View(term), _) => view(term, (y, x, c)),
            (IntegerTerm::Multiplication { a, b, zeros }, _) => {
                let from = bitpact_graph::moved_shape(model.shape(b.input), &b.moves).unwrap_or(*shape);
                let pixel = if (from.h, from.w) == (1, 1) { (0, 0) } else { (y, x) };
                (view(a, (y, x, c)) - zeros[0]) * (view(b, (pixel.0, pixel.1, c)) - zeros[1])
            }
            (IntegerTerm::Product(_), None) => unreachable!("products have their sums"),
        });
        match &sum.end {
            IntegerEnd::Codes => i64::from(sum.requant.apply(c, values)),
            IntegerEnd::Table(tables) => {
                let table = &tables[if tables.len() == 1 { 0 } else { c }];
                table[(sum.requant.apply(c, values) - sum.requant.lo) as usize].into()
            }
            IntegerEnd::Wide | IntegerEnd::Output => {
                let base = sum.base.iter().map(|(base, mul)| view(base, (y, x, c)) * i64::from(*mul)).sum::<i64>();
                (sum.requant.sum(c, values) >> sum.requant.shift) + base
            }
        }
    };
    let made: Vec<i64> = (0..shape.elements()).map(value).collect();
    let expected = &tensors[layer];
    assert_eq!(made.len(), expected.len(), "the trace is of this network");
    let main = op.products().next().expect("a layer with a product");
    Ok(LayerCheck {
        layer: name.clone(),
        widths: widths(model, main)?,
        macs: op.products().map(|p| (p.codes.len() * shape.h * shape.w) as u64).sum(),
        values: made.len(),
        differing: made.iter().zip(expected).filter(|(made, expected)| made != expected).count(),
    })
}

fn widths(model: &IntegerModel, product: &IntegerProduct) -> Result<Widths, AccelError> {
    let bits = u64::BITS - model.code_range(product.input).1.unsigned_abs().leading_zeros();
    let bits = u8::try_from(bits).unwrap_or(u8::MAX);
    Widths::new(bits.max(1), product.weight_bits).ok_or_else(|| AccelError::Sums { layer: product.name.clone(), bits })
}

/// Sums of a product for every pixel and output channel, `pixels * out_channels`, from the simulated array, group by
/// group.
fn sums(
    model: &IntegerModel,
    product: &IntegerProduct,
    codes: &[i64],
    out_columns: usize,
    pixels: usize,
    rows: usize,
    columns: usize,
) -> Result<Vec<i64>, AccelError> {
    let widths = widths(model, product)?;
    let outputs = product.out_channels / product.groups;
    let without_zero = product.grid == Grid::WithoutZero;
    let mut sums = vec![0; pixels * product.out_channels];
    for first_output in (0..product.out_channels).step_by(outputs) {
        let activations = windows(model, product, codes, out_columns, pixels, product.first_input(first_output));
        let mut weights = Matrix { rows: activations.columns, columns: outputs, values: Vec::new() };
        weights.columns += usize::from(without_zero);
        for k in 0..weights.rows {
            for o in first_output..first_output + outputs {
                let code = i64::from(product.channel(o)[k]);
                weights.values.push(if without_zero { (code - 1).div_euclid(2) } else { code });
            }
            if without_zero {
                weights.values.push(-1);
            }
        }
        let out = simulate(widths, rows, columns, &activations, &weights)?;
        for pixel in 0..pixels {
            for o in 0..outputs {
                let sum = out.at(pixel, o);
                let sum = if without_zero { 2 * sum - out.at(pixel, outputs) } else { sum };
                sums[pixel * product.out_channels + first_output + o] = sum;
            }
        }
    }
    Ok(sums)
}

/// The codes that each pixel's window sees, in the order of the weights: `pixels` rows.
fn windows(
    model: &IntegerModel,
    product: &IntegerProduct,
    codes: &[i64],
    out_columns: usize,
    pixels: usize,
    first_input: usize,
) -> Matrix {
    let from = model.shape(product.input);
    let [rows, columns] = product.window.kernel;
    let mut windows = Matrix { rows: pixels, columns: product.weights_per_channel(), values: Vec::new() };
    for pixel in 0..pixels {
        let position = (pixel / out_columns, pixel % out_columns);
        for c in first_input..first_input + product.group_inputs() {
            let padding = match product.input {
                0 => model.input.zero_point[c].into(),
                _ => product.padding_code.into(),
            };
            for place in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let source = product.window.source(from, position, place);
                windows.values.push(source.map_or(padding, |(y, x)| codes[(y * from.w + x) * from.c + c]));
            }
        }
    }
    windows
}
