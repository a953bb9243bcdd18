//! Pooling: maximum over windows and mean over the whole image, forward and backward, one image at a time; for the
//! engine, the maximum of codes row by row.

use crate::machine::isa::Isa;
use crate::machine::layout::Layout;
use crate::machine::on_isa;
use crate::machine::workers::{Out, Workers};

#[cfg(test)]
mod tests;

/// A square window with its step and padding; padding never wins a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows and columns.
    pub kernel: usize,
    /// Step.
    pub stride: usize,
    /// Padding on every side, less than `kernel`.
    pub pad: usize,
}

impl Window {
    /// Input positions `from..to` that output position `o` sees along a side of `size`.
    fn span(&self, o: usize, size: usize) -> std::ops::Range<usize> {
        let start = o * self.stride;
        start.saturating_sub(self.pad)..(start + self.kernel - self.pad).min(size)
    }
}

/// Maximum over every window: `y[r, q, c] = max of x over the window`. Borders are left alone.
///
/// # Panics
/// If a slice does not fit its layout or the channel strides differ.
pub fn max_forward<T: Copy + PartialOrd>(window: Window, x: &[T], x_layout: Layout, y: &mut [T], y_layout: Layout) {
    assert!(x.len() == x_layout.len() && y.len() == y_layout.len() && x_layout.cs == y_layout.cs);
    let cs = x_layout.cs;
    for r in 0..y_layout.h {
        for q in 0..y_layout.w {
            let at = y_layout.offset(r, q);
            let out = &mut y[at..at + cs];
            let mut first = true;
            for row in window.span(r, x_layout.h) {
                for column in window.span(q, x_layout.w) {
                    let from = x_layout.offset(row, column);
                    let pixel = &x[from..from + cs];
                    if std::mem::take(&mut first) {
                        out.copy_from_slice(pixel);
                    } else {
                        for (o, &v) in out.iter_mut().zip(pixel) {
                            *o = if v > *o { v } else { *o };
                        }
                    }
                }
            }
        }
    }
}

/// [`max_forward`] of codes on the threads of `workers`, row by row.
///
/// # Panics
/// As [`max_forward`], or if the channel strides are no multiples of 16.
pub fn max_codes(
    isa: Isa,
    workers: Workers<'_>,
    window: Window,
    (x, x_layout): (&[u8], Layout),
    (y, y_layout): (&mut [u8], Layout),
) {
    let cs = x_layout.cs;
    assert!(x.len() == x_layout.len() && y.len() == y_layout.len() && cs == y_layout.cs && cs.is_multiple_of(16));
    let out = Out::new(y);
    workers.rows(y_layout.h, &|r| {
        let row = out.row(y_layout.offset(r, 0), y_layout.w * cs);
        // SAFETY: `out.row` has checked the length, and no other task has this row.
        let row = unsafe { std::slice::from_raw_parts_mut(row, y_layout.w * cs) };
        on_isa!(isa, |_FMA| max_row(window, x, x_layout, r, row));
    });
}

#[inline(always)]
fn max_row(window: Window, x: &[u8], x_layout: Layout, r: usize, y: &mut [u8]) {
    for (q, out) in y.chunks_exact_mut(x_layout.cs).enumerate() {
        let (rows, columns) = (window.span(r, x_layout.h), window.span(q, x_layout.w));
        let blocks = out.as_chunks_mut::<64>();
        let wide = blocks.0.len() * 64;
        for (i, out) in blocks.0.iter_mut().enumerate() {
            *out = largest(x, x_layout, rows.clone(), columns.clone(), 64 * i);
        }
        for (i, out) in blocks.1.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            *out = largest(x, x_layout, rows.clone(), columns.clone(), wide + 16 * i);
        }
    }
}

/// The largest codes of N channels from `first`.
#[inline(always)]
fn largest<const N: usize>(
    x: &[u8],
    layout: Layout,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    first: usize,
) -> [u8; N] {
    let mut out = [0; N];
    for row in rows {
        let at = layout.offset(row, columns.start) + first;
        for pixel in x[at..].chunks(layout.cs).take(columns.len()) {
            let pixel: &[u8; N] = pixel.first_chunk().expect("channels of a pixel");
            for k in 0..N {
                out[k] = out[k].max(pixel[k]);
            }
        }
    }
    out
}

/// Backward of [`max_forward`]: adds `dy` (dense) to `dx` (dense) at the first maximum of every window in row order,
/// as PyTorch does.
///
/// # Panics
/// As [`max_forward`].
pub fn max_backward<T: Copy + PartialOrd>(
    window: Window,
    x: &[T],
    x_layout: Layout,
    dy: &[f32],
    dy_layout: Layout,
    dx: &mut [f32],
    dx_layout: Layout,
) {
    assert!(x.len() == x_layout.len() && dy.len() == dy_layout.len() && dx.len() == dx_layout.len());
    assert!(x_layout.cs == dy_layout.cs && x_layout.cs == dx_layout.cs);
    for r in 0..dy_layout.h {
        for q in 0..dy_layout.w {
            let at = dy_layout.offset(r, q);
            for c in 0..x_layout.cs {
                let mut best: Option<(T, usize)> = None;
                for row in window.span(r, x_layout.h) {
                    for column in window.span(q, x_layout.w) {
                        let v = x[x_layout.offset(row, column) + c];
                        if best.is_none_or(|(b, _)| v > b) {
                            best = Some((v, dx_layout.offset(row, column) + c));
                        }
                    }
                }
                if let Some((_, to)) = best {
                    dx[to] += dy[at + c];
                }
            }
        }
    }
}

/// An element of a mean: a code or a real value.
pub trait Summand: Copy {
    /// The type in which sums are exact (codes) or ordered (real values).
    type Sum: Copy + Default + std::ops::AddAssign;
    /// The element as a summand.
    fn widen(self) -> Self::Sum;
    /// The sum as float32.
    fn real(sum: Self::Sum) -> f32;
}

impl Summand for u8 {
    type Sum = u32;
    fn widen(self) -> u32 {
        u32::from(self)
    }
    fn real(sum: u32) -> f32 {
        sum as f32
    }
}

impl Summand for f32 {
    type Sum = f32;
    fn widen(self) -> f32 {
        self
    }
    fn real(sum: f32) -> f32 {
        sum
    }
}

/// `y[c] = scale * (sum of x over all pixels - zero)`; the mean has scale 1/(h*w) times the step of the codes, and h*w
/// times the code that stands for zero.
///
/// # Panics
/// If a slice does not fit its layout or `y` is not one pixel of the same channel stride.
pub fn mean_forward<T: Summand>(x: &[T], layout: Layout, scale: f32, zero: f32, y: &mut [f32]) {
    assert!(x.len() == layout.len() && y.len() == layout.cs && layout.cs.is_multiple_of(16));
    for block in (0..layout.cs).step_by(16) {
        let mut sums = [T::Sum::default(); 16];
        for row in 0..layout.h {
            for column in 0..layout.w {
                let at = layout.offset(row, column) + block;
                for (sum, &v) in sums.iter_mut().zip(&x[at..at + 16]) {
                    *sum += v.widen();
                }
            }
        }
        for (y, sum) in y[block..block + 16].iter_mut().zip(sums) {
            *y = scale * (T::real(sum) - zero);
        }
    }
}

/// Backward of the mean: `dx[pixel, c] = (or +=) dy[c] / (h*w)`, `dx` dense.
///
/// # Panics
/// As [`mean_forward`].
pub fn mean_backward(dy: &[f32], layout: Layout, dx: &mut [f32], accumulate: bool) {
    assert!(dx.len() == layout.len() && dy.len() == layout.cs && layout.border == 0);
    let share = 1.0 / (layout.h * layout.w) as f32;
    for pixel in dx.chunks_exact_mut(layout.cs) {
        for (dx, dy) in pixel.iter_mut().zip(dy) {
            *dx = if accumulate { *dx + dy * share } else { dy * share };
        }
    }
}

/// Mean over every window, padding counting as zeros: `y[r, q, c] = scale * sum of (x - zero)` over the positions of
/// the window inside `x`; the mean has scale 1/(kernel*kernel) times the step of the codes. Borders are left alone.
///
/// # Panics
/// If a slice does not fit its layout or the channel strides differ.
pub fn avg_forward<T: Summand>(
    window: Window,
    x: &[T],
    x_layout: Layout,
    scale: f32,
    zero: f32,
    y: &mut [f32],
    y_layout: Layout,
) {
    assert!(x.len() == x_layout.len() && y.len() == y_layout.len() && x_layout.cs == y_layout.cs);
    const CHANNELS: usize = 16;
    for r in 0..y_layout.h {
        for q in 0..y_layout.w {
            let (rows, columns) = (window.span(r, x_layout.h), window.span(q, x_layout.w));
            let inside = (rows.len() * columns.len()) as f32;
            for first in (0..y_layout.c).step_by(CHANNELS) {
                let n = CHANNELS.min(y_layout.c - first);
                let mut sums = [T::Sum::default(); CHANNELS];
                for row in rows.clone() {
                    for column in columns.clone() {
                        let pixel = &x[x_layout.offset(row, column) + first..][..n];
                        sums.iter_mut().zip(pixel).for_each(|(sum, &v)| *sum += v.widen());
                    }
                }
                let at = y_layout.offset(r, q) + first;
                for (y, &sum) in y[at..at + n].iter_mut().zip(&sums) {
                    *y = scale * (T::real(sum) - zero * inside);
                }
            }
        }
    }
}

/// Backward of [`avg_forward`]: adds `dy / (kernel*kernel)` (dense) to every position of the window in `dx` (dense).
///
/// # Panics
/// As [`avg_forward`].
pub fn avg_backward(window: Window, dy: &[f32], dy_layout: Layout, dx: &mut [f32], dx_layout: Layout) {
    assert!(dx.len() == dx_layout.len() && dy.len() == dy_layout.len() && dx_layout.cs == dy_layout.cs);
    let share = 1.0 / (window.kernel * window.kernel) as f32;
    let cs = dx_layout.cs;
    for r in 0..dy_layout.h {
        for q in 0..dy_layout.w {
            let dy = &dy[dy_layout.offset(r, q)..][..cs];
            for row in window.span(r, dx_layout.h) {
                for column in window.span(q, dx_layout.w) {
                    let to = &mut dx[dx_layout.offset(row, column)..][..cs];
                    to.iter_mut().zip(dy).for_each(|(to, dy)| *to += dy * share);
                }
            }
        }
    }
}

/// Option-A shortcut: `y[r, q, before + c] = x[r*stride, q*stride, c]`, all other channels `zero`; `y` dense.
///
/// # Panics
/// If a slice does not fit its layout, or `y` is too narrow.
pub fn subsample<T: Copy>(
    x: &[T],
    x_layout: Layout,
    stride: usize,
    before: usize,
    zero: T,
    y: &mut [T],
    y_layout: Layout,
) {
    assert!(x.len() == x_layout.len() && y.len() == y_layout.len() && before + x_layout.c <= y_layout.c);
    y.fill(zero);
    for r in 0..y_layout.h {
        for q in 0..y_layout.w {
            let (from, to) = (x_layout.offset(r * stride, q * stride), y_layout.offset(r, q) + before);
            y[to..to + x_layout.c].copy_from_slice(&x[from..from + x_layout.c]);
        }
    }
}

/// Backward of [`subsample`]: adds `dy` (dense) to `dx` (dense).
///
/// # Panics
/// As [`subsample`].
pub fn subsample_backward(
    dy: &[f32],
    dy_layout: Layout,
    stride: usize,
    before: usize,
    dx: &mut [f32],
    dx_layout: Layout,
) {
    assert!(dx.len() == dx_layout.len() && dy.len() == dy_layout.len() && before + dx_layout.c <= dy_layout.c);
    for r in 0..dy_layout.h {
        for q in 0..dy_layout.w {
            let (to, from) = (dx_layout.offset(r * stride, q * stride), dy_layout.offset(r, q) + before);
            for (dx, dy) in dx[to..to + dx_layout.c].iter_mut().zip(&dy[from..from + dx_layout.c]) {
                *dx += dy;
            }
        }
    }
}
