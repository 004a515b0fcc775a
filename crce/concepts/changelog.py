"""What changed between two versions of a dataset, by concept; the card keeps it, the newest first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crce.concepts import edits
from crce.concepts.spec import ConceptSpec, Term
from crce.markdown import plain

HEADING = "## Changes"
MOST_LINES, MOST_ENTRIES = 100, 20  # of an entry, and of those that a card keeps


@dataclass(frozen=True)
class ConceptChanges:
    """verb: "new", "removed" or "changed". lines: what changed in its lists, a line for each term."""

    name: str
    verb: str
    lines: tuple[str, ...] = ()


def compare(before: Iterable[ConceptSpec], after: Iterable[ConceptSpec]) -> tuple[ConceptChanges, ...]:
    """The concepts that differ, in the order of their names. Notes and provenance do not count."""
    old, new = ({spec.slug: spec for spec in specs} for specs in (before, after))
    found = [_compare_concept(old.get(slug), new.get(slug)) for slug in sorted({*old, *new})]
    return tuple(change for change in found if change)


def _compare_concept(old: ConceptSpec | None, new: ConceptSpec | None) -> ConceptChanges | None:
    if old is None or new is None:
        there = new or old
        assert there
        count = f"{len(there.corefs)} corefs, {len(there.retains)} retains"
        return ConceptChanges(there.name, "new" if new else "removed", (count,))
    lines = _compare_lists(old, new)
    return ConceptChanges(new.name, "changed", lines) if lines else None


def _compare_lists(old: ConceptSpec, new: ConceptSpec) -> tuple[str, ...]:
    before = _index(old)
    lines = []
    for change in edits.changes(old, new):
        earlier = before.get(change.term.text.casefold())
        lines.append(_describe(change, earlier.certainty if earlier else ""))
    moved = [term for key, term in _index(new).items() if key in before and before[key].split != term.split]
    return (*lines, *(f"split: {term.text} now in {term.split}" for term in moved))


def _describe(change: edits.Change, earlier: str) -> str:
    kind, text, now = change.kind[:-1], change.term.text, change.term.certainty
    told = {
        "add": f"+ {kind}: {text} ({now})", "drop": f"− {kind}: {text}",
        "move": f"⇄ now a {kind}: {text} ({now})", "level": f"~ {kind}: {text} ({earlier} → {now})",
    }  # fmt: skip
    return told[change.verb]


def _index(spec: ConceptSpec) -> Mapping[str, Term]:
    return {term.text.casefold(): term for term in (*spec.corefs, *spec.retains)}


def render(changes: Iterable[ConceptChanges], since: str, card: str) -> str:
    """The section of the card that comes after `card`, with these changes to the version `since` on top.

    Empty if nothing ever changed.
    """
    entries = [*_list_entries(card)]
    if lines := [line for change in changes for line in _render_concept(change)]:
        more = [f"- … and {len(lines) - MOST_LINES} lines more"] if len(lines) > MOST_LINES else []
        entries.insert(0, "\n".join([f"### Since {since[:10]}", "", *lines[:MOST_LINES], *more]))
    return "\n\n".join([HEADING, *entries[:MOST_ENTRIES]]) + "\n" if entries else ""


def _render_concept(change: ConceptChanges) -> list[str]:
    head = f"- **{plain(change.name)}**, {change.verb}"
    if change.verb != "changed":
        return [f"{head}: {change.lines[0]}"]
    # A plus at the beginning would be a list of its own.
    return [f"{head}:", *(f"  - {_escape(line)}" for line in change.lines)]


def _escape(line: str) -> str:
    return f"\\{plain(line)}" if line.startswith("+") else plain(line)


def _list_entries(card: str) -> list[str]:
    section = card.partition(f"\n{HEADING}\n")[2]
    return [f"### {entry.strip()}" for entry in section.split("\n### ")[1:]]
