"""How a function travels: serialised once, known by its hash, sent once.

What can be imported goes by its name. Functions of `__main__`, lambdas, closures and nested functions
go by value, with what they capture: by cloudpickle, or without it (see `_by_value`) if they capture nothing but
constants, modules and functions like themselves. Without cloudpickle, functions of `__main__` go by name
and the worker imports `__main__` again, as multiprocessing does.
"""

import itertools
import sys
import weakref
from _blake2 import blake2b
from os import close
from types import FunctionType, MethodType

from ._captures import LARGEST_STATE, Captures, is_importable
from ._frames import FORGET, FUNCTION, pack_frame
from ._payload import ALIGN, cloudpickle, dumps_parts, layout

_MOST_ENTRIES = 1000
_LARGE = 1 << 16  # bytes
_PIECE = 1 << 18
# Numbers are unique in the process, so that a shared object has the same one in all connections.
next_number = itertools.count(1).__next__


class FunctionRecord:
    """A function in its serialised form, with the number under which the ranks know it."""

    __slots__ = ("number", "name", "length", "uses", "frame", "_forgotten", "__weakref__")

    def __init__(self, number, name, flags, parts, length, uses, forgotten):
        self.number = number
        self.name = name
        self.length = length
        self.uses = uses
        self._forgotten = forgotten
        head = name.encode(errors="replace")[:1024]
        head += bytes(-len(head) % ALIGN)
        # The frame is made now, so that later changes of arrays are not seen by some jobs and not by others.
        self.frame = pack_frame(FUNCTION, flags, 0, 0, len(head), number, 0, 0, 0.0, [head, *parts], len(head) + length)

    def __del__(self):
        frame = getattr(self, "frame", None)
        if frame is None:
            self._forgotten.append((FORGET, self.number))
        elif type(frame) is tuple:
            close(frame[1])


class _Entry:
    """What is known of a function object: its record, and what it referred to when it was serialised."""

    __slots__ = ("references", "record", "code", "captures")

    def is_of(self, fn):
        """Whether the record still says what `fn` does."""
        if type(fn) is MethodType:
            if self.references[0]() is not fn.__self__ or self.references[1]() is not fn.__func__:
                return False
        elif self.references[0]() is not fn:
            return False
        if self.captures is None:
            return self.code is None or fn.__code__ is self.code
        return self.captures.are_unchanged(fn)


def _key_of(fn):
    """What a function object is found by. A bound method is made anew each time."""
    return (id(fn.__self__), id(fn.__func__)) if type(fn) is MethodType else id(fn)


def _hash(name, parts):
    """What a serialised function is known by: a hash of its name and its parts.

    A large part enters with Python's own hashes of its bytes, which are several times faster than `blake2b`: they have
    64 bits and a random key. That of a `bytes` object is kept with it; others are copied piece by piece.
    """
    digest = blake2b(name.encode(errors="replace"), digest_size=24)
    for part in parts:
        if len(part) < _LARGE:
            digest.update(part)
        elif type(part) is bytes:
            digest.update(b"%d bytes %d" % (len(part), hash(part)))
        else:
            view = memoryview(part).cast("B")
            hashes = [hash(bytes(view[at : at + _PIECE])) for at in range(0, len(view), _PIECE)]
            digest.update(b"%d bytes %a" % (len(view), hashes))
    return digest.digest()


def display_name(fn):
    """How a function is called in messages and records."""
    while type(fn).__name__ == "partial" and hasattr(fn, "func"):
        fn = fn.func
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    module = getattr(fn, "__module__", None)
    return name if module in (None, "__main__", "builtins") else f"{module}.{name}"


def all_uses(functions, record, uses):
    """The records of the shared objects that a call needs: those of its function, of its arguments, and theirs."""
    if not uses and not record.uses:
        return ()
    found = {}
    waiting = [*record.uses, *uses]
    while waiting:
        used = waiting.pop().record(functions)
        if used.number not in found:
            found[used.number] = used
            waiting += used.uses
    return list(found.values())


class Functions:
    """The functions of one connection."""

    def __init__(self, forgotten):
        self._forgotten = forgotten
        self._entries = {}  # `_key_of` a function object: _Entry
        self._by_hash = weakref.WeakValueDictionary()
        self._specs = {}  # name of a module: its spec, and how often it was loaded again

    def for_submit(self, fn):
        """The record of a function for one more job: the last one, if nothing to which it refers has changed."""
        entry = self._entries.get(_key_of(fn))
        if entry is not None and entry.is_of(fn):
            return entry.record
        return self.for_map(fn)

    def for_map(self, fn):
        """The record of a function, serialised now."""
        entry = self._entries.get(_key_of(fn))
        if entry is not None and entry.captures is None and entry.is_of(fn) and is_importable(fn):
            return entry.record
        captures = None if is_importable(fn) else Captures(fn)
        record = self._serialise(fn)
        self._remember(fn, record, captures)
        return record

    def of_object(self, number, obj, name):
        """The record of an object that is not a function (a shared one)."""
        parts, buffers, uses = dumps_parts(obj)
        return FunctionRecord(number, name, *layout(parts, buffers), uses, self._forgotten)

    def _generation(self, fn):
        """How often the module of a function was loaded again since its first function was sent."""
        name = fn.__module__
        spec = sys.modules[name].__spec__
        known, generation = self._specs.get(name, (spec, 0))
        if known is not spec:
            generation += 1
        self._specs[name] = (spec, generation)
        return generation

    def _serialise(self, fn):
        try:
            generation = self._generation(fn) if is_importable(fn) else 0
            if generation:
                from ._reload import Reloaded

                parts, buffers, uses = dumps_parts(Reloaded(fn.__module__, fn.__qualname__, generation))
            else:
                parts, buffers, uses = dumps_parts(_by_value(fn) or fn)
        except Exception as error:
            if cloudpickle() is None:
                what = display_name(fn)
                raise type(error)(
                    f"{error}. {what!r} cannot be found by its name in another process: install cloudpickle "
                    f"(pip install cloudpickle), or define it at the top level of a module"
                ) from error
            raise
        return self._record(display_name(fn), *layout(parts, buffers), uses)

    def _record(self, name, flags, parts, length, uses):
        key = _hash(name, parts)
        record = self._by_hash.get(key)
        if record is None:
            record = FunctionRecord(next_number(), name, flags, parts, length, uses, self._forgotten)
            record = self._by_hash.setdefault(key, record)
        return record

    def _remember(self, fn, record, captures):
        entries, key = self._entries, _key_of(fn)
        entry = _Entry()
        owners = (fn,)
        if type(fn) is MethodType:
            owners = (fn.__self__, fn.__func__)
        if captures is not None and record.length > LARGEST_STATE:
            if type(fn) is MethodType:
                return  # Nothing is bound anew if its object changes.
            captures.ignore_objects()
        try:
            entry.references = [weakref.ref(owner, lambda _: entries.pop(key, None)) for owner in owners]
        except TypeError:
            return
        entry.record = record
        entry.captures = captures
        entry.code = getattr(fn, "__code__", None) if captures is None else None
        if len(entries) >= _MOST_ENTRIES:
            entries.pop(next(iter(entries)), None)
        entries[key] = entry


def _by_value(fn):
    if type(fn) is not FunctionType or fn.__module__ != "__main__":
        return None
    from ._by_value import by_value

    return by_value(fn)
