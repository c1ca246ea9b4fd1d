"""slow_fn as written for mpi4py's MPICommExecutor: with it, the program itself is the same on all ranks."""

from slow_fn import arguments, report

from rankpool.compat.mpi4py import MPICommExecutor

if __name__ == "__main__":
    function, jobs = arguments()
    with MPICommExecutor() as executor:
        if executor is not None:
            report(executor.map(function, jobs))
