"""Writes docs/speed.md and its pictures, and the README's part about speed, from what compare.py has measured.

    page.py speed.json FOLDER [README.md]
"""

import json
import math
import statistics
import sys
import textwrap
from pathlib import Path

import pictures
from machine import caution
from metg import metg, seconds

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
# Only who is better by more than this factor is ahead: less is within the spread of the rounds.
MARGIN = 1.05
WIDTH = 130
NOTHING = (("one", "A job that does nothing, one by one"), ("64", "A job that does nothing, in chunks of 64"),
           ("auto", "A job that does nothing, in the pool's own chunks"))
WORKS = {"slow": "slow_fn", "malloc": "slow_fn_malloc", "density": "Parzen"}


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


# The sentences of the page. Line ends and indents are blanks.
INTRODUCTION = """
rankpool beside the pools and programs that one would use instead, with the same work on two workers each: what was measured,
what it means, and where rankpool is not ahead."""
SOURCE = """
`benches/peers/compare.py` measures it on your machine, and writes this page, its pictures and `speed.json`, which has all
rounds."""
EFFICIENCY = """
The share of both workers' time that is spent in the function of the jobs; the rest is what the pool needs. METG(50 %) is the
shortest job with which half of the time is useful, METG(90 %) that for nine tenths: the measure of [Task
Bench](https://arxiv.org/abs/1908.05790). A pool with a shorter one can run shorter jobs; jobs that take much longer than the
METG(90 %) of all pools run equally well in all of them."""
EFFICIENCY_HOW = """
`<` and `>`: all lengths that were measured reach the share, or none does. The jobs of Python pools compute for a given CPU time
and return how much it was; those of "rankpool in Rust" run for a given wall time (`rankpool bench`), in which a thread that waits for
a core counts as busy: compare these with each other only. p_tqdm is pathos with a bar, and not measured here."""
OVERHEAD = """
The wall time for each job of a function that returns its argument, with two workers."""
OVERHEAD_HOW = """
*One by one*: `submit` for each job, then all results (`apply_async`, `apipe`, `batch_size=1`, a task for each job). *Own
chunks*: the size that the pool takes by itself (rankpool, joblib), else four chunks for each worker, as `multiprocessing.Pool`
makes them. Those are the largest chunks that keep both workers busy if all jobs are equally long; rankpool begins with small
ones and measures how long the jobs are. Dask, Ray and p_tqdm have no chunks: a job of theirs calls the function for each item
of a list. "rankpool, script" is the executor of a Python script below `rankpool python`, "rankpool map" the program with a
Python function and the start of its interpreters, "rankpool in Rust" the library."""
FRONTS_HOW = """
Each row is one script that runs twice: with the pool that it was written for, and with rankpool's import for the same name
([python-compat.md](python-compat.md)) below `rankpool --local 2 python`. mpi4py.futures runs on three ranks, of which the first
only deals; rankpool there on two, below `mpiexec`. joblib, p_tqdm, Ray and Dask are the same code in both columns, with what
these names cost in front of rankpool's executor. `p_map` has no chunks
in p_tqdm and automatic ones in rankpool."""
TUTORIALS = """
{vectors} calls of `slow_fn` (arithmetic in a loop) and of `slow_fn_malloc` (the same with numpy, bound by memory), in the
pool's own chunks. Parzen: the density at a point from {samples} samples for {widths} window widths, each job sent by itself
with all samples, as in the tutorial. The speed-up is against one process without a pool (dashed). The pools are there before
the clock starts; `map` and `kernel` are measured from the first dispatch on, so that `map` includes the start of its
interpreters. `kernel` computes the same functions in Rust."""
COMMANDS_HOW = """
{commands} × `/bin/true`, and commands that compute for a given CPU time (the start of their process is not useful time).
rankpool writes its job log (`--records`), GNU parallel keeps the output of each job together, xargs does neither. The time is
from the start of the program to its end, that of `mpiexec` included; HyperQueue's server and worker run before, its jobs have
no output files, and the time is from the submission to the end of the last one."""
OWN_HOW = """
mpi4py's benchmark is its own program; for rankpool the name `MPIPoolExecutor` in it is exchanged. Ray's is the work of the same
name in `ray microbenchmark`, for rankpool with `import rankpool.compat.ray as ray`. HyperQueue's is that of the table above."""
BEHIND = """
Every figure of this page in which another one is better than rankpool (`--local 2`, if there is no launcher in its name) by
more than 5 %:"""
LIMITS = """
Two cores of one machine say nothing about many nodes. Ray and Dask keep results on the workers, have actors and graphs, and
HyperQueue shares one server among many users: rankpool does none of that. `xargs` writes no job log and knows one machine."""
WORKERS_HOW = """
* Two workers each: `rankpool --local 2 --threads 1` (ranks as threads of one process, Python in processes of its own), `mpiexec
-n 2 rankpool --threads 1`, `Pool(2)`, `LocalCluster(n_workers=2, threads_per_worker=1)`, `ray.init(num_cpus=2)`."""
AGREE = """
* All jobs that return their argument did so, and all contenders computed the same values of the tutorials' functions, to nine
digits"""
README = """
Two workers each, rankpool with {start}, on this machine: {machine}. [docs/speed.md](docs/speed.md) has all figures, how they
were measured, and where rankpool is not ahead; `benches/peers/compare.py` measures them on yours."""


def prose(text, **values):
    return " ".join(text.split()).format(**values)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def wrapped(text):
    """The paragraphs and list items of a page in lines of moderate length."""
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2) if line.lstrip().startswith("* ") else ""
        if line.startswith(("|", "<", "#")) or len(line) <= WIDTH:
            lines.append(line)
        else:
            lines += textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) + "\n"


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
        self.caution = f"**{found}**\n\n" if (found := caution(machine)) else ""
        if data["quick"]:
            self.caution = "**This is a quick trial: the figures mean nothing.**\n\n"

    def compare(self, what, ours, theirs, shown, less_is_better=True):
        """Notes the contenders that are ahead of rankpool. `ours`: a label and a value, or None."""
        if ours[1] is None:
            return
        factor = {label: ours[1] / value if less_is_better else value / ours[1] for label, value in theirs if value}
        ahead = [f"{label} {shown(value)}" for label, value in theirs if value and factor[label] > MARGIN]
        if ahead:
            self.behind.append(f"{what}: {', '.join(ahead)}; {ours[0]} {shown(ours[1])}.")

    def of(self, names, what, key):
        values = ((name, self.figures.value(name, what, key)) for name in names)
        return [(LABELS[name], value) for name, value in values if value is not None]

    def overhead(self):
        names = [*SCRIPTS, "map", "map+mpi", "bench", "bench+mpi"]
        names = [name for name in names if self.figures.has(name, "overhead")]
        if not names:
            return ""
        one, auto = self.of(names, "overhead", "one"), self.of(names, "overhead", "auto")
        panels = [(f"{words}, logarithmic", micros, True, None, rows) for words, rows in (("sent one by one", one), ("in chunks", auto))]
        title = "The time of a job that does nothing"
        described = "; ".join(f"{label}: {micros(value)} one by one" for label, value in one)
        pictures.bars(self.folder, "speed-overhead", panels, 2, title, described, self.machine)
        rows = []
        for name in sorted(names, key=lambda name: self.figures.value(name, "overhead", "one")):
            rows.append([LABELS[name], *(micros(self.figures.value(name, "overhead", key)) for key in ("one", "64", "auto"))])
        for key, words in NOTHING:
            self.compare(words, ("rankpool", self.figures.value("rankpool", "overhead", key)), self.of(FRONTS, "overhead", key), micros)
        return (
            "## What a job costs\n\n"
            + picture("speed-overhead", title)
            + f"\n{prose(OVERHEAD)}\n\n"
            + table(["", "one by one", "chunks of 64", "own chunks"], rows)
            + f"\n{prose(OVERHEAD_HOW)}\n"
        )

    def efficiency(self):
        names = [name for name in [*SCRIPTS, "bench", "bench+mpi"] if self.figures.has(name, "curve")]
        if not names:
            return ""
        curves = {key: {name: self.figures.points(name, "curve", key) for name in names} for key in ("one", "auto")}
        labels = {name: LABELS[name] + (" (wall time)" if name.startswith("bench") else "") for name in names}
        drawn = {name: label for name, label in labels.items() if name != "bench" or "bench+mpi" not in names}
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
            [labels[name], *(reach(curves[key][name], share) for key in ("one", "auto") for share in (0.5, 0.9))] for name in order
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
            + f"\n{prose(EFFICIENCY)}\n\n"
            + table(["", "one by one: METG(50 %)", "METG(90 %)", "in chunks: METG(50 %)", "METG(90 %)"], rows)
            + f"\n{prose(EFFICIENCY_HOW)}\n"
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
        slow = f"slow_fn × {self.data['sizes']['vectors']}"
        head = ["written for", "a job, one by one", "with rankpool", "own chunks", "with rankpool", slow, "with rankpool"]
        return f"## The same script, with another import line\n\n{prose(FRONTS_HOW)}\n\n" + table(head, rows)

    @staticmethod
    def with_speedup(serial):
        return lambda value: f"{seconds(value)}  {serial / value:.2f}×"

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
                heading = f"{words}: time and speed-up (dashed: one process)"
                panels.append((heading, self.with_speedup(serial[what]), False, serial[what], python))
            theirs = [row for row in self.of(FRONTS, what, "seconds")]
            ours = self.of(["rankpool"], what, "seconds")
            if ours:
                self.compare(words, ("rankpool", ours[0][1]), theirs, seconds)
        title = "The tutorials' functions on two workers"
        described = "; ".join(f"{label}: slow_fn {seconds(value)}" for label, value in self.of(names, "slow", "seconds"))
        pictures.bars(self.folder, "speed-tutorials", panels, 1, title, described, self.machine)
        head = ["", "slow_fn", "speed-up", "slow_fn_malloc", "speed-up", "Parzen", "speed-up"]
        words = prose(TUTORIALS, **self.data["sizes"])
        return (
            "## The functions of the tutorials\n\n" + picture("speed-tutorials", title) + f"\n{words}\n\n" + table(head, rows)
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
            + f"\n{prose(COMMANDS_HOW, **self.data['sizes'])}\n\n"
            + table(["", f"{jobs} × /bin/true", "commands per second", "METG(50 %)", "METG(90 %)"], rows)
        )

    def own(self):
        rows = []

        def row(what, name, theirs, mine):
            if theirs is not None and mine is not None:
                rows.append([what, f"{name} {theirs:,.0f}".replace(",", " "), f"{mine:,.0f}".replace(",", " "), f"{mine / theirs:.1f}×"])
                self.compare(what, ("rankpool", mine), [(name, theirs)], lambda value: f"{value:.0f}", less_is_better=False)

        for size, words in (("1", "1 byte"), ("65536", "64 KiB")):
            theirs, mine = (self.figures.value(name, "mpi4py.bench", size) for name in ("mpi4py.bench", "mpi4py.bench rankpool"))
            row(f"`python -m mpi4py.bench futures`, {words}: tasks per second", "mpi4py", theirs, mine)
        for key, words in (("sync", "waited for one by one"), ("async", "1000 at a time")):
            theirs, mine = (self.figures.value(name, "tasks", key) for name in ("ray", "rankpool.ray"))
            row(f"Ray's `single client tasks {key}` ({words}): tasks per second", "Ray", theirs, mine)
        theirs, mine = (self.figures.value(name, "true", "us") for name in ("hyperqueue", "run"))
        words = "HyperQueue's null tasks (`/bin/true`, one submission): tasks per second"
        row(words, "HyperQueue", theirs and 1e6 / theirs, mine and 1e6 / mine)
        if not rows:
            return ""
        return (
            "## Their own benchmarks\n\n"
            + table(["", "the peer", "rankpool", ""], rows)
            + f"\n{prose(OWN_HOW)}\n"
        )

    def not_ahead(self):
        words = "".join(f"* {line}\n" for line in self.behind) or "* Nowhere in this measurement.\n"
        return f"## Where rankpool is not ahead\n\n{prose(BEHIND)}\n\n{words}\n{prose(LIMITS)}\n"

    def how(self):
        data, machine = self.data, self.data["machine"]
        spreads = sorted(self.figures.spreads)
        spread = "there was one round only"
        if spreads:
            middle, most = 100 * statistics.median(spreads), 100 * spreads[int(0.9 * len(spreads))]
            spread = f"the rounds of a figure differ by {middle:.0f} % (the median of all figures), for nine of ten by at most {most:.0f} %"
        packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
        missing = "".join(f"* {LABELS.get(name, name)}: {why}\n" for name, why in data["not_measured"].items())
        parallel = f", GNU parallel {machine['parallel']}" if machine["parallel"] else ""
        return (
            f"## How it was measured\n\n* {self.machine}.\n* rankpool {machine['rankpool']}, {packages}{parallel}.\n"
            + prose(WORKERS_HOW)
            + f"\n* Each contender runs once in each round, one after another; {data['rounds']} round(s), {data['minutes']:g} minutes in "
            f"all. Each figure is the median; {spread}.\n"
            + prose(AGREE)
            + (", except: " + "; ".join(data["differ"]) if data["differ"] else "")
            + ".\n"
            + ("* Not measured:\n" + "".join("  " + line + "\n" for line in missing.splitlines()) if missing else "")
        )

    def write(self):
        parts = [self.efficiency(), self.overhead(), self.fronts(), self.tutorials(), self.commands(), self.own()]
        parts += [self.not_ahead(), self.how()]
        text = (
            f"# How fast\n\n{prose(INTRODUCTION)}\n\n{self.machine}.\n\n{self.caution}{prose(SOURCE)}\n\n"
        )
        (self.folder / "speed.md").write_text(wrapped(text + "\n".join(part for part in parts if part)))

    def readme(self):
        """The lines of the README about speed: what a run under mpiexec needs, or with --local if there is no launcher."""
        suffix = "+mpi" if self.figures.has("rankpool+mpi", "overhead") else ""
        value, points = self.figures.value, self.figures.points

        def several(names, what, key, shown):
            found = ((LABELS[name], value(name, what, key)) for name in names)
            return ", ".join(f"{label} {shown(figure)}" for label, figure in found if figure is not None)

        def reach(name, key, share=0.5):
            curve = points(name, "curve", key)
            return "–" if not curve else " ".join(filter(None, [metg(curve, share)[0], seconds(metg(curve, share)[1])]))

        script, rust, pools = "rankpool" + suffix, "bench" + suffix, ["pool", "futures", "mpi4py", "ray", "dask"]
        count, sizes = self.data["sizes"]["commands"], self.data["sizes"]

        def of_all(per_job):
            return time_of(None if per_job is None else per_job * 1e-6 * count)

        rows = [
            [f"{count} × `/bin/true`", of_all(value("run" + suffix, "true", "us")),
             several(["xargs", "hyperqueue", "parallel"], "true", "us", of_all)],
            ["a Python script: `submit` of a job that does nothing, and its result", micros(value(script, "overhead", "one")),
             several(pools, "overhead", "one", micros)],
            ["the same by `map`, in chunks", micros(value(script, "overhead", "auto")), several(pools[:3], "overhead", "auto", micros)],
            ["a script's shortest job with which half of the time is useful, one by one", reach(script, "one"),
             ", ".join(f"{LABELS[name]} {reach(name, 'one')}" for name in pools)],
            [f"{sizes['vectors']} calls of a slow Python function", time_of(value(script, "slow", "seconds")),
             several(["pool", "mpi4py", "serial"], "slow", "seconds", time_of)],
            ["a Python call of `rankpool map`", micros(value("map" + suffix, "overhead", "auto")), ""],
            ["a job of the library or of `rankpool kernel` that does nothing, one by one / in chunks",
             f"{micros(value(rust, 'overhead', 'one'))} / {micros(value(rust, 'overhead', 'auto'))}", ""],
            ["the shortest job with which half / nine tenths of the (wall) time are useful there, in chunks",
             f"{reach(rust, 'auto')} / {reach(rust, 'auto', 0.9)}", ""],
        ]
        start = "two ranks below `mpiexec`" if suffix else "two ranks with `--local 2`"
        return (
            prose(README, start=start, machine=self.machine)
            + "\n\n"
            + self.caution
            + picture("docs/speed-efficiency", "Efficiency of two workers for each length of job") + "\n"
            + table(["", "rankpool", "others"], rows)
        )


def put(text, inside):
    """The text with other lines between its two marks."""
    before, begin, rest = text.partition("<!-- speed: written by benches/peers/compare.py -->\n")
    _, end, after = rest.partition("<!-- speed: end -->\n")
    return text if not end else f"{before}{begin}{inside}{end}{after}"


if __name__ == "__main__":
    page = Page(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    page.write()
    # The README that stands beside the folder docs/.
    if len(sys.argv) > 3:
        readme = Path(sys.argv[3])
        readme.write_text(put(readme.read_text(), wrapped(page.readme())))
