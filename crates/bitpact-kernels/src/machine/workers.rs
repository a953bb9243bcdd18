//! Who computes a layer, with which memory, and how they share the tensor that it writes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::machine::layout::{Aligned, Layout};
use crate::machine::pool::Pool;
use crate::machine::shares::Shares;

/// The memory one thread needs to run layers.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) prepared: [Aligned<u8>; 2],
    pub(crate) acc: [Aligned<i32>; 2],
    pub(crate) res: Aligned<u8>,
    pub(crate) base: Aligned<i32>,
}

/// Sizes of a [`Scratch`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScratchSize {
    pub(crate) prepared: [usize; 2],
    pub(crate) acc: [usize; 2],
    pub(crate) res: usize,
    pub(crate) base: usize,
}

impl ScratchSize {
    /// The size that serves both.
    pub fn max(self, other: ScratchSize) -> ScratchSize {
        let max = |a: [usize; 2], b: [usize; 2]| [a[0].max(b[0]), a[1].max(b[1])];
        ScratchSize {
            prepared: max(self.prepared, other.prepared),
            acc: max(self.acc, other.acc),
            res: self.res.max(other.res),
            base: self.base.max(other.base),
        }
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> usize {
        let ScratchSize { prepared, acc, res, base } = self;
        prepared.iter().sum::<usize>() + 4 * acc.iter().sum::<usize>() + res + 4 * base
    }

    /// Reserves the memory.
    pub fn reserve(&self) -> Scratch {
        Scratch {
            prepared: self.prepared.map(Aligned::zeroed),
            acc: self.acc.map(Aligned::zeroed),
            res: Aligned::zeroed(self.res),
            base: Aligned::zeroed(self.base),
        }
    }
}

/// The threads that compute a layer.
#[derive(Clone, Copy)]
pub enum Workers<'a> {
    /// The calling thread alone computes the layer.
    One(&'a Mutex<Scratch>),
    /// All threads of a pool, with a scratch memory for each.
    All(&'a Pool, &'a [Mutex<Scratch>]),
}

impl<'a> Workers<'a> {
    /// Runs `tasks` tasks, whoever comes first.
    pub(crate) fn tasks(self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        match self {
            Workers::One(_) => (0..tasks).for_each(f),
            Workers::All(pool, _) => pool.run(tasks, &|task, _| f(task)),
        }
    }

    /// Runs `f` for every row of an image, for neighbouring rows on the same thread.
    pub(crate) fn rows(self, rows: usize, f: &(dyn Fn(usize) + Sync)) {
        let shares = Shares::new(self.threads(), rows, 1, 1);
        self.each(rows, &|worker, _| {
            std::iter::from_fn(|| shares.take(worker, None)).for_each(|share| f(share.strip));
        });
    }

    /// Runs `f(r, row)` for every row of the tensor `y`, whose interior pixels `row` holds, neighbouring rows on the
    /// same thread.
    ///
    /// # Panics
    /// If `y` does not fit its layout.
    pub fn each_row<T: Send>(self, y: &mut [T], layout: Layout, f: &(dyn Fn(usize, &mut [T]) + Sync)) {
        assert_eq!(y.len(), layout.len(), "elements of {layout:?}");
        let (out, len) = (Out::new(y), layout.w * layout.cs);
        self.rows(layout.h, &|r| {
            // SAFETY: `out.row` has checked the length; rows do not meet, and no other task has this one.
            f(r, unsafe { std::slice::from_raw_parts_mut(out.row(layout.offset(r, 0), len), len) });
        });
    }

    /// Runs `f(worker, scratch)` on all threads, on `most` of them at most.
    pub(crate) fn each(self, most: usize, f: &(dyn Fn(usize, &mut Scratch) + Sync)) {
        match self {
            Workers::One(scratch) => f(0, &mut lock(scratch)),
            Workers::All(pool, scratch) => {
                pool.run(most.min(pool.threads()), &|_, worker| f(worker, &mut lock(&scratch[worker])));
            }
        }
    }

    pub(crate) fn threads(self) -> usize {
        match self {
            Workers::One(_) => 1,
            Workers::All(pool, _) => pool.threads(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tensor written, shared by tasks that write different pixels or channels.
pub(crate) struct Out<'a, T> {
    first: *mut T,
    len: usize,
    tensor: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer is only handed out, by `row`; whoever writes through it promises that no two writes meet.
unsafe impl<T: Send> Sync for Out<'_, T> {}

impl<'a, T> Out<'a, T> {
    pub(crate) fn new(tensor: &'a mut [T]) -> Self {
        Self { first: tensor.as_mut_ptr(), len: tensor.len(), tensor: std::marker::PhantomData }
    }

    /// The address of element `at`, from which `len` elements are inside the tensor.
    pub(crate) fn row(&self, at: usize, len: usize) -> *mut T {
        assert!(at + len <= self.len, "elements {at}..{} of {}", at + len, self.len);
        self.first.wrapping_add(at)
    }
}
