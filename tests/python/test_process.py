"""Scripts and their processes: exit codes, ends, forks, what is printed, rank 0 that goes away."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

import jobs
import rankpool
from rankpool import Executor
from test_core import WithExecutor
from test_functions import run_script

HERE = os.path.dirname(os.path.abspath(__file__))


def children_of(pid):
    """The processes below a process, whose parents are known."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(name)] = int(fields[1])
    found, waiting = set(), [pid]
    while waiting:
        parent = waiting.pop()
        below = [child for child, its in parents.items() if its == parent and child not in found]
        found.update(below)
        waiting += below
    return found


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Ends(unittest.TestCase):
    def check(self, text, *, returncode=0, stdout=None, stderr=None):
        head = f"import sys\nsys.path.insert(0, {HERE!r})\nimport jobs\nfrom rankpool import Executor\n"
        done = run_script(head + textwrap.dedent(text))
        self.assertEqual(done.returncode, returncode, done.stderr)
        if stdout is not None:
            self.assertEqual(done.stdout, stdout, done.stderr)
        if stderr is not None:
            self.assertIn(stderr, done.stderr)
        return done

    def test_a_script_that_never_uses_its_executor_starts_nothing(self):
        done = self.check("with Executor() as executor: pass\nprint('end')", stdout="end\n")
        self.assertEqual(done.stderr, "")

    def test_jobs_that_were_left_behind_are_finished(self):
        self.check("Executor().submit(jobs.print_word, 'done')", stdout="done")
        self.check(
            "for _ in range(50): e = Executor(); e.submit(jobs.slow, 0.01); e.submit(jobs.print_word, 'x')",
            stdout="x" * 50,
        )

    def test_an_exception_and_an_exit_code_of_the_script_are_its_own(self):
        self.check(
            "Executor().submit(jobs.double, 1).result()\nraise KeyError('mine')",
            returncode=1,
            stderr="KeyError: 'mine'",
        )
        self.check("Executor().submit(jobs.double, 1).result()\nsys.exit(5)", returncode=5)

    def test_an_endless_map_that_was_left_ends_with_the_script(self):
        self.check(
            """
            import itertools
            values = Executor().map(jobs.double, itertools.count(), buffersize=20)
            print(next(values), next(values))
            """,
            stdout="0 2\n",
        )

    def test_a_map_that_was_broken_off_ends_with_the_script(self):
        self.check(
            """
            with Executor() as executor:
                for value in executor.map(jobs.slow, [0.01] * 100000):
                    break
            """
        )

    def test_submitting_at_the_end_of_the_interpreter_is_refused(self):
        self.check(
            """
            import atexit
            @atexit.register
            def last():
                try:
                    executor.submit(jobs.double, 1)
                except Exception as error:
                    print(type(error).__name__)
            executor = Executor()
            executor.submit(jobs.double, 1).result()
            """,
            stdout="RuntimeError\n",
        )

    def test_a_killed_script_leaves_no_process(self):
        with tempfile.TemporaryDirectory() as folder:
            go = os.path.join(folder, "ready")
            text = f"""
                import sys
                sys.path.insert(0, {HERE!r})
                import jobs
                from rankpool import Executor
                executor = Executor()
                executor.submit(jobs.double, 1).result()
                executor.submit(jobs.slow, 100)
                open({go!r}, "w").close()
                executor.submit(jobs.slow, 100).result()
            """
            script = subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)])
            try:
                jobs.wait_for(go)
                below = children_of(script.pid)
                self.assertTrue(below)
            finally:
                script.kill()
                script.wait()
            deadline = time.monotonic() + 30
            while any(map(is_alive, below)) and time.monotonic() < deadline:
                time.sleep(0.02)
            self.assertEqual([pid for pid in below if is_alive(pid)], [])

    def test_an_interrupt_ends_the_script(self):
        with tempfile.TemporaryDirectory() as folder:
            go = os.path.join(folder, "ready")
            text = f"""
                import sys
                sys.path.insert(0, {HERE!r})
                import jobs
                from rankpool import Executor
                executor = Executor()
                future = executor.submit(jobs.wait_for, {go!r})
                open({go!r}, "w").close()
                try:
                    executor.submit(jobs.wait_for, {go + "2"!r}).result()
                except KeyboardInterrupt:
                    open({go + "2"!r}, "w").close()
                    print(executor.submit(jobs.double, 2).result())
            """
            script = subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)], stdout=subprocess.PIPE, text=True)
            try:
                jobs.wait_for(go)
                time.sleep(0.2)
                script.send_signal(signal.SIGINT)
                output, _ = script.communicate(timeout=60)
            finally:
                script.kill()
            self.assertEqual((output, script.returncode), ("4\n", 0))

    def test_interrupts_lose_no_job_and_do_not_stop_the_end(self):
        """A user of a notebook interrupts a cell at any moment, and goes on."""
        text = f"""
            import os, random, signal, sys, threading, time
            sys.path.insert(0, {HERE!r})
            import jobs
            from rankpool import Executor

            def interrupt():
                while not stop.wait(random.random() * 0.02):
                    os.kill(os.getpid(), signal.SIGINT)

            executor = Executor()
            executor.submit(jobs.double, 1).result()
            block = jobs.Block(bytearray(1 << 20))
            many, stop, count = [], threading.Event(), 0
            thread = threading.Thread(target=interrupt)
            thread.start()
            while count < 60:
                try:
                    for i in range(1000):
                        many.append((2 * i, executor.submit(jobs.double, i)))
                    executor.submit(jobs.invert, block)
                    assert list(executor.map(jobs.double, range(50))) == list(range(0, 100, 2))
                except KeyboardInterrupt:
                    count += 1
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            stop.set()
            thread.join()
            assert all(value == future.result(60) for value, future in many)
            executor.shutdown()
            print("end")
        """
        done = run_script(text)
        self.assertEqual((done.stdout, done.returncode), ("end\n", 0), done.stderr)


class Forks(WithExecutor):
    def test_a_job_may_fork(self):
        self.assertEqual(self.executor.submit(jobs.fork_and_wait).result(60), 3)

    def test_a_child_that_comes_back_from_a_job_does_not_answer(self):
        many = [self.executor.submit(jobs.fork_and_return) for _ in range(4)]
        self.assertEqual([future.result(60) for future in many], [("parent", 0)] * 4)

    def test_a_forked_script_has_a_connection_of_its_own(self):
        self.assertEqual(self.executor.submit(jobs.double, 1).result(60), 2)
        future = self.executor.submit(jobs.wait_for, self.path("go"))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                try:
                    self.executor.submit(jobs.double, 2)
                except Exception as error:
                    code = 0 if "make a new Executor" in str(error) else 2
                if type(future.exception(60)) is not rankpool.PoolEnded:
                    code = 3
            finally:
                os._exit(code)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.touch("go")
        self.assertEqual(future.result(60), self.path("go"))
        self.assertEqual(self.executor.submit(jobs.double, 3).result(60), 6)

    def test_a_forked_script_may_make_a_new_executor(self):
        text = f"""
            import os, sys
            sys.path.insert(0, {HERE!r})
            import jobs
            from rankpool import Executor
            print(Executor().submit(jobs.double, 1).result(), flush=True)
            child = os.fork()
            if child == 0:
                print(Executor().submit(jobs.double, 2).result(), flush=True)
                sys.exit(3)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), Executor().submit(jobs.double, 4).result())
        """
        done = run_script(text)
        self.assertEqual(done.stdout, "2\n4\n3 8\n", done.stderr)


class Rank0(unittest.TestCase):
    def test_calls_fail_when_rank_0_goes_away_and_a_new_executor_starts_another(self):
        text = f"""
            import os, sys
            sys.path.insert(0, {HERE!r})
            import jobs
            from rankpool import Executor, PoolEnded
            executor = Executor()
            executor.submit(jobs.double, 1).result()
            future = executor.submit(jobs.slow, 100)
            many = [executor.submit(jobs.slow, 100) for _ in range(1000)]
            values = executor.map(jobs.slow, [100] * 10)
            executor._core.connection._process.kill()
            for wait in [future.result, many[-1].result, lambda: next(values), lambda: executor.submit(jobs.double, 1)]:
                try:
                    wait()
                except PoolEnded as error:
                    print("ended", end=" ")
            executor.shutdown()
            print(Executor().submit(jobs.double, 1).result())
        """
        done = run_script(text)
        self.assertEqual(done.stdout, "ended ended ended ended 2\n", done.stderr)

    def test_a_program_that_is_missing_or_ends_is_an_error_in_words(self):
        text = f"""
            import sys
            sys.path.insert(0, {HERE!r})
            import jobs
            from rankpool import Executor
            for launcher in (None, "env"):
                try:
                    Executor(launcher=launcher).submit(jobs.double, 1).result(60)
                except RuntimeError as error:
                    print(error)
        """
        for program in ("/nowhere/rankpool", "/bin/false"):
            done = run_script(text, RANKPOOL_EXE=program)
            self.assertEqual(len(done.stdout.splitlines()), 2, done)
            self.assertNotIn("Traceback", done.stderr)

    def test_a_launcher_starts_the_ranks(self):
        text = f"""
            import sys
            sys.path.insert(0, {HERE!r})
            import jobs
            from rankpool import Executor
            with Executor(launcher="env") as one, Executor(launcher=["env"]) as two, Executor() as three:
                print(*[executor.submit(jobs.double, i).result() for i, executor in enumerate([one, two, three], 1)])
        """
        done = run_script(text)
        self.assertEqual(done.stdout, "2 4 6\n", done.stderr)


class Output(unittest.TestCase):
    def test_what_a_job_prints_is_there_when_its_result_is(self):
        text = f"""
            import os, sys
            sys.path.insert(0, {HERE!r})
            import jobs
            from rankpool import Executor
            for word in ["one ", "two ", "three\\n"]:
                Executor().submit(jobs.print_word, word).result()
            os.write(1, b"four\\n")
        """
        done = run_script(text)
        self.assertEqual(done.stdout, "one two three\nfour\n", done.stderr)

    def test_a_map_shows_its_progress_on_request(self):
        text = f"""
            import sys
            if len(sys.argv) > 1:
                sys.modules["tqdm"] = None
            sys.path.insert(0, {HERE!r})
            import jobs
            from rankpool import Executor
            with Executor(progress=True) as executor:
                list(executor.map(jobs.double, range(3000)))
                list(executor.map(jobs.double, range(2000), buffersize=100))
                run = executor._start_map(jobs.fail_at_three, list(range(50)), star=False, chunksize=1, buffersize=None)
                values = run.iterate()
                for _ in range(50):
                    try:
                        next(values)
                    except ValueError:
                        pass
                list(values)
        """
        lines = run_script(text, "without").stderr.splitlines()
        self.assertEqual(len(lines), 3, lines)
        self.assertRegex(lines[0], r"^jobs.double: 3000 of 3000 jobs, .* jobs/s$")
        self.assertRegex(lines[1], r"^jobs.double: 2000 jobs, ")
        self.assertRegex(lines[2], r"^jobs.fail_at_three: 50 of 50 jobs, 1 failed, ")
        if importlib.util.find_spec("tqdm") is not None:
            shown = run_script(text).stderr
            self.assertIn("3000/3000", shown)
            self.assertIn("2000job", shown)
            self.assertIn("50/50", shown)
            self.assertIn("failed=1", shown)

    @unittest.skipIf(importlib.util.find_spec("tqdm") is None, "tqdm is not installed")
    def test_the_bar_of_tqdm_goes_around_a_map(self):
        from tqdm import tqdm

        with Executor() as executor, open(os.devnull, "w") as null:
            values = tqdm(executor.map(jobs.double, range(1000)), total=1000, file=null)
            self.assertEqual(list(values), list(range(0, 2000, 2)))
            self.assertEqual(values.n, 1000)


if __name__ == "__main__":
    unittest.main()
