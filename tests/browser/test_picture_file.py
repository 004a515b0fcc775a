"""In a real browser: a picture is downloaded in Compare, and its file fills in what it was drawn with."""

import re

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from crce import bases, runs
from crce.concepts.library import find_concept
from crce.config import EraseConfig
from crce.picture_facts import PictureFacts, read_facts
from crce.worker import client
from tests.browser.studio import SHOWN, shot, tab, until, upload


@pytest.fixture
def two(home) -> list[runs.Run]:
    """Two runs; Compare chooses the first by itself."""
    config = EraseConfig("crce-uce", preview_every=0)
    for name in ("one", "other"):
        runs.create(runs.Job(bases.EMOJI_SD, find_concept("dog"), config, name=name))
    client.ensure_worker()
    until(lambda: all(run.state == "done" for run in runs.all_runs()))
    return runs.all_runs()


def open_compare(page: Page, run: runs.Run) -> Locator:
    """The field with the prompts, once that run is chosen."""
    tab(page, "Compare")
    expect(chosen(page)).to_contain_text(run.title)
    return SHOWN["Compare"](page)


def chosen(page: Page) -> Locator:
    return page.locator(".token").filter(visible=True)


def test_a_downloaded_picture_brings_back_its_prompt_seed_run_and_strength(two, page, tmp_path):
    first, run = two
    picture = re.compile(f"^a puppy, {run.title}, seed 1")
    tab(page, "Erase")
    page.get_by_role("article", name=f"run {run.title}").get_by_role("button", name="Compare").click()
    expect(page.get_by_role("link", name="Sheet as PNG")).to_be_visible()
    SHOWN["Compare"](page).fill("a puppy")
    page.get_by_label("number input for Strength").fill("0.5")
    page.get_by_role("button", name="Draw", exact=True).click()
    page.get_by_role("button", name=picture).click()
    with page.expect_download() as download:
        page.get_by_test_id("download-link").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert read_facts(path) == PictureFacts(bases.EMOJI_SD, ("a puppy",), (1,), (run.id,), 0.5)

    page.goto(page.url.split("?")[0])
    typed = open_compare(page, first)
    upload(page, "Load from PNG", path)
    expect(page.get_by_text("The settings of the picture were taken")).to_be_visible()
    shot(page, "compare-loaded")
    expect(typed).to_have_value("a puppy")
    expect(chosen(page)).to_contain_text(run.title)
    expect(page.get_by_label("number input for Seeds")).to_have_value("2")
    expect(page.get_by_label("number input for Strength")).to_have_value("0.5")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_role("button", name=picture)).to_be_visible()


def test_a_picture_without_facts_is_answered_in_words_and_changes_nothing(two, page, tmp_path):
    Image.new("RGB", (8, 8)).save(path := tmp_path / "plain.png")
    typed = open_compare(page, two[0])
    typed.fill("a puppy")
    upload(page, "Load from PNG", path)
    expect(page.get_by_text("This picture carries no prompt and seed.")).to_be_visible()
    shot(page, "compare-plain-png")
    expect(typed).to_have_value("a puppy")
    expect(chosen(page)).to_contain_text(two[0].title)
