"""Tables as spreadsheets save them are understood, and one of another concept is not taken for this one's."""

import pytest

from crce.concepts import csv_json, edits
from crce.concepts.spec import CERTAINTY, ConceptSpec, Term
from crce.errors import CrceError

DOG = ConceptSpec("dog", sense="animal", corefs=(Term("puppy"),), retains=(Term("cat", "low"),))


@pytest.mark.parametrize(
    "text",
    [
        "kind,term,certainty,\ncoref,pooch one,low,\n,,,\n , ,,\n",
        "sep=;\nkind;term;certainty\ncoref;pooch one;low\n",
        '"sep=;"\r\nkind;term;certainty\r\ncoref;pooch one;low\r\n',
        "Kind,TERM, Certainty\ncoref,pooch one,Low\n",
        "kind,term,certainty\ncoref,pooch one,0.4\n",
        "kind;term;certainty\ncoref;pooch one;0,4\n",
        "kind\tterm\tcertainty\ncoref\tpooch one\tlow\n",
        "concept,kind,term,certainty\ndog (animal),coref,pooch one,low\n",
        "concept,kind,term,certainty\nDog,coref,pooch one,low\n",
        "concept,kind,term,certainty\n,coref,pooch one,low\n",
    ],
)
def test_what_spreadsheets_make_of_a_table_is_understood(text):
    assert csv_json.from_csv(DOG, text, "t.csv").corefs == (*DOG.corefs, Term("pooch one", "low"))


def test_the_weights_are_the_five_levels():
    rows = "".join(f"coref,t{weight},{weight:g}\n" for weight in CERTAINTY.values())
    read = csv_json.read_table(f"kind,term,certainty\n{rows}", "t.csv")
    assert [row.certainty for row in read] == list(CERTAINTY)
    with pytest.raises(CrceError, match="line 2: certainty is '0.7'; use one of very high"):
        csv_json.read_table("kind,term,certainty\ncoref,x,0.7\n", "t.csv")


def test_a_table_of_another_concept_is_refused():
    text = "concept,kind,term\ndog,coref,pooch\ncat,coref,kitty\n"
    with pytest.raises(CrceError, match=r"line 3 is a term of 'cat', and these lists are those of 'dog \(animal\)'"):
        csv_json.from_csv(DOG, text, "t.csv")


def test_a_line_number_counts_the_separators_line():
    with pytest.raises(CrceError, match="line 3: kind is 'maybe'"):
        csv_json.read_table("sep=;\nkind;term\nmaybe;pooch\n", "t.csv")


def test_a_place_with_a_comma_is_one_term():
    read = csv_json.read_table('kind,term\nretain,"Washington, D.C."\n', "t.csv")
    assert [row.text for row in read] == ["Washington, D.C."]
    typed = 'Washington, D.C.\npooch, mutt; "Paris, Texas", Sammy Davis, Jr., cur'
    assert edits.split_phrases(typed) == [
        "Washington, D.C.", "pooch", "mutt", "Paris, Texas", "Sammy Davis, Jr.", "cur",
    ]  # fmt: skip
    assert edits.split_phrases(" , ;\n") == []
    assert edits.split_phrases("1. pier\n- dock\n• quay\n101 dalmatians\n3.5 tonner") == [
        "pier", "dock", "quay", "101 dalmatians", "3.5 tonner",
    ]  # fmt: skip


def test_a_table_of_many_rows_is_merged_and_a_list_holds_500_terms():
    rows = "".join(f"coref,pooch {number % 499},low\n" for number in range(20_000))
    merged = csv_json.from_csv(DOG, f"kind,term,certainty\n{rows}", "t.csv")
    assert len(merged.corefs) == 500 and merged.retains == DOG.retains
    with pytest.raises(CrceError, match="corefs has 501 entries; use at most 500"):
        csv_json.from_csv(merged, "kind,term\ncoref,one more\n", "t.csv")
    moved = csv_json.from_csv(merged, "kind,term\nretain,pooch 0\n", "t.csv")
    assert len(moved.corefs) == 499 and moved.retains[-1] == Term("pooch 0", "low")
