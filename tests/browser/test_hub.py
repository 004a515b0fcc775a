"""In a real browser: what comes from the Hub and goes there."""

import re

from playwright.sync_api import expect

from crce import runs
from tests.browser.studio import choose, shot, tab
from tests.fake_hub import Repo


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
