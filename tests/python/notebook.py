"""Runs notebooks that use rankpool: in a real Jupyter kernel, and with --browser once in JupyterLab in a real browser.

    tests/python/notebook.py                    kernels only
    tests/python/notebook.py --browser          also JupyterLab in chromium, driven by Playwright
    tests/python/notebook.py Kernel.test_NAME   one test

It makes a virtual environment with Jupyter in it. The browser is $CHROMIUM, or `chromium` in the PATH (Debian's package
`chromium`). With RANKPOOL_SCREENSHOT=FILE.png the test in the browser leaves a picture of the notebook.
"""

import base64
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from environments import PACKAGE, Marked, environment, program  # noqa: E402

PACKAGES = ["cloudpickle", "numpy", "tqdm", "matplotlib", "ipykernel", "ipywidgets", "nbclient", "nbformat"]
BROWSER_PACKAGES = ["jupyterlab", "playwright"]

# A test in a browser is only made when it is asked for.
BROWSER = "--browser" in sys.argv
PNG = b"\x89PNG\r\n\x1a\n"

FUNCTION = """\
import math
import numpy as np
from rankpool import Executor

shift = 0.5

def density(x):
    return math.exp(-(x - shift) ** 2 / 2) / math.sqrt(2 * math.pi)

xs = [float(x) for x in np.linspace(-3, 3, 61)]
executor = Executor()
"""
BAR = """\
from tqdm.auto import tqdm
ys = list(tqdm(executor.map(density, xs), total=len(xs)))
assert ys == [density(x) for x in xs]
print("highest at", round(xs[int(np.argmax(ys))], 2))
"""
OWN_BAR = """\
with Executor(progress=True) as with_bar:
    squares = list(with_bar.map(lambda x: x * x, range(500)))
print("squares", sum(squares))
"""
REDEFINED = """\
shift = -1.5
def density(x):
    return math.exp(-(x - shift) ** 2 / 4) / math.sqrt(4 * math.pi)
again = list(executor.map(density, xs))
print("highest at", round(xs[int(np.argmax(again))], 2))
"""
PLOT = """\
%matplotlib inline
import matplotlib.pyplot as plt
plt.plot(xs, ys)
plt.plot(xs, again)
plt.show()
"""
AWAITED = """\
import asyncio
print("awaited", await asyncio.wrap_future(executor.submit(pow, 2, 10)))
"""
FAILING = """\
def fails(x):
    raise ValueError(f"no root of {x}")
executor.submit(fails, -1).result()
"""
CELLS = (FUNCTION, BAR, OWN_BAR, REDEFINED, PLOT, AWAITED)


def folder_of_environment():
    return environment("notebook", PACKAGES + (BROWSER_PACKAGES if BROWSER else []))


def run_again_in_environment():
    """The tests themselves need nbclient: they run in the environment."""
    python = folder_of_environment() / "bin/python"
    os.execv(python, [str(python), os.path.abspath(__file__), *sys.argv[1:]])


def text_of(outputs):
    """All text that a cell has written."""
    return "".join(output.get("text", "") for output in outputs)


class Kernel(unittest.TestCase):
    """A kernel of its own for each test; all of its processes have a mark."""

    def setUp(self):
        self.marked = Marked(PYTHONPATH=str(PACKAGE), RANKPOOL_EXE=program(), RANKPOOL_LOCAL="2", RANKPOOL_THREADS="1")
        self.addCleanup(self.marked.end)
        self.folder = tempfile.mkdtemp(prefix="rankpool-notebook-")
        self.addCleanup(shutil.rmtree, self.folder)

    def start(self):
        """Starts a kernel without nbclient, and returns its manager and client."""
        from jupyter_client.manager import KernelManager

        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(env=self.marked.variables, cwd=self.folder)
        self.addCleanup(lambda: manager.has_kernel and manager.shutdown_kernel(now=True))
        client = manager.client()
        client.start_channels()
        self.addCleanup(client.stop_channels)
        client.wait_for_ready(timeout=60)
        return manager, client

    def ask(self, client, code, seconds=60, when_busy=None):
        """Runs a cell; returns its text and the name of its exception, if any. `when_busy` is called when it has printed."""
        texts, name = [], None
        message_id = client.execute(code)
        end = time.monotonic() + seconds
        while True:
            try:
                message = client.get_iopub_msg(timeout=max(0.1, end - time.monotonic()))
            except queue.Empty:
                self.fail(f"the cell is not done after {seconds} s; it has printed: {''.join(texts)}")
            if message["parent_header"].get("msg_id") != message_id:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                texts.append(content["text"])
                if when_busy and "busy" in content["text"]:
                    when_busy()
            elif message["msg_type"] == "error":
                name = content["ename"]
                texts.append("\n".join(content["traceback"]))
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return "".join(texts), name

    def assert_nothing_left(self):
        self.assertEqual(self.marked.left(), [])

    def test_a_notebook_with_a_bar_a_map_and_a_plot(self):
        import nbformat
        from nbclient import NotebookClient

        cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
        notebook = nbformat.v4.new_notebook(cells=cells)
        client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": self.folder}})
        client.execute(env=self.marked.variables)
        _, bar, own_bar, redefined, plot, awaited = (cell["outputs"] for cell in notebook.cells)
        self.assertIn("highest at 0.5\n", text_of(bar))
        self.assertIn("61/61", str(notebook.metadata.get("widgets", "")), "the bar, a widget, does not end at its last job")
        self.assertIn(f"squares {sum(x * x for x in range(500))}\n", text_of(own_bar))
        shown = text_of(own_bar) + "".join(str(output.get("data", "")) for output in own_bar)
        self.assertRegex(shown, "500", "the executor's own bar does not show the number of its jobs")
        self.assertIn("highest at -1.5\n", text_of(redefined))
        images = [output["data"]["image/png"] for output in plot if "image/png" in output.get("data", {})]
        self.assertEqual(len(images), 1)
        self.assertTrue(base64.b64decode(images[0]).startswith(PNG))
        self.assertIn("awaited 1024\n", text_of(awaited))
        # The first executor was never shut down: the end of the kernel ends its processes.
        self.assert_nothing_left()

    def test_a_failing_job_shows_the_traceback_of_the_worker(self):
        _, client = self.start()
        self.ask(client, FUNCTION)
        text, name = self.ask(client, FAILING)
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        self.assertEqual(name, "ValueError")
        self.assertIn("no root of -1", text)
        self.assertIn("in fails", text)
        text, name = self.ask(client, "print(executor.submit(pow, 2, 5).result())")
        self.assertEqual((text, name), ("32\n", None))

    def test_an_interrupted_cell_ends_and_the_executor_still_works(self):
        manager, client = self.start()
        self.ask(client, FUNCTION)
        code = "import time\nrun = executor.map(time.sleep, [30] * 4)\nprint('busy', flush=True)\nlist(run)"
        start = time.monotonic()
        # A moment for the cell to begin to wait; an interrupt before that is as good.
        text, name = self.ask(client, code, when_busy=lambda: (time.sleep(0.3), manager.interrupt_kernel()))
        self.assertEqual(name, "KeyboardInterrupt", text)
        self.assertLess(time.monotonic() - start, 25)
        code = "with Executor() as another: print(list(another.map(abs, [-1, -2])))"
        text, name = self.ask(client, "other = executor.submit(pow, 2, 5); print('sent')")
        self.assertEqual((text, name), ("sent\n", None))

    def test_a_restarted_kernel_leaves_no_process(self):
        manager, client = self.start()
        text, name = self.ask(client, FUNCTION + "print(list(executor.map(abs, [-1, -2])))")
        self.assertEqual((text, name), ("[1, 2]\n", None))
        before = set(self.marked.processes())
        self.assertGreater(len(before), 2, "a kernel, a rankpool, and workers")
        manager.restart_kernel(now=False)
        client.wait_for_ready(timeout=60)
        self.assert_gone(before)

    def test_a_killed_kernel_leaves_no_process(self):
        manager, client = self.start()
        code = "import time\nrun = executor.map(time.sleep, [60] * 4)\nprint('busy', flush=True)"
        self.ask(client, FUNCTION + code)
        before = set(self.marked.processes())
        self.assertGreater(len(before), 2, "a kernel, a rankpool, and workers")
        manager.signal_kernel(9)
        self.assert_gone(before)

    def assert_gone(self, processes):
        end = time.monotonic() + 30
        while processes & set(self.marked.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(processes & set(self.marked.processes()), set())


@unittest.skipUnless(BROWSER, "only with --browser")
class Browser(unittest.TestCase):
    """JupyterLab on the loopback interface, and a browser that runs all cells."""

    def setUp(self):
        self.marked = Marked(PYTHONPATH=str(PACKAGE), RANKPOOL_EXE=program(), RANKPOOL_LOCAL="2", RANKPOOL_THREADS="1")
        self.addCleanup(self.marked.end)
        self.folder = Path(tempfile.mkdtemp(prefix="rankpool-lab-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def serve(self):
        """Starts JupyterLab and returns its address."""
        words = [
            str(folder_of_environment() / "bin/jupyter"), "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
            "--IdentityProvider.token=night", "--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={self.folder}",
        ]
        places = {"HOME": str(self.folder / "home"), "JUPYTER_RUNTIME_DIR": str(self.folder / "run")}
        variables = {**self.marked.variables, **places}
        log = open(self.folder / "server.log", "w+")
        self.addCleanup(log.close)
        server = subprocess.Popen(words, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        end = time.monotonic() + 60
        while True:
            found = re.search(r"http://127\.0\.0\.1:(\d+)/lab", (self.folder / "server.log").read_text())
            if found:
                return f"http://127.0.0.1:{found.group(1)}"
            self.assertIsNone(server.poll(), (self.folder / "server.log").read_text())
            self.assertLess(time.monotonic(), end, "JupyterLab does not start")
            time.sleep(0.1)

    def test_all_cells_run_in_jupyterlab(self):
        import nbformat
        from playwright.sync_api import sync_playwright

        browser_path = os.environ.get("CHROMIUM") or shutil.which("chromium")
        self.assertTrue(browser_path, "there is no browser: install Debian's package chromium, or set CHROMIUM")
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        nbformat.write(notebook, self.folder / "sky.ipynb")
        address = self.serve()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 2400})
            try:
                page.goto(f"{address}/lab/tree/sky.ipynb?token=night&reset", timeout=60_000)
                page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
                self.run_all_cells(page)
                done = "document.body.innerText.includes('awaited 1024') || document.body.innerText.includes('Traceback')"
                page.wait_for_function(done, timeout=120_000)
                text = page.inner_text(".jp-Notebook")
                self.assertEqual(page.locator(".jp-OutputArea-output img[src^='data:image/png']").count(), 1, text)
                for wanted in ("highest at 0.5", "highest at -1.5", "squares 41541750", "61/61", "awaited 1024"):
                    self.assertIn(wanted, text)
                self.assertNotIn("Traceback", text)
                self.assertGreater(page.locator(".jp-OutputArea-output .jupyter-widgets").count(), 0, "there is no bar")
            finally:
                if os.environ.get("RANKPOOL_SCREENSHOT"):
                    page.screenshot(path=os.environ["RANKPOOL_SCREENSHOT"])
                browser.close()

    def run_all_cells(self, page):
        page.wait_for_function(
            "window.jupyterapp && window.jupyterapp.shell.currentWidget"
            " && window.jupyterapp.shell.currentWidget.sessionContext"
            " && window.jupyterapp.shell.currentWidget.sessionContext.session"
            " && window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
            " && window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'",
            timeout=60_000,
        )
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def doCleanups(self):
        result = super().doCleanups()
        self.assertEqual(self.marked.left(), [])
        return result


if __name__ == "__main__":
    if Path(sys.prefix) != folder_of_environment():
        run_again_in_environment()
    sys.argv = [word for word in sys.argv if word != "--browser"]
    unittest.main(verbosity=2)
