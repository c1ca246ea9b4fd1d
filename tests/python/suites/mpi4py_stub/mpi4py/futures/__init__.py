"""`mpi4py.futures` as rankpool has it."""

from concurrent.futures import ThreadPoolExecutor  # noqa: F401  (the tests that use it are not run)

from rankpool.compat.mpi4py import *  # noqa: F401, F403

from . import _core  # noqa: F401
