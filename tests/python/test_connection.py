"""What a script sends, and when: here the test is rank 0."""

import gc
import os
import socket
import time
import unittest
from unittest import mock

from rankpool import Executor
from rankpool import _frames as frames
from rankpool._connection import Connection
from rankpool._frames import FrameReader, pack_frame
from rankpool._payload import dumps, loads
from rankpool._worker import Worker

SLOTS = 4
LIMIT = 30


def until(holds):
    """Wait until something holds; fails if it does not."""
    deadline = time.monotonic() + LIMIT
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError("it does not come")
        time.sleep(0.001)


class RankZero:
    """The other end of a connection."""

    def __init__(self, window):
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(LIMIT)
        with mock.patch.dict(os.environ, RANKPOOL_FD=str(theirs.detach())):
            self.connection = Connection(None)
        self._reader = FrameReader(self._socket)
        self._frames = []
        self.others = []  # the kinds of all frames that are no calls
        for kind, count, body in ((frames.WELCOME, SLOTS, b"{}"), (frames.WINDOW, window, b"")):
            self._socket.sendall(pack_frame(kind, 0, 0, 0, count, 0, 0, 0, 0.0, [body], len(body)))
        self.connection.wait_ready(LIMIT)
        until(lambda: self.connection.window == window)

    def executor(self, max_workers=None):
        """An executor that uses the connection."""
        with mock.patch("rankpool._process.connection", lambda *_: self.connection):
            return Executor(max_workers).bootup()

    def calls(self, count):
        """The next calls: `(number, first argument, session)`."""
        calls = []
        while len(calls) < count:
            header, body = self._next_frame()
            if header[0] == frames.CALL:
                calls.append((header[5], loads(bytes(body), header[1])[0][0], header[7]))
            else:
                self.others.append(header[0])
        return calls

    def _next_frame(self):
        if not self._frames:
            self._frames = [(header, bytes(body)) for header, body in self._reader.read()]
        return self._frames.pop(0)

    def wait_for(self, kind):
        """Read until a frame of this kind comes, and no call."""
        while True:
            header, _ = self._next_frame()
            if header[0] == frames.CALL:
                raise AssertionError("a call has come")
            if header[0] == kind:
                return

    def answer(self, calls):
        """Send the results of calls in one write."""
        data = dumps(None)[0]
        results = [pack_frame(frames.RESULT, 0, 0, 0, 1, number, 0, 0, 0.0, [data], len(data)) for number, *_ in calls]
        self._socket.sendall(b"".join(results))

    def close(self):
        self._socket.close()
        self.connection.close()


def arguments(calls):
    return [argument for _, argument, _ in calls]


def running(futures):
    return [at for at, future in enumerate(futures) if future.running()]


class Calls(unittest.TestCase):
    def rank_zero(self, window):
        zero = RankZero(window)
        self.addCleanup(zero.close)
        return zero

    def test_calls_are_sent_in_order_as_far_as_the_window_has_room(self):
        zero = self.rank_zero(5)
        executor = zero.executor()
        futures = [executor.submit(abs, x) for x in range(20)]
        self.assertEqual(running(futures), [0, 1, 2, 3, 4])
        waiting, seen = zero.calls(5), []
        while waiting:
            seen += arguments(waiting[:3])
            answered, waiting = waiting[:3], waiting[3:]
            zero.answer(answered)
            waiting += zero.calls(min(3, 20 - len(seen) - len(waiting)))
            until(lambda: sum(future.done() for future in futures) == len(seen))
            self.assertEqual(running(futures), arguments(waiting))
        self.assertEqual(seen, list(range(20)))
        self.assertEqual(executor._core.open, 0)

    def test_a_call_waits_behind_those_that_wait_although_the_window_has_room(self):
        zero = self.rank_zero(2)
        executor = zero.executor()
        futures = [executor.submit(abs, x) for x in range(4)]
        with mock.patch.object(zero.connection, "pump"):  # answers make no room yet
            zero.answer(zero.calls(2))
            until(lambda: futures[1].done())
            futures.append(executor.submit(abs, 4))
        self.assertEqual(running(futures), [])
        futures.append(executor.submit(abs, 5))
        zero.connection._wake_flusher.release()
        for first in (2, 4):
            calls = zero.calls(2)
            self.assertEqual(arguments(calls), [first, first + 1])
            zero.answer(calls)

    def test_an_executor_sends_as_many_calls_at_once_as_it_has_workers(self):
        zero = self.rank_zero(100)
        executor = zero.executor(max_workers=2)
        futures = [executor.submit(abs, x) for x in range(6)]
        for first in (0, 2, 4):
            calls = zero.calls(2)
            self.assertEqual((arguments(calls), running(futures)), ([first, first + 1], [first, first + 1]))
            zero.answer(calls)
            until(lambda: futures[first + 1].done())

    def test_executors_take_turns(self):
        zero = self.rank_zero(4)
        first, second = zero.executor(), zero.executor()
        futures = [executor.submit(abs, x) for executor in (first, second) for x in range(20)]
        sessions = [first._core.session, second._core.session]
        answered = []
        while len(answered) < 16:
            calls = zero.calls(4)
            answered += calls
            zero.answer(calls)
        turns = [session for _, _, session in answered[4:]]
        self.assertEqual(turns, (sessions if turns[0] == sessions[0] else sessions[::-1]) * 6)
        for future in futures:
            future.cancel()

    def test_cancelled_futures_are_not_sent_and_not_waited_for(self):
        zero = self.rank_zero(1)
        executor = zero.executor()
        futures = [executor.submit(abs, x) for x in range(6)]
        self.assertEqual([future.cancel() for future in futures], [False, True, True, True, True, True])
        futures.append(executor.submit(abs, 6))
        for expected in (0, 6):
            calls = zero.calls(1)
            self.assertEqual(arguments(calls), [expected])
            zero.answer(calls)
        until(lambda: executor._core.open == 0)
        executor.shutdown()

    def test_a_future_does_not_keep_its_function(self):
        zero = self.rank_zero(10)
        executor = zero.executor()
        fn = lambda x: x  # noqa: E731
        futures = [executor.submit(fn, x) for x in range(3)]
        zero.answer(zero.calls(3))
        until(lambda: all(future.done() for future in futures))
        self.assertEqual(zero.others.count(frames.FUNCTION), 1)
        del fn
        gc.collect()
        zero.connection.write_forgotten()
        zero.wait_for(frames.FORGET)
        self.assertEqual(len(futures), 3)

    def test_large_bytes_are_answered_in_memory(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            worker = Worker(theirs)
            for length, is_large in ((10, False), (frames.MEMFD_FROM, True)):
                worker._push(1, frames.OK, 1, 0.0, bytes(length))
                self.assertEqual(type(worker._answers.pop()) is tuple, is_large)
