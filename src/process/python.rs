//! Turns `--python FILE.py:FUNCTION` into a worker, and checks what can be checked before it starts.

pub(crate) mod package;
pub(crate) mod script;

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::command::{EndReason, TimeLimit, run};
use super::program::Program;
use super::worker::{Protocol, prestarted};
use crate::console::reason;
use crate::engine::exchange::OutputStream;

/// The Python side, which is sent to the standard input of each new interpreter.
const SHIM: &str = concat!(include_str!("python/shim.py"), include_str!("python/shim_json.py"), "\nmain()\n");

/// The oldest Python that runs the shim.
const OLDEST: (u32, u32) = (3, 9);

/// A program that prints the version of Python and runs in any version.
const VERSION: &str = "import sys; sys.stdout.write('%d %d %d' % tuple(sys.version_info[:3]))";

/// Keeps Python 3.11 and newer from importing from the current folder. Python 3.13 imports modules before it runs a program.
const SAFE_PATH: &str = "PYTHONSAFEPATH";
/// The value that marks the setting as ours, so that the boot program removes it from the function's environment.
const OURS: &str = "rankpool";
const INSPECT: &str = "PYTHONINSPECT";

/// Time limit for an interpreter to report its version: a first `import site` on a network file system can be slow. It is less than
/// the time that rank 0 waits for the others, so that a rank can report the failure.
const VERSION_TIMEOUT: Duration = Duration::from_secs(100);

/// A Python function, as given by the user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PythonCall {
    /// `FILE.py:FUNCTION` or `package.module:function`.
    pub target: String,
    /// `--python-exe`; `None`: the `python3` of `PATH`, which an activated environment sets.
    pub exe: Option<String>,
    /// `--preload`: modules that are imported once for all workers of a host.
    pub preload: Vec<String>,
    /// `--setup`: a function of the same module that is called once in each worker.
    pub setup: Option<String>,
    /// `--star`: a record holds the arguments.
    pub star: bool,
    /// `--batch`: the function takes lists of this many records.
    pub batch: Option<NonZeroUsize>,
}

impl PythonCall {
    /// Checks the call and that its file can be read, in the folder where the workers run.
    ///
    /// # Errors
    /// A message that says what is wrong.
    pub(crate) fn check(&self, cwd: Option<&Path>) -> Result<(), String> {
        let wrong = || format!("--python needs FILE.py:FUNCTION or package.module:FUNCTION, not '{}'", self.target);
        let (place, function) = self.target.rsplit_once(':').ok_or_else(wrong)?;
        if place.is_empty() || !is_dotted(function) {
            return Err(wrong());
        }
        if !is_file(place) && !is_dotted(place) {
            return Err(wrong());
        }
        if let Some(setup) = self.setup.as_ref().filter(|setup| !is_dotted(setup)) {
            return Err(format!("--setup needs the name of a function in {place}, not '{setup}'"));
        }
        if self.star && self.batch.is_some() {
            return Err("--star and --batch exclude each other: a function for --batch takes one list".into());
        }
        if is_file(place) {
            let path = cwd.map_or_else(|| place.into(), |cwd| cwd.join(place));
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() => return Err(format!("{place} is a folder, not a Python file")),
                Ok(_) => {
                    std::fs::File::open(&path).map_err(|error| format!("{place} cannot be read: {}", reason(&error)))?
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(format!("no such file: {place}"));
                }
                Err(error) => return Err(format!("{place} cannot be read: {}", reason(&error))),
            };
        }
        Ok(())
    }

    /// Checks that the interpreter can be used, which is enough once for each node, and returns its version. A prestarted worker
    /// reports it; if there is none, or it reports something else, the interpreter is run for it.
    ///
    /// # Errors
    /// A message that says why it cannot be used.
    pub(crate) fn check_interpreter(&self, worker: &Program) -> Result<String, String> {
        let deadline = Instant::now() + VERSION_TIMEOUT;
        let line = prestarted::first_line(worker, deadline);
        let version = line.as_deref().and_then(|line| line.strip_prefix('v')).and_then(parse_version);
        match version {
            Some(version) if is_new_enough(version) => Ok(shown(version)),
            _ => self.run_interpreter(worker, deadline),
        }
    }

    fn run_interpreter(&self, worker: &Program, deadline: Instant) -> Result<String, String> {
        let exe = self.exe();
        let args = vec!["-c".to_string(), VERSION.to_string()];
        let program = Program { args, ..worker.clone() };
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let time_limit = TimeLimit { timeout: Some(left), kill_after: Duration::from_secs(1) };
        let end = run(&program, None, &time_limit, None, &mut |stream, bytes| {
            let text = if stream == OutputStream::Stdout { &mut stdout } else { &mut stderr };
            text.extend_from_slice(&bytes[..bytes.len().min(1000)]);
            text.truncate(1000);
        });
        let reason = end.map_err(|error| error.to_string())?.reason;
        if let EndReason::NotStarted(why) = reason {
            return Err(format!("{why}; --python-exe sets the Python to use"));
        }
        let version = parse_version(&String::from_utf8_lossy(&stdout)).filter(|_| reason == EndReason::Exited(0));
        let Some(version) = version else {
            let stderr = String::from_utf8_lossy(&stderr);
            return Err(format!("{exe} is not a working Python: {}", stderr.trim()));
        };
        let (major, minor) = OLDEST;
        if !is_new_enough(version) {
            return Err(format!(
                "{exe} is Python {}, but {major}.{minor} or newer is needed; --python-exe sets the Python to use",
                shown(version)
            ));
        }
        Ok(shown(version))
    }

    /// Returns the worker's command.
    pub(crate) fn program(&self) -> Program {
        let mode = if self.batch.is_some() {
            "batch"
        } else if self.star {
            "star"
        } else {
            "call"
        };
        let setup = self.setup.clone().unwrap_or_default();
        let args = vec!["-c".to_string(), boot(), self.target.clone(), mode.to_string(), setup];
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let mut env = Vec::new();
        if !is_set(SAFE_PATH) {
            env.push((SAFE_PATH.to_string(), OURS.to_string()));
        }
        if is_set(INSPECT) {
            // It would make Python load the modules of a prompt and read from standard input at the end. An empty value turns it off.
            env.push((INSPECT.to_string(), String::new()));
        }
        Program { name: self.exe().to_string(), args, env, preload: self.preload_places(), ..Program::default() }
    }

    /// Returns the modules of `--preload`, behind the folder of the function's file.
    fn preload_places(&self) -> Vec<String> {
        let folder = self.target.rsplit_once(':').map_or("", |(place, _)| place).rsplit_once('/');
        let folder = folder.map_or("./".to_string(), |(folder, _)| format!("{folder}/"));
        let folder = Some(folder).filter(|_| !self.preload.is_empty());
        folder.into_iter().chain(self.preload.iter().cloned()).collect()
    }

    /// Returns the protocol of the worker.
    pub(crate) fn protocol(&self) -> Protocol {
        Protocol::Python { batch: self.batch.map_or(1, NonZeroUsize::get) }
    }

    /// Returns what is sent first to each worker.
    pub(crate) fn preamble(&self) -> Cow<'static, [u8]> {
        Cow::Borrowed(SHIM.as_bytes())
    }

    /// Returns what is sent to a worker when its rank and slot are known.
    pub(crate) fn assignment(&self, rank: u32, slot: u32) -> Vec<u8> {
        format!("{rank} {slot}\n").into_bytes()
    }

    fn exe(&self) -> &str {
        self.exe.as_deref().unwrap_or("python3")
    }
}

/// Returns a short program that runs in any Python and reads the long one, so that the list of processes shows the function and
/// not the long program.
fn boot() -> String {
    let (major, minor) = OLDEST;
    format!(
        "import sys\n\
         if sys.path[:1] == ['']: del sys.path[0]\n\
         import os\n\
         if os.environ.get('{SAFE_PATH}') == '{OURS}': del os.environ['{SAFE_PATH}']\n\
         if not os.environ.get('{INSPECT}', '.'): del os.environ['{INSPECT}']\n\
         os.write(1, ('v%d %d %d\\n' % tuple(sys.version_info[:3])).encode())\n\
         if sys.version_info < ({major}, {minor}): os._exit(1)\n\
         shim = b''\n\
         while len(shim) < {length}:\n    \
             piece = os.read(0, {length} - len(shim))\n    \
             if not piece: os._exit(1)\n    \
             shim += piece\n\
         exec(compile(shim, '<rankpool>', 'exec'), {{'__name__': 'rankpool'}})",
        length = SHIM.len()
    )
}

fn is_new_enough((major, minor, _): (u32, u32, u32)) -> bool {
    (major, minor) >= OLDEST
}

fn shown((major, minor, patch): (u32, u32, u32)) -> String {
    format!("{major}.{minor}.{patch}")
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split(' ').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

/// Whether this is a path, by the same rule as in the shim.
fn is_file(place: &str) -> bool {
    place.ends_with(".py") || place.contains('/')
}

/// Whether this is `name` or `name.name`.
pub(crate) fn is_dotted(name: &str) -> bool {
    let is_name = |part: &str| {
        part.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    name.split('.').all(is_name)
}

#[cfg(test)]
mod tests;
