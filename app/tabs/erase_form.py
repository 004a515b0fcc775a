"""The Erase form: its components, and the object that their values become."""

import math
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app.session.drafts import find_slug
from crce import bases
from crce.catalogue import BACKBONES, METHOD_FACTS, RETAIN
from crce.concepts.library import find_concept, library
from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig, resolve_config
from crce.errors import CrceError
from crce.runs import Job, ResolvedJob

JUDGED_IMAGES = 4  # per term, judged after a run unless another number is entered
# The fields that change what a run costs.
COST_FIELDS = (
    "concept", "base", "method", "steps", "corefs", "retains", "together", "microbatch_size", "backbone",
    "anchor", "erase_from",
)  # fmt: skip


@dataclass(frozen=True)
class EraseForm:
    """The form as the user filled it in: a field for each component, in the same order. Defaults are for empty fields.

    steps, learning_rate: text, since Gradio's number field would show an empty value as 0; empty means the preset.
    images: pictures per term that are judged after the run. together: further concepts of the same run.
    """

    concept: str | None = None
    base: str = bases.EMOJI_SD
    method: str = EraseConfig.method
    steps: str = ""
    learning_rate: str = ""
    eta: float = EraseConfig.eta
    corefs: float = EraseConfig.corefs
    retains: float = EraseConfig.retains
    seed: float = EraseConfig.seed
    images: float = 0
    together: list[str] = field(default_factory=list)
    microbatch_size: float = EraseConfig.microbatch_size
    backbone: str = EraseConfig.backbone
    anchor: str = ""
    erase_from: str = ""

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "EraseForm":
        """values: those of the components, by name; None for one that is empty."""
        return cls(**{name: value for name, value in values.items() if value is not None})

    @classmethod
    def from_job(cls, job: ResolvedJob) -> "EraseForm":
        """The form with this job's settings and today's lists; the form has no device, dtype or preview interval."""
        config, known = job.config, library()
        return cls(
            concept=job.spec.slug if job.spec.slug in known else None,
            base=job.base,
            method=config.method,
            steps=str(config.steps),
            # A closed form has no learning rate.
            learning_rate=f"{config.lr:g}" if config.lr else "",
            eta=config.eta,
            corefs=config.corefs,
            retains=config.retains,
            seed=config.seed,
            images=JUDGED_IMAGES,
            together=[spec.slug for spec in job.also if spec.slug in known],
            microbatch_size=config.microbatch_size,
            backbone=config.backbone,
            anchor=config.anchor or "",
            erase_from=config.erase_from or "",
        )

    def to_config(self) -> EraseConfig:
        """Raises CrceError for a value that no run can have."""
        return EraseConfig(
            method=self.method,
            steps=_parse_whole("steps", self.steps),
            lr=_parse_number("learning rate", self.learning_rate),
            eta=self.eta,
            corefs=int(self.corefs),
            retains=int(self.retains),
            seed=int(self.seed),
            backbone=self.backbone,
            microbatch_size=int(self.microbatch_size),
            anchor=self.anchor.strip() or None,
            erase_from=self.erase_from.strip() or None,
        )

    def to_job(self) -> Job:
        """Raises CrceError if no concept is chosen, or for a value that no run can have."""
        spec, *others = self.find_specs()
        return Job(self.base.strip(), spec, self.to_config(), also=tuple(others))

    def find_specs(self) -> list[ConceptSpec]:
        """The concepts of the run. Raises CrceError if none is chosen."""
        if not self.concept:
            raise CrceError("Choose a concept to erase first.")
        slugs = [self.concept, *(slug for slug in self.together if slug != self.concept)]
        return [find_concept(slug) for slug in slugs]

    def count_steps(self) -> int:
        """Training steps: those entered, or the base model's preset."""
        config = EraseConfig(self.method, _parse_whole("steps", self.steps), backbone=self.backbone)
        return resolve_config(config, self.base).steps


def _parse_number(name: str, text: str) -> float | None:
    """None for an empty text."""
    try:
        number = float(text) if text.strip() else None
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise CrceError(f"{name} is {text!r}; enter a number, or leave it empty for the preset.")
    return number


def _parse_whole(name: str, text: str) -> int | None:
    """None for an empty text."""
    number = _parse_number(name, text)
    if number is not None and number != int(number):
        raise CrceError(f"{name} is {text!r}; enter a whole number, or leave it empty for the preset.")
    return None if number is None else int(number)


# The components, by the names of the fields


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


def build_settings() -> dict[str, Any]:
    form = EraseForm()
    backbones = [(METHOD_FACTS[key].title, key) for key in BACKBONES]
    return {
        "steps": gr.Textbox("", label="Steps", info="Empty: preset", placeholder="preset", min_width=90),
        "learning_rate": gr.Textbox("", label="Learning rate", info="Empty: preset", placeholder="preset",
                                    min_width=110),
        "eta": gr.Number(form.eta, label="η", info="Negative guidance strength", minimum=0),
        "corefs": gr.Number(form.corefs, label="M", info="Corefs per step", precision=0, minimum=0),
        "retains": gr.Number(form.retains, label="N", info="Retains per step", precision=0, minimum=0),
        "seed": gr.Number(form.seed, label="Seed", info="Same seed, same result", precision=0, minimum=0),
        "images": gr.Number(JUDGED_IMAGES, label="Judge", info="Pictures per term; 0: none", precision=0, minimum=0),
        "together": gr.Dropdown(list_concepts(), value=[], multiselect=True, label="Also erase",
                                info="In the same run"),
        "microbatch_size": gr.Number(form.microbatch_size, label="Microbatch", precision=0, minimum=0,
                                     info="Terms per U-Net pass; 0: all, 1: least memory"),
        "backbone": gr.Dropdown(backbones, value=form.backbone, label="CRCE backbone",
                                info="The method that CRCE extends"),
        "anchor": gr.Textbox("", label="Draw as", info="What takes the concept's place", max_length=200,
                             placeholder=describe_anchor(EraseConfig(), None)),
        "erase_from": gr.Textbox("", label="Erase only from", info="Another concept, to take this from it alone",
                                 max_length=200, placeholder="everywhere"),
    }  # fmt: skip
