//! A guide for programs that use rankpool. There is no code in here.
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
//! **Values**: inputs, results, contexts and broadcast values are what serde can write and read again without borrowing:
//! `Serialize` and `DeserializeOwned`, which [`Value`](crate::Value) stands for. Derive both for your own types.
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
//! **Functions** cross as their place in the executable, so plain functions, and closures that capture nothing. What a closure
//! would capture is handed over by the method:
//!
//! | the function needs | use | it travels |
//! |---|---|---|
//! | nothing but its input | [`map`](crate::Pool::map), [`submit`](crate::Pool::submit) | |
//! | inputs that you want to keep | [`map_ref`](crate::Pool::map_ref) | |
//! | several arguments | [`starmap`](crate::Pool::starmap), [`submit_star`](crate::Pool::submit_star) | |
//! | a value of the driver | [`map_with`](crate::Pool::map_with) | once to each rank, for one map |
//! | a value of the driver, in one job | [`submit_with`](crate::Pool::submit_with) | with the job |
//! | a large value, in many maps or jobs | [`broadcast`](crate::Pool::broadcast), and what it returns as context or input | once to each rank |
//! | something that cannot travel, such as an open file | [`map_init`](crate::Pool::map_init) | never: it is made where it is used |
//!
//! ```
//! # rankpool::Launch::new().local(2).threads(1).run(|pool| {
//! let offset = 10;
//! // Not `|x: u64| x + offset`: that captures.
//! let sums: Vec<u64> = pool.map_with(offset, 0..3, |offset, x: u64| x + offset).collect::<Result<_, _>>()?;
//! assert_eq!(sums, [10, 11, 12]);
//! # Ok(()) });
//! ```
//!
//! **Large values** are fast as `Vec<f64>`, `Vec<f32>`, `Vec<u8>`, boxed slices of these and `String`, as a whole input, result or
//! context: they are copied, 50 MB in a few hundredths of a second. As a part of a tuple or a struct, a `Vec<f64>` takes about
//! twice as long and a `Vec<u8>` ten times, since serde hands over one element after the other; for bytes in a struct,
//! `#[serde(with = "serde_bytes")]` of the crate `serde_bytes` helps.
//!
//! # What does not
//!
//! * **A closure that captures** is refused when the program is built, with a message that names `map_with`. One that captures
//!   values which are not `Copy` is refused by `cargo check` already, as is one that borrows (the compiler then proposes `move`,
//!   which is not the way); one that captures only `Copy` values is refused by `cargo build`, when the compiler knows how large
//!   the closure is.
//! * **A function pointer** (`fn(u32) -> u32` in a variable) is refused likewise: hand over the function itself.
//! * **Types that read themselves by looking**: `serde_json::Value`, `#[serde(untagged)]`, `#[serde(tag = "…")]`,
//!   `#[serde(flatten)]`, and fields with `#[serde(skip_serializing_if = "…")]`. The binary form has neither names nor types in it. Wrap
//!   them in [`Json`](crate::Json); the errors say so where they can. Of `skip_serializing_if` they cannot always: a value
//!   that misses a field may be read as another one.
//! * **Borrowed data** (`&str` as an input): it could not be owned on the other side. Use `String`, or
//!   [`map_ref`](crate::Pool::map_ref) over values that you keep.
//! * **What lives in one process**: files, sockets, locks, channels, `Rc`. An `Arc` crosses as a copy of what is in it.
//! * **Statics**: each rank has its own, and changes stay where they are made.
//!
//! # What runs where
//!
//! `mpiexec -n 4 program` starts four processes, and each executes `main`. The closure given to [`launch`](crate::launch()) runs on
//! rank 0 only; in the meantime the other ranks compute, inside of `launch`. Rank 0 computes, too.
//!
//! | code | runs |
//! |---|---|
//! | in `main`, before `launch` | on every rank: read arguments, set up logging; print nothing |
//! | the driver, which is the closure given to `launch` | once, on rank 0, on a thread of its own |
//! | functions given to `map`, `submit` and so on | on every rank, on its compute threads |
//! | iterators of inputs, loops over results, callbacks | on rank 0 |
//! | in `main`, behind `launch` | on every rank, when the run is over |
//! | in `main`, behind [`launch_value`](crate::launch_value) | on rank 0 only: the others never return from it |
//!
//! [`is_driver`](crate::is_driver) says whether this process is that of rank 0. [`current_job`](crate::current_job) says, in a
//! job, which one it is and on which rank.
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
//! A job that panics is one `Err` of a [`JobError`](crate::JobError), and the others go on. Its
//! [`kind`](crate::JobError::kind) tells a panic from an input that cannot be written, a time limit, a lost rank and so on.
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
//! A function that can fail returns a `Result` as its value. Its error must be able to cross ranks: a `String` is.
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
//! 1 (see [`ExitCode`](crate::ExitCode)). When a process dies, of `abort` or a signal, the whole run ends: that is MPI's rule. A
//! program that is built with `panic = "abort"` dies of the first panic.
//!
//! # Tests without MPI
//!
//! [`Launch::local`](crate::Launch::local) makes ranks of threads. They are of one process, and all else is as under MPI:
//! values are written and read, functions must not capture.
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
//! Write the driver as a function of `&Pool`, and both `main` and the tests can call it. Where an error is expected, let
//! [`Launch::run`](crate::Launch::run) return it as an exit code: `run_value` ends the process. Statics are shared by local ranks,
//! which they are not under MPI. `RANKPOOL_LOCAL=4` in the environment makes local ranks of a program that calls `launch`.
//!
//! # Jobs that use rayon
//!
//! Compute threads are rayon threads. A job that uses `par_iter`, `join` or `scope` of the crate `rayon` is helped by the threads
//! of its rank that have nothing to do, and makes no threads of its own. While it waits, no other job begins on its stack,
//! so it may hold a lock or a borrowed cell. That is for few long jobs: many jobs keep all threads busy by themselves.
//!
//! For libraries with threads of their own (BLAS, OpenMP) start fewer compute threads:
//! [`Launch::cpus_per_job`](crate::Launch::cpus_per_job). The pool itself cannot be used in a job: return to the driver what is to
//! be done next.
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
//! | `chunksize=100` | `chunksize=100` | `batch_size=100` | [`.chunk_size(100)`](crate::Map::chunk_size); by itself it follows the jobs |
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
//! | `maxtasksperchild` | | | none: ranks are not started anew |
//! | an exception is raised by `get` | by `result` | by the call | an [`Err`](crate::JobError) for each job that failed |
//! | a global array, shared by `fork` | the same | `mmap_mode="r"` | [`pool.broadcast(array)`](crate::Pool::broadcast) |
//!
//! With `mpi4py` itself, what was `comm.bcast`, `comm.scatter` and `comm.gather` is `broadcast`, and `map`, whose results are gathered
//! on rank 0. Ranks do not talk to each other.
