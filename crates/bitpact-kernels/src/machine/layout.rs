//! How one image lies in memory: rows of pixels of channels, with a border, and buffers aligned for it.

use std::ops::{Deref, DerefMut};

/// The memory layout of one image: NHWC with a border of `border` pixels on all four sides.
///
/// `cs` is the distance between two pixels in elements, at least `c`. Channels `c..cs` hold zeros, and border pixels
/// hold 0 (or the input's zero point), so convolutions have no edge cases and element-wise kernels no tails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Interior rows.
    pub h: usize,
    /// Interior columns.
    pub w: usize,
    /// Logical channels.
    pub c: usize,
    /// Channel stride: elements from one pixel to the next.
    pub cs: usize,
    /// Pixels of border on each side.
    pub border: usize,
}

impl Layout {
    /// A layout whose channel stride is `c` rounded up to a multiple of 16.
    pub fn new(h: usize, w: usize, c: usize, border: usize) -> Layout {
        Layout::with_cs(h, w, c, c.next_multiple_of(16), border)
    }

    /// A layout with channel stride `cs`.
    ///
    /// # Panics
    /// If `cs` is less than `c`.
    pub fn with_cs(h: usize, w: usize, c: usize, cs: usize, border: usize) -> Layout {
        assert!(cs >= c, "channel stride {cs} is less than {c} channels");
        Layout { h, w, c, cs, border }
    }

    /// Elements from one row to the next.
    pub fn row(&self) -> usize {
        (self.w + 2 * self.border) * self.cs
    }

    /// Elements of one image, border included.
    pub fn len(&self) -> usize {
        (self.h + 2 * self.border) * self.row()
    }

    /// Tells whether the image has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Index of channel 0 of interior pixel (y, x).
    pub fn offset(&self, y: usize, x: usize) -> usize {
        (y + self.border) * self.row() + (x + self.border) * self.cs
    }
}

/// Element types an [`Aligned`] buffer may hold: plain numbers without padding, valid for every bit pattern.
///
/// # Safety
/// Implementors have no padding and no invalid bit pattern, and an alignment that divides 64.
pub unsafe trait Plain: Copy + Default + Send + Sync + 'static {}

macro_rules! plain {
    ($($t:ty)*) => {$(
        // SAFETY: primitive numbers have no padding and no invalid bit pattern; their alignment divides 64.
        unsafe impl Plain for $t {}
    )*};
}
plain!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

/// A cache line.
const LINE: usize = 64;

/// A zeroed buffer of fixed length that starts on a cache line, so that vector loads of whole pixels do not straddle
/// two lines. Kernels accept any slice; aligned ones save a few percent. What is never touched of a large one takes no
/// memory.
pub struct Aligned<T: Plain> {
    bytes: Vec<u8>,
    /// Bytes before the first line.
    offset: usize,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Plain> Aligned<T> {
    /// Makes a buffer of `len` zeros.
    pub fn zeroed(len: usize) -> Aligned<T> {
        let size = len.checked_mul(size_of::<T>()).expect("buffer length overflows");
        // Bytes, not lines: of these alone the allocator is asked for zeros, which the system has without writing them.
        let bytes = if len == 0 { Vec::new() } else { vec![0; size + LINE - 1] };
        let offset = if len == 0 { 0 } else { bytes.as_ptr().align_offset(LINE) };
        Aligned { bytes, offset, len, element: std::marker::PhantomData }
    }

    /// Makes the buffer at least `len` long; a buffer that grows is zero.
    pub fn reserve(&mut self, len: usize) {
        if self.len < len {
            *self = Aligned::zeroed(len);
        }
    }

    /// Makes a buffer that holds a copy of `values`.
    pub fn from_slice(values: &[T]) -> Aligned<T> {
        let mut out = Aligned::zeroed(values.len());
        out.copy_from_slice(values);
        out
    }
}

impl<T: Plain> Clone for Aligned<T> {
    fn clone(&self) -> Aligned<T> {
        Aligned::from_slice(self)
    }
}

impl<T: Plain> Default for Aligned<T> {
    /// An empty buffer.
    fn default() -> Aligned<T> {
        Aligned::zeroed(0)
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        if self.len == 0 {
            return &[];
        }
        let first = self.bytes[self.offset..].as_ptr();
        // SAFETY: from `offset` on `bytes` has the initialized bytes of `len` elements, aligned to 64, and `T` is
        // plain.
        unsafe { std::slice::from_raw_parts(first.cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        let first = self.bytes[self.offset..].as_mut_ptr();
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(first.cast(), self.len) }
    }
}

impl<T: Plain + std::fmt::Debug> std::fmt::Debug for Aligned<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.deref().fmt(f)
    }
}

/// Elements of `bytes` bytes from one image of `len` elements to the next where the same place of many is read in turn:
/// five cache lines more than a multiple of sixteen, so that these places do not fall into one set of a cache, as they
/// would at powers of two.
pub fn image_distance(len: usize, bytes: usize) -> usize {
    let lines = (len * bytes).div_ceil(LINE);
    (lines + (16 + 5 - lines % 16) % 16) * LINE / bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_border_and_stride() {
        let layout = Layout::new(2, 3, 5, 1);
        assert_eq!(layout.cs, 16);
        assert_eq!(layout.row(), 5 * 16);
        assert_eq!(layout.len(), 4 * 5 * 16);
        assert_eq!(layout.offset(0, 0), 5 * 16 + 16);
        assert_eq!(layout.offset(1, 2), 2 * 80 + 3 * 16);
    }

    #[test]
    fn aligned_buffers_start_on_a_line_and_hold_what_was_written() {
        let mut buffer = Aligned::<i16>::zeroed(77);
        assert_eq!(buffer.as_ptr().align_offset(64), 0);
        assert!(buffer.iter().all(|&v| v == 0));
        buffer[76] = -5;
        assert_eq!(Aligned::from_slice(&buffer)[76], -5);
        assert_eq!(buffer.len(), 77);
        assert!(Aligned::<f32>::zeroed(0).is_empty());
    }
}
