//! The message and the exit code for a driver's error.
//!
//! Errors are wrapped on their way out: with a context, in an enum, in a box. The wrapped error is reached through
//! [`source`](Error::source), and sets the exit code.

use std::error::Error;
use std::iter;

use super::ExitCode;
use crate::engine::error::{JobError, JobErrorKind};

/// The number of causes that are looked at: an error may be its own source.
const DEPTH: usize = 64;

/// Returns an error and its causes, the innermost last.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source()).take(DEPTH)
}

/// Returns the error and its causes in one line: `outer: inner: innermost`. A cause that the text already contains is left out.
pub(super) fn message(error: &(dyn Error + 'static)) -> String {
    let mut words = String::new();
    for cause in causes(error).map(ToString::to_string) {
        if words.is_empty() {
            words = cause;
        } else if !contains(&words, &cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

/// Returns whether `text` contains `part` as whole words.
fn contains(text: &str, part: &str) -> bool {
    let inside = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    part.is_empty()
        || text
            .match_indices(part)
            .any(|(at, _)| !inside(text[..at].chars().next_back()) && !inside(text[at + part.len()..].chars().next()))
}

/// Returns the exit code of a run whose driver returned this error: that of the innermost failure of a job, if there is one.
pub(super) fn code_of(error: &(dyn Error + 'static)) -> ExitCode {
    // A transparent wrapper shows the job's error as its own and returns that error's source as its source. So the source of a
    // job's error is its kind.
    let kind = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<JobErrorKind>().copied().or_else(|| cause.downcast_ref::<JobError>().map(|job| job.kind))
    };
    match causes(error).filter_map(kind).last() {
        None | Some(JobErrorKind::Closed | JobErrorKind::Refused) => ExitCode::Failure,
        Some(JobErrorKind::Stopped) => ExitCode::Stopped,
        Some(_) => ExitCode::JobsFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Wrapped {
        #[error("the sky cannot be read")]
        Sky(#[from] JobError),
        #[error("{0}")]
        Shown(#[source] JobError),
        #[error(transparent)]
        Transparent(JobError),
        #[error("reading the sky")]
        Context(#[source] Box<dyn Error + Send + Sync>),
    }

    fn job(kind: JobErrorKind) -> JobError {
        JobError::new(3, kind, "no threes")
    }

    #[test]
    fn the_chain_of_causes_is_one_line_without_repetitions() {
        let error = Wrapped::Sky(job(JobErrorKind::Panic));
        assert_eq!(message(&error), "the sky cannot be read: job 3: panic: no threes");
        let error = Wrapped::Context(Box::new(Wrapped::Sky(job(JobErrorKind::Panic))));
        assert_eq!(message(&error), "reading the sky: the sky cannot be read: job 3: panic: no threes");
        for error in [Wrapped::Shown(job(JobErrorKind::Panic)), Wrapped::Transparent(job(JobErrorKind::Panic))] {
            assert_eq!(message(&error), "job 3: panic: no threes");
        }
        let inner = std::io::Error::other("in");
        assert_eq!(message(&Wrapped::Context(Box::new(inner))), "reading the sky: in");
        assert_eq!(message(&job(JobErrorKind::Lost)), "job 3: lost: no threes");
    }

    #[test]
    fn the_exit_code_is_the_innermost_cause_s() {
        type Wrap = fn(JobError) -> Wrapped;
        let wraps: [Wrap; 6] = [
            Wrapped::Sky,
            Wrapped::Shown,
            Wrapped::Transparent,
            |job| Wrapped::Context(Box::new(job)),
            |job| Wrapped::Context(Box::new(std::io::Error::other(job))),
            |job| Wrapped::Context(Box::new(Wrapped::Context(Box::new(Wrapped::Transparent(job))))),
        ];
        for wrap in wraps {
            for (kind, code) in [
                (JobErrorKind::Panic, ExitCode::JobsFailed),
                (JobErrorKind::Timeout, ExitCode::JobsFailed),
                (JobErrorKind::Stopped, ExitCode::Stopped),
                (JobErrorKind::Closed, ExitCode::Failure),
                (JobErrorKind::Refused, ExitCode::Failure),
            ] {
                let error = wrap(job(kind));
                assert_eq!(code_of(&error), code, "{error:?}");
                let boxed: Box<dyn Error + Send + Sync> = error.into();
                assert_eq!(code_of(&*boxed), code);
            }
        }
        assert_eq!(code_of(&Wrapped::Context("text".into())), ExitCode::Failure);
        assert_eq!(code_of(&job(JobErrorKind::Init)), ExitCode::JobsFailed);
    }

    #[test]
    fn an_error_that_is_its_own_cause_comes_to_an_end() {
        #[derive(Debug)]
        struct Loop;
        impl std::fmt::Display for Loop {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a loop")
            }
        }
        impl Error for Loop {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(self)
            }
        }
        assert_eq!(message(&Loop), "a loop");
        assert_eq!(code_of(&Loop), ExitCode::Failure);
    }
}
