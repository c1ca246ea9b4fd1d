"""The tutorials' slow function, the inputs for it, and a check: what the programs `slow_fn_*.py` have in common.

`python slow_fn.py` computes the same results one after another.
"""

import argparse
import random


def slow_fn(p, n=10_000):
    """Returns (1/n) Σ_j (j/n) Σ_i p_i^(i+1): arithmetic of the interpreter only."""
    y = 0.0
    for j in range(n):
        x = j / n
        for i, p_i in enumerate(p):
            y += x * p_i ** (i + 1)
    return y / n


def small_fn(p):
    """The same with 100 instead of 10 000 steps, for tests."""
    return slow_fn(p, 100)


def arguments():
    """Returns the function that the command line asks for, and its inputs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=512)
    parser.add_argument("--small", action="store_true", help="compute 100 instead of 10 000 steps in each job")
    options = parser.parse_args()
    generator = random.Random(1)
    jobs = [[generator.random() for _ in range(5)] for _ in range(options.jobs)]
    return (small_fn if options.small else slow_fn), jobs


def report(results):
    """Prints what two programs with the same results have in common, to the last digit."""
    results = list(results)
    print(f"{len(results)} results, the first {results[0]!r}, the last {results[-1]!r}, sum {sum(results)!r}")


if __name__ == "__main__":
    function, jobs = arguments()
    report(map(function, jobs))
