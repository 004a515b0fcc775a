"""Getting a base model for a command: nothing large is downloaded unasked, and a GPU that is not used is named."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from crce import devices, downloads
from crce.cli import terminal
from crce.cli.options import AsJson, Dtype
from crce.cost import format_size
from crce.errors import CrceError
from crce.runs.models import Models

if TYPE_CHECKING:
    from crce.models.diffusion import Diffusion


def download(
    base: Annotated[str, typer.Argument(help="A Hub id such as CompVis/stable-diffusion-v1-4.")],
    dtype: Dtype = "auto",
    as_json: AsJson = False,
):
    """Download a base model from the Hub: only what an erasure needs, and nothing that is here already.

    Example:

    ```
    python -m crce download CompVis/stable-diffusion-v1-4
    ```
    """
    folder = downloads.require(base, _name_dtype(dtype))[0] if _is_here(base, dtype) else _fetch(_plan(base, dtype))
    terminal.say({"base": base, "folder": folder}, folder, as_json)


def prepare(base: str, device: str = "auto", dtype: str = "auto", yes: bool = False) -> None:
    """Makes sure that the base can be loaded: asks before it is downloaded, and warns of a GPU that is not used.

    yes: consents to the download. Raises CrceError without consent, and where nobody can be asked.
    """
    if device == devices.AUTO and (problem := devices.problem()):
        terminal.warn([problem])
    if _is_here(base, dtype, device):
        return
    found = _plan(base, dtype, device)
    terminal.console.print(found.describe(), markup=False, soft_wrap=True)
    if not yes and not sys.stdin.isatty():
        raise CrceError(f"{base} is not downloaded without consent. Repeat with --yes, or run `crce download {base}`.")
    if not yes and not typer.confirm("Download it?", err=True):
        raise CrceError(f"{base} was not downloaded, and nothing was started.")
    _fetch(found)


def load(base: str, device: str = "auto", dtype: str = "auto", yes: bool = False) -> "Diffusion":
    """The base model, after `prepare`."""
    prepare(base, device, dtype, yes)
    return Models().get(base, device, dtype)


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
