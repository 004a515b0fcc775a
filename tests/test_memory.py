"""Out of memory: told from other errors, and answered with fewer rows, then with gradient checkpointing.

The U-Nets here really refuse: a class of its own that raises torch's error for more rows than it has room for.
"""

import copy
import dataclasses
from contextlib import closing

import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks.full_size_step import most_bytes
from crce import runs
from crce.catalogue import CLOSED_FORM, METHOD_FACTS
from crce.config import EraseConfig, resolve_config
from crce.errors import CrceError
from crce.methods.esd import Esd
from crce.methods.losses import erase_term
from crce.models.diffusion import Diffusion
from crce.models.memory import Parts, is_out_of_memory
from crce.runs import Job
from crce.runs.execute import execute
from crce.runs.models import Models
from crce.training.loop import TrainState, erase_steps, noise_caches, train_once

SHORT = EraseConfig(steps=4, corefs=2, retains=2)


class SmallUNet(UNet2DConditionModel):
    """A U-Net on a device with room for so many rows, and fewer with all, or some, of what a backward pass needs."""

    rows = rows_with_gradient = rows_recomputed = 1 << 30
    refused = 0

    @property
    def room(self):
        if not torch.is_grad_enabled():
            return self.rows
        return self.rows_recomputed if self.is_gradient_checkpointing else self.rows_with_gradient

    def forward(self, sample, timestep, *args, **kwargs):
        if len(sample) > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(sample)} rows.")
        return super().forward(sample, timestep, *args, **kwargs)


def small(model, rows, rows_with_gradient=None):
    """The same model on such a device."""
    other = copy.copy(model)
    other._predicting, other._decoding = Parts(), Parts()
    other.unet = SmallUNet.from_config(model.unet.config).eval().requires_grad_(False)
    other.unet.load_state_dict(model.unet.state_dict())
    other.unet.rows = other.unet.rows_recomputed = rows
    other.unet.rows_with_gradient = rows if rows_with_gradient is None else rows_with_gradient
    return other


def last(model, spec, config=SHORT, **options):
    *_, step = erase_steps(model, spec, config, **options)
    return step


def assert_close(one, other):
    for name, tensor in one.weights().tensors.items():
        torch.testing.assert_close(other.weights().tensors[name], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        MemoryError(),
    ],
)
def test_it_is_known_in_all_its_forms(error):
    assert is_out_of_memory(error)


def test_a_real_one_is_known_and_other_errors_are_not():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)
    with pytest.raises(RuntimeError) as error:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(error.value)
    assert not is_out_of_memory(OSError("out of memory")) and not is_out_of_memory(CrceError("out of memory"))


@pytest.mark.parametrize(("rows", "left"), [(8, 2), (3, 2), (1, 1)])
def test_a_run_goes_on_with_fewer_terms_at_once(tiny_sd, dog, rows, left):
    """5 terms do not fit: 2 are tried, then 1."""
    whole, model = last(tiny_sd, dog), small(tiny_sd, rows, min(rows, 4))
    shrunk = last(model, dog)
    assert model.unet.refused and shrunk.number == 4
    assert_close(whole, shrunk)
    states = train_states(model, dog)
    assert (states.rows, states.recompute) == (left, False)


def train_states(model, spec, config=SHORT):
    """After a step."""
    state = TrainState(model, (spec,), resolve_config(config, model.base))
    train_once(state, noise_caches(state))
    return state


TRAINED = [k for k, facts in METHOD_FACTS.items() if facts.kind != CLOSED_FORM]


@pytest.mark.parametrize("method", TRAINED)
def test_at_last_blocks_are_computed_again(tiny_sd, dog, method):
    """Not one row fits with what it keeps. Every method has the same gradients then, its layers and maps too."""
    config = dataclasses.replace(SHORT, method=method, microbatch_size=1)
    model = small(tiny_sd, 1 << 30, 0)
    kept, recomputed = train_states(tiny_sd, dog, config), train_states(model, dog, config)
    assert (model.unet.refused, recomputed.recompute) == (1, True)
    assert not model.unet.is_gradient_checkpointing
    for name, tensor in kept.trained.items():
        torch.testing.assert_close(recomputed.trained[name].grad, tensor.grad, atol=1e-6, rtol=1e-3)


def test_when_nothing_is_left_torchs_own_error_ends_the_run(tiny_sd, dog):
    config = dataclasses.replace(SHORT, method="esd-x-strict")
    with pytest.raises(torch.OutOfMemoryError, match="1 rows"):
        train_states(small(tiny_sd, 0), dog, config)


@pytest.mark.parametrize("method", ["esd-x-strict", "mace", "receler"])
def test_a_block_is_given_up_before_the_next_is_computed_again(sd_shaped, dog, method):
    """Maps and additions that were taken from a pass do not hold on to it either."""
    config = dataclasses.replace(SHORT, method=method, microbatch_size=1)
    state = TrainState(sd_shaped, (dog,), resolve_config(config, sd_shaped.base))
    caches = noise_caches(state)
    train_once(state, caches)
    kept = most_bytes(lambda: train_once(state, caches))
    state.recompute = True
    # Maps that the loss is made of stay, of both passes: half of what MACE keeps.
    assert most_bytes(lambda: train_once(state, caches)) < kept * (0.65 if method == "mace" else 0.5)


def test_a_run_says_how_it_goes_on(models, tiny_sd_dir, dog):
    """With room for nothing that is kept: 5 terms at once are tried, 2, 1, then one whose blocks are computed again."""
    models.get(str(tiny_sd_dir)).unet.rows_with_gradient = 0
    run = runs.create(Job(str(tiny_sd_dir), dog, SHORT))
    *_, end = execute(run, models)
    assert end.kind == "done" and run.state == "done"
    assert run.notes == ("Memory ran out in step 1: from here on with 1 term at once, with gradient checkpointing.",)


def test_a_run_that_nothing_helps_ends_honestly(models, tiny_sd_dir, dog):
    """After step 2 another program takes all memory."""
    unet, tried = models.get(str(tiny_sd_dir)).unet, []

    def note(_, inputs):
        if torch.is_grad_enabled():
            tried.append((len(inputs[0]), unet.is_gradient_checkpointing))

    unet.register_forward_pre_hook(note)
    run = runs.create(Job(str(tiny_sd_dir), dog, dataclasses.replace(SHORT, checkpoint_every=1)))
    for event in execute(run, models):
        if event.kind == "step" and event.step == 2:
            unet.rows_with_gradient = unet.rows_recomputed = 0
            tried.clear()
    assert tried == [(5, False), (2, False), (1, False), (1, True)]
    assert run.state == "failed" and event.message.startswith("Out of memory. Step 2 is kept.")
    assert "One term at a time with gradient checkpointing was tried." in event.message
    assert not unet.is_gradient_checkpointing


@pytest.fixture
def models(tiny_sd_dir):
    """Of a process whose device may be made as small as a test wants."""
    held = Models("cpu")
    model = held.get(str(tiny_sd_dir))
    model.unet = small(model, 1 << 30).unet
    return held


def test_pictures_are_drawn_with_fewer_rows_at_once(tiny_sd):
    prompts, seeds = ["dog", "cat", "a wolf"], [0, 1, 2]
    whole = tiny_sd.draw(prompts, seeds, 3, 3.0)
    model = small(tiny_sd, 2)
    torch.testing.assert_close(model.draw(prompts, seeds, 3, 3.0), whole, atol=1e-4, rtol=1e-3)
    # 6 rows, 3 rows, 1 row; then it is known.
    assert (model.unet.refused, model._predicting.most) == (2, 1)


def test_gates_know_their_prompts_in_parts_of_a_batch(tiny_sd, dog):
    """SPM's adapter acts by prompt, and half a batch is not the batch's first prompts again."""
    weights = last(tiny_sd, dog, EraseConfig("spm", steps=4, lr=0.1)).weights()
    prompts, seeds = ["dog", "a picture of something else", "cat"], [0, 1, 2]
    with weights.applied(tiny_sd):
        whole = tiny_sd.draw(prompts, seeds, 2, 3.0)
    model = small(tiny_sd, 2)
    with weights.applied(model):
        torch.testing.assert_close(model.draw(prompts, seeds, 2, 3.0), whole, atol=1e-4, rtol=1e-3)


def test_a_failed_attempt_leaves_no_trace_in_soft_words(tiny_sd, dog):
    """Receler moves them before its own loss: an attempt that fails after that starts again from where they were."""

    class FailsOnce(UNet2DConditionModel):
        calls = 0

        def forward(self, *args, **kwargs):
            FailsOnce.calls += torch.is_grad_enabled()
            if FailsOnce.calls == 5 and torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(*args, **kwargs)

    config = EraseConfig("receler", steps=1)
    whole, model = train_states(tiny_sd, dog, config), copy.copy(tiny_sd)
    model.unet = FailsOnce.from_config(tiny_sd.unet.config).eval().requires_grad_(False)
    model.unet.load_state_dict(tiny_sd.unet.state_dict())
    again = train_states(model, dog, config)
    assert FailsOnce.calls > 6
    # A step of the attack moves them by 0.1.
    torch.testing.assert_close(again.tensors["soft/dog"], whole.tensors["soft/dog"], atol=1e-3, rtol=1e-3)


def test_a_run_may_be_resumed_with_fewer_rows(tiny_sd, dog, tmp_path):
    config, file = dataclasses.replace(SHORT, steps=6, checkpoint_every=3), tmp_path / "checkpoint"
    whole = last(tiny_sd, dog, config)
    with closing(erase_steps(tiny_sd, dog, config, checkpoint=file)) as steps:
        next(step for step in steps if (step.phase, step.number) == ("train", 4))
    fewer = dataclasses.replace(config, microbatch_size=1)
    first, *_, end = [s for s in erase_steps(tiny_sd, dog, fewer, checkpoint=file, resume=True) if s.phase == "train"]
    assert first.number == 4
    assert_close(whole, end)


def test_a_resumed_run_knows_what_fitted(tiny_sd, dog, tmp_path):
    file, model = tmp_path / "checkpoint", small(tiny_sd, 1 << 30, 2)
    config = dataclasses.replace(SHORT, steps=2)
    last(model, dog, config, checkpoint=file)
    state = TrainState(tiny_sd, (dog,), resolve_config(config, model.base))
    state.load(file)
    assert (state.rows, state.recompute) == (2, False)


@dataclasses.dataclass(frozen=True)
class Faint(Esd):
    """ESD with a loss as faint as it becomes on SD v1.4: the mean over 64 times as many latent values."""

    def loss_terms(self, context):
        return [erase_term("target", context.embed(context.spec.target), 1e-5)]


def test_gradients_in_fp16_are_those_of_fp32(sd_shaped_dir, dog):
    """Without a scale they vanish on their way through the U-Net."""
    models = {dtype: Diffusion.load(str(sd_shaped_dir), device="cpu", dtype=dtype) for dtype in ("fp32", "fp16")}
    true = gradient(models["fp32"], dog)
    assert cosine(gradient(models["fp16"], dog), true) > 0.99
    assert cosine(gradient(models["fp16"], dog, scale=1.0), true) < 0.9


def test_a_scale_that_is_too_large_is_halved_until_nothing_overflows(sd_shaped_dir, dog):
    model = Diffusion.load(str(sd_shaped_dir), device="cpu", dtype="fp16")
    state = faint_state(model, dog, scale=2.0**60)
    train_once(state, noise_caches(state))
    assert state.step == 1 and 1 < state.loss_scale < 2.0**40
    true = gradient(Diffusion.load(str(sd_shaped_dir), device="cpu"), dog)
    assert cosine(gradients_of(state), true) > 0.99


def gradient(model, spec, scale=None):
    state = faint_state(model, spec, scale)
    train_once(state, noise_caches(state))
    return gradients_of(state)


def faint_state(model, spec, scale):
    state = TrainState(model, (spec,), resolve_config(EraseConfig("esd-x-strict", steps=50), model.base))
    state.method, state.loss_scale = Faint(), scale or state.loss_scale
    return state


def gradients_of(state):
    return torch.cat([tensor.grad.flatten().double() for tensor in state.trained.values()])


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a, b, dim=0).item()
