"""Spec files: what is written can be read, and what is wrong is said with field, value and fix."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crce.concepts import edits, library
from crce.concepts.spec import CATEGORIES, CERTAINTY, SPLITS, ConceptSpec, Term
from crce.errors import CrceError

DOG = {"target": "dog", "corefs": [{"text": "puppy"}], "retains": [{"text": "cat"}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"corefs": [{"text": "puppy", "certainty": "highest"}]},
            'dog.json: corefs[0].certainty is "highest"; use one of "very high", "high", "normal", "low", "very low".',
        ),
        ({"retains": [{"text": "cat"}, {}]}, "dog.json: retains[1].text is missing; add it."),
        (
            {"corefs": [{"text": "puppy", "colour": "red"}]},
            "unknown field corefs[0].colour; use one of text, certainty, split, source, note.",
        ),
        ({"target": ""}, 'dog.json: target is ""; enter a phrase.'),
        ({"target": "x" * 201}, "use at most 200 characters."),
        ({"target": "do\u202eg"}, "remove the control characters."),
        ({"target": "do\x1b[31mg"}, "remove the control characters."),
        ({"corefs": [{"text": "pup\x00py"}]}, "remove the control characters."),
        ({"corefs": [{"text": "puppy", "note": "a\u202eb"}]}, "corefs[0].note is"),
        ({"target": "\u200d"}, "enter a phrase that can be seen."),
        ({"corefs": [{"text": f"puppy {n}"} for n in range(501)]}, "corefs has 501 entries; use at most 500."),
        ({"target": "\ud800"}, r'target is "\ud800"; use a string.'),
        ({"corefs": "puppy"}, 'dog.json: corefs is "puppy"; use a list.'),
        ({"corefs": ["puppy"]}, 'corefs[0] is "puppy"; use an object, {"…": …}.'),
        ({"provenance": {"rounds": -1}}, "provenance.rounds is -1; use a non-negative integer."),
        ({"corefs": [{}, {}]}, "(1 more)"),
        (
            {"corefs": [{"text": "puppy"}, {"text": "Puppy"}]},
            'corefs[1].text is "Puppy", the same as corefs[0].text; remove one of the two.',
        ),
        ({"retains": [{"text": " puppy "}]}, 'retains[0].text is "puppy", the same as corefs[0].text;'),
        ({"corefs": [{"text": "DOG"}]}, 'corefs[0].text is "DOG", the same as the target;'),
    ],
)
def test_a_fault_is_named_with_its_value_and_the_fix(change, said):
    with pytest.raises(CrceError) as error:
        library.parse_spec(json.dumps({**DOG, **change}), "dog.json")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"target": "dog",\n "corefs": [}', "dog.json: line 2, column 13 is not valid JSON: Expecting value."),
        ("", "line 1, column 1"),
        ("[]", 'the spec is []; use an object, {"…": …}.'),
        ('{"target": "dog", "target": "cat"}', "appears twice"),
        ('{"target": "dog", "corefs": [{"text": "a", "text": "b"}]}', "appears twice"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_broken_json_names_its_place(text, said):
    with pytest.raises(CrceError) as error:
        library.parse_spec(text, "dog.json")
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["می\u200cخواهم", "\U0001f468\u200d\U0001f33e", "क्\u200dष", "no\u00e9l"])
def test_joiners_stay_where_a_script_needs_them(text):
    spec = library.parse_spec(json.dumps({"target": text, "corefs": [{"text": f"{text} 2", "note": "a\nb"}]}), "x.json")
    assert (spec.target, spec.corefs[0].text) == (text, f"{text} 2") and edits.clean(text) == text
    assert edits.clean("\u200d") == ""


letters = st.characters(exclude_categories=("C", "Z"))
terms = st.builds(
    Term,
    text=st.text(letters, min_size=1, max_size=20),
    certainty=st.sampled_from(list(CERTAINTY)),
    split=st.sampled_from(SPLITS),
)


@given(st.lists(terms, unique_by=lambda term: term.text.casefold(), max_size=8), st.sampled_from(CATEGORIES))
def test_what_is_saved_loads_as_it_was(tmp_path_factory, drawn, category):
    spec = ConceptSpec("the target", category, corefs=tuple(drawn[::2]), retains=tuple(drawn[1::2]))
    path = tmp_path_factory.mktemp("specs") / "spec.json"
    library.save_spec(spec, path)
    assert library.load_spec(path) == spec


def test_what_would_not_load_is_not_saved(tmp_path):
    with pytest.raises(CrceError, match="remove one of the two"):
        library.save_spec(ConceptSpec("dog", corefs=(Term("dog"),)), tmp_path / "dog.json")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_specs_are_said_to_be(tmp_path):
    (tmp_path / "latin.json").write_bytes('{"target": "café"}'.encode("latin-1"))
    with pytest.raises(CrceError, match="save it as UTF-8"):
        library.load_spec(tmp_path / "latin.json")
    with pytest.raises(CrceError, match="cannot be read"):
        library.load_spec(tmp_path)
    with pytest.raises(CrceError, match="No such file"):
        library.find_concept(str(tmp_path / "none.json"))


def test_every_shipped_file_is_a_spec_named_after_itself():
    paths = [path for folder in (library.SHIPPED, library.EXTRAS) for path in folder.rglob("*.json")]
    assert len(paths) == len(library.library())
    for path in paths:
        spec = library.load_spec(path)
        assert (path.stem, path.parent.name) == (spec.slug, spec.category)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        *((name, "bat (animal)") for name in ("bat (animal)", "Bat (Animal)", "bat-animal")),
        *((name, "Beyoncé") for name in ("Beyoncé", "beyoncé", "Beyonce", "beyonce")),
        *((name, "The Joker") for name in ("The Joker", "the-joker")),
    ],
)
def test_a_concept_is_found_by_any_of_its_names(name, found):
    assert library.find_concept(name).name == found


def test_a_word_of_one_sense_needs_no_sense():
    wand = ConceptSpec("wand", sense="magic")
    library.save_spec(wand, library.own_path(wand))
    assert library.find_concept("wand") == library.find_concept("wand (magic)") == wand


def test_an_unknown_concept_names_the_near_ones():
    with pytest.raises(CrceError, match="no concept 'dgo'. Did you mean \"dog\""):
        library.find_concept("dgo")
    with pytest.raises(CrceError, match="crce concepts"):
        library.find_concept("")


def test_ones_own_concept_wins_and_a_broken_file_hides_nothing():
    own = ConceptSpec("dog", corefs=(Term("pooch"),))
    library.save_spec(own, library.own_path(own))
    broken = library.own_path(own).with_name("wombat.json")
    broken.write_text("{")
    assert library.library()["dog"] == own
    assert "cat" in library.library()
    with pytest.raises(CrceError, match="wombat.json: line 1, column 2"):
        library.find_concept("wombat")


def test_two_senses_ask_which():
    with pytest.raises(CrceError, match=r'several senses. Use "bat \(animal\)" or "bat \(sports equipment\)"'):
        library.find_concept("bat")


def test_a_file_that_changes_is_read_again():
    for certainty in ("high", "low", "normal"):
        own = ConceptSpec("wand", corefs=(Term("stick", certainty),))
        library.save_spec(own, library.own_path(own))
        assert library.library()["wand"] == own
    library.own_path(own).unlink()
    assert "wand" not in library.library()


def test_the_extras_are_in_the_library_and_not_in_the_dataset():
    extras = {path.stem for path in library.EXTRAS.rglob("*.json")}
    figures = {"fairy", "genie", "mermaid", "santa-claus", "vampire", "zombie"}
    assert extras == {"cricket-game", "cricket-insect", "boat", "flower", "fruit", "insect"} | figures
    assert library.library().keys() - library.publishable().keys() == extras
    fairy = library.library()["fairy"]
    assert library.is_shipped(fairy) and library.is_shipped(library.library()["dog"])
    library.save_spec(fairy, library.own_path(fairy))
    assert "fairy" in library.publishable()
    assert not library.is_shipped(ConceptSpec("wand"))


def test_a_name_with_a_sense_as_long_as_may_be_has_a_file_of_its_own():
    """Its name would be longer than a file's may be."""
    spec = ConceptSpec("x" * 200, sense="y" * 200)
    library.save_spec(spec, library.own_path(spec))
    assert library.find_concept(spec.name) == spec


def test_a_path_that_can_be_none_is_told():
    with pytest.raises(CrceError, match="cannot be read"):
        library.find_concept("a\0b.json")
