"""The build of the default model: parts that a change could break unseen, since the build itself takes hours."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel

from assets.build import card, reading
from crce.files import ROOT

MODEL = ROOT / "assets" / "emoji-sd"


@pytest.fixture(scope="module")
def denoiser() -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(MODEL / "unet").eval()


@torch.no_grad()
def test_both_levels_apart_do_what_the_denoiser_does(denoiser):
    seen = []
    denoiser.up_blocks[0].upsamplers[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    torch.manual_seed(0)
    x, t, text = torch.randn(2, 16, 8, 8), torch.tensor([10, 700]), torch.randn(2, 32, 320)
    denoiser(x, t, text)
    torch.testing.assert_close(reading.inner(denoiser, *reading.outer(denoiser, x, t, text), text), seen[0])


def test_only_the_inner_level_learns_to_read(denoiser):
    reads, others = reading.parameters(denoiser)
    ids = {id(p) for p in [*reads, *others]}
    names = {name.split(".")[0] + "." + name.split(".")[1] for name, p in denoiser.named_parameters() if id(p) in ids}
    assert {n.partition(".")[0] for n in names} == {"down_blocks", "mid_block", "up_blocks"}
    assert {"down_blocks.1", "up_blocks.0"} <= names and not {"down_blocks.0", "up_blocks.1"} & names
    # Keys and values of the four blocks there.
    assert sum(tuple(p.shape) == (176, 320) for p in reads) == 8


def test_every_figure_of_the_card_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("CRCE_BUILD_DIR", str(tmp_path))  # an empty build folder: nothing was measured here
    for stage, keys in card.KEPT.items():
        for key in keys:
            assert key in card.last(stage, key), (stage, key)
    assert json.loads(card.FIGURES.read_text())
