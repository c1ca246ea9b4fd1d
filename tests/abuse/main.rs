//! Kills runs with a journal at random moments, resumes them, and compares what they leave with undisturbed runs.
//!
//! ```text
//! cargo test --test abuse                                       a few kills
//! RANKPOOL_ABUSE=100 cargo test --test abuse                    100 kills for each launcher
//! cargo test --test abuse -- --seed 123                         one trial again
//! RANKPOOL_ABUSE=100 cargo test --test abuse -- --table FILE    the same, and puts its rows into the table of a file
//! ```
//!
//! Launchers: `--local`, and `RANKPOOL_MPIEXEC` with `RANKPOOL_MPIEXEC_FLAGS`, as in `tests/mpi`. `RANKPOOL_ABUSE_WITH=mpi` or
//! `RANKPOOL_ABUSE_WITH=local` uses one of them. The moment of a kill is the same for the same seed; what the processes do then is
//! not.

mod chance;
mod processes;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod task;
mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use chance::Chance;
use processes::Target;
use table::Table;
use task::{TASKS, Task};
use trial::{Launcher, Plan, Undisturbed};

/// The number of kills for each launcher, if nothing else is said.
const FEW: u32 = 5;
/// How many trials are made at once: their jobs mostly sleep.
const AT_ONCE: usize = 3;

struct Settings {
    seed: Option<u64>,
    table: Option<PathBuf>,
    launchers: Vec<Launcher>,
    kills: u32,
}

fn settings() -> Settings {
    let mut settings = Settings { seed: None, table: None, launchers: launchers(), kills: kills() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--seed" => settings.seed = Some(value().parse().expect("a seed is a number")),
            "--table" => settings.table = Some(value().into()),
            "--list" => settings.kills = 0,
            _ if word.starts_with('-') => {}
            // A filter for the names of tests.
            _ if "abuse".contains(&word) => {}
            _ => settings.kills = 0,
        }
    }
    settings
}

fn kills() -> u32 {
    let text = std::env::var("RANKPOOL_ABUSE").ok();
    text.map_or(FEW, |text| text.parse().expect("RANKPOOL_ABUSE is the number of kills"))
}

fn launchers() -> Vec<Launcher> {
    let mut launchers = vec![Launcher { name: "`--local`", words: Vec::new() }];
    let launcher = std::env::var("RANKPOOL_MPIEXEC").ok().filter(|words| cfg!(feature = "mpi") && !words.is_empty());
    if let Some(launcher) = launcher {
        let flavour = std::env::var("RANKPOOL_MPI_FLAVOUR").unwrap_or_default();
        let name = if flavour == "mpich" { "MPICH" } else { "Open MPI" };
        let flags = std::env::var("RANKPOOL_MPIEXEC_FLAGS").unwrap_or_default();
        let words = std::iter::once(launcher).chain(flags.split_whitespace().map(str::to_string)).collect();
        launchers.push(Launcher { name, words });
    }
    if let Ok(wanted) = std::env::var("RANKPOOL_ABUSE_WITH") {
        launchers.retain(|launcher| launcher.words.is_empty() == (wanted == "local"));
    }
    launchers
}

/// The end of an undisturbed run for each task, with failing jobs and without.
type Expected = BTreeMap<(Task, bool), OnceLock<Undisturbed>>;

fn no_run_yet() -> Expected {
    TASKS.into_iter().flat_map(|task| [((task, false), OnceLock::new()), ((task, true), OnceLock::new())]).collect()
}

/// What is killed and where, and whether jobs fail: each case in its turn.
fn plan(program: &Path, launcher: &Launcher, seed: u64, turn: u64) -> (Plan, bool) {
    let has_launcher = !launcher.words.is_empty();
    let cases: Vec<(Task, Target)> = TASKS
        .into_iter()
        .flat_map(|task| task.targets(has_launcher).into_iter().map(move |target| (task, target)))
        .collect();
    let (task, target) = cases[(turn % cases.len() as u64) as usize];
    let is_of_job = matches!(target, Target::Command | Target::Worker | Target::Helper);
    let fails = task.can_fail() && !is_of_job && Chance::new(seed ^ 1).below(3) == 0;
    (Plan { program: program.into(), launcher: launcher.clone(), task, target, seed }, fails)
}

/// Makes trials with one launcher until there are enough kills. Returns whether all promises were kept.
fn abuse(settings: &Settings, first_seed: u64, launcher: &Launcher, table: &Mutex<Table>) -> bool {
    let program: PathBuf = env!("CARGO_BIN_EXE_rankpool").into();
    let expected = no_run_yet();
    let (kills, failures, turns) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU64::new(0));
    // A seed says which turn it is, so that it can be given alone.
    let seed_of = |turn: u64| settings.seed.unwrap_or(first_seed + turn);
    let work = || {
        while kills.load(Ordering::Relaxed) < if settings.seed.is_some() { 1 } else { settings.kills } {
            let seed = seed_of(turns.fetch_add(1, Ordering::Relaxed));
            let (plan, fails) = plan(&program, launcher, seed, seed);
            let what = format!("{} in {} under {}, seed {seed}", plan.target.name(), plan.task.name(), launcher.name);
            let undisturbed = expected[&(plan.task, fails)].get_or_init(|| trial::undisturbed(&plan, fails));
            match trial::make(&plan, undisturbed, fails) {
                Ok(cost) => {
                    kills.fetch_add(cost.kills, Ordering::Relaxed);
                    println!("ok: {what}: {cost:?}");
                    table.lock().expect("no panic").add(plan.target, launcher.name, plan.task, &cost);
                }
                Err((cost, message)) => {
                    kills.fetch_add(cost.kills.max(1), Ordering::Relaxed);
                    failures.fetch_add(1, Ordering::Relaxed);
                    println!("FAILED: {what}: {message}\n  again: cargo test --test abuse -- --seed {seed}");
                    table.lock().expect("no panic").add(plan.target, launcher.name, plan.task, &cost);
                }
            }
        }
    };
    let threads = if settings.seed.is_some() { 1 } else { AT_ONCE };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    failures.load(Ordering::Relaxed) == 0
}

fn main() {
    let settings = settings();
    if settings.kills == 0 {
        return;
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let first_seed = settings.seed.unwrap_or(clock * 1000);
    println!("killing runs at random moments, from seed {first_seed} on");
    let began = Instant::now();
    let table = Mutex::new(Table::default());
    let mut is_kept = true;
    for launcher in &settings.launchers {
        is_kept &= abuse(&settings, first_seed, launcher, &table);
    }
    let table = table.into_inner().expect("no panic");
    println!("{} kills in {:.0} s", table.kills(), began.elapsed().as_secs_f64());
    if let Some(path) = &settings.table {
        let earlier = std::fs::read_to_string(path).unwrap_or_default();
        std::fs::write(path, table.put_into(&earlier)).expect("the table can be written");
    }
    print!("{}", table.markdown(""));
    std::process::exit(i32::from(!is_kept));
}
