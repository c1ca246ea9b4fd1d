"""How the iterable of a map is read while its jobs run: by a thread, as far as they can be sent.

The thread adds items to a deque without a lock, and looks at the run only when the items make a call (`Feed.due`) or
when they have been kept long enough (`Feed.time`). That makes reading cheap, although an item is sent as soon as it
is there if workers wait for it: the iterable may itself wait for its result before it gives the next one.
"""

import sys
import threading
import weakref
from collections import deque
from itertools import islice
from time import monotonic

from ._runs import collecting

NEVER = sys.maxsize
# If an automatic map has just sent a call, items are collected for so long before another small one is sent.
_COLLECT_SECONDS = 200e-6
_LOOK_AGAIN = 0.2
# How far the buffer of a map grows that has none of its user's choice: calls and jobs for each slot, bytes of all.
_CALLS_BUFFERED = 8
_MOST_BUFFERED = 2048
_BYTES_BUFFERED = 1 << 21
_AHEAD = 1024  # items that are read and not sent at least, if that number is allowed


class Feed:
    """The items that were read and not sent, and when the reader has to tell the run of them."""

    __slots__ = ("items", "due", "time", "condition", "waits", "sent")

    def __init__(self, lock):
        self.items = deque()
        self.due = 1  # the number of items at which it is due
        self.time = NEVER  # from this time on, at each item
        self.condition = threading.Condition(lock)
        self.waits = False  # the reader waits for room
        self.sent = 0.0  # when the last call was taken


class Reading:
    """The part of a `MapRun` that has to do with its reader. The run's lock is held where not said otherwise."""

    def _start_reading(self):
        """Start the reader, without the lock. It must not keep the run, which ends when its consumer is gone."""
        iterator, self._iterator = self._iterator, None
        if self._automatic:
            collecting.add(self)
        arguments = (weakref.ref(self), self._feed, iterator)
        threading.Thread(target=_read_items, args=arguments, name="rankpool-reader", daemon=True).start()

    def _wanted(self, freed=0):
        """How many items the reader may read now, if `freed` jobs less are with the consumer."""
        ahead = max(self._size, 1) * (2 * self.connection.slots + 2)
        if self._buffersize is not None:
            ahead = min(max(ahead, _AHEAD), self._buffersize - self._unyielded + freed)
        return ahead - len(self._items)

    def _grow(self):
        """Let more jobs be with the consumer, if they are short and small: several large calls for each slot. No lock."""
        slots = self.connection.slots
        fits = min(_CALLS_BUFFERED * slots * self._size, _MOST_BUFFERED * slots, int(_BYTES_BUFFERED / self._bytes))
        self._buffersize = max(self._buffersize, fits)

    def _least(self):
        """How many jobs a call has if the run is not automatic; the last one may have fewer."""
        return self._size if self._buffersize is None else min(self._size, self._buffersize)

    def _is_worth_reading(self, wanted):
        """Whether the reader should begin to read this number of items: not a few, if workers have enough to do."""
        if wanted <= 0:
            return False
        count = wanted + len(self._items)
        if not self._automatic and count < self._least():
            return False
        return self._open < 2 * self.connection.slots or 4 * wanted >= count + self._unyielded

    def _wake_reader(self, freed=0):
        if self._feed.waits and self._is_worth_reading(self._wanted(freed)):
            self._feed.condition.notify()

    def _is_collecting(self, size):
        """Whether the items there are fewer than a call should have, and wait for more."""
        count = len(self._items)
        if self._is_list or self._exhausted or count >= size:
            return False
        if not self._automatic or not count:
            return True
        # An answer to come lets them be sent; they are not kept longer than that, nor longer than `_COLLECT_SECONDS`.
        slots = self.connection.slots
        return self._open > 0 and (self._open >= 2 * slots or monotonic() < self._feed.sent + _COLLECT_SECONDS)

    def _set_due(self, freed=0):
        """Tell the reader when to let items be sent."""
        feed = self._feed
        size = 0 if self.queued else self._room(freed)
        feed.due, feed.time = NEVER, NEVER
        if not size:
            return
        if self._open >= 2 * self.connection.slots:
            # Several calls are written together. If the workers have less to do before they are there, see `_complete`.
            feed.due = max(size, (self._wanted(freed) + len(self._items)) // 2)
        elif not self._automatic:
            feed.due = size
        elif self._open:
            feed.due = size
            feed.time = feed.sent + _COLLECT_SECONDS
        else:
            feed.due = 1

    def _has_taken(self):
        """After items were taken for a call."""
        self._feed.sent = monotonic()
        self._wake_reader()

    def _will_take(self, count):
        """Before the consumer takes this number of values: the reader has room then."""
        self._wake_reader(count)
        if self._feed.due == NEVER:
            self._set_due(count)

    def _must_resume(self):
        """Whether items that are there may be sent now and neither the reader nor an answer sees to it. No lock."""
        return self._exhausted or (self._automatic and self._open <= self.connection.slots)

    def _drop_items(self):
        """Forget the items. What the reader is just adding goes where it is not seen."""
        self._items.clear()
        if not self._is_list:
            self._items = deque()
            self._feed.due = 0
            self._feed.condition.notify()

    def _wait_to_read(self):
        """How many items the reader may read now, 0 if it has to ask again; None at the end. Takes the lock."""
        feed = self._feed
        with self._condition:
            if not self._exhausted and not self._is_worth_reading(self._wanted()):
                feed.waits = True
                feed.condition.wait(_LOOK_AGAIN)
                feed.waits = False
            if self._exhausted:
                return None
            self._set_due()
            return max(0, self._wanted())

    def _has_read(self, is_end, error):
        """Let the items that the reader has added be sent. False: no more are wanted. Takes the lock."""
        with self._condition:
            if self._exhausted:
                return False
            if is_end:
                self._error = error
                self._exhausted = True
            self._set_due()
            # A run in the queue is asked for its next call anyhow.
            size = 0 if self.queued else self._room()
            is_due = is_end or (size and not self._is_collecting(size))
        if is_due:
            self.resume()
        if is_end:
            self._settled()
        return not is_end


def _read_items(reference, feed, iterator):
    """The reader's thread. It ends with the run."""
    items = feed.items
    append, extend, count = items.append, items.extend, items.__len__
    while True:
        run = reference()
        if run is None:
            return
        room = run._wait_to_read()
        if room is None:
            return
        size = 0 if run._automatic else run._least()
        del run
        if not room:
            continue
        is_end, error = False, None
        try:
            while room > 0:
                append(next(iterator))
                if size > 1:
                    # Items of one call can be sent together only. The end, if it is met here, is met again.
                    more = -count() % size
                    extend(islice(iterator, more))
                    room -= more
                room -= 1
                if count() >= feed.due or (not size and monotonic() >= feed.time):
                    break
        except BaseException as raised:
            is_end, error = True, None if isinstance(raised, StopIteration) else raised
        run = reference()
        if run is None or not run._has_read(is_end, error):
            return
        del run
