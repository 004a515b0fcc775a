"""In a real browser: the five tabs as they are seen first."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.studio import SHOWN, opened, shot, tab


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
