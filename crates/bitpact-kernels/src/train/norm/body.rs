//! The loops behind [`super`], written once and compiled for every instruction set. Blocks of 16 channels outside,
//! pixels inside: the sums of a block stay in registers, and one pixel of a block is one cache line of float32.

use bitpact_core::{
    ActQuant, act_backward_channel_lanes, act_backward_lanes, quantize_act, quantize_act_sign, quantize_act_signed,
};

use super::gradient::Gradient;
use super::{BLOCK, Coefficients, UnitSums};
use crate::machine::layout::Layout;

pub(super) type Lanes = [f32; BLOCK];

/// `a*b + c`, in one rounding where the instruction set has it.
#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
pub(super) fn lanes<T>(slice: &[T]) -> &[[T; BLOCK]] {
    slice.as_chunks::<BLOCK>().0
}

#[inline(always)]
pub(super) fn lanes_mut<T>(slice: &mut [T]) -> &mut [[T; BLOCK]] {
    slice.as_chunks_mut::<BLOCK>().0
}

/// Index, in blocks, of channel block `block` of pixel (y, 0), and blocks from one pixel to the next.
#[inline(always)]
fn row(layout: &Layout, y: usize, block: usize) -> (usize, usize) {
    (layout.offset(y, 0) / BLOCK + block, layout.cs / BLOCK)
}

/// An accumulator element.
pub(super) trait Acc: Copy {
    fn real(self) -> f32;
}

impl Acc for i32 {
    #[inline(always)]
    fn real(self) -> f32 {
        self as f32
    }
}

impl Acc for f32 {
    #[inline(always)]
    fn real(self) -> f32 {
        self
    }
}

/// Something added to u.
pub(super) trait Residual: Copy {
    fn add<const FMA: bool>(&self, y: usize, x: usize, block: usize, u: &mut Lanes);
}

#[derive(Clone, Copy)]
pub(super) struct NoResidual;

impl Residual for NoResidual {
    #[inline(always)]
    fn add<const FMA: bool>(&self, _: usize, _: usize, _: usize, _: &mut Lanes) {}
}

#[derive(Clone, Copy)]
pub(super) struct CodeResidual<'a> {
    codes: &'a [[u8; BLOCK]],
    layout: Layout,
    step: f32,
    zero: u8,
}

impl<'a> CodeResidual<'a> {
    pub(super) fn new(codes: &'a [u8], layout: Layout, step: f32, zero: u8) -> Self {
        Self { codes: lanes(codes), layout, step, zero }
    }
}

impl Residual for CodeResidual<'_> {
    #[inline(always)]
    fn add<const FMA: bool>(&self, y: usize, x: usize, block: usize, u: &mut Lanes) {
        let (start, step) = row(&self.layout, y, block);
        let codes = &self.codes[start + x * step];
        for i in 0..BLOCK {
            let code = i16::from(codes[i]) - i16::from(self.zero);
            u[i] = fma::<FMA>(f32::from(code), self.step, u[i]);
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Real<'a> {
    values: &'a [Lanes],
    layout: Layout,
}

impl<'a> Real<'a> {
    pub(super) fn new(values: &'a [f32], layout: Layout) -> Self {
        Self { values: lanes(values), layout }
    }
}

impl Residual for Real<'_> {
    #[inline(always)]
    fn add<const FMA: bool>(&self, y: usize, x: usize, block: usize, u: &mut Lanes) {
        let (start, step) = row(&self.layout, y, block);
        let values = &self.values[start + x * step];
        for i in 0..BLOCK {
            u[i] += values[i];
        }
    }
}

/// The largest code of each channel.
pub(super) trait Limit: Copy {
    fn of(&self, block: usize) -> Lanes;
}

/// One for all.
impl Limit for f32 {
    #[inline(always)]
    fn of(&self, _: usize) -> Lanes {
        [*self; BLOCK]
    }
}

/// One a channel.
impl Limit for &[Lanes] {
    #[inline(always)]
    fn of(&self, block: usize) -> Lanes {
        self[block]
    }
}

/// Where u goes.
pub(super) trait Sink {
    fn put(&mut self, y: usize, x: usize, block: usize, u: Lanes);
}

pub(super) struct Codes<'a, L> {
    codes: &'a mut [[u8; BLOCK]],
    layout: Layout,
    inverse_scale: f32,
    limit: L,
}

impl<'a, L> Codes<'a, L> {
    pub(super) fn new(codes: &'a mut [u8], layout: Layout, inverse_scale: f32, limit: L) -> Self {
        Self { codes: lanes_mut(codes), layout, inverse_scale, limit }
    }
}

impl<L: Limit> Sink for Codes<'_, L> {
    #[inline(always)]
    fn put(&mut self, y: usize, x: usize, block: usize, u: Lanes) {
        let (start, step) = row(&self.layout, y, block);
        let out = &mut self.codes[start + x * step];
        let limit = self.limit.of(block);
        for i in 0..BLOCK {
            out[i] = quantize_act(u[i], self.inverse_scale, limit[i]);
        }
    }
}

pub(super) struct SignedCodes<'a, L> {
    codes: &'a mut [[u8; BLOCK]],
    layout: Layout,
    inverse_scale: f32,
    /// The code that is added to all.
    zero: u8,
    limit: L,
}

impl<'a, L> SignedCodes<'a, L> {
    pub(super) fn new(codes: &'a mut [u8], layout: Layout, inverse_scale: f32, q_max: f32, limit: L) -> Self {
        Self { codes: lanes_mut(codes), layout, inverse_scale, zero: q_max as u8, limit }
    }
}

impl<L: Limit> Sink for SignedCodes<'_, L> {
    #[inline(always)]
    fn put(&mut self, y: usize, x: usize, block: usize, u: Lanes) {
        let (start, step) = row(&self.layout, y, block);
        let out = &mut self.codes[start + x * step];
        let limit = self.limit.of(block);
        for i in 0..BLOCK {
            out[i] = (quantize_act_signed(u[i], self.inverse_scale, limit[i]) as u8).wrapping_add(self.zero);
        }
    }
}

/// Signs, -1 as 0 and +1 as 2.
pub(super) struct Signs<'a> {
    codes: &'a mut [[u8; BLOCK]],
    layout: Layout,
}

impl<'a> Signs<'a> {
    pub(super) fn new(codes: &'a mut [u8], layout: Layout) -> Self {
        Self { codes: lanes_mut(codes), layout }
    }
}

impl Sink for Signs<'_> {
    #[inline(always)]
    fn put(&mut self, y: usize, x: usize, block: usize, u: Lanes) {
        let (start, step) = row(&self.layout, y, block);
        let out = &mut self.codes[start + x * step];
        for i in 0..BLOCK {
            out[i] = (quantize_act_sign(u[i]) + 1) as u8;
        }
    }
}

pub(super) struct RealOut<'a, const RELU: bool> {
    values: &'a mut [Lanes],
    layout: Layout,
}

impl<'a, const RELU: bool> RealOut<'a, RELU> {
    pub(super) fn new(values: &'a mut [f32], layout: Layout) -> Self {
        Self { values: lanes_mut(values), layout }
    }
}

impl<const RELU: bool> Sink for RealOut<'_, RELU> {
    #[inline(always)]
    fn put(&mut self, y: usize, x: usize, block: usize, u: Lanes) {
        let (start, step) = row(&self.layout, y, block);
        let out = &mut self.values[start + x * step];
        for i in 0..BLOCK {
            out[i] = if RELU && u[i] <= 0.0 { 0.0 } else { u[i] };
        }
    }
}

/// Backward of an activation on one block: masks g, adds to alpha's gradient, what comes of the step apart where
/// channels have clip values of their own, and to the count of clipped elements.
pub(super) trait Act: Copy {
    fn mask(&self, block: usize, u: &Lanes, g: &mut Lanes, alpha: &mut [Lanes; 2], clipped: &mut [u32; BLOCK]);
}

/// Where the gradient of alpha goes, row by row of a block.
pub(super) trait AlphaSums {
    fn row(&mut self, block: usize, alpha: &[Lanes; 2]);
}

/// All of it into one sum.
impl AlphaSums for f64 {
    #[inline(always)]
    fn row(&mut self, _: usize, alpha: &[Lanes; 2]) {
        *self += alpha[0].iter().map(|&v| f64::from(v)).sum::<f64>();
    }
}

/// Per channel, and the step's.
pub(super) struct ChannelSums<'a> {
    pub(super) channels: &'a mut [f64],
    pub(super) step: f64,
}

impl AlphaSums for ChannelSums<'_> {
    #[inline(always)]
    fn row(&mut self, block: usize, alpha: &[Lanes; 2]) {
        let channels = &mut lanes_mut(self.channels)[block];
        for i in 0..BLOCK {
            channels[i] += f64::from(alpha[0][i]);
        }
        self.step += alpha[1].iter().map(|&v| f64::from(v)).sum::<f64>();
    }
}

/// Channels that clip at values of their own, with one step.
#[derive(Clone, Copy)]
pub(super) struct ClipChannels<'a, Q> {
    pub(super) quant: Q,
    pub(super) alphas: &'a [Lanes],
    pub(super) inverse_scale: f32,
    pub(super) q_max: f32,
}

impl<Q: Quant> Act for ClipChannels<'_, Q> {
    #[inline(always)]
    fn mask(&self, block: usize, u: &Lanes, g: &mut Lanes, alpha: &mut [Lanes; 2], clipped: &mut [u32; BLOCK]) {
        let [own, largest] = alpha;
        let (quant, alphas) = (self.quant.get(), &self.alphas[block]);
        let grads = (g, own, largest, clipped);
        act_backward_channel_lanes(quant, u, alphas, self.inverse_scale, self.q_max, grads);
    }
}

/// An activation quantizer that is known when a loop is compiled.
pub(super) trait Quant: Copy {
    fn get(self) -> ActQuant;
}

macro_rules! quants {
    ($($name:ident)*) => {$(
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Quant for $name {
            #[inline(always)]
            fn get(self) -> ActQuant {
                ActQuant::$name
            }
        }
    )*};
}
quants!(Pact PactPlus PactSym Sign);

/// A layer that clips at one value.
#[derive(Clone, Copy)]
pub(super) struct Clip<Q> {
    pub(super) quant: Q,
    pub(super) alpha: f32,
    pub(super) inverse_scale: f32,
    pub(super) q_max: f32,
}

impl<Q: Quant> Act for Clip<Q> {
    #[inline(always)]
    fn mask(&self, _: usize, u: &Lanes, g: &mut Lanes, [alpha, _]: &mut [Lanes; 2], clipped: &mut [u32; BLOCK]) {
        let alphas = &[self.alpha; BLOCK];
        act_backward_lanes(self.quant.get(), u, alphas, self.inverse_scale, self.q_max, g, alpha, clipped);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Relu;

impl Act for Relu {
    #[inline(always)]
    fn mask(&self, _: usize, u: &Lanes, g: &mut Lanes, _: &mut [Lanes; 2], _: &mut [u32; BLOCK]) {
        // As a choice between numbers the compiler makes it a branch for every element.
        for i in 0..BLOCK {
            g[i] = f32::from_bits(g[i].to_bits() & u32::from(u[i] > 0.0).wrapping_neg());
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Keep;

impl Act for Keep {
    #[inline(always)]
    fn mask(&self, _: usize, _: &Lanes, _: &mut Lanes, _: &mut [Lanes; 2], _: &mut [u32; BLOCK]) {}
}

#[inline(always)]
pub(super) fn statistics_int(z: &[i32], sum: &mut [i64], square: &mut [i64]) {
    let step = sum.len() / BLOCK;
    let z = lanes(z);
    for (block, (sum, square)) in lanes_mut(sum).iter_mut().zip(lanes_mut(square)).enumerate() {
        let (mut s, mut q) = ([0i64; BLOCK], [0i64; BLOCK]);
        for pixel in z[block..].iter().step_by(step) {
            for i in 0..BLOCK {
                let v = i64::from(pixel[i]);
                s[i] += v;
                q[i] += v * v;
            }
        }
        (*sum, *square) = (s, q);
    }
}

#[inline(always)]
pub(super) fn statistics_real(z: &[f32], sum: &mut [f64], square: &mut [f64]) {
    let step = sum.len() / BLOCK;
    let z = lanes(z);
    for (block, (sum, square)) in lanes_mut(sum).iter_mut().zip(lanes_mut(square)).enumerate() {
        let (mut s, mut q) = ([0f64; BLOCK], [0f64; BLOCK]);
        for pixel in z[block..].iter().step_by(step) {
            for i in 0..BLOCK {
                let v = f64::from(pixel[i]);
                s[i] += v;
                q[i] += v * v;
            }
        }
        (*sum, *square) = (s, q);
    }
}

#[inline(always)]
pub(super) fn apply<Z: Acc, R: Residual, S: Sink, const FMA: bool>(
    shape: Layout,
    z: &[Z],
    a: &[f32],
    b: &[f32],
    residual: R,
    mut sink: S,
) {
    let z = lanes(z);
    for (block, (a, b)) in lanes(a).iter().zip(lanes(b)).enumerate() {
        for y in 0..shape.h {
            let (start, step) = row(&shape, y, block);
            for x in 0..shape.w {
                let z = &z[start + x * step];
                let mut u = [0f32; BLOCK];
                for i in 0..BLOCK {
                    u[i] = fma::<FMA>(z[i].real(), a[i], b[i]);
                }
                residual.add::<FMA>(y, x, block, &mut u);
                sink.put(y, x, block, u);
            }
        }
    }
}

#[inline(always)]
pub(super) fn backward_reduce<Z: Acc, R: Residual, A: Act, S: AlphaSums, const FMA: bool>(
    shape: Layout,
    z: &[Z],
    k: Coefficients,
    residual: R,
    act: A,
    alpha: &mut S,
    g: &mut [f32],
    sums_of: &mut UnitSums,
) -> u64 {
    let (z, g) = (lanes(z), lanes_mut(g));
    let mut total = 0;
    for block in 0..shape.cs / BLOCK {
        let (a, b, xa, xb) = (&lanes(k.a)[block], &lanes(k.b)[block], &lanes(k.xa)[block], &lanes(k.xb)[block]);
        let (mut block_g, mut block_gx) = ([0f32; BLOCK], [0f32; BLOCK]);
        let (mut largest_g, mut low, mut high) = ([0f32; BLOCK], [f32::MAX; BLOCK], [f32::MIN; BLOCK]);
        let mut clipped = [0u32; BLOCK];
        for y in 0..shape.h {
            let (start, step) = row(&shape, y, block);
            let (mut row_g, mut row_gx, mut row_alpha) = ([0f32; BLOCK], [0f32; BLOCK], [[0f32; BLOCK]; 2]);
            for x in 0..shape.w {
                let (z, g) = (&z[start + x * step], &mut g[start + x * step]);
                let (mut u, mut xhat) = ([0f32; BLOCK], [0f32; BLOCK]);
                for i in 0..BLOCK {
                    u[i] = fma::<FMA>(z[i].real(), a[i], b[i]);
                    xhat[i] = fma::<FMA>(z[i].real(), xa[i], xb[i]);
                }
                residual.add::<FMA>(y, x, block, &mut u);
                act.mask(block, &u, g, &mut row_alpha, &mut clipped);
                for i in 0..BLOCK {
                    row_g[i] += g[i];
                    row_gx[i] = fma::<FMA>(g[i], xhat[i], row_gx[i]);
                    let (size, z) = (g[i].abs(), z[i].real());
                    largest_g[i] = if size > largest_g[i] { size } else { largest_g[i] };
                    low[i] = if z < low[i] { z } else { low[i] };
                    high[i] = if z > high[i] { z } else { high[i] };
                }
            }
            for i in 0..BLOCK {
                block_g[i] += row_g[i];
                block_gx[i] += row_gx[i];
            }
            alpha.row(block, &row_alpha);
        }
        total += clipped.iter().map(|&n| u64::from(n)).sum::<u64>();
        lanes_mut(sums_of.g)[block] = block_g;
        lanes_mut(sums_of.gx)[block] = block_gx;
        lanes_mut(sums_of.largest_g)[block] = largest_g;
        lanes_mut(sums_of.lowest_z)[block] = low;
        lanes_mut(sums_of.highest_z)[block] = high;
    }
    total
}

#[inline(always)]
pub(super) fn backward_apply<Z: Acc, G: Gradient, const FMA: bool>(
    shape: Layout,
    z: &[Z],
    k: [&[f32]; 3],
    g: &[f32],
    mut out: G,
    dz_layout: Layout,
) {
    let (z, g) = (lanes(z), lanes(g));
    for block in 0..shape.cs / BLOCK {
        let [k1, k2, k3] = k.map(|k| lanes(k)[block]);
        for y in 0..shape.h {
            let (start, step) = row(&shape, y, block);
            let (to, _) = row(&dz_layout, y, block);
            for x in 0..shape.w {
                let at = start + x * step;
                let (z, g) = (&z[at], &g[at]);
                let mut d = [0f32; BLOCK];
                for i in 0..BLOCK {
                    d[i] = fma::<FMA>(g[i], k1[i], fma::<FMA>(z[i].real(), k2[i], k3[i]));
                }
                out.put(to + x * step, at, d);
            }
        }
    }
}

#[inline(always)]
pub(super) fn widen(codes: &[u8], zero: &[f32], scale: f32, values: &mut [f32]) {
    let z = zero[0];
    if zero.iter().all(|v| *v == z) {
        // One flat loop: over short pieces the compiler vectorizes across pieces instead, by gather and scatter.
        for (value, &code) in values.iter_mut().zip(codes) {
            *value = (f32::from(code) - z) * scale;
        }
        return;
    }
    for (values, codes) in values.chunks_mut(zero.len()).zip(codes.chunks(zero.len())) {
        for ((value, &code), &z) in values.iter_mut().zip(codes).zip(zero) {
            *value = (f32::from(code) - z) * scale;
        }
    }
}
