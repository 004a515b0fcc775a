"""What changed between two versions of a dataset, and how far its reviewers agree."""

import json
from dataclasses import replace

import pytest

from crce.concepts import changelog, dataset, reviews
from crce.concepts.changelog import ConceptChanges
from crce.concepts.library import load_spec, save_spec
from crce.concepts.spec import ConceptSpec, Term
from crce.errors import CrceError

CAT = ConceptSpec("cat", corefs=(Term("kitty"),), retains=(Term("lynx"),))


@pytest.fixture
def later(dog) -> ConceptSpec:
    """The concept with a term added, one dropped, one moved, one with another certainty, and one in another split."""
    corefs = (Term("puppy", "low"), Term("hound", "normal", split="test"), Term("guide dog", split="test"), Term("cur"))
    return replace(dog, corefs=corefs, retains=(*dog.retains[:3], Term("pooch"), *dog.retains[3:]))


def test_each_change_is_a_line(dog, later):
    assert changelog.compare([dog, CAT], [later, ConceptSpec("bat")]) == (
        ConceptChanges("bat", "new", ("0 corefs, 0 retains",)),
        ConceptChanges("cat", "removed", ("1 corefs, 1 retains",)),
        ConceptChanges(
            "dog (animal)",
            "changed",
            ("+ coref: cur (high)", "⇄ now a retain: pooch (high)", "~ coref: puppy (very high → low)",
             "split: hound now in test"),
        ),
    )  # fmt: skip
    assert changelog.compare([dog], [later])[0].lines[0] == "+ coref: cur (high)"
    assert changelog.compare([later], [dog])[0].lines[0] == "− coref: cur"
    assert changelog.compare([dog], [replace(dog, provenance=replace(dog.provenance, reviewer="Ada"))]) == ()


def test_the_card_keeps_the_latest_changes_first(dog, later):
    first = dataset.render_card([dog], changes=changelog.render(changelog.compare([dog], [later]), "a" * 40, ""))
    assert first.count("## Changes") == 1 and "### Since aaaaaaaaaa\n\n- **dog (animal)**, changed:\n" in first
    second = changelog.render(changelog.compare([later], [later, CAT]), "b" * 40, first)
    assert second.index("### Since bbbbbbbbbb") < second.index("### Since aaaaaaaaaa")
    # Publishing the same again changes nothing.
    assert changelog.render((), "c" * 40, first) == first[first.index("## Changes") :]
    assert changelog.render((), "c" * 40, dataset.render_card([dog])) == ""


def test_a_long_change_is_cut_and_a_name_is_no_markup():
    many = [ConceptSpec(f"c{number}") for number in range(150)]
    told = changelog.render(changelog.compare([], [*many, ConceptSpec("<b>*x*</b>")]), "a" * 40, "")
    assert "… and 51 lines more" in told and "<b>" not in told


def test_one_reviewer_agrees_with_nobody_and_signs_again_in_place(dog):
    signed = reviews.sign(reviews.sign(dog, "Ada"), "ada")
    assert [each.reviewer for each in signed.provenance.reviews] == ["ada"]
    assert reviews.measure([signed]) == [] and "κ" not in dataset.render_card([signed])


def test_kappa_of_two_reviewers(dog):
    """Ada has 4 corefs and 4 retains. Bob drops a coref and makes one a retain: by hand, p_o = 6/8 and
    p_e = (4·2 + 4·5 + 0·1) / 64."""
    first = reviews.sign(dog, "Ada")
    changed = replace(first, corefs=first.corefs[2:], retains=(*first.retains, first.corefs[0]))
    (found,) = reviews.measure([reviews.sign(changed, "Bob")])
    assert (found.concept, found.reviewers, found.n, found.same) == ("dog (animal)", ("Ada", "Bob"), 8, 6)
    expected = 28 / 64
    assert found.kappa == pytest.approx((6 / 8 - expected) / (1 - expected))
    card = dataset.render_card([reviews.sign(changed, "Bob")])
    assert f"| dog (animal) | Ada and Bob | 8 | 6 | {found.kappa:.2f} |" in card and "not that of independent" in card


def test_where_chance_explains_all_there_is_no_kappa():
    alone = ConceptSpec("dog", corefs=(Term("pup"),))
    (found,) = reviews.measure([reviews.sign(reviews.sign(alone, "Ada"), "Bob")])
    assert (found.kappa, found.text) == (None, "–")


def test_reviews_are_written_read_and_checked(dog, tmp_path):
    path = tmp_path / "dog.json"
    save_spec(dog, path)
    assert "reviews" not in json.loads(path.read_text())["provenance"]
    signed = reviews.sign(dog, "Ada")
    save_spec(signed, path)
    assert load_spec(path) == signed
    facts = json.loads(path.read_text())
    facts["provenance"]["reviews"][0]["reviewer"] = ""
    path.write_text(json.dumps(facts))
    with pytest.raises(CrceError, match=r"provenance.reviews\[0\].reviewer is \"\""):
        load_spec(path)


def test_who_made_the_lists_and_the_licence_are_told(dog):
    by_model = replace(dog, corefs=(Term("pup", source="llm"),), retains=(Term("cat", source="llm"),))
    header = dataset.render_card([by_model]).split("\n---\n")[0]
    assert "license: cc-by-4.0" in header and "- machine-generated" in header and "expert-generated" not in header
    assert "- expert-generated" in dataset.render_card([reviews.sign(by_model, "Ada")]).split("\n---\n")[0]
    assert "Licence: [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)." in dataset.render_card([dog])


def test_the_command(crce, dog, later, tmp_path):
    for name, spec in (("before", dog), ("after", later)):
        save_spec(spec, tmp_path / name / "object" / f"{dog.slug}.json")
    code, out, _ = crce("dataset", "changes", tmp_path / "before", tmp_path / "after")
    assert code == 0 and "dog (animal), changed: + coref: cur (high)" in out
