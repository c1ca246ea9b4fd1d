"""CPython's `_TestPool` with rankpool's `Pool` in the place of `multiprocessing.Pool`."""

import unittest

from test import _test_multiprocessing

import rankpool


class PoolTest(_test_multiprocessing._TestPool, _test_multiprocessing.ProcessesMixin, unittest.TestCase):
    TYPE = "processes"

    class Pool(rankpool.Pool):
        # The suite counts the process objects of a pool: here only their number is known.
        _pool = property(lambda self: [None] * self._processes)
