"""Generators that report as they work and return a result at the end."""

from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stream(Generic[Item, Result]):
    """Iterate over it once; `result` is then what the generator returned."""

    result: Result

    def __init__(self, steps: Generator[Item, None, Result]):
        self._steps = steps

    def __iter__(self) -> Iterator[Item]:
        self.result = yield from self._steps


def drain(steps: Generator[object, None, Result]) -> Result:
    """Runs the generator to its end and returns its result."""
    stream = Stream(steps)
    for _ in stream:
        pass
    return stream.result
