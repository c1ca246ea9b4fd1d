//! How long the parts of a run wait for each other: every time limit of the engine and of the launch, in one place.
//!
//! | limit | value | who waits | for what | must be |
//! |---|---|---|---|---|
//! | [`JOIN`] | 120 s | master | all ranks have joined | – (a rank waits `JOIN` and its patience for the first message, so that the master reports the missing ranks first) |
//! | [`LOST_AFTER`] | 60 s, [`Launch::lost_after`](crate::Launch::lost_after) | master | any message of a rank, which is else lost: taken for dead | – |
//! | `LOST_AFTER ×` [`PATIENCE`] | 120 s | rank | any message of the master, which is else taken for dead | above `LOST_AFTER`, so that a rank whose connection is cut for a while learns that it is lost, and above [`FLUSH`]: a rank must not take a master for dead that still sends its last messages |
//! | `LOST_AFTER /` [`PULSES`] | 7 s | master and ranks | a reason to send a message; then a pulse is sent | above [`PULSE_STEP`]: one pause must not hide a missing pulse |
//! | [`PULSE_STEP`] | 1 s | – | the most of one turn of a loop that counts as silence of the others (less, if `LOST_AFTER / PULSES` is less) | – |
//! | [`ONE_REQUEST`] | 1 s | signal handler | further signals of the same request to stop; a later INT or QUIT ends the process at once | below [`STOP_GRACE`] |
//! | [`STOP_GRACE`] | 10 s, [`Launch::stop_grace`](crate::Launch::stop_grace), more for a batch | master | after a request to stop: running jobs and the driver | at least what a batch asks for: its `--grace`, `--kill-after`, and a margin |
//! | [`LINGER`] | 10 s, [`Launch::grace`](crate::Launch::grace) | master | after the driver has left: running jobs of abandoned maps | – |
//! | [`RELEASE`] | 10 s | dismissed rank | its functions are dropped, and with them their worker processes | – |
//! | [`FLUSH`] | 20 s | master | its last messages are sent completely; then the run ends as after the loss of a rank | below [`MPI_FINALIZE`] |
//! | [`ABORT_MESSAGE`] | 1 s | master | after the run has failed: the order to end is sent completely to the ranks | below [`LOST_AFTER`], after which they end by themselves |
//! | [`DRIVER_RETURN`] | 10 s | rank 0 | after the run has failed: the driver returns | – |
//! | `LAST_MESSAGE` | 10 s | rank | its last message is sent completely and, if it reports an error, the master ends the run | – |
//! | `MPI_FINALIZE` | 60 s | every rank | all ranks have called `MPI_Finalize`, or, if a rank was lost, `MPI_Abort` of rank 0 ends this one | above [`FLUSH`], and above [`RELEASE`] + `LAST_MESSAGE`: ranks end at different times |
//! | `MPI_ABORT` | 5 s | any rank | `MPI_Abort` ends the processes | below `MPI_FINALIZE`, so that ranks that have finished wait for this exit code |
//! | `LAUNCHER_END` | 5 s | helper of rank 0 | after a rank was lost and rank 0 has ended: the launcher ends; then it is asked to by SIGTERM | – |
//!
//! Pauses between two looks of a loop are not here: they limit no waiting (see `transport/idle.rs`, `rank/coalesce.rs`,
//! `master/quiet.rs`).

use std::time::Duration;

/// The master waits this long for all ranks to join.
pub(crate) const JOIN: Duration = Duration::from_secs(120);

/// An MPI rank that has sent nothing for this long is lost, unless [`Launch::lost_after`](crate::Launch::lost_after) sets another
/// time.
#[cfg(any(feature = "mpi", test))]
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(60);

/// A rank waits this many times longer for the master than the master for a rank.
pub(crate) const PATIENCE: u32 = 2;

/// This many pulses fit into the time after which the sender is taken for dead.
pub(crate) const PULSES: u32 = 8;

/// No more than this much of the time between two turns of a loop counts as silence of the others: in the rest the loop itself
/// was stopped.
pub(crate) const PULSE_STEP: Duration = Duration::from_secs(1);

/// Signals that are no further apart than this belong to one request to stop.
pub(crate) const ONE_REQUEST: Duration = Duration::from_secs(1);

/// After a request to stop, the master waits this long for running jobs and for the driver, unless
/// [`Launch::stop_grace`](crate::Launch::stop_grace) or a batch sets another time.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// When the driver has left and nothing else is to be done, the master waits this long for running jobs of abandoned maps, unless
/// [`Launch::grace`](crate::Launch::grace) sets another time.
pub(crate) const LINGER: Duration = Duration::from_secs(10);

/// A rank that was dismissed waits this long until its functions are dropped.
pub(crate) const RELEASE: Duration = Duration::from_secs(10);

/// The master waits this long until its last messages are sent completely.
pub(crate) const FLUSH: Duration = Duration::from_secs(20);

/// The master waits this long until the order to end is sent completely, after the run has failed.
pub(crate) const ABORT_MESSAGE: Duration = Duration::from_secs(1);

/// After the run has failed, rank 0 waits this long for the driver to return.
pub(crate) const DRIVER_RETURN: Duration = Duration::from_secs(10);

/// An MPI rank waits this long until its last message is sent completely and, if it reports an error, the master ends the run.
#[cfg(any(feature = "mpi", test))]
pub(crate) const LAST_MESSAGE: Duration = Duration::from_secs(10);

/// `MPI_Finalize` may take this long: it waits for all ranks, and would wait forever for one that died at the very end.
#[cfg(any(feature = "mpi", test))]
pub(crate) const MPI_FINALIZE: Duration = Duration::from_secs(60);

/// `MPI_Abort` may take this long: it may wait for a rank that is dead.
#[cfg(any(feature = "mpi", test))]
pub(crate) const MPI_ABORT: Duration = Duration::from_secs(5);

/// After a run that has lost ranks, the launcher may go on for this long when rank 0 has ended: it may wait for a host that is gone.
#[cfg(any(feature = "mpi", test))]
pub(crate) const LAUNCHER_END: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_longer_than_the_waits_that_it_covers() {
        let relations = [
            ("LOST_AFTER × PATIENCE > FLUSH", LOST_AFTER * PATIENCE > FLUSH && PATIENCE > 1),
            ("LOST_AFTER / PULSES > PULSE_STEP", LOST_AFTER / PULSES > PULSE_STEP),
            ("STOP_GRACE > ONE_REQUEST", STOP_GRACE > ONE_REQUEST),
            ("LOST_AFTER > ABORT_MESSAGE", LOST_AFTER > ABORT_MESSAGE),
            ("MPI_FINALIZE > FLUSH", MPI_FINALIZE > FLUSH),
            ("MPI_FINALIZE > RELEASE + LAST_MESSAGE", MPI_FINALIZE > RELEASE + LAST_MESSAGE),
            ("MPI_FINALIZE > MPI_ABORT", MPI_FINALIZE > MPI_ABORT),
        ];
        for (relation, holds) in relations {
            assert!(holds, "{relation} does not hold");
        }
        assert!(LINGER > Duration::ZERO);
    }

    #[test]
    fn the_table_names_every_limit_with_its_value() {
        let source = include_str!("limits.rs");
        let rows: Vec<&str> = source.lines().filter(|line| line.starts_with("//! | ")).collect();
        let limits = [
            ("JOIN", JOIN),
            ("LOST_AFTER", LOST_AFTER),
            ("PULSE_STEP", PULSE_STEP),
            ("ONE_REQUEST", ONE_REQUEST),
            ("STOP_GRACE", STOP_GRACE),
            ("LINGER", LINGER),
            ("RELEASE", RELEASE),
            ("FLUSH", FLUSH),
            ("ABORT_MESSAGE", ABORT_MESSAGE),
            ("DRIVER_RETURN", DRIVER_RETURN),
            ("LAST_MESSAGE", LAST_MESSAGE),
            ("MPI_FINALIZE", MPI_FINALIZE),
            ("MPI_ABORT", MPI_ABORT),
            ("LAUNCHER_END", LAUNCHER_END),
        ];
        let constants = source.lines().filter(|line| line.starts_with("pub(crate) const") && line.contains("Duration"));
        assert_eq!(constants.count(), limits.len(), "a limit is missing in this test");
        for (name, value) in limits {
            let row = rows.iter().find(|row| row[6..].trim_start_matches(['[', '`']).starts_with(&format!("{name}`")));
            let row = row.unwrap_or_else(|| panic!("the table has no row for {name}"));
            assert!(row.contains(&format!("| {} s", value.as_secs())), "{name} is {value:?}: {row}");
        }
        let patience = (LOST_AFTER * PATIENCE).as_secs();
        assert!(rows.iter().any(|row| row.contains("PATIENCE") && row.contains(&format!("| {patience} s"))));
        let pulse = (LOST_AFTER / PULSES).as_secs();
        assert!(rows.iter().any(|row| row.contains("PULSES") && row.contains(&format!("| {pulse} s"))));
    }
}
