"""What is known without a network: the concepts of CorefConcept."""

from crce import library
from crce.concepts import ConceptSpec
from crce.errors import CrceError

CONNECT = (
    "Connect a language model (set OPENAI_BASE_URL, OPENAI_API_KEY and CRCE_MODEL, then start again), "
    "or write the terms by hand."
)


def concepts() -> list[ConceptSpec]:
    """CorefConcept as it is shipped, by name; a broken file is left out."""
    found = []
    for path in library.SHIPPED.rglob("*.json"):
        try:
            found.append(library.load_spec(path))
        except CrceError:
            continue
    return sorted(found, key=lambda spec: spec.name.casefold())


def known(target: str, sense: str = "") -> list[ConceptSpec]:
    """The concepts of that name, or the one of that sense; "joker" is "The Joker"."""
    named = [spec for spec in concepts() if _bare(target) in (_bare(spec.target), _bare(spec.name))]
    return [spec for spec in named if sense.casefold() in ("", spec.sense.casefold())]


def _bare(name: str) -> str:
    return name.casefold().removeprefix("the ").strip()
