"""Damaged files of runs, concepts and talks: each is shown as broken with Delete, and everything else goes on."""

import json
import math
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app.session import drafts, transcript
from app.tabs import compare, curate, curate_chat, erase, erase_form, publish, start, status_bar
from crce import files, runs
from crce.concepts.edits import Revision
from crce.concepts.library import library, own_path, save_spec
from crce.concepts.spec import ConceptSpec, Round, Term
from crce.config import EraseConfig, ResolvedConfig
from crce.errors import CrceError
from crce.runs import Job
from crce.runs.events import CheckpointEvent, DoneEvent, PhaseEvent, PreviewEvent, StartEvent, StepEvent
from crce.worker.client import ensure_workers
from crce.worker.service import Worker
from tests.test_app import heard

SEEDS = range(120)
GOOD, BAD = (ConceptSpec(f"{name} dog", sense="animal").slug for name in ("good", "bad"))
ODD = [None, 5, -1, 1e308, "", "x" * 300, [], {}, [[]], {"a": 1}, True, "\x00", "..", 2**63]


# Damage: each takes a file, and leaves something else in its place


def cut(path: Path, dice: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: dice.randrange(len(data))])


def scramble(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(8):
        data[dice.randrange(len(data))] = dice.randrange(256)
    path.write_bytes(data)


def put_folder(path: Path, dice: random.Random) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside.json").write_text("{}")


def put_text(path: Path, dice: random.Random) -> None:
    deep = dice.choice([900, 5_000, 100_000])
    nested = "[" * deep + "]" * deep
    path.write_text(dice.choice(["", "5", "null", "[]", '"text"', nested, '{"a":' * deep, "\x00" * 50]))


def change_value(path: Path, dice: random.Random) -> None:
    """A value of another type or size somewhere in the JSON of a line."""
    lines = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
    number = dice.choice([i for i, line in enumerate(lines) if line.strip()])
    facts = json.loads(lines[number])
    holder, key = dice.choice(list(places(facts)))
    holder[key] = dice.choice(ODD)
    lines[number] = json.dumps(facts)
    path.write_text("\n".join(lines))


def put_number(path: Path, dice: random.Random) -> None:
    """A number of 5 000 digits, or none that JSON has."""
    facts = load(path)
    holder, key = dice.choice(list(places(facts)))
    holder[key] = "HERE"
    path.write_text(json.dumps(facts).replace('"HERE"', dice.choice(["9" * 5_000, "NaN", "-Infinity", "1e999"])))


def drop_key(path: Path, dice: random.Random) -> None:
    facts = load(path)
    holder, key = dice.choice([place for place in places(facts) if isinstance(place[0], dict)])
    del holder[key]
    path.write_text(json.dumps(facts))


def load(path: Path) -> Any:
    """The file, or its first line."""
    return json.loads(path.read_text().split("\n")[0] if path.suffix == ".jsonl" else path.read_text())


def places(facts: Any):
    """Each place in nested JSON, as its container and key."""
    items = facts.items() if isinstance(facts, dict) else enumerate(facts) if isinstance(facts, list) else ()
    for key, value in items:
        yield facts, key
        yield from places(value)


DAMAGE: list[Callable[[Path, random.Random], None]] = [
    cut, scramble, put_folder, put_text, change_value, put_number, drop_key,
]  # fmt: skip


# A store with everything in it


@pytest.fixture(scope="module")
def full(tiny_sd_dir, dog, tmp_path_factory) -> Path:
    """A home with runs in several states, a concept, its history and a talk; and one good one of each beside them."""
    place = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRCE_HOME", str(place))
        for name in ("good", "bad"):
            fill(name, str(tiny_sd_dir), replace(dog, target=f"{name} dog"))
    return place


def fill(name: str, base: str, spec: ConceptSpec) -> None:
    save_spec(spec, own_path(spec))
    opened = drafts.open_concept(spec.slug)
    opened = drafts.change(opened, lambda spec: replace(spec, corefs=(*spec.corefs, Term("pup"))))
    asked = replace(spec.provenance, history=(Round("llm", "m", "1", "more neighbours"),))
    offered = replace(opened.spec, retains=(*opened.spec.retains, Term("jackal")), provenance=asked)
    length = transcript.say(opened.spec, "more neighbours")
    transcript.answer(spec.slug, length, transcript.build_offer(opened.spec, Revision(offered), "Test"))
    transcript.answer(spec.slug, transcript.say(opened.spec, "which?"), transcript.build_choice([spec], "Test"))
    transcript.remember(spec.slug, tokens={"puppy": 3}, limit=77, drawn={"puppy": (3, 10)})
    run = runs.create(Job(base, spec, EraseConfig(steps=20, corefs=3), name=name))
    for event in (StartEvent(1), PhaseEvent("bank", 2, 5, 3.0), StepEvent(7, 20, {"target": 0.5}, 9.0),
                  PreviewEvent(7, ("dog", "cat"), (0, 0), ("images/a.png", "images/b.png")),
                  CheckpointEvent(7), DoneEvent(3.0)):  # fmt: skip
        run.record(event)
    (run.dir / "images").mkdir()
    shutil.copy(files.ROOT / "assets" / "app" / "icon.png", run.dir / "images" / "a.png")
    shutil.copy(files.ROOT / "assets" / "app" / "icon.png", run.dir / "images" / "b.png")
    accuracy = {"yes": 1, "n": 2, "rate": 0.5, "low": 0.1, "high": 0.9, "base_rate": 1.0, "ratio": 0.5, "terms": 1}
    term = {"kind": "target", "text": "dog", "split": "train", "asked": "dog", "covered": True, "seeds": [0, 1],
            "yes": "10", "p": [0.9, 0.1], "base_yes": "11"}  # fmt: skip
    report = {"metrics": {"acc_u": accuracy, "acc_c_test": accuracy}, "terms": [term], "judge": "test", "images": 2,
              "seconds": 4.0}  # fmt: skip
    files.write_json(run.dir / "report.json", report)
    verdict = {"text": "dog", "asked": "dog", "seed": 0, "after": True, "answer": "yes", "judge": "test"}
    files.write_json(run.dir / "person.json", [verdict])
    files.write_json(run.dir / "evaluate.json", {"images": 3, "ask": "target", "judge": "auto"})
    files.write_atomic(run.dir / "owner", "somebody")


def list_targets(home: Path) -> list[Path]:
    """The files of the bad run, concept, history and talk."""
    (bad,) = (run.dir for run in runs.all_runs() if run.job.name == "bad")
    texts = [path for path in bad.rglob("*") if path.is_file() and path.name != "lock"]
    return sorted([*texts, *home.rglob("bad-dog*.json")])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_file_is_no_ones_trouble_but_its_own(full, home, no_worker, seed):
    shutil.copytree(full, home, dirs_exist_ok=True)
    dice = random.Random(seed)
    target = dice.choice(list_targets(home))
    choices = DAMAGE if target.suffix in (".json", ".jsonl") else [cut, scramble, put_folder]
    dice.choice(choices)(target, dice)

    assert "good" in erase.render_runs(runs.all_runs(), None)
    erase.refresh(None, erase.Seen())
    start.follow_trial(None, -1)
    start.estimate_time()
    status_bar.render_status()
    compare.list_choices()
    compare.estimate_time([run.id for run in runs.all_runs()], 3)
    publish.list_concepts()
    assert "good dog" in curate.render_shelf("", "")
    for slug in library():
        if slug in (GOOD, BAD):
            assert len(curate.render_all(drafts.open_concept(slug))) == 8
    ensure_workers()
    worker = Worker("auto")
    while run := worker._find_next():
        run.request_stop()
    for run in runs.all_runs():
        erase.refresh(run.id, erase.Seen())
        compare.render_scores([run.id])


def event(**facts) -> gr.EventData:
    return gr.EventData(None, facts)


@pytest.fixture
def store(full, home, no_worker) -> Path:
    shutil.copytree(full, home, dirs_exist_ok=True)
    return home


@pytest.mark.parametrize(
    "block", [Path.mkdir, lambda lock: lock.symlink_to(lock.name)], ids=["folder", "link to itself"]
)
def test_a_broken_run_is_shown_with_delete_and_deleted(store, block):
    bad = next(run for run in runs.all_runs() if run.job.name == "bad")
    (bad.dir / "job.json").write_text("5")
    page = erase.render_runs(runs.all_runs(), None)
    assert f'data-do="delete" data-id="{bad.id}"' in page and ">broken<" in page and ">good<" not in page
    assert erase.press_run_button(bad.id, event(do="delete", id=bad.id)) is None
    assert not bad.dir.exists() and runs.broken_runs() == {}
    (good,) = runs.all_runs()
    good.request_stop()
    (good.dir / "lock").unlink()
    block(good.dir / "lock")
    erase.press_run_button(None, event(do="delete", id=good.id))
    assert not good.dir.exists()


def test_a_broken_concept_is_shown_with_delete_and_not_written_over(store):
    path = own_path(library()[BAD])
    path.write_text('{"target": "bad dog", "sense": "animal", "provenance": {"rounds": ' + "9" * 5_000 + "}}")
    page = curate.render_shelf("", "")
    assert f'data-name="{BAD}"' in page and "good dog" in page
    with pytest.raises(CrceError, match="Delete it in the library first"):
        drafts.create("bad dog", "object", "animal")
    assert "9" * 5_000 in path.read_text()
    assert BAD not in curate.delete_broken("", drafts.open_concept(GOOD), event(name=path.stem))
    assert not path.exists()


def test_a_broken_talk_and_history_are_shown_with_delete_and_not_written_over(store):
    opened = drafts.open_concept(BAD)
    talk, history = store / "talks" / f"{BAD}.json", store / "history" / f"{BAD}.json"
    for path in (talk, history):
        path.write_text("[" * 100_000)
    assert "Delete the chat" in curate_chat.render_chat(opened.spec)
    assert "Delete the earlier states" in curate.render_head(opened)
    with pytest.raises(CrceError, match="cannot be read"):
        transcript.say(opened.spec, "more")
    transcript.remember(opened.slug, limit=32)
    opened = drafts.change(opened, lambda spec: replace(spec, corefs=spec.corefs[:2]))
    assert len(drafts.read(opened.slug).corefs) == 2
    assert talk.read_text() == history.read_text() == "[" * 100_000
    curate_chat.press_button(opened, {"do": "forget"})
    curate.press_concept_button(opened, "", event(do="forget"))
    assert not talk.exists() and not history.exists()
    assert transcript.say(opened.spec, "more") == 1


# Settings are whole when they are made


@pytest.mark.parametrize("name", [f.name for f in fields(EraseConfig)])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, "3", True, [], 2.5, -1])
def test_a_setting_is_checked_when_it_is_made(name, value):
    """Only the steps, the rate and the damping may be left open; and what takes anything else says so by its name."""
    fine = {"until_gone": [True], "lr": [None], "steps": [None], "damping": [None, 2.5], "anchor": [None, "3"],
            "erase_from": [None, "3"], "eta": [2.5], "guidance": [2.5]}  # fmt: skip
    if value in fine.get(name, []):
        EraseConfig(**{"method": "esd-u", "backbone": "esd-u", name: value})
    else:
        with pytest.raises(CrceError):
            EraseConfig(**{name: value})


def test_settings_that_are_resolved_leave_nothing_open():
    ResolvedConfig(steps=3, lr=0.1, damping=None)
    for name in ("steps", "lr", "eta", "corefs"):
        with pytest.raises(CrceError, match=f"{name} is empty"):
            ResolvedConfig(**{"steps": 3, "lr": 0.1, name: None})


@pytest.mark.parametrize(
    ("field", "label"), [("eta", "Push (η)"), ("corefs", "Names per step (M)"), ("images", "Judge")]
)
@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_number_that_was_cleared_is_told_at_its_field_and_makes_no_run(no_worker, tiny_sd_dir, field, label, value):
    form = {"concept": "dog", "base": str(tiny_sd_dir), "steps": "20", field: value}
    with pytest.raises(gr.Error, match=re.escape(f"{label} is empty")):
        erase.start(**form)
    (told,) = heard(erase.estimate(gr.Request(session_hash="tab"), **form))
    assert f"{label} is empty" in told
    assert runs.all_runs() == []


def test_a_number_that_no_run_can_have_is_told_by_the_name_of_its_field(no_worker, tiny_sd_dir):
    """As it comes from the page: the field itself neither rounds it nor refuses it without its name."""
    fields = erase_form.build_settings()
    wrong = {("corefs", 2.5): r"Names per step \(M\) is 2.5. Enter a whole number.", ("eta", 1e9): r"Push \(η\) is",
             ("seed", -1): "Seed is -1; give", ("retains", -1): r"Neighbours per step \(N\) is -1; give"}  # fmt: skip
    for (name, value), told in wrong.items():
        given = fields[name].preprocess(value)
        with pytest.raises(gr.Error, match=told):
            erase.start(concept="dog", base=str(tiny_sd_dir), steps="20", **{name: given})
    assert runs.all_runs() == []


@pytest.mark.parametrize("images", [5000, -1])
def test_a_start_that_is_refused_leaves_no_run(no_worker, tiny_sd_dir, images):
    with pytest.raises(gr.Error, match=f"Judge is {images}; give"):
        erase.start(concept="dog", base=str(tiny_sd_dir), steps="20", images=images)
    assert list(runs.store().glob("*")) == []
