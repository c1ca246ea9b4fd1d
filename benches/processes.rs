//! Measures commands and Python functions on two cores, and compares them with other programs for the same purpose.
//!
//! `RANKPOOL_MPIEXEC=mpiexec RANKPOOL_MPIEXEC_FLAGS="--bind-to none" RANKPOOL_PYTHON=python3 cargo bench --bench processes [-- NAME…]`
//!
//! Peers that are installed are measured: `xargs`, and for the Python of `RANKPOOL_PYTHON` those of `pip install mpi4py hyperqueue`
//! (mpi4py for the MPI of `RANKPOOL_MPIEXEC`). All programs run in turn, several times; the median is printed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

const ROUNDS: usize = 5;

/// One row of the table.
struct Figure {
    name: &'static str,
    unit: &'static str,
    ours: fn(&Bench) -> Option<f64>,
    limit: Limit,
    peers: &'static [Peer],
}

enum Limit {
    /// The largest value of our figure.
    Of(f64),
    /// The largest ratio of our figure to each peer's.
    Times(f64),
}

type Peer = (&'static str, fn(&Bench) -> Option<f64>);

const FIGURES: &[Figure] = &[
    Figure {
        name: "10 000 x /bin/true, against xargs",
        unit: "s",
        ours: |bench| bench.true_commands(10_000),
        limit: Limit::Times(1.15),
        peers: &[("xargs -P2 -n1", |_| timed(Command::new("sh").args(["-c", "seq 10000 | xargs -P2 -n1 /bin/true"])))],
    },
    Figure {
        name: "10 000 x /bin/true, against HyperQueue",
        unit: "s",
        ours: |bench| bench.true_commands(10_000),
        limit: Limit::Times(0.5),
        peers: &[("HyperQueue", |bench| bench.python(&["hyperqueue_true.py", "10000"], false))],
    },
    Figure {
        name: "a Python call, per job",
        unit: "us",
        ours: |bench| bench.calls(&["--python", &bench.function("ident")], 200_000),
        limit: Limit::Of(25.0),
        peers: &[
            ("mpi4py.futures, chunk 1", |bench| bench.peer_call("mpi4py", 10_000, 1)),
            ("mpi4py.futures, chunks of 64", |bench| bench.peer_call("mpi4py", 200_000, 64)),
            ("multiprocessing.Pool, chunks of 64", |bench| bench.peer_call("pool", 200_000, 64)),
        ],
    },
    Figure {
        name: "a Python call in batches of 256, per job",
        unit: "us",
        ours: |bench| bench.calls(&["--python", &bench.function("idents"), "--batch", "256"], 2_000_000),
        limit: Limit::Of(2.0),
        peers: &[],
    },
    Figure {
        name: "slow_fn in Python, 512 jobs",
        unit: "s",
        ours: Bench::slow_fn,
        limit: Limit::Times(1.0),
        peers: &[
            ("multiprocessing.Pool", |bench| bench.python(&["slow_fn.py", "pool", "slow_fn", "512", "0"], false)),
            ("mpi4py.futures", |bench| bench.python(&["slow_fn.py", "mpi4py", "slow_fn", "512", "1"], true)),
        ],
    },
    Figure {
        name: "200 000 short commands, the first one slow: memory of rank 0",
        unit: "MiB",
        ours: |bench| {
            // The first job ends when the last one has run.
            let script = "[ {} = 1 ] && until [ -e last ]; do sleep 0.1; done; [ {} = 200000 ] && : > last; \
                          echo job {} has written this line";
            let summary = bench.rankpool(&["run", "--range", "1:200000", "--shell", "--", script])?;
            Some(summary["peak_memory_bytes"].as_f64()? / f64::from(1 << 20))
        },
        limit: Limit::Of(200.0),
        peers: &[],
    },
    Figure {
        name: "files left in the folder by a run of 1000 commands",
        unit: "",
        ours: |bench| {
            let folder = bench.folder.join("empty");
            std::fs::create_dir_all(&folder).ok()?;
            let mut command = bench.mpiexec(2);
            command
                .current_dir(&folder)
                .arg(env!("CARGO_BIN_EXE_rankpool"))
                .args(["--quiet", "run", "--range", "1:1000"]);
            timed(command.args(["--", "echo", "{}"]))?;
            Some(std::fs::read_dir(folder).ok()?.count() as f64)
        },
        limit: Limit::Of(0.0),
        peers: &[],
    },
];

struct Bench {
    launcher: String,
    flags: String,
    python: String,
    folder: PathBuf,
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

/// Returns the seconds that a command takes from its start to its end; `None` if it fails.
fn timed(command: &mut Command) -> Option<f64> {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().ok()?;
    status.success().then(|| start.elapsed().as_secs_f64())
}

impl Bench {
    fn mpiexec(&self, ranks: u32) -> Command {
        let mut command = Command::new(&self.launcher);
        command.args(self.flags.split_whitespace()).args(["-n", &ranks.to_string()]).current_dir(&self.folder);
        command
    }

    /// Runs the program on two ranks of one thread and returns its summary.
    fn rankpool(&self, arguments: &[&str]) -> Option<Value> {
        let mut command = self.mpiexec(2);
        command.arg(env!("CARGO_BIN_EXE_rankpool")).args(["--quiet", "--output", "/dev/null", "--threads", "1"]);
        timed(command.args(["--summary", "summary.json"]).args(arguments))?;
        serde_json::from_slice(&std::fs::read(self.folder.join("summary.json")).ok()?).ok()
    }

    /// Returns the seconds from the start of `mpiexec` to its end.
    fn true_commands(&self, jobs: u32) -> Option<f64> {
        let mut command = self.mpiexec(2);
        command.arg(env!("CARGO_BIN_EXE_rankpool")).args(["--quiet", "run", "--records", "records.jsonl"]);
        timed(command.args(["--range", &format!("1:{jobs}"), "--", "/bin/true"]))
    }

    fn function(&self, name: &str) -> String {
        format!("{}:{name}", peers().join("slow_fn.py").display())
    }

    /// Returns the microseconds per job, from the first dispatch to the last result.
    fn calls(&self, options: &[&str], jobs: u32) -> Option<f64> {
        let range = format!("1:{jobs}");
        let summary = self.rankpool(&[&["map", "--python-exe", &self.python, "--range", &range], options].concat())?;
        Some(1e6 * summary["wall_seconds"].as_f64()? / f64::from(jobs))
    }

    /// The same of a pool of Python's, by its own clock.
    fn peer_call(&self, way: &str, jobs: u32, chunk: u32) -> Option<f64> {
        let words = ["slow_fn.py", way, "ident", &jobs.to_string(), &chunk.to_string()];
        Some(1e6 * self.python(&words, way == "mpi4py")? / f64::from(jobs))
    }

    /// From the first job's dispatch, which starts the interpreters, to the last result.
    fn slow_fn(&self) -> Option<f64> {
        let script = "import json, slow_fn\nfor p in slow_fn.inputs(512): print(json.dumps(p))";
        let vectors = Command::new(&self.python).args(["-c", script]).current_dir(peers()).output().ok()?;
        std::fs::write(self.folder.join("vectors.jsonl"), vectors.stdout).ok()?;
        let function = self.function("slow_fn");
        let python = ["--python", &function, "--python-exe", &self.python];
        let summary = self.rankpool(&[&["map", "--input", "vectors.jsonl"], &python[..]].concat())?;
        summary["wall_seconds"].as_f64()
    }

    /// What a peer's script measures itself: the last line that it prints.
    fn python(&self, words: &[&str], mpi: bool) -> Option<f64> {
        let mut command = if mpi {
            // One rank deals, two compute.
            let mut command = self.mpiexec(3);
            command.arg(&self.python).args(["-m", "mpi4py.futures"]);
            command
        } else {
            Command::new(&self.python)
        };
        let script = peers().join(words[0]);
        let command = command.arg(script).args(&words[1..]).current_dir(&self.folder).stdin(Stdio::null());
        let output = command.stderr(Stdio::null()).output().ok()?;
        String::from_utf8_lossy(&output.stdout).lines().last()?.trim().parse().ok()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Figure {
    /// Our figure and the peers', the medians of runs in turn. A figure that does not exist is `None`.
    fn measure(&self, bench: &Bench) -> (Option<f64>, Vec<Option<f64>>) {
        let rounds = if matches!(self.unit, "MiB" | "") { 1 } else { ROUNDS };
        let mut ours = Vec::new();
        let mut peers = vec![Vec::new(); self.peers.len()];
        for _ in 0..rounds {
            ours.extend((self.ours)(bench));
            for ((_, peer), values) in self.peers.iter().zip(&mut peers) {
                values.extend(peer(bench));
            }
        }
        let median_of = |values: Vec<f64>| (values.len() == rounds).then(|| median(values));
        (median_of(ours), peers.into_iter().map(median_of).collect())
    }
}

#[expect(clippy::print_stdout, reason = "a table for people")]
fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let bench = Bench {
        launcher: variable("RANKPOOL_MPIEXEC", "mpiexec"),
        flags: variable("RANKPOOL_MPIEXEC_FLAGS", ""),
        python: variable("RANKPOOL_PYTHON", "python3"),
        folder: folder.path().to_owned(),
    };
    for figure in
        FIGURES.iter().filter(|figure| names.is_empty() || names.iter().any(|name| figure.name.contains(name)))
    {
        let Figure { name, unit, limit, .. } = figure;
        let (ours, peers) = figure.measure(&bench);
        let verdict = |limit: f64| match ours {
            None => "FAILED",
            Some(ours) if ours <= limit => "ok",
            Some(_) => "MISSED",
        };
        let shown = ours.map_or("failed".into(), |ours| format!("{ours:.3}"));
        match limit {
            Limit::Of(limit) => println!("{name:<62} {shown:>8} {unit:<4} at most {limit} {unit}: {}", verdict(*limit)),
            Limit::Times(_) => println!("{name:<62} {shown:>8} {unit}"),
        }
        for ((peer, _), theirs) in figure.peers.iter().zip(peers) {
            let line = match theirs {
                None => "       -      not there".into(),
                Some(theirs) => {
                    let ratio = ours.unwrap_or(f64::NAN) / theirs;
                    let asked = match limit {
                        Limit::Of(_) => String::new(),
                        Limit::Times(times) => format!(", at most {times}: {}", verdict(times * theirs)),
                    };
                    format!("{theirs:>8.3} {unit:<4} ratio {ratio:.2}{asked}")
                }
            };
            println!("    {peer:<58} {line}");
        }
    }
}
