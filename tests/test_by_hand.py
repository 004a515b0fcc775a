"""The judge against a person, on erased pictures."""

from crce.experiments import by_hand
from crce.experiments.by_hand import Judged


def row(kind: str, text: str, yes: bool, answer: str, strict: bool | None = None) -> Judged:
    strict = yes if strict is None else strict
    return Judged("dog", "crce", 1, 1e-4, kind, text, "dog", 0, yes, strict, 0.5, "cat", answer)


ROWS = [
    row("target", "dog", True, "yes"), row("target", "dog", False, "no"), row("coref", "puppy", True, "no", False),
    row("coref", "puppy", False, "no"), row("retain", "cat", True, "yes"), row("retain", "cat", True, "unclear"),
]  # fmt: skip


def test_what_cannot_be_told_counts_for_nobody():
    found = by_hand.compare(ROWS, strict=False)
    assert (found.n, found.same, found.unclear) == (5, 4, 1)
    assert round(found.kappa, 4) == 0.6154  # (0.8 - 0.48) / 0.52
    assert by_hand.compare(ROWS, strict=True).kappa == 1


def test_the_page_counts_each_kind_of_error():
    page = by_hand.render(ROWS)
    assert "2 yes, 3 no,\n1 cannot tell" in page
    assert "| yes | concept and corefs | 0.50 (0.00 to 1.00) | 3/4 | 1 | 0 |" in page
    assert "| strict | retains | – | 1/1 | 0 | 0 |" in page


def test_our_own_answers_make_the_page_in_docs():
    found = by_hand.load()
    assert len(found) == 200 and by_hand.render(found) == (by_hand.RESULT.parents[2] / "judge.md").read_text()
