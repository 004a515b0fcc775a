"""The command that writes a run's result as files for other programs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from crce.cli import terminal
from crce.cli.options import AsJson, Formats, Fp16, RunName
from crce.cli.runs import open_run
from crce.cost import format_size


def export(
    run: RunName,
    formats: Formats = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("out/export"),
    fp16: Fp16 = False,
    as_json: AsJson = False,
):
    """Write a finished run's result for other programs, and say how each file is loaded.

    weights: what changed, for diffusers. diff: the exact difference, for ComfyUI and Forge. lora: an approximation, for
    all that read LoRAs. pipeline: the whole model as a folder of diffusers. checkpoint: the whole model as one file,
    for A1111, Forge and ComfyUI.

    Examples:

    ```
    python -m crce export out/dog
    python -m crce export out/dog --format checkpoint --fp16 --out models
    ```
    """
    from crce.publishing import export as exports

    found = open_run(run)
    done = exports.export(found, formats or exports.default_formats(found.job.config.result.kind), out, fp16)
    facts = [{**asdict(each), "path": str(each.path)} for each in done]
    terminal.say(facts, "\n\n".join(map(_describe, done)), as_json)


def _describe(done) -> str:
    lines = [f"{done.path} ({format_size(done.size)})", done.limits, *done.snippet.splitlines(), done.how]
    first, *rest = filter(None, lines)
    return "\n".join([first, *(f"    {line}" for line in rest)])
