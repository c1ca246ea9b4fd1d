"""Private names of mpi4py at which the tests look."""

from rankpool import RemoteTraceback  # noqa: F401

SharedPool = None
