"""Writes docs/speed.md and its pictures from the figures of compare.py: page.py speed.json FOLDER."""

import json
import math
import statistics
import sys
from pathlib import Path

import pictures
from pictures import seconds

# The contenders as the page names them.
LABELS = {
    "rankpool": "rankpool, script", "rankpool+mpi": "rankpool, script, mpiexec", "bench": "rankpool in Rust",
    "bench+mpi": "rankpool in Rust, mpiexec", "map": "rankpool map", "map+mpi": "rankpool map, mpiexec",
    "kernel": "rankpool kernel", "kernel+mpi": "rankpool kernel, mpiexec", "run": "rankpool run",
    "run+mpi": "rankpool run, mpiexec", "futures": "concurrent.futures", "pool": "multiprocessing.Pool", "loky": "loky",
    "mpi4py": "mpi4py.futures", "pathos": "pathos", "p_tqdm": "p_tqdm", "joblib": "joblib", "dask": "Dask", "ray": "Ray",
    "xargs": "xargs -P2", "parallel": "GNU parallel", "hyperqueue": "HyperQueue", "serial": "one process, no pool",
}
FRONTS = ["futures", "pool", "loky", "mpi4py", "pathos", "p_tqdm", "joblib", "dask", "ray"]
SCRIPTS = ["rankpool", "rankpool+mpi", *FRONTS]
COMMANDS = ["run", "run+mpi", "xargs", "parallel", "hyperqueue"]
WORKS = {"slow": "slow_fn", "malloc": "slow_fn_malloc", "density": "Parzen"}


def metg(points, share):
    """The shortest job for which a share of the time is useful, as src/bench/curve.rs has it; with `<` or `>` in front if the share is
    reached by all or by none."""
    ordered = sorted(points, reverse=True)
    longer = ordered[0]
    if longer[1] < share:
        return ">", longer[0]
    for point in ordered[1:]:
        if point[1] < share:
            part = (share - point[1]) / (longer[1] - point[1])
            return "", point[0] * (longer[0] / point[0]) ** part
        longer = point
    return "<", longer[0]


class Figures:
    """The medians of the rounds."""

    def __init__(self, data):
        self.data, self.figures = data, data["figures"]
        self.spreads = []

    def has(self, name, what):
        return bool(self.figures.get(name, {}).get(what))

    def value(self, name, what, key):
        if not self.has(name, what) or key not in self.figures[name][what][0]:
            return None
        values = [values[key] for values in self.figures[name][what]]
        middle = statistics.median(values)
        if len(values) > 1 and middle:
            self.spreads.append((max(values) - min(values)) / middle)
        return middle

    def points(self, name, what, key):
        """The median point for each length."""
        if not self.has(name, what):
            return None
        rounds = [values[key] for values in self.figures[name][what]]
        return [[statistics.median(part) for part in zip(*same)] for same in zip(*rounds)]


def micros(value):
    return "–" if value is None else seconds(value * 1e-6)


def time_of(value):
    return "–" if value is None else seconds(value)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def picture(name, words):
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{name}-dark.svg">'
        f'<img alt="{words}" src="{name}-light.svg"></picture>\n'
    )


class Page:
    """The parts of the page, in its order."""

    def __init__(self, data, folder):
        self.figures, self.data, self.folder = Figures(data), data, folder
        machine = data["machine"]
        self.machine = (
            f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['memory']}, {machine['system']}, Python {machine['python']}"
            + (f", {machine['mpi']}" if machine["mpi"] else "") + f"; {data['date']}"
        )
        self.behind = []

    def compare(self, what, ours, theirs, shown):
        """Notes each contender that is ahead of rankpool. `ours`: a label and a value, or None; less is better."""
        for label, value in theirs:
            if value is not None and ours[1] is not None and value < ours[1]:
                self.behind.append(f"{what}: {label} {shown(value)}, {ours[0]} {shown(ours[1])}.")

    def of(self, names, what, key):
        values = ((name, self.figures.value(name, what, key)) for name in names)
        return [(LABELS[name], value) for name, value in values if value is not None]

    def overhead(self):
        names = [*SCRIPTS, "map", "map+mpi", "bench", "bench+mpi"]
        names = [name for name in names if self.figures.has(name, "overhead")]
        if not names:
            return ""
        one, auto = self.of(names, "overhead", "one"), self.of(names, "overhead", "auto")
        panels = [("sent one by one", micros, True, None, one), ("in chunks", micros, True, None, auto)]
        title = "The time of a job that does nothing"
        described = "; ".join(f"{label}: {micros(value)} one by one" for label, value in one)
        pictures.bars(self.folder, "speed-overhead", panels, title, described, self.machine)
        rows = []
        for name in sorted(names, key=lambda name: self.figures.value(name, "overhead", "one")):
            rows.append([LABELS[name], *(micros(self.figures.value(name, "overhead", key)) for key in ("one", "64", "auto"))])
        for key, words in (("one", "A job that does nothing, one by one"), ("64", "The same in chunks of 64"), ("auto", "The same in the pool's own chunks")):
            self.compare(words, ("rankpool", self.figures.value("rankpool", "overhead", key)), self.of(FRONTS, "overhead", key), micros)
        return (
            "## What a job costs\n\n"
            + picture("speed-overhead", title)
            + "\nThe wall time for each job of a function that returns its argument, two workers together.\n\n"
            + table(["", "one by one", "chunks of 64", "own chunks"], rows)
            + "\n*One by one*: `submit` for each job, then all results (`apply_async`, `apipe`, `batch_size=1`, a task for each job). *Own "
            "chunks*: the size that the pool takes by itself (rankpool, joblib), else four chunks for each worker, as `multiprocessing.Pool` "
            "makes them. That is the least a pool can cost here, since it is told before that all jobs are equally long; rankpool measures how "
            "long they are. Dask, Ray and p_tqdm have no chunks: a job of theirs calls the function for each item of a list. \"rankpool in "
            "Rust\" is the library, \"rankpool map\" the program with a Python function; both compute in no script.\n"
        )

    def efficiency(self):
        names = [name for name in [*SCRIPTS, "bench", "bench+mpi"] if self.figures.has(name, "curve")]
        if not names:
            return ""
        curves = {key: {name: self.figures.points(name, "curve", key) for name in names} for key in ("one", "auto")}
        drawn = {name: LABELS[name] for name in names if name != "bench" or "bench+mpi" not in names}
        panels = [
            (heading, {name: curves[key][name] for name in drawn})
            for key, heading in (("one", "sent one by one"), ("auto", "in chunks"))
        ]
        title = "Efficiency of two workers for each length of job"

        def reach(points, share):
            sign, length = metg(points, share)
            return f"{sign} {seconds(length)}".strip()

        order = sorted(names, key=lambda name: metg(curves["one"][name], 0.5)[1])
        rows = [
            [LABELS[name], *(reach(curves[key][name], share) for key in ("one", "auto") for share in (0.5, 0.9))] for name in order
        ]
        described = "; ".join(f"{row[0]}: METG(50 %) {row[1]} one by one, {row[3]} in chunks" for row in rows)
        pictures.curves(self.folder, "speed-efficiency", panels, drawn, title, described, self.machine)
        for key, words in (("one", "one by one"), ("auto", "in chunks")):
            for share in (0.5, 0.9):
                lengths = {name: metg(curves[key][name], share) for name in names}
                theirs = [
                    (LABELS[name], lengths[name][1]) for name in FRONTS
                    if name in lengths and not (lengths[name][0] == "<" and lengths.get("rankpool", ("",))[0] == "<")
                ]
                ours = ("rankpool", lengths["rankpool"][1] if "rankpool" in lengths else None)
                self.compare(f"METG({100 * share:.0f} %) {words}", ours, theirs, seconds)
        return (
            "## Which jobs are too short\n\n"
            + picture("speed-efficiency", title)
            + "\nThe share of both workers' time that is spent in the function of the jobs; the rest is what the pool needs. METG(50 %) is the shortest "
            "job with which half of the time is useful, METG(90 %) that for nine tenths ([Task Bench](https://arxiv.org/abs/1908.05790)'s measure). "
            "Shorter is better.\n\n"
            + table(["", "one by one: METG(50 %)", "METG(90 %)", "in chunks: METG(50 %)", "METG(90 %)"], rows)
            + "\n`<` and `>`: all lengths that were measured reach the share, or none does. The jobs of Python pools compute for a given CPU time and "
            "return how much it was; those of \"rankpool in Rust\" run for a given wall time (`rankpool bench`).\n"
        )

    def fronts(self):
        rows = []
        for front in FRONTS:
            ours = next((name for name in (f"rankpool.{front}+mpi", f"rankpool.{front}") if self.figures.has(name, "overhead")), None)
            if not ours or not self.figures.has(front, "overhead"):
                continue
            cells = [LABELS[front]]
            for what, key, shown in (("overhead", "one", micros), ("overhead", "auto", micros), ("slow", "seconds", time_of)):
                theirs, mine = self.figures.value(front, what, key), self.figures.value(ours, what, key)
                cells += [shown(theirs), shown(mine)]
                words = {"one": "one by one", "auto": "own chunks", "seconds": "slow_fn"}[key]
                if ours != "rankpool.futures":
                    self.compare(f"A script of {LABELS[front]}, {words}", ("with rankpool's import", mine), [("itself", theirs)], shown)
            rows.append(cells)
        if not rows:
            return ""
        size = self.data["sizes"]["vectors"]
        return (
            "## The same script, with another import line\n\n"
            "Each row is one script that runs twice: with the pool that it was written for, and with rankpool's import for the same name "
            "([python-compat.md](python-compat.md)) below `rankpool --local 2 python`. mpi4py.futures runs on three ranks, of which the first only "
            "deals, rankpool there on two.\n\n"
            + table(["written for", "a job, one by one", "with rankpool", "in chunks", "with rankpool", f"slow_fn × {size}", "with rankpool"], rows)
        )

    def tutorials(self):
        names = [name for name in ["serial", *SCRIPTS, "map", "map+mpi", "kernel", "kernel+mpi"] if self.figures.has(name, "slow")]
        if "serial" not in names:
            return ""
        serial = {what: self.figures.value("serial", what, "seconds") for what in WORKS}
        rows, panels = [], []
        for name in names:
            cells = [LABELS[name]]
            for what in WORKS:
                value = self.figures.value(name, what, "seconds")
                cells += [time_of(value), "–" if value is None else f"{serial[what] / value:.2f}"]
            rows.append(cells)
        for what, words in WORKS.items():
            python = self.of([name for name in names if not name.startswith("kernel")], what, "seconds")
            if python:
                panels.append((f"{words}: time and speed-up", lambda value, what=what: f"{seconds(value)}  {serial[what] / value:.2f}×", False, serial[what], python))
            theirs = [row for row in self.of(FRONTS, what, "seconds")]
            ours = self.of(["rankpool"], what, "seconds")
            if ours:
                self.compare(words, ("rankpool", ours[0][1]), theirs, seconds)
        title = "The tutorials' functions on two workers"
        described = "; ".join(f"{label}: slow_fn {seconds(value)}" for label, value in self.of(names, "slow", "seconds"))
        pictures.bars(self.folder, "speed-tutorials", panels, title, described, self.machine)
        sizes = self.data["sizes"]
        head = ["", "slow_fn", "speed-up", "slow_fn_malloc", "speed-up", "Parzen", "speed-up"]
        return (
            "## The functions of the tutorials\n\n"
            + picture("speed-tutorials", title)
            + f"\n{sizes['vectors']} calls of `slow_fn` (arithmetic in a loop) and of `slow_fn_malloc` (the same with numpy, bound by memory); Parzen: the "
            f"density at a point from {sizes['samples']} samples for {sizes['widths']} window widths, each job sent with all samples, as in the tutorial. "
            "The speed-up is against one process without a pool (dashed). The pools are started before the clock; `map` and `kernel` "
            "from the first dispatch on, so `map` includes the start of its interpreters. `kernel` computes the same functions in Rust.\n\n"
            + table(head, rows)
        )

    def commands(self):
        names = [name for name in COMMANDS if self.figures.has(name, "true")]
        if not names:
            return ""
        times = self.of(names, "true", "us")
        jobs = self.data["sizes"]["commands"]
        curves = {name: self.figures.points(name, "commands", "one") for name in names}
        curves = {name: points for name, points in curves.items() if points}
        title = "Efficiency of two slots for each length of command"
        rows = []
        for name in names:
            value = self.figures.value(name, "true", "us")
            cells = [LABELS[name], f"{jobs * value * 1e-6:.2f} s", f"{1e6 / value:.0f}"]
            for share in (0.5, 0.9):
                sign, length = metg(curves[name], share) if name in curves else ("", math.nan)
                cells.append("–" if math.isnan(length) else f"{sign} {seconds(length)}".strip())
            rows.append(cells)
        if curves:
            described = "; ".join(f"{row[0]}: {row[2]} commands per second" for row in rows)
            panels = [("commands that compute", curves)]
            pictures.curves(self.folder, "speed-commands", panels, {name: LABELS[name] for name in curves}, title, described, self.machine)
        ours = [row for row in times if row[0] == LABELS["run"]]
        if ours:
            self.compare("/bin/true", ("rankpool run", ours[0][1]), [row for row in times if not row[0].startswith("rankpool")], micros)
        return (
            "## Commands\n\n"
            + (picture("speed-commands", title) if curves else "")
            + f"\n{jobs} × `/bin/true`, and commands that compute for a given CPU time (the starting of the process is not useful time). "
            "rankpool writes its job log (`--records`), GNU parallel keeps the output of each job together, xargs does neither. From the start of the "
            "program to its end, with `mpiexec` in it; HyperQueue's server and worker run before, and its jobs have no output files.\n\n"
            + table(["", f"{jobs} × /bin/true", "commands per second", "METG(50 %)", "METG(90 %)"], rows)
        )

    def own(self):
        rows = []

        def row(what, name, theirs, mine):
            if theirs is not None and mine is not None:
                rows.append([what, f"{name} {theirs:,.0f}".replace(",", " "), f"{mine:,.0f}".replace(",", " "), f"{mine / theirs:.1f}×"])
                if mine < theirs:
                    self.behind.append(f"{what}: {name} {theirs:.0f} per second, rankpool {mine:.0f}.")

        for size, words in (("1", "1 byte"), ("65536", "64 KiB")):
            row(f"`python -m mpi4py.bench futures`, {words}: tasks per second", "mpi4py", self.figures.value("mpi4py.bench", "mpi4py.bench", size),
                self.figures.value("mpi4py.bench rankpool", "mpi4py.bench", size))
        for key, words in (("sync", "waited for one by one"), ("async", "1000 at a time")):
            row(f"Ray's `single client tasks {key}` ({words}): tasks per second", "Ray", self.figures.value("ray", "tasks", key),
                self.figures.value("rankpool.ray", "tasks", key))
        theirs, mine = (self.figures.value(name, "true", "us") for name in ("hyperqueue", "run"))
        row("HyperQueue's null tasks (`/bin/true`, one submission): tasks per second", "HyperQueue", theirs and 1e6 / theirs, mine and 1e6 / mine)
        if not rows:
            return ""
        return (
            "## Their own benchmarks\n\n"
            + table(["", "the peer", "rankpool", ""], rows)
            + "\nmpi4py's benchmark is its own program; for rankpool the name `MPIPoolExecutor` in it is exchanged. Ray's is the same work as in "
            "`ray microbenchmark`, with `import ray` exchanged for `import rankpool.compat.ray as ray`.\n"
        )

    def not_ahead(self):
        words = "".join(f"* {line}\n" for line in self.behind) or "* Nowhere in this measurement.\n"
        return (
            "## Where rankpool is not ahead\n\nEvery figure of this page in which another one is better than rankpool "
            "(`--local 2`) by any margin; differences of a few percent are within the spread of the rounds:\n\n"
            + words
            + "\nTwo cores say nothing about many nodes. Ray and Dask keep results on the workers, have actors and graphs, and HyperQueue shares "
            "one server among many users: rankpool does none of that. `xargs` writes no job log and knows one machine.\n"
        )

    def how(self):
        data, machine = self.data, self.data["machine"]
        spreads = sorted(self.figures.spreads)
        spread = f"the rounds of a figure differ by {100 * statistics.median(spreads):.0f} % (median), nine of ten by at most {100 * spreads[int(0.9 * len(spreads))]:.0f} %" if spreads else "there was one round only"
        packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
        missing = "".join(f"* {LABELS.get(name, name)}: {why}\n" for name, why in data["not_measured"].items())
        busy = ""
        if machine["load"] > 0.5:
            busy = f" **The machine was busy with other work (a load of {machine['load']:g} at the start): absolute times are too long.**"
        if data["quick"]:
            busy += " **This is a quick trial: the figures mean nothing.**"
        return (
            "## How it was measured\n\n"
            f"* {self.machine}.{busy}\n"
            f"* rankpool {machine['rankpool']}, {packages}" + (f", GNU parallel {machine['parallel']}" if machine["parallel"] else "") + ".\n"
            "* Two workers each: `rankpool --local 2 --threads 1` (ranks as threads of one process, Python in processes of its own), "
            "`mpiexec -n 2 rankpool --threads 1`, `Pool(2)`, `LocalCluster(n_workers=2, threads_per_worker=1)`, `ray.init(num_cpus=2)`.\n"
            f"* {data['rounds']} rounds, in each of which every contender runs once, one after another, {data['minutes']:g} minutes in all. Each figure is the "
            f"median; {spread}.\n"
            "* All jobs that return their argument did so, and all contenders computed the same values of the tutorials' functions to nine digits"
            + (", except: " + "; ".join(data["differ"]) if data["differ"] else "") + ".\n"
            + ("* Not measured:\n" + "".join("  " + line + "\n" for line in missing.splitlines()) if missing else "")
        )

    def write(self):
        parts = [self.efficiency(), self.overhead(), self.fronts(), self.tutorials(), self.commands(), self.own()]
        parts += [self.not_ahead(), self.how()]
        text = (
            "# How fast\n\nrankpool beside the pools and programs that one would use instead, with the same work on two workers each: what was "
            "measured, what it means, and where rankpool is not ahead.\n\n"
            f"{self.machine}.\n\n"
            "`benches/peers/compare.py` measures it on your machine, and writes this page, its pictures and `speed.json`, which has all "
            "rounds.\n\n"
        )
        (self.folder / "speed.md").write_text(text + "\n".join(part for part in parts if part))


if __name__ == "__main__":
    Page(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])).write()
