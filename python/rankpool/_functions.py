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
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

from ._frames import FORGET, FUNCTION, pack_frame
from ._payload import ALIGN, cloudpickle, dumps_parts, layout

# A function that captures objects that can change is serialised at each submit, up to this size.
SMALL = 1 << 16
_MOST_ENTRIES = 1000
_LARGE = 1 << 16  # bytes
_PIECE = 1 << 18
# Numbers are unique in the process, so that a shared object has the same one in all connections.
next_number = itertools.count(1).__next__
_MISSING = object()
_ITSELF = object()
_ATOMS = frozenset(
    [int, float, complex, bool, str, bytes, type(None), type(Ellipsis), type(NotImplemented), range, ModuleType]
    + [BuiltinFunctionType, type(len), type(str.join), type(object.__init__)]
)


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
    """What is known of a function object: its record, and what it captured when it was serialised."""

    __slots__ = ("reference", "record", "names", "cells", "code", "defaults", "again")

    def is_of(self, fn):
        """Whether the record still says what `fn` does."""
        if self.reference() is not fn or self.again:
            return False
        names = self.names
        if names is None:
            return self.code is None or fn.__code__ is self.code
        if fn.__code__ is not self.code or fn.__defaults__ is not self.defaults:
            return False
        for names_of, name, value in names:
            now = names_of.get(name, _MISSING)
            if now is not value and not (value is _ITSELF and now is fn):
                return False
        for cell, value in self.cells:
            now = _contents(cell)
            if now is not value and not (value is _ITSELF and now is fn):
                return False
        return True


def _contents(cell):
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


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


def is_importable(fn):
    """Whether a worker finds this very object by its module and its name."""
    module = getattr(fn, "__module__", None)
    name = getattr(fn, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module in ("__main__", "__mp_main__"):
        return False
    found = sys.modules.get(module)
    if found is None or (getattr(found, "__spec__", None) is None and getattr(found, "__file__", None) is None):
        return False
    for part in name.split("."):
        found = getattr(found, part, _MISSING)
        if found is _MISSING:
            return False
    return found is fn


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
        self._entries = {}  # id of the function object: _Entry
        self._by_hash = weakref.WeakValueDictionary()
        self._specs = {}  # name of a module: its spec, and how often it was loaded again

    def for_submit(self, fn):
        """The record of a function for one more job: the last one, if nothing that it captures was bound anew."""
        entry = self._entries.get(id(fn))
        if entry is not None and entry.is_of(fn):
            return entry.record
        return self.for_map(fn)

    def for_map(self, fn):
        """The record of a function, serialised now."""
        entry = self._entries.get(id(fn))
        if entry is not None and entry.names is None and entry.is_of(fn) and is_importable(fn):
            return entry.record
        record = self._serialise(fn)
        self._remember(fn, record)
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

    def _remember(self, fn, record):
        entries, key = self._entries, id(fn)
        entry = _Entry()
        try:
            entry.reference = weakref.ref(fn, lambda _: entries.pop(key, None))
        except TypeError:
            return
        entry.record = record
        entry.names = entry.cells = entry.code = entry.defaults = None
        entry.again = False
        if is_importable(fn):
            entry.code = getattr(fn, "__code__", None)
        else:
            if type(fn) is MethodType:
                return
            mutable = True
            entry.names, entry.cells = (), ()
            if type(fn) is FunctionType:
                entry.names, entry.cells, mutable = captures(fn)
                entry.code, entry.defaults = fn.__code__, fn.__defaults__
            else:
                entry.names = None
            entry.again = mutable and record.length <= SMALL
        if len(entries) >= _MOST_ENTRIES:
            entries.pop(next(iter(entries)), None)
        entries[key] = entry


def _by_value(fn):
    if type(fn) is not FunctionType or fn.__module__ != "__main__":
        return None
    from ._by_value import by_value

    return by_value(fn)


def captures(fn):
    """What a function captures: `(names, cells, mutable)`.

    `names` are `(globals, name, value)`, `cells` are `(cell, value)`, of the function and of the functions
    that it refers to and that travel with it; `mutable` tells whether one of the values can change in place.
    """
    names, cells = [], []
    mutable = False
    seen = {id(fn)}
    functions = [fn]
    while functions:
        current = functions.pop()
        values = []
        for name in names_of(current.__code__):
            value = current.__globals__.get(name, _MISSING)
            names.append((current.__globals__, name, _ITSELF if value is fn else value))
            values.append(value)
        for cell in current.__closure__ or ():
            value = _contents(cell)
            cells.append((cell, _ITSELF if value is fn else value))
            values.append(value)
        values += current.__defaults__ or ()
        values += (current.__kwdefaults__ or {}).values()
        values += current.__dict__.values()
        while values:
            value = values.pop()
            kind = type(value)
            if kind in _ATOMS or isinstance(value, type) or value is _MISSING:
                continue
            if kind in (tuple, frozenset):
                values += value
            elif kind is FunctionType:
                if id(value) not in seen and not is_importable(value):
                    functions.append(value)
                seen.add(id(value))
            else:
                mutable = True
    return names, cells, mutable


def names_of(code):
    """The names that a code object and the code nested in it look up."""
    names = set()
    codes = [code]
    while codes:
        current = codes.pop()
        names.update(current.co_names)
        codes += [const for const in current.co_consts if isinstance(const, type(code))]
    return names
