"""What every attack is: numbered cases, each of which holds or shows a fault; the same number is the same case."""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# Does case `number`, and returns what went wrong; None where everything held. Counts what it met.
Case = Callable[[int, Counter[str]], str | None]


@dataclass(frozen=True)
class Attack:
    """open: makes what the cases need, and gives the case. cases: how many make the whole attack. share: how many of
    them `make test` does. plot: what is drawn, as the cases counted it one after the other."""

    title: str
    promise: str
    cases: int
    share: int
    open: Callable[[], AbstractContextManager[Case]]
    plot: str = ""


@dataclass(frozen=True)
class Outcome:
    """How far an attack is. faults: what went wrong, by the number of the case. met: what the cases counted."""

    done: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    met: dict[str, float] = field(default_factory=dict)
    machine: str = ""
    date: str = ""


def carry_on(attack: Attack, before: Outcome, until: int) -> Iterator[Outcome]:
    """The outcome after each further case, up to case `until`."""
    done, faults, met = before.done, dict(before.faults), Counter(before.met)
    with attack.open() as case:
        for number in range(done, until):
            if fault := case(number, met):
                faults[str(number)] = fault
            yield Outcome(number + 1, dict(faults), dict(met))


@contextmanager
def own_home() -> Iterator[Path]:
    """A folder of the attack's own as CRCE_HOME."""
    before = os.environ.get("CRCE_HOME")
    with tempfile.TemporaryDirectory(prefix="crce-torture-") as home:
        os.environ["CRCE_HOME"] = home
        try:
            yield Path(home)
        finally:
            os.environ.pop("CRCE_HOME")
            if before is not None:
                os.environ["CRCE_HOME"] = before


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
