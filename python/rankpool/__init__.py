"""Functions run on every core of every node, as ``concurrent.futures`` and ``multiprocessing`` run them on one.

``Executor`` is a ``concurrent.futures.Executor`` whose workers are the processes of rankpool's ranks;
``Pool`` has the surface of ``multiprocessing.Pool``. The same script runs

* as ``mpiexec -n 8 rankpool python script.py``, on the cores of all ranks, or
* as ``python script.py``: the first job starts ``rankpool serve`` with the cores of this machine.

The names are loaded when they are first used, so that ``import rankpool`` costs nothing.
"""

import os as _os

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._errors import InitializerFailed, JobTimeout, PayloadError, PoolEnded, WorkerDied
    from ._payload import RemoteError, RemoteTraceback
    from ._share import Shared, share
    from .executor import Executor
    from .maps import MapRun
    from .pool import Pool

if type(__spec__.loader).__name__ == "zipimporter":
    from ._importer import install as _install

    _install(__spec__.loader)
    del _install

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

__all__ = [
    "Executor",
    "InitializerFailed",
    "JobTimeout",
    "MapRun",
    "PayloadError",
    "Pool",
    "PoolEnded",
    "RemoteError",
    "RemoteTraceback",
    "Shared",
    "WorkerDied",
    "is_worker",
    "share",
]


def is_worker() -> bool:
    """Whether this process is a worker of rankpool, which runs jobs (it cannot use an executor)."""
    return _os.environ.get("RANKPOOL_WORKER") == "1"


def __getattr__(name: str):
    from importlib import import_module

    if name in ("compat", "joblib"):
        return import_module("rankpool." + name)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'rankpool' has no attribute {name!r}")
    value = getattr(import_module("rankpool." + home), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *_HOMES])
