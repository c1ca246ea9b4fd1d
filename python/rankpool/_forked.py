"""A worker that a fork server forks: what it has to do, which the server finds out before, and the worker's first steps."""

# The module in C: the one around it makes enums of numbers, which costs each worker pages of memory.
import _signal as signal
import os
import sys
from _struct import unpack

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SET_DEATH_SIGNAL = 1

_PATH = "PYTHONPATH"
_codes = {}  # compiled programs
_bases = []


class Plan:
    """What a worker does when it is forked."""

    __slots__ = ("cwd", "cpus", "code", "arguments", "unset", "set", "streams")

    def __init__(self, request, streams, own_cpus):
        fields = request.split(b"\0")
        self.cwd = fields[1]
        cpus = {int(cpu) for cpu in fields[2].split(b",") if cpu}
        self.cpus = set() if cpus == own_cpus else cpus
        count = int(fields[3])
        arguments = [os.fsdecode(field) for field in fields[4 : 4 + count]]
        at = arguments.index("-c")
        # The program of a worker that answers calls says just that it is one.
        self.code = None if is_for_calls() else _compiled(arguments[at + 1])
        self.arguments = ["-c", *arguments[at + 2 :]]
        self.unset, self.set = _changes(fields[4 + count :])
        self.streams = streams

    def become(self, server, prctl, handlers, close):
        """Become the worker: its group, its descriptors, its environment."""
        os.setpgid(0, 0)
        if prctl is not None:
            # No worker outlives its server.
            prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number, handler in handlers:
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        for at, fd in enumerate(self.streams):
            os.dup2(fd, at)
        for low, high in close:
            os.closerange(low, high)
        if self.cpus:
            try:
                os.sched_setaffinity(0, self.cpus)
            except OSError:
                pass
        os.chdir(self.cwd)
        for name in self.unset:
            del os.environ[name]
        for name, value in self.set:
            os.environ[name] = value
        # `random` does the same by itself.
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            numpy_random.seed(unpack("8I", os.urandom(32)))

    def run(self):
        """Do what `python -c CODE ARG...` does."""
        sys.modules["__main__"] = type(sys)("__main__")
        sys.argv[:] = self.arguments
        if self.code is None:
            from ._worker import main

            main()
        else:
            _forget_package()
            exec(self.code, sys.modules["__main__"].__dict__)


def is_for_calls():
    """Whether the workers answer calls of a script, by `_worker`; otherwise they run another program."""
    return os.environ.get("RANKPOOL_WORKER") == "1"


def death_signal_setter():
    """The function that ends a worker with its server; None: this Python has no ctypes."""
    try:
        from ctypes import CDLL

        return CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None


def runs(numbers):
    """Ascending numbers as pairs: the first of a run, and the number behind its last."""
    found = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1][1] = number + 1
        else:
            found.append([number, number + 1])
    return found


def _compiled(code):
    if code not in _codes:
        _codes[code] = compile(code, "<string>", "exec")
    return _codes[code]


def _changes(entries):
    """What a worker has to change in `os.environ`: the names to remove, and the variables to set.

    A wrapper of Python may have changed the environment with which it was started. A worker keeps that, and
    gets what differs between its rank and the one that has started the server.
    """
    wanted, base = _variables(entries), _base()
    # That of the server has this package, too.
    base[_PATH] = None
    have = dict(os.environ)
    unset = [name for name in base if name not in wanted and name in have]
    changed = [(name, value) for name, value in wanted.items() if base.get(name) != value]
    return unset, [(name, value) for name, value in changed if have.get(name) != value]


def _variables(entries):
    pairs = [entry.partition(b"=") for entry in entries]
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if name}


def _base():
    """The environment of the rank that has started the server: that of the process which has started this one."""
    if not _bases:
        try:
            with open(f"/proc/{os.getppid()}/environ", "rb") as file:
                _bases.append(_variables(file.read().split(b"\0")))
        except OSError:
            _bases.append(dict(os.environ))
    return dict(_bases[0])


def _forget_package():
    """Leave no trace of this package in a process that does not use it."""
    home = __file__[: -len("/rankpool/_forked.py")]
    sys.path[:] = [entry for entry in sys.path if entry != home]
    for path in [path for path in sys.path_importer_cache if path == home or path.startswith(home + "/")]:
        del sys.path_importer_cache[path]
    for name in [name for name in sys.modules if name == "rankpool" or name.startswith("rankpool.")]:
        del sys.modules[name]
