"""The connection to rank 0: what is sent, and what waits for the window."""

import itertools
import os
import threading
from _socket import AF_UNIX, socket
from _thread import get_ident
from collections import deque
from stat import S_ISSOCK
from time import monotonic

from . import _frames as frames
from ._frames import HEADER, MEMFD_FROM, FrameWriter, pack_frame
from ._functions import Functions
from ._futures import FINISHED, RUNNING, JobFuture, begin, settle
from ._receiving import Receiving
from ._runs import look_after, pause

# While results come in, what is sent waits this long for more, and is written with it.
_WRITE_DELAY = 200e-6
_JOIN_LIMIT = 2.0
_pack_header = HEADER.pack


def _inherited_socket():
    """The socket to rank 0 that `rankpool python` has handed down, or None. It is taken once."""
    text = os.environ.pop("RANKPOOL_FD", None)
    if text is None:
        return None
    try:
        fd = int(text)
        if not S_ISSOCK(os.fstat(fd).st_mode):
            return None
        os.set_inheritable(fd, False)
        sock = socket(-1, -1, -1, fd)
    except (ValueError, OSError):
        return None
    if sock.family != AF_UNIX:
        sock.detach()
        return None
    return sock


class Connection(Receiving):
    """One rank 0. All executors of the process with the same launcher share it."""

    def __init__(self, launcher, preload=()):
        self._process = None
        sock = _inherited_socket() if launcher is None else None
        if sock is None:
            from . import _launch

            sock, self._process = _launch.start(launcher, preload)
        self._socket = sock
        self._writer = FrameWriter(sock)
        # The garbage collector may call what takes it again, at any moment.
        self.lock = threading.RLock()
        self._call_numbers = itertools.count(1).__next__
        self._sessions = itertools.count(1).__next__
        self._forgotten = deque()  # (kind, number) of functions and sessions that are used no more
        self.functions = Functions(self._forgotten)
        self._unanswered = {}  # number of a call: JobFuture or MapCall
        self._memfds = None  # those of large calls
        self._waiting = deque()  # cores with calls that are not sent
        self._out = []  # frames that are not written
        self._batch = []  # frames that are being written
        self._writing = False
        self._written = 0.0
        self._flush_wanted = False
        self._wake_flusher = threading.Semaphore(0)
        self._pumping = False
        self._pump_again = False
        self._welcome = threading.Event()
        self.over = None  # why no more calls are taken
        self.slots = 1
        self.window = 2
        self.welcome = None  # what rank 0 has said of the run, in JSON
        self._threads = [
            threading.Thread(target=self._receive, name="rankpool-receiver", daemon=True),
            threading.Thread(target=self._flush, name="rankpool-flusher", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # The state of the run.

    def is_over(self):
        """Whether no more calls are taken."""
        return self.over is not None

    def wait_ready(self, timeout=None):
        """Wait until rank 0 has said how many slots there are. Raises `PoolEnded` if there will be none."""
        if not self._welcome.wait(timeout):
            raise TimeoutError(f"rankpool has not started within {timeout:.0f} s")
        if self.over is not None and self.welcome is None:
            raise self.error()

    def has_journal(self):
        """Whether results are found again by the content of their jobs."""
        # Rank 0 writes no spaces, and quotes inside of texts have a backslash. The module json takes a millisecond.
        return self.welcome is not None and b'"journal":true' in self.welcome

    def error(self):
        """The exception of calls after the end of the run."""
        text = self.over or "the connection to rankpool is closed"
        try:
            from ._errors import PoolEnded
        except RuntimeError:  # The interpreter ends: concurrent.futures.process cannot be imported any more.
            return RuntimeError(text)
        return PoolEnded(text)

    # Sessions.

    def session(self, body, is_exclusive, preload=()):
        """The number of a new session. Processes that serve an exclusive one serve no other.

        Its workers have imported the modules of `preload`, in which an entry with a slash is a folder with modules.
        """
        names = "\n".join(preload).encode()
        names += b"\0" * (-len(names) % 64)
        body = names + body
        with self.lock:
            number = self._sessions()
            status = 1 if is_exclusive else 0
            frame = pack_frame(frames.SESSION, 0, status, 0, len(names), number, 0, 0, 0.0, [body], len(body))
            self._out.append(frame)
            return number

    def forget_session(self, number):
        """Say that no later call is of this session. Its calls that run are ended."""
        self._forgotten.append((frames.END_SESSION, number))

    def write_forgotten(self):
        """Write now what was forgotten."""
        with self.lock:
            self._post_forgotten()
        self._write(False)

    # Calls.

    def submit(self, core, future):
        """Send the call of a future, or keep it until the window has room."""
        with self.lock:
            if self.over is not None:
                raise self.error()
            core.open += 1
            is_large = future.body[2] >= MEMFD_FROM
            if core.pending or is_large or self._is_full(core):
                self._enqueue(core, future)
                if not is_large:
                    return
            else:
                self._post(core, future)
                future._state = RUNNING
                core.flying += 1
                is_due = len(self._unanswered) <= self.slots or monotonic() - self._written > _WRITE_DELAY
                if self._writing or not is_due:
                    self._want_flush()
                    return
        if is_large:
            self.pump()
        else:
            self._write(False)

    def submit_small(self, core, future, data):
        """As `submit`, for a call whose body is this pickle: the usual one, in fewer steps."""
        with self.lock:
            is_usual = self.over is None and len(data) < MEMFD_FROM and future.record.frame is None and not self._forgotten
            if is_usual:
                core.open += 1
                if core.pending or self._is_full(core):
                    future.pickle = data
                    self._enqueue(core, future)
                    return
                self._post_small(core, future, data)
                future._state = RUNNING
                core.flying += 1
                is_due = len(self._unanswered) <= self.slots or monotonic() - self._written > _WRITE_DELAY
                if self._writing or not is_due:
                    self._want_flush()
                    return
        if is_usual:
            self._write(False)
        else:
            future.body = (0, (data,), len(data))
            self.submit(core, future)

    def _post_small(self, core, future, data):
        """As `_post`, for a call whose function is known to the ranks and whose body is this pickle."""
        number = self._call_numbers()
        fields = (number, future.record.number, core.session, future.seconds, len(data))
        self._out.append(_pack_header(frames.CALL, 0, 0, future.retries, 1, *fields) + data)
        self._unanswered[number] = future

    def enqueue(self, core, source):
        """Let a `MapRun` be asked for its next calls."""
        with self.lock:
            if self.over is None and not source.queued:
                self._enqueue(core, source)
                source.queued = True

    def _enqueue(self, core, source):
        core.pending.append(source)
        if not core.queued:
            core.queued = True
            self._waiting.append(core)

    def _is_full(self, core):
        return len(self._unanswered) >= self.window or (core.limit is not None and core.flying >= core.limit)

    def _post(self, core, call):
        """Add a call, and what it needs, to what is written."""
        out = self._out
        record = call.record
        if self._forgotten:
            self._post_forgotten()
        # The frame that makes a function known is sent once: no function is called between these two steps,
        # so that no interrupt (`KeyboardInterrupt`) comes between them.
        for needed in (record, *call.uses) if call.uses else (record,):
            if needed.frame is not None:
                out += (needed.frame,)
                needed.frame = None
        number = self._call_numbers()
        flags, parts, length = call.body
        fields = (call.retries, call.count, number, record.number, core.session, call.seconds)
        if length < MEMFD_FROM and len(parts) == 1:
            out.append(_pack_header(frames.CALL, flags, 0, *fields, length) + parts[0])
        else:
            out.append(pack_frame(frames.CALL, flags, 0, *fields, parts, length))
        call.body = None
        if type(parts) not in (tuple, list):
            self._memfds.in_use[number] = parts
        self._unanswered[number] = call

    def in_memfd(self, body):
        """A large body of a call with its parts copied to a memfd, as `pack_frame` takes it, too; others as they are.

        Only the thread that pumps may call it.
        """
        flags, parts, length = body
        if length < MEMFD_FROM:
            return body
        if self._memfds is None:
            from ._memfds import Memfds

            self._memfds = Memfds()
        memfd = self._memfds.filled(parts, length, True)
        return body if memfd is None else (flags, memfd, length)

    def _post_forgotten(self):
        while self._forgotten:
            kind, number = self._forgotten.popleft()
            self._out.append(pack_frame(kind, 0, 0, 0, 0, number, 0, 0, 0.0, (), 0))

    # The window.

    def pump(self):
        """Send waiting calls until the window is full. Any thread may call this; one at a time does it.

        The main thread leaves it to another one: an interrupt must not come between its steps.
        """
        with self.lock:
            is_main = get_ident() == threading.main_thread().ident
            if self._pumping or is_main:
                self._pump_again = True
                if is_main:
                    self._want_flush()
                return
            self._pumping = True
            self._pump_again = False
        try:
            while self._pump_some():
                pass
        except BaseException:
            self._pumping = False
            raise
        self._write(False)

    def _pump_some(self):
        """Send the waiting futures of one core, or one call of a map. False: there is nothing to send now."""
        with self.lock:
            core = self._next_core()
            if core is None:
                if self._pump_again:
                    self._pump_again = False
                    return True
                self._pumping = False
                return False
            small = self._next_small(core)
            if small:
                begun = begin(small)
                for future in begun:
                    if future.pickle is None:
                        self._post(core, future)
                    else:
                        self._post_small(core, future, future.pickle)
                        future.pickle = None
                core.flying += len(begun)
                core.count_finished(len(small) - len(begun))
                return True
            source = core.pending.popleft()
            if type(source) is not JobFuture:
                source.queued = False
            elif not begin((source,)):
                core.count_finished(1)
                return True
        # What takes long is done without the lock: arguments are pickled, or copied to a memfd.
        if type(source) is JobFuture:
            source.body = self.in_memfd(source.body)
            self._post_future(core, source)
        else:
            call = source.next_call()
            if call is None:
                source._settled()  # its last jobs may be among those that could not be pickled
            else:
                self._post_of_map(core, source, call)
        return True

    def _next_small(self, core):
        """Take the small futures with which a core's waiting calls begin: as many as have room; one, if other cores wait."""
        room = self.window - len(self._unanswered)
        if core.limit is not None:
            room = min(room, core.limit - core.flying)
        if len(self._waiting) > 1:
            room = 1
        pending, small = core.pending, []
        while pending and len(small) < room:
            source = pending[0]
            if type(source) is not JobFuture or (source.pickle is None and source.body[2] >= MEMFD_FROM):
                break
            small.append(pending.popleft())
        return small

    def _post_future(self, core, future):
        with self.lock:
            if self.over is None:
                self._post(core, future)
                core.flying += 1
                return
        settle([(future, False, self.error())])
        self._release([(future, False, None)])

    def _post_of_map(self, core, run, call):
        with self.lock:
            if self.over is None:
                self._post(core, call)
                core.flying += 1
                if not run.queued:
                    self._enqueue(core, run)
                    run.queued = True
                return
        run.answered(call, frames.CANCELLED, False, self.error(), 0.0)

    def _next_core(self):
        """The next core that may send; they take turns."""
        if len(self._unanswered) >= self.window or self.over is not None:
            return None
        waiting = self._waiting
        for _ in range(len(waiting)):
            core = waiting[0]
            if not core.pending:
                waiting.popleft()
                core.queued = False
                continue
            waiting.rotate(-1)
            if core.limit is None or core.flying < core.limit:
                return core
        return None

    # Writing.

    def _want_flush(self):
        if not self._flush_wanted:
            self._flush_wanted = True
            self._wake_flusher.release()

    def _write(self, block):
        """Write what waits, if no other thread does. What the socket does not take is left to the flusher.

        An interrupt may come at any step: what has not been written is always in `_batch` or `_out`.
        """
        is_mine = False
        try:
            with self.lock:
                if self._writing or not (self._out or self._batch):
                    return
                is_mine = self._writing = True
                if not self._batch:
                    self._batch, self._out = self._out, self._batch
            self._writer.send(self._batch, block)
        except OSError:
            self._batch.clear()  # The connection is lost: the receiver notices it.
        finally:
            if is_mine:
                self._writing = False
                self._written = monotonic()
                if self._batch or self._out:
                    with self.lock:
                        self._want_flush()

    def _flush(self):
        """The thread that writes, and sends, what the others leave."""
        while self.over is None:
            # If nothing wakes it, it looks all the same: an interrupt may have come first.
            self._wake_flusher.acquire(timeout=pause())
            look_after(self)
            with self.lock:
                self._flush_wanted = False
                if self._forgotten:
                    self._post_forgotten()
                if self._memfds is not None and not self._pumping:
                    self._memfds.prune()
            if self._waiting:
                self.pump()
            self._write(True)

    # The end.

    def close(self):
        """Close the connection, so that the run ends, and wait for a process that was started for it."""
        with self.lock:
            if self.over is None:
                self.over = "the interpreter ends"
        self._wake_flusher.release()
        try:
            self._socket.shutdown(2)
        except OSError:
            pass
        for thread in self._threads:
            thread.join(_JOIN_LIMIT)
        self._socket.close()
        if self._process is not None:
            from ._launch import end

            end(self._process)

    def is_busy(self):
        """Whether the interpreter has to wait for jobs, or for frames that are not written."""
        with self.lock:
            if self._waiting or self._out or self._batch:
                return True
            return any(not call.core.abandoned for call in self._unanswered.values())

    def abandon(self):
        """In a forked child: the connection is the parent's."""
        self.over = "the connection belongs to the process that was forked: make a new Executor"
        self.lock = threading.RLock()
        calls = [*self._unanswered.values(), *(source for core in self._waiting for source in core.pending)]
        self._unanswered = {}
        self._waiting = deque()
        try:
            os.close(self._socket.detach())
        except OSError:
            pass
        # Their callbacks are the parent's: they are not called.
        for call in calls:
            if type(call) is JobFuture and not call.done():
                call._exception = self.error()
                call._state = FINISHED
