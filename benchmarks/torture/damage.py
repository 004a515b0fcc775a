"""Damaged files in run folders, specs and talks: every list and every other run stays, and each can be deleted."""

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.main import SOURCES
from app.news import News
from app.session import drafts, transcript
from app.tabs import compare, curate, erase, start, status_bar
from benchmarks.torture.attack import Case, describe, own_home
from benchmarks.torture.inputs import damage_text
from crce import files, runs
from crce.cli.runs import describe_run
from crce.concepts.library import find_concept, library, own_path, save_spec
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.files import DOCS, ROOT
from crce.runs import Job, Run
from crce.runs.events import CheckpointEvent, DoneEvent, PreviewEvent, StartEvent, StepEvent

IN_RUNS = ("job.json", "events.jsonl", "report.json", "person.json", "evaluate.json", "summary.json", "images", "lock",
           "delta.safetensors", "stop", "resume", "owner")  # fmt: skip
HUGE = "1" + "0" * 5000


@dataclass(frozen=True)
class Home:
    """healthy: a run that must stay in every list; example: a whole run, copied for each case."""

    healthy: Run
    example: Path


@contextmanager
def open_damage() -> Iterator[Case]:
    with own_home() as home:
        place = _furnish(home)

        def damage(number: int, met: Counter[str]) -> str | None:
            rng = random.Random(number)
            what, fault = (_in_run, _in_run, _in_spec, _in_talk)[number % 4](rng, place)
            met[what] += 1
            return f"{what}: {fault}" if fault else None

        yield damage


def _furnish(home: Path) -> Home:
    dog = find_concept("dog")
    healthy, example = (runs.create(Job("emoji-sd", dog, EraseConfig())) for _ in range(2))
    for event in (
        StartEvent(1), StepEvent(3, 3, {"target": 0.1}), CheckpointEvent(3),
        PreviewEvent(3, ("dog",), (0,), ("images/a.png",)), DoneEvent(4.0),
    ):  # fmt: skip
        healthy.record(event)
        example.record(event)
    (report,) = (ROOT / "tests" / "data").glob("*/done/report.json")
    for run in (healthy, example):
        shutil.copy(report, run.dir / "report.json")
        (run.dir / "person.json").write_text(
            '[{"text": "dog", "asked": "dog", "seed": 0, "after": true, "answer": "yes"}]'
        )
        (run.dir / "images").mkdir()
        shutil.copy(DOCS / "figures" / "dog.png", run.dir / "images" / "a.png")
        (run.dir / "delta.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    kept = Path(shutil.move(example.dir, home / "example"))
    (kept / "evaluate.json").write_text('{"images": 2}')
    return Home(healthy, kept)


def _spoil(rng: random.Random, path: Path) -> str:
    """Damages one file; says how."""
    data = path.read_bytes() if path.is_file() else b""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    ways = ["cut", "bits", "empty", "bytes", "folder", "link", "gone", "huge", "plain", "values", "values", "values"]
    way = rng.choice(ways)
    match way:
        case "cut":
            path.write_bytes(data[: rng.randrange(len(data) + 1)])
        case "bits":
            noisy = bytearray(data or b"\0")
            for _ in range(rng.randint(1, 8)):
                noisy[rng.randrange(len(noisy))] ^= 1 << rng.randrange(8)
            path.write_bytes(noisy)
        case "empty":
            path.touch()
        case "bytes":
            path.write_bytes(rng.randbytes(200))
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(path.name)
        case "huge":
            path.write_text(data.decode(errors="replace").replace("0", HUGE, 1))
        case "plain":
            path.write_text(rng.choice(("5", "null", "[]", "{}", '"x"', "true", "[[[]]]", "[" * 50_000)))
        case "values":
            path.write_text(_damage_values(rng, data))
    return way


def _damage_values(rng: random.Random, data: bytes) -> str:
    """Each JSON line, or the whole file, with other values."""
    text = data.decode(errors="replace")
    try:
        json.loads(text)
        return damage_text(rng, text)
    except ValueError:
        pass
    lines = text.splitlines() or ["{}"]
    place = rng.randrange(len(lines))
    with suppress(ValueError):
        lines[place] = damage_text(rng, lines[place])
    return "\n".join(lines) + "\n"


def _in_run(rng: random.Random, place: Home) -> tuple[str, str | None]:
    folder = runs.store() / f"20260801-093015-dog-{rng.randrange(1 << 16):04x}"
    shutil.copytree(place.example, folder)
    names = rng.sample(IN_RUNS, rng.choice((1, 1, 2)))
    for name in names:
        _spoil(rng, folder / name)
    fault = _look(place.healthy) or _use(Run(folder)) or _delete(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return f"run, {' and '.join(sorted(names))}", fault


def _in_spec(rng: random.Random, place: Home) -> tuple[str, str | None]:
    dog = find_concept("dog")
    path = own_path(dog)
    save_spec(dog, path)
    _spoil(rng, path)
    fault = _look(place.healthy) or (None if len(library()) >= 50 else "concepts are gone")
    _clear(path)
    return "spec", fault


def _in_talk(rng: random.Random, place: Home) -> tuple[str, str | None]:
    slug = find_concept("dog").slug
    folder = rng.choice(("talks", "history"))
    opened = drafts.open_concept(slug)
    changed = drafts.change(opened, lambda spec: spec.__class__(**{**vars(spec), "corefs": spec.corefs[1:]}))
    transcript.say(changed.spec, "more corefs")
    path = files.desk() / folder / f"{slug}.json"
    _spoil(rng, path)
    fault = _look(place.healthy) or _try(lambda: curate.render_all(drafts.open_concept(slug)), "the curator's page")
    for each in (own_path(opened.spec), *(files.desk() / name / f"{slug}.json" for name in ("talks", "history"))):
        _clear(each)
    return folder, fault


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _look(healthy: Run) -> str | None:
    """Every list of the page, as any visitor has it."""
    pages: dict[str, Callable[[], object]] = {
        "what is new": News(SOURCES).read,
        "the list of runs": lambda: erase.refresh(None, erase.Seen()),
        "the status line": status_bar.render_status,
        "the start page": lambda: (start.follow_trial(None, -1), start.estimate_time(), start.render_shelf()),
        "the choices of Compare": compare.list_choices,
        "the time of an evaluation": lambda: compare.estimate_time([healthy.id], 4),
        "the library": lambda: curate.render_all(drafts.open_concept(drafts.find_slug("cat"))),
    }
    for name, page in pages.items():
        if fault := _try(page, name):
            return fault
    return None if healthy in runs.all_runs() else "another run is gone from the list"


def _use(run: Run) -> str | None:
    """What a person may do with the damaged run; each does it or says in one error why not."""
    deeds: dict[str, Callable[[], object]] = {
        "details": lambda: erase.refresh(run.id, erase.Seen()),
        "the command line's list": lambda: describe_run(runs.find(run.id)),
        "stop": lambda: runs.find(run.id).request_stop(),
        "resume": lambda: runs.find(run.id).request_resume(),
        "compare": lambda: compare.render_scores([run.id]),
    }
    return next((fault for name, deed in deeds.items() if (fault := _try(deed, name))), None)


def _delete(folder: Path) -> str | None:
    """Also a run that cannot be read is deleted."""
    return _try(lambda: Run(folder).delete(), "delete") or ("delete left it there" if os.path.lexists(folder) else None)


def _try(deed: Callable[[], object], name: str) -> str | None:
    """None if it is done or says why not; the app's handlers turn such errors into messages."""
    import gradio as gr

    try:
        deed()
    except CrceError:
        return None
    except gr.Error as error:
        return f"{name}: {error.message}" if "unexpected error" in error.message.casefold() else None
    except Exception as error:
        return f"{name}: {describe(error)}"
    return None
