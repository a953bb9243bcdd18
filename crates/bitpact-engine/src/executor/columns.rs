//! Everything that a window sees as the channels of one pixel: products whose windows the kernels do not take run on
//! those of 1x1.

use bitpact_kernels::{Aligned, Layout, Workers};
use bitpact_model::{IntegerModel, IntegerOp, IntegerProduct, IntegerTerm};

use super::arena::{Place, plain_padding};

/// The copy of one product's windows, `[input channel][row][column]` at each output position.
#[derive(Debug)]
pub(super) struct Columns {
    /// Slot of the codes that are read, and of the copy.
    input: usize,
    pub(super) slot: usize,
    pub(super) layout: Layout,
    /// Position in the input of every element, or [`PADDING`].
    map: Vec<u32>,
    /// The code of padding by channel of the copy.
    fill: Vec<u8>,
}

/// A position that is padding.
const PADDING: u32 = u32::MAX;

/// Slots of copies beside those of tensors: their layouts, and for each product of each layer which it uses.
#[derive(Debug, Default)]
pub(super) struct ColumnSlots {
    first: usize,
    pub(super) layouts: Vec<Layout>,
    of: Vec<(String, usize)>,
}

impl ColumnSlots {
    /// Gives every product that needs one a slot of which no other product of its layer has need.
    pub(super) fn new(model: &IntegerModel, places: &[Place]) -> Self {
        let slots = places.iter().map(|place| if let Place::Codes { slot, .. } = place { slot + 1 } else { 0 });
        let mut found = Self { first: slots.max().unwrap_or(0), ..Self::default() };
        for layer in &model.layers {
            let IntegerOp::Sum(sum) = &layer.op else { continue };
            let mut taken = Vec::new();
            for product in sum.terms.iter().filter_map(IntegerTerm::product) {
                if plain_padding(&product.window).is_some() || !matches!(places[product.input], Place::Codes { .. }) {
                    continue;
                }
                let [rows, columns] = product.window.kernel;
                let layout = Layout::new(layer.shape.h, layer.shape.w, product.in_channels * rows * columns, 0);
                let free = (0..found.layouts.len()).find(|at| found.layouts[*at] == layout && !taken.contains(at));
                let at = free.unwrap_or_else(|| {
                    found.layouts.push(layout);
                    found.layouts.len() - 1
                });
                taken.push(at);
                found.of.push((product.name.clone(), at));
            }
        }
        found
    }

    /// The copy of a product's windows over the tensor at `place`; none where the kernels take its window, or nothing
    /// was set aside.
    pub(super) fn columns(&self, model: &IntegerModel, product: &IntegerProduct, place: Place) -> Option<Columns> {
        let at = self.of.iter().find(|(name, _)| *name == product.name)?.1;
        let Place::Codes { slot: input, layout: from } = place else { return None };
        let (layout, shape, window) = (self.layouts[at], model.shape(product.input), &product.window);
        let taps: usize = window.kernel.iter().product();
        let mut map = Vec::with_capacity(layout.h * layout.w * layout.c);
        for (y, x) in (0..layout.h).flat_map(|y| (0..layout.w).map(move |x| (y, x))) {
            for c in 0..layout.c {
                let source = window.column_source(shape, (y, x, c));
                map.push(source.map_or(PADDING, |(y, x, c)| (from.offset(y, x) + c) as u32));
            }
        }
        let code = |c: usize| match product.input {
            0 => model.input.zero_point[c / taps] as u8,
            _ => product.padding_code as u8,
        };
        Some(Columns { input, slot: self.first + at, layout, map, fill: (0..layout.c).map(code).collect() })
    }
}

impl Columns {
    /// Copies what the windows see.
    pub(super) fn run(&self, codes: &mut [Aligned<u8>], workers: Workers<'_>) {
        let mut to = std::mem::take(&mut codes[self.slot]);
        let (x, layout) = (&codes[self.input], self.layout);
        workers.each_row(&mut to, layout, &|r, row| {
            let maps = self.map[r * layout.w * layout.c..].chunks_exact(layout.c);
            for (pixel, map) in row.chunks_exact_mut(layout.cs).zip(maps) {
                for ((to, &at), &fill) in pixel.iter_mut().zip(map).zip(&self.fill) {
                    *to = if at == PADDING { fill } else { x[at as usize] };
                }
            }
        });
        codes[self.slot] = to;
    }
}
