"""The names of other pools on rankpool's workers: of a script that uses one of them only the import line changes.

| instead of | write |
|---|---|
| `from mpi4py.futures import MPIPoolExecutor` | `from rankpool.compat.mpi4py import MPIPoolExecutor` |
| `from loky import get_reusable_executor` | `from rankpool.compat.loky import get_reusable_executor` |
| `from pathos.multiprocessing import ProcessPool` | `from rankpool.compat.pathos import ProcessPool` |
| `from p_tqdm import p_map` | `from rankpool.compat.p_tqdm import p_map` |
| `from dask.distributed import Client` | `from rankpool.compat.dask import Client` |
| `import ray` | `import rankpool.compat.ray as ray` |
| `from tqdm.contrib.concurrent import process_map` | `from rankpool.compat.tqdm import process_map` |

They are thin: what each does not do is in `docs/python-compat.md`.
"""

_MODULES = ("dask", "loky", "mpi4py", "p_tqdm", "pathos", "ray", "tqdm")


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module 'rankpool.compat' has no attribute {name!r}")
    from importlib import import_module

    return import_module("rankpool.compat." + name)
