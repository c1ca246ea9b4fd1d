"""How objects become the bytes of a frame's body and objects again.

Pickle protocol 5 with buffers out of band: the bytes of an array are not copied into the pickle, they
follow it, aligned to 64 bytes, and the receiver's array uses the memory in which they arrived.
"""

import sys
from _pickle import Pickler, PicklingError
from _pickle import dumps as _dumps
from _pickle import loads as _loads
from _struct import pack, unpack_from

from ._frames import BUFFERS, USES

ALIGN = 64
# Names that a pickle contains if loading it needs `__main__`, or a shared object.
MAIN = b"__main__"
SHARED = b"_load_shared"
_JOIN_BELOW = 1 << 16
# Objects of these types are pickled whole and by themselves.
_PLAIN = frozenset([bool, int, float, complex, str, bytes, type(None)])


class RemoteTraceback(Exception):
    """The traceback of an exception in a worker, as text: the `__cause__` of the exception that arrives."""

    def __init__(self, text: str):
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return "\n" + self.text

    def __reduce__(self):
        return RemoteTraceback, (self.text,)


class RemoteError(RuntimeError):
    """An exception of a job that could not be pickled, described: its type and its text."""


def cloudpickle():
    """The module cloudpickle, or None if it is not installed."""
    module = sys.modules.get("cloudpickle")
    if module is None:
        try:
            import cloudpickle as module
        except ImportError:
            return None
    return module if hasattr(module, "dumps") else None


def dumps(obj):
    """`(pickle, buffers, uses)` of an object; by cloudpickle where `pickle` cannot, or where `__main__` is needed.

    `uses` are the shared objects in it.
    """
    if type(obj) in _PLAIN:
        return _dumps(obj, 5), (), ()
    buffers = []
    try:
        data = _dumps(obj, 5, buffer_callback=buffers.append)
    except Exception:
        cloud = cloudpickle()
        if cloud is None:
            raise
        return _dumps_cloud(cloud, obj)
    if MAIN in data:
        cloud = cloudpickle()
        if cloud is not None:
            return _dumps_cloud(cloud, obj)
    if SHARED in data:
        return _collecting(_dumps, obj)
    return data, buffers, ()


def _dumps_cloud(cloud, obj):
    buffers = []
    data = cloud.dumps(obj, 5, buffer_callback=buffers.append)
    return _collecting(cloud.dumps, obj) if SHARED in data else (data, buffers, ())


# A write of a pickler that is longer consists of one object's own bytes: no name is in it.
_LONGEST_FRAME = 1 << 20


class _Parts(list):
    """A file for a pickler. It keeps what is written to it; the bytes of a large object are not copied."""

    write = list.append

    def __contains__(self, word):
        return any(word in part for part in self if len(part) < _LONGEST_FRAME)


def dumps_parts(obj):
    """As `dumps`, for what may hold large `bytes`: `(parts of the pickle, buffers, uses)`."""
    try:
        parts, buffers = _pickled_parts(Pickler, obj)
    except Exception:
        if cloudpickle() is None:
            raise
        parts = None
    if parts is None or MAIN in parts:
        cloud = cloudpickle()
        if cloud is not None:
            parts, buffers = _pickled_parts(cloud.CloudPickler, obj)
    if SHARED in parts:
        data, buffers, uses = dumps(obj)
        return _Parts([data]), buffers, uses
    return parts, buffers, ()


def _pickled_parts(pickler, obj):
    parts = _Parts()
    buffers = []
    pickler(parts, 5, buffer_callback=buffers.append).dump(obj)
    return parts, buffers


def _collecting(dump, obj):
    """As `dump`, with the numbers of the shared objects that are met."""
    from ._share import collecting

    buffers = []
    with collecting() as uses:
        data = dump(obj, 5, buffer_callback=buffers.append)
    return data, buffers, tuple(uses.values())


def layout(data, buffers, uses=()):
    """`(flags, parts, length)` of a body. Small ones are one part, so that later changes are not seen.

    `data` is a pickle, or a list of its parts.
    """
    if not buffers and not uses and type(data) is bytes:
        return 0, (data,), len(data)
    pickled = (data,) if type(data) is bytes else data
    size = sum(map(len, pickled))
    flags = 0
    parts = []
    length = 0
    if uses:
        flags |= USES
        head = pack(f"<{len(uses) + 1}Q", len(uses), *uses)
        head += bytes(-len(head) % ALIGN)
        parts.append(head)
        length = len(head)
    if not buffers:
        parts += pickled
        return flags, parts, length + size
    flags |= BUFFERS
    raws = [buffer.raw() for buffer in buffers]
    table = pack(f"<II{len(raws) + 1}Q", len(raws), 0, size, *[raw.nbytes for raw in raws])
    parts += [table, *pickled]
    at = len(table) + size
    for raw in raws:
        pad = -at % ALIGN
        if pad:
            parts.append(bytes(pad))
        parts.append(raw)
        at += pad + raw.nbytes
    length += at
    if length < _JOIN_BELOW:
        parts = (b"".join(parts),)
    return flags, parts, length


def skip_uses(body):
    """The payload behind the numbers of shared objects."""
    (count,) = unpack_from("<Q", body, 0)
    head = 8 * (count + 1)
    return body[head + -head % ALIGN :]


def split(body):
    """The pickle and the buffers of a payload with buffers; `body` must be memory of its own."""
    (count, _) = unpack_from("<II", body, 0)
    lengths = unpack_from(f"<{count + 1}Q", body, 8)
    at = 8 + 8 * (count + 1)
    data = body[at : at + lengths[0]]
    at += lengths[0]
    buffers = []
    for length in lengths[1:]:
        at += -at % ALIGN
        buffers.append(body[at : at + length])
        at += length
    return data, buffers


def loads(body, flags):
    """The object of a payload."""
    if flags & USES:
        body = skip_uses(body)
    if flags & BUFFERS:
        data, buffers = split(body)
        return _loads(data, buffers=buffers)
    return _loads(body)


def describe(error, note=None):
    """An exception as a tuple that can be pickled and loaded anywhere: see `rebuild`."""
    import traceback

    tb = error.__traceback__
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        text = "".join(traceback.format_exception(kind, error, tb)).rstrip("\n")
    except Exception:
        text = f"{name} (its traceback cannot be written)"
    try:
        message = str(error)
    except Exception:
        message = "(its text cannot be written)"
    return (pickled_error(error), name, message, text if note is None else f"{note}\n{text}")


def pickled_error(error):
    """The pickle of an exception, or None if it cannot be pickled or not be loaded again."""
    try:
        data = _dumps(error, 5)
        if MAIN in data:
            raise PicklingError
        _loads(data)
        return data
    except Exception:
        pass
    cloud = cloudpickle()
    if cloud is None:
        return None
    try:
        data = cloud.dumps(error, 5)
        _loads(data)
        return data
    except Exception:
        return None


def rebuild(described):
    """The exception of a tuple from `describe`, with the remote traceback as its cause."""
    data, name, message, text = described
    error = None
    if data is not None:
        try:
            error = _loads(data)
        except Exception:
            error = None
    if not isinstance(error, BaseException):
        error = RemoteError(f"{name}: {message}" if message else name)
    error.__cause__ = RemoteTraceback(text)
    return error
