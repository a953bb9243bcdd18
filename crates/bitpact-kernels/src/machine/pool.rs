//! The one thread pool: hands numbered tasks to threads within about a microsecond, and splits slices among them.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::machine::sync::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::machine::sync::sync::{Barrier, Condvar, Mutex, MutexGuard};
use crate::machine::sync::thread::{self, JoinHandle, Thread};
use crate::machine::sync::{hint, thread_local};

/// How long an idle thread spins for the next job before it sleeps; not at all where the order of threads must not
/// depend on time.
const SPIN: Duration = Duration::from_micros(if cfg!(shuttle) { 0 } else { 30 });

/// Layout of [`Shared::state`]: workers inside the job, flags, number of the job.
const WORKERS: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
const CALLER_WAITS: u64 = 1 << 17;
const SHUTDOWN: u64 = 1 << 18;
const JOB: u64 = 1 << 20;

type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

thread_local! {
    /// The pool whose task this thread is running, null if none.
    static INSIDE: Cell<*const Shared> = const { Cell::new(std::ptr::null()) };
}

#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    tasks: usize,
}

#[repr(align(128))]
struct OnOwnLine<T>(T);

struct Shared {
    state: OnOwnLine<AtomicU64>,
    next: OnOwnLine<AtomicUsize>,
    sleepers: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    caller: Mutex<Option<Thread>>,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only by the caller of `run` while no worker is inside a job, and read only by workers that
// entered through `state` while the job was open; `state` orders the two. All other fields are Sync.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is only followed inside `run`'s extent; nothing else is tied to a thread.
unsafe impl Send for Shared {}

/// A pool of threads that runs numbered tasks. The thread that calls [`Pool::run`] takes part as worker 0.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    running: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads in all, the caller's included; 0 counts as 1. All of them are up when it returns.
    ///
    /// # Panics
    /// If the system refuses a thread.
    pub fn new(threads: usize) -> Pool {
        let threads = threads.clamp(1, WORKERS as usize);
        let shared = Arc::new(Shared {
            state: OnOwnLine(AtomicU64::new(0)),
            next: OnOwnLine(AtomicUsize::new(0)),
            sleepers: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            caller: Mutex::new(None),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let all_up = Arc::new(Barrier::new(threads));
        let workers = (1..threads)
            .map(|worker| {
                let (shared, all_up) = (Arc::clone(&shared), Arc::clone(&all_up));
                thread::Builder::new()
                    .name(format!("bitpact-{worker}"))
                    .spawn(move || {
                        all_up.wait();
                        shared.work(worker);
                    })
                    .expect("the system refused a thread")
            })
            .collect();
        all_up.wait();
        Pool { shared, workers, running: Mutex::new(()) }
    }

    /// Number of threads, the caller's included. Worker numbers are below it.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(task, worker)` once for every task in `0..tasks` and returns when all are done. Which worker gets which
    /// task is open; two tasks never run under one worker number at a time.
    ///
    /// # Panics
    /// With the payload of the first task that panics; tasks not yet begun are then skipped. Also if called from inside
    /// a task of the same pool.
    pub fn run(&self, tasks: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        let inside = INSIDE.with(Cell::get);
        assert!(!std::ptr::eq(inside, Arc::as_ptr(&self.shared)), "Pool::run called from inside one of its own tasks");
        let _one_at_a_time = lock(&self.running);
        INSIDE.with(|inside| inside.set(Arc::as_ptr(&self.shared)));
        let _restore = Restore(inside);
        if self.workers.is_empty() || tasks <= 1 {
            (0..tasks).for_each(|task| f(task, 0));
            return;
        }
        self.shared.open(Job { task: erase(f), tasks });
        self.shared.claim(Job { task: erase(f), tasks }, 0);
        self.shared.close();
        let panic = lock(&self.shared.panic).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.0.fetch_or(SHUTDOWN, Ordering::SeqCst);
        self.shared.wake_sleepers();
        for worker in self.workers.drain(..) {
            // A worker's own panics are caught and reported by `run`.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

struct Restore(*const Shared);

impl Drop for Restore {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(self.0));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn erase(f: &Task<'_>) -> *const Task<'static> {
    // SAFETY: only the lifetime changes. The pointer is followed by workers inside the job alone, and `run` does not
    // return, nor unwind, before `close` has seen all of them leave.
    unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(f) }
}

impl Shared {
    fn open(&self, job: Job) {
        // SAFETY: `run` holds its mutex and the previous job is closed with no worker inside, so nobody reads `job`.
        unsafe { *self.job.get() = Some(job) };
        self.next.0.store(0, Ordering::Relaxed);
        let number = self.state.0.load(Ordering::Relaxed) / JOB + 1;
        self.state.0.store((number * JOB) | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.wake_sleepers();
        }
    }

    fn wake_sleepers(&self) {
        drop(lock(&self.sleep));
        self.wake.notify_all();
    }

    fn close(&self) {
        let mut state = self.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let begin = Instant::now();
        while state & WORKERS != 0 && begin.elapsed() < SPIN {
            hint::spin_loop();
            state = self.state.0.load(Ordering::Acquire);
        }
        if state & WORKERS == 0 {
            return;
        }
        *lock(&self.caller) = Some(thread::current());
        state = self.state.0.fetch_or(CALLER_WAITS, Ordering::AcqRel);
        while state & WORKERS != 0 {
            thread::park();
            state = self.state.0.load(Ordering::Acquire);
        }
    }

    fn claim(&self, job: Job, worker: usize) {
        // SAFETY: the caller of `run` is still inside it (see `erase`), so the closure lives.
        let task = unsafe { &*job.task };
        loop {
            let index = self.next.0.fetch_add(1, Ordering::Relaxed);
            if index >= job.tasks {
                return;
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| task(index, worker))) {
                self.next.0.store(job.tasks, Ordering::Relaxed);
                lock(&self.panic).get_or_insert(payload);
            }
        }
    }

    fn work(&self, worker: usize) {
        INSIDE.with(|inside| inside.set(self));
        let mut done = 0;
        while let Some(number) = self.next_job(done) {
            done = number;
            // SAFETY: this worker is counted in `state` since `next_job`, so the caller does not touch `job`.
            let job = unsafe { *self.job.get() };
            if let Some(job) = job {
                self.claim(job, worker);
            }
            let left = self.state.0.fetch_sub(1, Ordering::AcqRel);
            if left & CALLER_WAITS != 0
                && left & WORKERS == 1
                && let Some(caller) = lock(&self.caller).as_ref()
            {
                caller.unpark();
            }
        }
    }

    /// Waits for an open job other than number `done`, enters it and returns its number; `None` at the end of the pool.
    fn next_job(&self, done: u64) -> Option<u64> {
        let is_news = |state: u64| state & SHUTDOWN != 0 || (state & OPEN != 0 && state / JOB != done);
        loop {
            let state = self.state.0.load(Ordering::Acquire);
            if !is_news(state) {
                self.wait_until(is_news);
            } else if state & SHUTDOWN != 0 {
                return None;
            } else if self.state.0.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(state / JOB);
            }
        }
    }

    fn wait_until(&self, is_news: impl Fn(u64) -> bool) {
        let begin = Instant::now();
        while begin.elapsed() < SPIN {
            for _ in 0..16 {
                if is_news(self.state.0.load(Ordering::Relaxed)) {
                    return;
                }
                hint::spin_loop();
            }
        }
        let mut guard = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !is_news(self.state.0.load(Ordering::SeqCst)) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Words of bits that a [`Chunked`] holds in itself.
const INLINE: usize = 16;

/// A slice cut into chunks that parallel tasks borrow one by one: chunk i is `[i*chunk_len, (i+1)*chunk_len)`, the last
/// one may be shorter. Up to 1024 chunks allocate nothing.
pub struct Chunked<'a, T> {
    start: AtomicPtr<T>,
    len: usize,
    chunk_len: usize,
    /// A bit for each chunk that is borrowed: the first ones, and those that did not fit.
    taken: [AtomicU64; INLINE],
    more_taken: Vec<AtomicU64>,
    slice: std::marker::PhantomData<&'a mut [T]>,
}

impl<'a, T: Send> Chunked<'a, T> {
    /// Cuts `slice` into chunks of `chunk_len`.
    ///
    /// # Panics
    /// If `chunk_len` is 0.
    pub fn new(slice: &'a mut [T], chunk_len: usize) -> Chunked<'a, T> {
        assert!(chunk_len > 0, "chunks of no elements");
        let words = slice.len().div_ceil(chunk_len).div_ceil(64);
        let more_taken = (INLINE..words).map(|_| AtomicU64::new(0)).collect();
        let (start, len) = (AtomicPtr::new(slice.as_mut_ptr()), slice.len());
        Chunked { start, len, chunk_len, taken: Default::default(), more_taken, slice: std::marker::PhantomData }
    }

    /// Number of chunks.
    pub fn chunks(&self) -> usize {
        self.len.div_ceil(self.chunk_len)
    }

    /// Borrows chunk `index` until the returned guard is dropped.
    ///
    /// # Panics
    /// If there is no such chunk, or if it is borrowed already.
    pub fn get(&self, index: usize) -> Chunk<'_, T> {
        assert!(index < self.chunks(), "chunk {index} of {}", self.chunks());
        let word = index / 64;
        let word = self.taken.get(word).unwrap_or_else(|| &self.more_taken[word - INLINE]);
        let bit = 1 << (index % 64);
        let before = word.fetch_or(bit, Ordering::Acquire);
        assert!(before & bit == 0, "chunk {index} is borrowed already");
        let first = index * self.chunk_len;
        let len = self.chunk_len.min(self.len - first);
        // SAFETY: `first` is inside the slice that `start` begins.
        let start = unsafe { self.start.load(Ordering::Relaxed).add(first) };
        // SAFETY: `start..start+len` is inside the slice, which is borrowed exclusively for 'a; the bit just set keeps
        // every other `get` off this chunk until the guard clears it, and chunks do not overlap.
        let slice = unsafe { std::slice::from_raw_parts_mut(start, len) };
        Chunk { slice, word, bit }
    }
}

/// The borrow of one chunk; see [`Chunked::get`].
pub struct Chunk<'b, T> {
    slice: &'b mut [T],
    word: &'b AtomicU64,
    bit: u64,
}

impl<T> Deref for Chunk<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.slice
    }
}

impl<T> DerefMut for Chunk<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.slice
    }
}

impl<T> Drop for Chunk<'_, T> {
    fn drop(&mut self) {
        self.word.fetch_and(!self.bit, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
