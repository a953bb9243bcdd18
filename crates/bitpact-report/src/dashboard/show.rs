//! The terminal while someone looks at a dashboard.

use std::io;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::Dashboard;

/// Longest time without asking whether anything changed.
const ASK: Duration = Duration::from_millis(500);

/// Why the dashboard was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Someone pressed q.
    Key,
    /// Someone pressed Ctrl-C.
    Interrupt,
    /// There is nothing more to show.
    End,
}

/// The outcome of asking a run for news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// Nothing changed.
    Same,
    /// Something changed.
    Changed,
    /// The run is over and the dashboard is to be left.
    End,
}

/// Shows a run on the terminal until someone leaves; the terminal is then as it was before. Twice a second `refresh` is
/// asked for news.
///
/// # Errors
/// A terminal that cannot be drawn on, or an error of `refresh`.
pub fn show(
    dashboard: &mut Dashboard,
    refresh: &mut dyn FnMut(&mut Dashboard) -> io::Result<Refreshed>,
) -> io::Result<Left> {
    let mut terminal = ratatui::try_init()?;
    let result = look(&mut terminal, dashboard, refresh);
    let restored = ratatui::try_restore();
    let left = result?;
    restored.map(|()| left)
}

/// Puts the terminal back as it was before a dashboard, wherever that stands; harmless where there is none.
pub fn restore() {
    ratatui::restore();
}

fn look(
    terminal: &mut ratatui::DefaultTerminal,
    dashboard: &mut Dashboard,
    refresh: &mut dyn FnMut(&mut Dashboard) -> io::Result<Refreshed>,
) -> io::Result<Left> {
    refresh(dashboard)?;
    terminal.draw(|frame| dashboard.draw(frame))?;
    let mut asked = Instant::now();
    loop {
        let mut draws = false;
        if event::poll(ASK.saturating_sub(asked.elapsed()))? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(Left::Key),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(Left::Interrupt),
                    KeyCode::Up => (dashboard.scroll, draws) = (dashboard.scroll.saturating_sub(1), true),
                    KeyCode::Down => (dashboard.scroll, draws) = (dashboard.scroll + 1, true),
                    _ => {}
                },
                Event::Resize(..) => draws = true,
                _ => {}
            }
            let most = dashboard.records.epochs.last().map_or(0, |last| last.layers.len());
            dashboard.scroll = dashboard.scroll.min(most.saturating_sub(1));
        }
        if asked.elapsed() >= ASK {
            asked = Instant::now();
            match refresh(dashboard)? {
                Refreshed::Same => {}
                Refreshed::Changed => draws = true,
                Refreshed::End => return Ok(Left::End),
            }
        }
        if draws {
            terminal.draw(|frame| dashboard.draw(frame))?;
        }
    }
}
