"""Arguments and options that several commands share."""

from pathlib import Path
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
Method = Annotated[str, typer.Option(help="A method; `methods` lists them.")]
Steps = Annotated[int | None, typer.Option(help="Training steps.", show_default="the base's preset")]
Rate = Annotated[float | None, typer.Option(help="Learning rate of Adam.", show_default="the base's preset")]
Eta = Annotated[float, typer.Option(help="Negative guidance η: how far past the empty prompt to move.")]
Corefs = Annotated[int, typer.Option(help="M: corefs sampled per step. 0 uses none.")]
Retains = Annotated[int, typer.Option(help="N: retains sampled per step. 0 uses none.")]
EraseFrom = Annotated[
    str | None,
    typer.Option(help="Erase the concept only from this one, as an attribute of it. ESD, and CRCE on it."),
]
PreviewEvery = Annotated[int, typer.Option(help="Steps between two previews; 0: none.")]
Out = Annotated[Path | None, typer.Option(help="The run's folder.", show_default="a new run")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in --out, or the concept's newest unfinished run.")
]
LeaveOutLong = Annotated[
    bool, typer.Option("--leave-out-long", help="Erase without the terms that are longer than the base reads.")
]
Also = Annotated[list[str] | None, typer.Option(help="A further concept for the same run. Repeatable.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only estimate the time, memory and disk space.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, fp16 or bf16. Trained weights are always fp32.")]
Yes = Annotated[bool, typer.Option("--yes", help="Download what is not here, base model or judge, without asking.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout; progress goes to stderr.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id (see `runs`) or its folder.")]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="weights, diff, lora, pipeline or checkpoint; may be given several times.",
        show_default="weights and diff; lora for SPM",
    ),
]
Fp16 = Annotated[bool, typer.Option("--fp16", help="Half the size, rounded to fp16.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**62, help="The random seed; the same seed gives the same result.", show_default="0")
]
Backbone = Annotated[
    str,
    typer.Option(
        help=f"The backbone: whose loss CRCE adds its corefs and retains to. One of {', '.join(BACKBONES)}. "
        "Steps and learning rate are then that method's. The other methods have none."
    ),
]
Damping = Annotated[
    float | None,
    typer.Option(help="λ of a closed form, CRCE-plus or MACE: larger changes less.", show_default="the base's preset"),
]
MicrobatchSize = Annotated[
    int, typer.Option(help="Terms through the U-Net at once. 0: all, the fastest; 1 needs the least memory.")
]
UntilGone = Annotated[
    bool,
    typer.Option(
        "--until-gone",
        help="Stop early: every 15 steps the base's judge looks at 20 pictures of the concept and its training names, "
        "on seeds that no report uses, and training ends when it sees the concept in at most one.",
    ),
]
# Their names before 0.2, still understood.
OldBackbone = Annotated[str | None, typer.Option("--on", hidden=True, help="The former name of --backbone.")]
OldMicrobatchSize = Annotated[
    int | None, typer.Option("--rows", hidden=True, help="The former name of --microbatch-size.")
]
Judge = Annotated[
    str,
    typer.Option(
        help="Who says what a picture shows: auto (the base's own judge), qwen2-vl, endpoint, clip, or the Hub id or "
        "folder of a vision-language model."
    ),
]
Images = Annotated[int, typer.Option(help="Pictures per term, with seeds 0, 1, …; the target gets five times as many.")]
