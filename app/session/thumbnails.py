"""A small picture of what the base draws for a phrase: shipped with the model for the first screen; others are drawn
once by the idle worker, then kept."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from PIL import Image

from app import news
from app.components import data_url, encode_png, shrink
from crce import bases, files
from crce.base_version import find_digest
from crce.concepts.drawn import read_record
from crce.concepts.library import bundled
from crce.concepts.spec import ConceptSpec
from crce.errors import CrceError
from crce.runs import Run
from crce.worker.answers import GenerateAnswer
from crce.worker.requests import Column, GenerateRequest

BASE = bases.EMOJI_SD
HERO = {"dog": "gone", "puppy": "gone", "guide dog": "gone", "cat": "kept", "wolf": "kept"}
SHEET, SHEET_SIDE, SHEET_SEED = "thumbnails.png", 64, 0
_OPEN = 7  # of each list: the file stays below 200 kB
_AT_ONCE = 8


def picture_class(prompt: str) -> str:
    """The CSS class that shows the picture of `prompt`."""
    return f"t-{hashlib.sha256(f'{_read_version()} {prompt}'.encode()).hexdigest()[:16]}"


def filter_drawn(specs: Iterable[ConceptSpec]) -> list[ConceptSpec]:
    """The concepts without those that the base is known not to draw: a picture would show something else."""
    record = read_record(BASE)
    return [spec for spec in specs if record.draws(spec) is not False]


def build_styles(prompts: list[str]) -> str:
    """A style sheet with the existing pictures, so that they appear without redrawing a list."""
    urls = {prompt: data_url(_read(prompt), "image/png") for prompt in list_ready(prompts)}
    rules = [f".{picture_class(prompt)}{{background-image:url({url})!important}}" for prompt, url in urls.items()]
    return f"<style>{''.join(rules)}</style>"


def list_ready(prompts: list[str]) -> list[str]:
    return [prompt for prompt in dict.fromkeys(prompts) if _is_ready(prompt)]


def request_missing(prompts: list[str], session: str | None) -> GenerateRequest | None:
    """Asks for the next few pictures that do not exist yet; None if there are all."""
    missing = [prompt for prompt in dict.fromkeys(prompts) if not _is_ready(prompt)][:_AT_ONCE]
    if not missing:
        return None
    return GenerateRequest(f"{session}-thumbs", BASE, [Column()], missing, [SHEET_SEED], [None] * len(missing))


def keep(request: GenerateRequest, answer: GenerateAnswer | None) -> None:
    if answer:
        for prompt, cell in zip(request.prompts, answer.columns[0], strict=True):
            files.write_atomic(_path(prompt), shrink(base64.b64decode(cell.png)))


def list_first() -> list[str]:
    """What the first screen shows, and the lists that are open at first: the prompts of the shipped pictures."""
    specs = bundled()
    first = specs["dog"]
    names = [spec.target for spec in filter_drawn(specs.values())]
    terms = (term.text for some in (first.corefs, first.retains) for term in some[:_OPEN])
    return list(dict.fromkeys([*HERO, *names, *terms]))


def find_news(found: list[Run]) -> object:
    """A picture more, or the machine is free to draw some."""
    return news.changed(_folder()), is_busy(found)


def is_busy(found: list[Run]) -> bool:
    """A run needs the machine."""
    return any(run.state in ("queued", "running") for run in found)


def _is_ready(prompt: str) -> bool:
    return prompt in _read_shipped() or _path(prompt).exists()


def _read(prompt: str) -> bytes:
    return _read_shipped().get(prompt) or _path(prompt).read_bytes()


def _read_shipped() -> Mapping[str, bytes]:
    """The pictures that came with the model; none where it is not there."""
    with suppress(CrceError):
        return _cut_sheet(Path(bases.resolve(BASE), SHEET), _read_version())
    return {}


@lru_cache(maxsize=2)
def _cut_sheet(path: Path, version: int) -> Mapping[str, bytes]:
    """Empty where they are of another version of the model. version: changes with the model's files."""
    if not path.is_file():
        return {}
    with Image.open(path) as sheet:
        sheet.load()
        if sheet.info.get("model") != find_digest(BASE):
            return {}
        columns = sheet.width // SHEET_SIDE
        return {
            prompt: encode_png(sheet.crop(_find_box(*divmod(place, columns))))
            for place, prompt in enumerate(json.loads(sheet.info["prompts"]))
        }


def _find_box(row: int, column: int) -> tuple[int, int, int, int]:
    left, top = column * SHEET_SIDE, row * SHEET_SIDE
    return left, top, left + SHEET_SIDE, top + SHEET_SIDE


def _path(prompt: str) -> Path:
    return _folder() / f"{picture_class(prompt)}.png"


def _folder() -> Path:
    return files.home() / "thumbs"


def _read_version() -> int:
    """Changes when the base is trained further: its pictures are then those of another model."""
    try:
        return int(Path(bases.resolve(BASE), "model_index.json").stat().st_mtime)
    except CrceError:
        return 0
