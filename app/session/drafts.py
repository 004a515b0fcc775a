"""Concepts being edited: every change is saved at once, with the previous state for undo.

A page knows the version it has read (`OpenConcept.seen`). If the disk now holds another one, another window was
faster: nothing is saved until the user has chosen between the two.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from pathlib import Path

from app.session import people
from crce import files
from crce.concepts import reviews
from crce.concepts.library import broken_concepts, library, own_path, parse_spec, read_spec, save_spec
from crce.concepts.spec import ConceptSpec, spec_from_dict, spec_to_dict
from crce.errors import CrceError
from crce.records import UNREADABLE

FIRST = "dog"
# The fields of a spec, as the page calls them.
_FIELDS = {
    r"\btarget is \"\"": "the concept has no name",
    r"\btarget is\b": "the concept's name is",
    r"\bcorefs\[\d+\]\.text": "a name to erase",
    r"\bretains\[\d+\]\.text": "a term to keep",
    r"\b(?:corefs|retains)\[\d+\]\.": "a term's ",
    r"\bcorefs has\b": "the list to erase has",
    r"\bretains has\b": "the list to keep has",
    r"\bprovenance\.": "the ",
}
_REMEMBERED = 100


@dataclass(frozen=True)
class OpenConcept:
    """A concept on a page: as it was read from disk (`seen`), and as the page shows it (`mine`)."""

    seen: ConceptSpec | None = None
    mine: ConceptSpec | None = None

    @property
    def slug(self) -> str:
        return self.mine.slug if self.mine else ""

    @property
    def spec(self) -> ConceptSpec:
        """What the page shows. Raises CrceError before the page has opened a concept."""
        if self.mine is None:
            raise CrceError("The lists are still being opened. Try again in a moment; your input is kept.")
        return self.mine

    @property
    def theirs(self) -> ConceptSpec | None:
        """What is on disk now; None if the concept was deleted."""
        return library().get(self.slug)

    @property
    def stale(self) -> bool:
        """Whether another window has changed the concept since this page read it."""
        return self.seen != self.theirs


def open_concept(slug: str) -> OpenConcept:
    spec = read(slug) if slug else None
    return OpenConcept(spec, spec)


def read(slug: str) -> ConceptSpec:
    """Raises CrceError for a concept that does not exist."""
    specs = library()
    if slug not in specs:
        raise CrceError(f"The concept {slug!r} no longer exists. Choose another one.")
    return specs[slug]


def find_slug(slug: str | None) -> str:
    """The slug if there is such a concept, else that of the first concept."""
    specs = library()
    return slug if slug in specs else FIRST if FIRST in specs else next(iter(specs), "")


def create(target: str, category: str, sense: str) -> ConceptSpec:
    """Saves a new, empty concept. Raises CrceError for an empty name, and for one that is taken but for capitals."""
    spec = ConceptSpec(target=target.strip(), category=category, sense=sense.strip())
    names = {other.name.casefold(): other.name for other in library().values()}
    if there := names.get(spec.name.casefold()):
        raise CrceError(f"The library already has {there!r}. Choose it there, or enter another sense.")
    _require_shelf(_validate(spec))
    _write(spec)
    return spec


def change(opened: OpenConcept, edit: Callable[[ConceptSpec], ConceptSpec]) -> OpenConcept:
    """Applies `edit` and saves the result. A stale page only shows it, until the user has chosen a version.

    A review is void after any change.
    """
    before = opened.spec
    after = edit(before)
    if after == before:
        return opened
    if after.provenance == before.provenance:
        after = replace(after, provenance=replace(before.provenance, reviewer=""))
    return OpenConcept(opened.seen, _validate(after)) if opened.stale else _save(after, before)


def keep_mine(opened: OpenConcept) -> OpenConcept:
    """Replaces what another window saved with what the page shows; one undo brings the other version back."""
    return _save(opened.spec, opened.theirs)


def keep_copy(opened: OpenConcept) -> OpenConcept:
    """Saves what the page shows as a new concept."""
    spec, taken = opened.spec, library()
    senses = (f"{spec.sense} copy {number}".strip() for number in count(1))
    copies = (replace(spec, sense=sense) for sense in senses)
    return _save(next(copy for copy in copies if copy.slug not in taken), None)


def undo(opened: OpenConcept) -> OpenConcept:
    return _step(opened, "past", "future")


def redo(opened: OpenConcept) -> OpenConcept:
    return _step(opened, "future", "past")


def count_steps(slug: str) -> tuple[int, int]:
    """How many changes can be undone, and how many redone."""
    history = _history(slug)
    return len(history["past"]), len(history["future"])


def discard(opened: OpenConcept) -> OpenConcept:
    """Deletes the user's version; opens the shipped one, or the first concept if there is none."""
    if opened.stale:
        return opened
    files.remove(own_path(opened.spec))
    forget_history(opened.slug)
    return open_concept(find_slug(opened.slug))


def read_previous(slug: str) -> ConceptSpec | None:
    """The concept before its last change."""
    past = _history(slug)["past"]
    return spec_from_dict(past[-1]) if past else None


def is_own(spec: ConceptSpec) -> bool:
    return own_path(spec).exists()


def mark_reviewed(spec: ConceptSpec, reviewer: str) -> ConceptSpec:
    if not reviewer.strip():
        raise CrceError("Enter your name: the dataset lists it as the reviewer of this concept.")
    return reviews.sign(spec, reviewer.strip())


def _require_shelf(spec: ConceptSpec) -> None:
    if not is_own(spec):
        people.require_shelf(sum(map(is_own, library().values())))


def _save(after: ConceptSpec, before: ConceptSpec | None) -> OpenConcept:
    _require_shelf(_validate(after))
    _write(after)
    past = [*_history(after.slug)["past"], *([spec_to_dict(before)] if before else [])]
    _remember(after.slug, past=past[-_REMEMBERED:], future=[])
    return open_concept(after.slug)


def _write(spec: ConceptSpec) -> None:
    """Raises CrceError rather than writing over a file that cannot be read."""
    path = own_path(spec)
    if path in broken_concepts():
        raise CrceError(f"Your version of {spec.name!r} cannot be read. Delete it in the library first.")
    save_spec(spec, path)


def _validate(spec: ConceptSpec) -> ConceptSpec:
    """The spec as saving it would leave it. Raises CrceError, in the words of the page, if it cannot be saved."""
    try:
        return parse_spec(json.dumps(spec_to_dict(spec)), spec.name)
    except CrceError as error:
        text = str(error).removeprefix(f"{spec.name}: ")
        for field, words in _FIELDS.items():
            text = re.sub(field, words, text)
        raise CrceError(text[:1].upper() + text[1:]) from None


def _step(opened: OpenConcept, source: str, other: str) -> OpenConcept:
    """One step through the history, from `source` to `other`: its "past" or its "future"."""
    history = {name: [*steps] for name, steps in _history(opened.spec.slug).items()}
    if opened.stale or not history[source]:
        return opened
    spec = spec_from_dict(history[source].pop())
    history[other].append(spec_to_dict(opened.spec))
    _write(spec)
    _remember(opened.slug, **history)
    return open_concept(opened.slug)


def _history_path(slug: str) -> Path:
    return files.desk() / "history" / f"{slug}.json"


def _history(slug: str) -> dict[str, list]:
    """Empty where there is none, and for a file that cannot be read: `has_broken_history` tells."""
    try:
        return _read_history(slug)
    except UNREADABLE:
        return {"past": [], "future": []}


def has_broken_history(slug: str) -> bool:
    """Whether earlier states were saved and cannot be read. Until they are deleted, no others are kept."""
    try:
        _read_history(slug)
    except FileNotFoundError:
        return False
    except UNREADABLE:
        return True
    return False


def forget_history(slug: str) -> None:
    files.remove(_history_path(slug))


def _read_history(slug: str) -> dict[str, list]:
    """Raises OSError, and one of UNREADABLE."""
    path = _history_path(slug)
    found = path.stat()
    return _load_history(path, found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _load_history(path: Path, *state: int) -> dict[str, list]:
    history = files.read_json(path)
    for spec in (*history["past"], *history["future"]):
        read_spec(spec, path.name)
    return {"past": history["past"], "future": history["future"]}


def _remember(slug: str, past: list, future: list) -> None:
    if not has_broken_history(slug):
        files.write_json(_history_path(slug), {"past": past, "future": future})
