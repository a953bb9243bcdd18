//! In place of the dashboard in a program without the feature `tui`.

use anyhow::Result;
use bitpact::Recipe;
use bitpact::unstable::train::{Event, RunFolder};

use crate::exit::Usage;

/// A dashboard that never opens.
pub(crate) enum Tui {}

/// Says that there is none.
pub(crate) fn check() -> Result<()> {
    Err(Usage("--tui: this program was built without its feature `tui`".to_owned()).into())
}

impl Tui {
    pub(crate) fn open(_: &Recipe, _: &RunFolder) -> Option<Self> {
        None
    }

    pub(crate) fn is_open(&self) -> bool {
        match *self {}
    }

    pub(crate) fn take(&self, _: &Event<'_>, _: usize) {
        match *self {}
    }
}
