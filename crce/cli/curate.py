"""Commands that propose, refine and check concepts."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from crce.cli import terminal
from crce.cli.options import AsJson, Concept, Seed
from crce.concepts import edits
from crce.concepts.library import SHIPPED, find_concept, library, own_path, save_spec
from crce.concepts.spec import ConceptSpec, spec_to_dict
from crce.errors import CrceError

datasets = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Maintain CorefConcept, or a dataset folder of your own."
)


def concepts(as_json: AsJson = False):
    """List the concepts of the library, including your own."""
    facts = [
        {"slug": slug, "name": s.name, "category": s.category, "corefs": len(s.corefs), "retains": len(s.retains)}
        for slug, s in library().items()
    ]
    rows = [(f["name"], f["category"], f["corefs"], f["retains"]) for f in facts]
    terminal.say(facts, terminal.table(["concept", "category", "corefs", "retains"], rows), as_json)


Model = Annotated[str, typer.Option(help="A model of the endpoint.", show_default="CRCE_MODEL")]


def propose(
    name: Annotated[str, typer.Argument(help="The concept, as written in a prompt.")],
    category: Annotated[
        Literal["object", "ip", "celebrity", "style"], typer.Option(help="The kind of concept.")
    ] = "object",
    sense: Annotated[str, typer.Option(help='The meaning of an ambiguous word, such as "animal".')] = "",
    out: Annotated[Path | None, typer.Option(help="The spec file to write.", show_default="no file")] = None,
    seed: Seed = 0,
    model: Model = "",
    as_json: AsJson = False,
):
    """Propose a concept's lists: corefs to erase with it and retains to keep, each with a certainty.

    Asks the language model set by OPENAI_BASE_URL, OPENAI_API_KEY and CRCE_MODEL, using the paper's prompts. If these
    are not set, the bundled lexicon proposes. Terms appear as they are written. An ambiguous word gets one spec per
    sense: --out bat.json writes files such as bat-animal.json.

    Examples:

    ```
    python -m crce propose lighthouse --out lighthouse.json
    python -m crce propose bat --sense animal
    python -m crce propose "The Joker" --category ip --json
    ```
    """
    from crce.proposers.proposers import proposer

    _check_suffix(out)
    who = proposer(model)
    terminal.console.print(f"asking {who.label}", markup=False)
    specs = terminal.show_terms(who.meanings(name, category, sense, seed))
    paths = _name_files(specs, out)
    for spec, path in zip(specs if paths else [], paths, strict=True):
        save_spec(spec, path)
    facts = [spec_to_dict(spec) for spec in specs]
    if as_json:
        return terminal.say({"proposer": who.label, "specs": facts, "paths": [str(p) for p in paths]}, "", True)
    for spec in specs:
        print(f"\n{spec.name}")
        terminal.say(None, _tabulate_terms(spec), False)
    print("\n".join(map(str, paths)) or "\nNothing was saved. Give --out to write a spec file.")


def refine(
    concept: Concept,
    request: Annotated[str, typer.Argument(help="What to change, in your own words.")],
    yes: Annotated[bool, typer.Option("--yes", help="Apply the changes without asking.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="The spec file to write.", show_default="the input file, or your own copy")
    ] = None,
    model: Model = "",
    as_json: AsJson = False,
):
    """Ask the proposer to change a concept's lists, review the changes, and accept or reject them.

    "+" marks added terms, "−" dropped ones, "⇄" moves to the other list, "~" new certainties. Asks before writing
    anything; with --json it writes only if --yes is given. A concept of the library is saved as your own copy.
    Without a language model, only a few requests are understood; "help" lists them.

    Examples:

    ```
    python -m crce refine dog "fewer breeds, more everyday names"
    python -m crce refine my-dog.json "drop bow-wow" --yes
    ```
    """
    from crce.proposers.proposers import proposer

    _check_suffix(out)
    spec, who = find_concept(concept), proposer(model)
    revision = terminal.show_terms(who.revise(spec, request))
    labels = [change.label for change in edits.changes(spec, revision.spec, revision.why)]
    if not as_json:
        print("\n".join([revision.says, *labels]))
    path = out or (Path(concept) if concept.endswith(".json") else own_path(revision.spec))
    taken = bool(labels) and (yes or (not as_json and typer.confirm("Apply?", err=True)))
    if taken:
        save_spec(revision.spec, path)
    facts = {"says": revision.says, "changes": labels, "applied": taken, "path": str(path) if taken else None}
    terminal.say(facts, str(path) if taken else "Nothing was changed.", as_json)


def suggest(
    category: Annotated[Literal["ip", "celebrity"], typer.Argument(help="Fictional characters or real people.")],
    model: Model = "",
    as_json: AsJson = False,
):
    """Suggest concepts to start with, using the paper's two prompts, or CorefConcept if no language model is set.

    Example:

    ```
    python -m crce suggest ip
    ```
    """
    from crce.generators import drain
    from crce.proposers.proposers import proposer

    names = drain(proposer(model).names(category))
    terminal.say(names, "\n".join(names), as_json)


def _check_suffix(out: Path | None) -> None:
    if out and out.suffix != ".json":
        raise CrceError(f"--out is {str(out)!r}; the name of a spec file must end in .json.")


def _name_files(specs: list[ConceptSpec], out: Path | None) -> list[Path]:
    """One file per sense: bat.json becomes bat-animal.json and bat-club.json."""
    if not out or len(specs) == 1:
        return [out] if out else []
    return [out.with_name(f"{out.stem}-{ConceptSpec(spec.sense).slug}.json") for spec in specs]


def _tabulate_terms(spec: ConceptSpec) -> Table:
    rows = [
        (edits.LISTS[kind], term.text, term.certainty, term.split, term.note)
        for kind in edits.LISTS
        for term in getattr(spec, kind)
    ]
    return terminal.table(["list", "term", "certainty", "split", "why"], rows)


@datasets.command("check")
def check_dataset(
    folder: Annotated[
        Path, typer.Argument(help="Contains CATEGORY/CONCEPT.json.", show_default="corefconcept")
    ] = SHIPPED,
    as_json: AsJson = False,
):
    """Check every spec in a folder; the exit code is 1 if there are errors.

    Format: each file is a valid spec with the right name and has 15 corefs and 15 retains, 10 of each for training and
    5 for testing. Rules for terms: no duplicates; no other entity named (leak); no retain inside a coref (contains);
    not vague; not long; at most 3 variations of the target's name (modifiers); another sense of an ambiguous word
    among the retains (sense); no coref in two concepts (taken). Terms printed in the paper only cause warnings.

    Examples:

    ```
    python -m crce dataset check
    python -m crce dataset check my-dataset --json
    ```
    """
    from crce.concepts import dataset

    found = dataset.check(folder)
    lines = [*(f"warning: {line}" for line in found.warnings), *(f"error: {line}" for line in found.problems)]
    sums = f"{len(found.problems)} errors, {len(found.warnings)} warnings"
    text = "\n".join([*lines, f"{found.concepts} concepts, {found.terms} terms: {sums}."])
    terminal.say(asdict(found), text, as_json)
    raise typer.Exit(bool(found.problems))


@datasets.command("changes")
def compare_datasets(
    before: Annotated[Path, typer.Argument(help="The earlier version's folder.")],
    after: Annotated[Path, typer.Argument(help="The later one's.", show_default="corefconcept")] = SHIPPED,
    as_json: AsJson = False,
):
    """Say what changed between two versions of a dataset: terms added, dropped and moved, and new certainties.

    Example: python -m crce dataset changes my-dataset-v1 my-dataset
    """
    from crce.concepts import changelog, dataset

    def read(folder: Path) -> list[ConceptSpec]:
        if specs := dataset.read(folder):
            return specs
        raise CrceError(f"{folder} contains no specs. Give the folder of a dataset.")

    found = changelog.compare(read(before), read(after))
    lines = [f"{each.name}, {each.verb}: {line}" for each in found for line in each.lines]
    terminal.say([asdict(each) for each in found], "\n".join(lines) or "Nothing changed.", as_json)


@datasets.command("card")
def write_card(as_json: AsJson = False):
    """Update the header and the contents section of corefconcept/README.md.

    Run it after changing a spec; a test compares the two. Needs a checkout.
    """
    from crce import files
    from crce.concepts import dataset

    path = files.checkout() / "corefconcept" / "README.md"
    files.write_atomic(path, dataset.render_card(dataset.read(SHIPPED)))
    terminal.say({"card": str(path)}, str(path), as_json)
