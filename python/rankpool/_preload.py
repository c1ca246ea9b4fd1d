"""The modules that one interpreter of a node imports for all its workers, or that a worker imports by itself.

Among their names, an entry with a slash is a folder in which modules are looked for first.
"""

import os
import select
import sys
from _signal import SIGKILL
from time import monotonic

_PROBE_LIMIT = 5.0
_MOST_TEXT = 1 << 16


def import_by_itself(modules):
    """Import what a fork server would have imported. Its rank has said it if one cannot be imported."""
    path = list(sys.path)
    sys.path[:0] = _folders(modules)
    for module in modules:
        if "/" not in module:
            try:
                __import__(module)
            except Exception:
                pass
    sys.path[:] = path


def _folders(entries):
    return [os.path.abspath(entry) for entry in entries if "/" in entry]


def import_all(entries):
    """Import the modules. Returns the text for the ranks."""
    sys.path[:0] = _folders(entries)
    for name in entries:
        if "/" in name:
            continue
        try:
            __import__(name)
        except BaseException as error:
            return _import_failed(name, error)
        if _has_threads():
            return b"threads\n%b\n%b\0" % (name.encode(), _thread_names().encode())
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
            os.kill(pid, SIGKILL)
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
