"""Functions run on every core of every node, as ``concurrent.futures`` and ``multiprocessing`` run them on one.

``Executor`` is a ``concurrent.futures.Executor`` whose workers are the processes of rankpool's ranks;
``Pool`` has the surface of ``multiprocessing.Pool``. The same script runs

* as ``mpiexec -n 8 rankpool python script.py``, on the cores of all ranks, or
* as ``python script.py``: the first job starts ``rankpool serve`` with the cores of this machine.

The names are loaded when they are first used, so that ``import rankpool`` costs nothing.
"""

import os as _os

__version__ = "0.1.0"

# For type checkers, which take this name as true; importing `typing` for it would cost every worker some milliseconds.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._errors import InitializerFailed as InitializerFailed
    from ._errors import JobTimeout as JobTimeout
    from ._errors import PayloadError as PayloadError
    from ._errors import PoolEnded as PoolEnded
    from ._errors import WorkerDied as WorkerDied
    from ._payload import RemoteError as RemoteError
    from ._payload import RemoteTraceback as RemoteTraceback
    from ._share import Shared as Shared
    from ._share import share as share
    from .executor import Executor as Executor
    from .maps import MapRun as MapRun
    from .pool import Pool as Pool

_HOMES = {
    "Executor": "executor",
    "MapRun": "maps",
    "Pool": "pool",
    "Shared": "_share",
    "share": "_share",
    "WorkerDied": "_errors",
    "JobTimeout": "_errors",
    "InitializerFailed": "_errors",
    "PayloadError": "_errors",
    "PoolEnded": "_errors",
    "RemoteError": "_payload",
    "RemoteTraceback": "_payload",
}

__all__ = sorted([*_HOMES, "is_worker"])


def is_worker() -> bool:
    """Whether this process is a worker of rankpool, which runs jobs (it cannot use an executor)."""
    return _os.environ.get("RANKPOOL_WORKER") == "1"


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'rankpool' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module("rankpool." + home), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *_HOMES])
