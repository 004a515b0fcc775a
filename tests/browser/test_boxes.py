"""In a real browser: every control can be reached, on a desk, a small screen and a phone."""

import pytest
from playwright.sync_api import Page, expect

from crce import bases, runs
from crce.concepts.library import find_concept, own_path, save_spec
from crce.concepts.spec import ConceptSpec, Term
from crce.config import EraseConfig
from crce.runs.events import StoppedEvent
from tests.browser.studio import SHOWN, opened, shot

# What is wrong with the box of each control that can be seen: out of the window sideways, or partly under something
# else; and with a sentence: crushed to a word a line.
MEASURE = """() => {
  const name = (part) => (part.getAttribute("aria-label") || part.textContent.trim() || part.outerHTML).slice(0, 80);
  const shown = (part) => part.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const controls = [...document.querySelectorAll("button, a[href], input, textarea, select, summary, label")];
  const faults = [];
  let count = 0;
  for (const part of controls.filter(shown)) {
    part.scrollIntoView({ block: "center", inline: "nearest", behavior: "instant" });
    const box = part.getBoundingClientRect();
    if (box.width < 2 || box.height < 2 || part.closest("[aria-hidden=true]")) continue;
    count += 1;
    if (box.left < -0.5 || box.right > innerWidth + 0.5)
      faults.push(`${name(part)}: from ${Math.round(box.left)} to ${Math.round(box.right)} of ${innerWidth}`);
    for (const x of [box.left + 3, box.left + box.width / 2, box.right - 3]) {
      const hit = document.elementFromPoint(x, box.top + box.height / 2);
      if (hit && (part.contains(hit) || hit.contains(part) || hit.closest("label")?.contains(part))) continue;
      faults.push(`${name(part)}: under ${hit ? hit.outerHTML.slice(0, 80) : "the edge"}`);
    }
  }
  for (const part of [...document.querySelectorAll("p")].filter(shown)) {
    const width = part.getBoundingClientRect().width;
    const crushed = part.textContent.trim().length > 40 && width < 120;
    if (crushed) faults.push(`${name(part)}: ${Math.round(width)} px for its words`);
  }
  scrollTo(0, 0);
  return { count, faults, width: document.documentElement.scrollWidth };
}"""


def check_boxes(page: Page, name: str) -> None:
    shot(page, name)
    found = page.evaluate(MEASURE)
    assert found["count"] > 5 and found["faults"] == [], name
    assert found["width"] <= page.viewport_size["width"]


@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_every_control_can_be_reached_at_every_width(app, browser, width):
    job = runs.Job(bases.EMOJI_SD, find_concept("dog"), EraseConfig(steps=20))
    runs.create(job, queued=False).record(StoppedEvent(3))
    page = opened(browser, width)
    page.goto(f"{app.url}/?__theme=light")
    for name, filled in SHOWN.items():
        page.get_by_role("tab", name=name, exact=True).click()
        expect(filled(page)).to_be_visible()
        check_boxes(page, f"boxes-{width}-{name.lower()}")
    page.get_by_role("tab", name="Curate", exact=True).click()
    talk, request = page.get_by_role("button", name="Talk", exact=True), page.get_by_label("What should change?")
    if width < 1200:
        expect(request).not_to_be_visible()
        talk.click()
        expect(request).to_be_in_viewport(ratio=1)
        shot(page, f"boxes-{width}-talk")
        request.fill("fewer breeds")
        page.get_by_role("button", name="Propose", exact=True).click(trial=True)
        page.get_by_role("button", name="Close the talk").click()
        expect(request).not_to_be_visible()
    else:
        expect(talk).not_to_be_visible()
        expect(request).to_be_in_viewport(ratio=1)
    page.close()


def test_a_name_without_a_space_is_broken_into_lines(app, browser):
    long = ConceptSpec("supercalifragilistic" * 10, corefs=(Term("thing"),))
    save_spec(long, own_path(long))
    page = opened(browser, 1440)
    page.goto(f"{app.url}/?__theme=light&tab=curate&concept={long.slug}")
    expect(page.get_by_role("heading", name=long.target)).to_be_visible()
    for part in (".shelves", ".spec"):
        assert page.locator(part).first.evaluate("part => part.scrollWidth - part.clientWidth") <= 0, part
    page.close()
