"""In a real browser: what an open page asks of the app when nobody presses anything."""

import json
import urllib.request
from collections import Counter

import pytest
from playwright.sync_api import Page, Request

from tests.browser.studio import App, tab


@pytest.fixture
def asked(app, page) -> Counter[str]:
    """How often the page has called each function."""
    with urllib.request.urlopen(f"{app.url}/config") as answer:
        names = {each["id"]: each["api_name"] for each in json.load(answer)["dependencies"]}
    counts: Counter[str] = Counter()

    def count(request: Request) -> None:
        if request.method == "POST" and "fn_index" in (request.post_data or ""):
            counts[names[json.loads(request.post_data or "")["fn_index"]]] += 1

    page.on("request", count)
    return counts


def wait_for(page: Page, asked: Counter[str], name: str, times: int) -> None:
    while asked[name] < times:
        page.wait_for_timeout(100)


# The function of each tab's timer, by the name that Gradio gives it.
POLLS = {"Start": "refresh", "Erase": "refresh_5", "Compare": "render_scores"}


def test_only_the_open_tab_asks_for_news(app: App, page: Page, asked: Counter[str]):
    for name, poll in POLLS.items():
        tab(page, name)
        wait_for(page, asked, poll, asked[poll] + 1)
        others = {other: asked[other] for other in POLLS.values() if other != poll}
        wait_for(page, asked, poll, asked[poll] + 1)
        assert {other: asked[other] for other in others} == others, name


def test_runs_that_are_chosen_are_told_of_once(page: Page, asked: Counter[str]):
    tab(page, "Compare")
    wait_for(page, asked, "render_scores", 4)
    followed = sum(times for name, times in asked.items() if name.startswith("follow_selection"))
    assert asked["refresh_choices"] == followed == 1
