"""A comparison as one picture, for papers and emails."""

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from app.components import encode_png
from app.session.comparison import Comparison, Prompt
from crce.worker.answers import Cell

_SIDE, _GAP, _HEAD, _LABEL = 96, 6, 34, 190  # pixels
_INK, _MUTED, _GREEN, _RED = "#0f172a", "#64748b", "#0b8a72", "#d6336c"
_LABELS = {"target": ("must go", _RED), "coref": ("must go", _RED), "retain": ("must stay", _GREEN),
           "typed": ("typed", _MUTED)}  # fmt: skip


def draw_sheet(comparison: Comparison) -> bytes:
    """A PNG with models in columns and prompts in rows. Pictures are never compressed with loss."""
    width = len(comparison.seeds) * (_SIDE + _GAP) + 2 * _GAP
    size = _LABEL + len(comparison.titles) * width, _HEAD + len(comparison.rows) * (_SIDE + _GAP) + 26
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    for column, title in enumerate(comparison.titles):
        pen.text((_LABEL + column * width, 9), f"{title.name} · {title.about}", _INK, _font(14))
    for number, row in enumerate(comparison.rows):
        top = _HEAD + number * (_SIDE + _GAP)
        _draw_label(pen, row.prompt, top)
        for column, pictures in enumerate(row.columns):
            _paste(image, pictures, _LABEL + column * width, top)
    seeds = ", ".join(map(str, comparison.seeds))
    note = f"seeds {seeds}, the same in every column · concept: {comparison.concept}"
    pen.text((10, size[1] - 20), note, _MUTED, _font(12))
    return encode_png(image)


def _draw_label(pen: ImageDraw.ImageDraw, prompt: Prompt, top: int) -> None:
    label, colour = _LABELS[prompt.kind]
    text = prompt.text if len(prompt.text) <= 26 else f"{prompt.text[:25]}…"
    pen.text((10, top + 30), text, _INK, _font(14))
    pen.text((10, top + 50), label, colour, _font(12))


def _paste(image: Image.Image, pictures: Sequence[Cell], left: int, top: int) -> None:
    for place, picture in enumerate(pictures):
        drawn = Image.open(io.BytesIO(base64.b64decode(picture.png))).convert("RGB")
        drawn = drawn.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        image.paste(drawn, (left + place * (_SIDE + _GAP), top))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
