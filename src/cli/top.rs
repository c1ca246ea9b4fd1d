//! `rankpool top FILE`: shows the status file of a run.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::stdout::print;
use crate::console::{self, reason};
use crate::launch::{self, ExitCode};
use crate::report::{Order, Status, Table};

/// A larger file is not the status of a run.
const LARGEST: u64 = 64 << 20;

pub(super) fn run(file: &Path) -> ExitCode {
    if !launch::is_first() {
        return ExitCode::Success;
    }
    match read(file) {
        Ok(status) => print(snapshot(&status).as_bytes()).1,
        Err(message) => {
            console::eprint_error(message);
            ExitCode::Usage
        }
    }
}

/// Reads the status file.
///
/// # Errors
/// A sentence with the name of the file.
fn read(file: &Path) -> Result<Status, String> {
    let name = file.display();
    let mut bytes = Vec::new();
    let opened =
        File::open(file).and_then(|file| if file.metadata()?.is_file() { Ok(file) } else { Err(not_a_file()) });
    let read = opened.and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
    read.map_err(|error| format!("{name}: {}", reason(&error)))?;
    Status::read(&bytes).map_err(|message| format!("{name}: {message}"))
}

fn not_a_file() -> io::Error {
    io::Error::other("it is not a regular file")
}

/// Returns a status as plain text.
fn snapshot(status: &Status) -> String {
    let Table { head, columns, ranks } = Table::new(status, Order::Worst);
    let lines = head.into_iter().chain([String::new(), columns]).chain(ranks);
    lines.map(|line| line + "\n").collect()
}
