"""A `rankpool serve` that is started here, where the script was not started by `rankpool python`."""

import os
import socket
import struct
import subprocess
import sys
import time

_LAUNCH_LIMIT = 300.0
_END_LIMIT = 10.0


def find_program():
    """The binary `rankpool`; raises `RuntimeError` if there is none."""
    import sysconfig
    from shutil import which

    given = os.environ.get("RANKPOOL_EXE")
    if given:
        return given
    here = os.path.dirname(os.path.abspath(__file__))
    # In the package, beside it (`pip install --target`), beside the interpreter, and where `pip install --user` puts programs.
    folders = [os.path.join(here, "bin"), os.path.join(os.path.dirname(here), "bin"), os.path.dirname(sys.executable)]
    folders += [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", "posix_user")]
    for folder in folders:
        path = os.path.join(folder, "rankpool")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    found = which("rankpool")
    if found is None:
        raise RuntimeError(
            "the program rankpool was not found beside the interpreter or on PATH: "
            "set RANKPOOL_EXE to its path, or run the script with `rankpool python SCRIPT`"
        )
    return found


def start(launcher, preload=()):
    """Start `rankpool serve`, by a launcher such as "mpiexec -n 8" if one is given. Returns `(socket, process)`."""
    program = find_program()
    options = ["--python-exe", sys.executable] if sys.executable else []
    for module in preload:
        options += ["--preload", module]
    if launcher is None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            # Ranks are threads there, also in a build with MPI, which takes longer to start.
            process = _spawn([program, "serve", "--local", "1", *options], theirs)
        return ours, process
    from shlex import split

    words = split(launcher) if isinstance(launcher, str) else list(launcher)
    address = "rankpool-" + os.urandom(16).hex()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind("\0" + address)
        listener.listen(8)
        process = _spawn([*words, program, "serve", "--connect", "@" + address, *options], subprocess.DEVNULL)
        try:
            return _accept(listener, process, words), process
        except BaseException:
            end(process)
            raise


def _spawn(command, stdin):
    try:
        return subprocess.Popen(command, stdin=stdin, start_new_session=True)
    except OSError as error:
        raise RuntimeError(f"{command[0]} cannot be started: {error}") from error


def _accept(listener, process, words):
    """The connection of rank 0, of this user."""
    deadline = time.monotonic() + _LAUNCH_LIMIT
    listener.settimeout(0.1)
    while True:
        try:
            sock, _ = listener.accept()
        except socket.timeout:
            status = process.poll()
            if status is not None:
                raise RuntimeError(
                    f"`{' '.join(words)} rankpool serve` ended with status {status} before it was connected"
                ) from None
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"`{' '.join(words)} rankpool serve` was not connected within {_LAUNCH_LIMIT:.0f} s"
                ) from None
            continue
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", credentials)[1] in (os.getuid(), 0):
            sock.settimeout(None)
            return sock
        sock.close()


def end(process):
    """Wait for `rankpool serve`, whose socket is closed, and end it if it does not end by itself."""
    for signal_it in (lambda: None, process.terminate, process.kill):
        signal_it()
        try:
            process.wait(_END_LIMIT)
            return
        except subprocess.TimeoutExpired:
            continue
