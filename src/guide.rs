//! A guide for programs that use rankpool. This module contains no code.
//!
//! * [What crosses ranks](#what-crosses-ranks), [and what does not](#what-does-not)
//! * [What runs where](#what-runs-where)
//! * [Errors](#errors)
//! * [Tests without MPI](#tests-without-mpi)
//! * [Jobs that use rayon](#jobs-that-use-rayon)
//! * [From other pools](#from-other-pools)
//!
//! # What crosses ranks
//!
//! **Values**: inputs, results, contexts and broadcast values implement serde's `Serialize` and `DeserializeOwned`;
//! [`Value`](crate::Value) is the trait for both. Derive them for your own types.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Task {
//!     name: String,
//!     samples: Vec<f64>,
//! }
//!
//! # rankpool::Launch::new().local(2).threads(1).run(|pool| {
//! let tasks = (0..3).map(|n| Task { name: format!("task {n}"), samples: vec![0.5; 10] });
//! let sums = pool.map(|task: Task| (task.name, task.samples.iter().sum::<f64>()), tasks);
//! for sum in sums {
//!     assert_eq!(sum?.1, 5.0);
//! }
//! # Ok(()) });
//! ```
//!
//! **Functions** cross as their position in the executable. So they must be plain functions, or closures that capture nothing.
//! Choose the method by what the function needs beside its input:
//!
//! | the function needs | use | it travels |
//! |---|---|---|
//! | only its input | [`map`](crate::Pool::map), [`submit`](crate::Pool::submit) | |
//! | inputs that you want to keep | [`map_ref`](crate::Pool::map_ref) | |
//! | several arguments | [`starmap`](crate::Pool::starmap), [`submit_star`](crate::Pool::submit_star) | |
//! | a value of the driver | [`map_with`](crate::Pool::map_with) | once to each rank, for one map |
//! | a value of the driver, in one job | [`submit_with`](crate::Pool::submit_with) | with the job |
//! | a large value, in many maps or jobs | [`broadcast`](crate::Pool::broadcast); use the returned [`Shared`](crate::Shared) as context or input | once to each rank |
//! | something that cannot travel, such as an open file | [`map_init`](crate::Pool::map_init) | never: it is made on the rank that uses it |
//!
//! ```
//! # rankpool::Launch::new().local(2).threads(1).run(|pool| {
//! let offset = 10;
//! // Not `|x: u64| x + offset`: this closure captures `offset`.
//! let sums: Vec<u64> = pool.map_with(offset, 0..3, |offset, x: u64| x + offset).collect::<Result<_, _>>()?;
//! assert_eq!(sums, [10, 11, 12]);
//! # Ok(()) });
//! ```
//!
//! **Large values** are fast if a whole input, result or context is a `Vec<f64>`, `Vec<f32>`, `Vec<u8>`, a boxed slice of these or a
//! `String`: it is copied, 50 MB in a few hundredths of a second. A result of at least 256 KiB that is a list of numbers of any kind, a
//! `String` or a `Bytes` is not copied at all, except by MPI: the list that the job has made is sent, and what arrives is the list that
//! the map yields or [`apply`](crate::Pool::apply) returns. [`JobHandle::wait`](crate::JobHandle::wait) copies it once, since it can be
//! called again. As a part of a tuple or a struct, a `Vec<f64>` takes about
//! twice as long and a `Vec<u8>` ten times, since serde processes one element after the other; for bytes in a struct,
//! use `#[serde(with = "serde_bytes")]` of the crate `serde_bytes`.
//!
//! # What does not
//!
//! * **A closure that captures** is refused when the program is built, with a message that names `map_with`. A closure that captures
//!   values which are not `Copy`, or that borrows, is refused by `cargo check` (do not follow the compiler's advice to add `move`);
//!   a closure that captures only `Copy` values is refused by `cargo build`, when the compiler knows the size of
//!   the closure.
//! * **A function pointer** (`fn(u32) -> u32` in a variable) is refused, too: pass the function itself.
//! * **Types that need a self-describing format**: `serde_json::Value`, `#[serde(untagged)]`, `#[serde(tag = "…")]`,
//!   `#[serde(flatten)]`, and fields with `#[serde(skip_serializing_if = "…")]`. The binary encoding contains neither names nor
//!   types. Wrap them in [`Json`](crate::Json). The error names it, but there is not always an error for `skip_serializing_if`: a
//!   value without a field may be decoded as another value.
//! * **Borrowed data** (`&str` as an input): the other rank could not own it. Use `String`, or
//!   [`map_ref`](crate::Pool::map_ref) over values that you keep.
//! * **Resources of one process**: files, sockets, locks, channels, `Rc`. An `Arc` crosses as a copy of its value.
//! * **Statics**: each rank has its own, and a change on one rank is not seen by the others.
//!
//! # What runs where
//!
//! `mpiexec -n 4 program` starts four processes, and each executes `main`. The closure passed to [`launch`](crate::launch()) runs on
//! rank 0 only; in the meantime the other ranks compute, inside `launch`. Rank 0 computes, too.
//!
//! | code | runs |
//! |---|---|
//! | in `main`, before `launch` | on every rank: read arguments, set up logging; print nothing |
//! | the driver, which is the closure passed to `launch` | once, on rank 0, on a thread of its own |
//! | functions passed to `map`, `submit` and so on | on every rank, on its compute threads |
//! | iterators of inputs, loops over results, callbacks | on rank 0 |
//! | in `main`, after `launch` | on every rank, when the run is over |
//! | in `main`, after [`launch_value`](crate::launch_value) | on rank 0 only: the others never return from it |
//!
//! [`is_driver`](crate::is_driver) returns whether this process is rank 0. [`current_job`](crate::current_job) returns, in a
//! job, the job's number and rank.
//!
//! ```no_run
//! // In `main`, on every rank.
//! let n = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100);
//! if rankpool::is_driver() {
//!     println!("the first {n} squares");
//! }
//! let squares: Vec<u64> = rankpool::launch_value(|pool| {
//!     // On rank 0; the function of the map on every rank.
//!     Ok(pool.map(|x: u64| x * x, 0..n).collect::<Result<_, _>>()?)
//! });
//! // On rank 0.
//! println!("{squares:?}");
//! ```
//!
//! # Errors
//!
//! A job that panics gives one `Err` with a [`JobError`](crate::JobError), and the others go on. Its
//! [`kind`](crate::JobError::kind) distinguishes a panic from an input that cannot be serialised, a time limit, a lost rank and so
//! on.
//!
//! ```
//! use rankpool::JobErrorKind;
//!
//! # rankpool::Launch::new().local(2).threads(1).run(|pool| {
//! let roots = pool.map(|x: i32| if x < 0 { panic!("{x} is negative") } else { f64::from(x).sqrt() }, [4, -1, 9]);
//! let (good, bad): (Vec<_>, Vec<_>) = roots.partition(Result::is_ok);
//! assert_eq!(good, [Ok(2.0), Ok(3.0)]);
//! let error = bad[0].as_ref().unwrap_err();
//! assert_eq!((error.kind, error.job, &*error.message), (JobErrorKind::Panic, 1, "-1 is negative"));
//! # Ok(()) });
//! ```
//!
//! A function that can fail returns a `Result` as its value. Its error must be able to cross ranks, as a `String` can.
//!
//! ```
//! # rankpool::Launch::new().local(2).threads(1).run(|pool| {
//! let parse = |text: String| text.parse::<u32>().map_err(|error| error.to_string());
//! let parsed: Vec<Result<u32, String>> = pool.map(parse, ["7".into(), "x".into()]).collect::<Result<_, _>>()?;
//! assert_eq!(parsed[0], Ok(7));
//! assert!(parsed[1].is_err());
//! # Ok(()) });
//! ```
//!
//! `?` on a job's error ends the driver, and the run with exit code 3; any other error, or a panic of the driver, is exit code
//! 1 (see [`ExitCode`](crate::ExitCode)). When a process dies by `abort` or a signal, most launchers end the whole run; with those that
//! let the other ranks live, these do its jobs (see [`Launch::lost_after`](crate::Launch::lost_after)). A program that is built with `panic = "abort"` dies at the first panic.
//!
//! # Tests without MPI
//!
//! [`Launch::local`](crate::Launch::local) runs the ranks as threads of one process. All else is as under MPI:
//! values are serialised, functions must not capture.
//!
//! ```
//! fn density(x: f64) -> f64 {
//!     (-x * x / 2.0).exp()
//! }
//!
//! // In a function with `#[test]`.
//! let densities: Vec<f64> = rankpool::Launch::new().local(2).threads(2).run_value(|pool| {
//!     Ok(pool.map(density, [0.0, 1.0]).collect::<Result<_, _>>()?)
//! });
//! assert_eq!(densities[0], 1.0);
//! ```
//!
//! Write the driver as a function of `&Pool`, so that both `main` and the tests can call it. In a test that expects an error, use
//! [`Launch::run`](crate::Launch::run), which returns an exit code: `run_value` ends the process. Local ranks share statics, unlike
//! ranks under MPI. `RANKPOOL_LOCAL=4` in the environment gives a program that calls `launch` four local ranks.
//!
//! # Jobs that use rayon
//!
//! Compute threads are rayon threads. If a job uses `par_iter`, `join` or `scope` of the crate `rayon`, idle threads of its rank
//! help, and no further threads are started. While the job waits, no other job begins on its stack,
//! so it may hold a lock or a borrowed cell. This helps if there are few long jobs: many jobs keep all threads busy by themselves.
//!
//! For libraries with threads of their own (BLAS, OpenMP) start fewer compute threads:
//! [`Launch::cpus_per_job`](crate::Launch::cpus_per_job). The pool itself cannot be used in a job: let the job return the next
//! inputs to the driver.
//!
//! # From other pools
//!
//! | `multiprocessing` | `concurrent.futures`, `mpi4py.futures` | `joblib` | rankpool |
//! |---|---|---|---|
//! | `with Pool(8) as pool:` | `with MPIPoolExecutor() as ex:` | `Parallel(n_jobs=8)` | `mpiexec -n 8`, [`launch`](crate::launch()) |
//! | `if __name__ == "__main__":` | the same | | [`is_driver`](crate::is_driver), or in the driver |
//! | `pool.map(f, xs)` | `list(ex.map(f, xs))` | `Parallel()(delayed(f)(x) for x in xs)` | `pool.map(f, xs).collect::<Result<_, _>>()?` |
//! | `pool.imap(f, xs)` | `ex.map(f, xs)` | `return_as="generator"` | [`pool.map(f, xs)`](crate::Pool::map), which is lazy |
//! | `pool.imap_unordered(f, xs)` | `ex.map(f, xs, unordered=True)` | `return_as="generator_unordered"` | [`.unordered()`](crate::Map::unordered) |
//! | `chunksize=100` | `chunksize=100` | `batch_size=100` | [`.chunk_size(100)`](crate::Map::chunk_size); the default follows the duration of the jobs |
//! | `pool.starmap(f, pairs)` | `ex.starmap(f, pairs)` | `delayed(f)(*pair)` | [`pool.starmap(f, pairs)`](crate::Pool::starmap) |
//! | `functools.partial(f, c)` | the same | `delayed(f)(c, x)` | [`pool.map_with(c, xs, f)`](crate::Pool::map_with) |
//! | `initializer=load` | `initializer=load` | | [`pool.map_init(load, xs, f)`](crate::Pool::map_init) |
//! | `pool.apply_async(f, (x,))` | `ex.submit(f, x)` | | [`pool.submit(f, x)`](crate::Pool::submit) |
//! | `pool.apply_async(f, (x, y))` | `ex.submit(f, x, y)` | | [`pool.submit_star(f, (x, y))`](crate::Pool::submit_star) |
//! | `pool.apply(f, (x,))` | `ex.submit(f, x).result()` | | [`pool.apply(f, x)`](crate::Pool::apply) |
//! | `result.get(timeout=5)` | `future.result(timeout=5)` | | [`handle.wait_timeout(d)`](crate::JobHandle::wait_timeout) |
//! | `callback=g` | `future.add_done_callback(g)` | | [`handle.on_done(g)`](crate::JobHandle::on_done) |
//! | | `future.cancel()` | | [`handle.cancel()`](crate::JobHandle::cancel) |
//! | | `as_completed(futures)` | | [`as_completed(handles)`](crate::as_completed), which can [`add`](crate::AsCompleted::add) |
//! | | `wait(futures, return_when=…)` | | [`wait_all`](crate::wait_all), [`wait_any`](crate::wait_any), [`wait_failed`](crate::wait_failed) |
//! | `maxtasksperchild` | | | none: ranks are not restarted |
//! | an exception is raised by `get` | by `result` | by the call | an [`Err`](crate::JobError) for each job that failed |
//! | a global array, shared by `fork` | the same | `mmap_mode="r"` | [`pool.broadcast(array)`](crate::Pool::broadcast) |
//!
//! With `mpi4py` itself, `comm.bcast` becomes `broadcast`, and `comm.scatter` with `comm.gather` becomes `map`, whose results are
//! gathered on rank 0. Ranks do not send each other messages.
