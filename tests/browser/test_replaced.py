"""In a real browser: the end of a handler that waited leaves what the page shows by then."""

import itertools
import threading
from collections.abc import Iterator

import gradio as gr
import pytest
from playwright.sync_api import Page, expect

from app.worker import Pause, waiting
from tests.browser.studio import PATIENCE, opened


@pytest.fixture
def small_page(browser) -> Iterator[Page]:
    """A field whose text a handler repeats, and a count of the calls that have ended. The call of "older" goes on
    until another has ended; that of "nothing" has nothing to show."""
    another_ended, count = threading.Event(), itertools.count(1)

    @waiting
    def repeat(text: str, http: gr.Request):
        if text == "nothing":
            return
        yield text
        if text == "older":
            another_ended.wait(PATIENCE / 1000)
            yield Pause(0)
            yield "older, which is not asked for any more"

    def end() -> int:
        another_ended.set()
        return next(count)

    with gr.Blocks() as demo:
        text, shown, ended = gr.Textbox(label="text"), gr.Textbox(label="shown"), gr.Number(0, label="ended")
        text.submit(repeat, text, shown, trigger_mode="multiple", concurrency_limit=None).then(
            end, None, ended, trigger_mode="multiple"
        )
    demo.queue().launch(prevent_thread_lock=True, quiet=True)
    page = opened(browser)
    page.goto(demo.local_url)
    yield page
    page.close()
    demo.close()


def ask(page: Page, text: str) -> None:
    page.get_by_label("text").fill(text)
    page.get_by_label("text").press("Enter")


def test_an_older_call_that_ends_later_does_not_bring_back_what_it_showed(small_page):
    ask(small_page, "older")
    expect(small_page.get_by_label("shown")).to_have_value("older")
    ask(small_page, "newer")
    expect(small_page.get_by_label("ended")).to_have_value("2")
    assert small_page.get_by_label("shown").input_value() == "newer"


def test_a_call_that_has_nothing_to_show_leaves_what_is_there(small_page):
    ask(small_page, "something")
    expect(small_page.get_by_label("ended")).to_have_value("1")
    ask(small_page, "nothing")
    expect(small_page.get_by_label("ended")).to_have_value("2")
    assert small_page.get_by_label("shown").input_value() == "something"
