"""What a person's text may hold, wherever it is read; and what a spreadsheet does with what we export."""

import csv
import io
import json

import gradio as gr
import pytest

from app.session import drafts, transcript
from app.tabs import compare, erase
from crce import files, runs
from crce.concepts import csv_json, library
from crce.concepts.drawn import Record
from crce.concepts.edits import clean
from crce.concepts.spec import ConceptSpec, Term
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.runs import Job

HIDDEN = [
    "\x00",
    "\x1b[31m",
    "\x1b]0;x\x07",
    "\x9b",
    "\u202e",
    "\u2066",
    "\u200e",
    "\u061c",
    "\u200b",
    "\ufeff",
    "\u2028",
]
JOINED = ["می‌خواهم", "क्‍ष", "👩‍🚒"]


@pytest.mark.parametrize("mark", HIDDEN, ids=ascii)
def test_what_nobody_sees_is_refused_wherever_text_is_read(mark, dog, tiny_sd_dir):
    text, facts = f"do{mark}g", {"target": "dog", "corefs": [{"text": "puppy"}]}
    noted = {"corefs": [{"text": "puppy", "note": text}]}
    asked = {"provenance": {"history": [{"by": "llm", "wish": text}]}}
    for change in ({"target": text}, {"sense": text}, noted, asked, {"provenance": {"reviewer": text}}):
        with pytest.raises(CrceError, match="remove the control characters"):
            library.parse_spec(json.dumps({**facts, **change}), "dog.json")
    with pytest.raises(CrceError, match="control characters"):
        drafts.create(text, "object", "")
    with pytest.raises(CrceError, match="control characters"):
        transcript.say(dog, text)
    with pytest.raises(CrceError, match="control characters"):
        compare.choose_prompts(dog, [], 0, text, Record())
    run = runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(steps=3, corefs=3)))
    with pytest.raises(gr.Error, match="printable characters"):
        erase.rename(gr.EventData(None, {"id": run.id, "value": text}))


@pytest.mark.parametrize("text", JOINED, ids=ascii)
def test_joiners_stay_as_scripts_need_them(text, dog, tiny_sd_dir):
    assert clean(f" {text}\n") == text
    assert drafts.create(text, "object", text).target == text
    assert compare.choose_prompts(dog, [], 0, text, Record())[0].text == text
    run = runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(steps=3, corefs=3)))
    erase.rename(gr.EventData(None, {"id": run.id, "value": text}))
    assert run.job.name == text


def test_a_note_and_a_request_may_have_lines(dog):
    facts = {"target": "dog", "corefs": [{"text": "puppy", "note": "one\n\ttwo"}]}
    assert library.parse_spec(json.dumps(facts), "dog.json").corefs[0].note == "one\n\ttwo"
    assert transcript.say(dog, "fewer breeds\nmore synonyms") == 1


def test_no_cell_of_an_exported_table_is_a_formula():
    texts = ['=HYPERLINK("http://evil.example")', "+1", "-2", "@SUM(A1)", "'quoted'", "plain"]
    spec = ConceptSpec("=cmd|' /C calc'!A0", corefs=tuple(Term(text, note=text) for text in texts))
    table = csv_json.to_csv(spec)
    cells = [cell for row in csv.reader(io.StringIO(table)) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert csv_json.from_csv(ConceptSpec(spec.target), table, "x.csv").corefs == spec.corefs


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"target": "dog", "target": "cat"}', "target"),
        ('{"target": "dog", "corefs": [{"text": "a", "text": "b"}]}', "text"),
    ],
)
def test_a_key_that_appears_twice_is_refused(text, key, tmp_path):
    with pytest.raises(CrceError, match=f"dog.json: the key '{key}' appears twice; keep one of them"):
        library.parse_spec(text, "dog.json")
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="appears twice"):
        files.read_json(tmp_path / "x.json")
