from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from crce.cli import terminal
from crce.cli.options import AsJson, Concept, Seed
from crce.concepts import edits
from crce.concepts.library import SHIPPED, find_spec, library, own_path, save_spec
from crce.concepts.spec import ConceptSpec, spec_to_dict
from crce.errors import CrceError

datasets = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Look after CorefConcept, or a dataset folder of your own."
)


def concepts(as_json: AsJson = False):
    """List the concepts of the library, your own included."""
    facts = [
        {"slug": slug, "name": s.name, "category": s.category, "corefs": len(s.corefs), "retains": len(s.retains)}
        for slug, s in library().items()
    ]
    rows = [(f["name"], f["category"], f["corefs"], f["retains"]) for f in facts]
    terminal.say(facts, terminal.table(["concept", "category", "corefs", "retains"], rows), as_json)


Model = Annotated[str, typer.Option(help="Another model of the endpoint.", show_default="CRCE_MODEL")]


def propose(
    name: Annotated[str, typer.Argument(help="The concept, as one would write it in a prompt.")],
    category: Annotated[Literal["object", "ip", "celebrity", "style"], typer.Option(help="What it is.")] = "object",
    sense: Annotated[str, typer.Option(help='Which meaning of an ambiguous word: "animal".')] = "",
    out: Annotated[Path | None, typer.Option(help="The spec file to write.", show_default="none is written")] = None,
    seed: Seed = 0,
    model: Model = "",
    as_json: AsJson = False,
):
    """Propose a concept's lists: corefs to erase with it, retains to keep, each with a certainty.

    Asks the language model of OPENAI_BASE_URL, OPENAI_API_KEY and CRCE_MODEL, with the paper's prompt; where none is
    set, the bundled lexicon. The terms are shown as they are written. An ambiguous word gets a spec for each sense:
    with --out bat.json, files such as bat-animal.json.

    Examples:

        python -m crce propose lighthouse --out lighthouse.json
        python -m crce propose bat --sense animal
        python -m crce propose "The Joker" --category ip --json
    """
    from crce.proposers.proposers import proposer

    _must_be_json(out)
    who = proposer(model)
    terminal.console.print(f"asking {who.label}", markup=False)
    specs = terminal.writing(who.meanings(name, category, sense, seed))
    paths = _one_file_each(specs, out)
    for spec, path in zip(specs if paths else [], paths, strict=True):
        save_spec(spec, path)
    facts = [spec_to_dict(spec) for spec in specs]
    if as_json:
        return terminal.say({"proposer": who.label, "specs": facts, "paths": [str(p) for p in paths]}, "", True)
    for spec in specs:
        print(f"\n{spec.name}")
        terminal.say(None, _terms_table(spec), False)
    print("\n".join(map(str, paths)) or "\nNothing is kept. Give --out to write a spec file.")


def refine(
    concept: Concept,
    wish: Annotated[str, typer.Argument(help="What should change, in your words.")],
    yes: Annotated[bool, typer.Option("--yes", help="Apply what is proposed without asking.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="The spec file to write.", show_default="the file, or your own copy")
    ] = None,
    model: Model = "",
    as_json: AsJson = False,
):
    """Say what should change in a concept's lists, see the difference, and take it or leave it.

    "+" is new, "−" dropped, "⇄" moved to the other list, "~" given another certainty. Asks before anything is
    written; with --json it only shows, unless there is --yes. A concept of the library is kept as your own copy.
    Without a language model a handful of requests is understood; "help" lists them.

    Examples:

        python -m crce refine dog "fewer breeds, more everyday names"
        python -m crce refine my-dog.json "drop bow-wow" --yes
    """
    from crce.proposers.proposers import proposer

    _must_be_json(out)
    spec, who = find_spec(concept), proposer(model)
    revision = terminal.writing(who.revise(spec, wish))
    labels = [change.label for change in edits.changes(spec, revision.spec, revision.why)]
    if not as_json:
        print("\n".join([revision.says, *labels]))
    path = out or (Path(concept) if concept.endswith(".json") else own_path(revision.spec))
    taken = bool(labels) and (yes or (not as_json and typer.confirm("Apply?", err=True)))
    if taken:
        save_spec(revision.spec, path)
    facts = {"says": revision.says, "changes": labels, "applied": taken, "path": str(path) if taken else None}
    terminal.say(facts, str(path) if taken else "Nothing is changed.", as_json)


def suggest(
    category: Annotated[Literal["ip", "celebrity"], typer.Argument(help="Characters, or real people.")],
    model: Model = "",
    as_json: AsJson = False,
):
    """Suggest concepts to begin with, by the paper's own two prompts; without a language model, CorefConcept's.

    Example:

        python -m crce suggest ip
    """
    from crce.proposers.offers import finish
    from crce.proposers.proposers import proposer

    names = finish(proposer(model).names(category))
    terminal.say(names, "\n".join(names), as_json)


def _must_be_json(out: Path | None) -> None:
    if out and out.suffix != ".json":
        raise CrceError(f"--out is {str(out)!r}; a spec file's name ends in .json.")


def _one_file_each(specs: list[ConceptSpec], out: Path | None) -> list[Path]:
    """Several senses go beside each other: bat.json becomes bat-animal.json and bat-club.json."""
    if not out or len(specs) == 1:
        return [out] if out else []
    return [out.with_name(f"{out.stem}-{ConceptSpec(spec.sense).slug}.json") for spec in specs]


def _terms_table(spec: ConceptSpec):
    rows = [
        (edits.LISTS[kind], term.text, term.certainty, term.split, term.note)
        for kind in edits.LISTS
        for term in getattr(spec, kind)
    ]
    return terminal.table(["list", "term", "certainty", "split", "why"], rows)


@datasets.command("check")
def check_dataset(
    folder: Annotated[Path, typer.Argument(help="Holds CATEGORY/CONCEPT.json.", show_default="corefconcept")] = SHIPPED,
    as_json: AsJson = False,
):
    """Check every spec of a folder, and end with 1 where something is wrong.

    Form: each file is a spec and lies where its name says; 15 corefs and 15 retains, 10 and 5 of each to train and to
    test with. Rules, for each term: no duplicate; no other entity named (leak); no retain inside a coref (contains);
    not vague; not long; at most 3 names with an addition (modifiers); another sense of an ambiguous word is kept
    (sense); no coref of two concepts (taken). What the paper prints stands as it is, so there the rules only warn.

    Examples:

        python -m crce dataset check
        python -m crce dataset check my-dataset --json
    """
    from crce.concepts import dataset

    found = dataset.check(folder)
    lines = [*(f"warning: {line}" for line in found.warnings), *(f"error: {line}" for line in found.problems)]
    sums = f"{len(found.problems)} errors, {len(found.warnings)} warnings"
    text = "\n".join([*lines, f"{found.concepts} concepts, {found.terms} terms: {sums}."])
    terminal.say(asdict(found), text, as_json)
    raise typer.Exit(bool(found.problems))


@datasets.command("card")
def write_card(as_json: AsJson = False):
    """Count what corefconcept/ holds, and write the header and the contents of its card, README.md.

    Do it after a change of the specs; the tests compare the two.
    """
    from crce import files
    from crce.concepts import dataset

    path = SHIPPED / "README.md"
    files.write_atomic(path, dataset.render_card(dataset.read(SHIPPED)))
    terminal.say({"card": str(path)}, str(path), as_json)
