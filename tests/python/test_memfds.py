"""Files in memory that are written again: nothing that is still read changes."""

import gc
import os
import tempfile
import time
import unittest
from unittest import mock

import jobs
import rankpool
from rankpool import _memfds
from rankpool._memfds import RELEASED, SEVERAL, Memfds
from test_core import WithExecutor

SIZE = 3 << 20


def block(value):
    return jobs.Block(bytearray([value]) * SIZE)


def marks(one):
    """The first, middle and last byte of a block."""
    return one.data[0], one.data[SIZE // 2], one.data[SIZE - 1]


class Written(unittest.TestCase):
    def setUp(self):
        self.memfds = Memfds()

    def filled(self, value, is_pending=False):
        return self.memfds.filled([bytes([value]) * SIZE], SIZE, is_pending)

    def received(self, memfd):
        return _memfds.mapped(os.dup(memfd.fd), SIZE, False)

    def test_a_file_is_written_again_when_its_receiver_has_released_it(self):
        first = self.filled(1)
        body = self.received(first)
        part = body[SIZE - 10 :]
        del body
        self.assertIsNot(self.filled(2), first)
        self.assertEqual(bytes(part), bytes([1]) * 10)
        del part
        gc.collect()
        self.assertIs(self.filled(3), first)
        self.assertEqual(bytes(self.received(first)[:3]), bytes([3]) * 3)

    def test_a_file_with_several_receivers_or_of_an_unanswered_call_is_not_written_again(self):
        shared = self.filled(1)
        self.received(shared)
        shared.notes[SEVERAL] = 1
        pending = self.filled(2, True)
        self.memfds.in_use[7] = pending
        self.received(pending)
        self.assertEqual(pending.notes[RELEASED], 1)
        self.assertNotIn(self.filled(3), (shared, pending))
        self.memfds.answered(7)
        self.assertIs(self.filled(4), pending)

    def test_a_file_that_a_forked_child_may_read_is_not_written_again(self):
        memfd = self.filled(1)
        body = self.received(memfd)
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        del body
        gc.collect()
        self.assertIsNot(self.filled(2), memfd)

    def test_much_larger_files_and_those_that_were_not_needed_for_some_time_are_not_kept(self):
        memfd = self.filled(1)
        self.received(memfd)
        self.assertIsNot(self.memfds.filled([bytes(1 << 20)], 1 << 20, False), memfd)
        self.memfds.prune()
        self.assertEqual(len(self.memfds), 2)
        with mock.patch("rankpool._memfds.monotonic", lambda: time.monotonic() + 2):
            self.memfds.prune()
        self.assertEqual(len(self.memfds), 0)

    def test_without_a_memfd_the_bytes_go_another_way(self):
        with mock.patch("os.memfd_create", side_effect=OSError):
            self.assertIsNone(self.filled(1))


class Travelling(WithExecutor):
    def test_results_that_the_script_keeps_do_not_change(self):
        kept = []
        for value in range(20):
            result = self.executor.submit(jobs.inverted, block(value)).result(60)
            if value % 3 == 0:
                kept.append((value, result))
        del result
        for value, result in kept:
            self.assertEqual(marks(result), (255 - value,) * 3)

    def test_arguments_that_workers_keep_do_not_change(self):
        blocks = [block(value) for value in range(12)]
        for future in [self.executor.submit(jobs.keep_block, one) for one in blocks]:
            future.result(60)
        # All workers are asked, some of them often.
        found = [self.executor.submit(jobs.kept_blocks, block(99)) for _ in range(40)]
        for future in found:
            for first, last in future.result(60):
                self.assertEqual(first, last)

    def test_arguments_of_a_call_that_is_run_again_are_as_they_were(self):
        with tempfile.TemporaryDirectory() as folder, rankpool.Executor(retries=1) as executor:
            self.assertEqual(executor.submit(jobs.spoil_first, folder, block(5)).result(60), 5)

    def test_the_memory_of_large_calls_is_used_again(self):
        self.executor.submit(jobs.inverted, block(1)).result(60)
        memfds = self.executor._core.connection._memfds
        deadline = time.monotonic() + 30
        while len(memfds) and time.monotonic() < deadline:  # those of earlier tests
            time.sleep(0.05)
        sizes = set()
        for value in range(10):
            result = self.executor.submit(jobs.inverted, block(value)).result(60)
            self.assertEqual(marks(result), (255 - value,) * 3)
            del result
            sizes.add(len(self.executor._core.connection._memfds))
        self.assertLess(max(sizes), 5)
