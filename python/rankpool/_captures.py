"""What a function that travels by value refers to, and whether that has changed since it was serialised.

Names, cells and the members of classes are compared with the objects to which they were bound. Objects that can change in place are
compared by their pickles, for which functions and classes are looked at like this one: that takes a small part of the time in
which the function is serialised again.
"""

import functools
import sys
from _pickle import Pickler
from abc import ABC
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType, ModuleType

LARGEST_STATE = 1 << 16
_MISSING = object()
_ITSELF = object()  # stands for the function, which its own record must not keep alive
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

    It is made before the callable is serialised: what is changed meanwhile then is a change.
    """

    __slots__ = (
        *("_code", "_defaults", "_bindings", "_cells", "_sizes", "_objects", "_compares", "_state", "_found"),
        *("_waiting", "_seen"),
    )

    def __init__(self, fn):
        self._code = getattr(fn, "__code__", None)
        self._defaults = getattr(fn, "__defaults__", None)
        self._bindings = []  # (globals or members of a class, name, value)
        self._cells = []  # (cell, value)
        self._sizes = []  # (members of a class, their number)
        self._objects = []  # those that can change in place
        self._state = None  # their pickle; None if it cannot be told
        self._found = None  # the functions and classes in it, which must live while their ids are compared
        self._waiting = []  # functions and classes that have not been looked at
        self._seen = {id(fn)}
        function = _function_of(fn)
        if function is fn:
            self._look_at_function(fn, fn)
        else:
            self._add(function)
        self._look_at_all(fn)
        self._compares = bool(self._objects) or function is not fn
        if self._compares:
            self._keep_state(fn)
        self._waiting = self._seen = None

    def ignore_objects(self):
        """Let changes in place count no more."""
        self._compares = False
        self._objects = self._state = self._found = None

    def are_unchanged(self, fn):
        """Whether the callable, which is the same one, still refers to the same."""
        if self._code is not None and (fn.__code__ is not self._code or fn.__defaults__ is not self._defaults):
            return False
        for names_of_it, name, value in self._bindings:
            now = names_of_it.get(name, _MISSING)
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

    def _look_at_all(self, fn):
        while self._waiting:
            current = self._waiting.pop()
            if type(current) is FunctionType:
                self._look_at_function(current, fn)
            else:
                self._look_at_class(current, fn)

    def _look_at_function(self, function, fn):
        namespace = function.__globals__
        for name in names_of(function.__code__):
            value = namespace.get(name, _MISSING)
            self._bindings.append((namespace, name, _ITSELF if value is fn else value))
            self._add(value)
        for cell in function.__closure__ or ():
            value = _contents(cell)
            self._cells.append((cell, _ITSELF if value is fn else value))
            self._add(value)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *function.__dict__.values()):
            self._add(value)

    def _look_at_class(self, cls, fn):
        members = cls.__dict__
        self._sizes.append((members, len(members)))
        for base in cls.__bases__:
            self._add(base)
        for name, value in members.items():
            self._bindings.append((members, name, _ITSELF if value is fn else value))
            for part in _parts_of_member(value):
                # The other members with such names are what Python itself keeps in a class.
                if not (name.startswith("__") and name.endswith("__")) or type(part) is FunctionType:
                    self._add(part)

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
                self._objects.append(value)

    def _keep_state(self, fn):
        """Keep the state of the objects. The functions and classes in it are looked at, too."""
        while True:
            self._state, self._found = _state_of(self._objects, fn)
            for one in self._found or ():
                self._add(one)
            if not self._waiting:
                return
            self._look_at_all(fn)


def _contents(cell):
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _function_of(fn):
    """The function that a callable calls; None if it is none of the usual ones."""
    kind = type(fn)
    if kind is FunctionType:
        return fn
    if kind is MethodType:
        return fn.__func__
    return fn.func if kind is functools.partial else type(fn)


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
    """`(state, functions and classes in it)` of the objects and of those that the callable brings. No state: it cannot be told."""
    state = _State()
    pickler = _StatePickler(state)
    try:
        pickler.dump((objects, _objects_of(fn)))
    except Exception:
        return None, None
    return state, pickler.found
