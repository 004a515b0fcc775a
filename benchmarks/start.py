"""Start-up of the app: seconds from `python app.py` to the first HTML, and to the first screen in Chromium."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.error import URLError

from playwright.sync_api import Browser, sync_playwright

from benchmarks.figures import Figure, make_parser, show
from crce.errors import CrceError
from crce.files import ROOT
from crce.worker import client
from crce.worker.requests import StatusRequest

REPEATS = 5
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def main() -> None:
    show("start", __doc__, measure(), make_parser(__doc__).parse_args().keep)


def measure() -> Iterator[Figure]:
    """Starts the app repeatedly, each time with an empty home folder."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        pairs = [time_start(browser) for _ in range(REPEATS)]
        browser.close()
    html, screen = zip(*pairs, strict=True)
    yield Figure("to the first HTML", html)
    yield Figure("to the first screen in Chromium", screen)


def time_start(browser: Browser) -> tuple[float, float]:
    began = time.perf_counter()
    with serve_app() as url:
        wait_for(url)
        html = time.perf_counter() - began
        page = browser.new_page()
        page.goto(url)
        page.get_by_role("button", name="Try it").wait_for()
        screen = time.perf_counter() - began
        page.close()
    return html, screen


@contextmanager
def serve_app() -> Iterator[str]:
    """The app on a free port with an empty home folder."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        os.environ["CRCE_HOME"] = home
        command, quiet = [sys.executable, "app.py", "--port", str(port)], subprocess.DEVNULL
        process = subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()
            # The worker outlives the app by design; it may not have started yet.
            with suppress(CrceError):
                if status := client.send(StatusRequest(), 5):
                    os.kill(status.pid, signal.SIGTERM)


def wait_for(url: str) -> None:
    while True:
        try:
            urllib.request.urlopen(url).close()
            return
        except URLError:
            time.sleep(0.02)


if __name__ == "__main__":
    main()
