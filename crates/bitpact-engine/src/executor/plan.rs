//! The steps of a network for one image, each with the place of what it reads and writes.

use bitpact_core::step::Ranges;
use bitpact_kernels::pool2d::Window;
use bitpact_kernels::{Aligned, Isa, Layout, StepU8};
use bitpact_model::{IntegerModel, IntegerOp, IntegerProduct, ModelError};

use super::EngineError;
use super::arena::{Arena, Place, padding_codes, places};
use super::general::GeneralProduct;
use super::layer::{Copied, Layer, Product, Residual};
use super::product::ConvProduct;

/// A network planned for one instruction set.
#[derive(Debug)]
pub(super) struct Plan {
    places: Vec<Place>,
    zero_point: Vec<u8>,
    /// What the border of each tensor but the image holds.
    padding_codes: Vec<u32>,
    layers: Vec<Layer>,
    classes: usize,
    /// Layouts of the shortcuts.
    shortcuts: Vec<Layout>,
    /// Elements of the accumulators, and of those in 64 bits.
    acc: [usize; 3],
    wide: [usize; 2],
}

impl Plan {
    /// Plans `model`, which has passed its check.
    pub(super) fn new(model: &IntegerModel, isa: Isa) -> Result<Self, EngineError> {
        let padding_codes = padding_codes(model);
        let mut plan = Self {
            places: places(model, &padding_codes),
            padding_codes,
            zero_point: model.input.zero_point.clone(),
            layers: Vec::new(),
            classes: model.classes(),
            shortcuts: Vec::new(),
            acc: [0; 3],
            wide: [0; 2],
        };
        for i in 0..model.layers.len() {
            let layer = plan.layer(model, isa, i)?;
            plan.layers.push(layer);
        }
        Ok(plan)
    }

    pub(super) fn image_len(&self) -> usize {
        match self.places[0] {
            Place::Codes { layout, .. } | Place::Sums { layout, .. } => layout.h * layout.w * layout.c,
            Place::Logits => 0,
        }
    }

    pub(super) fn classes(&self) -> usize {
        self.classes
    }

    /// All memory of one worker, the image's border filled with its zero point.
    pub(super) fn arena(&self) -> Arena {
        let (mut codes, mut sums): (Vec<Aligned<u8>>, Vec<Aligned<i32>>) = (Vec::new(), Vec::new());
        for (place, &padding_code) in self.places.iter().zip(&self.padding_codes) {
            match *place {
                Place::Codes { slot, layout } if slot == codes.len() => {
                    let mut padded = Aligned::zeroed(layout.len());
                    padded.chunks_exact_mut(layout.cs).for_each(|pixel| pixel[..layout.c].fill(padding_code as u8));
                    codes.push(padded);
                }
                Place::Sums { layout, .. } => {
                    let mut padded = Aligned::zeroed(layout.len());
                    padded.chunks_exact_mut(layout.cs).for_each(|pixel| pixel[..layout.c].fill(padding_code as i32));
                    sums.push(padded);
                }
                _ => {}
            }
        }
        if let Place::Codes { slot, layout } = self.places[0] {
            for pixel in codes[slot].chunks_exact_mut(layout.cs) {
                pixel[..layout.c].copy_from_slice(&self.zero_point);
            }
        }
        Arena {
            codes,
            sums,
            shortcuts: self.shortcuts.iter().map(|layout| Aligned::zeroed(layout.len())).collect(),
            acc: self.acc.map(Aligned::zeroed),
            wide: self.wide.map(|len| vec![0; len]),
            logits: vec![0; self.classes],
        }
    }

    fn layer(&mut self, model: &IntegerModel, isa: Isa, i: usize) -> Result<Layer, EngineError> {
        let layer = &model.layers[i];
        let out = self.places[i + 1];
        match (&layer.op, out) {
            (IntegerOp::Product { main, second, residual, step }, Place::Codes { slot, layout }) => {
                let res_range = residual.map_or((0, 0), |r| model.residual_range(&r));
                let residual = residual.map(|r| {
                    let (slot, from) = self.codes(r.input);
                    let is_plain = r.stride == 1 && from.c == layout.c;
                    let copy = (!is_plain).then(|| {
                        self.shortcuts.push(Layout::new(layout.h, layout.w, layout.c, 0));
                        let shortcut = self.shortcuts.len() - 1;
                        Copied {
                            shortcut,
                            layout: self.shortcuts[shortcut],
                            stride: r.stride,
                            pad_before: r.pad_before,
                        }
                    });
                    Residual { slot, layout: from, copy }
                });
                let acc = Layout::new(layout.h, layout.w, layout.c, 0);
                let first = self.conv(isa, model, main, acc);
                let other = second.as_ref().map(|second| self.conv(isa, model, second, acc));
                let (Some(first), other @ (None | Some(Some(_)))) = (first, other) else {
                    let size = [layout.h, layout.w, layout.c];
                    let main = self.general(main, size, 0);
                    let second = second.as_ref().map(|second| self.general(second, size, 1));
                    return Ok(Layer::General { main, second, residual, step: step.clone(), out: slot, layout });
                };
                self.acc[0] = self.acc[0].max(acc.len());
                if other.is_some() {
                    self.acc[1] = self.acc[1].max(acc.len());
                }
                let ranges = |product: &IntegerProduct| {
                    let what = |what| ModelError::Layer { layer: layer.name.clone(), what };
                    model.acc_ranges(product).map_err(what)
                };
                let acc2 = second.as_ref().map_or(Ok(Vec::new()), ranges)?;
                let ranges = Ranges { acc: &ranges(main)?, acc2: &acc2, res: res_range };
                let res = residual.map(|r| r.copy.map_or(r.layout, |copy| copy.layout));
                let step = StepU8::new(isa, step, &ranges, acc, res, layout)
                    .map_err(|source| EngineError::Step { layer: layer.name.clone(), source })?;
                Ok(Layer::Fused { main: first, second: other.flatten(), residual, step, acc_len: acc.len(), out: slot })
            }
            (IntegerOp::Logits { main, mul, add }, _) => {
                let (mul, add) = (mul.clone(), add.clone());
                let acc = Layout::new(1, 1, main.out_channels, 0);
                if let Some(main) = self.conv(isa, model, main, acc) {
                    self.acc[0] = self.acc[0].max(acc.len());
                    return Ok(Layer::Logits { main, mul, add, acc_len: acc.len() });
                }
                let main = self.general(main, [1, 1, main.out_channels], 0);
                Ok(Layer::GeneralLogits { main, mul, add })
            }
            (&IntegerOp::MaxPool { input, kernel, stride, padding }, Place::Codes { slot, layout }) => {
                let window = Window { kernel, stride, pad: padding };
                Ok(Layer::MaxPool { window, input: self.codes(input), out: (slot, layout) })
            }
            (&IntegerOp::SumPool { input }, Place::Sums { slot, layout }) => {
                Ok(Layer::SumPool { input: self.codes(input), out: (slot, layout) })
            }
            _ => unreachable!("places follow from the ops"),
        }
    }

    /// Slot and layout of a tensor of 8-bit codes.
    fn codes(&self, tensor: usize) -> (usize, Layout) {
        match self.places[tensor] {
            Place::Codes { slot, layout } => (slot, layout),
            _ => unreachable!("the model's check lets only products read sums"),
        }
    }

    fn conv(
        &mut self,
        isa: Isa,
        model: &IntegerModel,
        product: &IntegerProduct,
        y: Layout,
    ) -> Option<Product<ConvProduct>> {
        let input = self.places[product.input];
        let Place::Codes { layout, .. } = input else { return None };
        let kernel = ConvProduct::new(isa, model, product, layout, y)?;
        if kernel.is_split() {
            self.acc[2] = self.acc[2].max(y.len());
        }
        Some(Product { kernel, input })
    }

    fn general(&mut self, product: &IntegerProduct, size: [usize; 3], which: usize) -> Product<GeneralProduct> {
        let input = self.places[product.input];
        let (Place::Codes { layout, .. } | Place::Sums { layout, .. }) = input else {
            unreachable!("nothing reads the logits");
        };
        let kernel = GeneralProduct::new(product, layout, size);
        self.wide[which] = self.wide[which].max(kernel.len());
        Product { kernel, input }
    }

    /// Computes one image; `after` is called after each layer with the number of the tensor it wrote.
    pub(super) fn run(&self, arena: &mut Arena, pixels: &[u8], mut after: impl FnMut(usize, &Arena)) {
        let (slot, layout) = self.codes(0);
        let image = &mut arena.codes[slot];
        for (y, row) in pixels.chunks_exact(layout.w * layout.c).enumerate() {
            let at = layout.offset(y, 0);
            for (to, from) in image[at..].chunks_exact_mut(layout.cs).zip(row.chunks_exact(layout.c)) {
                to[..layout.c].copy_from_slice(from);
            }
        }
        for (i, layer) in self.layers.iter().enumerate() {
            layer.run(arena);
            after(i + 1, arena);
        }
    }

    /// The values of a tensor, NHWC without padding.
    pub(super) fn read(&self, arena: &Arena, tensor: usize) -> Vec<i64> {
        fn dense<T: Copy + Into<i64>>(values: &[T], layout: Layout) -> Vec<i64> {
            let pixels = (0..layout.h).flat_map(|y| (0..layout.w).map(move |x| layout.offset(y, x)));
            pixels.flat_map(|at| values[at..at + layout.c].iter().map(|&v| v.into())).collect()
        }
        match self.places[tensor] {
            Place::Codes { slot, layout } => dense(&arena.codes[slot], layout),
            Place::Sums { slot, layout } => dense(&arena.sums[slot], layout),
            Place::Logits => arena.logits.clone(),
        }
    }
}
