"""Reading JSON from files and sockets into frozen dataclasses. The dataclasses themselves need no pydantic."""

from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from crce import files
from crce.errors import CrceError

# What reading a file that was damaged may fail with, before it is a dataclass.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, CrceError)

T = TypeVar("T")


def parse(kind: type[T], facts: object, name: str) -> T:
    """`facts`, as json.loads returns them, as the dataclass `kind`; unknown keys are ignored.

    name: what is read, for the error. Raises CrceError for a missing key or a value of the wrong type.
    """
    try:
        return _adapter(cast(Hashable, kind)).validate_python(facts)
    except ValidationError as error:
        raise CrceError(f"{name} cannot be read: {first_problem(error)}.") from None


def read(kind: type[T], path: Path) -> T:
    """The JSON file as the dataclass `kind`. Raises CrceError for a file that cannot be read, whatever is wrong."""
    try:
        return parse(kind, files.read_json(path), path.name)
    except (OSError, ValueError, RecursionError) as error:
        raise CrceError(f"{path.name} cannot be read: {describe(error)}.") from None


def describe(error: BaseException) -> str:
    """What is wrong with a file, in a line."""
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__


def first_problem(error: ValidationError, whole: str = "record") -> str:
    """ "prompts.0: Input should be a valid string"; `whole` stands for a problem that has no place."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
