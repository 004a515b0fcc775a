"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from crce.catalogue import BACKBONES

Concept = Annotated[
    str, typer.Argument(help='A concept of the library ("dog", "bat (animal)") or the path of a spec file.')
]
Base = Annotated[str, typer.Option(help="emoji-sd, a folder with a diffusers pipeline, or a Hub id.")]
Anchor = Annotated[
    str | None,
    typer.Option(help='What the target is drawn as instead, such as "a wolf".', show_default="left to the method"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, fp16 or bf16. Trained weights are always fp32.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout; progress goes to stderr.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id (see `runs`) or its folder.")]
Seed = Annotated[int, typer.Option(help="The random seed; the same seed gives the same result.")]
Backbone = Annotated[
    str,
    typer.Option(
        help=f"The backbone: whose loss CRCE adds its corefs and retains to. One of {', '.join(BACKBONES)}. "
        "Steps and learning rate are then that method's. The other methods have none."
    ),
]
MicrobatchSize = Annotated[
    int, typer.Option(help="Terms through the U-Net at once. 0: all, the fastest; 1 needs the least memory.")
]
# Their names before 0.2, still understood.
OldBackbone = Annotated[str | None, typer.Option("--on", hidden=True, help="The former name of --backbone.")]
OldMicrobatchSize = Annotated[
    int | None, typer.Option("--rows", hidden=True, help="The former name of --microbatch-size.")
]
Images = Annotated[int, typer.Option(help="Pictures per term, with seeds 0, 1, …; the target gets five times as many.")]
