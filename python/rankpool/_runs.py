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
