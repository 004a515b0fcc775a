"""Two concepts are two, whatever their names are written in: on disk, in the library, in a dataset and in a run."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.session import drafts
from crce import runs
from crce.concepts import dataset, library
from crce.concepts.spec import ConceptSpec, Term
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.methods import spm
from crce.proposers.offers import drop_repeats
from crce.publishing.hub import _index

INU = ConceptSpec("犬", corefs=(Term("子犬"),), retains=(Term("狼"),))
NEKO = ConceptSpec("猫", corefs=(Term("子猫"),), retains=(Term("虎"),))
ANIMAL = ConceptSpec("bat", sense="animal", corefs=(Term("flying fox"),), retains=(Term("bird"),))
CLUB = ConceptSpec("bat", sense="club", corefs=(Term("slugger"),), retains=(Term("racket"),))
ALIKE = [
    (INU, NEKO),
    (ConceptSpec("C#"), ConceptSpec("C++")),
    (ANIMAL, CLUB),
    (ANIMAL, ConceptSpec("bat animal")),
    (ANIMAL, ConceptSpec("bat (animal)")),
    (ConceptSpec("銀行", sense="川"), ConceptSpec("銀行", sense="金")),
    (ConceptSpec("Beyoncé"), ConceptSpec("Beyonce")),
    (ConceptSpec("Turkey"), ConceptSpec("turkey")),
    (ConceptSpec("か"), ConceptSpec("が")),
    (ConceptSpec("x" * 199 + "y"), ConceptSpec("x" * 200)),
    (ConceptSpec("two  spaces"), ConceptSpec("two spaces")),
]


def keep(*specs):
    for spec in specs:
        library.save_spec(spec, library.own_path(spec))


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_two_concepts_have_two_files_and_each_is_found_by_its_name(one, other):
    keep(one, other)
    assert one.slug != other.slug and library.own_path(one) != library.own_path(other)
    assert library.load_spec(library.own_path(one)) == one and library.load_spec(library.own_path(other)) == other
    assert {library.library()[spec.slug] for spec in (one, other)} == {one, other}
    for spec in (one, other):
        assert library.find_concept(spec.slug) == drafts.read(spec.slug) == spec
        if one.name != other.name:
            assert library.find_concept(spec.name) == spec


@pytest.mark.parametrize(("there", "asked"), [("犬", "猫"), ("C++", "C#"), ("か", "が"), ("bat animal", "bat-club")])
def test_another_name_finds_nothing(there, asked):
    keep(ConceptSpec(there))
    with pytest.raises(CrceError, match="There is no concept"):
        library.find_concept(asked)


names = st.text(st.characters(categories=("L", "N", "P", "S"), include_characters=" "), min_size=1, max_size=12)


@given(st.tuples(names, names | st.just("")), st.tuples(names, names | st.just("")))
def test_a_file_name_is_short_plain_and_of_one_concept_alone(one, other):
    slugs = [ConceptSpec(target, sense=sense).slug for target, sense in (one, other)]
    assert (slugs[0] == slugs[1]) == (one == other)
    assert all(slug.isascii() and len(slug) <= 90 and slug.replace("-", "").isalnum() for slug in slugs)


def test_a_plain_name_that_looks_hashed_is_no_other_concept():
    looks = ConceptSpec(ConceptSpec("Dog").slug.replace("-", " "))
    assert looks.slug != ConceptSpec("Dog").slug and looks.slug.startswith(ConceptSpec("Dog").slug)


def test_the_shipped_concepts_keep_their_file_names():
    paths = [path for folder in (library.SHIPPED, library.EXTRAS) for path in folder.rglob("*.json")]
    assert len(paths) > 50
    assert {path.stem for path in paths} == {library.load_spec(path).slug for path in paths} == library.library().keys()


def test_a_file_of_an_earlier_version_stays_where_it_is():
    ada = ConceptSpec("Ada Lovelace", "celebrity")
    former = library.own_path(ada).with_name("ada-lovelace.json")
    library.save_spec(ada, former)
    assert library.own_path(ada) == former
    assert library.own_path(ConceptSpec("ada lovelace", "celebrity", sense="x")) != former


def test_a_file_that_holds_another_concept_is_not_written_over():
    keep(INU)
    library.own_path(INU).rename(library.own_path(NEKO))
    with pytest.raises(CrceError, match="holds .*犬.*, not '猫'"):
        library.own_path(NEKO)


def test_one_that_is_named_in_two_ways_asks_which():
    twin = ConceptSpec("bat (animal)")
    keep(ANIMAL, twin)
    with pytest.raises(CrceError, match=rf"several senses. Use bat-animal or {twin.slug}"):
        library.find_concept("bat (animal)")


def test_a_dataset_and_a_proposal_keep_both():
    both = [INU, NEKO]
    assert drop_repeats(both) == both and list(_index(both).values()) == both
    files = dataset.files(both)
    held = [json.loads(data)["target"] for name, data in files.items() if name.startswith("specs/")]
    assert sorted(held) == ["犬", "猫"]


def test_each_sense_of_a_word_has_a_membrane_of_its_own(tiny_sd):
    method = spm.Spm()
    names = method.trainable(tiny_sd.unet)
    tensors = method.start(tiny_sd, (ANIMAL, CLUB), EraseConfig("spm"), names)
    own = spm.by_concept(tensors)
    assert list(own) == ["bat\tanimal", "bat\tclub"] and len(tensors) == 4 * len(names)
    layer = names[0].removesuffix(".weight") + ".down"
    assert not own["bat\tanimal"][layer].equal(own["bat\tclub"][layer])
    assert spm.membrane_key(ConceptSpec("dog")) == "dog"


def test_a_run_of_one_concept_twice_is_refused(tiny_sd_dir):
    job = runs.Job(str(tiny_sd_dir), CLUB, EraseConfig("esd-x-strict", steps=1, lr=1e-3), also=(ANIMAL, CLUB))
    with pytest.raises(CrceError, match=r"'bat \(club\)' is in this run twice"):
        runs.create(job)
