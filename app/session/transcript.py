"""The chat about a concept, saved beside it: what was requested, offered and measured.

Whether a change was accepted is not saved: the lists show it, also after an undo.
"""

from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from app.session import drafts
from app.session.drafts import OpenConcept
from crce import files
from crce.concepts import edits
from crce.concepts.edits import Change, Revision
from crce.concepts.library import read_spec
from crce.concepts.spec import ConceptSpec, Round, spec_from_dict, spec_to_dict
from crce.errors import CrceError
from crce.records import UNREADABLE, parse
from crce.text import require_plain

_REMEMBERED = 100
_EMPTY: dict[str, Any] = {"since": None, "entries": [], "facts": {}}
_Spec = Annotated[Any, BeforeValidator(lambda facts: read_spec(facts, "concept"))]


# What a talk's file has, for the check alone.


@dataclass(frozen=True)
class _Said:
    who: Literal["you", "note", "trouble"]
    text: str


@dataclass(frozen=True)
class _Change:
    verb: Literal["drop", "add", "move", "level"]
    kind: Literal["corefs", "retains"]
    term: dict[str, str]
    why: str


@dataclass(frozen=True)
class _Offer:
    who: Literal["proposer"]
    by: str
    says: str
    before: _Spec
    changes: list[_Change]


@dataclass(frozen=True)
class _Choice:
    who: Literal["senses"]
    by: str
    specs: list[_Spec]


@dataclass(frozen=True)
class _Facts:
    __pydantic_config__ = ConfigDict(extra="forbid")
    tokens: dict[str, int] = field(default_factory=dict)
    limit: int = 77
    drawn: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Talk:
    since: Annotated[Any, BeforeValidator(lambda facts: facts and read_spec(facts, "concept"))]
    entries: list[Annotated[_Said | _Offer | _Choice, Field(discriminator="who")]]
    facts: _Facts


def read(slug: str) -> dict:
    """entries: the chat, oldest first; since: the lists after the last round; facts: what was measured of the terms.

    Empty where there is none, and for a file that cannot be read: `is_broken` tells.
    """
    try:
        return _read(slug)
    except FileNotFoundError:
        return _EMPTY
    except UNREADABLE:
        return _EMPTY


def is_broken(slug: str) -> bool:
    """Whether the chat was saved and cannot be read."""
    try:
        _read(slug)
    except FileNotFoundError:
        return False
    except UNREADABLE:
        return True
    return False


def _read(slug: str) -> dict:
    """Raises OSError, and one of UNREADABLE."""
    path = _path(slug)
    found = path.stat()
    return _load(path, found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _load(path: Path, *state: int) -> dict:
    talk = files.read_json(path)
    parse(_Talk, talk, path.name)
    for entry in talk["entries"]:
        if entry["who"] == "proposer":
            _ = read_changes(entry), entry["round"] and _read_round(entry)
    return talk


def read_entries(slug: str) -> list[dict]:
    return read(slug)["entries"]


def read_since(slug: str) -> ConceptSpec | None:
    kept = read(slug)["since"]
    return spec_from_dict(kept) if kept else None


def say(spec: ConceptSpec, request: str) -> int:
    """Saves a request before anyone answers. Returns the length of the chat, which `answer` needs.

    Raises CrceError for control characters, and for a chat that cannot be read.
    """
    require_plain(request, "The request", lines=True)
    if is_broken(spec.slug):
        raise CrceError("The chat about this concept cannot be read. Delete it beside the lists, then try again.")
    talk = read(spec.slug)
    said = [*talk["entries"], {"who": "you", "text": request}][-_REMEMBERED:]
    _write(spec.slug, {**talk, "since": talk["since"] or spec_to_dict(spec), "entries": said})
    return len(said)


def answer(slug: str, length: int, entry: dict) -> None:
    """Saves an answer, unless the chat has moved on."""
    talk = read(slug)
    if len(talk["entries"]) == length:
        _write(slug, {**talk, "entries": [*talk["entries"], entry]})


def remember(slug: str, **facts: object) -> None:
    """Saves what was measured of the terms, for the warnings beside them."""
    talk = read(slug)
    if not is_broken(slug):
        _write(slug, {**talk, "facts": {**talk["facts"], **facts}})


def forget(slug: str) -> None:
    files.remove(_path(slug))


def build_offer(spec: ConceptSpec, revision: Revision, by: str) -> dict:
    """The entry of a round: the changes that the proposer offers to the lists it was sent."""
    found = edits.changes(spec, revision.spec, revision.why)
    made = asdict(revision.spec.provenance.history[-1]) if found else None
    told = {"by": by, "says": revision.says, "round": made, "before": spec_to_dict(spec)}
    return {"who": "proposer", **told, "changes": edits.to_state(found)}


def build_choice(specs: list[ConceptSpec], by: str) -> dict:
    """The entry that asks which sense is meant, or offers another one."""
    return {"who": "senses", "by": by, "specs": [spec_to_dict(spec) for spec in specs]}


def read_changes(entry: dict) -> list[Change]:
    return edits.from_state(entry["changes"], list(range(len(entry["changes"]))))


def is_applied(spec: ConceptSpec, change: Change) -> bool:
    """Whether the lists already contain the change."""
    found = {t.text.casefold(): (kind, t.certainty) for kind in edits.LISTS for t in getattr(spec, kind)}
    here = found.get(change.term.text.casefold(), ("", ""))
    if change.verb == "level":
        return here == (change.kind, change.term.certainty)
    return here[0] == ("" if change.verb == "drop" else change.kind)


def take(opened: OpenConcept, number: int, chosen: int | None = None) -> OpenConcept:
    """Accepts change `chosen` of entry `number`, or all of its open changes."""
    entry = read_entries(opened.spec.slug)[number]
    offered = read_changes(entry) if chosen is None else [read_changes(entry)[chosen]]
    made_by = _read_round(entry)

    def accept(spec: ConceptSpec) -> ConceptSpec:
        return _apply_changes(spec, [change for change in offered if not is_applied(spec, change)], made_by)

    return _mark_baseline(drafts.change(opened, accept))


def take_back(opened: OpenConcept, number: int) -> OpenConcept:
    """Undoes round `number`. What was edited by hand on other terms stays."""
    entry = read_entries(opened.spec.slug)[number]
    before, made_by = spec_from_dict(entry["before"]), _read_round(entry)
    touched = {change.term.text.casefold() for change in read_changes(entry)}
    return _mark_baseline(drafts.change(opened, lambda spec: _restore(spec, before, touched, made_by)))


def _read_round(entry: dict) -> Round:
    return Round(**{**entry["round"], "changes": ()})


def _apply_changes(spec: ConceptSpec, taken: list[Change], made_by: Round) -> ConceptSpec:
    """Changes of one round that are accepted one by one stay one round of the history."""
    spec = edits.with_expert_edits(spec, read_since(spec.slug) or spec)
    spec, earlier = _remove_round(spec, made_by)
    after = edits.apply(spec, taken, made_by)
    *history, last = after.provenance.history
    whole = replace(last, changes=(*earlier, *last.changes))
    return replace(after, provenance=replace(after.provenance, history=(*history, whole)))


def _restore(spec: ConceptSpec, before: ConceptSpec, touched: set[str], made_by: Round) -> ConceptSpec:
    back = [change for change in edits.changes(spec, before) if change.term.text.casefold() in touched]
    lists = edits.apply(spec, back, made_by)
    unsaid, _ = _remove_round(spec, made_by)
    made = replace(unsaid.provenance, reviewer="", model=before.provenance.model)
    return replace(lists, provenance=replace(made, prompt_version=before.provenance.prompt_version))


def _remove_round(spec: ConceptSpec, made_by: Round) -> tuple[ConceptSpec, tuple[str, ...]]:
    """The spec without its last round, and that round's changes; unchanged if the last round is another one."""
    *earlier, last = spec.provenance.history or (Round("expert"),)
    if replace(last, changes=()) != made_by:
        return spec, ()
    count = spec.provenance.rounds - bool(made_by.wish)
    return replace(spec, provenance=replace(spec.provenance, rounds=count, history=tuple(earlier))), last.changes


def _mark_baseline(after: OpenConcept) -> OpenConcept:
    """From here on, any difference from these lists is the expert's own edit."""
    if not after.stale:
        _write(after.slug, {**read(after.slug), "since": spec_to_dict(after.spec)})
    return after


def _write(slug: str, talk: dict) -> None:
    files.write_json(_path(slug), talk)


def _path(slug: str) -> Path:
    return files.desk() / "talks" / f"{slug}.json"
