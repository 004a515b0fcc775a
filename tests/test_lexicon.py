"""The proposer that needs no network: what it knows, what it says, and what it does not understand."""

import lzma

import pytest

from crce.concepts import edits, library
from crce.concepts.spec import CERTAINTY, ConceptSpec, Term
from crce.errors import CrceError
from crce.files import ROOT
from crce.generators import drain
from crce.proposers import commands, lexicon, prompts
from crce.proposers.offers import parse_terms
from crce.proposers.offline import LexiconProposer
from crce.proposers.wordnet import FILE, wordnet

WHO = LexiconProposer()


def meanings(*concept):
    return drain(WHO.meanings(*concept))


def texts(terms):
    return [term.text for term in terms]


def round_of(spec, wish):
    return drain(WHO.revise(spec, wish))


def labels(spec, wish):
    return [change.label.split(" — ")[0] for change in edits.changes(spec, round_of(spec, wish).spec)]


@pytest.fixture
def zebra():
    return ConceptSpec(
        "zebra",
        corefs=(Term("striped horse"), Term("mountain zebra")),
        retains=(Term("horse"), Term("mule", "low"), Term("ass")),
    )


# WordNet, as bundled


def test_the_bundle_is_small_and_has_its_licence():
    assert FILE.stat().st_size < 2_500_000
    assert "Princeton University" in (FILE.parent / "LICENSE").read_text()
    assert "WordNet" in (ROOT / "NOTICE").read_text()


def test_every_line_of_the_bundle_is_sound():
    rows = lzma.decompress(FILE.read_bytes()).decode().splitlines()
    assert len(rows) == len(wordnet().synsets) > 30_000
    roots = [synset.words[0] for synset in wordnet().synsets if not synset.above]
    assert roots == ["physical entity"]
    assert all(word.strip() == word and word for synset in wordnet().synsets for word in synset.words)


def test_there_are_no_latin_names_no_single_beings_and_no_slurs():
    words = {word for synset in wordnet().synsets for word in synset.words}
    assert {"domestic dog", "turkey cock"} <= words
    assert not {"Canis familiaris", "Meleagris gallopavo", "Canidae", "genus Canis", "Lassie", "Paris"} & words
    assert "ethnic slur" not in " ".join(synset.gloss for synset in wordnet().synsets)


def test_senses_come_commonest_first_and_plurals_are_found():
    dog = wordnet().find("dog")
    assert [synset.field for synset in dog[:2]] == ["animal", "person"] and len(dog) > 3
    assert wordnet().find(" Dogs ") == dog
    assert wordnet().find("puppies")[0].words[0] == "puppy" and wordnet().find("wolves")[0].words[0] == "wolf"
    assert wordnet().find("qwxyz") == []


def test_kinds_have_their_distance():
    graph = wordnet()
    dog = graph.find("dog")[0]
    down = {synset.words[0]: steps for synset, steps in graph.hyponyms(dog, 3).items()}
    assert (down["dog"], down["poodle"], down["toy poodle"]) == (0, 1, 2)
    up = {synset.words[0]: steps for synset, steps in graph.hypernyms(dog, 9).items()}
    assert up["canine"] == 1 and up["physical entity"] > 4


# Proposing


def test_corefconcept_comes_first():
    (spec,) = meanings("Dog")
    (shipped,) = lexicon.find_shipped("dog")
    assert {*spec.corefs, *spec.retains} == {*shipped.corefs, *shipped.retains}
    (told,) = spec.provenance.history
    assert (told.by, told.model, spec.provenance.reviewer) == ("lexicon", "bundled concepts", "")
    assert len(told.changes) == len(spec.corefs) + len(spec.retains)


def test_a_users_own_empty_draft_is_not_what_is_proposed():
    library.save_spec(ConceptSpec("zebra"), library.own_path(ConceptSpec("zebra")))
    assert meanings("zebra")[0].retains


def test_the_article_of_a_name_does_not_matter():
    assert [spec.target for spec in lexicon.find_shipped("katniss everdeen")] == ["Katniss Everdeen"]
    assert lexicon.find_shipped("the dog") == lexicon.find_shipped("dog")
    assert [spec.category for spec in lexicon.find_shipped("Mermaid")] == ["ip"]


def test_wordnet_fills_lists_by_distance():
    (spec,) = meanings("wheelbarrow")
    assert "barrow" in texts(spec.corefs) and "handcart" not in texts(spec.corefs)
    assert len(spec.retains) == 15 and {t.source for t in (*spec.corefs, *spec.retains)} == {"lexicon"}
    assert {t.certainty for t in spec.retains} <= set(CERTAINTY)
    assert all(term.note.endswith("(WordNet)") for term in (*spec.corefs, *spec.retains))
    assert spec.provenance.history[0].model == "WordNet"


def test_synonyms_are_surest_then_kinds_and_no_retain_is_a_kind():
    animal = lexicon.find_meanings("bear")[0]
    sure = {term.text: term.certainty for term in animal.corefs}
    assert sure["brown bear"] == "high" and sure["grizzly"] == "normal"
    below = {word for synset in wordnet().hyponyms(wordnet().find("bear")[0], 9) for word in synset.words}
    assert not below & {term.text for term in animal.retains}
    levels = [CERTAINTY[term.certainty] for term in animal.retains]
    assert levels == sorted(levels, reverse=True) and len(set(levels)) > 1


@pytest.mark.parametrize("name", ["dog", "ship", "chair", "banjo", "turkey", "kite", "tulip"])
def test_proposals_hold_to_the_rules(name):
    for meaning in lexicon.find_meanings(name):
        assert sum(name in text.split() for text in texts(meaning.corefs)) <= lexicon.REPEATS
        assert not any(name in text.casefold().split() for text in texts(meaning.retains))
        assert name not in texts(meaning.corefs)


def test_each_sense_is_a_spec_with_a_name_of_its_own():
    specs = meanings("kite")
    assert [spec.name for spec in specs] == ["kite (artifact)", "kite (animal)"]
    assert "box kite" in texts(specs[0].corefs) and "falcon" in texts(specs[1].retains)
    assert len({spec.slug for spec in meanings("bank")}) == len(meanings("bank")) > 2


def test_a_sense_is_found_by_its_words():
    (bird,) = meanings("kite", "object", "bird of prey")
    assert bird.name == "kite (bird of prey)" and "falcon" in texts(bird.retains)
    with pytest.raises(CrceError, match="artifact, animal"):
        meanings("kite", "object", "poem")


def test_terms_are_seen_while_they_are_written():
    text = "".join(WHO.meanings("kite"))
    terms = [t.text for spec in meanings("kite") for t in (*spec.corefs, *spec.retains)]
    assert parse_terms(text) == list(dict.fromkeys(terms)) and parse_terms(text[:60]) == terms[:1]


@pytest.mark.parametrize(
    ("concept", "says"),
    [(("qwxyz",), "Check the spelling"), (("Angela Merkel", "celebrity"), "has only objects, no celebrity"),
     (("Asterix", "ip"), "no ip"), (("ukiyo-e", "style"), "no style")],
)  # fmt: skip
def test_what_it_does_not_know_it_says_and_what_to_do(concept, says):
    with pytest.raises(CrceError, match=says) as error:
        meanings(*concept)
    assert all(name in str(error.value) for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "CRCE_MODEL", "by hand"))


def test_names_are_corefconcepts():
    assert "Katniss Everdeen" in drain(WHO.names("ip")) and "Tom Cruise" in drain(WHO.names("celebrity"))
    assert set(prompts.LIST_PROMPTS) == {"ip", "celebrity"}


# Written by hand: what of the first 30 retains of a word is a neighbour, and what a kind or a way of being it.
BY_HAND = {
    "dog": (
        "fox, wolf, domestic cat, hyena, jackal",
        "bitch, stray, head, feeder, stocker, female, young, giant, adult",
    ),
    "cat": ("lion, tiger, leopard, cheetah, dog, fox", "tabby, kitten, tom, mouser, tomcat, panther, wildcat"),
    "horse": ("mule, zebra, hinny, rhino", "mare, stallion, pony, foal, colt, male, female, ass"),
    "deer": ("sheep, antelope, goat, giraffe", "doe, buck, fawn, stag, elk, reindeer, bovid"),
    "frog": ("salamander, newt, bird, reptile", "toad, tadpole, bullfrog, Amniota, Ichyostega, tetrapod"),
    "mouse": ("rat, squirrel, porcupine, hamster", "house mouse, field mouse, harvest mouse, giant, young"),
    "bird": ("mammal, reptile, fish", "hen, cock, chick, parrot, Amniota, tetrapod, diapsid, synapsid"),
    "airplane": ("helicopter, glider, balloon", "jet, airliner, biplane, fighter, seaplane"),
    "ship": ("boat, yacht, aircraft, barge", "warship, steamship, liner, shipwreck, hulk"),
    "truck": ("car, motorcycle, streetcar, taxi", "pickup, van, lorry, dump truck, fire engine"),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_neighbours_are_no_kinds_of_it(name):
    near, wrong = (set(listed.split(", ")) for listed in BY_HAND[name])
    retains = texts(lexicon.find_meanings(name)[0].retains)
    assert near <= set(retains[:30]) and not wrong & set(retains), (near - set(retains[:30]), wrong & set(retains))


@pytest.mark.parametrize("spec", library.bundled().values(), ids=lambda spec: spec.slug)
def test_of_every_shipped_concept_no_proposal_is_a_kind_a_taxon_or_vulgar(spec):
    graph = wordnet()
    for meaning, synset in zip(
        lexicon.find_meanings(spec.target), lexicon._select_drawable(graph.find(spec.target)), strict=True
    ):
        below = {word.casefold() for kind in graph.hyponyms(synset, lexicon.WHOLE) for word in kind.words}
        retains = texts(meaning.retains)
        assert not below & {text.casefold() for text in retains}
        assert not {"bitch", "ass", "cock", "cunt", "stray", "Amniota", "Fissipedia"} & {
            *retains,
            *texts(meaning.corefs),
        }
        levels = [CERTAINTY[term.certainty] for term in meaning.retains]
        assert levels == sorted(levels, reverse=True)


# Talking


@pytest.mark.parametrize(
    ("wish", "does"),
    [
        ("drop mule", ["− keep: mule"]),
        ("Remove 'Mule', striped horse and more.", []),
        ("remove mule, and striped horse.", ["− erase: striped horse", "− keep: mule"]),
        ("mule is a coref", ["⇄ erase: mule (low)"]),
        ("striped horse is a retain", ["⇄ keep: striped horse (high)"]),
        ("okapi is a retain", ["+ keep: okapi (high)"]),
        ("set horse to very low", ["~ keep: horse (very low)"]),
        ("Set mule to High!", ["~ keep: mule (high)"]),
        ("mule is a retain", []),
        ("zebra is a retain", []),
        ("set unicorn to low", []),
        ("drop unicorn", []),
        ("the other sense", []),
        ("help", []),
        ("write me a poem about zebras", []),
        ("", []),
    ],
)
def test_what_is_understood_is_done_and_nothing_else(zebra, wish, does):
    assert labels(zebra, wish) == does
    revision = round_of(zebra, wish)
    assert revision.says
    if not does:
        assert revision.spec == zebra


def test_more_brings_new_terms(zebra):
    more = labels(zebra, "more retains")
    assert len(more) == commands.NUMBER and all(label.startswith("+ keep") for label in more)
    assert labels(zebra, "more corefs") == ["+ erase: common zebra (high)", "+ erase: grevy's zebra (high)"]
    grown = round_of(zebra, "more corefs").spec
    assert "knows no more corefs" in round_of(grown, "some more corefs").says


def test_the_other_sense_goes_round():
    bird = meanings("kite", "object", "bird of prey")[0]
    other = round_of(bird, "the other sense").spec
    assert other.name == "kite (artifact)" and "box kite" in texts(other.corefs)
    assert round_of(other, "other meaning").spec.name == "kite (animal)"
    shipped = lexicon.find_shipped("bat")
    assert round_of(shipped[0], "the other sense").spec.slug == shipped[1].slug


def test_a_round_is_told(zebra):
    made = round_of(zebra, "drop mule").spec.provenance
    assert made.rounds == 1
    assert [(r.by, r.wish, r.changes) for r in made.history] == [("lexicon", "drop mule", ("− keep: mule",))]


def test_it_says_that_no_model_is_connected_and_what_it_understands(zebra):
    says = round_of(zebra, "fewer breeds, please").says
    assert "No LLM is connected" in says and commands.HELP in says
    for request in ("more corefs", "drop horse", "horse is a coref", "set horse to low", "the other sense"):
        assert "No LLM" not in round_of(zebra, request).says
