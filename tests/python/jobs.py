"""Functions that the tests run in workers, and what they have in common."""

import os
import pickle
import sys
import time

ATTEMPTS = {}


def double(x):
    return 2 * x


def add(x, y=0, *, z=0):
    return x + y + z


def fail_at_three(x):
    if x == 3:
        raise ValueError("it is three")
    return x


def exit_at(x, bad):
    if x == bad:
        os._exit(7)
    return x


def exit_at_five(x):
    return exit_at(x, 5)


def fail_first(folder, x):
    """Fails at the first attempt of each x."""
    path = os.path.join(folder, f"attempt-{x}")
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        raise RuntimeError("the first attempt")
    return x


def wait_for(path):
    """Returns when a file is there."""
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} is not there")
        time.sleep(0.005)
    return path


def touch(path):
    with open(path, "w"):
        pass


def call(fn, argument):
    return fn(argument)


def slow(seconds):
    time.sleep(seconds)
    return seconds


def pid(_=None):
    return os.getpid()


def use_executor():
    from rankpool import Executor

    with Executor() as executor:
        return executor.submit(double, 1).result()


def hold_lock():
    import threading

    return threading.Lock()


def leave():
    sys.exit("leaving")


class Unpicklable(Exception):
    def __init__(self, what):
        super().__init__(what)
        self.what = hold_lock()


def raise_unpicklable():
    raise Unpicklable("cannot travel")


class NeedsTwo(Exception):
    """Its pickle cannot be loaded: as many exceptions of users."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def raise_needs_two():
    raise NeedsTwo("one", "two")


class Block:
    """Bytes that travel out of band, as an array's."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Block, (pickle.PickleBuffer(self.data),)


def invert(block):
    view = memoryview(block.data)
    is_writable = not view.readonly
    view[0] ^= 0xFF
    return is_writable, len(view), Block(bytearray(view))


class Loud:
    """An object whose loads are counted, by a file."""

    def __init__(self, folder):
        self.folder = folder

    def __setstate__(self, state):
        self.__dict__.update(state)
        with open(os.path.join(self.folder, f"{os.getpid()}"), "a") as file:
            file.write("x")


def folder_of(loud):
    return loud.folder


def get_folder_of(shared):
    return shared.get().folder


def set_status(text):
    global STATUS
    STATUS = text


STATUS = "not set"


def status(_=None):
    return STATUS


def raise_error(text):
    raise ValueError(text)


def first(values):
    return values[0]


def sum_of_first(values):
    return sum(values[0].get())


def fork_and_wait():
    """The exit code of a child that is forked and ends at once."""
    child = os.fork()
    if child == 0:
        os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_and_return():
    """A child that goes on behind the job must not answer in place of its parent."""
    child = os.fork()
    if child:
        return "parent", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "child", None


def print_word(word):
    print(word, end="")
    return word


def wait_if(path):
    """Waits for a file, if one is named."""
    return path if path is None else wait_for(path)


def change_together(block, folder, count):
    """The first byte of a block before this process changes it, and after `count` processes have done so."""
    view = memoryview(block.data)
    before = view[0]
    view[0] ^= 0xFF
    with open(os.path.join(folder, f"changed-{os.getpid()}"), "w"):
        pass
    deadline = time.monotonic() + 60
    while len([name for name in os.listdir(folder) if name.startswith("changed-")]) < count:
        if time.monotonic() > deadline:
            raise RuntimeError("not all processes have changed it")
        time.sleep(0.005)
    return before, view[0]


def share_and_get(shared, value):
    from rankpool import share

    return share(value).get()


def exit_at(i, last):
    """Ends the worker without a word if this is the job `last`."""
    if i == last:
        os._exit(3)
    return i


def resident_memory(_):
    """The memory of this process in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def note(path, line):
    """Adds a line to a file that all workers write to."""
    with open(path, "a") as file:
        file.write(f"{line}\n")
    return line


def note_and_first(path, line, data):
    return note(path, line), data[0], data[-1], len(data)


def note_and_sleep(path, line, seconds):
    note(path, line)
    return slow(seconds)


def wait_for_lines(path, count):
    """Returns when a file has this many lines."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with open(path) as file:
                if len(file.readlines()) >= count:
                    return count
        except FileNotFoundError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} does not have {count} lines")
        time.sleep(0.005)


def wait_and_exit(path):
    """Ends the worker without a word when a file is there."""
    wait_for(path)
    os._exit(3)


def read_with_the_lock(path):
    """Reads a byte of a pipe, and keeps the interpreter's lock meanwhile: no other thread of the worker runs."""
    import ctypes

    fd = os.open(path, os.O_RDWR)
    byte = ctypes.create_string_buffer(1)
    try:
        return ctypes.PyDLL(None).read(fd, byte, 1)
    finally:
        os.close(fd)


def inverted(block):
    """A block with the inverse of each byte."""
    return Block(bytearray(byte ^ 0xFF for byte in block.data[:1]) * len(block.data))


KEPT = []


def keep_block(block):
    KEPT.append((bytes(block.data[:1]), block))


def kept_blocks(_):
    """The first bytes of the blocks that this process keeps: as they arrived, and now."""
    time.sleep(0.002)
    return [(first, bytes(block.data[:1])) for first, block in KEPT]


def spoil_first(folder, block):
    """Changes the block and fails, at the first attempt. Returns the first byte."""
    first = block.data[0]
    memoryview(block.data)[0] = 77
    fail_first(folder, 0)
    return first
