//! Reads `/proc/PID/stat`.

use std::fs;

use rustix::process::Pid;

/// Returns all processes that are visible in `/proc`.
pub(super) fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// The process group and the session of a running process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Living {
    pub(super) group: i32,
    pub(super) session: i32,
}

impl Living {
    /// Reads them; `None` if there is no such process, or it is a zombie.
    pub(super) fn of(pid: Pid) -> Option<Living> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Living::read(&String::from_utf8_lossy(&stat))
    }

    /// Parses a line of `/proc/PID/stat`, in which the name, in parentheses, may hold anything. `None`: a zombie, or another format.
    fn read(stat: &str) -> Option<Living> {
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let mut numbers = fields.skip(1).map(str::parse);
        let (group, session) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        (!matches!(state, "Z" | "X")).then_some(Living { group, session })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_and_session_are_read_whatever_the_name() {
        assert_eq!(Living::read("12 (a) Z 1 9 9) (b)) S 1 77 78 0 -1"), Some(Living { group: 77, session: 78 }));
        assert_eq!(Living::read("12 (a) Z 1 99) (b)) S 1 77 77 0 -1"), Some(Living { group: 77, session: 77 }));
        assert_eq!(Living::read("12 (sh) S 1 78 77 0 -1"), Some(Living { group: 78, session: 77 }));
    }

    #[test]
    fn a_zombie_does_not_live_and_neither_does_what_is_cut_short() {
        for stat in
            ["12 (sh) Z 1 77 78 0 -1", "12 (sh) X 1 77 78 0 -1", "", "12 (sh)", "12 (sh) S 1 77", "12 (sh) S 1 a b"]
        {
            assert_eq!(Living::read(stat), None, "{stat:?}");
        }
    }
}
