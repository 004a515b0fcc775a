"""CorefConcept as a dataset: converts specs to and from tidy rows, and to a folder of parquet, spec files and a card.

The spec files are the source; rows and parquet hold the same data for tables, SQL and `load_dataset`.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DatasetCard

from crce.concepts import croissant, library, reviews
from crce.concepts.lint import Finding, lint
from crce.concepts.spec import CATEGORIES, CERTAINTY, SPLITS, ConceptSpec, Term, replace_lists, spec_to_dict
from crce.errors import CrceError
from crce.files import write_atomic
from crce.markdown import plain

LEVELS = tuple(reversed(CERTAINTY))  # "very low" first, so that class numbers increase with certainty
KINDS = {"coref": "corefs", "retain": "retains"}
CONTENTS = "## Contents"  # the last section of the card, generated from the specs
PLACE = "<user>/CorefConcept"  # stands for the repository in the card
LICENCE = "cc-by-4.0", "CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"  # the Hub's key, name, text
ABOUT = "Other names of a concept, to be erased with it, and its neighbours, to be kept, each with a certainty."
UNREVIEWED = "**No person has reviewed them yet**"
IN_SPLIT = {"train": 10, "test": 5}  # terms in each list, as in the paper
COLUMNS: dict[str, str | tuple[str, ...]] = {
    "slug": "string", "category": "string", "concept": "string", "sense": "string", "kind": "string", "term": "string",
    "certainty": LEVELS, "weight": "float64", "rank": "int32", "source": "string", "note": "string",
}  # fmt: skip


def rows(specs: Iterable[ConceptSpec], split: str) -> list[dict]:
    """One row per term of the split; the rank is the term's position in its list, by descending certainty."""
    return [
        _make_row(spec, kind, term, rank)
        for spec in specs
        for kind in KINDS
        for rank, term in enumerate(_rank_terms(spec, kind, split), start=1)
    ]


def rows_to_specs(table: Mapping[str, Iterable[dict]]) -> list[ConceptSpec]:
    """The specs in {"train": rows, "test": rows}, as `load_dataset` returns them. Rows have no provenance."""
    found: dict[tuple, dict[str, list]] = {}
    for split in SPLITS:
        for row in sorted(table.get(split, ()), key=lambda row: row["rank"]):
            key = (row["concept"], row["category"], row["sense"])
            lists = found.setdefault(key, {kind: [] for kind in KINDS.values()})
            lists[KINDS[row["kind"]]].append(_read_term(row, split))
    specs = [replace_lists(ConceptSpec(*key), lists) for key, lists in found.items()]
    return sorted(specs, key=_sort_key)


def files(specs: Iterable[ConceptSpec], repo: str = PLACE, changes: str = "") -> dict[str, bytes]:
    """All files to publish, by path in the repository. The same specs give the same bytes.

    repo: its name, for the card; changes: its last section (`changelog.render`). A split without a row has no file, as
    nothing could load it.
    Raises CrceError if there are no specs, or no terms.
    """
    specs = sorted(specs, key=_sort_key)
    if not specs:
        raise CrceError("There is nothing to publish. Choose at least one concept.")
    if not _list_splits(specs):
        raise CrceError(f"There is nothing to publish: {specs[0].name!r} has no terms. Add some to its lists.")
    content = {"README.md": render_card(specs, repo, changes).encode()}
    for category in _list_categories(specs):
        own = [spec for spec in specs if spec.category == category]
        for split in _list_splits(own):
            content[f"data/{category}/{split}.parquet"] = _to_parquet(rows(own, split))
        for spec in own:
            text = json.dumps(spec_to_dict(spec), indent=2, ensure_ascii=False) + "\n"
            content[f"specs/{category}/{spec.slug}.json"] = text.encode()
    tables = {path: data for path, data in content.items() if path.endswith(".parquet")}
    content["croissant.json"] = croissant.describe(tables, COLUMNS, repo, ABOUT, LICENCE[2])
    return content


def export(specs: Iterable[ConceptSpec], folder: Path) -> list[Path]:
    """Writes a folder for `load_dataset(folder, "object")`. Raises CrceError if it contains other files."""
    folder, content = Path(folder), files(specs)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if others := sorted(there - content.keys()):
        raise CrceError(f"{folder} contains other files, such as {others[0]!r}. Choose an empty folder.")
    try:
        for name, data in content.items():
            write_atomic(folder / name, data)
    except OSError as error:
        raise CrceError(f"{folder} cannot be written: {error.strerror}. Choose another folder.") from None
    return [folder / name for name in content]


def read(folder: Path) -> list[ConceptSpec]:
    """Reads the specs of an exported folder. Raises CrceError for the first invalid one."""
    return sorted((library.load_spec(path) for path in _find_files(folder)), key=_sort_key)


@dataclass(frozen=True)
class DatasetReport:
    """The size of a dataset folder, its errors, and warnings for printed terms that break a rule."""

    concepts: int
    terms: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def check(folder: Path) -> DatasetReport:
    """Checks an exported folder or corefconcept/: schema, file names, counts, splits, rules and parquet files."""
    specs, wrong = _load_folder(folder)
    unequal = _compare_parquet(specs, folder) if (Path(folder) / "data").is_dir() else []
    faults = (*wrong, *find_problems(specs), *unequal)
    return DatasetReport(len(specs), _count_sources(specs).total(), faults, tuple(describe_findings(specs, "warning")))


def find_problems(specs: Iterable[ConceptSpec]) -> list[str]:
    """Deviations from the paper's format (15 + 15 terms, 10 + 5 each), and our terms that break a rule of `lint`."""
    specs = list(specs)
    counts = [line for spec in specs for line in _check_counts(spec)]
    return find_unsplit(specs) + counts + describe_findings(specs, "error") + _find_repeats(specs)


def find_unsplit(specs: Iterable[ConceptSpec]) -> list[str]:
    """Concepts of which nothing is held out (or all is), with how to mend it."""
    return [line for spec in specs if (line := _describe_unsplit(spec))]


def can_split(spec: ConceptSpec) -> bool:
    """Whether a third of a list, rounded down, is a term."""
    return max(len(spec.corefs), len(spec.retains)) >= 3


def _describe_unsplit(spec: ConceptSpec) -> str:
    missing = [split for split in SPLITS if split not in _list_splits([spec])]
    if not missing:
        return ""
    draw = "Draw the split again in Curate, which holds out a third of each list"
    longer = max(len(spec.corefs), len(spec.retains))
    few = "" if can_split(spec) else f"; for that, a list needs at least 3 terms, and the longer one here has {longer}"
    return f"{spec.name}: no term is in the {' or the '.join(missing)} split. {draw}{few}."


def describe_findings(specs: Iterable[ConceptSpec], severity: str) -> list[str]:
    """Describes what `lint` finds in the specs: "error" for our terms, "warning" for the paper's."""
    return [_describe(spec, finding) for spec, finding in _lint_all(list(specs), severity)]


def render_card(specs: Iterable[ConceptSpec], repo: str = PLACE, changes: str = "") -> str:
    """The dataset card: the text of corefconcept/README.md with the header and contents for these specs.

    repo: the name of the repository that it is for. changes: the section about them, which comes last.
    """
    specs = sorted(specs, key=_sort_key)
    card = DatasetCard((library.SHIPPED / "README.md").read_text(encoding="utf-8"))
    card.data["license"], *_ = LICENCE
    card.data["annotations_creators"] = _list_annotators(specs)
    card.data["size_categories"] = ["n<1K" if sum(_count_sources(specs).values()) < 1000 else "1K<n<10K"]
    card.data["configs"] = [
        _make_config("default", "*", _list_splits(specs)),
        *(
            _make_config(name, name, splits)
            for name in _list_categories(specs)
            if (splits := _list_splits(spec for spec in specs if spec.category == name))
        ),
    ]
    told = card.text.partition(CONTENTS)[0].rstrip().replace(PLACE, repo).replace(UNREVIEWED, _describe_reviews(specs))
    card.text = f"{told}\n\n{_render_contents(specs)}" + (f"\n{changes}" if changes else "")
    return str(card)


def _list_annotators(specs: list[ConceptSpec]) -> list[str]:
    """Who made the lists, in the Hub's words: a program, or people who wrote or reviewed terms."""
    sources = set(_count_sources(specs))
    people = "expert" in sources or any(spec.provenance.reviewer or spec.provenance.reviews for spec in specs)
    found = {"machine-generated": bool(sources & {"llm", "lexicon"}), "expert-generated": people}
    return [name for name, there in found.items() if there] or ["found"]


def _describe_reviews(specs: list[ConceptSpec]) -> str:
    reviewed = sum(bool(spec.provenance.reviewer) for spec in specs)
    if not reviewed:
        return UNREVIEWED
    if reviewed == len(specs):
        return "**A named person has reviewed every concept of this copy**"
    return f"**A named person has reviewed {reviewed} of the {len(specs)} concepts of this copy**"


def _make_row(spec: ConceptSpec, kind: str, term: Term, rank: int) -> dict:
    values = (spec.slug, spec.category, spec.target, spec.sense, kind, term.text, term.certainty, term.weight, rank,
              term.source, term.note)  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _read_term(row: dict, split: str) -> Term:
    level = row["certainty"]
    certainty = LEVELS[level] if isinstance(level, int) else level
    return Term(row["term"], certainty, split, row["source"], row["note"])


def _rank_terms(spec: ConceptSpec, kind: str, split: str) -> list[Term]:
    # The sort is stable: equal terms keep the order of the file, which is the paper's for printed lists.
    terms = [term for term in getattr(spec, KINDS[kind]) if term.split == split]
    return sorted(terms, key=lambda term: -term.weight)


def _to_parquet(table: list[dict]) -> bytes:
    """Parquet with the column types of `datasets`, so that certainty loads as a class label."""
    import pyarrow
    from datasets import ClassLabel, Features, Value  # takes a second to import, and few commands need it
    from pyarrow import parquet

    types = {name: Value(kind) if isinstance(kind, str) else ClassLabel(names=list(kind))
             for name, kind in COLUMNS.items()}  # fmt: skip
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(_encode_certainty(table), Features(types).arrow_schema), buffer)
    return buffer.getvalue()


def _encode_certainty(table: list[dict]) -> list[dict]:
    return [{**row, "certainty": LEVELS.index(row["certainty"])} for row in table]


def _compare_parquet(specs: list[ConceptSpec], folder: Path) -> list[str]:
    """Parquet files that differ from the specs because one of the two was edited."""
    from pyarrow import parquet

    wrong = []
    for category in _list_categories(specs):
        own = sorted((spec for spec in specs if spec.category == category), key=_sort_key)
        for split in SPLITS:
            path = Path(folder) / "data" / category / f"{split}.parquet"
            said = parquet.read_table(path).to_pylist() if path.exists() else []
            if said != _encode_certainty(rows(own, split)):
                wrong.append(f"data/{category}/{split}.parquet differs from specs/; export again.")
    return wrong


def _check_counts(spec: ConceptSpec) -> Iterable[str]:
    """More than 15 terms are allowed only if the paper prints them, as for dog; the extra ones are for training."""
    for field in KINDS.values():
        terms = getattr(spec, field)
        wanted = {**IN_SPLIT, "train": max(IN_SPLIT["train"], _count_printed(terms) - IN_SPLIT["test"])}
        counts = Counter(term.split for term in terms)
        for split in SPLITS:
            if counts[split] != wanted[split]:
                yield f"{spec.name}: {counts[split]} {split} {field} instead of {wanted[split]}."


def _lint_all(specs: list[ConceptSpec], severity: str) -> list[tuple[ConceptSpec, Finding]]:
    found = [(spec, finding) for spec in specs for finding in lint(spec, specs)]
    return [(spec, finding) for spec, finding in found if finding.severity == severity]


def _describe(spec: ConceptSpec, finding: Finding) -> str:
    what = f"the {finding.kind[:-1]} {finding.text!r}" if finding.text else f"the {finding.kind}"
    return f"{spec.name}: {what} {finding.reason}. ({finding.rule})"


def _find_repeats(specs: list[ConceptSpec]) -> list[str]:
    counts = Counter(spec.slug for spec in specs)
    return [f"{slug} appears more than once; keep one of them." for slug, n in counts.items() if n > 1]


def _render_contents(specs: list[ConceptSpec]) -> str:
    """Counts by category and source, the terms that the paper prints, and the rules that those break."""
    sizes, reviewed = _count_sources(specs), sum(bool(spec.provenance.reviewer) for spec in specs)
    drawn = sum(bool(spec.provenance.split_seed) for spec in specs)
    printed = [(plain(spec.name), _count_printed(spec.corefs), _count_printed(spec.retains)) for spec in specs]
    categories = [_summarise_category(specs, name) for name in _list_categories(specs)]
    rules = Counter(finding.rule for _, finding in _lint_all(specs, "warning"))
    return "\n".join([
        CONTENTS, "",
        *_render_table(("category", "concepts", "terms", "printed", "names"), categories),
        f"{sizes.total()} terms by source: {_format_counts(sizes)}.",
        f"Reviewed by a named person: {reviewed} of {len(specs)} concepts.",
        *_render_agreement(specs),
        f"Split drawn with the seed in the provenance: {drawn}; the others are printed in the paper or set by hand.",
        "",
        *_render_table(("printed in the paper", "corefs", "retains"), [row for row in printed if any(row[1:])]),
        f"Printed terms that break a rule: {_format_counts(rules) or 'none'}.", "",
        f"Licence: [{LICENCE[1]}]({LICENCE[2]}).", "",
    ])  # fmt: skip


def _render_agreement(specs: list[ConceptSpec]) -> list[str]:
    """How far several reviewers of a concept agree; nothing where nobody was the second."""
    found = reviews.measure(specs)
    if not found:
        return []
    body = [(plain(each.concept), plain(" and ".join(each.reviewers)), each.n, each.same, each.text) for each in found]
    told = (
        "Several people looked at these concepts. Cohen's κ counts each phrase as coref, retain or neither; who came "
        "later saw the lists of who came first, so the agreement is not that of independent people."
    )
    return ["", told, "", *_render_table(("concept", "reviewers", "phrases", "the same", "κ"), body)]


def _render_table(head: tuple[str, ...], body: Iterable[tuple]) -> list[str]:
    lines = [head, ("---",) * len(head), *body]
    return [*(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def _summarise_category(specs: list[ConceptSpec], category: str) -> tuple:
    own = [spec for spec in specs if spec.category == category]
    sizes, names = _count_sources(own), ", ".join(map(plain, sorted(spec.name for spec in own)))
    return category, len(own), sizes.total(), sizes["paper"], names


def _format_counts(counts: Counter) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _count_printed(terms: tuple[Term, ...]) -> int:
    return sum(term.source == "paper" for term in terms)


def _count_sources(specs: list[ConceptSpec]) -> Counter:
    return Counter(term.source for spec in specs for term in spec.corefs + spec.retains)


def _make_config(name: str, folder: str, splits: Iterable[str]) -> dict:
    default = {"default": True} if name == "default" else {}
    paths = [{"split": split, "path": f"data/{folder}/{split}.parquet"} for split in splits]
    return {"config_name": name, **default, "data_files": paths}


def _list_splits(specs: Iterable[ConceptSpec]) -> list[str]:
    """The splits that have a row."""
    used = {term.split for spec in specs for term in spec.corefs + spec.retains}
    return [split for split in SPLITS if split in used]


def _list_categories(specs: list[ConceptSpec]) -> list[str]:
    return [category for category in CATEGORIES if any(spec.category == category for spec in specs)]


def _load_folder(folder: Path) -> tuple[list[ConceptSpec], list[str]]:
    """The specs of a folder, and the errors in its files."""
    specs, wrong = [], []
    for path in _find_files(folder):
        try:
            spec = library.load_spec(path)
            specs.append(spec)
            if (path.parent.name, path.stem) != (spec.category, spec.slug):
                wrong.append(f"{path.name} contains {spec.name}; name it {spec.category}/{spec.slug}.json.")
        except CrceError as error:
            wrong.append(str(error))
    return specs, wrong or ([] if specs else [f"{folder} contains no specs."])


def _find_files(folder: Path) -> list[Path]:
    return sorted([*Path(folder).glob("specs/*/*.json"), *Path(folder).glob("*/*.json")])


def _sort_key(spec: ConceptSpec) -> tuple:
    return CATEGORIES.index(spec.category), spec.slug
