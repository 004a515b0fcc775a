"""Generators that report as they work and return a result at the end."""

from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stream(Iterator[Item], Generic[Item, Result]):
    """Iterate over it once; `result` is then what the generator returned. Leaving the loop does not close it."""

    result: Result

    def __init__(self, steps: Generator[Item, None, Result]):
        self._steps = steps

    def __next__(self) -> Item:
        try:
            return next(self._steps)
        except StopIteration as end:
            self.result = end.value
            raise


def drain(steps: Generator[object, None, Result]) -> Result:
    """Runs the generator to its end and returns its result."""
    stream = Stream(steps)
    for _ in stream:
        pass
    return stream.result
