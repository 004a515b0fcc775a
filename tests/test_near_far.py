"""Near and far terms counted apart, distances, and what erased pictures look like: the pages, from what is made by
hand."""

import xml.etree.ElementTree as ET

from crce.concepts.spec import ConceptSpec
from crce.evaluation.accuracies import summarise
from crce.evaluation.questions import Answers
from crce.experiments import distances, drift, near_far, studies
from crce.experiments.near_far import Part, choose_terms, measure_share
from crce.files import write_json


def term(kind, distance, share, split="train", covered=True, text=""):
    """Ten pictures, of which `share` tenths show it after the erasure."""
    strict = tuple(i < share for i in range(10))
    yes, n = (True,) * 10, tuple(range(10))
    return Answers(
        kind, text or f"at {distance}", split, "dog", covered, n, yes, (0.5,) * 10, yes, strict, yes, ("cat",) * 10,
        top=(0.1,) * share + (0.9,) * (10 - share), base_top=(0.9,) * 10,
        moved=0.1 if kind == "retain" else None, distance=distance,
    )  # fmt: skip


def report(concept, method, far=4, near=2, seed=0, eta=1.0):
    terms = [
        term("target", 0.0, 1),
        term("coref", 0.2, 0), term("coref", 0.3, near, "test"),
        term("coref", 0.8, far), term("coref", 0.9, far, "test"),
        term("coref", 0.95, 10, covered=False),
        term("retain", 0.5, near), term("retain", 1.0, 8), term("retain", 1.2, 9, "test"),
    ]  # fmt: skip
    config = {"method": method, "seed": seed, "eta": eta, "steps": 1, "lr": 1e-3}
    return summarise(ConceptSpec(concept), terms, method=method, config=config)


FOUND = [report(c, m, far, seed=s) for c in ("dog", "cat") for s in (0, 1)
         for m, far in (("esd-x-strict", 4), ("crce", 1))]  # fmt: skip


def test_terms_are_split_at_the_median_of_their_kind():
    def distances(kind, near, held=False):
        return [t.distance for t in choose_terms(FOUND[0], Part(kind, near, held))]

    assert distances("coref", True) == [0.2, 0.3] and distances("coref", False) == [0.8, 0.9]
    assert distances("coref", False, held=True) == [0.9]
    assert distances("retain", True) == [0.5, 1.0] and distances("retain", False) == [1.2]
    assert distances("retain", True, held=True) == []


def test_a_share_is_of_the_strict_pictures_of_all_its_terms():
    assert measure_share(FOUND[0], Part("coref", True, False)) == 0.1
    assert measure_share(FOUND[0], Part("coref", False, False)) == 0.4
    assert measure_share(FOUND[0], Part("coref", False, False), before=True) == 1.0
    assert measure_share(FOUND[0], Part("retain", True, True)) is None


def test_the_page_has_each_part_with_its_difference_and_a_plot(tmp_path):
    made = studies.render_split(FOUND, tmp_path)
    page, plot = made[tmp_path / "near-far.md"], made[tmp_path / "near-far.svg"]
    assert "| far names, all ↓ | 2 | 100.0 | 40.0 | 10.0 | -30.0 (-30.0 to -30.0) |" in page
    assert "| near neighbours, all ↑ | 2 | 100.0 | 50.0 | 50.0 | +0.0 (+0.0 to +0.0) |" in page
    assert "| crce-plus |" not in page
    both = near_far.render_page([*FOUND, *(report(c, "crce-plus", 0) for c in ("dog", "cat"))])
    assert "| crce-plus − crce |" in both and both.startswith(page.split("\nn: ")[0])
    assert "| Names ↓ |" not in page and "| at 0.9 (held out) | cat | far | 40 | 10 | 0 |" in both
    assert "| far names, all ↓ | 2 | 100.0 | 10.0 | 0.0 | -10.0 (-10.0 to -10.0) |" in both
    assert "near neighbours, held out" not in page and "2 concepts and 2 training seeds" in page
    circles = list(ET.fromstring(plot).iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == page.count(", all") + page.count(", held out") == 7
    assert "| far names | near names | all | +30.0 (+30.0 to +30.0) | shown |" in page
    assert "| near neighbours | far neighbours | all | +0.0 (+0.0 to +0.0) | not shown |" in page
    assert "| near neighbours | far neighbours | held out |" not in page


def test_reports_without_distances_make_a_page_that_says_so(tmp_path):
    (page,) = studies.render_split(FOUND[:1], tmp_path).values()
    assert page == near_far.UNMEASURED


def test_drift_has_a_row_for_each_method_and_strength():
    strong = [report(c, "crce", eta=2.0) for c in ("dog", "cat")]
    lines = drift.render_page([*strong, *FOUND, report("dog", "ca")]).splitlines()
    ten, none = "10.0 (10.0 to 10.0)", "0.0 (0.0 to 0.0)"
    assert [line for line in lines if "| 2 |" in line] == [
        f"| {name} | {ten} | {ten} | {none} | {ten} |"
        for name in ("esd-x-strict | 1 | 2 | 2", "crce | 1 | 2 | 2", "crce | 2 | 2 | 1")
    ]
    assert drift.render_page([]) == drift.UNMEASURED


def test_the_page_of_distances_has_what_both_measured_nearest_first(tmp_path):
    def write(name, places):
        terms = [{"kind": kind, "text": text, "cosine": c, "euclidean": 1 - c} for kind, text, c in places]
        write_json(tmp_path / name, {"terms": [{"kind": "target", "text": "dog"}, *terms]})

    write(
        "dog.json", [("coref", "hound", 0.3), ("coref", "puppy", 0.9), ("retain", "cat", 0.5), ("retain", "yak", 0.1)]
    )
    write("paper.json", [("coref", "puppy", 0.91), ("coref", "hound", 0.8), ("retain", "cat", 0.7)])
    page = distances.render_page(*distances.load(tmp_path))
    rows = [line for line in page.splitlines() if line.startswith("| ") and "0." in line]
    assert rows == ["| puppy | 0.90 | 0.10 | 0.91 | 0.09 |", "| **cat** | 0.50 | 0.50 | 0.70 | 0.30 |",
                    "| hound | 0.30 | 0.70 | 0.80 | 0.20 |"]  # fmt: skip
    assert "in 50.0 % of the pairs of these terms here, and in 100.0 % in the paper" in page
    assert page.endswith("nearest neighbour, cat: hound.\n")
