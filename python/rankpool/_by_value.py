"""Functions of `__main__` that go by value without cloudpickle: those that refer to constants, modules, and functions like themselves.

They are the usual ones, and the import of cloudpickle costs the script and each worker longer than their own start. Whatever
is not covered here goes by cloudpickle, as before.
"""

import marshal
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType

import _frozen_importlib_external as _importing

_MAGIC = _importing.MAGIC_NUMBER
_LONGEST = 1 << 16
_MISSING = object()
_ATOMS = frozenset([int, float, complex, bool, type(None), type(Ellipsis), type(NotImplemented), range])


class ByValue:
    """A function as a pickle of it is loaded: see `load`."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return load, (_MAGIC, *self.parts)


class _NotCovered(Exception):
    pass


def by_value(fn):
    """What is pickled in the place of a function; None: cloudpickle has to do it."""
    main = sys.modules.get("__main__")
    if type(fn) is not FunctionType or fn.__globals__ is not getattr(main, "__dict__", None):
        return None
    # If it is loaded, it costs nothing, and may have been told how modules travel. If it is not there, `__main__` is imported again.
    if "cloudpickle" in sys.modules or _importing.PathFinder.find_spec("cloudpickle") is None:
        return None
    try:
        return _Collected(main).of(fn)
    except Exception:
        return None


class _Collected:
    """A function and what it refers to."""

    def __init__(self, main):
        # Not for workers, which load functions only.
        from ._captures import is_importable, names_of

        self.main = main
        self.is_importable = is_importable
        self.names_of = names_of
        self.functions = []
        self.names = {}

    def of(self, fn):
        functions = self.functions
        functions.append(fn)
        for function in functions:  # it grows
            self._look_at(function)
        values, modules, own = {}, {}, {}
        for name, value in self.names.items():
            if type(value) is ModuleType:
                modules[name] = value.__name__
            elif type(value) is FunctionType and not self.is_importable(value):
                own[name] = functions.index(value)
            else:
                values[name] = value
        described = [_described(function) for function in functions]
        return ByValue(described, values, modules, self._parts_of(modules), own)

    def _look_at(self, function):
        if function.__closure__ or function.__dict__ or getattr(function, "__type_params__", ()):
            raise _NotCovered
        if function.__globals__ is not self.main.__dict__ or function.__module__ != "__main__":
            raise _NotCovered
        for value in (function.__defaults__ or (), *(function.__kwdefaults__ or {}).values()):
            self._check_constant(value)
        for name in self.names_of(function.__code__):
            value = self.main.__dict__.get(name, _MISSING)
            if value is not _MISSING and name not in self.names:
                self._add(name, value)

    def _add(self, name, value):
        if name == "__builtins__" or (name == "__name__" and value == "__main__"):
            return  # `load` sets them
        kind = type(value)
        if kind is FunctionType:
            if not self.is_importable(value) and not any(value is known for known in self.functions):
                self.functions.append(value)
        elif kind is ModuleType:
            if sys.modules.get(value.__name__) is not value or getattr(value, "__spec__", None) is None or value is self.main:
                raise _NotCovered
        elif kind is BuiltinFunctionType or isinstance(value, type):
            if not self.is_importable(value):
                raise _NotCovered
        else:
            self._check_constant(value)
        self.names[name] = value

    def _check_constant(self, value):
        kind = type(value)
        if kind in (tuple, frozenset):
            for one in value:
                self._check_constant(one)
        elif kind not in _ATOMS and (kind not in (str, bytes) or len(value) > _LONGEST):
            raise _NotCovered

    def _parts_of(self, modules):
        """The modules in packages that may be reached by attributes, such as `numpy.linalg`."""
        used = set()
        for function in self.functions:
            used |= self.names_of(function.__code__)
        found = set()
        for package in {name for name in modules.values() if hasattr(sys.modules[name], "__path__")}:
            start = package + "."
            for name, module in list(sys.modules.items()):
                if name.startswith(start) and module is not None and used.issuperset(name[len(start) :].split(".")):
                    found.add(name)
        return sorted(found)


def _described(function):
    # Without references to equal objects, so that the same function has the same bytes each time.
    code = marshal.dumps(function.__code__, 2)
    head = (function.__name__, function.__qualname__, function.__doc__)
    return (code, head, function.__defaults__, function.__kwdefaults__, dict(function.__annotations__))


def load(magic, described, values, modules, parts, own):
    """The function, in a namespace that has what it refers to."""
    if magic != _MAGIC:
        version = sys.version.split()[0]
        raise ImportError(f"the script runs in another version of Python than this worker, which is Python {version}")
    namespace = {"__name__": "__main__", "__builtins__": __builtins__, **values}
    for name, module in modules.items():
        __import__(module)
        namespace[name] = sys.modules[module]
    for module in parts:
        __import__(module)
    functions = []
    for code, (name, qualname, doc), defaults, kwdefaults, annotations in described:
        function = FunctionType(marshal.loads(code), namespace, name, defaults)
        function.__qualname__ = qualname
        function.__doc__ = doc
        function.__kwdefaults__ = kwdefaults
        function.__annotations__ = annotations
        functions.append(function)
    namespace.update((name, functions[at]) for name, at in own.items())
    return functions[0]
