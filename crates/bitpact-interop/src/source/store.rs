//! How a network lies in memory: bits of tensors, their places in one arena, and weights as kernels read them.

use bitpact_core::pack::pack;
use bitpact_core::{Bits, Grid};
use bitpact_graph::Shape;
use bitpact_model::{
    IntegerEnd, IntegerLayer, IntegerModel, IntegerOp, IntegerProduct, IntegerTerm, IntegerView, TensorId, TensorKind,
};

use super::Language;

/// Weights of one sum at the most where it is added up in 32 bits: codes and weights are below 256.
const LONGEST: usize = 1 << 15;
/// Tensors begin at multiples of this.
const ALIGNMENT: usize = 4;
/// Codes that the kernels which read bytes take at once, at the most.
const BYTES_AT_ONCE: usize = 64;

/// A tensor in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    /// First byte in the arena; `None` of the image and of outputs that no layer reads, which are the caller's.
    pub at: Option<usize>,
    /// Shape of the tensor.
    pub shape: Shape,
    /// Bits of an element: 1, 2, 4, 8 of codes, 16 unsigned, 32 signed.
    pub bits: u32,
    /// Bytes of a pixel.
    pub pixel: usize,
}

impl Stored {
    fn new(shape: Shape, bits: u32) -> Self {
        Self { at: None, shape, bits, pixel: (shape.c * bits as usize).div_ceil(8) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.shape.h * self.shape.w * self.pixel
    }
}

/// How a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Windows are gathered into columns, and columns multiplied with rows of weights.
    Dense,
    /// Every output reads one input channel.
    Depthwise,
    /// Weight by weight in 64 bits.
    Wide,
}

/// The weights of a product as kernels read them: `value = scale * sum of field * code + offset * sum of codes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    /// How the product is computed.
    pub form: Form,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Bytes behind them that kernels of C may read.
    pub tail: usize,
    /// Bytes of an output channel.
    pub row: usize,
    /// Bits of the planes of a row; 0 behind the last.
    pub planes: [u32; 3],
    /// Factor of the sum of products.
    pub scale: i32,
    /// Factor of the sum of codes.
    pub offset: i32,
    /// First code of its columns for the DSP instructions and for others; first pointer of its taps.
    pub column: [usize; 2],
}

/// A network in memory.
#[derive(Debug)]
pub(super) struct Memory {
    /// Every tensor, the image first.
    pub tensors: Vec<Stored>,
    /// Bytes of the arena.
    pub arena: usize,
    /// Largest number of bytes of tensors that are needed at once.
    pub live: usize,
    /// Weights of every product, `[layer][product]`.
    pub streams: Vec<Vec<Stream>>,
    /// Codes of columns for the DSP instructions (16 bits each) and for others (8 bits each).
    pub columns: [usize; 2],
    /// Pointers of taps.
    pub taps: usize,
    /// Terms of a sum at the most.
    pub terms: usize,
}

impl Memory {
    /// Decides where everything lies.
    pub(super) fn plan(model: &IntegerModel) -> Self {
        let mut tensors = vec![Stored::new(model.input_shape, model.input.bits.into())];
        tensors.extend((0..model.layers.len()).map(|i| Stored::new(model.layers[i].shape, bits(model, i))));
        let (arena, live) = place(model, &mut tensors);
        let mut memory = Self { tensors, arena, live, streams: Vec::new(), columns: [0; 2], taps: 0, terms: 1 };
        for layer in &model.layers {
            let (mut columns, mut taps) = ([0; 2], 0);
            let mut streams = Vec::new();
            for product in layer.op.products() {
                let mut stream = stream(product, memory.tensors[product.input].bits);
                let k = product.weights_per_channel();
                match stream.form {
                    Form::Dense => {
                        stream.column = columns;
                        let planes = stream.planes.iter().filter(|&&bits| bits > 0);
                        columns[0] += planes.map(|bits| 2 * k.next_multiple_of(32 / *bits as usize)).sum::<usize>();
                        columns[1] += 2 * k.next_multiple_of(BYTES_AT_ONCE);
                    }
                    Form::Depthwise => {
                        stream.column = [taps; 2];
                        taps += 2 * k;
                        // A pixel of padding, in codes of 16 bits.
                        columns[0] =
                            columns[0].max(memory.tensors[product.input].pixel.div_ceil(2).next_multiple_of(8));
                    }
                    Form::Wide => {}
                }
                streams.push(stream);
            }
            memory.columns = [0, 1].map(|i| memory.columns[i].max(columns[i]));
            memory.taps = memory.taps.max(taps);
            memory.terms = memory.terms.max(layer.op.sum().map_or(0, |sum| sum.terms.len()));
            memory.streams.push(streams);
        }
        memory
    }

    /// Bytes of memory that the network needs beside the caller's, on a 32-bit machine; of C, with the DSP
    /// instructions.
    pub(super) fn ram(&self, language: Language) -> usize {
        let columns = match language {
            Language::C => 2 * self.columns[0],
            Language::Rust => self.columns[1],
        };
        self.arena + columns + 4 * self.taps + 8 * self.terms
    }
}

/// Bits of an element of a layer's output.
fn bits(model: &IntegerModel, layer: usize) -> u32 {
    let hi = model.layers[layer].hi;
    match model.kind(layer + 1) {
        TensorKind::Wide | TensorKind::Output => 32,
        _ => [1, 2, 4, 8, 16].into_iter().find(|bits| hi < 1 << bits).unwrap_or(32),
    }
}

/// The planes of a weight: widths that instructions take.
fn planes(bits: u8) -> [u32; 3] {
    match bits {
        1 => [1, 0, 0],
        2 => [2, 0, 0],
        3 => [2, 1, 0],
        4 => [4, 0, 0],
        5 => [4, 1, 0],
        6 => [4, 2, 0],
        7 => [4, 2, 1],
        _ => [8, 0, 0],
    }
}

/// The weights of a product that reads elements of `from` bits.
fn stream(product: &IntegerProduct, from: u32) -> Stream {
    let (k, n, bits) = (product.weights_per_channel(), product.group_inputs(), u32::from(product.weight_bits));
    let form = match () {
        () if from > 8 || bits == 16 || k > LONGEST => Form::Wide,
        () if n == 1 && product.groups > 1 => Form::Depthwise,
        () => Form::Dense,
    };
    let is_odd = product.grid == Grid::WithoutZero;
    let scale = if is_odd { 2 } else { 1 };
    // Bytes and words are signed, narrower fields begin at 0.
    let first = if bits < 8 { 1i32 << (bits - 1) } else { 0 };
    let offset = scale - 1 - scale * first;
    let mask = (1u32 << bits) - 1;
    let field = |q: i16| {
        let f = if is_odd { (i32::from(q) - 1) / 2 } else { i32::from(q) };
        // On the grid without zero q - 1 is even.
        (f + first) as u32 & mask
    };
    // Row by row, column by column, and then the channels, as tensors are.
    let taps = product.window.kernel[0] * product.window.kernel[1];
    let at = |o: usize, i: usize| field(product.channel(o)[i % n * taps + i / n]);
    let planes = planes(product.weight_bits);
    let mut bytes = Vec::new();
    let mut row = 0;
    match form {
        Form::Depthwise => {
            let fields: Vec<u32> = (0..k)
                .flat_map(|tap| (0..product.out_channels).map(move |o| (tap, o)))
                .map(|(tap, o)| at(o, tap))
                .collect();
            bytes = pack(&fields, bits);
        }
        Form::Wide => {
            for o in 0..product.out_channels {
                let fields: Vec<u32> = (0..k).map(|i| at(o, i)).collect();
                bytes.extend(pack(&fields, bits));
                row = bytes.len() / (o + 1);
            }
        }
        Form::Dense => {
            for o in 0..product.out_channels {
                let mut shift = 0;
                for plane in planes.into_iter().filter(|&plane| plane > 0) {
                    let fields: Vec<u32> = (0..k).map(|i| at(o, i) >> shift & ((1 << plane) - 1)).collect();
                    bytes.extend(pack(&fields, plane));
                    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
                    shift += plane;
                }
                row = bytes.len() / (o + 1);
            }
        }
    }
    let tail = tail(form, k, bits, planes);
    Stream { form, bytes, tail, row, planes, scale, offset, column: [0; 2] }
}

/// Bytes behind the weights that kernels of C may read: 16 bytes at once of a plane, 2 where it has 1 bit, or 3 for a
/// field.
fn tail(form: Form, k: usize, bits: u32, planes: [u32; 3]) -> usize {
    match form {
        Form::Dense => {
            let (mut row, mut read) = (0, 0);
            for plane in planes.into_iter().filter(|&plane| plane > 0) {
                let bytes = (k * plane as usize).div_ceil(8);
                read = read.max(row + bytes.next_multiple_of(if plane == 1 { 2 } else { 16 }));
                row += bytes.next_multiple_of(ALIGNMENT);
            }
            read.saturating_sub(row)
        }
        _ if bits == 8 => 0,
        _ => 2,
    }
}

/// Tensors that share memory, because each layer but the first writes over what it reads.
struct Buffer {
    tensors: Vec<TensorId>,
    bytes: usize,
    /// First and last layer that needs it.
    from: usize,
    to: usize,
}

/// Gives every tensor its place; returns the bytes of the arena, and how many are needed at once at the most.
fn place(model: &IntegerModel, tensors: &mut [Stored]) -> (usize, usize) {
    let mut last = vec![0; tensors.len()];
    for (i, layer) in model.layers.iter().enumerate() {
        last[i + 1] = i;
        layer.op.inputs().into_iter().for_each(|input| last[input] = i);
    }
    let mut buffers: Vec<Buffer> = Vec::new();
    for (i, layer) in model.layers.iter().enumerate().filter(|(_, layer)| !layer.op.is_output()) {
        let over = overwritten(model, tensors, &last, i, layer)
            .and_then(|input| buffers.iter().position(|buffer| buffer.tensors.last() == Some(&input)));
        match over {
            Some(buffer) => {
                buffers[buffer].tensors.push(i + 1);
                buffers[buffer].to = last[i + 1];
            }
            None => {
                let bytes = tensors[i + 1].bytes().next_multiple_of(ALIGNMENT);
                buffers.push(Buffer { tensors: vec![i + 1], bytes, from: i, to: last[i + 1] });
            }
        }
    }
    let at_once = |i: usize| buffers.iter().filter(|b| b.from <= i && i <= b.to).map(|b| b.bytes).sum::<usize>();
    let live = (0..model.layers.len()).map(at_once).max().unwrap_or(0);
    let mut by_size: Vec<usize> = (0..buffers.len()).collect();
    by_size.sort_by_key(|&b| (usize::MAX - buffers[b].bytes, buffers[b].from));
    let by_time: Vec<usize> = (0..buffers.len()).collect();
    let mut by_end = by_size.clone();
    by_end.sort_by_key(|&b| (usize::MAX - (buffers[b].to - buffers[b].from), buffers[b].from));
    let plans = [by_size, by_time, by_end].map(|order| fill(&buffers, &order));
    let (arena, places) = plans.into_iter().min_by_key(|plan| plan.0).unwrap_or_default();
    for (buffer, at) in buffers.iter().zip(places) {
        buffer.tensors.iter().for_each(|&tensor| tensors[tensor].at = Some(at));
    }
    (arena, live)
}

/// Puts buffers, in this order, to the first place where nothing lies at the same time; returns the end of the last
/// and the place of each.
fn fill(buffers: &[Buffer], order: &[usize]) -> (usize, Vec<usize>) {
    let mut places: Vec<Option<usize>> = vec![None; buffers.len()];
    let mut end = 0;
    for &b in order {
        let buffer = &buffers[b];
        let mut taken: Vec<(usize, usize)> = buffers
            .iter()
            .zip(&places)
            .filter(|(other, _)| other.from <= buffer.to && buffer.from <= other.to)
            .filter_map(|(other, at)| at.map(|at| (at, at + other.bytes)))
            .collect();
        taken.sort_unstable();
        let mut at = 0;
        for (from, to) in taken {
            if at + buffer.bytes <= from {
                break;
            }
            at = at.max(to);
        }
        places[b] = Some(at);
        end = end.max(at + buffer.bytes);
    }
    (end, places.into_iter().map(Option::unwrap_or_default).collect())
}

/// The tensor that a layer may write over: one that it reads for the last time, element by element, in the form in
/// which it writes.
fn overwritten(
    model: &IntegerModel,
    tensors: &[Stored],
    last: &[usize],
    i: usize,
    layer: &IntegerLayer,
) -> Option<TensorId> {
    let IntegerOp::Sum(sum) = &layer.op else { return None };
    if sum.end == IntegerEnd::Output {
        return None;
    }
    let out = tensors[i + 1];
    let is_plain = |view: &IntegerView, input: TensorId| view.input != input || view.moves.is_empty();
    let fits = |input: TensorId| {
        let stored = tensors[input];
        let elementwise = |term: &IntegerTerm| match term {
            IntegerTerm::Product(product) => product.input != input,
            IntegerTerm::View(view) => is_plain(view, input),
            IntegerTerm::Multiplication { a, b, .. } => {
                is_plain(a, input) && is_plain(b, input) && (b.input != input || stored.shape == layer.shape)
            }
        };
        input > 0
            && last[input] == i
            && !model.layers[input - 1].op.is_output()
            && (stored.shape, stored.bits) == (out.shape, out.bits)
            && sum.terms.iter().all(elementwise)
            && sum.base.iter().all(|(view, _)| is_plain(view, input))
    };
    layer.op.inputs().into_iter().find(|&input| fits(input))
}

/// The width of a weight in words, such as `4-bit` or `3-bit (2 + 1)`.
pub(super) fn width(product: &IntegerProduct) -> String {
    let planes: Vec<String> =
        planes(product.weight_bits).iter().filter(|&&bits| bits > 0).map(u32::to_string).collect();
    match Bits::new(product.weight_bits) {
        Some(_) if planes.len() > 1 => format!("{}-bit ({})", product.weight_bits, planes.join(" + ")),
        _ => format!("{}-bit", product.weight_bits),
    }
}
