"""The small pictures that ship with the model, so that the first screen shows them before anything is computed."""

import json

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.session.thumbnails import SHEET, SHEET_SEED, SHEET_SIDE, list_first
from crce.models.diffusion import Diffusion

from .common import MODEL

_COLUMNS = 8


def draw() -> None:
    """Writes the sheet of thumbnails beside the model: its prompts and the model's version are in the file."""
    model, prompts = Diffusion.load(str(MODEL)), list_first()
    pictures = model.generate_batch(prompts, [SHEET_SEED] * len(prompts))
    rows = -(-len(prompts) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * SHEET_SIDE, rows * SHEET_SIDE), "white")
    for place, picture in enumerate(pictures):
        row, column = divmod(place, _COLUMNS)
        sheet.paste(picture.convert("RGB"), (column * SHEET_SIDE, row * SHEET_SIDE))
    facts = PngInfo()
    facts.add_itxt("prompts", json.dumps(prompts))
    facts.add_itxt("model", model.digest)
    sheet.save(MODEL / SHEET, optimize=True, pnginfo=facts)
