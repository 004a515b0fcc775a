"""Reading JSON from files and sockets into frozen dataclasses. The dataclasses themselves need no pydantic."""

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from crce.errors import CrceError

T = TypeVar("T")


def parse(kind: type[T], facts: object, name: str) -> T:
    """`facts`, as json.loads returns them, as the dataclass `kind`; unknown keys are ignored.

    name: what is read, for the error. Raises CrceError for a missing key or a value of the wrong type.
    """
    try:
        return _adapter(kind).validate_python(facts)
    except ValidationError as error:
        raise CrceError(f"{name} cannot be read: {first_problem(error)}.") from None


def first_problem(error: ValidationError, whole: str = "record") -> str:
    """ "prompts.0: Input should be a valid string"; `whole` stands for a problem that has no place."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
