//! Images made ready on other threads before a trainer asks for them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::Dataset;

/// An example that is ready.
#[derive(Debug, Default)]
pub struct Prepared {
    /// The image, in HWC order.
    pub image: Vec<u8>,
    /// Target of the example; empty where there is none besides the class.
    pub target: Vec<f32>,
}

/// A queue of examples in the order of an epoch, filled by any number of threads, bounded in what it holds. What an
/// example is depends on its place alone, so it is the same for any number of threads.
pub struct Ahead<F> {
    make: F,
    end: usize,
    room: usize,
    state: Mutex<State>,
    changed: Condvar,
    waited_ns: AtomicU64,
    made_ns: AtomicU64,
}

struct State {
    /// Place of the first example that is held.
    first: usize,
    /// The next place to fill.
    next: usize,
    /// Examples from `first` on, as far as they are begun.
    held: VecDeque<Option<Arc<Prepared>>>,
    is_stopped: bool,
}

impl<F: Fn(usize) -> Prepared + Sync> Ahead<F> {
    /// A queue of the examples at the places from `start` up to `end`, which holds at most `room` of them and makes
    /// each by `make`.
    pub fn new(start: usize, end: usize, room: usize, make: F) -> Self {
        let state = State { first: start, next: start, held: VecDeque::new(), is_stopped: false };
        let (waited_ns, made_ns) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { make, end, room: room.max(1), state: Mutex::new(state), changed: Condvar::new(), waited_ns, made_ns }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes examples until all are made or [`stop`](Self::stop) is called.
    pub fn work(&self) {
        /// Stops the queue where making an example panics, so that nobody waits for it.
        struct Guard<'a, F: Fn(usize) -> Prepared + Sync>(&'a Ahead<F>);
        impl<F: Fn(usize) -> Prepared + Sync> Drop for Guard<'_, F> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.stop();
                }
            }
        }
        let _guard = Guard(self);
        loop {
            let mut state = self.lock();
            while !state.is_stopped && state.next < self.end && state.next >= state.first + self.room {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.is_stopped || state.next >= self.end {
                return;
            }
            let place = state.next;
            state.next += 1;
            state.held.push_back(None);
            drop(state);
            let began = Instant::now();
            let prepared = Arc::new((self.make)(place));
            self.made_ns.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
            let mut state = self.lock();
            // What was released meanwhile is wanted by no one.
            if let Some(at) = place.checked_sub(state.first) {
                state.held[at] = Some(prepared);
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The example at `place`, waited for where it is under way; `None` where it was released, lies beyond what the
    /// queue holds, or the queue was stopped: make it then.
    pub fn get(&self, place: usize) -> Option<Arc<Prepared>> {
        let mut state = self.lock();
        let mut began = None;
        let found = loop {
            let at = place.checked_sub(state.first).filter(|&at| at < self.room && place < self.end);
            let Some(at) = at.filter(|_| !state.is_stopped) else { break None };
            if let Some(Some(prepared)) = state.held.get(at) {
                break Some(Arc::clone(prepared));
            }
            began.get_or_insert_with(Instant::now);
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        if let Some(began) = began {
            self.waited_ns.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
        found
    }

    /// Makes room: the examples before `place` are wanted no more.
    pub fn release(&self, place: usize) {
        let mut state = self.lock();
        let gone = place.min(state.next).saturating_sub(state.first);
        state.held.drain(..gone);
        state.first += gone;
        drop(state);
        self.changed.notify_all();
    }

    /// Ends the work of all threads.
    pub fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    /// Seconds that callers of [`get`](Self::get) have waited, and seconds that making has taken, each summed over
    /// threads.
    pub fn seconds(&self) -> (f64, f64) {
        let seconds = |ns: &AtomicU64| ns.load(Ordering::Relaxed) as f64 * 1e-9;
        (seconds(&self.waited_ns), seconds(&self.made_ns))
    }
}

/// Writes images one after the other, from `first` on, to `out`, a whole number of them; on several threads where the
/// set is slow.
///
/// # Panics
/// When an image is beyond the set.
pub fn read_images(images: &dyn Dataset, first: usize, out: &mut [u8], threads: usize) {
    let len = images.bytes_shape().len();
    let count = out.len() / len;
    let threads = if images.is_slow() { threads.clamp(1, count.max(1)) } else { 1 };
    let share = count.div_ceil(threads).max(1);
    let read = |first: usize, out: &mut [u8]| {
        out.chunks_exact_mut(len).enumerate().for_each(|(i, image)| images.image(first + i, image));
    };
    if threads == 1 {
        return read(first, out);
    }
    std::thread::scope(|scope| {
        for (i, out) in out.chunks_mut(share * len).enumerate() {
            scope.spawn(move || read(first + i * share, out));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(place: usize) -> Prepared {
        Prepared { image: vec![place as u8; 3], target: vec![place as f32] }
    }

    #[test]
    fn examples_come_in_order_from_any_number_of_threads_and_few_at_a_time() {
        for threads in [1, 3, 8] {
            let most = AtomicU64::new(0);
            let ahead = Ahead::new(5, 105, 8, |place| {
                most.fetch_max(place as u64, Ordering::Relaxed);
                made(place)
            });
            std::thread::scope(|scope| {
                (0..threads).for_each(|_| drop(scope.spawn(|| ahead.work())));
                for batch in (5..105).step_by(4) {
                    for place in batch..batch + 4 {
                        let found = ahead.get(place).unwrap();
                        assert_eq!((&found.image[..], &found.target[..]), (&[place as u8; 3][..], &[place as f32][..]));
                        assert!(most.load(Ordering::Relaxed) < batch as u64 + 8, "at most 8 are held");
                    }
                    // Twice the same is the same.
                    assert_eq!(ahead.get(batch).unwrap().image, [batch as u8; 3]);
                    ahead.release(batch + 4);
                    assert!(ahead.get(batch).is_none());
                }
                assert!(ahead.get(105).is_none());
            });
        }
    }

    #[test]
    fn a_stopped_queue_lets_everybody_go() {
        let ahead = Ahead::new(0, 1000, 4, made);
        std::thread::scope(|scope| {
            (0..2).for_each(|_| drop(scope.spawn(|| ahead.work())));
            assert!(ahead.get(0).is_some());
            ahead.stop();
        });
        assert!(ahead.get(1).is_none());
    }

    #[test]
    fn nobody_waits_for_an_example_whose_making_panics() {
        let ahead = Ahead::new(0, 10, 4, |place| if place == 2 { panic!("on purpose") } else { made(place) });
        let result = std::thread::scope(|scope| {
            let worker = scope.spawn(|| ahead.work());
            assert!(ahead.get(2).is_none());
            worker.join()
        });
        assert!(result.is_err());
    }
}
