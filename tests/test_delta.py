"""A delta: what it promises about strength, files and other tools."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from crce.config import EraseConfig
from crce.errors import CrceError
from crce.methods.erased_weights import ErasedWeights, combine
from crce.training.loop import erase_steps


@pytest.fixture(scope="module")
def delta(tiny_sd):
    from crce.concepts.spec import ConceptSpec

    *_, step = erase_steps(tiny_sd, ConceptSpec("dog"), EraseConfig("esd-x-strict", steps=4, lr=1e-2))
    return step.weights()


def weights(model, delta):
    return {n: p.detach().clone() for n, p in model.unet.named_parameters() if n in delta.tensors}


@pytest.mark.parametrize(("strength", "which"), [(0.0, "base"), (1.0, "changed")])
def test_the_ends_are_exact(tiny_sd, delta, strength, which):
    expected = weights(tiny_sd, delta) if which == "base" else delta.tensors
    with delta.applied(tiny_sd, strength):
        now = weights(tiny_sd, delta)
    assert all(torch.equal(now[n], expected[n]) for n in expected)


def test_between_and_beyond_is_linear(tiny_sd, delta):
    base = weights(tiny_sd, delta)
    for strength in (0.5, 1.5):
        with delta.applied(tiny_sd, strength):
            now = weights(tiny_sd, delta)
        for n, w in base.items():
            torch.testing.assert_close(now[n], w + strength * (delta.tensors[n] - w))


def test_the_base_comes_back_even_after_an_error(tiny_sd, delta):
    base = weights(tiny_sd, delta)
    with pytest.raises(KeyError), delta.applied(tiny_sd):
        raise KeyError
    assert all(torch.equal(w, base[n]) for n, w in weights(tiny_sd, delta).items())


def test_it_survives_the_disk(delta, tmp_path):
    delta.save(tmp_path / "delta.safetensors")
    loaded = ErasedWeights.load(tmp_path / "delta.safetensors")
    assert loaded.info["target"] == "dog" and loaded.info["method"] == "esd-x-strict"
    assert all(torch.equal(loaded.tensors[n], w) for n, w in delta.tensors.items())


def test_stock_diffusers_loads_it(tiny_sd, tiny_sd_dir, delta, tmp_path):
    delta.save(tmp_path / "delta.safetensors")
    unet = UNet2DConditionModel.from_pretrained(tiny_sd_dir, subfolder="unet")
    assert not unet.load_state_dict(load_file(tmp_path / "delta.safetensors"), strict=False).unexpected_keys
    x, t, states = tiny_sd.noise([0]), torch.tensor([500]), tiny_sd.embed(["dog"])
    with delta.applied(tiny_sd), torch.no_grad():
        torch.testing.assert_close(unet(x, t, states).sample, tiny_sd.predict(x, t, states))


def test_a_delta_of_another_model_is_refused(tiny_sd, delta):
    name, tensor = next(iter(delta.tensors.items()))
    for wrong in ({"no.such.weight": tensor}, {name: tensor[:1]}):
        with pytest.raises(CrceError, match="do not fit"), ErasedWeights(wrong, {}).applied(tiny_sd):
            pass


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "delta.safetensors").write_bytes(b"not a tensor in sight")
    for file in ("delta.safetensors", "missing.safetensors"):
        with pytest.raises(CrceError, match=f"{file} holds no erased weights"):
            ErasedWeights.load(tmp_path / file)


def test_several_deltas_add_up(tiny_sd, delta):
    base = weights(tiny_sd, delta)
    twice = combine([delta, delta], tiny_sd)
    for name, w in base.items():
        torch.testing.assert_close(twice.tensors[name], w + 2 * (delta.tensors[name] - w))
    name = next(iter(base))
    alone = ErasedWeights({name: delta.tensors[name]}, {})
    assert combine([delta, alone], tiny_sd).tensors.keys() == delta.tensors.keys()
    with pytest.raises(CrceError, match="one of these is an adapter"):
        combine([delta, ErasedWeights({}, {"kind": "spm"})], tiny_sd)
