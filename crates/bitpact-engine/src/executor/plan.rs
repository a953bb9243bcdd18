//! The steps of a network for one image, each with the place of what it reads and writes.

use std::sync::{Mutex, PoisonError};

use bitpact_core::Requantization;
use bitpact_graph::Move;
use bitpact_kernels::layout::Plain;
use bitpact_kernels::linear::Linear;
use bitpact_kernels::pool2d;
use bitpact_kernels::{
    Aligned, ConvGeometry, FusedLayer, Isa, Layout, Pool, ProductSpec, RequantU8, ScratchSize, Shortcut, SumSpec,
    Unfusable, WeightArena, Workers, Written,
};
use bitpact_model::{
    InputDescription, IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerSum, IntegerTerm,
    IntegerView, ModelError,
};

use super::EngineError;
use super::arena::{Arena, Place, padding_codes, places, plain_padding};
use super::columns::{ColumnSlots, Columns};
use super::general::{GeneralSum, View};
use super::layer::Layer;
use super::lock;
use super::table::Tables;

/// Images that share a layer's weights.
const TOGETHER: usize = 4;

/// Bytes of weights that stay in a second-level cache from one image to the next.
const CACHE_BYTES: usize = 1 << 20;

/// The choices that hold for the plan of every layer.
#[derive(Clone, Copy)]
struct Kernels<'a> {
    isa: Isa,
    /// Rank of the kernel to pick.
    candidate: usize,
    arena: &'a WeightArena,
}

/// A product for the kernels.
struct Read<'m> {
    slot: usize,
    spec: ProductSpec<'m>,
    columns: Option<Columns>,
}

/// A network planned for one instruction set.
#[derive(Debug)]
pub(super) struct Plan {
    places: Vec<Place>,
    columns: ColumnSlots,
    input: InputDescription,
    /// What the border of each tensor but the image holds.
    padding_codes: Vec<u32>,
    layers: Vec<Layer>,
    /// Name of each layer, and the multiplications of its products.
    about: Vec<(String, u64)>,
    /// Tensor and number of values of each output, the main one first.
    outputs: Vec<(usize, usize)>,
    /// The first of the layers whose weights several images share.
    many_weights: usize,
    scratch: ScratchSize,
}

impl Plan {
    /// Plans `model`, which has passed its check, with the kernels of rank `candidate`.
    pub(super) fn new(model: &IntegerModel, isa: Isa, candidate: usize, pool: &Pool) -> Result<Self, EngineError> {
        let arena = WeightArena::new();
        let kernels = Kernels { isa, candidate, arena: &arena };
        let padding_codes = padding_codes(model);
        let places = places(model, &padding_codes);
        let mut plan = Self {
            columns: ColumnSlots::new(model, &places),
            places,
            padding_codes,
            input: model.input.clone(),
            layers: Vec::new(),
            about: model.layers.iter().map(|layer| (layer.name.clone(), macs(layer))).collect(),
            outputs: model.outputs.iter().map(|o| (o.tensor, model.shape(o.tensor).elements())).collect(),
            many_weights: 0,
            scratch: ScratchSize::default(),
        };
        // Weights are packed by all threads, the layers with the most of them first.
        let mut order: Vec<usize> = (0..model.layers.len()).collect();
        let weights = |i: &usize| model.layers[*i].op.products().map(|product| product.codes.len()).sum::<usize>();
        order.sort_by_key(|i| std::cmp::Reverse(weights(i)));
        let planned: Vec<Mutex<Option<_>>> = order.iter().map(|_| Mutex::new(None)).collect();
        pool.run(order.len(), &|task, _| {
            let layer = plan.layer(model, kernels, order[task]);
            *lock(&planned[order[task]]) = Some(layer);
        });
        for layer in planned {
            let layer = layer.into_inner().unwrap_or_else(PoisonError::into_inner).expect("every task has run")?;
            plan.scratch = plan.scratch.max(layer.scratch());
            plan.layers.push(layer);
        }
        plan.many_weights = plan.many_weights();
        Ok(plan)
    }

    pub(super) fn image_len(&self) -> usize {
        let layout = self.places[0].layout();
        layout.h * layout.w * layout.c * self.input.code_bytes()
    }

    /// Tensor and number of values of each output, the main one first.
    pub(super) fn outputs(&self) -> &[(usize, usize)] {
        &self.outputs
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
        let (mut codes, mut wide): (Vec<Aligned<u8>>, Vec<Aligned<i32>>) = (Vec::new(), Vec::new());
        for (place, &code) in self.places.iter().zip(&self.padding_codes) {
            match *place {
                Place::Codes { slot, layout } if slot == codes.len() => codes.push(padded(layout, code as u8)),
                Place::Wide { slot, layout } if slot == wide.len() => wide.push(padded(layout, code as i32)),
                _ => {}
            }
        }
        codes.extend(self.columns.layouts.iter().map(|layout| Aligned::zeroed(layout.len())));
        match self.places[0] {
            Place::Codes { slot, layout } => {
                let zeros = self.input.zero_bytes();
                codes[slot].chunks_exact_mut(layout.cs).for_each(|pixel| pixel[..layout.c].copy_from_slice(&zeros));
            }
            Place::Wide { slot, layout } => {
                let zeros = || self.input.zero_point.iter().map(|&zero| i32::from(zero));
                wide[slot].chunks_exact_mut(layout.cs).for_each(|pixel| {
                    pixel[..layout.c].iter_mut().zip(zeros()).for_each(|(to, zero)| *to = zero);
                });
            }
            Place::Output { .. } => {}
        }
        let len = |tensor: usize| self.outputs.iter().find(|output| output.0 == tensor).map_or(0, |output| output.1);
        let ends = self.places.iter().enumerate().filter(|(_, place)| matches!(place, Place::Output { .. }));
        let outputs: Vec<Vec<i64>> = ends.map(|(tensor, _)| vec![0; len(tensor)]).collect();
        let acc = vec![0; outputs.iter().map(Vec::len).max().unwrap_or(0)];
        Arena { codes, wide, acc, outputs }
    }

    /// Bytes that one worker takes at the most: its arenas and its scratch memory.
    pub(super) fn worker_bytes(&self) -> u64 {
        let (mut codes, mut wide, mut arena) = (0, 0, 0);
        for place in &self.places {
            let (slots, slot, layout, bytes) = match *place {
                Place::Codes { slot, layout } => (&mut codes, slot, layout, 1),
                Place::Wide { slot, layout } => (&mut wide, slot, layout, 4),
                Place::Output { .. } => continue,
            };
            if slot == *slots {
                *slots += 1;
                arena += (bytes * layout.len()) as u64;
            }
        }
        arena * self.images_together() as u64 + self.scratch.bytes() as u64
    }

    fn layer(&self, model: &IntegerModel, kernels: Kernels<'_>, i: usize) -> Result<Layer, EngineError> {
        let layer = &model.layers[i];
        let out = self.places[i + 1];
        match (&layer.op, out) {
            (IntegerOp::Sum(sum), _) => self.sum(model, kernels, layer, sum, out),
            (IntegerOp::MaxPool { input, window }, place) => {
                let any_pool = || Ok(Layer::AnyMaxPool { window: *window, input: self.places[*input], out: place });
                let Place::Codes { slot, layout } = place else { return any_pool() };
                let (input, out) = (self.codes(*input), (slot, layout));
                match plain_padding(window)
                    .filter(|_| window.kernel[0] == window.kernel[1] && layout.cs.is_multiple_of(16))
                {
                    Some(pad) if input.1.cs == layout.cs => {
                        let window = pool2d::Window { kernel: window.kernel[0], stride: window.stride[0], pad };
                        Ok(Layer::MaxPool { isa: kernels.isa, window, input, out })
                    }
                    _ => any_pool(),
                }
            }
            (IntegerOp::WindowSum { input, window, padding_code, factors }, out) => Ok(Layer::WindowSum {
                window: *window,
                padding_code: *padding_code,
                factors: factors.clone(),
                input: self.codes(*input),
                out,
            }),
            (IntegerOp::Concat { inputs }, out) => {
                Ok(Layer::Concat { inputs: inputs.iter().map(|&i| self.places[i]).collect(), out })
            }
            (IntegerOp::View(view), out) => Ok(Layer::View { view: View::new(model, &self.places, view), out }),
        }
    }

    /// A sum on the fastest kernels that take its form.
    fn sum(
        &self,
        model: &IntegerModel,
        kernels: Kernels<'_>,
        layer: &IntegerLayer,
        sum: &IntegerSum,
        out: Place,
    ) -> Result<Layer, EngineError> {
        if let Some((tables, codes)) = Tables::of(sum)
            && !matches!(sum.terms[..], [IntegerTerm::View(ref view)] if self.is_codes_as_they_are(view))
        {
            let layer = self.sum(model, kernels, layer, &codes, out)?;
            if !matches!(layer, Layer::General { .. }) {
                return Ok(Layer::Tabled { layer: Box::new(layer), tables });
            }
        }
        let fast = match (&sum.end, &sum.terms[..]) {
            (IntegerEnd::Codes | IntegerEnd::Table(_), [IntegerTerm::View(view)])
                if self.is_codes_as_they_are(view) =>
            {
                Some(Layer::Lookup { tables: Tables::of_codes(sum), input: self.codes(view.input), out })
            }
            (IntegerEnd::Output, [IntegerTerm::Product(product)])
                if let Some(linear) = self.linear(model, kernels, layer, (sum, out), product) =>
            {
                Some(linear)
            }
            (IntegerEnd::Codes, [IntegerTerm::View(view)]) => {
                self.requant(model, kernels.isa, layer, sum, view, out)?
            }
            (IntegerEnd::Table(_), _) => None,
            _ => self.fused(model, kernels, layer, sum, out)?,
        };
        let general = || {
            let general = GeneralSum::new(model, &self.places, sum);
            Layer::General { sum: general, shape: layer.shape, out }
        };
        Ok(fast.unwrap_or_else(general))
    }

    fn is_codes_as_they_are(&self, view: &IntegerView) -> bool {
        view.moves.is_empty() && matches!(self.places[view.input], Place::Codes { .. })
    }

    /// One product over the channels of one pixel, whose sums fit in 32 bits.
    fn linear(
        &self,
        model: &IntegerModel,
        kernels: Kernels<'_>,
        layer: &IntegerLayer,
        (sum, out): (&IntegerSum, Place),
        product: &IntegerProduct,
    ) -> Option<Layer> {
        // The kernel reads the channels of the first pixel.
        let is_pixel = product.window.kernel == [1, 1] && !product.reads_padding() && product.groups == 1;
        if !is_pixel || (layer.shape.h, layer.shape.w) != (1, 1) {
            return None;
        }
        let input = self.places[product.input];
        let (_, x_max) = model.code_range(product.input);
        let kernel = Linear::new(kernels.isa, &product.codes, input.layout().c, x_max, kernels.arena)?;
        Some(Layer::Linear { kernel, input, mul: sum.requant.mul[0].clone(), add: sum.requant.add.clone(), out })
    }

    /// A tensor of 32 bits as it is, to codes.
    fn requant(
        &self,
        model: &IntegerModel,
        isa: Isa,
        layer: &IntegerLayer,
        sum: &IntegerSum,
        view: &IntegerView,
        out: Place,
    ) -> Result<Option<Layer>, EngineError> {
        let (Place::Wide { slot, layout: from }, Place::Codes { slot: to, layout }) = (self.places[view.input], out)
        else {
            return Ok(None);
        };
        if !view.moves.is_empty() {
            return Ok(None);
        }
        let ranges = ranges(model, layer, sum)?;
        let requant = RequantU8::new(isa, &sum.requant, &ranges, false)
            .map_err(|source| EngineError::Step { layer: layer.name.clone(), source })?;
        Ok(Some(Layer::Requant { requant, input: (slot, from), out: (to, layout) }))
    }

    /// One or two products and a shortcut on the kernels; `None` where they do not take the sum.
    fn fused(
        &self,
        model: &IntegerModel,
        kernels: Kernels<'_>,
        layer: &IntegerLayer,
        sum: &IntegerSum,
        out: Place,
    ) -> Result<Option<Layer>, EngineError> {
        let Some(form) = FusedForm::of(sum) else { return Ok(None) };
        let spec = |product| self.spec(model, product, kernels.arena);
        let Some(specs) = form.products.iter().map(|product| spec(product.1)).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let (mut products, mut columns) = ([None; 2], Vec::new());
        let mut specs_read = Vec::with_capacity(2);
        for (slot, read) in products.iter_mut().zip(specs) {
            *slot = Some(read.slot);
            columns.extend(read.columns);
            specs_read.push(read.spec);
        }
        let mut specs_read = specs_read.into_iter();
        let Some(main) = specs_read.next() else { return Ok(None) };
        let second = specs_read.next();
        let mut shortcut = None;
        if let Some((view, _)) = form.shortcut {
            let place = self.places[view.input];
            let is_read = matches!(place, Place::Codes { .. }) || sum.end != IntegerEnd::Codes;
            let Some(found) = as_shortcut(view, place.layout()).filter(|_| is_read) else { return Ok(None) };
            shortcut = Some((place, found));
        }
        // Terms in the kernels' order.
        let in_sum = form.shortcut.filter(|_| sum.end != IntegerEnd::Wide).map(|(_, term)| term as usize);
        let order: Vec<usize> = form.products.iter().map(|(term, _)| *term).chain(in_sum).collect();
        let all = ranges(model, layer, sum)?;
        let ranges: Vec<_> = order.iter().map(|&term| all[term].clone()).collect();
        let mul = order.iter().map(|&term| sum.requant.mul[term].clone()).collect();
        let requant = Requantization { mul, ..sum.requant.clone() };
        let written = match (&sum.end, form.shortcut) {
            (IntegerEnd::Codes, _) => Written::Codes,
            (IntegerEnd::Output, _) => Written::Output,
            (_, shortcut) => Written::Wide(shortcut.map_or(0, |(_, mul)| mul)),
        };
        let spec = SumSpec {
            main: &main,
            second: second.as_ref(),
            shortcut: shortcut.map(|(_, shortcut)| shortcut),
            requant: &requant,
            ranges: &ranges,
            written,
        };
        let written = Layout::new(layer.shape.h, layer.shape.w, layer.shape.c, 0);
        let layout = if matches!(out, Place::Output { .. }) { written } else { out.layout() };
        match FusedLayer::new(kernels.isa, &spec, layout, kernels.candidate) {
            Ok(fused) => {
                let shortcut = shortcut.map(|(place, _)| place);
                Ok(Some(Layer::Fused { layer: fused, columns, products, shortcut, out }))
            }
            Err(Unfusable::Product) => Ok(None),
            Err(Unfusable::Sum(source)) => Err(EngineError::Step { layer: layer.name.clone(), source }),
        }
    }

    /// Slot and layout of a tensor of 8-bit codes.
    fn codes(&self, tensor: usize) -> (usize, Layout) {
        match self.places[tensor] {
            Place::Codes { slot, layout } => (slot, layout),
            _ => unreachable!("the model's check lets only sums and views read what is no code"),
        }
    }

    /// A product for the kernels, the slot it reads and the copy that fills it; `None` for a product of sums or with a
    /// window of another form.
    fn spec<'m>(&self, model: &IntegerModel, product: &'m IntegerProduct, arena: &'m WeightArena) -> Option<Read<'m>> {
        let Place::Codes { slot, layout } = self.places[product.input] else { return None };
        let window = &product.window;
        let columns = self.columns.columns(model, product, self.places[product.input]);
        let geometry = ConvGeometry {
            kh: window.kernel[0],
            kw: window.kernel[1],
            stride: window.stride[0],
            pad: plain_padding(window).or(columns.as_ref().map(|_| 0))?,
            cin: product.in_channels,
            cout: product.out_channels,
        };
        let (slot, x, geometry) = match &columns {
            None => (slot, layout, geometry),
            // Weights of one pixel are in the same order.
            Some(columns) => {
                let cin = columns.layout.c;
                (columns.slot, columns.layout, ConvGeometry { kh: 1, kw: 1, stride: 1, cin, ..geometry })
            }
        };
        let x_max = u8::try_from(model.code_range(product.input).1).unwrap_or(u8::MAX);
        let spec = ProductSpec { geometry, x, x_max, groups: product.groups, codes: &product.codes, arena };
        Some(Read { slot, spec, columns })
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

    /// How many images a thread takes through the layers of [`Plan::many_weights`] together.
    pub(super) fn images_together(&self) -> usize {
        if self.many_weights < self.layers.len() { TOGETHER } else { 1 }
    }

    /// First of the last layers with more bytes of weights than of outputs, if those weights have no room in the
    /// caches: for several images they are fetched once.
    fn many_weights(&self) -> usize {
        let outputs = |tensor: usize| match self.places[tensor] {
            Place::Codes { layout, .. } => layout.len(),
            Place::Wide { layout, .. } => 4 * layout.len(),
            Place::Output { .. } => 0,
        };
        let weights = |i: usize| self.layers[i].weight_bytes();
        let has_few = |&i: &usize| (1..outputs(i + 1)).contains(&weights(i));
        let layers = self.layers.len();
        let first = (0..layers).rev().find(has_few).map_or(0, |i| i + 1);
        let is_worth = (first..layers).map(weights).sum::<usize>() > CACHE_BYTES;
        if is_worth { first } else { layers }
    }

    /// Computes an image for each arena; `after` is called after each layer of each with the number of the image and of
    /// the tensor written.
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
        let (slot, layout) = match self.places[0] {
            Place::Wide { slot, layout } => {
                let pixels_of = (0..layout.h).flat_map(|y| (0..layout.w).map(move |x| layout.offset(y, x)));
                let mut codes = self.input.codes(pixels);
                for at in pixels_of {
                    arena.wide[slot][at..at + layout.c].iter_mut().zip(&mut codes).for_each(|(to, q)| *to = q.into());
                }
                return;
            }
            _ => self.codes(0),
        };
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
        let len = match self.places[tensor] {
            Place::Codes { layout, .. } | Place::Wide { layout, .. } => layout.h * layout.w * layout.c,
            Place::Output { slot } => arena.outputs[slot].len(),
        };
        let mut values = vec![0; len];
        self.copy(arena, tensor, &mut values);
        values
    }

    /// Copies the values of a tensor, NHWC without padding.
    pub(super) fn copy(&self, arena: &Arena, tensor: usize, to: &mut [i64]) {
        fn dense<T: Copy + Into<i64>>(values: &[T], layout: Layout, to: &mut [i64]) {
            let pixels = (0..layout.h).flat_map(|y| (0..layout.w).map(move |x| layout.offset(y, x)));
            for (at, to) in pixels.zip(to.chunks_exact_mut(layout.c)) {
                to.iter_mut().zip(&values[at..]).for_each(|(to, &value)| *to = value.into());
            }
        }
        match self.places[tensor] {
            Place::Codes { slot, layout } => dense(&arena.codes[slot], layout, to),
            Place::Wide { slot, layout } => dense(&arena.wide[slot], layout, to),
            Place::Output { slot } => to.copy_from_slice(&arena.outputs[slot]),
        }
    }
}

/// The products and the shortcut of a sum that the fused kernels take.
struct FusedForm<'a> {
    /// One or two products, each with the number of its term.
    products: Vec<(usize, &'a IntegerProduct)>,
    /// The number of its term, or what it is multiplied by where it is added after the shift.
    shortcut: Option<(&'a IntegerView, i32)>,
}

impl<'a> FusedForm<'a> {
    /// `None` for other terms, or more of them.
    fn of(sum: &'a IntegerSum) -> Option<Self> {
        let (mut products, mut shortcuts) = (Vec::new(), Vec::new());
        for (i, term) in sum.terms.iter().enumerate() {
            match term {
                IntegerTerm::Product(product) => products.push((i, product)),
                IntegerTerm::View(view) if sum.end != IntegerEnd::Wide => shortcuts.push((view, i as i32)),
                _ => return None,
            }
        }
        shortcuts.extend(sum.base.iter().map(|(view, mul)| (view, *mul)));
        let fits = (1..=2).contains(&products.len()) && shortcuts.len() <= 1;
        fits.then(|| Self { products, shortcut: shortcuts.pop() })
    }
}

/// A view as the kernels read it: every so many pixels, channels of 0 beside.
fn as_shortcut(view: &IntegerView, layout: Layout) -> Option<Shortcut> {
    if view.fill != 0 {
        return None;
    }
    match *view.moves {
        [] => Some(Shortcut { layout, stride: 1, pad_before: 0 }),
        [Move::Stride { rows, columns }] if rows == columns => Some(Shortcut { layout, stride: rows, pad_before: 0 }),
        [Move::Insert { top: 0, left: 0, bottom: 0, right: 0, before, .. }] => {
            Some(Shortcut { layout, stride: 1, pad_before: before })
        }
        [Move::Stride { rows, columns }, Move::Insert { top: 0, left: 0, bottom: 0, right: 0, before, .. }]
            if rows == columns =>
        {
            Some(Shortcut { layout, stride: rows, pad_before: before })
        }
        _ => None,
    }
}

/// Proved ranges of the terms of a sum.
fn ranges(model: &IntegerModel, layer: &IntegerLayer, sum: &IntegerSum) -> Result<Vec<Vec<(i64, i64)>>, EngineError> {
    let ranges = model.term_ranges(sum, layer.shape.c);
    ranges.map_err(|what| ModelError::Layer { layer: layer.name.clone(), what }.into())
}

/// Multiplications of a layer's products for one image.
fn macs(layer: &IntegerLayer) -> u64 {
    let outputs = (layer.shape.h * layer.shape.w) as u64;
    layer.op.products().map(|product| outputs * product.codes.len() as u64).sum()
}
