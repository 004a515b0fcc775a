"""Import and export of a concept's lists: JSON holds the whole spec, CSV opens in any spreadsheet."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

from crce.concepts.library import parse_spec
from crce.concepts.spec import CERTAINTY, SPLITS, ConceptSpec, Term, replace_lists, spec_to_dict
from crce.errors import CrceError

COLUMNS = ("concept", "kind", "term", "certainty", "split", "source", "note")
_KINDS = {"coref": "corefs", "corefs": "corefs", "erase": "corefs", "retain": "retains", "retains": "retains",
          "keep": "retains"}  # fmt: skip
_CERTAINTIES = {name: name for name in CERTAINTY}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SPLITS = {name: name for name in SPLITS}


def to_json(spec: ConceptSpec) -> str:
    """The whole spec as indented JSON."""
    return json.dumps(spec_to_dict(spec), indent=2, ensure_ascii=False)


def to_csv(spec: ConceptSpec) -> str:
    """One line per term, with the columns `COLUMNS`."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for kind in ("corefs", "retains"):
        for t in getattr(spec, kind):
            row = [spec.name, kind[:-1], t.text, t.certainty, t.split, t.source, t.note]
            table.writerow(map(_quote_formula, row))
    return text.getvalue()


def _quote_formula(text: str) -> str:
    """Spreadsheets run a cell that begins so; after an apostrophe they show it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _unquote_formula(text: str) -> str:
    return text[1:] if text[:1] == "'" and text[1:].startswith(_FORMULA) else text


def read_text(path: Path) -> str:
    """Reads a UTF-8 file and drops the byte order mark that spreadsheets add. Raises CrceError for other encodings."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CrceError(f"{path.name} is not UTF-8 text; save it as UTF-8 (CSV UTF-8 in Excel).") from None


def from_csv(spec: ConceptSpec, text: str, where: str) -> ConceptSpec:
    """Merges a CSV table into a spec: known terms are updated, new ones added, none removed.

    The columns kind and term are required; certainty, split and note are optional. `where` names the file in errors.
    Raises CrceError with the number of the first invalid line.
    """
    first = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text), delimiter=";" if first.count(";") > first.count(",") else ",")
    try:
        missing = {"kind", "term"} - set(rows.fieldnames or ())
        if missing:
            names = " and ".join(sorted(missing))
            raise CrceError(f"{where}: the header has no column {names}. Start the file with {','.join(COLUMNS)}.")
        for row in rows:
            spec = _merge_row(spec, row, f"{where}, line {rows.line_num}")
    except csv.Error as error:
        raise CrceError(f"{where}, line {rows.line_num} is not valid CSV: {error}. Correct that line.") from None
    return parse_spec(to_json(spec), where)


def _merge_row(spec: ConceptSpec, row: dict, where: str) -> ConceptSpec:
    text = _unquote_formula((row["term"] or "").strip())
    if not text:
        raise CrceError(f"{where}: the term is empty. Enter a phrase or remove the line.")
    kind = _look_up(_KINDS, row["kind"], "kind", where)
    known = {term.text.casefold(): term for name in ("corefs", "retains") for term in getattr(spec, name)}
    term = known.get(text.casefold(), Term(text))
    changed = replace(
        term,
        certainty=_look_up(_CERTAINTIES, row.get("certainty") or term.certainty, "certainty", where),
        split=_look_up(_SPLITS, row.get("split") or term.split, "split", where),
        note=(term.note if row.get("note") is None else _unquote_formula(row["note"])).strip(),
    )
    return _insert_term(spec, kind, changed)


def _insert_term(spec: ConceptSpec, kind: str, term: Term) -> ConceptSpec:
    """Replaces the term in its list, or appends it; removes it from the other list."""
    lists = {name: [t for t in getattr(spec, name) if name == kind or t.text != term.text] for name in _KINDS.values()}
    here = [t.text for t in lists[kind]]
    if term.text in here:
        lists[kind][here.index(term.text)] = term
    else:
        lists[kind].append(term)
    return replace_lists(spec, lists)


def _look_up(choices: dict[str, str], value: str | None, column: str, where: str) -> str:
    """The entry of `choices` for the value, ignoring case. Raises CrceError listing the choices."""
    key = (value or "").strip().casefold()
    if key not in choices:
        raise CrceError(f"{where}: {column} is {value!r}; use one of {', '.join(choices)}.")
    return choices[key]
