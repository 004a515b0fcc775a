"""README's first picture: what ESD leaves and hits, and what CRCE and CRCE-plus do, on the same seeds."""

from PIL import Image

from crce import erase, find_concept
from crce.catalogue import METHOD_FACTS
from crce.config import EraseConfig
from crce.models.diffusion import Diffusion
from crce.picture_grid import GONE, KEPT, GridRow, Label, draw_grid

from .common import MODEL, ROOT

CONCEPT, METHODS, SEEDS, SIDE = "dog", ("esd-x-strict", "crce", "crce-plus"), (0, 1, 2), 60
ERASED = ("dog", "puppy", "hound", "guide dog", "service dog")
STAYING = ("cat", "wolf", "fox", "goat")


def draw() -> None:
    """Erases the concept with the preset and each method, and writes assets/figures/dog.png."""
    model, spec = Diffusion.load(str(MODEL)), find_concept(CONCEPT)
    shown = [_draw(model)]
    for method in METHODS:
        with erase(model, spec, EraseConfig(method, preview_every=0)).applied(model):
            shown.append(_draw(model))
    columns = [Label("before"), *(Label(METHOD_FACTS[m].title, f'"{CONCEPT}" erased') for m in METHODS)]
    notes = [("must go", GONE)] * len(ERASED) + [("must stay", KEPT)] * len(STAYING)
    rows = [
        GridRow(Label(prompt, *note), [cells[place] for cells in shown])
        for place, (prompt, note) in enumerate(zip((*ERASED, *STAYING), notes, strict=True))
    ]
    footer = f"seeds {', '.join(map(str, SEEDS))}, the same in every column · emoji-sd"
    draw_grid(columns, rows, SIDE, footer).save(ROOT / "figures" / f"{CONCEPT}.png", optimize=True)


def _draw(model: Diffusion) -> list[list[Image.Image]]:
    """The pictures of each prompt."""
    prompts = (*ERASED, *STAYING)
    pictures = model.generate_batch([p for p in prompts for _ in SEEDS], list(SEEDS) * len(prompts))
    return [pictures[start : start + len(SEEDS)] for start in range(0, len(pictures), len(SEEDS))]
