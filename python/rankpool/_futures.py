"""Futures of jobs: real `concurrent.futures.Future`s that cost less to make and to settle.

All of them share one lock, and a condition is made for a future only when something waits for it.
"""

import threading
from concurrent.futures import _base

PENDING = _base.PENDING
RUNNING = _base.RUNNING
FINISHED = _base.FINISHED
CANCELLED = _base.CANCELLED

# The lock of the states of all futures. It is never held while another lock is taken or a callback runs.
LOCK = threading.RLock()


class _Lazy:
    """An attribute of a future that is made at its first use."""

    def __init__(self, make):
        self._make = make

    def __set_name__(self, owner, name):
        self._name = name

    def __get__(self, future, owner=None):
        if future is None:
            return self
        made = future.__dict__.setdefault(self._name, self._make())
        future.is_watched = True
        return made


class JobFuture(_base.Future):
    """The future of one job."""

    # Until they are set, attributes are those of the class.
    _state = PENDING
    _result = None
    _exception = None
    _condition = _Lazy(lambda: threading.Condition(LOCK))
    _waiters = _Lazy(list)
    _done_callbacks = _Lazy(list)
    is_watched = False  # it has one of these three
    core: object  # of its executor
    record: object  # of its function
    body: object  # of its call, until it is sent
    pickle = None  # instead of a body, if it is all of that and nothing else has to be sent before
    retries: int
    seconds: float
    count = 1  # the number of jobs, as of a call of a map
    uses = ()

    def __init__(self):
        pass

    def result(self, timeout=None):
        """The value of the job; raises its exception. Waits at most `timeout` seconds."""
        if self._state == FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)

    def done(self):
        """Whether the job has finished or was cancelled."""
        return self._state not in (PENDING, RUNNING)


def settle(outcomes):
    """Give futures their outcomes: `outcomes` are `(future, is_value, value or exception)`."""
    with_callbacks = []
    with LOCK:
        for future, is_value, value in outcomes:
            if is_value:
                future._result = value
            else:
                future._exception = value
            future._state = FINISHED
            if future.is_watched:
                known = future.__dict__
                for waiter in known.get("_waiters", ()):
                    (waiter.add_result if is_value else waiter.add_exception)(future)
                if "_condition" in known:
                    known["_condition"].notify_all()
                if "_done_callbacks" in known:
                    with_callbacks.append(future)
    for future in with_callbacks:
        future._invoke_callbacks()


def fail(future, error):
    """Give a future that was not sent an exception."""
    settle([(future, False, error)])


def begin(futures):
    """Those of pending futures that may be sent; they are running from now on. The others were cancelled."""
    begun, cancelled = [], []
    with LOCK:
        for future in futures:
            if future._state == PENDING:
                future._state = RUNNING
                begun.append(future)
            else:
                cancelled.append(future)
    for future in cancelled:
        future.set_running_or_notify_cancel()
    return begun


def renew_lock():
    """In a forked child: the lock may be held by a thread that the child does not have."""
    LOCK._at_fork_reinit()
