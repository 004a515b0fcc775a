"""Hostile inputs wherever a person's text, table, form, file or path is read: understood, or one clear error."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.session import drafts
from app.tabs.erase_form import EraseForm
from benchmarks.torture.attack import Case, describe, own_home
from crce import runs
from crce.concepts import csv_json, edits
from crce.concepts.library import find_concept, library, load_spec, own_path, parse_spec, save_spec
from crce.concepts.spec import ConceptSpec, spec_to_dict
from crce.config import resolve_config
from crce.errors import CrceError

ODD = (
    "", " ", "\n", "\0", "\x1b[2J", "\u202edog", "\u200b", "\u200d", "\ufeff", "\ud800", "é", "e\u0301", "ﬁ", "猫",
    "🐕\u200d🦺", "C#", "C++", "..", "../../etc/passwd", "/dev/null", "con", "a/b", "a\\b", "~", "$HOME", "`id`", "%00",
    "<script>alert(1)</script>", "'\"><img src=x>", "{{7*7}}", "=1+1", "+1", "-1", "@SUM(A1)", "sep=;", "a;b,c\td", '"',
    "null", "NaN", "1e999", "-0", "0x10", "1_000", "٣", "½", "true", "[]", "{}", "x" * 201, "x" * 5000, "dog", "DOG",
    "dog (animal)", "Washington, D.C.", "a" + "\u0301" * 300, "\u2028", "\t", "a\r\nb", "--help", "-", "*", "?", "\x7f",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**63, 10**400, 1.5, -0.0, float("nan"), float("inf"), [], {}, [[]], {"a": 1}
)  # fmt: skip
OPEN = ("anchor", "erase_from", "damping")  # settings that a run may leave to the method
DEEP = "[" * 50_000


@contextmanager
def open_inputs() -> Iterator[Case]:
    with own_home() as home:
        kinds: tuple[Callable[[random.Random, Path], object], ...] = (
            _term, _name, _pasted, _spec, _table, _form, _path, _run, _file,
        )  # fmt: skip

        def feed(number: int, met: Counter[str]) -> str | None:
            rng = random.Random(number)
            kind = kinds[number % len(kinds)]
            name = kind.__name__.strip("_")
            try:
                kind(rng, home)
                met[f"{name}: understood"] += 1
            except CrceError as error:
                met[f"{name}: refused"] += 1
                return None if str(error).strip() else f"{name}: an error without a word"
            except Exception as error:
                return f"{name}: {describe(error)}"
            return None

        yield feed


def _text(rng: random.Random) -> str:
    """Odd texts, joined, and any characters at all."""
    if rng.random() < 0.2:
        return "".join(chr(rng.choice((rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x110000))))
                       for _ in range(rng.randrange(20)))  # fmt: skip
    return rng.choice(("", " ", "-")).join(rng.choice(ODD) for _ in range(rng.randint(1, 3)))


def _keeps(spec: ConceptSpec) -> None:
    """What is taken is found again as it was, in a file of its own below the person's folder."""
    path = own_path(spec)
    save_spec(spec, path)
    kept = load_spec(path)
    assert kept == parse_spec(json.dumps(spec_to_dict(spec)), "spec"), "another concept came back"
    assert path.resolve().is_relative_to((drafts.files.desk() / "concepts").resolve()), f"written to {path}"
    assert find_concept(kept.name) == kept or kept.name.endswith(".json"), "the name finds another concept"
    path.unlink()


def _term(rng: random.Random, home: Path) -> None:
    dog = find_concept("dog")
    _keeps(edits.with_terms(ConceptSpec("thing", retains=dog.retains), "corefs", [_text(rng) for _ in range(3)]))


def _name(rng: random.Random, home: Path) -> None:
    spec = drafts.create(_text(rng), "object", _text(rng) if rng.random() < 0.5 else "")
    assert drafts.read(spec.slug) == spec, "another concept was opened"
    own_path(spec).unlink()


def _pasted(rng: random.Random, home: Path) -> None:
    typed = rng.choice((",", ";", "\n")).join(_text(rng) for _ in range(rng.randint(1, 30)))
    _keeps(edits.with_terms(ConceptSpec("thing"), "retains", edits.split_phrases(typed)))


def _mutate(rng: random.Random, value: object) -> object:
    """A JSON value with something else at one place of it."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        changed = {**value, key: _mutate(rng, value[key])}
        if rng.random() < 0.15:
            changed[_text(rng)] = changed.pop(key)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        return [*value[:place], _mutate(rng, value[place]), *value[place + rng.choice((0, 1)) :]]
    return _text(rng) if rng.random() < 0.5 else rng.choice(VALUES)


def damage_text(rng: random.Random, text: str) -> str:
    """A JSON text that is changed in its values or in its letters."""
    way = rng.randrange(8)
    if way < 5:
        return json.dumps(_mutate(rng, json.loads(text)))
    start = rng.randrange(len(text) + 1)
    return (text[:start], DEEP, text[:start] + _text(rng) + text[start + 1 :])[way - 5]


def _spec(rng: random.Random, home: Path) -> None:
    _keeps(parse_spec(damage_text(rng, csv_json.to_json(find_concept("dog"))), "spec.json"))


def _table(rng: random.Random, home: Path) -> None:
    lines = csv_json.to_csv(find_concept("dog")).splitlines()
    for _ in range(rng.randint(1, 4)):
        cells = lines[place := rng.randrange(len(lines))].split(",")
        cells[rng.randrange(len(cells))] = _text(rng)
        lines[place] = rng.choice((",", ",", ";", "\t")).join(cells)
    path = home / "table.csv"
    data = rng.choice(("", "", "\ufeff", "sep=;\n")) + rng.choice(("\n", "\r\n")).join(lines)
    path.write_bytes(data.encode(rng.choice(("utf-8", "utf-8", "utf-16", "latin-1")), errors="replace"))
    dog = find_concept("dog")
    spec = csv_json.from_csv(dog, csv_json.read_text(path), path.name)
    again = csv_json.from_csv(spec, csv_json.to_csv(spec), "again.csv")
    assert (again.corefs, again.retains) == (spec.corefs, spec.retains), "a table that is exported comes back otherwise"


def _form(rng: random.Random, home: Path) -> None:
    """The arguments of Start, with some of them cleared, odd, or of another kind than the component gives."""
    fields = vars(EraseForm(concept="dog"))
    odd = (None, "", "abc", "nan", "inf", "-1", "1e9", *VALUES)
    changed = {name: rng.choice(odd) for name in rng.sample(list(fields), rng.randint(1, 3)) if name != "together"}
    numbers = {name for name, value in fields.items() if isinstance(value, int | float)}
    # Gradio makes texts of what comes from a text field, and lets only numbers through from a number's.
    fits = {
        name: value if value is None or name in numbers else str(value)
        for name, value in changed.items()
        if value is None or name not in numbers or isinstance(value, int | float)
    }
    form = EraseForm.from_values({**fields, **fits})
    if form.base != EraseForm.base:
        return
    job = form.to_job()
    settings = resolve_config(job.config, job.base)
    assert all(value is not None for name, value in vars(settings).items() if name not in OPEN)
    json.dumps([vars(settings)], allow_nan=False)


def _path(rng: random.Random, home: Path) -> None:
    find_concept(_text(rng) + rng.choice(("", ".json")))


def _run(rng: random.Random, home: Path) -> None:
    name = _text(rng)
    run = runs.find(name)
    raise AssertionError(f"{name!r} finds {run.dir}")


def _file(rng: random.Random, home: Path) -> None:
    """Any bytes as a spec file and as a run, in the library too."""
    path = home / "concepts" / "object" / "odd.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rng.choice((rng.randbytes(rng.randrange(300)), b"\xef\xbb\xbf{}", b"", DEEP.encode())))
    try:
        assert "dog-animal" in library() or "dog" in library(), "the library is gone"
        load_spec(path)
    finally:
        path.unlink()
