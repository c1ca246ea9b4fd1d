"""slow_fn with multiprocessing's names.  python slow_fn_pool.py, or mpiexec -n 8 rankpool python slow_fn_pool.py"""

import random
import sys

from rankpool import Pool

STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000


def slow_fn(p1, p2, p3, p4, p5):
    y = 0.0
    for j in range(STEPS):
        x = j / STEPS
        for i, p_i in enumerate((p1, p2, p3, p4, p5)):
            y += x * p_i ** (i + 1)
    return y / STEPS


if __name__ == "__main__":
    random.seed(1)
    jobs = [[random.random() for _ in range(5)] for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 512)]
    with Pool() as pool:
        results = pool.starmap(slow_fn, jobs, chunksize=8)
    print(len(results), "results, sum", repr(sum(results)))
