"""Runs `mpi4py.bench` with rankpool's executor in the place of mpi4py's, below `rankpool python`."""

import sys

import mpi4py.futures
from mpi4py import bench

from rankpool.compat.mpi4py import MPIPoolExecutor

if __name__ == "__main__":
    mpi4py.futures.MPIPoolExecutor = MPIPoolExecutor
    bench.main(sys.argv[1:])
