"""A small share of each attack of `make torture`; and an attack goes on where it was."""

import json
import re

import pytest

from benchmarks.torture import __main__ as torture
from benchmarks.torture import visitors
from benchmarks.torture.attack import Outcome
from crce.errors import CrceError
from crce.files import ROOT

ATTACKS = torture.attacks()


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.share])
def test_the_first_cases_of_each_attack_hold(name, tmp_path):
    outcome = torture.run(name, ATTACKS[name], ATTACKS[name].share, tmp_path)
    assert outcome.done == ATTACKS[name].share and outcome.faults == {}


def test_visitors_of_all_tabs_have_an_answer_to_all_that_they_ask(monkeypatch):
    monkeypatch.setattr(visitors, "PAUSE", 0.1)
    with visitors.serve() as (url, _):
        page = visitors.Page(url)
        waits, errors = visitors.spend(page, visitors.invite(page, len(page.tabs)), seconds=2.0, arrival=0.0)
    assert len(page.tabs) == 4 and all(1 < len(pulses) < 4 for pulses in page.tabs)
    assert waits and errors == []


def test_an_attack_goes_on_where_it_was_and_a_case_is_the_same_again(tmp_path):
    inputs = ATTACKS["inputs"]
    whole = torture.run("inputs", inputs, 30, tmp_path / "whole")
    torture.run("inputs", inputs, 12, tmp_path)
    assert torture.run("inputs", inputs, 30, tmp_path).met == whole.met
    assert torture.run("inputs", inputs, 10, tmp_path).done == 30
    assert torture.run("inputs", inputs, 10, tmp_path, again=True).done == 10


def test_the_page_tells_what_did_not_hold(tmp_path):
    found = {"done": 9, "faults": {"3": "a trace", "5": "a trace"}, "met": {"refused": 4}, "machine": "m", "date": "d"}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "reliability.json").write_text(json.dumps({"inputs": found}))
    torture.draw(tmp_path)
    page = (tmp_path / "reliability.md").read_text()
    assert "| 9 of 10000 | 7 | d, m |" in page and "- a trace (2, first case 3)" in page and "- refused: 4" in page
    assert page.count("not run yet") == len(ATTACKS) - 1


def test_damaged_outcomes_are_told(tmp_path):
    (tmp_path / "reliability.json").write_text('{"inputs": {"done": "x"}}')
    with pytest.raises(CrceError, match="cannot be read"):
        torture.read(tmp_path / "reliability.json")
    assert torture.read(tmp_path / "none.json") == {} and Outcome().done == 0


def test_the_tests_that_the_page_names_are_there():
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", torture.FAULTS.read_text(encoding="utf-8"))
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), (file, test)
