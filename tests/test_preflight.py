"""What a run costs is told before it starts, from what a step of it really keeps."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks.sd_shaped import UNET
from crce import cost, runs
from crce.catalogue import CLOSED_FORM, METHOD_FACTS
from crce.config import EraseConfig, resolve_config
from crce.cost import Cost
from crce.errors import CrceError
from crce.methods.erased_weights import ErasedWeights
from crce.methods.registry import METHODS
from crce.models.diffusion import Diffusion
from crce.runs import Job
from crce.runs.events import CostEvent, DoneEvent, EstimateEvent
from crce.runs.execute import execute
from crce.runs.models import Models
from crce.training.checkpoints import SMALL, Checkpoints
from crce.training.estimate import FP32, count_values, disk_bytes, estimate, trace_shapes, try_steps
from crce.training.loop import TrainState, erase_steps
from crce.training.saved_bytes import SavedBytes

TERMS = {"corefs": 3, "retains": 2}


def configured(model, method="crce", **settings):
    return resolve_config(EraseConfig(method, **{**TERMS, **settings}), model.base)


@pytest.mark.parametrize(
    ("method", "rows"),
    [("crce", 1 + 3 + 2 + 2), ("esd-x-strict", 1), ("realera", 1 + 10 + 2 + 2), ("spm", 1 + 4 + 4)],
)
def test_rows_are_counted_in_a_step(tiny_sd, dog, method, rows):
    """The students' and, for what is held, the frozen model's."""
    config = configured(tiny_sd, method)
    assert try_steps(tiny_sd, [dog], config).rows == trace_shapes(tiny_sd, [dog], config).rows == rows
    bank = 2 * 50 * math.ceil(config.steps / 50)
    assert estimate(tiny_sd, [dog], config).rows == rows * config.steps + bank


@pytest.mark.parametrize("method", METHOD_FACTS)
def test_every_method_can_be_foretold(tiny_sd, dog, method):
    told = estimate(tiny_sd, [dog], configured(tiny_sd, method, steps=1))
    trains = METHOD_FACTS[method].kind != CLOSED_FORM
    # A bank of one trajectory, and at least a row in the step.
    assert (told.rows > 100, told.seconds is not None) == (trains, trains)
    assert min(told.memory, told.disk) > 0


@pytest.mark.parametrize("method", ["crce", "esd-x", "esd-u"])
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_shapes_tell_what_a_step_really_keeps(tiny_sd, dog, method, rows):
    config = configured(tiny_sd, method, microbatch_size=rows)
    told, kept = trace_shapes(tiny_sd, [dog], config).held, try_steps(tiny_sd, [dog], config).held
    # The losses' own few bytes are not a prediction's.
    assert kept * 0.95 < told <= kept


def test_one_row_at_a_time_is_flat_in_the_number_of_terms(tiny_sd, dog):
    one, few, many = (
        try_steps(tiny_sd, [dog], configured(tiny_sd, corefs=m, retains=n, microbatch_size=1)).held
        for m, n in ((0, 0), (1, 1), (3, 3))
    )
    assert one == few == many
    assert try_steps(tiny_sd, [dog], configured(tiny_sd, corefs=3, retains=3)).held > 6 * one


def test_a_large_model_on_a_cpu_is_not_tried(tiny_sd_dir, dog, tmp_path):
    large = shutil.copytree(tiny_sd_dir, tmp_path / "large")
    unet = json.loads((large / "unet/config.json").read_text())
    (large / "unet/config.json").write_text(json.dumps({**unet, "sample_size": 2000}))
    model = Diffusion.load(str(large), device="cpu")
    told = estimate(model, [dog], configured(model))
    assert told.seconds is None and told.rows == 6 * 8 + 2 * 50
    # More than a machine for it has: what was told took none of it.
    assert told.memory > 10**11


def test_what_is_kept_is_what_autograd_holds_and_let_go_with_it():
    weight, x = torch.randn(4, 4, requires_grad=True), torch.randn(8, 4)
    held = SavedBytes([weight])
    with held.counting():
        y = (x @ weight).exp()
    # x and the exponential, 8 × 4 of fp32 each; the weight is known.
    assert held.now == held.peak == 2 * 8 * 4 * FP32
    y.sum().backward()
    del y
    assert (held.now, held.peak) == (0, 2 * 8 * 4 * FP32)


@pytest.mark.parametrize("method", ["crce", "spm", "esd-u"])
def test_memory_has_all_that_a_run_has(tiny_sd, dog, method):
    config = configured(tiny_sd, method)
    tuned = TrainState(tiny_sd, (dog,), config)
    parts = (tiny_sd.unet, tiny_sd.text_encoder, tiny_sd.vae)
    base = sum(p.nbytes for part in parts for p in part.parameters())
    own = sum(tensor.nbytes for tensor in tuned.tensors.values())
    told = estimate(tiny_sd, [dog], config).memory
    assert count_values(tiny_sd, [dog], config) * FP32 == own
    bank = 50 * 4 * tiny_sd.noise([0]).nbytes
    assert told == base + 4 * own + try_steps(tiny_sd, [dog], config).held + bank


def test_the_disk_has_room_for_a_delta_and_two_checkpoints(tiny_sd, dog, tmp_path):
    config, checkpoint = configured(tiny_sd, "esd-u", checkpoint_every=1), tmp_path / "checkpoint"
    *_, step = erase_steps(tiny_sd, dog, config, checkpoint=checkpoint)
    step.weights().save(tmp_path / "delta")
    files = (tmp_path / "delta", checkpoint, checkpoint)
    written = sum(tensor.nbytes for path in files for tensor in ErasedWeights.load(path).tensors.values())
    # Adam counts its steps, too, in 4 bytes for each tensor.
    assert written * 0.99 < disk_bytes(tiny_sd, [dog], config) - (32 << 20) <= written


def test_a_closed_form_takes_no_row_and_no_checkpoint(tiny_sd, dog):
    told = estimate(tiny_sd, [dog], EraseConfig("crce-uce"))
    assert (told.seconds, told.rows) == (None, 0)
    assert told.disk == FP32 * count_values(tiny_sd, [dog], EraseConfig("uce")) + (32 << 20)
    assert cost.describe_time(told) == "Solved at once, without training."


def test_several_concepts_cost_several_times_the_rows(tiny_sd, dog):
    config = configured(tiny_sd)
    assert estimate(tiny_sd, [dog, dog], config).rows == 2 * estimate(tiny_sd, [dog], config).rows


def test_an_estimate_changes_nothing_of_the_run(tiny_sd, dog):
    config = configured(tiny_sd, steps=2)
    before = list(erase_steps(tiny_sd, dog, config))[-1].weights()
    estimate(tiny_sd, [dog], config)
    after = list(erase_steps(tiny_sd, dog, config))[-1].weights()
    assert all(torch.equal(before.tensors[name], after.tensors[name]) for name in before.tensors)


def test_too_few_terms_are_said_before_anything_is_tried(tiny_sd, dog):
    with pytest.raises(CrceError, match="each step draws 5"):
        estimate(tiny_sd, [dog], EraseConfig())


def test_a_run_keeps_the_estimate_and_what_it_took(tiny_sd_dir, tiny_sd, dog):
    config = configured(tiny_sd, preview_every=0)
    run = runs.create(Job(str(tiny_sd_dir), dog, config))
    kinds = [event.kind for event in execute(run, Models("cpu"))]
    assert kinds.index("estimate") < kinds.index("step") < kinds.index("cost")
    told, took = run.last(EstimateEvent), run.last(CostEvent)
    assert told.memory == estimate(tiny_sd, [dog], config).memory
    assert took.whose == "process" and took.memory > told.memory
    assert run.weights_path.stat().st_size < took.disk < told.disk
    assert 0 < took.seconds <= run.last(DoneEvent).seconds + 0.05


def test_an_interrupted_run_claims_no_time(tiny_sd_dir, tiny_sd, dog):
    run = runs.create(Job(str(tiny_sd_dir), dog, configured(tiny_sd, preview_every=0, checkpoint_every=2)))
    for event in (events := execute(run, Models("cpu"))):
        if event.kind == "checkpoint":
            events.close()
    assert "cost" not in [event.kind for event in execute(run, Models("cpu"))]


def test_costs_in_words():
    told = Cost(70.4, 12_300_000_000, 40_000_000, 100)
    assert cost.describe_time(told) == "About 1 min 10 s to erase, by a step measured here."
    assert cost.describe_room(told) == "Needs about 12.3 GB of memory and up to 40.0 MB of disk."
    enough = cost.describe_room(replace(told, free=13_000_000_000))
    assert enough == "Needs about 12.3 GB of memory (13.0 GB are free) and up to 40.0 MB of disk."
    assert "the run needs 100" in cost.describe_time(Cost(None, 1, 1, 100))
    short = Cost(None, 17_300_000_000, 33_000_000_000, 100, free=11_200_000_000)
    assert "(11.2 GB are free)" in cost.describe_room(short)
    assert "does not suffice: choose a method that trains fewer weights" in cost.describe_room(short)
    assert "suffice" not in cost.describe_room(replace(short, free=17_300_000_000))


def test_free_memory_is_what_the_system_has_and_the_models_own(tiny_sd, dog):
    told = estimate(tiny_sd, [dog], configured(tiny_sd))
    parts = (tiny_sd.unet, tiny_sd.text_encoder, tiny_sd.vae)
    assert told.free > sum(p.nbytes for part in parts for p in part.parameters())
    total = int(re.search(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024
    assert told.fits and told.free < total * 1.01


@pytest.mark.parametrize("method", ["esd-u", "salun"])
def test_all_weights_of_sd_v1_4_need_more_than_16_gb(method):
    """A master copy, its gradient and two moments of 860 M values, told before anything is tried."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**{k: v for k, v in UNET.items() if k[0] != "_"})
    sizes = {name: p.numel() for name, p in unet.named_parameters()}
    trained = sum(sizes[name] for name in METHODS[method].trainable(unet))
    assert 2 * sum(sizes.values()) + 4 * FP32 * trained > 14e9
    # A checkpoint of it is not small, one of K and V is due as often as its writing takes less than a tenth.
    assert 3 * FP32 * trained > 9e9


def test_a_large_checkpoint_is_written_no_more_often_than_takes_a_tenth_of_the_time(tmp_path):
    kept = Checkpoints(tmp_path / "checkpoint", every=50)
    assert [step for step in range(1, 101) if kept.due(step, False, SMALL)] == [50, 100]
    # 10 GB, at first by a disk's usual speed: 20 s, and so not in the first 200.
    assert not kept.due(50, False, 10**10) and not kept.due(101, True, 10**10)
    kept._ended -= 201
    assert kept.due(50, False, 10**10) and kept.due(101, True, 10**10) and not kept.due(51, False, 10**10)
    kept._seconds = 30.0
    assert not kept.due(50, False, 10**10)
    kept.close()


def test_a_checkpoint_beside_the_training_counts_once_it_is_there(tmp_path):
    """While it is written none is due; when it is closed it is whole."""
    kept, weights = Checkpoints(tmp_path / "checkpoint", every=1), ErasedWeights({"w": torch.ones(3)}, {"step": "7"})
    kept.write(7, weights, beside=True)
    kept.look(wait=True)
    assert kept.kept == 7 and ErasedWeights.load(kept.path).info["step"] == "7"
    kept.write(8, weights, beside=True)
    assert not kept.due(9, False, 1)
    kept.close()
    assert torch.equal(ErasedWeights.load(kept.path).tensors["w"], torch.ones(3))


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    kept = Checkpoints(tmp_path / "file" / "checkpoint", every=1)
    with pytest.raises(OSError):
        kept.write(1, ErasedWeights({"w": torch.ones(3)}, {}), beside=False)
    assert kept.kept == 0
    kept.close()
