"""Iterators of the values of a map."""

from itertools import repeat
from time import monotonic

from ._runs import abandoned


class Parts:
    """The finished chunks of a run, each as an iterator that forgets a value when it hands it over."""

    def __init__(self, run, ordered, timeout):
        self._run = run
        self._ordered = ordered
        self._deadline = None if timeout is None else monotonic() + timeout
        self._begun = False
        self._rest = None  # a chunk whose values were handed over up to a failure
        self._at = 0

    def __iter__(self):
        return self

    def limit(self, timeout):
        """Wait for the next chunk at most `timeout` seconds from now."""
        self._deadline = None if timeout is None else monotonic() + timeout

    def __next__(self):
        self._begun = True
        while True:
            if self._rest is not None:
                return self._next_part()
            chunk = self._run.take(self._ordered, self._deadline)
            if chunk is None:
                raise StopIteration
            if chunk.failures is None:
                return emptying(chunk.values)
            self._rest, self._at = chunk, 0

    def _next_part(self):
        """The values up to the next failure, or the failure."""
        chunk, at = self._rest, self._at
        if at in chunk.failures:
            self._at = at + 1
            if self._at >= chunk.count:
                self._rest = None
            error = chunk.failures.pop(at)
            try:
                raise error
            finally:
                del error
        end = min((offset for offset in chunk.failures if offset > at), default=chunk.count)
        self._at = end
        if end >= chunk.count:
            self._rest = None
        part = chunk.values[at:end]
        chunk.values[at:end] = [None] * (end - at)
        return emptying(part)

    def __del__(self):
        # This may be called at any moment by the garbage collector, so that no lock can be taken here.
        if self._begun or self._run._is_bounded():
            abandoned.append(self._run)


def emptying(values):
    """An iterator over a list that removes what it hands over."""
    values.reverse()
    return map(list.pop, repeat(values, len(values)))


class Values:
    """The values of a run; the iterator goes on behind an exception."""

    def __init__(self, run, ordered, timeout):
        self._parts = Parts(run, ordered, timeout)
        self._part = iter(())

    def __iter__(self):
        return self

    def __next__(self):
        while True:
            for value in self._part:
                return value
            self._part = next(self._parts)

    def part(self):
        """An iterator of the values that are there; what is taken from it is taken from this one."""
        return self._part

    def next(self, timeout=None):
        """The next value. If it is not there within `timeout` seconds, `TimeoutError` is raised; one can call again."""
        self._parts.limit(timeout)
        return next(self)
