import json
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    TypeAdapter,
    model_validator,
)

from crce.concepts.library import parse_spec
from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig
from crce.errors import CrceError

LONGEST = 1 << 20  # bytes of a request


MOST_PICTURES = 512


class Column(BaseModel):
    """A column of pictures: those of the base (no run), or of a run's weights at some strength, with others' added."""

    model_config = ConfigDict(extra="forbid")
    run: str | None = None
    also: list[str] = []
    strength: Annotated[float, Field(ge=-10, le=10)] = 1.0


def _spec(facts: object) -> ConceptSpec:
    try:
        return parse_spec(json.dumps(facts), "spec")
    except CrceError as error:
        raise ValueError(str(error)) from None


def _config(facts: object) -> EraseConfig:
    try:
        return EraseConfig(**facts)  # type: ignore[arg-type]
    except (CrceError, TypeError) as error:
        raise ValueError(str(error)) from None


Prompts = Annotated[list[str], Field(min_length=1)]


Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]


Spec = Annotated[InstanceOf[ConceptSpec], BeforeValidator(_spec)]


Config = Annotated[InstanceOf[EraseConfig], BeforeValidator(_config)]


class Request(BaseModel):
    """What every question says: which tab waits, and for which base model."""

    model_config = ConfigDict(extra="forbid")
    tab: str
    base: str

    @property
    def judged(self) -> bool:
        """Whether the base's judge is needed."""
        return False


class GenerateRequest(Request):
    """Pictures of each prompt with each seed in each column; `ask` is what the judge is asked of a prompt."""

    kind: Literal["draw"]
    columns: Annotated[list[Column], Field(min_length=1)]
    prompts: Prompts
    seeds: Seeds
    ask: list[str | None]

    @property
    def judged(self) -> bool:
        return any(self.ask)

    @model_validator(mode="after")
    def _fits(self) -> "GenerateRequest":
        if len(self.ask) != len(self.prompts):
            raise ValueError(f"ask has {len(self.ask)} entries for {len(self.prompts)} prompts")
        _few(len(self.columns) * len(self.prompts) * len(self.seeds))
        return self


class DistancesRequest(Request):
    """How far each term is from the target in the base's text encoder, and where on a map."""

    kind: Literal["distances"]
    spec: Spec


class PreviewRequest(Request):
    """Pictures of each prompt with each seed, before and after the instant edit by the spec's training terms."""

    kind: Literal["preview"]
    spec: Spec
    prompts: Prompts
    seeds: Seeds = [0]

    @model_validator(mode="after")
    def _fits(self) -> "PreviewRequest":
        _few(2 * len(self.prompts) * len(self.seeds))
        return self


class CoverageRequest(Request):
    """How often the base draws each term, as its judge sees it."""

    kind: Literal["coverage"]
    spec: Spec

    @property
    def judged(self) -> bool:
        return True


class EstimateRequest(Request):
    """What a run of these concepts would cost (see `cost.Cost`)."""

    kind: Literal["preflight"]
    specs: Annotated[list[Spec], Field(min_length=1)]
    config: Config


def _few(pictures: int) -> None:
    if pictures > MOST_PICTURES:
        raise ValueError(f"these are more than {MOST_PICTURES} pictures; ask for fewer prompts or seeds")


REQUEST = TypeAdapter(
    Annotated[
        GenerateRequest | DistancesRequest | PreviewRequest | CoverageRequest | EstimateRequest,
        Field(discriminator="kind"),
    ]
)
