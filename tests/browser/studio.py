"""The studio as a test sees it: the app as a process of its own, and what a person does in its page."""

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from crce import files, runs
from crce.errors import CrceError
from crce.worker import client
from crce.worker.requests import StatusRequest
from tests.fake_hub import FakeHub
from tests.scripted_llm import ScriptedLLM
from tests.servers import find_port

SHOTS = files.ROOT / "out" / "screenshots"
PATIENCE = 600_000  # ms until a test gives up; nothing here takes that long, but the cores may have other work

# What a tab shows once it is filled.
SHOWN = {
    "Start": lambda page: page.get_by_role("button", name="horse", exact=True),
    "Curate": lambda page: page.get_by_label("certainty of puppy"),
    "Erase": lambda page: page.get_by_label("Concept").first,
    "Compare": lambda page: page.get_by_label("Your own prompts, one per line"),
    "Publish": lambda page: page.get_by_text("files in one commit"),
}


@dataclass
class App:
    url: str
    hub: FakeHub
    hub_url: str
    llm: ScriptedLLM
    process: subprocess.Popen
    home: Path


def clear(run: runs.Run) -> None:
    run.request_stop()
    until(lambda: run.state not in ("queued", "running"))
    run.delete()


def until(true) -> None:
    """Waits until it is true."""
    end = time.monotonic() + PATIENCE / 1000
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def served(environment: dict, *options: str) -> tuple[subprocess.Popen, str]:
    port = find_port()
    command = [sys.executable, "app.py", "--port", str(port), *options]
    process = subprocess.Popen(command, cwd=files.ROOT, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(process, url))
    except BaseException:
        process.kill()
        raise
    return process, url


def answers(process: subprocess.Popen, url: str) -> bool:
    assert process.poll() is None, "the app did not start"
    try:
        urllib.request.urlopen(url, timeout=PATIENCE / 1000).close()
    except OSError:
        return False
    return True


def end_worker(place: Path) -> None:
    """The worker outlives the app by design, so a test that made it ends it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRCE_HOME", str(place))
        # It may never have been needed, or have left.
        with suppress(CrceError):
            os.kill(client.send(StatusRequest(), timeout=PATIENCE / 1000).pid, 15)


def opened(browser: Browser, width: int = 1280) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    return page


def told_secrets(app: App) -> list[Path]:
    """Files of the home that hold the key."""
    texts = [path for path in app.home.rglob("*") if path.suffix in (".json", ".jsonl", ".log")]
    return [path for path in texts if "sk-canary" in path.read_text(errors="replace")]


def is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def curate(page: Page) -> None:
    """The tab with its lists: a concept is open once they are there."""
    tab(page, "Curate")
    expect(page.get_by_label("certainty of puppy")).to_be_visible()


def ask_for(page: Page, request: str) -> None:
    box = page.get_by_label("What should change?")
    box.fill(request)
    page.get_by_role("button", name="Propose").click()
    expect(box).to_have_value("")


def choose(page: Page, label: str, value: str) -> None:
    box = page.get_by_label(label).filter(visible=True).first
    box.fill(value)
    box.press("Enter")


def upload(page: Page, button: str, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=button, exact=True).click()
    chooser.value.set_files(file)


def choose_base(page: Page, base: str) -> Locator:
    """In Erase: the panel that asks for its download."""
    tab(page, "Erase")
    choose(page, "Base model", base)
    return page.locator(".download")


def shot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")
