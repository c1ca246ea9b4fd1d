"""The fork server: one interpreter of a node that imports modules and then forks the workers of its ranks.

    python -c BOOT ENTRY...      ENTRY is a module, or a folder (with a slash) in which modules are looked for

Its fd 0 is a listening Unix socket. A rank connects once for the state of the imports, and once for each worker:

    to us     u32 length, b"state"
    from us   b"ready\\0", b"threads\\nMODULE\\nNAMES\\0" or b"import\\nMODULE\\nERROR\\nTRACEBACK\\0"; the connection stays open

    to us     u32 length, b"fork\\0CWD\\0CPUS\\0COUNT\\0" + COUNT arguments of `python` + NAME=VALUE..., each with a \\0 between;
              with it three descriptors: standard input, output, error. Then orders: b"K", b"T" + f64 seconds of grace
    from us   b"refused\\0", or, when the worker has ended, b"ended STATUS USER SYSTEM RSS\\0"

It ends when no rank is connected and no worker runs.
"""

import gc
import os
import select
import signal
import socket
import struct
import sys
from time import monotonic

_GRACE = 5.0  # between TERM and KILL for a worker whose rank is gone
_LOOK_AGAIN = 0.02
_PROBE_LIMIT = 5.0
_MOST_TEXT = 1 << 16
_DESCRIPTORS = socket.CMSG_SPACE(3 * struct.calcsize("i"))


def main() -> None:
    """Import, then serve. Returns in a worker only, whose program has been run then."""
    listener = _take_listener()
    gc_was_on = gc.isenabled()
    gc.disable()
    path = list(sys.path)
    state = _import_all(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            pass
    # What was imported stays: the garbage collector of a worker need not touch it, so that its memory stays shared.
    gc.freeze()
    worker = _Server(listener, state).serve()
    if worker is None:
        os._exit(0)
    if gc_was_on:
        gc.enable()
    sys.path[:] = path
    _run(worker)


def _take_listener():
    """The listening socket, moved away from fd 0."""
    import fcntl

    fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    return listener


# The imports.


def _import_all(entries):
    """Import the modules. Returns the text for the ranks."""
    sys.path[:0] = [os.path.abspath(entry) for entry in entries if "/" in entry]
    for name in entries:
        if "/" in name:
            continue
        try:
            __import__(name)
        except BaseException as error:
            return _import_failed(name, error)
        if _has_threads():
            return b"threads\n%b\n%b\0" % (name.encode(), _thread_names().encode())
    if os.environ.get("RANKPOOL_WORKER") == "1":
        # What every worker imports before its first job.
        from . import _payload, _worker, share  # noqa: F401
    return b"ready\0"


def _import_failed(name, error):
    import traceback

    tb = error.__traceback__
    # The first frame is that of this module.
    lines = traceback.format_exception(type(error), error, tb.tb_next if tb is not None else None)
    last = traceback.format_exception_only(type(error), error)[-1].strip()
    text = f"import\n{name}\n{last}\n{''.join(lines)}".encode("utf-8", "backslashreplace")
    return text[:_MOST_TEXT].replace(b"\0", b"?") + b"\0"


def _thread_count():
    return len(os.listdir("/proc/self/task"))


def _has_threads():
    """Whether threads run that stay when the process forks. Some libraries (OpenBLAS) end theirs before a fork."""
    if _thread_count() < 2:
        return False
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    deadline = monotonic() + _PROBE_LIMIT
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return True
        select.select([], [], [], 0.001)
    # A thread that was waited for may be listed a moment longer.
    for _ in range(20):
        if _thread_count() < 2:
            return False
        select.select([], [], [], 0.005)
    return True


def _thread_names():
    threading = sys.modules.get("threading")
    if threading is None:
        return ""
    main = threading.main_thread()
    return ", ".join(thread.name for thread in threading.enumerate() if thread is not main)[:500]


# The server.


class _Connection:
    """A connection of a rank, and the worker that was forked for it."""

    def __init__(self, sock):
        self.socket = sock
        self.bytes = b""
        self.fds = []
        self.asked = False
        self.pid = None
        self.grace = None  # until when the rest of the group lives on after the worker
        self.kill_at = None
        self.is_gone = False

    def close(self):
        """Close the socket, and descriptors that no worker has got."""
        self.socket.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def answer(self, text):
        """Send a text. The rank may be gone."""
        try:
            self.socket.settimeout(_GRACE)
            self.socket.sendall(text)
            self.socket.setblocking(False)
        except OSError:
            pass


class _Server:
    def __init__(self, listener, state):
        self.listener = listener
        self.state = state
        self.connections = {}  # by descriptor
        self.poll = select.poll()
        self.poll.register(listener, select.POLLIN)
        self.prctl = _prctl()
        self.pid = os.getpid()
        self.terminated = False
        self.was_asked = False
        self.wake, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.wakes = wakes
        self.poll.register(self.wake, select.POLLIN)
        self.handlers = {
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda *_: None),
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._terminate),
            signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        }
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)

    def _terminate(self, *_):
        self.terminated = True

    def serve(self):
        """Serve until nothing is left; returns the request of a worker in its process."""
        while True:
            if self.terminated and self.listener is not None:
                self._stop_listening()
            if self.was_asked and self._is_unused():
                return None
            pause = self._pause()
            look = pause is not None
            for fd, _ in self.poll.poll(pause):
                if self.listener is not None and fd == self.listener.fileno():
                    self._accept()
                elif fd == self.wake:
                    self._drain()
                    look = True
                elif fd in self.connections:
                    worker = self._read(self.connections[fd])
                    if worker is not None:
                        return worker
            if look:
                self._look_at_workers()

    def _is_unused(self):
        connections = self.connections.values()
        workers = any(connection.pid is not None for connection in connections)
        return not workers and (self.listener is None or not connections)

    def _stop_listening(self):
        self.poll.unregister(self.listener)
        self.listener.close()
        self.listener = None

    def _pause(self):
        """Milliseconds until there is something to do."""
        moments = [c.kill_at for c in self.connections.values() if c.kill_at is not None]
        ended = any(c.grace is not None for c in self.connections.values())
        if not moments and not ended:
            return None
        left = min(moments) - monotonic() if moments else _LOOK_AGAIN
        return max(0, int(1000 * (min(left, _LOOK_AGAIN) if ended else left)) + 1)

    def _drain(self):
        try:
            while os.read(self.wake, 4096):
                pass
        except BlockingIOError:
            pass

    def _accept(self):
        """Take the connections that wait, of this user."""
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            if struct.unpack("3i", credentials)[1] not in (os.getuid(), 0):
                sock.close()
                continue
            sock.setblocking(False)
            self.connections[sock.fileno()] = _Connection(sock)
            self.poll.register(sock, select.POLLIN)
            self.was_asked = True

    def _forget(self, connection):
        fd = connection.socket.fileno()
        if not connection.is_gone:
            self.poll.unregister(fd)
        del self.connections[fd]
        connection.close()

    def _read(self, connection):
        """Read what a rank has sent; returns the request of a worker in its process."""
        is_open = self._receive(connection)
        if not connection.asked:
            request = self._request(connection)
            if request is not None:
                # An order may follow at once, and the rank may be gone already.
                is_open = is_open and self._receive(connection)
                worker = self._carry_out(connection, request, is_open)
                if worker is not None:
                    return worker
        if connection.asked:
            self._obey(connection)
        if not is_open and connection.socket.fileno() >= 0:
            self._left(connection)
        return None

    def _receive(self, connection):
        """Read without waiting. Returns whether the rank is there."""
        while True:
            try:
                data, messages, _, _ = connection.socket.recvmsg(1 << 18, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return True
            except OSError:
                return False
            for level, kind, fds in messages:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    connection.fds += struct.unpack(f"{len(fds) // 4}i", fds[: len(fds) // 4 * 4])
            if not data:
                return False
            connection.bytes += data

    def _request(self, connection):
        data = connection.bytes
        if len(data) < 4:
            return None
        end = 4 + struct.unpack_from("<I", data)[0]
        if len(data) < end:
            return None
        connection.bytes = data[end:]
        connection.asked = True
        return data[4:end]

    def _carry_out(self, connection, request, is_open):
        """Answer a request; returns it in the process of a worker."""
        if request == b"state":
            connection.answer(self.state)
            return None
        if not self.state.startswith(b"ready") or self.terminated or len(connection.fds) != 3:
            connection.answer(b"refused\0")
            self._forget(connection)
            return None
        if not is_open or connection.bytes.startswith(b"K"):
            connection.answer(b"ended %d 0 0 0\0" % signal.SIGKILL)
            self._forget(connection)
            return None
        return self._fork(connection, request)

    def _fork(self, connection, request):
        signals = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            connection.answer(b"scarce %d\0" % (error.errno or 0))
            self._forget(connection)
            return None
        if pid == 0:
            try:
                return self._become_worker(connection, request, signals)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        try:
            os.setpgid(pid, pid)
        except OSError:
            pass
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        connection.pid = pid
        for fd in connection.fds:
            os.close(fd)
        connection.fds = []
        return None

    def _obey(self, connection):
        """Carry out orders of the rank."""
        while connection.bytes:
            if connection.bytes[:1] == b"K":
                connection.bytes = connection.bytes[1:]
                connection.grace = None
                self._signal(connection, signal.SIGKILL)
            elif len(connection.bytes) >= 9:
                (grace,) = struct.unpack_from("<d", connection.bytes, 1)
                connection.bytes = connection.bytes[9:]
                connection.grace = monotonic() + grace
                self._signal(connection, signal.SIGTERM)
            else:
                return

    @staticmethod
    def _signal(connection, number):
        if connection.pid is not None:
            try:
                os.killpg(connection.pid, number)
                if number == signal.SIGTERM:
                    # A stopped process does not react to SIGTERM.
                    os.killpg(connection.pid, signal.SIGCONT)
            except OSError:
                pass

    def _left(self, connection):
        """A rank is gone, or does not need its worker any more."""
        if connection.pid is None:
            self._forget(connection)
        elif not connection.is_gone:
            self.poll.unregister(connection.socket.fileno())
            connection.is_gone = True
            connection.grace = connection.kill_at = monotonic() + _GRACE
            self._signal(connection, signal.SIGTERM)

    def _look_at_workers(self):
        """Report the ends of workers."""
        now = None
        for connection in list(self.connections.values()):
            if connection.pid is None:
                continue
            if connection.kill_at is not None:
                now = now or monotonic()
                if now >= connection.kill_at:
                    connection.kill_at = connection.grace = None
                    self._signal(connection, signal.SIGKILL)
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, connection.pid, flags) is None:
                continue
            if connection.grace is not None and monotonic() < connection.grace and _has_others(connection.pid):
                continue
            # What is left of the group is killed with its leader.
            self._signal(connection, signal.SIGKILL)
            _, status, used = os.wait4(connection.pid, 0)
            connection.pid = None
            figures = (status, int(used.ru_utime * 1e6), int(used.ru_stime * 1e6), used.ru_maxrss)
            connection.answer(b"ended %d %d %d %d\0" % figures)
            self._forget(connection)

    def _become_worker(self, connection, request, signals):
        """Become a worker: its group, its descriptors, its environment."""
        os.setpgid(0, 0)
        if self.prctl is not None:
            # No worker outlives its server.
            self.prctl(1, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != self.pid:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number, handler in self.handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        for at, fd in enumerate(connection.fds):
            os.dup2(fd, at)
        for other in self.connections.values():
            other.close()
        for fd in (self.wake, self.wakes):
            os.close(fd)
        if self.listener is not None:
            self.listener.close()
        fields = request.split(b"\0")
        cwd, cpus, count = fields[1], fields[2], int(fields[3])
        if cpus:
            try:
                os.sched_setaffinity(0, [int(cpu) for cpu in cpus.split(b",")])
            except OSError:
                pass
        os.chdir(cwd)
        _set_environment(fields[4 + count :])
        # `random` does the same by itself.
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            numpy_random.seed()
        return [os.fsdecode(field) for field in fields[4 : 4 + count]]


def _prctl():
    """The system call that ends a worker with its server; None: Python was built without ctypes."""
    try:
        from ctypes import CDLL

        return CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None


def _has_others(group):
    """Whether a process group has running members besides its leader."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != group:
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, _, of = file.read().rpartition(b")")[2].split()[:3]
            except (OSError, ValueError):
                continue
            if int(of) == group and state not in (b"Z", b"X"):
                return True
    return False


def _set_environment(entries):
    """Make `os.environ` that of the rank."""
    wanted = {}
    for entry in entries:
        name, _, value = entry.partition(b"=")
        if name:
            wanted[os.fsdecode(name)] = os.fsdecode(value)
    for name in [name for name in os.environ if name not in wanted]:
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _run(arguments):
    """Run `python -c CODE ARG...` in this process."""
    from types import ModuleType

    main = sys.modules["__main__"] = ModuleType("__main__")
    sys.argv[:] = ["-c", *arguments[2:]]
    if os.environ.get("RANKPOOL_WORKER") != "1":
        _forget_package()
    exec(compile(arguments[1], "<string>", "exec"), main.__dict__)


def _forget_package():
    """Leave no trace of this package in a process that does not use it."""
    home = __file__[: -len("/rankpool/_forkserver.py")]
    sys.path[:] = [entry for entry in sys.path if entry != home]
    sys.path_importer_cache.pop(home, None)
    for name in ("rankpool", __name__):
        sys.modules.pop(name, None)
