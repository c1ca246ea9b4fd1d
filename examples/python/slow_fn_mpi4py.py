"""slow_fn as written for mpi4py.futures: from mpi4py.futures import MPIPoolExecutor"""

from slow_fn import arguments, report

from rankpool.compat.mpi4py import MPIPoolExecutor

if __name__ == "__main__":
    function, jobs = arguments()
    with MPIPoolExecutor() as executor:
        report(executor.map(function, jobs, chunksize=4))
