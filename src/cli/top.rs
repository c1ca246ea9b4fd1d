//! `rankpool top FILE`: shows the status file of a run, as plain text or on a screen that follows it.

mod reading;
mod screen;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, TryRecvError};
use unicode_width::UnicodeWidthChar;

use super::stdout::print;
use crate::console::{self, in_one_line, reason};
use crate::launch::{self, ExitCode};
use crate::report::{Order, Status, Table};
use reading::{Age, Watched};
use screen::{Line, Screen, Wish};

/// The screen is drawn anew this often, and at every key.
const REDRAW: Duration = Duration::from_millis(250);
/// A file system that has not answered for this long is worth a word.
const HANGS: Duration = Duration::from_secs(5);

pub(super) fn run(file: &Path) -> ExitCode {
    if !launch::is_first() {
        return ExitCode::Success;
    }
    let status = match reading::read(file) {
        Ok(status) => status,
        Err(message) => {
            console::eprint_error(message);
            return ExitCode::Usage;
        }
    };
    let mut watched = Watched::new(here());
    if !io::stdout().is_terminal() {
        let age = watched.age(&status, Instant::now(), unix_time());
        return print(snapshot(&status, age).as_bytes()).1;
    }
    let readings = reading::start(file.to_path_buf());
    let shown = readings.and_then(|readings| Screen::open().map(|screen| (readings, screen)));
    let followed = shown.and_then(|(readings, screen)| follow(screen, &readings, View::new(status, watched)));
    match followed {
        Ok(()) => ExitCode::Success,
        Err(error) => {
            console::eprint_error(format_args!("the terminal: {}", reason(&error)));
            ExitCode::Failure
        }
    }
}

/// Returns the name of this host, as ranks return it.
fn here() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Returns the line about the time at which a status was written.
fn stamp(status: &Status, age: Age) -> String {
    let clock = match age {
        Age::Known(_) => "this host's clock".into(),
        Age::UnchangedFor(_) => format!("the clock of {}", in_one_line(&status.host)),
    };
    format!("status {} of {}, by {clock}", status.sequence, in_one_line(&status.written))
}

/// Returns a status as plain text.
fn snapshot(status: &Status, age: Age) -> String {
    let Table { head, columns, ranks } = Table::new(status, Order::Worst);
    let about = [stamp(status, age)].into_iter().chain(age.warning(status));
    let lines = head.into_iter().chain(about).chain([String::new(), columns]).chain(ranks);
    lines.map(|line| line + "\n").collect()
}

/// Shows statuses until the user has seen enough.
fn follow(mut screen: Screen, readings: &Receiver<Result<Status, String>>, mut view: View) -> io::Result<()> {
    loop {
        match readings.try_recv() {
            Ok(reading) => view.take(reading, Instant::now()),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => view.trouble = Some("the file is not read any more".into()),
        }
        let (width, height) = Screen::size();
        screen.draw(&view.page(width, height, Instant::now(), unix_time()))?;
        match screen.wish(REDRAW)? {
            Some(Wish::Quit) => return Ok(()),
            Some(wish) => view.obey(wish),
            None => {}
        }
    }
}

/// What is on the screen.
struct View {
    status: Status,
    watched: Watched,
    /// When the file was last read, with or without success.
    read: Instant,
    /// Why it could not be read.
    trouble: Option<String>,
    order: Order,
    /// The number of ranks above the first one that is shown.
    above: usize,
    /// The number of ranks that fit, as of the last page.
    fits: usize,
}

impl View {
    fn new(status: Status, watched: Watched) -> View {
        let read = Instant::now();
        View { status, watched, read, trouble: None, order: Order::default(), above: 0, fits: 1 }
    }

    /// Takes what was read at this moment.
    fn take(&mut self, reading: Result<Status, String>, now: Instant) {
        self.read = now;
        match reading {
            Ok(status) => (self.status, self.trouble) = (status, None),
            // The last status stays.
            Err(message) => self.trouble = Some(message),
        }
    }

    fn obey(&mut self, wish: Wish) {
        let page = i64::try_from(self.fits).unwrap_or(1);
        let by = match wish {
            Wish::Quit => 0,
            Wish::Sort => {
                (self.order, self.above) = (self.order.next(), 0);
                0
            }
            Wish::Lines(lines) => lines.into(),
            Wish::Pages(pages) => i64::from(pages) * page,
            Wish::Top => i64::MIN / 2,
            Wish::Bottom => i64::MAX / 2,
        };
        // The next page moves what is too far down.
        self.above = usize::try_from((self.above as i64).saturating_add(by)).unwrap_or(0);
    }

    /// Returns the page for a screen of this size.
    fn page(&mut self, width: usize, height: usize, now: Instant, unix: f64) -> Vec<Line> {
        let Table { head, columns, ranks } = Table::new(&self.status, self.order);
        let age = self.watched.age(&self.status, now, unix);
        let hangs = now.saturating_duration_since(self.read) > HANGS;
        let hangs = hangs.then(|| "the file system does not answer".to_string());
        let warning = hangs.or_else(|| self.trouble.as_deref().map(in_one_line)).or_else(|| age.warning(&self.status));
        let mut lines: Vec<Line> = head.into_iter().chain([stamp(&self.status, age)]).map(plain).collect();
        lines.extend(warning.map(bright));
        lines.push(bright(columns));
        self.fits = height.saturating_sub(lines.len() + 1).max(1);
        self.above = self.above.min(ranks.len().saturating_sub(self.fits));
        let last = (self.above + self.fits).min(ranks.len());
        lines.extend(ranks[self.above..last].iter().cloned().map(plain));
        let (first, all) = ((self.above + 1).min(last), ranks.len());
        lines.truncate(height.saturating_sub(1));
        let keys =
            format!("q: quit  s: sort ({})  arrows: scroll  ranks {first} to {last} of {all}", self.order.name());
        lines.push(bright(keys));
        lines.iter_mut().for_each(|line| line.text = cut(&line.text, width));
        lines
    }
}

fn plain(text: String) -> Line {
    Line { text, is_bright: false }
}

fn bright(text: String) -> Line {
    Line { text, is_bright: true }
}

/// Returns the beginning of a text that takes no more than this number of columns.
fn cut(text: &str, columns: usize) -> String {
    let mut left = columns;
    let fits = |character: &char| {
        let width = character.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    text.chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A status of this many ranks, on another host.
    fn status(ranks: u32) -> Status {
        let rank = |rank: u32| {
            let seconds = f64::from(rank);
            format!(
                r#"{{"rank":{rank},"host":"n{rank}","threads":1,"jobs":1,"failed":0,
                "slowest":{{"attempt":1,"seconds":{seconds},"job":{rank}}}}}"#
            )
        };
        let ranks: Vec<_> = (0..ranks).map(rank).collect();
        let text = format!(
            r#"{{"schema":"rankpool-status","version":1,"name":"x","state":"running","host":"far","pid":1,"written":"then",
            "written_unix":1000.0,"sequence":1,"period_seconds":2.0,"elapsed_seconds":1.0,"settled":0,"failed":0,"ranks":[{}]}}"#,
            ranks.join(",")
        );
        Status::read(text.as_bytes()).expect("a status")
    }

    fn view(ranks: u32) -> View {
        View::new(status(ranks), Watched::new("here".into()))
    }

    fn texts(view: &mut View, width: usize, height: usize) -> Vec<String> {
        view.page(width, height, Instant::now(), 0.0).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_thousand_ranks_scroll_and_the_worst_comes_first() {
        let mut view = view(1000);
        let page = texts(&mut view, 100, 30);
        assert_eq!(page.len(), 30);
        assert!(page[5].contains("job 999 for 16 min 39 s"), "{}", page[5]);
        assert!(page[29].contains("ranks 1 to 24 of 1000"), "{}", page[29]);
        view.obey(Wish::Pages(1));
        assert!(texts(&mut view, 100, 30)[29].contains("ranks 25 to 48 of 1000"));
        view.obey(Wish::Bottom);
        view.obey(Wish::Lines(5));
        assert!(texts(&mut view, 100, 30)[29].contains("ranks 977 to 1000 of 1000"));
        view.obey(Wish::Lines(-1));
        assert!(texts(&mut view, 100, 30)[29].contains("ranks 976 to 999 of 1000"));
        view.obey(Wish::Sort);
        let page = texts(&mut view, 100, 30);
        assert!(page[29].contains("least busy first") && page[29].contains("ranks 1 to"), "{}", page[29]);
    }

    #[test]
    fn a_page_is_never_larger_than_the_screen() {
        for (width, height) in [(1, 1), (10, 2), (20, 6), (300, 100)] {
            let page = texts(&mut view(50), width, height);
            assert!(page.len() <= height, "{height}: {}", page.len());
            assert!(page.iter().all(|line| line.chars().count() <= width), "{width}: {page:?}");
        }
        assert_eq!((cut("漢字", 3), cut("ab", 5)), ("漢".into(), "ab".into()));
    }

    #[test]
    fn a_file_that_cannot_be_read_any_more_is_said_and_the_last_status_stays() {
        let mut view = view(1);
        view.take(Err("run.json: gone\x1b".into()), Instant::now());
        let page = texts(&mut view, 100, 20);
        assert!(page.iter().any(|line| line == "run.json: gone\\u{1b}"), "{page:?}");
        assert!(page.iter().any(|line| line.contains("n0")), "{page:?}");
        let late = Instant::now() + Duration::from_secs(60);
        let page = view.page(100, 20, late, 0.0);
        assert!(page.iter().any(|line| line.text == "the file system does not answer" && line.is_bright));
        view.take(Ok(status(1)), late);
        assert!(!texts(&mut view, 100, 20).iter().any(|line| line.contains("gone")));
    }
}
