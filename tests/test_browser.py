"""The whole road in a real browser, against the real app and a real worker. Screenshots land in out/screenshots/."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from crce import files, glances, runs
from crce.errors import CrceError
from crce.library import load_spec
from tests.fake_hub import FakeHub
from tests.scripted_llm import ScriptedLLM, meaning, phrases
from tests.servers import serving

SHOTS = files.ROOT / "out" / "screenshots"
HOSTILE = "<img src=https://evil.example/x onerror='window.__x=1'> ${window.__x=2}"
PATIENCE = 180_000  # ms; two cores may have other work


@dataclass
class App:
    url: str
    hub: FakeHub
    llm: ScriptedLLM
    process: subprocess.Popen


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(autouse=True)
def home(place, monkeypatch) -> Path:
    """One home for the whole road: what a tab leaves, the next one finds."""
    monkeypatch.setenv("CRCE_HOME", str(place))
    return place


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
            yield App(url, hub, llm, process)
        finally:
            process.terminate()
            process.wait(timeout=20)
            end_worker(place)


def served(environment: dict) -> tuple[subprocess.Popen, str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port)]
    process = subprocess.Popen(command, cwd=files.ROOT, env=environment)
    url = f"http://127.0.0.1:{port}"
    for _ in range(1800):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return process, url
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise AssertionError("the app did not start")


def end_worker(place: Path) -> None:
    """The worker outlives the app by design, so a test that made it ends it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRCE_HOME", str(place))
        # It may never have been needed, or have left.
        with suppress(CrceError):
            os.kill(glances.ask({"kind": "status"}, timeout=5)["pid"], 15)


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
    page.goto(f"{app.url}/?__theme=light")
    yield page
    page.close()
    assert strangers == []
    assert faults == []


def opened(browser: Browser, width: int = 1280) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    return page


def is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def curate(page: Page) -> None:
    """The tab with its lists: a concept is open once they are there."""
    tab(page, "Curate")
    expect(page.get_by_label("certainty of puppy")).to_be_visible()


def shot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def test_the_first_screen_offers_the_demo_and_the_library(page):
    for name in ("Try it: erase “dog”", "horse"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()


def test_the_status_line_says_what_there_is(page):
    line = page.get_by_role("status").first
    expect(line).to_contain_text("emoji-sd")
    expect(line).to_contain_text("proposer: scripted at 127.0.0.1")
    shot(page, "start")


def test_a_slider_moved_with_the_keyboard_is_saved_and_survives_a_reload(page, home):
    page.get_by_role("button", name="dog", exact=True).click()
    slider = page.get_by_label("certainty of puppy")
    expect(slider).to_have_attribute("aria-valuetext", "high")
    slider.focus()
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "low")
    expect(page.get_by_text("saved on this machine")).to_be_visible()
    shot(page, "curate")
    page.reload()
    tab(page, "Curate")
    expect(page.get_by_label("certainty of puppy")).to_have_attribute("aria-valuetext", "low")
    saved = load_spec(home / "concepts" / "object" / "dog.json")
    assert next(term for term in saved.corefs if term.text == "puppy").certainty == "low"


def test_the_base_draws_each_term_when_idle(page):
    curate(page)
    picture = page.locator("li[data-term='puppy'] .pic")
    expect(picture).to_have_css("background-image", re.compile(r"^url\(.data:image/png;base64"))
    shot(page, "curate-drawn")


def test_terms_are_added_dropped_and_brought_back(page):
    curate(page)
    box = page.get_by_placeholder("Add to erase: one phrase, or a pasted list")
    box.fill("woofer, bow-wow")
    box.press("Enter")
    expect(page.get_by_label("drop woofer")).to_be_visible()
    expect(box).to_have_value("")
    page.get_by_label("drop woofer").click()
    expect(page.get_by_label("drop woofer")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_label("drop woofer")).to_be_visible()
    for _ in range(2):
        page.get_by_role("button", name="Undo").click()
    expect(page.get_by_label("drop bow-wow")).to_have_count(0)


def test_hostile_proposals_are_shown_as_text_and_nothing_is_applied_before_it_is_taken(app, page):
    app.llm.answer = {"meanings": [meaning(corefs=phrases("puppy", HOSTILE), retains=phrases("wolf", "gnu"))]}
    curate(page)
    page.get_by_role("button", name="Propose").click()
    expect(page.get_by_text("nothing is applied yet")).to_be_visible()
    expect(page.get_by_text("+ keep: gnu", exact=False)).to_be_visible()
    expect(page.get_by_label("drop pooch")).to_be_visible()
    shot(page, "propose")
    page.get_by_role("button", name="Take the checked ones").click()
    expect(page.get_by_label("drop gnu")).to_be_visible()
    expect(page.get_by_label("drop pooch")).to_have_count(0)
    assert page.locator("img[src*=evil]").count() == 0
    assert page.evaluate("window.__x") is None
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_label("drop pooch")).to_be_visible()


def test_a_review_is_signed(page):
    curate(page)
    page.get_by_placeholder("Your name").fill("Ada")
    page.get_by_role("button", name="Mark reviewed").click()
    expect(page.get_by_text("✓ reviewed by Ada")).to_be_visible()


def test_a_run_is_started_watched_and_survives_a_closed_tab(app, page, browser):
    curate(page)
    page.get_by_role("button", name="Erase this →").click()
    expect(page.get_by_label("Concept").first).to_have_value("dog")
    page.get_by_text("Settings", exact=True).first.click()
    page.get_by_label("Steps").fill("20")
    page.get_by_label("Judge").fill("1")
    page.get_by_role("button", name="Start", exact=True).click()
    card = page.get_by_role("article").first
    expect(card.get_by_text("running", exact=True)).to_be_visible()
    page.close()

    page = opened(browser)
    page.goto(f"{app.url}/?__theme=light")
    tab(page, "Erase")
    card = page.get_by_role("article").first
    expect(card.get_by_text(re.compile("preparing|erasing|judging"))).to_be_visible()
    shot(page, "erase-running")
    expect(card.get_by_text("done", exact=True)).to_be_visible()
    expect(page.locator(".strip img").first).to_be_visible()
    time.sleep(2)
    shot(page, "erase-done")
    page.close()
    assert runs.all_runs()[0].report["images"] == 1


def test_before_and_after_on_the_same_seeds(page):
    tab(page, "Erase")
    page.get_by_role("article").first.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("link", name="Sheet as PNG")).to_be_visible()
    expect(page.locator(".grid .mark").first).to_be_visible()
    page.get_by_role("button", name=re.compile("^dog, dog, seed 0")).click()
    expect(page.get_by_text("“dog”, seed 0: before | dog")).to_be_visible()
    expect(page.get_by_text("Wilson intervals")).to_be_visible()
    time.sleep(1)
    shot(page, "compare")
    with page.expect_download() as sheet:
        page.get_by_role("link", name="Sheet as PNG").click()
    assert Path(sheet.value.path()).read_bytes().startswith(b"\x89PNG")


def test_stop_resume_rename_and_delete(page):
    tab(page, "Erase")
    page.get_by_text("Settings", exact=True).first.click()
    page.get_by_label("Steps").fill("5000")
    page.get_by_role("button", name="Start", exact=True).click()
    card = page.get_by_role("article").first
    expect(card.get_by_text("running", exact=True)).to_be_visible()
    card.get_by_role("button", name="Stop").click()
    expect(card.get_by_text("stopped", exact=True)).to_be_visible()
    card.get_by_role("button", name="Resume").click()
    expect(card.get_by_text("running", exact=True)).to_be_visible()
    card.get_by_role("button", name="Stop").click()
    expect(card.get_by_text("stopped", exact=True)).to_be_visible()
    name = card.get_by_label("name of the run")
    name.fill("too long")
    name.press("Enter")
    expect(page.get_by_role("heading", name="too long")).to_be_visible()
    card.get_by_role("button", name=re.compile("^Delete")).click()
    expect(page.get_by_label("name of the run")).to_have_count(len(runs.all_runs()))
    assert "too long" not in [run.title for run in runs.all_runs()]


def test_a_bad_setting_is_answered_in_words(page):
    tab(page, "Erase")
    page.get_by_text("Settings", exact=True).first.click()
    page.get_by_label("Steps").fill("many")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_text("steps is 'many'; write a number").first).to_be_visible()


def test_the_dataset_is_published_after_it_was_seen(app, page):
    tab(page, "Publish")
    expect(page.get_by_text("files in one commit")).to_be_visible()
    shot(page, "publish")
    page.get_by_label("To", exact=True).first.fill("tester/CorefConcept")
    page.get_by_label("Tag").first.fill("v1")
    page.get_by_role("button", name="What would change there?").click()
    expect(page.get_by_text("does not exist yet")).to_be_visible()
    assert app.hub.repos == {}
    page.get_by_role("button", name="Publish the dataset").click()
    expect(page.get_by_text("✓ Published 1 concept")).to_be_visible()
    shot(page, "published")
    repo = app.hub.repos[("dataset", "tester/CorefConcept")]
    assert repo.private
    assert "v1" in repo.tags
    assert "data/object/train.parquet" in repo.files


def test_try_it_ends_in_compare(page):
    page.get_by_role("button", name="Try it: erase “dog”").click()
    expect(page.get_by_text(re.compile("preparing|erasing"))).to_be_visible()
    time.sleep(3)
    shot(page, "try-it")
    expect(page.get_by_role("tab", name="Compare", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("link", name="Sheet as PNG")).to_be_visible()
    shot(page, "tried")


@pytest.mark.parametrize("width", [1280, 800])
def test_it_is_readable_in_the_dark_and_in_a_small_window(app, browser, width):
    page = opened(browser, width)
    page.goto(f"{app.url}/?__theme=dark")
    for name in ("Start", "Curate", "Erase", "Compare", "Publish"):
        tab(page, name)
        time.sleep(1.5)
        shot(page, f"dark-{width}-{name.lower()}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_no_secret_is_left_behind(home):
    texts = [path for path in home.rglob("*") if path.suffix in (".json", ".jsonl", ".log")]
    assert texts
    assert not [path for path in texts if "sk-canary" in path.read_text(errors="replace")]
