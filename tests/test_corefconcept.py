"""CorefConcept as it is shipped: the paper's concepts and terms, its form, and the rules for what is ours."""

from collections import Counter

import pytest

from crce.concepts import dataset, library
from crce.concepts.edits import draw_split
from crce.concepts.spec import CERTAINTY

SPECS = {spec.slug: spec for spec in dataset.read(library.SHIPPED)}
LISTS = [(spec, kind) for spec in SPECS.values() for kind in ("corefs", "retains")]
WHOLE = ("dog", "horse", "bat-animal", "katniss-everdeen", "tom-cruise")  # Tables 2 to 5
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAMED = (
    *CIFAR,
    *("bat-animal", "bat-sports-equipment", "apple-fruit", "apple-company"),
    *("mickey-mouse", "batman", "the-joker", "katniss-everdeen"),
    *("tom-cruise", "beyonce", "mindy-kaling", "samuel-l-jackson", "donald-trump"),
)
# What the paper prints outside those tables: in §3.1.2, §3.2.1, §4.5 and Figures 1, 2, 4 and 6 to 10.
PRINTED = {
    "cat": (["Siamese cat"], ["dog"]),
    "dog": (["guide dog", "service dog", "working dog", "Chihuahua", "puppy"], ["cat", "coyote", "pig"]),
    "deer": ([], ["antelope", "gazelle"]),
    "horse": (["pony", "war horse"], ["mule", "sheep"]),
    "apple-fruit": (["Golden Delicious", "Granny Smith"], ["pear", "banana"]),
    "mickey-mouse": (["The first mouse character by Walt Disney", "The main mouse mascot of Disneyland"], []),
    "batman": (["Batarang-wielding warrior", "The Dark Knight"], ["Poison Ivy", "Cat Woman"]),
    "the-joker": (["Gotham City antagonist"], ["Batman"]),
    "beyonce": (["Queen Bey", "Destiny's Child Lead"], ["Whitney Houston", "Mariah Carey"]),
    "donald-trump": (["The 45th President of the United States"], []),
}


def test_it_keeps_its_form_and_its_rules():
    found = dataset.check(library.SHIPPED)
    assert found.problems == () and found.concepts == 50


def test_the_extras_keep_them_too():
    assert dataset.check(library.EXTRAS).problems == ()


def test_it_has_the_papers_share_of_each_category():
    assert Counter(spec.category for spec in SPECS.values()) == {"object": 20, "ip": 15, "celebrity": 15}


def test_every_concept_that_the_paper_names_is_there():
    assert set(NAMED) <= set(SPECS)


@pytest.mark.parametrize("slug", PRINTED)
def test_every_term_that_the_paper_prints_is_in_its_list(slug):
    for terms, printed in zip((SPECS[slug].corefs, SPECS[slug].retains), PRINTED[slug], strict=True):
        assert set(printed) <= {term.text for term in terms if term.source == "paper"}


def test_nothing_else_is_called_printed():
    for spec in SPECS.values():
        printed = {term.text for term in (*spec.corefs, *spec.retains) if term.source == "paper"}
        named = set().union(*PRINTED.get(spec.slug, ()))
        assert len(printed) == len(spec.corefs + spec.retains) if spec.slug in WHOLE else printed == named


def test_every_printed_term_says_where():
    notes = [t.note for spec in SPECS.values() for t in (*spec.corefs, *spec.retains) if t.source == "paper"]
    assert notes and all(note.startswith(("listed in the paper's Table ", "named in the paper's ")) for note in notes)


def test_the_papers_bad_example_is_no_coref():
    texts = [term.text for spec in SPECS.values() for term in spec.corefs]
    assert not any("Bruce Willis" in text or "co-star" in text for text in texts)


@pytest.mark.parametrize("word", ["apple", "bat", "crane", "jaguar", "mouse"])
def test_an_ambiguous_word_has_both_senses(word):
    assert len({spec.sense for spec in SPECS.values() if spec.target == word} - {""}) == 2


@pytest.mark.parametrize(("spec", "kind"), LISTS, ids=lambda value: getattr(value, "slug", value))
def test_certainty_falls_in_each_split_of_each_list(spec, kind):
    for split in dataset.IN_SPLIT:
        weights = [term.weight for term in getattr(spec, kind) if term.split == split]
        assert weights == sorted(weights, reverse=True)


def test_a_new_list_uses_all_levels_and_its_split_can_be_drawn_again():
    drawn = [(spec, kind) for spec, kind in LISTS if spec.provenance.split_seed]
    assert len(drawn) == 72
    for spec, kind in drawn:
        terms = sorted(getattr(spec, kind), key=lambda term: (-term.weight, term.text))
        assert {term.certainty for term in terms} == set(CERTAINTY)
        assert set(draw_split(terms, spec.provenance.split_seed)) == set(terms), spec.name


def test_no_term_is_called_an_experts_where_nobody_reviewed():
    unreviewed = [spec for spec in SPECS.values() if not spec.provenance.reviewer]
    assert {t.source for spec in unreviewed for t in (*spec.corefs, *spec.retains)} <= {"paper", "llm", "lexicon"}


def test_the_card_is_counted_from_the_files():
    card = (library.SHIPPED / "README.md").read_text(encoding="utf-8")
    assert dataset.render_card(SPECS.values()) == card, "write it again: python -m crce dataset card"
