"""Distances and the map, by their properties."""

import dataclasses
import math

import pytest
import torch

from crce.concepts.spec import ConceptSpec, Term
from crce.errors import CrceError
from crce.models import text_space


def test_the_columns_are_those_of_unit_vectors_at_the_end_of_the_text(tiny_sd, dog):
    terms = text_space.measure_distances(tiny_sd, dog)["terms"]
    assert [(t["text"], t["kind"]) for t in terms[:2]] == [("dog", "target"), ("puppy", "coref")]
    assert [t["kind"] for t in terms].count("retain") == 4 and len(terms) == 9
    assert (terms[0]["cosine"], terms[0]["euclidean"], terms[0]["x"], terms[0]["y"]) == (1, 0, 0, 0)
    ids = tiny_sd.tokenizer(["dog", "guide dog"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        pooled = tiny_sd.text_encoder(ids).pooler_output
    guide = next(t for t in terms if t["text"] == "guide dog")
    assert guide["cosine"] == pytest.approx(torch.cosine_similarity(*pooled, dim=0).item(), abs=1e-4)
    assert guide["tokens"] == len("guidedog") + 2
    for term in terms:
        assert term["euclidean"] ** 2 == pytest.approx(2 * (1 - term["cosine"]), abs=1e-3)


def test_on_the_map_the_distance_to_the_centre_is_the_true_one(tiny_sd, dog):
    found = text_space.measure_distances(tiny_sd, dog)
    for term in found["terms"]:
        assert math.hypot(term["x"], term["y"]) == pytest.approx(term["euclidean"], abs=1e-3)
    near = [t["euclidean"] for t in found["terms"] if t["text"] in ("puppy", "hound", "pooch")]
    assert found["sphere"]["radius"] == pytest.approx(sum(near) / 3, abs=1e-3)
    lengths = [math.hypot(*point) for point in found["sphere"]["points"]]
    assert len(lengths) == text_space.POINTS
    # Inside RealEra's ball, not on its shell.
    assert max(lengths) <= max(near) + 0.001 and min(lengths) < min(near) / 2


def test_the_same_terms_are_always_at_the_same_place(tiny_sd, dog):
    found = text_space.measure_distances(tiny_sd, dog)
    assert text_space.measure_distances(tiny_sd, dog) == found
    # The random points are seeded, not the same for every concept.
    moved = text_space.measure_distances(tiny_sd, dataclasses.replace(dog, target="cow"))
    assert moved["sphere"] != found["sphere"]


def test_axes_point_where_the_offsets_differ_most():
    rng = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 5.0, 0.1, 2.0, 0.1])
    axes = text_space.principal_axes(torch.randn(200, 5, generator=rng) * spread)
    assert axes.shape == (2, 5)
    assert axes[0, 1] > 0.99 and axes[1, 3] > 0.99


@pytest.mark.parametrize("corefs", [(), (Term("puppy"),), (Term("puppy", split="test"),)])
def test_few_terms_make_a_map_too(tiny_sd, corefs):
    found = text_space.measure_distances(tiny_sd, ConceptSpec("dog", corefs=corefs))
    assert len(found["terms"]) == 1 + len(corefs)
    assert bool(found["sphere"]["points"]) == any(term.split == "train" for term in corefs)
    assert all(math.isfinite(t["x"]) and math.isfinite(t["y"]) for t in found["terms"])


def test_a_term_too_long_to_read_has_its_tokens_and_no_place(tiny_sd, dog):
    long = dataclasses.replace(dog, corefs=(*dog.corefs, Term("puppy " * 30)))
    found = text_space.measure_distances(tiny_sd, long)
    *_, last = [term for term in found["terms"] if term["kind"] == "coref"]
    assert found["limit"] == 77 < last["tokens"] and last["cosine"] is last["x"] is None
    others = [term for term in found["terms"] if term != last]
    assert others == text_space.measure_distances(tiny_sd, dog)["terms"]
    with pytest.raises(CrceError, match="tokens"):
        text_space.measure_distances(tiny_sd, ConceptSpec("dog " * 60))
