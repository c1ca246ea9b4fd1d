//! Names the running jobs for the live view: the engine knows them by their index, the ledger by their number and record.

use std::time::Instant;

use super::Driver;
use crate::batch::runners::Runner;
use crate::engine::board::Board;
use crate::report::{LOADS, Names, short_input};

/// The names for the live view, and the time at which they are due.
pub(super) struct Naming<'b> {
    board: &'b Board,
    names: &'b Names,
    due: Instant,
}

impl<'b> Naming<'b> {
    pub(super) fn new(board: &'b Board, names: &'b Names) -> Naming<'b> {
        Naming { board, names, due: Instant::now() }
    }
}

impl<R: Runner> Driver<'_, R> {
    /// Names the jobs that are the slowest of their ranks, from time to time.
    pub(super) fn name_running(&mut self) {
        let Some(naming) = &mut self.naming else { return };
        let now = Instant::now();
        if now < naming.due {
            return;
        }
        naming.due = now + LOADS / 2;
        let ledger = &self.ledger;
        naming.names.update(naming.board, |index| {
            let (number, _, input) = ledger.name_of(index)?;
            Some((number, input.map(short_input)))
        });
    }
}
