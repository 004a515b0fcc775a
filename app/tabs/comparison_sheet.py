"""The comparison as one picture, for papers and mails."""

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from app.components import png_bytes
from crce.worker.answers import Cell

_SIDE, _GAP, _HEAD, _LABEL = 96, 6, 34, 190
_INK, _MUTE, _OK, _NO = "#0f172a", "#64748b", "#0b8a72", "#d6336c"


def png(drawn: dict) -> bytes:
    """Columns of runs, rows of prompts; every picture as it was drawn, never lossy."""
    seeds, columns = len(drawn["seeds"]), len(drawn["titles"])
    wide = seeds * (_SIDE + _GAP) + 2 * _GAP
    size = _LABEL + columns * wide, _HEAD + len(drawn["rows"]) * (_SIDE + _GAP) + 26
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    for place, title in enumerate(drawn["titles"]):
        pen.text((_LABEL + place * wide, 9), f"{title['name']} · {title['about']}", _INK, _font(14))
    for number, row in enumerate(drawn["rows"]):
        top = _HEAD + number * (_SIDE + _GAP)
        _label(pen, row, top)
        for place, cells in enumerate(row["cells"]):
            _paste(image, cells, (_LABEL + place * wide, top))
    note = f"seeds {', '.join(map(str, drawn['seeds']))}, the same in every column · concept: {drawn['concept']}"
    pen.text((10, size[1] - 20), note, _MUTE, _font(12))
    return png_bytes(image)


def _label(pen: ImageDraw.ImageDraw, row: dict, top: int) -> None:
    colour = _OK if row["kind"] == "retain" else _NO if row["kind"] in ("target", "coref") else _MUTE
    words = {"target": "must go", "coref": "must go", "retain": "must stay", "typed": "typed"}[row["kind"]]
    pen.text((10, top + 30), _short(row["prompt"]), _INK, _font(14))
    pen.text((10, top + 50), words, colour, _font(12))


def _paste(image: Image.Image, cells: Sequence[Cell], corner: tuple[int, int]) -> None:
    for place, cell in enumerate(cells):
        picture = Image.open(io.BytesIO(base64.b64decode(cell.png))).convert("RGB")
        picture = picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        image.paste(picture, (corner[0] + place * (_SIDE + _GAP), corner[1]))


def _short(text: str) -> str:
    return text if len(text) <= 26 else f"{text[:25]}…"


def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)
