//! `rankpool bench`: measures the allocation, or work with more and more threads or ranks.

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::args::{self, BenchArgs, TaskArgs};
use super::config::{Config, Verbosity};
use super::stdout::print;
use crate::bench::allocation::{self, Allocation};
use crate::bench::curve::Metg;
use crate::bench::diagnosis::{self, Evidence, Finding};
use crate::bench::machine::Machine;
use crate::bench::scaling::{self, Plan, Row, ScalingError, Stop};
use crate::bench::tail::Tail;
use crate::bench::{arithmetic, picture, text};
use crate::console;
use crate::console::words;
use crate::engine::environment::environment;
use crate::engine::error::JobErrorKind;
use crate::engine::placement;
use crate::launch::{self, ExitCode, Launch};
use crate::output::{Identity, Target, Writer};
use crate::pool::Pool;

/// What is measured, and where the figures go.
#[derive(Debug)]
pub(super) struct BenchTask {
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
    each: Duration,
    work: Option<Work>,
}

/// Work that is run with more and more threads or ranks.
#[derive(Debug)]
struct Work {
    words: Vec<OsString>,
    subcommand: String,
    launcher: Option<Vec<String>>,
    counts: Vec<u32>,
    runs: usize,
    warmup: usize,
}

impl BenchTask {
    /// # Errors
    /// A sentence, if the words are no work, or options contradict each other.
    pub(super) fn new(args: BenchArgs) -> Result<BenchTask, String> {
        let BenchArgs { json, svg, each, counts, runs, warmup, launcher, words } = args;
        let (has_launcher, has_counts) = (launcher.is_some(), !counts.is_empty());
        let launcher = launcher.map(|words| launcher_words(&words)).transpose()?;
        let counts = counts.into_iter().map(u32::from).chain([1]).collect::<BTreeSet<_>>();
        let counts: Vec<u32> =
            if has_counts { counts.into_iter().collect() } else { scaling::counts_up_to(own_cpus()) };
        let work = match work_of(&words)? {
            Some(subcommand) => Some(Work { words, subcommand, launcher, counts, runs: runs.get(), warmup }),
            None if has_launcher || has_counts => {
                return Err("--launcher and --counts are for work: rankpool bench --counts 1,2,4 kernel slow-fn".into());
            }
            None => None,
        };
        if let (Some(json), Some(svg)) = (&json, &svg) {
            if Identity::of(json).is_same(&Identity::of(svg)) {
                return Err(format!("--json and --svg are both {}: give them different names", svg.display()));
            }
        }
        Ok(BenchTask { json, svg, each: Duration::from_secs_f64(each), work })
    }
}

fn own_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX))
}

/// Reads the words of a launcher.
fn launcher_words(words: &str) -> Result<Vec<String>, String> {
    let split = shlex::split(words).filter(|words| !words.is_empty());
    let split = split.ok_or_else(|| format!("--launcher '{words}' has no words, or an open quote"))?;
    if split.iter().any(|word| word.contains("{}")) {
        Ok(split)
    } else {
        Err(format!(
            "--launcher '{words}' does not say where the number of ranks goes: put {{}} there, as in 'mpiexec -n {{}}'"
        ))
    }
}

/// Returns the subcommand of the work, which is parsed as its run would be. `None`: there is no work.
fn work_of(words: &[OsString]) -> Result<Option<String>, String> {
    let Some(first) = words.first() else { return Ok(None) };
    let subcommand = first.to_string_lossy().into_owned();
    if !matches!(subcommand.as_str(), "kernel" | "run" | "map") {
        return Err(format!(
            "'{}' is no work that can be measured: it begins with kernel, run or map. Options of bench stand before it",
            console::escaped(&subcommand)
        ));
    }
    let parsed = args::parse([OsString::from("rankpool")].into_iter().chain(words.iter().cloned()))
        .map_err(|error| error.to_string())?;
    let run = &parsed.run;
    let journal = parsed.task.failures().is_some_and(|failures| failures.journal.journal.is_some());
    let fixed = [
        ("--output", run.output.as_os_str() != "-"),
        ("--summary", run.summary.is_some()),
        ("--threads", run.threads.is_some()),
        ("--local", run.local.is_some()),
        ("--journal", journal),
        ("--records", records_of(&parsed.task)),
    ];
    match fixed.iter().find(|(_, is_there)| *is_there) {
        Some((option, _)) => {
            Err(format!("{option} cannot be given with the work: bench runs it many times and keeps no results"))
        }
        None => Ok(Some(subcommand)),
    }
}

fn records_of(task: &TaskArgs) -> bool {
    task.failures().is_some_and(|failures| failures.records.is_some())
}

pub(super) fn run(config: &Config, task: &BenchTask) -> ExitCode {
    let done = match &task.work {
        None => return config.launch().run_to_code(|pool| to_code(measure_allocation(config, task, pool))),
        Some(_) if placement::launcher_rank(environment).is_some_and(|launched| launched.size > 1) => {
            return launch::refuse(
                "bench starts the runs of its work itself: start it once, without mpiexec or srun. To measure ranks, give it the \
                 launcher: rankpool bench --launcher 'mpiexec -n {}' --counts 1,2,4 kernel slow-fn",
            );
        }
        Some(work) => measure_work(config, task, work),
    };
    to_code(done)
}

fn to_code(done: Result<ExitCode, Box<dyn Error + Send + Sync>>) -> ExitCode {
    done.unwrap_or_else(|error| launch::refuse_as(&error.to_string(), ExitCode::Failure))
}

/// Says on standard error what is being measured.
fn announce(config: &Config, what: &str) {
    if config.verbosity != Verbosity::Quiet {
        console::eprint_error(what);
    }
}

/// The files of the figures. They are opened before anything is measured, and have their names when they are complete.
struct Files {
    json: Option<Writer>,
    svg: Option<Writer>,
}

impl Files {
    /// # Errors
    /// A sentence, if one of them cannot be written.
    fn open(task: &BenchTask) -> Result<Files, String> {
        let open = |option: &str, file: &Option<PathBuf>| {
            let Some(file) = file else { return Ok(None) };
            let opened = Writer::open(&Target::new(file));
            opened.map(Some).map_err(|error| {
                format!(
                    "{error}. Nothing was measured: give {option} a file in a folder that is there and can be written"
                )
            })
        };
        Ok(Files { json: open("--json", &task.json)?, svg: open("--svg", &task.svg)? })
    }

    /// # Errors
    /// A sentence for each file that cannot be written. That one cannot does not keep the other from being written.
    fn write(self, json: &impl Serialize, svg: impl FnOnce() -> String) -> Result<(), Box<dyn Error + Send + Sync>> {
        let write = |writer: Option<Writer>, contents: Vec<u8>| {
            let Some(mut writer) = writer else { return Ok(()) };
            writer.write_all(&contents)?;
            writer.finish()
        };
        let mut figures = serde_json::to_vec_pretty(json)?;
        figures.push(b'\n');
        let picture = if self.svg.is_some() { svg() } else { String::new() };
        match (write(self.json, figures), write(self.svg, picture.into_bytes())) {
            (Err(json), Err(svg)) => Err(format!("{json}; {svg}").into()),
            (json, svg) => Ok(json.and(svg)?),
        }
    }
}

/// Everything about an allocation, as `--json` has it.
#[derive(Serialize)]
struct AllocationFigures<'a> {
    version: u32,
    machine: &'a Machine,
    ranks: usize,
    threads: u32,
    #[serde(flatten)]
    figures: &'a Allocation,
}

fn measure_allocation(
    config: &Config,
    task: &BenchTask,
    pool: &Pool,
) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let files = Files::open(task)?;
    let figures = allocation::measure(pool, task.each, &mut |what| announce(config, &format!("measuring {what}")));
    let figures = match figures {
        Err(error) if error.kind == JobErrorKind::Stopped => return Ok(ExitCode::Stopped),
        figures => figures?,
    };
    let machine = Machine::here(Some(pool));
    let (ranks, threads) = (pool.ranks().len(), pool.threads());
    // A file that cannot be written after all does not lose what was measured.
    let code = print(text::allocation(&figures, &machine, ranks, threads).as_bytes()).1;
    let all = AllocationFigures { version: 1, machine: &machine, ranks, threads, figures: &figures };
    files.write(&all, || picture::allocation(&figures, &machine, ranks, threads))?;
    Ok(code)
}

/// Everything about work, as `--json` has it.
#[derive(Serialize)]
struct WorkFigures<'a> {
    version: u32,
    machine: &'a Machine,
    work: String,
    counts_are: &'a str,
    rows: &'a [Row],
    tail: &'a Tail,
    metg_90_seconds: Option<f64>,
    slowdown_of_arithmetic: f64,
    findings: &'a [Finding],
    warnings: &'a [String],
}

fn measure_work(config: &Config, task: &BenchTask, work: &Work) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let files = Files::open(task)?;
    let stop = Stop::at_signals()?;
    let Work { words: work_words, subcommand, launcher, counts, runs, warmup } = work;
    let plan = Plan {
        program: std::env::current_exe()?,
        launcher: launcher.clone(),
        words: work_words.clone(),
        counts: counts.clone(),
        runs: *runs,
    };
    let (what, most) = (plan.what(), counts.last().copied().unwrap_or(1));
    let counted = |count: u32| words::counted(count.into(), what.trim_end_matches('s'));
    let measured = (|| {
        if *warmup > 0 {
            let before = Plan { counts: vec![most], runs: *warmup, ..plan.clone() };
            before.rows(&stop, &mut |round, _| announce(config, &format!("warm-up {} of {warmup}", round + 1)))?;
        }
        let rows = plan.rows(&stop, &mut |round, count| {
            announce(config, &format!("run {} of {runs} with {}", round + 1, counted(count)));
        })?;
        announce(config, &format!("one more run with {}, for the times of its jobs", counted(most)));
        Ok((rows, plan.tail(&stop)?))
    })();
    let (rows, tail) = match measured {
        Ok(measured) => measured,
        Err(ScalingError::Interrupted) => return Ok(ExitCode::Stopped),
        Err(error) => return Err(error.into()),
    };
    announce(config, "measuring arithmetic and the cost of a job here");
    let metg_90 = metg_of_threads(most.min(own_cpus()), task.each);
    let slowdown = arithmetic::slowdown_of_arithmetic(most.min(own_cpus() * 4));
    let cpus = (own_cpus(), placement::online_cpus().unwrap_or_else(own_cpus));
    let evidence = Evidence { rows: &rows, what, subcommand, metg_90, arithmetic: slowdown, tail: Some(&tail), cpus };
    let (findings, warnings) = (diagnosis::findings(&evidence), diagnosis::warnings(&rows, what, cpus.1));
    let machine = Machine::here(None);
    let shown: Vec<_> = work_words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let shown = shlex::try_join(shown.iter().map(String::as_str)).unwrap_or_else(|_| shown.join(" "));
    let figures = WorkFigures {
        version: 1,
        machine: &machine,
        work: shown.clone(),
        counts_are: what,
        rows: &rows,
        tail: &tail,
        metg_90_seconds: metg_90,
        slowdown_of_arithmetic: slowdown,
        findings: &findings,
        warnings: &warnings,
    };
    let table = text::scaling(&rows, what, &console::escaped(&shown), &machine) + &text::findings(&findings, &warnings);
    let code = print(table.as_bytes()).1;
    files.write(&figures, || picture::scaling(&rows, what, &shown, &machine, &findings))?;
    Ok(code)
}

/// Returns the METG(90 %) of one rank with this number of threads, in seconds; `None` if it cannot be measured.
fn metg_of_threads(threads: u32, each: Duration) -> Option<f64> {
    let mut found = None;
    Launch::new().local(1).threads(threads).run(|pool| {
        found = allocation::metg_90(pool, each)?;
        Ok(())
    });
    match found {
        Some(Metg::Seconds(seconds) | Metg::AtMost(seconds) | Metg::Above(seconds)) => Some(seconds),
        None => None,
    }
}
