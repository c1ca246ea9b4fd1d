"""A worker: a process that stays and answers calls, one after the other.

It imports little, so that it is ready soon.
"""

import sys
from _thread import allocate_lock
from time import perf_counter

from . import _frames as frames
from ._frames import FrameReader, pack_frame
from ._payload import describe, dumps, layout, loads

# Answers to short calls of one function are written together.
_SHORT_SECONDS = 200e-6
_HOLD_SECONDS = 1e-3
_FEW_CALLS = 4  # if fewer calls than these wait, an answer is written at once: it may bring the next call
_HOLD_BYTES = 1 << 16
_HOLD_LIMIT = 5e-3  # after this time the watching thread writes them

_pack_header = frames.HEADER.pack
_worker = None  # the worker that this process is


def main() -> None:
    """Answer calls until the socket is at its end."""
    import os
    from _signal import SIG_IGN, SIGINT, signal

    signal(SIGINT, SIG_IGN)
    sock = _take_socket(os)
    _prepare_modules()
    modules = os.environ.pop("RANKPOOL_PRELOAD", None)
    if modules is not None:
        from ._preload import import_by_itself

        import_by_itself(modules.split("\n"))
    code = 0
    global _worker
    _worker = Worker(sock)
    try:
        _worker.run()
    except (BrokenPipeError, ConnectionError):
        code = 1
    sys.exit(code)


def _take_socket(os):
    """The socket, moved away from fd 0."""
    import _socket
    import fcntl

    fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return _socket.socket(-1, -1, -1, fd)


def _prepare_modules():
    """An empty `__main__`, and output that comes out line by line."""
    sys.modules["__main__"] = type(sys)("__main__")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.reconfigure(line_buffering=True)
        except (AttributeError, ValueError):
            pass


class _Session:
    """What the script says of itself."""

    def __init__(self, body):
        self.told = loads(body, 0)
        self.initialized = False
        self.failure = None


class Worker:
    """The loop of a worker."""

    def __init__(self, sock):
        self._socket = sock
        self._reader = FrameReader(sock)
        self._writer = frames.FrameWriter(sock)
        self._sessions = {}
        self._functions = {}  # number: a FUNCTION frame, or what was loaded from it in a list
        self._current = None
        self._failure = None  # of the initializer, described
        self._answers = []
        self._answer_bytes = 0
        self._held_since = 0.0
        self._sending = allocate_lock()
        self._watched = False
        self._wake_watcher = None
        self._notes = None
        self._last_recall = 0
        self._memfds = None  # those of large answers
        self._main_tried = False
        self._is_child = False
        from os import register_at_fork

        register_at_fork(after_in_child=self._has_forked)

    def run(self):
        """Read frames and answer calls."""
        self._say_ready()
        while True:
            if self._memfds is not None:
                self._wait_and_prune()
            batch = self._reader.read()
            if batch is None:
                return
            busy = len(batch) - _FEW_CALLS
            for at, (header, body) in enumerate(batch):
                kind = header[0]
                if kind == frames.CALL:
                    seconds = self._answer(header, body)
                    batch[at] = body = None  # Its arguments are not kept while others run.
                    if at < busy and seconds < _SHORT_SECONDS and batch[at + 1][0][6] == header[6] and self._may_hold():
                        continue
                    self._send()
                elif kind == frames.FUNCTION:
                    is_own = header[1] & (frames.BUFFERS | frames.MEMFD)  # memory of its own, not the reader's
                    self._functions[header[5]] = (header, body if is_own else bytes(body))
                elif kind == frames.SESSION:
                    self._sessions[header[5]] = _Session(memoryview(body)[header[4] :])
                elif kind == frames.FORGET:
                    self._functions.pop(header[5], None)
                elif kind == frames.END_SESSION:
                    self._sessions.pop(header[5], None)
                elif kind == frames.RECALL:
                    self._last_recall = header[5]
                    self._answers.append(pack_frame(frames.RECALLED, 0, 0, 0, 0, header[5], 0, 0, 0.0, [], 0))
                    self._send()
            batch = body = None

    def _say_ready(self):
        """The first frame: a file in memory that the rank shares.

        It has the number of the call that runs, which the worker writes, and that of a recall, or 0, which the
        rank writes.
        """
        import os
        from mmap import mmap

        try:
            fd = os.memfd_create("rankpool-notes", os.MFD_CLOEXEC)
            os.truncate(fd, 16)
            self._notes = memoryview(mmap(fd, 16)).cast("Q")
            header = frames.HEADER.pack(frames.READY, frames.MEMFD, 0, 0, 0, 0, 0, 0, 0.0, 16)
            ready = (header, fd)
        except (OSError, AttributeError):
            version = sys.version.split()[0].encode()
            self._notes = memoryview(bytearray(16)).cast("Q")
            ready = pack_frame(frames.READY, 0, 0, 0, 0, 0, 0, 0, 0.0, [version], len(version))
        self._writer.send([ready], True)

    def _may_hold(self):
        """Whether the answers may wait for that to the next call, which is expected to be short."""
        now = perf_counter()
        if len(self._answers) == 1:
            self._held_since = now
        elif self._answer_bytes > _HOLD_BYTES or now - self._held_since > _HOLD_SECONDS:
            return False
        if not self._watched:
            self._watched = True
            self._watch()
        return True

    def _watch(self):
        """Let the watching thread look after the answers that are held: the next call may take long after all."""
        if self._wake_watcher is None:
            import _thread

            self._wake_watcher = _thread.allocate_lock()
            _thread.start_new_thread(self._watch_held, ())
        else:
            self._wake_watcher.release()

    def _watch_held(self):
        """The watching thread."""
        from time import sleep

        self._wake_watcher.acquire()
        while True:
            sleep(_HOLD_LIMIT)
            if self._answers:
                if perf_counter() - self._held_since > _HOLD_LIMIT:
                    self._send()
                continue
            self._watched = False
            if self._answers:
                self._watched = True  # One was added before it could be seen that nothing watches.
            else:
                self._wake_watcher.acquire()

    def _send(self):
        """Write the answers, behind what the jobs have printed."""
        with self._sending:
            # The list stays the same: the other thread may be adding to it.
            answers = self._answers[:]
            if not answers:
                return
            del self._answers[: len(answers)]
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            except (AttributeError, ValueError, OSError):
                pass
            self._answer_bytes = 0
            self._writer.send(answers, True)

    def _answer(self, header, body):
        """Run a call and add its answer to those that will be written. Returns the seconds in the function."""
        _, flags, _, _, count, number, function, session, _, _ = header
        notes = self._notes
        notes[0] = number
        # Only after it was noted: see `src/process/calls/recall.rs`.
        if notes[1] and notes[1] > self._last_recall:
            notes[0] = 0
            return 0.0  # Others run it, or it is sent again.
        seconds, begin, spent = 1.0, 0.0, 0.0
        try:
            if session != self._current:
                self._enter(session)
            if self._failure is not None:
                self._push(number, frames.INITIALIZER_FAILED, count, 0.0, self._failure)
                return 0.0
            fn = self._functions[function]
            fn = fn[0] if type(fn) is list else self._function(function)[0]
            if flags:
                begin = perf_counter()
                status, value, seconds = self._run(fn, flags, body)
            else:
                args, kwargs = self._loads(body, 0)
                begin = perf_counter()
                value = fn(*args, **kwargs)
                seconds = perf_counter() - begin
                status = frames.OK
            spent = seconds
        except BaseException as error:
            if begin:
                spent = perf_counter() - begin
            status, value = frames.EXCEPTION, self._describe(error)
        self._push(number, status, count, spent, value)
        return seconds

    def _run(self, fn, flags, body):
        """Run the jobs of a call: `(status, value, seconds in the function)`."""
        arguments = self._loads(body, flags)
        uses = flags & frames.USES
        if not flags & frames.CHUNK:
            args, kwargs = arguments
            if uses:
                args, kwargs = _unshared(args), {name: _unshare(value) for name, value in kwargs.items()}
            del arguments
            begin = perf_counter()
            value = fn(*args, **kwargs)
            return frames.OK, value, perf_counter() - begin
        star, items = arguments
        if uses:
            items = [_unshared(item) if star else _unshare(item) for item in items]
        del arguments
        begin = perf_counter()
        values, failures = self._run_chunk(fn, star, items)
        return frames.OK, (values, failures), perf_counter() - begin

    def _run_chunk(self, fn, star, items):
        """The values of the jobs of a chunk, and the described exceptions of those that failed, by their place."""
        values = []
        failures = None
        left = iter(items)
        while True:
            try:
                if star:
                    for item in left:
                        values.append(fn(*item))
                else:
                    for item in left:
                        values.append(fn(item))
                return values, failures
            except BaseException as error:
                failures = failures or {}
                failures[len(values)] = self._describe(error)
                values.append(None)

    def _has_forked(self):
        """In a process that a job has forked: the socket is its parent's."""
        self._is_child = True
        self._socket.close()

    def _push(self, number, status, count, seconds, value):
        """Add an answer."""
        if self._is_child:
            _end_child()
        try:
            data, buffers, _ = dumps(value)
            length = len(data)
            if not buffers and length < frames.MEMFD_FROM:
                self._answers.append(_pack_header(frames.RESULT, 0, status, 0, count, number, 0, 0, seconds, length) + data)
                self._answer_bytes += length
                return
            flags, parts, length = layout(data, buffers)
        except BaseException as error:
            if count > 1 and status == frames.OK:
                return self._push(number, status, count, seconds, self._picklable(*value))
            status = frames.EXCEPTION
            error.__traceback__ = None
            note = f"the result of the job cannot be pickled: {type(value).__name__}"
            data, buffers, _ = dumps(describe(error, note))
            flags, parts, length = layout(data, buffers)
        if length >= frames.MEMFD_FROM:
            parts = self._in_memfd(parts, length)
        frame = pack_frame(frames.RESULT, flags, status, 0, count, number, 0, 0, seconds, parts, length)
        self._answers.append(frame)
        self._answer_bytes += length

    def _in_memfd(self, parts, length):
        """The parts of a large answer in a memfd; as they are if there can be none."""
        if self._memfds is None:
            from ._memfds import Memfds

            self._memfds = Memfds()
        return self._memfds.filled(parts, length, False) or parts

    def _wait_and_prune(self):
        """Wait for the next frame; memfds that are not written again meanwhile are closed."""
        from select import POLLIN, poll

        waiting = poll()
        waiting.register(self._socket, POLLIN)
        while len(self._memfds) and not waiting.poll(1000):
            self._memfds.prune()

    def _picklable(self, values, failures):
        """The values of a chunk of which one cannot be pickled: those that cannot are described."""
        failures = dict(failures or {})
        for at, value in enumerate(values):
            try:
                dumps(value)
            except BaseException as error:
                error.__traceback__ = None
                failures[at] = describe(error, f"the result of the job cannot be pickled: {type(value).__name__}")
                values[at] = None
        return values, failures

    def _describe(self, error):
        # The first frames of the traceback are those of this module.
        tb = error.__traceback__
        while tb is not None and tb.tb_frame.f_globals is globals():
            tb = tb.tb_next
        return describe(error.with_traceback(tb), _where())

    # Sessions and functions.

    def _enter(self, number):
        """Become a process of a session: its directory, its path, its arguments; the initializer once."""
        import os

        session = self._sessions[number]
        told = session.told
        self._current = number
        ours = [path for path in sys.path if path == _home() or path == os.environ.get("RANKPOOL_PATH")]
        path = [entry for entry in told["path"] if not entry.startswith("/proc/")]
        if told["cwd"] is not None:
            path = [entry or told["cwd"] for entry in path]
            try:
                os.chdir(told["cwd"])
            except OSError:
                pass
        sys.path[:] = path + [entry for entry in ours if entry not in path]
        sys.argv[:] = told["argv"]
        if not session.initialized:
            session.initialized = True
            self._initialize(session)
        self._failure = session.failure

    def _initialize(self, session):
        """Call the initializer of a session, if it has one. Its modules are imported: see `_preload`."""
        told = session.told
        try:
            if "initializer" in told:
                initializer, initargs = self._loads(told["initializer"], 0)
                initializer(*initargs)
        except BaseException as error:
            session.failure = self._describe(error)

    def _function(self, number):
        """The function, or the shared object, of a number, as a list of one; loaded at its first use."""
        found = self._functions[number]
        if type(found) is tuple:
            header, body = found
            payload = memoryview(body)[header[4] :]
            found = [self._loads(payload, header[1])]
            self._functions[number] = found
        return found

    def _loads(self, body, flags):
        """Load an object. `__main__` is imported again if something of it is missing."""
        try:
            try:
                return loads(body, flags)
            except AttributeError as error:
                if "__main__" not in str(error) or not self._import_main():
                    raise
                return loads(body, flags)
        except BaseException as error:
            from ._errors import PayloadError

            what = f"a function or an argument cannot be loaded in the worker: {type(error).__name__}: {error}"
            raise PayloadError(what) from error

    def _import_main(self):
        """Import the script again, as `__mp_main__`, as multiprocessing does. False: it was tried before."""
        if self._main_tried:
            return False
        self._main_tried = True
        main = self._sessions[self._current].told["main"]
        if main is None:
            raise AttributeError(
                "the script's __main__ cannot be imported by a worker (it is no file): install cloudpickle "
                "(pip install cloudpickle)"
            )
        import runpy
        from types import ModuleType

        module = ModuleType("__mp_main__")
        sys.modules["__mp_main__"] = sys.modules["__main__"] = module
        how, name = main
        if how == "name":
            content = runpy.run_module(name, run_name="__mp_main__", alter_sys=True)
        else:
            content = runpy.run_path(name, run_name="__mp_main__")
        module.__dict__.update(content)
        sys.modules["__mp_main__"] = sys.modules["__main__"] = module
        return True


def _home():
    """The entry of `sys.path` from which this package came."""
    return __file__[: -len("/rankpool/_worker.py")]


def _where():
    import os

    rank, slot = os.environ.get("RANKPOOL_RANK", "?"), os.environ.get("RANKPOOL_SLOT", "?")
    return f"rank {rank} on {os.uname().nodename}, slot {slot}, process {os.getpid()}:"


def shared_object(number):
    """The shared object of a number."""
    return _worker._function(number)[0]


def _end_child():
    """End a process that a job has forked and that has come back from the job: its parent answers."""
    import os

    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _unshare(value):
    from ._share import Shared

    return value.get() if isinstance(value, Shared) else value


def _unshared(args):
    return tuple([_unshare(value) for value in args])
