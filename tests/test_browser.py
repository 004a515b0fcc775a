"""The whole road in a real browser, against the real app and a real worker. Screenshots land in out/screenshots/."""

import json
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

from crce import bases, files, runs
from crce.concepts.library import find_concept, load_spec
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.worker import client
from crce.worker.requests import StatusRequest
from tests import scripted_llm
from tests.fake_hub import FakeHub, Repo
from tests.scripted_llm import ScriptedLLM, phrases, revised
from tests.servers import serving

SHOTS = files.ROOT / "out" / "screenshots"
HOSTILE = "<img src=https://evil.example/x onerror='window.__x=1'> ${window.__x=2}"
PATIENCE = 300_000  # ms until a test gives up; nothing here takes that long, but the cores may have other work


@dataclass
class App:
    url: str
    hub: FakeHub
    llm: ScriptedLLM
    process: subprocess.Popen
    home: Path


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
            yield App(url, hub, llm, process, place)
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE / 1000)
            end_worker(place)


def served(environment: dict) -> tuple[subprocess.Popen, str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port)]
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


def shot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def test_the_first_screen_offers_the_demo_and_the_library(page):
    for name in ("Try it: erase “dog”", "horse"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()
    expect(page.locator(".shelf .pic").first).to_have_css("background-image", re.compile("^url"))


def test_the_address_leads_to_a_concept_and_the_way_back_to_the_tab_before(app, page):
    page.goto(f"{app.url}/?__theme=light&tab=curate&concept=cat")
    expect(page.get_by_role("heading", name="cat", exact=True)).to_be_visible()
    tab(page, "Erase")
    expect(page).to_have_url(re.compile("tab=erase"))
    page.go_back()
    expect(page.get_by_role("tab", name="Curate", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page).to_have_url(re.compile("tab=curate&concept=cat"))


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
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_label("drop bow-wow")).to_have_count(0)
    expect(page.get_by_label("drop woofer")).to_have_count(0)
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


def kept():
    """The lists as they lie on the disk: the shipped ones before anything is changed."""
    return find_concept("dog")


def saved(text: str, certainty: str):
    """The spec on the disk, once it has what the hand has just set."""
    until(lambda: (text, certainty) in [(t.text, t.certainty) for t in (*kept().corefs, *kept().retains)])
    return kept()


def lists(spec) -> tuple[list[dict], list[dict]]:
    """What a model would send to leave the lists as they are."""
    return tuple(
        [{"text": t.text, "certainty": t.certainty.title(), "why": ""} for t in terms]
        for terms in (spec.corefs, spec.retains)
    )


def ask_for(page: Page, request: str) -> None:
    box = page.get_by_label("What should change?")
    box.fill(request)
    page.get_by_role("button", name="Propose").click()
    expect(box).to_have_value("")


def test_three_rounds_of_talk_sliders_and_the_instant_preview(app, page):
    curate(page)
    page.get_by_label("certainty of wolf").press("ArrowLeft")
    expect(page.get_by_label("certainty of wolf")).to_have_attribute("aria-valuetext", "high")

    # A round taken whole: shown as it is written, applied only when it is taken.
    corefs, retains = lists(saved("wolf", "high"))
    app.llm.mode = "slow"
    app.llm.answer = revised("Fewer breeds.", [*corefs[:-2], *phrases("fido")], retains, hound="a breed group")
    ask_for(page, "fewer breeds")
    expect(page.get_by_text("scripted at 127.0.0.1 is writing about dog")).to_be_visible()
    expect(page.locator(".writing .chip").first).to_be_visible()
    shot(page, "talk-writing")
    expect(page.get_by_text("+ erase: fido (very high)")).to_be_visible()
    expect(page.get_by_text("a breed group")).to_be_visible()
    expect(page.get_by_label("drop hound")).to_be_visible()
    page.get_by_role("button", name="Accept all").click()
    expect(page.get_by_label("drop fido")).to_be_visible()
    expect(page.get_by_label("drop hound")).to_have_count(0)

    # A round of which one item is taken; the expert's own edit since the last round is told.
    app.llm.mode = "strict"
    page.get_by_label("certainty of fido").press("ArrowLeft")
    expect(page.get_by_label("certainty of fido")).to_have_attribute("aria-valuetext", "high")
    corefs, retains = lists(saved("fido", "high"))
    expect(page.get_by_text("1 round with scripted")).to_be_visible()
    app.llm.answer = revised("Two neighbours.", corefs, [*retains, *phrases("gnu", "yak")])
    ask_for(page, "more neighbours")
    page.get_by_role("button", name=re.compile("^accept . keep: yak")).click()
    expect(page.get_by_label("drop yak")).to_be_visible()
    expect(page.get_by_label("drop gnu")).to_have_count(0)
    asked = json.dumps(app.llm.requests[-1])
    assert "~ erase: fido (high)" in asked

    # A round that is undone.
    corefs, retains = lists(kept())
    app.llm.answer = revised("As you wish.", corefs, retains[:-1], yak="too far")
    ask_for(page, "no cattle")
    page.get_by_role("button", name="Accept all").click()
    expect(page.get_by_label("drop yak")).to_have_count(0)
    page.get_by_role("button", name="Undo this round").click()
    expect(page.get_by_label("drop yak")).to_be_visible()
    told = kept().provenance
    assert (told.rounds, told.model) == (2, "scripted")
    assert [(entry.by, entry.wish) for entry in told.history[-3:]] == [
        ("llm", "fewer breeds"), ("expert", ""), ("llm", "more neighbours"),
    ]  # fmt: skip

    # The preview follows the sliders.
    page.get_by_label("certainty of jackal").press("ArrowLeft")
    expect(page.locator(".preview figcaption", has_text="jackal")).to_be_visible()
    expect(page.locator(".preview")).to_have_attribute("aria-busy", "false")
    expect(page.locator(".preview img")).to_have_count(14)
    shot(page, "talk")

    # All of it is there after a reload.
    page.reload()
    tab(page, "Curate")
    expect(page.get_by_text("no cattle", exact=True)).to_be_visible()
    expect(page.get_by_text("too far")).to_be_visible()
    expect(page.get_by_label("drop yak")).to_be_visible()


def test_a_round_is_stopped_and_the_lists_stay(app, page):
    curate(page)
    before = kept()
    app.llm.mode, hung_up = "silent", app.llm.left
    ask_for(page, "take your time")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("You stopped it.")).to_be_visible()
    expect(page.get_by_text("is writing about")).to_have_count(0)
    assert kept() == before
    until(lambda: app.llm.left == hung_up + 1)


def test_what_goes_wrong_at_the_model_is_said_in_the_talk(app, page):
    curate(page)
    before = kept()
    app.llm.mode = "refusal"
    ask_for(page, "something forbidden")
    expect(page.get_by_text("refuses to answer")).to_be_visible()
    expect(page.get_by_text("The lists are unchanged.")).to_be_visible()
    assert kept() == before


def test_hostile_proposals_are_shown_as_text_and_nothing_is_applied_before_it_is_taken(app, page):
    app.llm.mode = "strict"
    corefs, retains = lists(kept())
    dirty = phrases(HOSTILE, *scripted_llm.HOSTILE)
    app.llm.answer = revised(HOSTILE, [*corefs, *dirty], retains)
    curate(page)
    ask_for(page, HOSTILE)
    expect(page.get_by_role("button", name="accept + erase: <script>")).to_be_visible()
    shot(page, "propose")
    page.get_by_role("button", name="Accept all").click()
    expect(page.locator("li[data-term^='<script>']")).to_be_visible()
    note = page.get_by_label("note on puppy", exact=True)
    note.fill(HOSTILE)
    note.press("Enter")
    expect(page.get_by_role("button", name="Undo this round")).to_be_visible()
    assert page.locator("img[src*=evil]").count() == 0
    assert page.evaluate("window.__x") is None
    page.get_by_role("button", name="Undo this round").click()
    expect(page.locator("li[data-term^='<script>']")).to_have_count(0)


def test_the_keyboard_undoes_and_redoes_outside_text_fields(page):
    curate(page)
    page.get_by_label("drop jackal").press("Enter")
    expect(page.get_by_label("drop jackal")).to_have_count(0)
    page.keyboard.press("Control+z")
    expect(page.get_by_label("drop jackal")).to_be_visible()
    page.keyboard.press("Control+Shift+Z")
    expect(page.get_by_label("drop jackal")).to_have_count(0)
    page.get_by_label("What should change?").press("Control+z")
    page.get_by_label("certainty of puppy").press("Control+z")
    expect(page.get_by_label("drop jackal")).to_be_visible()
    page.get_by_label("move jackal to erase").press("Space")
    expect(page.get_by_label("move jackal to keep")).to_be_visible()
    page.keyboard.press("Control+z")
    expect(page.get_by_label("move jackal to erase")).to_be_visible()

    # A review with the keyboard: keep a row, drop the next, move the one after it, and on to the next concept.
    rows = page.locator(".list.keep li[data-term]")
    first, second, third = (rows.nth(place).get_attribute("data-term") for place in range(3))
    rows.first.focus()
    page.keyboard.press("k")
    page.keyboard.press("d")
    expect(page.get_by_label(f"drop {second}", exact=True)).to_have_count(0)
    expect(page.locator(f".list.keep li[data-term='{third}']")).to_be_focused()
    page.keyboard.press("m")
    expect(page.locator(f".list.erase li[data-term='{third}']")).to_be_visible()
    expect(page.locator(f".list.keep li[data-term='{first}']")).to_be_visible()
    page.keyboard.press("n")
    expect(page.get_by_role("heading", name="Donald Trump", exact=True)).to_be_visible()


def bring(page: Page, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import", exact=True).click()
    chooser.value.set_files(file)


def test_a_bad_table_is_answered_with_its_line_and_a_good_one_is_added(page, tmp_path):
    curate(page)
    table = tmp_path / "mine.csv"
    table.write_text("kind,term,certainty\ncoref,woofer,high\ncoref,bow-wow,sure\n")
    bring(page, table)
    expect(page.get_by_text("mine.csv, line 3: certainty is 'sure'")).to_be_visible()
    expect(page.get_by_label("drop woofer")).to_have_count(0)
    table.write_text("kind,term,certainty\ncoref,woofer,high\ncoref,bow-wow,low\n")
    bring(page, table)
    expect(page.get_by_label("drop woofer")).to_be_visible()
    page.get_by_role("button", name="Undo", exact=False).first.click()
    expect(page.get_by_label("drop woofer")).to_have_count(0)


def test_two_windows_at_one_concept_never_overwrite_silently(app, page, browser):
    curate(page)
    other = opened(browser)
    other.goto(f"{app.url}/?__theme=light")
    curate(other)
    page.get_by_label("drop coyote").click()
    expect(page.get_by_label("drop coyote")).to_have_count(0)
    other.get_by_label("certainty of puppy").press("ArrowRight")
    alert = other.get_by_role("alert").filter(has_text="Another window changed these lists")
    expect(alert).to_contain_text("− keep: coyote")
    shot(other, "conflict")
    other.get_by_role("button", name="Load theirs").click()
    expect(other.get_by_label("drop coyote")).to_have_count(0)
    expect(alert).to_have_count(0)
    other.close()
    assert "coyote" not in [term.text for term in kept().retains]
    page.get_by_role("button", name="Undo", exact=False).first.click()
    expect(page.get_by_label("drop coyote")).to_be_visible()


def test_the_map_names_its_dots(page):
    curate(page)
    page.get_by_text("How far is each term from the concept?").click()
    top = page.locator(".map .dot").last
    top.locator("circle").hover()
    expect(top.locator("text")).to_have_css("opacity", "1")
    dot = page.locator(".map .dot.keep").filter(has_text="coyote")
    dot.focus()
    expect(dot.locator("text")).to_have_css("opacity", "1")
    expect(page.locator(".far tbody tr").first).to_be_visible()
    shot(page, "distances")


def test_a_review_is_signed(page):
    curate(page)
    page.get_by_placeholder("Your name").fill("Ada")
    page.get_by_role("button", name="Mark reviewed").click()
    expect(page.get_by_text("✓ reviewed by Ada")).to_be_visible()


def test_an_anchor_is_previewed_and_goes_into_the_run(page):
    curate(page)
    after = page.locator(".preview figure.target img").last
    expect(page.locator(".preview")).to_have_attribute("aria-busy", "false")
    nothing = after.get_attribute("src")
    page.get_by_label("Draw it as").fill("horse")
    expect(after).not_to_have_attribute("src", nothing)
    shot(page, "anchor-preview")
    page.get_by_role("button", name="Erase this →").click()
    page.get_by_text("Settings", exact=True).first.click()
    drawn_as = page.get_by_label("Draw as")
    expect(drawn_as).to_have_value("horse")
    page.get_by_label("Erase only from").fill("cat")
    expect(page.get_by_text("exclude each other")).to_be_visible()
    page.get_by_label("Erase only from").fill("")
    page.get_by_label("Steps").fill("5")
    page.get_by_label("Judge", exact=True).fill("0")
    shot(page, "anchor-form")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("article").first.get_by_text("done", exact=True)).to_be_visible()
    assert runs.all_runs()[0].job.config.anchor == "horse"
    drawn_as.fill("puppy")
    expect(page.get_by_text("is erased itself, as 'puppy'")).to_be_visible()


def test_a_run_is_started_watched_and_survives_a_closed_tab(app, page, browser):
    curate(page)
    page.get_by_role("button", name="Erase this →").click()
    expect(page.get_by_label("Concept").first).to_have_value("dog")
    page.get_by_text("Settings", exact=True).first.click()
    page.get_by_label("Steps").fill("20")
    page.get_by_label("Judge", exact=True).fill("1")
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
    expect(page).to_have_title("✓ dog done")
    expect(page.locator(".strip img").first).to_be_visible()
    shot(page, "erase-done")
    page.close()
    assert runs.all_runs()[0].report.images == 1


@pytest.fixture
def erased(home) -> runs.Run:
    """A finished and judged run of few steps."""
    config = EraseConfig("esd-x-strict", steps=5, preview_every=0)
    run = runs.create(runs.Job(bases.EMOJI_SD, find_concept("dog"), config))
    run.request_evaluate(1)
    client.ensure_worker()
    until(lambda: run.report and run.state == "done")
    return run


def test_before_and_after_on_the_same_seeds(erased, page):
    tab(page, "Erase")
    page.get_by_role("article").first.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("link", name="Sheet as PNG")).to_be_visible()
    expect(page.locator(".grid .mark").first).to_be_visible()
    page.get_by_role("button", name=re.compile("^dog, dog, seed 0")).click()
    expect(page.get_by_text("“dog”, seed 0: before | dog")).to_be_visible()
    expect(page.get_by_text("Wilson intervals")).to_be_visible()
    shot(page, "compare")


def test_a_person_judges_with_the_keyboard(erased, page):
    tab(page, "Erase")
    page.get_by_role("article").first.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("link", name="Sheet as PNG")).to_be_visible()
    page.get_by_role("button", name="Judge the pictures yourself").click()
    for number, key in enumerate("ynu", 1):
        page.keyboard.press(key)
        expect(page.get_by_text(re.compile(f"^{number} of .* answered"))).to_be_visible()
    page.keyboard.press("b")
    expect(page.get_by_role("button", name="Cannot tell", pressed=True)).to_be_visible()
    assert [verdict.answer for verdict in erased.person][-1] == "unclear"
    assert {verdict.answer for verdict in erased.person} == {"yes", "no", "unclear"}
    expect(page.get_by_text("you and the judge embedded")).to_be_visible()
    shot(page, "compare-person")


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
    name = card.get_by_label("run name")
    name.fill("too long")
    name.press("Enter")
    expect(page.get_by_role("heading", name="too long")).to_be_visible()
    card.get_by_role("button", name=re.compile("^Delete")).click()
    expect(page.get_by_label("run name")).to_have_count(len(runs.all_runs()))
    assert "too long" not in [run.title for run in runs.all_runs()]


def test_a_base_from_the_hub_is_asked_for_downloaded_and_erased(app, page, blind):
    """Without a judge, and without the Hub once it is here."""
    app.hub.repos["model", "tester/sd"] = repo = Repo.of(blind)
    tab(page, "Erase")
    choose(page, "Base model", "tester/none")
    panel = page.locator(".download")
    expect(panel).to_contain_text("The Hub has no model 'tester/none'")
    expect(panel.get_by_role("button", name="Try again")).to_be_visible()

    choose(page, "Base model", "tester/sd")
    expect(panel).to_contain_text(
        "tester/sd is not on this machine: 0.5 MB to download, about 0.4 MB of memory in fp32"
    )
    shot(page, "download-asked")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_text("Press Download above first.")).to_be_visible()
    assert runs.all_runs() == [] and repo.downloads == 0

    repo.paused = True
    panel.get_by_role("button", name="Download").click()
    expect(panel).to_contain_text(re.compile("Downloading tester/sd: .* of 0.5 MB"))
    shot(page, "download-running")
    panel.get_by_role("button", name="Cancel").click()
    expect(panel.get_by_role("button", name="Download")).to_be_visible()
    repo.paused = False
    panel.get_by_role("button", name="Download").click()
    expect(panel).to_have_count(0)
    expect(page.get_by_text("The base has no judge: compare by eye.")).to_be_visible()

    app.hub.fail["info"] = app.hub.fail["resolve"] = [500] * 50
    page.get_by_text("Settings", exact=True).first.click()
    page.get_by_label("Steps").fill("2")
    page.get_by_role("button", name="Start", exact=True).click()
    card = page.get_by_role("article").first
    expect(card.get_by_text("done", exact=True)).to_be_visible()
    shot(page, "erase-unjudged")
    app.hub.fail.clear()
    card.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("link", name="Sheet as PNG")).to_be_visible()


def choose(page: Page, label: str, value: str) -> None:
    box = page.get_by_label(label).filter(visible=True).first
    box.fill(value)
    box.press("Enter")


def test_a_bad_setting_is_answered_in_words(page):
    tab(page, "Erase")
    page.get_by_text("Settings", exact=True).first.click()
    page.get_by_label("Steps").fill("many")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_text("steps is 'many'; enter a number").first).to_be_visible()


def test_the_dataset_is_published_after_it_was_seen(app, page):
    tab(page, "Publish")
    expect(page.get_by_text("files in one commit")).to_be_visible()
    shot(page, "publish")
    page.get_by_label("To", exact=True).first.fill("tester/CorefConcept")
    page.get_by_label("Tag").first.fill("v1")
    page.get_by_role("button", name="Preview changes").click()
    expect(page.get_by_text("does not exist yet")).to_be_visible()
    assert ("dataset", "tester/CorefConcept") not in app.hub.repos
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
    shot(page, "try-it")
    expect(page.get_by_role("tab", name="Compare", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("link", name="Sheet as PNG")).to_be_visible()
    shot(page, "tried")


# What a tab shows once it is filled.
SHOWN = {
    "Start": lambda page: page.get_by_role("button", name="horse", exact=True),
    "Curate": lambda page: page.get_by_label("certainty of puppy"),
    "Erase": lambda page: page.get_by_label("Concept").first,
    "Compare": lambda page: page.get_by_label("Your own prompts, one per line"),
    "Publish": lambda page: page.get_by_text("files in one commit"),
}


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 1280), ("dark", 800)])
def test_it_is_readable_by_all_in_the_dark_and_in_a_small_window(app, browser, theme, width):
    page = opened(browser, width)
    page.goto(f"{app.url}/?__theme={theme}")
    for name, filled in SHOWN.items():
        tab(page, name)
        expect(filled(page)).to_be_visible()
        shot(page, f"{theme}-{width}-{name.lower()}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_no_secret_is_left_behind(app, page, home):
    """Not even where the model that was asked with the key failed. `page` looks after every other test, too."""
    curate(page)
    app.llm.mode = "401"
    ask_for(page, "fewer breeds")
    expect(page.get_by_text("Check OPENAI_API_KEY")).to_be_visible()
    assert app.llm.keys[-1] == "Bearer sk-canary"
    assert (home / "talks" / "dog.json").exists()
    (home / "leak.log").write_text("sk-canary")
    assert told_secrets(app) == [home / "leak.log"]
    (home / "leak.log").unlink()
