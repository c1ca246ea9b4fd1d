"""`mpi4py.util.pool` as rankpool has it."""

from rankpool.compat import mpi4py as _compat


class Pool(_compat.Pool):
    pass


class ThreadPool:
    """rankpool has none: its tests are not run."""
