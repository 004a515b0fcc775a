"""In a real browser: SD v1.4's own files, tiny, from the Hub to files that other programs load."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from playwright.sync_api import Page, expect
from safetensors.torch import load_file

from crce import runs
from crce.concepts.library import find_concept, own_path, save_spec
from crce.concepts.spec import ConceptSpec
from crce.publishing.export import FORMATS
from tests.browser.studio import choose, choose_base, shot, tab
from tests.fake_hub import Repo

# Names of files that are shortened, lines of code that leave their card or cannot be scrolled to, and a page that is
# wider than its window.
CUT_OFF = """() => {
  const stems = [...document.querySelectorAll(".file-preview .stem")];
  const names = stems.filter((name) => name.scrollWidth > name.clientWidth);
  const code = [...document.querySelectorAll(".exported pre")].filter((lines) => {
    const box = lines.getBoundingClientRect(), card = lines.closest(".exported").getBoundingClientRect();
    return box.left < card.left || box.right > card.right || getComputedStyle(lines).overflowX !== "auto";
  });
  const root = document.documentElement;
  const wide = root.scrollWidth > innerWidth ? [root] : [];
  return [...names, ...code, ...wide].map((part) => part.outerHTML.slice(0, 200));
}"""


@pytest.fixture
def small_dog(home) -> ConceptSpec:
    """The shipped dog with as few terms as CRCE's defaults draw in a step."""
    dog = find_concept("dog")
    few = replace(dog, corefs=tuple(dog.train_corefs[:5]), retains=tuple(dog.train_retains[:3]))
    save_spec(few, own_path(few))
    return few


def test_stable_diffusion_from_the_hub_to_files_for_other_programs(
    app, page, small_dog, sd_shaped_dir, vlm_dir, tmp_path
):
    """Asked for, downloaded, trained without the Hub, judged by a vision-language model that is asked for too,
    compared, and exported in every format, each of which its stock tool loads.
    """
    app.hub.repos["model", "tester/sd"] = Repo.of(sd_shaped_dir)
    app.hub.repos["model", "tester/vlm"] = judge = Repo.of(vlm_dir)
    panel = choose_base(page, "tester/sd")
    expect(panel).to_contain_text(
        re.compile("tester/sd is not on this machine: .* MB to download, about .* MB of memory in fp32")
    )
    panel.get_by_role("button", name="Download").click()
    expect(panel).to_have_count(0)
    expect(page.get_by_text("The base has no judge: compare by eye.")).to_be_visible()
    expect(page.get_by_text(re.compile("by a step measured here. Needs about .* of memory"))).to_be_visible()

    page.get_by_text("Settings", exact=True).first.click()
    choose(page, "Judged by", "tester/vlm")
    expect(panel).to_contain_text("tester/vlm is not on this machine")
    assert judge.downloads == 0
    panel.get_by_role("button", name="Download").click()
    expect(panel).to_have_count(0)

    app.hub.fail["info"] = app.hub.fail["resolve"] = [500] * 50
    page.get_by_label("Steps").fill("2")
    page.get_by_label("Judge", exact=True).fill("1")
    for width in (1440, 1024):
        page.set_viewport_size({"width": width, "height": 900})
        shot(page, f"sd-erase-{width}")
    page.get_by_role("button", name="Start", exact=True).click()
    card = page.get_by_role("article").first
    expect(card.get_by_text("done", exact=True)).to_be_visible()
    (run,) = runs.all_runs()
    assert run.report.judge == "tester/vlm" and run.job.spec.digest == small_dog.digest

    card.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("link", name="Sheet as PNG")).to_be_visible()
    shot(page, "sd-compare")
    app.hub.fail.clear()
    files = export_all(page, tmp_path)
    for width in (1440, 1024, 390):
        page.set_viewport_size({"width": width, "height": 900})
        shot(page, f"sd-export-{width}")
        assert page.evaluate(CUT_OFF) == []
    check_exports(files, run, sd_shaped_dir)


def export_all(page: Page, folder: Path) -> dict[str, Path]:
    """Every format of the newest run, downloaded, by its key."""
    tab(page, "Publish")
    tab(page, "Weights of a run")
    for form in FORMATS.values():
        page.get_by_label(form.title).check()
    page.get_by_role("button", name="Export to download").click()
    links = page.locator(".file-preview .download a")
    expect(links).to_have_count(len(FORMATS))
    found = {}
    for key, link in zip(FORMATS, links.all(), strict=True):
        with page.expect_download() as download:
            link.click()
        found[key] = folder / download.value.suggested_filename
        download.value.save_as(found[key])
    return found


def check_exports(files: dict[str, Path], run: runs.Run, base: Path) -> None:
    """Each is loaded as stock diffusers does it, or as ComfyUI's loader looks for it, and gives the erased U-Net."""
    erased = load_file(run.weights_path)
    stock = lambda: StableDiffusionPipeline.from_pretrained(base, safety_checker=None)  # noqa: E731
    before = stock().unet.state_dict()
    weights, lora = stock(), stock()
    weights.unet.load_state_dict(load_file(files["weights"]), strict=False)
    lora.load_lora_weights(files["lora"])
    lora.fuse_lora()
    lora.unload_lora_weights()
    shutil.unpack_archive(files["pipeline"], whole := files["pipeline"].with_suffix(""))
    (folder,) = whole.iterdir()
    added = load_file(files["diff"])
    kohya = {f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}.diff": name for name in erased}
    assert added.keys() == kohya.keys()
    summed = {name: before[name] + added[key] for key, name in kohya.items()}
    checkpoint = StableDiffusionPipeline.from_single_file(files["checkpoint"], config=str(base))
    for unet in (weights.unet, StableDiffusionPipeline.from_pretrained(folder).unet, checkpoint.unet):
        found = unet.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in {**before, **erased}.items())
    for found, most in ((summed, 1e-6), (lora.unet.state_dict(), 0.5)):
        lost = sum((found[name] - tensor).square().sum() for name, tensor in erased.items())
        moved = sum((before[name] - tensor).square().sum() for name, tensor in erased.items())
        assert lost.sqrt() <= most * moved.sqrt() + 1e-6
