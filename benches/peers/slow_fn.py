"""The functions of jobs, among them the tutorials' slow ones, and inputs for these.

As a script it maps in the way that is named, and prints its seconds.
"""

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


def slow_fn_malloc(p, n=100_000):
    """The same with arrays: every operation allocates a new one."""
    import numpy as np

    x, y = np.linspace(0, 1, n), np.zeros(n)
    for i, p_i in enumerate(p):
        y = y + x * p_i ** (i + 1)
    return float(np.sum(y) / n)


def parzen(samples, point, width):
    """The density of samples at a point, by counting those in a square of this width around it."""
    count = 0
    for sample in samples:
        for x, c in zip(sample, point):
            if abs((x - c) / width) > 0.5:
                break
        else:
            count += 1
    return count / (len(samples) * width ** len(point))


def samples(count=10_000):
    """Random points of a plane, each coordinate normally distributed."""
    generator = random.Random(1)
    return [(generator.gauss(0, 1), generator.gauss(0, 1)) for _ in range(count)]


def widths(count=100):
    return [0.1 + 1.1 * k / max(1, count - 1) for k in range(count)]


def spin(seconds):
    """Computes for this number of seconds of CPU time, and returns how long it was."""
    start = now = time.thread_time()
    end = start + seconds
    while now < end:
        now = time.thread_time()
    return now - start


def small_value(_):
    return b"ok"


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
