"""The pools of `pathos` on rankpool's workers.

    from rankpool.compat.pathos import ProcessPool      # was: from pathos.multiprocessing import ProcessPool

`ProcessingPool` and `ParallelPool` are other names of it. Functions travel by cloudpickle instead of dill.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Iterator, List, Optional

from ..pool import AsyncResult, MapResult, Pool

__all__ = ["ParallelPool", "ProcessPool", "ProcessingPool", "cpu_count"]


class ProcessPool:
    """`pathos.pools.ProcessPool`: `nodes` (or `ncpus`) is how many jobs run at the same time."""

    def __init__(self, nodes: Optional[int] = None, *, ncpus: Optional[int] = None, **options: Any):
        for name in ("servers", "port", "id"):
            options.pop(name, None)
        self._nodes = nodes if nodes is not None else ncpus
        self._options = options
        self._pool: Optional[Pool] = None

    @property
    def nodes(self) -> int:
        """How many jobs run at the same time. Can be set; it then counts from the next job on."""
        return self._nodes if self._nodes is not None else self._serve()._processes

    @nodes.setter
    def nodes(self, count: Optional[int]) -> None:
        if count != self._nodes:
            self._nodes = count
            self.clear()

    ncpus = nodes

    def __repr__(self) -> str:
        return f"<pool {type(self).__name__}(ncpus={self.nodes})>"

    def _serve(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(self._nodes, **self._options)
        return self._pool

    def map(self, f: Callable[..., Any], *args: Iterable[Any], **options: Any) -> List[Any]:
        """The list of `f(*items)` for the items of all inputs taken together; `chunksize` as in `multiprocessing`."""
        return self._serve().starmap(f, _together(args), **options)

    def imap(self, f: Callable[..., Any], *args: Iterable[Any], **options: Any) -> Iterator[Any]:
        """As `map`, an iterator; the input is read while values are taken."""
        return self._serve()._imap(f, zip(*_some(args)), options.pop("chunksize", None), None, True, star=True)

    def uimap(self, f: Callable[..., Any], *args: Iterable[Any], **options: Any) -> Iterator[Any]:
        """As `imap`, in the order in which the jobs end."""
        return self._serve()._imap(f, zip(*_some(args)), options.pop("chunksize", None), None, False, star=True)

    def amap(self, f: Callable[..., Any], *args: Iterable[Any], **options: Any) -> MapResult:
        """Begins `map`; `get()` of what it returns gives the list."""
        return self._serve().starmap_async(f, _together(args), **options)

    def pipe(self, f: Callable[..., Any], *args: Any, **kwds: Any) -> Any:
        """`f(*args, **kwds)` in a worker; waits for the value."""
        return self._serve().apply(f, args, kwds)

    def apipe(self, f: Callable[..., Any], *args: Any, **kwds: Any) -> AsyncResult:
        """Begins `pipe`; `get()` of what it returns gives the value."""
        return self._serve().apply_async(f, args, kwds)

    def close(self) -> None:
        """No more jobs are taken, until `restart` or `clear`."""
        self._serve().close()

    def join(self) -> None:
        """Waits until all jobs have ended."""
        self._serve().join()

    def terminate(self) -> None:
        """Drops what has not begun."""
        self._serve().terminate()

    def restart(self, force: bool = False) -> None:
        """Takes jobs again after `close` or `terminate`; with `force` also a pool that runs begins anew."""
        if self._pool is not None and self._pool._state == "RUN":
            if not force:
                raise ValueError("Pool is still running")
            self._pool.terminate()
        self._pool = None

    def clear(self) -> None:
        """Ends the pool when its jobs have ended; the next job begins a new one."""
        if self._pool is not None and self._pool._state == "RUN":
            self._pool.close()
        self._pool = None

    def __del__(self) -> None:
        self.clear()

    def __enter__(self) -> "ProcessPool":
        return self

    def __exit__(self, *exc_info: object) -> None:
        # As in pathos, the pool can be used again afterwards.
        self.clear()


def _some(inputs: Any) -> Any:
    if not inputs:
        raise TypeError("at least one input is needed: map(f, inputs)")
    return inputs


def _together(inputs: Any) -> Iterable[Any]:
    """The tuples of arguments; a list if the number of jobs is known."""
    pairs = zip(*_some(inputs))
    return list(pairs) if any(hasattr(one, "__len__") for one in inputs) else pairs


ProcessingPool = ProcessPool
ParallelPool = ProcessPool


def cpu_count() -> int:
    """The number of all workers of the run."""
    from ._common import shared_executor

    return shared_executor().num_workers
