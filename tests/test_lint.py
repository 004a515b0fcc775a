"""What the lint says of a term, and of which it is silent."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crce.concepts.lint import RULES, Finding, lint
from crce.concepts.spec import CATEGORIES, SOURCES, ConceptSpec, Term

CRUISE = ConceptSpec("Tom Cruise", "celebrity", corefs=(Term("Ethan Hunt"),))
JOKER = ConceptSpec("The Joker", "ip", corefs=(Term("Clown Prince of Crime"),))
TOOL = ConceptSpec("bat", "object", "sports equipment", corefs=(Term("Louisville Slugger"),))
CAT = ConceptSpec("cat", corefs=(Term("kitty"),))
OTHERS = (CRUISE, JOKER, TOOL, CAT)


def spec(corefs=(), retains=(), target="dog", **facts) -> ConceptSpec:
    return ConceptSpec(target, corefs=tuple(map(Term, corefs)), retains=tuple(map(Term, retains)), **facts)


def found(case, **measured) -> list[tuple[str, str, str]]:
    return [(f.rule, f.kind, f.text) for f in lint(case, OTHERS, **measured)]


BROKEN = [
    (spec(["puppy", "Puppy"]), "duplicate", "corefs", "Puppy"),
    (spec(["guide dog"], ["Guide-Dog"]), "duplicate", "retains", "Guide-Dog"),
    (spec(["the dog"]), "duplicate", "corefs", "the dog"),
    (spec(["bat animal"], ["fruit bat"], "bat", sense="animal"), "duplicate", "corefs", "bat animal"),
    (spec(["puppy of Tom Cruise"]), "leak", "corefs", "puppy of Tom Cruise"),
    (spec(["joker puppy"]), "leak", "corefs", "joker puppy"),
    (spec(["cat"]), "leak", "corefs", "cat"),
    (spec(["hound with Bruce Willis"]), "leak", "corefs", "hound with Bruce Willis"),
    (spec(["hound by Walt Disney"]), "leak", "corefs", "hound by Walt Disney"),
    (spec(["Nicole Kidman’s poodle"]), "leak", "corefs", "Nicole Kidman’s poodle"),
    (spec(["hound chasing a fox"], ["fox"]), "contains", "corefs", "hound chasing a fox"),
    (spec(["fox"], ["red fox"]), "contains", "retains", "red fox"),
    (spec(["charismatic screen presence"]), "vague", "corefs", "charismatic screen presence"),
    (spec([], ["a small animal"]), "vague", "retains", "a small animal"),
    (spec(["?!"]), "vague", "corefs", "?!"),
    (spec(["one two three four five six seven eight nine"]), "long", "corefs",
     "one two three four five six seven eight nine"),
    (spec(["pet dog", "show dog", "dog breed", "lap dog"]), "modifiers", "corefs", "lap dog"),
    (spec(["chiropteran"], ["owl"], "bat", sense="animal"), "sense", "retains", ""),
    (spec(["chiropteran"], ["owl"], "bat"), "sense", "retains", ""),
    (spec(["Kitty"]), "taken", "corefs", "Kitty"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "rule", "kind", "text"), BROKEN, ids=[f"{b[1]}: {b[3]}" for b in BROKEN])
def test_a_broken_rule_is_found_where_it_is_broken(case, rule, kind, text):
    assert found(case) == [(rule, kind, text)]


SOUND = [
    spec(["puppy", "pooch", "guide dog", "show dog", "pet dog"], ["cat", "raccoon dog", "wolf"]),
    spec(["tractor-trailer"], ["tractor"], "truck"),  # a compound is a word of its own
    spec(["leader of the pack", "Gone with the Wind poster", "hound with a red collar", "shepherd's helper"]),
    spec(["Mission Impossible lead", "young Tom Cruise"], ["Brad Pitt"], "Tom Cruise", category="celebrity"),
    spec(["Joker's grin"], ["Batman"], "The Joker", category="ip"),
    spec(["flying mammal"], ["baseball bat"], "bat", sense="animal"),
    spec(["flying mammal"], ["Louisville Slugger"], "bat", sense="animal"),  # the other sense by another name
    spec(["flying mammal"], [], "bat", sense="animal"),  # a list that is yet to be filled
]


@pytest.mark.parametrize("case", SOUND, ids=lambda case: case.corefs[0].text)
def test_a_sound_list_has_no_findings(case):
    assert found(case) == []


def test_emoji_have_no_words_and_so_are_not_alike():
    rules = [f.rule for f in lint(spec(["😀", "🐕"], target="🐩"), (ConceptSpec("🐶", "celebrity"),))]
    assert "leak" not in rules and "vague" not in rules


def test_every_rule_has_a_case():
    assert {rule for _, rule, *_ in BROKEN} | {"dead"} == set(RULES)


def test_length_is_measured_where_the_model_was_asked():
    case = spec(["puppy"], ["wolf"])
    (finding,) = lint(case, tokens={"puppy": 40, "wolf": 32}, limit=32)
    assert (finding.rule, finding.text) == ("long", "puppy") and "40 tokens, and the model reads 32" in finding.reason


def test_a_term_is_dead_when_less_than_half_of_its_pictures_show_it():
    case = spec(["puppy", "pooch"], ["wolf", "fox"])
    drawn = {"puppy": (4, 10), "pooch": (5, 10), "wolf": (0, 10)}
    findings = lint(case, drawn=drawn)
    assert [(f.rule, f.text) for f in findings] == [("dead", "puppy"), ("dead", "wolf")]
    assert "4 of 10 pictures of it show dog" in findings[0].reason and "show it" in findings[1].reason


def test_what_is_printed_stands_and_ours_gives_way():
    names = ["pet dog", "show dog", "dog breed", "guide dog"]
    for ours in range(4):
        terms = (Term(name, source="llm" if i == ours else "paper") for i, name in enumerate(names))
        assert lint(ConceptSpec("dog", corefs=tuple(terms))) == [
            Finding("corefs", names[ours], "modifiers",
                    "is the target's name with an addition, as 3 others already are: the edit would learn one word")
        ]  # fmt: skip


def test_a_missing_sense_is_the_papers_only_where_all_retains_are():
    printed = ConceptSpec("bat", sense="animal", retains=(Term("owl", source="paper"), Term("moth", source="paper")))
    mixed = replace(printed, retains=(*printed.retains, Term("wasp")))
    assert [f.severity for f in (*lint(printed), *lint(mixed))] == ["warning", "error"]


def test_a_spec_is_no_rival_of_itself():
    assert lint(CRUISE, OTHERS) == lint(JOKER, OTHERS) == []


vocabulary = [
    "dog",
    "puppy",
    "wolf",
    "guide dog",
    "bat",
    "Tom Cruise",
    "famous actor",
    "with Bruce Willis",
    "a",
    "-",
    "’s",
]
phrases = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(vocabulary), min_size=1, max_size=5).map(" ".join))
lists = st.lists(st.builds(Term, phrases, source=st.sampled_from(SOURCES)), max_size=6).map(tuple)
specs = st.builds(
    ConceptSpec, st.sampled_from(vocabulary), st.sampled_from(CATEGORIES), st.sampled_from(["", "animal"]), lists, lists
)


@given(specs)
def test_a_finding_is_about_a_term_of_the_list_and_its_source_makes_it_an_error(case):
    for finding in lint(case, OTHERS):
        terms = [t for t in getattr(case, finding.kind) if finding.text in ("", t.text)]
        assert terms and finding.reason
        if len({term.source for term in terms}) == 1:
            assert finding.severity == ("warning" if terms[0].source == "paper" else "error")


@given(specs)
def test_printed_lists_have_no_errors(case):
    printed = {kind: tuple(replace(t, source="paper") for t in getattr(case, kind)) for kind in ("corefs", "retains")}
    assert {finding.severity for finding in lint(replace(case, **printed), OTHERS)} <= {"warning"}


@given(st.lists(st.sampled_from(["red", "Blue", "green", "tall"]), min_size=1, max_size=4), st.sampled_from("- "))
def test_case_and_hyphens_make_no_new_phrase(parts, joint):
    first, again = " ".join(parts), joint.join(parts).upper()
    assert ("duplicate", "retains", again) in found(spec([first], [again]))
