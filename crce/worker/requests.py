"""What a tab may ask of the worker. Imports no torch."""

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, InstanceOf, PlainSerializer, TypeAdapter

from crce.concepts.library import parse_spec
from crce.concepts.spec import ConceptSpec, spec_to_dict
from crce.config import EraseConfig
from crce.cost import Cost
from crce.errors import CrceError
from crce.judges.choices import AUTO, EMBEDDED
from crce.worker.answers import CoverageAnswer, DistancesAnswer, GenerateAnswer, PreviewAnswer, StatusAnswer

LONGEST = 1 << 20  # bytes of a request
MOST_PICTURES = 512
A = TypeVar("A")


def _read_spec(facts: object) -> ConceptSpec:
    if isinstance(facts, ConceptSpec):
        return facts
    try:
        return parse_spec(json.dumps(facts), "spec")
    except CrceError as error:
        raise ValueError(str(error)) from None


def _read_config(facts: Any) -> EraseConfig:
    if isinstance(facts, EraseConfig):
        return facts
    try:
        return EraseConfig(**facts)
    except (CrceError, TypeError) as error:
        raise ValueError(str(error)) from None


Prompts = Annotated[list[str], Field(min_length=1)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
Spec = Annotated[InstanceOf[ConceptSpec], BeforeValidator(_read_spec), PlainSerializer(spec_to_dict)]
Config = Annotated[InstanceOf[EraseConfig], BeforeValidator(_read_config), PlainSerializer(asdict)]


@dataclass(frozen=True)
class Request(Generic[A]):
    """A request whose answer is an A, read as `answer`. REQUEST checks the values, when the worker reads them."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    answer: ClassVar[type]
    kind: str = field(kw_only=True)


@dataclass(frozen=True)
class StatusRequest(Request[StatusAnswer]):
    """What the worker is doing. Answered at once, and never starts a worker."""

    answer = StatusAnswer
    kind: Literal["status"] = field(default="status", kw_only=True)


@dataclass(frozen=True)
class ModelRequest(Request[A]):
    """A request that needs the model `base`. tab: who waits; of its requests of one kind only the newest counts."""

    tab: str
    base: str

    @property
    def needs_judge(self) -> str:
        """The judge that it needs (see `judges.load`), else an empty text."""
        return ""


@dataclass(frozen=True)
class Column:
    """A column of pictures: of the base (no run), or with the weights of a run, to which those of `also` are added.

    strength: how much of the change, 0 none, 1 all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    run: str | None = None
    also: list[str] = field(default_factory=list)
    strength: Annotated[float, Field(ge=-10, le=10)] = 1.0


@dataclass(frozen=True)
class GenerateRequest(ModelRequest[GenerateAnswer]):
    """Pictures of each prompt with each seed in each column.

    ask: for each prompt, the concept that the judge looks for, or None. in_all: pictures that the person waits for, in
    this request and those that follow it; 0 for those of this one. neighbours: what the pictures may show, for a judge
    that compares.
    """

    columns: Annotated[list[Column], Field(min_length=1)]
    prompts: Prompts
    seeds: Seeds
    ask: list[str | None]
    in_all: Annotated[int, Field(ge=0)] = 0
    judge: str = AUTO
    neighbours: list[str] = field(default_factory=list)
    answer = GenerateAnswer
    kind: Literal["generate"] = field(default="generate", kw_only=True)

    @property
    def needs_judge(self) -> str:
        return self.judge if any(self.ask) else ""


@dataclass(frozen=True)
class PreviewRequest(ModelRequest[PreviewAnswer]):
    """Pictures of each prompt with each seed, before and after the instant edit by the spec's training terms. anchor:
    what the target is drawn as instead. fill: how many terms of each list are shown; where the prompts have fewer, the
    hardest are added: the names farthest from the target, and the neighbours nearest to it."""

    spec: Spec
    prompts: Prompts
    seeds: Seeds = field(default_factory=lambda: [0])
    anchor: str | None = None
    fill: Annotated[int, Field(ge=0, le=20)] = 0
    answer = PreviewAnswer
    kind: Literal["preview"] = field(default="preview", kw_only=True)


@dataclass(frozen=True)
class CoverageRequest(ModelRequest[CoverageAnswer]):
    """How often the base draws each term, as its judge sees it."""

    spec: Spec
    answer = CoverageAnswer
    kind: Literal["coverage"] = field(default="coverage", kw_only=True)

    @property
    def needs_judge(self) -> str:
        # No other: a large one must not be loaded while someone curates.
        return EMBEDDED


@dataclass(frozen=True)
class DistancesRequest(ModelRequest[DistancesAnswer]):
    """How far each term is from the target in the base's text encoder, and where on a map."""

    spec: Spec
    answer = DistancesAnswer
    kind: Literal["distances"] = field(default="distances", kw_only=True)


@dataclass(frozen=True)
class EstimateRequest(ModelRequest[Cost]):
    """What a run of these concepts with these settings would cost."""

    specs: Annotated[list[Spec], Field(min_length=1)]
    config: Config
    dtype: str = "auto"
    answer = Cost
    kind: Literal["estimate"] = field(default="estimate", kw_only=True)


def _check_generate(request: GenerateRequest) -> GenerateRequest:
    if len(request.ask) != len(request.prompts):
        raise ValueError(f"ask has {len(request.ask)} entries for {len(request.prompts)} prompts")
    _check_pictures(len(request.columns) * len(request.prompts) * len(request.seeds))
    return request


def _check_preview(request: PreviewRequest) -> PreviewRequest:
    _check_pictures(2 * (len(request.prompts) + 2 * request.fill) * len(request.seeds))
    return request


def _check_pictures(count: int) -> None:
    if count > MOST_PICTURES:
        raise ValueError(f"these are more than {MOST_PICTURES} pictures; ask for fewer prompts or seeds")


# Reads what comes over the socket; the one place where requests are checked.
REQUEST: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        Annotated[GenerateRequest, AfterValidator(_check_generate)]
        | Annotated[PreviewRequest, AfterValidator(_check_preview)]
        | CoverageRequest
        | DistancesRequest
        | EstimateRequest
        | StatusRequest,
        Field(discriminator="kind"),
    ]
)
