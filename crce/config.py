"""The settings of an erasure, as asked for and as resolved for a base model."""

from dataclasses import dataclass, fields
from typing import ClassVar

from crce import bases
from crce.catalogue import BACKBONES, CLOSED_FORM, METHOD_FACTS, Result
from crce.concepts.spec import ConceptSpec, Term, bare, restrict
from crce.errors import CrceError

MOST_STRENGTH = 1.5  # of an erasure that is drawn with: 1 is what was trained


@dataclass(frozen=True)
class EraseConfig:
    """What a run is asked to do.

    method: a key of `catalogue.METHOD_FACTS`.
    steps, lr: training steps and Adam's learning rate; None means the base model's preset.
    eta: strength of the negative guidance, ESD's η in the paper's convention (1 there).
    corefs, retains: M and N, terms drawn per step (§3.2.3).
    backbone: the gradient method whose loss CRCE's two sums are added to; other methods have none.
    microbatch_size: terms through the U-Net at once; 1 needs the least memory, 0 takes all, which is fastest.
    guidance: classifier-free guidance while the training latents are sampled (ESD: 3).
    seed: of the latents, of the terms drawn and of adapters; the same seed gives the same result.
    preview_every, checkpoint_every: steps between two previews (0: none) and two checkpoints.
    damping: λ of a closed form, by which it changes less, and of the closed forms in CRCE-plus and MACE; None means the
    base model's preset, else what was published.
    until_gone: end the training before all steps are taken, once the base's judge hardly sees the concept any more
    (`evaluation.until_gone`).
    anchor: what the target is drawn as instead ("a wolf"); None leaves it to the method (`MethodFacts.anchor`).
    erase_from: the only concept that the target is erased from, as an attribute of it (a hat from "Santa Claus").

    Raises CrceError for an unknown method or backbone, for a value out of range or of another type, for a closed form
    until gone, and for an anchor or a concept to erase from that the method cannot use.
    """

    _open: ClassVar[tuple[str, ...]] = ("steps", "lr", "damping")  # settings that a preset fills in
    method: str = "crce"
    steps: int | None = None
    lr: float | None = None
    eta: float = 1.0
    corefs: int = 5
    retains: int = 3
    seed: int = 0
    guidance: float = 3.0
    preview_every: int = 50
    checkpoint_every: int = 50
    backbone: str = "esd-x-strict"
    microbatch_size: int = 0
    damping: float | None = None
    until_gone: bool = False
    anchor: str | None = None
    erase_from: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, str) or self.method not in METHOD_FACTS:
            raise CrceError(f"There is no method {self.method!r}. Choose one of {', '.join(METHOD_FACTS)}.")
        if not isinstance(self.backbone, str) or self.backbone not in BACKBONES:
            raise CrceError(f"{self.backbone!r} is no backbone for CRCE. Choose one of {', '.join(BACKBONES)}.")
        if type(self.until_gone) is not bool:
            raise CrceError(f"until_gone is {self.until_gone!r}; give true or false.")
        if self.until_gone and self.closed_form:
            raise CrceError(
                f"{self.method!r} is solved at once, so it cannot stop when the concept is gone. "
                "Leave that out, or choose a method that trains."
            )
        if self.until_gone and self.erase_from:
            raise CrceError(
                "A run that stops when gone asks whether the concept is gone everywhere, so it cannot erase it from "
                f"{self.erase_from!r} alone. Train all steps, or erase it everywhere."
            )
        for name in _LIMITS:
            self._check_number(name)
        self._check_phrases()

    def _check_number(self, name: str) -> None:
        (low, high), value = _LIMITS[name], getattr(self, name)
        if (value is None and name in self._open) or (name == "lr" and self.closed_form and value == 0):
            return
        whole = type(low) is int
        if type(value) not in ((int,) if whole else (int, float)) or not low <= value <= high:
            given = "empty" if value is None else str(value)[:40]
            raise CrceError(f"{name} is {given}; give a {'whole number' if whole else 'value'} from {low} to {high}.")

    def _check_phrases(self) -> None:
        facts = METHOD_FACTS[self.base_method]
        for what, phrase in self.phrases.items():
            if not isinstance(phrase, str) or not phrase.strip():
                raise CrceError(f"{what} is empty. Give a phrase, or leave it out.")
        if self.anchor is not None and not facts.anchor:
            raise CrceError(f"{facts.title} has no anchor: it cannot draw the target as {self.anchor!r}. "
                            "Choose another method, or leave the anchor out.")  # fmt: skip
        if self.erase_from is not None and not facts.attribute:
            raise CrceError(f"{facts.title} cannot erase something from {self.erase_from!r} alone. "
                            "Choose ESD, or CRCE on it.")  # fmt: skip
        if len(self.phrases) == 2:
            raise CrceError("An anchor and a concept to erase from exclude each other. Leave one of them out.")

    @property
    def phrases(self) -> dict[str, str]:
        """The anchor and the concept to erase from, by what they are for people; those that are given."""
        both = {"The anchor": self.anchor, "The concept to erase from": self.erase_from}
        return {what: phrase for what, phrase in both.items() if phrase is not None}

    @property
    def closed_form(self) -> bool:
        """Whether the method is solved in closed form: one step and no learning rate."""
        return METHOD_FACTS[self.method].kind == CLOSED_FORM

    @property
    def base_method(self) -> str:
        """The method whose loss is trained: the backbone for CRCE and its variants, else the method itself."""
        return self.backbone if METHOD_FACTS[self.method].variant else self.method

    @property
    def result(self) -> Result:
        """What the erasure leaves behind."""
        return METHOD_FACTS[self.base_method].result

    @property
    def label(self) -> str:
        """The method's key, with the backbone if it is not the paper's: "crce on ca"."""
        return " on ".join(self._names)

    @property
    def title(self) -> str:
        """The same for people: "CRCE on Concept Ablation"."""
        return " on ".join(METHOD_FACTS[key].title for key in self._names)

    @property
    def _names(self) -> tuple[str, ...]:
        return (
            (self.method,) if self.base_method in (self.method, EraseConfig.backbone) else (self.method, self.backbone)
        )


@dataclass(frozen=True)
class ResolvedConfig(EraseConfig):
    """An `EraseConfig` with nothing left open but damping, where None means the method's own; a closed form has 1 step
    and a learning rate of 0."""

    _open: ClassVar[tuple[str, ...]] = ("damping",)
    steps: int = 1
    lr: float = 0.0


_LIMITS: dict[str, tuple[float, float]] = {
    "steps": (1, 100_000), "lr": (1e-9, 1.0), "eta": (0.0, 100.0), "corefs": (0, 1000), "retains": (0, 1000),
    "seed": (0, 2**63 - 1), "guidance": (0.0, 100.0), "microbatch_size": (0, 1000), "preview_every": (0, 100_000),
    "checkpoint_every": (1, 100_000), "damping": (1e-6, 1e6),
}  # fmt: skip
# What settings were called before 0.2, in files and as options.
FORMER_NAMES = {"on": "backbone", "rows": "microbatch_size"}


def resolve_config(config: EraseConfig, base: str) -> ResolvedConfig:
    """The settings with the base model's preset for what was left open. Raises CrceError for an unknown base."""
    given = {field.name: getattr(config, field.name) for field in fields(EraseConfig)}
    known = bases.defaults(base)
    if config.damping is None:
        given["damping"] = (known.dampings or {}).get(config.base_method)
    if config.closed_form:
        return ResolvedConfig(**{**given, "steps": 1, "lr": 0.0})
    steps, lr = known.preset(config.base_method, METHOD_FACTS[config.base_method].published)
    return ResolvedConfig(**{**given, "steps": config.steps or steps, "lr": config.lr or lr})


def config_from_dict(facts: dict) -> ResolvedConfig:
    """The settings of a file that a run wrote. Raises CrceError, TypeError or AttributeError for what no run has."""
    renamed = {FORMER_NAMES.get(name, name): value for name, value in facts.items()}
    return ResolvedConfig(**{**renamed, "lr": renamed.get("lr") or 0.0})


def as_erased(spec: ConceptSpec, config: EraseConfig) -> ConceptSpec:
    """The spec as a run with these settings trains and measures it."""
    return restrict(spec, config.erase_from) if config.erase_from else spec


def check_damping(config: EraseConfig) -> None:
    """Raises CrceError for a λ where the method has none. Not where settings are made: those of old files stay
    readable."""
    if config.damping is not None and not METHOD_FACTS[config.base_method].damped:
        raise CrceError(f"damping is {config.damping:g}, and {config.base_method} has none. Leave it out.")


def check(spec: ConceptSpec, config: EraseConfig) -> None:
    """Raises CrceError if the method has no λ and one is given, draws more terms per step than the spec has for
    training, lacks a term it needs, or is to draw the target as itself or one of its corefs, or erase it from them."""
    check_damping(config)
    _check_phrases(spec, config)
    needed = METHOD_FACTS[config.base_method].needs
    if needed and not getattr(spec, f"train_{needed}"):
        raise CrceError(
            f"{spec.name!r} has no training {needed} and {config.base_method} needs one. "
            "Add one, or choose another method."
        )
    if METHOD_FACTS[config.method].lists and not config.closed_form:
        _check_count(spec, "corefs", spec.train_corefs, config.corefs, "M")
        _check_count(spec, "retains", spec.train_retains, config.retains, "N")


def _check_phrases(spec: ConceptSpec, config: EraseConfig) -> None:
    erased = {bare(text): text for text in (spec.name, spec.target, *(term.text for term in spec.corefs))}
    for what, phrase in config.phrases.items():
        if same := erased.get(bare(phrase)):
            raise CrceError(f"{what}, {phrase!r}, is erased itself, as {same!r} of {spec.name!r}. Give another phrase.")


def _check_count(spec: ConceptSpec, kind: str, terms: list[Term], wanted: int, letter: str) -> None:
    if len(terms) < wanted:
        raise CrceError(
            f"{spec.name!r} has {len(terms)} training {kind} and each step draws {wanted} ({letter}). "
            f"Add {kind}, or lower --{kind} to {len(terms)} (0 leaves them out)."
        )
