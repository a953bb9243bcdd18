//! Long work that Ctrl-C and exceptions of callbacks stop.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// Between two looks for a signal.
const PAUSE: Duration = Duration::from_millis(50);

/// The stop of some work, and the exception that is its cause.
#[derive(Default)]
pub(crate) struct Watch {
    stop: AtomicBool,
    cause: Mutex<Option<PyErr>>,
    looked: Mutex<Option<Instant>>,
}

impl Watch {
    /// Set where the work shall stop.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// Looks whether a signal has come, at most every [`PAUSE`]. Only Python's main thread hears of signals.
    pub(crate) fn look(&self) {
        {
            let mut looked = self.looked.lock().expect("no look panics");
            if looked.is_some_and(|last| last.elapsed() < PAUSE) {
                return;
            }
            *looked = Some(Instant::now());
        }
        self.call(|py| py.check_signals());
    }

    /// Calls into Python; an exception stops the work.
    pub(crate) fn call(&self, f: impl FnOnce(Python<'_>) -> PyResult<()>) {
        if let Err(error) = Python::attach(f) {
            self.stop.store(true, Ordering::Relaxed);
            self.cause.lock().expect("no call panics").get_or_insert(error);
        }
    }

    /// The exception that stopped the work.
    pub(crate) fn cause(&self) -> Option<PyErr> {
        self.cause.lock().expect("no call panics").take()
    }
}
