//! How a function crosses ranks: by its position in the executable.
//!
//! All ranks run the same executable file, so a function has the same offset on every rank, counted from an
//! anchor that is itself a function of the executable (the image as a whole is loaded at another address in every
//! process). A map's function is identified by the offset of a *builder*: the instance of a generic function below,
//! compiled for exactly this function, input and output type. Called on a rank with the map's context, the builder
//! returns an object that decodes an input, calls the function and encodes its result. All further code is safe Rust.
//!
//! # Why this is sound
//!
//! `FunctionId::builder` turns a number into a function pointer. It is a pointer to a `Builder` of this executable
//! because
//!
//! 1. ids are only made by `FunctionId::of`, from a `Builder`, and reach other ranks unchanged: the seal, a hash over the
//!    offset and the executable's own hash, refuses one that was garbled or comes from another program;
//! 2. the executables are equal byte for byte: their hashes are compared when the ranks join, before any function travels;
//! 3. anchor and builder lie in the same loaded image (both sides ask the dynamic linker), so that one offset is
//!    right for all ranks; a function of a separately loaded library is refused.
//!
//! `conjure` makes a value of a zero-sized function type, which has no bytes that could be wrong. Such a type is a
//! function item, or a closure that captures only zero-sized values; with `Copy` (required by the callers) the
//! driver's own value could have been copied instead. This cannot preserve the meaning of a zero-sized capture that proves
//! "this process has done X": the capture also exists on ranks where X was not done.

mod crossing;
#[cfg(feature = "program")]
mod lines;
mod variants;

use std::any::type_name;
use std::marker::PhantomData;
use std::sync::Mutex;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::engine::catch::catch;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::stopwatch::Stopwatch;
use crate::engine::wire::{self, FunctionId, List};

pub use crossing::CrossesRanks;
#[cfg(feature = "program")]
pub(crate) use lines::{json_line, json_lines};
pub(crate) use variants::{by_reference, with_own_context, write_with_context};

/// A map's function on a rank.
pub(crate) enum Function {
    /// It runs one job at a time.
    OfJobs(Box<dyn JobFunction>),
    /// It runs the jobs of a chunk together.
    OfChunks(Box<dyn ChunkFunction>),
}

/// From an encoded input to an encoded result.
pub(crate) trait JobFunction: Send + Sync {
    /// Runs one job; what is timed is the user's function alone. Appends the encoded result to `output`, or returns the result if it
    /// is a large list. On an error, `output` may have been written to in part. If it panics, the caller stops the stopwatch.
    fn call(&self, input: &[u8], output: &mut Vec<u8>, stopwatch: &mut Stopwatch) -> Result<Option<List>, Failure>;
}

/// From the encoded inputs of a chunk to their encoded results. While it runs, the current job is the chunk's first one: its
/// rank and slot hold for all.
pub(crate) trait ChunkFunction: Send + Sync {
    /// Pulls jobs until there are no more, and answers every one.
    fn serve<'c>(&self, jobs: &mut dyn Jobs<'c>);
}

/// The jobs of a chunk. They are answered in the order in which they are pulled. What is not pulled, or given back, can still go to
/// another thread or rank.
pub(crate) trait Jobs<'c> {
    /// The next job's input. `None`: there are no more.
    fn pull(&mut self) -> Option<&'c [u8]>;
    /// The message of which the inputs are parts.
    fn message(&self) -> &Bytes;
    /// The job that was pulled last cannot be run; it counts as answered.
    fn refuse(&mut self, failure: Failure);
    /// Sends the results so far ahead, because the next answer may take long. They do not settle their jobs.
    fn send_ahead(&mut self);
    /// Gives back the last `count` jobs that were pulled and not refused or answered, because one before them takes long. They were
    /// not started. They are pulled again, unless they go elsewhere.
    fn give_back(&mut self, count: usize);
    /// Answers the oldest job that was pulled and not answered: `write` appends its encoded result.
    fn answer(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), Failure>);
}

/// Makes the function of a map from the map's encoded context, once on every rank.
pub(crate) type Builder = fn(&[u8]) -> Result<Function, Failure>;

fn anchor() -> usize {
    fn here() {}
    here as fn() as usize
}

/// Where the image that holds this address was loaded, by the dynamic linker's word.
#[expect(unsafe_code, reason = "dladdr only compares the address with the ranges of the loaded images")]
fn image_of(address: usize) -> Option<usize> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is valid for a write; `dladdr` does not follow the address it is asked about.
    let found = unsafe { libc::dladdr(address as *const libc::c_void, info.as_mut_ptr()) };
    // SAFETY: zeroed is a valid `Dl_info` (its fields are pointers), and a found one was written.
    (found != 0).then(|| unsafe { info.assume_init() }.dli_fbase as usize)
}

impl FunctionId {
    /// The id of a builder of this program, whose executable has the hash `executable`.
    pub(crate) fn of(builder: Builder, executable: u64) -> Result<Self, Failure> {
        let (here, there) = (anchor(), builder as usize);
        if image_of(here) != image_of(there) {
            return Err(Failure::new(
                JobErrorKind::Refused,
                "this function lives in a shared library of its own; link it into the executable to run it on other ranks",
            ));
        }
        let offset = there.wrapping_sub(here) as i64;
        Ok(FunctionId { offset, seal: Self::seal(offset, executable) })
    }

    fn seal(offset: i64, executable: u64) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(&offset.to_le_bytes(), executable)
    }

    /// The builder with this id, if it is an id of the program whose executable has the hash `executable`.
    #[expect(unsafe_code, reason = "see the argument in the module's doc")]
    pub(crate) fn builder(self, executable: u64) -> Result<Builder, Failure> {
        let address = anchor().wrapping_add(self.offset as usize);
        if self.seal != Self::seal(self.offset, executable) || image_of(address) != image_of(anchor()) {
            return Err(Failure::new(JobErrorKind::Decode, "garbled message: no such function in this program"));
        }
        // SAFETY: the seal proves that `of` made this id in a process with the same executable, so that a `Builder`
        // stands at this offset from the anchor.
        Ok(unsafe { std::mem::transmute::<*const (), Builder>(address as *const ()) })
    }
}

/// A value of a function type that has no data.
#[expect(unsafe_code, reason = "see the argument in the module's doc")]
fn conjure<F: Copy>() -> F {
    const {
        assert!(
            size_of::<F>() == 0,
            "this closure captures variables, or is a function pointer, and cannot cross ranks: \
             pass what it captures as the context of `map_with`"
        );
    }
    // SAFETY: `F` has no bytes, so that any aligned address holds one; the driver has a value of it and could copy it.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

/// The trait of inputs, results and contexts: values that can cross ranks.
pub trait Value: Serialize + DeserializeOwned + 'static {}
impl<T: Serialize + DeserializeOwned + 'static> Value for T {}

fn decode_input<I: Value>(input: &[u8]) -> Result<I, Failure> {
    wire::decode_value(input).map_err(|error| {
        Failure::new(JobErrorKind::Decode, format!("the input cannot be read as {}: {error}", type_name::<I>()))
    })
}

fn encode_output<O: Value>(value: &O, output: &mut Vec<u8>) -> Result<(), Failure> {
    wire::encode_value(value, output).map_err(|error| {
        Failure::new(JobErrorKind::Encode, format!("the result, a {}, cannot be written: {error}", type_name::<O>()))
    })
}

/// Appends the encoding of a result, or returns the result if it is a large list.
fn take_output<O: Value>(value: O, output: &mut Vec<u8>) -> Result<Option<List>, Failure> {
    match List::from_value(value) {
        Ok(list) => Ok(Some(list)),
        Err(value) => encode_output(&value, output).map(|()| None),
    }
}

struct Plain<F, I, O>(F, PhantomData<fn(I) -> O>);

impl<F, I, O> JobFunction for Plain<F, I, O>
where
    F: Fn(I) -> O + Send + Sync,
    I: Value,
    O: Value,
{
    fn call(&self, input: &[u8], output: &mut Vec<u8>, stopwatch: &mut Stopwatch) -> Result<Option<List>, Failure> {
        let input = decode_input(input)?;
        take_output(stopwatch.time(|| (self.0)(input)), output)
    }
}

struct WithContext<F, C, I, O>(F, C, PhantomData<fn(I) -> O>);

impl<F, C, I, O> JobFunction for WithContext<F, C, I, O>
where
    F: Fn(&C, I) -> O + Send + Sync,
    C: Send + Sync,
    I: Value,
    O: Value,
{
    fn call(&self, input: &[u8], output: &mut Vec<u8>, stopwatch: &mut Stopwatch) -> Result<Option<List>, Failure> {
        let input = decode_input(input)?;
        take_output(stopwatch.time(|| (self.0)(&self.1, input)), output)
    }
}

/// A function of several arguments, called with a tuple of them.
pub trait StarFunction<Arguments> {
    /// What the function returns.
    type Output;

    /// Calls it.
    fn call_star(&self, arguments: Arguments) -> Self::Output;
}

macro_rules! star_function {
    ($($argument:ident)+) => {
        impl<Fun, Out, $($argument),+> StarFunction<($($argument,)+)> for Fun
        where
            Fun: Fn($($argument),+) -> Out,
        {
            type Output = Out;

            #[expect(non_snake_case, reason = "the macro names values after their types")]
            fn call_star(&self, ($($argument,)+): ($($argument,)+)) -> Out {
                self($($argument),+)
            }
        }
    };
}

star_function!(A B);
star_function!(A B C);
star_function!(A B C D);
star_function!(A B C D E);
star_function!(A B C D E G);

struct Star<F, I, O>(F, PhantomData<fn(I) -> O>);

impl<F, I, O> JobFunction for Star<F, I, O>
where
    F: StarFunction<I, Output = O> + Send + Sync,
    I: Value,
    O: Value,
{
    fn call(&self, input: &[u8], output: &mut Vec<u8>, stopwatch: &mut Stopwatch) -> Result<Option<List>, Failure> {
        let input = decode_input(input)?;
        take_output(stopwatch.time(|| self.0.call_star(input)), output)
    }
}

/// The state that `map_init` builds: at most one for each thread that works at the same time.
struct WithInit<S, N, F, I, O> {
    init: N,
    function: F,
    idle: Mutex<Vec<S>>,
    /// The first failure to build a state; it is not tried again on this rank.
    broken: Mutex<Option<Failure>>,
    types: PhantomData<fn(I) -> O>,
}

impl<S, N, F, I, O> WithInit<S, N, F, I, O>
where
    N: Fn() -> S,
{
    fn state(&self) -> Result<S, Failure> {
        if let Some(state) = lock(&self.idle).pop() {
            return Ok(state);
        }
        if let Some(failure) = lock(&self.broken).as_ref() {
            return Err(failure.clone());
        }
        catch(&self.init).map_err(|panic| {
            let failure = Failure {
                kind: JobErrorKind::Init,
                message: format!("the initialisation failed: {}", panic.message),
                location: panic.location,
            };
            lock(&self.broken).get_or_insert(failure).clone()
        })
    }
}

impl<S, N, F, I, O> JobFunction for WithInit<S, N, F, I, O>
where
    S: Send,
    N: Fn() -> S + Send + Sync,
    F: Fn(&mut S, I) -> O + Send + Sync,
    I: Value,
    O: Value,
{
    fn call(&self, input: &[u8], output: &mut Vec<u8>, stopwatch: &mut Stopwatch) -> Result<Option<List>, Failure> {
        let input = decode_input(input)?;
        let mut state = self.state()?;
        // A job that panics drops its state with it: what it left there is not known.
        let value = stopwatch.time(|| (self.function)(&mut state, input));
        lock(&self.idle).push(state);
        take_output(value, output)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The builder of a function of one input.
pub(crate) fn plain<F, I, O>(_: F) -> Builder
where
    F: Fn(I) -> O + Copy + Send + Sync + 'static,
    I: Value + 'static,
    O: Value + 'static,
{
    |_| Ok(Function::OfJobs(Box::new(Plain(conjure::<F>(), PhantomData))))
}

/// The builder of a function of several arguments.
pub(crate) fn star<F, I, O>(_: F) -> Builder
where
    F: StarFunction<I, Output = O> + Copy + Send + Sync + 'static,
    I: Value + 'static,
    O: Value + 'static,
{
    |_| Ok(Function::OfJobs(Box::new(Star(conjure::<F>(), PhantomData))))
}

/// The builder of a function of a context and an input.
pub(crate) fn with_context<F, C, I, O>(_: F) -> Builder
where
    F: Fn(&C, I) -> O + Copy + Send + Sync + 'static,
    C: Value + Send + Sync + 'static,
    I: Value + 'static,
    O: Value + 'static,
{
    |context| {
        let context = decode_context(context)?;
        Ok(Function::OfJobs(Box::new(WithContext(conjure::<F>(), context, PhantomData))))
    }
}

fn decode_context<C: Value>(context: &[u8]) -> Result<C, Failure> {
    wire::decode_value(context).map_err(|error| {
        Failure::new(JobErrorKind::Decode, format!("the context cannot be read as {}: {error}", type_name::<C>()))
    })
}

/// The jobs of a chunk, decoded.
pub(crate) struct ChunkJobs<'j, 'c, I, O> {
    jobs: &'j mut dyn Jobs<'c>,
    types: PhantomData<fn(I) -> O>,
}

impl<I: Value, O: Value> ChunkJobs<'_, '_, I, O> {
    /// The next job. `None`: there are no more.
    pub(crate) fn pull(&mut self) -> Option<I> {
        loop {
            match decode_input(self.jobs.pull()?) {
                Ok(input) => return Some(input),
                Err(failure) => self.jobs.refuse(failure),
            }
        }
    }

    /// The next job, whose byte strings share the memory of the chunk if they make up most of it. `None`: there are no more.
    #[cfg(feature = "program")]
    pub(crate) fn pull_sharing(&mut self) -> Option<I> {
        let message = self.jobs.message().clone();
        wire::with_message(&message, || self.pull())
    }

    /// Sends the results so far ahead of the end of the chunk. The driver gets them as [`Event::Early`](crate::pool::Event::Early).
    #[cfg(feature = "program")]
    pub(crate) fn send_ahead(&mut self) {
        self.jobs.send_ahead();
    }

    /// Gives back the last `count` jobs that were pulled, because one before them takes long. They were not started. They are pulled
    /// again, unless they go elsewhere.
    #[cfg(feature = "program")]
    pub(crate) fn give_back(&mut self, count: usize) {
        self.jobs.give_back(count);
    }

    /// Answers the oldest job that was pulled and not answered.
    pub(crate) fn answer(&mut self, value: &O) {
        self.jobs.answer(&mut |out| encode_output(value, out));
    }
}

/// What a rank keeps of a map whose chunks it serves as a whole. It is made once on every rank, and dropped when the map is
/// over.
pub(crate) trait ChunkServer: Send + Sync + 'static {
    type Context: Value;
    type Input: Value;
    type Output: Value;

    fn new(context: Self::Context) -> Self;

    /// Pulls as many jobs as it likes and answers them in that order.
    fn serve(&self, jobs: &mut ChunkJobs<'_, '_, Self::Input, Self::Output>);
}

struct OfChunks<S>(S);

impl<S: ChunkServer> ChunkFunction for OfChunks<S> {
    fn serve<'c>(&self, jobs: &mut dyn Jobs<'c>) {
        self.0.serve(&mut ChunkJobs { jobs, types: PhantomData });
    }
}

/// The builder of what serves the chunks of a map.
pub(crate) fn of_chunks<S: ChunkServer>() -> Builder {
    |context| Ok(Function::OfChunks(Box::new(OfChunks(S::new(decode_context(context)?)))))
}

/// The builder of a function of a state and an input, and of the function that makes the state.
pub(crate) fn with_init<S, N, F, I, O>(_: N, _: F) -> Builder
where
    S: Send + 'static,
    N: Fn() -> S + Copy + Send + Sync + 'static,
    F: Fn(&mut S, I) -> O + Copy + Send + Sync + 'static,
    I: Value + 'static,
    O: Value + 'static,
{
    |_| {
        Ok(Function::OfJobs(Box::new(WithInit {
            init: conjure::<N>(),
            function: conjure::<F>(),
            idle: Mutex::new(Vec::new()),
            broken: Mutex::new(None),
            types: PhantomData,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(function: Function) -> Box<dyn JobFunction> {
        match function {
            Function::OfJobs(function) => function,
            Function::OfChunks(_) => panic!("a function of chunks"),
        }
    }

    fn double(x: u32) -> u32 {
        2 * x
    }

    #[test]
    fn a_function_is_found_again_by_its_id_and_runs() {
        let id = FunctionId::of(plain(double), 7).unwrap();
        let function = built(id.builder(7).unwrap()(&[]).unwrap());
        let mut output = Vec::new();
        function.call(&wire::encode(&21u32).unwrap(), &mut output, &mut Stopwatch::default()).unwrap();
        assert_eq!(wire::decode::<u32>(&output).unwrap(), 42);
    }

    #[test]
    fn an_id_of_another_executable_or_a_garbled_one_is_refused() {
        let id = FunctionId::of(plain(double), 7).unwrap();
        assert!(id.builder(8).is_err());
        assert!(FunctionId { offset: id.offset + 16, ..id }.builder(7).is_err());
    }

    #[test]
    fn a_failed_initialisation_is_not_tried_again() {
        use std::sync::atomic::{AtomicU32, Ordering};
        static TRIES: AtomicU32 = AtomicU32::new(0);
        let init = || -> u8 {
            TRIES.fetch_add(1, Ordering::SeqCst);
            panic!("no model")
        };
        let function = built(with_init(init, |_: &mut u8, x: u8| x)(&[]).unwrap());
        for _ in 0..3 {
            let failure = function.call(&[1], &mut Vec::new(), &mut Stopwatch::default()).unwrap_err();
            assert_eq!(
                (failure.kind, failure.message.as_str()),
                (JobErrorKind::Init, "the initialisation failed: no model")
            );
        }
        assert_eq!(TRIES.load(Ordering::SeqCst), 1);
    }
}
