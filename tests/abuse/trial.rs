//! One trial: a run that is killed once or more, is resumed each time, and must end as if nothing had happened.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::chance::Chance;
use crate::processes::{self, MARK, Target};
use crate::support::{self, Finished};
use crate::task::{Attempt, KERNEL_SECONDS, Task, attempts};

/// No run takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// The most work, in seconds of each slot, that a kill may cost beyond that of the jobs that run.
const MOST_LOST: f64 = 1.0;
/// By how much the clocks of jobs and of this program may differ: the jobs' clock has steps of 10 ms, and a shell takes a while to
/// write its note.
const CLOCK: f64 = 0.25;

/// How ranks are started.
#[derive(Debug, Clone)]
pub struct Launcher {
    pub name: &'static str,
    /// The launcher and its flags; empty without one.
    pub words: Vec<String>,
}

/// A trial that is about to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    pub program: PathBuf,
    pub launcher: Launcher,
    pub task: Task,
    pub target: Target,
    pub seed: u64,
}

/// What the kills of a trial have cost.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Cost {
    pub kills: u32,
    /// Outputs that differ from those of the undisturbed run.
    pub differing: u32,
    /// Jobs whose output is missing.
    pub lost: u64,
    /// Jobs that were in the journal as successful and were run again.
    pub saved_again: u64,
    /// Jobs that had done their work, were not in the journal, and were run again.
    pub finished_again: u64,
    /// Jobs that ran when something was killed, and were run again.
    pub running_again: u64,
    /// The longest time between the end of a job's work and a kill after which it was run again.
    pub oldest: f64,
    /// Jobs that were charged with a failure because of a kill.
    pub charged: u64,
}

/// A run, under way.
struct Run {
    child: Child,
    mark: String,
}

struct Trial<'p> {
    plan: &'p Plan,
    folder: &'p Path,
    cost: Cost,
    /// Jobs in the journal, after each kill, and when they were seen there.
    saved: Vec<(f64, BTreeSet<u64>)>,
    /// For each kill, when it was sent, and when rank 0 had ended because of it.
    kills: Vec<(f64, f64)>,
}

/// The outputs of a finished run, and how long it took.
pub struct Undisturbed {
    pub out: Vec<u8>,
    pub err: Vec<u8>,
    pub code: i32,
    pub took: Duration,
}

fn command(plan: &Plan, folder: &Path, mark: &str, ranks: u64, threads: u64, more: &[&str]) -> Command {
    let words = &plan.launcher.words;
    let mut command = Command::new(words.first().map_or(plan.program.as_os_str(), |word| word.as_ref()));
    if words.is_empty() {
        command.args(["--local", &ranks.to_string()]);
    } else {
        command.args(&words[1..]).args(["-n", &ranks.to_string()]).arg(&plan.program);
    }
    command.args(["--threads", &threads.to_string(), "--progress", "off", "-o", "o"]);
    let mut task = plan.task.words();
    // Options go before the command.
    let rest = task.split_off(task.iter().position(|word| word == "--").unwrap_or(task.len()));
    command.args(task).args(more).args(rest).current_dir(folder).env(MARK, mark).env("LC_ALL", "C");
    command.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
    command
}

/// Runs the task without a journal, and without a kill.
pub fn undisturbed(plan: &Plan, fails: bool) -> Undisturbed {
    let folder = tempfile::tempdir().expect("a folder");
    plan.task.prepare(folder.path(), fails);
    let began = Instant::now();
    let finished = support::run(&mut command(plan, folder.path(), "undisturbed", 2, 2, &[]), LIMIT);
    let took = began.elapsed();
    let code = if fails { 3 } else { 0 };
    finished.expect_code(code).expect_said(" rank(s), ");
    let read = |name| fs::read(folder.path().join(name)).unwrap_or_default();
    Undisturbed { out: read("o"), err: read("e"), code, took }
}

/// Makes a trial. `expected` is the end of an undisturbed run with the same jobs; `fails` says whether some of them fail.
///
/// # Errors
/// A promise that is broken, with the folder in which the trial is left, and what the kills have cost.
pub fn make(plan: &Plan, expected: &Undisturbed, fails: bool) -> Result<Cost, (Cost, String)> {
    let folder = tempfile::tempdir().expect("a folder for the trial");
    let mut trial = Trial { plan, folder: folder.path(), cost: Cost::default(), saved: Vec::new(), kills: Vec::new() };
    let made = trial.make(expected, fails);
    let cost = trial.cost;
    made.map(|()| cost.clone())
        .map_err(|message| (cost, format!("{message}\n  the trial is left in {}", folder.keep().display())))
}

impl Trial<'_> {
    fn make(&mut self, expected: &Undisturbed, fails: bool) -> Result<(), String> {
        let mut chance = Chance::new(self.plan.seed);
        self.plan.task.prepare(self.folder, fails);
        let wanted = 1 + u32::from(chance.below(3) == 0) + u32::from(chance.below(6) == 0);
        while self.cost.kills < wanted {
            let least = if self.plan.target == Target::OtherRank { 2 } else { 1 };
            let (ranks, threads) = (least + chance.below(4 - least), 1 + chance.below(2));
            // Some kills fall on the end, where outputs are completed.
            let share = if chance.below(4) == 0 { 0.9 + chance.share() * 0.15 } else { chance.share() };
            let moment = expected.took.mul_f64(share);
            if !self.run_and_kill(ranks, threads, moment, &mut chance)? {
                break;
            }
        }
        let ranks = 1 + chance.below(3);
        self.complete(ranks, expected.code)?;
        self.compare(expected)?;
        self.judge_notes()
    }

    fn start(&self, ranks: u64, threads: u64, more: &[&str]) -> Run {
        let mark = format!("{}-{}-{}", std::process::id(), self.plan.seed, self.kills.len());
        let options = [&["--journal", "j", "--resume"], more].concat();
        let child = support::start(&mut command(self.plan, self.folder, &mark, ranks, threads, &options));
        Run { child, mark }
    }

    /// Begins or resumes the run, and kills the target after this time, or as soon as there is one after that. Returns false if the
    /// run ended before.
    fn run_and_kill(
        &mut self,
        ranks: u64,
        threads: u64,
        moment: Duration,
        chance: &mut Chance,
    ) -> Result<bool, String> {
        let settled_before = self.settled();
        let modified = || fs::metadata(self.folder.join("j")).and_then(|of| of.modified()).ok();
        let before = modified();
        let began = Instant::now();
        let mut run = self.start(ranks, threads, &[]);
        let launcher = run.child.id() as i32;
        let ended = loop {
            if let Some(status) = run.child.try_wait().map_err(|error| error.to_string())? {
                break Some(status);
            }
            if began.elapsed() > LIMIT {
                return Err(format!("the run has not ended after {LIMIT:?}"));
            }
            if began.elapsed() >= moment {
                let found =
                    processes::targets(&processes::of_run(&self.plan.program, &run.mark), self.plan.target, launcher);
                if !found.is_empty() {
                    let pid = *chance.pick(&found);
                    processes::end(pid);
                    break None;
                }
            }
            sleep(Duration::from_millis(1));
        };
        let unwritten = modified().filter(|at| Some(*at) != before).and_then(|at| at.elapsed().ok());
        let (killed, mut last) = (processes::now(), processes::now());
        // Ranks notice a moment later that the launcher or another rank is gone, and go on until then.
        while ended.is_none() && began.elapsed() < LIMIT {
            let found = processes::of_run(&self.plan.program, &run.mark);
            if processes::targets(&found, Target::FirstRank, launcher).is_empty() {
                break;
            }
            last = processes::now();
            sleep(Duration::from_millis(2));
        }
        let finished = self.finish(run, ended)?;
        let last = if matches!(finished.code, Some(0 | 3)) { killed } else { last };
        if ended.is_some() {
            return match finished.code {
                Some(0 | 3) => Ok(false),
                _ => Err(format!("the run ended by itself with {:?}:\n{}", finished.code, finished.stderr)),
            };
        }
        self.cost.kills += 1;
        self.kills.push((killed, last));
        let is_whole = matches!(self.plan.target, Target::FirstRank | Target::Launcher | Target::OtherRank);
        if is_whole && finished.code == Some(0) && self.settled() < self.plan.task.jobs() {
            return Err("the run has ended with 0 although not all jobs are settled".into());
        }
        if self.plan.task.takes_notes() {
            self.saved.push((processes::now(), self.saved_jobs()?));
        } else if self.plan.task == Task::Kernel {
            self.estimate(unwritten, self.settled() > settled_before, (ranks * threads) as f64)?;
        }
        Ok(true)
    }

    /// Estimates the work of jobs that take no notes: all that the slots could have done since the journal was last written.
    fn estimate(&mut self, unwritten: Option<Duration>, has_settled: bool, slots: f64) -> Result<(), String> {
        let seconds = unwritten.map_or(0.0, |time| time.as_secs_f64());
        let left = self.plan.task.jobs().saturating_sub(self.settled());
        let again = ((seconds * slots / KERNEL_SECONDS) as u64).min(left);
        self.cost.finished_again += again;
        self.cost.oldest = self.cost.oldest.max(again as f64 * KERNEL_SECONDS / slots);
        // Before the first results there is the start of other ranks, too.
        if has_settled && left > 0 && seconds > MOST_LOST + CLOCK {
            return Err(format!("the journal was not written for {seconds:.2} s"));
        }
        Ok(())
    }

    /// Waits until all processes of a run have ended.
    fn finish(&self, mut run: Run, ended: Option<ExitStatus>) -> Result<Finished, String> {
        let finished = support::try_finish(&mut run.child, LIMIT)
            .map_err(|said| format!("the run hangs after a kill; it said:\n{said}"))?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = processes::of_run(&self.plan.program, &run.mark);
            if left.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                left.iter().for_each(|process| processes::end(process.pid));
                return Err(format!("processes are left behind: {left:?}"));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(Finished { code: ended.map_or(finished.code, |status| status.code()), ..finished })
    }

    /// Resumes the run until it is complete.
    fn complete(&mut self, ranks: u64, code: i32) -> Result<(), String> {
        // A kill of a job's process may fail that job. Then it is asked for again.
        let options: [&[&str]; 3] = [&[], &["--retry-failed"], &["--retry-failed"]];
        let mut said = String::new();
        for more in options {
            let run = self.start(ranks, 2, more);
            let finished = self.finish(run, None)?;
            if finished.code == Some(code) {
                let shown = self.journal("show")?.out();
                return if shown.contains("complete: yes") { Ok(()) } else { Err(format!("not complete:\n{shown}")) };
            }
            let is_of_job = matches!(self.plan.target, Target::Command | Target::Worker | Target::Helper);
            if !(finished.code == Some(3) && is_of_job) {
                return Err(format!("the resumed run ended with {:?}:\n{}", finished.code, finished.stderr));
            }
            let shown = self.journal("show")?.out();
            let failed = shown.split(" job(s), ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            self.cost.charged += failed.unwrap_or(0);
            said = finished.stderr;
        }
        Err(format!("the resumed run never ended with {code}:\n{said}"))
    }

    fn journal(&self, task: &str) -> Result<Finished, String> {
        let mut command = Command::new(&self.plan.program);
        command.args(["journal", task, "j"]).current_dir(self.folder);
        let finished = support::run(&mut command, LIMIT);
        if finished.code == Some(0) { Ok(finished) } else { Err(format!("journal {task}: {}", finished.stderr)) }
    }

    /// The number of jobs in the journal.
    fn settled(&self) -> u64 {
        let shown = self.journal("show").map(|finished| finished.out()).unwrap_or_default();
        shown.split("settled: ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// The jobs that are in the journal as successful. There is none if the run was killed before it opened it.
    fn saved_jobs(&self) -> Result<BTreeSet<u64>, String> {
        if fs::metadata(self.folder.join("j")).map_or(0, |of| of.len()) == 0 {
            return Ok(BTreeSet::new());
        }
        let exported = self.journal("export")?.out();
        let number = |line: &str| {
            let entry: serde_json::Value = serde_json::from_str(line).ok()?;
            (entry["status"] == "ok").then(|| entry["number"].as_u64())?
        };
        Ok(exported.lines().filter_map(number).collect())
    }

    fn compare(&mut self, expected: &Undisturbed) -> Result<(), String> {
        let read = |name: &str| fs::read(self.folder.join(name)).unwrap_or_default();
        let mut pairs = vec![("o", read("o"), &expected.out)];
        if self.plan.task.has_stderr() {
            pairs.push(("e", read("e"), &expected.err));
        }
        let mut broken = Vec::new();
        for (name, actual, expected) in pairs {
            if actual == *expected {
                continue;
            }
            self.cost.differing += 1;
            let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<BTreeSet<_>>();
            let missing = lines(expected).difference(&lines(&actual)).count();
            self.cost.lost += missing as u64;
            broken.push(format!(
                "{name} differs: {} bytes, not {}, {missing} lines are missing",
                actual.len(),
                expected.len()
            ));
        }
        if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
    }

    /// Looks at which jobs were run more than once, and whether that had to be.
    fn judge_notes(&mut self) -> Result<(), String> {
        if !self.plan.task.takes_notes() {
            return Ok(());
        }
        let attempts = attempts(self.folder);
        let mut broken = Vec::new();
        let missing = (1..=self.plan.task.jobs()).filter(|job| !attempts.contains_key(job)).count();
        if missing > 0 {
            broken.push(format!("{missing} jobs were never run"));
        }
        for (job, attempts) in &attempts {
            for pair in attempts.windows(2) {
                broken.extend(self.judge_again(*job, pair[0], pair[1]));
            }
        }
        if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
    }

    /// Judges a job that was run again.
    fn judge_again(&mut self, job: u64, first: Attempt, next: Attempt) -> Option<String> {
        let was_saved = self.saved.iter().any(|(at, jobs)| *at < next.began && jobs.contains(&job));
        if was_saved {
            self.cost.saved_again += 1;
            return Some(format!("job {job} was saved and is run again at {}", next.began));
        }
        let mut kills =
            self.kills.iter().filter(|(sent, last)| first.began - CLOCK <= *last && *sent <= next.began + CLOCK);
        let Some(&(sent, last)) = kills.next() else {
            return Some(format!(
                "job {job} is run again at {} without a kill: {first:?}, {:?}",
                next.began, self.kills
            ));
        };
        // Its rank may have gone at once, or with rank 0.
        let kill = if first.ended.is_some_and(|ended| ended < sent + CLOCK) { sent } else { last };
        match first.ended.filter(|ended| *ended < kill) {
            None => self.cost.running_again += 1,
            Some(ended) => {
                self.cost.finished_again += 1;
                self.cost.oldest = self.cost.oldest.max(kill - ended);
                if kill - ended > MOST_LOST + CLOCK {
                    return Some(format!(
                        "job {job} had ended {:.2} s before the kill and was not saved",
                        kill - ended
                    ));
                }
            }
        }
        None
    }
}
