"""Adapters: what they add, to which rows, and that they leave nothing behind."""

from dataclasses import replace

import pytest
import torch

from crce import runs
from crce.catalogue import ADAPTER, METHOD_FACTS
from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.methods import receler as receler_method
from crce.methods import spm as spm_method
from crce.methods.attention import cross_attention_layers
from crce.methods.erased_weights import ErasedWeights
from crce.methods.parameters import transformers
from crce.methods.registry import method_of
from crce.models.adapters import init_adapters
from crce.models.diffusion import Diffusion
from crce.runs import Job
from crce.runs.execute import execute
from crce.training.loop import erase_steps
from tests.tiny import felt

METHODS = [key for key, card in METHOD_FACTS.items() if card.kind == ADAPTER]
PROMPTS = ["dog", "cat", "a dog"]


def tensors(model, layers, form, seed=0):
    """Of random ups: those that training starts from add nothing."""
    rng = torch.Generator().manual_seed(seed)
    made = init_adapters(model.unet, layers, form, rng)
    return {name: 2 * torch.rand(t.shape, generator=rng) - 1 if name.endswith(".up") else t
            for name, t in made.items()}  # fmt: skip


def spm(model, target="dog", seed=0):
    layers = [name.removesuffix(".weight") for name in transformers(model.unet)]
    own = tensors(model, layers, spm_method.RANK_ONE, seed)
    return ErasedWeights({f"{target}/{name}": t for name, t in own.items()}, {"kind": "spm"})


def receler(model):
    return ErasedWeights(
        tensors(model, list(cross_attention_layers(model.unet)), receler_method.ERASER), {"kind": "receler"}
    )


def folded(model, delta):
    """SPM's membranes as changed weights: W + up · down."""
    parameters = dict(model.unet.named_parameters())
    changed = {}
    for own in spm_method.by_concept(delta.tensors).values():
        for name in (n.removesuffix(".down") for n in own if n.endswith(".down")):
            w = changed.get(f"{name}.weight", parameters[f"{name}.weight"].detach())
            changed[f"{name}.weight"] = w + (own[f"{name}.up"].flatten(1) @ own[f"{name}.down"].flatten(1)).view_as(w)
    return ErasedWeights(changed, {})


def predict(model):
    return model.predict(model.noise([0]), torch.tensor([500]), model.embed(["dog"]))


@pytest.mark.parametrize("made", [spm, receler])
def test_strength_zero_is_the_base_exactly_and_one_is_not(tiny_sd, made):
    base, delta = (predict(tiny_sd), tiny_sd.draw(PROMPTS, [0, 1, 2], 2, 3.0)), made(tiny_sd)
    with delta.applied(tiny_sd, 0.0):
        assert torch.equal(predict(tiny_sd), base[0])
        assert torch.equal(tiny_sd.draw(PROMPTS, [0, 1, 2], 2, 3.0), base[1])
    with delta.applied(tiny_sd):
        assert not torch.allclose(predict(tiny_sd), base[0], atol=1e-3)


@pytest.mark.parametrize("made", [spm, receler])
def test_it_is_taken_off_even_after_an_error(tiny_sd, made):
    before = predict(tiny_sd)
    with pytest.raises(KeyError), made(tiny_sd).applied(tiny_sd):
        raise KeyError
    assert torch.equal(predict(tiny_sd), before)


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.5])
def test_an_open_membrane_is_a_change_of_rank_one(tiny_sd, strength):
    """While nothing is drawn, as in training, for linear layers and convolutions alike."""
    delta = spm(tiny_sd)
    with folded(tiny_sd, delta).applied(tiny_sd, strength):
        expected = predict(tiny_sd)
    with delta.applied(tiny_sd, strength):
        torch.testing.assert_close(predict(tiny_sd), expected, atol=1e-4, rtol=1e-4)


def test_the_gate_is_open_for_the_target_and_narrower_for_another_prompt(tiny_sd):
    assert spm_method.gate(tiny_sd, "dog", "dog") == pytest.approx(1)
    assert spm_method.gate(tiny_sd, "a dog", "dog") == 1
    assert spm_method.gate(tiny_sd, "xy", "dog") < 0.98


def test_each_picture_has_the_gate_of_its_own_prompt_in_both_halves_of_the_guidance(tiny_sd):
    delta, seeds = spm(tiny_sd), [0, 1, 2]
    with delta.applied(tiny_sd, 0.5):
        drawn = tiny_sd.draw(PROMPTS, seeds, 3, 3.0)
    gates = [spm_method.gate(tiny_sd, prompt, "dog") for prompt in PROMPTS]
    assert gates[0] > gates[1]
    for prompt, seed, gate, picture in zip(PROMPTS, seeds, gates, drawn, strict=True):
        with folded(tiny_sd, delta).applied(tiny_sd, 0.5 * gate):
            torch.testing.assert_close(picture[None], tiny_sd.draw([prompt], [seed], 3, 3.0), atol=1e-3, rtol=0)


def test_membranes_of_several_concepts_add_up(tiny_sd):
    both = ErasedWeights(spm(tiny_sd).tensors | spm(tiny_sd, "black/white cat", 1).tensors, {"kind": "spm"})
    assert set(spm_method.by_concept(both.tensors)) == {"dog", "black/white cat"}
    with folded(tiny_sd, both).applied(tiny_sd):
        expected = predict(tiny_sd)
    with both.applied(tiny_sd):
        torch.testing.assert_close(predict(tiny_sd), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("made", [spm, receler])
def test_it_survives_the_disk(tiny_sd, made, tmp_path):
    delta = made(tiny_sd)
    delta.save(tmp_path / "delta.safetensors")
    with delta.applied(tiny_sd):
        expected = predict(tiny_sd)
    loaded = ErasedWeights.load(tmp_path / "delta.safetensors")
    assert loaded.tensors.keys() == delta.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in delta.tensors.items())
    with loaded.applied(tiny_sd):
        # Where a tensor lies in memory may change the last bit of a product.
        torch.testing.assert_close(predict(tiny_sd), expected)


@pytest.mark.parametrize("made", [spm, receler])
def test_an_adapter_of_another_model_is_refused(tiny_sd, made):
    delta = made(tiny_sd)
    elsewhere = {name.replace("down_blocks", "no_blocks"): t for name, t in delta.tensors.items()}
    wider = {name: t.repeat_interleave(2, 0) for name, t in delta.tensors.items()}
    for wrong in (elsewhere, wider):
        with pytest.raises(CrceError, match="do not fit"), ErasedWeights(wrong, delta.info).applied(tiny_sd):
            pass


def last(model, specs, config, **options):
    *_, step = erase_steps(model, specs, config, **options)
    return step.weights()


def same(a: ErasedWeights, b: ErasedWeights) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(torch.equal(a.tensors[n], b.tensors[n]) for n in a.tensors)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_of_this_kind_hangs_on_what_it_names_and_changes_no_weight(tiny_sd, dog, method):
    config, before = EraseConfig(method, steps=3, lr=1e-2), {n: p.clone() for n, p in tiny_sd.unet.named_parameters()}
    delta = last(tiny_sd, dog, config)
    hung = {name.rpartition("/")[2].rpartition(".")[0] for name in delta.tensors}
    named = method_of(config).trainable(tiny_sd.unet)
    assert len(hung) == len(named) and all(name.startswith(tuple(hung)) for name in named)
    # Both of a pair learn: `up` from its zeros at once, and `down` as soon as `up` lets a gradient through.
    fresh = method_of(config).start(tiny_sd, (dog,), config, named)
    counts = felt(tiny_sd, named)
    assert counts and all(
        not torch.equal(fresh[name], tensor)
        for name, tensor in delta.tensors.items()
        if any(weight.startswith(f"{name.rpartition('/')[2].rpartition('.')[0]}.") for weight in counts)
    )
    assert all(torch.equal(before[n], p) for n, p in tiny_sd.unet.named_parameters())
    base = tiny_sd.draw(["dog"], [0], 2, 3.0)
    with delta.applied(tiny_sd):
        assert not torch.equal(tiny_sd.draw(["dog"], [0], 2, 3.0), base)


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_of_two_concepts_ends_bit_identical(tiny_sd, dog, tmp_path, method):
    """Stopped when the second one has not had its first turn yet."""
    specs, config = [dog, ConceptSpec("cat")], EraseConfig(method, steps=3, lr=1e-2, checkpoint_every=1)
    file = tmp_path / "checkpoint.safetensors"
    for step in erase_steps(tiny_sd, specs, config, checkpoint=file):
        if (step.phase, step.number) == ("train", 1):
            break
    assert same(last(tiny_sd, specs, config, checkpoint=file, resume=True), last(tiny_sd, specs, config))


@pytest.mark.parametrize("method", METHODS)
def test_on_a_bf16_base_it_is_tuned_in_fp32(tiny_sd, dog, method):
    """An update of 1e-5 is lost in a bf16 value of the size that `down` starts with."""
    model, config = Diffusion.load(tiny_sd.base, device="cpu", dtype="bf16"), EraseConfig(method, steps=3, lr=1e-5)
    start = method_of(config).start(model, (dog,), config, method_of(config).trainable(model.unet))
    tuned = last(model, dog, config).tensors
    moved = max((tuned[n] - start[n]).abs().max().item() for n in tuned if n.endswith(".down"))
    assert all(t.dtype == torch.float32 for t in tuned.values()) and 0 < moved < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_the_base_it_was_made_on_stays_whole(tiny_sd, dog, method):
    before = predict(tiny_sd)
    for step in erase_steps(tiny_sd, dog, replace(EraseConfig(method, lr=1e-2), steps=1)):
        assert torch.equal(predict(tiny_sd), before), step.phase


@pytest.mark.parametrize("method", METHODS)
def test_a_run_has_its_previews_and_its_report(tiny_sd, dog, method):
    config = EraseConfig(method, steps=2, lr=1e-2, preview_every=1)
    run = runs.create(Job(tiny_sd.base, dog, config, "cpu"), queued=False)
    kinds = [event.kind for event in execute(run, evaluation=runs.EvaluationRequest(1))]
    assert kinds[-1] == "done" and kinds.count("preview") == 3 and run.report.method == method
    base = tiny_sd.draw(["dog"], [0], 2, 3.0)
    with ErasedWeights.load(run.weights_path).applied(tiny_sd):
        assert not torch.equal(tiny_sd.draw(["dog"], [0], 2, 3.0), base)
