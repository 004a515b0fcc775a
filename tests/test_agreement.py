"""How far a judge agrees with a person: against values worked out by hand."""

import numpy as np
import pytest

from crce import runs
from crce.config import EraseConfig
from crce.evaluation.agreement import PersonVerdict, measure_agreement
from crce.evaluation.questions import Answers
from crce.evaluation.report import Report, write_report
from crce.kappa import kappa
from crce.runs import Job
from crce.runs.person import add_verdict


def told(text: str, seed: int, answer: str, judge_yes: bool | None = None) -> PersonVerdict:
    return PersonVerdict(text, "dog", seed, True, answer, "embedded", judge_yes)


def test_kappa_of_a_table_worked_out_by_hand():
    """Cohen's own kind of table: 20 both yes, 15 both no, 5 and 10 apart: p_o = 0.7, p_e = 0.5."""
    assert kappa(np.array([[[15, 5], [10, 20]]])) == pytest.approx([0.4])
    assert kappa(np.array([[[0, 5], [5, 0]], [[3, 0], [0, 7]]])) == pytest.approx([-1, 1])
    assert np.isnan(kappa(np.array([[[0, 0], [0, 9]], [[0, 0], [0, 0]]]))).all()


def test_a_report_and_what_compare_showed_are_compared_with_the_person():
    verdicts = [told("dog", 0, "yes", False), told("dog", 1, "no", False), told("cat", 0, "no"), told("cat", 1, "yes"),
                told("cat", 2, "unclear", True), told("pig", 0, "yes")]  # fmt: skip
    judged = {("dog", "dog", 0, True): True, ("cat", "dog", 0, True): False, ("cat", "dog", 1, True): False}
    found = measure_agreement(verdicts, "embedded", judged)
    # dog 0 from the report, dog 1 from Compare, cat 0 and 1 from the report; the pig was never judged.
    assert (found.n, found.same, found.unclear) == (4, 3, 1)
    assert found.kappa == pytest.approx(0.5)
    assert found.low <= found.kappa <= found.high
    assert measure_agreement(verdicts, "another", {}) is None


def test_the_interval_is_over_prompts_and_needs_two():
    one = [told("dog", seed, "yes" if seed % 2 else "no", bool(seed % 2)) for seed in range(8)]
    alone = measure_agreement(one, "embedded", {})
    assert (alone.kappa, alone.low, alone.high) == (1, None, None)
    # A prompt on which they disagree: resamples have none, one or two of it.
    other = [told("cat", seed, "yes" if seed % 2 else "no", not seed % 2) for seed in range(8)]
    both = measure_agreement([*one, *other], "embedded", {})
    assert (both.kappa, both.low, both.high) == (0, -1, 1)
    assert both.text == "κ = 0.00 (-1.00 to 1.00), 8 of 16 pictures alike"


def test_two_who_always_say_yes_have_no_kappa():
    found = measure_agreement([told("dog", 0, "yes", True), told("cat", 0, "yes", True)], "embedded", {})
    assert found.kappa is found.low is None and "2 of 2 pictures alike; κ needs both" in found.text


def test_verdicts_lie_with_the_run_and_the_last_word_counts(dog, tiny_sd_dir):
    run = runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(steps=2, corefs=1, retains=1)))
    assert run.person == () and run.agreement is None
    add_verdict(run.dir, told("dog", 0, "no", True))
    add_verdict(run.dir, told("dog", 0, "yes", True))
    add_verdict(run.dir, told("cat", 0, "no", True))
    assert [verdict.answer for verdict in run.person] == ["yes", "no"]
    assert (run.agreement.judge, run.agreement.n, run.agreement.same) == ("embedded", 2, 1)
    answers = Answers("retain", "cat", "test", "dog", None, (0,), (False,), (0.1,), (False,))
    write_report(run.dir / "report.json", Report({}, terms=(answers,)))
    assert (run.report.agreement.same, run.agreement.same) == (2, 2)
    (run.dir / "person.json").write_text("{")
    assert run.person == () and run.report.agreement is None
