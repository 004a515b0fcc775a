"""In a real browser: lists, talk, review, map and preview of a concept."""

import json
import re

from playwright.sync_api import expect

from crce.concepts.library import find_concept, load_spec
from tests import scripted_llm
from tests.browser.studio import ask_for, curate, opened, shot, tab, told_secrets, until, upload
from tests.scripted_llm import phrases, revised

HOSTILE = "<img src=https://evil.example/x onerror='window.__x=1'> ${window.__x=2}"


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


def test_a_bad_table_is_answered_with_its_line_and_a_good_one_is_added(page, tmp_path):
    curate(page)
    table = tmp_path / "mine.csv"
    table.write_text("kind,term,certainty\ncoref,woofer,high\ncoref,bow-wow,sure\n")
    upload(page, "Import", table)
    expect(page.get_by_text("mine.csv, line 3: certainty is 'sure'")).to_be_visible()
    expect(page.get_by_label("drop woofer")).to_have_count(0)
    table.write_text("kind,term,certainty\ncoref,woofer,high\ncoref,bow-wow,low\n")
    upload(page, "Import", table)
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
    expect(other.get_by_text("Choose above the lists which version to keep.")).to_be_visible()
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
