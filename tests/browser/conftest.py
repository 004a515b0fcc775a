"""One app with its worker, and one browser, for the tests of a file. Screenshots land in out/screenshots/."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from crce import bases, runs
from crce.concepts.library import find_concept
from crce.config import EraseConfig
from crce.worker import client
from tests.browser.studio import PATIENCE, App, clear, end_worker, is_local, opened, served, told_secrets, until
from tests.fake_hub import FakeHub
from tests.scripted_llm import ScriptedLLM
from tests.servers import serving


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("studio")
    (place / "runs").mkdir()  # a home that was used before: no example is made
    return place


@pytest.fixture(autouse=True)
def home(place, monkeypatch) -> Path:
    """The home of the one app and its worker, without the concepts, talks and runs of the test before."""
    monkeypatch.setenv("CRCE_HOME", str(place))
    for run in runs.all_runs():
        clear(run)
    for leftover in ("concepts", "history", "talks"):
        shutil.rmtree(place / leftover, ignore_errors=True)
    return place


@pytest.fixture(scope="session")
def kept(tmp_path_factory) -> Path:
    """Holds a copy of `erased` once it was made."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def erased(home, kept) -> runs.Run:
    """A finished and judged run of few steps."""
    for folder in kept.iterdir():
        shutil.copytree(folder, runs.store() / folder.name)
        return runs.find(folder.name)
    config = EraseConfig("esd-x-strict", steps=5, preview_every=0)
    run = runs.create(runs.Job(bases.EMOJI_SD, find_concept("dog"), config))
    run.request_evaluate(1)
    client.ensure_worker()
    until(lambda: run.report and run.state == "done")
    shutil.copytree(run.dir, kept / run.id)
    return run


@pytest.fixture(scope="module")
def app(place) -> Iterator[App]:
    hub, llm = FakeHub(), ScriptedLLM()
    with serving(hub.app) as hub_url, serving(llm.app) as llm_url:
        settings = {
            "CRCE_HOME": str(place), "HF_ENDPOINT": hub_url, "HF_TOKEN": "hf_good", "HF_HOME": str(place / "hf"),
            "OPENAI_BASE_URL": f"{llm_url}/v1", "OPENAI_API_KEY": "sk-canary", "CRCE_MODEL": "scripted",
        }  # fmt: skip
        process, url = served({**os.environ, **settings})
        try:
            yield App(url, hub, hub_url, llm, process, place)
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE / 1000)
            end_worker(place)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(app, browser) -> Iterator[Page]:
    """A tab that fails the test when it asks any other machine for anything, or when a script fails in it."""
    strangers, faults = [], []
    page = opened(browser)
    page.on("request", lambda request: strangers.append(request.url) if not is_local(request.url) else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    app.llm.mode = "strict"
    page.goto(f"{app.url}/?__theme=light")
    yield page
    page.close()
    assert strangers == []
    assert faults == []
    assert told_secrets(app) == []
