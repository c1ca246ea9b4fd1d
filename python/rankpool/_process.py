"""The connections of this process: made at the first use, closed at its end, not used by its forked children."""

import os
import threading

from ._connection import Connection
from ._futures import renew_lock
from ._runs import cancel_abandoned, live_runs

_connections: dict = {}  # launcher: Connection
_connections_lock = threading.Lock()
_interpreter_ends = False


def connection(launcher=None, preload=()):
    """The connection of this process for a launcher; the first use starts it, with these modules imported once on each node."""
    with _connections_lock:
        if _interpreter_ends:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        found = _connections.get(launcher)
        if found is None or found.is_over():
            found = Connection(launcher, preload)
            _connections[launcher] = found
        return found


def _at_exit():
    """At the end of the interpreter: jobs that were submitted are finished, as with `concurrent.futures`."""
    global _interpreter_ends
    _interpreter_ends = True
    cancel_abandoned()
    for run in live_runs():
        run.stop_reading()
    for found in list(_connections.values()):
        while found.over is None and found.is_busy():
            found.pump()
            threading.Event().wait(0.01)
        found.close()
    _connections.clear()


def _after_fork():
    global _connections_lock
    _connections_lock = threading.Lock()
    renew_lock()
    for found in _connections.values():
        found.abandon()
    _connections.clear()


def _register():
    try:
        # Before the interpreter waits for its threads, as concurrent.futures does.
        threading._register_atexit(_at_exit)
    except (AttributeError, RuntimeError):
        import atexit

        atexit.register(_at_exit)
    os.register_at_fork(after_in_child=_after_fork)


_register()
