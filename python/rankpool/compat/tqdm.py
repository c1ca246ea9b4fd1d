"""`process_map` of `tqdm.contrib.concurrent` on rankpool's workers.

from rankpool.compat.tqdm import process_map      # was: from tqdm.contrib.concurrent import process_map
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, List, Optional

from ..executor import Executor
from ._common import bar_class, shared_executor, shortest

__all__ = ["process_map"]


def process_map(
    fn: Callable[..., Any],
    *iterables: Iterable[Any],
    max_workers: Optional[int] = None,
    chunksize: Optional[int] = None,
    timeout: Optional[float] = None,
    lock_name: str = "",
    tqdm_class: Optional[Callable[..., Iterable[Any]]] = None,
    **tqdm_options: Any,
) -> List[Any]:
    """`list(map(fn, *iterables))` in the workers, with a bar. `chunksize` None: found by measuring."""
    tqdm_options.setdefault("total", shortest(iterables))
    executor = shared_executor() if max_workers is None else Executor(max_workers)
    values = executor.map(fn, *iterables, chunksize=chunksize, timeout=timeout)
    return list((tqdm_class or bar_class())(values, **tqdm_options))
