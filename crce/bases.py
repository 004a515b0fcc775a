"""Base models by name, and how each likes to be sampled and erased. Knows no torch."""

from dataclasses import dataclass
from pathlib import Path

from crce.errors import CrceError
from crce.files import DATA, read_json

EMOJI_SD = "emoji-sd"
SD_V1_4 = "CompVis/stable-diffusion-v1-4"
BASES = (EMOJI_SD, SD_V1_4)


@dataclass(frozen=True)
class BaseDefaults:
    """Sampling guidance and steps; erasure steps and learning rate. These are SD v1.4's (paper, App. B).

    damping: λ of UCE's closed form as a share of the text states' mean squared length; larger changes less.
    methods: steps and learning rate of single methods that were tuned for this base.
    """

    guidance: float = 7.5
    sample_steps: int = 50
    erase_steps: int = 500
    lr: float = 1e-5
    damping: float = 0.05
    methods: dict[str, tuple[int, float]] | None = None

    def preset(self, method: str, published: tuple[int, float] | None) -> tuple[int, float]:
        """Steps and learning rate: the base's own for the method, else what was published for SD v1.4, else all's."""
        ours = (self.erase_steps, self.lr)
        if self.methods is None:
            return published or ours
        steps, lr = self.methods.get(method, ours)
        return int(steps), float(lr)


def resolve(base: str) -> str:
    """A folder or a Hub id for `from_pretrained`. Raises CrceError for a folder that holds no pipeline."""
    path = DATA / "assets" / EMOJI_SD if base == EMOJI_SD else Path(base)
    if path.is_dir() and not (path / "model_index.json").exists():
        raise CrceError(
            f"{base!r} holds no diffusers model: model_index.json is missing. "
            f"Give a folder saved by a diffusers pipeline, a Hub id, or {EMOJI_SD!r}."
        )
    if not path.is_dir() and (path.is_absolute() or base.count("/") != 1 or path.exists()):
        raise CrceError(
            f"There is no base model {base!r}. Give {EMOJI_SD!r}, a folder with a diffusers "
            f"pipeline, or a Hub id such as {SD_V1_4!r}."
        )
    return str(path) if path.is_dir() else base


def defaults(base: str) -> BaseDefaults:
    """The model's own recommendations (crce.json beside model_index.json), else those of SD v1.4."""
    path = Path(resolve(base)) / "crce.json"
    known = BaseDefaults.__dataclass_fields__
    return BaseDefaults(**{k: v for k, v in read_json(path).items() if k in known} if path.exists() else {})


def public_name(base: str) -> str:
    """What may be said of a base in public: a folder's path tells where someone's files lie."""
    return Path(base).name if Path(base).is_dir() else base
