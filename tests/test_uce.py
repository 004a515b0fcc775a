"""The closed form by its defining properties, and as a method like any other."""

import dataclasses
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from crce.concepts.spec import Term
from crce.config import EraseConfig, resolve_config
from crce.methods.erased_weights import ErasedWeights
from crce.methods.uce import EditStates, solve
from crce.models.diffusion import Diffusion
from crce.runs import Job, create
from crce.runs.events import PreviewEvent
from crce.runs.execute import execute
from crce.training.loop import erase_steps, solve_closed_form

WIDTH = 24


@pytest.fixture
def rows():
    """Three states to move and four to keep, linearly independent, with weights of their own."""
    rng = torch.Generator().manual_seed(0)
    c, g, r = (torch.randn(n, WIDTH, generator=rng) for n in (3, 3, 4))
    return EditStates(c, g, torch.tensor([1.0, 0.6, 0.2]), r, torch.tensor([1.0, 0.8, 0.4, 0.2]))


@pytest.fixture
def matrices():
    rng = torch.Generator().manual_seed(1)
    return {f"w{out}": torch.randn(out, WIDTH, generator=rng) for out in (5, WIDTH, 40)}


def missed(matrices, edited, rows):
    """How far W' c is from W g, and W' r from W r, at most."""
    moved = [(edited[n] @ rows.c.T - w @ rows.g.T).abs().max() for n, w in matrices.items()]
    held = [((edited[n] - w) @ rows.r.T).abs().max() for n, w in matrices.items()]
    return max(moved).item(), max(held).item()


def test_as_lambda_goes_to_zero_every_c_becomes_its_guide_and_every_r_stays(matrices, rows):
    moved, held = zip(*[missed(matrices, solve(matrices, rows, damping), rows) for damping in (10, 1, 0.1, 1e-3)],
                      strict=True)  # fmt: skip
    assert list(moved) == sorted(moved, reverse=True) and list(held) == sorted(held, reverse=True)
    assert moved[0] > 1 and held[0] > 0.1
    assert moved[-1] < 0.02 and held[-1] < 0.02


def test_it_is_the_published_formula(matrices, rows):
    """W' = [λW + Σ α (W g) cᵀ + Σ β (W r) rᵀ] [λI + Σ α c cᵀ + Σ β r rᵀ]⁻¹, written out in fp64."""
    c, g, alpha, r, beta = (getattr(rows, f.name).double() for f in dataclasses.fields(rows))
    edited = solve(matrices, rows, 0.5)
    for name, w in matrices.items():
        w = w.double()
        left = 0.5 * w + (w @ g.T * alpha) @ c + (w @ r.T * beta) @ r
        right = 0.5 * torch.eye(WIDTH).double() + (c.T * alpha) @ c + (r.T * beta) @ r
        assert torch.allclose(edited[name].double(), left @ right.inverse(), atol=1e-4)


def test_a_weight_of_zero_changes_nothing(matrices, rows):
    none = dataclasses.replace(rows, alpha=torch.zeros(3))
    assert all(torch.equal(w, matrices[n]) for n, w in solve(matrices, none, 0.5).items())
    one = dataclasses.replace(rows, alpha=torch.tensor([1.0, 0.0, 1.0]))
    without = dataclasses.replace(rows, c=rows.c[[0, 2]], g=rows.g[[0, 2]], alpha=torch.ones(2))
    there, away = solve(matrices, one, 0.5), solve(matrices, without, 0.5)
    assert all(torch.allclose(there[n], away[n], atol=1e-4) for n in matrices)
    assert any(not torch.allclose(there[n], matrices[n], atol=1e-2) for n in matrices)


def test_what_counts_more_is_held_better(matrices, rows):
    strong = dataclasses.replace(rows, beta=rows.beta * 10)
    assert (
        missed(matrices, solve(matrices, strong, 0.5), rows)[1] < missed(matrices, solve(matrices, rows, 0.5), rows)[1]
    )


@pytest.fixture
def longer(sd_shaped_dir, tmp_path):
    """The base with states as long as CLIP's, 28 instead of 8, and matrices that read them as before."""
    folder, k = shutil.copytree(sd_shaped_dir, tmp_path / "longer"), 28 / 8
    for part, names in (("text_encoder/model", "final_layer_norm"), ("unet/diffusion_pytorch_model", "attn2.to_[kv]")):
        file = folder / f"{part}.safetensors"
        factor = k if part.startswith("text") else 1 / k
        tensors = {n: t * factor if re.search(names, n) else t for n, t in load_file(file).items()}
        save_file(tensors, file, {"format": "pt"})
    return Diffusion.load(str(folder), device="cpu")


def test_one_setting_means_the_same_for_states_of_clips_length(sd_shaped, longer, dog):
    """λ as a share of their squared length. With a λ that knows no length, the two edits differ by more than a tenth of
    what they change."""
    norms = [model.embed(["dog"])[0, 1:].norm(dim=-1).mean().item() for model in (sd_shaped, longer)]
    assert norms == pytest.approx([8, 28], rel=1e-3)
    for method, alike in (("crce-uce", True), ("uce", True), ("uce-published", False)):
        ours, theirs = (edited(model, dog, method).tensors for model in (sd_shaped, longer))
        base = dict(sd_shaped.unet.named_parameters())
        off = sum((theirs[n] * 28 / 8 - w).square().sum() for n, w in ours.items()).sqrt()
        change = sum((w - base[n]).square().sum() for n, w in ours.items()).sqrt()
        assert (off < 1e-3 * change) == alike


def test_as_published_it_edits_the_last_word_alone(sd_shaped, dog):
    """Its state goes to the empty prompt's first one but for λ / (λ + ‖c‖²), and no word orthogonal to it moves."""
    after, base = edited(sd_shaped, dog, "uce-published").tensors, dict(sd_shaped.unet.named_parameters())
    c, g = sd_shaped.embed(["dog"])[0, 1], sd_shaped.embed([""])[0, 0]
    other = torch.randn(64, generator=torch.Generator().manual_seed(0))
    other -= c * (other @ c) / (c @ c)
    left = 0.5 / (0.5 + c @ c)
    for name, w in after.items():
        torch.testing.assert_close(w @ c, base[name] @ (g + left * (c - g)), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(w @ other, base[name] @ other, atol=1e-4, rtol=1e-4)


def edited(model, spec, method="crce-uce", **settings):
    *_, step = erase_steps(model, spec, EraseConfig(method, **settings))
    assert (step.number, step.total) == (1, 1)
    return step.weights()


def differ(a, b):
    return any(not torch.equal(a.tensors[n], b.tensors[n]) for n in a.tensors)


def test_crce_uce_sees_all_training_terms_with_their_certainty_and_no_other(tiny_sd, dog):
    delta = edited(tiny_sd, dog)
    first, *others = dog.corefs
    changed = {
        "another test coref": dataclasses.replace(dog, corefs=(*others, first, Term("mutt", split="test"))),
        "a less certain coref": dataclasses.replace(dog, corefs=(dataclasses.replace(first, certainty="low"), *others)),
        "no retains": dataclasses.replace(dog, retains=()),
        "no corefs": dataclasses.replace(dog, corefs=()),
    }
    seen = {why: differ(delta, edited(tiny_sd, spec)) for why, spec in changed.items()}
    assert seen == {
        "another test coref": False, "a less certain coref": True, "no retains": True, "no corefs": True
    }  # fmt: skip


def test_uce_is_crce_uce_without_lists(tiny_sd, dog):
    bare = dataclasses.replace(dog, corefs=(), retains=())
    assert not differ(edited(tiny_sd, dog, "uce"), edited(tiny_sd, bare))
    assert differ(edited(tiny_sd, dog, "uce"), edited(tiny_sd, dog))


def test_steps_rates_and_seeds_do_not_apply(tiny_sd, dog):
    config = resolve_config(EraseConfig("uce", steps=300, lr=1e-3), tiny_sd.base)
    assert (config.steps, config.lr) == (1, 0.0)
    assert not differ(edited(tiny_sd, dog, seed=0), edited(tiny_sd, dog, seed=1, steps=9, corefs=100))


def test_a_run_with_it_ends_like_any_other(tiny_sd, tiny_sd_dir, dog, tmp_path):
    run = create(Job(str(tiny_sd_dir), dog, EraseConfig("crce-uce")), tmp_path / "run", queued=False)
    *_, last = execute(run)
    assert last.kind == "done" and run.last(PreviewEvent).step == 1
    saved, expected = ErasedWeights.load(run.weights_path), solve_closed_form(tiny_sd, dog, EraseConfig("crce-uce"))
    assert not differ(saved, expected) and saved.info["method"] == "crce-uce"
    base = dict(tiny_sd.unet.named_parameters())
    assert max((tensor - base[name]).abs().max().item() for name, tensor in expected.tensors.items()) > 1e-3
    with saved.applied(tiny_sd):
        after = tiny_sd.generate_batch(["dog"], [0])
    assert after[0].tobytes() != tiny_sd.generate_batch(["dog"], [0])[0].tobytes()
