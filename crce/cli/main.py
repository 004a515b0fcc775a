"""Assembles the command line. It calls the same functions as the app, and imports torch only to draw or train."""

import os
import sys
from collections.abc import Callable

import typer

from crce.cli import bases, bundle, curate, erase, evaluate, export, publish, runs
from crce.errors import CrceError

app = typer.Typer(
    name="crce",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Erase a concept and its other names from a text-to-image model, and keep its neighbours.",
    epilog="Start with: python -m crce demo dog",
)

# In the order of `--help`: what newcomers need comes first.
COMMANDS: tuple[Callable, ...] = (
    erase.erase, erase.generate, erase.distances, erase.preview, evaluate.evaluate, evaluate.demo, export.export,
    erase.methods, curate.concepts, curate.propose, curate.refine, curate.suggest, runs.list_runs, runs.stop,
    runs.resume, runs.worker, evaluate.calibrate, evaluate.cover, evaluate.measure, evaluate.sweep, evaluate.sheet,
    evaluate.table, bases.download, bundle.bundle, bundle.import_bundle,
)  # fmt: skip
# Names that no function can have.
_NAMES: dict[Callable, str] = {runs.list_runs: "runs", bundle.import_bundle: "import"}

for command in COMMANDS:
    app.command(_NAMES.get(command))(command)
app.add_typer(publish.publish, name="publish")
app.add_typer(curate.datasets, name="dataset")


def main() -> None:
    """Runs a command; a CrceError becomes one line on stderr and exit code 1."""
    # Silence the libraries' own advice; a CrceError says what went wrong.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    try:
        app()
    except CrceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
