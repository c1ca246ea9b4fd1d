"""The errors of jobs that no function has raised. Loaded when one is needed."""

from concurrent.futures import TimeoutError as _FuturesTimeout
from concurrent.futures.process import BrokenProcessPool


class WorkerDied(BrokenProcessPool):
    """The worker that ran a job has ended. The job has failed; the pool lives on."""


class PoolEnded(BrokenProcessPool):
    """The run of rankpool has ended, or its process has: no more jobs are taken."""


class InitializerFailed(BrokenProcessPool):
    """The initializer of an executor has raised an exception: the executor takes no more jobs."""


class PayloadError(BrokenProcessPool):
    """An argument could not be loaded in the worker, or a result could not be loaded in the script.

    The exception that says why is its cause. The pool lives on.
    """


if issubclass(_FuturesTimeout, TimeoutError):

    class JobTimeout(TimeoutError):
        """A job took longer than its own time limit (`timeout=` of the executor or its options)."""

else:

    class JobTimeout(_FuturesTimeout, TimeoutError):  # type: ignore[no-redef,misc]
        """A job took longer than its own time limit (`timeout=` of the executor or its options)."""


def of_text(status, text):
    """The exception of a result whose body is a text."""
    from . import _frames as frames

    if status in (frames.WORKER_DIED, frames.RANK_LOST):
        return WorkerDied(text or "the worker has died")
    if status == frames.TIME_LIMIT:
        return JobTimeout(text or "the job has exceeded its time limit")
    if status == frames.NO_WORKER:
        return BrokenProcessPool(text or "no worker can be started")
    return PoolEnded(text or "the run ends")
