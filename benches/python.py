#!/usr/bin/env python3
"""Measures what a Python script gets from rankpool, beside the pools that it would otherwise use.

    cargo build --release && benches/python.py
    benches/python.py submit map            only the rows whose names contain one of these words
    benches/python.py --rounds 5            more rounds; the median of all is shown

The limits were set for two idle cores. In each round, every pool is measured once, one after another. It makes a virtual
environment in target/python. The program is $RANKPOOL_EXE, or target/release/rankpool. With $RANKPOOL_MPIEXEC (and
$RANKPOOL_MPIEXEC_FLAGS, $RANKPOOL_MPI_EXE if the program with MPI is another one), or if the program has MPI and an
`mpiexec` is in the PATH, it is also measured under the launcher, beside mpi4py.futures. Exit code 1: a limit was missed.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP / "tests/python"), str(TOP / "benches/peers")]

from environments import environment  # noqa: E402
from starting import Starter  # noqa: E402

SCRIPT = TOP / "benches/peers/python_pools.py"
PACKAGES = ["cloudpickle", "numpy", "mpi4py"]


class Bench(Starter):
    """Measures in processes of their own."""

    def __init__(self):
        super().__init__(environment("bench", PACKAGES) / "bin/python")

    def measure(self, pool, what, *numbers, launched=False, ranks=2, threads=1, options=()):
        """Runs one measurement and returns its figures; `since_start` is in them if it says when its result was there."""
        # mpi4py's first rank computes nothing.
        words = self.words(SCRIPT, pool, launched, ranks, threads, options) + [what, *map(str, numbers)]
        start = time.time()
        ended = subprocess.run(words, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        if ended.returncode != 0:
            raise RuntimeError(f"exit code {ended.returncode}: {shlex.join(words)}\n{ended.stderr[-2000:]}")
        figures = json.loads(ended.stdout.splitlines()[-1])
        if "at" in figures:
            figures["since_start"] = figures["at"] - start
        return figures

    def import_seconds(self, module):
        """The wall time of an interpreter that imports a module and ends."""
        start = time.perf_counter()
        subprocess.run([self.python, "-c", f"import {module}"], check=True, timeout=60)
        return time.perf_counter() - start

    def interpreter_memory(self, module):
        """The memory of one interpreter that has imported a module, in MiB."""
        code = (
            f"import sys, {module}; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
            "from python_pools import memory_of; print(memory_of('self')[1])"
        )
        return float(subprocess.run([self.python, "-c", code], check=True, capture_output=True, timeout=60).stdout)


def rounds(count, contenders):
    """Calls each of the functions in each round; returns for each name its figures."""
    seen = {name: [] for name in contenders}
    for _ in range(count):
        for name, measure in contenders.items():
            seen[name].append(measure())
    return seen


def medians_of(seen):
    """The median of the figures of each name."""
    return {name: statistics.median(values) for name, values in seen.items()}


class Table:
    """Rows as they are measured."""

    def __init__(self):
        self.missed = 0
        print(f"{'':66} {'asked':>10} {'measured':>10}")

    def row(self, name, asked, measured, unit, beside, more_is_better=False):
        good = measured >= asked if more_is_better else measured <= asked
        self.missed += not good
        print(f"{name:66} {asked:7.3g} {unit:2} {measured:7.3g} {unit:2} {'ok' if good else 'MISSED':6} {beside}", flush=True)


def beside(medians, unit, *without):
    return " · ".join(f"{name} {value:.3g} {unit}" for name, value in medians.items() if name not in without)


def contenders(bench, key, what, *numbers, peers=("futures", "pool", "mpi4py"), ours=()):
    """All pools that can be measured here, each with the figure `key` of the measurement."""

    def figure(pool, **how):
        return lambda: bench.measure(pool, what, *numbers, **how)[key]

    chosen = {"rankpool --local 2": figure("rankpool")}
    if bench.launcher:
        chosen["rankpool, mpiexec -n 2"] = figure("rankpool", launched=True)
    for peer in peers:
        if peer != "mpi4py" or bench.launcher:
            # Its first rank is no worker.
            chosen[peer] = figure(peer, launched=True, ranks=3)
    chosen.update(ours)
    return chosen


def ours(medians):
    return {name: value for name, value in medians.items() if name.startswith("rankpool")}


def submit(bench, table, count):
    medians = medians_of(rounds(count, contenders(bench, "us", "per_job_by_submit")))
    for name, value in ours(medians).items():
        table.row(f"submit, 20 000 jobs, per job ({name})", 20, value, "µs", beside(medians, "µs", name))


def chunks(bench, table, count):
    automatic = {"rankpool, automatic": lambda: bench.measure("rankpool", "per_job_by_map", 0)["us"]}
    medians = medians_of(rounds(count, contenders(bench, "us", "per_job_by_map", 64, ours=automatic)))
    for name, value in ours(medians).items():
        limit = 0.6 if "automatic" in name else 0.8
        what = "map, automatic chunks" if "automatic" in name else "map, chunks of 64"
        table.row(f"{what}, per job ({name})", limit, value, "µs", beside(medians, "µs", name))


def closure(bench, table, count):
    for as_array, what in ((1, "an array of 10 MB"), (0, "10 MB of bytes")):
        medians = medians_of(rounds(count, contenders(bench, "ratio", "captured", as_array)))
        for name, value in ours(medians).items():
            note = beside(medians, "×", name) + " (those: 50 jobs, as 1000)"
            table.row(f"closure with {what}, against 1 KB ({name})", 2, value, "×", note)


def efficiency(bench, table, count):
    medians = medians_of(rounds(count, contenders(bench, "efficiency", "efficiency")))
    for name, value in ours(medians).items():
        table.row(f"jobs of 100 µs by submit, efficiency ({name})", 0.85, value, "", beside(medians, "", name), True)


def slow(bench, table, count):
    """On one machine, from making the pool to its last result; under a launcher, from its start to there."""

    def alone(pool):
        return lambda: bench.measure(pool, "slow")["seconds"]

    def launched(pool, ranks):
        return lambda: bench.measure(pool, "slow", launched=True, ranks=ranks)["since_start"]

    chosen = {"rankpool --local 2": alone("rankpool"), "pool": alone("pool"), "futures": alone("futures")}
    if bench.launcher:
        chosen["rankpool, mpiexec -n 2"] = launched("rankpool", 2)
        chosen["mpi4py, mpiexec -n 3"] = launched("mpi4py", 3)
    seen = rounds(count, chosen)
    medians = medians_of(seen)
    pairs = [("rankpool --local 2", "pool", 1.02), ("rankpool, mpiexec -n 2", "mpi4py, mpiexec -n 3", 0.95)]
    for name, peer, limit in pairs:
        if name in medians and peer in medians:
            # The speed of a machine changes from round to round.
            value = statistics.median(mine / theirs for mine, theirs in zip(seen[name], seen[peer]))
            table.row(f"slow_fn, 512 jobs ({name}) against {peer}", limit, value, "×", beside(medians, "s"))


def array(bench, table, count):
    keys = ("ms", "copies_ms", "warm_copies_ms", "ratio")
    figures = {key: [] for key in keys}

    def keeping(**how):
        def measure():
            measured = bench.measure("rankpool", "array", **how)
            for key in keys:
                figures[key].append(measured[key])
            return measured["ms"]

        return measure

    chosen = contenders(bench, "ms", "array")
    chosen["rankpool --local 2"] = keeping()
    if bench.launcher:
        chosen["rankpool, mpiexec -n 2"] = keeping(launched=True)
    medians = medians_of(rounds(count, chosen))
    copies, warm = (statistics.median(figures[key]) for key in ("copies_ms", "warm_copies_ms"))
    for name, value in ours(medians).items():
        note = f"two copies {copies:.3g} ms (into memory that is there {warm:.3g} ms) · " + beside(medians, "ms")
        table.row(f"100 MB there and back, against two copies ({name})", 3, value / copies, "×", note)


def first(bench, table, count):
    def figure(pool):
        return lambda: bench.measure(pool, "first", launched=True)["since_start"]

    if not bench.launcher:
        print("first result after mpiexec: not measured, there is no launcher")
        return
    medians = medians_of(rounds(4 * count - 1, {"rankpool": figure("rankpool"), "mpi4py": figure("mpi4py")}))
    table.row("first result after mpiexec -n 2 starts", medians["mpi4py"], medians["rankpool"], "s", beside(medians, "s"))


def preload(bench, table, count):
    def figures():
        return bench.measure("rankpool", "preloaded", ranks=1, threads=64, options=("--preload", "numpy"))

    seen, imports = [], []
    for _ in range(count):
        imports.append(bench.import_seconds("numpy"))
        seen.append(figures())
    one, import_seconds = bench.interpreter_memory("numpy"), statistics.median(imports)
    median = {key: statistics.median(figures[key] for figures in seen) for key in seen[0]}
    note = (
        f"{median['ready']:.3g} s from making the executor, {median['since_start']:.3g} s from the start;"
        f" one import {import_seconds:.3g} s"
    )
    imports = median["since_start"] / import_seconds
    table.row("64 workers, --preload numpy: ready after the start, in imports", 1.5, imports, "×", note)
    note = f"{median['pss']:.3g} MiB PSS, {median['workers']:.0f} workers seen; one interpreter with numpy {one:.3g} MiB"
    table.row("64 workers, --preload numpy: own memory (USS) of each", 8, median["uss"], "MB", note)


ROWS = (submit, chunks, closure, efficiency, slow, array, first, preload)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(row.__name__ for row in ROWS)}")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    bench = Bench()
    table = Table()
    for row in ROWS:
        if options.names and not any(name in row.__name__ for name in options.names):
            continue
        try:
            row(bench, table, options.rounds)
        except (RuntimeError, subprocess.SubprocessError, ValueError, KeyError, IndexError) as error:
            table.missed += 1
            print(f"{row.__name__}: not measured: {error}", flush=True)
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
