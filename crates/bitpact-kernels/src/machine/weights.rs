//! Memory for packed weights. They are read from end to end for every image, tens of megabytes of large networks, so
//! that with pages of 4 KB the processor would look up thousands of page tables an image; pages of 2 MB where the
//! system has them spare that.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::machine::layout::Plain;

/// A huge page; Miri, which has none, takes a thousand times as long.
const PAGE: usize = if cfg!(miri) { 512 } else { 2 << 20 };

/// Bytes of a chunk: most networks need one. What is not written to takes no memory.
const CHUNK: usize = 32 * PAGE;

/// Bytes of the first chunk, in ordinary pages: all that a small network needs.
const FIRST: usize = PAGE / 2;

/// A cache line: buffers begin on one.
const LINE: usize = 64;

/// Memory that buffers are cut from, freed with the last of them.
struct Chunk {
    memory: Vec<u8>,
    /// The first page or line, from which on `len` bytes are used.
    first: NonNull<u8>,
    len: usize,
}

// SAFETY: a chunk is memory alone; buffers write to parts of their own, and only while they are made.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// A chunk of zeros, which the system backs with memory as they are written to.
    fn new(len: usize, is_huge: bool) -> Chunk {
        let align = if is_huge { PAGE } else { LINE };
        let len = len.next_multiple_of(align);
        let mut memory = vec![0_u8; len + align - 1];
        let offset = memory.as_ptr().align_offset(align);
        let first = NonNull::from(&mut memory[offset..offset + len]).cast();
        if is_huge {
            advise_huge_pages(first, len);
        }
        Chunk { memory, first, len }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("bytes", &self.memory.len()).finish_non_exhaustive()
    }
}

/// Asks Linux for huge pages, which it may refuse: nothing but speed depends on them.
fn advise_huge_pages(first: NonNull<u8>, len: usize) {
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: the call changes how memory that is ours is mapped, not what is in it.
    unsafe {
        libc::madvise(first.as_ptr().cast(), len, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (first, len);
}

/// Where the next buffer is cut.
#[derive(Debug, Default)]
struct Next {
    chunk: Weak<Chunk>,
    used: usize,
}

/// Memory for the packed weights of one network, handed to whatever packs them. Threads may share it. Weights keep
/// their memory after the arena is dropped, and the last of them frees it.
#[derive(Debug, Default)]
pub struct WeightArena(Mutex<Next>);

impl WeightArena {
    /// An arena without memory, which takes it from the system as weights are packed.
    pub fn new() -> WeightArena {
        WeightArena::default()
    }

    /// A copy of `values` in the arena.
    pub(crate) fn keep<T: Plain>(&self, values: &[T]) -> Weights<T> {
        let len = size_of_val(values);
        if len == 0 {
            return Weights { chunk: None, len: 0, element: PhantomData };
        }
        let (chunk, at) = self.cut(len);
        // SAFETY: `cut` gives these bytes of the chunk to this buffer alone.
        let to = unsafe { chunk.first.add(at) };
        // SAFETY: as many bytes of plain numbers, on a cache line, whose alignment theirs divides.
        unsafe { to.cast::<T>().as_ptr().copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        Weights { chunk: Some((chunk, at)), len: values.len(), element: PhantomData }
    }

    /// `len > 0` bytes of a chunk, from a cache line on.
    fn cut(&self, len: usize) -> (Arc<Chunk>, usize) {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = next.chunk.upgrade();
        let is_first = current.is_none();
        if let Some(chunk) = current.filter(|chunk| next.used + len <= chunk.len) {
            let at = next.used;
            next.used = (at + len).next_multiple_of(LINE);
            return (chunk, at);
        }
        let chunk = match is_first && len <= FIRST {
            true => Arc::new(Chunk::new(FIRST, false)),
            false => Arc::new(Chunk::new(len.max(CHUNK), true)),
        };
        *next = Next { chunk: Arc::downgrade(&chunk), used: len.next_multiple_of(LINE) };
        (chunk, 0)
    }
}

/// Numbers that are written once, from a cache line on.
pub(crate) struct Weights<T: Plain> {
    /// Nothing where there are none.
    chunk: Option<(Arc<Chunk>, usize)>,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> Deref for Weights<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let Some((chunk, at)) = &self.chunk else { return &[] };
        // SAFETY: inside the chunk.
        let first = unsafe { chunk.first.add(*at) };
        // SAFETY: `keep` has written `len` numbers there, and nobody writes again.
        unsafe { std::slice::from_raw_parts(first.cast::<T>().as_ptr(), self.len) }
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for Weights<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_many_sizes_and_threads_hold_what_was_written() {
        let arena = WeightArena::new();
        std::thread::scope(|scope| {
            for thread in 0..3_usize {
                let arena = &arena;
                scope.spawn(move || {
                    let sizes = [0, 1, 63, 64, 1000, FIRST, FIRST + 1, 3 * PAGE, CHUNK / 2, CHUNK / 2 + 5, 17];
                    let value = |size: usize, i: usize| (thread * 31 + size * 7 + i) as i16;
                    let make = |size: usize| arena.keep(&(0..size).map(|i| value(size, i)).collect::<Vec<_>>());
                    let mut buffers: Vec<_> = sizes.into_iter().map(make).collect();
                    buffers.swap_remove(4);
                    for buffer in &buffers {
                        assert!(buffer.iter().enumerate().all(|(i, &v)| v == value(buffer.len(), i)));
                        assert!(buffer.is_empty() || buffer.as_ptr().align_offset(LINE) == 0);
                    }
                });
            }
        });
    }

    #[test]
    fn an_arena_shares_chunks_among_its_buffers_and_with_no_other_arena() {
        let (arena, other) = (WeightArena::new(), WeightArena::new());
        let [a, b] = [7, 8].map(|value| arena.keep(&[value; 3]));
        let c = other.keep(&[9; 3]);
        drop(arena);
        assert_eq!((&*a, &*b, &*c), (&[7; 3][..], &[8; 3][..], &[9; 3][..]));
        let chunk = |weights: &Weights<i32>| weights.chunk.as_ref().map(|(chunk, _)| Arc::as_ptr(chunk));
        assert!(chunk(&a) == chunk(&b) && chunk(&a) != chunk(&c));
        assert_eq!(a.chunk.as_ref().map(|(chunk, _)| Arc::strong_count(chunk)), Some(2));
    }
}
