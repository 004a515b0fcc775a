"""Base models by name, and how each likes to be sampled and erased. Knows no torch."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from crce.errors import CrceError
from crce.files import DATA, home, is_folder, read_json

EMOJI_SD = "emoji-sd"
SD_V1_4 = "CompVis/stable-diffusion-v1-4"
SD_V1_5 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
BASES = (EMOJI_SD, SD_V1_4, SD_V1_5, SDXL)
INDEX = "model_index.json"
SDXL_GUIDANCE = 5.0  # diffusers' own for it
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,94}/[\w.-]{1,95}", re.ASCII)
_KNOWN = {
    SD_V1_4: "StableDiffusionPipeline", SD_V1_5: "StableDiffusionPipeline", SDXL: "StableDiffusionXLPipeline"
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A kind of base, by the pipeline class that its model_index.json names: what works on it.

    methods, formats: keys of the catalogue, and of the formats that a result is exported to; None means all.
    """

    title: str
    methods: tuple[str, ...] | None = None
    formats: tuple[str, ...] | None = None


FAMILIES = {
    "StableDiffusionPipeline": Family("Stable Diffusion 1.x and 2.x"),
    # Not those that train on attention maps or put words into the states, and the null space of a pooled state.
    "StableDiffusionXLPipeline": Family(
        "Stable Diffusion XL",
        ("crce", "crce-plus", "crce-fixed", "crce-sphere", "esd-x-strict", "esd-x", "esd-u", "realera", "ca",
         "crce-uce", "uce"),
        ("weights", "diff", "lora", "pipeline"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class BaseDefaults:
    """Sampling guidance and steps; erasure steps and learning rate. These are SD v1.4's (paper, App. B).

    damping: λ of UCE's closed form as a share of the text states' mean squared length; larger changes less.
    methods: steps and learning rate of single methods that were tuned for this base. dampings: λ of single methods.
    """

    guidance: float = 7.5
    sample_steps: int = 50
    erase_steps: int = 500
    lr: float = 1e-5
    damping: float = 0.05
    methods: dict[str, tuple[int, float]] | None = None
    dampings: dict[str, float] | None = None

    def preset(self, method: str, published: tuple[int, float] | None) -> tuple[int, float]:
        """Steps and learning rate: the base's own for the method, else what was published for SD v1.4, else all's."""
        ours = (self.erase_steps, self.lr)
        if self.methods is None:
            return published or ours
        steps, lr = self.methods.get(method, ours)
        return int(steps), float(lr)


def is_hub_id(name: str) -> bool:
    """Whether a model of the Hub may be called so."""
    return bool(_HUB_ID.fullmatch(name))


def resolve(base: str) -> str:
    """The folder of a base; for one on the Hub its folder in the local cache, or the Hub id where it is not there.

    Raises CrceError for a folder that holds no pipeline, and for what can be no Hub id.
    """
    path = DATA / "assets" / EMOJI_SD if base == EMOJI_SD else Path(base)
    if not is_folder(str(path)) and (not is_hub_id(base) or path.exists()):
        raise CrceError(
            f"There is no base model {base[:200]!r}. Give {EMOJI_SD!r}, a folder with a diffusers "
            f"pipeline, or a Hub id such as {SD_V1_4!r}."
        )
    if path.is_dir() and not (path / "model_index.json").exists():
        raise CrceError(
            f"{base!r} holds no diffusers model: model_index.json is missing. "
            f"Give a folder saved by a diffusers pipeline, a Hub id, or {EMOJI_SD!r}."
        )
    return str(path if path.is_dir() else hub_folder(base) or base)


def hub_folder(base: str, index: str = "model_index.json") -> Path | None:
    """Where the local cache has the newest commit of a Hub model that was asked for; perhaps not all of its files.

    index: the file that it is known by.
    """
    from huggingface_hub import try_to_load_from_cache  # takes a while to import, and only a Hub base needs it
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base, index)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def covered_file(base: str) -> Path:
    """Where it is written what a base draws: beside its own files, or in our home for a base from the Hub, since the
    cache of the Hub is not ours."""
    if base == EMOJI_SD or is_folder(base):
        return Path(resolve(base)) / "covered.json"
    return home() / "covered" / f"{base.replace('/', '--')}.json"


def defaults(base: str) -> BaseDefaults:
    """The model's own recommendations (crce.json beside model_index.json), else those of SD v1.4."""
    path = Path(resolve(base)) / "crce.json"
    known = BaseDefaults.__dataclass_fields__
    if not path.exists() and _class_of(base) == "StableDiffusionXLPipeline":
        return BaseDefaults(guidance=SDXL_GUIDANCE)
    return BaseDefaults(**{k: v for k, v in read_json(path).items() if k in known} if path.exists() else {})


def require_judge(base: str) -> None:
    """Raises CrceError for a base without a judge: then nobody can say when a concept is gone."""
    if not has_judge(base):
        raise CrceError(
            f"The base {public_name(base)!r} brings no judge, so nobody can say when the concept is gone. "
            f"Train all steps, or use the base {EMOJI_SD!r}."
        )


def has_judge(base: str) -> bool:
    """Whether the base brings a judge of its own. Raises CrceError for a base that is no model."""
    return (Path(resolve(base)) / "judge").is_dir()


def check_class(pipeline: str, base: str) -> Family:
    """What works on a base of this pipeline class. Raises CrceError for another class: it would load in part, and be
    erased without effect."""
    if pipeline in FAMILIES:
        return FAMILIES[pipeline]
    raise CrceError(
        f"{base!r} is a {pipeline}, and only these can be erased: {', '.join(f.title for f in FAMILIES.values())} "
        f"({', '.join(FAMILIES)} of diffusers). Choose such a base."
    )


def find_family(base: str) -> Family | None:
    """What works on the base; None where its index is not on this machine yet. Raises CrceError for other kinds."""
    found = _class_of(base)
    return check_class(found, base) if found else None


def check_method(base: str, *methods: str) -> None:
    """Raises CrceError for a method, or a backbone, that does not work on this kind of base."""
    family = find_family(base)
    if family and family.methods and (refused := [name for name in methods if name not in family.methods]):
        raise CrceError(
            f"{refused[0]} does not work on {family.title}, and {public_name(base)!r} is one. "
            f"Choose one of {', '.join(family.methods)}."
        )


def check_formats(base: str, formats: Iterable[str]) -> None:
    """Raises CrceError for a format that cannot hold an erasure of this kind of base."""
    family = find_family(base)
    if family and family.formats and (refused := [name for name in formats if name not in family.formats]):
        raise CrceError(
            f"An erasure of {family.title} cannot be exported as {refused[0]}. Choose from {', '.join(family.formats)}."
        )


def _class_of(base: str) -> str | None:
    """The pipeline class of a base that we name, in the index of a folder, or of a model of the Hub that was downloaded
    before."""
    from huggingface_hub import try_to_load_from_cache

    if base in _KNOWN:
        return _KNOWN[base]
    place = resolve(base)
    folder = Path(place)
    found = folder / INDEX if folder.is_dir() else try_to_load_from_cache(place, INDEX)
    try:
        facts = read_json(Path(found)) if isinstance(found, str | Path) else {}
    except ValueError:  # loading says what is wrong with it
        return None
    return facts.get("_class_name") if isinstance(facts, dict) else None


def public_name(base: str) -> str:
    """What may be said of a base in public: a folder's path tells where someone's files lie."""
    return Path(base).name if is_folder(base) else base[:200]
