//! `rankpool python`: a Python script beside rank 0, with the ranks as the workers of its executor. `rankpool serve`: the same for a
//! script that was started by itself.

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::process::{ExitCode as ProcessExitCode, Termination};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::args::{CallWorkerArgs, PythonArgs, ServeArgs};
use super::batch;
use super::config::{Config, Verbosity};
use super::time_limit::Asked;
use crate::batch::runners::Runner;
use crate::batch::runners::call::{CallPlan, CallRunner};
use crate::batch::{Batch, Client};
use crate::console::{self, reason};
use crate::engine::stop;
use crate::launch::{self, ExitCode};
use crate::pool::Pool;
use crate::process::calls::passing::Passing;
use crate::process::python::script::Script;
use crate::process::spawn;

/// How often it is looked whether the run has to stop while the script runs.
const LOOK: Duration = Duration::from_millis(100);

/// A script to run.
#[derive(Debug)]
pub(super) struct PythonTask {
    /// The arguments of the interpreter: the script or another option, and its arguments.
    pub words: Vec<OsString>,
    /// How often a job that fails is run again, unless the executor says so.
    pub retries: u32,
    /// The time limit of a job, unless the executor says so.
    pub timeout: Option<Duration>,
    pub runner: CallRunner,
}

/// A script that was started by itself.
#[derive(Debug)]
pub(super) struct ServeTask {
    /// The name of its abstract Unix socket; `None`: standard input is the socket.
    pub connect: Option<String>,
    pub runner: CallRunner,
}

impl PythonTask {
    /// Resolves the options.
    ///
    /// # Errors
    /// A sentence, if an option is none of rankpool's and none of Python's.
    pub(super) fn new(args: PythonArgs, retries: u32) -> Result<PythonTask, String> {
        let PythonArgs { workers, failures, module, code, script } = args;
        // Python's own options, such as -u, have one hyphen.
        if let Some(option) = script.first().filter(|word| word.as_encoded_bytes().starts_with(b"--")) {
            let option = option.to_string_lossy();
            return Err(format!("unexpected argument '{option}': `rankpool python` has no such option (see --help)"));
        }
        let option = if !module.is_empty() {
            Some("-m")
        } else if !code.is_empty() {
            Some("-c")
        } else {
            None
        };
        let words = option.map(OsString::from).into_iter().chain(module).chain(code).chain(script.clone()).collect();
        let script = script.first().filter(|_| option.is_none());
        let folder = folder_of(script.map(Path::new));
        Ok(PythonTask { words, retries, timeout: failures.timeout, runner: runner(workers, Some(folder)) })
    }

    /// Returns the variables from which an executor takes its defaults.
    fn defaults(&self) -> Vec<(&'static str, String)> {
        let timeout = self.timeout.map(|limit| ("RANKPOOL_TIMEOUT", limit.as_secs_f64().to_string()));
        timeout.into_iter().chain([("RANKPOOL_RETRIES", self.retries.to_string())]).collect()
    }
}

impl ServeTask {
    pub(super) fn new(args: ServeArgs) -> ServeTask {
        ServeTask { connect: args.connect, runner: runner(args.workers, None) }
    }
}

/// Makes the runner of calls. `folder`: where modules of `--preload` are looked for first; the command line has asked for them.
fn runner(args: CallWorkerArgs, folder: Option<String>) -> CallRunner {
    let CallWorkerArgs { python_exe: exe, mut preload, kill_after } = args;
    let must_import = folder.is_some() && !preload.is_empty();
    if must_import {
        preload.splice(0..0, folder);
    }
    CallRunner {
        plan: CallPlan { exe, preload, must_import, kill_after, may_repeat: false, passing: Passing::AsBytes },
    }
}

/// Returns the folder of a script, which has a slash, or else the current one.
fn folder_of(script: Option<&Path>) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let folder = script.and_then(Path::parent).map_or_else(|| here.clone(), |folder| here.join(folder));
    format!("{}/", folder.display().to_string().trim_end_matches('/'))
}

/// Runs a script.
pub(super) fn run(config: &Config, task: &PythonTask) -> ProcessExitCode {
    // The helper is started before MPI, because a process that runs MPI must not fork. So is the script.
    if let Err(message) = spawn::start() {
        return launch::refuse_as(&message, ExitCode::Failure).report();
    }
    let asked = Asked::now(config);
    let exe = task.runner.plan.exe.as_deref().unwrap_or("python3");
    let started = launch::is_first().then(|| Script::start(exe, &task.words, &task.defaults())).transpose();
    let (mut script, socket) = match started {
        Ok(started) => started.unzip(),
        Err(message) => return launch::refuse(&message).report(),
    };
    let prepared = task.runner.prepare(config.launch());
    let code = batch::launch(config, prepared, |pool| {
        let (Some(script), Some(socket)) = (&script, socket) else { return Ok(ExitCode::Failure) };
        let client = Client::new(socket, Some(script.end()?));
        let has_failed = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| watch(script, config, pool, &has_failed));
            let code = drive(config, &task.runner, client, pool, &asked);
            has_failed.store(!matches!(code, Ok(ExitCode::Success | ExitCode::Stopped)), Ordering::Release);
            code
        })
    });
    task.runner.end();
    let Some(script) = &mut script else { return code.report() };
    if matches!(code, ExitCode::Failure | ExitCode::Usage) {
        // The script may wait for results that never come.
        end(script, config.batch().kill_after);
    }
    match script.wait() {
        _ if code == ExitCode::Usage => code.report(),
        0 => code.report(),
        other => ProcessExitCode::from(other),
    }
}

/// Serves a script that was started by itself.
pub(super) fn serve(config: &Config, task: &ServeTask) -> ProcessExitCode {
    if let Err(message) = spawn::start() {
        return launch::refuse_as(&message, ExitCode::Failure).report();
    }
    let asked = Asked::now(config);
    let socket = launch::is_first().then(|| open(task.connect.as_deref())).transpose();
    let socket = match socket {
        Ok(socket) => socket,
        Err(message) => return launch::refuse(&message).report(),
    };
    let prepared = task.runner.prepare(config.launch());
    let code = batch::launch(config, prepared, |pool| {
        let Some(socket) = socket else { return Ok(ExitCode::Failure) };
        drive(config, &task.runner, Client::new(socket, None), pool, &asked)
    });
    task.runner.end();
    code.report()
}

/// Opens the socket of a script that was started by itself.
fn open(name: Option<&str>) -> Result<OwnedFd, String> {
    let Some(name) = name else {
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        return stdin.map_err(|error| format!("standard input is not the script's socket: {}", reason(&error)));
    };
    let Some(bare) = name.strip_prefix('@').filter(|bare| !bare.is_empty()) else {
        return Err(format!("--connect needs the name of an abstract socket, such as @rankpool-1, not '{name}'"));
    };
    let connected = SocketAddr::from_abstract_name(bare).and_then(|address| UnixStream::connect_addr(&address));
    let cannot = |error| {
        format!(
            "cannot connect to the script at {name}: {}; rank 0 has to be on the host of the script",
            reason(&error)
        )
    };
    connected.map(OwnedFd::from).map_err(cannot)
}

/// Answers the calls of a script until it ends.
fn drive(
    config: &Config,
    runner: &CallRunner,
    client: Client,
    pool: &Pool,
    asked: &Asked,
) -> Result<ExitCode, Box<dyn Error>> {
    let mut runner = runner.clone();
    let passing = Passing::between(pool.ranks().iter().map(|rank| &rank.facts));
    passing.begin();
    runner.plan.passing = passing;
    // A call whose rank is lost is run again, with the same memfd if there is one.
    runner.plan.may_repeat = config.batch().retry.retries > 0 || passing == Passing::OnHost;
    let jobs = client.jobs(pool);
    let batch = Batch { options: config.options(), jobs, runner, client: Some(client.clone()) };
    let quiet = config.verbosity == Verbosity::Quiet;
    let report = batch.run_until(pool, asked.end(quiet));
    // Whatever has ended the run, a script that waits for results must not wait for ever.
    client.close();
    let report = report?;
    // Failed jobs are exceptions in the script, which decides what they mean.
    match report.code() {
        ExitCode::JobsFailed | ExitCode::Success => return Ok(ExitCode::Success),
        ExitCode::Stopped => console::eprint_error("stopped early, by a signal or because its time limit is near"),
        _ => report.show(true),
    }
    Ok(report.code())
}

/// Waits for the end of the script, and ends it after a request to stop the run, or when the run has failed.
fn watch(script: &Script, config: &Config, pool: &Pool, has_failed: &AtomicBool) {
    while !script.ends_within(LOOK) {
        if has_failed.load(Ordering::Acquire) {
            // Its connection is closed, so that it has had exceptions to handle.
            if !script.ends_within(config.batch().kill_after) {
                end(script, config.batch().kill_after);
            }
            return;
        }
        let Some(since) = pool.stop_requested() else { continue };
        // Running jobs have the grace time, and the script has some more for what it does then. But who ends this process means the
        // script.
        let options = config.batch();
        let limit = if stop::was_terminated() { Duration::ZERO } else { options.grace + options.kill_after };
        if !script.ends_within((since + limit).saturating_duration_since(Instant::now())) {
            end(script, options.kill_after);
        }
        return;
    }
}

/// Ends a script: TERM, and KILL after `kill_after`.
fn end(script: &Script, kill_after: Duration) {
    script.terminate();
    if !script.ends_within(kill_after) {
        script.kill();
    }
}
