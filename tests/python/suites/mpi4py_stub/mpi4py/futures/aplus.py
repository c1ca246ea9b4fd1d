"""A helper of mpi4py that rankpool does not have: its tests are not run."""


class ThenableFuture:
    pass
