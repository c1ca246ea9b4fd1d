//! Variants of `map` and `submit`: inputs by reference, with a context, as a tuple of arguments.

use std::any::type_name;

use bytes::Bytes;

use super::{Input, JobHandle, Map, Pool, encode_input};
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::func::{self, CrossesRanks, StarFunction, Value};
use crate::engine::wire;

/// A reference to an input that the driver keeps.
pub struct ByRef<'x, I>(&'x I);

impl<I: Value> Input for ByRef<'_, I> {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), String> {
        self.0.write(out)
    }
}

/// The inputs of [`Pool::map_ref`].
pub struct ByRefs<X>(X);

impl<'x, I: 'x, X: Iterator<Item = &'x I>> Iterator for ByRefs<X> {
    type Item = ByRef<'x, I>;

    fn next(&mut self) -> Option<ByRef<'x, I>> {
        self.0.next().map(ByRef)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl Pool {
    /// As [`map`](Self::map), over inputs that the driver keeps: the function takes a reference, as with `xs.iter().map(f)`.
    ///
    /// Inputs are serialised without a clone.
    ///
    /// ```
    /// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
    /// let words = vec!["a".to_string(), "bcd".to_string()];
    /// let lengths: Vec<usize> = pool.map_ref(|word: &String| word.len(), &words).collect::<Result<_, _>>()?;
    /// assert_eq!(lengths, [1, 3]);
    /// assert_eq!(words[1], "bcd");
    /// # Ok(()) });
    /// ```
    pub fn map_ref<'x, F, I, X, O>(&self, function: F, inputs: X) -> Map<'_, ByRefs<X::IntoIter>, O>
    where
        I: Value,
        X: IntoIterator<Item = &'x I>,
        F: Fn(&I) -> O + CrossesRanks,
        O: Value,
    {
        Map::new(self, func::by_reference(function), Ok(Bytes::new()), ByRefs(inputs.into_iter()), type_name::<F>())
    }

    /// As [`submit`](Self::submit), for a function that also takes a context, which replaces captured variables.
    ///
    /// The context travels with the job. If it is large and many jobs have the same one, [`broadcast`](Self::broadcast) it and
    /// pass the returned [`Shared`](crate::Shared) as the context.
    ///
    /// ```
    /// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
    /// let exponent = 3;
    /// let handle = pool.submit_with(exponent, |exponent, x: u64| x.pow(*exponent), 2);
    /// assert_eq!(handle.wait()?, 8);
    ///
    /// let table = pool.broadcast(vec![10, 20, 30])?;
    /// let handles = [0, 2].map(|i| pool.submit_with(table.clone(), |table, i: usize| table[i], i));
    /// assert_eq!(handles[1].wait()?, 30);
    /// # Ok(()) });
    /// ```
    pub fn submit_with<C, F, I, O>(&self, context: C, function: F, input: I) -> JobHandle<O>
    where
        C: Value,
        F: Fn(&C, I) -> O + CrossesRanks,
        I: Value,
        O: Value,
    {
        let write_context = |out: &mut Vec<u8>| {
            wire::encode_value(&context, out).map_err(|error| {
                Failure::new(JobErrorKind::Encode, format!("the context of the job cannot be serialised: {error}"))
            })
        };
        self.submit_encoded(func::with_own_context(function), |out| {
            func::write_with_context(out, write_context, |out| encode_input(&input, out))
        })
    }

    /// As [`submit`](Self::submit), for a function of several arguments and a tuple of them.
    ///
    /// ```
    /// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
    /// fn power(base: u64, exponent: u32) -> u64 { base.pow(exponent) }
    /// assert_eq!(pool.submit_star(power, (2, 10)).wait()?, 1024);
    /// # Ok(()) });
    /// ```
    pub fn submit_star<F, I, O>(&self, function: F, arguments: I) -> JobHandle<O>
    where
        F: StarFunction<I, Output = O> + CrossesRanks,
        I: Value,
        O: Value,
    {
        self.submit_encoded(func::star(function), |out| encode_input(&arguments, out))
    }
}
