"""Opens reports of `rankpool report`, from file://, and the status page of a run in a real browser: Chromium, without a network.

    tests/python/report.py                    all tests
    tests/python/report.py Page.test_NAME     one test
    tests/python/report.py StatusPage         those of the status page

It makes a virtual environment with Playwright in it. The browser is $CHROMIUM, or `chromium` in the PATH (Debian's package
`chromium`). It leaves pictures of the page in target/report: light.png, dark.png, narrow.png, many-ranks.png, status-light.png, status-dark.png.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from environments import TARGET, Marked, environment, program, run, succeed  # noqa: E402

PICTURES = Path(os.environ.get("RANKPOOL_TARGET_BASE") or TARGET) / "report"
SECTIONS = ["summary", "notes", "course", "ranks", "times", "classes", "phases", "memory", "failed", "slowest", "missing"]

# A job that takes longer with some values, fails with others, and says things that a page must not take for markup.
JOB = """\
n=$(( ($3 * 7919 + $2 * 31) % 97 ))
sleep 0.0$(( n % 9 + 1 ))
[ "$1" = 0.1 ] && sleep 0.08
[ "$2" = 64 ] && sleep 0.1
[ $(( n % 19 )) = 0 ] && { echo "loss is <script>window.hacked=1</script> \\"NaN\\" at step $n & stops" >&2; exit 3; }
[ $(( n % 31 )) = 3 ] && [ "$RANKPOOL_ATTEMPT" = 1 ] && exit 4
[ $(( n % 41 )) = 5 ] && kill -9 $$
echo "$n"
"""


def folder_of_environment():
    return environment("browser", ["playwright"])


def write_log_of_many_ranks(path, ranks=1000, slots=8, jobs=20_000):
    """A job log of a run on many ranks, which no test machine has."""
    draw = random.Random(7)
    free = [draw.uniform(5, 60) for _ in range(ranks * slots)]
    with open(path, "w") as log:
        for number in range(1, jobs + 1):
            place = number % len(free)
            rank = place // slots
            seconds = draw.lognormvariate(4, 0.6)
            start = free[place] + draw.uniform(0.001, 0.2)
            free[place] = start + seconds
            failed = draw.random() < (0.5 if rank == 17 else 0.004)
            clock = f"2026-01-01T{int(start // 3600):02}:{int(start // 60 % 60):02}:{start % 60:06.3f}Z"
            entry = {
                "number": number, "input": {"model": draw.choice(["small", "large"]), "seed": number},
                "status": "failed" if failed else "ok", "attempts": 1, "host": f"node{rank // 4:03}", "rank": rank,
                "slot": place % (4 * slots) + 1, "start": clock, "seconds": round(seconds, 6),
                "max_rss": int(draw.lognormvariate(20.5, 0.4)), "message": "exit code 1" if failed else None,
            }
            log.write(json.dumps(entry) + "\n")


class Browser(unittest.TestCase):
    """One browser, and a folder, for all tests of a class."""

    @classmethod
    def setUpClass(cls):
        from playwright.sync_api import sync_playwright

        browser_path = os.environ.get("CHROMIUM") or shutil.which("chromium")
        if not browser_path:
            raise AssertionError("there is no browser: install Debian's package chromium, or set CHROMIUM")
        cls.folder = Path(tempfile.mkdtemp(prefix="rankpool-report-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        PICTURES.mkdir(parents=True, exist_ok=True)
        playwright = sync_playwright().start()
        cls.addClassCleanup(playwright.stop)
        # Whatever asked for another host would have to get through a proxy that is not there.
        words = ["--no-sandbox", "--proxy-server=127.0.0.1:9"]
        cls.browser = playwright.chromium.launch(executable_path=browser_path, args=words)
        cls.addClassCleanup(cls.browser.close)

    def open(self, url, **options):
        """Opens a page. What it says on the console and what it asks for is in self.said and self.asked."""
        options = {"viewport": {"width": 1000, "height": 1200}, **options}
        context = self.browser.new_context(**options)
        self.addCleanup(context.close)
        page = context.new_page()
        self.said, self.asked = [], []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(url)
        return page

    def assert_quiet(self, url):
        """Nothing was said, and nothing but this page was asked for."""
        self.assertEqual(self.said, [])
        others = [asked for asked in self.asked if not asked.startswith("data:")]
        self.assertEqual(set(others), {url})


class Page(Browser):
    """A report of a run with failures and retries."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.page_file = cls.folder / "report.html"
        grid = ["--grid", "lr=0.1,0.01,0.001", "--grid", "batch=16,32,64", "--grid", f"seed={','.join(map(str, range(1, 21)))}"]
        files = ["--journal", "run.journal", "--output", "out", "--stderr", "err", "--retries", "1", "--retry-pause", "0.1s"]
        words = [program(), "--local", "4", "--threads", "2", "run", "--progress", "off", *grid, *files]
        ended = run([*words, "--", "sh", "-c", JOB, "_", "{lr}", "{batch}", "{seed}"], cwd=cls.folder)
        if ended.returncode != 3:
            raise AssertionError(f"exit code {ended.returncode}: {ended.stderr}")
        succeed([program(), "report", "run.journal", "-o", "report.html"], cwd=cls.folder)

    def open(self, file=None, **options):
        return super().open((file or self.page_file).as_uri(), **options)

    def assert_quiet(self, file=None):
        super().assert_quiet((file or self.page_file).as_uri())
        self.assertEqual(len([url for url in self.asked if not url.startswith("data:")]), 1)

    def test_everything_is_there_without_a_network_and_without_a_script(self):
        page = self.open()
        self.assertEqual([h2.get_attribute("id") for h2 in page.query_selector_all("h2")], SECTIONS)
        self.assertEqual(page.title(), "run.journal: report of a run of rankpool")
        self.assertIn("180 jobs in", page.inner_text("header"))
        self.assertEqual(page.evaluate("window.hacked"), None)
        text = page.inner_text("main")
        for wanted in ("#SBATCH --time=", "#SBATCH --mem=", "--resume --retry-failed", 'loss is <script>window.hacked=1</script> "NaN"'):
            self.assertIn(wanted, text)
        # Every picture is as large as it should be, inside of the page, and has marks and labels in it.
        pictures = page.query_selector_all("svg")
        self.assertGreaterEqual(len(pictures), 8)
        for picture in pictures:
            box = picture.bounding_box()
            self.assertTrue(box["x"] >= 0 and 300 < box["width"] <= 1000 - box["x"] and box["height"] > 50, box)
            self.assertGreater(len(picture.query_selector_all("rect, polyline, polygon, line")), 1)
            for label in picture.query_selector_all("text"):
                self.assertTrue(label.text_content().strip())
        page.screenshot(path=PICTURES / "light.png", full_page=True)
        self.assert_quiet()
        self.assertEqual(page.query_selector_all("script"), [])

    def test_no_label_of_a_chart_is_cut_off(self):
        page = self.open()
        cut = page.evaluate(
            "[...document.querySelectorAll('svg.chart text')].filter(text => {"
            "  const inner = text.getBoundingClientRect(), outer = text.ownerSVGElement.getBoundingClientRect();"
            "  return inner.left < outer.left - 2 || inner.right > outer.right + 2 || inner.top < outer.top - 4 || inner.bottom > outer.bottom + 4;"
            "}).map(text => text.textContent)"
        )
        self.assertEqual(cut, [])

    def test_a_screen_reader_finds_names_for_all_it_meets(self):
        page = self.open()
        images = page.get_by_role("img").all()
        self.assertEqual(len(images), len(page.query_selector_all("svg")))
        for image in images:
            self.assertGreater(len(image.get_attribute("aria-label")), 20)
        for section in SECTIONS:
            self.assertEqual(page.locator(f"section[aria-labelledby={section}]").count(), 1)
        self.assertEqual(page.get_by_role("navigation").count(), 1)
        self.assertEqual(page.get_by_role("main").count(), 1)
        self.assertEqual(page.locator("th:not([scope])").count(), 0)
        self.assertEqual(page.evaluate("document.documentElement.lang"), "en")
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
        self.assertEqual(levels[0], 1)
        self.assertTrue(all(after - before <= 1 for before, after in zip(levels, levels[1:])), levels)

    def test_the_keyboard_reaches_everything(self):
        page = self.open()
        page.keyboard.press("Tab")
        self.assertEqual(page.evaluate("document.activeElement.className"), "skip")
        self.assertGreaterEqual(page.locator(".skip").bounding_box()["x"], 0, "it is seen when it has the focus")
        for section in SECTIONS:
            page.keyboard.press("Tab")
            self.assertEqual(page.evaluate("document.activeElement.getAttribute('href')"), f"#{section}")
        page.focus("section[aria-labelledby=ranks] summary")
        self.assertFalse(page.locator("section[aria-labelledby=ranks] table").is_visible())
        page.keyboard.press("Enter")
        self.assertTrue(page.locator("section[aria-labelledby=ranks] table").is_visible())
        self.assertEqual(page.locator("section[aria-labelledby=ranks] tbody tr").count(), 8)

    def test_a_dark_page_has_dark_charts_and_enough_contrast(self):
        colours = {}
        for scheme in ("light", "dark"):
            page = self.open(color_scheme=scheme)
            colours[scheme] = page.evaluate(
                "['body', 'svg.chart rect', 'svg.chart polyline[stroke-width=\"2\"]', 'svg.chart text', '.notes li', 'figcaption', 'td.bad', 'a']"
                ".map(of => { const style = getComputedStyle(document.querySelector(of)); return of === 'body'"
                " ? style.backgroundColor : of.startsWith('svg.chart p') ? style.stroke : of.startsWith('svg')"
                " ? style.fill : style.color; })"
            )
            self.assert_quiet()
            if scheme == "dark":
                page.screenshot(path=PICTURES / "dark.png", full_page=True)
        for light, dark in zip(colours["light"], colours["dark"]):
            self.assertNotEqual(light, dark)
        for scheme, (background, *others) in colours.items():
            for colour in others:
                least = 3 if colour in others[:2] else 4.5  # Marks and texts.
                self.assertGreaterEqual(contrast(background, colour), least, f"{scheme}: {colour} on {background}")

    def test_without_scripts_and_on_a_narrow_screen_it_is_the_same_page(self):
        page = self.open(java_script_enabled=False, viewport={"width": 400, "height": 900})
        page.screenshot(path=PICTURES / "narrow.png", full_page=True)
        self.assertEqual(page.locator("h2").count(), len(SECTIONS))
        page = self.open(viewport={"width": 400, "height": 900})
        self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 400)

    def test_a_thousand_ranks_are_readable(self):
        log = self.folder / "many.jsonl"
        write_log_of_many_ranks(log)
        file = self.folder / "many.html"
        succeed([program(), "report", str(log), "-o", str(file)])
        self.assertLess(file.stat().st_size, 700_000)
        page = self.open(file)
        chart = page.locator("section[aria-labelledby=ranks] svg")
        labels = [label for label in chart.locator("text").all_text_contents() if "ranks" in label]
        self.assertTrue(20 <= len(labels) <= 40, labels)
        heights = page.evaluate(
            "[...document.querySelectorAll('section[aria-labelledby=ranks] svg text')].map(text => text.getBoundingClientRect().height)"
        )
        self.assertGreater(min(heights), 9, "labels can be read")
        self.assertLess(page.evaluate("document.querySelectorAll('*').length"), 8000)
        page.screenshot(path=PICTURES / "many-ranks.png", full_page=True)
        self.assert_quiet(file)


class StatusPage(Browser):
    """The page of `--serve-status`, while jobs wait for a file to go away."""

    def setUp(self):
        self.gate = self.folder / "gate"
        self.gate.touch()
        marked = Marked()
        self.addCleanup(marked.end)
        job = 'n=${1#<b>}; [ $n -le 4 ] || while [ -e gate ]; do sleep 0.05; done; [ $n -gt 8 ] || [ $n -lt 3 ] || exit 1; sleep 0.02'
        words = [program(), "--local", "2", "run", "--progress", "off", "-o", "out", "--serve-status", "0"]
        words += ["--args", *(f"<b>{number}" for number in range(1, 2001)), "--", "sh", "-c", job, "_", "{}"]
        self.process = subprocess.Popen(
            words, cwd=self.folder, env=marked.variables, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.addCleanup(self.end)
        self.url = self.process.stderr.readline().split(" is at ")[-1].strip()
        self.assertRegex(self.url, r"^http://127\.0\.0\.1:\d+/$")

    def end(self):
        self.process.terminate()
        self.process.communicate(timeout=60)

    def until(self, page, condition):
        """Waits for a condition. Not with Playwright's own function, which the page forbids: it evaluates text inside of the page."""
        from playwright.sync_api import Error

        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if page.evaluate(condition):
                    return
            except Error as error:
                # The page is being loaded again.
                if "context was destroyed" not in str(error):
                    raise
            page.wait_for_timeout(50)
        self.fail(f"not within a minute: {condition}\n{page.content()}")

    def test_it_shows_the_run_and_refreshes_itself_without_a_script_and_without_other_hosts(self):
        page = self.open(self.url)
        self.until(page, "document.querySelector('progress')?.value == 4")
        self.assertEqual(page.locator("tbody tr").count(), 2)
        self.until(page, "document.querySelector('tbody')?.innerText.includes('<b>')")
        self.assertEqual(page.query_selector_all("script, b"), [])
        self.assertEqual(page.get_by_role("progressbar").get_attribute("aria-label"), "jobs that are settled")
        loaded = self.asked.count(self.url)
        self.gate.unlink()
        self.until(page, "document.querySelector('progress')?.value > 4")
        self.assertGreater(self.asked.count(self.url), loaded, "it was loaded again, by itself")
        self.until(page, "document.body?.innerText.includes('6 failed')")
        self.assert_quiet(self.url)
        self.assertIsNone(self.process.poll(), "the run goes on")

    def test_it_can_be_read_on_a_light_and_on_a_dark_screen(self):
        backgrounds = set()
        for scheme in ("light", "dark"):
            page = self.open(self.url, color_scheme=scheme)
            # What a lost rank would have, and the background that the browser chooses.
            background, *others = page.evaluate(
                "(() => { const row = document.querySelector('tbody tr'); row.className = 'bad';"
                " document.querySelector('h1').style.backgroundColor = 'Canvas';"
                " return [getComputedStyle(document.querySelector('h1')).backgroundColor,"
                " ...[row, ...document.querySelectorAll('h1, p, th, a')].map(of => getComputedStyle(of).color)] })()"
            )
            backgrounds.add(background)
            page.screenshot(path=PICTURES / f"status-{scheme}.png")
            for colour in others:
                self.assertGreaterEqual(contrast(background, colour), 4.5, f"{scheme}: {colour} on {background}")
            self.assert_quiet(self.url)
        self.assertEqual(len(backgrounds), 2, backgrounds)


def contrast(one, other):
    """Returns the contrast of two colours as WCAG defines it."""

    def luminance(colour):
        parts = [int(part.strip()) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


if __name__ == "__main__":
    if Path(sys.prefix) != folder_of_environment():
        python = folder_of_environment() / "bin/python"
        os.execv(python, [str(python), os.path.abspath(__file__), *sys.argv[1:]])
    unittest.main(verbosity=2)
