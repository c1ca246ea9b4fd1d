"""The tutorials' slow function, and 512 inputs for it. A program that is started with a way to map prints its seconds."""

import random
import sys
import time


def slow_fn(p, n=10_000):
    y = 0.0
    for j in range(n):
        x = j / n
        for i, p_i in enumerate(p):
            y += x * p_i ** (i + 1)
    return y / n


def ident(x):
    return x


def idents(xs):
    return xs


def inputs(jobs):
    generator = random.Random(1)
    return [[generator.random() for _ in range(5)] for _ in range(jobs)]


def timed(function, xs, make, chunk):
    """Seconds from making the pool to its last result."""
    start = time.perf_counter()
    with make() as pool:
        results = list(pool.map(function, xs, chunksize=chunk) if chunk else pool.map(function, xs))
    assert len(results) == len(xs)
    return time.perf_counter() - start


def main():
    way, what, jobs, chunk = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if way == "pool":
        from multiprocessing import Pool

        def make():
            return Pool(2)
    else:
        from mpi4py.futures import MPIPoolExecutor

        make = MPIPoolExecutor
    function, xs = (slow_fn, inputs(jobs)) if what == "slow_fn" else (ident, list(range(jobs)))
    print(timed(function, xs, make, chunk))


if __name__ == "__main__":
    main()
