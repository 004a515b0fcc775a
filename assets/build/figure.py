"""What ESD leaves and hits, and what CRCE and CRCE-plus do, on the same seeds (README's first picture, and one of
docs/near-far.md); and what the model draws beside the version before (the card's picture)."""

from PIL import Image

from crce import erase, find_concept
from crce.catalogue import METHOD_FACTS
from crce.config import EraseConfig
from crce.files import DOCS
from crce.models.diffusion import Diffusion
from crce.picture_grid import GONE, KEPT, GridRow, Label, draw_grid

from .common import MODEL, build_dir
from .open_words import OPEN_WORDS

METHODS, SEEDS, SIDE = ("esd-x-strict", "crce", "crce-plus"), (0, 1, 2), 60
# Concept: names, the concept first, and neighbours.
SHOWN = {
    "dog": (("dog", "puppy", "hound", "guide dog", "service dog"), ("cat", "wolf", "fox", "goat")),
    "horse": (("horse", "stallion", "draft horse", "wild horse"), ("donkey", "zebra", "llama", "yak")),
}
NAMES = ("dog", "cat", "horse", "airplane", "pizza", "bicycle", "guitar", "rose")
WORDS = tuple(text for text, _ in OPEN_WORDS[:: len(OPEN_WORDS) // 5][:5])  # of no caption, taken by their place
COLOURS = 192  # of the card's picture, which is to stay small


def draw() -> None:
    """Writes docs/figures/dog.png and horse.png: each erased with the preset of each method."""
    for concept, (names, neighbours) in SHOWN.items():
        draw_erasures(concept, names, neighbours)


def draw_erasures(concept: str, names: tuple[str, ...], neighbours: tuple[str, ...]) -> None:
    model, spec = Diffusion.load(str(MODEL)), find_concept(concept)
    prompts = (*names, *neighbours)
    shown = [_draw(model, prompts)]
    for method in METHODS:
        with erase(model, spec, EraseConfig(method, preview_every=0)).applied(model):
            shown.append(_draw(model, prompts))
    columns = [Label("before"), *(Label(METHOD_FACTS[m].title, f'"{concept}" erased') for m in METHODS)]
    notes = [("must go", GONE)] * len(names) + [("must stay", KEPT)] * len(neighbours)
    rows = [
        GridRow(Label(prompt, *note), [cells[place] for cells in shown])
        for place, (prompt, note) in enumerate(zip(prompts, notes, strict=True))
    ]
    draw_grid(columns, rows, SIDE, _describe_seeds()).save(DOCS / "figures" / f"{concept}.png", optimize=True)


def draw_versions() -> None:
    """Writes docs/figures/versions.png: names, and words that no caption holds, drawn by emoji-sd 1, which has to be
    the folder `former` of the build, and by the present model."""
    prompts = (*NAMES, *WORDS)
    shown = [_draw(Diffusion.load(str(folder)), prompts) for folder in (build_dir() / "former", MODEL)]
    labels = [Label(name, "a name") for name in NAMES] + [Label(word, "in no caption") for word in WORDS]
    rows = [GridRow(label, [cells[place] for cells in shown]) for place, label in enumerate(labels)]
    grid = draw_grid([Label("emoji-sd 1"), Label("emoji-sd")], rows, SIDE, _describe_seeds())
    grid.quantize(COLOURS).save(DOCS / "figures" / "versions.png", optimize=True)


def _describe_seeds() -> str:
    return f"seeds {', '.join(map(str, SEEDS))}, the same in every column · emoji-sd"


def _draw(model: Diffusion, prompts: tuple[str, ...]) -> list[list[Image.Image]]:
    """The pictures of each prompt."""
    pictures = model.generate_batch([p for p in prompts for _ in SEEDS], list(SEEDS) * len(prompts))
    return [pictures[start : start + len(SEEDS)] for start in range(0, len(pictures), len(SEEDS))]
