"""Maps: one function applied to many inputs, sent in calls of one or more jobs."""

import threading
from collections import deque
from itertools import chain
from time import monotonic

from . import _frames as frames
from ._functions import all_uses
from ._iterators import Parts, Values
from ._payload import dumps, layout, rebuild
from ._reading import Feed, Reading
from ._runs import runs

# A call of an automatic map takes about this long, in the worker.
_CALL_SECONDS = 20e-3
_CALL_BYTES = 1 << 20
_MOST_JOBS = 8192
_CALLS_AHEAD = 4  # calls of an automatic map that are sent and unanswered, for each slot
_GROWTH = 4


class _Chunk:
    """Consecutive jobs of a map: their inputs until they are answered, then their values and failures."""

    __slots__ = ("index", "items", "count", "values", "failures", "missing")

    def __init__(self, index, items):
        self.index = index
        self.items = items
        self.count = len(items)
        self.values = None
        self.failures = None  # {offset: exception}
        self.missing = 0  # jobs that are sent one by one and have no answer


class _MapCall:
    """A call of a map: a chunk, or (`offset` >= 0) one of its jobs alone."""

    __slots__ = ("core", "record", "uses", "body", "retries", "seconds", "count", "run", "chunk", "offset", "size")

    def __init__(self, run, chunk, offset, count):
        self.run = run
        self.core = run.core
        self.record = run.record
        self.retries = run.retries
        self.seconds = run.seconds * count
        self.chunk = chunk
        self.offset = offset
        self.count = count


class MapRun(Reading):
    """The jobs of one map. They run whether the results are iterated over or not.

    `items` is read by a thread of the run as far as jobs can be sent, unless it is a list, which the run
    empties. An outcome is `(True, value)` or `(False, exception)`.
    """

    def __init__(
        self, core, record, items, *, star, chunksize=None, buffersize=None, retries=0, timeout=0.0, grows=False
    ):
        self.core = core
        self.connection = core.connection
        self.record = record
        self.star = star
        self.retries = retries
        self.seconds = timeout
        self.queued = False
        self._condition = threading.Condition()  # for those who wait for results
        self._chunksize = chunksize
        self._buffersize = buffersize
        self._grows = grows  # the buffer, if jobs turn out to be short and small
        # One job in a call where results are found again by content, or where a job has a time limit of its own.
        single = core.connection.has_journal() or timeout
        self._automatic = chunksize is None and not single
        self._size = chunksize or 1
        self._bytes = 1.0  # of a job, in the largest direction
        self._is_list = isinstance(items, list)
        if self._is_list:
            items.reverse()  # Jobs are taken from its end, so that their inputs are not kept.
            self._items = items
        else:
            self._feed = Feed(self._condition)
            self._items = self._feed.items
        self._exhausted = self._is_list
        self._index = 0  # of the next chunk
        self._open = 0  # chunks that have not been answered
        self._unyielded = 0  # jobs that are sent and have not been taken by the consumer
        self._singles = deque()  # (chunk, offset, retries): jobs to be sent alone
        self._done = {}  # index: _Chunk
        self._next = 0  # the index that an ordered consumer takes next
        self._waits = False  # the consumer waits
        self._error = None  # of the iterable, or of the end of the run
        self._cancelled = False
        self._finished = False
        self._callbacks = []
        self._kept = None  # chunks, for callbacks
        self._progress = None
        self._iterator = None if self._is_list else iter(items)

    # What is sent.

    def _is_bounded(self):
        return self._buffersize is not None and not self._callbacks

    def show(self, progress):
        """Show the finished jobs with a bar."""
        self._progress = progress

    def start(self):
        """Let the jobs be sent."""
        # A run goes on if nothing refers to it, unless it waits for a consumer.
        runs[self] = None if self._is_bounded() else self
        with self.connection.lock:
            self.core.open += 1
        if self.connection.is_over():
            self.fail(self.connection.error())
        else:
            self.resume()
            if self._iterator is not None:
                self._start_reading()
        self._settled()

    def resume(self):
        """Let more jobs be sent if the window has room."""
        if not self.queued:
            self.connection.enqueue(self.core, self)
        self.connection.pump()

    def go_on(self):
        """Let jobs be sent that an interrupt may have stopped. False: the run has finished, or was cancelled."""
        if self._finished or self._cancelled:
            return False
        self.resume()
        self._settled()
        return not self._finished

    def next_call(self):
        """The next call, or None if there is nothing to send now."""
        while True:
            with self._condition:
                if self._cancelled:
                    self._singles.clear()
                    return None
                retries = self.retries
                if self._singles:
                    chunk, offset, retries = self._singles.popleft()
                    items = [chunk.items[offset]]
                else:
                    items = self._take(self._room())
                    if not items and not self._is_list:
                        self._set_due()
                        items = self._take(self._room())  # what the reader has added meanwhile
                    if not items:
                        return None
                    chunk, offset = _Chunk(self._index, items), -1
                    self._index += 1
                    self._open += 1
                    self._unyielded += chunk.count
                    if not self._is_list:
                        self._has_taken()
            call = _MapCall(self, chunk, offset, len(items))
            call.retries = retries
            try:
                self._pack(call, items)
                return call
            except Exception as error:
                if call.count == 1:
                    self._answer_one(chunk, max(offset, 0), error=error)
                else:
                    self._send_alone(chunk, range(chunk.count), self.retries)

    def _room(self, freed=0):
        """How many jobs the next call may have, if `freed` jobs less are with the consumer; 0: none now."""
        size = self._size
        if self._automatic and self._open >= _CALLS_AHEAD * self.connection.slots:
            return 0  # The next ones may be larger.
        if self._automatic and self._is_list:
            size = max(1, min(size, len(self._items) // (4 * self.connection.slots)))
        if self._buffersize is not None:
            room = self._buffersize - self._unyielded + freed
            if self._automatic:
                size = max(1, min(size, self._buffersize // (2 * self.connection.slots)))
            if room < min(size, self._buffersize):
                return 0
            size = min(size, room)
        return size

    def _take(self, count):
        items = self._items
        if not self._is_list:
            if self._is_collecting(count):
                return []
            return [items.popleft() for _ in range(min(count, len(items)))]
        taken = items[-count:] if count else []
        if taken:
            del items[-len(taken) :]
            taken.reverse()
        return taken

    def _pack(self, call, items):
        """Give a call its body."""
        if call.count == 1:
            data, buffers, uses = dumps(((items[0] if self.star else (items[0],)), {}))
            chunk_flag = 0
        else:
            data, buffers, uses = dumps((self.star, items))
            chunk_flag = frames.CHUNK
        call.uses = all_uses(self.connection.functions, self.record, uses)
        flags, parts, length = layout(data, buffers, [used.number for used in call.uses])
        call.size = length
        call.body = self.connection.in_memfd((flags | chunk_flag, parts, length))

    # Answers.

    def answered(self, call, status, is_value, value, seconds, length=0):
        """Take the answer to a call."""
        chunk = call.chunk
        if call.count == 1:
            if is_value:
                self._answer_one(chunk, max(call.offset, 0), value=value)
            else:
                self._answer_one(chunk, max(call.offset, 0), error=value)
        elif is_value:
            self._answer_all(chunk, *value)
        elif status in (frames.WORKER_DIED, frames.TIME_LIMIT) and not self._cancelled:
            self._send_alone(chunk, range(chunk.count), self.retries)
            return
        else:
            with self._condition:
                chunk.values = [None] * chunk.count
                chunk.failures = dict.fromkeys(range(chunk.count), value)
                self._complete(chunk)
        if self._automatic:
            if is_value:
                self._measure(call.count, seconds, max(call.size, length))
            if not self.queued and (self._items or not self._exhausted):
                self.connection.enqueue(self.core, self)
        elif not self._is_list and not self.queued and len(self._items) >= self._feed.due:
            self.connection.enqueue(self.core, self)
        self._settled()

    def _measure(self, count, seconds, length):
        """Choose the number of jobs of the next calls."""
        self._bytes = max(self._bytes * 0.9, length / count, 1.0)
        fits = min(_CALL_SECONDS * count / max(seconds, 1e-9), _CALL_BYTES / self._bytes, _MOST_JOBS)
        self._size = max(1, int(min(fits, max(self._size, _GROWTH * count))))
        if self._grows:
            self._grow()

    def _answer_all(self, chunk, values, described):
        """Take the values of a chunk. Jobs that have failed are sent again if they may."""
        chunk.values = values
        if described:
            if self.retries and not self._cancelled:
                self._send_alone(chunk, described, self.retries - 1)
                return
            chunk.failures = {offset: rebuild(what) for offset, what in described.items()}
        with self._condition:
            self._complete(chunk)

    def _answer_one(self, chunk, offset, value=None, error=None):
        with self._condition:
            if chunk.values is None:
                chunk.values = [None] * chunk.count
            chunk.values[offset] = value
            if error is not None:
                chunk.failures = chunk.failures or {}
                chunk.failures[offset] = error
            chunk.missing -= 1
            if chunk.missing <= 0:
                self._complete(chunk)

    def _send_alone(self, chunk, offsets, retries):
        """Send jobs of a chunk one by one."""
        with self._condition:
            if chunk.values is None:
                chunk.values = [None] * chunk.count
            chunk.missing = len(offsets)
            self._singles.extend((chunk, offset, retries) for offset in offsets)
        if not self.queued:
            self.connection.enqueue(self.core, self)

    def _complete(self, chunk):
        """Note that a chunk has all its outcomes. The lock is held."""
        chunk.items = None
        self._open -= 1
        if self._cancelled:
            return
        self._done[chunk.index] = chunk
        if self._kept is not None:
            self._kept.append(chunk)
        if self._progress is not None:
            self._progress.count(chunk.count, len(chunk.failures or ()))
        if self._waits:
            self._condition.notify_all()
        if not self._is_list:
            if self._open < 2 * self.connection.slots:
                self._set_due()
            self._wake_reader()

    def _settled(self):
        """Finish the run if nothing is left."""
        with self._condition:
            is_done = self._exhausted and not self._items and not self._open and not self._finished
            if not is_done:
                return
            self._finished = True
            self._condition.notify_all()
            callbacks, self._callbacks = self._callbacks, []
        if self._progress is not None:
            self._progress.end()
        runs.pop(self, None)
        core = self.core
        with self.connection.lock:
            core.count_finished(1)
        for callback in callbacks:
            self._call(callback)

    # The consumer.

    def iterate(self, ordered=True, timeout=None):
        """An iterator of the values. A job's exception is raised at its place, and the iterator goes on behind it.

        `TimeoutError` is raised if a value is not there `timeout` seconds after this call.
        """
        return Values(self, ordered, timeout)

    def values(self, ordered=True, timeout=None):
        """As `iterate`, for an iterator that ends with the first exception. It costs less."""
        return chain.from_iterable(Parts(self, ordered, timeout))

    def take(self, ordered, deadline):
        """The next finished chunk; None at the end."""
        with self._condition:
            while True:
                done = self._done
                index = self._next if ordered else next(iter(done), -1)
                chunk = done.get(index)
                if chunk is not None:
                    if self._buffersize is not None and not self._is_list:
                        self._will_take(chunk.count)
                    del done[index]  # No function is called here, so that no interrupt loses a chunk.
                    self._next += 1
                    self._unyielded -= chunk.count
                    break
                if self._cancelled:
                    return None
                if self._finished:
                    if self._progress is not None:
                        self._progress.wait()
                    error, self._error = self._error, None
                    if error is not None:
                        raise error
                    return None
                self._wait(deadline)
        if self._buffersize is not None and self._items and self._must_resume():
            self.resume()
        return chunk

    def _wait(self, deadline):
        self._waits = True
        try:
            if deadline is None:
                self._condition.wait()
            else:
                left = deadline - monotonic()
                if left <= 0 or not self._condition.wait(left):
                    from concurrent.futures import TimeoutError

                    if deadline <= monotonic():
                        raise TimeoutError
        finally:
            self._waits = False

    def wait(self, timeout=None):
        """Wait until all jobs have finished; whether they have."""
        with self._condition:
            return self._condition.wait_for(lambda: self._finished, timeout)

    def add_done_callback(self, callback):
        """Call `callback(outcomes)` when all jobs have finished, with all outcomes in the order of the inputs.

        It must be given before `start`.
        """
        with self._condition:
            if self._kept is None:
                self._kept = list(self._done.values())
            if not self._finished:
                self._callbacks.append(callback)
                return
        self._call(callback)

    def outcomes(self):
        """The outcomes of the finished jobs, in the order of the inputs (of a run with a callback)."""
        listed = []
        for chunk in sorted(self._kept or (), key=lambda chunk: chunk.index):
            failures = chunk.failures or {}
            for offset, value in enumerate(chunk.values):
                listed.append((False, failures[offset]) if offset in failures else (True, value))
        if self._error is not None:
            listed.append((False, self._error))
        return listed

    def _call(self, callback):
        try:
            callback(self.outcomes())
        except Exception:
            from logging import getLogger

            getLogger("rankpool").exception("a callback of a map has raised an exception")

    # Ends.

    def cancel(self):
        """Send no more jobs, and drop the results of those that were sent."""
        with self._condition:
            self._cancelled = True
            self._exhausted = True
            self._open -= len({id(chunk) for chunk, _, _ in self._singles})
            self._singles.clear()
            self._drop_items()
            self._done.clear()
            self._condition.notify_all()
        self._settled()

    def fail(self, error):
        """Give jobs that were not sent an exception."""
        with self._condition:
            singles = list(self._singles)
            self._singles.clear()
            items = self._take(len(self._items))
            if items:
                chunk = _Chunk(self._index, items)
                chunk.values = [None] * chunk.count
                chunk.failures = dict.fromkeys(range(chunk.count), error)
                self._index += 1
                self._open += 1
                self._complete(chunk)
            if not self._exhausted:
                self._exhausted = True
                self._error = error
            self._drop_items()
            self._condition.notify_all()
        for chunk, offset, _ in singles:
            self._answer_one(chunk, offset, error=error)
        self._settled()

    def end_of_executor(self):
        """At the shutdown of the executor: a run that waits for its consumer gets no more jobs."""
        if self._is_bounded() and not self._finished:
            self.fail(RuntimeError("cannot schedule new futures after shutdown"))

    def stop_reading(self):
        """At the end of the interpreter: a run whose iterable is being read ends."""
        if not self._exhausted:
            self.cancel()
