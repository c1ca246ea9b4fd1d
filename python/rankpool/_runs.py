"""The maps of this process that have not finished."""

import weakref
from collections import deque

# With themselves as values if they go on when nothing else refers to them.
runs: "weakref.WeakKeyDictionary" = weakref.WeakKeyDictionary()


def live_runs():
    """All of them."""
    return [run for run in [reference() for reference in runs.keyrefs()] if run is not None]


# Maps whose iterator is gone: their jobs are not wanted any more.
abandoned: deque = deque()


def cancel_abandoned():
    """Cancel the maps whose iterator is gone."""
    while True:
        try:
            run = abandoned.popleft()
        except IndexError:
            return
        run.cancel()


# Maps whose items are collected to calls of several jobs while their iterable is read.
collecting: "weakref.WeakSet" = weakref.WeakSet()
_PAUSE = 1.0
_SHORT_PAUSE = 0.02


def pause():
    """Seconds after which maps must be looked after if nothing else happens."""
    return _SHORT_PAUSE if len(collecting) else _PAUSE


def look_after(connection):
    """Cancel the maps whose iterator is gone, and let collected items be sent: their iterable may give no more now."""
    cancel_abandoned()
    if len(collecting):
        for run in live_runs():
            if run.connection is connection and run in collecting and run._items:
                connection.enqueue(run.core, run)
