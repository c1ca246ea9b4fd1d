"""The results of `rankpool.Pool`: what its methods return."""

from __future__ import annotations

import builtins
import collections
import logging
import threading
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as _FuturesTimeout
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import TimeoutError
from multiprocessing.pool import RemoteTraceback  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any, Callable, Deque, Iterator, Optional, Sequence, Tuple

from .maps import MapRun

if TYPE_CHECKING:
    from .pool import Pool

#: The states of a pool; the words are those of `multiprocessing.pool`.
RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"

Callback = Optional[Callable[[Any], Any]]

_log = logging.getLogger("rankpool")


class PoolTerminated(CancelledError):
    """The pool was terminated before this job ended."""


class PoolTimeout(TimeoutError, builtins.TimeoutError):
    """The result is not there yet: a `multiprocessing.TimeoutError`, and a `TimeoutError`."""


def terminated(pool: "Pool") -> PoolTerminated:
    return pool._Terminated("the pool was terminated before this job ended")


def as_pool_error(error: BaseException, pool: "Pool") -> BaseException:
    """Gives `error` the cause that users of `multiprocessing` know: a `multiprocessing.pool.RemoteTraceback`."""
    if isinstance(error, CancelledError) and not isinstance(error, PoolTerminated):
        return terminated(pool)
    cause = error.__cause__
    if cause is not None and type(cause) is not RemoteTraceback and type(cause).__name__ == "RemoteTraceback":
        error.__cause__ = RemoteTraceback(str(cause))
    return error


def _call_back(callback: Callable[[Any], Any], value: Any) -> None:
    """Runs a user's callback. An exception in it is logged: it must not stop the thread that receives results."""
    try:
        callback(value)
    except Exception:
        _log.exception("the callback %r raised an exception", callback)


class AsyncResult:
    """The result of `apply_async`, as `multiprocessing.pool.AsyncResult`."""

    def __init__(self, pool: "Pool", callback: Callback = None, error_callback: Callback = None):
        self._event = threading.Event()
        self._pool = pool
        self._callback, self._error_callback = callback, error_callback
        self._success = False
        self._value: Any = None

    def ready(self) -> bool:
        """Has the call ended?"""
        return self._event.is_set()

    def successful(self) -> bool:
        """Has the call ended without an exception? Raises `ValueError` if it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._success

    def wait(self, timeout: Optional[float] = None) -> None:
        """Waits until the call has ended, or for `timeout` seconds."""
        self._event.wait(timeout)

    def get(self, timeout: Optional[float] = None) -> Any:
        """The value, or the exception of the call. Raises `multiprocessing.TimeoutError` after `timeout` seconds."""
        if not self._event.wait(timeout):
            raise PoolTimeout
        if self._success:
            return self._value
        raise self._value

    def _end(self, success: bool, value: Any) -> None:
        """Keeps the outcome, runs the callback, then wakes those who wait: callbacks come first, as in
        `multiprocessing`."""
        if self._event.is_set():
            return
        self._success, self._value = success, value if success else as_pool_error(value, self._pool)
        callback = self._callback if success else self._error_callback
        self._callback = self._error_callback = None
        if callback is not None:
            _call_back(callback, self._value)
        self._event.set()
        self._pool._forget(self)

    def _stop(self) -> None:
        """The pool is terminated: no callback is called any more."""
        self._callback = self._error_callback = None
        self._end(False, terminated(self._pool))

    def _end_future(self, future: "Future[Any]") -> None:
        if future.cancelled():
            return self._end(False, CancelledError())
        error = future.exception()
        self._end(error is None, future.result() if error is None else error)


class FutureResult(AsyncResult):
    """The result of `apply_async` without callbacks: it costs little more than its future."""

    def __init__(self, pool: "Pool", future: "Future[Any]"):
        self._pool, self._future = pool, future

    def ready(self) -> bool:
        return self._future.done()

    def successful(self) -> bool:
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return not self._future.cancelled() and self._future.exception() is None

    def wait(self, timeout: Optional[float] = None) -> None:
        try:
            self._future.exception(timeout)
        except (_FuturesTimeout, CancelledError):
            pass

    def get(self, timeout: Optional[float] = None) -> Any:
        try:
            return self._future.result(timeout)
        except (CancelledError, BrokenProcessPool) as error:
            if self._pool._state == TERMINATE:
                raise terminated(self._pool) from None
            raise as_pool_error(error, self._pool) from error.__cause__
        except Exception as error:
            if not self._future.done():
                raise PoolTimeout from None
            raise as_pool_error(error, self._pool) from error.__cause__


class MapResult(AsyncResult):
    """The result of `map_async` and `starmap_async`: the list of all values, or the first exception in input order.

    It is ready when all jobs have ended, also when one of them has failed.
    """

    _run: Optional[MapRun] = None

    def _end_map(self, outcomes: Sequence[Tuple[bool, Any]]) -> None:
        failure = next((value for success, value in outcomes if not success), None)
        if failure is None:
            self._end(True, [value for _, value in outcomes])
        else:
            self._end(False, failure)

    def _stop(self) -> None:
        super()._stop()  # first: a run that is cancelled may settle at once, with the outcomes that are there
        if self._run is not None:
            self._run.cancel()


class IMapIterator:
    """The results of `imap` or `imap_unordered`, as `multiprocessing.pool.IMapIterator`.

    A job's exception is raised at its place; the iteration can go on afterwards.
    """

    def __init__(self, pool: "Pool", run: MapRun, ordered: bool):
        self._pool, self._run = pool, run
        self._values = run.iterate(ordered)
        self._part: Iterator[Any] = iter(())  # values that are there
        self._lock = threading.Lock()
        self._kept: Deque[Tuple[bool, Any]] = collections.deque()
        self._ended = self._stopped = False
        pool._imaps.add(self)
        pool._untouched.add(self)

    def __iter__(self) -> "IMapIterator":
        return self

    def next(self, timeout: Optional[float] = None) -> Any:
        """The next value. Raises `multiprocessing.TimeoutError` if there is none within `timeout` seconds; the value
        is not lost: the next call can still give it."""
        for value in self._part:
            return value
        return self._take(timeout)

    def __next__(self) -> Any:
        for value in self._part:
            return value
        return self._take(None)

    def _take(self, timeout: Optional[float]) -> Any:
        """The next value if no part is there."""
        self._pool._untouched.discard(self)
        with self._lock:
            if self._kept:
                success, value = self._kept.popleft()
            else:
                success, value = self._outcome(timeout)
                self._part = self._values.part()
        if success:
            return value
        try:
            raise value
        finally:
            del value

    def _outcome(self, timeout: Optional[float] = None) -> Tuple[bool, Any]:
        """The next outcome; after the last one `(False, StopIteration())`."""
        if self._ended:
            return False, StopIteration()
        try:
            return True, self._values.next(timeout)
        except StopIteration as end:
            self._ended = True
            self._pool._imap_ended(self)
            return False, terminated(self._pool) if self._stopped else end
        except _FuturesTimeout as error:
            if type(error) is not _FuturesTimeout or error.__cause__ is not None:
                return False, as_pool_error(error, self._pool)  # a job's own
            return False, PoolTimeout()
        except Exception as error:
            return False, as_pool_error(error, self._pool)

    def _drain(self) -> None:
        """Runs all jobs and keeps their outcomes: the pool is joined before the values are taken."""
        with self._lock:
            self._part = iter(())
            while not self._ended:
                outcome = self._outcome()
                if outcome[0] or not isinstance(outcome[1], StopIteration):
                    self._kept.append(outcome)

    def _stop(self) -> None:
        self._stopped = True
        self._run.cancel()
