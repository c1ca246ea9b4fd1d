"""What a function that travels by value refers to, and whether that has changed since it was serialised.

Names, cells and the members of classes must be bound to the same objects as before. Objects that can change in place must have the same
pickle as before; functions and classes in them are compared by their own names, cells and members. All that is several times
faster than to serialise the function again.
"""

import functools
import sys
from _pickle import Pickler
from abc import ABC
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType, ModuleType

LARGEST_STATE = 1 << 16
_MISSING = object()
_ITSELF = object()  # stands for the function, which its own record must not keep alive
# Types whose objects do not change, or go by name.
_ATOMS = frozenset(
    [int, float, complex, bool, str, bytes, type(None), type(Ellipsis), type(NotImplemented), range, ModuleType]
    + [BuiltinFunctionType, type(str.join), type(object.__init__), GetSetDescriptorType, MemberDescriptorType]
    + [type(ABC.__dict__["_abc_impl"])]
)


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


def names_of(code):
    """The names that a code object and the code nested in it look up."""
    names = set()
    codes = [code]
    while codes:
        current = codes.pop()
        names.update(current.co_names)
        codes += [const for const in current.co_consts if isinstance(const, type(code))]
    return names


class Captures:
    """What a function, a `functools.partial`, a method or another callable refers to, as it is now.

    Make it before the callable is serialised: then a change that another thread makes meanwhile is noticed later.
    """

    __slots__ = ("_code", "_defaults", "_bindings", "_cells", "_sizes", "_objects", "_compares", "_state", "_found")

    def __init__(self, fn):
        self._code = getattr(fn, "__code__", None)
        self._defaults = getattr(fn, "__defaults__", None)
        walk = _Walk(fn)
        self._bindings, self._cells, self._sizes, self._objects = walk.bindings, walk.cells, walk.sizes, walk.objects
        self._compares = bool(walk.objects) or type(fn) is not FunctionType
        self._state = None  # the pickle of the objects; None if it cannot be told
        self._found = None  # the functions and classes in it, which must live while their ids are compared
        while self._compares:
            self._state, self._found = _state_of(self._objects, fn)
            if self._state is None or not walk.look_at(self._found):
                return

    def ignore_objects(self):
        """Let changes in place count no more."""
        self._compares = False
        self._objects = self._state = self._found = None

    def are_unchanged(self, fn):
        """Whether the callable, which is the same one, still refers to the same."""
        if self._code is not None and (fn.__code__ is not self._code or fn.__defaults__ is not self._defaults):
            return False
        for members, name, value in self._bindings:
            now = members.get(name, _MISSING)
            if now is not value and not (value is _ITSELF and now is fn):
                return False
        for cell, value in self._cells:
            now = _contents(cell)
            if now is not value and not (value is _ITSELF and now is fn):
                return False
        for members, size in self._sizes:
            if len(members) != size:
                return False
        if not self._compares:
            return True
        return self._state is not None and _state_of(self._objects, fn)[0] == self._state


class _Walk:
    """Goes from a callable to all functions and classes that travel by value with it."""

    def __init__(self, fn):
        self.bindings = []  # (globals, or members of a class; name; value)
        self.cells = []  # (cell, value)
        self.sizes = []  # (members of a class, their number)
        self.objects = []  # those that can change in place
        self._fn = fn
        self._waiting = []  # functions and classes that have not been looked at
        self._seen = set()
        self.look_at([_function_of(fn)])

    def look_at(self, values):
        """Look at those of these functions and classes that are new, and at what they refer to. False: none is new."""
        for value in values:
            self._add(value)
        is_new = bool(self._waiting)
        while self._waiting:
            current = self._waiting.pop()
            if type(current) is FunctionType:
                self._look_at_function(current)
            else:
                self._look_at_class(current)
        return is_new

    def _look_at_function(self, function):
        namespace = function.__globals__
        for name in names_of(function.__code__):
            value = namespace.get(name, _MISSING)
            self._bind(namespace, name, value)
            self._add(value)
        for cell in function.__closure__ or ():
            value = _contents(cell)
            self.cells.append((cell, _ITSELF if value is self._fn else value))
            self._add(value)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *function.__dict__.values()):
            self._add(value)

    def _look_at_class(self, cls):
        members = cls.__dict__
        self.sizes.append((members, len(members)))
        for base in cls.__bases__:
            self._add(base)
        for name, value in members.items():
            self._bind(members, name, value)
            for part in _parts_of_member(value):
                # The other members with such names are what Python itself keeps in a class.
                if not (name.startswith("__") and name.endswith("__")) or type(part) is FunctionType:
                    self._add(part)

    def _bind(self, members, name, value):
        self.bindings.append((members, name, _ITSELF if value is self._fn else value))

    def _add(self, value):
        """Note a value that is referred to."""
        values = [value]
        while values:
            value = values.pop()
            kind = type(value)
            if kind in _ATOMS or value is _MISSING:
                continue
            if kind in (tuple, frozenset):
                values += value
            elif kind is FunctionType or isinstance(value, type):
                if id(value) not in self._seen and not is_importable(value):
                    self._waiting.append(value)
                self._seen.add(id(value))
            else:
                self.objects.append(value)


def _contents(cell):
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _function_of(fn):
    """The function that a callable calls, or its class."""
    kind = type(fn)
    if kind is FunctionType:
        return fn
    if kind is MethodType:
        return fn.__func__
    return fn.func if kind is functools.partial else kind


def _objects_of(fn):
    """The objects that a callable brings, beside those of its function."""
    kind = type(fn)
    if kind is FunctionType:
        return ()
    if kind is MethodType:
        return fn.__self__
    return (fn.args, fn.keywords) if kind is functools.partial else fn


def _parts_of_member(value):
    """The functions in a member of a class, or the member."""
    if isinstance(value, (staticmethod, classmethod)):
        return (value.__func__,)
    if isinstance(value, property):
        return (value.fget, value.fset, value.fdel)
    return (value,)


class _StatePickler(Pickler):
    """Pickles objects to compare them. Functions and classes in them stand for themselves, and are collected."""

    def __init__(self, state):
        super().__init__(state, 5, buffer_callback=state.add_buffer)
        self.found = []

    def reducer_override(self, obj):
        if isinstance(obj, (FunctionType, type)):
            self.found.append(obj)
            return id, (id(obj),)
        return NotImplemented


class _State(list):
    """The pickle of objects with their buffers, as a file for a pickler."""

    length = 0

    def write(self, part):
        self.length += len(part)
        if self.length > LARGEST_STATE:
            raise ValueError("too large to be compared")
        self.append(part)

    def add_buffer(self, buffer):
        with buffer.raw() as raw:
            self.write(raw if raw.nbytes > LARGEST_STATE else bytes(raw))


def _state_of(objects, fn):
    """`(state, functions and classes in it)` of the objects and of those that the callable brings; two None: it cannot be told."""
    state = _State()
    pickler = _StatePickler(state)
    try:
        pickler.dump((objects, _objects_of(fn)))
    except Exception:
        return None, None
    return state, pickler.found
