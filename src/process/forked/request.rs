//! The request for a worker, with what it inherits.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use crate::engine::placement;
use crate::process::environment::is_launcher_variable;
use crate::process::program::Program;

/// Longest request: it has to fit into the socket of a server that does not read yet.
const LONGEST: usize = 100 << 10;

/// Returns the request for a worker; `None` if it is too long.
pub(super) fn of_worker(program: &Program) -> Option<Vec<u8>> {
    let here = Here::get();
    let folder = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let folder = program.cwd.as_ref().map_or_else(|| folder.clone(), |cwd| folder.join(cwd));
    let mut bytes = b"fork\0".to_vec();
    let mut add = |bytes_of: &[&[u8]]| {
        bytes_of.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes.push(0);
    };
    add(&[folder.as_os_str().as_bytes()]);
    add(&[here.cpus.as_bytes()]);
    add(&[program.args.len().to_string().as_bytes()]);
    program.args.iter().for_each(|word| add(&[word.as_bytes()]));
    for (name, value) in &here.env {
        add(&[name.as_bytes(), b"=", value.as_bytes()]);
    }
    program.env.iter().for_each(|(name, value)| add(&[name.as_bytes(), b"=", value.as_bytes()]));
    (bytes.len() <= LONGEST).then(|| framed(bytes))
}

/// Returns a message to the server.
pub(super) fn framed(bytes: Vec<u8>) -> Vec<u8> {
    let mut framed = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    framed.extend(bytes);
    framed
}

/// What processes inherit from a rank.
struct Here {
    env: Vec<(OsString, OsString)>,
    /// The CPUs, separated by commas.
    cpus: String,
}

impl Here {
    /// Returns what it was at the first call: before any thread was bound to some CPUs, and before MPI has set variables.
    fn get() -> &'static Here {
        static HERE: OnceLock<Here> = OnceLock::new();
        HERE.get_or_init(|| {
            let is_ours = |(name, _): &(OsString, OsString)| !name.to_str().is_some_and(is_launcher_variable);
            let cpus: Vec<_> = placement::cpu_mask().iter().map(u32::to_string).collect();
            Here { env: std::env::vars_os().filter(is_ours).collect(), cpus: cpus.join(",") }
        })
    }
}

/// Notes what processes that are started plainly inherit. To be called when the spawn helper is started.
pub(in crate::process) fn remember() {
    Here::get();
}
