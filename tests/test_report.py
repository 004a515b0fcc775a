"""The figures: rates, intervals and tables, against values worked out by hand."""

import dataclasses

import pytest

from crce.concepts.spec import ConceptSpec, Term
from crce.errors import CrceError
from crce.evaluation.accuracies import (
    base_report,
    compute_accuracies,
    difference,
    harmonic_mean,
    mean_interval,
    summarise,
    table,
    wilson_interval,
)
from crce.evaluation.questions import Answers
from crce.evaluation.report import Accuracy, Drift, LeftOut, read_report, report_to_dict, write_report


def answers(kind, split, yes, base, covered=None, text="x"):
    n = len(yes)
    return Answers(kind, text, split, "dog", covered, tuple(range(n)), tuple(yes), (0.5,) * n, tuple(base))


def guessed(kind, split, strict, base, tops=(), moved=None):
    """Answers whose yes is always yes, and whose first guesses differ."""
    n = len(strict)
    return dataclasses.replace(
        answers(kind, split, [1] * n, [1] * n), strict=tuple(map(bool, strict)), base_strict=tuple(map(bool, base)),
        top=tuple(tops), base_top=(0.9,) * n, moved=moved,
    )  # fmt: skip


def report(concept, method, u=0, c=1, r=3):
    def four(k):
        return [i < k for i in range(4)]

    rows = [answers("target", "train", four(u), four(4))]
    for split in ("train", "test"):
        rows += [answers("coref", split, four(c), four(4)), answers("retain", split, four(r), four(4))]
    return summarise(ConceptSpec(concept), rows, method=method)


def test_wilson_of_nothing_in_twenty():
    low, high = wilson_interval(0, 20)
    assert low == pytest.approx(0, abs=1e-12) and high == pytest.approx(0.1611, abs=1e-4)


def test_rates_count_covered_terms_only():
    rows = [answers("coref", "test", [1, 0], [1, 1], covered=True),
            answers("coref", "test", [1, 1], [0, 0], covered=False)]  # fmt: skip
    found = compute_accuracies(rows)["acc_c_test"]
    assert (found.yes, found.n, found.rate, found.base_rate, found.ratio) == (
        1,
        2,
        0.5,
        1.0,
        0.5,
    )
    assert "acc_r_test" not in compute_accuracies(rows)


@pytest.mark.parametrize(("u", "r", "said"), [(4, 4, "Hardly anything is erased: 4 of 4"), (0, 4, ""),
                                              (0, 1, "The neighbours went too: 1 of 4"), (2, 2, "")])  # fmt: skip
def test_a_run_without_effect_and_one_that_takes_all_with_it_say_so(u, r, said):
    warning = report("dog", "crce", u=u, r=r).warning
    assert warning.startswith(said) and bool(warning) == bool(said)


def test_what_was_left_out_is_counted():
    """A retain that the base does not draw, and one that nobody could be asked for."""
    spec = ConceptSpec("dog", corefs=(Term("puppy"),), retains=(Term("cat"), Term("wolf"), Term("onager")))
    rows = [answers("coref", "train", [1], [1], covered=True), answers("retain", "train", [1], [1], covered=True),
            answers("retain", "train", [1], [1], covered=False)]  # fmt: skip
    assert summarise(spec, rows).left_out == LeftOut(corefs=0, retains=2)


def test_h_is_the_harmonic_mean():
    def h(acc_u, acc_c_test, acc_r_test):
        rates = {"acc_u": acc_u, "acc_c_test": acc_c_test, "acc_r_test": acc_r_test}
        return harmonic_mean({key: Accuracy(0, 1, rate, 0, 1, 1, None) for key, rate in rates.items()})

    assert h(0.0, 0.25, 0.75) == pytest.approx(3 / (1 + 2 / 0.75))
    assert h(1.0, 0.0, 1.0) == 0
    assert harmonic_mean({}) is None


def strict_report(concept="dog", method="crce"):
    rows = [
        guessed("target", "train", [1, 0, 0, 0], [1] * 4, tops=(0.5, 0.1, 0.19, 0.2)),
        guessed("coref", "train", [0] * 4, [1] * 4),
        guessed("coref", "test", [1, 1, 0, 0], [1] * 4),
        guessed("retain", "train", [1] * 4, [0] * 4, moved=0.05),
        guessed("retain", "test", [1, 1, 1, 0], [1] * 4, moved=0.25),
    ]
    return summarise(ConceptSpec(concept), rows, method=method)


def test_h_and_the_strict_accuracies_are_of_the_first_guess():
    found = strict_report()
    assert {key: (a.yes, a.rate) for key, a in found.metrics.items()} == dict.fromkeys(found.metrics, (4, 1.0))
    assert {key: a.yes for key, a in found.strict.items()} == {
        "acc_u": 1, "acc_c_test": 2, "acc_r_test": 3, "acc_c_train": 0, "acc_r_train": 4,
    }  # fmt: skip
    assert found.strict["acc_r_train"].base_rate == 0
    assert found.h == pytest.approx(3 / (1 / 0.75 + 1 / 0.5 + 1 / 0.75))
    assert report("dog", "crce").strict == {}


def test_drift_is_of_pictures_unlike_everything_and_of_retains():
    assert strict_report().drift == Drift(unlike=0.5, base_unlike=0.0, moved=0.15)
    assert report("dog", "crce").drift == Drift()


def test_a_report_is_written_small_and_read_as_it_was(tmp_path):
    whole = dataclasses.replace(strict_report(), also=(strict_report("cat"),))
    write_report(tmp_path / "report.json", whole)
    assert read_report(tmp_path / "report.json") == whole
    assert report_to_dict(whole)["terms"][0]["strict"] == "1000"


def test_a_table_is_strict_where_all_reports_are():
    rows = [strict_report(concept, method) for concept in ("dog", "cat") for method in ("crce", "esd-x")]
    cells = table(rows).splitlines()[3].split(" | ")
    assert cells[1] == "25.0 (25.0 to 25.0) / 100.0" and cells[-1].startswith("64.3 (64.3 to 64.3)")
    assert difference([*rows, report("dog", "ca"), report("cat", "ca")], "acc_u", "crce", "ca")[0] == 1.0
    assert " / " not in table([*rows, report("dog", "ca"), report("cat", "ca")])


def test_the_base_row_is_what_the_base_draws():
    base = base_report(report("dog", "crce"))
    assert base.method == "base" and base.metrics["acc_u"].rate == 1.0 and base.h == 0


def test_the_interval_over_concepts_holds_the_mean_and_needs_two():
    mean, low, high = mean_interval([0.1, 0.2, 0.6], seed=0)
    assert mean == pytest.approx(0.3) and low < mean < high
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    with pytest.raises(CrceError, match="at least 2"):
        mean_interval([0.5])


def test_seeds_are_drawn_within_their_concept():
    assert mean_interval([[0.2, 0.2, 0.2], [0.4, 0.4]]) == pytest.approx(mean_interval([0.2, 0.4]))
    mean, low, high = mean_interval([[0.0, 1.0], [0.5]], seed=0)
    assert (mean, low, high) == (0.5, 0.25, 0.75)
    # With many concepts alike, only the seeds make the interval: three values of 0 or 1 in each of forty concepts.
    mean, low, high = mean_interval([[0.0, 1.0, 1.0]] * 40, seed=0)
    assert mean == pytest.approx(2 / 3) and high - low == pytest.approx(4 * (2 / 9 / 120) ** 0.5, rel=0.1)


def test_a_difference_is_paired_by_concept_and_seed():
    def of(concept, method, seed, c):
        return dataclasses.replace(report(concept, method, c=c), config={"seed": seed})

    rows = [
        of("dog", "crce", 0, 0), of("dog", "esd-x", 0, 1), of("dog", "crce", 1, 2), of("dog", "esd-x", 1, 3),
        of("cat", "crce", 1, 1), of("cat", "esd-x", 1, 2), of("cat", "crce", 2, 4), of("pig", "crce", 0, 4),
    ]  # fmt: skip
    assert difference(rows, "acc_c_test", "crce", "esd-x") == (-0.25, -0.25, -0.25)


def test_a_difference_is_paired_by_concept():
    rows = [report("dog", "crce", c=0), report("cat", "crce", c=1), report("dog", "esd-x-strict", c=2),
            report("cat", "esd-x-strict", c=3), report("pig", "crce", c=4)]  # fmt: skip
    assert difference(rows, "acc_c_test", "crce", "esd-x-strict") == (-0.5, -0.5, -0.5)


def test_the_table_has_the_base_first():
    rows = table([report(c, m) for m in ("crce", "esd-x-strict") for c in ("dog", "cat")]).splitlines()
    assert rows[0] == "| | Acc_U ↓ | Acc_C train ↓ | Acc_C test ↓ | Acc_R train ↑ | Acc_R test ↑ | H ↑ |"
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| base", "| crce", "| esd-x-strict"]
    low, high = "25.0 (25.0 to 25.0)", "75.0 (75.0 to 75.0)"
    assert f"| 0.0 (0.0 to 0.0) | {low} | {low} | {high} | {high} |" in rows[3]
