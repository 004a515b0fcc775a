"""The Erase form: its components, and the object that their values become."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app.session.drafts import find_slug, read
from crce import bases, devices
from crce.catalogue import BACKBONES, METHOD_FACTS, RETAIN
from crce.concepts.library import library
from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig, resolve_config
from crce.errors import CrceError
from crce.judges.choices import AUTO, EMBEDDED, JUDGES, QWEN2_VL, list_available
from crce.runs import MOST_IMAGES, Job, ResolvedJob

JUDGED_IMAGES = 4  # per term, judged after a run unless another number is entered
# What the paper's letters mean, beside the fields and in the settings of a run.
EXPLAINED = {
    "η": "How far each step pushes away from the concept; 1 in the paper",
    "M": "How many of the other names each step erases; 5 in the paper",
    "N": "How many of the neighbours each step keeps; 3 in the paper",
    "λ": "Of a closed form, CRCE-plus and MACE: larger changes less",
}


@dataclass(frozen=True)
class Effort:
    """share: of the preset's steps. images: pictures per term that are judged after the run."""

    title: str
    about: str
    share: float
    images: int


EFFORTS = (
    Effort("Quick", "A third of the steps, one picture of each term judged: a first look", 1 / 3, 1),
    Effort("Standard", "The preset of the base model, four pictures of each term judged", 1, JUDGED_IMAGES),
    Effort("Thorough", "The preset, ten pictures of each term judged: figures to rely on", 1, 10),
)
_DEVICES = {devices.AUTO: "automatic", devices.CPU: "CPU"}
# The number fields, by what stands above them. The first three are text: see `EraseForm`.
_NUMBERS = {
    "steps": "Steps", "learning_rate": "Learning rate", "damping": "Damping (λ)", "eta": "Push (η)",
    "corefs": "Names per step (M)",
    "retains": "Neighbours per step (N)", "seed": "Seed", "images": "Judge", "microbatch_size": "Microbatch",
    "preview_every": "Preview",
}  # fmt: skip
_FIELDS = {"lr": "learning_rate"}  # of settings that are called otherwise


class FieldError(CrceError):
    """What is wrong with the value of one field, which the page marks. field: its name in `EraseForm`."""

    def __init__(self, field: str, problem: str):
        super().__init__(f"{_NUMBERS[field]} is {problem}")
        self.field = field


@dataclass(frozen=True)
class EraseForm:
    """The form as the user filled it in: a field for each component, in the same order. Defaults are for empty fields.

    steps, learning_rate, damping: text, since Gradio's number field would show an empty value as 0; empty means the
    preset.
    images: pictures per term that are judged after the run. judge: who judges them (see `judges.choices`).
    together: further concepts of the same run.
    """

    concept: str | None = None
    base: str = bases.EMOJI_SD
    method: str = EraseConfig.method
    steps: str = ""
    learning_rate: str = ""
    damping: str = ""
    eta: float = EraseConfig.eta
    corefs: float = EraseConfig.corefs
    retains: float = EraseConfig.retains
    seed: float = EraseConfig.seed
    images: float = 0
    judge: str = AUTO
    together: list[str] = field(default_factory=list)
    microbatch_size: float = EraseConfig.microbatch_size
    backbone: str = EraseConfig.backbone
    until_gone: bool = EraseConfig.until_gone
    preview_every: float = EraseConfig.preview_every
    leave_out_long: bool = False
    anchor: str = ""
    erase_from: str = ""
    device: str = devices.AUTO
    dtype: str = devices.AUTO

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "EraseForm":
        """values: those of the components, by name; None for one that is empty.

        Raises CrceError for a number that was cleared, and for a fraction where a number is whole: what else would be
        meant is not known.
        """
        for name, value in values.items():
            if name in _NUMBERS and not isinstance(value, str):
                _check_number(name, value)
        given = {name: value for name, value in values.items() if value is not None}
        return cls(**{**given, "base": given.get("base", cls.base).strip()})

    @classmethod
    def from_job(cls, job: ResolvedJob) -> "EraseForm":
        """The form with this job's settings and today's lists."""
        config, known = job.config, library()
        return cls(
            concept=job.spec.slug if job.spec.slug in known else None,
            base=job.base,
            method=config.method,
            steps=str(config.steps),
            # A closed form has no learning rate.
            learning_rate=f"{config.lr:g}" if config.lr else "",
            damping="" if config.damping is None else f"{config.damping:g}",
            eta=config.eta,
            corefs=config.corefs,
            retains=config.retains,
            seed=config.seed,
            images=JUDGED_IMAGES,
            together=[spec.slug for spec in job.also if spec.slug in known],
            microbatch_size=config.microbatch_size,
            backbone=config.backbone,
            until_gone=config.until_gone,
            preview_every=config.preview_every,
            # A run may come from a machine with other cards.
            device=job.device if job.device in devices.choices() else devices.AUTO,
            dtype=job.dtype,
            anchor=config.anchor or "",
            erase_from=config.erase_from or "",
        )

    def to_config(self) -> EraseConfig:
        """Raises CrceError for a value that no run can have, by the name of its field."""
        with _naming_fields():
            return EraseConfig(
                method=self.method,
                steps=_parse_whole("steps", self.steps),
                lr=_parse_number("learning_rate", self.learning_rate),
                damping=_parse_number("damping", self.damping),
                eta=self.eta,
                corefs=int(self.corefs),
                retains=int(self.retains),
                seed=int(self.seed),
                backbone=self.backbone,
                microbatch_size=int(self.microbatch_size),
                until_gone=self.until_gone,
                preview_every=int(self.preview_every),
                anchor=self.anchor.strip() or None,
                erase_from=self.erase_from.strip() or None,
            )

    def to_job(self) -> Job:
        """Raises CrceError if no concept is chosen, or for a value that no run can have."""
        spec, *others = self.find_specs()
        return Job(self.base, spec, self.to_config(), self.device, self.dtype, also=tuple(others))

    def find_specs(self) -> list[ConceptSpec]:
        """The concepts of the run. Raises CrceError if none is chosen."""
        if not self.concept:
            raise CrceError("Choose a concept to erase first.")
        slugs = [self.concept, *(slug for slug in self.together if slug != self.concept)]
        return [read(slug) for slug in slugs]

    def count_steps(self) -> int:
        """Training steps: those entered, or the base model's preset."""
        return resolve_config(self.to_config(), self.base).steps

    def check_images(self) -> None:
        """Raises CrceError for a number of judged pictures that no run can have."""
        if not 0 <= self.images <= MOST_IMAGES:
            raise FieldError("images", f"{self.images:.0f}; give a whole number from 0 to {MOST_IMAGES}, 0 for none.")


@contextmanager
def _naming_fields() -> Iterator[None]:
    """What is wrong with a setting becomes a `FieldError` of the field that it was entered in."""
    try:
        yield
    except FieldError:
        raise
    except CrceError as error:
        name, told, problem = str(error).partition(" is ")
        field = _FIELDS.get(name, name)
        if told and field in _NUMBERS:
            raise FieldError(field, problem) from None
        raise


def _check_number(name: str, value: float | None) -> None:
    # Not isfinite: a whole number may be too large for it, which the settings tell.
    if value is None or not abs(value) < math.inf:
        raise FieldError(name, "empty. Enter a number.")
    if name != "eta" and value != int(value):
        raise FieldError(name, f"{value:g}. Enter a whole number.")


def _parse_number(name: str, text: str) -> float | None:
    """None for an empty text."""
    try:
        number = float(text) if text.strip() else None
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise FieldError(name, f"{text!r}; enter a number, or leave it empty for the preset.")
    return number


def _parse_whole(name: str, text: str) -> int | None:
    """None for an empty text."""
    number = _parse_number(name, text)
    if number is not None and number != int(number):
        raise FieldError(name, f"{text!r}; enter a whole number, or leave it empty for the preset.")
    return None if number is None else int(number)


# The components, by the names of the fields


def list_judges(base: str) -> list[tuple[str, str]]:
    """Those that can be used for the base, and those that would have to be downloaded first."""
    try:
        available = list_available(base.strip())
    except CrceError:
        available = {}
    words = {EMBEDDED: "its own", QWEN2_VL: JUDGES[QWEN2_VL].title}
    automatic = next((word for key, word in words.items() if key in available), "not judged")
    others = [(title, key) for key, title in available.items() if key != EMBEDDED]
    away = [
        (f"{kind.title}, to be downloaded", key) for key, kind in JUDGES.items() if kind.model and key not in available
    ]
    return [(f"Automatic: {automatic}", AUTO), *others, *away]


def update_judges(base: str, judge: str) -> gr.Dropdown:
    """The judges of another base; the one that was chosen stays where it can."""
    choices = list_judges(base or "")
    kept = judge in [key for _, key in choices] or judge not in JUDGES
    return gr.Dropdown(choices, value=judge if kept else AUTO)


def build_judge(**options: Any) -> gr.Dropdown:
    return gr.Dropdown(list_judges(bases.EMOJI_SD), value=AUTO, label="Judged by", allow_custom_value=True,
                       info="Or a vision-language model: folder or Hub id", **options)  # fmt: skip


def list_concepts() -> list[tuple[str, str]]:
    return [(spec.name, slug) for slug, spec in library().items()]


def build_choice() -> dict[str, Any]:
    """What is erased from which model, and how."""
    methods = [(facts.title, key) for key, facts in METHOD_FACTS.items()]
    return {
        "concept": gr.Dropdown(list_concepts(), value=find_slug(None), label="Concept", info="Lists come from Curate"),
        "base": gr.Dropdown(list(bases.BASES), value=bases.EMOJI_SD, label="Base model", allow_custom_value=True,
                            info="Or a diffusers folder, or a Hub id"),
        "method": gr.Dropdown(methods, value=EraseConfig.method, label="Method",
                              info="CRCE erases the names and keeps the neighbours"),
    }  # fmt: skip


def describe_anchor(config: EraseConfig, spec: ConceptSpec | None) -> str:
    """As what the target is drawn: the anchor that was given, else the method's own."""
    default = METHOD_FACTS[config.base_method].anchor
    retains = spec.train_retains if spec and default == RETAIN else ()
    own = f"{retains[0].text}, {default}" if retains else default
    return config.anchor or own or "left to the method"


def build_effort() -> gr.Radio:
    """How much is done: it fills in steps and judged pictures."""
    return gr.Radio([effort.title for effort in EFFORTS], value=EFFORTS[1].title, label="How thorough",
                    info=EFFORTS[1].about, min_width=280, scale=2)  # fmt: skip


def apply_effort(title: str, method: str, backbone: str, base: str) -> tuple[gr.Radio, str, float]:
    """Explains the choice, and fills in the steps (empty for the preset) and the pictures that are judged."""
    effort = next(effort for effort in EFFORTS if effort.title == title)
    config = resolve_config(EraseConfig(method, backbone=backbone), base)
    whole = effort.share == 1 or config.closed_form
    steps = "" if whole else str(max(round(config.steps * effort.share), 1))
    return gr.Radio(info=effort.about), steps, effort.images


def renew_effort(title: str, method: str, backbone: str, base: str) -> tuple:
    """The same for another method or base, which has steps of its own. What was entered by hand stays."""
    quick = title == EFFORTS[0].title
    return apply_effort(title, method, backbone, base) if quick else (gr.skip(), gr.skip(), gr.skip())


def build_settings() -> dict[str, Any]:
    form = EraseForm()
    backbones = [(METHOD_FACTS[key].title, key) for key in BACKBONES]
    return {
        "steps": _build_number("steps", "", "Of training. Empty: preset", 90),
        "learning_rate": _build_number("learning_rate", "", "Empty: preset", 110),
        "damping": _build_number("damping", "", EXPLAINED["λ"]),
        "eta": _build_number("eta", form.eta, EXPLAINED["η"]),
        "corefs": _build_number("corefs", form.corefs, EXPLAINED["M"]),
        "retains": _build_number("retains", form.retains, EXPLAINED["N"]),
        "seed": _build_number("seed", form.seed, "Same seed, same result"),
        "images": _build_number("images", JUDGED_IMAGES, "Pictures per term; 0: none"),
        "judge": build_judge(min_width=210),
        "together": gr.Dropdown(list_concepts(), value=[], multiselect=True, label="Also erase",
                                info="In the same run"),
        "microbatch_size": _build_number("microbatch_size", form.microbatch_size,
                                         "Terms per U-Net pass; 0: all, 1: least memory"),
        "backbone": gr.Dropdown(backbones, value=form.backbone, label="CRCE backbone",
                                info="The method that CRCE extends"),
        "until_gone": gr.Checkbox(form.until_gone, label="Stop when gone", elem_classes="roomy",
                                  info="The judge looks at 20 pictures every 15 steps"),
        "preview_every": _build_number("preview_every", form.preview_every, "Steps between previews; 0: none"),
        "leave_out_long": gr.Checkbox(form.leave_out_long, label="Leave out long terms", elem_classes="roomy",
                                      info="Those with more tokens than the base reads"),
        "anchor": gr.Textbox("", label="Draw as", info="What takes the concept's place", max_length=200,
                             placeholder=describe_anchor(EraseConfig(), None)),
        "erase_from": gr.Textbox("", label="Erase only from", info="Another concept, to take this from it alone",
                                 max_length=200, placeholder="everywhere"),
    }  # fmt: skip


def _build_number(name: str, value: float | str, about: str, width: int = 160) -> gr.Number | gr.Textbox:
    """A text is for a number that may be left empty. The page marks the field by its id when what it holds is wrong."""
    options: dict[str, Any] = {"label": _NUMBERS[name], "info": about, "elem_id": f"field-{name}", "min_width": width}
    if isinstance(value, str):
        return gr.Textbox(value, placeholder="preset", **options)
    # No limits and no rounding here: the settings have them, and name the field.
    return gr.Number(value, **options)


def build_device() -> dict[str, Any]:
    """Where it is computed, beside Start."""
    dtypes = [("automatic", devices.AUTO), *((name, name) for name in devices.DTYPES)]
    places = [(_DEVICES.get(name, name), name) for name in devices.choices()]
    return {
        "device": gr.Dropdown(places, value=devices.AUTO, label="Device", min_width=140),
        "dtype": gr.Dropdown(dtypes, value=devices.AUTO, label="Precision", min_width=140),
    }
