//! Measures rankpool's figures on this machine and compares each with its limit.
//!
//! `RANKPOOL_MPIEXEC=mpiexec RANKPOOL_MPIEXEC_FLAGS="--bind-to none" cargo bench --bench figures [-- NAME…]`
//!
//! The limits were set for two idle cores. The program runs under `mpiexec` and reports its figures with `--summary`. With names,
//! only the figures whose names contain one of them are measured.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use rankpool::engine::schedule::sim::report::{cases, measure};
use serde_json::Value;

type Measurement = fn(&Bench) -> Option<f64>;

/// A figure: its name, its limit and unit, whether more is better, and its measurement.
const FIGURES: &[(&str, f64, &str, bool, Measurement)] = &[
    ("nop, chunk 1, per job", 3.0, "us", false, |bench| {
        per_job(&bench.run(2, &["--chunk", "1", "nop", "--jobs", "1000000"])?)
    }),
    ("nop, automatic chunks, 10 M jobs, per job", 0.15, "us", false, |bench| {
        per_job(&bench.run(2, &["nop", "--jobs", "10000000"])?)
    }),
    ("spin 100 us, 50 k jobs, efficiency", 0.95, "", true, |bench| {
        number(&bench.run(2, &["spin", "--micros", "100", "--jobs", "50000"])?, "efficiency")
    }),
    ("spin 5 us, 400 k jobs, efficiency", 0.80, "", true, |bench| {
        number(&bench.run(2, &["spin", "--micros", "5", "--jobs", "400000"])?, "efficiency")
    }),
    ("slow-fn, 20 000 jobs, against one thread", 1.9, "times", true, |bench| {
        let kernel = ["slow-fn", "--jobs", "20000"];
        let one = number(&bench.run(1, &kernel)?, "wall_seconds")?;
        Some(one / number(&bench.run(2, &kernel)?, "wall_seconds")?)
    }),
    ("memory of rank 0, 100 M nop jobs against 1 M", 32.0, "MiB", false, |bench| {
        let memory = |jobs| number(&bench.run(2, &["nop", "--jobs", jobs])?, "peak_memory_bytes");
        Some((memory("100000000")? - memory("1000000")?) / f64::from(1 << 20))
    }),
    ("CPU of a rank that waits for 10 s, of a core", 0.05, "", false, |bench| {
        // Two ranks sleep at the same time; the cost of starting and stopping is measured with a sleep of 0 s.
        let cpu = |seconds| {
            let before = children_cpu();
            bench.run(2, &["sleep", "--seconds", seconds, "--jobs", "2"])?;
            Some(children_cpu() - before)
        };
        let (idle, waiting) = (cpu("0")?, cpu("10")?);
        Some((waiting.saturating_sub(idle)).as_secs_f64() / 10.0 / 2.0)
    }),
    ("10 sleep-square jobs, one rank of 5 threads", 2.05, "s", false, |bench| {
        number(&bench.run_with_threads(1, 5, &["sleep-square"])?, "wall_seconds")
    }),
    ("10 sleep-square jobs, 5 ranks of one thread", 2.05, "s", false, |bench| {
        number(&bench.run(5, &["sleep-square"])?, "wall_seconds")
    }),
    ("simulated, 16 384 ranks x 100 jobs, slowest mix", 10.0, "s", false, |_| {
        let slowest = cases(100_000_000).into_iter().map(|(name, mix, slowness)| {
            let start = Instant::now();
            let _ = measure(name, 16_384, 1, 1_638_400, mix, slowness);
            start.elapsed().as_secs_f64()
        });
        slowest.max_by(f64::total_cmp)
    }),
];

struct Bench {
    launcher: String,
    flags: String,
    program: PathBuf,
    summary: PathBuf,
}

impl Bench {
    /// Runs a kernel on ranks of one thread each and returns its summary.
    fn run(&self, ranks: u32, arguments: &[&str]) -> Option<Value> {
        self.run_with_threads(ranks, 1, arguments)
    }

    fn run_with_threads(&self, ranks: u32, threads: u32, arguments: &[&str]) -> Option<Value> {
        let (options, kernel) = arguments.split_at(if arguments[0].starts_with("--") { 2 } else { 0 });
        let status = Command::new(&self.launcher)
            .args(self.flags.split_whitespace())
            .args(["-n", &ranks.to_string()])
            .arg(&self.program)
            .args(["--quiet", "--output", "/dev/null", "--threads", &threads.to_string()])
            .arg("--summary")
            .arg(&self.summary)
            .args(options)
            .arg("kernel")
            .args(kernel)
            .stdin(Stdio::null())
            .status()
            .ok()?;
        let summary = std::fs::read(&self.summary).ok().filter(|_| status.success())?;
        serde_json::from_slice(&summary).ok()
    }
}

fn number(summary: &Value, key: &str) -> Option<f64> {
    summary[key].as_f64()
}

fn per_job(summary: &Value) -> Option<f64> {
    Some(1e6 * number(summary, "wall_seconds")? / number(summary, "jobs")?)
}

/// Returns the CPU time of all child processes that have ended.
fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it is always there");
    let duration = |time: nix::sys::time::TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    duration(usage.user_time()) + duration(usage.system_time())
}

#[expect(clippy::print_stdout, reason = "a table for people")]
fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bench = Bench {
        launcher: std::env::var("RANKPOOL_MPIEXEC").unwrap_or_else(|_| "mpiexec".into()),
        flags: std::env::var("RANKPOOL_MPIEXEC_FLAGS").unwrap_or_default(),
        program: env!("CARGO_BIN_EXE_rankpool").into(),
        summary: directory.path().join("summary.json"),
    };
    for (name, limit, unit, more_is_better, measurement) in FIGURES {
        if !names.is_empty() && !names.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        let word = if *more_is_better { "at least" } else { "at most" };
        let measured = measurement(&bench);
        let (figure, verdict) = match measured {
            None => ("failed".to_string(), "FAILED"),
            Some(figure) if (figure >= *limit) == *more_is_better => (format!("{figure:.3}"), "ok"),
            Some(figure) => (format!("{figure:.3}"), "MISSED"),
        };
        println!("{name:<48} {word} {limit:>6} {unit:<5} measured {figure:>8}  {verdict}");
    }
}
