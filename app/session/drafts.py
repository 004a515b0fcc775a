"""Specs on their way: every change is on the disk at once, with the former state for undo.

A page knows what it has read (`Opened.seen`). Where the disk holds something else by then, another window was
faster: nothing is saved before the person at the page has chosen.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from crce import files
from crce.concepts.library import library, own_path, parse_spec, save_spec
from crce.concepts.spec import ConceptSpec, Provenance, spec_from_dict, spec_to_dict
from crce.errors import CrceError

FIRST = "dog"
_REMEMBERED = 100


@dataclass(frozen=True)
class Opened:
    """A concept on a page: as it was read from the disk, and as the page shows it."""

    seen: ConceptSpec | None = None
    mine: ConceptSpec | None = None

    @property
    def slug(self) -> str:
        return self.mine.slug if self.mine else ""

    @property
    def spec(self) -> ConceptSpec:
        """Raises CrceError before a page has opened its concept."""
        if self.mine is None:
            raise CrceError("The lists are still being opened. Try again in a moment; what you typed is kept.")
        return self.mine

    @property
    def theirs(self) -> ConceptSpec | None:
        """What lies on the disk now; None where the concept was deleted."""
        return library().get(self.slug)

    @property
    def stale(self) -> bool:
        """Whether another window has changed the concept since this page read it."""
        return self.seen != self.theirs


def show(slug: str) -> Opened:
    spec = read(slug) if slug else None
    return Opened(spec, spec)


def settled(opened: Opened) -> ConceptSpec:
    """The lists on screen, as they lie on the disk. Raises CrceError while two versions wait for a choice."""
    if opened.spec and opened.stale:
        raise CrceError("Another window changed these lists. Choose in Curate which version holds, then go on.")
    return opened.spec


def read(slug: str) -> ConceptSpec:
    """Raises CrceError for a concept that is gone."""
    specs = library()
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


def change(opened: Opened, edit: Callable[[ConceptSpec], ConceptSpec]) -> Opened:
    """Saves what `edit` makes of the draft; on a stale page it only shows it, for the person to choose.

    A review holds for what was reviewed, so a change ends it.
    """
    before = opened.spec
    after = edit(before)
    if after == before:
        return opened
    if after.provenance == before.provenance:
        after = replace(after, provenance=replace(before.provenance, reviewer=""))
    return Opened(opened.seen, _checked(after)) if opened.stale else _save(after, before)


def keep_mine(opened: Opened) -> Opened:
    """Puts what the page shows in the place of what another window saved; one undo brings that back."""
    return _save(opened.spec, opened.theirs)


def keep_copy(opened: Opened) -> Opened:
    """What the page shows, as a concept of its own beside the other."""
    spec, taken = opened.spec, library()
    senses = (f"{spec.sense} copy {number}".strip() for number in count(1))
    copies = (replace(spec, sense=sense) for sense in senses)
    return _save(next(copy for copy in copies if copy.slug not in taken), None)


def undo(opened: Opened) -> Opened:
    return _step(opened, "past", "future")


def redo(opened: Opened) -> Opened:
    return _step(opened, "future", "past")


def steps(slug: str) -> tuple[int, int]:
    """How many changes can be undone and redone."""
    history = _history(slug)
    return len(history["past"]), len(history["future"])


def discard(opened: Opened) -> Opened:
    """Removes the user's own version; opens the shipped one behind it, or the first concept."""
    if opened.stale:
        return opened
    own_path(opened.spec).unlink(missing_ok=True)
    _history_path(opened.slug).unlink(missing_ok=True)
    return show(open_or_first(opened.slug))


def former(slug: str) -> ConceptSpec | None:
    """The draft before its last change."""
    past = _history(slug)["past"]
    return spec_from_dict(past[-1]) if past else None


def is_own(spec: ConceptSpec) -> bool:
    return own_path(spec).exists()


def reviewed(spec: ConceptSpec, reviewer: str) -> ConceptSpec:
    if not reviewer.strip():
        raise CrceError("Write your name: it stands in the dataset as the reviewer of this concept.")
    facts: Provenance = replace(spec.provenance, reviewer=reviewer.strip())
    return replace(spec, provenance=facts)


def _save(after: ConceptSpec, before: ConceptSpec | None) -> Opened:
    save_spec(after, own_path(after))
    past = [*_history(after.slug)["past"], *([spec_to_dict(before)] if before else [])]
    _remember(after.slug, past=past[-_REMEMBERED:], future=[])
    return show(after.slug)


def _checked(spec: ConceptSpec) -> ConceptSpec:
    """The spec. Raises CrceError where saving it would."""
    return parse_spec(json.dumps(spec_to_dict(spec)), f"{spec.slug}.json")


def _step(opened: Opened, source: str, other: str) -> Opened:
    history = _history(opened.spec.slug)
    if opened.stale or not history[source]:
        return opened
    spec = spec_from_dict(history[source].pop())
    history[other].append(spec_to_dict(opened.spec))
    save_spec(spec, own_path(spec))
    _remember(opened.slug, **history)
    return show(opened.slug)


def _history_path(slug: str) -> Path:
    return files.home() / "history" / f"{slug}.json"


def _history(slug: str) -> dict:
    path = _history_path(slug)
    return files.read_json(path) if path.exists() else {"past": [], "future": []}


def _remember(slug: str, past: list, future: list) -> None:
    files.write_json(_history_path(slug), {"past": past, "future": future})
