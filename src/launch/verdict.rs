//! What a driver's error means: what is said of it, and with which exit code the run ends.
//!
//! Errors are wrapped on their way out: with a context, in an enum, in a box. What was wrapped is reached through
//! [`source`](Error::source), and decides.

use std::error::Error;
use std::iter;

use super::ExitCode;
use crate::engine::error::{JobError, JobErrorKind};

/// How many causes are looked at: an error may be its own source.
const DEPTH: usize = 64;

/// An error and its causes, the innermost last.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source()).take(DEPTH)
}

/// The error and its causes in one line: `outer: inner: innermost`. What a text already says is not said again.
pub(super) fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut words = String::new();
    for cause in causes(error).map(ToString::to_string) {
        if words.is_empty() {
            words = cause;
        } else if !says(&words, &cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

/// Whether a text has another one in it, as whole words.
fn says(text: &str, part: &str) -> bool {
    let inside = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    part.is_empty()
        || text
            .match_indices(part)
            .any(|(at, _)| !inside(text[..at].chars().next_back()) && !inside(text[at + part.len()..].chars().next()))
}

/// The exit code of a run whose driver ended with this error: that of the innermost failure of a job, if there is one.
pub(super) fn code_of(error: &(dyn Error + 'static)) -> ExitCode {
    // A wrapper may show the job's error as its own, and only that error's source as its source: so a job's error has its
    // kind as its source.
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
    fn the_chain_of_causes_is_said_in_one_line_and_nothing_twice() {
        let error = Wrapped::Sky(job(JobErrorKind::Panic));
        assert_eq!(in_words(&error), "the sky cannot be read: job 3: panic: no threes");
        let error = Wrapped::Context(Box::new(Wrapped::Sky(job(JobErrorKind::Panic))));
        assert_eq!(in_words(&error), "reading the sky: the sky cannot be read: job 3: panic: no threes");
        for error in [Wrapped::Shown(job(JobErrorKind::Panic)), Wrapped::Transparent(job(JobErrorKind::Panic))] {
            assert_eq!(in_words(&error), "job 3: panic: no threes");
        }
        let inner = std::io::Error::other("in");
        assert_eq!(in_words(&Wrapped::Context(Box::new(inner))), "reading the sky: in");
        assert_eq!(in_words(&job(JobErrorKind::Lost)), "job 3: lost: no threes");
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
        assert_eq!(in_words(&Loop), "a loop");
        assert_eq!(code_of(&Loop), ExitCode::Failure);
    }
}
