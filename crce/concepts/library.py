"""Reads, validates and writes spec files.

A `ConceptSpec` from this module is valid: every field has the right type and no phrase appears twice.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from crce import files
from crce.concepts.identity import fold, simplify
from crce.concepts.spec import Category, Certainty, ConceptSpec, Source, Split, spec_from_dict, spec_to_dict
from crce.errors import CrceError
from crce.text import JOINERS, escape, has_controls

SHIPPED = files.DATA / "corefconcept"
# Concepts that the default model draws and CorefConcept lacks: fantasy figures that stand in for protected characters,
# both senses of "cricket", and four kinds of many drawings that presets are chosen on.
EXTRAS = files.DATA / "assets" / "emoji-sd" / "concepts"
MOST = 500  # terms in a list
LONGEST = 200  # characters; CLIP reads 77 tokens at most


def _check_printable(text: str) -> str:
    if has_controls(text):
        raise ValueError("remove the control characters")
    if text and all(letter in JOINERS or letter.isspace() for letter in text):
        raise ValueError("enter a phrase that can be seen")
    return text


def _check_readable(text: str) -> str:
    if has_controls(text, lines=True):
        raise ValueError("remove the control characters")
    return text


Phrase = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_check_printable)]
Note = Annotated[str, Field(max_length=2000), AfterValidator(_check_readable)]
Line = Annotated[str, Field(max_length=LONGEST), AfterValidator(_check_printable)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)


class _Term(_Strict):
    text: Phrase
    certainty: Certainty = "high"
    split: Split = "train"
    source: Source = "expert"
    note: Note = ""


class _Round(_Strict):
    by: Source
    model: Line = ""
    prompt_version: Line = ""
    wish: Note = ""
    changes: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=1000)] = []


class _Review(_Strict):
    reviewer: Phrase
    corefs: Annotated[list[Phrase], Field(max_length=MOST)] = []
    retains: Annotated[list[Phrase], Field(max_length=MOST)] = []


class _Provenance(_Strict):
    reviewer: Line = ""
    rounds: NonNegativeInt = 0
    model: Line = ""
    prompt_version: Line = ""
    split_seed: NonNegativeInt = 0
    history: Annotated[list[_Round], Field(max_length=1000)] = []
    reviews: Annotated[list[_Review], Field(max_length=100)] = []


class _Spec(_Strict):
    target: Phrase
    category: Category = "object"
    sense: Line = ""
    corefs: Annotated[list[_Term], Field(max_length=MOST)] = []
    retains: Annotated[list[_Term], Field(max_length=MOST)] = []
    provenance: _Provenance = _Provenance()


def parse_spec(text: str, where: str) -> ConceptSpec:
    """Parses a spec from JSON; `where` names the text in errors. Raises CrceError with field, value and fix."""
    try:
        facts = files.parse_json(text)
    except json.JSONDecodeError as error:
        raise CrceError(
            f"{where}: line {error.lineno}, column {error.colno} is not valid JSON: {error.msg}. Correct it there."
        ) from None
    except ValueError as error:
        raise CrceError(f"{where}: {error}.") from None
    return read_spec(facts, where)


def read_spec(facts: object, where: str) -> ConceptSpec:
    """The spec from parsed JSON; `where` names it in errors. Raises CrceError with field, value and fix."""
    try:
        valid = _Spec.model_validate(facts).model_dump()
    except ValidationError as error:
        raise CrceError(f"{where}: {_explain(error)}") from None
    spec = spec_from_dict(valid)
    _refuse_repeats(spec, where)
    return spec


def load_spec(path: Path) -> ConceptSpec:
    """Raises CrceError if the file cannot be read or is not a valid spec."""
    try:
        return parse_spec(Path(path).read_text(encoding="utf-8"), Path(path).name)
    except UnicodeDecodeError:
        raise CrceError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: no path has a NUL character in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise CrceError(f"{str(path)!r} cannot be read ({reason}). Give the path of a spec file.") from None


def save_spec(spec: ConceptSpec, path: Path) -> None:
    """Writes a spec that `load_spec` can read. Raises CrceError if the spec is invalid or the path is not writable."""
    text = json.dumps(spec_to_dict(spec), indent=2, ensure_ascii=False) + "\n"
    parse_spec(text, Path(path).name)
    try:
        files.write_atomic(Path(path), text)
    except OSError as error:
        raise CrceError(f"{path} cannot be written: {error.strerror}.") from None


def own_path(spec: ConceptSpec) -> Path:
    """The file of the user's own version of a concept; it takes precedence over the shipped one of the same slug.

    A file that an earlier version named without a hash stays where it is. Raises CrceError if the file holds another
    concept.
    """
    folder = _own() / spec.category
    path, former = folder / f"{spec.slug}.json", folder / f"{simplify(spec.name) or 'concept'}.json"
    if former != path and not path.exists() and _read_identity(former) == (spec.target, spec.sense):
        return former
    held = _read_identity(path)
    if held not in (None, (spec.target, spec.sense)):
        raise CrceError(f"{path} holds {held}, not {spec.name!r}. Move that file out of the folder, then try again.")
    return path


def _read_identity(path: Path) -> tuple[str, str] | None:
    """Name and sense of the concept in a file; None where there is no file, or none that can be read."""
    try:
        spec = _load_cached(path) if path.is_file() else None
    except (CrceError, OSError):  # OSError: a name that is longer than a file's may be
        spec = None
    if spec is None:
        return None
    return spec.target, spec.sense


def library() -> dict[str, ConceptSpec]:
    """All concepts by slug; the user's own take precedence over shipped ones. Invalid files are skipped."""
    return _read(EXTRAS, SHIPPED, _own())[0]


def broken_concepts() -> dict[Path, str]:
    """The user's own files that hold no concept, and what is wrong with each."""
    return {path: str(error) for path, error in _read(_own())[1].items()}


def bundled() -> dict[str, ConceptSpec]:
    """The shipped concepts by slug, without the user's own."""
    return _read(EXTRAS, SHIPPED)[0]


def publishable() -> dict[str, ConceptSpec]:
    """The concepts that are published by default, by slug: CorefConcept and the user's own."""
    return _read(SHIPPED, _own())[0]


def is_shipped(spec: ConceptSpec) -> bool:
    """Whether a concept of this name is shipped with the program."""
    return any((folder / spec.category / f"{spec.slug}.json").exists() for folder in (EXTRAS, SHIPPED))


def find_concept(name: str) -> ConceptSpec:
    """Finds a concept by path, name, slug or "bat", in this order and then without case and accents.

    Raises CrceError for a name that several concepts have, and with the most similar names where there is none.
    """
    if name.endswith(".json"):
        return load_spec(Path(name))
    specs, broken = _read(EXTRAS, SHIPPED, _own())
    for matches in _MATCHES:
        found = [spec for spec in specs.values() if matches(spec, name)]
        if len(found) > 1:
            raise CrceError(f"{name!r} has several senses. Use {' or '.join(_tell_apart(found))}.")
        if found:
            return found[0]
    for path, error in broken.items():
        if path.stem in (name, ConceptSpec(name).slug):
            raise error
    raise CrceError(f"There is no concept {name!r}.{_suggest(name, specs)}")


_MATCHES: tuple[Callable[[ConceptSpec, str], bool], ...] = (
    lambda spec, name: spec.name == name,
    lambda spec, name: spec.slug == name,
    lambda spec, name: spec.target == name,
    lambda spec, name: fold(spec.name) == fold(name),
    lambda spec, name: fold(spec.target) == fold(name),
)


def _tell_apart(specs: list[ConceptSpec]) -> list[str]:
    """Their names, or the slugs of those that share one."""
    names = [spec.name for spec in specs]
    return [json.dumps(spec.name, ensure_ascii=False) if names.count(spec.name) == 1 else spec.slug for spec in specs]


def _suggest(name: str, specs: dict[str, ConceptSpec]) -> str:
    names = {spec.name.casefold(): spec.name for spec in specs.values()}
    near = [names[hit] for hit in difflib.get_close_matches(name.casefold(), names, n=3)]
    hint = f" Did you mean {' or '.join(json.dumps(name, ensure_ascii=False) for name in near)}?" if near else ""
    return f"{hint} `python -m crce concepts` lists all concepts; give the path for a spec file of your own."


def _own() -> Path:
    return files.desk() / "concepts"


def _read(*folders: Path) -> tuple[dict[str, ConceptSpec], dict[Path, CrceError]]:
    """The specs by slug, where later folders take precedence, and the errors of invalid files."""
    specs: dict[str, ConceptSpec] = {}
    broken: dict[Path, CrceError] = {}
    for path in (path for folder in folders for path in sorted(folder.rglob("*.json"))):
        try:
            spec = _load_cached(path)
            specs[spec.slug] = spec
        except CrceError as error:
            broken[path] = error
    return dict(sorted(specs.items())), broken


def _load_cached(path: Path) -> ConceptSpec:
    """Loads a spec and parses the file again only if it has changed."""
    try:
        stat = path.stat()
    except OSError:
        return load_spec(path)  # raises the right error
    return _parse_file(path, stat.st_mtime_ns, stat.st_ino, stat.st_size)


@lru_cache(maxsize=1024)
def _parse_file(path: Path, *state: int) -> ConceptSpec:
    return load_spec(path)


def _refuse_repeats(spec: ConceptSpec, where: str) -> None:
    """A duplicate would count twice in the loss, and a term in both lists would be erased and kept at once."""
    seen = {spec.target.casefold(): "the target"}
    for kind in ("corefs", "retains"):
        for index, term in enumerate(getattr(spec, kind)):
            place, other = f"{kind}[{index}].text", seen.get(term.text.casefold())
            if other:
                raise CrceError(f"{where}: {place} is {_quote(term.text)}, the same as {other}; remove one of the two.")
            seen[term.text.casefold()] = place


def _explain(error: ValidationError) -> str:
    """The first error with its field, value and fix, and the number of further errors."""
    faults = error.errors()
    more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
    return _describe_fault(faults[0]) + more


def _describe_fault(fault: Mapping) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
    if fault["type"] == "missing":
        return f"{place} is missing; add it."
    if fault["type"] == "too_long":
        return f"{place} has {fault['ctx']['actual_length']} entries; use at most {fault['ctx']['max_length']}."
    if fault["type"] == "extra_forbidden":
        models: dict[int, type[BaseModel]] = {0: _Spec, 1: _Provenance}
        fields = models.get(len(fault["loc"]) - 1, _Term).model_fields
        return f"unknown field {place}; use one of {', '.join(fields)}."
    return f"{place or 'the spec'} is {_quote(fault['input'])}; {_suggest_fix(fault)}."


def _quote(value: object) -> str:
    """The value as JSON, shortened, with an escape for what cannot be seen or printed."""
    return escape(json.dumps(value, ensure_ascii=False, default=str)[:80])


def _suggest_fix(fault: Mapping) -> str:
    context = fault.get("ctx", {})
    match fault["type"]:
        case "literal_error":
            return "use one of " + context["expected"].replace("'", '"').replace(" or ", ", ")
        case "string_too_short":
            return "enter a phrase"
        case "string_too_long":
            return f"use at most {context['max_length']} characters"
        case "string_type" | "string_unicode":
            return "use a string"
        case "list_type":
            return "use a list"
        case "model_type":
            return 'use an object, {"…": …}'
        case "value_error":
            return str(context["error"])
        case _:
            return "use a non-negative integer"
