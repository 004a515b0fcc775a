"""The talk about a concept, on the disk beside its draft: what was asked, what was offered, what was measured.

Whether a change was taken is not written down: the lists say it, also after an undo.
"""

from dataclasses import asdict, replace
from pathlib import Path

from app.session import drafts
from app.session.drafts import Opened
from crce import files
from crce.concepts import edits
from crce.concepts.edits import Change, Revision
from crce.concepts.spec import ConceptSpec, Round, spec_from_dict, spec_to_dict

_REMEMBERED = 100
_EMPTY = {"since": None, "entries": [], "facts": {}}


def read(slug: str) -> dict:
    """entries: the talk, oldest first; since: the lists after the last round; facts: what the model says of terms."""
    path = _path(slug)
    return files.read_json(path) if path.exists() else _EMPTY


def entries(slug: str) -> list[dict]:
    return read(slug)["entries"]


def since(slug: str) -> ConceptSpec | None:
    kept = read(slug)["since"]
    return spec_from_dict(kept) if kept else None


def say(spec: ConceptSpec, wish: str) -> int:
    """Writes down what was asked, before anyone answers. Returns what `answer` must know."""
    talk = read(spec.slug)
    said = [*talk["entries"], {"who": "you", "text": wish}][-_REMEMBERED:]
    _write(spec.slug, {**talk, "since": talk["since"] or spec_to_dict(spec), "entries": said})
    return len(said)


def answer(slug: str, length: int, entry: dict) -> None:
    """Writes down an answer, unless the talk went on without it."""
    talk = read(slug)
    if len(talk["entries"]) == length:
        _write(slug, {**talk, "entries": [*talk["entries"], entry]})


def remember(slug: str, **facts: object) -> None:
    """Keeps what the model said of the terms, for the marks beside them."""
    talk = read(slug)
    _write(slug, {**talk, "facts": {**talk["facts"], **facts}})


def forget(slug: str) -> None:
    _path(slug).unlink(missing_ok=True)


def offer(spec: ConceptSpec, revision: Revision, by: str) -> dict:
    """The entry of a round: what would change in the lists that the proposer was sent."""
    found = edits.changes(spec, revision.spec, revision.why)
    made = asdict(revision.spec.provenance.history[-1]) if found else None
    told = {"by": by, "says": revision.says, "round": made, "before": spec_to_dict(spec)}
    return {"who": "proposer", **told, "changes": edits.to_state(found)}


def choice(specs: list[ConceptSpec], by: str) -> dict:
    """The entry that asks which meaning is meant, or offers another one."""
    return {"who": "senses", "by": by, "specs": [spec_to_dict(spec) for spec in specs]}


def changes(entry: dict) -> list[Change]:
    return edits.from_state(entry["changes"], range(len(entry["changes"])))


def held(spec: ConceptSpec, change: Change) -> bool:
    """Whether the lists are as the change wants them."""
    found = {t.text.casefold(): (kind, t.certainty) for kind in edits.LISTS for t in getattr(spec, kind)}
    here = found.get(change.term.text.casefold(), ("", ""))
    if change.verb == "level":
        return here == (change.kind, change.term.certainty)
    return here[0] == ("" if change.verb == "drop" else change.kind)


def take(opened: Opened, number: int, chosen: int | None = None) -> Opened:
    """The lists with change `chosen` of entry `number`, or with all of its changes that are open."""
    entry = entries(opened.spec.slug)[number]
    offered = changes(entry) if chosen is None else [changes(entry)[chosen]]
    made_by = _round(entry)
    after = drafts.change(opened, lambda spec: _taken(spec, [c for c in offered if not held(spec, c)], made_by))
    return _marked(after)


def take_back(opened: Opened, number: int) -> Opened:
    """The terms of round `number` as they were before it; what was edited by hand elsewhere stays."""
    entry = entries(opened.spec.slug)[number]
    before, made_by = spec_from_dict(entry["before"]), _round(entry)
    touched = {change.term.text.casefold() for change in changes(entry)}
    return _marked(drafts.change(opened, lambda spec: _restored(spec, before, touched, made_by)))


def _round(entry: dict) -> Round:
    return Round(**{**entry["round"], "changes": ()})


def _taken(spec: ConceptSpec, taken: list[Change], made_by: Round) -> ConceptSpec:
    """Parts of one round, taken one after the other, are one round of the history."""
    spec = edits.with_expert_edits(spec, since(spec.slug) or spec)
    spec, earlier = _without_round(spec, made_by)
    after = edits.apply(spec, taken, made_by)
    *history, last = after.provenance.history
    whole = replace(last, changes=(*earlier, *last.changes))
    return replace(after, provenance=replace(after.provenance, history=(*history, whole)))


def _restored(spec: ConceptSpec, before: ConceptSpec, touched: set[str], made_by: Round) -> ConceptSpec:
    back = [change for change in edits.changes(spec, before) if change.term.text.casefold() in touched]
    lists = edits.apply(spec, back, made_by)
    unsaid, _ = _without_round(spec, made_by)
    made = replace(unsaid.provenance, reviewer="", model=before.provenance.model)
    return replace(lists, provenance=replace(made, prompt_version=before.provenance.prompt_version))


def _without_round(spec: ConceptSpec, made_by: Round) -> tuple[ConceptSpec, tuple[str, ...]]:
    """The spec as if the last round had not been, and that round's changes; as it is where the last was another."""
    *earlier, last = spec.provenance.history or (Round("expert"),)
    if replace(last, changes=()) != made_by:
        return spec, ()
    count = spec.provenance.rounds - bool(made_by.wish)
    return replace(spec, provenance=replace(spec.provenance, rounds=count, history=tuple(earlier))), last.changes


def _marked(after: Opened) -> Opened:
    """From here on, what differs from the lists is the expert's own edit."""
    if not after.stale:
        _write(after.slug, {**read(after.slug), "since": spec_to_dict(after.spec)})
    return after


def _write(slug: str, talk: dict) -> None:
    files.write_json(_path(slug), talk)


def _path(slug: str) -> Path:
    return files.home() / "talks" / f"{slug}.json"
