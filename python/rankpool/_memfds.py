"""Files in memory (memfds) for large bodies: written by the sender, mapped by the receiver, and written again.

The first write to a page of a new file costs several times as much as a later one, so a sender keeps its
files. The last page of such a file is for notes, of one byte each. Nothing but these notes says when a file may be written
again, so each of them is only ever set by receivers and ranks, and only ever cleared by the sender.
"""

import os
from mmap import MAP_PRIVATE, MAP_SHARED, mmap
from time import monotonic

PAGE = 4096
# The notes. The same numbers stand in `src/process/calls/memfd.rs`.
RELEASED = 0  # the receiver, which maps it, needs it no more
SEVERAL = 1  # more than one receiver has got it, so that RELEASED says nothing
_NOTES = 3  # the third one is for ranks

_KEEP_SECONDS = 1.0  # a free file is kept for this time
_MOST_KEPT = 32


class Memfd:
    """A file in memory that its process may write again. `fd` is open as long as this object lives."""

    __slots__ = ("fd", "capacity", "notes", "is_pending", "since")

    def __init__(self, fd, capacity):
        self.fd = fd
        self.capacity = capacity
        self.is_pending = True
        self.since = 0.0
        os.truncate(fd, capacity + PAGE)
        self.notes = mmap(fd, PAGE, MAP_SHARED, offset=capacity)

    def __del__(self, close=os.close):
        close(self.fd)

    def write(self, parts):
        """Write these bytes at its begin."""
        at = 0
        for part in parts:
            view = memoryview(part).cast("B")
            while len(view):
                count = os.pwrite(self.fd, view, at)
                view = view[count:]
                at += count

    def is_free(self):
        """Whether nothing reads it any more."""
        return not self.is_pending and self.notes[RELEASED] == 1 and self.notes[SEVERAL] == 0


class Memfds:
    """The files of a sender. One thread at a time may call `filled` or `prune`."""

    def __init__(self):
        self._kept = []
        self.in_use = {}  # number of a call without an answer: its `Memfd`

    def __len__(self):
        return len(self._kept)

    def filled(self, parts, length, is_pending):
        """A `Memfd` with these bytes, or None if there can be none. It is not written again while `is_pending` of it is true."""
        try:
            memfd = self._free(length)
            if memfd is None:
                memfd = Memfd(os.memfd_create("rankpool", os.MFD_CLOEXEC), length + -length % PAGE)
                self._kept = [*self._kept[1 - _MOST_KEPT :], memfd]
            memfd.is_pending = is_pending
            memfd.notes[:_NOTES] = bytes(_NOTES)
            memfd.since = monotonic()
            memfd.write(parts)
            return memfd
        except (OSError, AttributeError):
            return None

    def _free(self, length):
        for memfd in self._kept:
            if length <= memfd.capacity <= 2 * length and memfd.is_free():
                return memfd
        return None

    def answered(self, number):
        """Note that the call of this number has its answer: no other worker will get its file."""
        memfd = self.in_use.pop(number, None)
        if memfd is not None:
            memfd.since = monotonic()
            memfd.is_pending = False

    def prune(self):
        """Keep no file that was not needed for some time."""
        late = monotonic() - _KEEP_SECONDS
        self._kept = [memfd for memfd in self._kept if memfd.is_pending or memfd.since > late]


class Mapped(mmap):
    """The memory of a body that came in a memfd. The notes of the memfd say when it is gone."""

    notes = None

    def __del__(self):
        if self.notes is not None:
            _mapped.pop(id(self), None)
            self.notes[RELEASED] = 1


_mapped: dict = {}  # the notes of live memory


def _before_fork():
    """Bodies that this process has mapped are those of its child as well, so they are never written again."""
    for notes in list(_mapped.values()):
        notes[SEVERAL] = 1


os.register_at_fork(before=_before_fork)


def mapped(fd, length, is_private):
    """The first bytes of a memfd, as writable memory: if it is private, what is written is not seen by others."""
    body = Mapped(fd, length, MAP_PRIVATE if is_private else MAP_SHARED)
    capacity = length + -length % PAGE
    size = os.fstat(fd).st_size
    if size >= capacity + PAGE:
        body.notes = mmap(fd, PAGE, MAP_SHARED, offset=size - PAGE)
        _mapped[id(body)] = body.notes
    return memoryview(body)
