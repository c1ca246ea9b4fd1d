//! What could be changed in the job script or the command line, each with the figure behind it.

use super::{Facts, Slots};
use crate::console::words::{bytes, count, counted, number, percent, seconds, slurm_time};

/// A sentence about a line of the job script or an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// The line or option that is to be changed, as it would be written; `None` if there is nothing to change.
    pub line: Option<String>,
    pub text: String,
}

impl Note {
    fn new(line: impl Into<String>, text: String) -> Note {
        Note { line: Some(line.into()), text }
    }
}

/// A time limit or a memory limit gets this much more than what was needed.
const RESERVE: f64 = 1.2;
/// A part of the slots' time that is worth a note.
const NOTABLE: f64 = 0.15;

/// Returns all notes, the most useful ones first.
pub(super) fn notes(facts: &Facts) -> Vec<Note> {
    let mut notes = Vec::new();
    notes.extend(time(facts));
    notes.extend(memory(facts));
    if let Some(slots) = facts.slots {
        notes.extend(nodes(facts, slots));
        notes.extend(tail(facts, slots));
        notes.extend(start_up(slots));
    }
    notes.extend(job_cpus(facts));
    notes.extend(timeout(facts));
    notes.extend(short_jobs(facts));
    notes.extend(bad_host(facts));
    notes.extend(retries(facts));
    notes.extend(lost(facts));
    notes
}

/// `--time`: how long it took.
fn time(facts: &Facts) -> Option<Note> {
    let wall = facts.wall()?;
    let slots = facts.slots.map_or(String::new(), |slots| format!(" on {}", counted(slots.count, "slot")));
    let jobs = counted(facts.counts.run(), "job");
    if facts.is_complete() == Some(false) {
        return Some(Note {
            line: None,
            text: format!(
                "{jobs} took {}{slots}, and the run is not complete: a time limit for all jobs needs their number, which is \
                 not in the file. In the same time again, about as many jobs would be done.",
                seconds(wall)
            ),
        });
    }
    // Shorter limits are of no use to a batch system.
    let limit = (wall * RESERVE / 60.0).ceil().max(1.0) * 60.0;
    Some(Note::new(
        format!("#SBATCH --time={}", slurm_time(limit)),
        format!(
            "{jobs} took {}{slots}. A limit with a fifth more is {} (under PBS: -l walltime={}).",
            seconds(wall),
            slurm_time(limit),
            slurm_time(limit)
        ),
    ))
}

/// `--mem`: what the jobs of a node need together.
fn memory(facts: &Facts) -> Option<Note> {
    let most = facts.memory.most() as f64;
    if facts.memory.count() == 0 || most <= 0.0 {
        return None;
    }
    let on_host = facts.slots.map_or(1, |slots| slots.most_on_host.max(1));
    let needed = most * on_host as f64;
    let mib = (needed * RESERVE / f64::from(1 << 20)).ceil();
    let limit = if mib >= 10_240.0 { format!("{}G", (mib / 1024.0).ceil()) } else { format!("{mib}M") };
    let fit = facts.node_memory().filter(|node| *node > 0).map(|node| {
        format!(" A node with {} has room for {} of them.", bytes(node as f64), count((node as f64 / most) as u64))
    });
    Some(Note::new(
        format!("#SBATCH --mem={limit}"),
        format!(
            "The largest job had {}, and up to {} ran at once on a node: {} together, {limit} with a fifth more.{} --job-mem \
             {}M keeps more of them from running at once than fit.",
            bytes(most),
            count(on_host),
            bytes(needed),
            fit.unwrap_or_default(),
            (most * RESERVE / f64::from(1 << 20)).ceil()
        ),
    ))
}

/// `--nodes`: whether more or fewer slots would be of use.
fn nodes(facts: &Facts, slots: Slots) -> Option<Note> {
    let (busy, longest) = (slots.time.busy(), facts.times.most() as f64 / 1e9);
    let work = slots.time.run;
    if longest <= 0.0 || slots.wall <= 0.0 {
        return None;
    }
    // With this number of slots, the longest job alone takes as long as all others.
    let useful = (work / longest).max(1.0);
    if busy < 0.5 && slots.count > 1 {
        let enough = (slots.count as f64 * busy).ceil().max(1.0);
        return Some(Note::new(
            "#SBATCH --nodes",
            format!(
                "The {} were busy for {} of the time: {} would have been enough for the same work in the same time.",
                counted(slots.count, "slot"),
                percent(busy),
                counted(enough as u64, "slot")
            ),
        ));
    }
    if busy >= 0.7 && useful > 1.5 * slots.count as f64 {
        let twice = (work / (2.0 * slots.count as f64)).max(longest);
        return Some(Note::new(
            "#SBATCH --nodes",
            format!(
                "The {} were busy for {} of the time: twice as many would take about {} instead of {}. More than {} cannot \
                 make it shorter, because the longest job takes {}.",
                counted(slots.count, "slot"),
                percent(busy),
                seconds(twice / busy),
                seconds(slots.wall),
                count(useful.ceil() as u64),
                seconds(longest)
            ),
        ));
    }
    None
}

/// Slots that had nothing to do at the end.
fn tail(facts: &Facts, slots: Slots) -> Option<Note> {
    let part = slots.time.tail / slots.time.total();
    if part < NOTABLE || slots.count < 2 {
        return None;
    }
    let named: Vec<_> = facts.slowest.iter().take(3).map(|job| format!("{}", job.number)).collect();
    Some(Note::new(
        "--input (the order of the records)",
        format!(
            "{} of the slots' time went by at the end, when few jobs were left. The longest jobs (number {}) take {} and more, the median \
             {}: put long jobs first.",
            percent(part),
            named.join(", "),
            seconds(facts.slowest.iter().take(3).filter_map(|job| job.seconds).fold(f64::INFINITY, f64::min)),
            seconds(facts.times.quantile(0.5) as f64 / 1e9)
        ),
    ))
}

fn start_up(slots: Slots) -> Option<Note> {
    let part = slots.time.start_up / slots.time.total();
    (part >= NOTABLE).then(|| {
        Note::new(
            "--preload, or fewer starts",
            format!(
                "{} of the slots' time went by before their first jobs began ({} a slot): more jobs in one run, and modules \
                 that are imported once on a node (--preload), make that part smaller.",
                percent(part),
                seconds(slots.time.start_up / slots.count.max(1) as f64)
            ),
        )
    })
}

/// `--job-cpus`: CPU time against wall time.
fn job_cpus(facts: &Facts) -> Option<Note> {
    let cpus = facts.cpus_per_job?;
    // Short processes are measured too roughly.
    if facts.times.mean() < 1e7 {
        return None;
    }
    if cpus > 1.3 {
        return Some(Note::new(
            format!("--job-cpus {}", cpus.ceil()),
            format!(
                "A job kept {} CPUs busy on average: with --job-cpus {} a rank runs fewer of them at once, and with \
                 --job-cpus 1 or OMP_NUM_THREADS=1 each uses one.",
                number(cpus),
                cpus.ceil()
            ),
        ));
    }
    (cpus < 0.5).then(|| {
        Note::new(
            "--threads",
            format!(
                "Jobs used a CPU for {} of their time and waited for files, the network or a clock otherwise: more slots on a rank \
                 (--threads, now one for each CPU) do more of them at once.",
                percent(cpus)
            ),
        )
    })
}

/// `--timeout`: jobs that take much longer than others.
fn timeout(facts: &Facts) -> Option<Note> {
    let (p99, most) = (facts.times.quantile(0.99) as f64 / 1e9, facts.times.most() as f64 / 1e9);
    if facts.counts.timeout > 0 {
        return Some(Note::new(
            "--timeout",
            format!(
                "{} ended by the time limit of a job. Of all jobs, 99 % took {} or less.",
                counted(facts.counts.timeout, "job"),
                seconds(p99)
            ),
        ));
    }
    let is_long = facts.times.count() >= 100 && most > 20.0 * p99 && most > 10.0;
    is_long.then(|| {
        let limit = (5.0 * p99).max(1.0).ceil();
        Note::new(
            format!("--timeout {limit}s"),
            format!(
                "99 % of the jobs took {} or less, and the longest one {}: is it still at work?",
                seconds(p99),
                seconds(most)
            ),
        )
    })
}

/// Commands that are shorter than what it takes to start them.
fn short_jobs(facts: &Facts) -> Option<Note> {
    let is_run = facts.spec.iter().any(|(name, _)| name == "command");
    let median = facts.times.quantile(0.5) as f64 / 1e9;
    (is_run && facts.times.count() >= 100 && median < 0.01).then(|| {
        Note::new(
            "rankpool map",
            format!(
                "Half of the commands took {} or less, which is mostly the start of a process: a function that stays loaded \
                 (rankpool map) or several records in one command take less.",
                seconds(median)
            ),
        )
    })
}

/// A host on which many more jobs fail than elsewhere.
fn bad_host(facts: &Facts) -> Option<Note> {
    let hosts = &facts.by_host.classes;
    let part = |failed: u64, jobs: u64| failed as f64 / jobs.max(1) as f64;
    let worst = hosts
        .iter()
        .filter(|host| host.failed >= 3)
        .max_by(|a, b| part(a.failed, a.jobs).total_cmp(&part(b.failed, b.jobs)))?;
    let (jobs, failed) =
        (facts.counts.run().saturating_sub(worst.jobs), facts.counts.all_failed().saturating_sub(worst.failed));
    let (there, elsewhere) = (part(worst.failed, worst.jobs), part(failed, jobs));
    (hosts.len() > 1 && jobs > 0 && there > 0.05 && there > 5.0 * elsewhere).then(|| {
        Note::new(
            format!("#SBATCH --exclude={}", worst.value),
            format!(
                "On {}, {} of {} failed ({}), elsewhere {}.",
                worst.value,
                count(worst.failed),
                counted(worst.jobs, "job"),
                percent(there),
                percent(elsewhere)
            ),
        )
    })
}

fn retries(facts: &Facts) -> Option<Note> {
    let retries = facts.retries;
    (retries.jobs > 0 && retries.succeeded * 10 < retries.jobs).then(|| {
        Note::new(
            "--retries 0",
            format!(
                "Of {} with more than one attempt, {} succeeded in the end: {} were for nothing.",
                counted(retries.jobs, "job"),
                count(retries.succeeded),
                counted(retries.attempts, "attempt")
            ),
        )
    })
}

fn lost(facts: &Facts) -> Option<Note> {
    let lost = facts.lost_ranks();
    let (host, rank, after) = *lost.first()?;
    Some(Note::new(
        if lost.len() == 1 { format!("#SBATCH --exclude={host}") } else { "the nodes of the lost ranks".into() },
        format!(
            "{} lost; the first one was rank {rank} on {host}, after {}. Its jobs were given to others.",
            if lost.len() == 1 { "One rank was".into() } else { format!("{} ranks were", count(lost.len() as u64)) },
            seconds(after)
        ),
    ))
}
