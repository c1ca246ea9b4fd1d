//! Fast encoding of lists of numbers and of strings.
//!
//! The encoding of a `Vec<f64>` is its length and the bytes of its numbers, little-endian, one after the other; the encodings of
//! `Vec<f32>`, `Vec<u8>` and strings are alike. serde processes one number at a time. Here a value that is such a list (one that
//! only contains a list is not) is recognised by its type and copied as a whole. The bytes are the same either way.

use std::any::{Any, TypeId};

use bincode::config;
use serde::{Serialize, de::DeserializeOwned};

use super::{CodecError, decode, encode_into};
use crate::engine::memory;

/// A number whose encoding has a fixed size.
trait Number: Copy + 'static {
    const SIZE: usize;
    /// Appends the bytes of the numbers. The caller has reserved the memory.
    fn append(numbers: &[Self], out: &mut Vec<u8>);
    /// Appends the numbers encoded by `bytes`. The caller has reserved the memory.
    fn read(bytes: &[u8], numbers: &mut Vec<Self>);
}

impl Number for u8 {
    const SIZE: usize = 1;

    fn append(numbers: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(numbers);
    }

    fn read(bytes: &[u8], numbers: &mut Vec<u8>) {
        numbers.extend_from_slice(bytes);
    }
}

macro_rules! float {
    ($float:ty, $size:literal) => {
        impl Number for $float {
            const SIZE: usize = $size;

            fn append(numbers: &[$float], out: &mut Vec<u8>) {
                // A piece stays in the CPU's cache between the loop, which the compiler turns into a copy, and the vector.
                const PIECE: usize = 512;
                let mut piece = [0; PIECE * $size];
                for numbers in numbers.chunks(PIECE) {
                    for (number, bytes) in numbers.iter().zip(piece.chunks_exact_mut($size)) {
                        bytes.copy_from_slice(&number.to_le_bytes());
                    }
                    out.extend_from_slice(&piece[..numbers.len() * $size]);
                }
            }

            fn read(bytes: &[u8], numbers: &mut Vec<$float>) {
                let number = |bytes: &[u8]| <$float>::from_le_bytes(bytes.try_into().expect("the pieces are exact"));
                numbers.extend(bytes.chunks_exact($size).map(number));
            }
        }
    };
}

float!(f64, 8);
float!(f32, 4);

/// Appends the number of elements and the elements.
fn append<N: Number>(numbers: &[N], out: &mut Vec<u8>) -> Result<(), CodecError> {
    // The length takes at most nine bytes. The length of the frame is inserted before it later, and the heads of the packet are
    // appended: without room for them, all bytes would be moved to a larger allocation.
    memory::reserve(out, numbers.len() * N::SIZE + 512);
    encode_into(&(numbers.len() as u64), out)?;
    N::append(numbers, out);
    Ok(())
}

/// Decodes numbers from all of these bytes.
fn read<N: Number>(bytes: &[u8]) -> Result<Vec<N>, CodecError> {
    let (length, used): (u64, usize) =
        bincode::serde::decode_from_slice(bytes, config::standard()).map_err(|error| CodecError(error.to_string()))?;
    let bytes = &bytes[used..];
    let expected = usize::try_from(length).ok().and_then(|length| length.checked_mul(N::SIZE));
    if expected != Some(bytes.len()) {
        return Err(CodecError::garbled("a list is longer or shorter than its length"));
    }
    let mut numbers = memory::vec_with_capacity(bytes.len() / N::SIZE);
    N::read(bytes, &mut numbers);
    Ok(numbers)
}

fn read_text(bytes: &[u8]) -> Result<String, CodecError> {
    String::from_utf8(read(bytes)?).map_err(|_| CodecError::garbled("a text is not UTF-8"))
}

/// Whether values of this type are copied as a whole. The compiler knows the answer for each type.
fn is_bulk<T: 'static>() -> bool {
    fn is_list_of<T: 'static, N: Number>() -> bool {
        TypeId::of::<T>() == TypeId::of::<Vec<N>>() || TypeId::of::<T>() == TypeId::of::<Box<[N]>>()
    }
    is_list_of::<T, f64>()
        || is_list_of::<T, f32>()
        || is_list_of::<T, u8>()
        || TypeId::of::<T>() == TypeId::of::<String>()
}

/// Appends the encoding of a value.
pub(crate) fn encode_value<T: Serialize + 'static>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if !is_bulk::<T>() {
        return encode_into(value, out);
    }
    fn list<N: Number>(value: &dyn Any) -> Option<&[N]> {
        let vec = value.downcast_ref::<Vec<N>>().map(Vec::as_slice);
        vec.or_else(|| value.downcast_ref::<Box<[N]>>().map(|list| &**list))
    }
    let any: &dyn Any = value;
    if let Some(numbers) = list::<f64>(any) {
        append(numbers, out)
    } else if let Some(numbers) = list::<f32>(any) {
        append(numbers, out)
    } else if let Some(bytes) = list::<u8>(any) {
        append(bytes, out)
    } else if let Some(text) = any.downcast_ref::<String>() {
        append(text.as_bytes(), out)
    } else {
        encode_into(value, out)
    }
}

/// Decodes a value from all of these bytes.
pub(crate) fn decode_value<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, CodecError> {
    /// Sets `place` to `value()` if its type is `Option<V>`; returns whether it is.
    fn fill<V: 'static>(
        place: &mut dyn Any,
        value: impl FnOnce() -> Result<V, CodecError>,
    ) -> Result<bool, CodecError> {
        let Some(place) = place.downcast_mut::<Option<V>>() else { return Ok(false) };
        *place = Some(value()?);
        Ok(true)
    }
    fn fill_list<N: Number>(place: &mut dyn Any, bytes: &[u8]) -> Result<bool, CodecError> {
        Ok(fill(place, || read::<N>(bytes))? || fill(place, || read::<N>(bytes).map(Vec::into_boxed_slice))?)
    }
    if !is_bulk::<T>() {
        return decode(bytes);
    }
    let mut place: Option<T> = None;
    let any: &mut dyn Any = &mut place;
    let _ = fill_list::<f64>(any, bytes)?
        || fill_list::<f32>(any, bytes)?
        || fill_list::<u8>(any, bytes)?
        || fill(any, || read_text(bytes))?;
    match place {
        Some(value) => Ok(value),
        None => decode(bytes),
    }
}

#[cfg(test)]
mod tests;
