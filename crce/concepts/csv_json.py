"""Import and export of a concept's lists: JSON holds the whole spec, CSV opens in any spreadsheet."""

import csv
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from crce.concepts.library import parse_spec
from crce.concepts.spec import CERTAINTY, SPLITS, ConceptSpec, Term, replace_lists, spec_to_dict
from crce.errors import CrceError

COLUMNS = ("concept", "kind", "term", "certainty", "split", "source", "note")
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_KINDS = {"coref": "corefs", "corefs": "corefs", "erase": "corefs", "retain": "retains", "retains": "retains",
          "keep": "retains"}  # fmt: skip
_CERTAINTIES = {name: name for name in CERTAINTY}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SPLITS = {name: name for name in SPLITS}
_MOST = 5 << 20  # bytes of a file


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
    """Reads a UTF-8 file and drops the byte order mark that spreadsheets add. Raises CrceError for other encodings,
    and for a file that is too large for lists."""
    if path.stat().st_size > _MOST:
        raise CrceError(f"{path.name} has more than {_MOST >> 20} MB, and no lists are that long. Choose another file.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CrceError(f"{path.name} is not UTF-8 text; save it as UTF-8 (CSV UTF-8 in Excel).") from None


@dataclass(frozen=True)
class Row:
    """A line of a table. concept, certainty, split: "" where the table leaves them open; note: None."""

    line: int
    kind: str
    text: str
    concept: str = ""
    certainty: str = ""
    split: str = ""
    note: str | None = None


def from_csv(spec: ConceptSpec, text: str, where: str) -> ConceptSpec:
    """`read_table` and `merge_table` in one."""
    return merge_table(spec, read_table(text, where), where)


def read_table(text: str, where: str) -> tuple[Row, ...]:
    """The rows of a CSV table with the columns `COLUMNS`, of which kind and term are required.

    What spreadsheets make of one is understood: a first line `sep=;`, rows of empty cells, capitals in the header, a
    certainty as its weight (0.8). `where` names the file in errors. Raises CrceError with the first invalid line.
    """
    first, _, rest = text.partition("\n")
    said = _SEPARATOR.fullmatch(first.strip())
    head = rest.partition("\n")[0] if said else first
    delimiter = said[1] if said else max(",;\t", key=head.count)
    table = csv.reader(io.StringIO(rest if said else text), delimiter=delimiter)
    try:
        columns = [name.strip().casefold() for name in next(table, [])]
        if missing := {"kind", "term"} - set(columns):
            names = " and ".join(sorted(missing))
            raise CrceError(f"{where}: the header has no column {names}. Start the file with {','.join(COLUMNS)}.")
        lines = ((table.line_num + bool(said), [value.strip() for value in values]) for values in table)
        return tuple(_read_row(dict(zip(columns, row, strict=False)), line, where) for line, row in lines if any(row))
    except csv.Error as error:
        raise CrceError(f"{where}, line {table.line_num} is not valid CSV: {error}. Correct that line.") from None


def merge_table(spec: ConceptSpec, rows: Iterable[Row], where: str) -> ConceptSpec:
    """The spec with a table's terms: known ones are updated, new ones added, none removed.

    Raises CrceError for a table whose column concept names another one, and for what no spec can hold.
    """
    lists: dict[str, tuple[str, Term]] = {
        term.text.casefold(): (kind, term) for kind in ("corefs", "retains") for term in getattr(spec, kind)
    }
    own = {"", spec.name.casefold(), spec.target.casefold(), spec.slug}
    for row in rows:
        if row.concept.casefold() not in own:
            raise CrceError(
                f"{where}, line {row.line} is a term of {row.concept!r}, and these lists are those of {spec.name!r}. "
                "Open that concept and import the table there, or remove the column concept from it."
            )
        key = row.text.casefold()
        known, term = lists.get(key, ("", Term(row.text)))
        if known != row.kind:
            lists.pop(key, None)  # so that it comes last in the list it moves to
        lists[key] = row.kind, _update_term(term, row)
    merged = {kind: [term for its, term in lists.values() if its == kind] for kind in ("corefs", "retains")}
    return parse_spec(to_json(replace_lists(spec, merged)), where)


def _update_term(term: Term, row: Row) -> Term:
    note = term.note if row.note is None else row.note
    return replace(term, certainty=row.certainty or term.certainty, split=row.split or term.split, note=note)


def _read_row(row: dict[str, str], line: int, where: str) -> Row:
    place = f"{where}, line {line}"
    if not row.get("term"):
        raise CrceError(f"{place}: the term is empty. Enter a phrase or remove the line.")
    kind = _look_up(_KINDS, row.get("kind"), "kind", place)
    level, split = _to_level(row.get("certainty", "")), row.get("split", "")
    level = _look_up(_CERTAINTIES, level, "certainty", place) if level else ""
    split = _look_up(_SPLITS, split, "split", place) if split else ""
    concept, text = (_unquote_formula(row.get(name, "")).strip() for name in ("concept", "term"))
    note = row.get("note")
    told = None if note is None else _unquote_formula(note).strip()
    return Row(line, kind, text, concept, level, split, told)


def _to_level(value: str) -> str:
    """The level of a weight, "0.8" or "0,8", and any other text as it is."""
    try:
        weight = float(value.replace(",", "."))
    except ValueError:
        return value
    return next((name for name, known in CERTAINTY.items() if known == weight), value)


def _look_up(choices: dict[str, str], value: str | None, column: str, where: str) -> str:
    """The entry of `choices` for the value, ignoring case. Raises CrceError listing the choices."""
    key = (value or "").strip().casefold()
    if key not in choices:
        raise CrceError(f"{where}: {column} is {value!r}; use one of {', '.join(choices)}.")
    return choices[key]
