//! Depthwise convolutions over one image: every channel has a window of its own. Forward, input gradient and weight
//! gradient in f32, and exact u8 x s8 to i32.
//!
//! Shapes: images are NHWC [`Layout`]s of one channel stride, weights `[c][1][kh][kw]`, packed as `[kh * kw][cs]`. With
//! stride s and padding p,
//!
//! ```text
//! y[c, r, q]   = sum over a, b of w[c, a, b] * x[c, r*s + a - p, q*s + b - p]      out = (h + 2p - k) / s + 1
//! dx[c, u, v]  = sum over a, b of w[c, a, b] * dy[c, r, q]   where r*s + a - p = u, q*s + b - p = v
//! dw[c, a, b]  = sum over r, q of dy[c, r, q] * x[c, r*s + a - p, q*s + b - p]
//! ```
//!
//! The walks are those of [`conv`](crate::train::conv); the inner loops are written once over blocks of 16 channels and
//! compiled for every instruction set. In f32 every output is one chain of multiply-adds over taps, the weight
//! gradient's over pixels.

mod body;

use crate::machine::isa::Isa;
use crate::machine::layout::Layout;
use crate::machine::on_isa;
use crate::train::conv::sweep::Sweep;
use crate::{ConvGeometry, ConvInputGradF32};

/// Channels a block.
const BLOCK: usize = 16;

/// Whether the kernels of this folder take a depthwise convolution between these layouts.
pub(crate) fn takes(geometry: &ConvGeometry, groups: usize, x: Layout, y: Layout) -> bool {
    groups > 1 && groups == geometry.cin && groups == geometry.cout && x.cs == y.cs && x.cs.is_multiple_of(BLOCK)
}

fn check(geometry: &ConvGeometry, x: Layout, y: Layout) {
    assert!(geometry.cin == geometry.cout, "a depthwise convolution keeps its channels: {geometry:?}");
    assert!(x.cs == y.cs && x.cs.is_multiple_of(BLOCK), "channel strides {} and {}", x.cs, y.cs);
}

/// Packs `[c][kh * kw]` as `[kh * kw][cs]`, zeros in the channels beyond.
fn pack<T: Copy + Default>(geometry: &ConvGeometry, weights: &[T], out: &mut [T]) {
    let taps = geometry.kh * geometry.kw;
    assert_eq!(weights.len(), geometry.cout * taps, "weights of {geometry:?}");
    assert!(out.len().is_multiple_of(taps), "packed weights");
    for (tap, out) in out.chunks_exact_mut(out.len() / taps).enumerate() {
        out.fill(T::default());
        out.iter_mut().zip(weights[tap..].iter().step_by(taps)).for_each(|(out, &w)| *out = w);
    }
}

/// Plan of y = init + depthwise(x, w) over u8 x and s8 w, exact in i32 as long as the caller's sums fit.
#[derive(Clone, Debug)]
pub(super) struct DepthwiseU8S8 {
    isa: Isa,
    geometry: ConvGeometry,
    sweep: Sweep,
}

impl DepthwiseU8S8 {
    /// Plans y = init + depthwise(x, w) on `isa`; `geometry.cin == geometry.cout`, `x.cs == y.cs` is a multiple of 16,
    /// `x.border >= geometry.pad`.
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or the machine lacks `isa`.
    pub(super) fn new(isa: Isa, geometry: ConvGeometry, x: Layout, y: Layout) -> Self {
        check(&geometry, x, y);
        isa.prove();
        Self { isa, geometry, sweep: Sweep::forward(&geometry, x, y, x.cs) }
    }

    /// Elements of the packed weights.
    pub(super) fn packed_len(&self) -> usize {
        self.geometry.kh * self.geometry.kw * self.sweep.y_channels()
    }

    /// Packs weight codes `[c][1][kh][kw]` for [`DepthwiseU8S8::run`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub(super) fn pack(&self, codes: &[i8], out: &mut [i8]) {
        assert_eq!(out.len(), self.packed_len(), "packed weights");
        pack(&self.geometry, codes, out);
    }

    /// y = init + depthwise(x, w): writes the interior pixels of y, all `cs` channels of each; `init` has `y.cs`
    /// elements.
    ///
    /// # Panics
    /// If a length is wrong.
    pub(super) fn run(&self, x: &[u8], packed: &[i8], init: &[i32], y: &mut [i32]) {
        self.sweep.check(x.len(), y.len());
        assert_eq!(packed.len(), self.packed_len(), "packed weights");
        assert_eq!(init.len(), self.sweep.y_channels(), "initial values");
        on_isa!(self.isa, |_FMA| body::sweep_u8s8(&self.sweep, self.geometry.kw, x, packed, init, y));
    }
}

/// Plan of y = depthwise(x, w) in f32.
#[derive(Clone, Debug)]
pub(super) struct DepthwiseF32 {
    isa: Isa,
    geometry: ConvGeometry,
    sweep: Sweep,
}

impl DepthwiseF32 {
    /// Plans y = depthwise(x, w) on `isa`, as [`DepthwiseU8S8::new`].
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or the machine lacks `isa`.
    pub(super) fn new(isa: Isa, geometry: ConvGeometry, x: Layout, y: Layout) -> Self {
        check(&geometry, x, y);
        isa.prove();
        Self { isa, geometry, sweep: Sweep::forward(&geometry, x, y, x.cs) }
    }

    /// Elements of the packed weights.
    pub(super) fn packed_len(&self) -> usize {
        self.geometry.kh * self.geometry.kw * self.sweep.y_channels()
    }

    /// Packs weights `[c][1][kh][kw]` for [`DepthwiseF32::run`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub(super) fn pack(&self, weights: &[f32], out: &mut [f32]) {
        assert_eq!(out.len(), self.packed_len(), "packed weights");
        pack(&self.geometry, weights, out);
    }

    /// y = depthwise(x, w): writes the interior pixels of y, all `cs` channels of each.
    ///
    /// # Panics
    /// If a length is wrong.
    pub(super) fn run(&self, x: &[f32], packed: &[f32], y: &mut [f32]) {
        self.sweep.check(x.len(), y.len());
        assert_eq!(packed.len(), self.packed_len(), "packed weights");
        on_isa!(self.isa, |FMA| body::sweep_f32::<FMA>(&self.sweep, self.geometry.kw, x, packed, y, false));
    }
}

/// Plan of the f32 input gradient, dx = depthwise_transpose(dy, w).
#[derive(Clone, Debug)]
pub(super) struct DepthwiseInputGradF32 {
    isa: Isa,
    geometry: ConvGeometry,
    sweeps: Vec<Sweep>,
    channels: usize,
}

impl DepthwiseInputGradF32 {
    /// Plans dx = depthwise_transpose(dy, w) on `isa`; dy has at least [`ConvInputGradF32::border`].
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or the machine lacks `isa`.
    pub(super) fn new(isa: Isa, geometry: ConvGeometry, dy: Layout, dx: Layout) -> Self {
        check(&geometry, dx, dy);
        assert!(dy.border >= ConvInputGradF32::border(geometry), "border of dy");
        isa.prove();
        Self { isa, geometry, sweeps: Sweep::transposed(&geometry, dy, dx, dy.cs), channels: dx.cs }
    }

    /// Elements of the packed weights.
    pub(super) fn packed_len(&self) -> usize {
        self.geometry.kh * self.geometry.kw * self.channels
    }

    /// Packs weights `[c][1][kh][kw]` for [`DepthwiseInputGradF32::run`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub(super) fn pack(&self, weights: &[f32], out: &mut [f32]) {
        assert_eq!(out.len(), self.packed_len(), "packed weights");
        pack(&self.geometry, weights, out);
    }

    /// dx = (or, to `accumulate`, +=) depthwise_transpose(dy, w): writes the interior pixels of dx, all `cs` channels
    /// of each.
    ///
    /// # Panics
    /// If a length is wrong.
    pub(super) fn run(&self, dy: &[f32], packed: &[f32], dx: &mut [f32], accumulate: bool) {
        assert_eq!(packed.len(), self.packed_len(), "packed weights");
        for sweep in &self.sweeps {
            sweep.check(dy.len(), dx.len());
            on_isa!(self.isa, |FMA| body::sweep_f32::<FMA>(sweep, self.geometry.kw, dy, packed, dx, accumulate));
        }
    }
}

/// Plan of the f32 weight gradient. Images add to a partial sum laid out as the packed weights.
#[derive(Clone, Debug)]
pub(super) struct DepthwiseWeightGradF32 {
    isa: Isa,
    geometry: ConvGeometry,
    sweep: Sweep,
}

impl DepthwiseWeightGradF32 {
    /// Plans the weight gradient on `isa`, as [`DepthwiseU8S8::new`] with dy for y.
    ///
    /// # Panics
    /// If the layouts do not fit the geometry or the machine lacks `isa`.
    pub(super) fn new(isa: Isa, geometry: ConvGeometry, x: Layout, dy: Layout) -> Self {
        check(&geometry, x, dy);
        isa.prove();
        Self { isa, geometry, sweep: Sweep::forward(&geometry, x, dy, x.cs) }
    }

    /// Elements of a partial sum.
    pub(super) fn partial_len(&self) -> usize {
        self.geometry.kh * self.geometry.kw * self.sweep.y_channels()
    }

    /// partial += the weight gradient of one image.
    ///
    /// # Panics
    /// If a length is wrong.
    pub(super) fn run(&self, x: &[f32], dy: &[f32], partial: &mut [f32]) {
        self.sweep.check(x.len(), dy.len());
        assert_eq!(partial.len(), self.partial_len(), "partial sum");
        on_isa!(self.isa, |FMA| body::weight_grad_f32::<FMA>(&self.sweep, x, dy, partial));
    }

    /// Copies a partial sum to `[c][1][kh][kw]`.
    ///
    /// # Panics
    /// If a length is wrong.
    pub(super) fn unpack(&self, partial: &[f32], dw: &mut [f32]) {
        let taps = self.geometry.kh * self.geometry.kw;
        assert_eq!(partial.len(), self.partial_len(), "partial sum");
        assert_eq!(dw.len(), self.geometry.cout * taps, "weights of {:?}", self.geometry);
        for (tap, partial) in partial.chunks_exact(self.sweep.y_channels()).enumerate() {
            dw[tap..].iter_mut().step_by(taps).zip(partial).for_each(|(dw, &sum)| *dw = sum);
        }
    }
}
