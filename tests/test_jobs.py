"""A run is worked on step by step: it can be stopped, killed and resumed, and every failure says what to do."""

import dataclasses
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from crce import runs
from crce.concepts.spec import ConceptSpec, Term
from crce.config import EraseConfig
from crce.cost import Cost
from crce.errors import CrceError
from crce.files import ROOT
from crce.methods.erased_weights import ErasedWeights
from crce.runs import Busy, EvaluationRequest, Job
from crce.runs.events import FailedEvent, PhaseEvent, StepEvent
from crce.runs.execute import UNNOTICED, WRITE_EVERY, check_room, execute, is_worth_it, picture_name
from crce.runs.failures import explain
from crce.runs.models import Models

SETTINGS = EraseConfig(steps=6, corefs=2, retains=2, preview_every=2, checkpoint_every=2)


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
    """The same job, never interrupted: its events and its run."""
    run = runs.create(Job(str(tiny_sd_dir), dog, SETTINGS), tmp_path_factory.mktemp("whole"))
    return list(execute(run, models)), run


def kinds(events):
    return [event.kind for event in events]


def same(run, other):
    """Whether both ended in the same weights, bit by bit."""
    one, two = ErasedWeights.load(run.weights_path), ErasedWeights.load(other.weights_path)
    return one.info == two.info and all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


def test_a_run_goes_from_queued_to_done(whole):
    events, run = whole
    assert run.state == "done" and run.erased
    assert kinds(events)[0] == "start" and kinds(events)[-1] == "done"
    assert [e.done for e in events if e.kind == "phase"] == list(range(1, 51))
    assert [e.step for e in events if e.kind == "step"] == [1, 2, 3, 4, 5, 6]
    assert [e.step for e in events if e.kind == "checkpoint"] == [2, 4, 6]
    assert not (run.dir / "checkpoint.safetensors").exists()


def test_events_are_thinned_on_disk_but_ends_are_kept(whole):
    events, run = whole
    assert set(map(str, run.events())) <= set(map(str, events))
    for kind in (PhaseEvent, StepEvent):
        times = [event.time for event in events if isinstance(event, kind)]
        written = sum(isinstance(event, kind) for event in run.events())
        # The first, the last, and one in half a second between them: on a fast machine three of 50.
        assert 1 <= written <= 3 + (times[-1] - times[0]) / WRITE_EVERY
    assert run.last(PhaseEvent).done == 50 and run.last(StepEvent).step == 6
    assert set(run.last(StepEvent).losses) == {"target", "corefs", "retains"}
    assert run.progress == runs.Progress("train", 6, 6, 0.0)


def test_previews_show_target_coref_and_retain(whole):
    events, run = whole
    previews = [e for e in events if e.kind == "preview"]
    assert [p.step for p in previews] == [0, 2, 4, 6]
    assert previews[0].prompts == ("dog", "puppy", "cat")
    assert all(Image.open(run.dir / name).size == (16, 16) for p in previews for name in p.images)


def test_without_previews_there_are_none(job, models):
    config = EraseConfig(steps=2, corefs=0, retains=0, preview_every=0)
    run = runs.create(Job(job.base, job.spec, config))
    assert "preview" not in kinds(execute(run, models))


def test_a_held_run_is_busy(run, models):
    with run.hold(), pytest.raises(Busy):
        next(execute(run, models))


@pytest.mark.parametrize("after", [0, 20, 56])
def test_stop_and_resume_give_the_same_delta(whole, run, models, after):
    """Stopped before anything, while the bank is sampled, and between steps."""
    for number, _ in enumerate(events := execute(run, models)):
        if number == after:
            run.request_stop()
            break
    assert kinds(events)[-1] == "stopped"
    assert run.state == "stopped" and not run.stopping and not run.erased
    run.request_resume()
    assert run.state == "queued"
    assert kinds(execute(run, models))[-1] == "done"
    assert same(run, whole[1])


def test_left_in_the_middle_it_is_interrupted_and_goes_on(whole, run, models):
    """And drawing between the steps, as the worker does for open tabs, changes nothing."""
    events = execute(run, models)
    while next(events).kind != "checkpoint":
        models.get_loaded(run.job.base).generate_batch(["a cat"], [5])
    assert run.state == "running"
    events.close()
    assert run.state == "interrupted" and run.kept_step == 2
    resumed = list(execute(run, models))
    assert [e.step for e in resumed if e.kind == "step"] == [3, 4, 5, 6]
    assert same(run, whole[1])


def test_killed_between_the_last_checkpoint_and_its_delta(whole, run, models):
    events = execute(run, models)
    while run.kept_step < 6:
        next(events)
    events.close()
    run.weights_path.unlink()
    assert kinds(execute(run, models))[-1] == "done"
    assert same(run, whole[1])


def test_an_evaluation_ends_in_a_report_with_pictures(run, models):
    run.request_evaluate(2)
    events = list(execute(run, models))
    assert kinds(events)[-2:] == ["evaluated", "done"] and run.evaluation is None
    drawn = [(e.done, e.of) for e in events if isinstance(e, PhaseEvent) and e.phase == "pictures"]
    report = run.report
    assert drawn[-1] == (len(report.terms), len(report.terms))
    assert report.concept == "dog (animal)" and report.images == 2 and report.ask == "target"
    assert report.metrics["acc_u"].n == 10
    for number, term in enumerate(report.terms):
        for prefix in ("", "base-"):
            name = picture_name(term.kind, number, 1, prefix)
            assert Image.open(run.dir / name).size == (16, 16)


def test_several_concepts_in_one_run_have_a_report_each(tiny_sd_dir, dog, models, tmp_path):
    cat = dataclasses.replace(
        dog, target="cat", sense="", corefs=(Term("kitty"), Term("tom")), retains=(Term("wolf"), Term("fox"))
    )
    job = Job(str(tiny_sd_dir), dog, EraseConfig(steps=2, corefs=1, retains=1, preview_every=0), also=(cat,))
    run = runs.create(job, tmp_path / "both")
    assert run.title == "dog (animal) + cat" and run.job.also == (cat,)
    run.request_evaluate(1)
    assert [e.step for e in execute(run, models) if e.kind == "step"][-1] == 4
    (other,) = run.report.also
    assert [run.report.concept, other.concept] == ["dog (animal)", "cat"]
    assert "cat" not in {term.text for report in (run.report, other) for term in report.terms[1:]}


def test_an_evaluation_can_be_stopped_and_taken_up_again(run, models):
    for event in (events := execute(run, models, evaluation=EvaluationRequest(1))):
        if isinstance(event, PhaseEvent) and event.phase == "evaluate":
            run.request_stop()
            break
    assert kinds(events)[-1] == "stopped" and run.erased and not run.report
    run.request_resume()
    again = list(execute(run, models))
    assert "step" not in kinds(again) and kinds(again)[-2:] == ["evaluated", "done"]


def test_an_erasure_that_cannot_be_measured_is_not_lost(job, models):
    yeti = ConceptSpec("yeti")
    config = EraseConfig(method="esd-x-strict", steps=1, preview_every=0)
    run = runs.create(Job(job.base, yeti, config))
    *_, last = execute(run, models, evaluation=EvaluationRequest(1))
    assert run.not_judged.startswith("The judge of this base does not know 'yeti'")
    assert (last.kind, run.state, run.erased) == ("done", "done", True)


def test_no_previews_are_drawn_where_a_picture_takes_long(models, blind, dog, tmp_path):
    slow = shutil.copytree(blind, tmp_path / "slow")
    (slow / "crce.json").write_text('{"sample_steps": 100000000}')
    run = runs.create(Job(str(slow), dog, EraseConfig(corefs=2, retains=2, steps=2, preview_every=1)))
    seen = kinds(execute(run, models))
    assert "preview" not in seen and seen[-1] == "done"
    assert len(run.notes) == 1 and run.notes[0].startswith("No previews are drawn: one picture takes about")


def test_previews_before_the_first_step_take_at_most_a_tenth_of_the_training():
    told = Cost(seconds=100, memory=1, disk=1, rows=50)
    assert [is_worth_it(seconds, told, rows=1) for seconds in (10, 11)] == [True, False]
    # Without a time the training takes at least that of its rows: 50 of half a second each.
    assert [is_worth_it(seconds, Cost(None, 1, 1, 50), rows=1) for seconds in (2.5, 2.6)] == [True, False]
    assert is_worth_it(UNNOTICED, Cost(None, 1, 1, 0), rows=1)


def test_a_base_without_a_judge_is_erased_and_not_judged(job, models, blind):
    run = runs.create(Job(str(blind), job.spec, EraseConfig(corefs=2, retains=2, steps=1, preview_every=0)))
    run.request_evaluate(1)
    assert kinds(execute(run, models))[-2:] == ["unjudged", "done"]
    assert "brings no judge of its own" in run.not_judged and run.state == "done" and run.evaluation is None


def test_a_base_that_has_gone_fails_the_run(run, models, tmp_path):
    run.rename("x")
    job = (run.dir / "job.json").read_text().replace(run.job.base, str(tmp_path / "gone"))
    (run.dir / "job.json").write_text(job)
    *_, last = execute(run, models)
    assert (last.kind, run.state) == ("failed", "failed")
    assert "There is no base model" in last.message


def test_the_unexpected_is_logged_under_an_id_without_secrets(job, models, home, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    run = runs.create(job, tmp_path / "hf_abcdefghijklmnop")
    (run.dir / "images").write_text("a file, where a folder must be")
    *_, last = execute(run, models)
    assert last.kind == "failed" and last.log_id in last.message
    log = (home / "worker.log").read_text()
    assert f"unexpected error {last.log_id}" in log and "•••" in log and "abcdefgh" not in log
    (run.dir / "images").unlink()
    *_, last = execute(run, models)
    assert last.kind == "done" and run.erased


LIMITED = """
import resource, sys
from pathlib import Path
from crce.runs.execute import execute
from crce.runs import Run

def limit(bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, resource.RLIM_INFINITY))

run = Run(Path(sys.argv[1]))
limit(0)
print(*execute(run))
limit(resource.RLIM_INFINITY)
for event in execute(run):
    if event.kind == "checkpoint":
        limit(16 << 10)
"""


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(whole, run, models):
    """First not even one event fits, then a checkpoint does not."""
    child = [sys.executable, "-c", LIMITED, run.dir]
    said = subprocess.run(child, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert f"{run.dir} cannot be written: File too large. Step 0 is kept. Free some space and resume." in said
    assert said.count("Event(") == 1
    assert run.state == "failed" and run.kept_step == 2
    assert "File too large. Step 2 is kept." in run.last(FailedEvent).message
    assert not list(run.dir.glob(".checkpoint*"))
    assert kinds(execute(run, models))[-1] == "done"
    assert same(run, whole[1])


def test_too_little_room_is_said_before_the_training(job, models):
    run = runs.create(job)
    check_room(run, models.get(job.base), free=1 << 40)
    with pytest.raises(CrceError, match="has 1 MB free and this run needs 32 MB"):
        check_room(run, models.get(job.base), free=1 << 20)


def test_out_of_memory_keeps_the_run(run):
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    said = explain(error.value, run)
    assert said.log_id is None
    assert said.message.startswith("Out of memory. Step 0 is kept. Free memory on the device and resume")


def test_an_interrupted_run_goes_on_with_fewer_terms_at_once(whole, run, models):
    for event in (events := execute(run, models)):
        if event.kind == "checkpoint":
            events.close()
    kept = run.kept_step
    run.set_microbatch_size(1)
    assert (run.state, run.job.config.microbatch_size) == ("interrupted", 1)
    steps = [event.step for event in execute(run, models) if event.kind == "step"]
    assert kept > 0 and steps[0] == kept + 1 and run.state == "done"
    ours, theirs = (ErasedWeights.load(path).tensors for path in (run.weights_path, whole[1].weights_path))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-3, rtol=1e-2)


def test_one_base_is_loaded_at_a_time(models, tiny_sd_dir):
    first = models.get(str(tiny_sd_dir))
    assert models.get(str(tiny_sd_dir)) is first is models.get_loaded(str(tiny_sd_dir))
    other = models.get(str(tiny_sd_dir), dtype="bf16")
    assert other.dtype == torch.bfloat16 and models.get_loaded(str(tiny_sd_dir)) is other
