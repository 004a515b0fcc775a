"""The dataset goes out and comes back the same, and `check` sees what is wrong with one."""

import json
from dataclasses import replace
from itertools import product

import datasets
import mlcroissant
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crce.concepts import dataset, library
from crce.concepts.edits import draw_split
from crce.concepts.spec import CATEGORIES, CERTAINTY, SPLITS, ConceptSpec, Provenance, Term
from crce.errors import CrceError


@pytest.fixture
def shipped():
    return list(library.publishable().values())


def load(folder, config, tmp_path):
    return datasets.load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"))


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
    own = [spec for spec in shipped if spec.category == config]
    assert {split: table[split].num_rows for split in SPLITS} == {
        split: len(dataset.rows(own, split)) for split in SPLITS
    }
    assert table["train"].features["certainty"].names == list(dataset.LEVELS)
    assert set(table["train"]["category"]) == {config}


def test_a_row_is_what_the_card_says(shipped):
    dog = next(spec for spec in shipped if spec.slug == "dog")
    row = dataset.rows([dog], "train")[0]
    assert row | {"note": ""} == {
        "slug": "dog", "category": "object", "concept": "dog", "sense": "", "kind": "coref", "term": "domestic dog",
        "certainty": "very high", "weight": 1.0, "rank": 1, "source": "paper", "note": "",
    }  # fmt: skip
    card = (library.SHIPPED / "README.md").read_text()
    assert all(f"| `{name}` |" in card for name in dataset.COLUMNS)


def test_the_same_specs_give_the_same_bytes(shipped):
    assert dataset.files(shipped) == dataset.files(reversed(shipped))


def test_the_card_counts_what_is_there(shipped):
    card = dataset.render_card([spec for spec in shipped if spec.target in ("bat", "cat")])
    names = "bat (animal), bat (sports equipment), cat"
    assert f"| object | 3 | 90 | 32 | {names} |" in card and card.count(dataset.CONTENTS) == 1
    assert "| bat (animal) | 15 | 15 |\n| cat | 1 | 1 |\n\n" in card
    assert "config_name: object" in card and "config_name: celebrity" not in card


def test_a_hostile_concept_stays_text_in_the_card():
    card = dataset.render_card([ConceptSpec("<img src=x onerror=alert(1)> [a](http://x)")])
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
    assert dataset.check(tmp_path).problems == ("data/object/train.parquet differs from specs/; export again.",)


def test_check_sees_a_broken_and_a_misnamed_file(shipped, tmp_path):
    dataset.export(shipped, tmp_path)
    folder = tmp_path / "specs" / "object"
    (folder / "dog.json").rename(folder / "hound.json")
    (folder / "cat.json").write_text("{")
    said = "\n".join(dataset.check(tmp_path).problems)
    assert "cat.json: line 1" in said and "name it object/dog.json" in said


def test_check_of_an_empty_folder(tmp_path):
    assert dataset.check(tmp_path) == dataset.DatasetReport(0, 0, (f"{tmp_path} contains no specs.",), ())


def problems_of(spec, *others):
    return [line.removeprefix(f"{spec.name}: ") for line in dataset.find_problems([spec, *others])]


@pytest.fixture
def mouse(shipped):
    """A concept of ours, its other sense, and one more."""
    return [next(spec for spec in shipped if spec.slug == slug) for slug in ("mouse-animal", "mouse-computer", "cat")]


def with_text(text, kind="corefs", place=0):
    def changed(spec):
        terms = list(getattr(spec, kind))
        terms[place] = replace(terms[place], text=text)
        return {kind: tuple(terms)}

    return changed


def without_other_sense(spec):
    return {"retains": tuple(replace(t, text="beaver") if "mouse" in t.text else t for t in spec.retains)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: {"corefs": s.corefs[1:]}, "9 train corefs instead of 10."),
        (lambda s: {"corefs": (*s.corefs, Term("mus"))}, "11 train corefs instead of 10."),
        (lambda s: {"retains": (*s.retains[:-1], replace(s.retains[-1], split="train"))}, "11 train retains"),
        (with_text("MOUSIE", place=-1), "the coref 'MOUSIE' is the same as 'mousie' of the corefs. (duplicate)"),
        (with_text("Mouse"), "the coref 'Mouse' is the same as the target. (duplicate)"),
        (with_text("Tom Cruise's pet"), "the coref \"Tom Cruise's pet\" names 'Tom Cruise', which the model"),
        (with_text("shrew in a barn"), "the coref 'shrew in a barn' contains the retain 'shrew'"),
        (with_text("a famous creature"), "the coref 'a famous creature' is too vague"),
        (with_text("small " * 9 + "rodent"), "has 10 words; use at most 8"),
        (with_text("grey mouse"), "is the target's name with an addition, as 3 others already are"),
        (without_other_sense, "the retains include no other sense of 'mouse'; add one"),
        (with_text("tomcat"), "the coref 'tomcat' is also a coref of cat: keep it in one of them. (taken)"),
    ],
)
def test_a_fault_is_named_with_concept_and_fix(mouse, change, says):
    spec, *others = mouse
    assert problems_of(spec, *others) == []
    found = problems_of(replace(spec, **change(spec)), *others)
    assert any(says in line for line in found), found


def test_more_terms_are_right_only_where_the_paper_prints_them(shipped):
    dog = next(spec for spec in shipped if spec.slug == "dog")
    assert len(dog.corefs) == 16 and problems_of(dog) == []
    ours = replace(dog, corefs=(replace(dog.corefs[0], source="llm"), *dog.corefs[1:]))
    assert "11 train corefs instead of 10." in problems_of(ours)


def test_a_printed_term_against_a_rule_is_a_warning(shipped):
    tom = [spec for spec in shipped if spec.slug == "tom-cruise"]
    assert problems_of(*tom) == []
    said = "Tom Cruise: the coref \"Nicole Kidman's Former Spouse\" names 'Nicole Kidman', "
    assert any(line.startswith(said) for line in dataset.describe_findings(tom, "warning"))


def test_a_concept_stands_once(shipped):
    assert "dog appears more than once; keep one of them." in dataset.find_problems([*shipped[:20], *shipped[:20]])


def test_a_split_without_rows_has_no_file_and_the_rest_loads(tmp_path):
    """A concept made by hand has no held-out terms: an empty parquet file cannot be loaded, nor the ones beside it."""
    lighthouse = ConceptSpec("lighthouse", corefs=(Term("beacon tower"),), retains=(Term("windmill"),))
    written = dataset.export([lighthouse], tmp_path / "out")
    assert [path.name for path in written if path.suffix == ".parquet"] == ["train.parquet"]
    loaded = load(tmp_path / "out", "object", tmp_path)
    assert {split: table["term"][:] for split, table in loaded.items()} == {"train": ["beacon tower", "windmill"]}
    whole = load(tmp_path / "out", None, tmp_path)
    assert list(whole) == ["train"]
    assert not any("parquet" in line for line in dataset.check(tmp_path / "out").problems)


def test_the_tables_are_described_in_croissant_and_read_by_it(shipped, tmp_path):
    specs = {spec.category: spec for spec in shipped if spec.slug in ("dog", "taylor-swift")}
    dataset.export(specs.values(), tmp_path / "out")
    described = mlcroissant.Dataset(tmp_path / "out" / "croissant.json")  # raises for what is not valid
    for category, split in product(specs, SPLITS):
        name = f"{category}/{split}"
        wanted = [
            {**row, "certainty": dataset.LEVELS.index(row["certainty"])}
            for row in dataset.rows([specs[category]], split)
        ]
        assert [strip(row, f"{name}/") for row in described.records(name)] == wanted


def strip(row: dict, prefix: str) -> dict:
    """A record of `mlcroissant`, by column; its texts are bytes."""
    decoded = {key: value.decode() if isinstance(value, bytes) else value for key, value in row.items()}
    return {key.removeprefix(prefix): value for key, value in decoded.items()}


def test_what_has_no_held_out_term_is_said_before_it_is_published():
    few = ConceptSpec("lighthouse", corefs=(Term("beacon tower"),), retains=(Term("windmill"),))
    said = "lighthouse: no term is in the test split. Draw the split again in Curate, which holds out a third of each"
    assert (
        dataset.find_problems([few])[0].startswith(said) and "needs at least 3 terms" in dataset.find_unsplit([few])[0]
    )
    more = replace(few, corefs=tuple(Term(text) for text in ("pharos", "beacon tower", "light tower")))
    assert dataset.find_unsplit([more]) == [f"{said} list."]
    drawn = replace(more, corefs=draw_split(more.corefs, 0))
    assert dataset.find_unsplit([drawn]) == []


def test_a_concept_without_terms_is_no_dataset():
    with pytest.raises(CrceError, match="'lighthouse' has no terms"):
        dataset.files([ConceptSpec("lighthouse")])
