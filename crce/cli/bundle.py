"""Commands that pass a run on as one file."""

from pathlib import Path
from typing import Annotated

import typer

from crce.cli import terminal
from crce.cli.options import AsJson, RunName
from crce.cli.runs import describe_run, open_run
from crce.cost import format_size


def bundle(
    run: RunName,
    out: Annotated[Path, typer.Option(help="The zip file to write.", show_default="NAME-OF-THE-RUN.zip")] = Path(),
    as_json: AsJson = False,
):
    """Write a finished run as one zip file: concepts, settings, result, report, pictures and versions.

    Example: python -m crce bundle out/dog --out dog.zip
    """
    from crce.runs.bundle import pack

    found = open_run(run)
    path = pack(found, Path(f"{found.id}.zip") if out == Path() else out)
    facts = {"path": str(path.resolve()), "size": path.stat().st_size}
    terminal.say(facts, f"{path} ({format_size(path.stat().st_size)})", as_json)


def import_bundle(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A zip file that `bundle` wrote.")],
    base: Annotated[str, typer.Option(help="The folder of its base model, where that was a folder.")] = "",
    as_json: AsJson = False,
):
    """Take in a run from a zip file: it can be compared, exported and published like your own.

    A file that is anything but such a bundle is refused as a whole.

    Example: python -m crce import dog.zip
    """
    from crce.runs.bundle import unpack

    done = unpack(path, base)
    terminal.warn([done.warning] if done.warning else [])
    made = ", ".join(f"{name} {version}" for name, version in done.versions.items())
    facts = {**describe_run(done.run), "versions": done.versions, "warning": done.warning}
    terminal.say(facts, f"{done.run.id}: {done.run.title} (packed with {made})", as_json)
