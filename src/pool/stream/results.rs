//! The results of jobs as they come from the master, decoded one at a time.

use std::marker::PhantomData;

use bytes::Bytes;

use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::func::Value;
use crate::engine::wire::{self, Frame, Frames};

/// The results of consecutive jobs, decoded one at a time.
pub(crate) struct Results<O> {
    pub(super) job: u64,
    pub(super) left: u64,
    pub(super) frames: Bytes,
    pub(super) packet_bytes: usize,
    pub(super) position: usize,
    pub(super) output: PhantomData<fn() -> O>,
}

impl<O> Results<O> {
    /// Returns the same results, to be read another time.
    #[cfg(feature = "program")]
    pub(in crate::pool) fn again(&self) -> Results<O> {
        Results { frames: self.frames.clone(), ..*self }
    }

    /// Returns the job of the next result.
    pub(crate) fn job(&self) -> u64 {
        self.job
    }

    /// Returns whether all results were taken.
    pub(in crate::pool) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Returns the message with the results.
    #[cfg(feature = "program")]
    pub(crate) fn message(&self) -> Bytes {
        self.frames.clone()
    }

    /// Returns the number of results that were not taken.
    pub(crate) fn len(&self) -> u64 {
        self.left
    }

    /// Returns the next job and its encoded result.
    pub(crate) fn next_value(&mut self) -> Option<(u64, Result<&[u8], JobError>)> {
        let (job, _, frame) = self.next_frame()?;
        let value = match frame {
            Ok(Frame::Value(value)) => Ok(value),
            Ok(Frame::Failure(failure)) => Err(JobError::of(job, wire::decode(failure).unwrap_or_else(garbled))),
            Err(error) => Err(JobError::of(job, garbled(error))),
        };
        Some((job, value))
    }

    /// Returns the encoded size of all results, also of those that were taken.
    pub(in crate::pool) fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// Returns the next job, the start of its frame, and the frame; `None` if there is none.
    fn next_frame(&mut self) -> Option<(u64, usize, Result<Frame<'_>, wire::CodecError>)> {
        self.left = self.left.checked_sub(1)?;
        let (job, start) = (self.job, self.position);
        self.job += 1;
        let mut rest = Frames::new(&self.frames[start..]);
        let frame = rest.next();
        self.position = self.frames.len() - rest.rest().len();
        Some((job, start, frame))
    }

    /// Returns the next job and its encoded result. It is a copy, so that a result that is kept does not keep the memory of
    /// all that came in the same message, unless it makes up most of that message.
    pub(in crate::pool) fn next_encoded(&mut self) -> Option<(u64, Result<Bytes, JobError>)> {
        let (job, start, frame) = self.next_frame()?;
        let read = frame.map(drop);
        let range = start..self.position;
        let encoded = read.map(|()| {
            if range.len() > self.packet_bytes / 2 {
                self.frames.slice(range)
            } else {
                Bytes::copy_from_slice(&self.frames[range])
            }
        });
        Some((job, encoded.map_err(|error| JobError::new(job, JobErrorKind::Decode, error.to_string()))))
    }
}

impl<O: Value> Iterator for Results<O> {
    type Item = Result<O, JobError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (job, _, frame) = self.next_frame()?;
        Some(decode_result(job, frame))
    }
}

/// Consecutive jobs that did not run to their end, all for the same reason.
pub(crate) struct Unrun {
    pub(super) job: u64,
    pub(super) left: u64,
    pub(super) attempt: u32,
    pub(super) failure: Failure,
}

impl Unrun {
    /// Returns the next of these jobs.
    pub(in crate::pool) fn job(&self) -> u64 {
        self.job
    }

    /// Returns these jobs.
    #[cfg(feature = "program")]
    pub(in crate::pool) fn jobs(&self) -> std::ops::Range<u64> {
        self.job..self.job + self.left
    }

    /// Returns whether all jobs were taken.
    pub(in crate::pool) fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl Iterator for Unrun {
    type Item = JobError;

    fn next(&mut self) -> Option<JobError> {
        self.left = self.left.checked_sub(1)?;
        let job = self.job;
        self.job += 1;
        Some(JobError { attempt: self.attempt, ..JobError::of(job, self.failure.clone()) })
    }
}

/// Decodes the value in a result's frame.
pub(in crate::pool) fn decode_result<O: Value>(
    job: u64,
    frame: Result<Frame<'_>, wire::CodecError>,
) -> Result<O, JobError> {
    let value = match frame {
        Ok(Frame::Value(value)) => wire::decode_value(value),
        Ok(Frame::Failure(failure)) => return Err(JobError::of(job, wire::decode(failure).unwrap_or_else(garbled))),
        Err(error) => Err(error),
    };
    value.map_err(|error| {
        let message = format!("the result cannot be read as {}: {error}", std::any::type_name::<O>());
        JobError::new(job, JobErrorKind::Decode, message)
    })
}

fn garbled(error: wire::CodecError) -> Failure {
    Failure::new(JobErrorKind::Decode, error.to_string())
}
