//! Finds the terminal that shows this process's standard error: its own, or the launcher's, which hands its ranks a pipe and copies
//! what comes out of it.
//!
//! A launcher is looked for among the ancestors of this process. On another host, and behind a daemon such as Slurm's, there is
//! none, and so no terminal.

use std::fs::{self, File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, fstat, major, minor};
use rustix::termios::tcgetwinsize;

use crate::engine::environment::environment;
use crate::engine::placement::launcher_rank;

/// The most ancestors that are looked at.
const FARTHEST: usize = 32;
/// The programs that start ranks, also with a suffix: `mpiexec.hydra`.
const LAUNCHERS: [&str; 4] = ["mpiexec", "mpirun", "orterun", "prterun"];
/// Options of launchers that put something before every line, or write the output elsewhere.
const CHANGES_OUTPUT: [&str; 13] = [
    "-tag-output",
    "-timestamp-output",
    "-output",
    "-output-filename",
    "-xml",
    "-xterm",
    "-merge-stderr-to-stdout",
    "-l",
    "-prepend-rank",
    "-prepend-pattern",
    "-outfile-pattern",
    "-errfile-pattern",
    "-label",
];

/// What can be read about a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Process {
    name: String,
    parent: u32,
    group: i64,
    /// The number of its terminal, and the group that is in the foreground there.
    terminal: i64,
    foreground: i64,
    words: Vec<String>,
}

impl Process {
    fn read(pid: u32) -> Option<Process> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        let process = Process::parse(&String::from_utf8_lossy(&stat))?;
        Some(Process { words: words.filter(|word| !word.is_empty()).collect(), ..process })
    }

    /// Parses a line of `/proc/PID/stat`, in which the name, in parentheses, may hold anything.
    fn parse(stat: &str) -> Option<Process> {
        let (front, fields) = stat.rsplit_once(')')?;
        let (_, name) = front.split_once('(')?;
        let mut numbers = fields.split_ascii_whitespace().skip(1).map(|field| field.parse::<i64>().ok());
        let parent = u32::try_from(numbers.next()??).ok()?;
        let (group, _session) = (numbers.next()??, numbers.next()??);
        let (terminal, foreground) = (numbers.next()??, numbers.next()??);
        Some(Process { name: name.into(), parent, group, terminal, foreground, words: Vec::new() })
    }

    fn is_launcher(&self) -> bool {
        let is = |name: &str| {
            LAUNCHERS.iter().any(|launcher| {
                name.strip_prefix(launcher).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        is(&self.name)
    }
}

/// The launcher of this process.
#[derive(Debug)]
struct Launcher {
    pid: u32,
    /// Whether it passes output on as it is.
    is_plain: bool,
}

impl Launcher {
    /// Looks for the launcher among the ancestors of the process `pid`.
    fn of(pid: u32, read: impl Fn(u32) -> Option<Process>) -> Option<Launcher> {
        let mut process = read(pid)?;
        let mut programs = Vec::new();
        for _ in 0..FARTHEST {
            programs.extend(process.words.first().cloned());
            let pid = Some(process.parent).filter(|parent| *parent > 1)?;
            process = read(pid)?;
            if process.is_launcher() {
                // What comes after the program belongs to the program.
                let own = process.words.iter().skip(1).take_while(|word| !programs.contains(word));
                let is_plain = !own.map(String::as_str).any(changes_output);
                return Some(Launcher { pid, is_plain });
            }
        }
        None
    }

    /// Returns the launcher of this process, if one has started it.
    fn find() -> Option<Launcher> {
        launcher_rank(environment)?;
        let tags = ["OMPI_MCA_orte_tag_output", "OMPI_MCA_orte_timestamp_output", "HYDRA_PREPEND_RANK"];
        let launcher = Launcher::of(std::process::id(), Process::read)?;
        let is_plain = launcher.is_plain && !tags.iter().any(|name| environment(name).is_some());
        Some(Launcher { is_plain, ..launcher })
    }
}

/// Whether a word of a launcher's command line changes what becomes of the output. Launchers take one hyphen for two.
fn changes_output(word: &str) -> bool {
    let word = word.split('=').next().unwrap_or_default();
    let word = if word.starts_with("--") { &word[1..] } else { word };
    CHANGES_OUTPUT.contains(&word)
}

/// A terminal that shows this process's standard error.
#[derive(Debug)]
pub(super) struct Terminal {
    /// The terminal, opened anew: a lock on it belongs to this process alone.
    file: File,
    /// The process whose standard error it is: this one, or the launcher.
    pid: u32,
    is_own: bool,
}

impl Terminal {
    /// Returns the terminal that shows standard error, if one does.
    pub(super) fn of_stderr() -> Option<Terminal> {
        if std::io::stderr().is_terminal() && launcher_rank(environment).is_none() {
            return Terminal::open(std::process::id(), true);
        }
        match Launcher::find() {
            Some(launcher) => Some(launcher)
                .filter(|launcher| launcher.is_plain)
                .and_then(|launcher| Terminal::open(launcher.pid, false)),
            // `srun --pty` gives the first rank a terminal.
            None => std::io::stderr().is_terminal().then(|| Terminal::open(std::process::id(), true)).flatten(),
        }
    }

    fn open(pid: u32, is_own: bool) -> Option<Terminal> {
        let file = open_terminal(&format!("/proc/{pid}/fd/2"))?;
        Some(Terminal { file, pid, is_own })
    }

    /// Whether it is this process's own, without a launcher between them.
    pub(super) fn is_own(&self) -> bool {
        self.is_own
    }

    /// Returns the number of its columns.
    pub(super) fn width(&self) -> Option<u16> {
        tcgetwinsize(&self.file).ok().map(|size| size.ws_col).filter(|columns| *columns > 0)
    }

    /// Takes the terminal for a bar. False if another program has a bar there.
    pub(super) fn take(&self) -> bool {
        // A system without locks lets everyone draw.
        !matches!(
            rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive),
            Err(rustix::io::Errno::WOULDBLOCK)
        )
    }

    /// Whether another program has a bar there.
    pub(super) fn has_other_bar(&self) -> bool {
        let is_free = self.take();
        if is_free {
            let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        }
        !is_free
    }

    /// Whether the shell has put this run into the background of the terminal.
    pub(super) fn is_in_background(&self) -> bool {
        let Some(process) = Process::read(self.pid) else { return false };
        let Ok(status) = fstat(&self.file) else { return false };
        let (major, minor) = (i64::from(major(status.st_rdev)), i64::from(minor(status.st_rdev)));
        is_in_background(&process, major, minor)
    }
}

/// Whether a process is in the background of this terminal, if that is its own.
fn is_in_background(process: &Process, major: i64, minor: i64) -> bool {
    let terminal = (minor & 0xff) | (major & 0xfff) << 8 | (minor >> 8) << 20;
    process.terminal == terminal && process.foreground > 0 && process.foreground != process.group
}

fn open_terminal(path: &str) -> Option<File> {
    let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = OpenOptions::new().write(true).custom_flags(flags).open(Path::new(path)).ok()?;
    file.is_terminal().then_some(file)
}

/// Where standard output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// On this process's own terminal.
    Terminal,
    /// On the terminal of the launcher.
    LaunchersTerminal,
    /// On none.
    Elsewhere,
}

/// Returns where standard output is shown. (Some launchers give ranks a terminal as standard output, which is shown nowhere.)
pub(crate) fn stdout_is_shown() -> Shown {
    let is_terminal = std::io::stdout().is_terminal();
    match Launcher::find() {
        Some(launcher) => match open_terminal(&format!("/proc/{}/fd/1", launcher.pid)) {
            Some(_) => Shown::LaunchersTerminal,
            None => Shown::Elsewhere,
        },
        None if is_terminal => Shown::Terminal,
        None => Shown::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn process(name: &str, parent: u32, words: &str) -> Process {
        Process { name: name.into(), parent, words: words.split(' ').map(String::from).collect(), ..Process::default() }
    }

    /// Whether the launcher of process 9 is found, and passes output on as it is.
    fn launcher(chain: &[(u32, Process)]) -> Option<(u32, bool)> {
        let chain: BTreeMap<_, _> = chain.iter().cloned().collect();
        Launcher::of(9, |pid| chain.get(&pid).cloned()).map(|launcher| (launcher.pid, launcher.is_plain))
    }

    #[test]
    fn the_launcher_is_found_above_its_helpers_and_a_script() {
        let shell = (2, process("bash", 1, "bash"));
        let open_mpi = (5, process("mpiexec.openmpi", 2, "mpiexec.openmpi -n 2 ./rankpool run -- ls -l"));
        assert_eq!(
            launcher(&[shell.clone(), open_mpi.clone(), (9, process("rankpool", 5, "./rankpool run"))]),
            Some((5, true))
        );
        let hydra = [
            shell.clone(),
            (4, process("mpiexec", 2, "mpiexec -n 2 sh job.sh")),
            (6, process("hydra_pmi_proxy", 4, "proxy")),
            (8, process("sh", 6, "sh job.sh")),
            (9, process("rankpool", 8, "rankpool run")),
        ];
        assert_eq!(launcher(&hydra), Some((4, true)));
        assert_eq!(launcher(&[shell, (9, process("rankpool", 2, "rankpool run"))]), None);
        let far = [(7, process("orted", 1, "orted")), (9, process("rankpool", 7, "rankpool"))];
        assert_eq!(launcher(&far), None, "the launcher is on another host");
        assert_eq!(launcher(&[(9, process("rankpool", 9, "rankpool"))]), None, "the search has an end");
    }

    #[test]
    fn a_launcher_that_tags_lines_is_not_plain_and_words_of_the_program_do_not_count() {
        let plain = |words: &str| {
            let chain = [(5, process("mpirun", 1, words)), (9, process("rankpool", 5, "rankpool run"))];
            launcher(&chain).map(|(_, is_plain)| is_plain)
        };
        assert_eq!(plain("mpirun -n 2 rankpool run -- ls -l"), Some(true));
        for words in [
            "mpirun --tag-output rankpool",
            "mpirun -tag-output rankpool",
            "mpirun --output tag rankpool",
            "mpirun -l rankpool",
            "mpirun -prepend-rank rankpool",
            "mpirun --output-filename=x rankpool",
        ] {
            assert_eq!(plain(words), Some(false), "{words}");
        }
        assert_eq!(launcher(&[(5, process("mpiexecutive", 1, "x")), (9, process("rankpool", 5, "rankpool"))]), None);
    }

    #[test]
    fn a_process_is_in_the_background_if_another_group_has_its_terminal() {
        let stat = "77 (a) b) S 5 77 3 34819 99 0 1";
        let process = Process::parse(stat).expect("a process");
        assert_eq!((process.name.as_str(), process.parent, process.group), ("a) b", 5, 77));
        assert!(is_in_background(&process, 136, 3));
        assert!(!is_in_background(&process, 136, 4), "not its terminal");
        let in_front = Process { foreground: 77, ..process.clone() };
        assert!(!is_in_background(&in_front, 136, 3));
        let without = Process { terminal: 0, foreground: -1, ..process };
        assert!(!is_in_background(&without, 136, 3));
        assert_eq!(Process::parse("77 (x"), None);
        assert!(Process::read(std::process::id()).is_some_and(|own| !own.words.is_empty()));
    }

    #[test]
    fn a_file_is_no_terminal() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(open_terminal(&file.path().to_string_lossy()).is_none());
        assert!(open_terminal("/nowhere").is_none());
    }
}
