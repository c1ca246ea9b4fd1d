"""Functions run on every core of every node, as ``concurrent.futures`` and ``multiprocessing`` run them on one.

``Executor`` is a ``concurrent.futures.Executor`` whose workers are the processes of rankpool's ranks;
``Pool`` has the surface of ``multiprocessing.Pool``. The same script runs

* as ``mpiexec -n 8 rankpool python script.py``, on the cores of all ranks, or
* as ``python script.py``: the first job starts ``rankpool serve`` with the cores of this machine.

The names are loaded when they are first used, so that ``import rankpool`` costs nothing.
"""

import os as _os
import sys as _sys

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._errors import InitializerFailed, JobTimeout, PayloadError, PoolEnded, WorkerDied
    from ._payload import RemoteError, RemoteTraceback
    from ._share import Shared, share
    from .executor import Executor
    from .maps import MapRun
    from .pool import Pool


def _import_fast():
    """Import the package's modules from the zip file of the program in less time than Python takes for it by itself.

    Python compiles each of them twice. The zip file has their code, if the build has found this version of Python.
    """
    loader = __spec__.loader
    kind = type(loader)
    if kind.__name__ != "zipimporter" or not hasattr(kind, "exec_module"):
        return
    from _frozen_importlib_external import MAGIC_NUMBER

    archive = loader.archive
    try:
        from marshal import loads

        codes = loads(loader.get_data(f"{archive}/compiled/{MAGIC_NUMBER.hex()}"))
    except (OSError, ValueError):
        codes = {}

    class Importer(kind):
        def get_filename(self, fullname):
            end = "/__init__.py" if self.is_package(fullname) else ".py"
            return f"{archive}/{fullname.replace('.', '/')}{end}"

        def get_code(self, fullname):
            code = codes.get(fullname)
            return super().get_code(fullname) if code is None else loads(code)

    for name in ("rankpool", "rankpool/compat"):
        path = f"{archive}/{name}"
        _sys.path_importer_cache[path] = Importer(path)


_import_fast()

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
