//! The memory of one worker, and who lives in it when.

use bitpact_graph::Window;
use bitpact_kernels::{Aligned, Layout};
use bitpact_model::{IntegerModel, IntegerOp, IntegerProduct, IntegerTerm, TensorId, TensorKind};

/// Where a tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// 8-bit codes in `codes[slot]`.
    Codes { slot: usize, layout: Layout },
    /// Sums of codes, or a residual stream, in `wide[slot]`.
    Wide { slot: usize, layout: Layout },
    /// An output of the network that nothing reads, in `outputs[slot]`, without gaps.
    Output { slot: usize },
}

impl Place {
    /// Layout of a tensor that layers read.
    pub(super) fn layout(&self) -> Layout {
        match *self {
            Place::Codes { layout, .. } | Place::Wide { layout, .. } => layout,
            Place::Output { .. } => unreachable!("nothing reads the output"),
        }
    }
}

/// The memory of one worker. Border pixels and channels beyond the last hold what padding means, and nothing writes
/// them.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) codes: Vec<Aligned<u8>>,
    pub(super) wide: Vec<Aligned<i32>>,
    /// Accumulators of an output.
    pub(super) acc: Vec<i32>,
    pub(super) outputs: Vec<Vec<i64>>,
}

/// The padding of a window that the kernels of products take: square strides, the same padding on every side, nothing
/// between the elements.
pub(super) fn plain_padding(window: &Window) -> Option<usize> {
    let n = window.padding.top;
    let is_plain = *window == Window { kernel: window.kernel, ..Window::square(1, window.stride[0], n) };
    is_plain.then_some(n)
}

/// Products that read padding in the border of their input, and how wide it is.
fn bordered(model: &IntegerModel) -> impl Iterator<Item = (&IntegerProduct, usize)> {
    let products = model.layers.iter().flat_map(|layer| layer.op.products());
    products.filter_map(|p| plain_padding(&p.window).filter(|n| *n > 0).map(|n| (p, n)))
}

/// Border a tensor needs: the largest padding of the products that read it.
fn border(model: &IntegerModel, tensor: TensorId) -> usize {
    bordered(model).filter(|(p, _)| p.input == tensor).map(|(_, padding)| padding).max().unwrap_or(0)
}

/// Channel stride of the image: few channels lie without gaps where every window has rows of at least four codes.
fn image_stride(model: &IntegerModel) -> usize {
    let channels = model.input_shape.c;
    let mut products = model.layers.iter().flat_map(|layer| layer.op.products()).filter(|p| p.input == 0);
    if channels < 16 && products.all(|p| p.window.kernel[1] * channels >= 4) {
        channels
    } else if channels <= 4 {
        4
    } else {
        channels.next_multiple_of(16)
    }
}

/// Code in the border of each tensor: the padding code of the products that read the tensor, which all share one.
pub(super) fn padding_codes(model: &IntegerModel) -> Vec<u32> {
    let mut codes = vec![0; model.layers.len() + 1];
    bordered(model).for_each(|(product, _)| codes[product.input] = product.padding_code);
    codes
}

/// Gives every tensor a place. A slot is used again when its tensor has had its last reader, by a tensor of the same
/// layout and padding code only, so that borders stay as they are.
pub(super) fn places(model: &IntegerModel, padding_codes: &[u32]) -> Vec<Place> {
    let mut places = Vec::new();
    let mut code_slots: Vec<(Layout, Option<TensorId>)> = Vec::new();
    let mut wide_slots: Vec<(Layout, Option<TensorId>)> = Vec::new();
    let last_reader =
        |tensor: TensorId| model.layers.iter().rposition(|layer| layer.op.inputs().contains(&tensor)).unwrap_or(0);
    let mut outputs = 0;
    for tensor in 0..=model.layers.len() {
        let shape = model.shape(tensor);
        let layout = match tensor {
            0 => Layout::with_cs(shape.h, shape.w, shape.c, image_stride(model), border(model, 0)),
            _ => Layout::new(shape.h, shape.w, shape.c, border(model, tensor)),
        };
        let is_wide = match model.kind(tensor) {
            TensorKind::Output => {
                places.push(Place::Output { slot: outputs });
                outputs += 1;
                continue;
            }
            TensorKind::Codes => false,
            TensorKind::Image => model.input.code_bytes() > 1,
            TensorKind::Wide => true,
            TensorKind::Sums => !sums_are_codes(model, tensor),
        };
        let slots = if is_wide { &mut wide_slots } else { &mut code_slots };
        // The layer that writes this tensor is number tensor - 1; it must not overwrite what it reads.
        let is_free = |owner: TensorId| owner > 0 && last_reader(owner) + 1 < tensor;
        let same = |owner: TensorId| padding_codes[owner] == padding_codes[tensor];
        let slot = slots.iter().position(|&(l, owner)| l == layout && owner.is_some_and(|o| is_free(o) && same(o)));
        let slot = slot.unwrap_or_else(|| {
            slots.push((layout, None));
            slots.len() - 1
        });
        slots[slot].1 = Some(tensor);
        places.push(if is_wide { Place::Wide { slot, layout } } else { Place::Codes { slot, layout } });
    }
    places
}

/// Tells whether sums over windows are so small that they fit in 8 bits, and only products read them: as codes.
fn sums_are_codes(model: &IntegerModel, tensor: TensorId) -> bool {
    let reads_as_product = |op: &IntegerOp| match op {
        IntegerOp::Sum(sum) => {
            let terms = sum.terms.iter().filter(|term| term.inputs().contains(&tensor));
            terms.into_iter().all(|term| matches!(term, IntegerTerm::Product(_)))
                && sum.base.iter().all(|(view, _)| view.input != tensor)
        }
        _ => false,
    };
    let readers = || model.layers.iter().filter(|layer| layer.op.inputs().contains(&tensor));
    matches!(model.layers[tensor - 1].op, IntegerOp::WindowSum { .. })
        && model.code_range(tensor).1 <= 255
        && readers().all(|layer| reads_as_product(&layer.op))
}
