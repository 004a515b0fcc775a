"""Specs on their way: every change is on the disk at once, with the former state for undo."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from crce import files
from crce.concepts import ConceptSpec, Provenance, spec_from_dict, spec_to_dict
from crce.errors import CrceError
from crce.library import SHIPPED, library, own_path, save_spec

FIRST = "dog"
_REMEMBERED = 100


def read(slug: str) -> ConceptSpec:
    """Raises CrceError before a page has opened its concept, and for one that is gone."""
    specs = library()
    if not slug:
        raise CrceError("The lists are still being opened. Try again in a moment; what you typed is kept.")
    if slug not in specs:
        raise CrceError(f"There is no concept {slug!r} any more. Choose another in the list.")
    return specs[slug]


def open_or_first(slug: str | None) -> str:
    specs = library()
    return slug if slug in specs else FIRST if FIRST in specs else next(iter(specs), "")


def create(target: str, category: str, sense: str) -> ConceptSpec:
    """A new, empty draft. Raises CrceError for a name that is taken or empty."""
    spec = ConceptSpec(target=target.strip(), category=category, sense=sense.strip())
    if spec.slug in library():
        raise CrceError(f"The library has {spec.name!r} already: choose it there, or say which sense is new.")
    save_spec(spec, own_path(spec))
    return spec


def change(slug: str, edit: Callable[[ConceptSpec], ConceptSpec]) -> ConceptSpec:
    """Saves what `edit` makes of the draft. A review holds for what was reviewed, so a change ends it."""
    before = read(slug)
    after = edit(before)
    if after == before:
        return before
    if after.provenance == before.provenance:
        after = replace(after, provenance=replace(before.provenance, reviewer=""))
    save_spec(after, own_path(after))
    past = [*_history(slug)["past"], spec_to_dict(before)][-_REMEMBERED:]
    _remember(slug, past=past, future=[])
    return after


def undo(slug: str) -> ConceptSpec:
    return _step(slug, "past", "future")


def redo(slug: str) -> ConceptSpec:
    return _step(slug, "future", "past")


def steps(slug: str) -> tuple[int, int]:
    """How many changes can be undone and redone."""
    history = _history(slug)
    return len(history["past"]), len(history["future"])


def discard(slug: str) -> bool:
    """Removes the user's own version. True when a shipped one stands behind it."""
    spec = read(slug)
    own_path(spec).unlink(missing_ok=True)
    _history_path(slug).unlink(missing_ok=True)
    return slug in library()


def is_own(spec: ConceptSpec) -> bool:
    return own_path(spec).exists()


def is_shipped(spec: ConceptSpec) -> bool:
    return (SHIPPED / spec.category / f"{spec.slug}.json").exists()


def reviewed(spec: ConceptSpec, reviewer: str) -> ConceptSpec:
    if not reviewer.strip():
        raise CrceError("Write your name: it stands in the dataset as the reviewer of this concept.")
    facts: Provenance = replace(spec.provenance, reviewer=reviewer.strip())
    return replace(spec, provenance=facts)


def _step(slug: str, source: str, other: str) -> ConceptSpec:
    history = _history(slug)
    if not history[source]:
        return read(slug)
    spec = spec_from_dict(history[source].pop())
    history[other].append(spec_to_dict(read(slug)))
    save_spec(spec, own_path(spec))
    _remember(slug, **history)
    return spec


def _history_path(slug: str) -> Path:
    return files.home() / "history" / f"{slug}.json"


def _history(slug: str) -> dict:
    path = _history_path(slug)
    return files.read_json(path) if path.exists() else {"past": [], "future": []}


def _remember(slug: str, past: list, future: list) -> None:
    files.write_json(_history_path(slug), {"past": past, "future": future})
