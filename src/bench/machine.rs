//! Describes the machine and the program under a measurement.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;

use crate::engine::transport::TransportInfo;
use crate::pool::Pool;

/// What a figure depends on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Machine {
    pub rankpool: &'static str,
    pub cpu: Option<String>,
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// The MPI library; `None` if the ranks are threads of a process.
    pub mpi: Option<String>,
    pub system: String,
}

impl Machine {
    /// Describes this host, and the MPI library of a pool.
    pub(crate) fn here(pool: Option<&Pool>) -> Machine {
        let name = rustix::system::uname();
        let (system, release) = (name.sysname().to_string_lossy(), name.release().to_string_lossy());
        let mpi = pool.and_then(|pool| match pool.transport() {
            TransportInfo::Local => None,
            TransportInfo::Mpi { library, .. } => Some(library.lines().next().unwrap_or_default().to_string()),
        });
        Machine {
            rankpool: env!("CARGO_PKG_VERSION"),
            cpu: cpu_model(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory(),
            mpi,
            system: format!("{system} {release}"),
        }
    }

    /// Describes it in a line.
    pub(crate) fn line(&self) -> String {
        let mut parts =
            vec![self.cpu.clone().unwrap_or_else(|| "an unknown CPU".into()), format!("{} CPUs", self.cpus)];
        parts.extend(self.memory.map(|bytes| format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30))));
        parts.push(self.mpi.clone().unwrap_or_else(|| "ranks as threads".into()));
        parts.push(self.system.clone());
        parts.push(format!("rankpool {}", self.rankpool));
        parts.join(", ")
    }
}

/// Returns for how long the CPUs of this host have been busy, summed over all of them, in seconds, to about 10 ms. What a hypervisor took
/// from them is busy, too.
pub(super) fn busy_cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, interrupts @ ..] = &ticks[..] else { return None };
    // Behind these three are those of guests, which are a part of `user`.
    let busy = user + nice + system + interrupts.iter().take(3).sum::<f64>();
    Some(busy / rustix::param::clock_ticks_per_second() as f64)
}

/// Returns the user and the system time of this process, or of its children that have ended and were waited for (with theirs), in
/// seconds.
pub(super) fn cpu_seconds(who: UsageWho) -> (f64, f64) {
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6;
    getrusage(who).map_or((0.0, 0.0), |usage| (seconds(usage.user_time()), seconds(usage.system_time())))
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("Model"))?;
    Some(line.split_once(':')?.1.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
