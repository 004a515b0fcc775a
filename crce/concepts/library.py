"""The spec files of CorefConcept: read, checked once and for all, written whole.

A `ConceptSpec` that came from here can be trusted: every field has its kind, no phrase stands twice.
"""

import difflib
import json
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from crce import files
from crce.concepts.spec import CATEGORIES, CERTAINTY, SOURCES, SPLITS, ConceptSpec, spec_from_dict, spec_to_dict
from crce.errors import CrceError

SHIPPED = files.DATA / "corefconcept"
# What the default model can draw and is no CorefConcept: fantasy figures in the place of protected characters, and a
# word of which it draws both senses.
EXTRAS = files.DATA / "assets" / "emoji-sd" / "concepts"
LONGEST = 200  # characters; CLIP reads 77 tokens at most


def _printable(text: str) -> str:
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Co", "Zl", "Zp") for letter in text):
        raise ValueError("write it without control characters")
    return text


Phrase = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_printable)]
Line = Annotated[str, Field(max_length=LONGEST), AfterValidator(_printable)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)


class _Term(_Checked):
    text: Phrase
    certainty: Literal[*CERTAINTY] = "high"
    split: Literal[*SPLITS] = "train"
    source: Literal[*SOURCES] = "expert"
    note: Annotated[str, Field(max_length=2000)] = ""


class _Round(_Checked):
    by: Literal[*SOURCES]
    model: Line = ""
    prompt_version: Line = ""
    wish: Annotated[str, Field(max_length=2000)] = ""
    changes: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=1000)] = []


class _Provenance(_Checked):
    reviewer: Line = ""
    rounds: NonNegativeInt = 0
    model: Line = ""
    prompt_version: Line = ""
    split_seed: NonNegativeInt = 0
    history: Annotated[list[_Round], Field(max_length=1000)] = []


class _Spec(_Checked):
    target: Phrase
    category: Literal[*CATEGORIES] = "object"
    sense: Line = ""
    corefs: list[_Term] = []
    retains: list[_Term] = []
    provenance: _Provenance = _Provenance()


def parse_spec(text: str, where: str) -> ConceptSpec:
    """The spec in a JSON text; `where` names it in errors. Raises CrceError with field, value and fix."""
    try:
        facts = _Spec.model_validate(json.loads(text)).model_dump()
    except json.JSONDecodeError as error:
        raise CrceError(
            f"{where}: line {error.lineno}, column {error.colno} is no JSON: {error.msg}. Correct it there."
        ) from None
    except RecursionError:
        raise CrceError(f"{where} is no spec: its JSON is nested too deep.") from None
    except ValidationError as error:
        raise CrceError(f"{where}: {_explained(error)}") from None
    spec = spec_from_dict(facts)
    _refuse_repeats(spec, where)
    return spec


def load_spec(path: Path) -> ConceptSpec:
    """Raises CrceError where the file cannot be read or holds no spec."""
    try:
        return parse_spec(Path(path).read_text(encoding="utf-8"), Path(path).name)
    except UnicodeDecodeError:
        raise CrceError(f"{path} is no text in UTF-8; save it as UTF-8.") from None
    except OSError as error:
        raise CrceError(f"{path} cannot be read ({error.strerror}). Give the path of a spec file.") from None


def save_spec(spec: ConceptSpec, path: Path) -> None:
    """Writes only what `load_spec` will read. Raises CrceError for a bad spec or a place not writable."""
    text = json.dumps(spec_to_dict(spec), indent=2, ensure_ascii=False) + "\n"
    parse_spec(text, Path(path).name)
    try:
        files.write_atomic(Path(path), text)
    except OSError as error:
        raise CrceError(f"{path} cannot be written: {error.strerror}.") from None


def own_path(spec: ConceptSpec) -> Path:
    """Where the user's own version of a concept lives; it hides the shipped one of the same slug."""
    return _own() / spec.category / f"{spec.slug}.json"


def library() -> dict[str, ConceptSpec]:
    """All concepts by slug, the user's own before the shipped ones. A broken file is left out."""
    return _read(EXTRAS, SHIPPED, _own())[0]


def bundled() -> dict[str, ConceptSpec]:
    """Those that came with the program, by slug: the same for everybody."""
    return _read(EXTRAS, SHIPPED)[0]


def publishable() -> dict[str, ConceptSpec]:
    """What publishing everything means: CorefConcept and the user's own, by slug."""
    return _read(SHIPPED, _own())[0]


def is_shipped(spec: ConceptSpec) -> bool:
    """Whether a concept of this name came with the program."""
    return any((folder / spec.category / f"{spec.slug}.json").exists() for folder in (EXTRAS, SHIPPED))


def find_concept(name: str) -> ConceptSpec:
    """By path, slug, "bat (animal)" or "bat". Raises CrceError with the nearest names."""
    if name.endswith(".json"):
        return load_spec(Path(name))
    specs, broken = _read(EXTRAS, SHIPPED, _own())
    slug = ConceptSpec(target=name).slug
    if slug in specs:
        return specs[slug]
    if slug in broken:
        raise broken[slug]
    senses = [spec for spec in specs.values() if spec.target.casefold() == name.strip().casefold()]
    if len(senses) == 1:
        return senses[0]
    if senses:
        choice = " or ".join(json.dumps(spec.name) for spec in senses)
        raise CrceError(f"{name!r} has several senses; say {choice}.")
    raise CrceError(f"There is no concept {name!r}.{_near(name, specs)}")


def _near(name: str, specs: dict[str, ConceptSpec]) -> str:
    names = {spec.name.casefold(): spec.name for spec in specs.values()}
    near = [names[hit] for hit in difflib.get_close_matches(name.casefold(), names, n=3)]
    hint = f" Did you mean {' or '.join(map(json.dumps, near))}?" if near else ""
    return f"{hint} `python -m crce concepts` lists all; a spec file of your own is named by its path."


def _own() -> Path:
    return files.home() / "concepts"


def _read(*folders: Path) -> tuple[dict[str, ConceptSpec], dict[str, CrceError]]:
    """The specs by slug, later folders first, and by file name what is wrong with the files that hold none."""
    specs, broken = {}, {}
    for path in (path for folder in folders for path in sorted(folder.rglob("*.json"))):
        try:
            spec = _as_it_is(path)
            specs[spec.slug] = spec
        except CrceError as error:
            broken[path.stem] = error
    return dict(sorted(specs.items())), broken


def _as_it_is(path: Path) -> ConceptSpec:
    """The spec of a file, which is parsed again only when it was written again."""
    try:
        stat = path.stat()
    except OSError:
        return load_spec(path)  # says what is wrong
    return _parsed(path, stat.st_mtime_ns, stat.st_ino, stat.st_size)


@lru_cache(maxsize=1024)
def _parsed(path: Path, *state: int) -> ConceptSpec:
    return load_spec(path)


def _refuse_repeats(spec: ConceptSpec, where: str) -> None:
    """A phrase pushed twice counts twice, and one both pushed and held has no goal."""
    seen = {spec.target.casefold(): "the target"}
    for kind in ("corefs", "retains"):
        for index, term in enumerate(getattr(spec, kind)):
            place, other = f"{kind}[{index}].text", seen.get(term.text.casefold())
            if other:
                raise CrceError(f"{where}: {place} is {_quoted(term.text)}, as {other} is; remove one of the two.")
            seen[term.text.casefold()] = place


def _explained(error: ValidationError) -> str:
    """The first fault as field, value, fix, and how many others there are."""
    faults = error.errors()
    more = f" ({len(faults) - 1} more after it)" if len(faults) > 1 else ""
    return _fault(faults[0]) + more


def _fault(fault: dict) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
    if fault["type"] == "missing":
        return f"{place} is missing; add it."
    if fault["type"] == "extra_forbidden":
        fields = {0: _Spec, 1: _Provenance}.get(len(fault["loc"]) - 1, _Term).model_fields
        return f"{place} is no field of a spec; use one of {', '.join(fields)}."
    return f"{place or 'the whole'} is {_quoted(fault['input'])}; {_fix(fault)}."


def _quoted(value: object) -> str:
    """As JSON shows it, shortened, and printable even where the text is not (a lone surrogate)."""
    shown = json.dumps(value, ensure_ascii=False, default=str)[:80]
    return shown.encode(errors="backslashreplace").decode()


def _fix(fault: dict) -> str:
    context = fault.get("ctx", {})
    match fault["type"]:
        case "literal_error":
            return "use one of " + context["expected"].replace("'", '"').replace(" or ", ", ")
        case "string_too_short":
            return "write a phrase"
        case "string_too_long":
            return f"use at most {context['max_length']} characters"
        case "string_type" | "string_unicode":
            return "give a text"
        case "list_type":
            return "give a list of terms"
        case "model_type":
            return 'give an object, {"…": …}'
        case "value_error":
            return str(context["error"])
        case _:
            return "give a whole number of at least 0"
