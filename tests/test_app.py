"""The screens: handlers are plain functions, so they are called as such."""

import asyncio
import base64
import inspect
import io
import itertools
import json
import logging
import re
import shutil
import threading
import zipfile
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio.state_holder import SessionState
from PIL import Image
from safetensors.numpy import load_file, save_file

from app.components import encode_png, render
from app.errors import in_page_words, report_errors
from app.main import build
from app.session import drafts, example, thumbnails, transcript
from app.session.comparison import Comparison, Prompt, Row, Title
from app.tabs import (
    compare,
    compare_person,
    comparison_sheet,
    curate,
    curate_chat,
    curate_preview,
    erase,
    erase_form,
    publish,
    run_forecast,
    run_view,
    start,
    status_bar,
)  # fmt: skip
from app.tabs.erase_form import EraseForm
from crce import bases, cost, devices, files, runs
from crce.concepts import csv_json, edits, library
from crce.concepts.drawn import Record, read_record
from crce.concepts.edits import Revision
from crce.concepts.library import find_concept
from crce.concepts.spec import ConceptSpec, Provenance, Round, Term, resolve_conflicts
from crce.config import EraseConfig, resolve_config
from crce.errors import CrceError
from crce.evaluation.report import Report, write_report
from crce.models import text_space
from crce.proposers import commands
from crce.runs import EvaluationRequest, Job
from crce.runs.events import (
    CheckpointEvent,
    CostEvent,
    DoneEvent,
    EstimateEvent,
    FailedEvent,
    NoteEvent,
    NotJudgedEvent,
    PhaseEvent,
    PreviewEvent,
    StartEvent,
    StepEvent,
    StoppedEvent,
)
from crce.training.estimate import estimate
from crce.worker import handlers
from crce.worker.answers import Cell, DistancesAnswer, GenerateAnswer, Sphere, StatusAnswer, TermDistance
from crce.worker.broker import RequestBroker
from crce.worker.requests import DistancesRequest, PreviewRequest

HOSTILE = "<img src=x onerror=alert(1)> ${alert(2)} {{alert}} \"'`"


def event(**facts) -> gr.EventData:
    return gr.EventData(None, facts)


def heard(handler: AsyncIterator[Any]) -> list[Any]:
    """What the page is shown by a handler that waits for the worker."""

    async def gather() -> list[Any]:
        return [shown async for shown in handler if shown != gr.skip()]

    return asyncio.run(gather())


@pytest.fixture
def base(tiny_sd_dir) -> str:
    return str(tiny_sd_dir)


@pytest.fixture
def run(dog, base) -> runs.Run:
    return runs.create(Job(base, dog, EraseConfig(steps=20, corefs=3)))


# The page


def test_the_page_builds_and_offers_five_endpoints_to_other_programs():
    demo = build()
    assert len(demo.fns) > 40
    public = {fn.api_name for fn in demo.fns.values() if fn.api_visibility != "private"}
    assert public == {"propose", "preview", "erase", "status", "compare"}


@pytest.mark.parametrize("kind", ["corefs", "retains"])
def test_what_people_and_models_write_is_never_markup(kind):
    spec = ConceptSpec(HOSTILE, sense=HOSTILE, **{kind: (Term(HOSTILE, note=HOSTILE),)})
    transcript.answer(spec.slug, transcript.say(spec, HOSTILE), transcript.build_choice([spec], HOSTILE))
    transcript.answer(spec.slug, 2, transcript.build_offer(ConceptSpec("dog"), hostile_round(spec), HOSTILE))
    head = curate.render_head(drafts.OpenConcept(spec, spec))
    pages = [head, curate.render_terms(spec, kind), curate_chat.render_chat(spec)]
    pages.append(render("library", specs=[spec], states={}, picture_class=str))
    pages.append(render("names", names=[HOSTILE], category=HOSTILE))
    for text in (*pages, curate_chat.render_writing(spec, HOSTILE, json.dumps({"text": HOSTILE}))):
        assert "<img" not in text
        assert "&lt;img" in text


def hostile_round(spec: ConceptSpec) -> Revision:
    history = (Round("llm", HOSTILE, HOSTILE, HOSTILE),)
    return Revision(replace(spec, provenance=replace(spec.provenance, history=history)), HOSTILE, {HOSTILE: HOSTILE})


def test_a_comparison_shows_hostile_prompts_as_text():
    drawn = comparison(rows=[("typed", HOSTILE, None)])
    assert "<img src=x" not in compare.render_grid(drawn)


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("There is no run 'x'. `python -m crce runs` lists them.", "There is no run 'x'."),
        ("It is not here. Download it in the Erase tab, or with `python -m crce download a/b`.",
         "It is not here. Download it in the Erase tab."),
        ("The disk is full. Free some space, or start a run in another folder (--out, or CRCE_HOME).",
         "The disk is full. Free some space, or start a run in another folder."),
        ("It draws 5 per step. Add corefs or lower --corefs. Then try again.", "It draws 5 per step. Then try again."),
        ("Choose one of esd-x, crce-uce: 5 -- 7.", "Choose one of esd-x, crce-uce: 5 -- 7."),
    ],
)  # fmt: skip
def test_errors_on_the_page_have_no_words_of_the_command_line(said, seen):
    assert in_page_words(said) == seen


def test_a_name_that_cannot_be_is_answered_in_the_words_of_the_page():
    with pytest.raises(CrceError, match="^The concept has no name; enter a phrase.$"):
        drafts.create("", "object", "")
    with pytest.raises(gr.Error, match='A name to erase is ""; enter a phrase.'):
        edit("corefs", "puppy", "text", " ")


def test_people_see_our_errors_as_they_are_and_others_by_an_id(caplog):
    @report_errors
    def ours():
        raise CrceError("<b>3</b> is no name")

    @report_errors
    def other():
        yield from [1 / 0]

    with pytest.raises(gr.Error, match="&lt;b&gt;3&lt;/b&gt; is no name"):
        ours()
    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error, match="Unexpected error") as caught:
        list(other())
    assert "ZeroDivisionError" in caplog.text
    assert "division" not in str(caught.value)
    assert caplog.records[0].getMessage().split()[-1] in str(caught.value)


# A tab without a browser


class Tab:
    """Events go through Gradio's own pipeline, so a wrong number of inputs or outputs is found."""

    def __init__(self):
        self.demo = build()
        self.state = SessionState(self.demo)

    def press(self, handler, *values, **facts) -> list:
        """What the browser is sent. `values` are those of the inputs that are no state."""
        fn = next(fn for fn in self.demo.fns.values() if inspect.unwrap(fn.fn) is inspect.unwrap(handler))
        typed = iter(values)
        inputs = [None if isinstance(part, gr.State) else next(typed) for part in fn.inputs]
        told = {
            "state": self.state,
            "request": gr.Request(session_hash="tab", query_params={}),
            "event_data": event(**facts),
        }
        return asyncio.run(self.demo.process_api(fn, inputs, **told))["data"]


def test_the_road_through_the_wires(no_worker, base, home):
    tab = Tab()
    tab.press(curate.restore, "")
    tab.press(curate.choose_concept, "", slug="dog")
    tab.press(curate.change_field, "", do="certainty", list="corefs", text="puppy", value="0.4")
    tab.press(curate.press_term_button, "", do="drop", list="retains", text="fox")
    tab.press(curate.press_concept_button, "", do="undo")
    assert tab.press(curate.add_terms, "", "woofer")[0] == ""
    tab.press(curate.sign_review, "", "Ada")
    assert drafts.read("dog").provenance.reviewer == "Ada"
    _, concept, anchor = tab.press(erase.open_concept, "zebra")
    assert (concept["value"], anchor) == ("dog", "zebra")
    more = "auto", [], 1, "ca", False, 10, False, "zebra", "", "cpu", "fp32"
    tab.press(erase.start, "dog", base, "crce", "20", "", "", 1, 5, 3, 0, 2, *more)
    form = EraseForm.from_job(runs.all_runs()[0].job)
    assert (form.backbone, form.preview_every, form.device, form.dtype) == ("ca", 10, "cpu", "fp32")
    assert form.anchor == "zebra"
    run = runs.all_runs()[0]
    listing, *_ = tab.press(erase.refresh, "", "newest first")
    assert run.id in listing
    run.record(StepEvent(step=1, of=20, losses={"target": 1.0}, seconds_left=None))
    tab.press(erase.refresh, "", "newest first")
    tab.press(erase.refill_form, id=run.id)
    tab.press(start.follow_trial)
    save_file({"x": np.zeros(2, np.float32)}, run.weights_path, metadata={"base": "x"})
    tab.press(compare.open_from_card, id=run.id)
    tab.press(compare.refresh_choices, [run.id])
    tab.press(compare.render_scores, [run.id])
    tab.press(publish.refresh_choices, [], None)
    tab.press(publish.preview_dataset, ["dog"], "")
    tab.press(publish.preview_weights, run.id, ["weights"], False, "", "")


# Curate


def opened(slug: str = "dog") -> drafts.OpenConcept:
    return drafts.open_concept(slug)


def edit(kind: str, text: str, do: str, value: str, page: drafts.OpenConcept | None = None) -> drafts.OpenConcept:
    facts = event(do=do, list=kind, text=text, value=value)
    return curate.change_field(page or opened(), "", facts)[0]


def press(kind: str, text: str, do: str, page: drafts.OpenConcept | None = None) -> drafts.OpenConcept:
    return curate.press_term_button(page or opened(), "", event(do=do, list=kind, text=text))[0]


def texts(kind: str, slug: str = "dog") -> list[str]:
    return [term.text for term in getattr(drafts.read(slug), kind)]


def test_a_moved_slider_is_on_the_disk_at_once(home):
    edit("corefs", "puppy", "certainty", "0.4")
    saved = library.load_spec(home / "concepts" / "object" / "dog.json")
    assert next(t for t in saved.corefs if t.text == "puppy").certainty == "low"


def test_a_moved_slider_leaves_the_lists_on_screen_alone():
    shows = curate.change_field(opened(), "", event(do="certainty", list="corefs", text="puppy", value="0.4"))
    assert shows[3] == shows[4] == gr.skip()


def test_rows_can_be_renamed_noted_moved_and_dropped():
    edit("corefs", "pooch", "text", " doggy ")
    edit("corefs", "doggy", "note", "children say it")
    press("corefs", "doggy", "split")
    press("retains", "wolf", "drop")
    spec = drafts.read("dog")
    doggy = next(t for t in spec.corefs if t.text == "doggy")
    assert (doggy.note, doggy.split, doggy.source) == ("children say it", "test", "expert")
    assert "wolf" not in texts("retains")


def test_a_term_goes_to_the_other_list_with_all_that_is_known_of_it():
    before = next(t for t in drafts.read("dog").retains if t.text == "wolf")
    press("retains", "wolf", "move")
    assert drafts.read("dog").corefs[-1] == before
    press("corefs", "wolf", "move")
    assert drafts.read("dog").retains[-1] == before
    assert "wolf" not in texts("corefs")


def test_a_refused_change_changes_nothing():
    before = drafts.read("dog")
    with pytest.raises(gr.Error, match="remove one of the two"):
        edit("corefs", "pooch", "text", "puppy")
    assert drafts.read("dog") == before


def test_a_pasted_list_adds_each_phrase_once():
    before = drafts.read("dog")
    typed, *_ = curate.add_terms(opened(), "", "corefs", "woofer, PUPPY\nwoofer; dog\n\nbow-wow")
    assert typed == ""
    assert [t.text for t in drafts.read("dog").corefs[len(before.corefs) :]] == ["woofer", "bow-wow"]
    with pytest.raises(gr.Error, match="already have this"):
        curate.add_terms(opened(), "", "corefs", "woofer")


def test_who_acts_before_the_lists_are_there_is_told_to_wait():
    with pytest.raises(gr.Error, match="still being opened"):
        curate.sign_review(drafts.OpenConcept(), "", "Ada")


def without(page: drafts.OpenConcept, text: str) -> drafts.OpenConcept:
    return drafts.change(page, lambda spec: edits.without_term(spec, "retains", text))


def test_undo_and_redo_step_through_every_change():
    page = opened()
    states = [page.mine]
    for text in ("wolf", "fox", "cat"):
        page = without(page, text)
        states.append(page.mine)
    for state in states[-2::-1]:
        page = drafts.undo(page)
        assert page.mine == drafts.read("dog") == state
    assert drafts.undo(page) == page
    for state in states[1:]:
        page = drafts.redo(page)
        assert page.mine == state
    assert drafts.count_steps("dog") == (3, 0)


def test_the_next_concept_without_a_review_is_opened():
    slugs = list(library.library())
    here = opened(slugs[-1])
    assert curate.press_concept_button(here, "", event(do="next"))[1] == slugs[0]
    first = drafts.open_concept(slugs[0])
    drafts.change(first, lambda spec: drafts.mark_reviewed(spec, "Ada"))
    assert curate.press_concept_button(here, "", event(do="next"))[1] == slugs[1]
    assert curate.press_concept_button(drafts.open_concept(slugs[0]), "", event(do="next"))[1] == slugs[1]


def test_all_to_publish_leaves_out_scratch_and_says_how_many_are_unreviewed():
    drafts.create("lighthouse", "object", "")
    shipped = len(library.publishable()) - 1
    text = publish.render_choose()
    assert f"{shipped} of these {shipped} concepts were not reviewed" in text and "without 1 of your own" in text
    assert "lighthouse" not in publish.choose_concepts(event(do="all"))
    assert publish.choose_concepts(event(do="reviewed")) == []
    drafts.change(opened("lighthouse"), lambda spec: drafts.mark_reviewed(spec, "Ada"))
    assert "lighthouse" in publish.choose_concepts(event(do="all"))
    assert publish.choose_concepts(event(do="reviewed")) == ["lighthouse"]
    assert "own unreviewed" not in publish.render_choose()


def test_a_change_ends_a_review():
    curate.sign_review(opened(), "", " Ada ")
    assert drafts.read("dog").provenance.reviewer == "Ada"
    without(opened(), "wolf")
    assert drafts.read("dog").provenance.reviewer == ""
    with pytest.raises(gr.Error, match="your name"):
        curate.sign_review(opened(), "", " ")


def test_reset_goes_back_to_what_was_shipped():
    shipped = drafts.read("dog")
    after, *_ = curate.press_concept_button(without(opened(), "wolf"), "", event(do="discard"))
    assert (after.mine, drafts.read("dog")) == (shipped, shipped)


def test_a_concept_of_ones_own_can_be_made_and_deleted():
    _, _, page, slug, *_ = curate.create_concept("lighthouse", "object", "")
    assert slug in library.library()
    with pytest.raises(gr.Error, match="already has"):
        curate.create_concept("Lighthouse", "object", "")
    after, *_ = curate.press_concept_button(page, "", event(do="discard"))
    assert after.slug == drafts.FIRST
    assert "lighthouse" not in library.library()


def test_the_library_is_searched_by_name():
    assert "bat (animal)" in curate.render_shelf(" BAT", "dog")
    assert "horse" not in curate.render_shelf("bat", "dog")
    assert "No concept by that name" in curate.render_shelf("unheard of", "dog")


# Two people at one concept


def test_the_second_of_two_windows_is_never_saved_over_the_first():
    first = second = opened()
    without(first, "wolf")
    second = edit("corefs", "puppy", "certainty", "0.2", second)
    second = edit("corefs", "pooch", "certainty", "0.2", second)
    assert "wolf" not in texts("retains")
    assert next(t for t in drafts.read("dog").corefs if t.text == "puppy").certainty == "high"
    shown_page = curate.render_head(second)
    assert "Another window changed these lists" in shown_page
    assert "− keep: wolf" in shown_page
    assert 'value="0.2"' in curate.render_terms(second.spec, "corefs")
    assert drafts.undo(second) == second


@pytest.fixture
def clash() -> drafts.OpenConcept:
    """A page that dropped the fox while another window dropped the wolf."""
    page = opened()
    without(page, "wolf")
    return without(page, "fox")


def test_a_refused_save_can_give_way(clash):
    theirs, *_ = curate.press_concept_button(clash, "", event(do="theirs"))
    assert "fox" in [t.text for t in theirs.spec.retains]
    assert "Another window" not in curate.render_head(theirs)


def test_a_refused_save_can_become_a_copy(clash):
    copy, *_ = curate.press_concept_button(clash, "", event(do="copy"))
    assert copy.spec.name == "dog (copy 1)"
    assert "fox" not in texts("retains", copy.slug)
    assert "fox" in texts("retains")


def test_a_refused_save_can_overwrite_knowingly_and_be_undone(clash):
    mine, *_ = curate.press_concept_button(clash, "", event(do="mine"))
    assert not mine.stale
    assert ("wolf" in texts("retains"), "fox" in texts("retains")) == (True, False)
    assert "wolf" not in [t.text for t in drafts.undo(mine).spec.retains]


def test_while_two_versions_wait_nothing_is_erased_and_no_round_begins(clash):
    with pytest.raises(gr.Error, match="Choose in Curate"):
        erase.open_concept(clash, "")
    with pytest.raises(gr.Error, match="Choose in Curate"):
        list(curate_chat.ask(clash, "", ""))


def test_a_concept_deleted_elsewhere_can_still_be_kept():
    _, _, page, *_ = curate.create_concept("lighthouse", "object", "")
    drafts.discard(page)
    page = drafts.change(page, lambda spec: edits.with_terms(spec, "corefs", ["beacon"]))
    head = curate.render_head(page)
    assert "deleted this concept" in head and "Load theirs" not in head and "Save mine again" in head
    with pytest.raises(gr.Error, match="Another window deleted this concept. Keep yours"):
        curate.press_concept_button(page, "", event(do="theirs"))
    drafts.keep_mine(page)
    assert texts("corefs", "lighthouse") == ["beacon"]


# The split


def test_the_split_is_drawn_with_the_seed_that_is_recorded():
    page, *_ = curate.change_seed(opened(), "", event(do="seed", value="7"))
    spec = drafts.read("dog")
    assert spec.provenance.split_seed == 7
    assert len(spec.test_retains) == len(spec.retains) // 3
    curate.press_concept_button(page, "", event(do="resplit"))
    assert drafts.read("dog").provenance.split_seed == 8
    curate.change_seed(opened(), "", event(do="seed", value="7"))
    assert drafts.read("dog") == spec
    with pytest.raises(gr.Error, match="'-1'"):
        curate.change_seed(opened(), "", event(do="seed", value="-1"))


def test_a_run_locks_the_split_but_nothing_else(base):
    runs.create(Job(base, drafts.read("dog"), EraseConfig(steps=2)))
    assert "held-out terms must stay unseen" in curate.render_head(opened())
    resplit = event(do="resplit")
    for refused in (
        lambda: press("corefs", "puppy", "split"),
        lambda: curate.press_concept_button(opened(), "", resplit),
    ):
        with pytest.raises(gr.Error, match="Keep a copy"):
            refused()
    press("corefs", "puppy", "drop")
    assert "puppy" not in texts("corefs")


# Files


def test_a_concept_goes_out_and_comes_back_as_json_and_csv(dog, tmp_path):
    assert library.parse_spec(csv_json.to_json(dog), "export") == dog
    lines = csv_json.to_csv(dog).splitlines()
    assert lines[0] == "concept,kind,term,certainty,split,source,note"
    assert len(lines) == 1 + len(dog.corefs) + len(dog.retains)
    bare = replace(dog, corefs=(), retains=())
    assert csv_json.from_csv(bare, csv_json.to_csv(dog), "dog.csv") == dog


def brought(tmp_path, name: str, text: str | bytes) -> drafts.OpenConcept:
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return curate.import_file(opened(), "", curate.read_file(str(tmp_path / name)))[0]


def test_a_table_adds_and_updates_and_drops_nothing(tmp_path):
    before = drafts.read("dog")
    brought(tmp_path, "mine.csv", "\ufeffkind;term;certainty\nerase;woofer;\nretain;Puppy;Very Low\n")
    after = drafts.read("dog")
    assert after.corefs[-1] == Term("woofer")
    assert (after.retains[-1].text, after.retains[-1].certainty) == ("puppy", "very low")
    assert len(after.corefs) + len(after.retains) == len(before.corefs) + len(before.retains) + 1
    assert drafts.undo(opened()).mine == before


def test_a_table_is_read_before_the_lists_are_held_for_it(tmp_path):
    """What takes long with many rows happens in an event of its own, without the lock of the edits."""
    path, before = tmp_path / "many.csv", drafts.read("dog")
    path.write_text("kind,term\n" + "".join(f"coref,pooch {number % 50}\n" for number in range(20_000)))
    read = curate.read_file(str(path))
    assert len(read.content) == 20_000 and drafts.read("dog") == before
    after = curate.import_file(opened(), "", read)[0].spec
    assert {f"pooch {number}" for number in range(50)} <= {term.text for term in after.corefs}


def test_a_pasted_name_with_a_comma_is_one_term():
    curate.add_terms(opened(), "", "retains", "Washington, D.C.\nlynx, okapi")
    assert texts("retains")[-3:] == ["Washington, D.C.", "lynx", "okapi"]


def test_a_table_of_another_concept_is_told_and_changes_nothing(tmp_path):
    before = drafts.read("dog")
    with pytest.raises(gr.Error, match="line 2 is a term of &#x27;cat&#x27;|line 2 is a term of 'cat'"):
        brought(tmp_path, "cat.csv", "concept,kind,term\ncat,coref,kitty\n")
    assert drafts.read("dog") == before


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "term\npuppy\n", "has no column kind"),
        ("a.csv", "kind,term\ncoref,\n", "line 2: the term is empty"),
        ("a.csv", "kind,term,certainty\ncoref,woofer,\ncoref,bow,sure\n", "line 3: certainty is 'sure'; use one of"),
        ("a.csv", "kind,term\nmaybe,woofer\n", "line 2: kind is 'maybe'"),
        ("a.csv", "kind,term\ncoref,dog\n", "remove one of the two"),
        ("a.csv", b"kind,term\ncoref,\xff\n", "UTF-8"),
        ("a.csv", "", "has no column"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", '{"target": "dog", "colour": 1}', "unknown field colour"),
    ],
)
def test_a_bad_file_is_answered_clearly_and_changes_nothing(tmp_path, name, text, told):
    before = drafts.read("dog")
    with pytest.raises(gr.Error, match=told):
        brought(tmp_path, name, text)
    assert drafts.read("dog") == before


def test_json_opens_the_concept_that_it_is(dog, tmp_path):
    other = replace(dog, target="lighthouse", sense="")
    assert brought(tmp_path, "l.json", csv_json.to_json(other)).spec == drafts.read("lighthouse") == other
    cat = replace(drafts.read("cat"), retains=dog.corefs)
    before = drafts.read("cat")
    page = brought(tmp_path, "c.json", csv_json.to_json(cat))
    assert page.spec == drafts.read("cat") == cat
    assert drafts.undo(page).mine == before


# The talk


def said(page: drafts.OpenConcept, request: str) -> list[tuple]:
    return list(curate_chat.ask(page, request, ""))


@pytest.fixture
def offline(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CRCE_MODEL"):
        monkeypatch.delenv(name, raising=False)


def answered(page: drafts.OpenConcept, **lists: tuple) -> drafts.OpenConcept:
    """The page with a round of a model in its talk, which would leave these lists."""
    made_by = Round("llm", "m", "v", "fewer breeds")
    spec = page.spec
    offer = replace(spec, **lists)
    revision = Revision(edits.apply(spec, edits.changes(spec, offer), made_by), "Gladly.", {"cat": "it barks"})
    transcript.answer(page.slug, transcript.say(spec, "fewer breeds"), transcript.build_offer(spec, revision, "m at x"))
    return page


@pytest.fixture
def offered(dog) -> drafts.OpenConcept:
    """A round that drops the hound, adds a cur, moves the cat and sets the puppy lower."""
    library.save_spec(dog, library.own_path(dog))
    corefs = (replace(dog.corefs[0], certainty="low"), *dog.corefs[2:], Term("cur", source="llm"), dog.retains[0])
    return answered(opened(dog.slug), corefs=corefs, retains=dog.retains[1:])


def test_a_round_is_shown_with_its_reasons_and_nothing_is_applied(offered, dog):
    text = curate_chat.render_chat(offered.spec)
    for shown_text in ("fewer breeds", "Gladly.", "− erase: hound", "+ erase: cur (high)", "it barks", "Accept all"):
        assert shown_text in text
    assert drafts.read(dog.slug) == dog


def test_a_whole_round_is_taken_and_undone(offered, dog):
    after, *_ = curate.press_chat_button(offered, "", event(do="take", entry="1"))
    assert [t.text for t in after.spec.corefs] == ["puppy", "pooch", "guide dog", "cur", "cat"]
    assert (after.spec.provenance.rounds, after.spec.provenance.model) == (1, "m")
    assert [entry.by for entry in after.spec.provenance.history] == ["llm"]
    assert len(after.spec.provenance.history[0].changes) == 4
    after = edit("retains", "wolf", "certainty", "1.0", after)
    back, *_ = curate.press_chat_button(after, "", event(do="back", entry="1"))
    restored = {(t.text, t.certainty) for t in (*back.spec.corefs, *back.spec.retains)}
    wanted = {(t.text, t.certainty) for t in (*dog.corefs, *dog.retains)} - {("wolf", "low")} | {("wolf", "very high")}
    assert restored == wanted
    assert (back.spec.provenance.rounds, back.spec.provenance.history) == (0, ())


def test_single_items_of_a_round_are_one_round(offered, dog):
    after, *_ = curate.press_chat_button(offered, "", event(do="take", entry="1", n="0"))
    after, *_ = curate.press_chat_button(after, "", event(do="take", entry="1", n="1"))
    assert [t.text for t in after.spec.corefs] == ["puppy", "pooch", "guide dog", "cur"]
    assert after.spec.provenance.rounds == 1
    assert [len(entry.changes) for entry in after.spec.provenance.history] == [2]
    text = curate_chat.render_chat(after.spec)
    assert text.count("✓") == 2
    assert "Accept the remaining 2" in text


def test_the_next_round_is_told_what_the_expert_changed_by_hand(offered):
    after, *_ = curate.press_chat_button(offered, "", event(do="take", entry="1"))
    after = edit("retains", "fox", "certainty", "0.2", after)
    since = transcript.read_since(after.slug)
    assert [change.label for change in edits.changes(since, after.spec)] == ["~ keep: fox (very low)"]
    after = answered(after, corefs=after.spec.corefs[1:])
    after, *_ = curate.press_chat_button(after, "", event(do="take", entry="3"))
    assert [(entry.by, entry.changes) for entry in after.spec.provenance.history[1:2]] == [
        ("expert", ("~ keep: fox (very low)",))
    ]


def test_offline_the_talk_says_so_and_understands_a_little(offline):
    said(opened(), "drop wolf")
    entry = transcript.read_entries("dog")[-1]
    assert "no LLM connected" in entry["by"]
    curate.press_chat_button(opened(), "", event(do="take", entry="1"))
    assert "wolf" not in texts("retains")


def test_wishes_to_choose_from_are_those_that_the_proposer_understands(offline, monkeypatch):
    who, chips = curate_chat.render_proposer("")
    assert "bundled lexicon" in who and "bundled lexicon (no LLM connected)" in status_bar.render_status()
    spec = find_concept("dog")
    for wish in (*commands.WISHES, curate_chat.IMPROVE):
        assert "do not understand" not in commands.follow(spec, wish).says
    assert all(f'data-wish="{wish}"' in chips for wish in commands.WISHES)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    who, other = curate_chat.render_proposer("scripted")
    assert "scripted at 127.0.0.1" in who and not any(wish in other for wish in commands.WISHES)


def test_offline_the_other_sense_becomes_a_concept_of_its_own(offline):
    before = opened("bat-animal")
    said(before, "the other sense")
    assert "“bat” has another sense. It becomes a separate concept" in curate_chat.render_chat(before.mine)
    page, *_ = curate.press_chat_button(before, "", event(do="sense", entry="1", n="0"))
    assert page.spec.name == "bat (sports equipment)"
    assert opened("bat-animal").mine == before.mine


def test_a_message_that_was_stopped_gets_no_answer(dog):
    length = transcript.say(dog, "more")
    log, writing = curate_chat.stop(drafts.OpenConcept(dog, dog))
    assert writing == ""
    assert "You stopped it" in log
    transcript.answer(dog.slug, length, {"who": "note", "text": "too late"})
    assert "too late" not in json.dumps(transcript.read_entries(dog.slug))


def test_a_meaning_is_chosen_before_anything_is_offered(dog):
    bare = replace(dog, sense="", corefs=(), retains=(), target="seal")
    library.save_spec(bare, library.own_path(bare))
    told = Provenance(history=(Round("llm", "m"),))
    meanings = [replace(dog, target="seal", sense=sense, provenance=told) for sense in ("animal", "wax stamp")]
    entry = transcript.build_choice(meanings, "m at x")
    transcript.answer("seal", transcript.say(bare, "both lists"), entry)
    assert "seal (wax stamp)" in curate_chat.render_chat(bare)
    page, *_ = curate.press_chat_button(opened("seal"), "", event(do="sense", entry="1", n="1"))
    assert page.spec.name == "seal (wax stamp)"
    assert page.spec.corefs == ()
    page, *_ = curate.press_chat_button(page, "", event(do="take", entry="1"))
    assert {t.text for t in page.spec.corefs} == {t.text for t in dog.corefs}


# Seeing


def test_the_preview_keeps_what_was_moved_in_sight(dog):
    assert curate_preview.choose_prompts(dog, None, []) == ["dog"]
    first = ["dog", "puppy", "pooch", "hound", "cat", "fox", "wolf"]
    moved = edits.with_term(dog, "retains", "pig", certainty="low")
    second = curate_preview.choose_prompts(moved, dog, first)
    assert second[4:] == ["pig", "cat", "fox"]
    assert curate_preview.choose_prompts(moved, moved, second) == second


def test_the_preview_shows_the_farthest_names_and_the_nearest_neighbours(base, tiny_sd, dog):
    far, near = text_space.list_hardest(tiny_sd, dog)
    assert sorted(far) == sorted(t.text for t in dog.corefs) and sorted(near) == sorted(t.text for t in dog.retains)
    kept = [term.text for term in dog.retains if term.text != near[0]][-1]
    request = PreviewRequest("tab", base, dog, ["dog", kept], fill=2)
    answer = handlers.preview(request, tiny_sd, None, lambda: False)
    assert answer.prompts == ("dog", *far[:2], kept, near[0])
    assert len(answer.before) == len(answer.after) == 5
    page = curate_preview._build_map(
        handlers.measure_distances(DistancesRequest("tab", base, dog), tiny_sd, None, bool)
    )
    named = {dot["text"] for dot in page["dots"] if dot["hard"]}
    assert named == {*far[:3], *near[:3]}


def test_the_map_is_scaled_to_its_farthest_point():
    term = TermDistance(HOSTILE, "coref", tokens=3, cosine=0.5, euclidean=4.0, x=-4.0, y=2.0)
    sphere = Sphere(2.0, ((1.0, 8.0),))
    facts = curate_preview._build_map(DistancesAnswer((term,), 77, sphere))
    assert (facts["radius"], facts["points"]) == (0.25, [(0.125, 1.0)])
    assert (facts["dots"][0]["x"], facts["dots"][0]["y"]) == (-0.5, 0.25)
    text = render("distances", target=HOSTILE, base="emoji-sd", **facts)
    assert "<img" not in text
    assert "4.00" in text


def test_a_term_too_long_for_the_base_is_in_the_table_and_not_on_the_map():
    near = TermDistance("pup", "coref", tokens=3, cosine=0.5, euclidean=4.0, x=-4.0, y=2.0)
    long = TermDistance("dog " * 80, "retain", tokens=82, cosine=None, euclidean=None, x=None, y=None)
    facts = curate_preview._build_map(DistancesAnswer((long, near), 77, Sphere(0.0, ())))
    assert [row["text"] for row in facts["rows"]] == [near.text, long.text]
    assert [dot["text"] for dot in facts["dots"]] == [near.text]
    assert "too long" in render("distances", target="dog", base="emoji-sd", **facts)


def test_a_term_longer_than_the_base_reads_is_listed_as_too_long(answering, base, tiny_sd, dog):
    long = Term(" ".join("a" * 90))
    spec = replace(dog, corefs=(long, *dog.corefs))
    library.save_spec(spec, library.own_path(spec))
    page = opened(spec.slug)
    *_, (text, _) = heard(curate_preview.update_distances(page, base, True, "", gr.Request(session_hash="map")))
    limit, tokens = tiny_sd.tokenizer.model_max_length, text_space.count_tokens(tiny_sd, long.text)
    assert f'title="{tokens} tokens; the text encoder reads {limit}">too long<' in text
    assert text.count("too long") == 1
    rows, dots = text.count("<tr class"), text.count('<g class="dot')
    assert (rows, dots) == (len(spec.corefs) + len(spec.retains), len(dog.corefs) + len(dog.retains) + 1)
    assert text.index(f">{dog.retains[-1].text}<") < text.index(f">{long.text}<")


def test_doubtful_terms_are_marked_with_the_reason(dog):
    spec = replace(dog, corefs=(*dog.corefs, Term("cat toy")))
    assert "contains the retain" in curate.render_terms(spec, "corefs")
    transcript.remember(spec.slug, drawn={"pooch": [1, 10]})
    assert "1 of 10" in curate.render_terms(spec, "corefs")
    assert "1 of 10" not in curate.render_terms(spec, "retains")


def test_a_concept_that_the_model_does_not_draw_has_a_letter_and_no_picture():
    drafts.create("lighthouse", "object", "")
    drawn = {spec.slug for spec in thumbnails.filter_drawn(library.library().values())}
    assert {"dog", "vampire", "apple-fruit", "lighthouse"} <= drawn and not {"taylor-swift", "apple-company"} & drawn
    shelf = curate.render_shelf("", "dog")
    assert thumbnails.picture_class("Taylor Swift") not in shelf and thumbnails.picture_class("dog") in shelf
    assert "Taylor Swift" not in start.render_shelf()
    assert shelf.count("emoji-sd does not draw it") == len(library.library()) - len(drawn)


def test_a_concept_that_the_base_does_not_draw_is_told_before_start(base):
    drafts.create("lighthouse", "object", "")
    told = erase.warn_undrawn(EraseForm(concept="taylor-swift", together=["mouse-animal", "lighthouse"]))
    assert len(told) == 2
    assert "emoji-sd does not draw Taylor Swift" in told[0]
    assert "emoji-sd does not draw 4 of the terms of mouse (animal): whiskered" in told[1]
    assert erase.warn_undrawn(EraseForm(concept="taylor-swift", base=base)) == []


def test_what_is_drawn_is_read_anew_and_a_damaged_record_says_nothing(tmp_path):
    folder, dog = tmp_path / "base", find_concept("dog")
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    rows = [{"text": dog.corefs[0].text, "asked": "dog", "yes": 4, "of": 10}]
    facts = {"from": 5, "concepts": {"dog": {"name": 10}}, "unknown": ["taylor-swift"], "terms": rows}
    files.write_json(folder / "covered.json", facts)
    record = read_record(str(folder))
    assert [record.draws(find_concept(name)) for name in ("dog", "Taylor Swift", "cat")] == [True, False, None]
    assert record.list_undrawn(dog) == [dog.corefs[0].text]
    (folder / "covered.json").write_text("[1]")
    assert read_record(str(folder)) == Record() and read_record("no base") == Record()


def test_many_warnings_of_one_rule_are_one():
    spec = ConceptSpec("dog", corefs=tuple(Term(f"{word} dog") for word in ("a1", "a2", "a3", "b1", "b2", "b3", "b4")))
    text = curate.render_terms(spec, "corefs")
    assert text.count("<summary>") == 1 and "4 terms are the concept&#39;s name with an addition" in text
    assert curate.render_terms(replace(spec, corefs=spec.corefs[:5]), "corefs").count("<summary>") == 2


def test_a_note_that_many_rows_repeat_is_said_once():
    spec = ConceptSpec("dog", corefs=tuple(Term(word, note="from a table") for word in ("pup", "hound", "pooch")))
    text = curate.render_terms(spec, "corefs")
    assert "3 terms: from a table" in text and text.count("note repeated") == 3
    assert "note repeated" not in curate.render_terms(replace(spec, corefs=spec.corefs[:2]), "corefs")


def test_pictures_come_as_styles_of_their_phrase(home):
    assert thumbnails.list_ready(["oboe"]) == []
    picture = encode_png(Image.new("RGB", (4, 4)))
    files.write_atomic(home / "thumbs" / f"{thumbnails.picture_class('oboe')}.png", picture)
    assert thumbnails.list_ready(["oboe", "lute"]) == ["oboe"]
    assert thumbnails.picture_class("oboe") in thumbnails.build_styles(["oboe", "lute"])
    assert thumbnails.picture_class("lute") not in thumbnails.build_styles(["oboe", "lute"])


# Erase


def test_start_queues_at_once_and_a_second_start_waits_behind_it(no_worker, base):
    form = {"base": base, "steps": "20", "images": 2, "together": ["cat"], "microbatch_size": 1, "backbone": "ca"}
    first, second = (runs.find(erase.start(concept=slug, **form)) for slug in ("dog", "cat"))
    assert (first.title, second.title) == ("dog + cat", "cat")
    assert (first.state, second.state) == ("queued", "queued")
    config = first.job.config
    assert (config.steps, config.microbatch_size, config.backbone) == (20, 1, "ca")
    assert first.evaluation == EvaluationRequest(2)
    page = erase.render_runs(runs.all_runs(), None)
    assert "next in the queue" in page
    assert "number 2 in the queue" in page


@pytest.fixture
def answering(no_worker, tiny_sd):
    """Answers one question in the worker's place, by the worker's own function."""
    broker = RequestBroker(lambda: StatusAnswer("cpu"))
    broker.open()

    def answer():
        pending = broker.take(300)
        pending.reply(handlers.HANDLERS[pending.request.kind](pending.request, tiny_sd, None, lambda: False))

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    thread.join()
    broker.close()


def foreseen(base: str) -> list[str]:
    form = {"concept": "dog", "base": base, "corefs": 3, "retains": 2, "together": ["cat"], "microbatch_size": 1}
    return heard(erase.estimate(gr.Request(session_hash="tab"), **form))


def test_what_a_run_would_cost_is_told_before_start(answering, base, tiny_sd):
    at_once, told = foreseen(base)
    assert f"6 steps on {devices.describe()}." in at_once and "memory" not in at_once
    specs, config = (
        resolve_conflicts([find_concept("dog"), find_concept("cat")]),
        EraseConfig(corefs=3, retains=2, microbatch_size=1),
    )
    memory = cost.format_size(estimate(tiny_sd, specs, config).memory)
    assert f"Needs about {memory} of memory (" in told and "are free) and up to" in told
    assert "by a step measured here" in told


def test_a_measured_pace_is_better_than_an_estimate(answering, run, base):
    with run.hold():
        run.record(replace(StartEvent(pid=1), time=1_800_000_000))
        run.record(replace(StepEvent(step=20, of=20, losses={}, seconds_left=0), time=1_800_000_600))
        run.record(CostEvent(240.0, 0, "process", 0))
    run.weights_path.write_bytes(b"")
    at_once, told = foreseen(base)
    # 12 s a step, and six of them: what the training took, without the previews and what else the worker did meanwhile.
    assert "About 1 min 12 s to erase on this machine." in at_once and "About 1 min 12 s to erase on this" in told
    assert "by a step" not in told and "memory" in told


def test_judging_is_asked_for_only_where_there_is_a_judge(no_worker, blind, base, dog):
    config = EraseConfig(corefs=2, retains=2)
    assert erase.queue_run(Job(str(blind), dog, config), images=4).evaluation is None
    assert erase.queue_run(Job(base, dog, config), images=4).evaluation == EvaluationRequest(4)


def test_what_was_left_out_of_a_run_is_told(run):
    run.record(NoteEvent("No previews are drawn: one picture takes about 14 min here."))
    run.record(NotJudgedEvent("The base brings no judge."))
    run.record(DoneEvent(seconds=3))
    assert "one picture takes about 14 min here." in erase.render_details(run)
    assert run_view.summarize(run).description == "Done in 3 s. Not judged: The base brings no judge."


def test_without_a_concept_nobody_is_asked(base):
    (said,) = heard(erase.estimate(gr.Request(session_hash="tab"), concept=None, base=base))
    assert "Choose a concept first." in said


def test_the_details_set_what_it_took_beside_the_estimate(run):
    run.record(EstimateEvent(seconds=70.0, memory=2_000_000, disk=40_000_000, rows=9))
    assert "estimated 1 min 10 s" in erase.render_details(run)
    run.record(CostEvent(seconds=80.0, memory=900_000_000, whose="process", disk=30_000_000))
    said = erase.render_details(run)
    assert "1 min 20 s, estimated 1 min 10 s" in said
    # The worker has more in memory than the run: these are not compared.
    assert "memory <b>estimated 2.0 MB</b>" in said and "peak of the whole worker <b>900.0 MB</b>" in said
    assert "disk while it runs <b>30.0 MB, at most 40.0 MB</b>" in said
    run.record(CostEvent(seconds=80.0, memory=1_900_000, whose="device", disk=30_000_000))
    assert "memory <b>1.9 MB, estimated 2.0 MB</b>" in erase.render_details(run)


@pytest.mark.parametrize(
    ("field", "typed", "told"),
    [
        ("concept", None, "Choose a concept"),
        ("base", "nowhere", "no base model"),
        ("steps", "many", "Steps is 'many'"),
        ("steps", "2.5", "whole number"),
        ("steps", "-1", "Steps is -1"),
        ("learning_rate", "fast", "Learning rate is 'fast'"),
        ("corefs", 2000, r"Names per step \(M\) is 2000"),
    ],
)
def test_a_bad_setting_is_answered_clearly(no_worker, base, field, typed, told):
    form = {"concept": "dog", "base": base, "steps": "20", field: typed}
    with pytest.raises(gr.Error, match=told):
        erase.start(**form)
    assert runs.all_runs() == []


def test_the_buttons_of_a_run(no_worker, run):
    assert erase.press_run_button(None, event(do="stop", id=run.id)) == run.id
    assert run.state == "stopped"
    erase.press_run_button(None, event(do="resume", id=run.id))
    assert run.state == "queued"
    erase.rename(event(id=run.id, value="first try"))
    assert run.title == "first try"
    assert erase.press_run_button(run.id, event(do="delete", id=run.id)) is None
    assert runs.all_runs() == []


def test_runs_are_found_by_words_and_sorted(no_worker, base, dog):
    config = EraseConfig(corefs=3, retains=2)
    first, second = (runs.create(Job(base, dog, config, name=name)) for name in ("zebra stripes", "Antelope"))
    second.record(StoppedEvent(step=5))
    order = [run.title for run in run_view.arrange(runs.all_runs(), "", "by name")]
    assert order == ["Antelope", "zebra stripes"]
    assert run_view.arrange(runs.all_runs(), "STRIPES crce", "newest first") == [first]
    assert run_view.arrange(runs.all_runs(), "stopped", "best H first") == [second]
    assert "No run fits" in erase.render_runs(runs.all_runs(), None, find="nothing like it")
    assert "No runs yet" in erase.render_runs([], None)
    assert run_view.arrange(runs.all_runs(), "", "running first")[0] == first


def test_quick_standard_and_thorough_fill_in_steps_and_pictures():
    explained, steps, images = erase_form.apply_effort("Quick", "crce", "esd-x-strict", "emoji-sd")
    preset = resolve_config(EraseConfig(), "emoji-sd").steps
    assert (steps, images) == (str(round(preset / 3)), 1) and "third" in explained.info
    assert erase_form.apply_effort("Standard", "crce", "esd-x-strict", "emoji-sd")[1:] == ("", 4)
    assert erase_form.apply_effort("Thorough", "crce", "esd-x-strict", "emoji-sd")[1:] == ("", 10)
    assert erase_form.apply_effort("Quick", "crce-uce", "esd-x-strict", "emoji-sd")[1] == ""
    assert erase_form.renew_effort("Standard", "uce", "esd-x-strict", "emoji-sd")[1] == gr.skip()


def test_the_letters_of_the_paper_are_explained(run):
    assert 'title="How far each step pushes' in erase.render_details(run)


def test_the_first_start_makes_an_example_and_no_later_one_does(home):
    example.make()
    (run,) = runs.all_runs()
    assert run.job.config.method == "crce-uce" and example.find(runs.all_runs()) == run
    assert "split is locked" not in curate.render_head(opened())
    run.delete()
    example.make()
    assert runs.all_runs() == []


def test_the_pictures_that_ship_are_those_of_the_first_screen(home):
    first = thumbnails.list_first()
    assert thumbnails.list_ready(first) == first and not (home / "thumbs").exists()
    assert (Path(bases.resolve(thumbnails.BASE)) / thumbnails.SHEET).stat().st_size < 200_000
    assert thumbnails.picture_class("dog") in thumbnails.build_styles(first)


def test_again_fills_the_form_with_what_was_asked(dog, base):
    library.save_spec(dog, library.own_path(dog))
    config = EraseConfig(
        "crce-fixed", steps=7, lr=2e-4, corefs=2, seed=3, backbone="ca", microbatch_size=1, preview_every=9
    )
    run = runs.create(Job(base, dog, config, "cpu", "fp16"))
    asked = (dog.slug, base, "crce-fixed", "7", "0.0002", "", 1.0, 2, 3, 3, erase_form.JUDGED_IMAGES, "auto", [], 1,
             "ca", False, 9, False, "", "", "cpu", "fp16")  # fmt: skip
    assert erase.refill_form(event(id=run.id)) == asked


def test_again_keeps_lambda(dog, base):
    library.save_spec(dog, library.own_path(dog))
    run = runs.create(Job(base, dog, EraseConfig("mace", steps=7, lr=2e-4, damping=100.0)))
    form = EraseForm.from_job(run.job)
    assert form.damping == "100" and form.to_job().config.damping == 100
    assert "λ <b>100</b>" in erase.render_details(run)
    with pytest.raises(CrceError, match="damping is 100, and esd-x-strict has none"):
        runs.create(replace(form, method="crce").to_job())


def test_the_form_has_a_component_for_each_field():
    with gr.Blocks():
        components = erase_form.build_choice() | erase_form.build_settings() | erase_form.build_device()
    assert [*components] == [field.name for field in fields(EraseForm)]


def test_the_page_marks_the_field_that_holds_what_is_wrong(no_worker, base):
    with gr.Blocks():
        ids = {name: part.elem_id for name, part in erase_form.build_settings().items()}
    wrong = [("steps", "many"), ("steps", "-1"), ("learning_rate", "fast"), ("damping", "0"), ("eta", None),
             ("corefs", 2.5), ("retains", -1), ("seed", None), ("images", -1), ("images", 1e9),
             ("microbatch_size", 5000), ("preview_every", -1)]  # fmt: skip
    for name, value in wrong:
        (told,) = heard(erase.estimate(gr.Request(session_hash="tab"), concept="dog", base=base, **{name: value}))
        assert f'data-wrong="{name}"' in told and ids[name] == f"field-{name}"


def test_what_was_asked_for_comes_back_from_the_run(no_worker, base):
    form = EraseForm(
        "dog", base, "crce", "20", "0.0002", "", 2.0, 4, 2, 7, erase_form.JUDGED_IMAGES, "auto", ["cat"], 1, "ca"
    )
    assert EraseForm.from_job(runs.create(form.to_job()).job) == form
    only = replace(form, together=[], backbone="esd-u", erase_from="Santa Claus")
    for asked in (replace(form, anchor="a zebra"), only):
        assert EraseForm.from_job(runs.create(asked.to_job()).job) == asked


def test_the_form_says_as_what_a_method_draws_the_concept(dog):
    assert erase.show_anchor("ca", "ca", "dog").placeholder.endswith(", the most certain retain")
    assert erase.show_anchor("crce", "esd-x-strict", "dog").placeholder == "its opposite"
    assert erase.show_anchor("uce", "esd-x-strict", None).placeholder == "nothing"
    assert erase.show_anchor("mace", "esd-x-strict", None).placeholder == "left to the method"
    assert erase_form.describe_anchor(EraseConfig("uce", anchor="zebra"), dog) == "zebra"


def test_a_method_without_a_learning_rate_can_be_watched_and_repeated(dog, base):
    run = runs.create(Job(base, dog, EraseConfig("crce-uce")))
    assert "learning rate <b>none</b>" in erase.render_details(run)
    assert erase.refill_form(event(id=run.id))[4] == ""


def test_as_many_pictures_are_judged_when_a_run_is_repeated(run):
    place = [field.name for field in fields(EraseForm)].index("images")
    assert erase.refill_form(event(id=run.id))[place] == erase_form.JUDGED_IMAGES
    judged(run, 9.0, 1)
    assert erase.refill_form(event(id=run.id))[place] == 1
    run.request_evaluate(10)
    assert erase.refill_form(event(id=run.id))[place] == 10


def test_the_status_line_counts_what_runs_and_not_what_has_run(run):
    assert "1 waiting" in status_bar.find_news([run])
    run.record(DoneEvent(seconds=3))
    said = status_bar.find_news([run])
    assert "nothing running" in said and "no runs" not in said


def test_a_run_in_words(run, dog):
    def says():
        return run_view.summarize(run).description

    assert says() == "next in the queue; the worker is starting"
    with run.hold():
        run.record(StartEvent(pid=1))
        assert says() == "loading the model and timing a step"
        run.record(PhaseEvent(phase="bank", done=3, of=10, seconds_left=70.2))
        assert says() == "preparing 3/10"
        # So long that half a minute on a slow machine changes nothing.
        run.record(StepEvent(step=5, of=20, losses={"target": 0.5}, seconds_left=3755.0))
        assert says() == "erasing 5/20 · 1 h 2 min left in all"
        run.record(CheckpointEvent(step=5))
    assert says() == "The worker stopped at step 5. Press Resume to continue."
    run.record(FailedEvent(message="The disk is full.", log_id=None))
    assert says() == "The disk is full."
    run.record(StoppedEvent(step=5))
    assert says() == "Stopped at step 5. Press Resume to continue."


def ago(event, seconds: float):
    """The event as if it had been recorded earlier."""
    return replace(event, time=event.time - seconds)


def judged(run: runs.Run, seconds: float, images: int) -> None:
    """A report by which judging takes so long for so many pictures of each term."""
    write_report(run.dir / "report.json", Report({}, seconds=seconds, images=images))


def test_one_bar_and_one_time_left_over_all_phases_of_a_run(run, dog, base):
    other = runs.create(Job(base, dog, EraseConfig(steps=20, corefs=3), name="other"))
    seen = []

    def look(event) -> str:
        run.record(event)
        seen.append(run_forecast.forecast(run).percent)
        return run_forecast.forecast(run).text

    with run.hold():
        run.record(ago(StartEvent(pid=1), 10))
        run.request_evaluate(2)
        run.record(EstimateEvent(seconds=100.0, memory=1, disk=1, rows=9))
        text = look(PhaseEvent(phase="bank", done=5, of=10, seconds_left=2.0))
        assert re.fullmatch(r"preparing 5/10 · 1 min 3[0-2] s left, then the pictures are judged", text)
        judged(other, 9.0, 1)
        text = look(PhaseEvent(phase="bank", done=9, of=10, seconds_left=2.0))
        assert re.fullmatch(r"preparing 9/10 · 1 min [45]\d s left in all", text)
        text = look(StepEvent(step=5, of=20, losses={}, seconds_left=60.0))
        assert re.fullmatch(r"erasing 5/20 · 1 min 1\d s left in all", text)
        assert "next in the queue, after “dog (animal)”, erasing 5/20" in erase.render_runs(runs.all_runs(), None)
        run.weights_path.write_bytes(b"")
        assert look(StepEvent(step=20, of=20, losses={}, seconds_left=0.0)) == "erased; loading the judge"
        text = look(ago(PhaseEvent(phase="evaluate", done=9, of=10, seconds_left=1.0), 60))
        assert text == "judging pictures 9/10 · longer than expected"
        assert look(PhaseEvent(phase="pictures", done=20, of=20, seconds_left=0.0)).endswith("nearly done")
        other.delete()
        text = look(PhaseEvent(phase="pictures", done=20, of=20, seconds_left=110.0))
        assert re.fullmatch(r"drawing the report's terms 20/20 · 1 min \d+ s left in all", text)
    assert seen == sorted(seen) and seen[0] < 10 and seen[3] in range(70, 90) and seen[-1] == 100


def test_the_time_left_is_told_from_the_beginning_where_a_run_like_it_was_timed(run, dog, base):
    run.request_evaluate(2)
    with run.hold():
        run.record(StartEvent(pid=1))
        assert run_forecast.forecast(run).text == "loading the model and timing a step"
        other = runs.create(Job(base, dog, EraseConfig(steps=20, corefs=3), name="other"))
        other.weights_path.write_bytes(b"")
        other.record(StepEvent(step=20, of=20, losses={}))
        other.record(CostEvent(seconds=70.0, memory=1, whose="process", disk=1))
        begun = "loading the model and timing a step · 1 min 10 s left, then the pictures are judged"
        assert run_forecast.forecast(run).text == begun
        run.record(ago(StepEvent(step=19, of=20, losses={}, seconds_left=5.0), 60))
        late = "erasing 19/20 · longer than expected, then the pictures are judged"
        assert run_forecast.forecast(run).text == late
        run.record(StartEvent(pid=1))
        run.record(EstimateEvent(seconds=100.0, memory=1, disk=1, rows=9))
        judged(other, 10.0, 1)
        assert run_forecast.forecast(run).text == "drawing the first preview · 2 min 0 s left in all"


def test_a_run_that_is_done_says_what_took_its_time(run):
    run.record(CostEvent(seconds=132.0, memory=1, whose="process", disk=1))
    judged(run, 75.0, 1)
    run.record(DoneEvent(seconds=470.0))
    parts = "2 min 12 s to erase, 1 min 15 s to judge, 4 min 23 s to load and to draw previews and the report"
    assert run_view.summarize(run).description == f"Done in 7 min 50 s ({parts})."
    run.record(DoneEvent(seconds=80.0))  # of a judging by itself
    assert run_view.summarize(run).description == "Done in 1 min 20 s."


def test_the_curve_has_few_points_and_all_terms(run):
    for step in range(1, 1001):
        run.record(StepEvent(step=step, of=1000, losses={"target": 1.0, "corefs": 2.0}, seconds_left=None))
    rows = run_view.average_losses(run)
    assert len(rows) <= 240
    assert {(row["term"], row["loss"]) for row in rows} == {("target", 1.0), ("corefs", 2.0)}
    assert rows[-1]["step"] == 1000


def test_a_look_sends_the_curve_and_pictures_only_when_they_are_new(run):
    *_, seen = erase.refresh(None, erase.Seen())
    assert erase.refresh(None, seen)[:5] == (gr.skip(),) * 5
    run.record(StepEvent(step=1, of=20, losses={"target": 1.0}, seconds_left=None))
    listing, _, previews, plot, curve, _ = erase.refresh(None, seen)
    assert run.id in listing
    assert previews == gr.skip()
    assert plot.visible
    assert list(curve["loss"]) == [1.0]


def test_previews_stand_in_rows_by_prompt(run):
    (run.dir / "images").mkdir(exist_ok=True)
    for step in (0, 50):
        names = [f"images/{step}-{place}.png" for place in (0, 1)]
        for name in names:
            Image.new("RGB", (8, 8)).save(run.dir / name)
        run.record(PreviewEvent(step=step, prompts=["dog", "cat"], seeds=[0, 0], images=names))
    rows = run_view.group_previews(run)
    assert [(row.prompt, [image.step for image in row.images]) for row in rows] == [
        ("dog", [0, 50]),
        ("cat", [0, 50]),
    ]


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (70, "1 min 10 s"), (3720, "1 h 2 min")])
def test_time_in_words(seconds, words):
    assert run_view.format_duration(seconds) == words


def test_a_trial_of_any_tab_is_found_and_goes_to_compare_once(dog, base):
    run = runs.create(Job(base, dog, EraseConfig(steps=20, corefs=3), name=start.TRIAL))
    _, _, _, mine, arrived = start.follow_trial(run.id, -1)
    assert mine == arrived == gr.skip()
    run.weights_path.write_bytes(b"")
    *_, mine, arrived = start.follow_trial(run.id, -1)
    assert (mine, arrived) == (None, run.id)
    *_, arrived = start.follow_trial(None, -1)
    assert arrived == gr.skip()


# Compare


def cell(yes: bool | None = True) -> Cell:
    png = base64.b64encode(encode_png(Image.new("RGB", (64, 64), "red"))).decode()
    return Cell(png, yes, None if yes is None else 0.9)


def comparison(rows: list[tuple], prompts: int | None = None, columns: int = 2) -> Comparison:
    made = [
        Row(Prompt(kind, prompt, "dog"), [[cell(yes), cell(yes)] for _ in range(columns)]) for kind, prompt, yes in rows
    ]
    titles = [Title(f"model {number}", "base") for number in range(columns)]
    return Comparison("dog", titles, [0, 1], prompts or len(rows), tuple(made))


def test_held_out_terms_are_drawn_and_typed_prompts_come_first(dog):
    rows = compare.choose_prompts(dog, ["target", "retain"], 5, "a dog on a boat\n\n", Record())
    assert [(row.kind, row.text, row.ask) for row in rows] == [
        ("typed", "a dog on a boat", "dog (animal)"),
        ("target", "dog", "dog (animal)"),
        ("retain", "pig", "pig"),
    ]


def test_terms_that_the_base_does_not_draw_come_last_and_are_neither_right_nor_wrong():
    dog = find_concept("dog")
    names = [term.text for term in dog.test_corefs]
    record = Record(5, {}, {(names[0], dog.target): (0, 10), (names[1], dog.target): (9, 10)})
    rows = compare.choose_prompts(dog, ["coref"], 5, "", record)
    assert [row.text for row in rows] == [*names[1:], names[0]]
    assert [row.drawn for row in rows] == [True, *[None] * (len(names) - 2), False]
    made = comparison([("coref", names[0], True), ("coref", names[1], True)])
    first, second = (replace(row, prompt=prompt) for row, prompt in zip(made.rows, (rows[-1], rows[0]), strict=True))
    page = compare.render_grid(replace(made, rows=(first, second)))
    assert page.count("mark no") == 2 and page.count("not drawn by the base") == 1


@pytest.mark.parametrize(
    ("kind", "column", "yes", "verdict"),
    [
        ("target", 1, True, False), ("target", 1, False, True), ("coref", 2, True, False), ("retain", 1, True, True),
        ("retain", 1, False, False), ("retain", 0, False, None), ("target", 1, None, None), ("typed", 1, True, None),
    ],
)  # fmt: skip
def test_as_it_should_be(kind, column, yes, verdict):
    assert compare.judge_outcome(kind, column, yes) is verdict


def test_the_grid_marks_what_is_expected():
    text = compare.render_grid(comparison([("target", "dog", True), ("retain", "cat", True), ("coref", "pup", None)]))
    assert text.count("mark no") == 2
    assert text.count("mark ok") == 2
    assert "Sheet as PNG" in text


def test_while_rows_are_missing_there_are_empty_places_and_no_sheet():
    text = compare.render_grid(comparison([("target", "dog", True)], prompts=3))
    assert text.count("ghost") == 2 * 2 * 2
    assert "Sheet as PNG" not in text


def test_the_sheet_shows_every_picture_unchanged():
    image = Image.open(
        io.BytesIO(comparison_sheet.draw_sheet(comparison([("target", "dog", True), ("retain", "cat", False)])))
    )
    colours = dict((colour, count) for count, colour in image.getcolors(1 << 20))
    assert colours[(255, 0, 0)] == 2 * 2 * 2 * 96 * 96


def judged_by_eye(run: runs.Run) -> Comparison:
    drawn = comparison([("target", "dog", True), ("retain", "cat", False)])
    return replace(drawn, titles=[Title("before", "base"), Title("dog", "CRCE", run.id)], judge="embedded")


def test_a_person_is_asked_about_every_picture_once_and_the_answers_are_kept(run):
    drawn, asked = judged_by_eye(run), []
    page = compare_person.start(drawn)
    for _ in range(8):
        number = re.search(r'data-number="(\d+)" data-key="y"', page)[1]
        asked.append(compare_person.list_places(drawn)[int(number)])
        page = compare_person.press_button(drawn, event(do="answer", answer="yes", number=number))
    assert len(set(asked)) == 8 and "8 of 8 answered" in page
    assert {(place.row, place.column, place.seed) for place in asked} == set(itertools.product((0, 1), repeat=3))
    assert [place.column for place in asked] not in ([0] * 4 + [1] * 4, [0, 1] * 4)
    # The judge said yes to four and no to four, the person always yes.
    assert (run.agreement.n, run.agreement.same, run.agreement.kappa) == (8, 4, 0)
    assert "κ = 0.00" in scores_of(run)


def scores_of(run: runs.Run) -> str:
    run.weights_path.write_bytes(b"")
    return compare.render_scores([run.id])


def test_an_answer_can_be_changed_and_skipped(run):
    drawn = judged_by_eye(run)
    compare_person.press_button(drawn, event(do="answer", answer="no", number="0"))
    page = compare_person.press_button(drawn, event(do="turn", number="0"))
    assert page.count('aria-pressed="true"') == 1 and "1 of 8 answered" in page
    page = compare_person.press_button(drawn, event(do="answer", answer="unclear", number="0"))
    assert "1 of 8 answered" in page and 'data-number="1" data-key="y"' in page
    assert [verdict.answer for verdict in run.person] == ["unclear"]
    with pytest.raises(gr.Error, match="is no answer"):
        compare_person.press_button(drawn, event(do="answer", answer="perhaps", number="0"))


def test_without_a_run_or_at_another_strength_nobody_is_asked():
    assert "Draw first" in compare_person.start(None)
    assert "Choose a run and draw it at strength 1" in compare_person.start(comparison([("target", "dog", True)]))


def test_judges_are_offered_with_what_they_need(base, tmp_path, monkeypatch):
    away = [("Qwen2-VL, to be downloaded", "qwen2-vl"), ("CLIP, to be downloaded", "clip")]
    assert erase_form.list_judges(base) == [("Automatic: its own", "auto"), *away]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("CRCE_JUDGE_MODEL", "seeing")
    assert erase_form.list_judges(base)[1:] == [("Endpoint", "endpoint"), *away]
    (tmp_path / "model_index.json").write_text("{}")
    assert erase_form.list_judges(str(tmp_path))[0] == ("Automatic: not judged", "auto")
    # What was typed stays, what is not there any more goes back to automatic.
    assert erase_form.update_judges(base, "some/model").value == "some/model"
    monkeypatch.delenv("CRCE_JUDGE_MODEL")
    assert erase_form.update_judges(base, "endpoint").value == "auto"


def test_a_click_shows_the_pair():
    slider, _ = compare.show_pair(comparison([("target", "dog", True)]), event(row="0", column="0", place="1"))
    assert "seed 1" in slider.label


def test_runs_of_different_bases_do_not_stand_side_by_side(dog, base, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "model_index.json").write_text("{}")
    chosen = [runs.create(Job(place, dog, EraseConfig(steps=2, lr=1e-3, corefs=3))) for place in (base, str(other))]
    with pytest.raises(CrceError, match="different base models"):
        compare._find_common(chosen)


def test_accuracies_stand_with_n_and_interval(run, dog):
    figure = {"yes": 1, "n": 20, "rate": 0.05, "low": 0.01, "high": 0.24, "base_rate": 0.9, "ratio": 0.06}
    report = {"images": 4, "judge": "embedded", "h": None, "left_out": {"corefs": 2, "retains": 0}}
    files.write_json(run.dir / "report.json", {**report, "metrics": {"acc_u": figure}})
    run.weights_path.write_bytes(b"")
    text = compare.render_scores([run.id])
    assert "5 %" in text
    assert "n=20, 1–24 %" in text
    assert "2 of the names, 0 of the neighbours" in text


def test_accuracies_of_another_version_or_concept_stand_in_a_table_of_their_own(run, base, dog):
    figure = {"yes": 1, "n": 20, "rate": 0.05, "low": 0.01, "high": 0.24, "base_rate": 0.9, "ratio": 0.06}
    config = EraseConfig(steps=2, lr=1e-3, corefs=3)
    old, yak, same = (runs.create(Job(base, spec, config)) for spec in (dog, replace(dog, target="yak"), dog))
    facts = files.read_json(old.dir / "job.json")
    files.write_json(old.dir / "job.json", {**facts, "base_digest": 64 * "0"})
    for each in (run, old, yak, same):
        files.write_json(each.dir / "report.json", {"metrics": {"acc_u": figure}})
        each.weights_path.write_bytes(b"")
    text = compare.render_scores([each.id for each in (run, old, yak, same)])
    marked = [name for label, name in compare.list_choices() if "other version of its base" in label]
    assert marked == [old.id]
    assert text.count("<table>") == 3 and text.count("<h3>") == 3
    assert "version 00000000" in text and "“yak" in text
    alone = compare.render_scores([run.id, same.id])
    assert alone.count("<table>") == 1 and "<h3>" not in alone


def test_strict_accuracies_stand_beside_the_plain_ones(run, dog):
    figure = {"yes": 1, "n": 20, "rate": 0.05, "low": 0.01, "high": 0.24, "base_rate": 0.9, "ratio": 0.06}
    strict = {**figure, "rate": 0.15, "low": 0.05, "high": 0.36, "base_rate": 0.8}
    files.write_json(run.dir / "report.json", {"metrics": {"acc_u": figure}, "strict": {"acc_u": strict}})
    run.weights_path.write_bytes(b"")
    text = compare.render_scores([run.id])
    assert "1–24 %" in text and "5–36 %" in text and "strict 80 %" in text
    assert run_view.summarize_scores(run) == "Acc_U 15% (n=20) · strict"


def draw_by_hand(base, run, typed):
    """`compare.draw` without its worker: what it shows, while every request for `typed` is refused."""
    form = {"runs": [run.id], "kinds": ["concept"], "typed": typed, "seeds": 1, "terms": 1, "strength": 1.0,
            "combine": False, "judge": "auto"}  # fmt: skip
    generator = compare.draw.__wrapped__(gr.Request(session_hash="tab"), **form)
    pages, item = [], next(generator)
    while True:
        try:
            if isinstance(item, tuple):
                pages.append(item)
                item = generator.send(None)
            elif item.request.prompts == ["dog"]:
                item = generator.send(GenerateAnswer(((cell(),), (cell(),))))
            else:
                item = generator.throw(CrceError(f"{item.request.prompts[0]!r} is too long. Shorten it."))
        except StopIteration:
            return pages


def test_a_prompt_that_cannot_be_drawn_is_told_in_the_grid_and_the_others_are_drawn(base, run):
    run.weights_path.write_bytes(b"")
    *_, (page, comparison) = draw_by_hand(base, run, "zzz")
    assert "Not drawn</b> &#39;zzz&#39; is too long." in page and "drawing…" not in page
    assert [row.prompt.text for row in comparison.rows] == ["dog"] and comparison.complete


@pytest.mark.parametrize(("images", "told"), [(None, "empty"), (0, "0"), (5000, "5000")])
def test_evaluating_names_a_wrong_number_of_pictures(run, images, told):
    with pytest.raises(gr.Error, match=f"Pictures per term is {told}; give a whole number from 1 to"):
        compare.evaluate([run.id], images)


def test_a_run_of_another_version_is_not_evaluated(run):
    facts = files.read_json(run.dir / "job.json")
    files.write_json(run.dir / "job.json", {**facts, "base_digest": 64 * "0"})
    with pytest.raises(gr.Error, match="belongs to another version of"):
        compare.evaluate([run.id], 3)
    assert run.evaluation is None


def test_evaluating_asks_the_worker(no_worker, run):
    run.weights_path.write_bytes(b"")
    compare.evaluate([run.id], 3)
    assert run.evaluation == EvaluationRequest(3)
    with pytest.raises(gr.Error, match="Choose a run"):
        compare.evaluate([], 3)


def test_runs_of_one_name_and_method_are_told_apart_by_their_time(dog, base):
    noon = 12 * 3600  # the same day in nearly every time zone
    for created in (noon, noon + 86400, noon + 86400):
        made = runs.create(Job(base, dog, EraseConfig("crce-uce"), name="same", created=created))
        made.weights_path.write_bytes(b"")
    other = runs.create(Job(base, dog, EraseConfig("uce"), name="same"))
    other.weights_path.write_bytes(b"")
    labels = [label for label, _ in compare.list_choices()]
    assert len({*labels}) == 4 and "same · UCE" in labels
    assert sum("01 Jan" in label or "02 Jan" in label for label in labels) == 3
    assert "01 Jan" in erase.render_runs(runs.all_runs(), None)


# Publish


def test_what_will_be_public_is_seen_first():
    files_, preview, card, rows, header, _ = publish.preview_dataset(["dog", "cat"], "me/data")
    assert "data/object/train.parquet" in files_
    assert preview.visible
    assert {row[0] for row in rows} == {"dog"}
    assert "license: cc-by-4.0" in header
    assert "license:" not in card
    assert 'load_dataset("me/data", "object")' in card and "<user>" not in card
    assert publish.preview_dataset([], "")[2] == ""


def test_terms_are_held_out_from_publish_where_a_concept_has_none():
    slug = drafts.create("lighthouse", "object", "").slug
    curate.add_terms(opened(slug), "", "corefs", "pharos, beacon tower, light tower")
    button = 'data-do="split"'
    assert button in publish.preview_dataset(["dog", slug], "")[0]
    other = drafts.create("kettle", "object", "").slug
    curate.add_terms(opened(other), "", "corefs", "pot, teapot, boiler")
    assert "an erasure of them" in publish.preview_dataset([other, slug], "")[0]
    after = publish.draw_splits(["dog", slug], "", opened(slug), "")
    assert button not in after[0] and "data/object/test.parquet" in after[0]
    assert len(library.library()[slug].test_corefs) == 1
    page, *_ = after[6:]
    assert page.mine == library.library()[slug] and not page.stale


def test_of_too_few_terms_or_with_runs_none_are_held_out_from_publish(base, dog):
    slug = drafts.create("lighthouse", "object", "").slug
    curate.add_terms(opened(slug), "", "corefs", "pharos, beacon tower")
    assert "data-do" not in publish.preview_dataset([slug], "")[0]
    curate.add_terms(opened(slug), "", "corefs", "light tower")
    runs.create(Job(base, library.library()[slug], EraseConfig("crce-uce")))
    assert "data-do" not in publish.preview_dataset([slug], "")[0]


def test_without_a_token_nothing_leaves_this_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    form = {"concepts": ["dog"], "seen": "", "private": True, "pull_request": False, "tag": ""}
    with pytest.raises(gr.Error, match="nothing has left this machine"):
        publish.publish_dataset(**form, repo="me/data")
    with pytest.raises(gr.Error, match="Enter the repository"):
        publish.publish_dataset(**form, repo=" ")
    with pytest.raises(gr.Error, match="Write user/name"):
        publish.publish_dataset(**form, repo="data")


def test_the_card_of_weights_is_shown_before(run):
    with pytest.raises(gr.Error, match="Let the erasure finish"):
        publish.preview_weights(run.id, ["weights"], False, "me/weights", "")
    save_file({"x": np.zeros(2, np.float32)}, run.weights_path, metadata={"base": "x"})
    card, header, _ = publish.preview_weights(run.id, ["weights"], False, "me/weights", "")
    assert "dog" in card
    assert "base_model" in header or "license" in header
    assert publish.preview_weights(None, [], False, "", "") == ("", "", "")


def test_an_export_is_offered_for_download_with_its_lines(run, base):
    weights = load_file(f"{base}/unet/diffusion_pytorch_model.safetensors")
    save_file({"conv_in.bias": weights["conv_in.bias"] + 1}, run.weights_path, metadata={"base": base})
    shown, told = publish.export_weights(run.id, ["weights", "pipeline"], False)
    one, folder = [Path(path) for path in shown["value"]]
    assert (one.name, folder.name) == ("without-dog-animal-a23f0f72-crce-weights.safetensors",
                                       "tiny-sd0-without-dog-animal-a23f0f72-crce.zip")  # fmt: skip
    with zipfile.ZipFile(folder) as archive:
        assert f"{folder.stem}/model_index.json" in archive.namelist()
    assert "load_state_dict" in told and str(Path(base).parent) not in told
    shutil.rmtree(one.parent)
    with pytest.raises(gr.Error, match="Choose the run"):
        publish.export_weights(None, ["weights"], False)
    with pytest.raises(gr.Error, match="No format is chosen"):
        publish.export_weights(run.id, [], False)


def test_the_card_of_an_adapter_is_shown_for_what_it_can_go_out_as(dog, base):
    gated = runs.create(Job(base, dog, EraseConfig("spm", steps=20)))
    with pytest.raises(gr.Error, match="Choose only lora"):
        publish.preview_weights(gated.id, ["weights", "diff"], False, "", "")
    pair = {"dog/x.down": np.ones((1, 3), np.float32), "dog/x.up": np.ones((4, 1), np.float32)}
    save_file(pair, gated.weights_path, metadata={"base": "x", "kind": "spm"})
    assert "not their gate" in publish.preview_weights(gated.id, ["lora"], False, "", "")[0]


def test_pictures_of_a_card_are_not_fetched():
    assert publish._split_card("---\na: 1\n---\n![x](https://example.com/y.png)") == ("a: 1", "*(picture: x)*")


@pytest.mark.parametrize("steps", ["many", "nan", "inf", "2.5"])
def test_steps_that_are_no_whole_number_are_told(steps):
    with pytest.raises(CrceError, match=f"Steps is '{steps}'"):
        EraseForm(steps=steps).to_config()
