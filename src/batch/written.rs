//! Checks that no two outputs of a batch are one file. It runs before anything is opened for writing.

use std::io;
use std::path::PathBuf;

use super::Options;
use crate::output::{Identity, Kind, Target, partial_path, real_path};

pub(crate) const LOG_OPTION: &str = "--records";
const MESSAGES: &str = "standard error";

/// Refuses two outputs in one file.
///
/// # Errors
/// A sentence with the options and the file.
pub(super) fn refuse_shared(written: &[Written]) -> Result<(), String> {
    for (at, one) in written.iter().enumerate() {
        for other in &written[at + 1..] {
            if one.conflicts_with(other) {
                let (one, name, other) = (one.option, one.name_with(&other.target), other.option);
                return Err(format!("{one} and {other} cannot both be written to {name}"));
            }
        }
    }
    for one in written {
        let Some((partial, name)) = &one.partial else { continue };
        for other in written.iter().filter(|other| other.option != one.option) {
            if other.file.as_ref().is_some_and(|file| file.is_same(partial))
                || other.partial.as_ref().is_some_and(|(file, _)| file.is_same(partial))
            {
                return Err(format!(
                    "{} is called {} until it is complete, and {} uses that name, too: give another name",
                    one.option,
                    name.display(),
                    other.option
                ));
            }
        }
    }
    Ok(())
}

/// Returns all outputs, in the order in which messages name them. `has_stderr`: jobs write to standard error.
pub(crate) fn written_files(options: &Options, has_stderr: bool) -> Vec<Written> {
    let targets = [
        ("--output", Some(options.output.clone())),
        ("--stderr", Some(options.stderr.clone()).filter(|_| has_stderr)),
        (LOG_OPTION, options.job_log.clone().map(Target::new)),
        ("--journal", options.journal.as_ref().map(|journal| Target::new(&journal.path))),
        ("--summary", options.summary.clone()),
        ("--status", options.live.status.clone().map(Target::File)),
        ("--trace", options.trace.clone()),
    ];
    let mut written: Vec<Written> =
        targets.into_iter().filter_map(|(option, target)| Some(Written::new(option, target?))).collect();
    if !written.iter().any(|written| written.target == Target::Stderr) {
        written.push(Written::new(MESSAGES, Target::Stderr));
    }
    written
}

/// An output of the run.
pub(crate) struct Written {
    pub option: &'static str,
    pub target: Target,
    /// `None`: a closed stream.
    file: Option<Identity>,
    /// The file's name until it is complete.
    pub partial: Option<(Identity, PathBuf)>,
}

impl Written {
    fn new(option: &'static str, target: Target) -> Written {
        let file = match &target {
            Target::Stdout => Identity::of_stream(io::stdout()),
            Target::Stderr => Identity::of_stream(io::stderr()),
            Target::File(path) => Some(Identity::of(path)),
        };
        let partial = match (&target, &file) {
            // The job log has its final name from the start.
            (Target::File(path), Some(file)) if file.is_file() && option != LOG_OPTION => {
                Some((Identity::of(&partial_path(&real_path(path))), partial_path(path)))
            }
            _ => None,
        };
        Written { option, target, file, partial }
    }

    fn conflicts_with(&self, other: &Written) -> bool {
        match (&self.target, &other.target) {
            // If both are one file, the shell was asked for that.
            (Target::Stdout, Target::Stderr) | (Target::Stderr, Target::Stdout) => false,
            (Target::Stdout, Target::Stdout) => true,
            // Messages share standard error with any output.
            (Target::Stderr, Target::Stderr) => self.option != MESSAGES && other.option != MESSAGES,
            (Target::File(_), Target::File(_)) => self.is(other.file.as_ref()),
            // A file may be what a standard stream goes to. Devices can be shared.
            (Target::File(_), _) | (_, Target::File(_)) => match (&self.file, &other.file) {
                (Some(one @ Identity::There { kind, .. }), Some(other)) => *kind != Kind::Device && one == other,
                _ => false,
            },
        }
    }

    /// Whether both are one file.
    pub(crate) fn is(&self, other: Option<&Identity>) -> bool {
        self.file.as_ref().zip(other).is_some_and(|(one, other)| one.is_same(other))
    }

    /// Returns the name of the file that this and another target share: the path, if one of them has one.
    fn name_with(&self, other: &Target) -> String {
        match (&self.target, other) {
            (Target::Stdout | Target::Stderr, other @ Target::File(_)) => other.name().to_string(),
            (target, _) => target.name().to_string(),
        }
    }
}
