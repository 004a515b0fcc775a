"""What a picture was drawn with, kept in its PNG file: under "parameters" as A1111 writes it and many programs read it,
and under "crce" exactly."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from crce import bases
from crce.errors import CrceError
from crce.records import parse

PARAMETERS, OURS = "parameters", "crce"
SAMPLER = "DDIM"
_LONGEST = 20_000  # characters that are read


@dataclass(frozen=True)
class PictureFacts:
    """base: its public name. prompts, seeds: of one picture, or of a sheet of all their pairs. runs: ids of the runs
    whose changes were applied, at `strength`."""

    base: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[str, ...] = ()
    strength: float = 1.0


def to_png_info(facts: PictureFacts) -> PngInfo:
    info = PngInfo()
    info.add_itxt(PARAMETERS, _to_parameters(facts))
    info.add_itxt(OURS, json.dumps(asdict(facts), ensure_ascii=False))
    return info


def _to_parameters(facts: PictureFacts) -> str:
    """A1111's form: the prompt, and a last line with the settings."""
    defaults = bases.defaults(facts.base) if facts.base in bases.BASES else None
    settings = {
        **({"Steps": defaults.sample_steps, "Sampler": SAMPLER, "CFG scale": defaults.guidance} if defaults else {}),
        "Seed": facts.seeds[0],
        "Model": facts.base,
        **({"CRCE run": " ".join(facts.runs), "CRCE strength": f"{facts.strength:g}"} if facts.runs else {}),
    }
    return "\n".join([*facts.prompts, ", ".join(f"{name}: {value}" for name, value in settings.items())])


def read_facts(path: Path) -> PictureFacts:
    """Of a PNG of ours, or of another program that writes "parameters". Raises CrceError for any other file."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            texts = {key: str(image.info.get(key, "")) for key in (PARAMETERS, OURS)}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise CrceError("This file is no PNG picture that can be read. Choose a picture that was saved here.") from None
    if max(map(len, texts.values())) > _LONGEST:
        raise CrceError("The settings in this picture are too long to be read.")
    try:
        return parse(PictureFacts, json.loads(texts[OURS]), "the picture")
    except (ValueError, TypeError, CrceError):
        return _read_parameters(texts[PARAMETERS])


def _read_parameters(text: str) -> PictureFacts:
    *prompts, settings = text.splitlines() or [""]
    cut = next((place for place, line in enumerate(prompts) if line.startswith("Negative prompt:")), len(prompts))
    seed = re.search(r"\bSeed: (\d{1,18})\b", settings)
    if not prompts[:cut] or not seed:
        raise CrceError("This picture carries no prompt and seed. Choose one that was saved here or by A1111.")
    model = re.search(r"\bModel: ([^,]+)", settings)
    return PictureFacts(model[1] if model else "", tuple(prompts[:cut]), (int(seed[1]),))
