//! The frames of a payload: one for each job, with its input, its result, or its failure.

use super::{CodecError, encode_into};
use crate::engine::error::Failure;

/// The value or failure of one job in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// The encoding of an input or a result.
    Value(&'a [u8]),
    /// The encoding of a [`Failure`] in place of a value.
    Failure(&'a [u8]),
    /// The value is the list with this place among those of the payload.
    List(u64),
}

/// The first byte of a frame: up to `SHORT` it is the length of a value; otherwise it is the kind of the frame, and eight bytes
/// follow: of length, or with the place of a list.
const SHORT: u8 = 252;
const LIST: u8 = 253;
const FAILURE: u8 = 254;
const LONG: u8 = 255;

/// The memory for a payload that begins, in bytes.
const FIRST: usize = 64;

/// Appends a value's frame. On an error nothing is appended.
pub(crate) fn push_value<E>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    let start = out.len();
    // A value of many megabytes is the first one of its payload, and must not be moved to make room for its length.
    let room = if start == 0 { size_of::<u64>() } else { 0 };
    let begin = start + 1 + room;
    if room > 0 {
        // A small value takes no further allocation.
        out.reserve(FIRST);
    }
    out.resize(begin, 0);
    if let Err(error) = write(out) {
        out.truncate(start);
        return Err(error);
    }
    let length = out.len() - begin;
    let bytes = (length as u64).to_le_bytes();
    match u8::try_from(length) {
        Ok(short) if short <= SHORT => {
            out[start] = short;
            if room > 0 {
                out.copy_within(begin.., start + 1);
                out.truncate(start + 1 + length);
            }
        }
        _ => {
            out[start] = LONG;
            if room > 0 {
                out[start + 1..begin].copy_from_slice(&bytes);
            } else {
                out.splice(begin..begin, bytes);
            }
        }
    }
    Ok(())
}

/// Appends the frame of a list, which has this place among those of the payload.
pub(crate) fn push_list(out: &mut Vec<u8>, place: u64) {
    out.push(LIST);
    out.extend_from_slice(&place.to_le_bytes());
}

/// Appends a failure's frame.
pub(crate) fn push_failure(out: &mut Vec<u8>, failure: &Failure) {
    out.push(FAILURE);
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    encode_into(failure, out).expect("strings and an enum always encode");
    let length = (out.len() - start - 8) as u64;
    out[start..start + 8].copy_from_slice(&length.to_le_bytes());
}

/// A reader of the frames of a payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Frames { rest: payload }
    }

    /// Returns the bytes that have not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads the next frame; an error if there is none or it is truncated.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Frame<'a>, CodecError> {
        if let Some((&tag @ ..=SHORT, rest)) = self.rest.split_first() {
            if let Some((value, rest)) = rest.split_at_checked(tag.into()) {
                self.rest = rest;
                return Ok(Frame::Value(value));
            }
        }
        self.next_long()
    }

    /// Reads the next frame, which is not a complete short one.
    #[inline(never)]
    fn next_long(&mut self) -> Result<Frame<'a>, CodecError> {
        let cut_short = || CodecError::garbled("a job's value is cut short");
        let (&tag, rest) = self.rest.split_first().ok_or_else(cut_short)?;
        if tag <= SHORT {
            return Err(cut_short());
        }
        let (length, rest) = rest.split_first_chunk().ok_or_else(cut_short)?;
        let length = u64::from_le_bytes(*length);
        if tag == LIST {
            self.rest = rest;
            return Ok(Frame::List(length));
        }
        let length = usize::try_from(length).map_err(|_| cut_short())?;
        let (value, rest) = rest.split_at_checked(length).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(if tag == FAILURE { Frame::Failure(value) } else { Frame::Value(value) })
    }
}

/// Returns the places of the lists in these frames.
pub(crate) fn places_of_lists(frames: &[u8]) -> impl Iterator<Item = u64> {
    let mut frames = Frames::new(frames);
    std::iter::from_fn(move || frames.next().ok()).filter_map(|frame| match frame {
        Frame::List(place) => Some(place),
        Frame::Value(_) | Frame::Failure(_) => None,
    })
}
