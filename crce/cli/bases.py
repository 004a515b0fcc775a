"""Getting a base model or a judge for a command: nothing large is downloaded unasked, and an unused GPU is named."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from crce import devices, downloads
from crce.bases import EMOJI_SD
from crce.cli import terminal
from crce.cli.options import AsJson, Dtype
from crce.cost import format_size
from crce.errors import CrceError
from crce.judges.choices import AUTO, choose_judge, find_missing
from crce.runs.models import Models

if TYPE_CHECKING:
    from crce.models.diffusion import Diffusion


def download(
    base: Annotated[str, typer.Argument(help="A Hub id such as CompVis/stable-diffusion-v1-4.")],
    dtype: Dtype = "auto",
    judge: Annotated[bool, typer.Option("--judge", help="It is a judge: qwen2-vl, clip, or a Hub id.")] = False,
    as_json: AsJson = False,
):
    """Download a base model or a judge from the Hub: only what is needed, and nothing that is here already.

    Examples:

    ```
    python -m crce download CompVis/stable-diffusion-v1-4
    python -m crce download --judge qwen2-vl
    ```
    """
    if judge:
        return _download_judge(base, as_json)
    folder = downloads.require(base, _name_dtype(dtype))[0] if _is_here(base, dtype) else _fetch(_plan(base, dtype))
    terminal.say({"base": base, "folder": folder}, folder, as_json)


def prepare(base: str, device: str = "auto", dtype: str = "auto", yes: bool = False) -> None:
    """Makes sure that the base can be loaded: asks before it is downloaded, and warns of a GPU that is not used.

    yes: consents to the download. Raises CrceError without consent, where nobody can be asked, and for a device that is
    not there.
    """
    check_device(device)
    if _is_here(base, dtype, device):
        return
    _ask_and_fetch(_plan(base, dtype, device), yes, base)


def check_device(device: str) -> None:
    """Warns of a GPU that is not used. Raises CrceError for a device that is not there."""
    if device == devices.AUTO:
        terminal.warn(filter(None, [devices.problem()]))
        return
    from crce.models.diffusion import pick_device

    pick_device(device)


def prepare_judge(base: str, judge: str, yes: bool = False) -> None:
    """Makes sure that the judge of a base can be loaded: asks before its weights are downloaded.

    yes: consents to the download. Raises CrceError as `prepare` does, and for a judge that is named and cannot be used.
    """
    if judge == AUTO:  # that one takes only what is here
        return
    if missing := find_missing(choose_judge(base, judge)):
        _ask_and_fetch(downloads.plan_judge(missing), yes, f"--judge {judge}")


def _ask_and_fetch(found: downloads.Download, yes: bool, named: str) -> None:
    """named: what `crce download` takes for it."""
    terminal.console.print(found.describe(), markup=False, soft_wrap=True)
    if not yes and not sys.stdin.isatty():
        raise CrceError(
            f"{found.base} is not downloaded without consent. Repeat with --yes, or run `crce download {named}`."
        )
    if not yes and not typer.confirm("Download it?", err=True):
        raise CrceError(f"{found.base} was not downloaded, and nothing was started.")
    _fetch(found)


def load(base: str, device: str = "auto", dtype: str = "auto", yes: bool = False) -> "Diffusion":
    """The base model, after `prepare`."""
    prepare(base, device, dtype, yes)
    return Models().get(base, device, dtype)


def _download_judge(judge: str, as_json: bool) -> None:
    missing = find_missing(choose_judge(EMOJI_SD, judge))
    text = _fetch(downloads.plan_judge(missing)) if missing else "It is here already."
    terminal.say({"judge": judge}, text, as_json)


def _is_here(base: str, dtype: str, device: str = "auto") -> bool:
    return downloads.is_here(base, _name_dtype(dtype, device))


def _plan(base: str, dtype: str, device: str = "auto") -> downloads.Download:
    return downloads.plan(base, _name_dtype(dtype, device))


def _name_dtype(dtype: str, device: str = "auto") -> str:
    name = devices.resolve_dtype(dtype, device)
    if name not in devices.DTYPES:
        raise CrceError(f"There is no dtype {dtype!r}. Use auto, {', '.join(devices.DTYPES)}.")
    return name


def _fetch(found: downloads.Download) -> str:
    label = f"downloading {format_size(found.size)}"
    return str(terminal.show_progress(label, downloads.fetch(found)))
