"""A small picture of what the base draws for a phrase: drawn once by the idle worker, then kept."""

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path

from app.components import data_url, shrink
from crce import bases, files
from crce.concepts.library import bundled
from crce.concepts.spec import ConceptSpec
from crce.errors import CrceError
from crce.worker.answers import GenerateAnswer
from crce.worker.requests import Column, GenerateRequest

BASE = bases.EMOJI_SD
HERO = {"dog": "gone", "puppy": "gone", "guide dog": "gone", "cat": "kept", "wolf": "kept"}
_AT_ONCE = 8
_SEED = 0


def picture_class(prompt: str) -> str:
    """The CSS class that shows the picture of `prompt`."""
    return f"t-{hashlib.sha256(f'{_read_version()} {prompt}'.encode()).hexdigest()[:16]}"


def filter_drawn(specs: Iterable[ConceptSpec]) -> list[ConceptSpec]:
    """The concepts without those bundled ones that the base cannot draw: a picture would show something else."""
    known, shipped = files.read_json(Path(bases.resolve(BASE)) / "covered.json")["concepts"], bundled()
    return [spec for spec in specs if spec.slug in known or spec.slug not in shipped]


def build_styles(prompts: list[str]) -> str:
    """A style sheet with the existing pictures, so that they appear without redrawing a list."""
    urls = {prompt: data_url(_path(prompt).read_bytes(), "image/png") for prompt in list_ready(prompts)}
    rules = [f".{picture_class(prompt)}{{background-image:url({url})!important}}" for prompt, url in urls.items()]
    return f"<style>{''.join(rules)}</style>"


def list_ready(prompts: list[str]) -> list[str]:
    return [prompt for prompt in dict.fromkeys(prompts) if _path(prompt).exists()]


def request_missing(prompts: list[str], session: str | None) -> GenerateRequest | None:
    """Asks for the next few pictures that do not exist yet; None if there are all."""
    missing = [prompt for prompt in dict.fromkeys(prompts) if not _path(prompt).exists()][:_AT_ONCE]
    if not missing:
        return None
    return GenerateRequest(f"{session}-thumbs", BASE, [Column()], missing, [_SEED], [None] * len(missing))


def keep(request: GenerateRequest, answer: GenerateAnswer | None) -> None:
    if answer:
        for prompt, cell in zip(request.prompts, answer.columns[0], strict=True):
            files.write_atomic(_path(prompt), shrink(base64.b64decode(cell.png)))


def _path(prompt: str) -> Path:
    return files.home() / "thumbs" / f"{picture_class(prompt)}.png"


def _read_version() -> int:
    """Changes when the base is trained further: its pictures are then those of another model."""
    try:
        return int(Path(bases.resolve(BASE), "model_index.json").stat().st_mtime)
    except CrceError:
        return 0
