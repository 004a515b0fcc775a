"""In a real browser: axe-core finds nothing serious in any tab, and the keyboard shows where it is."""

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.studio import SHOWN, ask_for, opened, shot, tab

# WCAG 2.2 on levels A and AA: names, contrast of at least 4.5:1, targets of at least 24 px, and more.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# Gradio puts the button for a picture's download into a link, which axe then takes to be covered. It is one target.
GRADIO = [("target-size", [".download-link"])]
PRESSES = 15  # of Tab, from the selected tab on

# The control that has the focus, and whether it looks otherwise than without.
LOOK_AT_FOCUS = """() => {
  const part = document.activeElement;
  const look = () => [getComputedStyle(part).outlineStyle, getComputedStyle(part).boxShadow].join();
  const focused = look();
  part.blur();
  return { name: part.outerHTML.slice(0, 100), page: part === document.body, seen: focused !== look() };
}"""


def open_talk(page: Page) -> None:
    """A round of which one change is taken."""
    ask_for(page, "more corefs")
    page.get_by_role("button", name=re.compile("^accept ")).first.click()
    expect(page.get_by_role("button", name="Undo this round")).to_be_visible()


def open_settings(page: Page) -> None:
    page.get_by_text("Settings", exact=True).first.click()
    expect(page.get_by_label("Steps")).to_be_visible()
    expect(page.get_by_role("article").first.get_by_role("button", name="Compare")).to_be_visible()


def open_pictures(page: Page) -> None:
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_role("link", name="Sheet as PNG")).to_be_visible()
    page.get_by_role("button", name=re.compile("^dog, dog, seed 0")).click()
    expect(page.get_by_text("“dog”, seed 0: before | dog")).to_be_visible()
    page.get_by_role("button", name="Judge the pictures yourself").click()
    expect(page.get_by_role("button", name="Cannot tell")).to_be_visible()


OPEN = {"Curate": open_talk, "Erase": open_settings, "Compare": open_pictures}


def find_faults(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical."""
    found = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]}).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node['html'][:100]}: {node['failureSummary']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if (rule["id"], node["target"]) not in GRADIO
    ]


def list_unseen(page: Page, name: str) -> list[str]:
    """The first controls of a tab that look the same with the focus as without."""
    page.get_by_role("tab", name=name, exact=True).focus()
    reached = []
    for _ in range(PRESSES):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(LOOK_AT_FOCUS))
    controls = [each for each in reached if not each["page"]]
    assert len({each["name"] for each in controls}) > PRESSES / 2
    return [each["name"] for each in controls if not each["seen"]]


def test_every_tab_is_accessible_in_both_themes(app, browser, erased):
    for theme in ("light", "dark"):
        page = opened(browser, 1440)
        page.goto(f"{app.url}/?__theme={theme}")
        for name, filled in SHOWN.items():
            tab(page, name)
            expect(filled(page)).to_be_visible()
            OPEN.get(name, lambda page: None)(page)
            shot(page, f"axe-{theme}-{name.lower()}")
            assert find_faults(page) == [], (theme, name)
            assert list_unseen(page, name) == [], (theme, name)
        page.close()
