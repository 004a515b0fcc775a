"""In a real browser: runs are started, watched, stopped, compared and judged."""

import re

from playwright.sync_api import expect

from crce import runs
from tests.browser.studio import curate, opened, shot, tab


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
    expect(page.get_by_text("Does this show")).to_be_visible()
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


def test_a_bad_setting_is_answered_in_words(page):
    tab(page, "Erase")
    page.get_by_text("Settings", exact=True).first.click()
    steps = page.get_by_label("Steps")
    steps.fill("many")
    expect(steps).to_have_attribute("aria-invalid", "true")
    shot(page, "erase-wrong")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_text("Steps is 'many'; enter a number").first).to_be_visible()
    steps.fill("20")
    expect(steps).to_have_attribute("aria-invalid", "false")


def test_the_words_of_a_checkbox_have_room_among_the_settings(page):
    tab(page, "Erase")
    page.get_by_text("Settings", exact=True).first.click()
    for name in ("Stop when gone", "Leave out long terms"):
        block = page.locator(".block", has=page.get_by_label(name)).last
        expect(block).to_be_visible()
        assert block.evaluate("block => block.clientWidth >= 150 && block.scrollWidth <= block.clientWidth")


def test_when_a_run_was_asked_for_stands_beside_delete_in_a_narrow_window(erased, page):
    page.set_viewport_size({"width": 1024, "height": 800})
    tab(page, "Erase")
    # Both in one look: the page may still move.
    page.wait_for_function("""() => {
        const parts = [...document.querySelectorAll(".run .end > *")].map((part) => part.getBoundingClientRect());
        return parts.length === 2 && parts[1].top <= parts[0].top && parts[0].bottom <= parts[1].bottom;
    }""")


def test_try_it_ends_in_compare(page):
    page.get_by_role("button", name="Try it: erase “dog”").click()
    expect(page.get_by_text(re.compile("preparing|erasing"))).to_be_visible()
    shot(page, "try-it")
    expect(page.get_by_role("tab", name="Compare", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("link", name="Sheet as PNG")).to_be_visible()
    shot(page, "tried")
