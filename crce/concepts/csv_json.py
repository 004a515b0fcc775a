"""A concept's lists as files: JSON, which is the whole spec, and CSV, which any spreadsheet opens."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

from crce.concepts.library import parse_spec
from crce.concepts.spec import CERTAINTY, SPLITS, ConceptSpec, Term, spec_to_dict
from crce.errors import CrceError

COLUMNS = ("concept", "kind", "term", "certainty", "split", "source", "note")
_KINDS = {"coref": "corefs", "corefs": "corefs", "erase": "corefs", "retain": "retains", "retains": "retains",
          "keep": "retains"}  # fmt: skip
_CERTAINTIES = {name: name for name in CERTAINTY}
_SPLITS = {name: name for name in SPLITS}


def to_json(spec: ConceptSpec) -> str:
    return json.dumps(spec_to_dict(spec), indent=2, ensure_ascii=False)


def to_csv(spec: ConceptSpec) -> str:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for kind in ("corefs", "retains"):
        for t in getattr(spec, kind):
            table.writerow([spec.name, kind[:-1], t.text, t.certainty, t.split, t.source, t.note])
    return text.getvalue()


def text_of(path: Path) -> str:
    """Raises CrceError for what is no text; a mark that spreadsheets put at the start is passed over."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CrceError(f"{path.name} is no text in UTF-8; save it as UTF-8 (CSV UTF-8 in Excel).") from None


def from_csv(spec: ConceptSpec, text: str, where: str) -> ConceptSpec:
    """The spec with the rows of a table: terms that it has are updated, others added, and none is dropped.

    Columns: kind and term, and if wanted certainty, split and note. Raises CrceError with the line that is wrong.
    """
    first = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text), delimiter=";" if first.count(";") > first.count(",") else ",")
    try:
        missing = {"kind", "term"} - set(rows.fieldnames or ())
        if missing:
            names = " and ".join(sorted(missing))
            raise CrceError(f"{where}: the first line names no column {names}. Begin with {','.join(COLUMNS)}.")
        for row in rows:
            spec = _with_row(spec, row, f"{where}, line {rows.line_num}")
    except csv.Error as error:
        raise CrceError(f"{where}, line {rows.line_num} is no CSV: {error}. Correct it there.") from None
    return parse_spec(to_json(spec), where)


def _with_row(spec: ConceptSpec, row: dict, where: str) -> ConceptSpec:
    text = (row["term"] or "").strip()
    if not text:
        raise CrceError(f"{where}: the term is empty. Write a phrase, or remove the line.")
    kind = _one_of(_KINDS, row["kind"], "kind", where)
    known = {term.text.casefold(): term for name in ("corefs", "retains") for term in getattr(spec, name)}
    term = known.get(text.casefold(), Term(text))
    facts = {
        "certainty": _one_of(_CERTAINTIES, row.get("certainty") or term.certainty, "certainty", where),
        "split": _one_of(_SPLITS, row.get("split") or term.split, "split", where),
        "note": (term.note if row.get("note") is None else row["note"]).strip(),
    }
    return _placed(spec, kind, replace(term, **facts))


def _placed(spec: ConceptSpec, kind: str, term: Term) -> ConceptSpec:
    """In its place where the list has it, at the end where it does not, and out of the other list."""
    lists = {name: [t for t in getattr(spec, name) if name == kind or t.text != term.text] for name in _KINDS.values()}
    here = [t.text for t in lists[kind]]
    if term.text in here:
        lists[kind][here.index(term.text)] = term
    else:
        lists[kind].append(term)
    return replace(spec, **{name: tuple(terms) for name, terms in lists.items()})


def _one_of(choices: dict[str, str], value: str | None, column: str, where: str) -> str:
    """What `choices` holds for the value, however it is capitalised."""
    key = (value or "").strip().casefold()
    if key not in choices:
        raise CrceError(f"{where}: {column} is {value!r}; use one of {', '.join(choices)}.")
    return choices[key]
