"""In a real browser: what comes from the Hub and goes there."""

import re

from playwright.sync_api import expect
from safetensors.numpy import save_file

from crce import bases, runs
from crce.concepts import dataset
from crce.concepts.library import find_concept
from crce.config import EraseConfig
from crce.publishing import base_files
from crce.runs.events import DoneEvent
from tests.browser.studio import choose, choose_base, curate, shot, tab, upload
from tests.fake_hub import Repo
from tests.test_hub import in_empty_folder, read_snippet


def test_a_base_from_the_hub_is_asked_for_downloaded_and_erased(app, page, blind):
    """Without a judge, and without the Hub once it is here."""
    app.hub.repos["model", "tester/sd"] = repo = Repo.of(blind)
    panel = choose_base(page, "tester/none")
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


def test_what_changed_is_shown_before_kept_in_the_card_and_loaded_elsewhere(app, page, tmp_path):
    there = app.hub.repos["dataset", "tester/changes"] = Repo(private=True)
    since = there.change(dataset.files([find_concept("dog")], "tester/changes"))
    curate(page)
    page.get_by_label("drop puppy").click()
    expect(page.get_by_label("drop puppy")).to_have_count(0)
    page.set_viewport_size({"width": 1440, "height": 900})
    tab(page, "Publish")
    page.get_by_label("To", exact=True).first.fill("tester/changes")
    page.get_by_role("button", name="Preview changes").click()
    expect(page.get_by_text("dog: 1 change", exact=True)).to_be_visible()
    expect(page.get_by_text("− coref: puppy").first).to_be_visible()
    shot(page, "publish-changes")
    page.get_by_role("button", name="Publish the dataset").click()
    expect(page.get_by_text("✓ Published 1 concept")).to_be_visible()
    assert f"### Since {since[:10]}" in there.files["README.md"].decode()
    shot(page, "published-changes")
    code = read_snippet(there) + "\nprint('puppy' in {row['term'] for part in terms.values() for row in part})"
    assert in_empty_folder(code, app.hub_url, tmp_path) == "False\n"


def test_a_run_goes_out_as_a_file_and_comes_back(page, home):
    run = runs.create(runs.Job(bases.EMOJI_SD, find_concept("dog"), EraseConfig("crce-uce", preview_every=0)))
    name, tensor = next(iter(base_files.unet(bases.EMOJI_SD).items()))
    save_file({name: tensor.load()}, run.weights_path, metadata={"format": "pt", "base": bases.EMOJI_SD})
    run.record(DoneEvent(seconds=1))
    page.set_viewport_size({"width": 1440, "height": 900})
    page.reload()
    tab(page, "Compare")
    page.get_by_text("Pass a run on").click()
    page.get_by_role("button", name="Pack into one file").click()
    with page.expect_download() as download:
        page.locator("a[download$='.zip']").click()
    # It stays, though the page asks for news all the time.
    page.wait_for_timeout(3000)
    expect(page.locator("a[download$='.zip']")).to_be_visible()
    shot(page, "bundle-out")
    packed = home / "packed.zip"
    download.value.save_as(packed)
    run.delete()
    upload(page, "Open such a file", packed)
    expect(page.get_by_text("is here, packed with")).to_be_visible()
    shot(page, "bundle-in")
    assert [each.state for each in runs.all_runs()] == ["done"]
