"""A joblib backend: `Parallel(n_jobs=-1)` and scikit-learn's searches on all workers of the run.

    import rankpool.joblib
    rankpool.joblib.register()                   # "rankpool" is now joblib's default backend

    with joblib.parallel_config(backend="rankpool", n_jobs=-1):     # or, after register(make_default=False)
        ...

* joblib makes the batches, as for its own process backend.
* Inside a job, `Parallel` runs one job after the other, and OpenMP, BLAS and MKL get the host's CPUs divided by its
  workers (or `inner_max_num_threads`): nested parallelism does not start more threads than there are CPUs.
* An array of 1 MiB or more that several jobs of one `Parallel` call receive is sent once to each worker (joblib's own
  backend writes it to a file instead). Jobs must not write into it. `max_nbytes=None` turns this off.
"""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import Future
from types import FunctionType
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from joblib._parallel_backends import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)
from joblib.parallel import parallel_config, register_parallel_backend

from . import is_worker
from ._functions import is_importable
from .executor import Executor
from ._share import Shared, share

__all__ = ["RankpoolBackend", "register"]

#: Arrays from this size on are sent once to each worker if several jobs of one call receive them.
SHARE_FROM_BYTES = 1 << 20

_executors: Dict[Tuple[Any, ...], Executor] = {}
_executors_lock = threading.Lock()
_executors_kept = 2
_names: Set[str] = set()  # under which joblib knows the backend


def register(name: str = "rankpool", make_default: bool = True) -> None:
    """Makes the backend known to joblib as `name`, and its default unless `make_default` is False."""
    register_parallel_backend(name, RankpoolBackend, make_default=make_default)
    _names.add(name)


class RankpoolBackend(AutoBatchingMixin, ParallelBackendBase):
    """joblib's batches as rankpool's jobs. Options beyond joblib's own go to `rankpool.Executor`: `retries`,
    `launcher`, `preload`, `job_timeout` (the time limit of each batch, as the executor's `timeout`)."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    supports_sharedmem = False
    uses_threads = False
    default_n_jobs = -1

    # These belong to joblib's own backends: they are accepted, so that a script runs as it is, and have no effect.
    _JOBLIB_OPTIONS = ("idle_worker_timeout", "temp_folder", "mmap_mode", "context", "prefer", "require", "verbose")

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._workers: Optional[Executor] = None
        self._futures: "weakref.WeakSet[Future[Any]]" = weakref.WeakSet()
        self._shares = _Shares(SHARE_FROM_BYTES)

    def effective_n_jobs(self, n_jobs: Optional[int]) -> int:
        """How many jobs run at the same time: -1 stands for all workers, -2 for all but one."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or is_worker():
            return 1
        if n_jobs < 0:
            return max(_connected(self._executor_options()).num_workers + 1 + n_jobs, 1)
        return n_jobs

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **options: Any
    ) -> int:
        """Prepares for a `Parallel` call and returns how many jobs run at the same time."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        limit = options.get("max_nbytes", self.backend_kwargs.get("max_nbytes", SHARE_FROM_BYTES))
        self._shares = _Shares(_as_bytes(limit))
        self._workers = _executor(n_jobs, self.inner_max_num_threads, self._executor_options(options))
        self.parallel = parallel
        return n_jobs

    def submit(self, func: Any, callback: Optional[Callable[[Any], Any]] = None) -> "Future[Any]":
        """Begins one batch."""
        if self._workers is None:
            raise RuntimeError("the rankpool backend is not configured; use it through joblib.Parallel")
        items = getattr(func, "items", None)
        if items is None:
            future = self._workers.submit(func)
        else:
            shares = self._shares
            items = [(shares.function(f), shares.replace(args), shares.replace(kwargs)) for f, args, kwargs in items]
            future = self._workers.submit(_run_batch, items, func._backend, func._n_jobs)
        self._futures.add(future)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future: "Future[Any]") -> Any:
        """The values of a batch that has ended."""
        return future.result()

    def get_nested_backend(self) -> Tuple[ParallelBackendBase, Optional[int]]:
        """Inside a job, `Parallel` runs its jobs one after the other."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def terminate(self) -> None:
        """Ends a `Parallel` call. The workers stay for the next one."""
        self._workers = None
        self._shares.clear()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Drops the batches that have not begun; those that run end by themselves, and nothing waits for them."""
        for future in list(self._futures):
            future.cancel()
        self._futures.clear()
        self.terminate()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    def _executor_options(self, options: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        options = {**self.backend_kwargs, **(options or {})}
        options = {key: value for key, value in options.items() if key not in self._JOBLIB_OPTIONS}
        options.pop("max_nbytes", None)
        if "timeout" in options:
            raise ValueError("`timeout` belongs to joblib.Parallel; the time limit of each batch is `job_timeout`")
        if "job_timeout" in options:
            options["timeout"] = options.pop("job_timeout")
        return options


class _Shares:
    """The large arrays of one `Parallel` call: from the second job on that receives one, a handle goes in its place."""

    def __init__(self, limit: Optional[int]):
        self._limit = limit
        self._seen: Dict[int, Any] = {}
        self._shared: Dict[int, Any] = {}

    def clear(self) -> None:
        self._seen.clear()
        self._shared.clear()

    def function(self, function: Any) -> Any:
        """A function that travels with what it captures is sent once to each worker, not with each batch."""
        if type(function) is not FunctionType or is_importable(function):
            return function
        key = id(function)
        if key not in self._shared:
            self._shared[key] = (share(function), function)
        return self._shared[key][0]

    def replace(self, values: Any) -> Any:
        """`values` (a tuple or a dict of arguments) with handles in the place of large arrays."""
        if self._limit is None:
            return values
        if isinstance(values, dict):
            return {key: self._replace_one(value) for key, value in values.items()}
        return tuple([self._replace_one(value) for value in values])

    def _replace_one(self, value: Any) -> Any:
        if (
            self._limit is None
            or getattr(value, "nbytes", 0) < self._limit
            or not hasattr(value, "__array_interface__")
        ):
            return value
        key = id(value)
        if key in self._shared:
            return self._shared[key][0]
        seen = self._seen.get(key)
        if seen is not None and seen() is value:
            # The pair keeps the array: its id stays its own during this call.
            self._shared[key] = (share(value), value)
            return self._shared[key][0]
        try:
            self._seen[key] = weakref.ref(value)
        except TypeError:
            pass  # an array-like object without weak references is sent with each job
        return value


def _run_batch(items: List[Tuple[Any, Any, Any]], backend: Any, n_jobs: Optional[int]) -> List[Any]:
    """In a worker: the jobs of one batch."""
    with parallel_config(backend=backend, n_jobs=n_jobs):
        return [
            _object(function)(*map(_object, args), **{name: _object(value) for name, value in kwargs.items()})
            for function, args, kwargs in items
        ]


def _object(value: Any) -> Any:
    return value.get() if isinstance(value, Shared) else value


def _prepare_worker(names: Sequence[str], explicit: Optional[int], n_jobs: Optional[int]) -> None:
    """In a worker, before its first batch: the backend's names, for jobs that ask for it, and how many threads OpenMP,
    BLAS and MKL may start.

    As joblib's own process backend: a limit that the user has set in the environment stays unless
    `inner_max_num_threads` is given.
    """
    for name in names:
        register(name, make_default=False)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = explicit if explicit is not None else max(cpus // max(n_jobs or cpus, 1), 1)
    for name in ParallelBackendBase.MAX_NUM_THREADS_VARS:
        if explicit is not None or name not in os.environ:
            os.environ[name] = str(limit)
    os.environ.setdefault(ParallelBackendBase.TBB_ENABLE_IPC_VAR, "1")
    try:
        # For libraries that are loaded already: the variables come too late for them.
        import threadpoolctl
    except ImportError:
        return
    threadpoolctl.threadpool_limits(limits=limit)


def _connected(options: Dict[str, Any]) -> Executor:
    """An executor from which the number of all workers is asked."""
    return _executor(None, None, options)


def _executor(n_jobs: Optional[int], threads: Optional[int], options: Dict[str, Any]) -> Executor:
    """The executor for these settings: kept from call to call, so that its workers stay."""
    key = (n_jobs, threads, tuple(sorted((name, repr(value)) for name, value in options.items())))
    with _executors_lock:
        executor = _executors.pop(key, None)
        if executor is None or getattr(executor, "_shutdown", False) or getattr(executor, "_broken", False):
            initargs = (sorted(_names), threads, n_jobs)
            executor = Executor(n_jobs, initializer=_prepare_worker, initargs=initargs, **options)
        _executors[key] = executor  # the last one in the dictionary is the one that was used last
        while len(_executors) > _executors_kept:
            _executors.pop(next(iter(_executors))).shutdown(wait=False)
        return executor


def _as_bytes(limit: Any) -> Optional[int]:
    """joblib's `max_nbytes`: a number, a text such as "1M", or None."""
    if not isinstance(limit, str):
        return limit
    return int(float(limit[:-1]) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[limit[-1].upper()])
