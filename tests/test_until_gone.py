"""An erasure that ends when the judge hardly sees the concept any more: at the same step, however often it is cut."""

import dataclasses
import itertools
import shutil

import pytest
import torch

from app.tabs import erase
from app.tabs.erase_form import EraseForm
from crce import runs
from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.evaluation.evaluate import judge_images
from crce.evaluation.until_gone import choose_questions, count_seen, is_gone
from crce.files import read_json, write_json
from crce.judges.embedded import EmbeddedJudge
from crce.methods.erased_weights import ErasedWeights
from crce.models.diffusion import Diffusion
from crce.runs import Job
from crce.runs.execute import execute
from crce.training.loop import erase_steps

UNTIL = EraseConfig(steps=18, lr=1e-3, corefs=1, retains=1, preview_every=0, checkpoint_every=10, until_gone=True)


@pytest.fixture
def base(tiny_sd_dir, tmp_path):
    """A base whose judge never sees anything."""
    return with_threshold(shutil.copytree(tiny_sd_dir, tmp_path / "base"), 1.1)


def with_threshold(base, value):
    config = base / "judge" / "config.json"
    write_json(config, {**read_json(config), "threshold": value})
    return base


def load(base):
    return Diffusion.load(str(base), device="cpu")


def end(steps):
    *_, last = steps
    return last


def test_training_ends_at_the_first_look_that_sees_nothing(base, dog):
    model = load(base)
    last = end(erase_steps(model, dog, UNTIL))
    assert last.number == last.total == 15 and last.weights().info["steps"] == "15"
    whole = end(erase_steps(model, dog, dataclasses.replace(UNTIL, steps=15, until_gone=False))).weights()
    assert all(torch.equal(whole.tensors[name], tensor) for name, tensor in last.weights().tensors.items())
    with_threshold(base, 0.0)
    assert end(erase_steps(model, dog, UNTIL)).number == 18


def test_several_concepts_are_looked_at_together(base, dog):
    cat = ConceptSpec("cat", corefs=dog.corefs, retains=dog.retains[1:])
    assert end(erase_steps(load(base), [dog, cat], UNTIL)).number == 30


@pytest.mark.parametrize("cut", [12, 15])
def test_a_cut_training_ends_at_the_same_step_with_the_same_weights(base, dog, tmp_path, cut):
    """Cut before the look, and after its checkpoint was written but before anyone was told."""
    model, checkpoint = load(base), tmp_path / "checkpoint.safetensors"
    whole = end(erase_steps(model, dog, UNTIL)).weights()
    steps = erase_steps(model, dog, UNTIL, checkpoint=checkpoint)
    end(itertools.takewhile(lambda step: step.phase == "bank" or step.number < cut, steps))
    steps.close()
    assert ErasedWeights.load(checkpoint).info["step"] == str(cut // 5 * 5)
    resumed = list(erase_steps(model, dog, UNTIL, checkpoint=checkpoint, resume=True))
    assert [s.number for s in resumed if s.phase == "train"] == ([11, 12, 13, 14, 15] if cut == 12 else [15])
    assert resumed[-1].total == 15
    assert all(torch.equal(whole.tensors[name], t) for name, t in resumed[-1].weights().tensors.items())


def test_gone_is_at_most_one_of_twenty(tiny_sd, dog):
    once = dataclasses.replace(UNTIL, steps=1, until_gone=False)
    judge, erased = EmbeddedJudge.load(tiny_sd.base), end(erase_steps(tiny_sd, dog, once)).weights()
    rows = judge_images(tiny_sd, judge, choose_questions(tiny_sd, judge, dog), erased)
    first, second, third, *_ = sorted((v.p for row in rows for v in row), reverse=True)
    judge.threshold = (first + second) / 2
    assert count_seen(tiny_sd, judge, dog, erased) == 1 and is_gone(tiny_sd, judge, [dog], erased)
    judge.threshold = (second + third) / 2
    assert count_seen(tiny_sd, judge, dog, erased) == 2 and not is_gone(tiny_sd, judge, [dog], erased)


def test_the_pictures_are_of_train_names_that_the_base_draws_on_seeds_of_their_own(base, dog):
    model, judge = load(base), EmbeddedJudge.load(str(base))
    asked = choose_questions(model, judge, dog)
    assert [q.text for q in asked] == ["dog", "puppy", "pooch", "hound"]
    assert {q.seeds for q in asked} == {tuple(range(1_000_000, 1_000_005))}
    row = {"asked": "dog (animal)", "of": 10}
    rows = [{**row, "text": "puppy", "yes": 4}, {**row, "text": "pooch", "yes": 5}]
    write_json(base / "covered.json", {"from": 5, "concepts": {}, "terms": rows})
    few = choose_questions(model, judge, dog)
    assert [q.text for q in few] == ["dog", "pooch", "hound"] and {len(q.seeds) for q in few} == {6}


def test_it_is_refused_where_nobody_can_say_that_it_is_gone(base, dog):
    with pytest.raises(CrceError, match="'uce' is solved at once"):
        EraseConfig("uce", until_gone=True)
    with pytest.raises(CrceError, match="cannot erase it from 'Santa Claus' alone"):
        EraseConfig("esd-x", until_gone=True, erase_from="Santa Claus")
    with pytest.raises(CrceError, match="does not know 'yeti'"):
        next(erase_steps(load(base), ConceptSpec("yeti", corefs=dog.corefs, retains=dog.retains), UNTIL))
    shutil.rmtree(base / "judge")
    with pytest.raises(CrceError, match="brings no judge, so nobody can say when the concept is gone"):
        runs.create(Job(str(base), dog, UNTIL))
    with pytest.raises(CrceError, match="brings no judge"):
        next(erase_steps(load(base), dog, UNTIL))


def test_a_run_says_how_many_steps_it_took(base, dog):
    run = runs.create(Job(str(base), dog, UNTIL))
    assert "at most 18, until gone" in erase.render_details(run)
    run.request_evaluate(1)
    *_, last = execute(run)
    assert last.kind == "done" and run.report.steps == run.kept_step == 15
    assert "15, at most 18, until gone" in erase.render_details(run)
    assert EraseForm.from_job(run.job).to_config().until_gone


def test_the_command_line_asks_for_it(base, dog, crce, tmp_path):
    from crce.concepts.library import save_spec

    save_spec(dog, tmp_path / "dog.json")
    settings = ("--base", base, "--corefs", 1, "--retains", 1, "--steps", 16, "--out", tmp_path / "run")
    code, _, err = crce("erase", tmp_path / "dog.json", *settings, "--until-gone")
    assert code == 0, err
    run = runs.open_run(tmp_path / "run")
    assert run.job.config.until_gone and run.kept_step == 15
