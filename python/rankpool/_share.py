"""Objects that many jobs use: sent once to each worker that needs them."""

import weakref
from _thread import _local as _Local  # `threading` makes every fork of a worker slower
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_local = _Local()
_known: "weakref.WeakValueDictionary[int, Shared]" = weakref.WeakValueDictionary()


class Shared(Generic[T]):
    """A handle of a shared object. `get()` gives the object, in the script and in a job.

    A handle that is itself an argument of a job arrives as the object; one inside another object, or
    captured by a function, arrives as a handle.
    """

    def __init__(self, obj: T, number: int):
        self._object = obj
        self._number = number
        self._records: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()
        _known[number] = self

    def get(self) -> T:
        """The shared object. In a worker, all jobs get the same one."""
        return self._object

    def record(self, functions: Any) -> Any:
        """The serialised object, for one connection."""
        found = self._records.get(functions)
        if found is None:
            found = functions.of_object(self._number, self._object, "share")
            found = self._records.setdefault(functions, found)
        return found

    def __reduce__(self):
        uses = getattr(_local, "uses", None)
        if uses is not None:
            uses[self._number] = self
        return _load_shared, (self._number,)


class _Loaded(Shared):
    """A handle in a worker. Its object is loaded when it is first asked for."""

    def __init__(self, number):
        self._number = number

    def get(self):
        from ._worker import shared_object

        return shared_object(self._number)


def share(obj: T) -> "Shared[T]":
    """A handle of `obj`, which is serialised once and sent once to each worker whose jobs use it.

    The object must not be changed afterwards. It is forgotten when the handle is.
    """
    from ._functions import next_number

    if isinstance(obj, Shared):
        return obj
    return Shared(obj, next_number())


def _load_shared(number):
    found = _known.get(number)
    return found if found is not None else _Loaded(number)


@contextmanager
def collecting():
    """The shared objects that are pickled by this thread meanwhile, by number."""
    before = getattr(_local, "uses", None)
    _local.uses = {}
    try:
        yield _local.uses
    finally:
        _local.uses = before
