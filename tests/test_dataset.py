"""The dataset goes out and comes back the same, and `check` sees what is wrong with one."""

import json
from dataclasses import replace

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crce import dataset, library
from crce.concepts import CATEGORIES, CERTAINTY, SPLITS, ConceptSpec, Provenance, Term
from crce.errors import CrceError


@pytest.fixture
def shipped():
    return list(library.library().values())


def load(folder, config, tmp_path):
    return datasets.load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"))


def test_corefconcept_is_as_the_paper_counts_it():
    assert dataset.check(library.SHIPPED) == []


def test_the_exported_folder_loads_and_gives_the_same_specs(shipped, tmp_path):
    dataset.export(shipped, tmp_path / "out")
    table = load(tmp_path / "out", None, tmp_path)
    back = dataset.rows_to_specs(table)
    assert {spec.slug: spec.digest for spec in back} == {spec.slug: spec.digest for spec in shipped}
    assert back == [replace(spec, provenance=Provenance()) for spec in dataset.read(tmp_path / "out")]


@pytest.mark.parametrize("config", ["object", "ip", "celebrity"])
def test_each_category_is_a_config(shipped, tmp_path, config):
    dataset.export(shipped, tmp_path / "out")
    table = load(tmp_path / "out", config, tmp_path)
    concepts = sum(spec.category == config for spec in shipped)
    assert {split: table[split].num_rows for split in SPLITS} == {"train": 20 * concepts, "test": 10 * concepts}
    assert table["train"].features["certainty"].names == list(dataset.LEVELS)
    assert set(table["train"]["category"]) == {config}


def test_a_row_is_what_the_card_says(shipped):
    dog = next(spec for spec in shipped if spec.slug == "dog")
    row = dataset.rows([dog], "train")[0]
    assert row | {"note": ""} == {
        "category": "object", "concept": "dog", "sense": "", "kind": "coref", "term": "domestic dog",
        "certainty": "very high", "weight": 1.0, "rank": 1, "source": "paper", "note": "",
    }  # fmt: skip
    card = (library.SHIPPED / "README.md").read_text()
    assert all(f"| `{name}` |" in card for name in dataset.COLUMNS)


def test_the_same_specs_give_the_same_bytes(shipped):
    assert dataset.files(shipped) == dataset.files(reversed(shipped))


def test_the_card_counts_what_is_there(shipped):
    ambiguous = [spec for spec in shipped if spec.target in ("bat", "apple")]
    card = dataset.card(ambiguous)
    assert "| object | 2 | apple (fruit), bat (animal) |" in card
    assert "config_name: object" in card and "config_name: celebrity" not in card


def test_a_hostile_concept_stays_text_in_the_card():
    card = dataset.card([ConceptSpec("<img src=x onerror=alert(1)> [a](http://x)")])
    assert r"\<img src=x onerror=alert(1)\> \[a\](http://x)" in card


names = st.text(min_size=1, max_size=20).filter(str.strip)
terms = st.lists(
    st.builds(Term, names, st.sampled_from(sorted(CERTAINTY)), st.sampled_from(SPLITS)),
    max_size=20, unique_by=lambda term: term.text,
)  # fmt: skip


specs = st.builds(
    ConceptSpec, names, st.sampled_from(CATEGORIES), st.text(max_size=5), terms.map(tuple), terms.map(tuple)
)


@given(specs)
def test_rows_keep_everything_that_training_sees(spec):
    back = dataset.rows_to_specs({split: dataset.rows([spec], split) for split in SPLITS})
    assert [b.digest for b in back] == ([spec.digest] if spec.corefs or spec.retains else [])


def test_export_refuses_a_folder_of_others(shipped, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CrceError, match=r"thesis\.txt.*empty folder"):
        dataset.export(shipped, tmp_path)


def test_export_again_is_the_same_folder(shipped, tmp_path):
    assert dataset.export(shipped, tmp_path / "out") == dataset.export(shipped, tmp_path / "out")


def test_nothing_to_publish():
    with pytest.raises(CrceError, match="at least one"):
        dataset.files([])


def test_check_sees_an_edited_cell(shipped, tmp_path):
    dataset.export(shipped, tmp_path)
    path = tmp_path / "specs" / "object" / "dog.json"
    facts = json.loads(path.read_text())
    facts["corefs"][0]["certainty"] = "low"
    path.write_text(json.dumps(facts))
    assert dataset.check(tmp_path) == ["data/object/train.parquet does not say what specs/ says; export again."]


def test_check_sees_a_broken_and_a_misnamed_file(shipped, tmp_path):
    dataset.export(shipped, tmp_path)
    folder = tmp_path / "specs" / "object"
    (folder / "dog.json").rename(folder / "hound.json")
    (folder / "cat.json").write_text("{")
    said = "\n".join(dataset.check(tmp_path))
    assert "cat.json: line 1" in said and "name it object/dog.json" in said


def test_check_of_an_empty_folder(tmp_path):
    assert dataset.check(tmp_path) == [f"{tmp_path} holds no specs."]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: {"corefs": s.corefs[1:]}, "9 train corefs where the dataset has 10"),
        (lambda s: {"retains": (*s.retains[:-1], replace(s.retains[-1], split="train"))}, "11 train retains"),
        (lambda s: {"corefs": (replace(s.corefs[0], text="PUPPY"), *s.corefs[1:])}, "'puppy' stands 2 times"),
        (lambda s: {"retains": (replace(s.retains[0], text="pooch"), *s.retains[1:])}, "'pooch' stands 2 times"),
        (lambda s: {"corefs": (replace(s.corefs[0], text="Dog"), *s.corefs[1:])}, "target is among"),
    ],
)
def test_problems_name_the_concept_and_the_fix(shipped, change, says):
    dog = next(spec for spec in shipped if spec.slug == "dog")
    found = dataset.problems([replace(dog, **change(dog))])
    assert any(line.startswith("dog: ") and says in line for line in found)


def test_a_coref_belongs_to_one_concept(shipped):
    dog = next(spec for spec in shipped if spec.slug == "dog")
    hound = replace(dog, target="beast")
    assert "'puppy' is a coref of dog and of beast; leave it to one." in dataset.problems([dog, hound])
    assert "dog stands more than once; keep one of them." in dataset.problems([dog, dog])
