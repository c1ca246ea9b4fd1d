"""What several of the modules in this package need."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future
from operator import length_hint
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from ..executor import Executor

_lock = threading.Lock()
_shared: Optional[Executor] = None


def shared_executor() -> Executor:
    """The executor of functions that have no pool of their own."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = Executor()
        return _shared


def prepare_worker(
    env: Dict[str, str], path: Sequence[str], folder: Optional[str], initializer: Optional[Callable], initargs: Tuple
) -> None:
    """In a worker, before its first job: environment, module search path, folder, then the user's initializer."""
    os.environ.update(env)
    sys.path[:0] = [entry for entry in path if entry not in sys.path]
    if folder is not None:
        os.chdir(folder)
    if initializer is not None:
        initializer(*initargs)


def with_environment(
    initializer: Optional[Callable],
    initargs: Iterable[Any],
    env: Optional[Dict[str, Any]] = None,
    path: Iterable[Any] = (),
    folder: Any = None,
) -> Tuple[Optional[Callable], Tuple[Any, ...]]:
    """An initializer that also sets what other pools have options for, or the user's own if there is nothing to set."""
    initargs = tuple(initargs)
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    variables = {str(name): str(value) for name, value in (env or {}).items()}
    folders = [os.fspath(entry) for entry in path]
    folder = None if folder is None else os.path.abspath(os.fspath(folder))
    if folder == os.getcwd():
        folder = None  # workers go there anyway
    if not variables and not folders and folder is None:
        return initializer, initargs
    return prepare_worker, (variables, folders, folder, initializer, initargs)


def shortest(iterables: Sequence[Iterable[Any]]) -> Optional[int]:
    """The length of the shortest input that has one, for a bar."""
    lengths = [length for length in (length_hint(iterable, -1) for iterable in iterables) if length >= 0]
    return min(lengths) if lengths else None


def bar_class() -> Callable[..., Iterable[Any]]:
    """`tqdm`, or without it a function that shows nothing."""
    try:
        from tqdm.auto import tqdm

        return tqdm
    except ImportError:
        return lambda iterable, **_: iterable


class AfterOthers:
    """A job whose arguments are results of other jobs: it is submitted when these have ended.

    `submit()` gets the job's future when all of `needed` have a value. If one of them has failed or was cancelled, the
    job fails with its exception and does not run.
    """

    def __init__(self, needed: List["Future[Any]"], submit: Callable[[], "Future[Any]"], future: "Future[Any]"):
        self._submit, self._future = submit, future
        self._needed = needed
        self._left = len(needed)
        self._count = threading.Lock()
        for other in needed:
            other.add_done_callback(self._one_ended)

    def _one_ended(self, _: "Future[Any]") -> None:
        with self._count:
            self._left -= 1
            if self._left:
                return
        needed, self._needed = self._needed, []
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            for other in needed:
                other.result()
            job = self._submit()
        except BaseException as error:
            self._future.set_exception(error)
            return
        job.add_done_callback(self._ended)

    def _ended(self, job: "Future[Any]") -> None:
        try:
            self._future.set_result(job.result())
        except BaseException as error:
            self._future.set_exception(error)
