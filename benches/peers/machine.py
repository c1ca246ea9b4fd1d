"""What a measurement was made on: the machine and the versions."""

import os
import platform
import re
import subprocess


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


def facts(python, packages, starter):
    """Everything as text, but `load`: how many processes ran on the average of the minute before."""
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
        "load": round(os.getloadavg()[0], 1),
    }
