//! The screen of `rankpool top`: takes over the terminal, draws pages, and leaves the terminal as it was.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{execute, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// What a user asks for with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    /// The next order of the ranks.
    Sort,
    /// Scroll by this number of lines, or of pages.
    Lines(i32),
    Pages(i32),
    Top,
    Bottom,
}

/// A line of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub text: String,
    pub is_bright: bool,
}

/// The terminal while a screen is shown. Dropping it leaves the terminal as it was.
pub(super) struct Screen {
    ended: Arc<AtomicBool>,
    /// Whether other bytes than text are on the screen: after a resize.
    is_dirty: bool,
}

impl Screen {
    /// Takes over the terminal.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(super) fn open() -> io::Result<Screen> {
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGHUP, SIGINT] {
            signal_hook::flag::register(signal, ended.clone())?;
        }
        terminal::enable_raw_mode()?;
        // From here on the terminal is restored whatever happens.
        let screen = Screen { ended, is_dirty: true };
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Returns its width and height.
    pub(super) fn size() -> (usize, usize) {
        let (width, height) = terminal::size().unwrap_or((80, 24));
        (width.max(1).into(), height.max(1).into())
    }

    /// Draws a page, of no more lines than the screen has.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(super) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let mut bytes = Vec::new();
        if std::mem::take(&mut self.is_dirty) {
            queue!(bytes, Clear(ClearType::All))?;
        }
        // Below a full page the cursor would stay on its last line.
        if lines.len() < Screen::size().1 {
            let row = lines.len().try_into().unwrap_or(u16::MAX);
            queue!(bytes, MoveTo(0, row), Clear(ClearType::FromCursorDown))?;
        }
        for (row, line) in (0..).zip(lines) {
            queue!(bytes, MoveTo(0, row))?;
            if line.is_bright {
                queue!(bytes, SetAttribute(Attribute::Reverse))?;
            }
            queue!(bytes, Print(&line.text), SetAttribute(Attribute::Reset), Clear(ClearType::UntilNewLine))?;
        }
        out.write_all(&bytes)?;
        out.flush()
    }

    /// Waits for a key that means something, at most for this time.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(super) fn wish(&mut self, wait: Duration) -> io::Result<Option<Wish>> {
        if self.ended.load(Ordering::Relaxed) {
            return Ok(Some(Wish::Quit));
        }
        let has_event = match event::poll(wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
            polled => polled?,
        };
        if !has_event {
            return Ok(None);
        }
        match event::read()? {
            Event::Key(key) => Ok(wish(key)),
            Event::Resize(..) => {
                self.is_dirty = true;
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

fn wish(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('s') => Some(Wish::Sort),
        KeyCode::Down | KeyCode::Char('j') => Some(Wish::Lines(1)),
        KeyCode::Up | KeyCode::Char('k') => Some(Wish::Lines(-1)),
        KeyCode::PageDown | KeyCode::Char(' ') => Some(Wish::Pages(1)),
        KeyCode::PageUp => Some(Wish::Pages(-1)),
        KeyCode::Home | KeyCode::Char('g') => Some(Wish::Top),
        KeyCode::End | KeyCode::Char('G') => Some(Wish::Bottom),
        _ => None,
    }
}
