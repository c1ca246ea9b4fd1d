"""The maps of this process that have not finished."""

import weakref

# With themselves as values if they go on when nothing else refers to them.
runs: "weakref.WeakKeyDictionary" = weakref.WeakKeyDictionary()


def live_runs():
    """All of them."""
    return [run for run in [reference() for reference in runs.keyrefs()] if run is not None]
