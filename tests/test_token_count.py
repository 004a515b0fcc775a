"""Terms that a base does not read to their end are found when a run is created, by the base's own tokenizer."""

import json
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from crce import bases, runs
from crce.concepts.spec import ConceptSpec, Term
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.files import read_json
from crce.token_count import count_tokens

TEXTS = ["dog", "a Dog's  best friend!", "naïve café 42", "東西南北", "can't we’ll 3d x-ray", "", "👨\u200d🌾 and more"]
LONG = "東西南北春夏秋冬山川草木花鳥風月" * 3
SPEC = ConceptSpec(
    "dog",
    corefs=(Term("puppy"), Term("hound"), Term(LONG, split="test")),
    retains=(Term("cat"), Term("wolf")),
)
CONFIG = EraseConfig("esd-x-strict", steps=1, lr=1e-3)


def test_it_counts_as_the_models_own_tokenizer_does(tiny_sd_dir):
    for base in (bases.EMOJI_SD, str(tiny_sd_dir)):
        own = CLIPTokenizer.from_pretrained(bases.resolve(base), subfolder="tokenizer")
        counts, limit = count_tokens(base, TEXTS)
        assert limit == own.model_max_length
        assert counts == {text: len(own(text).input_ids) for text in TEXTS}


def test_older_bases_have_vocabulary_and_merges(tmp_path):
    """The files of `emoji-sd`, as transformers wrote them before."""
    whole = read_json(Path(bases.resolve(bases.EMOJI_SD)) / "tokenizer" / "tokenizer.json")
    folder = tmp_path / "base" / "tokenizer"
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in whole["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 32}')
    (folder.parent / "model_index.json").write_text("{}")
    assert count_tokens(str(folder.parent), TEXTS) == count_tokens(bases.EMOJI_SD, TEXTS)


def test_terms_too_long_are_listed_when_a_run_is_created(tiny_sd_dir):
    with pytest.raises(CrceError, match=rf"reads 77 tokens, and terms of 'dog' have more: '{LONG}' \(\d+\)"):
        runs.create(runs.Job(str(tiny_sd_dir), SPEC, CONFIG))
    assert not runs.all_runs()


def test_they_can_be_left_out(tiny_sd_dir):
    run = runs.create(runs.Job(str(tiny_sd_dir), SPEC, CONFIG, also=(ConceptSpec("cat"),)), leave_out_long=True)
    assert [term.text for term in run.job.spec.corefs] == ["puppy", "hound"]
    assert run.job.spec.retains == SPEC.retains and run.job.also == (ConceptSpec("cat"),)


def test_a_name_too_long_is_refused_in_any_case(tiny_sd_dir):
    with pytest.raises(CrceError, match="Shorten the name"):
        runs.create(runs.Job(str(tiny_sd_dir), ConceptSpec(LONG), CONFIG), leave_out_long=True)
