//! `rankpool completions` and `rankpool man`: texts made from the definition of the command line.

use clap_complete::Shell;
use clap_mangen::Man;

use super::args;
use super::stdout::print;
use crate::console::reason;
use crate::launch::{self, ExitCode};

pub(super) fn write_completions(shell: Shell) -> ExitCode {
    if !launch::is_first() {
        return ExitCode::Success;
    }
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "rankpool", &mut script);
    print(&script).1
}

/// Writes the manual page of the program, or of the subcommand that `words` name.
pub(super) fn write_manual(words: &[String]) -> ExitCode {
    let mut command = &args::command();
    for word in words {
        match command.find_subcommand(word) {
            Some(inner) => command = inner,
            None => return launch::refuse(&format!("there is no subcommand `rankpool {}`", words.join(" "))),
        }
    }
    if !launch::is_first() {
        return ExitCode::Success;
    }
    let mut page = Vec::new();
    match Man::new(command.clone()).render(&mut page) {
        Ok(()) => print(&page).1,
        Err(error) => {
            launch::refuse_as(&format!("cannot write the manual page: {}", reason(&error)), ExitCode::Failure)
        }
    }
}
