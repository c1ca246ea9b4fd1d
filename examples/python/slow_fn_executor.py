"""slow_fn with an executor.  python slow_fn_executor.py, or mpiexec -n 8 rankpool python slow_fn_executor.py"""

import random
import sys

from rankpool import Executor

STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000


def slow_fn(p):
    y = 0.0
    for j in range(STEPS):
        x = j / STEPS
        for i, p_i in enumerate(p):
            y += x * p_i ** (i + 1)
    return y / STEPS


if __name__ == "__main__":
    random.seed(1)
    jobs = [[random.random() for _ in range(5)] for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 512)]
    with Executor() as executor:
        results = list(executor.map(slow_fn, jobs))
        futures = [executor.submit(slow_fn, job) for job in jobs[:10]]
        first = [future.result() for future in futures]
    assert first == results[:10]
    print(len(results), "results, sum", repr(sum(results)))
