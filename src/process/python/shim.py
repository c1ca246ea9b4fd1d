"""The Python side of `rankpool map --python`: part of the rankpool program, sent to the interpreter at its start.

    python -c BOOT TARGET MODE SETUP      TARGET is FILE.py:FUNCTION or package.module:function, MODE is call, star or batch

BOOT reports the version of Python, reads this text from stdin and runs it. Interpreters are started before their rank and slot
are known; the user's code runs only after these were sent.

It imports the user's module once and then answers requests, one line each way, in order:

    to us     RANK SLOT                           once: the worker's rank and slot; then the import begins
              JOB ATTEMPT SEED JSON               a record
              J,J,… A,A,… S,S,… [JSON, …]         a batch
    from us   v MAJOR MINOR PATCH                 once: BOOT runs, in this version of Python
              +                                   ready: imported, setup done
              ! {"message": …, "traceback": …}    cannot start
              r NANOSECONDS JSON                  a result
              e NANOSECONDS {"kind": …, …}        a failure
              b NANOSECONDS [JSON, …]             the results of a whole batch

Every answer is written before the function is called for the next record, so the rank knows which record ended this process.
The pipes are moved away from descriptors 0 and 1 before any other code runs: print() writes to stderr, and stdin is empty.
The modules imported here are the standard library's: BOOT has removed the current folder from sys.path, and the user's folder is
added later. Needs Python 3.9 or newer and nothing but its standard library. shim_json.py, which encodes the results, is sent
behind this text.
"""
import sys
# The modules that Python has imported at its start.
STARTED_WITH = frozenset(sys.modules)
import os

# The pipes for requests and answers; programs that are started do not inherit them.
REQUESTS, ANSWERS = os.dup(0), os.dup(1)
_null = os.open(os.devnull, os.O_RDONLY)
os.dup2(_null, 0)
os.close(_null)
os.dup2(2, 1)

import _collections_abc as abc
import binascii
import gc
import importlib.machinery
import importlib.util
import json
from itertools import chain, islice
from time import perf_counter_ns as now

try:
    # Imported now, because the user's folder, which may hide it, is added to sys.path later.
    import ctypes
except ImportError:
    pass


def close_pipes():
    """Closes the pipes in a forked child, which must neither write answers nor keep the pipes open after this process has ended."""
    for fd in (REQUESTS, ANSWERS):
        try:
            os.close(fd)
        except OSError:
            pass


def send(line):
    """Writes a whole line. Exits without a message if the rank has closed the pipe."""
    try:
        written = os.write(ANSWERS, line)
        while written < len(line):
            line = line[written:]
            written = os.write(ANSWERS, line)
    except OSError:
        os._exit(1)


# ---- Failures ----

class NoBatch(Exception):
    """A function returned something that cannot be the results of a batch."""


MOST_MESSAGE, MOST_TRACEBACK = 1 << 14, 1 << 17


def cut(text, most):
    """Shortens a text for a message and escapes lone surrogates, which UTF-8 cannot encode."""
    text = text if len(text) <= most else text[:most // 2] + "\n[…]\n" + text[-most // 2:]
    return text.encode("utf-8", "backslashreplace").decode()


def users_frames(error, seen):
    """Removes the shim's frames from the beginning of the traceback of an error and of its causes."""
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frame = error.__traceback__
        while frame is not None and is_ours(frame.tb_frame):
            frame = frame.tb_next
        error.__traceback__ = frame
        users_frames(error.__cause__, seen)
        error = error.__context__


def is_ours(frame):
    return frame.f_globals is globals() or frame.f_code.co_filename.startswith("<frozen importlib")


def message_of(error):
    try:
        text = str(error)
    except BaseException:
        text = "<str() of the exception fails>"
    return cut(name_of(type(error)) + (": " + text if text else ""), MOST_MESSAGE)


def describe(error):
    """Returns an exception as {"kind": …, "message": …, "traceback": …}."""
    if isinstance(error, NoJson):
        return {"kind": "encode", "message": cut(str(error), MOST_MESSAGE)}
    if isinstance(error, NoBatch):
        return {"kind": "batch", "message": str(error)}
    kind = "exit" if isinstance(error, SystemExit) else "exception"
    message = message_of(error)
    if kind == "exit":
        message = "the function ended Python: sys.exit(%s)" % ("" if error.code is None else cut(repr(error.code), 200))
    try:
        users_frames(error, set())
        with pythons_own():
            import_traceback()
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException:
        text = ""
    return {"kind": kind, "message": message, "traceback": cut(text, MOST_TRACEBACK)}


def failure(error, since):
    return b"e%d %b\n" % (now() - since, to_bytes(describe(error)))


# ---- The environment of each record ----

def environment_setter(name):
    """Returns a function that sets one environment variable, for Python and for the programs it starts.

    The C library never frees a value that was set. So it gets one buffer, once, which is overwritten each time.
    """
    key, begin = name.encode(), name.encode() + b"="
    try:
        data = os.environ._data
        os.environ[name] = "0"
        if type(data) is not dict or data[key] != b"0":
            raise TypeError
        buffer = ctypes.create_string_buffer(begin + b"0" * 24)
        put = ctypes.CDLL(None).putenv
        put.argtypes = [ctypes.c_char_p]
        # The C library uses the buffer until the process ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(buffer))
        if put(ctypes.cast(buffer, ctypes.c_char_p)) != 0:
            raise OSError
    except Exception:
        def set_variable(value):
            os.environ[name] = value.decode()
        return set_variable

    def set_variable(value):
        data[key] = value
        buffer.value = begin + value
    return set_variable


# ---- Start ----

class CannotStart(Exception):
    """An error whose message is enough, without a traceback."""


traceback = None


def import_traceback():
    """Imports traceback only when something fails, because the import takes a while."""
    global traceback
    if traceback is None:
        import traceback


# The user's folder, if it holds a file with the name of a module of the standard library.
_shadowing = None


def look_into(folder):
    """Puts a folder first in sys.path, and forgets the modules of its names that this shim has imported."""
    global _shadowing
    try:
        names = {name.partition(".")[0] for name in os.listdir(folder or ".")}
    except OSError:
        names = set()
    pythons = getattr(sys, "stdlib_module_names", None)
    if pythons is None:
        pythons = {name.partition(".")[0] for name in os.listdir(os.path.dirname(os.__file__))}.union(sys.modules)
    if not names.isdisjoint(pythons):
        _shadowing = folder
        import_traceback()
        for name in list(sys.modules):
            top = name.partition(".")[0]
            if top in names and name not in STARTED_WITH and top not in sys.builtin_module_names:
                del sys.modules[name]
    sys.path.insert(0, folder)


class pythons_own:
    """A context in which imports do not see the user's folder, if that hides modules of the standard library."""

    def __enter__(self):
        self.path = None
        if _shadowing is not None and _shadowing in sys.path:
            self.path = sys.path
            sys.path = [folder for folder in sys.path if folder != _shadowing]

    def __exit__(self, *_):
        if self.path is not None:
            sys.path = self.path


def load(target):
    """Imports the module of a target; returns it, its name for messages and the function's name."""
    place, _, function = target.rpartition(":")
    sys.dont_write_bytecode = True
    if not (place.endswith(".py") or "/" in place):
        look_into("")
        sys.argv = [place]
        return importlib.import_module(place), place, function
    path = os.path.abspath(place)
    name = os.path.splitext(os.path.basename(path))[0]
    name = "_main" if name == "__main__" else name
    look_into(os.path.dirname(os.path.realpath(path)))
    sys.argv = [place]
    loader = importlib.machinery.SourceFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return sys.modules.get(name, module), place, function


def find(module, place, function):
    found = module
    for part in function.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            has = [name for name, value in vars(found).items()
                   if callable(value) and not name.startswith("_") and not isinstance(value, type)
                   and getattr(value, "__module__", None) == module.__name__] if hasattr(found, "__dict__") else []
            raise CannotStart("%s has no %s; %s" % (
                place, function, "its functions are: " + ", ".join(has[:20]) if has else "it has no functions")) from None
    if not callable(found):
        raise CannotStart("%s in %s is not a function but of type %s" % (function, place, name_of(type(found))))
    return found


def import_preloaded():
    """Imports the modules of --preload, if this process was not forked from one that has imported them."""
    modules = os.environ.pop("RANKPOOL_PRELOAD", None)
    if modules is None:
        return
    sys.dont_write_bytecode = True
    modules = modules.split("\n")
    path = list(sys.path)
    sys.path[:0] = [os.path.abspath(folder) for folder in modules if "/" in folder]
    for module in modules:
        if "/" not in module:
            importlib.import_module(module)
    sys.path[:] = path


def start(target, setup):
    """Imports the user's module, runs the setup and returns the function."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close_pipes)
    if hasattr(sys, "set_int_max_str_digits"):
        # The limit protects servers from foreign input; these numbers are the user's own.
        sys.set_int_max_str_digits(0)
    try:
        # Printed lines survive a crash and stay whole, also with PYTHONUNBUFFERED.
        sys.stdout.reconfigure(line_buffering=True, write_through=False)
        # A crash in C code prints its place.
        import faulthandler
        if not faulthandler.is_enabled():
            faulthandler.enable()
    except Exception:
        pass
    import_preloaded()
    module, place, name = load(target)
    function = find(module, place, name)
    if setup:
        prepared = find(module, place, setup)()
        if hasattr(prepared, "__await__"):
            awaited(prepared)
    return function


def start_or_report(target, setup):
    """Starts, or reports why not and exits."""
    try:
        return start(target, setup)
    except CannotStart as error:
        why = {"message": cut(str(error), MOST_MESSAGE), "traceback": ""}
    except BaseException as error:
        why = describe(error)
        if why["kind"] == "exit":
            why["message"] = why["message"].replace("the function ended", "the import or the setup ended")
    send(b"! " + to_bytes(why) + b"\n")
    flush()
    os._exit(1)


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


# ---- The loop ----

def requests():
    """Yields lists of the whole lines that have arrived."""
    parts = []
    while True:
        piece = os.read(REQUESTS, 1 << 16)
        if not piece:
            return
        if b"\n" not in piece:
            parts.append(piece)
            continue
        parts.append(piece)
        lines = b"".join(parts).split(b"\n")
        parts = [lines.pop()]
        yield lines


def parser():
    """Returns a function that parses JSON; it builds no decoder for each call and guesses no encoding."""
    scan = json.JSONDecoder().scan_once

    def parse(body):
        return scan(str(body, "utf-8", "surrogatepass").lstrip(), 0)[0]
    return parse


def star_call(function):
    def call(record):
        if type(record) is list:
            return function(*record)
        if type(record) is dict:
            return function(**record)
        raise TypeError("--star needs a list or an object in each record, not %s" % json.dumps(record)[:200])
    return call


def serve(function, arriving, parse, set_job, set_attempt, set_seed):
    """Calls the function once for each record."""
    for lines in arriving:
        for line in lines:
            job, attempt, seed, body = line.split(b" ", 3)
            set_job(job)
            set_attempt(attempt)
            set_seed(seed)
            since = now()
            try:
                result = encode(function(parse(body)))
                answer = b"r%d %b\n" % (now() - since, result)
            except BaseException as error:
                answer = failure(error, since)
            # The result is freed before the next record is read.
            result = None
            send(answer)


def results_of(function, records):
    """Calls the function with a list of records; it must return as many results."""
    size = len(records)
    results = function(records)
    if hasattr(results, "__await__") or hasattr(results, "__aiter__"):
        results = awaited(results)
    if type(results) is not list:
        results = as_list(results)
    if len(results) != size:
        raise NoBatch("a function for --batch must return one result for each record, not %d for %d"
                      % (len(results), size))
    return results


def as_list(results):
    kind = type(results)
    if hasattr(results, "to_dicts"):
        results = results.to_dicts()
    elif hasattr(results, "iterrows"):
        results = rows_of(results)
    elif hasattr(results, "tolist") and getattr(getattr(results, "dtype", None), "kind", None) not in ("m", "M"):
        results = results.tolist()
    elif hasattr(results, "__iter__") and not isinstance(results, (str, bytes, abc.Mapping)):
        results = list(results)
    if not isinstance(results, list):
        raise NoBatch("a function for --batch must return a list, not %s" % name_of(kind))
    return results


def alone(compute):
    """Returns the answer to one record of a batch."""
    since = now()
    try:
        result = encode(compute())
        return b"r%d %b\n" % (now() - since, result)
    except BaseException as error:
        return failure(error, since)


def serve_batch(function, records):
    """Sends the answers to a whole batch; returns False if each record has to be called alone."""
    since, size = now(), len(records)
    try:
        results = results_of(function, records)
    except BaseException as error:
        # After NoBatch no record is called alone: a function that is not made for batches may seem right with one record.
        if size > 1 and not isinstance(error, NoBatch):
            return False
        for _ in range(size):
            send(failure(error, since))
        return True
    try:
        answer = b"b%d %b\n" % (now() - since, encode(results))
    except BaseException:
        # Some of the results have no JSON form.
        for result in results:
            send(alone(lambda: result))
    else:
        send(answer)
    return True


def serve_batches(function, arriving, parse, set_job, set_attempt, set_seed):
    """Calls the function once for each list of records. If it raises, each record is called alone, so that only the guilty ones fail."""
    for lines in arriving:
        for line in lines:
            jobs, attempts, seeds, body = line.split(b" ", 3)
            heads = list(zip(jobs.split(b","), attempts.split(b","), seeds.split(b",")))
            set_head(heads[0], set_job, set_attempt, set_seed)
            if serve_batch(function, parse(body)):
                continue
            # Parsed again, because the function may have changed its records.
            for head, record in zip(heads, parse(body)):
                set_head(head, set_job, set_attempt, set_seed)
                send(alone(lambda: results_of(function, [record])[0]))


def set_head(head, *setters):
    for value, set_variable in zip(head, setters):
        set_variable(value)


def main():
    target, mode, setup = sys.argv[1:4]
    arriving = requests()
    lines = next(arriving, None)
    if lines is None:
        # The rank does not need this process.
        os._exit(0)
    os.environ["RANKPOOL_RANK"], os.environ["RANKPOOL_SLOT"] = lines.pop(0).decode().split()
    function = start_or_report(target, setup)
    setters = [environment_setter("RANKPOOL_" + name) for name in ("JOB", "ATTEMPT", "SEED")]
    # The imported objects stay, so the garbage collector need not scan them.
    gc.freeze()
    send(b"+\n")
    if mode == "batch":
        serve_batches(function, chain([lines], arriving), parser(), *setters)
    else:
        serve(star_call(function) if mode == "star" else function, chain([lines], arriving), parser(), *setters)
