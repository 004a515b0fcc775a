"""A comparison as one picture, for papers and emails."""

import base64
import io

from PIL import Image

from app.components import encode_png
from app.session.comparison import Comparison
from crce.picture_facts import PictureFacts, to_png_info
from crce.picture_grid import GONE, KEPT, GridRow, Label, draw_grid

_SIDE = 96  # pixels
_NOTES = {"target": ("must go", GONE), "coref": ("must go", GONE), "retain": ("must stay", KEPT)}
_UNDRAWN = ("not drawn by the base",)


def draw_sheet(comparison: Comparison) -> bytes:
    """A PNG with models in columns and prompts in rows. Pictures are never compressed with loss."""
    columns = [Label(title.name, title.about) for title in comparison.titles]
    rows = [
        GridRow(
            Label(row.prompt.text, *_UNDRAWN if row.prompt.drawn is False else _NOTES.get(row.prompt.kind, ("typed",))),
            [[Image.open(io.BytesIO(base64.b64decode(cell.png))) for cell in cells] for cells in row.columns],
        )
        for row in comparison.rows
    ]
    seeds = ", ".join(map(str, comparison.seeds))
    note = f"seeds {seeds}, the same in every column · concept: {comparison.concept}"
    prompts = tuple(row.prompt.text for row in comparison.rows)
    facts = PictureFacts(comparison.base, prompts, tuple(comparison.seeds), comparison.runs, comparison.strength)
    return encode_png(draw_grid(columns, rows, _SIDE, note), to_png_info(facts))
