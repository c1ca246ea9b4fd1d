//! Functions of a context and an input that both travel with each job.
//!
//! Such a job's input is the length of the context's encoding, in eight bytes, the context's encoding and the input's.

use super::*;

struct WithOwnContext<F, C, I, O>(F, PhantomData<fn(C, I) -> O>);

impl<F, C, I, O> JobFunction for WithOwnContext<F, C, I, O>
where
    F: Fn(&C, I) -> O + Send + Sync,
    C: Value,
    I: Value,
    O: Value,
{
    fn call(&self, input: &[u8], output: &mut Vec<u8>, stopwatch: &mut Stopwatch) -> Result<Option<List>, Failure> {
        let (context, input) = parts(input)
            .ok_or_else(|| Failure::new(JobErrorKind::Decode, "garbled message: a context is cut short"))?;
        let context = decode_context(context)?;
        let input = decode_input(input)?;
        take_output(stopwatch.time(|| (self.0)(&context, input)), output)
    }
}

fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

/// Appends a context and an input, each written by its own function.
pub(crate) fn write_with_context(
    out: &mut Vec<u8>,
    context: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>,
    input: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    context(out)?;
    let length = (out.len() - start - 8) as u64;
    out[start..start + 8].copy_from_slice(&length.to_le_bytes());
    input(out)
}

/// Returns the builder of a function of a context and an input that travel together.
pub(crate) fn with_own_context<F, C, I, O>(_: F) -> Builder
where
    F: Fn(&C, I) -> O + Copy + Send + Sync + 'static,
    C: Value,
    I: Value,
    O: Value,
{
    |_| Ok(Function::OfJobs(Box::new(WithOwnContext(conjure::<F>(), PhantomData))))
}

/// Returns the builder of a function that takes its input by reference.
pub(crate) fn by_reference<F, I, O>(_: F) -> Builder
where
    F: Fn(&I) -> O + Copy + Send + Sync + 'static,
    I: Value,
    O: Value,
{
    |_| Ok(Function::OfJobs(Box::new(ByReference(conjure::<F>(), PhantomData))))
}

struct ByReference<F, I, O>(F, PhantomData<fn(I) -> O>);

impl<F, I, O> JobFunction for ByReference<F, I, O>
where
    F: Fn(&I) -> O + Send + Sync,
    I: Value,
    O: Value,
{
    fn call(&self, input: &[u8], output: &mut Vec<u8>, stopwatch: &mut Stopwatch) -> Result<Option<List>, Failure> {
        let input = decode_input(input)?;
        take_output(stopwatch.time(|| (self.0)(&input)), output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_is_cut_short_is_an_error() {
        let Ok(Function::OfJobs(function)) = with_own_context(|add: &u32, x: u32| add + x)(&[]) else {
            panic!("no function")
        };
        let mut bytes = Vec::new();
        let write = |number: u32| move |out: &mut Vec<u8>| encode_output(&number, out);
        write_with_context(&mut bytes, write(1000), write(7)).unwrap();
        let mut output = Vec::new();
        function.call(&bytes, &mut output, &mut Stopwatch::default()).unwrap();
        assert_eq!(wire::decode::<u32>(&output).unwrap(), 1007);
        for length in 0..bytes.len() {
            assert!(
                function.call(&bytes[..length], &mut output, &mut Stopwatch::default()).is_err(),
                "{length} bytes were enough"
            );
        }
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(function.call(&bytes, &mut output, &mut Stopwatch::default()).is_err());
    }
}
