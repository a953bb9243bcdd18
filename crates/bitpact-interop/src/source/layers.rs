//! Sums as the kernels of every language compute them.

use bitpact_model::{IntegerModel, IntegerProduct, IntegerSum, IntegerTerm, IntegerView};

use super::ends::once;
use super::store::{Form, Memory, Stream};

/// A term of a sum.
pub(super) struct Term<'a> {
    /// The multiplier of every channel, or the one of all.
    pub mul: &'a [i32],
    /// What is multiplied.
    pub what: What<'a>,
}

/// What a term computes.
pub(super) enum What<'a> {
    /// A convolution or linear layer and its weights in memory.
    Product(&'a IntegerProduct, &'a Stream),
    /// A view of a tensor.
    View(&'a IntegerView),
    /// `(a - zeros[0]) * (b - zeros[1])`.
    Multiplication {
        /// The first factor.
        a: &'a IntegerView,
        /// The second factor.
        b: &'a IntegerView,
        /// The code of each that stands for zero.
        zeros: [i64; 2],
        /// Whether the second factor is one pixel, which stands for every pixel.
        is_one_pixel: bool,
    },
}

/// The terms of `sum`, which is layer `i`.
pub(super) fn terms<'a>(model: &IntegerModel, memory: &'a Memory, i: usize, sum: &'a IntegerSum) -> Vec<Term<'a>> {
    let mut streams = memory.streams[i].iter();
    let shape = |view: &IntegerView| bitpact_graph::moved_shape(model.shape(view.input), &view.moves).ok();
    let term = |(term, mul): (&'a IntegerTerm, &'a Vec<i32>)| {
        let what = match term {
            // There is a stream for each product.
            IntegerTerm::Product(product) => What::Product(product, streams.next()?),
            IntegerTerm::View(view) => What::View(view),
            IntegerTerm::Multiplication { a, b, zeros } => {
                What::Multiplication { a, b, zeros: *zeros, is_one_pixel: shape(a) != shape(b) }
            }
        };
        Some(Term { mul: once(mul), what })
    };
    sum.terms.iter().zip(&sum.requant.mul).filter_map(term).collect()
}

/// Channels that are computed at once: 2, or 1 where groups of a product that gathers its windows have an odd number.
pub(super) fn channels_at_once(terms: &[Term<'_>]) -> usize {
    let is_odd = |term: &Term<'_>| match term.what {
        What::Product(product, stream) => {
            stream.form == Form::Dense && product.groups > 1 && product.out_channels / product.groups % 2 == 1
        }
        _ => false,
    };
    if terms.iter().any(is_odd) { 1 } else { 2 }
}

/// Whether a product reads padding of the image, which differs by channel.
pub(super) fn pads_image(product: &IntegerProduct) -> bool {
    product.input == 0 && product.reads_padding()
}
