//! `bitpact watch`: a run on the terminal, from what it has written down.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bitpact::unstable::report::dashboard::{Refreshed, show};
use bitpact::unstable::report::{Dashboard, Follower, Run};

use crate::exit::Usage;
use crate::out::say;

/// Shows a run live, whoever trains it and wherever: curves, clip values, layers, warnings
#[derive(clap::Args)]
#[command(after_help = "\
The run is only read, and need not be going on. q leaves.

Example:
  bitpact watch runs/builtin-W4A4-seed1")]
pub(crate) struct Args {
    /// Folder of the run
    run: PathBuf,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let run = Run::read(&args.run)?;
    if !std::io::stdout().is_terminal() {
        let told = "watch draws on a terminal, and standard output is none; bitpact report writes a page";
        return Err(Usage(told.to_owned()).into());
    }
    let mut dashboard = Dashboard::new(run.name(), run.recipe.as_ref());
    let mut follower = Follower::new(&args.run);
    let mut shown_silence = Duration::ZERO;
    let left = show(&mut dashboard, &mut |dashboard| {
        let is_new = follower.read()?;
        if is_new {
            dashboard.records = follower.records.clone();
        }
        let silent = follower.modified().and_then(|time| time.elapsed().ok());
        dashboard.silent = silent;
        // Time alone is worth a drawing every few seconds.
        let silence = silent.unwrap_or_default();
        let is_later = !dashboard.is_finished() && silence.abs_diff(shown_silence) >= Duration::from_secs(5);
        if is_new || is_later {
            shown_silence = silence;
            return Ok(Refreshed::Changed);
        }
        Ok(Refreshed::Same)
    });
    left.with_context(|| format!("{}: cannot be shown", args.run.display()))?;
    for fault in follower.records.faults() {
        say!("warning: {}: {fault}", run.name());
    }
    Ok(())
}
