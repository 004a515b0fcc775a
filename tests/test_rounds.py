"""What changed between two states of a spec, what is taken of it, and what the history tells."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crce.concepts import edits, library
from crce.concepts.edits import Change, draw_split
from crce.concepts.spec import CERTAINTY, ConceptSpec, Round, Term

ASKED = Round("llm", "m", "v", "as I like it")
WORDS = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@pytest.fixture
def offer(dog):
    corefs = (Term("puppy", "low"), Term("hound", "normal"), Term("wolf", "low"), Term("guide dog", split="test"))
    retains = (Term("cat", "very high"), Term("fox"), Term("pig", split="test"), Term("gnu", note="a grazer"))
    return replace(dog, corefs=corefs, retains=retains)


def labels(before, after, **more):
    return [change.label for change in edits.changes(before, after, **more)]


def test_a_difference_is_dropped_new_moved_or_of_another_certainty(dog, offer):
    assert labels(dog, offer, why={"pooch": "too rare", "wolf": "looks the same", "puppy": "young ones only"}) == [
        "− erase: pooch — too rare",
        "+ keep: gnu (high) — a grazer",
        "⇄ erase: wolf (low) — looks the same",
        "~ erase: puppy (low) — young ones only",
    ]
    assert labels(dog, dog) == []


def test_what_is_taken_is_applied_and_the_rest_is_left(dog, offer):
    taken = [change for change in edits.changes(dog, offer) if change.term.text in ("wolf", "puppy")]
    after = edits.apply(dog, taken, ASKED)
    assert {t.text: t.certainty for t in after.corefs} == {
        "puppy": "low", "hound": "normal", "pooch": "high", "guide dog": "high", "wolf": "low"
    }  # fmt: skip
    assert [t.text for t in after.retains] == ["cat", "fox", "pig"]


def test_a_round_is_kept_with_what_was_taken_of_it(dog, offer):
    reviewed = replace(dog, provenance=replace(dog.provenance, reviewer="me"))
    found = edits.changes(reviewed, offer)
    made = edits.apply(reviewed, found[:1], ASKED).provenance
    assert (made.reviewer, made.rounds, made.model, made.prompt_version) == ("", 1, "m", "v")
    assert made.history == (replace(ASKED, changes=("− erase: pooch",)),)


def test_a_first_proposal_and_an_experts_round_are_no_rounds_of_talk(dog, offer):
    found = edits.changes(dog, offer)
    first = edits.apply(dog, found, Round("llm", "m", "v"))
    second = edits.apply(first, [], Round("expert", wish="take it back"))
    assert (second.provenance.rounds, second.provenance.model) == (0, "m")


def test_the_experts_edits_are_told_as_a_round(dog):
    edited = edits.without_term(edits.with_terms(dog, "retains", ["gnu"]), "corefs", "pooch")
    told = edits.with_expert_edits(edited, dog)
    assert told.provenance.history == (Round("expert", changes=("− erase: pooch", "+ keep: gnu (high)")),)
    assert edits.with_expert_edits(dog, dog) == dog


def test_a_long_note_of_the_experts_fits_the_history(dog, tmp_path):
    noted = replace(dog, retains=(*dog.retains, Term("gnu", note="n" * 2000)))
    library.save_spec(edits.with_expert_edits(noted, dog), tmp_path / "dog.json")
    assert "n" * 50 in library.load_spec(tmp_path / "dog.json").provenance.history[0].changes[0]


def test_changes_survive_a_page_that_keeps_them(dog, offer):
    found = edits.changes(dog, offer, {"pooch": "too rare"})
    kept = json.loads(json.dumps(edits.to_state(found)))
    assert edits.from_state(kept, range(len(found))) == found
    assert edits.from_state(kept, [2, 0]) == [found[0], found[2]]


@given(before=st.tuples(WORDS, WORDS), after=st.tuples(WORDS, WORDS), level=st.sampled_from(list(CERTAINTY)))
def test_all_changes_lead_from_one_spec_to_the_other(before, after, level):
    old, new = _spec(*before, "high"), _spec(*after, level)
    found = edits.changes(old, new)
    reached = edits.apply(old, found, ASKED)
    for kind in edits.LISTS:
        wanted = {t.text: t.certainty for t in getattr(new, kind)}
        assert {t.text: t.certainty for t in getattr(reached, kind)} == wanted
    assert len({change.term.text for change in found}) == len(found)


def _spec(corefs, retains, level):
    retains = [word for word in retains if word not in corefs]
    return ConceptSpec("x", corefs=tuple(Term(w, level) for w in corefs), retains=tuple(Term(w) for w in retains))


def test_new_lists_keep_what_is_known_of_their_terms(dog):
    known = replace(dog, retains=(Term("Wolf", "low", "test", "paper", "Table 2"),))
    after = edits.with_lists(known, [Term("wolf", "high", source="llm")], [Term("cat")], most=15)
    assert after.corefs == (Term("Wolf", "high", "test", "paper", "Table 2"),)


def test_what_would_be_erased_and_kept_at_once_is_neither(dog):
    both = [Term("gnu"), Term("puppy")]
    after = edits.with_lists(dog, both, both, most=15)
    assert (after.corefs, [t.text for t in after.retains]) == ((), ["puppy"])


def test_a_change_is_told_without_a_reason_where_there_is_none():
    assert Change("add", "corefs", Term("pooch", "low")).label == "+ erase: pooch (low)"


def test_the_split_is_drawn_by_its_seed():
    terms = [Term(f"t{i}") for i in range(15)]
    held_out = {seed: {t.text for t in draw_split(terms, seed) if t.split == "test"} for seed in range(5)}
    assert all(len(held) == 5 for held in held_out.values())
    assert len({frozenset(held) for held in held_out.values()}) > 1
    assert draw_split(terms, 3) == draw_split(terms, 3)


def test_a_split_that_was_drawn_stays():
    before = draw_split([Term(f"t{i}") for i in range(15)], seed=3)
    after = draw_split([*before, *(Term(f"new {i}") for i in range(6))], seed=4, before=before)
    splits = {term.text: term.split for term in after}
    assert all(splits[term.text] == term.split for term in before)
    assert list(splits.values()).count("test") == 7
