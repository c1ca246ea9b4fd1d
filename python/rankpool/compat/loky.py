"""The names of `loky` on rankpool's workers.

from rankpool.compat.loky import get_reusable_executor      # was: from loky import get_reusable_executor
"""

from __future__ import annotations

import threading
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    TimeoutError,
    as_completed,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Dict, Iterable, Optional, Tuple, TypeVar

from ..executor import Executor
from ._common import shared_executor, with_environment

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenProcessPool",
    "CancelledError",
    "Executor",
    "Future",
    "ProcessPoolExecutor",
    "TimeoutError",
    "as_completed",
    "cpu_count",
    "get_reusable_executor",
    "wait",
    "wrap_non_picklable_objects",
]

T = TypeVar("T")

_lock = threading.RLock()
_reusable: Optional["ProcessPoolExecutor"] = None
_made_with: Optional[Tuple[Any, ...]] = None


class ProcessPoolExecutor(Executor):
    """`loky.ProcessPoolExecutor`. `job_reducers`, `result_reducers`, `context` and the idle `timeout` have no effect:
    workers belong to the run."""

    def __init__(
        self,
        max_workers: Optional[int] = None,
        job_reducers: Any = None,
        result_reducers: Any = None,
        timeout: Any = None,
        context: Any = None,
        initializer: Optional[Callable[..., object]] = None,
        initargs: Iterable[Any] = (),
        env: Optional[Dict[str, Any]] = None,
    ):
        super().__init__(max_workers, *with_environment(initializer, initargs, env))

    def shutdown(self, wait: bool = True, kill_workers: bool = False, *, cancel_futures: bool = False) -> None:
        """As `Executor.shutdown`. `kill_workers` drops the jobs that have not begun and waits for none."""
        if kill_workers:
            self.terminate_workers()
        else:
            super().shutdown(wait=wait, cancel_futures=cancel_futures)


def get_reusable_executor(
    max_workers: Optional[int] = None,
    context: Any = None,
    timeout: Any = 10,
    kill_workers: bool = False,
    reuse: Any = "auto",
    job_reducers: Any = None,
    result_reducers: Any = None,
    initializer: Optional[Callable[..., object]] = None,
    initargs: Iterable[Any] = (),
    env: Optional[Dict[str, Any]] = None,
) -> ProcessPoolExecutor:
    """The one executor of the script: made at the first call, and again if it was shut down, has broken, or other
    settings are asked for (`reuse="auto"`)."""
    global _reusable, _made_with
    settings = (max_workers, initializer, tuple(initargs), tuple(sorted((env or {}).items())))
    with _lock:
        old = _reusable
        usable = old is not None and not old._core.closed and not old._broken
        if usable and (reuse is True or (reuse == "auto" and settings == _made_with)):
            assert old is not None
            return old
        if old is not None:
            old.shutdown(wait=not kill_workers, kill_workers=kill_workers)
        _reusable = ProcessPoolExecutor(max_workers, initializer=initializer, initargs=initargs, env=env)
        _made_with = settings
        return _reusable


def cpu_count(only_physical_cores: bool = False) -> int:
    """The number of all workers of the run."""
    return shared_executor().num_workers


def wrap_non_picklable_objects(obj: T, keep_wrapper: bool = True) -> T:
    """`obj` itself: functions and arguments that pickle cannot handle go by cloudpickle anyway."""
    return obj
