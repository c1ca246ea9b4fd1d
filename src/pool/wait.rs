//! Waiting for several handles at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::future::Completions;
use super::handle::JobHandle;

/// The result of waiting for several handles: which jobs have ended, as ascending indexes into the slice of handles.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waited {
    /// The jobs that have ended: with a result, with an error, or cancelled.
    pub done: Vec<usize>,
    /// The jobs that had not ended when the wait was over.
    pub pending: Vec<usize>,
}

fn wait_until<O>(handles: &[JobHandle<O>], limit: Option<Duration>, enough: impl Fn(usize, bool) -> bool) -> Waited {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let completions = Arc::new(Completions::default());
    for (index, handle) in handles.iter().enumerate() {
        handle.state().report_to(&completions, index);
    }
    let mut done = BTreeSet::new();
    let mut any_failed = false;
    // All jobs that have already ended are counted, even if fewer would be enough.
    let mut take_ended = |done: &mut BTreeSet<usize>| {
        while let Some((index, failed)) = completions.lock().pop_front() {
            done.insert(index);
            any_failed |= failed;
        }
        any_failed
    };
    let mut failed = take_ended(&mut done);
    while done.len() < handles.len() && !enough(done.len(), failed) {
        let Some((index, job_failed)) = completions.next(deadline) else { break };
        done.insert(index);
        failed = take_ended(&mut done) || failed || job_failed;
    }
    let pending = (0..handles.len()).filter(|index| !done.contains(index)).collect();
    Waited { done: done.into_iter().collect(), pending }
}

/// Waits until at least one of the jobs has ended, or the time is over.
///
/// # Panics
/// Without a limit, in a job or in a callback, where the wait might never end.
pub fn wait_any<O>(handles: &[JobHandle<O>], limit: Option<Duration>) -> Waited {
    wait_until(handles, limit, |done, _| done > 0)
}

/// Waits until all of the jobs have ended, or the time is over.
///
/// # Panics
/// Without a limit, in a job or in a callback, where the wait might never end.
pub fn wait_all<O>(handles: &[JobHandle<O>], limit: Option<Duration>) -> Waited {
    wait_until(handles, limit, |_, _| false)
}

/// Waits until one of the jobs has failed or all have ended, or the time is over.
///
/// # Panics
/// Without a limit, in a job or in a callback, where the wait might never end.
pub fn wait_failed<O>(handles: &[JobHandle<O>], limit: Option<Duration>) -> Waited {
    wait_until(handles, limit, |_, failed| failed)
}

/// An iterator of handles in the order in which their jobs end; see [`as_completed`].
pub struct AsCompleted<O> {
    completions: Arc<Completions>,
    /// The handles that were not yielded, by their indexes in `completions`.
    handles: BTreeMap<usize, JobHandle<O>>,
    /// Their jobs, by the addresses of the states that handles of one job share.
    jobs: BTreeSet<usize>,
    next: usize,
    deadline: Option<Instant>,
}

/// Yields handles as their jobs end, first those that have already ended. A job that is given twice is yielded once.
///
/// Without a time-out, `next` panics in a job or in a callback, where the wait might never end.
///
/// ```
/// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
/// let handles = (1..=3).map(|x: u64| pool.submit(|x: u64| x * x, x));
/// let mut squares = Vec::new();
/// for done in rankpool::as_completed(handles) {
///     squares.push(done.wait()?);
/// }
/// squares.sort();
/// assert_eq!(squares, [1, 4, 9]);
/// # Ok(()) });
/// ```
pub fn as_completed<O>(handles: impl IntoIterator<Item = JobHandle<O>>) -> AsCompleted<O> {
    let completions = Arc::new(Completions::default());
    let mut completed =
        AsCompleted { completions, handles: BTreeMap::new(), jobs: BTreeSet::new(), next: 0, deadline: None };
    for handle in handles {
        completed.add(handle);
    }
    completed
}

fn address<O>(handle: &JobHandle<O>) -> usize {
    Arc::as_ptr(handle.state()) as usize
}

impl<O> AsCompleted<O> {
    /// Adds a job. A job that was added before and was not yielded yet is not added a second time.
    ///
    /// ```
    /// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
    /// let halve = |x: u64| x / 2;
    /// let mut completed = rankpool::as_completed([pool.submit(halve, 40)]);
    /// let mut values = Vec::new();
    /// while let Some(done) = completed.next() {
    ///     values.push(done.wait()?);
    ///     if values[values.len() - 1] > 1 {
    ///         completed.add(pool.submit(halve, values[values.len() - 1]));
    ///     }
    /// }
    /// assert_eq!(values, [20, 10, 5, 2, 1]);
    /// # Ok(()) });
    /// ```
    pub fn add(&mut self, handle: JobHandle<O>) {
        if self.jobs.insert(address(&handle)) {
            handle.state().report_to(&self.completions, self.next);
            self.handles.insert(self.next, handle);
            self.next += 1;
        }
    }

    /// Ends the iteration `limit` from now. Jobs that have ended by then are still yielded.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.deadline = Instant::now().checked_add(limit);
        self
    }

    /// Returns the number of jobs that were not yielded yet.
    pub fn pending(&self) -> usize {
        self.handles.len()
    }
}

impl<O> Iterator for AsCompleted<O> {
    type Item = JobHandle<O>;

    fn next(&mut self) -> Option<JobHandle<O>> {
        if self.handles.is_empty() {
            return None;
        }
        let (index, _) = self.completions.next(self.deadline)?;
        let handle = self.handles.remove(&index)?;
        self.jobs.remove(&address(&handle));
        Some(handle)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.handles.len()))
    }
}
