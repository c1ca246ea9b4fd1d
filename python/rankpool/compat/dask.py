"""The names of `dask.distributed` on rankpool's workers: futures, not graphs.

    from rankpool.compat.dask import Client      # was: from dask.distributed import Client

`Client.submit`, `map`, `gather` and `scatter`, futures as arguments of other jobs, `as_completed`, `wait`. There is no
scheduler process, no dashboard, and no collections: arrays, dataframes and `delayed` graphs need Dask itself.
"""

from __future__ import annotations

import itertools
import queue
import uuid
from concurrent import futures as _futures
from concurrent.futures import CancelledError, TimeoutError
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set

from ..executor import Executor
from .._share import Shared, share
from ._common import AfterOthers

__all__ = [
    "CancelledError",
    "Client",
    "Future",
    "LocalCluster",
    "TimeoutError",
    "as_completed",
    "fire_and_forget",
    "get_client",
    "wait",
]

_client: Optional["Client"] = None

#: Options of `submit`, `map` and `scatter` that say where and in which order Dask runs a job: accepted, no effect.
_WITHOUT_EFFECT = (
    "workers resources allow_other_workers actor actors pure priority fifo_timeout direct hash asynchronous batch_size"
).split()


class Future:
    """The result of a job, now or later, as `distributed.Future`. It can be an argument of other jobs."""

    def __init__(self, job: "_futures.Future[Any]", key: str, data: Optional[Shared[Any]] = None):
        self._job, self.key, self._data = job, key, data

    @property
    def status(self) -> str:
        """`pending`, `finished`, `error` or `cancelled`."""
        if not self._job.done():
            return "pending"
        if self._job.cancelled():
            return "cancelled"
        return "finished" if self._job.exception() is None else "error"

    def result(self, timeout: Any = None) -> Any:
        """The value, or the exception of the job. Raises `TimeoutError` after `timeout` seconds."""
        return self._job.result(_seconds(timeout))

    def exception(self, timeout: Any = None) -> Optional[BaseException]:
        """The exception of the job, or None."""
        return self._job.exception(_seconds(timeout))

    def traceback(self, timeout: Any = None) -> Any:
        """The traceback of the job's exception; the worker's own is the text of its `__cause__`."""
        error = self.exception(timeout)
        return None if error is None else error.__traceback__

    def done(self) -> bool:
        """Has the job ended?"""
        return self._job.done()

    def cancel(self, *_: Any, **__: Any) -> None:
        """Drops the job if it has not begun."""
        self._job.cancel()

    def cancelled(self) -> bool:
        """Was the job dropped?"""
        return self._job.cancelled()

    def add_done_callback(self, fn: Callable[["Future"], Any]) -> None:
        """Calls `fn(future)` when the job has ended."""
        self._job.add_done_callback(lambda _: fn(self))

    def release(self) -> None:
        """Nothing to do: a value is forgotten with its future."""

    def __await__(self) -> Any:
        import asyncio

        return asyncio.wrap_future(self._job).__await__()

    def __repr__(self) -> str:
        return f"<Future: {self.status}, key: {self.key}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a future cannot be sent inside an object other than a list, a tuple or a dict: pass it as an argument, "
            "or pass future.result()"
        )


class LocalCluster:
    """Accepted by `Client` in the place of an address: only `n_workers` counts."""

    def __init__(self, n_workers: Optional[int] = None, **_: Any):
        self.n_workers = n_workers

    def close(self, *_: Any, **__: Any) -> None:
        """Nothing to do."""

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Client:
    """`distributed.Client` on the workers of the run. An address is accepted and not used."""

    def __init__(self, address: Any = None, n_workers: Optional[int] = None, **options: Any):
        global _client
        if n_workers is None and isinstance(address, LocalCluster):
            n_workers = address.n_workers
        ours = {name: options[name] for name in ("launcher", "preload", "initializer", "initargs") if name in options}
        self._executor = Executor(n_workers, **ours)
        _client = self

    def submit(
        self,
        func: Callable[..., Any],
        *args: Any,
        key: Optional[str] = None,
        retries: Optional[int] = None,
        **kwargs: Any,
    ) -> Future:
        """Begins `func(*args, **kwargs)`. Futures among the arguments, also in lists, tuples and dicts, are replaced by
        their values; the job begins when they are there. Every call is one job, also if another one is its equal."""
        for name in _WITHOUT_EFFECT:
            kwargs.pop(name, None)
        key = key or f"{getattr(func, '__name__', 'job')}-{uuid.uuid4().hex}"
        executor = self._executor if retries is None else self._executor.options(retries=retries)
        needed: List["_futures.Future[Any]"] = []
        _look_for_futures((args, kwargs), needed)
        if not needed:
            return Future(executor.submit(func, *_filled(args), **_filled(kwargs)), key)
        job: "_futures.Future[Any]" = _futures.Future()
        AfterOthers(needed, lambda: executor.submit(func, *_filled(args), **_filled(kwargs)), job)
        return Future(job, key)

    def map(
        self,
        func: Callable[..., Any],
        *iterables: Iterable[Any],
        key: Any = None,
        retries: Optional[int] = None,
        **kwargs: Any,
    ) -> List[Future]:
        """The futures of `func(*items, **kwargs)` for the items of all inputs taken together."""
        keys: Iterator[Any] = itertools.repeat(None)
        if isinstance(key, str):
            keys = (f"{key}-{number}" for number in itertools.count())
        elif key is not None:
            keys = iter(key)
        return [
            self.submit(func, *items, key=one, retries=retries, **kwargs) for items, one in zip(zip(*iterables), keys)
        ]

    def gather(self, futures: Any, errors: str = "raise", **_: Any) -> Any:
        """The values of futures, in the shape of `futures` (a future, or lists, tuples, sets and dicts of futures).
        `errors="skip"` leaves out those that failed."""
        if isinstance(futures, Future):
            return futures.result()
        if isinstance(futures, dict):
            return {key: self.gather(one, errors) for key, one in futures.items() if errors == "raise" or _good(one)}
        if isinstance(futures, (list, tuple, set, frozenset)):
            return type(futures)([self.gather(one, errors) for one in futures if errors == "raise" or _good(one)])
        if isinstance(futures, Iterator):
            return (self.gather(one, errors) for one in futures)
        return futures

    def scatter(self, data: Any, **_: Any) -> Any:
        """Futures of data that many jobs use: a list gives a list, a dict a dict, anything else one future. Each object
        is sent once to each worker whose jobs use it."""
        if isinstance(data, dict):
            return {key: _of_data(value) for key, value in data.items()}
        if isinstance(data, (list, tuple, set, frozenset)):
            return type(data)([_of_data(value) for value in data])
        return _of_data(data)

    def cancel(self, futures: Any, **_: Any) -> None:
        """Drops the jobs that have not begun."""
        for future in [futures] if isinstance(futures, Future) else futures:
            future.cancel()

    def ncores(self) -> Dict[str, int]:
        """The workers of the run, under the name `rankpool`."""
        return {"rankpool": self._executor.num_workers}

    nthreads = ncores

    def wait_for_workers(self, n_workers: int = 1, timeout: Any = None) -> None:
        """Waits until the run is there; raises `TimeoutError` if it has fewer workers."""
        if self._executor.num_workers < n_workers:
            raise TimeoutError(f"the run has {self._executor.num_workers} workers, and {n_workers} were asked for")

    def close(self, *_: Any, **__: Any) -> None:
        """No more jobs are taken; those that run end."""
        global _client
        if _client is self:
            _client = None
        self._executor.shutdown(wait=False)

    shutdown = close

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a Client cannot be sent to a worker: a job cannot start other jobs")

    def __getattr__(self, name: str) -> Any:
        if name in ("compute", "persist", "get", "run", "run_on_scheduler", "publish_dataset", "upload_file"):
            raise NotImplementedError(f"Client.{name} needs Dask's scheduler: use Dask itself for this script")
        raise AttributeError(f"'Client' object has no attribute {name!r}")


class DoneAndNotDone(NamedTuple):
    """What `wait` returns."""

    done: Set[Future]
    not_done: Set[Future]


def wait(fs: Any, timeout: Any = None, return_when: str = "ALL_COMPLETED") -> DoneAndNotDone:
    """Waits for futures. Raises `TimeoutError` after `timeout` seconds."""
    fs = [fs] if isinstance(fs, Future) else list(fs)
    owners = {future._job: future for future in fs}
    done, not_done = _futures.wait(owners, timeout=_seconds(timeout), return_when=return_when)
    if not_done and (return_when == "ALL_COMPLETED" or not done):
        raise TimeoutError(f"{len(not_done)} of {len(fs)} jobs have not ended")
    return DoneAndNotDone({future for future in fs if future._job in done}, {f for f in fs if f._job in not_done})


class as_completed:
    """An iterator of futures in the order in which they end; more can be added meanwhile."""

    def __init__(
        self,
        futures: Iterable[Future] = (),
        with_results: bool = False,
        raise_errors: bool = True,
        timeout: Any = None,
        **_: Any,
    ):
        self._ended: "queue.SimpleQueue[Future]" = queue.SimpleQueue()
        self._waiting = 0
        self._with_results, self._raise_errors = with_results, raise_errors
        self._timeout = _seconds(timeout)
        self.update(futures)

    def add(self, future: Future) -> None:
        """One more future."""
        self._waiting += 1
        future.add_done_callback(self._ended.put)

    def update(self, futures: Iterable[Future]) -> None:
        """More futures."""
        for future in list(futures):
            self.add(future)

    def count(self) -> int:
        """How many futures are still to come."""
        return self._waiting

    def is_empty(self) -> bool:
        """Are all futures out?"""
        return self._waiting == 0

    def has_ready(self) -> bool:
        """Would the next future come at once?"""
        return not self._ended.empty()

    def __iter__(self) -> "as_completed":
        return self

    def __next__(self) -> Any:
        if not self._waiting:
            raise StopIteration
        try:
            future = self._ended.get(timeout=self._timeout)
        except queue.Empty:
            raise TimeoutError(f"no job has ended within {self._timeout} s") from None
        self._waiting -= 1
        if not self._with_results:
            return future
        if self._raise_errors or future.status == "finished":
            return future, future.result()
        return future, CancelledError() if future.cancelled() else future.exception()

    def next_batch(self, block: bool = True) -> List[Any]:
        """The futures that have ended; with `block` at least one."""
        batch = [next(self)] if block and self._waiting else []
        while self.has_ready():
            batch.append(next(self))
        return batch

    def batches(self) -> Iterator[List[Any]]:
        """The futures in the groups in which they end."""
        while self._waiting:
            yield self.next_batch()


def get_client(*_: Any, **__: Any) -> Client:
    """The last client that was made and not closed."""
    if _client is None:
        raise ValueError("there is no Client: make one first, in the script (a job cannot start other jobs)")
    return _client


def fire_and_forget(obj: Any) -> None:
    """Nothing to do: a job runs whether its future is kept or not."""


def _of_data(value: Any) -> Future:
    job: "_futures.Future[Any]" = _futures.Future()
    job.set_result(value)
    return Future(job, f"data-{uuid.uuid4().hex}", share(value))


def _good(future: Any) -> bool:
    return not isinstance(future, Future) or (not future.cancelled() and future.exception() is None)


def _look_for_futures(value: Any, found: List["_futures.Future[Any]"]) -> None:
    if isinstance(value, Future):
        if value._data is None:
            found.append(value._job)
    elif type(value) in (list, tuple, set):
        for one in value:
            _look_for_futures(one, found)
    elif type(value) is dict:
        for one in value.values():
            _look_for_futures(one, found)


def _filled(value: Any, top: bool = True) -> Any:
    """`value` with results in the place of futures. Scattered data that is itself an argument stays a handle, which is
    sent once."""
    if isinstance(value, Future):
        return value.result()
    if type(value) in (list, tuple, set):
        if not any(isinstance(one, Future) or type(one) in (list, tuple, set, dict) for one in value):
            return value
        return type(value)([_argument(one, top) for one in value])
    if type(value) is dict:
        return {key: _argument(one, top) for key, one in value.items()}
    return value


def _argument(value: Any, top: bool) -> Any:
    if top and isinstance(value, Future) and value._data is not None:
        return value._data
    return _filled(value, False)


def _seconds(timeout: Any) -> Optional[float]:
    """Dask's time limits: a number, a text such as "2s" or "500ms", or None."""
    if not isinstance(timeout, str):
        return None if timeout is None else float(timeout)
    text = timeout.strip().lower()
    units = {"ms": 1e-3, "minutes": 60.0, "min": 60.0, "m": 60.0, "hours": 3600.0, "h": 3600.0, "s": 1.0}
    for unit, seconds in units.items():
        if text.endswith(unit):
            return float(text[: -len(unit)]) * seconds
    return float(text)
