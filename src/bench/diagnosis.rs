//! Finds out what limits work, from measurements alone.

use serde::Serialize;

use super::scaling::Row;
use super::tail::Tail;
use crate::console::words;

/// What was measured.
#[derive(Debug, Clone)]
pub(crate) struct Evidence<'e> {
    /// The same work with more and more threads or ranks, the first row with one.
    pub rows: &'e [Row],
    /// `threads` or `ranks`.
    pub what: &'e str,
    /// The subcommand: `kernel`, `run` or `map`.
    pub subcommand: &'e str,
    /// The shortest job with which nine tenths of the time are useful, in seconds.
    pub metg_90: Option<f64>,
    /// By which factor arithmetic gets slower with the largest number of threads.
    pub arithmetic: f64,
    pub tail: Option<&'e Tail>,
    /// The CPUs that this process may use, and those of the machine.
    pub cpus: (u32, u32),
}

/// What limits the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    Nothing,
    FailedJobs,
    Startup,
    Dispatch,
    Memory,
    SharedCpus,
    BoundCpus,
    Waiting,
    Stragglers,
    SerialPart,
}

/// A finding with the figures behind it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Finding {
    pub limit: Limit,
    pub text: String,
}

/// A share of the time from which a cause is worth a sentence.
const WORTH: f64 = 0.15;
/// The growth of a job's time from which it is a finding.
const GROWTH: f64 = 1.2;
/// The share of the ideal speed-up that needs no explanation.
const GOOD: f64 = 0.9;
/// The number of CPUs with other work from which that is worth a warning.
const OTHER_CPUS: f64 = 0.25;

/// Looks for one limit in the evidence, its first row and its last one.
type Check = fn(&Evidence<'_>, &Row, &Row) -> Option<(Limit, String)>;

/// Returns what limits the work, the most certain first.
pub(crate) fn findings(evidence: &Evidence<'_>) -> Vec<Finding> {
    let (Some(one), Some(most)) = (evidence.rows.first(), evidence.rows.last()) else { return Vec::new() };
    let checks: [Check; 8] = [failed, bound, startup, shared_cpus, memory, dispatch, waiting, stragglers];
    let mut found: Vec<Finding> = checks
        .iter()
        .filter_map(|check| check(evidence, one, most))
        .map(|(limit, text)| Finding { limit, text })
        .collect();
    let explains = |finding: &Finding| !matches!(finding.limit, Limit::FailedJobs | Limit::BoundCpus);
    if !found.iter().any(explains) {
        let (limit, text) = serial_part(evidence, one, most).unwrap_or_else(|| nothing(evidence, one, most));
        found.push(Finding { limit, text });
    }
    found
}

fn speed_up(one: &Row, most: &Row) -> f64 {
    one.wall() / most.wall().max(1e-9)
}

/// Returns the speed-up from the first job's dispatch to the last result.
fn speed_up_of_run(one: &Row, most: &Row) -> f64 {
    let run = |row: &Row| row.median(|run| run.summary.wall_seconds);
    run(one) / run(most).max(1e-9)
}

fn failed(_: &Evidence<'_>, one: &Row, most: &Row) -> Option<(Limit, String)> {
    let failed = [one, most].iter().flat_map(|row| &row.runs).map(|run| run.summary.failed).max()?;
    let jobs = most.runs.first()?.summary.jobs;
    let text = format!(
        "{failed} of {jobs} jobs failed: these figures are those of failing jobs. Run the work itself with --records FILE to see why"
    );
    (failed > 0).then_some((Limit::FailedJobs, text))
}

fn bound(evidence: &Evidence<'_>, _: &Row, most: &Row) -> Option<(Limit, String)> {
    let (allowed, all) = evidence.cpus;
    if allowed >= all || most.count <= allowed || evidence.what != "threads" {
        return None;
    }
    let text = format!(
        "the process may use {allowed} of the {all} CPUs, and {} threads shared them: ask the launcher for more (srun -c, mpiexec --bind-to \
         none)",
        most.count
    );
    Some((Limit::BoundCpus, text))
}

fn startup(_: &Evidence<'_>, _: &Row, most: &Row) -> Option<(Limit, String)> {
    let outside = most.median(|run| run.wall_seconds - run.summary.wall_seconds);
    let share = outside / most.wall().max(1e-9);
    let text = format!(
        "start-up: {outside:.2} s of {:.2} s pass before the first job and after the last one ({:.0} %). More work in one run makes it \
         matter less",
        most.wall(),
        100.0 * share
    );
    (share > 2.0 * WORTH).then_some((Limit::Startup, text))
}

fn dispatch(evidence: &Evidence<'_>, _: &Row, most: &Row) -> Option<(Limit, String)> {
    let (metg, job) = (evidence.metg_90?, most.job_seconds());
    let efficiency = most.median(|run| run.summary.efficiency.unwrap_or(0.0));
    // On shared CPUs the time in jobs is short for another reason.
    if job >= metg || efficiency >= GOOD || evidence.arithmetic > GROWTH {
        return None;
    }
    let advice = match evidence.subcommand {
        "run" => "let one command handle several records, or use `rankpool map`, whose workers stay",
        _ => "let one job do more; with --chunk N, leave that out or take a larger N",
    };
    let text = format!(
        "dispatch: a job takes {}, and only {:.0} % of the threads' time was spent in jobs. Here jobs have to take {} or more for 90 % \
         (METG): {advice}",
        words::seconds(job),
        100.0 * efficiency,
        words::seconds(metg)
    );
    Some((Limit::Dispatch, text))
}

fn shared_cpus(evidence: &Evidence<'_>, one: &Row, most: &Row) -> Option<(Limit, String)> {
    let grows = most.job_seconds() > GROWTH * one.job_seconds();
    let text = format!(
        "shared CPUs: arithmetic that uses no memory takes {:.2} times as long on {} threads as on one, with {} CPUs. Two threads \
         share a core (hyperthreads), other programs run, or there are fewer CPUs than threads",
        evidence.arithmetic, most.count, evidence.cpus.0
    );
    (most.count > 1 && grows && evidence.arithmetic > GROWTH).then_some((Limit::SharedCpus, text))
}

fn memory(evidence: &Evidence<'_>, one: &Row, most: &Row) -> Option<(Limit, String)> {
    let (before, now) = (one.job_seconds(), most.job_seconds());
    let growth = now / before.max(1e-12);
    let cpu_growth = most.cpu_of_job() / one.cpu_of_job().max(1e-12);
    let net = growth / evidence.arithmetic.max(1.0);
    // What is lost is a factor, as the growth is: it is explained if the growth makes up half of it, on a logarithmic scale.
    let lost = f64::from(most.count) / speed_up_of_run(one, most);
    let explains = lost > 1.0 / GOOD && net.ln() > 0.5 * lost.ln();
    if most.count < 2 || !(net > GROWTH || explains) || cpu_growth < 1.0 + (net - 1.0) / 2.0 {
        return None;
    }
    let kernel = most.median(|run| run.system_seconds / (run.user_seconds + run.system_seconds).max(1e-9));
    let allocator = if kernel > WORTH {
        format!(
            " {:.0} % of the CPU time is spent in the kernel: large memory that is allocated and freed in each job costs page faults; keep \
             it from job to job",
            100.0 * kernel
        )
    } else {
        String::new()
    };
    let text = format!(
        "memory: a job takes {} with one of the {} and {} with {} ({growth:.2} times), and its CPU time grows as well, while \
         arithmetic takes {:.2} times as long: the jobs wait for memory that all share. Fewer threads on each host, or less memory traffic \
         in a job.{allocator}",
        words::seconds(before),
        evidence.what,
        words::seconds(now),
        most.count,
        evidence.arithmetic
    );
    Some((Limit::Memory, text))
}

fn waiting(_: &Evidence<'_>, one: &Row, most: &Row) -> Option<(Limit, String)> {
    let share = |row: &Row| {
        row.median(|run| {
            // Before the first job and after the last one, the program computes as well, unless other work has the CPUs.
            let has_cpus = run.other_cpus.is_none_or(|others| others < OTHER_CPUS);
            let outside = if has_cpus { run.wall_seconds - run.summary.wall_seconds } else { 0.0 };
            let cpu = (run.user_seconds + run.system_seconds - outside).max(0.0);
            cpu / run.summary.busy_seconds.max(1e-9)
        })
    };
    let (cpu, job) = (share(one).max(share(most)), most.job_seconds());
    // CPU time is counted in ticks: that of very little work says nothing.
    if cpu > 0.5 || most.median(|run| run.summary.busy_seconds) < 0.05 {
        return None;
    }
    let text = format!(
        "waiting: of the {} of a job, the CPU works {:.0} %. The jobs wait for a disk, a network or a clock: more threads than CPUs \
         (--threads N) may help",
        words::seconds(job),
        100.0 * cpu
    );
    Some((Limit::Waiting, text))
}

fn stragglers(evidence: &Evidence<'_>, _: &Row, most: &Row) -> Option<(Limit, String)> {
    let tail = evidence.tail?;
    let share = tail.seconds / tail.run_seconds.max(1e-9);
    if most.count < 2 || share < WORTH || tail.seconds < 2e-3 {
        return None;
    }
    let named: Vec<String> =
        tail.last.iter().map(|(number, seconds)| format!("job {number} ({})", words::seconds(*seconds))).collect();
    let text = format!(
        "stragglers: for {} of {} ({:.0} %) some {} had nothing left to do. The last to end were {}; a job takes {} on average. \
         Put long jobs first, or divide them",
        words::seconds(tail.seconds),
        words::seconds(tail.run_seconds),
        100.0 * share,
        evidence.what,
        named.join(", "),
        words::seconds(tail.mean_seconds)
    );
    Some((Limit::Stragglers, text))
}

/// Returns the finding that a part of the work is done by one thread alone, if nothing else explains the speed-up. The share is that
/// of Karp and Flatt (1990): e = (1/s − 1/n) / (1 − 1/n) for a speed-up of s with n threads.
fn serial_part(evidence: &Evidence<'_>, one: &Row, most: &Row) -> Option<(Limit, String)> {
    let count = f64::from(most.count);
    let speed_up = speed_up_of_run(one, most);
    if most.count < 2 || speed_up / count >= GOOD {
        return None;
    }
    let share = ((1.0 / speed_up - 1.0 / count) / (1.0 - 1.0 / count)).clamp(0.0, 1.0);
    let text = format!(
        "a serial part: the speed-up with {} {} is {speed_up:.2}, as if {:.0} % of the work were done by one thread alone, and the time of a \
         job does not explain it. That is reading the input and writing the results on rank 0, or a lock in the jobs",
        most.count,
        evidence.what,
        100.0 * share
    );
    Some((Limit::SerialPart, text))
}

fn nothing(evidence: &Evidence<'_>, one: &Row, most: &Row) -> (Limit, String) {
    let text = format!(
        "nothing limits it here: {:.2} times as fast with {} {} as with one",
        speed_up(one, most),
        most.count,
        evidence.what
    );
    (Limit::Nothing, text)
}

/// Returns the warning that other work needed the CPUs of the work, on a host with this number of CPUs.
fn other_work(rows: &[Row], what: &str, cpus: u32) -> Option<String> {
    let others = rows.iter().filter_map(|row| Some((row, row.other_cpus()?)));
    let contended =
        others.filter(|(row, others)| *others > OTHER_CPUS && others + f64::from(row.count) > f64::from(cpus));
    let (row, others) = contended.max_by(|one, other| one.1.total_cmp(&other.1))?;
    Some(format!(
        "with {}, other work kept {others:.1} of the {cpus} CPUs of this host busy: the times are too long, and the diagnosis may be that of \
         the other work. Measure again when it has ended",
        words::counted(row.count.into(), what.trim_end_matches('s'))
    ))
}

/// Returns warnings about the measurement itself, each with what helps. `cpus`: those of this host.
pub(crate) fn warnings(rows: &[Row], what: &str, cpus: u32) -> Vec<String> {
    let mut warnings: Vec<String> = other_work(rows, what, cpus).into_iter().collect();
    for row in rows.iter().filter(|row| row.runs.len() > 1) {
        let (shortest, longest) = row.range();
        let wall = row.wall();
        let others = super::median(&row.runs[1..].iter().map(|run| run.wall_seconds).collect::<Vec<_>>());
        let first = row.runs[0].wall_seconds;
        if first > 1.3 * others && first >= longest {
            warnings.push(format!(
                "with {}, the first run took {first:.2} s and the others {others:.2} s: caches were cold. --warmup 1 runs it once \
                 before",
                words::counted(row.count.into(), what.trim_end_matches('s'))
            ));
        } else if longest - shortest > 0.2 * wall {
            warnings.push(format!(
                "with {}, the times are from {shortest:.2} to {longest:.2} s: the machine is busy or the work is short. --runs 10 \
                 makes the median steadier",
                words::counted(row.count.into(), what.trim_end_matches('s'))
            ));
        }
    }
    if rows.first().is_some_and(|row| row.wall() < 0.1) {
        warnings.push("the work takes less than 0.1 s: more of it (--jobs) gives better figures".into());
    }
    warnings
}

#[cfg(test)]
mod tests;
