//! The launcher of this process, as far as it matters when ranks were lost.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::engine::environment::environment;
use crate::engine::limits;

/// Returns whether the launcher says that it lets the other ranks live when one dies (Open MPI 4 with `--enable-recovery`). Then
/// `MPI_Abort` may not end them.
pub(super) fn lets_others_live() -> bool {
    environment("OMPI_MCA_orte_enable_recovery").is_some_and(|value| value != "0")
}

/// Starts a process that asks the launcher to end if it is still there [some seconds](limits::LAUNCHER_END) later. Open MPI's
/// waits forever for its daemon on a host that is cut off or frozen, although all other processes of the run have ended.
/// Does nothing unless the launcher is the parent of this process.
pub(super) fn end_if_it_hangs() {
    let parent = std::os::unix::process::parent_id();
    let name = std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    let name = name.trim_end();
    if !["mpiexec", "mpirun", "orterun", "prterun"].iter().any(|launcher| name.starts_with(launcher)) {
        return;
    }
    // Open MPI's ends at the second signal, if it is not sent too soon.
    const SCRIPT: &str = r#"sleep "$3"; for try in 1 2 3 4 5; do [ "$(cat "/proc/$1/comm")" = "$2" ] || exit; kill -TERM "$1"; sleep 1; done"#;
    let mut script = Command::new("sh");
    let seconds = limits::LAUNCHER_END.as_secs().to_string();
    script.args(["-c", SCRIPT, "sh", &parent.to_string(), name, &seconds]);
    // It must not be ended with this process, and not keep the launcher's pipes open.
    script.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    // Without it, the launcher hangs as it would have done.
    let _ = script.spawn();
}
