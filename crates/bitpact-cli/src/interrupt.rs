//! Ctrl-C and the signals that ask a process to end (SIGTERM, SIGHUP). Work that can be saved is stopped by the first
//! one, after the step under way, and at once by the second; other work ends at once. In either case no half written
//! file stays behind.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use bitpact::unstable::model::hold_writes;
use tempfile::TempDir;

use crate::out::say;

static STOP: AtomicBool = AtomicBool::new(false);
/// The signal that came.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// Message that the handler prints when a signal ends the process at once.
static FAREWELL: Mutex<String> = Mutex::new(String::new());
/// The folder of [`scratch`].
static SCRATCH: Mutex<Option<PathBuf>> = Mutex::new(None);
/// Whether the first signal only sets [`STOP`].
static SAVES: AtomicBool = AtomicBool::new(false);

/// Called before a signal's words are written.
static BEFORE_WORDS: Mutex<Option<fn()>> = Mutex::new(None);

const SIGINT: i32 = 2;

/// From now on signals are listened to, and end the process.
pub(crate) fn install() -> Result<()> {
    listen().context("cannot listen for Ctrl-C")
}

/// From now on the first signal only sets the returned flag.
pub(crate) fn stop_flag() -> &'static AtomicBool {
    SAVES.store(true, Ordering::SeqCst);
    &STOP
}

/// From now on `f` is called before a signal's words are written, and before it ends the process.
#[cfg(feature = "tui")]
pub(crate) fn before_words(f: fn()) {
    *BEFORE_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(f);
}

/// Ctrl-C where the terminal gives it as a key and not as a signal.
#[cfg(feature = "tui")]
pub(crate) fn pressed() {
    came(SIGINT);
}

/// Sets the message for a signal that ends the process, until the returned value is dropped.
pub(crate) fn farewell(text: String) -> impl Drop {
    struct Farewell;
    impl Drop for Farewell {
        fn drop(&mut self) {
            FAREWELL.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
    *FAREWELL.lock().unwrap_or_else(PoisonError::into_inner) = text;
    Farewell
}

/// From now on temporary folders of this process are made in the returned one, which is gone when the process ends,
/// however a signal ends it.
pub(crate) fn scratch() -> Result<TempDir> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    // What was set before can only be by this function.
    let _ = tempfile::env::override_temp_dir(folder.path());
    *SCRATCH.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.path().to_owned());
    Ok(folder)
}

/// Exit status of a process that the signal ended, as shells have it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
pub(crate) fn exit_status() -> u8 {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => 128 + SIGINT as u8,
        signal => 128 + signal as u8,
    }
}

fn came(signal: i32) {
    let is_first = !STOP.swap(true, Ordering::SeqCst);
    SIGNAL.store(signal, Ordering::SeqCst);
    if let Some(f) = *BEFORE_WORDS.lock().unwrap_or_else(PoisonError::into_inner) {
        f();
    }
    if is_first && SAVES.load(Ordering::SeqCst) {
        say!("\nstopping after this step and saving; Ctrl-C again to stop at once");
        return;
    }
    let _none_under_way = hold_writes();
    let farewell = FAREWELL.lock().unwrap_or_else(PoisonError::into_inner);
    if !farewell.is_empty() {
        say!("\n{farewell}");
    }
    if let Some(folder) = &*SCRATCH.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = std::fs::remove_dir_all(folder);
    }
    std::process::exit(exit_status().into());
}

#[cfg(unix)]
fn listen() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // `nohup` has SIGHUP ignored, so that the work outlives the terminal.
    let wanted =
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| signal != SIGHUP || !is_ignored(&status, signal));
    let mut signals = Signals::new(wanted)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || signals.forever().for_each(came))?;
    Ok(())
}

/// Whether the process was started with `signal` ignored, as Linux tells: `SigIgn:\t0000000000000001`, a bit a signal.
#[cfg(unix)]
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
fn listen() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| came(SIGINT))
}

#[cfg(all(test, unix))]
mod tests {
    use super::is_ignored;

    #[test]
    fn ignored_signals_as_linux_writes_them() {
        let status =
            "Name:\tbitpact\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert_eq!([1, 2, 13, 15].map(|signal| is_ignored(status, signal)), [true, false, true, false]);
        assert!(!is_ignored("", 1) && !is_ignored("SigIgn:\tmany", 1));
    }
}
