//! The positions of the jobs' outputs in the output file, and the plan to put the file into order.
//!
//! Outputs are only appended. Mostly they come in order; but an output that has waited too long behind a slow job is written before
//! its turn, and a run that continues an earlier one writes behind its output. Then the file is copied in order, once, at the end.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::OutputOrder;

/// Bytes that are copied at once.
const COPY_BYTES: usize = 256 << 10;

/// The output of one job: bytes of the output file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The job's number.
    pub number: u64,
    /// The position of its output in the file.
    pub at: u64,
    /// The length of its output in bytes.
    pub length: u64,
}

/// The outputs of consecutive jobs, one behind the other in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    last: u64,
    at: u64,
    length: u64,
}

/// The positions of all valid outputs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    runs: Vec<Run>,
}

impl Layout {
    /// Adds the output of a job that has none yet.
    pub(crate) fn add(&mut self, extent: Extent) {
        let Extent { number, at, length } = extent;
        if let Some(last) = self.runs.last_mut() {
            if last.last.checked_add(1) == Some(number) && last.at + last.length == at {
                last.last = number;
                last.length += length;
                return;
            }
        }
        self.runs.push(Run { first: number, last: number, at, length });
    }

    /// Removes the outputs of these jobs. Each job's output must be one line.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn take_lines(&mut self, file: &File, jobs: impl Fn(u64) -> bool) -> io::Result<()> {
        for run in std::mem::take(&mut self.runs) {
            if !(run.first..=run.last).any(&jobs) {
                self.runs.push(run);
                continue;
            }
            let (mut at, end) = (run.at, run.at + run.length);
            for number in run.first..=run.last {
                let length = line_length(file, at, end)?;
                if !jobs(number) {
                    self.add(Extent { number, at, length });
                }
                at += length;
            }
        }
        Ok(())
    }

    /// Returns the plan that puts the outputs into order.
    pub(crate) fn plan(mut self, order: OutputOrder) -> Plan {
        match order {
            OutputOrder::Places => self.runs.sort_by_key(|run| run.first),
            OutputOrder::Settled => self.runs.sort_by_key(|run| run.at),
        }
        let mut end = 0;
        let place = |run: Run| {
            let to = end;
            end += run.length;
            Move { run, to }
        };
        let moves = self.runs.into_iter().map(place).collect();
        Plan { moves, length: end }
    }
}

#[derive(Clone, Copy, Debug)]
struct Move {
    run: Run,
    to: u64,
}

/// The plan that puts the file into order.
#[derive(Debug)]
pub(crate) struct Plan {
    moves: Vec<Move>,
    length: u64,
}

impl Plan {
    /// Whether a file of this length is already in order.
    pub(crate) fn is_done(&self, length: u64) -> bool {
        self.length == length && self.moves.iter().all(|step| step.run.length == 0 || step.run.at == step.to)
    }

    /// Copies the file in order. Removes a copy that a killed run has left.
    pub(crate) fn copy(&self, from: &File, to: &Path) -> io::Result<File> {
        let _ = fs::remove_file(to);
        let to = File::options().read(true).write(true).create_new(true).open(to)?;
        let mut to = BufWriter::with_capacity(COPY_BYTES, to);
        let mut buffer = vec![0; COPY_BYTES];
        for Move { run, .. } in &self.moves {
            copy_range(from, run.at, run.length, &mut buffer, &mut to)?;
        }
        to.into_inner().map_err(io::IntoInnerError::into_error)
    }

    /// Returns the positions of the outputs after the copy.
    pub(crate) fn moved(&self) -> Moved {
        let mut moves = self.moves.clone();
        moves.sort_by_key(|step| (step.run.at, step.run.length));
        Moved { moves }
    }
}

/// Returns the length of the line that begins at `at`, with its end.
fn line_length(file: &File, at: u64, end: u64) -> io::Result<u64> {
    let mut buffer = [0; 4096];
    let mut length = 0;
    while at + length < end {
        let most = usize::try_from(end - at - length).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..most], at + length)?;
        match buffer[..most].iter().position(|byte| *byte == b'\n') {
            Some(place) => return Ok(length + place as u64 + 1),
            None => length += most as u64,
        }
    }
    Ok(length)
}

/// Copies a range of bytes of a file.
pub(crate) fn copy_range(
    from: &File,
    mut at: u64,
    length: u64,
    buffer: &mut [u8],
    to: &mut impl Write,
) -> io::Result<()> {
    let end = at + length;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        from.read_exact_at(&mut buffer[..most], at)?;
        to.write_all(&buffer[..most])?;
        at += most as u64;
    }
    Ok(())
}

/// Whether the first `length` bytes of two files are the same.
pub(crate) fn have_same_beginning(one: &File, other: &File, length: u64) -> io::Result<bool> {
    let mut buffers = [[0; 4096]; 2];
    let mut at = 0;
    while at < length {
        let most = usize::try_from(length - at).unwrap_or(usize::MAX).min(4096);
        let [left, right] = buffers.each_mut().map(|buffer| &mut buffer[..most]);
        one.read_exact_at(left, at)?;
        other.read_exact_at(right, at)?;
        if left != right {
            return Ok(false);
        }
        at += most as u64;
    }
    Ok(true)
}

/// The new positions of outputs, by the old ones.
pub(crate) struct Moved {
    moves: Vec<Move>,
}

impl Moved {
    /// Shifts all new positions by `by` bytes.
    pub(crate) fn shifted(mut self, by: u64) -> Moved {
        self.moves.iter_mut().for_each(|step| step.to += by);
        self
    }

    /// Returns the new position of an output.
    pub(crate) fn place(&self, extent: Extent) -> Option<u64> {
        let begin = self.moves.partition_point(|step| step.run.at + step.run.length < extent.at);
        let candidates = self.moves[begin..].iter().take_while(|step| step.run.at <= extent.at);
        candidates
            .filter(|step| (step.run.first..=step.run.last).contains(&extent.number))
            .find(|step| extent.at + extent.length <= step.run.at + step.run.length)
            .map(|step| extent.at - step.run.at + step.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(extents: &[(u64, u64, u64)]) -> Layout {
        let mut layout = Layout::default();
        extents.iter().for_each(|&(number, at, length)| layout.add(Extent { number, at, length }));
        layout
    }

    #[test]
    fn outputs_that_came_in_order_are_left_as_they_are() {
        let there = layout(&[(1, 0, 2), (2, 2, 0), (3, 2, 5), (7, 7, 1)]);
        assert_eq!(there.runs.len(), 2, "jobs that follow each other are one run");
        let plan = there.plan(OutputOrder::Places);
        assert!(plan.is_done(8) && !plan.is_done(9), "bytes of no job are left out");
    }

    #[test]
    fn outputs_are_copied_in_the_order_of_the_jobs_and_what_belongs_to_none_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (log, sorted) = (folder.path().join("log"), folder.path().join("sorted"));
        fs::write(&log, "three|one|garbage|four|two|").unwrap();
        let plan = layout(&[(3, 0, 6), (1, 6, 4), (4, 18, 5), (2, 23, 4)]).plan(OutputOrder::Places);
        assert!(!plan.is_done(27));
        plan.copy(&File::open(&log).unwrap(), &sorted).unwrap();
        assert_eq!(fs::read_to_string(&sorted).unwrap(), "one|two|three|four|");
        let moved = plan.moved();
        let place = |number, at, length| moved.place(Extent { number, at, length });
        assert_eq!(
            (place(1, 6, 4), place(2, 23, 4), place(3, 0, 6), place(4, 18, 5)),
            (Some(0), Some(4), Some(8), Some(14))
        );
        assert_eq!((place(5, 6, 4), place(1, 10, 8), place(1, 6, 5)), (None, None, None), "it is not there");
    }

    #[test]
    fn without_an_order_only_what_belongs_to_none_goes() {
        let plan = layout(&[(3, 0, 6), (1, 10, 4)]).plan(OutputOrder::Settled);
        assert!(!plan.is_done(14));
        assert_eq!(plan.moved().place(Extent { number: 1, at: 10, length: 4 }), Some(6));
    }

    #[test]
    fn lines_are_taken_out_of_a_run() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "1\n22\n333\n4\n").unwrap();
        let mut there = layout(&[(1, 0, 2), (2, 2, 3), (3, 5, 4), (4, 9, 2)]);
        there.take_lines(&File::open(&log).unwrap(), |number| number == 2).unwrap();
        assert_eq!(there.runs, layout(&[(1, 0, 2), (3, 5, 4), (4, 9, 2)]).runs);
    }

    #[test]
    fn empty_outputs_are_found_at_the_seams() {
        let plan = layout(&[(1, 0, 4), (3, 4, 4), (2, 8, 0), (4, 8, 2)]).plan(OutputOrder::Places);
        let moved = plan.moved();
        assert!(moved.place(Extent { number: 2, at: 8, length: 0 }).is_some());
        assert_eq!(moved.place(Extent { number: 4, at: 8, length: 2 }), Some(8));
    }
}
