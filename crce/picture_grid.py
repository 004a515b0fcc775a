"""A grid of pictures as one picture: labelled columns and rows, the same seeds in every cell."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

GAP, HEAD, LABEL, FOOT, LONGEST = 6, 46, 190, 26, 26  # pixels; characters of a label
INK, MUTED, KEPT, GONE = "#0f172a", "#64748b", "#0b8a72", "#d6336c"


@dataclass(frozen=True)
class Label:
    """What stands over a column or beside a row: a text, and a small note in its colour."""

    text: str
    note: str = ""
    colour: str = MUTED


@dataclass(frozen=True)
class GridRow:
    """cells: for each column its pictures, side by side."""

    label: Label
    cells: Sequence[Sequence[Image.Image]]


def draw_grid(columns: Sequence[Label], rows: Sequence[GridRow], side: int, footer: str = "") -> Image.Image:
    """The grid with pictures of `side` pixels; all cells have as many pictures as the first."""
    per_cell = len(rows[0].cells[0]) if rows else 1
    width, height = per_cell * (side + GAP) + 2 * GAP, side + GAP
    size = LABEL + len(columns) * width, HEAD + len(rows) * height + (FOOT if footer else 0)
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    for place, label in enumerate(columns):
        _write(pen, label, LABEL + place * width, 6)
    for number, row in enumerate(rows):
        top = HEAD + number * height
        _write(pen, row.label, 10, top + side // 2 - 18)
        for place, pictures in enumerate(row.cells):
            for seed, picture in enumerate(pictures):
                shown = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
                image.paste(shown, (LABEL + place * width + seed * (side + GAP), top))
    pen.text((10, size[1] - 20), footer, MUTED, ImageFont.load_default(12))
    return image


def _write(pen: ImageDraw.ImageDraw, label: Label, left: int, top: int) -> None:
    text = label.text if len(label.text) <= LONGEST else f"{label.text[: LONGEST - 1]}…"
    pen.text((left, top), text, INK, ImageFont.load_default(14))
    pen.text((left, top + 18), label.note, label.colour, ImageFont.load_default(12))
