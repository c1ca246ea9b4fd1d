"""`Executor`: a `concurrent.futures.Executor` whose workers are the processes of rankpool's ranks."""

from __future__ import annotations

import os
import sys
import threading
from _pickle import dumps as _pickle
from collections import deque
from concurrent.futures import _base

from . import _process
from ._functions import all_uses
from ._futures import JobFuture, begin, fail
from ._payload import MAIN, SHARED, dumps, layout
from ._runs import cancel_abandoned, live_runs
from .maps import MapRun

# The script waits for what is imported here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator, Optional, Sequence, Tuple, TypeVar, Union

    T = TypeVar("T")

_new = object.__new__
_START_LIMIT = 300.0
_LOOK_AGAIN = 1.0


# How many calls an executor that has as many workers as the run sends at once, for each of them.
_CALLS_PER_WORKER = 32


class _Core:
    """What an executor and its views have in common."""

    def __init__(self, limit, initializer, initargs, preload, launcher):
        self.limit = limit
        self.initializer = initializer
        self.initargs = initargs
        self.preload = _with_folder(preload)
        self.launcher = launcher
        self.lock = threading.Lock()
        self.connection = None
        self.session = 0
        self.sessions = {}  # body: number; one that has ended takes no calls and ends those that run
        self.seen = None  # what the session says of this process
        self.closed = False
        self.broken = None  # the exception of an initializer
        self.abandoned = False  # nothing waits for the jobs that run
        self.open = 0  # futures and maps that have not finished
        self.idle = None  # an event for those who wait for `open` to be 0
        # For the connection, which holds its lock:
        self.flying = 0
        self.pending = deque()
        self.queued = False

    def connect(self):
        """Connect, at the first use."""
        if os.environ.get("RANKPOOL_WORKER") == "1":
            raise RuntimeError(
                "a job cannot use an executor: this process is a worker of rankpool. Submit the jobs from the "
                "script, or, if a script was imported again by a worker, put its use of the executor under "
                "`if __name__ == '__main__':` (not needed if cloudpickle is installed)"
            )
        with self.lock:
            if self.connection is None:
                # A worker that imports `__main__` again calls it so; its objects come back under this name.
                sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
                found = _process.connection(self.launcher, self.preload)
                found.wait_ready(_START_LIMIT)
                self.start_session(found)
                if self.limit is not None and self.limit >= found.slots:
                    # Calls may wait at the workers, so that these need not wait; few, so that others can be cancelled.
                    self.limit = max(self.limit, _CALLS_PER_WORKER * found.slots)
                self.connection = found
        return self.connection

    def start_session(self, connection):
        """Say what the workers have to know of this process."""
        self.seen = _seen()
        path, cwd, arguments = self.seen
        told = {"path": path, "cwd": cwd, "argv": arguments, "main": _main()}
        is_exclusive = self.initializer is not None
        if is_exclusive:
            told["initializer"] = dumps((self.initializer, self.initargs))[0]
        body = _pickle(told, 5)
        if body not in self.sessions:
            self.sessions[body] = connection.session(body, is_exclusive, self.preload)
        self.session = self.sessions[body]

    def end_sessions(self):
        """Say that no later call is of this executor's sessions. Calls that run are ended with their workers."""
        connection, numbers = self.connection, list(self.sessions.values())
        self.sessions.clear()
        if connection is not None:
            for number in numbers:
                connection.forget_session(number)

    def refresh(self):
        """Renew the session if `sys.path`, the directory or the arguments have changed."""
        if self.initializer is None and self.seen != _seen():
            with self.lock:
                self.start_session(self.connection)

    def count_finished(self, count):
        """This number of futures and maps have finished. The connection's lock is held."""
        self.open -= count
        if self.open <= 0 and self.idle is not None:
            self.idle.set()

    def wait_idle(self):
        """Wait until all futures and maps have finished."""
        connection = self.connection
        if connection is None:
            return
        with connection.lock:
            if self.open <= 0:
                return
            if self.idle is None:
                self.idle = threading.Event()
            self.idle.clear()
            idle = self.idle
        while not idle.wait(_LOOK_AGAIN):
            # An interrupt may have come between a job and its count.
            if not self._has_open(connection):
                return

    def _has_open(self, connection):
        """Whether a future or a map has not finished, by looking at them."""
        is_open = False
        cancel_abandoned()
        for run in live_runs():
            if run.core is self and run.go_on():
                is_open = True
        with connection.lock:
            calls = list(connection._unanswered.values())
            return is_open or bool(self.pending) or any(call.core is self for call in calls)

    def __del__(self):
        self.end_sessions()  # all its calls are answered: each of them keeps it


def _seen():
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = None
    return list(sys.path), cwd, list(getattr(sys, "argv", []))


def _with_folder(preload):
    """The modules behind the folder of the script, in which they may be, with a slash at its end."""
    if not preload:
        return ()
    folder = os.path.abspath(sys.path[0] if sys.path else "").rstrip("/") + "/"
    return (folder, *preload) if os.path.isdir(folder) and "," not in folder else tuple(preload)


def _main():
    """How a worker can import `__main__` again: `("name", module)`, `("path", file)` or None."""
    module = sys.modules.get("__main__")
    name = getattr(getattr(module, "__spec__", None), "name", None)
    if name is not None:
        return ("name", name)
    path = getattr(module, "__file__", None)
    if path is None or not os.path.exists(path):
        return None
    return ("path", os.path.abspath(path))


class Executor(_base.Executor):
    """Runs functions in the workers of rankpool.

    A function that can be imported goes by its name; if the script has loaded its module again, so do the workers
    (not the modules that it uses). Functions of `__main__`, lambdas and closures go by value,
    by cloudpickle, with what they capture; each is serialised and sent once, not with every job. `map` serialises
    its function anew. `submit` does so if a name that the function captures was bound anew, or if an object that it
    captures has changed and its serialised form has at most 64 KiB; of a larger one, the first
    state counts until a captured name is bound anew. See `rankpool.share` for data of many functions.

    Args:
        max_workers: How many calls of this executor are sent at once at most; it starts no processes.
            `None`: as many as the workers take.
        initializer: A function that each worker calls once before jobs of this executor.
        initargs: The arguments of the initializer.
        retries: How often a job that has failed is run again; by default what `rankpool python --retries` says.
        timeout: Seconds that a job may take; then it fails with `JobTimeout` and its worker is replaced. By default
            what `rankpool python --timeout` says.
        preload: Modules that are imported once on each node, before its workers are started.
        launcher: What starts the ranks if the script was not started by `rankpool python`, such as
            `"mpiexec -n 8"`. Without it they are threads of one process.
        progress: Whether maps show a bar on stderr.
        mp_context, max_tasks_per_child, thread_name_prefix: Accepted for the sake of other executors' users;
            they have no meaning here.
    """

    def __init__(
        self,
        max_workers: Optional[int] = None,
        initializer: Optional[Callable[..., Any]] = None,
        initargs: Tuple[Any, ...] = (),
        *,
        retries: Optional[int] = None,
        timeout: Optional[float] = None,
        preload: Sequence[str] = (),
        launcher: Union[None, str, Sequence[str]] = None,
        progress: bool = False,
        mp_context: Any = None,
        max_tasks_per_child: Optional[int] = None,
        thread_name_prefix: str = "",
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        launcher = launcher if launcher is None or isinstance(launcher, str) else tuple(launcher)
        preload = (preload,) if isinstance(preload, str) else tuple(preload)
        self._core = _Core(max_workers, initializer, tuple(initargs), preload, launcher)
        self._progress = progress
        given = os.environ.get
        self._set_options(
            int(given("RANKPOOL_RETRIES") or 0) if retries is None else retries,
            float(given("RANKPOOL_TIMEOUT") or 0) or None if timeout is None else timeout,
        )

    def _set_options(self, retries, timeout):
        if not 0 <= retries <= 255:
            raise ValueError("retries must be between 0 and 255")
        if timeout is not None and timeout <= 0:
            raise ValueError("timeout must be greater than 0")
        self._retries = retries
        self._timeout = timeout or 0.0

    def options(self, *, retries: Optional[int] = None, timeout: Optional[float] = None) -> "Executor":
        """This executor with other options for the jobs that are submitted through what is returned."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._set_options(
            self._retries if retries is None else retries,
            (self._timeout or None) if timeout is None else timeout,
        )
        return view

    @property
    def num_workers(self) -> int:
        """The number of workers: the slots of all ranks, or `max_workers` if that is less."""
        slots = self._connected().slots
        return slots if self._core.limit is None else min(slots, self._core.limit)

    @property
    def _max_workers(self) -> int:
        return self.num_workers

    @property
    def _broken(self):
        core = self._core
        return core.broken or (core.connection is not None and core.connection.over) or False

    def bootup(self, wait: bool = True) -> "Executor":
        """Start the ranks now and not with the first job."""
        if wait:
            self._connected()
        else:
            threading.Thread(target=self._connected, name="rankpool-start", daemon=True).start()
        return self

    def _connected(self):
        core = self._core
        return core.connection or core.connect()

    def _usable(self):
        """The connection; raises if no more jobs are taken."""
        core = self._core
        if core.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if core.broken is not None:
            raise core.broken
        connection = core.connection or core.connect()
        if connection.over is not None:
            raise connection.error()
        return connection

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "_base.Future[T]":
        """Run `fn(*args, **kwargs)` in a worker. Returns the future of its result.

        The arguments are pickled now. Large arrays are not copied before the job is sent: they must not be
        changed before `future.running()`.
        """
        core = self._core
        connection = core.connection
        if connection is None or core.closed or core.broken is not None or connection.over is not None:
            connection = self._usable()
        future = _new(JobFuture)
        future.core = core
        future.retries = self._retries
        future.seconds = self._timeout
        try:
            future.record = record = connection.functions.for_submit(fn)
            buffers: list = []
            data = _pickle((args, kwargs), 5, buffer_callback=buffers.append)
            # `find` takes half the time of `in`.
            is_small = not (buffers or record.uses) and data.find(MAIN) < 0 and data.find(SHARED) < 0
            if not is_small:
                self._pack(connection, future, (args, kwargs))
            if record.frame is not None:
                core.refresh()
        except Exception:
            is_small = False
            if not self._pack_again(connection, future, fn, args, kwargs):
                return future
        if is_small:
            connection.submit_small(core, future, data)
        else:
            connection.submit(core, future)
        return future

    @staticmethod
    def _pack(connection, future, arguments):
        """Give a future's call its body, where it is more than a pickle."""
        data, buffers, uses = dumps(arguments)
        future.uses = all_uses(connection.functions, future.record, uses)
        future.body = layout(data, buffers, [used.number for used in future.uses])

    def _pack_again(self, connection, future, fn, args, kwargs):
        """As `submit` does, for what `pickle` refuses. False: the future has failed."""
        try:
            future.record = connection.functions.for_submit(fn)
            self._pack(connection, future, (args, kwargs))
            self._core.refresh()
            return True
        except Exception as error:
            begin((future,))
            fail(future, error)
            return False

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: Optional[int] = None,
        buffersize: Optional[int] = None,
        unordered: bool = False,
    ) -> Iterator[T]:
        """The values of `fn` for the items of the iterables, in their order or as they finish (`unordered`).

        Args:
            timeout: Seconds from this call after which waiting for a value raises `TimeoutError`.
            chunksize: How many jobs are sent in one call. `None`: chosen by the time that jobs take.
            buffersize: How many jobs may be sent whose values were not taken. With it the iterables are read
                as the values are taken, without it at once.
        """
        if not iterables:
            raise TypeError("map needs at least one iterable")
        star = len(iterables) > 1
        items: Iterable[Any] = zip(*iterables) if star else iterables[0]
        return self._map(fn, items, star, timeout, chunksize, buffersize, unordered)

    def starmap(
        self,
        fn: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        timeout: Optional[float] = None,
        chunksize: Optional[int] = None,
        buffersize: Optional[int] = None,
        unordered: bool = False,
    ) -> Iterator[T]:
        """As `map`, for an iterable of tuples of arguments."""
        return self._map(fn, map(tuple, iterable), True, timeout, chunksize, buffersize, unordered)

    def _map(self, fn, items, star, timeout, chunksize, buffersize, unordered):
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        self._usable()
        items = list(items) if buffersize is None else iter(items)
        run = self._start_map(fn, items, star=star, chunksize=chunksize, buffersize=buffersize)
        return run.values(not unordered, timeout)

    def _start_map(self, fn, items, *, star, chunksize, buffersize, on_done=None, grows=False) -> MapRun:
        """Start a map. `items` is read lazily unless it is a list, which the map empties."""
        connection = self._usable()
        core = self._core
        record = connection.functions.for_map(fn)
        core.refresh()
        run = MapRun(
            core,
            record,
            items,
            star=star,
            chunksize=chunksize,
            buffersize=buffersize,
            retries=self._retries,
            timeout=self._timeout,
            grows=grows,
        )
        if on_done is not None:
            run.add_done_callback(on_done)
        if self._progress:
            from ._progress import Progress

            run.show(Progress(fn, len(items) if isinstance(items, list) else None))
        run.start()
        return run

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs, and wait for those that were submitted.

        Args:
            wait: Whether to wait until all jobs have finished.
            cancel_futures: Whether to cancel the jobs that were not sent.
        """
        core = self._core
        core.closed = True
        cancel_abandoned()
        for run in live_runs():
            if run.core is core:
                run.end_of_executor()
        if cancel_futures and core.connection is not None:
            self._cancel_pending()
        if wait:
            core.wait_idle()

    def terminate_workers(self) -> None:
        """Take no more jobs, cancel those that were not sent, and end those that run: as `ProcessPoolExecutor` of 3.14.

        Workers that run a job of this executor are ended by signals; other executors get new ones.
        """
        core = self._core
        core.abandoned = True  # the interpreter does not wait for their ends
        self.shutdown(wait=False, cancel_futures=True)
        core.end_sessions()
        if core.connection is not None:
            core.connection.write_forgotten()

    def _cancel_pending(self):
        core = self._core
        with core.connection.lock:
            sources = list(core.pending)
            core.pending.clear()
            for source in sources:
                source.queued = False
        for source in sources:
            source.cancel()
        cancelled = [source for source in sources if type(source) is JobFuture]
        begin(cancelled)
        with core.connection.lock:
            core.count_finished(len(cancelled))


# Names that others import from here.
__all__ = ["Executor", "MapRun"]
