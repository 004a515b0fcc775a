"""A damaged checkpoint is set aside and said, the run goes on from the state before it; what kills leave is removed."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open

from crce import runs
from crce.config import EraseConfig
from crce.files import ROOT
from crce.methods.erased_weights import ErasedWeights
from crce.runs import Job, Run
from crce.runs.events import CheckpointEvent, StepEvent
from crce.runs.execute import execute
from crce.runs.models import Models
from crce.training import checkpoints
from crce.training.checkpoints import BrokenCheckpoint
from crce.training.loop import erase_steps

SETTINGS = EraseConfig(steps=6, corefs=2, retains=2, preview_every=0, checkpoint_every=2)


@pytest.fixture(scope="module")
def models():
    return Models("cpu")


@pytest.fixture
def job(tiny_sd_dir, dog):
    return Job(str(tiny_sd_dir), dog, SETTINGS)


@pytest.fixture
def run(job):
    return runs.create(job)


@pytest.fixture(scope="module")
def whole(models, tiny_sd_dir, dog, tmp_path_factory):
    """The same job, never interrupted."""
    run = runs.create(Job(str(tiny_sd_dir), dog, SETTINGS), tmp_path_factory.mktemp("whole"))
    *_, _ = execute(run, models)
    return run


def same(run, other):
    one, two = ErasedWeights.load(run.weights_path), ErasedWeights.load(other.weights_path)
    return one.info == two.info and all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


def interrupt(run, models, after=4):
    """Leaves the run once this step is kept."""
    events = execute(run, models)
    while run.kept_step < after:
        next(events)
    events.close()


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    """One bit of a tensor, which the file's format does not notice."""
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)


def number_of_steps(path):
    """A digit in the facts beside the tensors."""
    path.write_bytes(path.read_bytes().replace(b'"step":"4"', b'"step":"5"'))


def garble(path):
    path.write_bytes(random.Random(5).randbytes(3000))


def empty(path):
    path.write_bytes(b"")


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut, flip, number_of_steps, garble, empty, folder])
def test_a_damaged_checkpoint_is_set_aside_and_the_state_before_it_taken(whole, run, models, damage):
    interrupt(run, models)
    damage(run.checkpoint_path)
    events = execute(run, models)
    seen = [event for event in (next(events) for _ in range(52)) if event.kind in ("note", "step")]
    assert "set aside (checkpoint-broken-1.safetensors). The run goes on from the state before it." in seen[0].text
    assert (run.dir / "checkpoint-broken-1.safetensors").exists()
    seen += list(events)
    assert next(event.step for event in seen if isinstance(event, StepEvent)) == 3
    assert run.state == "done" and same(run, whole) and run.notes == (seen[0].text,)
    assert not list(run.dir.glob("checkpoint*"))


def test_without_a_state_before_it_the_run_begins_again_and_says_so(whole, run, models):
    interrupt(run, models)
    cut(run.checkpoint_path)
    cut(run.dir / "checkpoint-previous.safetensors")
    events = list(execute(run, models))
    assert [event.step for event in events if isinstance(event, StepEvent)] == [1, 2, 3, 4, 5, 6]
    assert [note.rpartition(". ")[2] for note in run.notes] == [
        "The run goes on from the state before it.", "The run starts again from the beginning."
    ]  # fmt: skip
    assert run.state == "done" and same(run, whole)


def test_what_is_kept_after_a_damaged_checkpoint_is_what_is_there(run, models):
    interrupt(run, models)
    cut(run.checkpoint_path)
    events = execute(run, models)
    while next(events).kind != "step":
        pass
    events.close()
    assert run.kept_step == 2 and run.last(CheckpointEvent).step == 2


def test_in_the_library_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tiny_sd, dog, tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    *_, last = erase_steps(tiny_sd, dog, SETTINGS, checkpoint=file)
    flip(file)
    with pytest.raises(BrokenCheckpoint, match="is damaged: it does not hold what was written. Remove it"):
        next(erase_steps(tiny_sd, dog, SETTINGS, checkpoint=file, resume=True))


def test_a_state_is_read_as_it_was_written(tmp_path):
    values = {"none": torch.zeros(0), "one": torch.tensor(3.0), "half": torch.ones(2, 3, dtype=torch.bfloat16).T}
    checkpoints.write(ErasedWeights(values, {"step": "2", "name": "猫"}), tmp_path / "checkpoint.safetensors")
    read = checkpoints.read(tmp_path / "checkpoint.safetensors")
    assert read.info == {"format": "pt", "step": "2", "name": "猫"}
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in values.items())


KILLED = """
import resource, signal, sys
from pathlib import Path
from crce.runs import Run
from crce.runs.execute import execute

# The system ends a process that writes beyond its limit; Python asks it not to.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
for event in execute(Run(Path(sys.argv[1]))):
    if event.kind == "checkpoint":
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, resource.RLIM_INFINITY))
"""


def test_a_checkpoint_half_written_when_the_process_was_killed_is_removed(whole, run, models):
    child = subprocess.run([sys.executable, "-c", KILLED, run.dir], cwd=ROOT)
    assert child.returncode == -signal.SIGXFSZ
    (left,) = run.dir.glob(".checkpoint*")
    assert left.stat().st_size == 16 << 10
    with safe_open(run.checkpoint_path, framework="pt") as file:
        assert file.metadata()["step"] == "2"
    assert [event.kind for event in execute(run, models)][-1] == "done"
    assert not list(run.dir.glob(".*")) and same(run, whole)


def test_leftovers_of_kills_are_removed_from_the_store_and_nothing_else(job, run):
    other = runs.create(job)
    (run.dir / ".checkpoint.safetensors.abc").touch()
    (other.dir / ".checkpoint.safetensors.abc").touch()
    old, new = (runs.store() / f".new-20260801-093015-dog-{name}" for name in ("aaaa", "bbbb"))
    for path in (old, new, runs.store() / ".deleted-20260801-093015-dog-cccc"):
        (path / "images").mkdir(parents=True)
        (path / "job.json").touch()
    os.utime(old, (time.time() - 3600,) * 2)
    with other.hold():
        runs.tidy()
    assert {path.name for path in runs.store().iterdir()} == {run.id, other.id, new.name}
    assert not list(run.dir.glob(".*")) and (other.dir / ".checkpoint.safetensors.abc").exists()
    assert Run(run.dir).state == "queued"


def test_the_worker_tidies_when_it_starts(run, home):
    (runs.store() / ".deleted-20260801-093015-dog-cccc").mkdir()
    run.request_stop()
    worker = subprocess.Popen([sys.executable, "-m", "crce", "worker"], cwd=ROOT)
    try:
        until = time.monotonic() + 60
        while list(runs.store().glob(".deleted-*")):
            assert time.monotonic() < until and worker.poll() is None
            time.sleep(0.05)
    finally:
        worker.kill()
        worker.wait()
