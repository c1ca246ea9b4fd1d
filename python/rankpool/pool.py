"""`Pool`: the whole surface of `multiprocessing.Pool` on rankpool's workers.

Only the import line changes:

    from rankpool import Pool            # was: from multiprocessing import Pool

Differences, all of them on purpose:

* `map`, `imap` and `imap_unordered` read their input while results come back. `imap` over an endless generator runs
  in bounded memory: at most `buffersize` jobs are read and not yet taken by the caller.
* `chunksize` may be left out everywhere: rankpool then grows its calls by the measured time of the jobs.
* A worker that dies costs its job only. That job raises `WorkerDied`; the pool lives on.
* `terminate` makes every unfinished result raise `PoolTerminated`; `multiprocessing` leaves such results waiting.
"""

from __future__ import annotations

import itertools
import warnings
import weakref
from multiprocessing import TimeoutError
from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional, Set

from ._iterators import emptying
from ._pool_results import (
    CLOSE,
    RUN,
    TERMINATE,
    AsyncResult,
    Callback,
    FutureResult,
    IMapIterator,
    MapResult,
    PoolTerminated,
    PoolTimeout,
    as_pool_error,
    terminated,
)
from .executor import Executor
from .maps import MapRun

__all__ = [
    "AsyncResult",
    "IMapIterator",
    "MapResult",
    "MaybeEncodingError",
    "Pool",
    "PoolTerminated",
    "PoolTimeout",
    "TimeoutError",
]

#: Jobs of an `imap` that are read and not yet taken by the caller, for each worker (if `buffersize` is left out).
BUFFER_PER_WORKER = 128
#: And at least this number of chunks, so that several can be sent together while others run.
CHUNKS_PER_WORKER = 16


def _whole_chunks(iterable: Iterable[Any], chunksize: int) -> Iterator[Any]:
    """The items of `iterable`, read chunk by chunk: if it raises an exception, the items of the unfinished chunk before
    it are dropped, as in `multiprocessing`."""
    iterator = iter(iterable)

    def chunks() -> Iterator[Iterator[Any]]:
        while True:
            chunk = list(itertools.islice(iterator, chunksize))
            if not chunk:
                return
            yield emptying(chunk)  # nothing here keeps an item alive

    return itertools.chain.from_iterable(chunks())


class Pool:
    """`multiprocessing.Pool` on rankpool's workers.

    `processes`: how many jobs of this pool run at the same time at most (None: all workers of the run).
    `options` are those of `rankpool.Executor`: `retries`, `timeout`, `preload`, `launcher`, `progress`.
    """

    #: The exception of results that `terminate` leaves without a value.
    _Terminated = PoolTerminated

    def __init__(
        self,
        processes: Optional[int] = None,
        initializer: Optional[Callable[..., object]] = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: Optional[int] = None,
        context: Any = None,
        **options: Any,
    ):
        self._state = TERMINATE  # until the executor exists
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and not (isinstance(maxtasksperchild, int) and maxtasksperchild > 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._count = processes
        self._outstanding: Set[AsyncResult] = set()
        self._runs: Set[MapRun] = set()
        self._untouched: Set[IMapIterator] = set()  # their jobs run although the caller keeps no iterator
        self._imaps: "weakref.WeakSet[IMapIterator]" = weakref.WeakSet()
        self._executor = Executor(
            processes,
            initializer,
            tuple(initargs),
            mp_context=context,
            max_tasks_per_child=maxtasksperchild,
            **options,
        )
        self._state = RUN

    @property
    def _processes(self) -> int:
        return self._count if self._count is not None else self._executor.num_workers

    def __repr__(self) -> str:
        size = "all" if self._count is None else self._count
        return f"<rankpool.{type(self).__name__} state={self._state} pool_size={size}>"

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}) -> Any:
        """`func(*args, **kwds)` in a worker; waits for the value."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """Begins `func(*args, **kwds)` in a worker; `callback` gets the value, `error_callback` the exception."""
        self._check_running()
        try:
            future = self._executor.submit(func, *args, **kwds)
        except Exception as error:
            failed = AsyncResult(self, callback, error_callback)
            failed._end(False, error)
            return failed
        if callback is None and error_callback is None:
            return FutureResult(self, future)
        result = AsyncResult(self, callback, error_callback)
        self._outstanding.add(result)
        future.add_done_callback(result._end_future)
        return result

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: Optional[int] = None) -> List[Any]:
        """`[func(item) for item in iterable]`. Raises the first exception, after all jobs have ended."""
        return self._map(func, iterable, chunksize, False)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: Optional[int] = None
    ) -> List[Any]:
        """`[func(*item) for item in iterable]`. Raises the first exception, after all jobs have ended."""
        return self._map(func, iterable, chunksize, True)

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: Optional[int] = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> MapResult:
        """Begins `map`; `callback` gets the list of values, `error_callback` the first exception."""
        return self._map_async(func, iterable, chunksize, False, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: Optional[int] = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> MapResult:
        """Begins `starmap`; `callback` gets the list of values, `error_callback` the first exception."""
        return self._map_async(func, iterable, chunksize, True, callback, error_callback)

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: Optional[int] = None,
        *,
        buffersize: Optional[int] = None,
    ) -> IMapIterator:
        """The values of `func(item)` in input order, as they come. The input may be endless: at most `buffersize`
        jobs are read and not yet taken by the caller (None: 128, or 16 chunks, for each worker; up to 2048 for each
        worker, 2 MiB in all, if they turn out to be short and small)."""
        return self._imap(func, iterable, chunksize, buffersize, True)

    def imap_unordered(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: Optional[int] = None,
        *,
        buffersize: Optional[int] = None,
    ) -> IMapIterator:
        """As `imap`, in the order in which the jobs end."""
        return self._imap(func, iterable, chunksize, buffersize, False)

    def close(self) -> None:
        """No more jobs are taken; those that were given end."""
        if self._state == RUN:
            self._state = CLOSE
            self._end_when_idle()

    def terminate(self) -> None:
        """Drops what has not begun. Every result that is not there yet raises `PoolTerminated`."""
        self._state = TERMINATE
        self._untouched.clear()
        for run in list(self._runs):
            run.cancel()
        for iterator in list(self._imaps):
            iterator._stop()
        for result in list(self._outstanding):
            result._stop()
        self._executor.terminate_workers()

    def join(self) -> None:
        """Waits until all jobs have ended. Call `close` or `terminate` first."""
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state == CLOSE:
            for iterator in list(self._imaps):
                iterator._drain()
            self._untouched.clear()
            for result in list(self._outstanding):
                result.wait()
            self._executor.shutdown(wait=True)

    def __enter__(self) -> "Pool":
        self._check_running()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    def __del__(self) -> None:
        try:
            if self._state == RUN:
                text = f"unclosed running multiprocessing pool {self!r}"
                warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
                self._executor.shutdown(wait=False)
        except Exception:
            pass  # the interpreter is about to end

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    def _start(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: Optional[int],
        star: bool,
        on_done: Optional[Callable[[Any], Any]] = None,
    ) -> MapRun:
        """Begins a map. What has a length is copied; anything else is read while results come back."""
        items: Iterable[Any] = map(tuple, iterable) if star else iterable
        if hasattr(iterable, "__len__"):
            items = list(items)
        return self._executor._start_map(func, items, star=star, chunksize=chunksize, buffersize=None, on_done=on_done)

    def _map(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: Optional[int], star: bool
    ) -> List[Any]:
        self._check_running()
        _check_chunksize(chunksize)
        run = self._start(func, iterable, chunksize, star)
        self._runs.add(run)
        values = run.values(True)
        try:
            result = list(values)
        except Exception as error:
            run.wait()
            raise as_pool_error(error, self) from error.__cause__
        finally:
            self._runs.discard(run)
        if self._state == TERMINATE and run._cancelled:
            raise terminated(self)
        return result

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: Optional[int],
        star: bool,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> MapResult:
        self._check_running()
        _check_chunksize(chunksize)
        result = MapResult(self, callback, error_callback)
        self._outstanding.add(result)
        try:
            result._run = self._start(func, iterable, chunksize, star, result._end_map)
        except Exception as error:
            result._end(False, error)
        return result

    def _imap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: Optional[int],
        buffersize: Optional[int],
        ordered: bool,
        star: bool = False,
    ) -> IMapIterator:
        self._check_running()
        _check_chunksize(chunksize)
        grows = buffersize is None
        if buffersize is None:
            buffersize = max(BUFFER_PER_WORKER, CHUNKS_PER_WORKER * (chunksize or 1)) * self._processes
        items: Iterable[Any] = map(tuple, iterable) if star else iter(iterable)
        if chunksize is not None and chunksize > 1:
            items = _whole_chunks(items, chunksize)
        run = self._executor._start_map(
            func, items, star=star, chunksize=chunksize, buffersize=buffersize, grows=grows
        )
        return IMapIterator(self, run, ordered)

    def _forget(self, result: AsyncResult) -> None:
        self._outstanding.discard(result)
        self._end_when_idle()

    def _imap_ended(self, iterator: IMapIterator) -> None:
        self._imaps.discard(iterator)
        self._end_when_idle()

    def _end_when_idle(self) -> None:
        """A closed pool without jobs gives its executor back."""
        if self._state == CLOSE and not self._outstanding and not len(self._imaps):
            self._executor.shutdown(wait=False)


def _check_chunksize(chunksize: Optional[int]) -> None:
    if chunksize is not None and chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
