//! Convolutions with groups over one image: the interface of [`conv`](crate::train::conv) for any number of groups.
//!
//! Weights are OIHW with `I = cin / groups`; outputs of group g see the inputs of group g only. One group runs on the
//! kernels of [`conv`](crate::train::conv) as it is, depthwise convolutions on those of `channel_conv`, all others
//! group by group on the former, over copies of the channels of a group.

mod slices;
#[cfg(test)]
mod tests;

use crate::machine::ConvGeometry;
use crate::machine::isa::Isa;
use crate::machine::layout::{Aligned, Layout};
use crate::train::channel_conv::{self, DepthwiseF32, DepthwiseInputGradF32, DepthwiseU8S8, DepthwiseWeightGradF32};
use crate::train::conv::{CodeLimits, ConvF32, ConvInputGradF32, ConvU8S8, ConvWeightGradF32};
use slices::Slices;

/// Memory of one thread for the channels of one group. Plans that use it reserve it once; a run allocates nothing.
#[derive(Debug, Default)]
pub struct GroupScratch {
    codes: Aligned<u8>,
    sums: Aligned<i32>,
    read: Aligned<f32>,
    written: Aligned<f32>,
}

/// How a grouped operation runs: `W` on whole images, `D` depthwise, `W` on one group after the other.
#[derive(Clone, Debug)]
enum Plan<W, D> {
    Whole(W),
    Depthwise(D),
    Groups { groups: usize, conv: W, read: Slices, written: Slices },
}

/// The geometry of one group.
///
/// # Panics
/// If the groups do not divide the channels.
fn of_group(geometry: ConvGeometry, groups: usize) -> ConvGeometry {
    let ConvGeometry { cin, cout, .. } = geometry;
    assert!(groups > 0 && cin.is_multiple_of(groups) && cout.is_multiple_of(groups), "{groups} groups in {geometry:?}");
    ConvGeometry { cin: cin / groups, cout: cout / groups, ..geometry }
}

/// Number of weights, cout * cin / groups * kh * kw.
pub fn weights(geometry: ConvGeometry, groups: usize) -> usize {
    of_group(geometry, groups).weights() * groups
}

impl<W, D> Plan<W, D> {
    fn new(
        geometry: ConvGeometry,
        groups: usize,
        read: Layout,
        written: Layout,
        whole: impl FnOnce(ConvGeometry, Layout, Layout) -> W,
        depthwise: impl FnOnce(ConvGeometry, Layout, Layout) -> D,
    ) -> Self {
        if groups == 1 {
            return Plan::Whole(whole(geometry, read, written));
        }
        if channel_conv::takes(&geometry, groups, read, written) {
            return Plan::Depthwise(depthwise(geometry, read, written));
        }
        let group = of_group(geometry, groups);
        let (read, written) = (Slices::new(read, groups), Slices::new(written, groups));
        Plan::Groups { groups, conv: whole(group, read.part, written.part), read, written }
    }
}

/// Plan of y = init + conv(x, w) over u8 x and s8 w with groups, as [`ConvU8S8`].
#[derive(Clone, Debug)]
pub struct GroupConvU8S8 {
    plan: Plan<ConvU8S8, DepthwiseU8S8>,
}

impl GroupConvU8S8 {
    /// Plans y = init + conv(x, w) on `isa` over codes up to `limits`, as [`ConvU8S8::new`].
    ///
    /// # Panics
    /// If layouts or groups do not fit the geometry or the machine lacks `isa`.
    pub fn new(isa: Isa, geometry: ConvGeometry, groups: usize, x: Layout, y: Layout, limits: CodeLimits) -> Self {
        let whole = |g, x, y| ConvU8S8::new(isa, g, x, y, limits);
        Self { plan: Plan::new(geometry, groups, x, y, whole, |g, x, y| DepthwiseU8S8::new(isa, g, x, y)) }
    }

    /// Makes `scratch` large enough for [`GroupConvU8S8::run`].
    pub fn reserve(&self, scratch: &mut GroupScratch) {
        if let Plan::Groups { read, written, .. } = &self.plan {
            scratch.codes.reserve(read.part.len());
            scratch.sums.reserve(written.part.len() + written.part.cs);
        }
    }

    /// Elements of the packed weights.
    pub fn packed_len(&self) -> usize {
        match &self.plan {
            Plan::Whole(conv) => conv.packed_len(),
            Plan::Depthwise(conv) => conv.packed_len(),
            Plan::Groups { groups, conv, .. } => groups * conv.packed_len(),
        }
    }

    /// Packs [tap-major](ConvGeometry::tap_major) weight codes, group after group, for [`GroupConvU8S8::run`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, codes: &[i8], out: &mut [i8]) {
        match &self.plan {
            Plan::Whole(conv) => conv.pack(codes, out),
            Plan::Depthwise(conv) => conv.pack(codes, out),
            Plan::Groups { groups, conv, .. } => each_group(*groups, codes, out, |w, out| conv.pack(w, out)),
        }
    }

    /// y = init + conv(x, w): writes the interior pixels of y; channels beyond `cout` become zero, or with several
    /// groups stay as they are.
    ///
    /// # Panics
    /// If a length is wrong, or the scratch memory was not reserved.
    pub fn run(&self, x: &[u8], packed: &[i8], init: &[i32], y: &mut [i32], scratch: &mut GroupScratch) {
        match &self.plan {
            Plan::Whole(conv) => conv.run(x, packed, init, y),
            Plan::Depthwise(conv) => conv.run(x, packed, init, y),
            Plan::Groups { groups, conv, read, written } => {
                let part_x = &mut scratch.codes[..read.part.len()];
                let (part_y, part_init) = scratch.sums.split_at_mut(written.part.len());
                let part_init = &mut part_init[..written.part.cs];
                for (g, packed) in parts(packed, *groups).enumerate() {
                    read.gather(g, x, part_x);
                    part_init.fill(0);
                    let first = g * written.part.c;
                    part_init[..written.part.c].copy_from_slice(&init[first..first + written.part.c]);
                    conv.run(part_x, packed, part_init, part_y);
                    written.scatter(g, part_y, y);
                }
            }
        }
    }
}

/// Plan of y = conv(x, w) in f32 with groups, as [`ConvF32`].
#[derive(Clone, Debug)]
pub struct GroupConvF32 {
    plan: Plan<ConvF32, DepthwiseF32>,
}

impl GroupConvF32 {
    /// Plans y = conv(x, w) on `isa`, as [`ConvF32::new`].
    ///
    /// # Panics
    /// If layouts or groups do not fit the geometry or the machine lacks `isa`.
    pub fn new(isa: Isa, geometry: ConvGeometry, groups: usize, x: Layout, y: Layout) -> Self {
        let whole = |g, x, y| ConvF32::new(isa, g, x, y);
        Self { plan: Plan::new(geometry, groups, x, y, whole, |g, x, y| DepthwiseF32::new(isa, g, x, y)) }
    }

    /// Makes `scratch` large enough for [`GroupConvF32::run`].
    pub fn reserve(&self, scratch: &mut GroupScratch) {
        if let Plan::Groups { read, written, .. } = &self.plan {
            scratch.read.reserve(read.part.len());
            scratch.written.reserve(written.part.len());
        }
    }

    /// Elements of the packed weights.
    pub fn packed_len(&self) -> usize {
        match &self.plan {
            Plan::Whole(conv) => conv.packed_len(),
            Plan::Depthwise(conv) => conv.packed_len(),
            Plan::Groups { groups, conv, .. } => groups * conv.packed_len(),
        }
    }

    /// Packs [tap-major](ConvGeometry::tap_major) weights, group after group, for [`GroupConvF32::run`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, weights: &[f32], out: &mut [f32]) {
        match &self.plan {
            Plan::Whole(conv) => conv.pack(weights, out),
            Plan::Depthwise(conv) => conv.pack(weights, out),
            Plan::Groups { groups, conv, .. } => each_group(*groups, weights, out, |w, out| conv.pack(w, out)),
        }
    }

    /// y = conv(x, w): writes the interior pixels of y, as [`GroupConvU8S8::run`].
    ///
    /// # Panics
    /// If a length is wrong, or the scratch memory was not reserved.
    pub fn run(&self, x: &[f32], packed: &[f32], y: &mut [f32], scratch: &mut GroupScratch) {
        match &self.plan {
            Plan::Whole(conv) => conv.run(x, packed, y),
            Plan::Depthwise(conv) => conv.run(x, packed, y),
            Plan::Groups { groups, conv, read, written } => {
                let part_x = &mut scratch.read[..read.part.len()];
                let part_y = &mut scratch.written[..written.part.len()];
                for (g, packed) in parts(packed, *groups).enumerate() {
                    read.gather(g, x, part_x);
                    conv.run(part_x, packed, part_y);
                    written.scatter(g, part_y, y);
                }
            }
        }
    }
}

/// Plan of the f32 input gradient with groups, as [`ConvInputGradF32`].
#[derive(Clone, Debug)]
pub struct GroupInputGradF32 {
    plan: Plan<ConvInputGradF32, DepthwiseInputGradF32>,
}

impl GroupInputGradF32 {
    /// Plans dx = conv_transpose(dy, w) on `isa`, as [`ConvInputGradF32::new`].
    ///
    /// # Panics
    /// If layouts or groups do not fit the geometry or the machine lacks `isa`.
    pub fn new(isa: Isa, geometry: ConvGeometry, groups: usize, dy: Layout, dx: Layout) -> Self {
        let whole = |g, dy, dx| ConvInputGradF32::new(isa, g, dy, dx);
        let depthwise = |g, dy, dx| DepthwiseInputGradF32::new(isa, g, dy, dx);
        Self { plan: Plan::new(geometry, groups, dy, dx, whole, depthwise) }
    }

    /// Makes `scratch` large enough for [`GroupInputGradF32::run`].
    pub fn reserve(&self, scratch: &mut GroupScratch) {
        if let Plan::Groups { read, written, .. } = &self.plan {
            scratch.read.reserve(read.part.len());
            scratch.written.reserve(written.part.len());
        }
    }

    /// Elements of the packed weights.
    pub fn packed_len(&self) -> usize {
        match &self.plan {
            Plan::Whole(conv) => conv.packed_len(),
            Plan::Depthwise(conv) => conv.packed_len(),
            Plan::Groups { groups, conv, .. } => groups * conv.packed_len(),
        }
    }

    /// Packs [tap-major](ConvGeometry::tap_major) weights, group after group, for [`GroupInputGradF32::run`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, weights: &[f32], out: &mut [f32]) {
        match &self.plan {
            Plan::Whole(conv) => conv.pack(weights, out),
            Plan::Depthwise(conv) => conv.pack(weights, out),
            Plan::Groups { groups, conv, .. } => each_group(*groups, weights, out, |w, out| conv.pack(w, out)),
        }
    }

    /// dx = (or, to `accumulate`, +=) conv_transpose(dy, w): writes the interior pixels of dx, zeros in the channels
    /// beyond `cin` where it does not accumulate.
    ///
    /// # Panics
    /// If a length is wrong, or the scratch memory was not reserved.
    pub fn run(&self, dy: &[f32], packed: &[f32], dx: &mut [f32], accumulate: bool, scratch: &mut GroupScratch) {
        match &self.plan {
            Plan::Whole(conv) => conv.run(dy, packed, dx, accumulate),
            Plan::Depthwise(conv) => conv.run(dy, packed, dx, accumulate),
            Plan::Groups { groups, conv, read, written } => {
                let part_dy = &mut scratch.read[..read.part.len()];
                let part_dx = &mut scratch.written[..written.part.len()];
                if !accumulate {
                    written.clear_beyond(dx);
                }
                for (g, packed) in parts(packed, *groups).enumerate() {
                    read.gather(g, dy, part_dy);
                    conv.run(part_dy, packed, part_dx, false);
                    if accumulate {
                        written.scatter_add(g, part_dx, dx);
                    } else {
                        written.scatter(g, part_dx, dx);
                    }
                }
            }
        }
    }
}

/// Plan of the f32 weight gradient with groups, as [`ConvWeightGradF32`].
#[derive(Clone, Debug)]
pub struct GroupWeightGradF32 {
    plan: Plan<ConvWeightGradF32, DepthwiseWeightGradF32>,
}

impl GroupWeightGradF32 {
    /// Plans the weight gradient on `isa`, as [`ConvWeightGradF32::new`].
    ///
    /// # Panics
    /// If layouts or groups do not fit the geometry or the machine lacks `isa`.
    pub fn new(isa: Isa, geometry: ConvGeometry, groups: usize, x: Layout, dy: Layout) -> Self {
        let whole = |g, x, dy| ConvWeightGradF32::new(isa, g, x, dy);
        Self { plan: Plan::new(geometry, groups, x, dy, whole, |g, x, dy| DepthwiseWeightGradF32::new(isa, g, x, dy)) }
    }

    /// Makes `scratch` large enough for [`GroupWeightGradF32::run`].
    pub fn reserve(&self, scratch: &mut GroupScratch) {
        if let Plan::Groups { read, written, .. } = &self.plan {
            scratch.read.reserve(read.part.len());
            scratch.written.reserve(written.part.len());
        }
    }

    /// Elements of a partial sum.
    pub fn partial_len(&self) -> usize {
        match &self.plan {
            Plan::Whole(conv) => conv.partial_len(),
            Plan::Depthwise(conv) => conv.partial_len(),
            Plan::Groups { groups, conv, .. } => groups * conv.partial_len(),
        }
    }

    /// The plan without groups, where there are none.
    pub fn whole(&self) -> Option<&ConvWeightGradF32> {
        match &self.plan {
            Plan::Whole(conv) => Some(conv),
            _ => None,
        }
    }

    /// partial += the weight gradient of one image.
    ///
    /// # Panics
    /// If a length is wrong, or the scratch memory was not reserved.
    pub fn run(&self, x: &[f32], dy: &[f32], partial: &mut [f32], scratch: &mut GroupScratch) {
        match &self.plan {
            Plan::Whole(conv) => conv.run(x, dy, partial),
            Plan::Depthwise(conv) => conv.run(x, dy, partial),
            Plan::Groups { conv, read, written, .. } => {
                let part_x = &mut scratch.read[..read.part.len()];
                let part_dy = &mut scratch.written[..written.part.len()];
                for (g, partial) in partial.chunks_exact_mut(conv.partial_len()).enumerate() {
                    read.gather(g, x, part_x);
                    written.gather(g, dy, part_dy);
                    conv.run(part_x, part_dy, partial);
                }
            }
        }
    }

    /// Copies a partial sum to OIHW order.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn unpack(&self, partial: &[f32], dw_oihw: &mut [f32]) {
        match &self.plan {
            Plan::Whole(conv) => conv.unpack(partial, dw_oihw),
            Plan::Depthwise(conv) => conv.unpack(partial, dw_oihw),
            Plan::Groups { groups, conv, .. } => {
                each_group(*groups, partial, dw_oihw, |partial, dw| conv.unpack(partial, dw));
            }
        }
    }
}

/// Calls `f` on the parts of every group of two slices.
fn each_group<A, B>(groups: usize, from: &[A], to: &mut [B], f: impl Fn(&[A], &mut [B])) {
    let len = to.len() / groups;
    for (g, from) in parts(from, groups).enumerate() {
        f(from, &mut to[g * len..(g + 1) * len]);
    }
}

/// The part of every group, empty ones too: no input takes a gradient where windows see only padding.
fn parts<T>(all: &[T], groups: usize) -> impl Iterator<Item = &[T]> {
    let len = all.len() / groups;
    (0..groups).map(move |g| &all[g * len..(g + 1) * len])
}
