"""Measures one pool: figures.py POOL JSON, where JSON is a list of [what, options…]. Prints a JSON object for each, as it is done.

The pool is started once. POOL is a name of fronts.py, `what` is one of the functions below. compare.py starts this.
"""

import functools
import hashlib
import json
import struct
import sys
import time

from fronts import WORKERS, front
from slow_fn import ident, parzen, samples, slow_fn, slow_fn_malloc, small_value, spin, widths
from slow_fn import inputs as vectors

# The least number of jobs of a measurement, and the most.
LEAST, MOST = 4 * WORKERS, 400_000
# The same for jobs that do nothing: less would measure the start of a call.
LEAST_OF_NOTHING = 1000


def digest(values):
    """The same for the same numbers, to nine digits."""
    rounded = b"".join(struct.pack("<d", float(f"{value:.9g}")) for value in values)
    return hashlib.sha256(rounded).hexdigest()[:16]


def timed(call, function, xs, *options):
    start = time.perf_counter()
    values = call(function, xs, *options)
    return time.perf_counter() - start, values


def per_job(call, each, *options, least=LEAST_OF_NOTHING):
    """The wall time of a job that does nothing, in microseconds, from about this number of seconds of them; and whether all were right."""
    jobs, seconds, agree = min(200, least), 0.0, True
    while True:
        xs = list(range(jobs))
        seconds, values = timed(call, ident, xs, *options)
        agree = agree and values == xs
        if (seconds >= each / 2 and jobs >= least) or jobs >= MOST:
            return {"us": seconds / jobs * 1e6, "agree": agree}
        jobs = min(MOST, max(least, int(jobs * min(50, max(2, each / max(seconds, 1e-6))))))


def overhead(pool, each):
    """A job that does nothing, by itself, in chunks of 64, and in the pool's own chunks."""
    found = {"one": per_job(pool.one_by_one, each), "64": per_job(pool.chunked, each, 64), "auto": per_job(pool.chunked, each)}
    return {"agree": all(value["agree"] for value in found.values()), **{key: value["us"] for key, value in found.items()}}


def efficiency(call, length, cost, each):
    """The mean length of the jobs, and the share of both workers' time that was spent in them."""
    jobs = min(MOST, max(LEAST, int(each / max(length / WORKERS, cost))))
    seconds, values = timed(call, spin, [length] * jobs)
    return [sum(values) / jobs, sum(values) / (WORKERS * seconds)]


def curve(pool, each, lengths):
    """The efficiency for each length of job, one by one and in chunks."""
    found = {}
    for key, call in (("one", pool.one_by_one), ("auto", pool.chunked)):
        cost = per_job(call, each / 4, least=100)["us"] / 1e6
        found[key] = [efficiency(call, length, cost, each) for length in lengths]
    return {"agree": True, **found}


def work(call, function, xs, *options):
    seconds, values = timed(call, function, xs, *options)
    return {"seconds": seconds, "digest": digest(values)}


def slow(pool, jobs):
    return work(pool.chunked, slow_fn, vectors(jobs))


def malloc(pool, jobs):
    # The workers have imported numpy.
    pool.one_by_one(slow_fn_malloc, vectors(2 * LEAST))
    return work(pool.chunked, slow_fn_malloc, vectors(jobs))


def density(pool, count, points):
    """As in the tutorial, each job is sent by itself, with all samples."""
    return work(pool.one_by_one, functools.partial(parzen, samples(points), (0.0, 0.0)), widths(count))


def tasks(pool, each):
    """What Ray measures itself as "single client tasks": calls that return a constant, waited for one at a time, or a thousand of them
    together; in calls per second."""

    def rate(count, call):
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < each:
            call()
            done += count
        return done / (time.perf_counter() - start)

    def alone():
        pool.result(pool.submit(small_value, 0))

    def together():
        pool.one_by_one(small_value, [0] * 1000)

    together()
    return {"agree": True, "sync": rate(1, alone), "async": rate(1000, together)}


def main():
    name, wanted = sys.argv[1], json.loads(sys.argv[2])
    start = time.perf_counter()
    pool = front(name)
    try:
        # All workers are there and have answered.
        for _ in range(2):
            values = pool.one_by_one(ident, list(range(200)))
        print(json.dumps({"what": "start", "seconds": time.perf_counter() - start, "agree": values == list(range(200))}), flush=True)
        for what, *options in wanted:
            print(json.dumps({"what": what, **globals()[what](pool, *options)}), flush=True)
    finally:
        pool.close()


if __name__ == "__main__":
    main()
