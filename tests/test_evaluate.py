"""The evaluation: who is asked what, on which seeds, and what is remembered. And the judge."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from crce.concepts.spec import ConceptSpec, Term
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.evaluation.accuracies import compute_accuracies
from crce.evaluation.coverage import measure_coverage
from crce.evaluation.evaluate import evaluate, evaluate_steps, judge_images, list_questions
from crce.files import write_json
from crce.generators import Stream
from crce.judges.embedded import EmbeddedJudge, Verdict
from crce.models.diffusion import Diffusion
from crce.training.loop import erase_steps


@pytest.fixture(scope="module")
def judge(tiny_sd):
    return EmbeddedJudge.load(tiny_sd.base)


def run(generator):
    """The steps and the result of a generator."""
    stream = Stream(generator)
    return list(stream), stream.result


def test_corefs_are_asked_for_the_target_and_retains_for_themselves(judge, dog):
    asked = {q.text: q.asked for q in list_questions(dog, 1, judge)}
    assert asked["puppy"] == asked["guide dog"] == asked["dog"] == "dog (animal)"
    assert (asked["cat"], asked["pig"]) == ("cat", "pig")
    phrases = {q.text: q.asked for q in list_questions(dog, 1, judge, ask="coref")}
    assert phrases["puppy"] == "puppy" and "hound" not in phrases


def test_the_target_has_five_times_the_seeds_and_all_count_from_zero(judge, dog):
    seeds = {q.text: q.seeds for q in list_questions(dog, 2, judge)}
    assert seeds["dog"] == tuple(range(10)) and seeds["cat"] == (0, 1)


def test_a_retain_unknown_to_the_judge_is_left_out_and_a_target_is_an_error(judge, dog):
    more = dataclasses.replace(dog, retains=(*dog.retains, Term("onager")))
    assert "onager" not in {q.text for q in list_questions(more, 1, judge)}
    with pytest.raises(CrceError, match="does not know 'yeti'"):
        list_questions(ConceptSpec("yeti"), 1, judge)


def test_the_same_seeds_before_and_after_and_no_change_without_a_delta(tiny_sd, judge, dog):
    *_, step = erase_steps(tiny_sd, dog, EraseConfig(steps=1, corefs=1, retains=1))
    unchanged = dataclasses.replace(step.weights(), tensors={})
    steps, answers = run(evaluate_steps(tiny_sd, judge, dog, unchanged, images=2))
    assert all(a.yes == a.base_yes and len(a.p) == len(a.seeds) for a in answers)
    assert evaluate(tiny_sd, dog, unchanged, images=2) == answers
    assert steps[-1][0] == steps[-1][1] == 2 * sum(len(a.seeds) for a in answers)
    assert set(compute_accuracies(answers)) == {"acc_u", "acc_c_train", "acc_c_test", "acc_r_train", "acc_r_test"}


def test_what_the_base_draws_is_judged_once(tiny_sd, judge, dog, home):
    question = list_questions(dog, 1, judge)[0]
    (first,) = judge_images(tiny_sd, judge, [question])
    (file,) = (home / "verdicts").iterdir()
    write_json(file, [{"yes": not v.yes, "p": 0.0} for v in first])
    assert [v.yes for v in judge_images(tiny_sd, judge, [question])[0]] == [not v.yes for v in first]


def test_questions_asked_together_are_answered_each_by_its_own_pictures(tiny_sd, judge, dog):
    asked = list_questions(dog, 2, judge)
    *_, step = erase_steps(tiny_sd, dog, EraseConfig(steps=2, corefs=1, retains=1, lr=0.1))
    for delta in (None, step.weights()):
        together = judge_images(tiny_sd, judge, asked, delta)
        alone = [judge_images(tiny_sd, judge, [q], delta)[0] for q in asked]
        assert [[v.yes for v in row] for row in together] == [[v.yes for v in row] for row in alone]


def test_coverage_counts_the_seeds_that_show_it(tiny_sd, judge, dog):
    steps, found = run(measure_coverage(tiny_sd, judge, [dog, ConceptSpec("yeti")], judge.names))
    rows = {(r["text"], r["asked"]): r["yes"] for r in found["terms"]}
    pictures = tiny_sd.generate_batch(["wolf"] * 10, list(range(10)))
    assert rows["wolf", "wolf"] == sum(v.yes for v in judge.classify(pictures, "wolf"))
    assert set(judge.names) <= {text for text, _ in rows} and steps[-1] == (len(rows), len(rows))
    assert found["unknown"] == ["yeti"]
    assert (
        set(found["concepts"]) == {"dog-animal-a23f0f72"}
        and found["concepts"]["dog-animal-a23f0f72"]["covered"] is False
    )


def test_coverage_keeps_what_is_measured_and_adds_to_it(tiny_sd_dir, dog, tmp_path):
    base = shutil.copytree(tiny_sd_dir, tmp_path / "base")
    model, own = Diffusion.load(str(base), device="cpu"), EmbeddedJudge.load(str(base))
    steps, first = run(measure_coverage(model, own, [dog]))
    told = {**first, "terms": [{**row, "yes": 7} for row in first["terms"]]}
    write_json(model.covered_file, told)
    cat = ConceptSpec("cat", corefs=(Term("moggy"),), retains=(Term("wolf"),))
    steps, second = run(measure_coverage(model, own, [cat]))
    assert second["concepts"].keys() == {*first["concepts"], "cat"} and len(steps) == 1
    assert second["terms"][:-1] == told["terms"] and second["terms"][-1]["text"] == "moggy"
    write_json(model.covered_file, {**told, "judge": "another"})
    assert run(measure_coverage(model, own, [dog]))[1] == first


def test_the_judge_shares_out_its_probability(tiny_sd, judge):
    pictures = tiny_sd.generate_batch(["dog"] * 3, [0, 1, 2])
    shares = [judge.classify(pictures, name) for name in judge.names]
    assert torch.tensor([[v.p for v in row] for row in shares]).sum(0) == pytest.approx([1.0] * 3, abs=1e-5)
    assert all(v.yes == (v.p >= judge.threshold) for row in shares for v in row)


def test_the_first_guess_is_the_likeliest_drawing_and_strict_if_of_the_family(tiny_sd, judge):
    pictures = tiny_sd.generate_batch([*judge.names, "a", "b"], list(range(7)))
    shares = {name: judge.classify(pictures, name) for name in judge.names}
    for place, guess in enumerate(v.guess for v in shares["dog"]):
        likeliest = max(shares, key=lambda name: shares[name][place].p)
        assert guess == likeliest
        assert [v[place].strict for v in shares.values()] == [name == guess for name in shares]
        assert judge.classify(pictures, "puppy")[place].strict == (guess == "dog")
        assert shares["cat"][place].top == pytest.approx(shares[guess][place].p)


def test_a_judge_without_a_first_guess_is_as_strict_as_its_yes():
    assert Verdict(True, 0.1).strict and not Verdict(False, 0.9).strict
    assert not Verdict(True, 0.5, "cat", 0.5, False).strict


def test_answers_say_what_was_guessed_and_how_far_retains_moved(tiny_sd, judge, dog):
    *_, step = erase_steps(tiny_sd, dog, EraseConfig(steps=2, corefs=1, retains=1, lr=0.1))
    erased, strict = step.weights(), {}
    for _ in range(2):  # the second time with the base's pictures remembered
        _, answers = run(evaluate_steps(tiny_sd, judge, dog, erased, images=2))
        strict = strict or {a.text: a for a in answers}
        assert {a.text: a for a in answers} == strict
    before = tiny_sd.generate_batch(["wolf"] * 2, [0, 1])
    with erased.applied(tiny_sd):
        after = tiny_sd.generate_batch(["wolf"] * 2, [0, 1])
    small = [[np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR), float) for picture in side]
             for side in (before, after)]  # fmt: skip
    assert strict["wolf"].moved == pytest.approx(np.abs(np.subtract(*small)).mean() / 255, abs=1e-4) != 0
    assert strict["puppy"].moved is None and strict["wolf"].distance > strict["dog"].distance == 0
    assert strict["wolf"].guesses == tuple(v.guess for v in judge.classify(after, "wolf"))
    assert compute_accuracies(answers, strict=True).keys() == compute_accuracies(answers).keys()


def test_the_judge_refuses_what_it_does_not_know(judge, tmp_path):
    with pytest.raises(CrceError, match="does not know 'yeti'"):
        judge.classify([], "yeti")
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(CrceError, match="brings no judge"):
        EmbeddedJudge.load(str(tmp_path))


@pytest.mark.parametrize(("name", "called"), [("dog (animal)", "dog"), ("dog (sausage)", None), ("Cat", "Cat"),
                                              ("cat (pet)", "cat"), ("yeti (animal)", None)])  # fmt: skip
def test_an_ambiguous_word_stands_for_one_sense_only(judge, name, called):
    concepts = {"leaves": judge.names, "terms": {"dog": [0], "cat": [1]}, "senses": {"dog": "animal"}}
    other = EmbeddedJudge(judge.tower, judge.prototypes, concepts, judge.scale, judge.threshold)
    assert other.name_of(name) == called
