"""In a real browser: what an open page asks of the app when nobody presses anything."""

import json
import re
import urllib.request
from collections import Counter

import pytest
from playwright.sync_api import Page, Request, expect

from crce import bases, runs
from crce.concepts.library import find_concept
from crce.config import EraseConfig
from crce.runs import Job
from tests.browser.studio import SHOWN, App, tab


class Asked:
    """What a page has asked for: each function by its name, and news."""

    def __init__(self, page: Page, names: dict[int, str]):
        self.called: Counter[str] = Counter()
        self.news = 0
        self._page, self._names = page, names
        page.on("request", self._count)

    def _count(self, request: Request) -> None:
        if request.url.endswith("/news"):
            self.news += 1
        elif request.method == "POST" and "fn_index" in (request.post_data or ""):
            self.called[self._names[json.loads(request.post_data or "")["fn_index"]]] += 1

    def watch(self, times: int) -> Counter[str]:
        """What is called until the page has asked for news so often."""
        before, goal = self.called.copy(), self.news + times
        while self.news < goal:
            self._page.wait_for_timeout(100)
        return self.called - before

    def settle(self) -> None:
        """Waits until the page has asked for nothing but news for a while."""
        for _ in range(50):
            if not self.watch(3):
                return
        raise AssertionError(f"the page goes on asking: {self.called}")


@pytest.fixture
def asked(app, page) -> Asked:
    with urllib.request.urlopen(f"{app.url}/config") as answer:
        return Asked(page, {each["id"]: each["api_name"] for each in json.load(answer)["dependencies"]})


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_asks_for_nothing_but_news_while_there_are_none(page: Page, asked: Asked, name: str):
    tab(page, name)
    expect(SHOWN[name](page)).to_be_visible()
    asked.settle()


def test_pictures_stay_when_there_are_no_others(page: Page, asked: Asked):
    expect(SHOWN["Start"](page)).to_be_visible()
    asked.settle()
    expect(page.locator(".shelf .pic").first).to_have_css("background-image", re.compile("^url"))


def test_only_what_can_be_seen_is_read_anew(app: App, page: Page, asked: Asked):
    for name in ("Compare", "Start", "Erase"):  # the parts of all three have been there
        tab(page, name)
        asked.settle()
    before = asked.called.copy()
    run = runs.create(Job(bases.EMOJI_SD, find_concept("cat"), EraseConfig(steps=20), name="made elsewhere"))
    expect(page.get_by_text("made elsewhere").filter(visible=True).first).to_be_visible()
    asked.settle()
    told = asked.called - before
    assert told["render_status"] and not told["follow_trial"] and not told["render_scores"]
    run.delete()
    expect(page.get_by_text("made elsewhere").filter(visible=True)).to_have_count(0)


def test_runs_that_are_chosen_are_told_of_once(page: Page, asked: Asked):
    tab(page, "Compare")
    asked.settle()
    followed = sum(times for name, times in asked.called.items() if name.startswith("follow_selection"))
    assert asked.called["refresh_choices"] == followed == 1
