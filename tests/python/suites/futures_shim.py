"""CPython's `test_concurrent_futures` with rankpool's `Executor` in the place of `ProcessPoolExecutor`.

Wait, AsCompleted, Executor and Future run unchanged. Initializer, Shutdown and Deadlock ask for a multiprocessing
context and look at private parts of `ProcessPoolExecutor`: the mixin below stands in for these.
"""

import contextlib
import os
import subprocess
import sys
import unittest

from test import test_concurrent_futures as suite

import rankpool


class Executor(rankpool.Executor):
    """The executor with the one private part that the suite joins: a thread that ends with the executor's jobs."""

    @property
    def _executor_manager_thread(self):
        return self

    def join(self):
        self.shutdown(wait=True)


def assert_python_ok(option, code):
    """The suite's helper starts an interpreter with a script for `concurrent.futures`: here, one for rankpool. The new
    interpreter is not started by `rankpool python`: it starts `rankpool serve` itself."""
    code = code.replace("from concurrent.futures import", "from rankpool import")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", option, code],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        timeout=100,
    )
    if done.returncode != 0:
        raise AssertionError(f"the script ended with {done.returncode}:\n{done.stderr.decode()}")
    return done.returncode, done.stdout, done.stderr


suite.assert_python_ok = assert_python_ok


class RankpoolMixin(suite.ExecutorMixin):
    executor_type = Executor


class WaitTest(RankpoolMixin, suite.WaitTests, suite.BaseTestCase):
    pass


class AsCompletedTest(RankpoolMixin, suite.AsCompletedTests, suite.BaseTestCase):
    pass


class ExecutorTest(RankpoolMixin, suite.ExecutorTest, suite.BaseTestCase):
    pass


class FutureTest(suite.FutureTests):
    pass


class InitializerTest(suite.InitializerMixin, suite.BaseTestCase):
    executor_type = Executor


class FailingInitializerTest(suite.FailingInitializerMixin, suite.BaseTestCase):
    executor_type = Executor

    @contextlib.contextmanager
    def _assert_logged(self, message):
        # The initializer's exception is the cause of the executor's error: it is not logged in the script.
        yield
        self.assertIn(message.partition(": ")[2], str(self.executor._broken))


class ShutdownTest(RankpoolMixin, suite.ExecutorShutdownTest, suite.BaseTestCase):
    pass


class DeadlockTest(RankpoolMixin, suite.ExecutorDeadlockTest, suite.BaseTestCase):
    def get_context(self):
        return None


def load_tests(loader, standard_tests, pattern):
    """The tests of these classes only: those that the suite makes for its own executors are not ours."""
    cases = [value for value in globals().values() if isinstance(value, type) and issubclass(value, unittest.TestCase)]
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)
