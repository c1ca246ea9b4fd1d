//! `rankpool run` on a rank: one process for each attempt.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use signal_hook::low_level::signal_name;

use super::attempt::{Attempt, Outcome, Run, Trouble, Usage, has_failed};
use crate::console::shortened;
use crate::engine::rank;
use crate::journal::Status;
use crate::output::Tag;
use crate::process::command::{self, CommandEnd, How, Limits, Stream};
use crate::process::program::Program;
use crate::template::{Filled, Place, Template, Values};

/// What all jobs of a `rankpool run` have in common. It travels once to each rank.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Commands {
    pub template: Template,
    /// CPUs for each job, if they were asked for.
    pub job_cpus: Option<u32>,
    pub timeout: Option<Duration>,
    pub kill_after: Duration,
}

/// How much output is sent at a time, ahead of the result.
const PIECE: usize = 256 << 10;
/// How much of each stream travels with the result, for which nobody waits: thousands of results may lie on rank 0 while a
/// reader of the output pauses.
const INLINE: usize = 16 << 10;

/// How many bytes are said of a command that cannot be started.
const LONGEST: usize = 8 << 10;

/// The marks of pieces of output.
pub(crate) const STDOUT: u8 = 0;
pub(crate) const STDERR: u8 = 1;

/// Runs one attempt on the calling compute thread.
pub(crate) fn run(commands: &Commands, attempt: Attempt<Values>) -> Outcome {
    let seat = rank::current_job();
    let (rank, slot) = seat.map_or((0, 0), |job| (job.rank, job.slot + 1));
    let (launch, filled) = commands.fill(&attempt, rank, slot);
    let cancellation = rank::cancellation();
    let cancelled = cancellation.as_ref().map(|cancellation| cancellation.watched().as_fd());
    let limits = Limits { timeout: commands.timeout, kill_after: commands.kill_after };
    let mut output = Output::new(attempt.place, filled.tag.as_deref());
    let end =
        command::run(&launch, filled.stdin.as_deref().map(str::as_bytes), &limits, cancelled, &mut |stream, bytes| {
            output.take(stream, bytes);
        });
    let end = match end {
        Ok(end) => end,
        Err(gone) => {
            rank::abort_run(gone.to_string());
            return Outcome::unrun(attempt.index, Status::Spawn, "spawn", gone.to_string());
        }
    };
    let (status, trouble) = judge(&end, commands.timeout);
    if has_failed(status) {
        rank::mark_bad();
    }
    let output_bytes = output.bytes;
    let (out, err) = output.end();
    Outcome {
        index: attempt.index,
        status,
        trouble: trouble.map(Box::new),
        run: Some(run_of(&end, rank, slot)),
        output_bytes,
        out: ByteBuf::from(out),
        err: ByteBuf::from(err),
    }
}

fn run_of(end: &CommandEnd, rank: u32, slot: u32) -> Run {
    let start = end.start.duration_since(UNIX_EPOCH).unwrap_or_default();
    let usage = Usage { user: end.user, system: end.system, max_rss: end.max_rss_kib * 1024 };
    let usage = (!matches!(end.how, How::NotStarted(_) | How::Lost(_))).then_some(usage);
    Run { rank, slot, start: u64::try_from(start.as_micros()).unwrap_or(u64::MAX), seconds: end.seconds, usage }
}

fn judge(end: &CommandEnd, timeout: Option<Duration>) -> (Status, Option<Trouble>) {
    let trouble = |kind: &str, message| Trouble { kind: kind.into(), message, ..Trouble::default() };
    match &end.how {
        How::Exited(0) => (Status::Ok, None),
        How::Exited(code) => {
            let trouble = Trouble { exit: Some(*code), ..trouble("failed", format!("exit code {code}")) };
            (Status::Failed, Some(trouble))
        }
        How::Signalled(signal) => {
            let name = signal_name(*signal).map_or_else(|| format!("signal {signal}"), str::to_string);
            let trouble = Trouble { signal: Some(*signal), ..trouble("signal", format!("killed by {name}")) };
            (Status::Signal, Some(trouble))
        }
        How::TimedOut => {
            let limit = timeout.unwrap_or_default().as_secs_f64();
            (Status::Timeout, Some(trouble("timeout", format!("not done after {limit} s"))))
        }
        How::Cancelled => (Status::Cancelled, Some(trouble("cancelled", "cancelled while it ran".into()))),
        How::Lost(why) => (Status::Lost, Some(trouble("lost", why.clone()))),
        // It may repeat what a record made of the program's name.
        How::NotStarted(why) => (Status::Spawn, Some(trouble("spawn", shortened(why.clone(), LONGEST)))),
    }
}

impl Commands {
    /// What is to be started for this attempt.
    fn fill(&self, attempt: &Attempt<Values>, rank: u32, slot: u32) -> (Program, Filled) {
        let mut filled = self.template.fill(&attempt.work, &Place { number: attempt.number, slot: slot.into() });
        let mut words = std::mem::take(&mut filled.command).into_iter();
        let program = words.next().unwrap_or_default();
        let own = [
            ("RANKPOOL_JOB", attempt.number),
            ("RANKPOOL_RANK", rank.into()),
            ("RANKPOOL_SLOT", slot.into()),
            ("RANKPOOL_ATTEMPT", attempt.attempt.into()),
            ("RANKPOOL_SEED", attempt.seed),
        ];
        let mut env: Vec<_> = own.map(|(name, value)| (name.to_string(), value.to_string())).into();
        env.extend(self.job_cpus.and_then(omp_threads));
        env.append(&mut filled.env);
        let cwd = filled.cwd.take().map(PathBuf::from);
        (Program { name: program, arg0: None, args: words.collect(), env, cwd }, filled)
    }
}

/// How many threads most programs take, unless somebody has said it.
pub(super) fn omp_threads(cpus: u32) -> Option<(String, String)> {
    const NAME: &str = "OMP_NUM_THREADS";
    std::env::var_os(NAME).is_none().then(|| (NAME.into(), cpus.to_string()))
}

/// What a command has written.
struct Output {
    place: u64,
    out: Written,
    err: Written,
    bytes: u64,
    /// The driver has lost interest.
    unwanted: bool,
}

/// What a command has written to one of its streams, and was not sent ahead.
struct Written {
    tag: Option<Tag>,
    bytes: Vec<u8>,
}

impl Written {
    fn take(&mut self, bytes: &[u8]) {
        match &mut self.tag {
            Some(tag) => tag.piece(bytes, &mut self.bytes),
            None => self.bytes.extend_from_slice(bytes),
        }
    }

    fn end(&mut self) {
        if let Some(tag) = &mut self.tag {
            tag.end(&mut self.bytes);
        }
    }
}

impl Output {
    fn new(place: u64, tag: Option<&str>) -> Self {
        let written = || Written { tag: tag.map(Tag::new), bytes: Vec::new() };
        Output { place, out: written(), err: written(), bytes: 0, unwanted: false }
    }

    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if !self.unwanted {
            let written = if stream == Stream::Stdout { &mut self.out } else { &mut self.err };
            written.take(bytes);
            self.send_ahead(stream, PIECE);
        }
    }

    /// Sends what was written to a stream ahead, if it is so much.
    fn send_ahead(&mut self, stream: Stream, least: usize) {
        let (mark, written) = match stream {
            Stream::Stdout => (STDOUT, &mut self.out),
            Stream::Stderr => (STDERR, &mut self.err),
        };
        if written.bytes.len() >= least && !self.unwanted {
            let piece = std::mem::take(&mut written.bytes);
            self.unwanted = rank::send_part(self.place, mark, piece).is_err();
        }
    }

    /// What travels with the result.
    fn end(mut self) -> (Vec<u8>, Vec<u8>) {
        self.out.end();
        self.err.end();
        self.send_ahead(Stream::Stdout, INLINE);
        self.send_ahead(Stream::Stderr, INLINE);
        (self.out.bytes, self.err.bytes)
    }
}
