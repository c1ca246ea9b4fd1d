"""The names of `p_tqdm` on rankpool's workers.

from rankpool.compat.p_tqdm import p_map      # was: from p_tqdm import p_map
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Iterator, List, Optional, Union

from ..executor import Executor
from ._common import bar_class, shared_executor, shortest

__all__ = ["p_imap", "p_map", "p_uimap", "p_umap", "t_imap", "t_map"]


def p_map(function: Callable[..., Any], *iterables: Iterable[Any], **options: Any) -> List[Any]:
    """The list of values in input order, with a bar. `num_cpus`: how many jobs run at once (a float: the part of all
    workers); `total`, `disable`, `tqdm` and the bar's own options as in `p_tqdm`."""
    return list(p_imap(function, *iterables, **options))


def p_umap(function: Callable[..., Any], *iterables: Iterable[Any], **options: Any) -> List[Any]:
    """The list of values in the order in which the jobs end, with a bar."""
    return list(p_uimap(function, *iterables, **options))


def p_imap(function: Callable[..., Any], *iterables: Iterable[Any], **options: Any) -> Iterator[Any]:
    """An iterator of the values in input order, with a bar."""
    return _parallel(function, iterables, options, False)


def p_uimap(function: Callable[..., Any], *iterables: Iterable[Any], **options: Any) -> Iterator[Any]:
    """An iterator of the values in the order in which the jobs end, with a bar."""
    return _parallel(function, iterables, options, True)


def t_map(function: Callable[..., Any], *iterables: Iterable[Any], **options: Any) -> List[Any]:
    """One job after the other in this process, with a bar."""
    return list(t_imap(function, *iterables, **options))


def t_imap(function: Callable[..., Any], *iterables: Iterable[Any], **options: Any) -> Iterator[Any]:
    """As `t_map`, an iterator."""
    options.pop("num_cpus", None)
    return _with_bar(map(function, *iterables), shortest(iterables), options)


def _parallel(function: Callable[..., Any], iterables: Any, options: Any, unordered: bool) -> Iterator[Any]:
    executor = _executor(options.pop("num_cpus", None))
    # Inputs without a length may be endless: they are read as values are taken.
    total = shortest(iterables)
    buffersize = 128 * executor.num_workers if total is None else None
    values = executor.map(function, *iterables, unordered=unordered, buffersize=buffersize)
    return _with_bar(values, total, options)


def _with_bar(values: Iterable[Any], length: Optional[int], options: Any) -> Iterator[Any]:
    total = options.pop("total", None) or length
    show = options.pop("tqdm", None) or bar_class()
    if options.pop("disable", False):
        return iter(values)
    return iter(show(values, total=total, **options))


def _executor(num_cpus: Union[None, int, float]) -> Executor:
    if num_cpus is None:
        return shared_executor()
    if isinstance(num_cpus, float):
        num_cpus = max(round(num_cpus * shared_executor().num_workers), 1)
    return Executor(num_cpus)
