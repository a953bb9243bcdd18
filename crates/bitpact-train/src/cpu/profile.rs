//! Where the time of a step goes: an opt-in profile of the pool that runs it.
//!
//! The step marks what begins with [`Pool::enter`]; tasks that do several things split their time with a [`Clock`].
//! Without a profile both are a branch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::profile::{Pass, StepTimes};

/// The pool of a backend.
pub(super) struct Pool {
    inner: bitpact_kernels::Pool,
    profile: Option<Profile>,
}

impl Pool {
    pub(super) fn new(threads: usize) -> Self {
        Self { inner: bitpact_kernels::Pool::new(threads), profile: None }
    }

    pub(super) fn threads(&self) -> usize {
        self.inner.threads()
    }

    /// See [`bitpact_kernels::Pool::run`].
    pub(super) fn run(&self, tasks: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        match &self.profile {
            None => self.inner.run(tasks, f),
            Some(profile) => profile.run(&self.inner, tasks, f),
        }
    }

    /// From here on, until the next call, time belongs to `pass` of `layer`.
    pub(super) fn enter(&self, pass: Pass, layer: &str) {
        if let Some(profile) = &self.profile {
            profile.enter(Some((layer, pass)));
        }
    }

    /// Ends a step.
    pub(super) fn leave(&self) {
        if let Some(profile) = &self.profile {
            profile.enter(None);
        }
    }

    /// A clock for the task that worker `worker` is in.
    pub(super) fn clock(&self, worker: usize) -> Clock<'_> {
        Clock { running: self.profile.as_ref().map(|profile| (&profile.slots[worker], Instant::now())) }
    }

    /// Starts a profile, or drops the one there is.
    pub(super) fn set_profile(&mut self, on: bool) {
        self.profile = on.then(|| Profile::new(self.threads()));
    }

    /// What the profile has seen since it was started; `None` where there is none.
    pub(super) fn times(&self) -> Option<StepTimes> {
        self.profile.as_ref().map(|profile| lock(&profile.state).times.clone())
    }
}

/// Splits the time of one task among passes; what it does not name belongs to the pass that was entered.
pub(super) struct Clock<'a> {
    running: Option<(&'a Slot, Instant)>,
}

impl Clock<'_> {
    /// Time since the clock was made, or since the last call, belongs to `pass`.
    pub(super) fn lap(&mut self, pass: Pass) {
        if let Some((slot, since)) = &mut self.running {
            let now = Instant::now();
            slot.add(pass, nanos(now - *since));
            *since = now;
        }
    }
}

/// What one worker did since the last [`Pool::enter`].
#[repr(align(128))]
#[derive(Default)]
struct Slot {
    passes: [AtomicU64; Pass::ALL.len()],
    /// Sum of `passes`.
    total: AtomicU64,
}

impl Slot {
    fn add(&self, pass: Pass, nanos: u64) {
        self.passes[pass as usize].fetch_add(nanos, Ordering::Relaxed);
        self.total.fetch_add(nanos, Ordering::Relaxed);
    }
}

struct Profile {
    slots: Vec<Slot>,
    state: Mutex<State>,
}

struct State {
    times: StepTimes,
    current: Option<Current>,
    /// Begin of the step.
    began: Instant,
}

/// The pass that was entered last.
struct Current {
    layer: String,
    pass: Pass,
    since: Instant,
    /// Time inside [`Pool::run`] since.
    in_pool: Duration,
}

impl Profile {
    fn new(threads: usize) -> Self {
        let times = StepTimes { busy: vec![Duration::ZERO; threads], ..StepTimes::default() };
        Self {
            slots: (0..threads).map(|_| Slot::default()).collect(),
            state: Mutex::new(State { times, current: None, began: Instant::now() }),
        }
    }

    fn enter(&self, next: Option<(&str, Pass)>) {
        let now = Instant::now();
        let State { times, current, began } = &mut *lock(&self.state);
        match current.take() {
            None => *began = now,
            Some(Current { layer, pass, since, in_pool }) => {
                // Outside the pool this thread works alone.
                self.slots[0].add(pass, nanos((now - since).saturating_sub(in_pool)));
                let worked: u64 = self.slots.iter().map(|slot| slot.total.load(Ordering::Relaxed)).sum();
                let wait = ((now - since) * self.slots.len() as u32).saturating_sub(Duration::from_nanos(worked));
                *times.waits.entry((layer.clone(), pass)).or_default() += wait;
                for (slot, busy) in self.slots.iter().zip(&mut times.busy) {
                    *busy += Duration::from_nanos(slot.total.swap(0, Ordering::Relaxed));
                    for (pass, nanos) in Pass::ALL.into_iter().zip(&slot.passes) {
                        let time = Duration::from_nanos(nanos.swap(0, Ordering::Relaxed));
                        if !time.is_zero() {
                            *times.passes.entry((layer.clone(), pass)).or_default() += time;
                        }
                    }
                }
            }
        }
        match next {
            Some((layer, pass)) => {
                *current = Some(Current { layer: layer.to_owned(), pass, since: now, in_pool: Duration::ZERO });
            }
            None => {
                times.steps += 1;
                times.wall += now - *began;
            }
        }
    }

    fn run(&self, pool: &bitpact_kernels::Pool, tasks: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        let Some(pass) = lock(&self.state).current.as_ref().map(|current| current.pass) else {
            return pool.run(tasks, f);
        };
        let begin = Instant::now();
        pool.run(tasks, &|task, worker| {
            let slot = &self.slots[worker];
            let (begin, before) = (Instant::now(), slot.total.load(Ordering::Relaxed));
            f(task, worker);
            let named = slot.total.load(Ordering::Relaxed) - before;
            slot.add(pass, nanos(begin.elapsed()).saturating_sub(named));
        });
        if let Some(current) = &mut lock(&self.state).current {
            current.in_pool += begin.elapsed();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tasks, laps and the time between them all end up in the table, and nowhere twice.
    #[test]
    fn every_moment_of_a_step_belongs_to_one_pass() {
        for threads in [1, 3] {
            let mut pool = Pool::new(threads);
            pool.enter(Pass::Apply, "unseen");
            assert_eq!(pool.times(), None);
            pool.set_profile(true);
            let spin = |time: Duration| {
                let begin = Instant::now();
                while begin.elapsed() < time {}
            };
            let unit = Duration::from_micros(200);
            for _ in 0..2 {
                pool.enter(Pass::Reduce, "a");
                spin(unit);
                pool.run(6, &|_, worker| {
                    let mut clock = pool.clock(worker);
                    spin(unit);
                    clock.lap(Pass::InputGradient);
                    spin(unit);
                });
                pool.enter(Pass::Loss, "");
                spin(unit);
                pool.leave();
            }
            let times = pool.times().expect("it is on");
            let of = |layer: &str, pass| times.passes[&(layer.to_owned(), pass)];
            assert_eq!((times.steps, times.passes.len(), times.busy.len()), (2, 3, threads));
            assert!(of("a", Pass::InputGradient) >= 12 * unit && of("a", Pass::Reduce) >= 14 * unit);
            assert!(of("", Pass::Loss) >= 2 * unit);
            let (worked, waited): (Duration, Duration) = (times.passes.values().sum(), times.waits.values().sum());
            assert_eq!(worked, times.busy.iter().sum());
            assert_eq!(worked + waited, times.wall * threads as u32);
            assert!(times.busy.iter().all(|&busy| busy <= times.wall), "{times:?}");
        }
    }
}
