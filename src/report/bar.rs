//! The bar that shows progress on a terminal, made with the crate `indicatif`.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::progress::View;
use super::terminal::Terminal;
use crate::console::{self, Display};

/// The width of a terminal that does not tell.
const USUAL_WIDTH: u16 = 80;
/// The most columns of the bar itself, and the fewest that are worth it.
const LONGEST_BAR: usize = 40;
const SHORTEST_BAR: usize = 8;

/// A bar; its clones are the same bar.
#[derive(Clone)]
pub(super) struct Bar {
    bar: ProgressBar,
    name: String,
    stream: Arc<Stream>,
    /// The number of columns of the bar itself, as of the last style.
    columns: Arc<Mutex<Option<usize>>>,
}

impl Bar {
    /// Makes a bar, if a terminal shows standard error, and no other bar is there.
    pub(super) fn on_terminal(name: &str, total: Option<u64>) -> Option<Bar> {
        let terminal = Terminal::of_stderr().filter(|terminal| !terminal.is_in_background() && terminal.take())?;
        Some(Bar::new(
            name,
            total,
            Stream {
                terminal: Some(terminal),
                is_forced: false,
                is_held: AtomicBool::default(),
                text: Mutex::default(),
            },
        ))
    }

    /// Makes a bar wherever standard error goes.
    pub(super) fn anywhere(name: &str, total: Option<u64>) -> Option<Bar> {
        let terminal = Terminal::of_stderr();
        Some(Bar::new(
            name,
            total,
            Stream { terminal, is_forced: true, is_held: AtomicBool::default(), text: Mutex::default() },
        ))
    }

    fn new(name: &str, total: Option<u64>, stream: Stream) -> Bar {
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let stream = Arc::new(stream);
        bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(Handle(stream.clone()))));
        let bar = Bar { bar, name: name.into(), stream, columns: Arc::default() };
        console::set_display(Some(Arc::new(bar.clone())));
        bar
    }

    /// Returns the time from one drawing to the next.
    pub(super) fn period(&self) -> Duration {
        match &self.stream.terminal {
            Some(terminal) if terminal.is_own() => Duration::from_millis(100),
            Some(_) => Duration::from_millis(200),
            // Each bar stays in the file.
            None => Duration::from_secs(1),
        }
    }

    pub(super) fn show(&self, view: &View) {
        let room = usize::from(self.stream.room()).saturating_sub(self.name.chars().count() + 2);
        let text = view.text(room);
        let left = room.saturating_sub(text.chars().count() + " [] ".len()).min(LONGEST_BAR);
        self.set_columns(if view.total.is_some() && left >= SHORTEST_BAR { left } else { 0 });
        // Each of these draws; the last one alone is written.
        self.stream.is_held.store(true, Ordering::Relaxed);
        self.bar.set_message(text);
        self.bar.set_position(view.jobs);
        self.stream.is_held.store(false, Ordering::Relaxed);
        self.bar.tick();
    }

    /// Sets the number of columns of the bar itself; 0: there is only text.
    fn set_columns(&self, columns: usize) {
        let mut last = self.columns.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != Some(columns) {
            *last = Some(columns);
            let template = match columns {
                0 => "{prefix} {msg}".into(),
                columns => format!("{{prefix}} [{{bar:{columns}}}] {{msg}}"),
            };
            let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar.set_style(style.progress_chars("=> "));
            self.bar.set_prefix(self.name.clone());
        }
    }

    /// Leaves the last state on the terminal.
    pub(super) fn finish(&self, view: &View) {
        console::set_display(None);
        self.show(view);
        self.bar.abandon();
        self.stream.end_line();
    }
}

impl Display for Bar {
    fn aside(&self, work: &mut dyn FnMut()) {
        self.bar.suspend(work);
    }
}

/// The terminal that lines go to, on which another program may have a bar.
pub(super) struct Neighbours(Option<Terminal>);

impl Neighbours {
    pub(super) fn on_terminal() -> Neighbours {
        Neighbours(Terminal::of_stderr())
    }

    /// Clears the last line of the terminal, if it is the bar of another program, which draws it again.
    pub(super) fn clear_bar(&self) {
        if self.0.as_ref().is_some_and(Terminal::has_other_bar) {
            // Standard error may be closed.
            let _ = io::stderr().lock().write_all(b"\r\x1b[2K");
        }
    }
}

/// Standard error as a terminal, wherever it goes: a launcher copies what it gets.
struct Stream {
    terminal: Option<Terminal>,
    /// Whether the bar was asked for, so that it is drawn in the background, too.
    is_forced: bool,
    /// Whether nothing is written for now.
    is_held: AtomicBool,
    /// What was not written yet: a bar is written as a whole, so that nothing comes between its parts.
    text: Mutex<String>,
}

impl Stream {
    fn width(&self) -> u16 {
        let width = self.terminal.as_ref().and_then(Terminal::width);
        width.or_else(|| std::env::var("COLUMNS").ok()?.trim().parse().ok()).unwrap_or(USUAL_WIDTH)
    }

    /// Returns the number of columns that are used. Others stay free for what the terminal itself shows of a ctrl-C.
    fn room(&self) -> u16 {
        self.width().saturating_sub(3).max(1)
    }

    fn add(&self, text: &str) {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
    }

    fn write(&self) -> io::Result<()> {
        let text = std::mem::take(&mut *self.text.lock().unwrap_or_else(PoisonError::into_inner));
        let is_hidden = !self.is_forced && self.terminal.as_ref().is_some_and(Terminal::is_in_background);
        if text.is_empty() || is_hidden || self.is_held.load(Ordering::Relaxed) {
            return Ok(());
        }
        io::stderr().lock().write_all(text.as_bytes())
    }

    fn end_line(&self) {
        self.add("\n");
        // Standard error may be closed.
        let _ = self.write();
    }
}

/// The crate's handle of the stream.
struct Handle(Arc<Stream>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    fn escape(&self, count: usize, direction: char) -> io::Result<()> {
        if count > 0 {
            self.0.add(&format!("\x1b[{count}{direction}"));
        }
        Ok(())
    }
}

impl TermLike for Handle {
    fn width(&self) -> u16 {
        self.0.room()
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.escape(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.add(&format!("{text}\n"));
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.add(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.add("\r\x1b[2K");
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.0.write()
    }
}
