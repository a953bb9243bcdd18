//! One integer layer: a product, perhaps a second one, a shortcut and the requantization, fused strip by strip, so that
//! accumulators never leave the first-level cache.

use std::ops::Range;

use bitpact_core::{Ranges, Requantization, RequantizationError};

use crate::engine::product::{Product, ProductSpec, candidates};
use crate::engine::requant::{BLOCK, RequantI32, RequantU8, Row, StreamRow};
use crate::machine::isa::Isa;
use crate::machine::layout::Layout;
use crate::machine::shares::{Share, Shares};
use crate::machine::workers::{Out, Scratch, ScratchSize, Workers};

/// Multiplications of the blocks that a thread takes at a time: some microseconds of work.
const TASK_MACS: u64 = 1 << 19;

/// Bytes of weights that stay in the second-level cache while a layer runs.
const CACHED_WEIGHTS: usize = 256 << 10;

/// An identity shortcut: pixel (r, q), channel c reads pixel (r * stride, q * stride), channel c - pad_before, and is 0
/// where there is no such channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortcut {
    /// Layout of the tensor that is read.
    pub layout: Layout,
    /// Distance in rows and columns between the pixels that are read.
    pub stride: usize,
    /// Channels of zeros before those of the tensor.
    pub pad_before: usize,
}

/// The tensors that a fused layer reads.
#[derive(Clone, Copy)]
pub struct LayerInputs<'a> {
    /// The tensor of the main product.
    pub main: &'a [u8],
    /// The tensor of the second product, empty without one.
    pub second: &'a [u8],
    /// The tensor of the shortcut, empty without one.
    pub shortcut: &'a [u8],
}

/// The shortcut of a residual stream.
#[derive(Clone, Copy)]
pub enum Base<'a> {
    /// The layer has no shortcut.
    None,
    /// The shortcut is a tensor of codes.
    Codes(&'a [u8]),
    /// The shortcut is another residual stream.
    Stream(&'a [i32]),
}

impl Base<'_> {
    fn len(self) -> usize {
        match self {
            Base::None => 0,
            Base::Codes(codes) => codes.len(),
            Base::Stream(values) => values.len(),
        }
    }
}

/// The kind of numbers that a fused layer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Codes; the shortcut is the last term of the sum.
    Codes,
    /// 32-bit values of a residual stream; the shortcut is added after the shift, times this.
    Wide(i32),
    /// 64-bit values of an output, which nothing shifts; the shortcut is the last term of the sum.
    Output,
}

/// A layer to plan: `y = requant(main(x), second(x2), shortcut)`.
#[derive(Clone, Copy)]
pub struct SumSpec<'a> {
    /// First product of the sum.
    pub main: &'a ProductSpec<'a>,
    /// Another product of the same outputs.
    pub second: Option<&'a ProductSpec<'a>>,
    /// A tensor that is added.
    pub shortcut: Option<Shortcut>,
    /// The requantization; its terms are the products and, where codes are written, the shortcut.
    pub requant: &'a Requantization,
    /// Proved ranges of its terms.
    pub ranges: &'a Ranges,
    /// Kind of numbers that the layer writes.
    pub written: Written,
}

/// From sums to what is written.
#[derive(Debug)]
enum Finish {
    Codes(RequantU8),
    Stream { requant: RequantI32, res_mul: i32 },
    Output(Unshifted),
}

/// The multipliers and constants of an output, by channel.
#[derive(Debug)]
struct Unshifted {
    /// Of the products and the shortcut; a list of a term that the layer does not have is empty.
    mul: [Vec<i64>; 3],
    add: Vec<i64>,
}

impl Unshifted {
    fn new(requant: &Requantization, has_second: bool, has_shortcut: bool) -> Self {
        let mut lists = requant.mul.iter().map(|mul| mul.iter().map(|&mul| mul.into()).collect::<Vec<i64>>());
        let mut list = |exists: bool| if exists { lists.next().expect("a list for each term") } else { Vec::new() };
        Self { mul: [list(true), list(has_second), list(has_shortcut)], add: requant.add.clone() }
    }
}

/// A layer planned for one instruction set.
#[derive(Debug)]
pub struct FusedLayer {
    main: Box<dyn Product>,
    second: Option<Box<dyn Product>>,
    finish: Finish,
    shortcut: Option<Shortcut>,
    y: Layout,
    /// Rows of a strip at most.
    strip: usize,
    /// Rows of a strip begin at multiples of this.
    row_step: usize,
    /// Channels summed at a time.
    block: usize,
    /// Multiplications of one strip and block.
    macs: u64,
}

/// Why a layer cannot be fused.
#[derive(Debug)]
pub enum Unfusable {
    /// No kernel computes a product in 32 bits.
    Product,
    /// The sum could overflow.
    Sum(RequantizationError),
}

impl FusedLayer {
    /// Plans a layer with outputs in `y`, whose channel stride is a multiple of 16. `pick` chooses among the kernels of
    /// each product, the first one being the default; a choice beyond the last is the last.
    ///
    /// # Errors
    /// If no kernel can compute a product, or the sum can overflow.
    ///
    /// # Panics
    /// If the layouts or the terms do not fit each other.
    pub fn new(isa: Isa, sum: &SumSpec<'_>, y: Layout, pick: usize) -> Result<FusedLayer, Unfusable> {
        let SumSpec { main, second, shortcut, requant, ranges, written } = *sum;
        let kernel = |spec: &ProductSpec<'_>| {
            assert_eq!((spec.output(), spec.geometry.cout), ((y.h, y.w), y.c), "output of {spec:?}");
            let mut last = None;
            candidates(isa, spec).take(pick + 1).for_each(|kernel| last = Some(kernel));
            last.ok_or(Unfusable::Product)
        };
        assert_eq!(y.cs, y.c.next_multiple_of(BLOCK), "channel stride of the codes written");
        if let Some(Shortcut { layout, stride, pad_before }) = shortcut {
            assert!(
                stride > 0 && (y.h - 1) * stride < layout.h && (y.w - 1) * stride < layout.w,
                "{layout:?} to {y:?}"
            );
            assert!(pad_before + layout.c <= y.c, "channels of the shortcut");
        }
        let in_sum = usize::from(shortcut.is_some() && !matches!(written, Written::Wide(_)));
        assert_eq!(requant.mul.len(), 1 + usize::from(second.is_some()) + in_sum, "terms of the sum");
        let (main_kernel, second_kernel) = (kernel(main)?, second.map(kernel).transpose()?);
        let finish = match written {
            Written::Codes => RequantU8::new(isa, requant, ranges, second.is_some()).map(Finish::Codes),
            Written::Wide(res_mul) => RequantI32::new(isa, requant, ranges, second.is_some())
                .map(|requant| Finish::Stream { requant, res_mul }),
            Written::Output => requant
                .largest_sum(ranges)
                .map(|_| Finish::Output(Unshifted::new(requant, second.is_some(), shortcut.is_some()))),
        };
        let finish = finish.map_err(Unfusable::Sum)?;
        let kernels = || [Some(&main_kernel), second_kernel.as_ref()].into_iter().flatten();
        let row_step = kernels().map(|k| k.row_step()).max().unwrap_or(1);
        let block = kernels().map(|k| k.block()).max().unwrap_or(BLOCK);
        let strip_pixels = kernels().map(|k| k.strip_pixels()).max().unwrap_or(1);
        let strip = (strip_pixels / y.w).clamp(1, y.h).next_multiple_of(row_step);
        let macs = (main.macs() + second.map_or(0, |s| s.macs())) * (strip * block) as u64 / (y.h * y.c) as u64;
        Ok(FusedLayer { main: main_kernel, second: second_kernel, finish, shortcut, y, strip, row_step, block, macs })
    }

    /// Names of the kernels and of the requantization's arithmetic.
    pub fn describe(&self) -> String {
        let second = self.second.as_ref().map_or(String::new(), |second| format!(" + {}", second.name()));
        let requant = match &self.finish {
            Finish::Codes(requant) => format!("requant {}", requant.arithmetic()),
            Finish::Stream { requant, .. } => format!("stream {}", requant.arithmetic()),
            Finish::Output(_) => "output i64".to_owned(),
        };
        format!("{}{second}, {requant}", self.main.name())
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.main.weight_bytes() + self.second.as_ref().map_or(0, |second| second.weight_bytes())
    }

    /// The memory a thread needs.
    pub fn scratch(&self) -> ScratchSize {
        let prepared = |kernel: &dyn Product| kernel.scratch_bytes(self.strip);
        let acc = |kernel: &dyn Product| self.acc_len(kernel, self.strip);
        ScratchSize {
            prepared: [prepared(&*self.main), self.second.as_ref().map_or(0, |second| prepared(&**second))],
            acc: [acc(&*self.main), self.second.as_ref().map_or(0, |second| acc(&**second))],
            res: self.y.w * BLOCK,
            base: self.y.w * BLOCK,
        }
    }

    /// Accumulators of so many rows of one block.
    fn acc_len(&self, kernel: &dyn Product, rows: usize) -> usize {
        (rows * (self.y.w + kernel.row_gap()) - kernel.row_gap()) * self.block
    }

    /// Accumulators of one block from one row to the next, those of the second product too.
    fn acc_rows(&self) -> [usize; 2] {
        let row = |kernel: &dyn Product| (self.y.w + kernel.row_gap()) * self.block;
        [row(&*self.main), self.second.as_ref().map_or(0, |second| row(&**second))]
    }

    /// Writes the interior pixels of `y`, zeros in channels beyond the last.
    ///
    /// # Panics
    /// If a length is wrong, a scratch memory too small, or the layer a stream.
    pub fn run(&self, workers: Workers<'_>, inputs: LayerInputs<'_>, y: &mut [u8]) {
        let Finish::Codes(requant) = &self.finish else { panic!("the layer gives no codes") };
        assert_eq!(y.len(), self.y.len(), "codes written");
        assert_eq!(inputs.shortcut.len(), self.shortcut.map_or(0, |s| s.layout.len()), "codes of the shortcut");
        let out = Out::new(y);
        self.tasks(workers, inputs, &|rows, first, acc, res, _| {
            self.codes(requant, inputs.shortcut, rows, first, acc, res, &out)
        });
    }

    /// Writes the 32-bit values of a residual stream as [`FusedLayer::run`] writes codes; `inputs` has no shortcut,
    /// `base` has it.
    ///
    /// # Panics
    /// If a length is wrong, a scratch memory too small, or the layer gives codes.
    pub fn run_stream(&self, workers: Workers<'_>, inputs: LayerInputs<'_>, base: Base<'_>, y: &mut [i32]) {
        let Finish::Stream { requant, res_mul } = &self.finish else { panic!("the layer gives no stream") };
        assert_eq!(y.len(), self.y.len(), "values written");
        assert_eq!(base.len(), self.shortcut.map_or(0, |s| s.layout.len()), "values of the shortcut");
        let out = Out::new(y);
        self.tasks(workers, inputs, &|rows, first, (acc, acc2), _, gathered| {
            let [acc_row, acc2_row] = self.acc_rows();
            for (i, r) in rows.enumerate() {
                let gathered = &mut gathered[..self.y.w * BLOCK];
                let (base, base_stride): (&[i32], usize) = match (&self.shortcut, base) {
                    (Some(s), Base::Stream(x))
                        if (s.stride, s.pad_before, *res_mul) == (1, 0, 1) && first + BLOCK <= s.layout.cs =>
                    {
                        (&x[s.layout.offset(r, 0) + first..], s.layout.cs)
                    }
                    (Some(s), Base::Codes(x)) => {
                        s.gather(x, r, first, gathered, |code| i32::from(code).wrapping_mul(*res_mul));
                        (gathered, BLOCK)
                    }
                    (Some(s), Base::Stream(x)) => {
                        s.gather(x, r, first, gathered, |value: i32| value.wrapping_mul(*res_mul));
                        (gathered, BLOCK)
                    }
                    _ => (&[], 0),
                };
                let acc2 = if acc2.is_empty() { acc2 } else { &acc2[i * acc2_row..] };
                let acc = &acc[i * acc_row..];
                let row = StreamRow { pixels: self.y.w, acc, acc2, stride: self.block, base, base_stride };
                let y = out.row(self.y.offset(r, 0) + first, (self.y.w - 1) * self.y.cs + BLOCK);
                requant.run(first / BLOCK, row, |pixel, values| {
                    let y = y.wrapping_add(pixel * self.y.cs);
                    // SAFETY: `out.row` has checked the length, and no other task has this row and block.
                    unsafe { y.cast::<[i32; BLOCK]>().write_unaligned(values) };
                });
            }
        });
    }

    /// Writes the 64-bit values of an output, `[row][column][channel]` without gaps; `inputs` has no shortcut, `base`
    /// has it.
    ///
    /// # Panics
    /// If a length is wrong, a scratch memory too small, or the layer gives no output.
    pub fn run_output(&self, workers: Workers<'_>, inputs: LayerInputs<'_>, base: Base<'_>, y: &mut [i64]) {
        let Finish::Output(Unshifted { mul, add }) = &self.finish else { panic!("the layer gives no output") };
        let channels = self.y.c;
        assert_eq!(y.len(), self.y.h * self.y.w * channels, "values written");
        assert_eq!(base.len(), self.shortcut.map_or(0, |s| s.layout.len()), "values of the shortcut");
        let out = Out::new(y);
        self.tasks(workers, inputs, &|rows, first, (acc, acc2), _, gathered| {
            let [acc_row, acc2_row] = self.acc_rows();
            let of_block = first..(first + BLOCK).min(channels);
            let n = of_block.len();
            for (i, r) in rows.enumerate() {
                let gathered = &mut gathered[..self.y.w * BLOCK];
                match (&self.shortcut, base) {
                    (Some(s), Base::Codes(x)) => s.gather(x, r, first, gathered, i32::from),
                    (Some(s), Base::Stream(x)) => s.gather(x, r, first, gathered, |value| value),
                    _ => {}
                }
                for q in 0..self.y.w {
                    let at = (r * self.y.w + q) * channels + first;
                    // SAFETY: `out.row` has checked the length, and no other task has this row and block.
                    let y = unsafe { std::slice::from_raw_parts_mut(out.row(at, n), n) };
                    y.copy_from_slice(&add[of_block.clone()]);
                    let terms = [
                        (&acc[i * acc_row + q * self.block..], &mul[0]),
                        (acc2.get(i * acc2_row + q * self.block..).unwrap_or_default(), &mul[1]),
                        (&gathered[q * BLOCK..], &mul[2]),
                    ];
                    for (values, mul) in terms.into_iter().filter(|(_, mul)| !mul.is_empty()) {
                        for ((y, &value), &mul) in y.iter_mut().zip(values).zip(&mul[of_block.clone()]) {
                            *y += i64::from(value) * mul;
                        }
                    }
                }
            }
        });
    }

    /// Shares the layer out; `finish` gets rows, the first of 16 channels, their accumulators and scratch memory.
    fn tasks(&self, workers: Workers<'_>, inputs: LayerInputs<'_>, finish: FinishRows<'_>) {
        let (threads, blocks) = (workers.threads(), self.y.cs.div_ceil(self.block));
        let (strips, grain) = match threads {
            1 => (self.y.h.div_ceil(self.strip), blocks),
            _ => (self.strips_for(threads), TASK_MACS.div_ceil(self.macs.max(1)).min(blocks as u64) as usize),
        };
        let steps = self.y.h.div_ceil(self.row_step);
        let begin = |strip: usize| (strip * steps / strips * self.row_step).min(self.y.h);
        let shares = Shares::new(threads, strips, blocks, grain);
        workers.each(strips * blocks.div_ceil(grain), &|worker, scratch| {
            let mut last: Option<Share> = None;
            while let Some(share) = shares.take(worker, last.as_ref()) {
                let rows = begin(share.strip)..begin(share.strip + 1);
                if last.is_none_or(|last| last.strip != share.strip) {
                    self.prepare(inputs, rows.clone(), scratch);
                }
                self.blocks(inputs, rows, share.blocks.clone(), scratch, finish);
                last = Some(share);
            }
        });
    }

    /// Strips for several threads: as many for each where there are rows enough, unless weights from beyond the caches
    /// would come once more for it.
    fn strips_for(&self, threads: usize) -> usize {
        let (strips, steps) = (self.y.h.div_ceil(self.strip), self.y.h.div_ceil(self.row_step));
        let even = strips.next_multiple_of(threads);
        if even <= steps && self.weight_bytes() <= CACHED_WEIGHTS { even } else { strips }
    }

    /// What all blocks of some rows share.
    fn prepare(&self, inputs: LayerInputs<'_>, rows: Range<usize>, scratch: &mut Scratch) {
        let [prepared, prepared2] = &mut scratch.prepared;
        self.main.prepare(inputs.main, rows.clone(), &mut prepared[..self.main.scratch_bytes(self.strip)]);
        if let Some(second) = &self.second {
            second.prepare(inputs.second, rows, &mut prepared2[..second.scratch_bytes(self.strip)]);
        }
    }

    /// Some blocks of rows that are prepared.
    fn blocks(
        &self,
        inputs: LayerInputs<'_>,
        rows: Range<usize>,
        blocks: Range<usize>,
        scratch: &mut Scratch,
        finish: FinishRows<'_>,
    ) {
        let Scratch { prepared: [prepared, prepared2], acc: [acc, acc2], res, base } = scratch;
        let prepared = &mut prepared[..self.main.scratch_bytes(self.strip)];
        for block in blocks {
            let channels = block * self.block..(block + 1) * self.block;
            let acc = &mut acc[..self.acc_len(&*self.main, rows.len())];
            self.main.accumulate(inputs.main, prepared, rows.clone(), channels.clone(), acc);
            let acc2: &[i32] = match &self.second {
                Some(second) => {
                    let prepared = &mut prepared2[..second.scratch_bytes(self.strip)];
                    let acc2 = &mut acc2[..self.acc_len(&**second, rows.len())];
                    second.accumulate(inputs.second, prepared, rows.clone(), channels.clone(), acc2);
                    acc2
                }
                None => &[],
            };
            for first in channels.step_by(BLOCK).take_while(|&c| c < self.y.cs) {
                let within = first - block * self.block;
                let acc2 = if acc2.is_empty() { acc2 } else { &acc2[within..] };
                finish(rows.clone(), first, (&acc[within..], acc2), res, base);
            }
        }
    }

    /// The codes of 16 channels from `first`.
    fn codes(
        &self,
        requant: &RequantU8,
        shortcut: &[u8],
        rows: Range<usize>,
        first: usize,
        (acc, acc2): (&[i32], &[i32]),
        gathered: &mut [u8],
        out: &Out<'_, u8>,
    ) {
        let [acc_row, acc2_row] = self.acc_rows();
        for (i, r) in rows.enumerate() {
            let (res, res_stride): (&[u8], usize) = match &self.shortcut {
                Some(s) if s.stride == 1 && s.pad_before == 0 && first + BLOCK <= s.layout.cs => {
                    (&shortcut[s.layout.offset(r, 0) + first..], s.layout.cs)
                }
                Some(s) => {
                    let gathered = &mut gathered[..self.y.w * BLOCK];
                    s.gather(shortcut, r, first, gathered, |code| code);
                    (gathered, BLOCK)
                }
                None => (&[], 0),
            };
            let row = Row {
                pixels: self.y.w,
                acc: &acc[i * acc_row..],
                acc2: if acc2.is_empty() { acc2 } else { &acc2[i * acc2_row..] },
                stride: self.block,
                res,
                res_stride,
                y: out.row(self.y.offset(r, 0) + first, (self.y.w - 1) * self.y.cs + BLOCK),
                y_stride: self.y.cs,
            };
            // SAFETY: `out.row` has checked the length, and no other task has this row and block.
            unsafe { requant.run(first / BLOCK, row) };
        }
    }
}

impl Shortcut {
    /// The code or value of one output pixel and channel.
    pub fn code<T: Copy + Default>(&self, x: &[T], r: usize, q: usize, c: usize) -> T {
        match c.checked_sub(self.pad_before) {
            Some(c) if c < self.layout.c => x[self.layout.offset(r * self.stride, q * self.stride) + c],
            _ => T::default(),
        }
    }

    /// Takes 16 channels from `first` of the pixels of an output row through `f` to `to[pixel][16]`.
    fn gather<T: Copy, U: Copy + Default>(&self, x: &[T], r: usize, first: usize, to: &mut [U], f: impl Fn(T) -> U) {
        let Shortcut { layout, stride, pad_before } = *self;
        // Channels of the block that the shortcut has.
        let from = pad_before.max(first);
        let until = (pad_before + layout.c).min(first + BLOCK).max(from);
        let row = layout.offset(r * stride, 0);
        for (q, to) in to.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            *to = [U::default(); BLOCK];
            if from == until {
                continue;
            }
            let pixel = &x[row + q * stride * layout.cs..][..layout.cs];
            let pixel = &pixel[from - pad_before..until - pad_before];
            to[from - first..until - first].iter_mut().zip(pixel).for_each(|(to, &x)| *to = f(x));
        }
    }
}

/// Takes rows, the first of 16 channels, accumulators of both products, and memory for a shortcut.
type FinishRows<'a> = &'a (dyn Fn(Range<usize>, usize, (&[i32], &[i32]), &mut [u8], &mut [i32]) + Sync);
