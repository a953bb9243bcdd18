//! The dashboard of a run that this process trains: a thread of its own draws it, so that the training never waits.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Result;
use bitpact::Recipe;
use bitpact::unstable::report::dashboard::{Left, Refreshed, show};
use bitpact::unstable::report::{Dashboard, Follower};
use bitpact::unstable::train::{Event, RunFolder};

use crate::exit::Usage;
use crate::interrupt;
use crate::out::say;

/// Whether someone has left a dashboard: no other one is opened.
static LEFT: AtomicBool = AtomicBool::new(false);

/// A dashboard that is on the terminal until someone leaves it, or the run ends.
pub(crate) struct Tui {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    dashboard: Mutex<Dashboard>,
    has_news: AtomicBool,
    is_over: AtomicBool,
    is_open: AtomicBool,
}

/// Whether there is a terminal to draw on.
pub(crate) fn check() -> Result<()> {
    match std::io::stdout().is_terminal() {
        true => Ok(()),
        false => Err(Usage("--tui draws on a terminal, and standard output is none".to_owned()).into()),
    }
}

impl Tui {
    /// Opens the dashboard of a run, with the epochs that are done already; `None` where someone has left one before,
    /// or a signal has come.
    pub(crate) fn open(recipe: &Recipe, folder: &RunFolder) -> Option<Self> {
        if LEFT.load(Ordering::SeqCst) {
            return None;
        }
        let dashboard = dashboard(recipe, folder);
        interrupt::before_words(leave);
        let shared = Arc::new(Shared {
            dashboard: Mutex::new(dashboard.clone()),
            has_news: AtomicBool::new(true),
            is_over: AtomicBool::new(false),
            is_open: AtomicBool::new(true),
        });
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("dashboard".to_owned()).spawn(move || watch(&own, dashboard));
        Some(Self { shared, thread: Some(thread.ok()?) })
    }

    /// Whether it is still on the terminal.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.is_open.load(Ordering::SeqCst)
    }

    /// Takes in what happens.
    pub(crate) fn take(&self, event: &Event<'_>, batch_size: usize) {
        self.shared.dashboard.lock().unwrap_or_else(PoisonError::into_inner).take(event, batch_size, Instant::now());
        self.shared.has_news.store(true, Ordering::SeqCst);
    }
}

impl Drop for Tui {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn dashboard(recipe: &Recipe, folder: &RunFolder) -> Dashboard {
    let path = folder.path();
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let (mut dashboard, mut follower) = (Dashboard::new(name, Some(recipe)), Follower::new(path));
    // What cannot be read now cannot be resumed from either, and training says so.
    if follower.read().is_ok() {
        dashboard.records = follower.records;
    }
    dashboard
}

fn watch(shared: &Shared, mut dashboard: Dashboard) {
    let left = show(&mut dashboard, &mut |dashboard| {
        if shared.is_over.load(Ordering::SeqCst) || LEFT.load(Ordering::SeqCst) {
            return Ok(Refreshed::End);
        }
        if !shared.has_news.swap(false, Ordering::SeqCst) {
            return Ok(Refreshed::Same);
        }
        let scroll = dashboard.scroll;
        *dashboard = shared.dashboard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        dashboard.scroll = scroll;
        Ok(Refreshed::Changed)
    });
    shared.is_open.store(false, Ordering::SeqCst);
    match left {
        Ok(Left::End) => {}
        Ok(Left::Key) => LEFT.store(true, Ordering::SeqCst),
        Ok(Left::Interrupt) => {
            LEFT.store(true, Ordering::SeqCst);
            interrupt::pressed();
        }
        Err(error) => {
            LEFT.store(true, Ordering::SeqCst);
            say!("warning: the dashboard cannot be drawn: {error}");
        }
    }
}

/// Gives the terminal back before someone else writes to it.
fn leave() {
    if !LEFT.swap(true, Ordering::SeqCst) {
        bitpact::unstable::report::dashboard::restore();
    }
}
