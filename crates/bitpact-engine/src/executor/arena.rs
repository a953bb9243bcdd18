//! The memory of one worker, and who lives in it when.

use bitpact_kernels::{Aligned, Layout};
use bitpact_model::{IntegerModel, IntegerOp, TensorId};

/// Where a tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// 8-bit codes in `codes[slot]`.
    Codes { slot: usize, layout: Layout },
    /// Sums of codes in `sums[slot]`.
    Sums { slot: usize, layout: Layout },
    /// The logits.
    Logits,
}

/// The memory of one worker. Border pixels and channels beyond the last hold what padding means, and nothing writes them.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) codes: Vec<Aligned<u8>>,
    pub(super) sums: Vec<Aligned<i32>>,
    /// Subsampled, channel-padded shortcuts.
    pub(super) shortcuts: Vec<Aligned<u8>>,
    /// Accumulators of main and second product, and the high half of a split one.
    pub(super) acc: [Aligned<i32>; 3],
    /// Accumulators that need 64 bits, of main and second product.
    pub(super) wide: [Vec<i64>; 2],
    pub(super) logits: Vec<i64>,
}

/// Border a tensor needs: the largest padding of the products that read it.
fn border(model: &IntegerModel, tensor: TensorId) -> usize {
    let products = model.layers.iter().flat_map(|layer| layer.op.products());
    products.filter(|p| p.input == tensor).map(|p| p.padding).max().unwrap_or(0)
}

/// What the border of each tensor holds: the padding code of the products that read it, which is one.
pub(super) fn padding_codes(model: &IntegerModel) -> Vec<u32> {
    let mut codes = vec![0; model.layers.len() + 1];
    for product in model.layers.iter().flat_map(|layer| layer.op.products()).filter(|p| p.padding > 0) {
        codes[product.input] = product.padding_code;
    }
    codes
}

/// Gives every tensor a place. A slot is used again when its tensor has had its last reader, by a tensor of the same layout
/// and padding code only, so that borders stay as they are.
pub(super) fn places(model: &IntegerModel, padding_codes: &[u32]) -> Vec<Place> {
    let mut places = Vec::new();
    let mut slots: Vec<(Layout, Option<TensorId>)> = Vec::new();
    let mut sums = 0;
    let last_reader =
        |tensor: TensorId| model.layers.iter().rposition(|layer| layer.op.inputs().contains(&tensor)).unwrap_or(0);
    for tensor in 0..=model.layers.len() {
        let shape = model.shape(tensor);
        let layout = match tensor {
            0 if shape.c <= 4 => Layout::with_cs(shape.h, shape.w, shape.c, 4, border(model, 0)),
            _ => Layout::new(shape.h, shape.w, shape.c, border(model, tensor)),
        };
        let place = match tensor.checked_sub(1).map(|layer| &model.layers[layer].op) {
            Some(IntegerOp::Logits { .. }) => Place::Logits,
            Some(IntegerOp::SumPool { .. }) => {
                sums += 1;
                Place::Sums { slot: sums - 1, layout }
            }
            _ => {
                // The layer that writes this tensor is number tensor - 1; it must not overwrite what it reads.
                let is_free = |owner: TensorId| owner > 0 && last_reader(owner) + 1 < tensor;
                let same = |owner: TensorId| padding_codes[owner] == padding_codes[tensor];
                let slot =
                    slots.iter().position(|&(l, owner)| l == layout && owner.is_some_and(|o| is_free(o) && same(o)));
                let slot = slot.unwrap_or_else(|| {
                    slots.push((layout, None));
                    slots.len() - 1
                });
                slots[slot].1 = Some(tensor);
                Place::Codes { slot, layout }
            }
        };
        places.push(place);
    }
    places
}
