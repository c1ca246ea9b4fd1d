"""One measurement with one pool of two workers: python_pools.py POOL WHAT. Prints one JSON object.

POOL is futures, pool, mpi4py or rankpool. WHAT is one of the functions below. benches/python.py starts it.
"""

import functools
import json
import math
import os
import statistics
import sys
import tempfile
import time

from fronts import front
from slow_fn import inputs, slow_fn

SPIN = 100e-6


def nop(x):
    return x


def pick(data, x):
    return data[x]


def capture(data):
    return lambda x: data[x]


def spin(_):
    """Computes for 100 µs of CPU time, and returns how long it was."""
    start = now = time.thread_time()
    while now - start < SPIN:
        now = time.thread_time()
    return now - start


def same(array):
    return array


def hold(path):
    """Occupies one worker until the file is removed."""
    with open(path + ".held", "w") as file:
        file.write(rank())
    end = time.monotonic() + 60
    while os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.01)


def rank():
    return os.environ.get("RANKPOOL_RANK", "")


def where(seconds):
    time.sleep(seconds)
    return os.getpid()


def make(pool):
    """Returns the executor of this name, and a function that submits a job to it and returns its future."""
    started = front(pool)
    return getattr(started, "executor", None) or started.pool, started.submit


def result(future):
    return future.get() if hasattr(future, "get") else future.result()


def warm(submit):
    """Both workers are there and have answered."""
    for future in [submit(nop, x) for x in range(200)]:
        result(future)


def per_job_by_submit(pool, jobs=20_000):
    executor, submit = make(pool)
    with executor:
        warm(submit)
        start = time.perf_counter()
        for future in [submit(nop, x) for x in range(jobs)]:
            result(future)
        return {"us": (time.perf_counter() - start) / jobs * 1e6}


def per_job_by_map(pool, chunk=64, jobs=200_000):
    executor, submit = make(pool)
    with executor:
        warm(submit)
        options = {"chunksize": chunk} if chunk else {}
        start = time.perf_counter()
        count = sum(1 for _ in executor.map(nop, range(jobs), **options))
        seconds = time.perf_counter() - start
    assert count == jobs
    return {"us": seconds / jobs * 1e6}


def captured(pool, as_array=1, jobs=1000, pairs=7):
    """Seconds for jobs of a function that captures 10 MB (an array, or `bytes`), and for those of the same with 1 KB.

    The medians of several pairs, each with new random data. The first pair is not counted: both workers import numpy.
    """
    import numpy as np

    executor, submit = make(pool)
    with executor:
        warm(submit)
        seconds = {1000: [], 10_000_000: []}
        for _ in range(1 + pairs):
            for size, times in seconds.items():
                data = np.frombuffer(os.urandom(size), np.uint8) if as_array else os.urandom(size)
                # The peers cannot send closures: `partial` holds the data for them.
                function = capture(data) if pool == "rankpool" else functools.partial(pick, data)
                count = jobs if pool == "rankpool" or size == 1000 else jobs // 20
                start = time.perf_counter()
                for future in [submit(function, x) for x in range(count)]:
                    result(future)
                times.append((time.perf_counter() - start) * jobs / count)
    without, with_it = (statistics.median(times[1:]) for times in seconds.values())
    return {"without": without, "with": with_it, "ratio": with_it / without}


def efficiency(pool, jobs=20_000):
    executor, submit = make(pool)
    with executor:
        warm(submit)
        start = time.perf_counter()
        useful = sum(map(result, [submit(spin, x) for x in range(jobs)]))
        return {"efficiency": useful / (2 * (time.perf_counter() - start))}


def slow(pool, jobs=512):
    vectors = inputs(jobs)
    start = time.perf_counter()
    executor, _ = make(pool)
    with executor:
        results = list(executor.map(slow_fn, vectors))
        seconds = time.perf_counter() - start
    assert len(results) == jobs and all(map(math.isfinite, results))
    return {"seconds": seconds, "at": time.time()}


def array(pool):
    """The median of round trips of 100 MB to each rank; of two copies as `copy()` makes them, and of two into memory that
    is there already."""
    import numpy as np

    values, there = np.ones(12_500_000), np.ones(12_500_000)
    warm_copies = []
    copies, trips = [], {}
    executor, submit = make(pool)
    with executor:
        warm(submit)
        folder = tempfile.mkdtemp()
        for attempt in range(4):
            path = os.path.join(folder, str(attempt))
            open(path, "w").close()
            # The other worker is the only one that is free.
            held = submit(hold, path) if pool == "rankpool" else None
            while held and not os.path.exists(path + ".held"):
                time.sleep(0.001)
            for _ in range(3):
                start = time.perf_counter()
                values.copy().copy()
                copies.append(time.perf_counter() - start)
                start = time.perf_counter()
                np.copyto(there, values)
                np.copyto(there, values)
                warm_copies.append(time.perf_counter() - start)
                start = time.perf_counter()
                back = result(submit(same, values))
                trips.setdefault(open(path + ".held").read() if held else "", []).append(time.perf_counter() - start)
                assert back[-1] == 1.0 and back.nbytes == 100_000_000
                del back
            os.remove(path)
            if held:
                result(held)
    medians = {key: sorted(times)[len(times) // 2] for key, times in trips.items()}
    two_copies, two_warm = (sorted(times)[len(times) // 2] for times in (copies, warm_copies))
    slowest = max(medians.values())
    return {
        "copies_ms": two_copies * 1e3, "warm_copies_ms": two_warm * 1e3, "ms": slowest * 1e3,
        "ratio": slowest / two_copies, "by_held_rank": medians,
    }


def first(pool):
    """The time at which the first result is there; the caller knows when it has started this."""
    executor, submit = make(pool)
    with executor:
        result(submit(nop, 1))
        return {"at": time.time()}


def memory_of(process):
    """The proportional and the own memory of a process, in MiB."""
    fields = {}
    with open(f"/proc/{process}/smaps_rollup") as file:
        for line in file:
            words = line.split()
            if len(words) == 3 and words[2] == "kB":
                fields[words[0]] = int(words[1]) / 1024
    return fields["Pss:"], fields["Private_Clean:"] + fields["Private_Dirty:"]


def preloaded(pool, workers=64):
    """Seconds until all workers are ready from when the executor is made, and the memory of each."""
    from rankpool import Executor

    start = time.perf_counter()
    with Executor() as executor:
        executor.bootup(wait=True)
        ready = time.perf_counter() - start
        at = time.time()
        processes = set()
        for _ in range(10):
            processes |= {future.result() for future in [executor.submit(where, 0.05) for _ in range(workers)]}
            if len(processes) == workers:
                break
        memory = [memory_of(process) for process in processes]
    return {"ready": ready, "at": at, "workers": len(processes), "pss": sum(pss for pss, _ in memory) / len(memory),
            "uss": sum(uss for _, uss in memory) / len(memory)}


if __name__ == "__main__":
    pool, what, *numbers = sys.argv[1:]
    print(json.dumps(globals()[what](pool, *map(int, numbers))))
