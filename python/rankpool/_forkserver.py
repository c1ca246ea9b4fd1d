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

# The modules in C, where the ones around them cost milliseconds, and each worker pages of memory.
import _signal as signal
import _socket as socket
import gc
import os
import select
import sys
from _struct import calcsize, unpack, unpack_from
from time import monotonic

from ._forked import SIGNALS, Plan, death_signal_setter, is_for_calls, runs
from ._preload import import_all

_kept = []  # in a worker: the server's objects
_GRACE = 5.0  # between TERM and KILL for a worker whose rank is gone
_LOOK_AGAIN = 0.02
_DESCRIPTORS = socket.CMSG_SPACE(3 * calcsize("i"))


def main() -> None:
    """Import, then serve. Returns in a worker only, whose program has been run then."""
    listener = _take_listener()
    gc_was_on = gc.isenabled()
    gc.disable()
    path = list(sys.path)
    state = import_all(sys.argv[1:])
    if is_for_calls():
        # What every worker imports before its first job.
        import mmap  # noqa: F401

        from . import _payload, _worker  # noqa: F401
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            pass
    # What was imported stays: the garbage collector of a worker need not touch it, so that its memory stays shared.
    gc.freeze()
    plan = _Server(listener, state).serve()
    if plan is None:
        os._exit(0)
    if gc_was_on:
        gc.enable()
    sys.path[:] = path
    plan.run()


def _take_listener():
    """The listening socket, moved away from fd 0."""
    import fcntl

    fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.set_blocking(fd, False)
    return fd


class _Connection:
    """A connection of a rank, and the worker that was forked for it."""

    # The descriptors are numbers: a worker, which closes them all at once, has no objects that would close them again.

    def __init__(self, fd):
        self.fd = fd
        self.bytes = b""
        self.fds = []
        self.asked = False
        self.pid = None
        self.grace = None  # until when the rest of the group lives on after the worker
        self.kill_at = None
        self.is_gone = False

    def close(self):
        """Close the socket, and descriptors that no worker has got."""
        os.close(self.fd)
        self.close_received()

    def close_received(self):
        """Close the descriptors that came with the request."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def answer(self, text):
        """Send a text. The rank may be gone."""
        sock = _socket_of(self.fd)
        try:
            sock.settimeout(_GRACE)
            sock.sendall(text)
        except OSError:
            pass
        finally:
            sock.setblocking(False)
            sock.detach()


def _nothing(*_):
    pass


def _socket_of(fd):
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)


class _Server:
    def __init__(self, listener, state):
        self.listener = listener  # None when it is closed
        self.state = state
        self.waiting = []  # connections whose worker is to be forked, with its plan
        self.cpus = os.sched_getaffinity(0)
        self.connections = {}  # by descriptor
        self.poll = select.poll()
        self.poll.register(listener, select.POLLIN)
        self.prctl = death_signal_setter()
        self.pid = os.getpid()
        self.terminated = False
        self.was_asked = False
        self.wake, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.wakes = wakes
        self.poll.register(self.wake, select.POLLIN)
        own = ((signal.SIGCHLD, _nothing), (signal.SIGTERM, self._terminate), (signal.SIGINT, _nothing))
        handlers = [(number, signal.signal(number, handler)) for number, handler in own]
        self.handlers = [(number, signal.SIG_DFL if handler is None else handler) for number, handler in handlers]
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)

    def _terminate(self, *_):
        self.terminated = True

    def serve(self):
        """Serve until nothing is left; returns the plan of a worker in its process."""
        while True:
            if self.terminated and self.listener is not None:
                self._stop_listening()
            if self.was_asked and self._is_unused():
                return None
            pause = self._pause()
            look = pause is not None
            for fd, _ in self.poll.poll(pause):
                if fd == self.listener:
                    self._accept()
                elif fd == self.wake:
                    self._drain()
                    look = True
                elif fd in self.connections:
                    self._read(self.connections[fd])
            if self.waiting:
                plan = self._fork_all()
                if plan is not None:
                    return plan
            if look:
                self._look_at_workers()

    def _is_unused(self):
        connections = self.connections.values()
        workers = any(connection.pid is not None for connection in connections)
        return not workers and (self.listener is None or not connections)

    def _stop_listening(self):
        self.poll.unregister(self.listener)
        os.close(self.listener)
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
        listener = _socket_of(self.listener)
        try:
            while True:
                fd, _ = listener._accept()
                sock = _socket_of(fd)
                credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, calcsize("3i"))
                if unpack("3i", credentials)[1] not in (os.getuid(), 0):
                    sock.close()
                    continue
                sock.setblocking(False)
                sock.detach()
                self.connections[fd] = _Connection(fd)
                self.poll.register(fd, select.POLLIN)
                self.was_asked = True
                self._read(self.connections[fd])
        except OSError:
            pass
        finally:
            listener.detach()

    def _forget(self, connection):
        if not connection.is_gone:
            self.poll.unregister(connection.fd)
        del self.connections[connection.fd]
        connection.close()

    def _read(self, connection):
        """Read what a rank has sent."""
        is_open = self._receive(connection)
        if not connection.asked:
            request = self._request(connection)
            if request is not None:
                # An order may follow at once, and the rank may be gone already.
                is_open = is_open and self._receive(connection)
                self._carry_out(connection, request, is_open)
        if connection.pid is not None:
            self._obey(connection)
        if not is_open and connection.fd in self.connections:
            self._left(connection)

    def _receive(self, connection):
        """Read without waiting. Returns whether the rank is there."""
        sock = _socket_of(connection.fd)
        while True:
            try:
                data, messages, _, _ = sock.recvmsg(1 << 17, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            except OSError as error:
                sock.detach()
                return isinstance(error, BlockingIOError)
            for level, kind, fds in messages:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    connection.fds += unpack(f"{len(fds) // 4}i", fds[: len(fds) // 4 * 4])
            if not data:
                sock.detach()
                return False
            connection.bytes += data

    def _request(self, connection):
        data = connection.bytes
        if len(data) < 4:
            return None
        end = 4 + unpack_from("<I", data)[0]
        if len(data) < end:
            return None
        connection.bytes = data[end:]
        connection.asked = True
        return data[4:end]

    def _carry_out(self, connection, request, is_open):
        """Answer a request, or note that a worker is to be forked."""
        if request == b"state":
            connection.answer(self.state)
        elif not self.state.startswith(b"ready") or self.terminated or len(connection.fds) != 3:
            connection.answer(b"refused\0")
            self._forget(connection)
        elif not is_open or connection.bytes.startswith(b"K"):
            connection.answer(b"ended %d 0 0 0\0" % signal.SIGKILL)
            self._forget(connection)
        else:
            self.waiting.append((connection, Plan(request, connection.fds, self.cpus)))

    def _fork_all(self):
        """Fork the workers that wait; returns the plan of a worker in its process.

        After each fork both processes copy the memory that they touch: so everything else is done before.
        """
        ours = [self.wake, self.wakes, *self.connections]
        for connection in self.connections.values():
            ours += connection.fds
        if self.listener is not None:
            ours.append(self.listener)
        close = runs(sorted(ours))
        waiting, self.waiting = self.waiting, []
        pids = [0] * len(waiting)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for at in range(len(waiting)):
            try:
                pids[at] = os.fork()
            except OSError as error:
                pids[at] = -error.errno
            if pids[at] == 0:
                # To free what the server had would touch its memory.
                _kept.append((self, waiting))
                return self._become_worker(waiting[at][1], close)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        for (connection, _), pid in zip(waiting, pids):
            self._forked(connection, pid)
        return None

    def _forked(self, connection, pid):
        """Note that a worker was forked, or (`pid` is negative) why not."""
        connection.close_received()
        if pid < 0:
            connection.answer(b"scarce %d\0" % -pid)
            self._forget(connection)
            return
        connection.pid = pid
        try:
            # The worker does the same; an order may come first.
            os.setpgid(pid, pid)
        except OSError:
            pass
        if connection.is_gone:
            self._signal(connection, signal.SIGTERM)
        self._obey(connection)

    def _obey(self, connection):
        """Carry out orders of the rank."""
        while connection.bytes:
            if connection.bytes[:1] == b"K":
                connection.bytes = connection.bytes[1:]
                connection.grace = None
                self._signal(connection, signal.SIGKILL)
            elif len(connection.bytes) >= 9:
                (grace,) = unpack_from("<d", connection.bytes, 1)
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
        if connection.pid is None and not any(connection is waits for waits, _ in self.waiting):
            self._forget(connection)
        elif not connection.is_gone:
            self.poll.unregister(connection.fd)
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

    def _become_worker(self, plan, close):
        try:
            plan.become(self.pid, self.prctl, self.handlers, close)
            return plan
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)


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


