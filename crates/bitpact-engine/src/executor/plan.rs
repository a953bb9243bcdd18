//! The steps of a network for one image, each with the place of what it reads and writes.

use std::sync::{Mutex, PoisonError};

use bitpact_core::step::Ranges;
use bitpact_kernels::layout::Plain;
use bitpact_kernels::linear::Linear;
use bitpact_kernels::pool2d::Window;
use bitpact_kernels::{
    Aligned, ConvGeometry, FusedLayer, Isa, Layout, Pool, ProductSpec, ScratchSize, Shortcut, StepU8, Unfusable,
    Workers,
};
use bitpact_model::{IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, ModelError};

use super::EngineError;
use super::arena::{Arena, Place, padding_codes, places};
use super::general::GeneralProduct;
use super::layer::{General, Layer};
use super::lock;

/// Images that share a layer's weights.
const TOGETHER: usize = 4;

/// Bytes of weights that stay in a second-level cache from one image to the next.
const CACHE_BYTES: usize = 1 << 20;

/// A network planned for one instruction set.
#[derive(Debug)]
pub(super) struct Plan {
    places: Vec<Place>,
    zero_point: Vec<u8>,
    /// What the border of each tensor but the image holds.
    padding_codes: Vec<u32>,
    layers: Vec<Layer>,
    /// Name of each layer, and the multiplications of its products.
    about: Vec<(String, u64)>,
    classes: usize,
    /// The first of the layers whose weights several images share.
    many_weights: usize,
    scratch: ScratchSize,
    /// Elements of the accumulators in 64 bits.
    wide: [usize; 2],
}

impl Plan {
    /// Plans `model`, which has passed its check, with the kernels of rank `candidate`.
    pub(super) fn new(model: &IntegerModel, isa: Isa, candidate: usize, pool: &Pool) -> Result<Self, EngineError> {
        bitpact_kernels::begin_network();
        let padding_codes = padding_codes(model);
        let mut plan = Self {
            places: places(model, &padding_codes),
            padding_codes,
            zero_point: model.input.zero_point.clone(),
            layers: Vec::new(),
            about: model.layers.iter().map(|layer| (layer.name.clone(), macs(layer))).collect(),
            classes: model.classes(),
            many_weights: 0,
            scratch: ScratchSize::default(),
            wide: [0; 2],
        };
        // Weights are packed by all threads, the layers with the most of them first.
        let mut order: Vec<usize> = (0..model.layers.len()).collect();
        let weights = |i: &usize| model.layers[*i].op.products().map(|product| product.codes.len()).sum::<usize>();
        order.sort_by_key(|i| std::cmp::Reverse(weights(i)));
        let planned: Vec<Mutex<Option<_>>> = order.iter().map(|_| Mutex::new(None)).collect();
        pool.run(order.len(), &|task, _| {
            let layer = plan.layer(model, (isa, candidate), order[task]);
            *lock(&planned[order[task]]) = Some(layer);
        });
        for layer in planned {
            let layer = layer.into_inner().unwrap_or_else(PoisonError::into_inner).expect("every task has run")?;
            plan.scratch = plan.scratch.max(layer.scratch());
            plan.wide = std::array::from_fn(|i| plan.wide[i].max(layer.wide()[i]));
            plan.layers.push(layer);
        }
        plan.many_weights = plan.many_weights();
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
        // Zeros are there already, in memory that is not touched before it is used.
        fn padded<T: Plain + PartialEq>(layout: Layout, code: T) -> Aligned<T> {
            let mut tensor = Aligned::zeroed(layout.len());
            if code != T::default() {
                tensor.chunks_exact_mut(layout.cs).for_each(|pixel| pixel[..layout.c].fill(code));
            }
            tensor
        }
        let (mut codes, mut sums): (Vec<Aligned<u8>>, Vec<Aligned<i32>>) = (Vec::new(), Vec::new());
        for (place, &code) in self.places.iter().zip(&self.padding_codes) {
            match *place {
                Place::Codes { slot, layout } if slot == codes.len() => codes.push(padded(layout, code as u8)),
                Place::Sums { slot, layout } if slot == sums.len() => sums.push(padded(layout, code as i32)),
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
            acc: vec![0; self.classes],
            wide: self.wide.map(|len| vec![0; len]),
            logits: vec![0; self.classes],
        }
    }

    fn layer(&self, model: &IntegerModel, kernels: (Isa, usize), i: usize) -> Result<Layer, EngineError> {
        let layer = &model.layers[i];
        let out = self.places[i + 1];
        match (&layer.op, out) {
            (IntegerOp::Product { main, second, residual, step }, Place::Codes { slot, layout }) => {
                let shortcut = residual.map(|r| {
                    let (slot, layout) = self.codes(r.input);
                    (slot, Shortcut { layout, stride: r.stride, pad_before: r.pad_before })
                });
                if let Some(fused) = self.fused(model, kernels, i, shortcut)? {
                    return Ok(fused);
                }
                let size = [layout.h, layout.w, layout.c];
                let main = self.general(main, size);
                let second = second.as_ref().map(|second| self.general(second, size));
                Ok(Layer::General { main, second, shortcut, step: step.clone(), out: slot, layout })
            }
            (IntegerOp::Logits { main, mul, add }, _) => {
                let (mul, add) = (mul.clone(), add.clone());
                let input = self.places[main.input];
                let (_, x_max) = model.code_range(main.input);
                // The kernel reads the channels of the first pixel.
                if let (Place::Codes { layout, .. } | Place::Sums { layout, .. }, [1, 1], 0, 1) =
                    (input, main.kernel, main.padding, main.groups)
                    && let Some(kernel) = Linear::new(kernels.0, &main.codes, layout.c, x_max)
                {
                    return Ok(Layer::Logits { kernel, input, mul, add });
                }
                let main = self.general(main, [1, 1, main.out_channels]);
                Ok(Layer::GeneralLogits { main, mul, add })
            }
            (&IntegerOp::MaxPool { input, kernel, stride, padding }, Place::Codes { slot, layout }) => {
                let window = Window { kernel, stride, pad: padding };
                Ok(Layer::MaxPool { isa: kernels.0, window, input: self.codes(input), out: (slot, layout) })
            }
            (&IntegerOp::SumPool { input }, Place::Sums { slot, layout }) => {
                Ok(Layer::SumPool { input: self.codes(input), out: (slot, layout) })
            }
            (IntegerOp::Stream { main, second, residual, step, res_mul }, Place::Sums { slot, layout }) => {
                let shortcut = residual.map(|r| {
                    let place = self.places[r.input];
                    let (Place::Codes { layout, .. } | Place::Sums { layout, .. }) = place else {
                        unreachable!("nothing reads the logits");
                    };
                    (place, Shortcut { layout, stride: r.stride, pad_before: r.pad_before })
                });
                let out = (slot, layout);
                if let Some(layer) = self.stream(model, kernels, i, shortcut, out)? {
                    return Ok(layer);
                }
                let size = [layout.h, layout.w, layout.c];
                let main = self.general(main, size);
                let second = second.as_ref().map(|second| self.general(second, size));
                Ok(Layer::GeneralStream { main, second, shortcut, step: step.clone(), res_mul: *res_mul, out })
            }
            (IntegerOp::Act { input, step }, Place::Codes { slot, layout }) => {
                let Place::Sums { slot: from, layout: from_layout } = self.places[*input] else {
                    unreachable!("what an activation reads is wide");
                };
                let acc = vec![model.code_range(*input); layout.c];
                let step = StepU8::new(kernels.0, step, &Ranges { acc: &acc, acc2: &[], res: (0, 0) })
                    .map_err(|source| EngineError::Step { layer: layer.name.clone(), source })?;
                Ok(Layer::Act { step, input: (from, from_layout), out: (slot, layout) })
            }
            (&IntegerOp::WindowSum { input, kernel, stride, padding, .. }, out) => {
                let window = Window { kernel, stride, pad: padding };
                Ok(Layer::WindowSum { window, input: self.codes(input), out })
            }
            (IntegerOp::Concat { inputs }, out) => {
                let inputs = inputs.iter().map(|&i| self.places[i]).collect();
                Ok(Layer::Concat { inputs, out })
            }
            _ => unreachable!("places follow from the ops"),
        }
    }

    /// A residual stream on the kernels; `None` where they cannot compute it.
    fn stream(
        &self,
        model: &IntegerModel,
        (isa, candidate): (Isa, usize),
        i: usize,
        shortcut: Option<(Place, Shortcut)>,
        out: (usize, Layout),
    ) -> Result<Option<Layer>, EngineError> {
        let layer = &model.layers[i];
        let IntegerOp::Stream { main, second, step, res_mul, .. } = &layer.op else { return Ok(None) };
        let Some((main_slot, main_spec)) = self.spec(model, main) else { return Ok(None) };
        let second_spec = match second {
            Some(second) => match self.spec(model, second) {
                Some(spec) => Some(spec),
                None => return Ok(None),
            },
            None => None,
        };
        let ranges = |product: &IntegerProduct| {
            model.acc_ranges(product).map_err(|what| ModelError::Layer { layer: layer.name.clone(), what })
        };
        let acc = ranges(main)?;
        let acc2 = second.as_ref().map_or(Ok(Vec::new()), ranges)?;
        let step = (step, *res_mul, &Ranges { acc: &acc, acc2: &acc2, res: (0, 0) });
        let spec2 = second_spec.as_ref().map(|(_, spec)| spec);
        match FusedLayer::stream(isa, &main_spec, spec2, shortcut.map(|s| s.1), step, out.1, candidate) {
            Ok(fused) => {
                let second = second_spec.map(|(slot, _)| slot);
                let shortcut = shortcut.map(|s| s.0);
                Ok(Some(Layer::Stream { layer: fused, main: main_slot, second, shortcut, out: out.0 }))
            }
            Err(Unfusable::Product) => Ok(None),
            Err(Unfusable::Step(source)) => Err(EngineError::Step { layer: layer.name.clone(), source }),
        }
    }

    /// Slot and layout of a tensor of 8-bit codes.
    fn codes(&self, tensor: usize) -> (usize, Layout) {
        match self.places[tensor] {
            Place::Codes { slot, layout } => (slot, layout),
            _ => unreachable!("the model's check lets only products and activations read sums"),
        }
    }

    /// A product layer on the kernels; `None` where they cannot compute it.
    fn fused(
        &self,
        model: &IntegerModel,
        (isa, candidate): (Isa, usize),
        i: usize,
        shortcut: Option<(usize, Shortcut)>,
    ) -> Result<Option<Layer>, EngineError> {
        let layer = &model.layers[i];
        let (IntegerOp::Product { main, second, residual, step }, Place::Codes { slot: out, layout: y }) =
            (&layer.op, self.places[i + 1])
        else {
            return Ok(None);
        };
        let Some((main_slot, main_spec)) = self.spec(model, main) else { return Ok(None) };
        let second_spec = match second {
            Some(second) => match self.spec(model, second) {
                Some(spec) => Some(spec),
                None => return Ok(None),
            },
            None => None,
        };
        let ranges = |product: &IntegerProduct| {
            model.acc_ranges(product).map_err(|what| ModelError::Layer { layer: layer.name.clone(), what })
        };
        let acc = ranges(main)?;
        let acc2 = second.as_ref().map_or(Ok(Vec::new()), ranges)?;
        let res = residual.map_or((0, 0), |r| model.residual_range(&r));
        let step = (step, &Ranges { acc: &acc, acc2: &acc2, res });
        let second = second_spec.as_ref().map(|(_, spec)| spec);
        match FusedLayer::new(isa, &main_spec, second, shortcut.map(|s| s.1), step, y, candidate) {
            Ok(fused) => {
                let second = second_spec.map(|(slot, _)| slot);
                Ok(Some(Layer::Fused { layer: fused, main: main_slot, second, shortcut: shortcut.map(|s| s.0), out }))
            }
            Err(Unfusable::Product) => Ok(None),
            Err(Unfusable::Step(source)) => Err(EngineError::Step { layer: layer.name.clone(), source }),
        }
    }

    /// A product for the kernels, and the slot it reads; `None` for a product of sums.
    fn spec<'m>(&self, model: &IntegerModel, product: &'m IntegerProduct) -> Option<(usize, ProductSpec<'m>)> {
        let Place::Codes { slot, layout: x } = self.places[product.input] else { return None };
        let geometry = ConvGeometry {
            kh: product.kernel[0],
            kw: product.kernel[1],
            stride: product.stride,
            pad: product.padding,
            cin: product.in_channels,
            cout: product.out_channels,
        };
        let x_max = u8::try_from(model.code_range(product.input).1).unwrap_or(u8::MAX);
        Some((slot, ProductSpec { geometry, x, x_max, groups: product.groups, codes: &product.codes }))
    }

    fn general(&self, product: &IntegerProduct, size: [usize; 3]) -> General {
        let input = self.places[product.input];
        let (Place::Codes { layout, .. } | Place::Sums { layout, .. }) = input else {
            unreachable!("nothing reads the logits");
        };
        let kernel = GeneralProduct::new(product, layout, size);
        General { kernel, input }
    }

    /// The memory a thread needs beside the arena.
    pub(super) fn scratch(&self) -> ScratchSize {
        self.scratch
    }

    /// Every layer's name, kernels and multiplications.
    pub(super) fn layers(&self) -> impl Iterator<Item = (&str, String, u64)> {
        self.about.iter().zip(&self.layers).map(|((name, macs), layer)| (name.as_str(), layer.describe(), *macs))
    }

    /// Bytes of packed weights.
    pub(super) fn weight_bytes(&self) -> usize {
        self.layers.iter().map(Layer::weight_bytes).sum()
    }

    /// The tensor that the last layer writes.
    pub(super) fn last(&self) -> usize {
        self.layers.len()
    }

    /// How many images a thread takes through the layers of [`Plan::many_weights`] together.
    pub(super) fn images_together(&self) -> usize {
        if self.many_weights < self.layers.len() { TOGETHER } else { 1 }
    }

    /// Where the last layers with more bytes of weights than of outputs begin, if those weights have no room in the caches: for several images
    /// they are fetched once.
    fn many_weights(&self) -> usize {
        let outputs = |tensor: usize| match self.places[tensor] {
            Place::Codes { layout, .. } => layout.len(),
            Place::Sums { layout, .. } => 4 * layout.len(),
            Place::Logits => 0,
        };
        let weights = |i: usize| self.layers[i].weight_bytes();
        let has_few = |&i: &usize| (1..outputs(i + 1)).contains(&weights(i));
        let layers = self.layers.len();
        let first = (0..layers).rev().find(has_few).map_or(0, |i| i + 1);
        let is_worth = (first..layers).map(weights).sum::<usize>() > CACHE_BYTES;
        if is_worth { first } else { layers }
    }

    /// Computes an image for each arena; `after` is called after each layer of each with the number of the image and of the tensor written.
    pub(super) fn run(
        &self,
        arenas: &mut [Arena],
        workers: Workers<'_>,
        pixels: &[u8],
        mut after: impl FnMut(usize, usize, &Arena),
    ) {
        for (k, (arena, pixels)) in arenas.iter_mut().zip(pixels.chunks_exact(self.image_len())).enumerate() {
            self.begin(arena, pixels);
            for (i, layer) in self.layers[..self.many_weights].iter().enumerate() {
                layer.run(arena, workers);
                after(k, i + 1, arena);
            }
        }
        for (i, layer) in self.layers.iter().enumerate().skip(self.many_weights) {
            for (k, arena) in arenas.iter_mut().enumerate() {
                layer.run(arena, workers);
                after(k, i + 1, arena);
            }
        }
    }

    /// Takes an image.
    fn begin(&self, arena: &mut Arena, pixels: &[u8]) {
        let (slot, layout) = self.codes(0);
        let image = &mut arena.codes[slot];
        for (y, row) in pixels.chunks_exact(layout.w * layout.c).enumerate() {
            let to = &mut image[layout.offset(y, 0)..];
            if layout.cs == layout.c {
                to[..row.len()].copy_from_slice(row);
                continue;
            }
            for (to, from) in to.chunks_exact_mut(layout.cs).zip(row.chunks_exact(layout.c)) {
                to[..layout.c].copy_from_slice(from);
            }
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

/// Multiplications of a layer's products for one image.
fn macs(layer: &IntegerLayer) -> u64 {
    let outputs = (layer.shape.h * layer.shape.w) as u64;
    layer.op.products().map(|product| outputs * product.codes.len() as u64).sum()
}
