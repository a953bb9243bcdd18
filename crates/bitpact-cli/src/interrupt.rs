//! Ctrl-C: once to stop after the step under way with everything saved, twice to stop at once.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::exit::INTERRUPTED;
use crate::out::say;

/// Set by Ctrl-C once [`install`] was called.
pub(crate) static STOP: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C sets the returned flag, and a second Ctrl-C ends the process.
pub(crate) fn install() -> Result<&'static AtomicBool> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
        say!("\nstopping after this step and saving; Ctrl-C again to stop at once");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(&STOP)
}
