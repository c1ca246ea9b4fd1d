"""Whether a function is serialised again when, and only when, something that it refers to has changed."""

import abc
import array
import dataclasses
import enum
import functools
import gc
import importlib.util
import unittest
import weakref
from unittest import mock

from rankpool._captures import LARGEST_STATE, Captures
from rankpool._functions import Functions
from test_core import WithExecutor

HAS_CLOUDPICKLE = importlib.util.find_spec("cloudpickle") is not None
HAS_NUMPY = importlib.util.find_spec("numpy") is not None
TABLE = {"rate": 1}


def changes_of_values():
    """`(what, function, change)`: functions of no argument and what changes their values."""
    numbers = [1, 2]
    yield "a list in a cell", lambda: sum(numbers), lambda: numbers.append(3)
    nested = {"a": ([1], {"b": {2}})}
    yield "a set in a dict", lambda: len(nested["a"][1]["b"]), lambda: nested["a"][1]["b"].add(3)
    yield "a global dict", lambda: TABLE["rate"], lambda: TABLE.update(rate=TABLE["rate"] + 1)
    inner = [1]
    yield "a list of a nested function", (lambda helper: lambda: helper())(lambda: inner[0]), lambda: inner.insert(0, 5)
    default = [1]
    yield "a default", lambda values=default: len(values), lambda: default.append(2)
    bound = 1
    fn = lambda: bound  # noqa: E731

    def bind():
        nonlocal bound
        bound = 2

    yield "a cell", fn, bind
    data = bytearray(b"abc")
    yield "a bytearray", lambda: bytes(data), lambda: data.extend(b"d")


def changes_of_objects():
    factor = [1]

    class Base:
        offset = 1

        def value(self):
            return self.offset + len(self.items)

    class Model(Base):
        options = {"scale": 2}
        __slots__ = ("items",)

        def __init__(self):
            self.items = [1]

        def __call__(self):
            return self.value() * self.options["scale"]

        @property
        def double(self):
            return 2 * factor[0]

    model = Model()
    yield "an object", lambda: model.value(), lambda: model.items.append(2)
    yield "an attribute of a class", lambda: Base.offset, lambda: setattr(Base, "offset", 7)
    yield "an attribute of an object's base class", lambda: model.value(), lambda: setattr(Base, "offset", 8)
    yield "a dict of an object's class", lambda: model(), lambda: Model.options.update(scale=3)
    yield "a dict of a class", lambda: Model.options["scale"], lambda: Model.options.update(scale=4)
    yield "the class of a bound method's object", model.value, lambda: setattr(Base, "offset", 9)
    yield "a method", lambda: model.value(), lambda: setattr(Base, "value", lambda self: 77)
    yield "a list of a property", lambda: model.double, lambda: factor.insert(0, 5)
    yield "a property", lambda: model.double, lambda: setattr(Model, "double", property(lambda self: 78))
    yield "a new member", lambda: getattr(Model, "more", 0), lambda: setattr(Model, "more", 1)
    yield "the object of a bound method", Model().__call__, lambda: Model.options.update(scale=6)
    yield "a callable object", model, lambda: setattr(Base, "value", lambda self: 80)


def changes_of_callables():
    class Counter:
        def __init__(self):
            self.count = 0

        def value(self, more=0):
            return self.count + more

        def __call__(self):
            return -self.count

    counter = Counter()
    yield "an attribute of a bound method's object", counter.value, lambda: setattr(counter, "count", 1)
    yield "an attribute of a callable object", counter, lambda: setattr(counter, "count", 2)
    yield "an object in a partial", functools.partial(Counter.value, counter), lambda: setattr(counter, "count", 3)
    numbers = [1]
    yield "a list in a partial", functools.partial(sum, numbers), lambda: numbers.append(2)
    options = {"more": 5}
    yield "a keyword of a partial", functools.partial(dict, options=options), lambda: options.update(more=6)
    functions = {"f": lambda: numbers[-1]}
    yield "the list of a lambda in a dict", lambda: functions["f"](), lambda: numbers.append(9)
    yield "a lambda in a dict", lambda: functions["f"](), lambda: functions.update(f=lambda: 10)


class Colour(enum.Enum):
    RED = 1


class Shape(abc.ABC):
    sides = 3

    @abc.abstractmethod
    def area(self):
        pass


@dataclasses.dataclass
class Square(Shape):
    side: int = 2

    def area(self):
        return self.side**2


@unittest.skipUnless(HAS_CLOUDPICKLE, "cloudpickle is not installed")
class Changes(WithExecutor):
    def setUp(self):
        super().setUp()
        self.executor.bootup()
        serialise = Functions._serialise
        self.serialised = []

        def counted(functions, fn):
            self.serialised.append(fn)
            return serialise(functions, fn)

        patch = mock.patch.object(Functions, "_serialise", counted)
        patch.start()
        self.addCleanup(patch.stop)

    def check(self, cases):
        for what, fn, change in cases:
            with self.subTest(what):
                self.submit(fn, 1)
                before = repr(fn())
                change()
                self.assertNotEqual(repr(fn()), before, "the change makes a difference")
                self.submit(fn, 1)

    def submit(self, fn, serialised):
        """Submit a function three times, which is to be serialised so often."""
        del self.serialised[:]
        futures = [self.executor.submit(fn) for _ in range(3)]
        self.assertEqual([future.result(60) for future in futures], [fn()] * 3)
        self.assertEqual(len(self.serialised), serialised)

    def test_changes_of_values_are_seen(self):
        self.check(changes_of_values())

    def test_changes_of_objects_and_classes_are_seen(self):
        self.check(changes_of_objects())

    def test_changes_of_callables_are_seen(self):
        self.check(changes_of_callables())

    def test_functions_with_usual_classes_are_serialised_once(self):
        square = Square()
        for fn in (lambda: Colour.RED.value, lambda: square.area(), lambda: Square.sides, square.area):
            self.submit(fn, 1)

    @unittest.skipUnless(HAS_NUMPY, "numpy is not installed")
    def test_changes_of_arrays_are_seen(self):
        import numpy

        whole = numpy.arange(100.0)
        strided = numpy.arange(100.0)[::2]
        self.check([("an array", lambda: whole.sum(), lambda: whole.fill(2.0))])
        self.check([("a strided array", lambda: strided.sum(), lambda: strided.fill(2.0))])

    def test_what_cannot_be_compared_is_serialised_each_time(self):
        class Odd:
            pickled = 0

            def __reduce__(self):
                self.pickled += 1
                return Odd, (), {"pickled": self.pickled}

        odd, view = Odd(), memoryview(b"abc")  # of a view only cloudpickle knows how it travels
        self.submit(lambda: type(odd).__name__, 3)
        self.submit(lambda: view[0], 3)

    def test_a_bound_method_of_a_large_object_is_serialised_each_time(self):
        class Large:
            def __init__(self):
                self.data = bytearray(2 * LARGEST_STATE)

            def first(self):
                return self.data[0]

        large = Large()
        self.submit(large.first, 3)
        large.data[0] = 1
        self.submit(large.first, 3)


class Lifetimes(unittest.TestCase):
    def test_no_function_and_no_owner_of_a_method_is_kept(self):
        class Owner:
            def method(self):
                return Owner

        def recursive():
            return recursive

        owner = Owner()
        partial = functools.partial(recursive)
        functions = Functions([])
        for fn in (recursive, owner.method, partial):
            functions._remember(fn, mock.Mock(length=10), Captures(fn))
        self.assertEqual(len(functions._entries), 3)
        gone = [weakref.ref(one) for one in (owner, partial, recursive)]
        del recursive, owner, partial, Owner, fn
        gc.collect()
        self.assertEqual([reference() for reference in gone], [None] * 3)
        self.assertEqual(len(functions._entries), 0)

    def test_nothing_large_is_pickled_to_be_compared(self):
        for large in (array.array("B", bytes(2 * LARGEST_STATE)), [bytes(2 * LARGEST_STATE)], list(range(LARGEST_STATE))):
            self.assertIsNone(Captures(lambda large=large: large)._state)
        self.assertIsNotNone(Captures(lambda small=[1]: small)._state)
