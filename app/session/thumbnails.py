"""What the base draws for a phrase, small: drawn once by the worker when it is idle, then kept."""

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path

from app.components import data_url, small
from crce import bases, files
from crce.concepts.library import bundled
from crce.concepts.spec import ConceptSpec
from crce.errors import CrceError
from crce.worker import client
from crce.worker.requests import Column, GenerateRequest

BASE = bases.EMOJI_SD
HERO = {"dog": "gone", "puppy": "gone", "guide dog": "gone", "cat": "kept", "wolf": "kept"}
_AT_ONCE = 8
_SEED = 0


def mark(prompt: str) -> str:
    """The CSS class that shows the picture of `prompt`."""
    return f"t-{hashlib.sha256(f'{_version()} {prompt}'.encode()).hexdigest()[:16]}"


def drawn(specs: Iterable[ConceptSpec]) -> list[ConceptSpec]:
    """Without bundled concepts that the base was not found to draw: their pictures would show something else."""
    known, shipped = files.read_json(Path(bases.resolve(BASE)) / "covered.json")["concepts"], bundled()
    return [spec for spec in specs if spec.slug in known or spec.slug not in shipped]


def styles(prompts: list[str]) -> str:
    """A style sheet with the pictures there are: they appear without drawing any list anew."""
    found = {mark(prompt): _path(prompt) for prompt in prompts}
    rules = [
        f".{name}{{background-image:url({data_url(path.read_bytes(), 'image/png')})!important}}"
        for name, path in found.items()
        if path.exists()
    ]
    return f"<style>{''.join(rules)}</style>"


def ready(prompts: list[str]) -> list[str]:
    return [prompt for prompt in dict.fromkeys(prompts) if _path(prompt).exists()]


def missing(prompts: list[str]) -> list[str]:
    return [prompt for prompt in dict.fromkeys(prompts) if not _path(prompt).exists()]


def draw(prompts: list[str], tab: str) -> bool:
    """Asks the worker for the next few pictures. False when nothing came back."""
    wanted = missing(prompts)[:_AT_ONCE]
    if not wanted:
        return False
    try:
        answer = client.send(_request(wanted, tab), timeout=60)
    except CrceError:
        return False
    if answer is None:
        return False
    for prompt, cell in zip(wanted, answer.columns[0], strict=True):
        files.write_atomic(_path(prompt), small(base64.b64decode(cell.png)))
    return True


def _request(prompts: list[str], tab: str) -> GenerateRequest:
    return GenerateRequest(f"{tab}-thumbs", BASE, [Column()], prompts, [_SEED], [None] * len(prompts))


def _path(prompt: str) -> Path:
    return files.home() / "thumbs" / f"{mark(prompt)}.png"


def _version() -> int:
    """Pictures of a base that was trained further are pictures of another model."""
    try:
        return int(Path(bases.resolve(BASE), "model_index.json").stat().st_mtime)
    except CrceError:
        return 0
