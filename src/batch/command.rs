//! `rankpool run` on a rank: one process for each attempt.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::attempt::{Attempt, Outcome, Run, Trouble, Usage};
use crate::exec::command::{self, CommandEnd, How, Limits, Stream};
use crate::exec::process::Launch;
use crate::exec::template::{Place, Template};
use crate::output::Status;
use crate::worker;

/// What all jobs of a `rankpool run` have in common. It travels once to each rank.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Commands {
    /// The words of the command, and behind them those that are there of the next three, in their order.
    pub template: Template,
    /// The words are one script for the shell.
    pub shell: bool,
    pub has_stdin: bool,
    pub has_cwd: bool,
    /// The names of the variables that are set, with a word each.
    pub env: Vec<String>,
    /// CPUs for each job, if they were asked for.
    pub job_cpus: Option<u32>,
    pub timeout: Option<Duration>,
    pub kill_after: Duration,
}

/// What a command must print at least on a stream for it to be sent ahead of the result: so much is kept of it meanwhile.
const INLINE: usize = 64 << 10;
/// How much output is sent at a time.
const PIECE: usize = 256 << 10;

/// The marks of pieces of output.
pub(crate) const STDOUT: u8 = 0;
pub(crate) const STDERR: u8 = 1;

/// Runs one attempt on the calling compute thread.
pub(crate) fn run(commands: &Commands, attempt: Attempt<Vec<String>>) -> Outcome {
    let seat = worker::current_job();
    let (rank, slot) = seat.map_or((0, 0), |job| (job.rank, job.slot + 1));
    let (launch, stdin) = commands.fill(&attempt, rank, slot);
    let cancellation = worker::cancellation();
    let cancelled = cancellation.as_ref().map(|cancellation| std::os::fd::AsFd::as_fd(cancellation.watched()));
    let limits = Limits { timeout: commands.timeout, kill_after: commands.kill_after };
    let mut output = Output { index: attempt.index, out: Vec::new(), err: Vec::new(), bytes: 0, unwanted: false };
    let end = command::run(&launch, stdin.as_deref().map(str::as_bytes), &limits, cancelled, &mut |stream, bytes| {
        output.take(stream, bytes);
    });
    let end = match end {
        Ok(end) => end,
        Err(gone) => {
            worker::give_up(gone.to_string());
            return Outcome::unrun(attempt.index, Status::Spawn, "spawn", gone.to_string());
        }
    };
    let (status, trouble) = judge(&end, commands.timeout);
    Outcome {
        index: attempt.index,
        status,
        trouble: trouble.map(Box::new),
        run: Some(run_of(&end, rank, slot)),
        out: ByteBuf::from(output.out),
        err: ByteBuf::from(output.err),
        output_bytes: output.bytes,
    }
}

fn run_of(end: &CommandEnd, rank: u32, slot: u32) -> Run {
    let start = end.start.duration_since(UNIX_EPOCH).unwrap_or_default();
    let usage = Usage { user: end.user, system: end.system, max_rss: end.max_rss_kib * 1024 };
    let usage = (!matches!(end.how, How::NotStarted(_))).then_some(usage);
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
            let name = crate::output::signal_name(*signal);
            let trouble = Trouble { signal: Some(*signal), ..trouble("signal", format!("killed by {name}")) };
            (Status::Signal, Some(trouble))
        }
        How::TimedOut => {
            let limit = timeout.unwrap_or_default().as_secs_f64();
            (Status::Timeout, Some(trouble("timeout", format!("not done after {limit} s"))))
        }
        How::Cancelled => (Status::Cancelled, Some(trouble("cancelled", "cancelled while it ran".into()))),
        How::NotStarted(why) => (Status::Spawn, Some(trouble("spawn", why.clone()))),
    }
}

impl Commands {
    /// What is to be started for this attempt, and what it is fed.
    fn fill(&self, attempt: &Attempt<Vec<String>>, rank: u32, slot: u32) -> (Launch, Option<String>) {
        let place = Place { number: attempt.number, slot };
        let mut words = self.template.fill(&attempt.work, &place);
        let env = words.split_off(words.len() - self.env.len());
        let cwd = self.has_cwd.then(|| words.pop()).flatten();
        let stdin = self.has_stdin.then(|| words.pop()).flatten();
        let mut words = words.into_iter();
        let (program, args) = if self.shell {
            let script = words.next().unwrap_or_default();
            ("/bin/sh".into(), vec!["-c".into(), script])
        } else {
            (words.next().unwrap_or_default(), words.collect())
        };
        let cpus = self.job_cpus.filter(|_| std::env::var_os("OMP_NUM_THREADS").is_none());
        let threads = cpus.map(|cpus| ("OMP_NUM_THREADS".to_string(), cpus.to_string()));
        let own = [
            ("RANKPOOL_JOB", attempt.number),
            ("RANKPOOL_RANK", rank.into()),
            ("RANKPOOL_SLOT", slot.into()),
            ("RANKPOOL_ATTEMPT", attempt.attempt.into()),
            ("RANKPOOL_SEED", attempt.seed),
        ];
        let own = own.map(|(name, value)| (name.to_string(), value.to_string()));
        let env = own.into_iter().chain(threads).chain(self.env.iter().cloned().zip(env)).collect();
        (Launch { program, arg0: None, args, env, cwd: cwd.map(PathBuf::from) }, stdin)
    }
}

/// What a command has written and was not sent ahead.
struct Output {
    index: u64,
    out: Vec<u8>,
    err: Vec<u8>,
    bytes: u64,
    /// The driver has lost interest.
    unwanted: bool,
}

impl Output {
    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.unwanted {
            return;
        }
        let (mark, kept) = match stream {
            Stream::Stdout => (STDOUT, &mut self.out),
            Stream::Stderr => (STDERR, &mut self.err),
        };
        kept.extend_from_slice(bytes);
        if kept.len() >= PIECE {
            let piece = std::mem::take(kept);
            self.unwanted = worker::send_part(self.index, mark, piece).is_err();
        }
    }
}
