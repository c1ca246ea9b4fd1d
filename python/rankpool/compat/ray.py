"""The names of Ray's tasks on rankpool's workers.

    import rankpool.compat.ray as ray      # was: import ray

`@ray.remote` functions, `.remote`, `.options`, `ray.get`, `ray.put`, `ray.wait`. Actors (remote classes) are refused:
a worker keeps no state between jobs.
"""

from __future__ import annotations

import functools
import threading
import time
from concurrent import futures as _futures
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .. import is_worker
from ..executor import Executor
from .._share import Shared, share
from ._common import AfterOthers

__all__ = [
    "GetTimeoutError",
    "ObjectRef",
    "available_resources",
    "cancel",
    "cluster_resources",
    "get",
    "init",
    "is_initialized",
    "put",
    "remote",
    "shutdown",
    "wait",
]

_lock = threading.Lock()
_executor: Optional[Executor] = None


class GetTimeoutError(TimeoutError):
    """`ray.get` has waited for `timeout` seconds, and a value is not there."""


class ObjectRef:
    """The value of a task, now or later. As an argument of another task it arrives as the value."""

    def __init__(self, job: "_futures.Future[Any]", data: Optional[Shared[Any]] = None):
        self._job, self._data = job, data

    def future(self) -> "_futures.Future[Any]":
        """The `concurrent.futures.Future` of the value."""
        return self._job

    def __await__(self) -> Any:
        import asyncio

        return asyncio.wrap_future(self._job).__await__()

    def __reduce__(self) -> Any:
        raise TypeError(
            "an ObjectRef cannot be sent inside another object: pass it as an argument of its own, or pass ray.get(ref)"
        )


class RemoteFunction:
    """A function that `.remote(...)` runs in a worker."""

    def __init__(self, function: Callable[..., Any], options: Dict[str, Any]):
        self._function, self._options = function, options
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = getattr(self._function, "__name__", "f")
        raise TypeError(f"remote functions cannot be called directly: write {name}.remote(...) instead of {name}(...)")

    def __reduce__(self) -> Any:
        return RemoteFunction, (self._function, self._options)

    def options(self, **options: Any) -> "RemoteFunction":
        """The same function with other options: `num_returns` and `max_retries` count, the others have no effect."""
        return RemoteFunction(self._function, {**self._options, **options})

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Begins the task; its `ObjectRef`, or a list of them if `num_returns` is more than 1."""
        executor = _running()
        retries = self._options.get("max_retries")
        if retries is not None:
            executor = executor.options(retries=255 if retries < 0 else retries)
        needed = [
            value._job for value in (*args, *kwargs.values()) if isinstance(value, ObjectRef) and value._data is None
        ]

        def submit() -> "_futures.Future[Any]":
            named = {name: _argument(value) for name, value in kwargs.items()}
            return executor.submit(self._function, *[_argument(value) for value in args], **named)

        if needed:
            job: "_futures.Future[Any]" = _futures.Future()
            AfterOthers(needed, submit, job)
        else:
            job = submit()
        count = self._options.get("num_returns", 1)
        return ObjectRef(job) if count == 1 else [ObjectRef(_part(job, place, count)) for place in range(count)]


def init(*_: Any, num_cpus: Optional[int] = None, ignore_reinit_error: bool = False, **options: Any) -> Dict[str, Any]:
    """Begins. An address and Ray's other options are accepted and not used; `launcher` is rankpool's."""
    global _executor
    with _lock:
        if _executor is not None and not ignore_reinit_error:
            raise RuntimeError(
                "ray.init was called before: call ray.shutdown() first, or give ignore_reinit_error=True"
            )
        if _executor is None:
            _executor = Executor(num_cpus, launcher=options.get("launcher"))
    return {}


def is_initialized() -> bool:
    """Was `init` called, or a task begun?"""
    return _executor is not None


def shutdown(*_: Any, **__: Any) -> None:
    """Drops the tasks that have not begun and waits for none."""
    global _executor
    with _lock:
        executor, _executor = _executor, None
    if executor is not None:
        executor.terminate_workers()


def remote(*args: Any, **options: Any) -> Any:
    """Makes a function remote: `@ray.remote`, `@ray.remote(num_returns=2)` or `ray.remote(function)`."""
    if args:
        return _remote(args[0], options)
    return lambda function: _remote(function, options)


def get(refs: Any, *, timeout: Optional[float] = None) -> Any:
    """The value of an `ObjectRef`, or the list of those of a list. A task's exception is raised as itself."""
    end = None if timeout is None else time.monotonic() + timeout
    if isinstance(refs, ObjectRef):
        return _value(refs, end)
    if not isinstance(refs, (list, tuple)):
        raise ValueError(f"ray.get takes an ObjectRef or a list of them, not {type(refs).__name__}")
    return [_value(ref, end) for ref in refs]


def put(value: Any) -> ObjectRef:
    """An `ObjectRef` of data that many tasks use: sent once to each worker whose tasks use it."""
    if isinstance(value, ObjectRef):
        raise TypeError("ray.put takes a value, not an ObjectRef")
    job: "_futures.Future[Any]" = _futures.Future()
    job.set_result(value)
    return ObjectRef(job, share(value))


def wait(
    refs: Sequence[ObjectRef], *, num_returns: int = 1, timeout: Optional[float] = None, fetch_local: bool = True
) -> Tuple[List[ObjectRef], List[ObjectRef]]:
    """Waits until `num_returns` of the values are there, or for `timeout` seconds: the lists of those that are there
    (at most `num_returns`) and of the others."""
    if isinstance(refs, ObjectRef):
        raise TypeError("ray.wait takes a list of ObjectRefs")
    refs = list(refs)
    if len({id(ref) for ref in refs}) != len(refs):
        raise ValueError("ray.wait needs ObjectRefs that differ")
    if not 0 < num_returns <= len(refs):
        raise ValueError(f"num_returns must be between 1 and the number of ObjectRefs, which is {len(refs)}")
    enough = threading.Event()
    ended: List[int] = []

    def one_ended(_: Any) -> None:
        ended.append(1)
        if len(ended) >= num_returns:
            enough.set()

    for ref in refs:
        ref._job.add_done_callback(one_ended)
    enough.wait(timeout)
    ready = [ref for ref in refs if ref._job.done()][:num_returns]
    chosen = set(map(id, ready))
    return ready, [ref for ref in refs if id(ref) not in chosen]


def cancel(ref: ObjectRef, **_: Any) -> None:
    """Drops a task that has not begun."""
    ref._job.cancel()


def cluster_resources() -> Dict[str, float]:
    """The number of workers as `CPU`."""
    return {"CPU": float(_running().num_workers)}


available_resources = cluster_resources


def _remote(function: Any, options: Dict[str, Any]) -> RemoteFunction:
    if isinstance(function, type):
        raise NotImplementedError(
            f"{function.__name__} is a class: rankpool has no actors, because a worker keeps no state between jobs. "
            "Pass the state to a remote function, share large data by ray.put, or use Ray itself"
        )
    if not callable(function):
        raise TypeError("@ray.remote needs a function; options are given by name: @ray.remote(num_returns=2)")
    return RemoteFunction(function, options)


def _running() -> Executor:
    if is_worker():
        raise RuntimeError("a task cannot start other tasks under rankpool: start them from the script")
    if _executor is None:
        init(ignore_reinit_error=True)
    assert _executor is not None
    return _executor


def _argument(value: Any) -> Any:
    if not isinstance(value, ObjectRef):
        return value
    return value._job.result() if value._data is None else value._data


def _value(ref: Any, end: Optional[float]) -> Any:
    if not isinstance(ref, ObjectRef):
        raise ValueError(f"ray.get takes ObjectRefs, not {type(ref).__name__}")
    job = ref._job
    if end is not None and not job.done():
        _futures.wait([job], timeout=max(end - time.monotonic(), 0))
        if not job.done():
            raise GetTimeoutError("the value is not there yet")
    return job.result()


def _part(job: "_futures.Future[Any]", place: int, count: int) -> "_futures.Future[Any]":
    """One of the values that a task with `num_returns` gives."""
    part: "_futures.Future[Any]" = _futures.Future()
    part.set_running_or_notify_cancel()

    def ended(_: Any) -> None:
        try:
            values = job.result()
            if len(values) != count:
                raise ValueError(f"the task has returned {len(values)} values, and num_returns is {count}")
            part.set_result(values[place])
        except BaseException as error:
            part.set_exception(error)

    job.add_done_callback(ended)
    return part
