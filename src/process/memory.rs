//! The memory that processes have here, and whether the kernel has killed one because it was exhausted.
//!
//! The kernel ends such a process by SIGKILL, as anybody may. But it also counts these kills, for each control group
//! (`memory.events`, `memory.oom_control`) and for the machine (`/proc/vmstat`). The count is read before the first process is
//! started, and again only after a SIGKILL. Each process that was killed uses up one of the kills that were counted since.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A control group of this process that limits memory.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    mount: &'static str,
    path: String,
    /// The file with the number of kills.
    events: &'static str,
    /// The file with the limit.
    limit: &'static str,
}

impl Group {
    /// Finds the group in the text of `/proc/self/cgroup`: that of version 1, if there is one for memory, or that of version 2.
    fn find(text: &str) -> Option<Group> {
        let mut lines = text.lines().filter_map(|line| {
            let (id, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            Some((id, controllers, path.to_string()))
        });
        let is_first = |(_, controllers, _): &(&str, &str, String)| controllers.split(',').any(|name| name == "memory");
        if let Some((_, _, path)) = lines.clone().find(is_first) {
            let (events, limit) = ("memory.oom_control", "memory.limit_in_bytes");
            return Some(Group { mount: "/sys/fs/cgroup/memory", path, events, limit });
        }
        let (_, _, path) = lines.find(|(id, controllers, _)| *id == "0" && controllers.is_empty())?;
        Some(Group { mount: "/sys/fs/cgroup", path, events: "memory.events", limit: "memory.max" })
    }

    fn of_process() -> Option<Group> {
        Group::find(&fs::read_to_string("/proc/self/cgroup").ok()?)
    }

    /// Returns the folders of this group and of those that it is in. In a container only the last one may be there.
    fn folders(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let below = |path: &Path| Path::new(self.mount).join(path.strip_prefix("/").unwrap_or(path));
        Path::new(&self.path).ancestors().map(below)
    }

    /// Returns the lowest limit of this group and those that it is in.
    fn limit(&self) -> Option<u64> {
        let limits = self.folders().filter_map(|folder| fs::read_to_string(folder.join(self.limit)).ok());
        limits.filter_map(|text| text.trim().parse().ok()).min()
    }

    /// Returns the file with the number of kills.
    fn kills_file(&self) -> Option<PathBuf> {
        let own = self.folders().next()?;
        [own, PathBuf::from(self.mount)]
            .iter()
            .map(|folder| folder.join(self.events))
            .find(|file| count_in(file).is_some())
    }
}

/// Returns the number after a word at the beginning of a line.
fn number_after(text: &str, word: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(word)?.strip_prefix([' ', ':'])?.split_whitespace().next()?.parse().ok())
}

fn count_in(file: &Path) -> Option<u64> {
    number_after(&fs::read_to_string(file).ok()?, "oom_kill")
}

/// Returns the memory that this process and those that it starts have together, in bytes: the lowest limit of its control groups,
/// or the machine's memory.
pub(crate) fn of_process() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| number_after(&text, "MemTotal"));
    let limit = Group::of_process().and_then(|group| group.limit());
    machine.map(|kib| kib * 1024).into_iter().chain(limit).min()
}

/// The kills that the kernel has counted, and how many of them are explained.
struct Kills {
    count: Box<dyn Fn() -> Option<u64> + Send + Sync>,
    explained: Mutex<Option<u64>>,
}

impl Kills {
    /// Begins to count: kills before this are those of other processes.
    fn new(count: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        Kills { explained: Mutex::new(count()), count: Box::new(count) }
    }

    /// Counts the kills of the control group of this process, or of the machine if it has none.
    fn of_process() -> Self {
        let file = Group::of_process().and_then(|group| group.kills_file());
        let file = file.unwrap_or_else(|| PathBuf::from("/proc/vmstat"));
        Kills::new(move || count_in(&file))
    }

    /// Whether there is a kill that explains the end of one more process. It is used up then.
    fn take(&self) -> bool {
        let mut explained = self.explained.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(before), Some(now)) = (*explained, (self.count)()) else { return false };
        if now > before {
            *explained = Some(before + 1);
        }
        now > before
    }
}

static KILLS: OnceLock<Kills> = OnceLock::new();

/// Begins to count kills, before the first process is started.
pub(super) fn watch() {
    KILLS.get_or_init(Kills::of_process);
}

/// Whether the kernel has killed a process of this rank because memory was exhausted. To be asked once for each process that
/// a SIGKILL has ended which this rank has not sent.
pub(super) fn explains_kill() -> bool {
    #[cfg(test)]
    if let Some(explains) = fake::take() {
        return explains;
    }
    KILLS.get().is_some_and(Kills::take)
}

/// Returns what is said about a process that had this much memory when it was killed.
pub(super) fn killed(max_rss_kib: u64) -> String {
    format!("killed for lack of memory (it had {} MiB)", max_rss_kib / 1024)
}

/// A count of kills for the tests of a thread.
#[cfg(test)]
pub(crate) mod fake {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Kills;

    thread_local! {
        static FAKE: RefCell<Option<Kills>> = const { RefCell::new(None) };
    }

    /// Replaces the kernel's count for processes that this thread waits for.
    pub(crate) fn count() -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(5));
        let of = count.clone();
        FAKE.set(Some(Kills::new(move || Some(of.load(Ordering::SeqCst)))));
        count
    }

    pub(super) fn take() -> Option<bool> {
        FAKE.with_borrow(|fake| fake.as_ref().map(Kills::take))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn group(text: &str) -> Option<(String, &'static str)> {
        Group::find(text).map(|group| (group.folders().next().unwrap().display().to_string(), group.events))
    }

    #[test]
    fn the_control_group_is_that_for_memory_or_the_unified_one() {
        let second = "0::/system.slice/slurmstepd.scope/job_7/step_0\n";
        let expected = "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/step_0";
        assert_eq!(group(second), Some((expected.into(), "memory.events")));
        let first = "9:name=systemd:/\n4:cpu,memory:/slurm/uid_1/job_7\n1:cpu:/\n0::/\n";
        let expected = "/sys/fs/cgroup/memory/slurm/uid_1/job_7";
        assert_eq!(group(first), Some((expected.into(), "memory.oom_control")));
        assert_eq!(group("0::/\n"), Some(("/sys/fs/cgroup/".into(), "memory.events")), "in a container");
        assert_eq!(group("1:cpu:/a:b\n0::/with:colon\n").unwrap().0, "/sys/fs/cgroup/with:colon");
        assert_eq!((group("2:cpu:/\n"), group("")), (None, None));
    }

    #[test]
    fn the_number_of_kills_is_found_in_all_its_files() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(number_after(events, "oom_kill"), Some(2));
        assert_eq!(number_after("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", "oom_kill"), Some(4));
        assert_eq!(number_after("oom_kill_disable 0\nunder_oom 0\n", "oom_kill"), None, "an old kernel");
        assert_eq!(number_after("MemTotal:       16384 kB\nMemFree: 1 kB\n", "MemTotal"), Some(16384));
        assert_eq!(number_after("oom_kill many\n", "oom_kill"), None);
    }

    #[test]
    fn each_kill_explains_one_process() {
        let count = Arc::new(AtomicU64::new(7));
        let of = count.clone();
        let kills = Kills::new(move || Some(of.load(Ordering::SeqCst)));
        assert!(!kills.take(), "earlier kills explain nothing");
        count.store(9, Ordering::SeqCst);
        assert_eq!([kills.take(), kills.take(), kills.take()], [true, true, false], "two jobs were killed at once");
        count.store(10, Ordering::SeqCst);
        assert_eq!([kills.take(), kills.take()], [true, false]);
        assert!(!Kills::new(|| None).take(), "nothing is counted here");
    }

    #[test]
    fn this_process_has_memory_and_the_kernel_counts_here() {
        assert!(of_process() > Some(16 << 20));
        let file = Group::of_process().and_then(|group| group.kills_file());
        assert!(
            file.is_some_and(|file| file.starts_with("/sys/fs/cgroup"))
                || count_in(Path::new("/proc/vmstat")).is_some()
        );
    }
}
