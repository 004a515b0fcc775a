"""CorefConcept as a dataset: specs ⇄ tidy rows ⇄ a folder of parquet, spec files and card.

The spec files are the source; rows and parquet say the same for tables, SQL and `load_dataset`.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DatasetCard

from crce.concepts import library
from crce.concepts.lint import Finding, lint
from crce.concepts.spec import CATEGORIES, CERTAINTY, SPLITS, ConceptSpec, Term, spec_to_dict
from crce.errors import CrceError
from crce.files import write_atomic
from crce.markdown import plain

LEVELS = tuple(reversed(CERTAINTY))  # "very low" first, so that the class numbers rise with certainty
KINDS = {"coref": "corefs", "retain": "retains"}
CONTENTS = "## Contents"  # the last part of the card, written for what is published
IN_SPLIT = {"train": 10, "test": 5}  # of each kind, as in the paper
COLUMNS = {
    "category": "string", "concept": "string", "sense": "string", "kind": "string", "term": "string",
    "certainty": LEVELS, "weight": "float64", "rank": "int32", "source": "string", "note": "string",
}  # fmt: skip


def rows(specs: Iterable[ConceptSpec], split: str) -> list[dict]:
    """One row per term of the split; its rank is its place in that list, by falling certainty."""
    return [
        _row(spec, kind, term, rank)
        for spec in specs
        for kind in KINDS
        for rank, term in enumerate(_ranked(spec, kind, split), start=1)
    ]


def rows_to_specs(table: Mapping[str, Iterable[dict]]) -> list[ConceptSpec]:
    """The specs of {"train": rows, "test": rows}, such as `load_dataset` gives. Rows carry no provenance."""
    found: dict[tuple, dict[str, list]] = {}
    for split in SPLITS:
        for row in sorted(table.get(split, ()), key=lambda row: row["rank"]):
            key = (row["concept"], row["category"], row["sense"])
            lists = found.setdefault(key, {kind: [] for kind in KINDS.values()})
            lists[KINDS[row["kind"]]].append(_term(row, split))
    specs = [ConceptSpec(*key, **{k: tuple(v) for k, v in lists.items()}) for key, lists in found.items()]
    return sorted(specs, key=_place)


def files(specs: Iterable[ConceptSpec]) -> dict[str, bytes]:
    """Everything that is published, by its path in the repository. The same specs give the same bytes."""
    specs = sorted(specs, key=_place)
    if not specs:
        raise CrceError("There is nothing to publish: choose at least one concept.")
    content = {"README.md": card(specs).encode()}
    for category in _categories(specs):
        own = [spec for spec in specs if spec.category == category]
        for split in SPLITS:
            content[f"data/{category}/{split}.parquet"] = _parquet(rows(own, split))
        for spec in own:
            text = json.dumps(spec_to_dict(spec), indent=2, ensure_ascii=False) + "\n"
            content[f"specs/{category}/{spec.slug}.json"] = text.encode()
    return content


def export(specs: Iterable[ConceptSpec], folder: Path) -> list[Path]:
    """Writes the folder that `load_dataset(folder, "object")` reads. Raises CrceError where others' files lie."""
    folder, content = Path(folder), files(specs)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if strange := sorted(there - content.keys()):
        raise CrceError(f"{folder} holds other files, such as {strange[0]!r}. Choose an empty folder.")
    try:
        for name, data in content.items():
            write_atomic(folder / name, data)
    except OSError as error:
        raise CrceError(f"{folder} cannot be written: {error.strerror}. Choose another folder.") from None
    return [folder / name for name in content]


def read(folder: Path) -> list[ConceptSpec]:
    """The specs of an exported folder. Raises CrceError for the first that is not valid."""
    return sorted((library.load_spec(path) for path in _spec_files(folder)), key=_place)


@dataclass(frozen=True)
class Checked:
    """What a folder holds, what is wrong with it, and which printed terms the rules would not have taken."""

    concepts: int
    terms: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def check(folder: Path) -> Checked:
    """Checks an exported folder, or corefconcept/ itself: schema, places, counts, splits, rules, and its parquet."""
    specs, wrong = _readable(folder)
    unequal = _differences(specs, folder) if (Path(folder) / "data").is_dir() else []
    faults = (*wrong, *problems(specs), *unequal)
    return Checked(len(specs), _sizes(specs).total(), faults, tuple(findings(specs, "warning")))


def problems(specs: Iterable[ConceptSpec]) -> list[str]:
    """Where specs leave the paper's form (15 + 15 terms, 10 + 5 each), or a term of ours breaks a rule of `lint`."""
    specs = list(specs)
    counts = [line for spec in specs for line in _miscounts(spec)]
    return counts + findings(specs, "error") + _twice(specs)


def findings(specs: Iterable[ConceptSpec], severity: str) -> list[str]:
    """What `lint` says of the specs beside each other: "error" for our terms, "warning" for the paper's."""
    return [_line(spec, finding) for spec, finding in _findings(list(specs), severity)]


def card(specs: Iterable[ConceptSpec]) -> str:
    """The card of corefconcept/, with the header and the contents of these specs."""
    specs = sorted(specs, key=_place)
    card = DatasetCard((library.SHIPPED / "README.md").read_text(encoding="utf-8"))
    card.data["size_categories"] = ["n<1K" if sum(_sizes(specs).values()) < 1000 else "1K<n<10K"]
    card.data["configs"] = [_config("default", "*"), *(_config(name, name) for name in _categories(specs))]
    card.text = f"{card.text.partition(CONTENTS)[0].rstrip()}\n\n{_contents(specs)}"
    return str(card)


def _row(spec: ConceptSpec, kind: str, term: Term, rank: int) -> dict:
    values = (spec.category, spec.target, spec.sense, kind, term.text, term.certainty, term.weight, rank,
              term.source, term.note)  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _term(row: dict, split: str) -> Term:
    level = row["certainty"]
    certainty = LEVELS[level] if isinstance(level, int) else level
    return Term(row["term"], certainty, split, row["source"], row["note"])


def _ranked(spec: ConceptSpec, kind: str, split: str) -> list[Term]:
    # A stable sort: among equals the order of the file stands, which for printed lists is the paper's.
    terms = [term for term in getattr(spec, KINDS[kind]) if term.split == split]
    return sorted(terms, key=lambda term: -term.weight)


def _parquet(table: list[dict]) -> bytes:
    """Parquet that carries the column types of `datasets`, so that certainty loads as a class."""
    import pyarrow
    from datasets import ClassLabel, Features, Value  # a second of imports that few commands need
    from pyarrow import parquet

    types = {name: Value(kind) if isinstance(kind, str) else ClassLabel(names=list(kind))
             for name, kind in COLUMNS.items()}  # fmt: skip
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(_numbered(table), Features(types).arrow_schema), buffer)
    return buffer.getvalue()


def _numbered(table: list[dict]) -> list[dict]:
    return [{**row, "certainty": LEVELS.index(row["certainty"])} for row in table]


def _differences(specs: list[ConceptSpec], folder: Path) -> list[str]:
    """Parquet files that say something else than the specs: someone edited a cell, or a spec."""
    from pyarrow import parquet

    wrong = []
    for category in _categories(specs):
        own = sorted((spec for spec in specs if spec.category == category), key=_place)
        for split in SPLITS:
            path = Path(folder) / "data" / category / f"{split}.parquet"
            said = parquet.read_table(path).to_pylist() if path.exists() else None
            if said != _numbered(rows(own, split)):
                wrong.append(f"data/{category}/{split}.parquet does not say what specs/ says; export again.")
    return wrong


def _miscounts(spec: ConceptSpec) -> Iterable[str]:
    """More than 15 are right only where the paper prints them, as it does for dog: then training has the rest."""
    for field in KINDS.values():
        terms = getattr(spec, field)
        wanted = {**IN_SPLIT, "train": max(IN_SPLIT["train"], _printed(terms) - IN_SPLIT["test"])}
        counts = Counter(term.split for term in terms)
        for split in SPLITS:
            if counts[split] != wanted[split]:
                yield f"{spec.name}: {counts[split]} {split} {field} where the dataset has {wanted[split]}."


def _findings(specs: list[ConceptSpec], severity: str) -> list[tuple[ConceptSpec, Finding]]:
    found = [(spec, finding) for spec in specs for finding in lint(spec, specs)]
    return [(spec, finding) for spec, finding in found if finding.severity == severity]


def _line(spec: ConceptSpec, finding: Finding) -> str:
    what = f"the {finding.kind[:-1]} {finding.text!r}" if finding.text else f"the {finding.kind}"
    return f"{spec.name}: {what} {finding.reason}. ({finding.rule})"


def _twice(specs: list[ConceptSpec]) -> list[str]:
    counts = Counter(spec.slug for spec in specs)
    return [f"{slug} stands more than once; keep one of them." for slug, n in counts.items() if n > 1]


def _contents(specs: list[ConceptSpec]) -> str:
    """What is there, counted: by category, by source, what the paper prints, and which rules that breaks."""
    sizes, reviewed = _sizes(specs), sum(bool(spec.provenance.reviewer) for spec in specs)
    drawn = sum(bool(spec.provenance.split_seed) for spec in specs)
    printed = [(plain(spec.name), _printed(spec.corefs), _printed(spec.retains)) for spec in specs]
    categories = [_category(specs, name) for name in _categories(specs)]
    rules = Counter(finding.rule for _, finding in _findings(specs, "warning"))
    return "\n".join([
        CONTENTS, "",
        *_table(("category", "concepts", "terms", "printed", "names"), categories),
        f"{sizes.total()} terms by source: {_counted(sizes)}.",
        f"Reviewed by a named person: {reviewed} of {len(specs)} concepts.",
        f"Split drawn with the seed in the provenance: {drawn}; the others' is printed or was set by hand.", "",
        *_table(("the paper prints of", "corefs", "retains"), [row for row in printed if any(row[1:])]),
        f"Printed terms against the rules: {_counted(rules) or 'none'}.", "",
    ])  # fmt: skip


def _table(head: tuple[str, ...], body: Iterable[tuple]) -> list[str]:
    lines = [head, ("---",) * len(head), *body]
    return [*(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def _category(specs: list[ConceptSpec], category: str) -> tuple:
    own = [spec for spec in specs if spec.category == category]
    sizes, names = _sizes(own), ", ".join(map(plain, sorted(spec.name for spec in own)))
    return category, len(own), sizes.total(), sizes["paper"], names


def _counted(counts: Counter) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _printed(terms: tuple[Term, ...]) -> int:
    return sum(term.source == "paper" for term in terms)


def _sizes(specs: list[ConceptSpec]) -> Counter:
    return Counter(term.source for spec in specs for term in spec.corefs + spec.retains)


def _config(name: str, folder: str) -> dict:
    default = {"default": True} if name == "default" else {}
    paths = [{"split": split, "path": f"data/{folder}/{split}.parquet"} for split in SPLITS]
    return {"config_name": name, **default, "data_files": paths}


def _categories(specs: list[ConceptSpec]) -> list[str]:
    return [category for category in CATEGORIES if any(spec.category == category for spec in specs)]


def _readable(folder: Path) -> tuple[list[ConceptSpec], list[str]]:
    """The specs of a folder, and what is wrong with its files."""
    specs, wrong = [], []
    for path in _spec_files(folder):
        try:
            spec = library.load_spec(path)
            specs.append(spec)
            if (path.parent.name, path.stem) != (spec.category, spec.slug):
                wrong.append(f"{path.name} holds {spec.name}; name it {spec.category}/{spec.slug}.json.")
        except CrceError as error:
            wrong.append(str(error))
    return specs, wrong or ([] if specs else [f"{folder} holds no specs."])


def _spec_files(folder: Path) -> list[Path]:
    return sorted([*Path(folder).glob("specs/*/*.json"), *Path(folder).glob("*/*.json")])


def _place(spec: ConceptSpec) -> tuple:
    return CATEGORIES.index(spec.category), spec.slug
