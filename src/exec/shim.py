"""The Python side of `rankpool map --python`: part of the rankpool program, sent to the interpreter at its start.

    python -c BOOT TARGET MODE SETUP      TARGET is FILE.py:FUNCTION or package.module:function, MODE is call, star or batch

BOOT reads this text from stdin and runs it.

It imports the user's module once and then answers requests, one line each way, in order:

    to us     JOB ATTEMPT SEED JSON               a record
              J,J,… A,A,… S,S,… [JSON, …]         a batch
    from us   + VERSION                           ready: imported, setup done
              ! {"message": …, "traceback": …}    cannot start
              r NANOSECONDS JSON                  a result
              e NANOSECONDS {"kind": …, …}        a failure
              b NANOSECONDS [JSON, …]             the results of a whole batch

Every answer is in the pipe before the next record's function is called, so whoever reads it knows which record ended us.
The pipe's ends are moved away from 0 and 1 before any other code runs: print() goes to stderr, and stdin is empty.
Plain Python 3.9 or newer; the standard library only.
"""
import os
import sys

# The request and answer pipes are ours alone; nobody who is exec'd inherits them.
REQUESTS, ANSWERS = os.dup(0), os.dup(1)
_null = os.open(os.devnull, os.O_RDONLY)
os.dup2(_null, 0)
os.close(_null)
os.dup2(2, 1)

import gc
import json
from time import perf_counter_ns as now


def close_pipes():
    """In a forked child: whoever waits for our end must not wait for it, and its answers are not ours."""
    for fd in (REQUESTS, ANSWERS):
        try:
            os.close(fd)
        except OSError:
            pass


def send(line):
    """Writes a whole line. When nobody reads any more, there is nobody to complain to."""
    try:
        written = os.write(ANSWERS, line)
        while written < len(line):
            line = line[written:]
            written = os.write(ANSWERS, line)
    except OSError:
        os._exit(1)


# ---- JSON: from any value to text ----

INFINITY = float("inf")
MOST_ITEMS = 10_000_000
MOST_DEPTH = 500
ATOMS = frozenset((str, int, float, bool, type(None)))
CONTAINERS = frozenset((list, tuple, dict))
PLAIN = ATOMS | CONTAINERS
TEXT = frozenset((str,))


class NoJson(Exception):
    """A value that has no form in JSON."""

    def __init__(self, message, path=""):
        self.message, self.path = message, path

    def __str__(self):
        return "the result has no JSON form: " + self.message + (" (at result%s)" % self.path if self.path else "")

    def below(self, key):
        return NoJson(self.message, ("[%r]" % (key,))[:100] + self.path)


class NoBatch(Exception):
    """What a function returned that cannot be the results of a batch."""


def refuse(value):
    raise TypeError(type(value))


def encoder(text):
    """A function from plain values to JSON; nothing is built for each call, as `json.dumps` does."""
    markers = {}
    make = json.encoder.c_make_encoder
    if make is None:
        return json.JSONEncoder(ensure_ascii=text is not json.encoder.encode_basestring, allow_nan=False,
                                separators=(",", ":"), default=refuse).encode
    encode = make(markers, refuse, text, None, ":", ",", False, False, False)

    def to_text(value):
        try:
            return "".join(encode(value, 0))
        except BaseException:
            markers.clear()
            raise
    return to_text


dump = encoder(json.encoder.encode_basestring)
dump_ascii = encoder(json.encoder.encode_basestring_ascii)


def to_bytes(value):
    """Plain values as UTF-8 text; halves of surrogate pairs, which UTF-8 does not have, as escapes."""
    try:
        return dump(value).encode()
    except UnicodeEncodeError:
        return dump_ascii(value).encode()


def is_plain(value):
    """Whether the value is made of nothing but exact JSON types. (The encoder would write named tuples as lists.)"""
    kind = type(value)
    if kind in ATOMS:
        return True
    if kind not in CONTAINERS:
        return False
    seen, waiting = set(), [value]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if type(value) is dict:
            if not set(map(type, value)) <= TEXT:
                return False
            value = value.values()
        kinds = set(map(type, value))
        if not kinds <= PLAIN:
            return False
        if not kinds <= ATOMS:
            waiting.extend(item for item in value if type(item) in CONTAINERS)
    return True


def encode(value):
    """Any value as JSON, in bytes."""
    kind = type(value)
    if kind is int:
        return b"%d" % value
    try:
        if is_plain(value):
            return to_bytes(value)
    except (ValueError, TypeError):
        pass  # NaN, or a list that contains itself: the long way makes nulls of one and names the other.
    except RecursionError:
        raise NoJson("it is nested too deeply") from None
    try:
        return to_bytes(Converter().plain(value))
    except RecursionError:
        raise NoJson("it is nested too deeply") from None


class Converter:
    """Makes plain values of others. What it does not know has no JSON form."""

    def __init__(self):
        self.open = set()

    def plain(self, value):
        kind = type(value)
        if kind is float:
            return value if -INFINITY < value < INFINITY else None
        if kind in ATOMS:
            return value
        if id(value) in self.open:
            raise NoJson("it contains itself: circular reference to a %s" % name_of(kind))
        if len(self.open) >= MOST_DEPTH:
            raise NoJson("it is nested too deeply")
        self.open.add(id(value))
        try:
            return self.container(value, kind) if kind in CONTAINERS else self.other(value, kind)
        finally:
            self.open.discard(id(value))

    def container(self, value, kind):
        if kind is dict:
            return self.mapping(value.items())
        return self.sequence(value)

    def sequence(self, items):
        kinds = set(map(type, items))
        if kinds <= ATOMS and float not in kinds:
            return items
        result = []
        for item in items:
            try:
                result.append(self.plain(item))
            except NoJson as error:
                raise error.below(len(result)) from None
        return result

    def mapping(self, items):
        result = {}
        for key, value in items:
            try:
                text = key if type(key) is str else self.key(key)
                if text in result:
                    raise NoJson("two keys are %r as text" % text)
                result[text] = self.plain(value)
            except NoJson as error:
                raise error.below(key) from None
        return result

    def key(self, key):
        if type(key) is float:
            return repr(key)
        plain = self.plain(key)
        return plain if isinstance(plain, str) else dump(plain)

    def other(self, value, kind):
        for type_, convert in converters():
            if isinstance(value, type_):
                return self.plain(convert(value))
        if hasattr(kind, "__dataclass_fields__"):
            return self.mapping((name, getattr(value, name)) for name in kind.__dataclass_fields__
                                if hasattr(value, name))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self.mapping(zip(value._fields, value))
        if isinstance(value, (list, tuple, range)):
            return self.sequence(list(value))
        if isinstance(value, mapping_type()):
            return self.mapping(value.items())
        if not isinstance(value, type):
            found, plain = duck(value, kind)
            if found:
                return self.plain(plain)
        raise NoJson("%s is no JSON type" % name_of(kind))


def mapping_type():
    from collections.abc import Mapping
    return Mapping


_converters = None


def converters():
    """What is done with the standard library's types, in this order. Made when it is first needed."""
    global _converters
    if _converters is None:
        import collections
        import datetime
        import decimal
        import enum
        import fractions
        import pathlib
        import types
        import uuid
        from collections import abc
        _converters = [
            (enum.Enum, lambda value: value.value),
            (str, str.__str__),
            (int, int),
            # numpy.float64 is a float, too.
            (float, float.__float__),
            (complex, lambda value: [value.real, value.imag]),
            ((bytes, bytearray, memoryview), text_of),
            ((datetime.datetime, datetime.date, datetime.time), lambda value: value.isoformat() if value == value else None),
            (datetime.timedelta, lambda value: value.total_seconds() if value == value else None),
            (pathlib.PurePath, str),
            (decimal.Decimal, lambda value: str(value) if value.is_finite() else None),
            ((uuid.UUID, fractions.Fraction), str),
            ((collections.deque, abc.KeysView, abc.ValuesView, abc.ItemsView), list),
            (abc.Set, in_order),
            ((types.GeneratorType, abc.Iterator), all_of),
            ((types.CoroutineType, types.AsyncGeneratorType), awaited),
        ]
    return _converters


def text_of(value):
    """Bytes are text, where they are UTF-8, and else base64."""
    value = bytes(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        import base64
        return base64.b64encode(value).decode()


def in_order(value):
    """The order in a set of strings is another one in each process."""
    try:
        return sorted(value)
    except TypeError:
        return list(value)


def all_of(items):
    from itertools import islice
    result = list(islice(items, MOST_ITEMS + 1))
    if len(result) > MOST_ITEMS:
        raise NoJson("an iterator with more than %d items" % MOST_ITEMS)
    return result


_loop = None


def awaited(value):
    """What an `async` function gives, on an event loop that is kept."""
    global _loop
    import asyncio
    if _loop is None:
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
    if not hasattr(value, "__aiter__"):
        return _loop.run_until_complete(value)

    async def collect():
        return [item async for item in value]
    return _loop.run_until_complete(collect())


def duck(value, kind):
    """Arrays, scalars and tables of other libraries, without importing them: whether it is one, and what it is made of."""
    for method in ("to_dicts", "model_dump"):
        if callable(getattr(value, method, None)):
            return True, getattr(value, method)()
    if callable(getattr(value, "to_dict", None)):
        # A pandas.DataFrame is a list of rows.
        return True, value.to_dict("records") if hasattr(value, "iterrows") else value.to_dict()
    dtype = getattr(getattr(value, "dtype", None), "kind", None)
    if dtype == "M" and hasattr(value, "astype"):
        return True, without(value.astype(str).tolist(), "NaT")
    if dtype == "m" and hasattr(value, "astype"):
        nanoseconds = value.astype("timedelta64[ns]").astype("int64").tolist()
        return True, without(nanoseconds, -2**63, lambda item: item / 1e9)
    if kind.__name__ in ("NAType", "NaTType"):
        return True, None
    for method in ("tolist", "to_list", "item"):
        if callable(getattr(value, method, None)):
            plain = getattr(value, method)()
            # numpy.longdouble is its own item.
            if type(plain) is kind:
                if not hasattr(kind, "__float__"):
                    break
                plain = float(plain)
            return True, plain
    if hasattr(kind, "__attrs_attrs__"):
        return True, {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    return False, None


def without(value, missing, convert=lambda item: item):
    if isinstance(value, list):
        return [without(item, missing, convert) for item in value]
    return None if value == missing else convert(value)


def name_of(kind):
    return kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else kind.__module__ + "." + kind.__qualname__


# ---- Failures ----

MOST_MESSAGE, MOST_TRACEBACK = 1 << 14, 1 << 17


def cut(text, most):
    """Text for people: not too long, and without halves of surrogate pairs, which not everybody can read."""
    text = text if len(text) <= most else text[:most // 2] + "\n[…]\n" + text[-most // 2:]
    return text.encode("utf-8", "backslashreplace").decode()


def users_frames(error, seen):
    """Takes our own frames off the beginning of the traceback, here and in what it was caused by."""
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
        text = "<its text cannot be had: str() of it raises>"
    return cut(name_of(type(error)) + (": " + text if text else ""), MOST_MESSAGE)


def describe(error):
    """An exception as {"kind": …, "message": …, "traceback": …}."""
    if isinstance(error, NoJson):
        return {"kind": "encode", "message": cut(str(error), MOST_MESSAGE)}
    if isinstance(error, NoBatch):
        return {"kind": "batch", "message": str(error)}
    kind = "exit" if isinstance(error, SystemExit) else "exception"
    message = message_of(error)
    if kind == "exit":
        message = "the function ended Python: sys.exit(%s)" % ("" if error.code is None else cut(repr(error.code), 200))
    try:
        import traceback
        users_frames(error, set())
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException:
        text = ""
    return {"kind": kind, "message": message, "traceback": cut(text, MOST_TRACEBACK)}


def failure(error, since):
    return b"e%d %b\n" % (now() - since, to_bytes(describe(error)))


# ---- The environment of each record ----

def environment_setter(name):
    """A function that sets one environment variable, for Python and for the programs it starts.

    The C library keeps every value that it was ever given. So it gets one buffer, once, which is written again and again.
    """
    key, begin = name.encode(), name.encode() + b"="
    try:
        import ctypes
        data = os.environ._data
        assert type(data) is dict
        os.environ[name] = "0"
        assert data[key] == b"0"
        buffer = ctypes.create_string_buffer(begin + b"0" * 24)
        put = ctypes.CDLL(None).putenv
        put.argtypes = [ctypes.c_char_p]
        # The C library reads it until the process has ended.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(buffer))
        assert put(ctypes.cast(buffer, ctypes.c_char_p)) == 0
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
    """Said in words; no traceback helps."""


def load(target):
    """Imports the module of a target; gives it, its name for people and the function's name."""
    import importlib
    place, _, function = target.rpartition(":")
    sys.dont_write_bytecode = True
    if not (place.endswith(".py") or "/" in place):
        if sys.path[:1] != [""]:
            sys.path.insert(0, "")
        sys.argv = [place]
        return importlib.import_module(place), place, function
    import importlib.util
    from importlib.machinery import SourceFileLoader
    path = os.path.abspath(place)
    name = os.path.splitext(os.path.basename(path))[0]
    name = "_main" if name == "__main__" else name
    folder = os.path.dirname(os.path.realpath(path))
    if sys.path[:1] == [""]:
        del sys.path[0]
    sys.path.insert(0, folder)
    sys.argv = [place]
    spec = importlib.util.spec_from_file_location(name, path, loader=SourceFileLoader(name, path))
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
        raise CannotStart("%s in %s is no function, but of type %s" % (function, place, name_of(type(found))))
    return found


def start(target, setup):
    """The user's function, ready to be called."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close_pipes)
    if hasattr(sys, "set_int_max_str_digits"):
        # The limit protects servers from strangers; these numbers are the user's own.
        sys.set_int_max_str_digits(0)
    try:
        # What was printed must not be lost in a crash.
        sys.stdout.reconfigure(line_buffering=True)
        # A crash in C code says where it was.
        import faulthandler
        if not faulthandler.is_enabled():
            faulthandler.enable()
    except Exception:
        pass
    module, place, name = load(target)
    function = find(module, place, name)
    if setup:
        prepared = find(module, place, setup)()
        if hasattr(prepared, "__await__"):
            awaited(prepared)
    return function


def start_or_say_why(target, setup):
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
    """Lists of whole lines, as many as are there."""
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
    """A function from JSON text to the value; nothing is built for each call, and no encoding is guessed."""
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
        raise TypeError("--star wants a list or an object in each record, not %s" % json.dumps(record)[:200])
    return call


def serve(function, parse, set_job, set_attempt, set_seed):
    """One call for each record."""
    for lines in requests():
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
            # What this record made is gone before the next one comes.
            result = None
            send(answer)


def results_of(function, records):
    """Calls the function with a list, which must give as many results."""
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
        results = results.to_dict("records")
    elif hasattr(results, "tolist") and getattr(getattr(results, "dtype", None), "kind", None) not in ("m", "M"):
        results = results.tolist()
    elif hasattr(results, "__iter__") and not isinstance(results, (str, bytes, mapping_type())):
        results = list(results)
    if not isinstance(results, list):
        raise NoBatch("a function for --batch must return a list, not %s" % name_of(kind))
    return results


def alone(compute):
    """The answer to one record of a batch."""
    since = now()
    try:
        result = encode(compute())
        return b"r%d %b\n" % (now() - since, result)
    except BaseException as error:
        return failure(error, since)


def serve_batch(function, records):
    """Sends the answers to a whole batch, and says whether it could."""
    since, size = now(), len(records)
    try:
        results = results_of(function, records)
    except BaseException as error:
        # A function that does not know of batches would only seem to do right when it is called with one record.
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


def serve_batches(function, parse, set_job, set_attempt, set_seed):
    """One call for each list of records. When it raises, each record is called alone, so that only the guilty ones fail."""
    for lines in requests():
        for line in lines:
            jobs, attempts, seeds, body = line.split(b" ", 3)
            heads = list(zip(jobs.split(b","), attempts.split(b","), seeds.split(b",")))
            set_head(heads[0], set_job, set_attempt, set_seed)
            if serve_batch(function, parse(body)):
                continue
            # The function may have changed the records that it was given.
            for head, record in zip(heads, parse(body)):
                set_head(head, set_job, set_attempt, set_seed)
                send(alone(lambda: results_of(function, [record])[0]))


def set_head(head, *setters):
    for value, set_variable in zip(head, setters):
        set_variable(value)


def main():
    target, mode, setup = sys.argv[1:4]
    function = start_or_say_why(target, setup)
    setters = [environment_setter("RANKPOOL_" + name) for name in ("JOB", "ATTEMPT", "SEED")]
    # What was imported stays; it need not be looked through again and again.
    gc.freeze()
    send(b"+ %d.%d.%d\n" % sys.version_info[:3])
    if mode == "batch":
        serve_batches(function, parser(), *setters)
    else:
        serve(star_call(function) if mode == "star" else function, parser(), *setters)


main()
