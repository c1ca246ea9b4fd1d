//! The results of jobs as they come from the master, decoded one at a time.

use std::borrow::Cow;
use std::marker::PhantomData;

use bytes::Bytes;

use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::func::Value;
use crate::engine::wire::{self, Frame, Frames, List, Lists};

/// The results of consecutive jobs, decoded one at a time.
pub(crate) struct Results<O> {
    job: u64,
    left: u64,
    frames: Bytes,
    lists: Lists,
    packet_bytes: usize,
    /// The size of all results in bytes, also of those that were taken.
    bytes: usize,
    position: usize,
    output: PhantomData<fn() -> O>,
}

/// A job and its encoded result.
pub(crate) type NextValue<'r> = (u64, Result<Cow<'r, [u8]>, JobError>);

/// The result of one job, to be decoded later.
#[derive(Debug, Clone)]
pub(in crate::pool) struct Encoded {
    frame: Bytes,
    lists: Lists,
}

impl Encoded {
    /// Decodes the value. A large list is copied if there is a clone of this.
    pub(in crate::pool) fn decode<O: Value>(mut self, job: u64) -> Result<O, JobError> {
        decode_result(job, Frames::new(&self.frame).next(), &mut self.lists)
    }
}

impl<O> Results<O> {
    /// The results of `count` jobs from the job `first` on, a frame each. The frames are a part of a packet of `packet_bytes`.
    pub(super) fn new(first: u64, count: u64, frames: Bytes, lists: Lists, packet_bytes: usize) -> Results<O> {
        let bytes = frames.len() + lists.bytes();
        Results { job: first, left: count, frames, lists, packet_bytes, bytes, position: 0, output: PhantomData }
    }

    /// Returns the same results, to be read another time.
    #[cfg(feature = "program")]
    pub(in crate::pool) fn again(&self) -> Results<O> {
        Results { frames: self.frames.clone(), lists: self.lists.clone(), ..*self }
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
    pub(crate) fn next_value(&mut self) -> Option<NextValue<'_>> {
        let (job, _, frame, lists) = self.next_frame()?;
        let value = match frame {
            Ok(Frame::Value(value)) => Ok(Cow::Borrowed(value)),
            Ok(Frame::Failure(failure)) => Err(JobError::of(job, wire::decode(failure).unwrap_or_else(garbled))),
            Ok(Frame::List(place)) => {
                let mut encoded = Vec::new();
                let list = lists.take(place).and_then(|list| list.encode(&mut encoded));
                list.map(|()| Cow::Owned(encoded)).map_err(|error| JobError::of(job, garbled(error)))
            }
            Err(error) => Err(JobError::of(job, garbled(error))),
        };
        Some((job, value))
    }

    /// Returns the size of all results, also of those that were taken.
    pub(in crate::pool) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the next job, the start of its frame, the frame, and the lists; `None` if there is none.
    fn next_frame(&mut self) -> Option<(u64, usize, Result<Frame<'_>, wire::CodecError>, &mut Lists)> {
        self.left = self.left.checked_sub(1)?;
        let (job, start) = (self.job, self.position);
        self.job += 1;
        let mut rest = Frames::new(&self.frames[start..]);
        let frame = rest.next();
        self.position = self.frames.len() - rest.rest().len();
        Some((job, start, frame, &mut self.lists))
    }

    /// Returns the next job and its encoded result. It is a copy, so that a result that is kept does not keep the memory of
    /// all that came in the same message, unless it makes up most of that message.
    pub(in crate::pool) fn next_encoded(&mut self) -> Option<(u64, Result<Encoded, JobError>)> {
        let (job, start, frame, lists) = self.next_frame()?;
        let lists = frame.map(|frame| match frame {
            Frame::List(place) => lists.split([place]),
            Frame::Value(_) | Frame::Failure(_) => Lists::default(),
        });
        let range = start..self.position;
        let encoded = lists.map(|lists| {
            let frame = if range.len() > self.packet_bytes / 2 {
                self.frames.slice(range)
            } else {
                Bytes::copy_from_slice(&self.frames[range])
            };
            Encoded { frame, lists }
        });
        Some((job, encoded.map_err(|error| JobError::new(job, JobErrorKind::Decode, error.to_string()))))
    }
}

impl<O: Value> Results<O> {
    /// Returns the next result if it is a value, and not the last one.
    #[inline]
    pub(in crate::pool) fn next_unless_last(&mut self) -> Option<O> {
        if self.left < 2 {
            return None;
        }
        let mut rest = Frames::new(&self.frames[self.position..]);
        let Ok(Frame::Value(value)) = rest.next() else { return None };
        let value = wire::decode_value(value).ok()?;
        self.position = self.frames.len() - rest.rest().len();
        (self.job, self.left) = (self.job + 1, self.left - 1);
        Some(value)
    }
}

impl<O: Value> Iterator for Results<O> {
    type Item = Result<O, JobError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (job, _, frame, lists) = self.next_frame()?;
        Some(decode_result(job, frame, lists))
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
fn decode_result<O: Value>(
    job: u64,
    frame: Result<Frame<'_>, wire::CodecError>,
    lists: &mut Lists,
) -> Result<O, JobError> {
    let value = match frame {
        Ok(Frame::Value(value)) => wire::decode_value(value),
        Ok(Frame::List(place)) => lists.take(place).and_then(List::into_value),
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
