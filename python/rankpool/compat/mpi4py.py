"""The names of `mpi4py.futures` (and of `mpi4py.util.pool`) on rankpool's workers.

    from rankpool.compat.mpi4py import MPIPoolExecutor      # was: from mpi4py.futures import MPIPoolExecutor

Start the script with `mpiexec -n 8 rankpool python script.py` instead of
`mpiexec -n 8 python -m mpi4py.futures script.py`. Functions need not be importable, every rank works, and a worker that
dies costs its job only.
"""

from __future__ import annotations

import builtins
import os
import warnings
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Future,
    InvalidStateError,
    TimeoutError,
    as_completed,
    wait,
)
from typing import Any, Callable, Iterable, Iterator, Optional

from .. import pool as _pool
from ..executor import Executor
from ._common import with_environment

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "CancelledError",
    "Executor",
    "Future",
    "InvalidStateError",
    "MPICommExecutor",
    "MPIPoolExecutor",
    "Pool",
    "TimeoutError",
    "as_completed",
    "get_comm_workers",
    "wait",
]

#: Options of mpi4py that say how its processes are started or how they talk: the workers are started already.
_WITHOUT_EFFECT = {"python_exe", "python_args", "mpi_info", "main", "use_pkl5", "backoff"}


class MPIPoolExecutor(Executor):
    """`mpi4py.futures.MPIPoolExecutor`. Options of `rankpool.Executor` (`retries`, `timeout`, …) may be given, too."""

    def __init__(
        self,
        max_workers: Optional[int] = None,
        initializer: Optional[Callable[..., object]] = None,
        initargs: Iterable[Any] = (),
        **options: Any,
    ):
        if max_workers is None and os.environ.get("MPI4PY_FUTURES_MAX_WORKERS"):
            max_workers = int(os.environ["MPI4PY_FUTURES_MAX_WORKERS"])
        if options.pop("globals", None):
            warnings.warn("globals= has no effect: functions of the script travel with what they use", stacklevel=2)
        for name in _WITHOUT_EFFECT:
            options.pop(name, None)
        prepared = with_environment(
            initializer, initargs, options.pop("env", None), options.pop("path", None) or (), options.pop("wdir", None)
        )
        super().__init__(max_workers, *prepared, **options)

    def bootup(self, wait: bool = True) -> "MPIPoolExecutor":
        """Waits until the workers can be reached."""
        if self._core.closed:
            raise RuntimeError("cannot bootup after shutdown")
        super().bootup(wait)
        return self

    @property
    def num_workers(self) -> int:
        """How many jobs run at the same time; 0 after `shutdown`, or if the initializer has failed."""
        return 0 if self._core.closed or self._core.broken is not None else super().num_workers

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: Optional[int] = None,
        buffersize: Optional[int] = None,
        unordered: bool = False,
    ) -> Iterator[Any]:
        """As `rankpool.Executor.map`: `chunksize` may be left out and is then found by measuring."""
        return super().map(
            fn, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize, unordered=unordered
        )


class MPICommExecutor:
    """`mpi4py.futures.MPICommExecutor`: a context manager that gives an executor.

    The script is one process, whatever `comm` is: the executor is always given, never None. `root` must be 0.
    """

    def __init__(self, comm: Any = None, root: int = 0, **options: Any):
        if root != 0:
            raise ValueError("root must be 0: under rankpool the script runs once, and the executor is there")
        self._options = options
        self._executor: Optional[MPIPoolExecutor] = None

    def __enter__(self) -> MPIPoolExecutor:
        if self._executor is not None:
            raise RuntimeError("this MPICommExecutor is in use: leave its `with` block first, or make another one")
        self._executor = MPIPoolExecutor(**self._options)
        return self._executor

    def __exit__(self, *exc_info: object) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)


def get_comm_workers() -> Any:
    """Refused: workers of rankpool are no MPI processes, so there is no communicator of them."""
    raise RuntimeError(
        "workers of rankpool have no MPI communicator. Jobs that talk to each other by MPI need mpi4py.futures itself"
    )


class _Terminated(_pool.PoolTerminated, builtins.TimeoutError):
    """mpi4py's pool raises `TimeoutError` for results that `terminate` leaves without a value."""


class Pool(_pool.Pool):
    """`mpi4py.util.pool.Pool`: the surface of `multiprocessing.Pool`, with `istarmap` and `istarmap_unordered`."""

    _Terminated = _Terminated

    def __init__(
        self,
        processes: Optional[int] = None,
        initializer: Optional[Callable[..., object]] = None,
        initargs: Iterable[Any] = (),
        **options: Any,
    ):
        for name in ("maxtasksperchild", "context"):
            if options.pop(name, None) is not None:
                warnings.warn(f"argument {name!r} is not supported", stacklevel=2)
        super().__init__(processes, initializer, initargs, **options)

    def istarmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: Optional[int] = None
    ) -> Iterator[Any]:
        """The values of `func(*item)` in input order, as they come."""
        return self._imap(func, iterable, chunksize, None, True, star=True)

    def istarmap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: Optional[int] = None
    ) -> Iterator[Any]:
        """As `istarmap`, in the order in which the jobs end."""
        return self._imap(func, iterable, chunksize, None, False, star=True)

    def __exit__(self, *exc_info: object) -> None:
        # mpi4py's pool is closed and not terminated.
        self.close()
