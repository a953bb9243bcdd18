//! What the integers of a network mean as real numbers.

use bitpact_model::{
    IntegerEnd, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm, IntegerView, TensorId, TensorKind,
};

/// Scale and zero of a tensor: an integer q of it stands for `scale * (q - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Meaning {
    pub(super) scale: f64,
    pub(super) zero: i64,
}

/// The meaning of every tensor, the image first, whose pixels stand for themselves: its scale is in the weights that
/// read it.
///
/// The zero is what readers pad or fill the tensor with or subtract from it, or, where it is one of 8 bits, what an
/// output says. Where nothing does, it is the middle of codes `0..=2m`, the range of signed codes, and 0 of others. Any
/// zero is right, as constants make up for it.
pub(super) fn of(model: &IntegerModel) -> Vec<Meaning> {
    let wanted = wanted(model);
    let mut meanings = vec![Meaning { scale: 1.0, zero: 0 }];
    for (i, layer) in model.layers.iter().enumerate() {
        let meaning = match &layer.op {
            IntegerOp::Sum(sum) => {
                let usual = match sum.end {
                    IntegerEnd::Codes | IntegerEnd::Table(_) if layer.hi % 2 == 0 => i64::from(layer.hi) / 2,
                    _ => 0,
                };
                Meaning { scale: layer.scale, zero: wanted[i + 1].unwrap_or(usual) }
            }
            IntegerOp::WindowSum { input, window, padding_code, factors } => {
                let of_code = if window.padding.is_none() && factors.is_empty() {
                    meanings[*input].zero
                } else {
                    i64::from(*padding_code)
                };
                let largest = factors.iter().max().map_or(1, |&factor| i64::from(factor));
                let zero = of_code * (window.kernel[0] * window.kernel[1]) as i64 * largest;
                Meaning { scale: layer.scale, zero }
            }
            IntegerOp::MaxPool { input, .. } | IntegerOp::View(IntegerView { input, .. }) => meanings[*input],
            IntegerOp::Concat { inputs } => meanings[inputs[0]],
        };
        meanings.push(meaning);
    }
    meanings
}

/// The tensor of a view that inserts elements, and what these hold.
fn filled(view: &IntegerView) -> Option<(TensorId, i64)> {
    view.inserts().then_some((view.input, view.fill))
}

/// The zero that readers of each tensor give it.
fn wanted(model: &IntegerModel) -> Vec<Option<i64>> {
    let mut wanted: Vec<Option<i64>> = vec![None; model.layers.len() + 1];
    let is_code = |zero: &i64| u8::try_from(*zero).is_ok();
    for output in model.outputs.iter().filter(|output| model.kind(output.tensor) == TensorKind::Codes) {
        wanted[output.tensor] = Some(output.zero).filter(is_code);
    }
    for (i, layer) in model.layers.iter().enumerate().rev() {
        let own = wanted[i + 1];
        let mut say = |tensor: TensorId, zero: i64| {
            if tensor > 0 {
                wanted[tensor] = Some(zero);
            }
        };
        match &layer.op {
            IntegerOp::Sum(IntegerSum { terms, base, .. }) => {
                base.iter().filter_map(|(view, _)| filled(view)).for_each(|(tensor, zero)| say(tensor, zero));
                for term in terms {
                    match term {
                        IntegerTerm::Product(product) if product.reads_padding() => {
                            say(product.input, product.padding_code.into());
                        }
                        IntegerTerm::Product(_) => {}
                        IntegerTerm::View(view) => {
                            filled(view).into_iter().for_each(|(tensor, zero)| say(tensor, zero))
                        }
                        IntegerTerm::Multiplication { a, b, zeros } => {
                            say(a.input, zeros[0]);
                            say(b.input, zeros[1]);
                        }
                    }
                }
            }
            IntegerOp::WindowSum { input, window, padding_code, factors } => {
                if !window.padding.is_none() || !factors.is_empty() {
                    say(*input, (*padding_code).into());
                }
            }
            IntegerOp::View(view) => match own {
                Some(zero) => say(view.input, zero),
                None => filled(view).into_iter().for_each(|(tensor, zero)| say(tensor, zero)),
            },
            IntegerOp::MaxPool { input, .. } => own.into_iter().for_each(|zero| say(*input, zero)),
            IntegerOp::Concat { inputs } => {
                own.into_iter().for_each(|zero| inputs.iter().for_each(|&input| say(input, zero)));
            }
        }
    }
    wanted
}

/// A sum in real numbers: `sum over terms of value * gain + bias`, where a value of a product is a sum of codes less
/// their zeros times weight codes, that of a view its integers less their zero, and that of a multiplication itself.
pub(super) struct Affine {
    /// Meaning of the result, before the table where there is one.
    pub(super) out: Meaning,
    /// Real value of one unit of each term, `[term][channel]`.
    pub(super) gains: Vec<Vec<f64>>,
    /// Real value that is added, of each channel.
    pub(super) bias: Vec<f64>,
}

/// The sum of layer `i` in real numbers, without rounding.
pub(super) fn affine(model: &IntegerModel, meanings: &[Meaning], i: usize, sum: &IntegerSum) -> Affine {
    let requant = &sum.requant;
    // What a table reads stands for itself.
    let out = match sum.end {
        IntegerEnd::Table(_) => Meaning { scale: 1.0, zero: 0 },
        _ => meanings[i + 1],
    };
    let unit = out.scale / (1u64 << requant.shift) as f64;
    let half = if requant.shift > 0 { 1i64 << (requant.shift - 1) } else { 0 };
    let gains: Vec<Vec<f64>> =
        requant.mul.iter().map(|mul| mul.iter().map(|&m| f64::from(m) * unit).collect()).collect();
    let zero = out.zero as f64 * out.scale;
    let mut bias: Vec<f64> = requant.add.iter().map(|&add| (add - half) as f64 * unit - zero).collect();
    for (term, gains) in sum.terms.iter().zip(&gains) {
        match term {
            IntegerTerm::Product(product) => {
                let zeros = zeros_read(model, meanings, product);
                bias.iter_mut().zip(gains).zip(zeros).for_each(|((bias, gain), zero)| *bias += gain * zero);
            }
            IntegerTerm::View(view) => {
                let zero = meanings[view.input].zero as f64;
                bias.iter_mut().zip(gains).for_each(|(bias, gain)| *bias += gain * zero);
            }
            IntegerTerm::Multiplication { .. } => {}
        }
    }
    for (view, mul) in &sum.base {
        let zero = meanings[view.input].zero as f64;
        bias.iter_mut().for_each(|bias| *bias += f64::from(*mul) * out.scale * zero);
    }
    // What cancels leaves rests.
    if bias.iter().all(|bias| bias.abs() < out.scale * f64::from(f32::EPSILON)) {
        bias.fill(0.0);
    }
    Affine { out, gains, bias }
}

/// The code of zero in what a product reads, where that is not the image: that of its padding.
pub(super) fn zero_of(meanings: &[Meaning], product: &IntegerProduct) -> i64 {
    match product.reads_padding() {
        true => product.padding_code.into(),
        false => meanings[product.input].zero,
    }
}

/// What zeros in place of all inputs of a product give, for each channel, in units of its sums.
fn zeros_read(model: &IntegerModel, meanings: &[Meaning], product: &IntegerProduct) -> Vec<f64> {
    let plane = product.window.kernel[0] * product.window.kernel[1];
    let of_input = zero_of(meanings, product);
    let zero = |o: usize, i: usize| match product.input {
        0 => i64::from(model.input.zero_point[product.first_input(o) + i / plane]),
        _ => of_input,
    };
    let of_channel =
        |o: usize| product.channel(o).iter().enumerate().map(|(i, &q)| zero(o, i) * i64::from(q)).sum::<i64>() as f64;
    (0..product.out_channels).map(of_channel).collect()
}
