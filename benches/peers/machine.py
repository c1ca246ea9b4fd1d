"""What a measurement was made on: the machine and the versions."""

import os
import platform
import re
import subprocess
import time

# With more CPUs busy while nothing is measured, the figures are uncertain.
BUSY_CPUS = 0.3


def first_line(words):
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        lines = (ended.stdout or ended.stderr).splitlines()
        return lines[0].strip() if lines else ""
    except (OSError, subprocess.SubprocessError):
        return ""


def mpi_of(launcher):
    """The name and version of the MPI of a launcher: `mpiexec (OpenRTE) 4.1.4`, or among many lines of Hydra's `Version: 4.0.2`."""
    try:
        text = subprocess.run([launcher, "--version"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    version = re.search(r"\d+\.\d+[\w.]*", text)
    name = "MPICH" if "HYDRA" in text else "Open MPI" if re.search("OpenRTE|Open MPI", text) else "an MPI"
    return f"{name} {version.group()}" if version else name


def field(path, name):
    """The value of the first line `name: value` of a file below /proc."""
    try:
        with open(path) as file:
            for line in file:
                if line.split(":")[0].strip() == name:
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def cpu_seconds():
    """The time for which CPUs have been busy since the system's start, summed over all CPUs; what a hypervisor took from them is busy."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _waiting, *interrupts = map(int, file.readline().split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def busy_cpus(seconds=1.0):
    """How many CPUs are busy now, on the average of this time, in which this process sleeps: with the work of others."""
    try:
        begin, busy = time.monotonic(), cpu_seconds()
        time.sleep(seconds)
        return round((cpu_seconds() - busy) / (time.monotonic() - begin), 2)
    except (OSError, ValueError):
        # No such file: nothing is known.
        return 0.0


def caution(facts):
    """A sentence if the machine was busy with other work; "" if it was not."""
    if "busy_cpus" in facts:
        most = max(facts["busy_cpus"], default=0)
        found = f"up to {most:g} of its CPUs, before, between and after the rounds" if most > BUSY_CPUS else ""
    else:
        # Of an older measurement.
        found = f"a load of {facts['load']:g} at the start" if facts["load"] > 0.5 else ""
    return f"The machine was busy with other work ({found}): absolute times are too long, and ratios uncertain." if found else ""


def facts(python, packages, starter):
    """Everything as text, but `busy_cpus`: how many CPUs are busy with other work, to which each round adds a figure."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    versions = first_line([python, "-c", code, *packages, "numpy"]).split()
    memory = field("/proc/meminfo", "MemTotal").split()
    mpi = mpi_of(starter.launcher[0]) if starter.launcher else ""
    parallel = re.search(r"\d{8}", first_line(["parallel", "--version"]))
    return {
        "cpu": field("/proc/cpuinfo", "model name") or platform.machine(),
        "cpus": os.cpu_count(),
        "memory": f"{int(memory[0]) / (1 << 20):.0f} GiB" if memory else "",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": first_line([python, "--version"]).removeprefix("Python "),
        "rankpool": first_line([starter.program, "--version"]).removeprefix("rankpool "),
        "mpi": mpi,
        "packages": dict(zip([*packages, "numpy"], versions)),
        "parallel": parallel.group() if parallel else "",
        "busy_cpus": [busy_cpus()],
    }
